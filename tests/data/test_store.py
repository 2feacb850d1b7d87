"""The store: whole or not there, whatever happens to the work."""

import errno
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from replicas import picture, zipped

from ciper.data import store as module
from ciper.data.store import (
    CHUNK,
    Store,
    cache_folder,
    decode,
    decode_all,
    decode_files,
    gather,
    is_whole,
    list_files,
    read_about,
    store_names,
    stores_of,
    take,
    why_unreadable,
)

COUNT = 5 * CHUNK + 7


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        picture(tmp_path / f"photos/{'ab'[i % 2]}/{i}.png", i)
    return tmp_path / "photos"


def image(i):
    return torch.full((3, 8, 8), i % 251, dtype=torch.uint8)


def made(decode=image, count=COUNT, fingerprint="v1"):
    return Store("made", fingerprint, count, 8).load(decode, False)


def assert_right(images, expected=range(COUNT)):
    assert images[:, 2, 7, 7].tolist() == [i % 251 for i in expected]


# --- decoding ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG")),
        *(("RGBA", "PNG"), ("P", "PNG"), ("L", "PNG"), ("LA", "PNG")),
        *(("RGB", "BMP"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "TIFF")),
    ],
)
def test_an_image_has_the_bytes_that_pillow_reads(mode, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    expected = np.asarray(Image.open(file).convert("RGB"))
    found = decode(file.getvalue()).permute(1, 2, 0).numpy()
    assert (found == expected).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_a_truncated_image_is_none(kind):
    file = io.BytesIO()
    Image.effect_noise((30, 30), 50).save(file, kind)
    assert decode(file.getvalue()[: len(file.getvalue()) // 2]) is None


def test_an_image_is_scaled_and_cut_in_the_middle():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    found = decode(file.getvalue(), 10)
    assert found.shape == (3, 10, 10)
    assert (found[:, :, 1:-1] == 255).all()


# --- files -------------------------------------------------------------------


def test_an_archive_lists_and_reads_the_files_of_its_folder(photos):
    folder, archive = list_files(photos.parent), list_files(zipped(photos))
    kept = [i for i, x in enumerate(folder.names) if x.startswith("photos/")]
    assert folder.pick(kept).names == archive.names
    assert archive.read(3) == (photos.parent / archive.names[3]).read_bytes()


def test_a_truncated_archive_is_refused(photos):
    path = zipped(photos)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="not a whole zip archive"):
        list_files(path)


def test_a_file_damaged_inside_an_archive_is_unreadable(photos):
    path = zipped(photos)
    content = bytearray(path.read_bytes())
    content[content.find(b"IDAT") + 8] ^= 1
    path.write_bytes(content)
    assert decode_files(list_files(path), 8, progress=False).bad == (0,)


def test_hidden_files_are_no_part_of_the_data(photos):
    before = list_files(photos)
    (photos / "a/.DS_Store").write_bytes(b"x")
    (photos / "__MACOSX").mkdir()
    (photos / "__MACOSX/._1.png").write_bytes(b"x")
    assert list_files(photos) == before


def names(folder):
    return list(list_files(folder).names)


def test_a_link_to_a_folder_is_followed(photos, tmp_path):
    picture(tmp_path / "far/7.png", 7)
    (photos / "c").symlink_to(tmp_path / "far")
    assert names(photos)[-1] == "c/7.png"
    files = list_files(photos)
    assert files.read(6) == (tmp_path / "far/7.png").read_bytes()


def test_a_link_to_a_folder_around_it_ends_and_doubles_nothing(photos):
    before = names(photos)
    (photos / "a/up").symlink_to(photos)
    (photos / "b/self").symlink_to(photos / "b")
    (photos / "loop").symlink_to(photos / "loop")
    assert names(photos) == [*before, "loop"]


def test_a_pipe_and_a_socket_are_named_and_never_opened(tmp_path):
    picture(tmp_path / "1.png", 1)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "socket.png"))
        files = list_files(tmp_path)
        assert decode_files(files, 8, progress=False).bad == (1, 2, 3)
    for i in (1, 2, 3):
        assert "no regular file" in why_unreadable(files, i)


def test_names_in_latin_1_are_listed_and_read(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    picture(tmp_path / "1.png", 1)
    os.rename(tmp_path / "1.png", folder + b"/na\xefve.png")
    files = list_files(tmp_path)
    assert decode_files(files, 8, progress=False).bad == ()
    below = list_files(tmp_path / os.fsdecode(b"caf\xe9"))
    assert decode_files(below, 8, progress=False).bad == ()
    assert files.fingerprint() != below.fingerprint()


@pytest.mark.parametrize("letter", ["x", "\u00fc", "\u6f22"])
def test_a_name_as_long_as_may_be_has_a_store(tmp_path, monkeypatch, letter):
    monkeypatch.setattr(module, "STORED", 0)
    long = letter * (250 // len(letter.encode()))
    picture(tmp_path / long / "1.png", 1)
    read = decode_files(list_files(tmp_path / long), 8, progress=False)
    assert len(read.images) == 1
    names = store_names(tmp_path / long, ["all"])
    assert len(stores_of(names)) == 1


# --- archives ----------------------------------------------------------------


def packed(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_backslashes_and_dots_in_an_archive_are_no_part_of_names(tmp_path):
    members = {"a\\1.png": b"1", "./b/2.png": b"2", "/c/3.png": b"3"}
    files = list_files(packed(tmp_path / "x.zip", **members))
    assert files.names == ("a/1.png", "b/2.png", "c/3.png")
    assert [files.read(i) for i in range(3)] == [b"1", b"2", b"3"]
    assert files.pick([2]).read(0) == b"3"


@pytest.mark.parametrize(
    ("flags", "method", "message"),
    [
        (1, 8, r"x.zip: a/1.png is protected by a password; unpack"),
        (0, 9, r"x.zip: a/1.png is packed with a method .*Deflate64"),
        (0, 98, r"x.zip: a/1.png is packed with a method .*\(98\)"),
    ],
)
def test_an_archive_that_cannot_be_unpacked_here_is_refused(
    tmp_path, flags, method, message
):
    path = packed(tmp_path / "x.zip", **{"a/1.png": b"1" * 100})
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(mark) + place
        content[start : start + 4] = bytes([flags, 0, method, 0])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list_files(path)


def test_an_archive_is_never_to_be_deleted(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"mine")
    with pytest.raises(ValueError, match="x.zip is not a whole") as error:
        list_files(tmp_path / "x.zip")
    assert "delete" not in str(error.value)


# --- warnings ----------------------------------------------------------------


def test_what_pillow_warns_of_costs_no_image_where_warnings_are_errors(
    photos, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # of 64
    before = list(warnings.filters)
    files = list_files(photos)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_files(files, 8, progress=False).bad == ()
    assert warnings.filters == before
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    assert len(decode_files(files, 8, progress=False).bad) == 6
    assert "decompression bomb" in why_unreadable(files, 0)


@pytest.mark.parametrize("error", [IndexError, KeyError, TypeError])
def test_whatever_pillow_raises_is_a_reason(monkeypatch, photos, error):
    def fails(*_):
        raise error("deep\ninside")

    monkeypatch.setattr(module, "picture_pixels", fails)
    files = list_files(photos)
    assert decode_files(files, 8, progress=False).bad == (0, 1, 2, 3, 4, 5)
    assert "deep" in why_unreadable(files, 0)
    assert "\n" not in why_unreadable(files, 0)


def test_a_changed_file_changes_the_fingerprint(photos):
    before = list_files(photos).fingerprint()
    assert list_files(photos).fingerprint() == before
    os.utime(photos / "a/0.png", (1, 1))
    assert list_files(photos).fingerprint() != before


@contextmanager
def locked(path):
    """A folder with a picture at `path` that may not be read, not by root."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "photos"
        picture(home / "a/0.png", 0)
        os.chmod(place, 0o755)
        os.chmod(home / path, 0)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)
            yield home
        finally:
            if root:
                os.seteuid(0)
            os.chmod(home / path, 0o700)


def test_a_directory_without_read_permission_is_refused():
    refused = pytest.raises(PermissionError, match="cannot read .*a")
    with locked("a") as home, refused:
        list_files(home)


def test_a_file_without_permission_is_unreadable_and_says_so():
    with locked("a/0.png") as home:
        files = list_files(home)
        assert decode_files(files, 8, progress=False).bad == (0,)
        assert why_unreadable(files, 0) == "Permission denied"


# --- the store ---------------------------------------------------------------


def test_a_store_gives_back_every_image():
    images, bad = made()
    assert_right(images)
    assert bad == ()


def test_a_whole_store_decodes_nothing():
    made()

    def never(i):
        raise AssertionError("decoded again")

    assert_right(made(never).images)


def test_unreadable_images_leave_no_gap():
    gone = {0, 5, CHUNK, COUNT - 1}
    images, bad = made(lambda i: None if i in gone else image(i))
    assert bad == tuple(sorted(gone))
    assert_right(images, [i for i in range(COUNT) if i not in gone])
    assert is_whole(next(cache_folder().glob("stores/*-8-*")), thorough=True)


def test_a_store_of_unreadable_images_is_refused_and_leaves_nothing():
    with pytest.raises(ValueError, match="all images are unreadable"):
        made(lambda i: None)
    assert not list(cache_folder().glob("stores/*-8-*"))


def test_a_changed_source_replaces_the_store():
    made()
    images, _ = made(lambda i: image(i + 1), fingerprint="v2")
    assert_right(images, range(1, COUNT + 1))
    assert len(list(cache_folder().glob("stores/*-8-*"))) == 1


def test_another_version_of_the_format_is_made_again(monkeypatch):
    made()
    monkeypatch.setattr(module, "VERSION", 99)
    assert_right(made().images)
    (folder,) = cache_folder().glob("stores/*-8-*")
    assert read_about(folder)["version"] == 99


def test_a_store_cut_short_is_made_again():
    made()
    (file,) = cache_folder().glob("stores/*-8-*/images")
    os.truncate(file, 1000)
    assert not is_whole(file.parent)
    with pytest.warns(UserWarning, match="was damaged; decoded again"):
        assert_right(made().images)


def test_a_flipped_byte_is_found_by_the_checksums():
    made()
    (file,) = cache_folder().glob("stores/*-8-*/images")
    assert is_whole(file.parent, thorough=True)
    with open(file, "r+b") as f:
        f.write(b"!")
    assert is_whole(file.parent) and not is_whole(file.parent, thorough=True)


@pytest.mark.parametrize("place", [0, 192 * (COUNT - 1) + 5])
def test_a_byte_flipped_since_is_noticed_when_the_store_is_read(place):
    made()
    assert_right(made().images)  # once right is not for ever
    (file,) = cache_folder().glob("stores/*-8-*/images")
    with open(file, "r+b") as f:
        f.seek(place)
        f.write(b"!")
    asked = []
    with pytest.warns(UserWarning, match=f"{file.parent.name} was damaged"):
        images, _ = made(lambda i: asked.append(i) or image(i))
    assert_right(images)
    assert len(asked) == COUNT and is_whole(file.parent, thorough=True)
    assert_right(made(lambda i: pytest.fail("decoded")).images)


def test_a_byte_flipped_in_what_a_store_says_is_noticed():
    made(lambda i: None if i == 3 else image(i))
    (file,) = cache_folder().glob("stores/*-8-*/about.json")
    whole = file.read_text()
    file.write_text(whole.replace('"bad": [3]', '"bad": [4]'))
    with pytest.warns(UserWarning, match="was damaged; decoded again"):
        assert made(lambda i: None if i == 3 else image(i)).bad == (3,)
    assert file.read_text() == whole


def test_a_store_without_a_sum_of_what_it_says_is_read_as_it_is():
    made()
    (file,) = cache_folder().glob("stores/*-8-*/about.json")
    about = json.loads(file.read_text())
    del about["sum"]
    file.write_text(json.dumps(about))
    assert_right(made(lambda i: pytest.fail("decoded")).images)


def test_the_checksums_of_a_store_are_compared_once_in_a_process(monkeypatch):
    made()
    made()
    monkeypatch.setattr(module, "_checksums", None)
    assert_right(made().images)


def test_two_that_ask_at_once_decode_once():
    asked, found = [], []

    def slow(i):
        asked.append(i)
        return image(i)

    def ask():
        found.append(made(slow).images)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(asked) == COUNT and len(found) == 2
    assert_right(found[0]), assert_right(found[1])


def test_two_sources_with_like_names_keep_their_stores():
    others = ("hf-1", "hf-1-8", "hf-8-0123456789ab", "hf-8-0123456789ab.part")
    for name in (*others, "hf"):
        Store(name, "v1", 3, 8).load(image, False)
    for name in (*others, "hf"):
        store = Store(name, "v1", 3, 8)
        kept = store.load(lambda i: pytest.fail("decoded again"), False)
        assert_right(kept.images, range(3))


def test_only_old_stores_of_the_same_source_and_size_are_removed():
    home = cache_folder() / "stores"
    for name, size in (("hf", 8), ("hf", 16), ("hf-8-0123456789ab", 8)):
        pixels = [torch.zeros(3, size, size, dtype=torch.uint8)] * 3
        Store(name, "v1", 3, size).load(pixels.__getitem__, False)
    (home / "hf-8-ba9876543210.part").mkdir()
    before = {path.name for path in home.iterdir()}
    Store("hf", "v2", 3, 8).load(image, False)
    old, new = (Store("hf", v, 3, 8).folder.name for v in ("v1", "v2"))
    after = {path.name for path in home.iterdir()}
    assert after == before - {old, "hf-8-ba9876543210.part"} | {new}


def test_stores_are_found_by_what_they_say_of_themselves(photos, monkeypatch):
    monkeypatch.setattr(module, "STORED", 0)
    home = photos.rename(photos.parent / "meine B\u00fccher")
    beside = home.parent / "meine B\u00fccher-2"
    for folder in (home, beside):
        picture(folder / "a/9.png", 9)
        decode_files(list_files(folder), 8, progress=False)
    (found,) = stores_of(store_names(home, ["train", "all"]))
    assert read_about(found)["count"] == 7
    (found / "about.json").write_text("{")
    assert stores_of(store_names(home, ["all"])) == [found]


def test_the_cache_may_be_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CIPER_CACHE", "~/made")
    assert cache_folder() == tmp_path / "made"
    assert (tmp_path / "made").is_dir()


def test_few_images_stay_in_memory():
    images, _ = decode_all(image, 10, 8, "few", "v1", False)
    assert_right(images, range(10))
    assert not list(cache_folder().glob("stores/*"))


def test_parts_of_one_folder_have_stores_of_their_own(photos, monkeypatch):
    monkeypatch.setattr(module, "STORED", 0)
    files = list_files(photos)
    for part, index in {"train": [0, 1], "test": [2]}.items():
        decode_files(files.pick(index), 8, part, progress=False)
    assert len(list(cache_folder().glob("stores/*-8-*"))) == 2


# --- accidents ---------------------------------------------------------------

WORK = """
import sys, time, torch
from ciper.data.store import Store

def slow(i):
    if i % 64 == 0:
        time.sleep(0.05)
    return torch.full((3, 8, 8), i % 251, dtype=torch.uint8)

Store("made", "v1", int(sys.argv[1]), 8).load(slow, progress=False)
"""


def interrupted(cache, how):
    """Start the work, stop it after two chunks; its exit code and words."""
    work = subprocess.Popen(
        [sys.executable, "-c", WORK, str(COUNT)], stderr=subprocess.PIPE
    )
    for _ in range(600):
        records = list(cache.glob("stores/*.part/record"))
        if records and records[0].read_text().count("[]") >= 2:
            break
        time.sleep(0.02)
    work.send_signal(how)
    _, said = work.communicate(timeout=60)
    return work.returncode, said.decode()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_work_that_was_stopped_goes_on_where_it_was(cache, how):
    code, said = interrupted(cache, how)
    assert code in (-how, 130) or "KeyboardInterrupt" in said
    assert not [p for p in cache.glob("stores/*-8-*") if p.suffix != ".part"]
    asked = []
    images, _ = made(lambda i: asked.append(i) or image(i))
    assert_right(images)
    assert len(asked) <= COUNT - 2 * CHUNK
    assert is_whole(next(cache.glob("stores/*-8-*")), thorough=True)


def broken_off():
    """The folder of work that died in its last chunk."""

    def dies(i):
        if i == COUNT - 1:
            raise KeyboardInterrupt
        return image(i)

    with pytest.raises(KeyboardInterrupt):
        made(dies)
    (part,) = cache_folder().glob("stores/*.part")
    return part


def test_a_recorded_chunk_that_never_reached_the_disk_is_decoded_again():
    with open(broken_off() / "images", "r+b") as file:
        file.write(b"\1" * 192)
    asked = []
    images, _ = made(lambda i: asked.append(i) or image(i))
    assert sorted(asked) == [*range(CHUNK), *range(5 * CHUNK, COUNT)]
    assert_right(images)


def test_a_record_cut_short_by_a_crash_is_overlooked():
    with open(broken_off() / "record", "a") as file:
        file.write("[1280, 99")
    assert_right(made().images)


def test_a_full_disk_is_named_before_anything_is_decoded(monkeypatch):
    with tempfile.TemporaryDirectory() as place:
        mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a small disk can be mounted by root alone")
        try:
            monkeypatch.setenv("CIPER_CACHE", place)
            with pytest.raises(OSError, match="is full: 0.00 GB are needed"):
                made(lambda i: pytest.fail("decoded"))
            assert not list(Path(place).glob("stores/*-8-*"))
        finally:
            subprocess.run(["umount", place], check=True)


def test_a_file_that_may_not_grow_is_a_full_disk(cache):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache_folder()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="CIPER_CACHE") as error:
            made()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert not list(cache.glob("stores/*-8-*"))
    assert_right(made().images)


# --- memory ------------------------------------------------------------------


def test_neighbors_are_taken_without_a_copy():
    images, _ = made()
    some = take(images, torch.arange(3, 900))
    assert some.data_ptr() == images[3].data_ptr()


def test_a_large_selection_goes_to_a_file_without_a_name(monkeypatch, cache):
    images, _ = made()
    monkeypatch.setattr(module, "LARGE", 0)
    index = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))[
        :700
    ]
    before = sorted(cache.rglob("*"))
    some = take(images, index)
    assert some.untyped_storage().data_ptr() in module._MAPS
    assert_right(some, index.tolist())
    assert sorted(cache.rglob("*")) == before


def resident():
    """MiB of mapped files that count as memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if "RssFile" in x) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux")
def test_a_large_map_does_not_stay_resident(monkeypatch):
    block = torch.ones(3, 128, 128, dtype=torch.uint8)
    store = Store("large", "v1", 1500, 128)
    images, _ = store.load(lambda i: block, False)
    for large, low, high in ((2**40, 60, 90), (0, -90, 5)):
        monkeypatch.setattr(module, "LARGE", large)
        before = resident()
        for index in torch.arange(1500).split(100):
            assert gather(images, index).float().mean() == 1
        assert low < resident() - before < high


def test_checksums_are_compared_in_little_memory():
    block = torch.ones(3, 64, 64, dtype=torch.uint8)
    store = Store("big", "v1", 2 * CHUNK, 64)
    store.load(lambda i: block, False)
    tracemalloc.start()
    try:
        assert is_whole(store.folder, thorough=True)
        assert tracemalloc.get_traced_memory()[1] < 2**20  # of 6 MiB
    finally:
        tracemalloc.stop()


def test_what_is_written_to_a_map_never_reaches_the_file():
    images, _ = made()
    images[0] = 77
    assert_right(made().images)
