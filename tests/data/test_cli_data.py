"""`ciper data`, as a user meets it."""

import subprocess
import sys

import pytest
from replicas import picture

from ciper.cli import app

CODE = "from ciper.cli import main; main()"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CIPER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "160")


def said(capsys, *arguments):
    app(["data", *map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


def test_the_list_has_a_row_for_every_data_set(capsys):
    from ciper.data.datasets import DATASETS

    shown = said(capsys, "list")
    rows = [line for line in shown.splitlines() if "replicas" in line]
    assert all(name in shown for name in DATASETS)
    assert len(rows) == sum(d.tested == "replicas" for d in DATASETS.values())


def test_what_is_in_the_root_is_shown_as_at_hand(capsys, tmp_path):
    (tmp_path / "mine/core50_32x32").mkdir(parents=True)
    row = [x for x in said(capsys, "list").splitlines() if " core50 " in x]
    assert "yes" not in row[0]
    shown = said(capsys, "list", "--root", tmp_path / "mine")
    row = [x for x in shown.splitlines() if " core50 " in x]
    assert "yes" in row[0]


def test_get_names_the_folder_that_is_there(capsys, tmp_path):
    (tmp_path / "data/core50_32x32").mkdir(parents=True)
    shown = said(capsys, "get", "core50")
    assert shown.strip().endswith("data/core50_32x32")


def test_check_counts_the_files_of_a_folder(capsys, tmp_path):
    for i in range(3):
        picture(tmp_path / f"photos/a/{i}.png", i)
    shown = said(capsys, "check", f"folder:{tmp_path / 'photos'}")
    assert shown.strip().endswith("photos: 3 files: right")


def test_a_download_that_cannot_be_is_one_line():
    command = [sys.executable, "-c", CODE, "data", "get", "tdw"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("ciper: error: cannot download spherical_photoreal")
    assert "put it at" in line
