"""Notebooks, package and book agree, and belong to no one machine."""

import ast
import importlib
import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
import yaml

import ciper

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(
    path
    for path in (ROOT / "nbs").rglob("*.ipynb")
    if not any(
        part.startswith((".", "_")) for part in path.relative_to(ROOT).parts
    )
)
PAGES = "start", "paper", "beyond", "reference"
LIBRARY = [path for path in NOTEBOOKS if path.parent.name not in PAGES]
MODULES = sorted(
    ".".join(path.relative_to(ROOT / "ciper").with_suffix("").parts)
    for path in (ROOT / "ciper").rglob("*.py")
    if path.stem[0] != "_"
)
COLAB = runpy.run_path(str(ROOT / "nbs/_ext/colab.py"))["CELL"]
PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}  # import -> package
DIRECTIVES = {
    *("default_exp", "export", "exporti", "hide", "eval", "slow"),
    *("label", "fig-cap", "fig-alt", "echo", "output", "include", "warning"),
    *("code-fold", "code-summary", "column"),
}


def notebook_test(notebooks=NOTEBOOKS):
    return pytest.mark.parametrize(
        "path", notebooks, ids=lambda path: path.stem
    )


def cells(path, kind="code"):
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if cell.cell_type == kind]


def directives(cell):
    """The `#|` lines at the head of a cell, as name -> argument."""
    sys.path.insert(0, str(ROOT / "nbs/_ext"))
    try:
        return importlib.import_module("nbdev_book").directives(cell.source)[0]
    finally:
        sys.path.pop(0)


def outputs(path):
    return [(cell, output) for cell in cells(path) for output in cell.outputs]


# --- the notebooks -----------------------------------------------------------


@notebook_test()
def test_every_cell_has_an_id_of_its_own(path):
    ids = [
        cell.get("id")
        for kind in ("code", "markdown")
        for cell in cells(path, kind)
    ]
    assert all(ids) and len(set(ids)) == len(ids)


@notebook_test()
def test_no_output_is_an_error_or_a_warning(path):
    bad = [(c.id, o) for c, o in outputs(path) if o.get("name") == "stderr"]
    bad += [
        (c.id, o.ename) for c, o in outputs(path) if o.output_type == "error"
    ]
    assert not bad


@notebook_test()
def test_outputs_are_the_same_on_every_run(path):
    shown = [
        (cell.id, str(output.get("text", "")))
        for cell, output in outputs(path)
    ]
    shown += [
        (cell.id, output.get("data", {}).get("text/plain", ""))
        for cell, output in outputs(path)
        if "image/png" not in output.get("data", {})
    ]
    bad = [
        x for x in shown if re.search(r"\b0x[0-9a-f]{6,}|<Figure size", x[1])
    ]
    assert not bad


@notebook_test()
def test_code_lines_have_at_most_79_characters(path):
    lines = [(c.id, x) for c in cells(path) for x in c.source.splitlines()]
    text = re.compile(r"\s*#\s*\|\s*fig-(cap|alt):")  # these lines never show
    assert not [x for x in lines if len(x[1]) > 79 and not text.match(x[1])]


@notebook_test()
def test_directives_are_known_and_stand_at_the_head_of_the_cell(path):
    for cell in cells(path):
        assert directives(cell).keys() <= DIRECTIVES, cell.id
        lines = re.findall(r"(?m)^\s*#\s*\|", cell.source)
        assert len(lines) == len(directives(cell)), cell.id


@notebook_test()
def test_every_figure_has_a_label_a_caption_and_a_description(path):
    for cell, output in outputs(path):
        if "image/png" in output.get("data", {}):
            assert {"label", "fig-cap", "fig-alt"} <= directives(
                cell
            ).keys(), cell.id
            assert directives(cell)["label"].startswith("fig-"), cell.id


@notebook_test()
def test_a_chapter_opens_with_its_summary_and_closes_with_exercises(path):
    text = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    assert re.match(r"# \S.*\n\n> \S.*\n?", text)
    assert len(text.split()) >= 150
    headings = re.findall(r"(?m)^## +(.+?) *$", text)
    assert headings[-2:] == ["Finding", "Exercises"]


PROSE = [
    path
    for path in sorted((ROOT / "nbs").glob("**/[!_]*.md"))
    if path.stem not in ("api", "references")  # lists made by Sphinx
]


@notebook_test(PROSE)
def test_a_page_of_prose_opens_with_its_summary(path):
    text = path.read_text()
    assert re.match(r"# \S.*\n\n> \S.*\n", text)
    assert len(text.split()) >= 150


@notebook_test()
def test_all_notebooks_prepare_colab_by_the_same_cell(path):
    found = [c for c in cells(path) if "google.colab" in c.source]
    assert [cell.source for cell in found] == [COLAB], path.stem
    assert cells(path).index(found[0]) < 2  # before anything is imported


def test_the_colab_cell_installs_what_pages_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = re.search(r"/book\[(\w+)\]", COLAB)[1]
    needed = project["dependencies"] + project["optional-dependencies"][extra]
    known = {re.split(r"[<>=\[]", x)[0].lower() for x in needed}
    lines = "\n".join(c.source for path in NOTEBOOKS for c in cells(path))
    names = re.findall(r"(?m)^(?:from|import) (\w+)", lines)
    packages = {PACKAGES.get(name, name) for name in names}
    packages -= {*sys.stdlib_module_names, "ciper", "IPython"}
    assert not {x.replace("_", "-").lower() for x in packages} - known


@notebook_test()
def test_no_page_depends_on_the_folder_it_is_started_in(path):
    assert not [c.id for c in cells(path) if "../.." in c.source]


@notebook_test()
def test_every_notebook_was_run(path):
    assert outputs(path) or all(
        cell.source.startswith("#|") for cell in cells(path)
    )


@notebook_test(LIBRARY)
def test_a_library_chapter_exports_one_module(path):
    names = [
        x["default_exp"]
        for x in map(directives, cells(path))
        if "default_exp" in x
    ]
    home = path.relative_to(ROOT / "nbs").with_suffix("")
    assert names == [".".join(home.parts)]


@notebook_test([path for path in NOTEBOOKS if path not in LIBRARY])
def test_an_experiment_page_exports_nothing(path):
    found = {name for cell in cells(path) for name in directives(cell)}
    assert not found & {"default_exp", "export", "exporti"}


@pytest.mark.parametrize(
    ("options", "shown"), [([], "kept"), (["--all"], "made")]
)
def test_a_cell_that_is_not_run_keeps_its_output(tmp_path, options, shown):
    v4, path = nbformat.v4, tmp_path / "page.ipynb"
    cell = v4.new_code_cell('#| eval: false\nprint("made")')
    cell.outputs = [v4.new_output("stream", text="kept\n")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3"}}
    nbformat.write(v4.new_notebook(cells=[cell], metadata=kernel), path)
    command = [sys.executable, ROOT / "nbs/_ext/execute.py", *options, path]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = cells(path)
    assert found.outputs[0].text.strip() == shown


# --- the package -------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A copy of the repository, exported and cleaned anew."""
    copy = tmp_path_factory.mktemp("export")
    skip = shutil.ignore_patterns(
        "__pycache__", ".ipynb_checkpoints", "vendor"
    )
    for name in ("nbs", "ciper"):
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for path in copy.rglob("ciper/**/*.py"):
        if path.name[:2] != "__":
            path.unlink()
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run(
            [BIN / command], cwd=copy, check=True, capture_output=True
        )
    return copy


def test_the_package_is_what_the_notebooks_export(exported):
    here, there = (
        {
            path.relative_to(home): path.read_bytes()
            for path in home.glob("ciper/**/*.py")
        }
        for home in (ROOT, exported)
    )
    assert here.keys() == there.keys()
    assert not [name for name in here if here[name] != there[name]]


@notebook_test()
def test_notebooks_are_clean(exported, path):
    assert (
        path.read_bytes() == (exported / path.relative_to(ROOT)).read_bytes()
    )


def documented():
    """Every public function and class of the package, as (module, name)."""
    for module in MODULES:
        home = importlib.import_module(f"ciper.{module}")
        for name in home.__all__:
            value = getattr(home, name)
            known = inspect.isroutine(value) or inspect.isclass(value)
            if known and value.__module__ == home.__name__:
                yield module, name


def test_every_public_function_and_class_has_a_docstring():
    bare = []
    for module, name in documented():
        value = getattr(importlib.import_module(f"ciper.{module}"), name)
        # a dataclass without one gets its signature from Python
        if not value.__doc__ or value.__doc__.startswith(name + "("):
            bare.append(f"{module}.{name}")
    assert not bare


# --- the repository ----------------------------------------------------------


def tracked():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in done.stdout.splitlines()]
    return [path for path in files if path.is_file()]


def test_no_file_names_a_package_index_or_a_place_on_one_machine():
    places = re.compile(
        rb"(?<![\w./-])/(?:home|root|Users|work)/\w|\.\./shared"
        rb"|--(?:extra-)?index[-]url|--find[-]links|pytorch[.]org/whl"
    )
    found = [(p.name, places.search(p.read_bytes())) for p in tracked()]
    assert not [(name, match[0]) for name, match in found if match]


def test_the_repository_has_one_address():
    address = re.compile(rb"github\.com/([\w-]+)/ciper\b")
    owners = {
        x for path in tracked() for x in address.findall(path.read_bytes())
    }
    assert owners == {b"ciper-book"}


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_has_nothing_to_say(command):
    done = subprocess.run(
        [BIN / "ruff", *command, "--quiet", ROOT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_constraints_pin_exact_versions_without_local_tags():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and line[0] != "#"]
    assert not [
        x for x in pins if not re.fullmatch(r"[\w.-]+==[0-9][\w.]*", x)
    ]


# --- the book ----------------------------------------------------------------


def toc_files():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return {toc["root"]} | {
        x["file"] for p in toc["parts"] for x in p["chapters"]
    }


def test_the_table_of_contents_lists_every_page():
    pages = [*NOTEBOOKS, *ROOT.glob("nbs/**/[!_]*.md")]
    expected = {str(path.relative_to(ROOT).with_suffix("")) for path in pages}
    assert toc_files() == expected


class Page(HTMLParser):
    """What the tests need of a page: links, anchors and pictures."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text()
        self.links, self.anchors, self.pictures = [], set(), []
        self.loaded = []
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id"), found.get("name")}
        self.links += [found[k] for k in ("href", "src") if found.get(k)]
        if found.get("rel") == "stylesheet":
            self.loaded.append(found["href"])
        if found.get("src"):
            self.loaded.append(found["src"])
        if tag == "img":
            self.pictures.append(found)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The built book, path -> page; any warning fails the build."""
    out = tmp_path_factory.mktemp("book")
    command = [BIN / "jupyter-book", "build", ROOT, "--path-output", out]
    command += ["-W", "-n", "--keep-going"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment
    )
    lines = (done.stdout + done.stderr).splitlines()
    said = [x for x in lines if re.search("WARNING|ERROR|Error", x)]
    assert done.returncode == 0, "\n".join(said)
    html = out / "_build/html"
    return {
        path.relative_to(html): Page(path) for path in html.rglob("*.html")
    }


def test_the_book_builds_without_a_warning_and_has_every_page(book):
    assert {Path(name + ".html") for name in toc_files()} <= book.keys()


def test_no_directive_shows_on_a_page(book):
    pattern = re.compile(r"#\s?\|\s?[a-z]|NBVAL_")
    shown = {path: pattern.search(page.text) for path, page in book.items()}
    assert not {path: match[0] for path, match in shown.items() if match}


def test_links_inside_the_book_resolve(book):
    broken = []
    for path, page in book.items():
        for link in page.links:
            target, anchor = urldefrag(unquote(link))
            if re.match(r"\w+:|//", link) or not target.endswith(
                (".html", "")
            ):
                continue
            place = (
                Path(os.path.normpath(path.parent / target))
                if target
                else path
            )
            if place.suffix == ".html" and (
                place not in book
                or anchor
                and anchor not in book[place].anchors
            ):
                broken.append((str(path), link))
    assert not broken


def test_only_widgets_need_the_network(book):
    loaded = {x for page in book.values() for x in page.loaded}
    remote = [x for x in loaded if re.match(r"https?:|//", x)]
    widgets = r"/npm/@jupyter-widgets/html-manager@|/libs/require\.js/"
    assert not [x for x in remote if not re.search(widgets, x)]


def test_every_public_name_is_on_the_api_page(book):
    listed = book[Path("nbs/reference/api.html")].anchors
    names = {f"ciper.{module}.{name}" for module, name in documented()}
    assert names <= listed
    offered = {x for x in ciper.__all__ if callable(getattr(ciper, x))}
    assert offered <= {name.rsplit(".", 1)[1] for name in names}


def test_docstrings_on_the_api_page_hold_no_raw_markup(book):
    text = re.sub(
        r"<script.*?</script>",
        "",
        book[Path("nbs/reference/api.html")].text,
        flags=re.S,
    )
    assert not re.findall(
        r"\$[^$<]+\$|(?<!`)`[^`<]+`|(?m:^\s*(?:Args|Returns):)", text
    )


def test_inline_code_and_code_cells_link_to_the_api_page(book):
    links = book[Path("nbs/training/trainer.html")].links
    assert [
        link
        for link in links
        if link.startswith("../reference/api.html#ciper.")
    ]


def test_every_picture_has_a_description(book):
    bare = [(str(p), x) for p, page in book.items() for x in page.pictures]
    assert not [x for x in bare if not x[1].get("alt")]


@notebook_test()
def test_a_chapter_opens_in_colab(book, path):
    name = path.relative_to(ROOT)
    address = (
        f"colab.research.google.com/github/ciper-book/ciper/blob/main/{name}"
    )
    page = book[name.with_suffix(".html")]
    assert any(address in link for link in page.links)


def messages(source):
    """The texts in a module as written, with … where a value is put in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "…"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_on_the_troubleshooting_page_are_the_package_s_own():
    page = (ROOT / "nbs/reference/troubleshooting.md").read_text()
    shown = re.findall(r"(?s)```text\n(.+?)\n```", page)
    texts = [
        text
        for path in (ROOT / "ciper").rglob("*.py")
        for text in messages(path.read_text())
    ]
    parts = {p.strip() for line in shown for p in line.split("…")} - {"", ":"}
    assert len(shown) > 20
    assert not [p for p in parts if not any(p in text for text in texts)]
