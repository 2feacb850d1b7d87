"""Downloads from a server on this machine that behaves like the real ones."""

import hashlib
import os
import shutil
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ciper.data import download as module
from ciper.data.download import (
    Archive,
    check_md5,
    data_folder,
    fetch,
    unpacked,
)

CONTENT = bytes(range(256)) * 500
MD5 = hashlib.md5(CONTENT).hexdigest()
PIECE = 40_000


class Host(BaseHTTPRequestHandler):
    """Each path misbehaves in its own way."""

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.asked.append((self.path, start))
        getattr(self, self.path.strip("/"))(start)

    def say(self, status, content, sent=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])

    def good(self, start):
        if start >= len(CONTENT):
            self.say(416, b"")
        else:
            self.say(206 if start else 200, CONTENT[start:])

    def gone(self, start):
        self.say(404, b"no such file")

    def wrong(self, start):
        self.say(200, b"<html>please log in</html>")

    def breaks(self, start):
        self.say(206 if start else 200, CONTENT[start:], PIECE)

    def breaks_once(self, start):
        self.say(
            206 if start else 200, CONTENT[start:], None if start else PIECE
        )

    def no_ranges(self, start):
        self.say(200, CONTENT)

    def no_ranges_breaks_once(self, start):
        first = len(self.server.asked) == 1
        self.say(200, CONTENT, PIECE if first else None)

    def dead(self, start):
        self.say(200, CONTENT, 0)

    def log_message(self, *_):
        pass


@pytest.fixture
def host():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CIPER_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def archive(host, *paths, md5=MD5):
    place = f"http://127.0.0.1:{host.server_port}"
    urls = tuple(f"{place}/{path}" for path in paths)
    return Archive("films.zip", md5, urls, "films", len(CONTENT))


def fetched(host, root, *paths):
    path = fetch(archive(host, *paths), root, progress=False)
    assert path.read_bytes() == CONTENT
    assert [x.name for x in root.iterdir()] == ["films.zip"]
    return host.asked


def test_a_file_is_downloaded_in_one_request(host, root):
    assert fetched(host, root, "good") == [("/good", 0)]


def test_a_broken_connection_is_resumed_where_it_broke(host, root):
    asked = fetched(host, root, "breaks_once")
    assert len(asked) == 2 and 0 < asked[1][1] <= PIECE


def test_a_connection_that_breaks_again_and_again_gets_there(host, root):
    starts = [start for _, start in fetched(host, root, "breaks")]
    assert len(starts) >= 4 and starts == sorted(set(starts))


def test_a_server_without_ranges_sends_all_again(host, root):
    assert len(fetched(host, root, "no_ranges_breaks_once")) == 2


def test_a_part_left_by_a_killed_process_is_resumed(host, root):
    root.mkdir()
    (root / "films.zip.part").write_bytes(CONTENT[:77_000])
    assert fetched(host, root, "good") == [("/good", 77_000)]


def test_a_part_that_is_whole_needs_no_more_bytes(host, root):
    root.mkdir()
    (root / "films.zip.part").write_bytes(CONTENT)
    assert fetched(host, root, "good") == [("/good", len(CONTENT))]


def test_a_wrong_part_is_thrown_away_and_fetched_anew(host, root):
    root.mkdir()
    (root / "films.zip.part").write_bytes(b"x" * 77_000)
    assert fetched(host, root, "good") == [("/good", 77_000), ("/good", 0)]


@pytest.mark.parametrize("first", ["gone", "wrong", "dead"])
def test_the_next_mirror_is_asked_where_the_first_fails(host, root, first):
    asked = fetched(host, root, first, "good")
    assert [path for path, _ in asked] == [f"/{first}", "/good"]


def test_the_next_mirror_goes_on_where_the_first_stopped(
    host, root, monkeypatch
):
    root.mkdir()
    (root / "films.zip.part").write_bytes(CONTENT[:50_000])
    asked = fetched(host, root, "gone", "good")
    assert asked == [("/gone", 50_000), ("/good", 50_000)]


def test_with_no_mirror_left_the_error_says_what_to_do(host, root):
    with pytest.raises(OSError) as error:
        fetch(archive(host, "gone", "wrong"), root, progress=False)
    said = str(error.value)
    for part in (
        "/gone: status 404",
        "/wrong: another file",
        f"md5 {MD5}, {len(CONTENT)} bytes",
        f"put it at {root / 'films.zip'}",
        f"unpack it to {root / 'films'}",
    ):
        assert part in said
    assert "\n" not in said and not list(root.iterdir())


def test_a_host_that_does_not_answer_is_named(root):
    dead = Archive("x.zip", MD5, ("http://127.0.0.1:9/x.zip",), "x")
    with pytest.raises(OSError, match="127.0.0.1:9/x.zip: no connection"):
        fetch(dead, root, progress=False)


def test_a_file_that_is_there_is_used_without_asking_anybody(host, root):
    root.mkdir()
    (root / "films.zip").write_bytes(CONTENT)
    assert fetched(host, root, "good") == []


def test_a_wrong_file_that_is_there_is_refused_and_kept(host, root):
    root.mkdir()
    (root / "films.zip").write_bytes(b"mine")
    with pytest.raises(ValueError, match="has md5 .*, expected"):
        fetch(archive(host, "good"), root, progress=False)
    assert (root / "films.zip").read_bytes() == b"mine" and not host.asked


def test_a_checksum_is_computed_once_for_a_file(host, root, monkeypatch):
    root.mkdir()
    path, known = root / "films.zip", archive(host)
    path.write_bytes(CONTENT)
    check_md5(known, path)
    sums = []
    real = module.pooch.file_hash
    monkeypatch.setattr(
        module.pooch,
        "file_hash",
        lambda *a, **k: sums.append(a) or real(*a, **k),
    )
    check_md5(known, path)
    assert not sums
    check_md5(known, path, again=True)
    path.write_bytes(CONTENT[:-1] + b"x")
    os.utime(path, (5, 5))
    with pytest.raises(ValueError, match="expected"):
        check_md5(known, path)
    assert len(sums) == 2


def test_a_checksum_in_capitals_and_a_folder_in_latin_1_are_right(
    host, root, monkeypatch
):
    place = root / os.fsdecode(b"caf\xe9")
    place.mkdir(parents=True)
    (place / "films.zip").write_bytes(CONTENT)
    known = archive(host, md5=MD5.upper())
    for _ in range(2):
        check_md5(known, place / "films.zip")
        monkeypatch.setattr(module.pooch, "file_hash", None)
    assert fetch(known, place) == place / "films.zip"


def test_a_full_disk_keeps_the_part_for_later(host, root, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    root.mkdir()
    (root / "films.zip.part").write_bytes(CONTENT[:10])
    monkeypatch.setattr(module, "_stream", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(archive(host, "good"), root, progress=False)
    assert (root / "films.zip.part").read_bytes() == CONTENT[:10]


def tarred(root, text="1"):
    (root / "films").mkdir(parents=True)
    (root / "films/one.txt").write_text(text)
    with tarfile.open(root / "films.zip", "w:gz") as tar:
        tar.add(root / "films", "films")
    (root / "films/one.txt").unlink()
    (root / "films").rmdir()
    return root / "films.zip"


def local(path):
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return Archive("films.zip", md5, (), "films")


def test_a_tar_archive_is_unpacked_whole(root):
    found = unpacked(local(tarred(root)), root)
    assert (found / "one.txt").read_text() == "1"
    assert {x.name for x in root.iterdir()} == {"films", "films.zip"}


def test_a_truncated_tar_archive_leaves_no_folder(root):
    path = tarred(root)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpacked(local(path), root)
    assert [x.name for x in root.iterdir()] == ["films.zip"]


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_a_byte_damaged_in_a_tar_archive_is_one_line(root, place):
    path = tarred(root, "".join(map(str, range(20_000))))
    content = bytearray(path.read_bytes())
    for i in range(40):
        content[int(place * len(content)) + i] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="films.zip cannot be unpacked"):
        unpacked(local(path), root)
    assert [x.name for x in root.iterdir()] == ["films.zip"]


def test_a_tar_archive_of_another_folder_is_refused(root):
    path = tarred(root)
    known = replace(local(path), folder="photos")
    with pytest.raises(ValueError, match="films.zip holds no folder photos"):
        unpacked(known, root)


def test_two_that_unpack_at_once_have_one_folder(root, monkeypatch):
    path, real = tarred(root), os.rename

    def late(made, folder):
        shutil.copytree(made, folder)  # another process, just before
        real(made, folder)

    monkeypatch.setattr(os, "rename", late)
    found = unpacked(local(path), root)
    assert [x.name for x in found.iterdir()] == ["one.txt"]
    assert {x.name for x in root.iterdir()} == {"films", "films.zip"}


def test_a_folder_that_is_there_needs_no_archive(root):
    (root / "films").mkdir(parents=True)
    assert unpacked(Archive("films.zip", MD5, (), "films"), root).is_dir()


def test_the_root_is_given_or_named_by_the_environment(tmp_path, monkeypatch):
    assert data_folder() == tmp_path / "cache/data"
    monkeypatch.setenv("CIPER_DATA", "/elsewhere")
    assert str(data_folder()) == "/elsewhere"
    assert data_folder(tmp_path) == tmp_path
    monkeypatch.setenv("HOME", "/data/me")
    monkeypatch.setenv("CIPER_DATA", "~/photos")
    assert str(data_folder()) == "/data/me/photos"
