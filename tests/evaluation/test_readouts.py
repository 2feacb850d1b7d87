"""Read-outs: closed forms, control tasks, intervals, bad input."""

import pytest
import torch
from sklearn.linear_model import Ridge

from ciper.evaluation.readouts import (
    PENALTIES,
    Target,
    control,
    decode,
    moments,
    ridge,
    score,
    split_images,
)

EACH = 4


@pytest.fixture
def g():
    return torch.Generator().manual_seed(1)


def rows_of(h):
    return lambda rows: h[rows]


def number(values, name="r"):
    return Target(name, "continuous", values)


# the split


@pytest.mark.parametrize("n", [8, 9, 100, 2001])
def test_every_image_is_in_one_part(n):
    parts = split_images(n)
    assert sorted(torch.cat(parts).tolist()) == list(range(n))
    assert all(len(part) >= 2 for part in parts)


def test_rows_of_an_image_stay_together():
    rows = split_images(50, seed=3).rows(EACH)
    images = [{*(part // EACH).tolist()} for part in rows]
    assert not (images[0] & images[1] or images[0] & images[2])
    assert sum(map(len, rows)) == 50 * EACH


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least 8 images, got 7"):
        split_images(7)


# the line


def test_a_ridge_from_moments_equals_scikit_learns(g):
    h = 5 + torch.randn(300, 12, generator=g) * torch.logspace(-2, 2, 12)
    r = torch.randn(300, 1, generator=g) + h[:, :1]
    fit, choose = torch.arange(200), torch.arange(200, 250)
    m = moments(rows_of(h), r, fit)
    line = ridge(rows_of(h), m, r, choose, [slice(0, 1)], 50)
    x = ((h - m.mean_x) / m.scale_x).double().numpy()
    read = line(torch.arange(300)).double().numpy()
    fits = [
        Ridge(alpha=p * 200).fit(x[:200], r[:200, 0].double().numpy())
        for p in PENALTIES
    ]
    gaps = [abs(f.predict(x) - read[:, 0]).max() for f in fits]
    assert min(gaps) < 1e-3 and len([gap for gap in gaps if gap < 1e-3]) < 9


def test_with_few_images_the_strongest_fair_penalty_is_taken(g):
    h, r = torch.randn(60, 200, generator=g), torch.randn(60, 1, generator=g)
    m = moments(rows_of(h), r, torch.arange(40))
    line = ridge(rows_of(h), m, r, torch.arange(40, 60), [slice(0, 1)], 20)
    assert line(torch.arange(40, 60)).std() < 0.5 * r.std()


def test_moments_do_not_depend_on_a_large_mean(g):
    h, r = torch.randn(500, 3, generator=g), torch.randn(500, 1, generator=g)
    near = moments(rows_of(h), r, torch.arange(500))
    far = moments(rows_of(h + 1000), r, torch.arange(500))
    assert torch.allclose(near.xx, far.xx, atol=1e-3)


def test_a_number_that_never_varies_disturbs_nothing(g):
    h = torch.randn(400, 3, generator=g)
    h[:, 2] = 7
    found = decode(rows_of(h), [number(h[:, 0])], split_images(400))
    assert found["r"].linear.value > 0.999


# scores with known values


@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0])
def test_a_known_signal_to_noise_ratio_gives_its_closed_form(g, noise):
    r = torch.randn(8000, generator=g)
    h = torch.randn(8000, 5, generator=g)
    h[:, 0] = r + noise**0.5 * torch.randn(8000, generator=g)
    found = decode(rows_of(h), [number(r)], split_images(2000))["r"]
    low, high = found.linear.interval
    assert low < 1 / (1 + noise) < high
    assert abs(found.any.value - 1 / (1 + noise)) < 0.02


def test_a_product_is_found_by_the_network_alone(g):
    h = torch.randn(8000, 6, generator=g)
    asked = [number(h[:, 0] * h[:, 1])]
    found = decode(rows_of(h), asked, split_images(2000))["r"]
    assert abs(found.linear.value) < 0.05 and found.any.value > 0.9


def test_r2_is_one_minus_the_relative_error():
    target = number(torch.tensor([0.0, 1, 2, 3]))
    read = torch.tensor([[0.0], [1], [2], [4]])
    value = score(target, torch.arange(4), read, torch.arange(4)).value
    assert value == pytest.approx(1 - 1 / 5)


def test_balanced_accuracy_is_corrected_for_chance():
    target = Target("c", "binary", torch.tensor([0.0, 0, 0, 1, 1]))
    read = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [1, 0]])
    value = score(target, torch.arange(5), read, torch.arange(5)).value
    assert value == pytest.approx(2 * (2 / 3 + 1 / 2) / 2 - 1)


def test_a_constant_answer_scores_zero_however_rare_the_other_class():
    target = Target("c", "binary", (torch.arange(100) < 5).float())
    read = torch.tensor([[1.0, 0]]).expand(100, 2)
    value = score(target, torch.arange(100), read, torch.arange(100)).value
    assert value == pytest.approx(0)


def test_an_angle_read_exactly_has_no_error_at_the_seam(g):
    angle = 360 * torch.rand(4000, generator=g)
    turn = angle.deg2rad()
    h = torch.stack([turn.cos(), turn.sin()], 1)
    asked = [Target("a", "circular", angle)]
    found = decode(rows_of(h), asked, split_images(1000))["a"]
    assert found.linear.value > 0.999 and found.details["error_deg"] < 1


def test_classes_keep_their_names_and_a_class_without_images_is_no_matter(g):
    y = torch.randint(3, (4000,), generator=g).float() * 5
    h = torch.nn.functional.one_hot((y / 5).long(), 4).float()
    found = decode(
        rows_of(h), [Target("c", "categorical", y)], split_images(1000)
    )["c"]
    assert found.linear.value == 1
    assert found.details == {"balanced_accuracy": 1, "auc": 1}


# intervals


def test_intervals_over_images_cover_at_their_rate(g):
    """Shared noise within an image: 200 worlds, the truth is 1/2."""

    def covers():
        r = torch.randn(120, EACH, generator=g)
        noise = torch.randn(120, 1, generator=g) * 0.5**0.5
        noise = noise + torch.randn(120, EACH, generator=g) * 0.5**0.5
        read = ((r + noise) / 2).flatten()[:, None]
        rows = torch.arange(120 * EACH)
        s = score(number(r.flatten()), rows, read, rows // EACH)
        return s.interval[0] <= 0.5 <= s.interval[1]

    assert 180 <= sum(covers() for _ in range(200)) <= 199


def test_intervals_over_rows_would_be_too_narrow(g):
    """The reason why images are drawn and not rows."""
    r = torch.randn(120, 1, generator=g).expand(120, 40)
    noise = torch.randn(120, 1, generator=g).expand(120, 40)
    read = ((r + noise) / 2).flatten()[:, None]
    target, rows = number(r.flatten()), torch.arange(120 * 40)
    wide = score(target, rows, read, rows // 40).interval
    narrow = score(target, rows, read, rows).interval
    assert wide[1] - wide[0] > 4 * (narrow[1] - narrow[0])


def test_few_images_have_no_interval(g):
    r = torch.randn(9, generator=g)
    found = score(number(r), torch.arange(9), r[:, None], torch.arange(9))
    assert found.interval is None and found.value == 1


# the control task


def test_shuffled_targets_give_the_floor(g):
    h = torch.randn(4000, 100, generator=g)
    others = control([number(h[:, 0])], 1000)
    found = decode(rows_of(h), others, split_images(1000))["r, shuffled"]
    assert abs(found.linear.value) < 0.03 and abs(found.any.value) < 0.03


def test_a_control_moves_whole_images(g):
    values = torch.arange(40.0)
    moved = control([number(values)], 10)[0].values.view(10, EACH)
    blocks = {tuple(block) for block in values.view(10, EACH).tolist()}
    assert {tuple(block) for block in moved.tolist()} == blocks
    assert not torch.equal(moved.flatten(), values)


def test_controls_leave_the_scores_of_targets_as_they_are(g):
    h = torch.randn(800, 6, generator=g)
    asked, parts = [number(h[:, 0] * h[:, 1])], split_images(200)
    alone = decode(rows_of(h), asked, parts)
    both = decode(rows_of(h), asked, parts, 0, control(asked, 200))
    assert both["r"].any.value == pytest.approx(alone["r"].any.value, abs=0.01)
    assert both.keys() == {"r", "r, shuffled"}


# the same twice, and refusals


def test_two_calls_agree_to_the_bit(g):
    h = torch.randn(800, 6, generator=g)
    asked = [number(h[:, 0] * h[:, 1])]
    a, b = (decode(rows_of(h), asked, split_images(200)) for _ in range(2))
    assert a == b


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.ones(400), "does not vary: it is 1"),
        (torch.full((400,), torch.nan), "must be finite"),
    ],
)
def test_what_cannot_be_asked_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        decode(
            rows_of(torch.ones(400, 2)), [number(values)], split_images(100)
        )


def test_nothing_asked_is_refused():
    with pytest.raises(ValueError, match="at least one target"):
        decode(rows_of(torch.ones(400, 2)), [], split_images(100))
