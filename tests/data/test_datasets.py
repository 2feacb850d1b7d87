"""Every data set by its name, from replicas of what is published."""

import io
import sys
import types

import pytest
import torch
import torchvision
from PIL import Image
from replicas import (
    SMALL_CORE50,
    SMALL_TDW,
    cifar,
    core50,
    picture,
    stl10,
    tdw,
    zipped,
)

from ciper.data import datasets as module
from ciper.data import store
from ciper.data.datasets import DATASETS, at_hand, check, get, load
from ciper.evaluation.probes import _halves

KINDS = torchvision.datasets


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CIPER_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(module, "CORE50", SMALL_CORE50)
    monkeypatch.setattr(module, "TDW", SMALL_TDW)

    def no_network(*_, **__):
        raise AssertionError("a test asked the network")

    monkeypatch.setattr("requests.get", no_network)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


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


@pytest.mark.parametrize("protocol", ["random", "blocks", "objects"])
def test_each_split_of_turntable_keeps_out_what_it_says(protocol):
    data = {
        part: load(f"turntable:{protocol}", 8, part, progress=False)
        for part in ("train", "test")
    }
    azimuth, objects = (
        {p: {*d.factors[name].values.tolist()} for p, d in data.items()}
        for name in ("azimuth", "object")
    )
    quadrant = {90.0 + 10 * i for i in range(9)}
    if protocol == "blocks":
        assert azimuth["test"] == quadrant
        assert azimuth["train"] == {10.0 * i for i in range(36)} - quadrant
    if protocol == "objects":
        assert objects["test"] == {3, 7, 11}
        assert objects["train"] == {*range(12)} - {3, 7, 11}
    usual = {p: load("turntable", 8, p, progress=False) for p in data}
    for part, whole in usual.items():
        places = {x.numpy().tobytes() for x in whole.images}
        assert {x.numpy().tobytes() for x in data[part].images} <= places
    if protocol == "random":
        assert torch.equal(data["test"].images, usual["test"].images)


def test_an_unknown_split_of_turntable_is_refused():
    with pytest.raises(ValueError, match="did you mean 'blocks'"):
        load("turntable:block", 8, progress=False)


@pytest.mark.parametrize("name", ["digits", "turntable", "cifar10", "core50"])
def test_data_of_two_parts_have_no_third(name):
    with pytest.raises(ValueError, match=f"{name} has no part 'val', only"):
        load(name, 8, "val")


def test_a_folder_has_one_name_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for i in range(3):
        picture(tmp_path / f"photos/a/{i}.png", i)
    for name in ("photos", "photos/", "./photos", ".//photos/."):
        found = load(f"folder:{name}", 8, "all", progress=False)
        assert found.name == "folder:photos"
    assert len(load("folder:~/photos", 8, "all", progress=False)) == 3


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
    assert len(path.read_bytes()) == len(whole)
    load("turntable", 8, progress=False)


def test_a_render_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path))

    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_render", fails)
    with pytest.raises(KeyboardInterrupt):
        load("turntable", 8, progress=False)
    assert not list(tmp_path.iterdir())


def test_every_data_set_says_what_it_is_and_how_it_was_tested():
    for known in DATASETS.values():
        assert known.about and known.license and known.citation
        assert known.tested in ("real data", "64-pixel copy", "replicas")


def test_what_is_loaded_carries_its_name_license_and_citation():
    data = load("digits", 8)
    assert (data.name, data.license) == ("digits", "CC BY 4.0")
    assert "Alpaydin" in data.citation


@pytest.mark.parametrize("name", ["folder", "folder:", "hf", "digits:x"])
def test_a_name_that_is_not_whole_is_refused(name):
    with pytest.raises(ValueError, match="unknown data set .*folder:PATH"):
        load(name)


# --- CIFAR and STL-10 --------------------------------------------------------


def cifar10(root, monkeypatch):
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    home, kind = root / "cifar-10-batches-py", KINDS.CIFAR10
    about = "batches.meta", "label_names", "labels"
    cifar(home, names, *about, monkeypatch, kind)
    return home


def test_cifar10_is_read_from_its_folder(root, monkeypatch):
    cifar10(root, monkeypatch)
    train, test = (load("cifar10", split=part) for part in ("train", "test"))
    assert (len(train), len(test)) == (20, 4)
    assert train.classes == ("cat", "dog")
    expected = KINDS.CIFAR10(root).data[7]
    assert (train.images[7].permute(1, 2, 0).numpy() == expected).all()
    assert len(load("cifar10", 8, "all")) == 24


def test_cifar100_has_fine_labels(root, monkeypatch):
    home, about = root / "cifar-100-python", ("meta", "fine_label_names")
    names = ["train", "test"]
    cifar(home, names, *about, "fine_labels", monkeypatch, KINDS.CIFAR100)
    data = load("cifar100", 16, "all")
    assert data.images.shape == (8, 3, 16, 16)
    assert data.labels.tolist() == [0, 1] * 4


def test_stl10_is_read_and_scaled(root, monkeypatch):
    stl10(root / "stl10_binary", monkeypatch, KINDS.STL10)
    data = load("stl10", 32, "all")
    assert data.images.shape == (6, 3, 32, 32)
    assert data.classes == ("airplane", "bird")
    assert data.labels.tolist() == [0, 1, 0] * 2
    assert torch.equal(load("stl10", 96, "test").labels, data.labels[3:])


def test_a_batch_with_another_checksum_is_never_unpickled(root, monkeypatch):
    home = cifar10(root, monkeypatch)
    bomb = b"cbuiltins\nexit\n(tR."
    (home / "data_batch_3").write_bytes(bomb)
    with pytest.raises(ValueError, match="is not what was published"):
        load("cifar10")


# --- CORe50 and TDW ----------------------------------------------------------


def sessions(name):
    data = load(name, 8, "train", progress=False)
    return (data.factors["session"].values.unique() + 1).tolist()


def test_the_name_of_core50_goes_on_with_its_protocol(root):
    core50(root)
    assert sessions("core50") == sessions("core50:ciper") == [1, 2]
    assert sessions("core50:ciper:5,6") == [5, 6]
    assert sessions("core50:usual") == [1, 2, 4, 5, 6, 8, 9, 11]
    assert len(load("core50", 8, progress=False).classes) == 6
    for name in ("core50-categories", "core50:objects"):
        assert len(load(name, 8, progress=False).classes) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("core50:usal", "unknown protocol 'usal': did you mean 'usual'"),
        ("core50:ciper:one", "sessions must be numbers like 1,2, got 'one'"),
    ],
)
def test_a_misspelled_protocol_is_refused_before_any_download(name, message):
    with pytest.raises(ValueError, match=message):
        load(name)


def test_small_images_are_taken_from_the_large_ones_if_need_be(root):
    core50(root).rename(root / "core50_128x128")
    assert len(load("core50", 8, "all", progress=False)) == 132


def test_an_archive_with_another_checksum_is_refused(root):
    home = core50(root)
    zipped(home)
    home.rename(root / "away")
    with pytest.raises(ValueError, match="expected d89d34cdc0281fa"):
        load("core50", 8, progress=False)


def test_tdw_is_found_by_name_and_its_absence_explained(root):
    with pytest.raises(
        OSError, match="by hand from https://doi.org/10.5281/zenodo.5776080"
    ):
        load("tdw", 8, progress=False)
    tdw(root)
    assert len(load("tdw", 8, progress=False)) == 48


def test_what_is_on_the_disk_is_at_hand(root):
    embedded = ["digits", "turntable", "turntable-rooms"]
    assert at_hand() == embedded
    tdw(root)
    assert at_hand() == [*embedded, "tdw"]


# --- the hub -----------------------------------------------------------------


class Column(dict):
    """A table of the hub: pictures of the color of their row, and labels."""

    def __init__(self, count, labels=None, **features):
        self.features, self.count = features, count
        self.labels = labels or [i % 2 for i in range(count)]
        self._fingerprint = f"{count} rows"

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.labels
        return {"picture": self.picture(key), "kind": self.labels[key]}

    def picture(self, i):
        return Image.new("RGB", (20, 12), (i, 0, 0))


class ClassLabel:
    def __init__(self, *names):
        self.names = [*names] or ["cat", "dog"]


class Value:
    def __init__(self, dtype):
        self.dtype = dtype


def hub(monkeypatch, **tables):
    fake = types.ModuleType("datasets")
    fake.load_dataset = lambda name: tables
    fake.load_from_disk = lambda name: tables
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


def table(count, labels=None, kind=None, column="kind"):
    kinds = {"picture": type("Image", (), {})(), column: kind or ClassLabel()}
    return Column(count, labels, **kinds)


def asked(part="train", size=8, name="hf:x"):
    data = load(name, size, part, progress=False)
    return [data.classes[i] for i in data.labels.tolist()], data.classes


def test_the_hub_gives_images_and_classes(monkeypatch):
    hub(monkeypatch, train=table(10), test=table(4))
    data = load("hf:someone/pets", 8, progress=False)
    assert data.images[7].float().mean((1, 2)).tolist() == [7, 0, 0]
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 1] * 5
    assert len(load("hf:someone/pets", 8, "test", progress=False)) == 4


def test_a_hub_data_set_without_a_test_part_is_split(monkeypatch):
    hub(monkeypatch, train=table(10))
    sizes = [
        len(load("hf:x", 8, p, progress=False))
        for p in ("train", "test", "all")
    ]
    assert sizes == [8, 2, 10]
    with pytest.raises(ValueError, match="hf:x has no part 'val', only train"):
        load("hf:x", 8, "val", progress=False)


def test_the_hub_has_three_parts_and_all_of_them_together(monkeypatch):
    parts = dict(train=table(5), validation=table(3), test=table(2))
    hub(monkeypatch, **parts)
    sizes = [len(asked(p)[0]) for p in ("train", "val", "test", "all")]
    assert sizes == [5, 3, 2, 10]
    colors = load("hf:x", 8, "all", progress=False).images[:, 0, 0, 0]
    assert colors.tolist() == [*range(5), *range(3), *range(2)]


def test_a_hub_part_without_labels_is_not_tested_on(monkeypatch):
    bare = table(4, [-1] * 4)
    hub(monkeypatch, train=table(6), validation=table(3), test=bare)
    with pytest.warns(UserWarning, match="hf:x: test without labels left out"):
        assert asked("test")[0] == ["cat", "dog", "cat"]
    hub(monkeypatch, train=table(10), test=bare)
    with pytest.warns(UserWarning, match="test without labels left out"):
        assert len(asked("test")[0]) == 2
    with pytest.warns(UserWarning, match="test without labels left out"):
        assert len(asked("all")[0]) == 10


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1, -1, -1], "the part train has no labels in its column 'kind'"),
        ([0, 1, -1], "1 images of train have no label, such as -1"),
        ([0, None, 7], "2 images of train have no label, such as None"),
    ],
)
def test_a_training_part_with_labels_missing_is_refused(
    monkeypatch, labels, message
):
    hub(monkeypatch, train=table(3, labels), test=table(3))
    with pytest.raises(ValueError, match=message):
        load("hf:x", 8, progress=False)


def test_parts_with_other_classes_are_refused(monkeypatch):
    other = table(3, kind=ClassLabel("dog", "cat"))
    hub(monkeypatch, train=table(3), test=other)
    with pytest.raises(ValueError, match="its parts have different classes"):
        load("hf:x", 8, progress=False)


@pytest.mark.parametrize(
    ("dtype", "train", "test", "classes"),
    [
        ("int64", [7, 3, 7], [10, 3], ("3", "7", "10")),
        (
            "string",
            ["owl", "cat", "owl"],
            ["dog", "cat"],
            ("cat", "dog", "owl"),
        ),
        ("bool", [True, False, True], [False, True], ("False", "True")),
        ("int8", [1, -1, 1], [1, -1], ("-1", "1")),
    ],
)
def test_values_of_a_column_called_label_are_classes(
    monkeypatch, dtype, train, test, classes
):
    kind = Value(dtype)
    hub(
        monkeypatch,
        train=table(3, train, kind, "Label"),
        test=table(2, test, kind, "Label"),
    )
    assert asked("train") == ([str(x) for x in train], classes)
    assert asked("test") == ([str(x) for x in test], classes)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [("id", "int64"), ("label", "float32"), ("label", None)],
)
def test_a_hub_data_set_without_labels_is_one_class(
    monkeypatch, column, dtype
):
    hub(monkeypatch, train=table(10, kind=Value(dtype), column=column))
    with pytest.warns(UserWarning, match=r"\['picture', .*taken as one class"):
        assert asked("all")[1] == ("image",)


def test_a_part_that_the_hub_calls_otherwise_is_named(monkeypatch):
    parts = dict(train=table(5), extra=table(3), dev=table(2), val=table(4))
    hub(monkeypatch, **parts)
    with pytest.warns(UserWarning, match="hf:x: extra, dev left out"):
        assert len(asked("val")[0]) == 4


@pytest.mark.parametrize("stored", [0, 2**24])
def test_a_picture_of_the_hub_that_cannot_be_read_is_named(
    monkeypatch, stored
):
    monkeypatch.setattr(store, "STORED", stored)
    train = table(6)
    pictures = {1: None, 4: Image.new("F", (20, 12))}
    train.picture = lambda i: pictures.get(i, Image.new("RGB", (20, 12)))
    hub(monkeypatch, train=train, test=table(2))
    expected = r"2 unreadable.*image 1 \(no image\), image 4 \(gray in floats"
    with pytest.warns(UserWarning, match=expected):
        assert asked()[0] == ["cat", "cat", "dog", "dog"]
    with pytest.raises(ValueError, match=expected):
        load("hf:x", 8, strict=True, progress=False)


def test_a_picture_of_the_hub_is_shown_as_in_a_folder(monkeypatch):
    train, exif = table(2), Image.Exif()
    exif[0x0112] = 3
    shown = Image.new("LA", (8, 8), (0, 0))
    shown.putpixel((0, 0), (0, 255))
    file = io.BytesIO()
    shown.save(file, "PNG", exif=exif)
    train.picture = lambda i: Image.open(file)
    hub(monkeypatch, train=train)
    images = load("hf:x", 8, "all", progress=False).images
    assert (images[:, :, 7, 7] == 0).all() and (images[:, :, 0] == 255).all()


def test_parts_of_the_hub_keep_each_others_stores(monkeypatch):
    monkeypatch.setattr(store, "STORED", 0)
    hub(monkeypatch, train=table(6), test=table(3))
    for name in ("hf:a/b", "hf:a_b"):
        for part in ("train", "test"):
            asked(part, name=name)
    assert len(list(store.cache_folder().glob("stores/*/images"))) == 4
    monkeypatch.setattr(module, "read_picture", None)
    assert len(asked("train", name="hf:a/b")[0]) == 6
    assert len(check("hf:a/b")) == 2


def test_the_hub_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install .ciper-book.hub"):
        load("hf:someone/pets")


def test_the_hub_without_a_network_is_one_line(monkeypatch):
    def offline(name):
        raise ConnectionError("could not\nreach the hub")

    hub(monkeypatch).load_dataset = offline
    with pytest.raises(OSError, match="hf:x: could not reach the hub"):
        load("hf:x")


def test_a_hub_data_set_without_images_is_refused(monkeypatch):
    hub(monkeypatch, train=Column(3, text=object()))
    with pytest.raises(ValueError, match=r"no column of images: \['text'\]"):
        load("hf:x")


# --- check and get -----------------------------------------------------------


def test_check_counts_what_is_there(root, monkeypatch):
    core50(root), tdw(root)
    assert check("core50") == [f"{root / 'core50_32x32'}: 132 images"]
    assert check("tdw")[0].endswith(": 96 images")
    cifar10(root, monkeypatch)
    assert check("cifar10")[0].endswith(": 24 images")
    assert check("digits") == ["digits: nothing to check"]
    with pytest.raises(FileNotFoundError, match="nothing of stl10 is in"):
        check("stl10")


def test_check_finds_a_damaged_store(root, monkeypatch):
    monkeypatch.setattr(store, "STORED", 0)
    core50(root)
    load("core50", 8, progress=False)
    assert check("core50")[-1].endswith(": checksums")
    (file,) = store.cache_folder().glob("stores/*/images")
    with open(file, "r+b") as f:
        f.write(b"xyz")
    with pytest.raises(
        ValueError, match="is damaged: it was decoded from files"
    ):
        check("core50")


@pytest.mark.parametrize("folder", ["my photos", "B\u00fccher", "a[1]*"])
def test_check_finds_the_store_of_a_folder_of_any_name(
    tmp_path, monkeypatch, folder
):
    monkeypatch.setattr(store, "STORED", 0)
    for i in range(3):
        picture(tmp_path / folder / f"train/a/{i}.png", i)
        picture(tmp_path / folder / f"val/a/{i}.png", i)
    name = f"folder:{tmp_path / folder}"
    for part in ("train", "val", "all"):
        load(name, 8, part, progress=False)
    assert [x.endswith(": checksums") for x in check(name)[1:]] == [True] * 3
    file = next(store.cache_folder().glob("stores/*val*/images"))
    with open(file, "r+b") as f:
        f.write(b"xyz")
    with pytest.raises(ValueError, match="val.* is damaged: .*decodes them"):
        check(name)
    with pytest.warns(UserWarning, match="was damaged; decoded again"):
        load(name, 8, "val", progress=False)
    assert len(check(name)) == 4


def test_get_gives_what_is_there_and_knows_what_needs_nothing(root):
    home = core50(root)
    assert get("core50") == home
    with pytest.raises(ValueError, match="digits needs no download"):
        get("digits")


def test_the_session_of_films_is_asked_for_across_time(root):
    core50(root)
    data = load("core50", 8, "test", progress=False)
    first, second = _halves(data)
    frame = data.factors["frame"].values
    assert frame[first].unique().tolist() == [0]
    assert frame[second].unique().tolist() == [1]
