"""`ciper embed` and `ciper map`, as a user meets them."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from replicas import picture
from torch.nn import functional as F

from ciper.cli import app, main
from ciper.data.datasets import load
from ciper.evaluation.frozen import load_encoder
from ciper.evaluation.probes import embed
from ciper.training.trainer import fit, recipe_at


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    for i in range(8):
        picture(tmp_path / f"photos/{'ab'[i % 2]}/{i}.png", i, size=12)
    return "folder:photos"


@pytest.fixture
def loose(tmp_path):
    for i in range(6):
        picture(tmp_path / f"loose/{i}.png", i, size=12)
    return "folder:loose"


def said(capsys, *arguments):
    app([*map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


@pytest.fixture
def failed(monkeypatch, capsys):
    """Gives the one line of a command that fails, and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ciper", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        shown = capsys.readouterr()
        (line,) = [x for x in shown.err.splitlines() if "ciper: " in x]
        return line, shown.out

    return run


def test_a_folder_becomes_vectors_with_files_and_classes(photos, capsys):
    out = said(
        capsys, "embed", "random:resnet18", "--data", photos, "--size", 16,
        "--out", "out/v.npz", "--batch-size", 3,
    )  # fmt: skip
    assert out.splitlines() == [
        "folder:photos: 8 images of 16x16 pixels, 2 classes: a, b",
        "8 vectors are in out/v.npz",
    ]
    found, images = np.load("out/v.npz"), load(photos, 16, "all")
    wanted = embed(load_encoder("random:resnet18"), images.images, 3)
    np.testing.assert_allclose(found["h"], wanted, atol=1e-4)
    order = ["a/0.png", "a/2.png", "a/4.png", "a/6.png"]
    assert found["file"].tolist()[:4] == order
    assert found["class"].tolist() == ["a"] * 4 + ["b"] * 4


def test_photographs_without_classes_are_one_class(loose, capsys):
    out = said(
        capsys, "embed", "pixels", "--data", loose, "--out", "v.csv"
    )  # fmt: skip
    assert "6 images of 32x32 pixels, 1 class: loose" in out
    head = Path("v.csv").read_text().split(",", 2)
    assert head[:2] == ["file", "h0"]


def test_images_are_loaded_at_the_size_of_the_encoder(photos, capsys):
    recipe = recipe_at("smoke", data="digits", size=24, method="random")
    run = fit(recipe, out="run", progress=False)
    out = said(capsys, "embed", "run", "--data", photos, "--out", "v.npz")
    assert "images of 24x24 pixels" in out
    wanted = embed(run.encoder, load(photos, 24, "all").images)
    close = F.cosine_similarity(torch.tensor(np.load("v.npz")["h"]), wanted)
    assert close.min() > 0.9999


def test_a_normalization_reaches_the_network(photos, tmp_path, capsys):
    text = "from torch import nn\ndef flat():\n    return nn.Flatten()\n"
    (tmp_path / "own_network.py").write_text(text)
    said(
        capsys, "embed", "python:own_network:flat", "--data", photos,
        "--size", 8, "--mean", "0.5,0.5,0.5", "--std=0.25,0.25,0.25",
        "--split", "test", "--out", "v.npz",
    )  # fmt: skip
    test = load(photos, 8, "test").images
    wanted = ((test / 255 - 0.5) / 0.25).flatten(1)
    np.testing.assert_allclose(np.load("v.npz")["h"], wanted, atol=1e-5)


def test_a_map_is_a_picture_or_a_page(photos, capsys):
    pytest.importorskip("bokeh")
    how = "random:resnet18", "--data", photos, "--size", 16, "--method", "pca"
    out = said(capsys, "map", *how, "--out", "m.png")
    assert out.endswith("the map (pca) is in m.png\n")
    with Image.open("m.png") as drawn:
        assert drawn.width > 600
    out = said(capsys, "map", *how, "--most", 5, "--out", "m.html")
    assert "5 of them, drawn at random, are on the map\n" in out
    page = Path("m.html").read_text("utf-8")
    assert page.count("data:image/jpeg") == 5
    assert "random:resnet18, folder:photos" in page


def test_a_page_does_not_tell_where_the_images_lie(photos, tmp_path, capsys):
    pytest.importorskip("bokeh")
    where = f"folder:{tmp_path / 'photos'}"
    how = "--size", 16, "--method", "pca", "--out", "m.html"
    said(capsys, "map", "random:resnet18", "--data", where, *how)
    assert str(tmp_path) not in Path("m.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "x", "--out", "v.xlsx"], "unknown kind of table 'xlsx'"),
        (["map", "x", "--out", "v.gif"], "unknown kind of map 'gif'"),
        (["embed", "x", "--out", "photos/a/0.png/v.npz"], "cannot write to"),
        (["embed", "resnet", "--out", "v.npz"], "unknown encoder 'resnet'"),
        (["embed", "no/run", "--out", "v.npz"], "no such encoder: no/run"),
        (["embed", "pixels", "--mean", "1,x", "--out", "v.csv"], "--mean mus"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments, message, photos, tmp_path, failed
):
    before = sorted(p.name for p in tmp_path.iterdir())
    line, shown = failed(*arguments, "--data", photos)
    assert message in line and shown == ""
    after = {p.name for p in tmp_path.iterdir()} - {"cache"}
    assert after == {*before} - {"cache"}


def test_an_encoder_that_cannot_be_asked_is_refused(photos, tmp_path, failed):
    text = """
from torch.nn import functional as F
def noisy():
    return lambda x: F.dropout(x.flatten(1), training=True)
"""
    (tmp_path / "own_noise.py").write_text(text)
    how = "--data", photos, "--out", "v.npz"
    line, _ = failed("embed", "python:own_noise:noisy", *how)
    assert "gives other vectors for the same images at each call" in line
    assert not (tmp_path / "v.npz").exists()
