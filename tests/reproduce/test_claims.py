"""The paper's sentences: what they compare, and how they are judged."""

import math

import pytest
from invented import result
from scipy import stats

from ciper.reproduce.claims import (
    CLAIMS,
    INSIDE,
    OPERATIONS,
    PHOTOS,
    VIEWS,
    Claim,
    Part,
    after_holm,
    claims_table,
    finding,
    holm,
    joint,
    judge,
    judgments,
    p_value,
    verdict,
)
from ciper.reproduce.plans import DATA, ROWS, plan
from ciper.reproduce.results import Summary, paired_difference
from ciper.reproduce.tables import COLUMNS, METRICS

STAND_INS = {
    "tdw": "turntable",
    "core50": "turntable-rooms",
    "cifar10": "digits",
}
SIMCLR = [0.80, 0.82, 0.79, 0.83, 0.81]
CIPER = [0.84, 0.85, 0.84, 0.86, 0.83]
PARTS = [
    (c, i, Part.read(line)) for c in CLAIMS for i, line in enumerate(c.parts)
]


def trainings(item, data, metric, values, scale="laptop"):
    """Results of rows: label -> a value for each seed."""
    jobs = plan(item, scale, range(5), [data])
    return [
        result(job, **{metric: values[job.label][job.recipe.seed]})
        for job in jobs
        if job.recipe.seed < len(values.get(job.label, ()))
    ]


def photos(simclr=SIMCLR, ciper=CIPER, data="digits", scale="laptop"):
    values = {"simclr-image": simclr, "ciper-image": ciper}
    return trainings("table 3", data, "linear_accuracy", values, scale)


def views(better, worse):
    values = {"ciper-dataset": better, "simclr-dataset": worse}
    return trainings("table 2", "turntable", "view_mse_steps", values)


# the test


def test_p_is_that_of_scipys_paired_test():
    difference = paired_difference(
        photos(), "ciper-image", "simclr-image", "linear_accuracy"
    )
    expected = stats.ttest_rel(CIPER, SIMCLR).pvalue
    assert p_value(difference) == pytest.approx(expected, rel=1e-9)
    mirrored = difference._replace(mean=-difference.mean)
    assert p_value(mirrored) == p_value(difference)


@pytest.mark.parametrize(
    ("difference", "p"),
    [
        (Summary(1.0, 0.0, 3), 0.0),
        (Summary(0.0, 0.0, 3), 1.0),
        (Summary(0.0, 1.0, 3), 1.0),
        (Summary(1.0, math.nan, 1), math.nan),
    ],
)
def test_p_of_degenerate_differences(difference, p):
    assert p_value(difference) == pytest.approx(p, nan_ok=True)


@pytest.mark.parametrize(
    ("mean", "better", "outcome"),
    [
        (0.02, 1, "holds"),
        (-0.02, 1, "does not hold"),
        (-0.02, -1, "holds"),
        (0.02, -1, "does not hold"),
        (0.002, 1, "not settled"),
        (-0.002, -1, "not settled"),
    ],
)
def test_the_verdict_follows_the_direction_of_the_metric(
    mean, better, outcome
):
    assert verdict(Summary(mean, 0.01, 5), better) == outcome


def test_one_pair_settles_nothing():
    assert verdict(Summary(9.0, math.nan, 1)) == "not settled"


def test_the_border_is_a_p_of_5_percent():
    critical = stats.t.ppf(0.975, 4) / math.sqrt(5)
    assert verdict(Summary(critical * 1.001, 1.0, 5)) == "holds"
    assert verdict(Summary(critical * 0.999, 1.0, 5)) == "not settled"


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "not settled"], "not settled"),
        (["not settled", "does not hold"], "does not hold"),
        (["does not hold", "holds"], "does not hold"),
    ],
)
def test_a_claim_is_as_good_as_its_worst_part(verdicts, outcome):
    assert joint(verdicts) == outcome


# the list


def test_there_are_at_least_ten_claims_and_no_two_alike():
    assert len(CLAIMS) == len({claim.text for claim in CLAIMS}) >= 10


def test_a_part_is_read_from_its_line():
    part = Part.read("tdw view_mse_steps: ciper-dataset > random")
    assert part == ("tdw", "view_mse_steps", "ciper-dataset", "random")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_a_claim_names_rows_that_are_trained_and_metrics_that_are_shown(claim):
    assert claim.parts
    for line in claim.parts:
        part = Part.read(line)
        assert line == f"{part[0]} {part[1]}: {part[2]} > {part[3]}"
        assert part.data in {"cifar10", "core50", "tdw"}
        assert part.metric in METRICS
        items = [item for item in ROWS if part.data in DATA[item]]
        jobs = [j for i in items for j in plan(i, "paper", [0], [part.data])]
        labels = {job.label for job in jobs}
        assert {part.better, part.worse} <= labels
        assert part.better != part.worse


def test_only_claims_on_photographs_are_judged_on_what_stands_in_for_them():
    """`claims_table` takes other photographs for these two groups alone."""
    on_photos = {c for c, _, part in PARTS if part.data == "cifar10"}
    assert on_photos == {*PHOTOS, *OPERATIONS}
    assert {p.data for c, _, p in PARTS if c in on_photos} == {"cifar10"}


def paper_number(part, row):
    """The number that the paper's tables print, without its spread."""
    for column in COLUMNS["table 2"] + COLUMNS["table 3"]:
        if (column.data, column.metric) == part[:2]:
            return column.paper[row].split(" ± ")[0]
    raise LookupError(part)


NUMBERED = [c for c in CLAIMS if c.paper not in ("bars", "curves", "picture")]


@pytest.mark.parametrize("claim", NUMBERED, ids=lambda claim: claim.text)
def test_the_papers_numbers_in_a_claim_are_those_of_its_tables(claim):
    pairs = [text.split(", ") for text in claim.paper.split("; ")]
    found = [[number.split(" ± ")[0] for number in pair] for pair in pairs]
    parts = [Part.read(line) for line in claim.parts]
    rows = [(part.better, part.worse) for part in parts]
    expected = [
        [paper_number(part, row) for row in pair]
        for part, pair in zip(parts, rows)
    ]
    assert found == expected


def test_claims_without_numbers_are_on_the_figures():
    for claim in set(CLAIMS) - set(NUMBERED):
        assert "Figure" in claim.place


# judging


def test_a_claim_that_the_results_bear_out_holds():
    judged = judge(PHOTOS[0], photos(), STAND_INS)
    p = stats.ttest_rel(CIPER, SIMCLR).pvalue
    assert judged[:5] == (
        PHOTOS[0],
        "Digits",
        f"84.4, 81 (p = {p:.2g})",
        "holds",
        5,
    )
    ((value, way),) = judged.parts
    assert (value, way) == (pytest.approx(p, rel=1e-9), "holds")


def test_results_the_other_way_round_do_not_hold():
    judged = judge(PHOTOS[0], photos(CIPER, SIMCLR), STAND_INS)
    assert judged.verdict == "does not hold"


def test_less_of_an_error_is_better():
    low, high = [6.0, 6.2, 6.1], [40.0, 41.0, 40.5]
    assert judge(VIEWS[0], views(low, high), STAND_INS).verdict == "holds"
    other = judge(VIEWS[0], views(high, low), STAND_INS)
    assert other.verdict == "does not hold"


def test_a_smaller_azimuth_gap_and_more_saliency_inside_are_better():
    gap = {"ciper-dataset": [20.0, 21, 20], "simclr-dataset": [50.0, 52, 50]}
    item = "table 2", "turntable", "azimuth_gap_deg"
    judged = judge(INSIDE[0], trainings(*item, gap), STAND_INS)
    assert judged.verdict == "holds"
    mass = {"ciper-dataset": [0.1, 0.11, 0.1], "simclr-dataset": [0.2] * 3}
    item = "table 2", "turntable-rooms", "mass_inside"
    judged = judge(INSIDE[1], trainings(*item, mass), STAND_INS)
    assert judged.verdict == "holds"


def test_a_claim_without_its_trainings_has_no_verdict():
    only = [r for r in photos() if r.method == "simclr-image"]
    assert judge(PHOTOS[0], only, STAND_INS) is None
    assert judge(PHOTOS[0], [], STAND_INS) is None
    elsewhere = photos(data="turntable")
    assert judge(PHOTOS[0], elsewhere, STAND_INS) is None


def test_one_part_without_trainings_leaves_the_whole_claim_out():
    values = {row: [0.9, 0.91] for row in ("ciper-image", "simclr-image")}
    values["ciper-image-without=crop"] = [0.5, 0.5]
    some = trainings("figure 4a", "digits", "linear_accuracy", values)
    part = OPERATIONS[0]._replace(parts=OPERATIONS[0].parts[:1])
    assert judge(part, some, STAND_INS).verdict == "holds"
    assert judge(OPERATIONS[0], some, STAND_INS) is None


def test_rows_without_a_common_seed_are_not_compared():
    made = photos(SIMCLR[:1], ()) + photos((), CIPER)
    apart = [r for r in made if r.method == "simclr-image" or r.seed > 0]
    assert len(apart) == 5
    assert judge(PHOTOS[0], apart, STAND_INS) is None


def test_seeds_that_one_row_lacks_are_not_compared():
    judged = judge(PHOTOS[0], photos(SIMCLR[:3]), STAND_INS)
    p = stats.ttest_rel(CIPER[:3], SIMCLR[:3]).pvalue
    assert judged.n == 3 and f"(p = {p:.2g})" in judged.ours


def test_one_seed_is_shown_without_a_p():
    judged = judge(PHOTOS[0], photos(SIMCLR[:1], CIPER[:1]), STAND_INS)
    assert judged[2:5] == ("84, 80", "not settled", 1)


def test_a_claim_of_two_data_sets_names_both_and_counts_the_fewest():
    claim = Claim(
        "both",
        "here",
        "",
        (
            "tdw linear_accuracy: ciper-dataset > simclr-dataset",
            "core50 linear_accuracy: ciper-dataset > simclr-dataset",
        ),
    )
    values = {"ciper-dataset": CIPER, "simclr-dataset": SIMCLR}
    fewer = {"ciper-dataset": SIMCLR[:3], "simclr-dataset": CIPER[:3]}
    item = "table 2", "linear_accuracy"
    made = trainings(item[0], "turntable", item[1], values)
    made += trainings(item[0], "turntable-rooms", item[1], fewer)
    judged = judge(claim, made, STAND_INS)
    assert judged.data == "Turntable, Turntable-rooms"
    assert (judged.verdict, judged.n) == ("does not hold", 3)


# the table


def rows(text):
    header, _, *lines = (line.strip("| ") for line in text.splitlines())
    return [dict(zip(header.split(" | "), x.split(" | "))) for x in lines]


def test_the_table_has_a_row_for_each_claim_with_results():
    assert rows(claims_table([], "laptop")) == []
    (row,) = rows(claims_table(photos(), "laptop"))
    p = stats.ttest_rel(CIPER, SIMCLR).pvalue
    assert row == {
        "claim": "CIPER improves on SimCLR with image augmentations",
        "where": "4.2, Table 3",
        "data": "Digits",
        "ours": f"84.4, 81 (p = {p:.2g})",
        "paper": "92.2 ± 0.3, 91.7 ± 0.1",
        "verdict": "**holds**",
        "n": "5",
    }


def test_the_table_has_each_photographs_claim_once_a_data_set():
    made = photos() + photos(CIPER, SIMCLR, "turntable")
    found = rows(claims_table(made, "laptop"))
    assert [row["data"] for row in found] == ["Digits", "Turntable"]
    verdicts = [row["verdict"] for row in found]
    assert verdicts == ["**holds**", "**does not hold**"]


@pytest.mark.parametrize("name", ["cifar10", "folder:elsewhere/cifar10"])
def test_the_table_takes_other_photographs(name):
    made = photos() + photos(data="cifar10")
    (row,) = rows(claims_table(made, "laptop", [name]))
    assert row["data"] == "CIFAR-10"


def test_the_table_leaves_other_scales_out():
    made = photos() + photos(CIPER, SIMCLR, scale="smoke")
    made += photos(CIPER, SIMCLR, scale="laptop-3")
    assert claims_table(made, "laptop") == claims_table(photos(), "laptop")


def test_fewer_epochs_are_judged_on_what_stands_in_as_well():
    (row,) = rows(claims_table(photos(scale="laptop-3"), "laptop-3"))
    assert (row["data"], row["verdict"]) == ("Digits", "**holds**")


@pytest.mark.parametrize("scale", ["paper", "paper-100"])
def test_at_paper_scale_the_papers_own_data_are_judged(scale):
    made = photos(data="cifar10", scale=scale)
    values = {"ciper-dataset": [6.5, 6.6], "simclr-dataset": [40.0, 41.0]}
    item = "table 2", "tdw", "view_mse_steps"
    made += trainings(*item, values, scale)
    found = rows(claims_table(made, scale))
    assert [row["data"] for row in found] == ["CIFAR-10", "TDW"]


def test_every_claim_has_a_row_once_everything_is_trained():
    jobs = {j for i in ROWS for j in plan(i, "laptop", range(2))}
    numbers = {name: 0.5 for name in METRICS}
    found = rows(claims_table([result(j, **numbers) for j in jobs], "laptop"))
    texts = {row["claim"] for row in found}
    assert texts == {claim.text for claim in CLAIMS}


# many tests, and what a page says


def test_holm_multiplies_by_the_number_of_tests_that_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02, math.nan]) == [0.04, 1.0]
    assert holm([]) == []


def test_a_verdict_that_many_tests_undo_is_corrected():
    near = [x + 0.013 + 0.01 * (-1) ** i for i, x in enumerate(SIMCLR)]
    made = photos(SIMCLR, near) + photos(data="turntable")
    judged = judgments(made, "laptop")
    p = sorted(p for j in judged for p, _ in j.parts)
    assert p[0] < 0.025 < p[1] < 0.05  # 0.05 / 2
    assert [j.verdict for j in judged] == ["holds", "holds"]
    assert after_holm(judged) == ["holds", "holds"]  # the last is left as is
    more = judged + [judged[0]._replace(parts=((0.9, "holds"),))]
    assert after_holm(more) == ["not settled", "holds", "not settled"]


def test_a_contrary_verdict_stays_contrary_after_the_correction():
    judged = judgments(photos(CIPER, SIMCLR), "laptop")
    assert after_holm(judged) == ["does not hold"]


def test_a_finding_has_the_verdict_and_numbers_of_its_claims():
    judged = judgments(photos(CIPER, SIMCLR), "laptop")
    p = stats.ttest_rel(CIPER, SIMCLR).pvalue
    claim, line, *_ = finding(judged, PHOTOS[0].text).splitlines()
    assert claim == f"- *{PHOTOS[0].text}*"
    ours = f"81 against 84.4, p = {p:.2g}; 5 pairs"
    assert line == f"  - Digits: **does not hold** ({ours})"


def test_a_finding_says_which_verdict_is_undone_and_how_many_were_tested():
    judged = judgments(photos(), "laptop")
    many = judged * 20
    p = stats.ttest_rel(CIPER, SIMCLR).pvalue
    assert p < 0.05 < 20 * p
    text = finding(many, PHOTOS[0].text)
    assert text.count("; corrected: not settled") == 20
    assert "one of 20 that were tested" in text
    assert "corrected" not in finding(judged, PHOTOS[0].text)


def test_a_finding_of_a_claim_without_trainings_says_so():
    text = finding(judgments(photos(), "laptop"), VIEWS[0].text)
    assert text.splitlines()[:2] == [
        f"- *{VIEWS[0].text}*",
        "  - no trainings yet",
    ]


def test_a_finding_on_words_that_no_claim_has_is_refused():
    with pytest.raises(ValueError, match="unknown claim 'CIPER improves'"):
        finding([], "CIPER improves")
