"""Give every notebook the same first cell for Colab.

    python nbs/_ext/colab.py

The cell clones the repository, because pages read result files from it, and
installs what the pages import. The package is then imported from the clone, so
that `ciper.reproduce.results.in_clone` finds what lies beside it.
"""

from pathlib import Path

import nbformat

CELL = """\
#| hide
import sys

if "google.colab" in sys.modules:
    !git clone -q --depth 1 https://github.com/ciper-book/ciper book
    %pip install -q "./book[notebook]"
    sys.path.insert(0, "/content/book")"""


def prepare(path: Path) -> None:
    """Replace the cell that a notebook has, or put one after its title."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "google.colab" in cell.source:
            cell.source = CELL
            break
    else:
        new = nbformat.v4.new_code_cell(CELL, id="colab")
        notebook.cells.insert(1, new)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in sorted(Path(__file__).parents[1].rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            prepare(path)
