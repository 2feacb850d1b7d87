"""What `ciper.data.images` promises: records, splits and pictures of data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from replicas import generator, toy
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, random_split

from ciper.data.images import (
    Factor,
    ImageData,
    block_index,
    check_choice,
    check_labels,
    split,
    split_blocks,
)


def test_splits_are_disjoint_whole_and_the_same_each_time():
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None]
    whole = ImageData(
        "n", images.expand(-1, 3, 8, 8), torch.zeros(100).long(), ("a",)
    )
    a, b = split(whole, 0.3)
    ids = [part.images[:, 0, 0, 0] for part in (a, b)]
    assert len(a) == 30
    assert sorted(torch.cat(ids).tolist()) == list(range(100))
    assert torch.equal(split(whole, 0.3)[0].images, a.images)


def test_a_split_with_an_empty_part_is_refused():
    with pytest.raises(ValueError, match="both need at least one"):
        split(toy(), 0.01)


def test_images_without_labels_for_each_are_refused(without_shape_checks):
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="2 images need as many labels"):
        ImageData("x", images, torch.zeros(3).long(), ("a",))


def films(frames=300, clips=(4, 3), width=15):
    """Clips of colored tiles, alike only within `width` frames."""
    count = clips[0] * clips[1]
    noise = torch.randn(count, 48, frames + width - 1, generator=generator())
    walk = F.avg_pool1d(noise, width, 1).transpose(1, 2).reshape(-1, 3, 4, 4)
    clip = torch.arange(count).repeat_interleave(frames)
    frame = torch.arange(frames).repeat(count)
    order = torch.randperm(len(clip), generator=generator(1))
    names = tuple("abcdefgh")
    factors = {
        "object": Factor(clip // clips[1], "categorical", names[: clips[0]]),
        "session": Factor(clip % clips[1], "categorical", names[: clips[1]]),
        "frame": Factor(frame, "continuous", unit="frame"),
    }
    images = (128 + 150 * walk).clamp(0, 255).byte()
    labels = factors["object"].values
    data = ImageData("films", images, labels, names[: clips[0]], factors)
    return data.subset(order)


def session_of_the_nearest(train, test):
    x, y = (part.images.flatten(1).float() for part in (train, test))
    known, asked = (p.factors["session"].values for p in (train, test))
    return (known[torch.cdist(y, x).argmin(1)] == asked).float().mean()


def test_a_random_split_of_films_leaks_what_blocks_do_not():
    data = films()  # no session has a look of its own: chance is 1/3
    assert session_of_the_nearest(*split(data, 0.5)) > 0.95
    assert session_of_the_nearest(*split_blocks(data, 0.5)) < 0.45


def test_blocks_cut_every_clip_once_in_time():
    data = films(frames=10)
    first, second = split_blocks(data, 0.3)
    assert (len(first), len(second)) == (36, 84)
    assert first.factors["frame"].values.max() == 2
    assert second.factors["frame"].values.min() == 3


def test_blocks_follow_the_rank_of_a_frame_and_not_its_number():
    data = films(frames=10)
    kept = data[data.factors["frame"].values >= 6]
    first, second = block_index(kept, 0.5)
    frame = kept.factors["frame"].values
    assert frame[first].unique().tolist() == [6, 7]
    assert frame[second].unique().tolist() == [8, 9]


def test_blocks_need_frames():
    with pytest.raises(ValueError, match="no factor 'frame'"):
        block_index(toy(), 0.5)


def test_blocks_with_an_empty_part_are_refused():
    with pytest.raises(ValueError, match="leaves a part empty"):
        block_index(films(frames=4), 1.0)


def test_a_number_indexes_an_image_with_its_label():
    image, label = toy()[3]
    assert image.unique().tolist() == [3] and label == 1


def test_data_can_be_iterated_like_a_dataset_of_torch():
    assert [label for _, label in toy()] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 4),
        [1, 2, 3],
        torch.tensor([1, 2, 3]),
        torch.tensor([False, True, True, True, False]),
    ],
)
def test_all_else_indexes_a_subset(index):
    some = toy()[index]
    assert some.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert some.factors["factor"].values.tolist() == [10.0, 90.0, 0.0]


def test_a_notebook_shows_images_and_a_row_for_each_factor():
    shown = films()._repr_html_()
    assert 'src="data:image/png;base64,iVBOR' in shown and "alt=" in shown
    assert shown.count("<tr>") == 4
    assert "<td>0 to 299 frame</td>" in shown


def test_names_in_a_picture_are_escaped():
    data = replace(toy(), name="<b>")
    assert "&lt;b&gt;" in data._repr_html_()


def test_data_move_to_the_cpu_without_a_copy():
    data = toy()
    assert data.to("cpu").images.data_ptr() == data.images.data_ptr()


@pytest.mark.parametrize(("spare", "moves"), [(0, True), (-1, False)])
def test_images_move_to_a_gpu_only_where_half_of_it_takes_them(
    monkeypatch, spare, moves
):
    data, moved = toy(), []
    free = 2 * data.images.nbytes + spare

    def to(tensor, *_, **__):
        moved.append(tensor.data_ptr())
        return tensor

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    monkeypatch.setattr(torch.Tensor, "to", to)
    data.to("cuda")
    assert data.labels.data_ptr() in moved
    assert (data.images.data_ptr() in moved) is moves


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'test'"):
        check_choice("split", "tets", ("train", "test"))


# Indices of the ecosystem


@pytest.mark.parametrize(
    "index",
    [np.array([3, 1]), [3, 1], slice(3, None, -2)]
    + [np.array([False, True, False, True, False]), torch.tensor([-2, -4])],
)
def test_every_door_takes_every_index(index):
    data = toy()
    expected = np.arange(5)[index].tolist()
    assert data[index].images[:, 0, 0, 0].tolist() == expected
    assert data.subset(index).labels.tolist() == data.labels[expected].tolist()
    assert data.pixels(index)[:, 0, 0, 0].tolist() == expected
    factor = data.factors["factor"]
    assert factor.subset(index).values.tolist() == [
        factor.values.tolist()[i] for i in expected
    ]


@pytest.mark.parametrize(
    "number", [-1, np.int64(4), np.array(4), torch.tensor(-1)]
)
def test_a_number_of_any_kind_is_an_image_with_its_label(number):
    image, label = toy()[number]
    assert image.unique().tolist() == [4]
    assert label == 1 and type(label) is int
    assert toy().pixels(number).shape == (1, 3, 8, 8)
    assert len(toy().subset(number)) == 1


def test_subsets_splits_and_loaders_of_torch_take_the_data():
    data = toy()
    some = Subset(data, np.arange(3))
    assert [label for _, label in some] == [0, 0, 0]
    parts = random_split(data, [2, 3], generator())
    seen = [image.unique().item() for p in parts for image, _ in p]
    assert sorted(seen) == list(range(5)) and len(data) == 5
    images, labels = next(iter(DataLoader(data, batch_size=5)))
    assert torch.equal(images, data.images)
    assert torch.equal(labels, data.labels)


@pytest.mark.parametrize("index", [5, -6, np.int64(5)])
def test_an_image_out_of_range_is_an_index_error(index):
    for door in (toy().__getitem__, toy().pixels, toy().subset):
        with pytest.raises(IndexError, match="out of range for 5 rows"):
            door(index)


def test_no_image_is_a_batch_but_no_data_set():
    assert toy().pixels([]).shape == (0, 3, 8, 8)
    with pytest.raises(
        ValueError, match="0 images need as many .* .at least 1.,"
    ):
        toy()[[]]


@pytest.mark.parametrize("index", ["a", 1.0, None, True, [0.5], (1, 2)])
def test_what_is_no_index_is_refused(index):
    for door in (toy().__getitem__, toy().pixels, toy().subset):
        with pytest.raises(ValueError, match="^an index is a whole number"):
            door(index)


# What is no data set

BYTES = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
HALL = Factor(torch.tensor([0, 1]), "categorical", ("hall", "attic"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": BYTES / 255},
            "uint8, got torch.float32: use .images . 255",
        ),
        ({"images": BYTES.long()}, "must be uint8, got torch.int64"),
        ({"images": BYTES[:, :1]}, r"got \(2, 1, 8, 8\): use images.expand"),
        ({"images": BYTES[0]}, r"must be \(n, 3, h, w\), got \(3, 8, 8\)"),
        ({"images": BYTES.numpy()}, "must be a tensor, got ndarray"),
        ({"images": BYTES[:0], "labels": []}, "0 images need as many"),
        ({"labels": [0]}, "2 images need as many labels"),
        ({"labels": [0.0, 1.0]}, "labels must be whole numbers, got list"),
        ({"labels": [True, False]}, "labels must be whole numbers, got list"),
        ({"labels": ["a", "b"]}, "labels must be whole numbers, got list"),
        ({"labels": torch.zeros(2)}, "labels must be .*got torch.float32"),
        ({"labels": [0, 2]}, r"labels must be 0\.\.1, got 0\.\.2"),
        ({"labels": [-1, 0]}, r"labels must be 0\.\.1, got -1\.\.0"),
        ({"classes": ("a", "a")}, "classes must differ, got 'a' twice"),
        ({"classes": (1, 2)}, "classes must be a list of names, got .1, 2."),
        ({"classes": "ab"}, "classes must be a list of names, got 'ab'"),
        ({"classes": None}, "classes must be a list of names, got None"),
        ({"partners": ("azimuth",)}, "must be factors, got 'azimuth'"),
        ({"partners": "room"}, "partners must be a list of names, got 'room'"),
        ({"factors": {"room": [0, 1]}}, "factors must be names and Factors"),
        ({"factors": [HALL]}, "factors must be names and Factors"),
        ({"factors": {"room": HALL.subset([0])}}, "2 images need as many"),
    ],
)
def test_what_is_no_data_set_is_refused(change, message, without_shape_checks):
    given = {"name": "d", "images": BYTES, "labels": [0, 1]}
    given |= {"classes": ("a", "b"), "factors": {"room": HALL}} | change
    with pytest.raises(ValueError, match=f"^d: .*{message}"):
        ImageData(**given)


def test_labels_of_a_list_or_an_array_are_tensors(without_shape_checks):
    for labels in ([0, 1], np.array([0, 1]), torch.tensor([0, 1]).byte()):
        data = ImageData("d", BYTES, labels, ["a", "b"], {"room": HALL})
        assert data.labels.dtype == torch.int64
        assert data.labels.tolist() == [0, 1] and data.classes == ("a", "b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([0, 1], "ordinal"), "kind must be one of categorical, .* 'ordinal'"),
        (([0, 2], "categorical", ("a", "b")), r"must be 0\.\.1, got 0\.\.2"),
        (([0.0, 1.0], "categorical", ("a", "b")), "must be whole numbers"),
        (([0.0, float("nan")], "continuous"), "continuous factor must be fin"),
        (([0.0, float("inf")], "circular"), "circular factor must be finite"),
        (([[0.0]], "circular"), r"must be finite, \(n,\), got shape \(1, 1\)"),
        ((["a"], "continuous"), "must be whole numbers, got list"),
        (([True], "continuous"), "must be whole numbers, got list"),
        (
            ([0.0], "circular", ("north",)),
            "levels must be a number, got 'north'",
        ),
    ],
)
def test_what_is_no_factor_is_refused(given, message, without_shape_checks):
    with pytest.raises(ValueError, match=message):
        Factor(*given)


def test_a_factor_without_a_grid_has_no_steps():
    with pytest.raises(ValueError, match="a continuous factor without levels"):
        print(Factor(torch.rand(3), "continuous").steps)


def test_small_integers_do_not_wrap_around():
    frame = Factor(torch.tensor([3, 5], dtype=torch.uint8), "continuous")
    assert (frame.values[0] - frame.values[1]).item() == -2


@pytest.mark.parametrize("seed", [0.5, "0", None, True, -1, 2**32])
def test_a_seed_of_a_draw_is_a_whole_number(seed, without_shape_checks):
    for draw in (
        lambda: toy().sample(2, seed),
        lambda: split(toy(), 0.5, seed),
    ):
        with pytest.raises(ValueError, match="^seed must be "):
            draw()


def test_seeds_of_numpy_are_seeds_and_draws_are_those_of_before(
    without_shape_checks,
):
    drawn = [films(2).sample(6, s).images for s in (7, np.int64(7))]
    assert torch.equal(*drawn)
    whole = toy().sample(5, 3).images[:, 0, 0, 0].tolist()
    order = torch.randperm(5, generator=generator(3)).tolist()
    assert whole == order
    first, _ = split(toy(), 0.4, np.int32(3))
    assert first.images[:, 0, 0, 0].tolist() == order[:2]


@pytest.mark.parametrize("share", [float("nan"), "half", None, True, 2.0, -1])
def test_a_share_is_a_number_between_0_and_1(share, without_shape_checks):
    with pytest.raises(ValueError, match="^(share must be|toy: cannot give) "):
        split(toy(), share)
    with pytest.raises(
        ValueError, match="^(share must be|films: a share of) "
    ):
        block_index(films(4), share)


def test_a_count_is_whole(without_shape_checks):
    with pytest.raises(ValueError, match="^count must be whole, got 2.5"):
        toy().sample(2.5)


def test_defaults_of_a_program_change_no_draw(strange_defaults):
    data, film = toy(), films(4)

    def draws():
        step = Factor(data.factors["factor"].values, "circular", (0, 90, 180))
        parts = split_blocks(film, 0.5)
        kept = [data.sample(3, 1), split(data, 0.5)[0], *parts, data[::2]]
        return [k.images for k in kept], step.steps, data._repr_html_()

    plain = draws()
    with strange_defaults():
        strange = draws()
    assert all(torch.equal(a, b) for a, b in zip(plain[0], strange[0]))
    assert torch.equal(plain[1], strange[1]) and plain[2] == strange[2]


def test_a_check_of_labels_knows_how_many_there_must_be():
    assert check_labels(np.array([1, 0]), 2, 2).tolist() == [1, 0]
    with pytest.raises(
        ValueError, match=r"y must have shape \(3,\), got \(2,\)"
    ):
        check_labels([1, 0], 2, 3, name="y")


def test_files_go_with_their_images_into_every_part():
    data = replace(toy(), files=("a", "b", "c", "d", "e"))
    mask = torch.tensor([True, False, False, True, True])
    assert data[mask].files == ("a", "d", "e")
    assert data[1:3].files == ("b", "c") and data[[-1, 0]].files == ("e", "a")
    for part in (data.sample(3, 1), *split(data, 0.4)):
        rows = part.images[:, 0, 0, 0].tolist()
        assert part.files == tuple("abcde"[i] for i in rows)
    with pytest.raises(ValueError, match="5 images need as many labels"):
        replace(data, files=("a",))
