"""The commands table, figure and claims, at smoke scale in this process.

And what they and train do when their time is up.
"""

import io
import json
import math
import re
import shlex
import sys
import time
import warnings
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import replicas
from invented import result
from PIL import Image

from ciper import cli, load_run
from ciper.evaluation.explain import map_2d
from ciper.reproduce import figures, plans
from ciper.reproduce.plans import plan
from ciper.reproduce.results import save_result
from ciper.reproduce.tables import row_name
from ciper.training import trainer as train


def ciper(*arguments):
    """Run the command; its exit code and everything it printed."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.console, "width", 400)
        patch.setenv("CIPER_DEBUG", "1")
        patch.setattr(sys, "argv", ["ciper", *map(str, arguments)])
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        with redirect_stdout(out), pytest.raises(SystemExit) as end:
            cli.main()
    plt.close("all")
    return SimpleNamespace(code=end.value.code or 0, out=out.getvalue())


def files(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*.json")}


def row(out, name):
    """A row of the printed tables; Table 2 has one in each of its two."""
    starts = re.compile(rf"\s*{re.escape(name)}(?!,)").match
    lines = [x for x in out.splitlines() if starts(x)]
    assert len(lines) == 2 if "in the place of" in out else 1
    return " ".join(lines)


@pytest.fixture
def no_training(monkeypatch):
    def fit(*_, **__):
        raise AssertionError("nothing should be trained")

    monkeypatch.setattr(plans, "fit", fit)


@pytest.fixture
def quick(monkeypatch):
    """Without what only Figures 2 and 3 show."""
    monkeypatch.setattr(plans, "look_inside", lambda *_: {})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def where(home):
    return ["--results", home / "results", "--runs", home / "runs"]


@pytest.fixture(scope="module")
def table_2(where):
    """The command's output; its files stay for the other tests."""
    few = partial(plans.saliency_scores, count=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "saliency_scores", few)
        return ciper("table", 2, "--scale", "smoke", "--seeds", 1, *where)


DIGITS = ["--scale", "smoke", "--seeds", 1, "--data", "digits"]


# tables


def test_table_1_needs_no_training(no_training):
    done = ciper("table", 1)
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "crop 1 height continuous 0 to 1 1 of image" in lines
    assert "flip 0.8 flip binary 0 to 1 0" in lines
    assert "grayscale 0.2 grayscale binary 0 to 1 0" in lines


def test_table_2_is_trained_and_shown_beside_the_papers(table_2, home):
    assert table_2.code == 0
    assert "15 finished" in table_2.out
    found = files(home / "results")
    assert len(found) == 15
    for path, content in found.items():
        metrics = json.loads(content)["metrics"]
        shown = f"{100 * metrics['linear_accuracy']:.4g}"[:4]
        assert shown in table_2.out, path
        assert ("session_accuracy" in metrics) == ("rooms" in str(path))
        assert ("mass_inside" in metrics) == (
            "dataset" in path.name or "random" in path.name
        )
    for name, number in {
        "Random encoder": "18.44 ± 10.01",
        "SimCLR, image views": "40.88 ± 1.38",
        "CIPER, dataset views": "6.48 ± 0.15",
    }.items():
        assert number in row(table_2.out, name)


def test_each_row_of_table_2_shows_its_own_results(table_2, home):
    for name, label in {
        "Random encoder": "random",
        "SimCLR, dataset views": "simclr-dataset",
        "CIPER, image views": "ciper-image",
    }.items():
        path = home / f"results/turntable/smoke/{label}-0.json"
        error = json.loads(path.read_text())["metrics"]["view_mse_steps"]
        digits = 4 - len(str(int(error)))
        assert f"{error:.{digits}f} (1)" in row(table_2.out, name)


def test_again_trains_nothing(table_2, where, home, no_training):
    before = files(home)
    again = ciper("table", 2, "--scale", "smoke", "--seeds", 1, *where)
    assert again.code == 0
    assert "finished" not in again.out
    assert again.out.strip() in table_2.out  # all but the report
    assert files(home) == before


def test_a_failing_training_leaves_the_others_results(tmp_path, monkeypatch):
    real = plans.fit

    def fails(recipe, *arguments, **options):
        if recipe.method == "predictive":
            raise RuntimeError("the machine is gone")
        return real(recipe, *arguments, **options)

    where = ["--results", tmp_path / "results", "--runs", tmp_path / "runs"]
    with monkeypatch.context() as patch:
        patch.setattr(plans, "fit", fails)
        done = ciper("table", 3, *DIGITS, *where)
    assert done.code == 1
    assert "5 finished, 1 failed" in done.out
    assert row(done.out, "SimCLR, image views")
    assert "digits/smoke/predictive-image-0: RuntimeError" in done.out
    names = {path.stem for path in files(tmp_path / "results")}
    rows = "random simclr-image ciper-image essl-image"
    rows += " ciper-image-preset=simclr"
    assert names == {f"{row}-0" for row in rows.split()}
    before = files(tmp_path / "results")
    again = ciper("table", 3, *DIGITS, *where)
    assert again.code == 0
    assert "1 finished, 5 done before" in again.out
    assert files(tmp_path / "results").items() > before.items()
    assert "6× (" in row(again.out, "E-SSL, image views")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", 4], "unknown table '4': did you mean"),
        (["table", "2b"], "unknown table '2b': did you mean '2'"),
        (["table", 1, "--data", "digits"], "table 1 needs no data"),
        (["table", 2, "--data", "digits"], "digits has no such views; use"),
        (["figure", "4"], "unknown figure '4': did you mean"),
        (["figure", 5], "unknown figure '5'"),
        (["table", 2, "--scale", "smke"], "did you mean 'smoke'"),
        (["figure", 2, "--scale", "smke"], "did you mean 'smoke'"),
        (["claims", "--scale", "smke"], "did you mean 'smoke'"),
        (["table", 3, "--data", "digist"], "did you mean 'digits'"),
        (["table", 2, "--scale", "smoke-x"], "number of epochs, as in smoke"),
        (["table", 2, "--seeds", 0], "--seeds"),
        (["table", 2, "--seeds", 101], "--seeds"),
        (["table", 2, "--minutes", "nan"], "--minutes"),
        (["table", 3, "--data", ""], "need a name"),
        (["table", 3, "--data", "folder:"], "unknown data set 'folder"),
        (["table", 3, "--data", "hf:"], "unknown data set 'hf"),
        (["table", 3, "--data", "folder:/"], "need a name"),
        (["table", 3, "--data", "folder:my photos"], "no such folder"),
        (["figure", 1, "--data", "digits"], "takes --data 0 times at most"),
        (["figure", 2, *["--data", "digits"] * 2], "1 times at most"),
        (["figure", 1, "--out", "a.xyz"], "unknown kind of picture 'xyz'"),
        (["figure", 1, "--out", "/"], "must name a picture, got /"),
        (["figure", 1, "--out", "/dev/null/a.png"], "cannot write to"),
        (["table", 3, *DIGITS, "--results", "/dev/null/x"], "cannot write"),
        (["table", 3, *DIGITS, "--runs", "/dev/null/x"], "cannot write to"),
        (["table", 3, *DIGITS, "--runs", "x" * 300], "name too long"),
        (["figure", 2, "--scale", "smoke", "--runs", "/dev/null"], "cannot"),
        (["table", 2, "--minutes", -1], "--minutes"),
        (["table", 3, *DIGITS, "--engine", "rya"], "must be local or ray"),
        (["table"], "NUMBER"),
        (["rows"], "ITEM"),
        (["rows", "precison"], "unknown rows 'precison': did you mean 'prec"),
        (["rows", "table 2"], "unknown rows 'table 2'"),
        (["rows", "precision", "--data", "digits"], "digits has no such view"),
        (["rows", "precision", "--precision", "float32"], "omit --precision"),
        (["rows", "next", "--scale", "smke"], "did you mean 'smoke'"),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_code_2(
    arguments, message, tmp_path, capsys, no_training, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = ciper(*arguments)
    assert done.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ciper: error: ")
    assert message.lower() in line.lower()
    assert not list(tmp_path.iterdir())


def test_minutes_that_are_no_number_do_not_mean_forever():
    with pytest.raises(ValueError, match="--minutes must be a number"):
        cli._until(math.nan)


def test_folders_of_any_name_are_filed_and_of_one_name_kept_apart(
    tmp_path, monkeypatch, quick, capsys
):
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(plans._SMOKE, "images", 0)
    monkeypatch.setitem(plans.ROWS, "table 3", [dict(method="random")])
    for year in "2019", "2020":
        for name in "[b]cat[/b]", "dog":
            for i in range(24):
                place = tmp_path / year / "my photos" / name / f"{i}.png"
                replicas.picture(place, (i, len(name)))
    where = ["--scale", "smoke", "--seeds", 1, "--runs", tmp_path / "runs"]
    where += ["--results", tmp_path / "results"]
    first, second = (
        f"folder:{tmp_path}/{year}/my photos/" for year in ("2019", "2020")
    )
    assert ciper("table", 3, *where, "--data", first).code == 0
    (path,) = files(tmp_path / "results")
    assert path.name == "random-0.json" and "my-photos" in path.parts
    assert str(tmp_path) not in path.read_text()
    before = files(tmp_path)
    again = ciper("table", 3, *where, "--data", first.rstrip("/"))
    assert again.code == 0 and "finished" not in again.out
    assert ciper("table", 3, *where, "--data", second).code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert f"{path} is on folder:my photos@" in line
    assert "give another folder" in line
    assert files(tmp_path) == before


# rows


def test_one_row_is_trained_in_both_precisions(tmp_path, quick):
    command = ["rows", "precision", "--scale", "smoke", "--seeds", 1]
    command += ["--precision", "bfloat16", "--runs", tmp_path / "runs"]
    command += ["--results", tmp_path / "results"]
    done = ciper(*command)
    assert done.code == 0 and "2 finished" in done.out
    found = [json.loads(x) for x in files(tmp_path / "results").values()]
    used = {r["method"]: r["provenance"]["precision"] for r in found}
    assert used == {
        "ciper-dataset": "bfloat16",
        "ciper-dataset-precision=float32": "float32",
    }
    assert all(" rows precision " in r["command"] for r in found)
    again = ciper(*command)
    assert again.code == 0 and "finished" not in again.out
    assert again.out.strip() in done.out
    for r in found:
        shown = f"{100 * r['metrics']['linear_accuracy']:.2f} (1)"
        assert shown in row(again.out, row_name(r["method"]))


def test_neighbors_in_time_are_shown_with_what_their_data_know(
    tmp_path, no_training
):
    jobs = plan("next", "smoke", range(2), ["turntable", "coil100"])
    for job in jobs:
        error = {
            "turntable": "view_mse_steps",
            "coil100": "change_error_deg",
        }[job.experiment]
        value = 20 + 4 * (job.recipe.method == "simclr")
        made = result(job, **{error: value}, knn_accuracy=0.5)
        save_result(made, tmp_path)
    command = ["rows", "next", "--scale", "smoke", "--seeds", 2]
    command += ["--results", tmp_path, "--data", "turntable"]
    done = ciper(*command, "--data", "coil100")
    assert done.code == 0
    first, second = done.out.split("COIL-100")
    for text, title in ((first, "view error"), (second, "error of a turn")):
        assert title in text and "accuracy" not in text
        assert "24.00 ± 0.00 (2)" in row(text, "SimCLR, next views")
        assert "20.00 ± 0.00 (2)" in row(text, "CIPER, next views")


def test_rows_that_are_not_trained_in_time_are_to_be_done_later(tmp_path):
    command = ["rows", "next", "--scale", "smoke", "--seeds", 1]
    command += ["--results", tmp_path / "results", "--runs", tmp_path / "runs"]
    done = ciper(*command, "--minutes", 0)
    assert done.code == 1
    assert "0 finished, 2 to be done later" in done.out
    assert not files(tmp_path / "results")


# figures


def picture(path):
    with Image.open(path) as image:
        low, high = image.convert("L").getextrema()
        assert high - low > 100
        return image.size


def test_figure_1_is_drawn_without_training(tmp_path, no_training):
    out = tmp_path / "[b]new[/b]" / "overview.png"
    done = ciper("figure", 1, "--out", out)
    assert (done.code, picture(out)) == (0, (1080, 690))
    assert f"drawn in {out}" in done.out


def test_a_picture_without_an_ending_is_a_png_and_said_so(tmp_path):
    done = ciper("figure", 1, "--out", tmp_path / "overview")
    assert f"drawn in {tmp_path}/overview.png" in done.out
    assert picture(tmp_path / "overview.png") == (1080, 690)


@pytest.mark.parametrize("number", ["2", "3"])
def test_figures_2_and_3_take_the_encoders_of_table_2(
    number, table_2, where, home, monkeypatch, no_training
):
    monkeypatch.setattr(figures, "map_2d", lambda h: map_2d(h, "pca"))
    monkeypatch.chdir(home)
    done = ciper("figure", number, "--scale", "smoke", *where)
    assert done.code == 0
    assert picture(home / f"figure-{number}.png")[0] == 1080


def test_figure_4b_trains_the_weights_that_table_2_has_not(
    table_2, where, home, quick
):
    out = home / "alpha.png"
    options = ["--data", "turntable", "--scale", "smoke", "--seeds", 1]
    done = ciper("figure", "4b", "--out", out, *options, *where)
    assert done.code == 0
    assert "6 finished, 1 done before" in done.out
    assert picture(out)[0] == 1080


def test_figure_4a_draws_one_bar_for_each_operation_left_out(
    tmp_path, monkeypatch
):
    where = ["--results", tmp_path / "results", "--runs", tmp_path / "runs"]
    monkeypatch.chdir(tmp_path)
    done = ciper("figure", "4a", *DIGITS, *where)
    assert done.code == 0
    assert "5 finished" in done.out
    assert picture("figure-4a.png")[0] > 600


# claims


def test_the_claims_are_judged_by_the_results_there_are(tmp_path):
    for job in plan("table 3", "smoke", range(3), ["digits"]):
        seed, better = job.recipe.seed, job.recipe.method == "ciper"
        value = 0.8 + 0.01 * seed**2 + 0.05 * better + 0.001 * seed * better
        save_result(result(job, linear_accuracy=value), tmp_path)
    options = ["--scale", "smoke", "--results", tmp_path]
    done = ciper("claims", *options)
    assert done.code == 0
    (line,) = (x for x in done.out.splitlines() if "CIPER improves" in x)
    assert "Digits" in line and " holds " in line
    assert "92.2 ± 0.3, 91.7 ± 0.1" in line
    (line,) = (x for x in done.out.splitlines() if "beats CIPER" in x)
    assert "does not hold" in line
    assert "Dataset augmentations" not in done.out
    other = ciper("claims", *options, "--data", "turntable")
    assert "CIPER improves" not in other.out


def test_claims_without_results_are_an_empty_table(tmp_path, no_training):
    done = ciper("claims", "--scale", "smoke", "--results", tmp_path)
    assert done.code == 0
    assert "verdict" in done.out and "holds" not in done.out


def test_a_damaged_result_is_named_and_left_out(tmp_path, capsys):
    (job,) = plan("figure 2", "smoke", [0])[:1]
    path = save_result(result(job, linear_accuracy=0.5), tmp_path)
    path.write_text(path.read_text()[:100])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = ciper("claims", "--scale", "smoke", "--results", tmp_path)
    assert done.code == 0
    error = capsys.readouterr().err
    assert "ciper: warning: skipped" in error and path.name in error


# in time


def test_a_table_stops_in_time_and_the_same_command_goes_on(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(plans._SMOKE, "images", 32)  # one batch an epoch
    command = ["table", 3, "--scale", "smoke-11", *DIGITS[2:]]
    command += ["--results", tmp_path / "results", "--runs", tmp_path / "runs"]
    done = ciper(*command, "--minutes", 0)
    assert done.code == 1
    assert "1 finished, 5 to be done later" in done.out
    assert row(done.out, "SimCLR, image views").count("–") == 3
    assert [path.stem for path in files(tmp_path / "results")] == ["random-0"]
    again = ciper(*command)
    assert again.code == 0
    assert "5 finished, 1 done before" in again.out
    found = files(tmp_path / "results/digits/smoke-11")
    assert len(found) == 6
    for path, content in found.items():
        epochs = [epoch for epoch, _ in json.loads(content)["knn_curve"]]
        assert epochs == ([] if path.stem == "random-0" else [*range(1, 12)])


@pytest.mark.parametrize("number", ["4a", "4b"])
def test_a_figure_without_results_yet_says_what_is_left(number, tmp_path):
    options = ["--scale", "smoke", "--seeds", 1, "--data", "turntable"]
    options += ["--results", tmp_path / "results", "--runs", tmp_path / "runs"]
    out = tmp_path / "figure.png"
    done = ciper("figure", number, *options, "--minutes", 0, "--out", out)
    assert done.code == 1
    count = len(plans.ROWS[f"figure {number}"])
    assert f"0 finished, {count} to be done later" in done.out


def test_a_figure_of_encoders_that_are_not_trained_in_time_is_not_drawn(
    tmp_path, capsys
):
    out = tmp_path / "figure.png"
    options = ["--scale", "smoke", "--runs", tmp_path / "runs", "--out", out]
    done = ciper("figure", 2, *options, "--minutes", 0)
    assert done.code == 1 and not out.exists()
    *_, line = capsys.readouterr().err.splitlines()
    assert line == "ciper: error: time is up after 0 of 1 epochs"


def test_a_training_stops_in_time_and_says_how_to_go_on(tmp_path):
    options = ["--data", "digits", "--method", "simclr", "--size", 8]
    options += ["--scale", "smoke-2", "--batch-size", 512]
    options += ["--out", tmp_path / "run"]
    done = ciper("train", *options, "--minutes", 0)
    assert done.code == 1
    assert "time is up after 0 of 2 epochs; whole epochs are" in done.out
    times = iter([0, 0, 0, 0, math.inf])
    clock = SimpleNamespace(
        time=times.__next__, perf_counter=time.perf_counter
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "time", clock)
        done = ciper("train", *options, "--minutes", 9, "--resume")
    assert done.code == 1
    assert "time is up after 1 of 2 epochs; whole epochs are" in done.out
    _, told = done.out.split("Go on with: ciper ")
    assert ciper(*shlex.split(told)).code == 0
    assert len(load_run(tmp_path / "run").history) == 2
