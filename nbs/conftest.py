"""Let nbval (`pytest --nbval-lax nbs`) read the notebooks as nbdev does."""

from nbval.plugin import comment_markers

comment_markers.update({"| eval: false": "skip", "| slow": "skip"})


def pytest_itemcollected(item):
    """Cleaned notebooks have no execution counts; nbval calls them unrun."""
    cell = getattr(item, "cell", None)
    if cell is not None and cell.execution_count is None:
        cell.execution_count = 0
