"""COIL-100 and ETH-80: every file is expected; splits ask what they say."""

from dataclasses import replace

import numpy as np
import pytest
import replicas
import torch
from PIL import Image
from replicas import SMALL_COIL100 as COIL
from replicas import SMALL_ETH80 as ETH
from replicas import picture, zipped

from ciper.data import datasets
from ciper.data.datasets import object_masks
from ciper.data.photographs import (
    COIL100,
    ETH80,
    most_turning,
    read_coil100,
    read_eth80,
    read_eth80_masks,
    turn_contrast,
)


@pytest.fixture
def coil(tmp_path):
    return replicas.coil100(tmp_path)


@pytest.fixture
def eth(tmp_path):
    return replicas.eth80(tmp_path)


def test_the_published_counts_are_7200_and_3280():
    assert COIL100.objects * len(range(0, 360, COIL100.step)) == 7200
    assert len(ETH80.places()) == len(set(ETH80.places())) == 3280


def test_an_image_of_coil_has_the_object_and_azimuth_of_its_name(coil):
    data = read_coil100(coil, 8, "all", layout=COIL, progress=False)
    wanted = torch.from_numpy(
        np.array(Image.open(coil / "obj4__270.png"))
    ).permute(2, 0, 1)
    (i,) = (
        (data.labels == 3) & (data.factors["azimuth"].values == 270)
    ).nonzero()[0]
    assert torch.equal(data.images[i], wanted)


@pytest.mark.parametrize(
    ("part", "protocol", "objects", "degrees"),
    [
        ("train", "views", [0, 1, 2, 3], [0, 180]),
        ("train", "objects", [0, 1, 2, 3], [0, 180]),
        ("test", "views", [0, 1, 2, 3], [90, 270]),
        ("test", "objects", [4], [0, 90, 180, 270]),
        ("all", "views", [0, 1, 2, 3, 4], [0, 90, 180, 270]),
    ],
)
def test_coil_is_split_by_views_or_by_objects(
    coil, part, protocol, objects, degrees
):
    data = read_coil100(coil, 8, part, protocol, COIL, progress=False)
    assert data.labels.unique().tolist() == objects
    assert data.factors["azimuth"].values.unique().tolist() == degrees
    assert len(data.classes) == 5


def test_the_archive_of_coil_is_read_like_its_folder(coil):
    folder, archive = (
        read_coil100(path, 8, "train", layout=COIL, progress=False)
        for path in (coil, zipped(coil))
    )
    assert torch.equal(folder.images, archive.images)


def spoil_lost(home):
    (home / "obj2__90.png").unlink()


def spoil_strange(home):
    picture(home / "obj6__0.png", 0)


def spoil_twice(home):
    picture(home / "copy/obj2__90.png", 0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_lost, r"1 of 20 images are missing, the first is \(2, 90\)"),
        (spoil_strange, "obj6__0.png is not one of the images"),
        (spoil_twice, "obj2__90.png is there twice"),
    ],
)
def test_a_folder_that_is_not_what_was_published_is_refused(coil, spoil, said):
    spoil(coil)
    with pytest.raises(ValueError, match=said):
        read_coil100(coil, 8, layout=COIL, progress=False)


def test_eth_leaves_the_last_two_objects_of_each_category_out(eth):
    train, test = (
        read_eth80(eth, 8, part, ETH, progress=False)
        for part in ("train", "test")
    )
    names = test.factors["object"].levels
    seen, unseen = (
        {names[k] for k in data.factors["object"].values.tolist()}
        for data in (train, test)
    )
    assert seen == {"apple 1", "car 1"}
    assert unseen == {"apple 2", "apple 3", "car 2", "car 3"}
    assert train.classes == test.classes == ("apple", "car")


def test_elevation_is_90_degrees_less_the_tilt(eth):
    data = read_eth80(eth, 8, "train", ETH, progress=False)
    assert data.factors["elevation"].values.tolist() == [90, 0, 90, 0]
    assert data.factors["azimuth"].values.tolist() == [0, 45, 0, 45]


def test_maps_come_in_the_order_of_the_images(eth):
    options = dict(layout=ETH, progress=False)
    data = read_eth80(eth, 8, "test", **options)
    masks = read_eth80_masks(eth, 8, "test", **options)
    second = torch.tensor(
        [
            data.factors["object"].levels[k].endswith("2")
            for k in data.factors["object"].values.tolist()
        ]
    )
    assert torch.equal(masks[:, 0, 0], second)
    assert len(masks.flatten(1).unique(dim=0)) == len(masks)


def test_the_masks_of_a_part_are_those_of_the_whole_at_its_rows(
    tmp_path, monkeypatch
):
    views = (0, 0), (45, 45), (90, 45), (90, 225)
    layout = replace(ETH, views=views)
    home = replicas.eth80(tmp_path, layout)
    monkeypatch.setattr(datasets, "ETH80", layout)
    options = dict(root=tmp_path, progress=False)
    every = datasets.load("eth80", 8, "all", **options)
    whole = read_eth80_masks(home, 8, "all", layout, progress=False)
    for rows in (torch.randperm(24), torch.tensor([7]), torch.arange(3, 9)):
        masks = object_masks(every.subset(rows), root=tmp_path)
        assert torch.equal(masks, whole[rows])
    test = datasets.load("eth80", 8, "test", **options)
    masks = object_masks(test, root=tmp_path)
    wanted = read_eth80_masks(home, 8, "test", layout, progress=False)
    assert torch.equal(masks, wanted)


def test_data_without_outlines_have_no_masks(coil, monkeypatch):
    monkeypatch.setattr(datasets, "COIL100", COIL)
    data = datasets.load("coil100", 8, root=coil.parent, progress=False)
    assert object_masks(data) is None
    assert object_masks(replicas.toy()) is None  # a name that nobody knows


def test_a_missing_map_is_named(eth):
    (eth / "2/3/maps/car10-090-045-map.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 12 images .*\(2, 3, 90, 45\)"):
        read_eth80_masks(eth, 8, layout=ETH, progress=False)


def test_contrast_of_an_object_that_does_not_turn_is_zero(coil):
    data = read_coil100(coil, 8, "all", layout=COIL, progress=False)
    data.images[data.labels == 2] = 7
    contrast = turn_contrast(data)
    assert contrast[2] == 0 and contrast.max() == 1
    assert (contrast[[0, 1, 3, 4]] > 0.5).all()


def test_the_objects_that_turn_most_keep_all_their_views(coil):
    data = read_coil100(coil, 8, "all", layout=COIL, progress=False)
    data.images[data.labels == 2] = 7
    data.images[data.labels == 0] //= 2
    kept = most_turning(data, 3)
    assert kept.labels.tolist() == [1] * 4 + [3] * 4 + [4] * 4
    assert torch.equal(
        kept.images, data.images[[*range(4, 8), *range(12, 20)]]
    )
    assert most_turning(data, 4).labels.unique().tolist() == [0, 1, 3, 4]


def test_an_object_of_a_single_view_is_taken_for_symmetric(coil):
    data = read_coil100(coil, 8, "all", layout=COIL, progress=False)
    contrast = turn_contrast(data[torch.arange(3, 20)])
    assert contrast[0] == 0 and contrast.max() == 1


def test_coil_is_loaded_by_name_with_its_protocol(coil, monkeypatch):
    monkeypatch.setattr(datasets, "COIL100", COIL)
    options = dict(root=coil.parent, progress=False)
    views, objects = (
        datasets.load(name, 8, "test", **options)
        for name in ("coil100", "coil100:objects")
    )
    assert views.labels.unique().tolist() == [0, 1, 2, 3]
    assert objects.labels.unique().tolist() == [4]
    assert (views.name, objects.name) == ("coil100", "coil100:objects")
    options["root"] = coil / "nothing here"  # said before any download
    with pytest.raises(ValueError, match="unknown protocol 'object': did you"):
        datasets.load("coil100:object", 8, **options)


def test_eth_is_loaded_by_name(eth, monkeypatch):
    monkeypatch.setattr(datasets, "ETH80", ETH)
    options = dict(root=eth.parent, progress=False)
    assert len(datasets.load("eth80", 8, **options)) == 4
    with pytest.raises(ValueError, match="eth80 has no part 'val'"):
        datasets.load("eth80", 8, "val", **options)


def test_what_has_no_mirror_says_where_to_put_it(tmp_path):
    with pytest.raises(OSError, match="no mirror that is known.*or unpack it"):
        datasets.load("eth80", 8, root=tmp_path, progress=False)
