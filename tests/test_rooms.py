"""The package is a house: imports go one way, tests and notebooks follow."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ORDER = """
files
augment.params augment.pixels augment.chain augment.operations augment.adapters
data.store data.images data.turntable data.download data.folders
data.photographs data.datasets data.sources
training.encoders training.losses training.methods.base
training.methods.simclr training.methods.predictive training.methods.ciper
training.methods.essl training.methods.registry training.trainer
evaluation.probes evaluation.changes evaluation.frozen evaluation.readouts
evaluation.cards evaluation.audit evaluation.explain evaluation.exports
draw
reproduce.results reproduce.sweep reproduce.plans reproduce.tables
reproduce.claims reproduce.figures reproduce.demo
cli __main__
""".split()  # noqa: SIM905 a list of fifty strings reads badly


def modules():
    """Each module's dotted name below ciper, and its file."""
    for path in sorted((ROOT / "ciper").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "ciper").with_suffix("").parts)
        if path.name not in ("__init__.py", "_modidx.py"):
            yield name, path


def imported(name, path):
    """The modules of the package that a module imports, anywhere in it."""
    known = {other for other, _ in modules()}
    home = ["ciper", *name.split(".")[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [x.name for x in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = home[: len(home) + 1 - node.level] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            targets = [base, *(f"{base}.{x.name}" for x in node.names)]
        else:
            continue
        for target in targets:
            below = target.removeprefix("ciper.")
            if target.startswith("ciper.") and below in known:
                yield below


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(name for name, _ in modules())


@pytest.mark.parametrize("name, path", [*modules()])
def test_a_module_imports_only_what_stands_before_it(name, path):
    before = ORDER[: ORDER.index(name)]
    assert not {*imported(name, path)} - {*before}


def test_an_arrow_up_would_be_noticed(tmp_path):
    path = tmp_path / "chain.py"
    path.write_text("def f():\n    from ..training.trainer import fit\n")
    found = {*imported("augment.chain", path)}
    assert found == {"training.trainer"}
    assert not found <= {*ORDER[: ORDER.index("augment.chain")]}


def test_tests_lie_in_the_rooms_of_what_they_test():
    rooms = {name.split(".")[0] for name in ORDER if "." in name}
    folders = {path.parent.name for path in ROOT.glob("tests/*/test_*.py")}
    assert folders == rooms


def test_the_book_teaches_in_the_order_of_the_house():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    (part,) = (x for x in toc["parts"] if x["caption"].startswith("The meth"))
    pages = [x["file"].removeprefix("nbs/") for x in part["chapters"]]
    rooms = list(dict.fromkeys(page.split("/")[0] for page in pages))
    assert rooms == ["augment", "data", "training", "evaluation"]
