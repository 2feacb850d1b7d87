"""What `ciper.data.sources` promises: partners, targets and batches."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from replicas import (
    SMALL_CORE50,
    SMALL_TDW,
    core50,
    generator,
    tdw,
    toy,
)

from ciper.augment.chain import Augment
from ciper.data.datasets import load
from ciper.data.folders import read_core50, read_tdw
from ciper.data.sources import (
    AugmentedViews,
    Neighbors,
    PartnerViews,
    to_float,
)


def test_a_circular_change_is_cosine_and_sine_of_the_turn():
    source = PartnerViews(toy(), "circular")
    change = source._change(torch.tensor([0]), torch.tensor([1]))
    turn = math.radians(20)
    expected = torch.tensor([[math.cos(turn), math.sin(turn)]])
    torch.testing.assert_close(change, expected, atol=1e-6, rtol=0)
    assert source.names == ("factor (cos)", "factor (sin)")
    assert source.classes == (0, 0)


def test_a_raw_change_of_an_angle_is_a_difference_that_is_not_wrapped():
    source = PartnerViews(toy())
    there, back = torch.tensor([0]), torch.tensor([2])
    degrees = toy().factors["factor"].values
    for i, j in ((there, back), (back, there)):
        assert source._change(i, j).item() == degrees[j] - degrees[i]
    assert (source.names, source.classes) == (("factor",), (0,))
    with pytest.raises(ValueError, match="did you mean 'raw'"):
        PartnerViews(toy(), "row")


def test_a_continuous_change_is_a_difference():
    source = PartnerViews(toy("continuous"))
    change = source._change(torch.tensor([1]), torch.tensor([2]))
    assert change.tolist() == [[80.0]]


def test_a_categorical_target_is_the_class_of_the_partner():
    source = PartnerViews(toy("categorical"))
    assert source.classes == (3,)
    change = source._change(torch.tensor([0]), torch.tensor([2]))
    assert change.tolist() == [[2.0]]


def test_partners_are_others_of_the_same_object_drawn_uniformly():
    whole, n = toy(), 20_000
    source = PartnerViews(whole)
    index = torch.arange(5).repeat(n)
    partner = source.companions.draw(index, generator())
    owner = whole.factors["object"].values
    assert (partner != index).all()
    assert torch.equal(owner[partner], owner[index])
    counts = torch.bincount(partner[index == 0], minlength=5)
    assert abs(counts[1].item() - n / 2) < 4 * math.sqrt(n / 4)


def test_an_object_with_one_image_has_no_partner():
    with pytest.raises(ValueError, match="only one image"):
        PartnerViews(toy().subset(torch.tensor([0, 1, 2, 3])))


def test_data_without_partners_are_refused():
    with pytest.raises(ValueError, match="no partner views"):
        PartnerViews(load("digits", 16))


def test_the_targets_of_a_view_are_the_parameters_that_made_it():
    augment = Augment.preset("paper", size=16)
    data = load("digits", 16)
    index = torch.arange(9)
    batch = AugmentedViews(augment)(data, index, generator(3))
    g = generator(3)
    for view, r in zip(batch.views, batch.targets):
        again, params = augment(data.images[index], generator=g)
        assert torch.equal(view, again)
        assert torch.equal(r, params.vector())
    assert batch.targets[0].shape == (9, 10)
    assert torch.equal(batch.anchor, data.images[index] / 255)


def test_bytes_and_floats_become_the_same_numbers():
    images = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    assert torch.equal(to_float(images), images / 255)
    for kind in (torch.float32, torch.float64):
        again = to_float((images / 255).to(kind))
        assert again.dtype == torch.float32
        assert torch.equal(again, images / 255)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((3, 8, 8), 255.0), "divide by 255"),
        (torch.full((3, 8, 8), -2.0), "leave normalization"),
        (torch.ones(3, 8, 8).long(), "got torch.int64"),
    ],
)
def test_other_images_do_not_become_black_anchors(
    images, message, without_shape_checks
):
    with pytest.raises(ValueError, match=message):
        to_float(images)


SOURCES = {
    "augmented": lambda: AugmentedViews(Augment.preset("paper", 8)),
    "partners": lambda: PartnerViews(toy()),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "index",
    [[4, 1], np.array([4, 1]), torch.tensor([-1, -4]), slice(4, 0, -3)],
)
def test_a_source_takes_every_index(source, index):
    source, data = SOURCES[source](), toy()
    expected = source(data, torch.tensor([4, 1]), generator(2))
    batch = source(data, index, generator(2))
    for ours, theirs in zip(
        (*batch.views, *batch.targets), (*expected.views, *expected.targets)
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(batch.anchor, data.images[[4, 1]] / 255)


@pytest.mark.parametrize("source", SOURCES)
def test_one_image_is_a_batch_of_one(source):
    batch = SOURCES[source]()(toy(), np.int64(2), 0)
    assert len(batch.anchor) == len(batch.targets[0]) == 1


@pytest.mark.parametrize("source", SOURCES)
def test_one_seed_gives_two_different_views(source, without_shape_checks):
    source, data, index = SOURCES[source](), toy(), torch.arange(3).repeat(20)
    first, again = source(data, index, 7), source(data, index, generator(7))
    assert torch.equal(first.targets[0], again.targets[0])
    assert not torch.equal(*first.targets)
    for odd in (0.5, "7", True):
        with pytest.raises(ValueError, match="^generator must be "):
            source(data, index, odd)


@pytest.mark.parametrize("source", SOURCES)
def test_torchs_seed_governs_a_source_without_a_generator(source):
    source, data, index = SOURCES[source](), toy(), torch.arange(5).repeat(9)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, second = (source(data, index).targets[0] for _ in range(2))
        torch.manual_seed(1)
        again = source(data, index).targets[0]
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_partners_of_other_data_are_refused():
    with pytest.raises(ValueError, match="known for 5 images, got 2"):
        PartnerViews(toy())(toy()[3:], torch.arange(2), generator())


def test_partners_need_objects():
    data = toy()
    factor = data.factors["factor"]
    for odd in ({}, {"object": factor}):
        factors = {"factor": factor, **odd}
        with pytest.raises(ValueError, match="a categorical factor 'object'"):
            PartnerViews(replace(data, factors=factors))


def test_defaults_of_a_program_change_no_batch(strange_defaults):
    data, index = toy(), torch.arange(5)
    sources = [make() for make in SOURCES.values()]
    plain = [source(data, index, generator(4)) for source in sources]
    with strange_defaults():
        strange = [source(data, index, generator(4)) for source in sources]
    for ours, theirs in zip(plain, strange):
        parts = zip(
            (ours.anchor, *ours.views, *ours.targets),
            (theirs.anchor, *theirs.views, *theirs.targets),
        )
        for a, b in parts:
            assert a.dtype == b.dtype == torch.float32 and torch.equal(a, b)


# partners in time


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Clips of two frames would be too short: 36 frames of 6 objects."""
    layout = replace(SMALL_CORE50, frames=(36,) * 11)
    root = core50(tmp_path_factory.mktemp("film"), layout)
    return read_core50(root, 8, layout=layout, progress=False)


@pytest.fixture(scope="module")
def stills(tmp_path_factory):
    root = tdw(tmp_path_factory.mktemp("stills"))
    return read_tdw(root, 8, layout=SMALL_TDW, progress=False)


def column(data, name, index):
    return data.factors[name].values[index]


def shuffled(data):
    return data.subset(torch.randperm(len(data), generator=generator(5)))


def test_the_neighbors_of_a_frame_are_the_ones_before_and_after_it(film):
    data = shuffled(film)
    near, frame = Neighbors(data), data.factors["frame"].values
    inside = (frame > 0) & (frame < 5)
    assert torch.equal(frame[near.before][inside], frame[inside] - 1)
    assert torch.equal(frame[near.after][inside], frame[inside] + 1)
    for name in ("object", "session"):
        here = data.factors[name].values
        assert torch.equal(here[near.before], here)
        assert torch.equal(here[near.after], here)


def test_at_the_ends_of_a_clip_the_two_nearest_frames_take_their_place(film):
    data = shuffled(film)
    near, frame = Neighbors(data), data.factors["frame"].values
    for end, expected in ((0, [1, 2]), (5, [3, 4])):
        at = frame == end
        both = torch.stack([frame[near.before], frame[near.after]], 1)[at]
        assert both.sort(1).values.unique(dim=0).tolist() == [expected]


def test_the_neighbors_of_a_still_are_one_step_of_the_camera_away(stills):
    data = shuffled(stills)
    near, azimuth = Neighbors(data), data.factors["azimuth"].values
    assert torch.equal(azimuth[near.after], (azimuth + 90) % 360)
    assert torch.equal(azimuth[near.before], (azimuth - 90) % 360)
    for name in ("object", "elevation", "distance"):
        here = data.factors[name].values
        assert torch.equal(here[near.before], here)
        assert torch.equal(here[near.after], here)


def test_the_circle_is_closed_from_350_degrees_to_0():
    whole = load("turntable", 16, "all", progress=False)
    near, azimuth = Neighbors(whole), whole.factors["azimuth"].values
    assert azimuth[near.after][azimuth == 350].unique().tolist() == [0]
    assert azimuth[near.before][azimuth == 0].unique().tolist() == [350]
    turn = (azimuth[near.after] - azimuth) % 360
    assert turn.unique().tolist() == [10]


def test_in_a_sample_the_nearest_that_are_left_are_neighbors(stills):
    azimuth = stills.factors["azimuth"].values
    some = stills.subset((azimuth != 90).nonzero()[:, 0])
    near, azimuth = Neighbors(some), some.factors["azimuth"].values
    assert azimuth[near.after][azimuth == 0].unique().tolist() == [180]
    assert azimuth[near.before][azimuth == 180].unique().tolist() == [0]


def test_both_directions_are_equally_likely_and_never_the_same(film):
    source, n = PartnerViews(film, partners="next"), 20_000
    middle = (film.factors["frame"].values == 3).nonzero()[0].repeat(n)
    first, second = source.companions.pair(middle, generator())
    assert {*column(film, "frame", first).tolist()} == {2, 4}
    assert not (first == second).any()
    on = (column(film, "frame", first) == 4).sum().item()
    assert abs(on - n / 2) < 4 * math.sqrt(n / 4)


def test_next_views_are_the_neighbors_and_their_targets_lead_to_them(stills):
    source = PartnerViews(stills, partners="next")
    index = torch.arange(len(stills))
    batch = source(stills, index, generator(3))
    pair = source.companions.pair(index, generator(3))
    for view, r, j in zip(batch.views, batch.targets, pair, strict=True):
        assert torch.equal(view, stills.images[j] / 255)
        turn = column(stills, "azimuth", j) - column(stills, "azimuth", index)
        assert torch.equal(r[:, 0], turn)
        assert not r[:, 1:].any()  # elevation and distance stay
    assert source.names == ("azimuth", "elevation", "distance")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: toy("continuous"), "toy has neither clips .* nor an angle"),
        (lambda: toy(), "toy: a sequence of 2 image.s., .* at least 3"),
        (lambda: load("digits", 16), "digits has no partner views"),
    ],
)
def test_data_without_neighbors_are_refused_in_a_line(data, message):
    with pytest.raises(ValueError, match=message) as error:
        PartnerViews(data(), partners="next")
    assert "\n" not in str(error.value)


def test_other_partners_are_refused():
    with pytest.raises(ValueError, match="did you mean 'next'"):
        PartnerViews(toy(), partners="nxt")
