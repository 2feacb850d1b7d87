"""Cards: plain data, sentences that agree with their numbers, pictures."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from ciper.evaluation.cards import (
    Audit,
    Kept,
    card_html,
    card_table,
    draw_card,
    failures,
    sentences,
)


def entry(any=0.5, half=0.02, **more):
    interval = None if half is None else (any - half, any + half)
    parts = dict(linear_interval=interval, floor=0.01) | more
    return Kept("continuous", any, any, interval, **parts)


def card(encoder="mine", **kept):
    return Audit(
        encoder,
        "photos",
        kept or {"hue": entry()},
        {"all": {"own": [0.9], "others": [0.0], "retrieved": [0.75]}},
        {"all": {"map": 0.2, "no_change": 0.5}},
        {"effective_rank": 9.0},
        {"scored": 500, "strengths": {"crop": [1.0]}},
        {"seconds": 3.0},
    )


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


# data


def test_a_card_comes_back_equal(tmp_path):
    mine = card(hue=entry(sources={"view": (0.1, 0.2)}), x=entry(half=None))
    assert Audit.load(mine.save(tmp_path / "a.json")) == mine


def test_a_card_is_plain_json(tmp_path):
    path = card().save(tmp_path / "deep" / "a.json")
    assert json.loads(path.read_text())["kept"]["hue"]["any"] == 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"kept": 3},
        {"kept": {"hue": {}}},
        {"kept": {"hue": {"any": "much"}}},
        {"format": 2},
        {"useful": []},
        {"encoder": 7},
        {"more": 1},
    ],
)
def test_what_is_no_card_is_refused_with_its_name(tmp_path, change):
    path = card().save(tmp_path / "a.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="a.json is no card"):
        Audit.load(path)


def test_a_missing_card_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Audit.load(tmp_path / "a.json")


# sentences


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (entry(0.9), "keeps"),
        (entry(0.52, half=0.05), "in part"),  # half is in the interval
        (entry(0.42, ceiling=0.8), "in part"),
        (entry(0.45, ceiling=0.8), "keeps"),  # above half of the ceiling
        (entry(0.2), "in part"),
        (entry(0.2, half=0.3), "lost"),  # not surely above the floor
        (entry(0.2, floor=0.19), "lost"),
        (entry(0.04, half=0.001, floor=0.0), "lost"),
        (entry(-0.1), "lost"),
    ],
)
def test_a_verdict_follows_from_the_numbers(made, verdict):
    said = " ".join(sentences(card(hue=made)))
    found = [w for w in ("keeps", "in part", "lost") if w in said]
    assert found == [verdict]


def test_sentences_hold_the_numbers_of_the_card():
    many = {f"p{i}": entry(i / 10) for i in range(10)}
    said = " ".join(sentences(card(**many)))
    for name, kept in many.items():
        assert f"{name} ({kept.any:.2f} ± 0.02" in said
    assert "75% of the views" in said and "foresees 60%" in said


def test_there_are_five_sentences_at_most():
    few = {f"p{i}": entry(i / 10, half=None) for i in range(10)}
    assert len(sentences(card(**few))) <= 5


def test_too_few_images_for_an_interval_are_said():
    said = sentences(card(hue=entry(0.9, half=None)))
    assert said[-1] == "Only 500 images were scored: too few for intervals."


# table, picture, HTML


def test_the_table_has_a_row_a_name_and_a_column_an_encoder():
    lines = card_table([card("a|b"), card("c", x=entry())]).splitlines()
    assert len(lines) == 4 and lines[0].endswith(r"| a\|b | c |")
    assert lines[2].endswith("| 0.50 ± 0.02 (line 0.50) | – |")


def test_the_picture_shows_encoders_as_bars_and_the_others_as_marks():
    fig = draw_card([card("mine"), card("pixels"), card("random:resnet18")])
    (ax,) = fig.axes
    assert len(ax.patches) == 2  # a line, and a network on top
    marks = [line for line in ax.lines if line.get_marker() in ("s", "o")]
    assert [line.get_xdata()[0] for line in marks] == [0.5, 0.5]


def test_raw_pixels_alone_are_shown_as_bars():
    assert len(draw_card([card("pixels")]).axes[0].patches) == 2


def test_a_score_below_zero_is_drawn_as_none():
    (ax,) = draw_card([card(hue=entry(-0.3))]).axes
    assert {bar.get_width() for bar in ax.patches} == {0}


@pytest.mark.parametrize("count", [0, 5])
def test_other_numbers_of_encoders_are_refused(count):
    with pytest.raises(ValueError, match="at least one|4 encoders, got 5"):
        draw_card([card(str(i)) for i in range(count)])


def test_html_has_names_escaped_and_no_request():
    html = card_html([replace(card(), encoder="<script>x</script>")])
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "http" not in html.replace("data:image", "")


def test_a_card_shows_itself():
    assert card()._repr_html_().count("<img") == 1
    assert repr(card()).startswith("mine on photos\n")


# checks


def test_a_check_names_what_falls_short():
    mine = card(hue=entry(0.5), x=entry(0.9))
    assert failures(mine, {"x": 0.9}) == []
    assert failures(mine, {"x": 0.1, "hue": 0.6}) == [
        "hue is 0.500, below 0.6"
    ]


@pytest.mark.parametrize("least", [{"azimuth": 0.5}, {"hue": float("nan")}])
def test_a_check_that_means_nothing_is_refused(least):
    with pytest.raises(ValueError, match="has no 'azimuth'|must be a number"):
        failures(card(), least)
