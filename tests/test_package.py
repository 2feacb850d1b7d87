"""The wheel holds the package alone and needs what it declares alone."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ciper

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ciper", "tests", "nbs"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        source,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(source.glob("dist/*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = ZipFile(wheel).namelist()
    inside = {name for name in names if name.startswith("ciper/")}
    assert inside == {
        str(path.relative_to(ROOT)) for path in ROOT.glob("ciper/**/*.py")
    }
    rest = {name.split("/")[0] for name in names} - {"ciper"}
    assert rest == {
        f"ciper_book-{importlib.metadata.version('ciper-book')}.dist-info"
    }


OPTIONAL = (  # extras that are imported by name, where they are used
    *("hub", "encoders", "transformers", "onnx", "parquet", "maps"),
)


def declared(wheel, *extras):
    """What the wheel says it needs, with these extras."""
    archive = ZipFile(wheel)
    name = next(x for x in archive.namelist() if x.endswith("/METADATA"))
    lines = message_from_bytes(archive.read(name)).get_all("Requires-Dist")
    found = [Requirement(line) for line in lines]
    return [
        x
        for x in found
        if not x.marker
        or any(x.marker.evaluate({"extra": name}) for name in ("", *extras))
    ]


def imported():
    """The names of all modules that the package imports, its own left out."""
    trees = [ast.parse(p.read_text()) for p in ROOT.glob("ciper/**/*.py")]
    for node in [node for tree in trees for node in ast.walk(tree)]:
        if isinstance(node, ast.Import):
            yield from [x.name for x in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_what_is_imported_is_declared_and_what_is_declared_imported(wheel):
    tops = {x.split(".")[0] for x in imported()} - sys.stdlib_module_names
    owners = importlib.metadata.packages_distributions()
    names = {canonicalize_name(x.name) for x in declared(wheel, *OPTIONAL)}
    used = set()
    for top in tops - {"ciper"}:
        homes = names & {canonicalize_name(x) for x in owners.get(top, [top])}
        assert homes, f"{top} is imported and not declared"
        used |= homes
    assert used == names


def requirements_of(wheel):
    """The distributions that the wheel needs, and those they need."""
    todo, seen, found = [(x, "") for x in declared(wheel)], set(), {}
    while todo:
        requirement, extra = todo.pop()
        marker = requirement.marker
        if marker and not marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), wanted)
            if key not in seen:
                seen.add(key)
                found[key[0]] = importlib.metadata.distribution(
                    requirement.name
                )
                needs = found[key[0]].requires or []
                todo += [(Requirement(x), wanted) for x in needs]
    return found.values()


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """An environment of the wheel and what it declares, linked."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    for distribution in requirements_of(wheel):
        tops = {x.parts[0] for x in distribution.files} - {"..", "__pycache__"}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    command = [sys.executable, "-m", "pip", "--python", folder / "bin/python"]
    command += ["install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True)
    return folder


def run(clean, tmp_path, *command):
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith("PYTHON")
    }
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [clean / "bin" / command[0], *command[1:]]
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    )


def test_every_module_imports_without_development_tools(clean, tmp_path):
    code = """if True:
        import ciper, importlib.util, pkgutil
        for module in pkgutil.walk_packages(ciper.__path__, "ciper."):
            importlib.import_module(module.name)
        print(ciper.__file__, importlib.util.find_spec("nbdev"))"""
    done = run(clean, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    place, nbdev = done.stdout.split()
    assert Path(place).is_relative_to(clean) and nbdev == "None"


def test_the_demo_runs_from_the_wheel_outside_the_repository(clean, tmp_path):
    done = run(
        clean, tmp_path, "ciper", "demo", "--scale", "smoke", "--out", "demo"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads((tmp_path / "demo/table.json").read_text())
    assert {"random", "simclr", "predictive", "ciper"} <= table.keys()


PIP = re.compile(r"(?:pip install|uv add|pip index)[^\n]*")
PLAIN = re.compile(r"(?<![\w./-])ciper(?![\w.-])(?:\[|\s*@|[\"'`]|\s*$)")


def texts():
    """Every text of the project that a person may read or run."""
    command = ["git", "ls-files", "-z"]
    try:
        names = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a git checkout")
    for name in filter(None, names):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".ipynb", ".toml", ".yml", ".ini"}:
            yield name, path.read_text()


def test_no_text_tells_anybody_to_install_the_strangers_package():
    found = [
        (name, line[0])
        for name, text in texts()
        for line in PIP.finditer(text.replace('\\"', '"'))
        if PLAIN.search(line[0]) and name != "tests/test_package.py"
    ]
    assert found == []


@pytest.mark.parametrize(
    "line", ['pip install "ciper[maps]"', "pip install ciper", "uv add ciper"]
)
def test_a_line_that_installs_it_would_be_noticed(line):
    assert PLAIN.search(PIP.search(line)[0])


def test_name_and_address_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == ciper.DISTRIBUTION
    assert project["urls"]["Homepage"] == ciper.REPOSITORY
    source = re.compile(r"([\w-]+)(?:\[\w+\])? @ git\+([\w:/.-]+)")
    pairs = {
        pair
        for name, text in texts()
        for pair in source.findall(text)
        if name != "tests/test_package.py"
    }
    assert pairs == {(ciper.DISTRIBUTION, ciper.REPOSITORY)}


def test_the_extras_that_messages_name_are_in_the_wheel(wheel):
    archive = ZipFile(wheel)
    name = next(x for x in archive.namelist() if x.endswith("/METADATA"))
    about = message_from_bytes(archive.read(name))
    assert about["Name"] == ciper.DISTRIBUTION
    code = "".join(path.read_text() for path in ROOT.glob("ciper/**/*.py"))
    named = set(re.findall(r"pip_install\(['\"](\w+)['\"]\)", code))
    assert named and named <= set(about.get_all("Provides-Extra"))
    assert ciper.pip_install("maps") == 'pip install "ciper-book[maps]"'
