"""Folders of images: one's own, CORe50 and TDW, whole and damaged."""

import json
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from replicas import (
    SMALL_CORE50,
    SMALL_TDW,
    core50,
    picture,
    tdw,
    zipped,
)

from ciper.data import folders as module
from ciper.data import store
from ciper.data.datasets import load
from ciper.data.folders import (
    CATEGORIES,
    CORE50,
    TDW,
    arrange,
    image_suffixes,
    is_training,
    read_core50,
    read_tdw,
)
from ciper.data.images import POSE
from ciper.data.sources import PartnerViews
from ciper.data.store import decode
from ciper.data.turntable import turntable_grid


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))


def write(path, color="red", size=(20, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def photos(tmp_path):
    for i in range(5):
        write(tmp_path / f"cat/{i}.png", (10 * i, 0, 0), (20 + i, 30))
        write(tmp_path / f"dog/deep/{i}.jpg", (0, 10 * i, 0), (50, 9 + i))
    return tmp_path


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
    with pytest.warns(
        UserWarning,
        match=r"1 unreadable.*bad\.jpg \(no picture that Pillow knows\); ",
    ):
        found = load(f"folder:{photos}", 16, "all", progress=False)
    assert len(found) == 10


def test_a_truncated_image_is_unreadable(photos):
    whole = (photos / "dog/deep/4.jpg").read_bytes()
    (photos / "dog/deep/4.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(
        UserWarning, match=r"4\.jpg \(.*[Tt]runcated.*; skipped"
    ):
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


def test_an_archive_is_read_like_its_folder(photos):
    folder = load(f"folder:{photos}", 16, "all", progress=False)
    path = zipped(photos)
    inside = load(f"folder:{path}", 16, "all", progress=False)
    assert torch.equal(folder.images, inside.images)


def test_a_large_folder_is_read_from_a_store(photos, monkeypatch):
    name = f"folder:{photos}"
    expected = load(name, 16, "all", progress=False)
    monkeypatch.setattr(store, "STORED", 0)
    for _ in range(2):
        found = load(name, 16, "all", progress=False)
        assert torch.equal(found.images, expected.images)
        monkeypatch.setattr(store, "decode", None)


def test_a_changed_file_is_read_again(photos, monkeypatch):
    monkeypatch.setattr(store, "STORED", 0)
    name = f"folder:{photos}"
    before = load(name, 16, "all", progress=False)
    write(photos / "cat/0.png", "white", (20, 30))
    after = load(name, 16, "all", progress=False)
    assert before.images[0].max() == 0 and after.images[0].min() == 255


def test_a_store_still_names_what_was_unreadable(photos, monkeypatch):
    monkeypatch.setattr(store, "STORED", 0)
    (photos / "cat/bad.jpg").write_bytes(b"no image at all")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"bad\.jpg .*; skipped"):
            found = load(f"folder:{photos}", 16, "all", progress=False)
    assert found.labels.tolist() == [0] * 5 + [1] * 5


# --- splits ------------------------------------------------------------------


def tree(root, *names):
    """A small image at each path, and the name of the folder."""
    for i, name in enumerate(names):
        picture(root / name, i)
    return f"folder:{root}"


def part(name, which):
    data = load(name, 8, which, progress=False)
    return [data.classes[i] for i in data.labels.tolist()], data.classes


@pytest.mark.parametrize(
    ("train", "held"),
    [
        *(("train", "val"), ("training", "validation"), ("Train", "Test")),
        *(("train", "valid"), ("TRAIN", "testing"), ("trn", "dev")),
        *(("train", "eval"), ("train", "tst"), ("train", "evaluation")),
    ],
)
def test_the_usual_names_are_a_split_in_any_case(tmp_path, train, held):
    name = tree(
        tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{held}/b/3.png"
    )
    assert part(name, "train") == (["a", "b"], ("a", "b"))
    assert part(name, "test") == (["b"], ("a", "b"))
    assert len(part(name, "all")[0]) == 3


THREE = ("train/a/1.png", "train/b/2.png", "val/c/3.png", "test/b/4.png")


def test_three_parts_share_one_list_of_classes(tmp_path):
    name, classes = tree(tmp_path, *THREE), ("a", "b", "c")
    assert part(name, "train") == (["a", "b"], classes)
    assert part(name, "val") == (["c"], classes)
    assert part(name, "test") == (["b"], classes)
    assert sorted(part(name, "all")[0]) == ["a", "b", "b", "c"]


def test_the_parts_of_an_archive_are_those_of_its_folder(tmp_path):
    tree(tmp_path / "pets", *THREE)
    (tmp_path / "pets/__MACOSX").mkdir()
    path = zipped(tmp_path / "pets")  # in a folder of its own
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/pets/._1.png", b"x")
    for which in ("train", "val", "test"):
        found = part(f"folder:{path}", which)
        assert found == part(f"folder:{tmp_path / 'pets'}", which)


def test_a_folder_that_holds_only_a_folder_is_opened_and_said(tmp_path):
    pets = tree(tmp_path / "deep/pets", "a/1.png", "b/2.png")
    assert part(pets, "all") == (["a", "b"], ("a", "b"))
    for name, place in ((tmp_path, "deep/pets"), (tmp_path / "deep", "pets")):
        with pytest.warns(UserWarning, match=f"lies in {place}: opened at"):
            assert part(f"folder:{name}", "all") == (["a", "b"], ("a", "b"))


def test_a_part_that_an_archive_holds_twice_is_one(tmp_path):
    names = "train/train/a/1.png", "train/train/b/2.png", "test/test/b/3.png"
    assert part(tree(tmp_path, *names), "test") == (["b"], ("a", "b"))


def test_a_split_without_classes_has_one(tmp_path):
    name = tree(tmp_path / "pets", "train/1.png", "train/2.png", "val/3.png")
    assert part(name, "train") == (["pets", "pets"], ("pets",))
    assert part(name, "test") == (["pets"], ("pets",))


def test_a_part_that_is_not_there_is_refused_by_name(tmp_path):
    two = tree(tmp_path / "two", "train/a/1.png", "test/a/2.png")
    with pytest.raises(ValueError, match="two has no part 'val', only train"):
        load(two, 8, "val", progress=False)
    none = tree(tmp_path / "none", "a/1.png", "b/2.png")
    with pytest.raises(ValueError, match="no part 'val', only train and test"):
        load(none, 8, "val", progress=False)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("train/a/1.png", "holdout/a/2.png"), "train and holdout"),
        (("train/a/1.png", "cat/2.png"), "train and cat"),
        (("train/a/1.png", "test/a/2.png", "x/3.png"), "train, test and x"),
        (("train/1.png", "test/2.png", "cat/3.png"), "train, test and cat"),
        (("train/a/1.png", "Train/a/2.png"), "train"),
        (("train/1.png", "training/1.png", "cat/2.png"), "train"),
        (("train/a/1.png", "val/a/2.png", "valid/a/3.png"), "val"),
        (("val/a/1.png", "test/a/2.png"), "test, val"),
    ],
)
def test_half_a_split_is_refused_by_name(names, shown):
    with pytest.raises(ValueError, match="half a split: expected") as error:
        arrange(sorted(names), Path("pets"))
    assert all(name in str(error.value) for name in re.findall(r"\w+", shown))


def test_a_class_called_like_a_part_is_one_with_a_warning(tmp_path):
    name = tree(tmp_path, "bus/1.png", "car/2.png", "train/3.png")
    with pytest.warns(UserWarning, match="train taken as a class, not as"):
        assert part(name, "all")[1] == ("bus", "car", "train")


def test_a_training_part_alone_is_split_at_random_with_a_warning(tmp_path):
    name = tree(tmp_path, *(f"train/{c}/{i}.png" for c in "ab" for i in "123"))
    for which, count in (("train", 5), ("test", 1)):
        with pytest.warns(UserWarning, match="only 'train' is there"):
            found, classes = part(name, which)
        assert (len(found), classes) == (count, ("a", "b"))


def test_images_beside_a_split_or_classes_are_named(tmp_path):
    names = "train/a/1.png", "test/a/2.png", "cover.png"
    name = tree(tmp_path / "pets", *names)
    with pytest.warns(UserWarning, match="1 image.s. beside the split left"):
        assert part(name, "all") == (["a", "a"], ("a",))
    name = tree(tmp_path / "mine", "a/1.png", "b/2.png", "cover.png")
    with pytest.warns(UserWarning, match="are a class, 'mine'"):
        assert part(name, "all")[1] == ("a", "b", "mine")


def test_a_part_without_classes_is_no_part_to_test_on(tmp_path):
    bare = [f"test/{i}.png" for i in range(3)]
    name = tree(tmp_path / "x", "train/a/1.png", "val/a/2.png", *bare)
    with pytest.warns(UserWarning, match="test has no folders of classes"):
        assert part(name, "test") == (["a"], ("a",))
    name = tree(tmp_path / "y", *(f"train/a/{i}.png" for i in "12345"), *bare)
    with pytest.warns(UserWarning) as said:
        assert part(name, "all") == (["a"] * 5, ("a",))
    assert "only 'train' is there" in str(said[1].message)
    with pytest.raises(ValueError, match="part train has no folders of"):
        arrange(["train/1.png", "test/a/2.png"], tmp_path)


def page_cell(name):
    """A cell of the page about own images."""
    page = Path(__file__).parents[2] / "nbs/start/own_images.ipynb"
    cells = json.loads(page.read_text())["cells"]
    return next(cell for cell in cells if cell["id"] == name)


def test_the_page_of_own_images_shows_what_is_said_of_one_class():
    said = "".join(page_cell("one-class")["outputs"][-1]["text"])
    assert "1 class: flat" in said and "accuracy" not in said
    assert "what is left of the parameters of the views" in said


def test_the_layouts_on_the_page_of_own_images_are_read_as_it_says():
    text = "".join(page_cell("layouts")["source"])
    rows = re.findall("(?m)^[|] (`photos/.+?) [|] (.+) [|]$", text)
    read = {}
    for paths, said in rows:
        names = re.findall("`photos/(.+?)`", paths)
        read[said.partition(";")[0]] = arrange(names, Path("photos"))
    assert read == {
        "two classes": (["", ""], ["cat", "dog"]),
        "the split that you made": (["train", "val"], ["cat"] * 2),
        "a split in three parts": (["train", "val", "test"], ["cat"] * 3),
        "deeper folders belong to their class": (["", ""], ["cat", "dog"]),
        "no folders: a single class, named after the folder": (
            ["", ""],
            ["photos", "photos"],
        ),
    }


def test_ten_thousand_classes_are_listed_in_a_moment():
    names = [f"train/{c:05}/{i}.jpg" for c in range(10_000) for i in range(8)]
    names += [f"val/{c:05}/{i}.jpg" for c in range(10_000) for i in range(2)]
    start = time.process_time()
    parts, classes = arrange(names, Path("many"))
    assert time.process_time() - start < 2
    assert parts.count("val") == 20_000 and len(set(classes)) == 10_000


def test_labels_of_many_classes_take_no_time(tmp_path, monkeypatch):
    names = tuple(f"{c:05}/{i}.jpg" for c in range(10_000) for i in range(10))
    files = store.Files(tmp_path, names, ("0-1",) * len(names))
    tiny = torch.zeros(1, 3, 8, 8, dtype=torch.uint8).expand(100_000, 3, 8, 8)
    monkeypatch.setattr(module, "list_files", lambda root: files)
    monkeypatch.setattr(
        module, "decode_files", lambda *a: store.Decoded(tiny, ())
    )
    start = time.process_time()
    data = module.read_folder(tmp_path, 8, "all")
    assert time.process_time() - start < 2
    assert data.labels.tolist() == [i // 10 for i in range(100_000)]


# --- which files are images --------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        *((".jfif", "JPEG"), (".jpe", "JPEG"), (".JPG", "JPEG")),
        *((".jp2", "JPEG2000"), (".avif", "AVIF"), (".tga", "TGA")),
        *((".pgm", "PPM"), (".qoi", "QOI"), (".apng", "PNG")),
    ],
)
def test_whatever_pillow_opens_is_read(tmp_path, suffix, kind):
    (tmp_path / "a").mkdir()
    picture = Image.new("L" if suffix == ".pgm" else "RGB", (16, 16), 90)
    picture.save(tmp_path / f"a/1{suffix}", kind)
    assert len(load(f"folder:{tmp_path}", 8, "all", progress=False)) == 1


def test_documents_films_and_tables_are_no_images():
    found = image_suffixes()
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff"} <= found
    assert {".webp", ".ppm", ".jp2", ".mpo"} <= found
    no = {".pdf", ".ps", ".eps", ".mpg", ".mpeg", ".h5", ".hdf", ".ico"}
    assert not found & no


def test_images_that_nobody_reads_are_counted_and_named(photos):
    for name in ("cat/a.heic", "cat/b.HEIC", "dog/c.svg", "dog/d.txt"):
        (photos / name).write_bytes(b"x")
    (photos / "bird").symlink_to(photos / "nowhere")
    expected = r"4 file\(s\) .* 2 \.heic, 1 link to nothing, 1 \.svg: bird, "
    with pytest.warns(UserWarning, match=expected):
        assert len(load(f"folder:{photos}", 8, "all", progress=False)) == 10
    with pytest.raises(ValueError, match="convert them to JPEG or PNG"):
        load(f"folder:{photos}", 8, strict=True, progress=False)


def test_a_folder_of_images_that_nobody_reads_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"1 file.* 1 \.heic: a/1\.heic"):
        load(f"folder:{tmp_path}", progress=False)


def test_a_linked_folder_is_a_class(tmp_path):
    tree(tmp_path / "far", "1.png")
    name = tree(tmp_path / "pets", "a/1.png")
    (tmp_path / "pets/b").symlink_to(tmp_path / "far")
    (tmp_path / "pets/a/up").symlink_to(tmp_path / "pets")
    assert part(name, "all") == (["a", "b"], ("a", "b"))


def test_a_class_in_latin_1_has_a_name_to_print(tmp_path):
    name = tree(tmp_path, "cafe/1.png", "dog/2.png")
    home = os.fsencode(tmp_path)
    os.rename(home + b"/cafe", home + b"/caf\xe9")
    assert part(name, "all") == (["caf\u00e9", "dog"], ("caf\u00e9", "dog"))


@pytest.mark.parametrize("stored", [0, 2**24])
def test_a_refused_picture_is_named_with_the_reason(
    tmp_path, monkeypatch, stored
):
    monkeypatch.setattr(store, "STORED", stored)
    name = tree(tmp_path, "a/1.png", "b/2.png")
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a/deep.tif")
    with pytest.warns(UserWarning, match=r"deep\.tif \(gray in floats has no"):
        assert part(name, "all")[0] == ["a", "b"]
    for path in ("a/1.png", "b/2.png"):
        (tmp_path / path).unlink()
    with pytest.raises(ValueError, match=r"a/deep\.tif \(gray in floats"):
        load(name, 8, "all", progress=False)


def test_a_photograph_on_its_side_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    for name in (tmp_path, zipped(tmp_path)):
        found = load(f"folder:{name}", 16, "all", progress=False).images[0]
        assert found[0].nonzero().tolist() == [[0, 15]]


# --- CORe50 ------------------------------------------------------------------

SMALL = dict(size=8, layout=SMALL_CORE50, progress=False)


@pytest.fixture(scope="module")
def core50_made(tmp_path_factory):
    return core50(tmp_path_factory.mktemp("core50"))


@pytest.fixture
def core50_copy(core50_made, tmp_path):
    return Path(shutil.copytree(core50_made, tmp_path / core50_made.name))


def test_the_published_core50_has_164866_frames():
    assert sum(CORE50.frames) == 164_866
    assert (len(CORE50.frames), CORE50.objects) == (11, 50)


def test_a_frame_has_the_session_object_and_number_of_its_path(core50_made):
    data = read_core50(core50_made, part="all", **SMALL)
    names = ("session", "object", "frame", "category")
    rows = torch.stack([data.factors[n].values for n in names], 1).tolist()
    i = rows.index([6, 5, 1, 1])
    path = core50_made / "s7/o6/C_07_06_001.png"
    assert torch.equal(data.images[i], decode(path.read_bytes()))
    assert data.factors["object"].levels[5] == f"{CATEGORIES[1]} 1"
    assert len(data) == 132 and data.partners == ("session",)


def test_core50_is_read_from_its_archive_and_without_its_folder(
    core50_copy, tmp_path
):
    expected = read_core50(core50_copy, part="all", **SMALL)
    found = read_core50(zipped(core50_copy), part="all", **SMALL)
    assert torch.equal(found.images, expected.images)


def sessions_of(folder, part, **options):
    data = read_core50(folder, part=part, **options, **SMALL)
    return (data.factors["session"].values.unique() + 1).tolist()


@pytest.mark.parametrize(
    ("options", "train"),
    [
        ({}, [1, 2]),
        ({"sessions": (4, 9)}, [4, 9]),
        ({"protocol": "usual"}, [1, 2, 4, 5, 6, 8, 9, 11]),
    ],
)
def test_a_protocol_splits_by_session(core50_made, options, train):
    rest = sorted({*range(1, 12)} - {*train})
    assert sessions_of(core50_made, "train", **options) == train
    assert sessions_of(core50_made, "test", **options) == rest


def test_held_out_objects_are_never_trained_on(core50_made):
    options = dict(protocol="objects", labels="category", **SMALL)
    train, test = (
        read_core50(core50_made, part=part, **options)
        for part in ("train", "test")
    )
    seen = train.factors["object"].values.unique().tolist()
    assert seen == [0, 1, 2, 3, 5]
    assert test.factors["object"].values.unique().tolist() == [4]
    assert train.classes == CATEGORIES[:2]


@pytest.mark.parametrize("sessions", [(), (1, 12), tuple(range(1, 12))])
def test_sessions_that_leave_nothing_to_train_or_test_are_refused(sessions):
    table = torch.cartesian_prod(torch.arange(11), torch.arange(6))
    with pytest.raises(ValueError, match="but not all of them, got"):
        is_training(table, "ciper", sessions)


def missing_session(folder):
    shutil.rmtree(folder / "s4")


def missing_object(folder):
    for i in range(2):
        (folder / f"s4/o2/C_04_02_{i:03}.png").rename(
            folder / f"s4/o1/C_04_01_{i + 50:03}.png"
        )


def missing_frame(folder):
    (folder / "s4/o2/C_04_02_001.png").unlink()


def extra_frame(folder):
    picture(folder / "s4/o2/C_04_02_077.png", 0)


def extra_session(folder):
    picture(folder / "s12/o1/C_12_01_000.png", 0)


def extra_file(folder):
    (folder / "s4/o2/notes.txt").write_text("x")


def wrong_place(folder):
    (folder / "s4/o2/C_04_02_001.png").rename(folder / "s5/o2/C_04_02_001.png")


def no_image(folder):
    (folder / "s4/o2/C_04_02_001.png").write_text("not an image")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_session, "session s4 is missing"),
        (missing_object, "s4/o2 is missing"),
        (missing_frame, "session s4 has 11 images, expected 12"),
        (extra_frame, "session s4 has 13 images, expected 12"),
        (extra_session, "session s12 is not known"),
        (extra_file, "s4/o2/notes.txt is no frame of a session"),
        (wrong_place, "C_04_02_001.png lies in the wrong folder"),
        (no_image, r"1 unreadable image.*C_04_02_001\.png"),
    ],
)
def test_a_damaged_core50_is_refused(core50_copy, damage, message):
    damage(core50_copy)
    with pytest.raises(ValueError, match=message):
        read_core50(core50_copy, **SMALL)


def test_pickled_lists_beside_the_sessions_are_not_opened(core50_copy):
    (core50_copy / "paths.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert len(read_core50(core50_copy, part="all", **SMALL)) == 132


def test_the_real_counts_are_asserted_by_default(core50_made):
    with pytest.raises(ValueError, match="s1 has 12 images, expected 14989"):
        read_core50(core50_made, progress=False)


def test_partners_in_core50_are_of_the_same_object(core50_made):
    data = read_core50(core50_made, part="test", **SMALL)
    source = PartnerViews(data)
    assert source.classes == (11,)
    index = torch.arange(len(data))
    partner = source.companions.draw(index, torch.Generator().manual_seed(0))
    for name in ("object", "category"):
        values = data.factors[name].values
        assert torch.equal(values[index], values[partner])
    target = source._change(index, partner)[:, 0]
    assert torch.equal(target.long(), data.factors["session"].values[partner])


# --- TDW ---------------------------------------------------------------------

FEW = dict(size=8, layout=SMALL_TDW, progress=False)


@pytest.fixture
def tdw_made(tmp_path):
    return tdw(tmp_path)


def test_the_published_tdw_is_the_grid_of_turntable():
    factors, grid = TDW.factors(), turntable_grid()
    assert len(factors["object"].values) == 12_096
    assert torch.equal(factors["object"].values, grid["object"])
    for name in POSE:
        torch.testing.assert_close(
            factors[name].values, grid[name], check_dtype=False
        )
        assert torch.equal(factors[name].steps, grid[f"{name}_step"])
    assert TDW.objects[11] == "bottle"


def test_label_and_pose_follow_from_the_sorted_position(tdw_made):
    data = read_tdw(tdw_made, part="train", **FEW)
    place = 24 + 12 + 2 * 4 + 3  # object 1, distance 1, elevation 2, azimuth 3
    factors = {k: f.values[place].item() for k, f in data.factors.items()}
    assert factors == pytest.approx(
        {"object": 1, "distance": 0.4, "elevation": 30, "azimuth": 270}
    )
    path = tdw_made / f"train/{place:05}.png"
    assert torch.equal(data.images[place], decode(path.read_bytes()))
    assert data.labels[place] == 1 and data.partners == POSE


def test_both_parts_of_tdw_share_the_grid(tdw_made):
    data = read_tdw(tdw_made, part="all", **FEW)
    azimuth = data.factors["azimuth"].values
    assert len(data) == 96 and torch.equal(azimuth[:48], azimuth[48:])


def test_tdw_is_read_from_an_archive(tdw_made):
    expected = read_tdw(tdw_made, part="test", **FEW)
    found = read_tdw(zipped(tdw_made), part="test", **FEW)
    assert torch.equal(found.images, expected.images)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda x: (x / "train/00007.png").unlink(),
            "train has 47 images, expected 48",
        ),
        (
            lambda x: picture(x / "train/99999.png", 0),
            "train has 49 images, expected 48",
        ),
        (
            lambda x: (x / "train/labels.txt").write_text("x"),
            "train/labels.txt is not one of the images",
        ),
        (
            lambda x: (x / "train/00007.png").write_text("x"),
            r"unreadable image.*00007\.png",
        ),
        (
            lambda x: shutil.rmtree(x / "train"),
            "train has 0 images, expected 48",
        ),
    ],
)
def test_a_damaged_tdw_is_refused(tdw_made, damage, message):
    damage(tdw_made)
    with pytest.raises(ValueError, match=message):
        read_tdw(tdw_made, **FEW)


def test_partners_in_tdw_have_the_change_of_pose_as_target(tdw_made):
    data = read_tdw(tdw_made, **FEW)
    source = PartnerViews(data)
    assert source.names == ("azimuth", "elevation", "distance")
    change = source._change(torch.tensor([3]), torch.tensor([12 + 4]))
    expected = torch.tensor([[-270.0, 10.0, 0.1]])  # 270 to 0, not wrapped
    torch.testing.assert_close(change, expected, atol=1e-6, rtol=0)


def test_every_image_of_a_folder_knows_its_file(tmp_path):
    for i in range(6):
        picture(tmp_path / f"{'xy'[i % 2]}/{i}.png", i)
    (tmp_path / "x/3bad.png").write_text("no image")
    with pytest.warns(UserWarning, match="1 unreadable"):
        whole = module.read_folder(tmp_path, 8, "all", progress=False)
    names = ("x/0.png", "x/2.png", "x/4.png", "y/1.png", "y/3.png", "y/5.png")
    assert whole.files == names
    with pytest.warns(UserWarning, match="1 unreadable"):
        part = module.read_folder(tmp_path, 8, "train", progress=False)
    for image, name in zip(part.images, part.files):
        assert (image == whole.images[names.index(name)]).all()
