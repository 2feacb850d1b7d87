"""The turn between two views, read from representations of known content."""

import math
from dataclasses import replace

import pytest
import torch
from invented import turning

from ciper.evaluation.changes import (
    _pairs,
    change_error,
    fit_change,
)
from ciper.evaluation.changes import (
    turning as turning_factor,
)
from ciper.evaluation.probes import angles_between


@pytest.fixture
def g():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def data():
    return replace(turning(objects=8), partners=("azimuth",))


@pytest.fixture
def direction(data):
    angle = data.factors["azimuth"].values.deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_the_factor_that_turns_is_the_circular_partner(data):
    assert turning_factor(data) == "azimuth"
    assert turning_factor(replace(data, partners=())) == ""


def test_pairs_are_two_images_of_one_object_with_their_turn(data, direction):
    rows = torch.arange(len(data), dtype=torch.float32)[:, None]
    x, turn = _pairs(rows, data, 500, seed=3)
    i, j = x.long().T
    object = data.factors["object"].values
    assert (i != j).all() and torch.equal(object[i], object[j])
    degrees = data.factors["azimuth"].values
    expected = (degrees[j] - degrees[i]).deg2rad()
    torch.testing.assert_close(turn, expected, atol=1e-5, rtol=0)


def test_a_turn_is_read_on_unseen_objects_where_all_share_a_direction(
    data, direction
):
    seen = data.labels < 6
    probe = fit_change(direction[seen], data[seen], pairs=4000)
    assert change_error(probe, direction[~seen], data[~seen], 500) < 8


def test_noise_is_at_chance(data, g):
    h = torch.randn(len(data), 6, generator=g)
    seen = data.labels < 6
    probe = fit_change(h[seen], data[seen], pairs=2000)
    assert 75 < change_error(probe, h[~seen], data[~seen], 500) < 105


def test_the_same_seed_gives_the_same_error(data, direction):
    probes = [fit_change(direction, data, 300, seed=1) for _ in range(2)]
    errors = {change_error(probe, direction, data, 50) for probe in probes}
    assert len(errors) == 1


@pytest.mark.parametrize(("a", "b", "degrees"), [(350, 10, 20), (0, 180, 180)])
def test_the_angle_between_is_the_short_way_around(a, b, degrees):
    a, b = (
        torch.tensor([[math.cos(math.radians(x)), math.sin(math.radians(x))]])
        for x in (a, b)
    )
    assert angles_between(a, b).item() == pytest.approx(degrees, abs=1e-3)


def test_what_has_no_turn_is_refused(data, direction):
    with pytest.raises(ValueError, match="no object turns"):
        fit_change(direction, replace(data, partners=()))
    with pytest.raises(ValueError, match="finite rows"):
        fit_change(direction[1:], data)
    with pytest.raises(ValueError, match="finite rows"):
        fit_change(direction * math.nan, data)
    single = data[data.factors["azimuth"].values == 0]
    with pytest.raises(ValueError, match="only one image"):
        fit_change(torch.zeros(len(single), 2), single)


def test_an_object_with_one_image_is_left_out(data, direction):
    keep = (data.labels > 0) | (data.factors["azimuth"].values == 0)
    rows = torch.arange(int(keep.sum()), dtype=torch.float32)[:, None]
    x, _ = _pairs(rows, data[keep], 300, seed=0)
    assert (data[keep].labels[x.long()] > 0).all()
