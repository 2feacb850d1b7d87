"""What `ciper.data` promises: loaders, splits and sources of views."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from ciper import data as module
from ciper.augment import Augment
from ciper.data import (
    AugmentedViews,
    Factor,
    ImageData,
    PartnerViews,
    load,
    split,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def write(path, color="red", size=(20, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def photos(tmp_path):
    for i in range(5):
        write(tmp_path / f"cat/{i}.png", (10 * i, 0, 0), (20 + i, 30))
        write(tmp_path / f"dog/deep/{i}.jpg", (0, 10 * i, 0), (50, 9 + i))
    return tmp_path


def toy(kind="circular", levels=()):
    values = torch.tensor([350.0, 10.0, 90.0, 0.0, 180.0])
    owner = torch.tensor([0, 0, 0, 1, 1])
    if kind == "categorical":
        values, levels = torch.tensor([0, 1, 2, 0, 2]), ("a", "b", "c")
    factors = {
        "object": Factor(owner, "categorical", ("x", "y")),
        "factor": Factor(values, kind, levels),
    }
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None]
    images = images.expand(5, 3, 8, 8).contiguous()
    return ImageData("toy", images, owner, ("x", "y"), factors, ("factor",))


def test_a_folder_takes_its_classes_from_the_first_level(photos):
    found = load(f"folder:{photos}", 16, "all", progress=False)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0] * 5 + [1] * 5
    assert found.images.shape == (10, 3, 16, 16)


def test_a_png_of_the_right_size_is_read_bit_for_bit(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    found = load(f"folder:{tmp_path}", 16, "all", progress=False)
    assert (found.images[0].permute(1, 2, 0).numpy() == pixels).all()


def test_a_folder_of_train_and_test_is_split_as_it_says(tmp_path):
    write(tmp_path / "train/cat/1.png")
    write(tmp_path / "train/dog/1.png")
    write(tmp_path / "test/dog/2.png")
    test = load(f"folder:{tmp_path}", 8, "test", progress=False)
    assert test.classes == ("cat", "dog")
    assert test.labels.tolist() == [1]
    assert len(load(f"folder:{tmp_path}", 8, "train", progress=False)) == 2
    assert len(load(f"folder:{tmp_path}", 8, "all", progress=False)) == 3


def test_an_unreadable_image_is_skipped_with_a_warning_that_names_it(photos):
    (photos / "cat/bad.jpg").write_bytes(b"no image at all")
    with pytest.warns(UserWarning, match=r"1 unreadable.*bad\.jpg; skipped"):
        found = load(f"folder:{photos}", 16, "all", progress=False)
    assert len(found) == 10


def test_a_truncated_image_is_unreadable(photos):
    whole = (photos / "dog/deep/4.jpg").read_bytes()
    (photos / "dog/deep/4.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"4\.jpg; skipped"):
        assert len(load(f"folder:{photos}", 16, "all", progress=False)) == 9


def test_strict_refuses_an_unreadable_image(photos):
    (photos / "cat/bad.jpg").write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"unreadable.*bad\.jpg"):
        load(f"folder:{photos}", 16, strict=True, progress=False)


def test_a_folder_with_only_unreadable_images_is_refused(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="unreadable"):
        load(f"folder:{tmp_path}", progress=False)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no images in .*looked for"):
        load(f"folder:{tmp_path}", progress=False)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(f"folder:{tmp_path / 'nowhere'}", progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("turntabel",), "did you mean 'turntable'"),
        (("digits", 4), "at least 8 pixels, got 4"),
        (
            ("digits", 16, "tets"),
            "unknown split 'tets'[:;] did you mean 'test'",
        ),
    ],
)
def test_load_says_what_it_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(*arguments, progress=False)


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


def test_rooms_are_split_by_session(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_render", fake_render)
    train = load("turntable-rooms", 8, "train", progress=False)
    test = load("turntable-rooms", 8, "test", progress=False)
    assert train.factors["session"].values.unique().tolist() == [0, 1]
    assert test.factors["session"].values.unique().tolist() == [*range(2, 11)]


def fake_render(grid, room, size, progress):
    return torch.zeros(len(grid["object"]), 3, size, size, dtype=torch.uint8)


def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_render", fake_render)
    load("turntable", 8, progress=False)
    (path,) = tmp_path.glob("turntable-8-*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="made again"):
        load("turntable", 8, progress=False)
    assert path.read_bytes() == whole


def test_a_render_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path))

    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_render", fails)
    with pytest.raises(KeyboardInterrupt):
        load("turntable", 8, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_circular_change_is_cosine_and_sine_of_the_turn():
    source = PartnerViews(toy())
    change = source._change(torch.tensor([0]), torch.tensor([1]))
    turn = math.radians(20)
    expected = torch.tensor([[math.cos(turn), math.sin(turn)]])
    torch.testing.assert_close(change, expected, atol=1e-6, rtol=0)
    assert source.names == ("factor (cos)", "factor (sin)")
    assert source.classes == (0, 0)


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
