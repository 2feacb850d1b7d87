"""What `ciper.data` promises: records, splits and pictures of data."""

from dataclasses import replace

import pytest
import torch
from replicas import generator, toy
from torch.nn import functional as F

from ciper import data as module
from ciper.data import (
    Factor,
    ImageData,
    block_index,
    check_choice,
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


def test_images_too_many_for_a_gpu_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 1000))
    images = toy().images
    assert module._moved(images, "cuda") is images


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'test'"):
        check_choice("split", "tets", ("train", "test"))
