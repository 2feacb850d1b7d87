"""Files on disk: whole or not at all, and refused where they are damaged."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ciper.augment.chain import Augment
from ciper.augment.params import Params
from ciper.data import datasets
from ciper.files import load_tensors, read_json, replace_file, save_tensors

TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "half": torch.tensor(1.5, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "none": torch.zeros(0, 3, dtype=torch.uint8),
    "last": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
}
ABOUT = {"recipe": {"method": "ciper"}, "history": [{"loss": 0.1}]}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run" / "weights.safetensors"
    save_tensors(path, TENSORS, ABOUT)
    return path


def assert_refused(read, path, message):
    """In one line that names the file and tells nobody to delete it."""
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    text = str(error.value)
    assert path.name in text and "\n" not in text
    assert not {"delete", "remove"} & set(text.lower().split())


# whole or not at all


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "note"
    for text in "first", "second":
        replace_file(path, lambda part, text=text: part.write_text(text))
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["note"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "full")])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "note"
    path.write_text("old")

    def write(part):
        part.write_text("ne")
        raise error

    with pytest.raises(
        type(error) if error is not KeyboardInterrupt else error
    ):
        replace_file(path, write)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["note"]


def test_two_writers_at_once_do_not_meet(tmp_path):
    path = tmp_path / "note"

    def write(part):
        part.write_text("outer")
        replace_file(path, lambda inner: inner.write_text("inner"))
        assert path.read_text() == "inner"

    replace_file(path, write)
    assert path.read_text() == "outer"


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path, monkeypatch
):
    seen, real = [], os.fsync
    path = tmp_path / "note"
    monkeypatch.setattr(
        os, "fsync", lambda f: seen.append(path.exists()) or real(f)
    )
    replace_file(path, lambda part: part.write_text("text"))
    assert seen == [False]


@pytest.mark.parametrize(
    "name", ["file/below", "n" * 300, "n" * 300 + "/below", "folder"]
)
def test_where_nothing_can_be_written_the_file_is_named(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=name) as error:
        save_tensors(tmp_path / name, TENSORS, ABOUT)
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(tmp_path):
    program = """if True:
        import resource, signal, sys, torch
        from ciper.files import save_tensors
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            save_tensors(sys.argv[1], {"a": torch.zeros(999)}, {})
        except OSError as error:
            print(error)
    """
    path = tmp_path / "weights"
    found = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True
    )
    assert "too large" in found.stdout and str(path) in found.stdout
    assert not [*tmp_path.iterdir()]


def test_others_may_read_what_the_umask_lets_them(saved):
    mode = os.umask(0o022)
    os.umask(mode)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o666 & ~mode


# tensors


def test_tensors_and_what_they_are_come_back_bit_by_bit(saved):
    tensors, about = load_tensors(saved)
    assert about == ABOUT and tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "weights"
    save_tensors(path, {"w": torch.arange(4.0)}, {"seed": 3})
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in 0, 4, 5:
            content = bytearray(whole)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            with pytest.raises(ValueError, match="weights"):
                load_tensors(path)


def test_a_cut_file_is_refused_wherever_it_was_cut(saved):
    whole = saved.read_bytes()
    for length in 0, 7, 100, len(whole) // 2, len(whole) - 1:
        saved.write_bytes(whole[:length])
        assert_refused(load_tensors, saved, "cut or damaged")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (9, 9)).save(path)
    assert_refused(load_tensors, path, "no safetensors file")
    torch.save(TENSORS, tmp_path / "pickled.pt")
    assert_refused(load_tensors, tmp_path / "pickled.pt", "no safetensors")
    assert_refused(load_tensors, tmp_path, "is a folder")
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load_tensors(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "metadata", [None, {}, {"format": "pt"}, {"deep": "[" * 100_000}]
)
def test_tensors_of_other_programs_are_refused(tmp_path, metadata):
    path = tmp_path / "foreign"
    save_file(TENSORS | {"last": torch.ones(2)}, path, metadata)
    assert_refused(load_tensors, path, "expected a file that ciper wrote")


def test_files_from_before_there_were_checksums_are_read(tmp_path):
    told = {key: json.dumps(value) for key, value in ABOUT.items()}
    save_file({"w": torch.ones(2)}, tmp_path / "old", told)
    tensors, about = load_tensors(tmp_path / "old")
    assert about == ABOUT and tensors["w"].tolist() == [1, 1]


# what is kept with them


def count_renders(folder, monkeypatch):
    """Kept in this folder; and how often pictures are made, by a fake."""
    monkeypatch.setenv("CIPER_CACHE", str(folder))
    made = []

    def fake(grid, room, size, progress):
        made.append(torch.get_default_dtype())
        shape = (len(grid["object"]), 3, size, size)
        return torch.full(shape, 7, dtype=torch.uint8)

    monkeypatch.setattr(datasets, "_render", fake)
    return made


def test_a_flipped_bit_in_kept_pictures_is_noticed(tmp_path, monkeypatch):
    made = count_renders(tmp_path, monkeypatch)
    whole = datasets.load("turntable", 8, "all", progress=False).images
    (path,) = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged.*is made again"):
        again = datasets.load("turntable", 8, "all", progress=False).images
    assert torch.equal(again, whole) and len(made) == 2
    datasets.load("turntable", 8, "all", progress=False)
    assert len(made) == 2


def test_pictures_are_kept_as_float32_makes_them(tmp_path, monkeypatch):
    made = count_renders(tmp_path, monkeypatch)
    torch.set_default_dtype(torch.float64)
    try:
        datasets.load("turntable", 8, "all", progress=False)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert made == [torch.float32]


def test_parameters_are_kept_with_a_checksum(tmp_path):
    path = tmp_path / "params"
    augment = Augment.preset("paper")
    augment.sample(3, torch.Generator().manual_seed(0)).save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert_refused(Params.load, path, "is damaged")


@pytest.mark.parametrize("rows", [(2, 3), (3, 2)])
def test_parameters_whose_parts_do_not_fit_are_refused(tmp_path, rows):
    path, augment = tmp_path / "params", Augment.preset("paper")
    params = augment.sample(3, torch.Generator().manual_seed(0))
    schema = [asdict(column) for column in params.schema]
    tensors = {
        "table": params.table[: rows[0]],
        "flags": params.flags[: rows[1]],
    }
    save_tensors(path, tensors, {"schema": schema})
    assert_refused(Params.load, path, "Params.save wrote")


# JSON


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not whole, valid JSON"),
        (b'{"seed": ', "not whole, valid JSON"),
        (b'{"name": "\xff"}', "not whole, valid JSON"),
        (b"[" * 100_000, "not whole, valid JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not whole, valid JSON"),
        (b"[1, 2]", "must hold a JSON object, got a list"),
        (b"null", "must hold a JSON object, got a NoneType"),
    ],
    ids=str,
)
def test_what_is_no_json_object_is_refused(tmp_path, content, message):
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    assert_refused(read_json, path, message)


def test_a_json_object_is_read(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text('{"name": "Zürich", "seed": 3}', encoding="utf-8")
    assert read_json(path) == {"name": "Zürich", "seed": 3}
