"""What pages say of results comes from the results."""

import re
from pathlib import Path

import nbformat
import pytest

from ciper.reproduce.claims import CLAIMS, finding, published

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for room in ("paper", "beyond")
    for path in ROOT.glob(f"nbs/{room}/*.ipynb")
    if path.stem != "errata"  # it reads the paper, and measures nothing
)
CHECKED = "# NBVAL_CHECK_OUTPUT"  # nbval compares with the committed output
VERDICT = re.compile(r"\b(holds?|(does|do) not hold|(un)?settled?|settles)\b")
REFERENCE = re.compile(
    r"`[^`]*`|\$[^$]*\$|\[[^]]*\]\([^)]*\)"  # code, equations, links
    r"|(Tables?|Figures?|Sections?|Eq\.) [\d.]+"
    r"|CIFAR-?10\b|CORe50"  # names
)


def cells(path):
    return nbformat.read(path, as_version=4).cells


def section(path, title):
    """The cells from a heading on to the next, without what is before it."""
    found = []
    for cell in cells(path):
        text = cell.source
        if cell.cell_type == "markdown" and f"## {title}" in text:
            found = [
                nbformat.v4.new_markdown_cell(text.split(f"## {title}")[1])
            ]
        elif found and re.search(r"(?m)^## ", text):
            return found
        elif found:
            found.append(cell)
    return found


def shown(cell):
    """The markdown that a cell has put on its page."""
    return "".join(
        output.get("data", {}).get("text/markdown", "")
        for output in cell.get("outputs", ())
    )


def asks_results(path):
    return any("ciper.reproduce.plans" in cell.source for cell in cells(path))


EVIDENCE = [path for path in PAGES if asks_results(path)]
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
evidence = pytest.mark.parametrize(
    "path", EVIDENCE, ids=lambda path: path.stem
)


def test_there_are_pages_with_results():
    assert {"table_2", "table_3", "maps", "saliency", "ablations"} <= {
        path.stem for path in EVIDENCE
    }


@page
def test_a_finding_types_no_number_and_no_verdict(path):
    for cell in section(path, "Finding"):
        if cell.cell_type == "markdown":
            text = REFERENCE.sub("", cell.source)
            assert not re.search(r"\d|\bpercent\b", text), cell.source
            assert not VERDICT.search(text), cell.source


@evidence
def test_a_finding_asks_the_claims_and_its_output_is_checked(path):
    code = [c for c in section(path, "Finding") if c.cell_type == "code"]
    assert any("finding(" in cell.source for cell in code)
    for cell in code:
        assert CHECKED in cell.source.splitlines() and shown(cell)


@pytest.fixture(scope="module")
def judged():
    return published(ROOT / "results")


@evidence
def test_the_verdicts_on_a_page_are_those_of_the_claims(path, judged):
    """Each line of a claim is what the results give today."""
    lines = finding(judged, *(c.text for c in CLAIMS)).splitlines()
    said = [
        line
        for cell in section(path, "Finding")
        for line in shown(cell).splitlines()
        if VERDICT.search(line)
    ]
    assert said and set(said) <= set(lines)


@pytest.mark.parametrize("word", ["holds", "does not hold", "not settled"])
def test_the_claims_page_counts_the_verdicts_of_the_claims(word, judged):
    (cell,) = (
        c for c in cells(ROOT / "nbs/paper/claims.ipynb") if c.id == "count"
    )
    counted, _ = shown(cell).split("They rest on")
    number = re.search(rf"(?<!does ){word} (\d+)", counted)
    verdicts = [j.verdict for j in judged]
    assert int(number[1] if number else 0) == verdicts.count(word)


@evidence
def test_a_page_with_results_says_how_they_were_made(path):
    boxes = [c for c in cells(path) if "setup_box(" in c.source]
    assert boxes
    for cell in boxes:
        if "setup" in cell.metadata.get("tags", ()):
            assert CHECKED in cell.source.splitlines()
            assert "Make it again: `ciper" in shown(cell)
            assert "| epochs |" in shown(cell)


@page
def test_a_page_names_its_limits_before_its_finding(path):
    text = "\n".join(
        c.source for c in cells(path) if c.cell_type == "markdown"
    )
    headings = re.findall(r"(?m)^## +(.+?) *$", text)
    assert headings[-3:] == ["Limits", "Finding", "Exercises"]


@page
def test_no_page_shows_a_section_that_is_empty(path):
    text = "".join(c.source + shown(c) for c in cells(path))
    assert "Nothing has been trained" not in text
