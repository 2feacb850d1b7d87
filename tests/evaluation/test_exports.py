"""Vectors in files and maps on pages: whole, readable, harmless."""

import base64
import csv
import io
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from torch import nn

from ciper.data.datasets import load
from ciper.evaluation import exports
from ciper.evaluation.explain import Map2D
from ciper.evaluation.exports import (
    check_installed,
    embed_rows,
    map_figure,
    map_page,
    save_embeddings,
)
from ciper.evaluation.frozen import Frozen, as_frozen
from ciper.evaluation.probes import embed

ODD = ('a,"b"\n/1.png', "写真/\udcff.png", "</script><b>.png", "=1+1.png")


@pytest.fixture
def data():
    digits = load("digits", 8)[:10]
    return replace(digits, files=(*ODD, *(f"x/{i}.png" for i in range(6))))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    return Frozen(network, "net", mean=[0.5] * 3, std=[0.25] * 3)


def readable(files):
    return [x.encode(errors="backslashreplace").decode() for x in files]


def test_rows_come_in_batches_and_in_order(data, encoder):
    parts = [*embed_rows(encoder, data, 4, progress=False)]
    assert [len(index) for index, _ in parts] == [4, 4, 2]
    assert [i for index, _ in parts for i in index] == [*range(10)]
    wanted = embed(encoder, data.images)
    torch.testing.assert_close(torch.cat([h for _, h in parts]), wanted)


def test_arrays_hold_vectors_files_classes_and_what_is_known(
    data, encoder, tmp_path
):
    path = tmp_path / "v.npz"
    save_embeddings(path, encoder, data, 4, progress=False)
    found = np.load(path)  # without pickles
    assert found["h"].dtype == np.float32
    np.testing.assert_allclose(
        found["h"], embed(encoder, data.images), atol=1e-6
    )
    assert found["file"].tolist() == readable(data.files)
    assert found["class"].tolist() == [str(k) for k in data.labels.tolist()]
    about = json.loads(str(found["about"]))
    assert about["encoder"] == "net" and about["data"] == "digits"
    assert about["normalization"]["std"] == [0.25] * 3


def test_a_spreadsheet_has_every_digit_and_name(data, encoder, tmp_path):
    path = tmp_path / "v.csv"
    save_embeddings(path, encoder, data, 3, progress=False)
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "class", *(f"h{k}" for k in range(5))]
    assert [row[0] for row in rows] == readable(data.files)
    numbers = np.array([row[2:] for row in rows]).astype(np.float32)
    assert (numbers == embed(encoder, data.images, 3).numpy()).all()


def test_a_data_frame_has_a_vector_in_each_row(data, encoder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "v.parquet"
    save_embeddings(path, encoder, data, 4, progress=False)
    table = parquet.read_table(path)
    assert table.column_names == ["file", "class", "h"]
    assert table["file"].to_pylist() == readable(data.files)
    wanted = embed(encoder, data.images, 4).numpy()
    assert (np.array(table["h"].to_pylist(), np.float32) == wanted).all()
    about = json.loads(table.schema.metadata[b"about"])
    assert about["encoder"] == "net"


@pytest.mark.parametrize("end", ["npz", "csv", "parquet"])
def test_without_files_and_classes_only_vectors_stand_there(
    end, encoder, tmp_path
):
    blank = replace(
        load("digits", 8)[:3], labels=torch.zeros(3).long(), classes=("x",)
    )
    assert exports._columns(blank) == {}
    save_embeddings(tmp_path / f"v.{end}", encoder, blank, progress=False)
    assert (tmp_path / f"v.{end}").stat().st_size > 60


def test_a_file_is_whole_or_left_as_it_was(data, encoder, tmp_path):
    class Dies(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = 2

        def forward(self, x):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return x.flatten(1)

    for end in ("npz", "csv", "parquet"):
        if end == "parquet":
            pytest.importorskip("pyarrow")
        path = tmp_path / f"v.{end}"
        path.write_text("before")
        with pytest.raises(KeyboardInterrupt):
            save_embeddings(path, as_frozen(Dies()), data, 2, progress=False)
        assert path.read_text() == "before"
    names = {p.name for p in tmp_path.iterdir()}
    assert names <= {"v.npz", "v.csv", "v.parquet"}


def test_only_a_batch_of_vectors_is_in_memory(data, encoder, tmp_path):
    alive, most = set(), []

    class Counted(nn.Module):
        def forward(self, x):
            most.append(len(alive))
            alive.add(len(most))
            return x.flatten(1)[:, :5]

    real = exports.embed_rows

    def watched(*given):
        for step, (index, h) in enumerate(real(*given), 1):
            yield index, h
            alive.discard(step)

    exports.embed_rows, before = watched, exports.embed_rows
    try:
        save_embeddings(
            tmp_path / "v.npz", as_frozen(Counted()), data, 1, progress=False
        )
    finally:
        exports.embed_rows = before
    assert len(most) == 10 and max(most) <= 1


def test_another_kind_of_file_is_refused_before_the_work(
    data, encoder, tmp_path
):
    with pytest.raises(ValueError, match="unknown kind of table 'xlsx': did"):
        save_embeddings(tmp_path / "v.xlsx", encoder, data)


@pytest.mark.parametrize(
    ("end", "extra"), [(".parquet", "parquet"), (".html", "maps")]
)
def test_a_missing_package_is_named_before_the_work(end, extra, monkeypatch):
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    message = rf"^{end} files need another package: .*\[{extra}\]"
    with pytest.raises(ValueError, match=message):
        check_installed(end)


# --- maps --------------------------------------------------------------------


@pytest.fixture
def place(data):
    draw = torch.Generator().manual_seed(0)
    return Map2D(torch.rand(len(data), 2, generator=draw), "pca")


def test_a_picture_has_each_point_in_the_color_of_its_class(place, data):
    data = replace(data, classes=(*"0123456", "_x", "$a$", "b"))
    figure = map_figure(place, data, "$title")
    (ax,) = figure.axes
    drawn = {}
    for points in ax.collections:
        color = to_rgb(points.get_facecolor()[0, :3])
        for x, y in points.get_offsets().tolist():
            drawn[round(x, 5), round(y, 5)] = color
    assert len(drawn) == 10
    colors = [
        drawn[round(x, 5), round(y, 5)] for x, y in place.points.tolist()
    ]
    for i in range(10):
        for k in range(10):
            same = bool(data.labels[i] == data.labels[k])
            assert (colors[i] == colors[k]) == same
    shown = [t.get_text().strip() for t in figure.legends[0].get_texts()]
    known = [data.classes[k] for k in data.labels.unique().tolist()]
    assert [name.replace(r"\$", "$") for name in shown] == known
    assert r"\$a\$" in shown  # which is no formula
    figure.canvas.draw()
    plt.close(figure)


@pytest.mark.parametrize("count", [2, 10, 11, 20, 21, 300])
def test_every_class_has_a_color_of_its_own(count):
    colors = exports._colors(count)
    assert len(colors) == count
    if count <= 20:
        assert len(set(colors)) == count


def test_many_classes_and_one_class_have_no_legend(place, data):
    one = replace(data, labels=torch.zeros(10).long(), classes=("x",))
    many = replace(data, classes=tuple(str(k) for k in range(30)))
    for images in (one, many):
        figure = map_figure(place, images)
        assert not figure.legends
        plt.close(figure)


def test_other_numbers_of_points_are_refused(place, data):
    message = "a map needs a point for each image, got 10 points for 9 images"
    for draw in (map_figure, map_page):
        with pytest.raises(ValueError, match=message):
            draw(place, data[:9])


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its JSON."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.json, self.inside = [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = dict(attributes).get("type") == "application/json"

    def handle_data(self, text):
        if self.inside:
            self.json += text

    def handle_endtag(self, tag):
        self.inside = False


@pytest.fixture
def page(place, data):
    pytest.importorskip("bokeh")
    names = ("</script><script>alert(1)</script>", "<img src=x>", "$$x$$")
    classes, labels = (*names, *"3456789"), torch.arange(10)
    data = replace(data, labels=labels, classes=classes)
    return Tags(map_page(place, data, "<b>&title</b> $$x$$"))


def test_a_page_asks_no_network(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "b")
        assert not {"src", "href"} & attributes.keys()


def test_a_page_holds_no_tag_of_a_name(page, data):
    scripts = [a for tag, a in page.tags if tag == "script"]
    kinds = {a.get("type", "text/javascript") for a in scripts}
    assert kinds == {"text/javascript", "application/json"}
    assert "alert(1)" in page.json  # as text, in the data
    assert "</script" not in "".join(t for t, _ in page.tags)


def test_a_page_shows_each_image(page, data):
    found = re.findall(r"data:image/jpeg;base64,([\w+/=]+)", page.json)
    assert len(found) == 10
    wanted = data.images.float().mean((1, 2, 3)).sort().values
    means = []
    for text in found:
        picture = Image.open(io.BytesIO(base64.b64decode(text)))
        assert picture.size == (8, 8)
        means.append(np.asarray(picture).mean())
    np.testing.assert_allclose(sorted(means), wanted, atol=4)


def test_pictures_on_a_page_are_small():
    image = torch.zeros(3, 300, 200, dtype=torch.uint8)
    text = exports._thumbnail(image).partition(",")[2]
    picture = Image.open(io.BytesIO(base64.b64decode(text)))
    assert picture.size == (64, 96)


def test_a_page_without_bokeh_says_how_to_install_it(place, data, monkeypatch):
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(ValueError, match=r"pip install .*\[maps\]"):
        map_page(place, data)
