"""The page that says what of the paper is here: complete, and no promises."""

import shlex
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import typer
import yaml
from invented import result

from ciper import cli
from ciper.reproduce.claims import CLAIMS, PHOTOGRAPHED
from ciper.reproduce.plans import ROWS, plan
from ciper.reproduce.tables import COLUMNS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "nbs/paper/coverage.ipynb"


@pytest.fixture(scope="module")
def page():
    """What the code of the page defines; its tables are not made."""
    found = {}
    for cell in nbformat.read(PAGE, as_version=4).cells:
        if cell.cell_type == "code" and cell.id != "colab":
            lines = cell.source.splitlines()
            if not lines[0].startswith("#| echo"):
                exec(cell.source, found)
    return found


@pytest.fixture(scope="module")
def trained():
    """Results of all trainings at laptop scale, two of each."""
    jobs = {j for item in ROWS for j in plan(item, "laptop", range(2))}
    jobs |= {*plan("table 3", "laptop", range(2), ["folder:cifar10-jpeg"])}
    metrics = {c.metric for columns in COLUMNS.values() for c in columns}
    metrics |= {"azimuth_gap_deg", "mass_inside", "object_share"}
    metrics |= {"contrastive_loss"}
    return [result(job, **dict.fromkeys(metrics, 0.5)) for job in jobs]


def test_every_page_it_names_is_in_the_book(page):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = {x["file"] for part in toc["parts"] for x in part["chapters"]}
    named = {f"nbs/{item.page}" for item in page["items"] if item.page}
    assert "nbs/paper/coverage" in files and named <= files
    assert all((ROOT / f"{name}.ipynb").exists() for name in named)


def test_every_command_it_names_can_be_typed(page):
    commands = {item.command for item in page["items"]} - {""}
    assert len(commands) > 9
    app = typer.main.get_command(cli.app)
    for command in commands:
        program, *words = shlex.split(command)
        if program == "python":
            assert (ROOT / words[0]).exists()
            continue
        assert program == "ciper"
        app.make_context("ciper", [*words], resilient_parsing=True)
        name, *rest = words
        assert name in app.commands, command
        app.commands[name].make_context(name, [*rest])  # raises UsageError


def test_a_command_that_does_not_exist_would_be_noticed():
    app = typer.main.get_command(cli.app)
    with pytest.raises(cli.USAGE_ERROR):
        app.commands["train"].make_context("train", ["--vews", "next"])


def test_every_claim_is_there_once_and_a_sentence_asked_again_is_not(page):
    counts = Counter(x.claim for x in page["items"] if x.claim)
    once = set(CLAIMS) - set(PHOTOGRAPHED)
    assert counts == {claim.text: 1 for claim in once}


def test_every_cell_of_the_papers_tables_is_there(page):
    cells = {x.rows[0] for x in page["items"] if x.kind == "cell" and x.rows}
    expected = {
        f"{c.data} {c.metric}: {label}"
        for columns in COLUMNS.values()
        for c in columns
        for label in c.paper
    }
    assert cells == expected


def test_every_table_and_figure_has_an_item(page):
    texts = " ".join(x.text for x in page["items"])
    for name in ("Table 1", "Figure 1", "Figure 2", "Figure 3", "Figure 4"):
        assert name in texts
    assert {"table 2", "table 3"} <= page["GROUPS"].keys()
    for word in ("luminance", "80 percent", "next image", "LooC"):
        assert word in texts


def test_no_item_is_listed_twice(page):
    counts = Counter(x.text for x in page["items"])
    assert set(counts.values()) == {1}


def test_what_is_run_has_result_files(page):
    root, measured = ROOT / "results", 0
    for item in page["items"]:
        state, found = page["cover"](item, page["results"])
        assert (state in ("own", "stand-in")) == bool(found), item.text
        assert all(r.path(root).exists() for r in found), item.text
        measured += bool(found)
    assert measured > 0


def test_without_results_nothing_is_run(page):
    states = {page["cover"](item, [])[0] for item in page["items"]}
    assert states == {"code", "otherwise", "replicas", "none"}


def test_results_on_stand_ins_are_no_results_on_the_papers_data(page, trained):
    for item in page["items"]:
        state, found = page["cover"](item, trained)
        if item.rows:
            assert state == "stand-in", item.text
            assert not {r.experiment for r in found} & {*page["STANDS"]}


def test_one_missing_row_is_enough_for_not_run(page, trained):
    (item,) = (x for x in page["items"] if x.text.startswith("Every augment"))
    fewer = [r for r in trained if "without=flip" not in r.method]
    assert page["cover"](item, trained)[0] == "stand-in"
    assert page["cover"](item, fewer) == ("none", [])


@pytest.mark.parametrize("scale", ["paper", "paper-100"])
def test_results_on_the_papers_data_come_first(page, trained, scale):
    (item,) = (
        x for x in page["items"]
        if x.rows == ("tdw view_mse_steps: ciper-dataset",)
    )  # fmt: skip
    real = [
        result(job, view_mse_steps=6.5)
        for job in plan("figure 2", scale, [0], ["tdw"])
    ]
    state, found = page["cover"](item, trained + real)
    assert state == "own" and {r.experiment for r in found} == {"tdw"}
    assert page["here"](item, trained + real, []).startswith("**own data**")


def test_a_cell_shows_our_number_and_a_sentence_its_trainings(page, trained):
    cell, claim = (
        next(x for x in page["items"] if x.kind == kind and x.rows)
        for kind in ("cell", "panel")
    )
    shown = page["here"](cell, trained, [])
    assert shown == "**stand-ins**: Turntable 50.00 ± 0.00 (2)"
    shown = page["here"](claim, trained, [])
    assert shown == "**stand-ins**: Turntable, laptop (n = 2)"


def test_a_setting_that_is_not_the_papers_is_otherwise(page):
    wrong = page["setting"]("seven heads", "training/encoders", False)
    right = page["setting"]("one encoder", "training/encoders", True)
    there = page["setting"]("films", "data/folders", True, "core50")
    states = [page["cover"](x, [])[0] for x in (wrong, right, there)]
    assert states == ["otherwise", "code", "replicas"]


def test_what_the_paper_prints_wrongly_is_otherwise(page):
    texts = [
        item.text
        for item in page["items"]
        if page["cover"](item, [])[0] == "otherwise"
    ]
    for words in ("Eq. 1 as printed", "0 stands for gray", "SGD like the"):
        assert any(words in text for text in texts), words


def test_the_committed_counts_are_those_of_the_results(page):
    states = [page["cover"](x, page["results"])[0] for x in page["items"]]
    (cell,) = (
        c for c in nbformat.read(PAGE, as_version=4).cells if c.id == "summary"
    )
    (output,) = cell.outputs
    text = output["data"]["text/markdown"]
    assert text.startswith(f"{len(states)} statements")
    for state, (word, _) in page["STATES"].items():
        (line,) = (x for x in text.splitlines() if f"**{word}**" in x)
        numbers = [int(x) for x in line.split("|")[2:5]]
        assert sum(numbers) == states.count(state), word


def test_its_tables_have_at_most_four_columns():
    for cell in nbformat.read(PAGE, as_version=4).cells:
        if cell.cell_type == "code" and cell.id != "setup":
            for output in cell.outputs:
                text = output.get("data", {}).get("text/markdown", "")
                rows = [x for x in text.splitlines() if x.startswith("| ")]
                assert all(x.count("|") <= 5 for x in rows), cell.id
