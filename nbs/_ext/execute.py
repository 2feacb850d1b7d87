"""Run notebooks top to bottom in place, with reproducible outputs.

Usage: python nbs/_ext/execute.py [--all] nbs/*/*.ipynb

A cell marked `#| eval: false` keeps the output it has: it needs images that
not everybody may have. With `--all` it runs too.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).parent))
from nbdev_book import directives

WIDGETS = "application/vnd.jupyter.widget-state+json"


def execute(path: Path, every: bool = False) -> None:
    """Run one notebook; cells marked `eval: false` only if every cell is."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    skipped = [c for c in notebook.cells if not (every or _runs(c))]
    for cell in skipped:
        cell.metadata["tags"] = [
            *cell.metadata.get("tags", []),
            "skip-execution",
        ]
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in skipped:
        cell.metadata.tags.remove("skip-execution")
        if not cell.metadata.tags:
            del cell.metadata["tags"]
    nbformat.write(_stable(notebook), path)


def _runs(cell) -> bool:
    if cell.cell_type != "code":
        return True
    return directives(cell.source)[0].get("eval", "true").lower() != "false"


def _stable(notebook):
    """Drop what differs from run to run: counts, versions, widget ids."""
    notebook.metadata.pop("language_info", None)
    notebook.metadata.kernelspec.display_name = "python3"  # as nbdev_clean
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
    state = (
        notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    )
    text = nbformat.writes(notebook)
    for number, model in enumerate(state):
        text = text.replace(model, f"{number:032x}")
    return nbformat.reads(text, as_version=4)


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != "--all"]
    for name in names:
        start = time.time()
        execute(Path(name), every="--all" in sys.argv)
        print(f"{name}: {time.time() - start:.1f} s", flush=True)
