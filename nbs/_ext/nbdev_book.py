"""Read nbdev notebooks in Jupyter Book 1.

Directives (`#|` lines) become the tags and metadata of MyST-NB.
"""

import re
import zlib
from pathlib import Path

import nbformat

DIRECTIVE = re.compile(r"^\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*?)\s*$")
DROPPED = re.compile(r"#\s*\|\s*hide_line\s*$|^\s*#\s*NBVAL_\w+\s*$")
REMOVED = {"hide", "default_exp", "exporti"}
TAGS = {
    ("include", "false"): "remove-cell",
    ("echo", "false"): "remove-input",
    ("output", "false"): "remove-output",
    ("warning", "false"): "remove-stderr",
    ("code-fold", "true"): "hide-input",
    ("eval", "false"): "skip-execution",
    ("column", "margin"): "margin",
    ("column", "page"): "full-width",
}


def directives(source: str) -> tuple[dict[str, str], list[str]]:
    """A cell's leading directives (name -> argument) and its other lines."""
    found, lines = {}, source.splitlines()
    while lines and (match := DIRECTIVE.match(lines[0])):
        found[match[1]] = match[2].strip("\"'")
        lines.pop(0)
    return found, lines


def read(text: str):
    """Read an `.ipynb` for MyST-NB, before execution and parsing."""
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _convert(cell)
    return notebook


def _convert(cell) -> None:
    found, lines = directives(cell.source)
    cell.source = "\n".join(x for x in lines if not DROPPED.search(x)).strip(
        "\n"
    )
    tags = cell.metadata.setdefault("tags", [])
    tags += [
        TAGS[k, v.lower()] for k, v in found.items() if (k, v.lower()) in TAGS
    ]
    if REMOVED & found.keys():
        tags.append("remove-cell")
    book = cell.metadata.setdefault("mystnb", {})
    if "fig-cap" in found:
        book["figure"] = {"caption": found["fig-cap"], "align": "center"}
        if "label" in found:
            book["figure"]["name"] = found["label"]
    if "fig-alt" in found:
        book["image"] = {"alt": found["fig-alt"]}
    if "code-summary" in found:
        book["code_prompt_show"] = found["code-summary"]


def setup(app):
    """Register the reader: it goes before MyST-NB's own."""

    def use(app, config):
        reader = {".ipynb": ("nbdev_book.read", {}, False)}
        config.nb_custom_formats = {**config.nb_custom_formats, **reader}

    app.connect("config-inited", use)
    return {
        "version": "1",
        "env_version": zlib.crc32(
            Path(__file__).read_bytes()
        ),  # an edit re-reads all
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
