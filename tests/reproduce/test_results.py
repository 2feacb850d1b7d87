"""Result files that survive crashes, and the arithmetic of their tables."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
import warnings
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import ciper
from ciper import Encoder, Run, recipe_at
from ciper.reproduce.results import (
    Result,
    Summary,
    in_clone,
    load_result,
    load_results,
    page_scale,
    paired,
    paired_difference,
    provenance,
    results_table,
    run_result,
    save_result,
    summarize,
)

ORIGIN = {"ciper": "0", "date": "2023-02-05T00:00:00+00:00"}
SIMCLR = [0.91, 0.93, 0.92]
CIPER = [0.94, 0.97, 0.92]


def make(method="ciper", seed=0, metrics=None, **changes):
    result = Result(
        experiment="table2",
        scale="laptop",
        data="Turntable",
        method=method,
        seed=seed,
        settings={"lr": 0.03, "name": "α", "sizes": [1, 2]},
        metrics={"object_accuracy": 0.5} if metrics is None else metrics,
        train_seconds=12.5,
        images_per_second=800.0,
        command="ciper train",
        provenance=ORIGIN,
    )
    return replace(result, **changes)


@pytest.fixture
def results():
    return [
        make(method, seed, {"object_accuracy": value, "view_error": 7.0})
        for method, values in (("simclr", SIMCLR), ("ciper", CIPER))
        for seed, value in enumerate(values)
    ]


# provenance


def test_provenance_names_versions_device_threads_and_time():
    origin = provenance()
    assert origin["ciper"] == ciper.__version__
    assert origin["torch"] == torch.__version__
    assert origin["python"] == sys.version.split()[0]
    assert origin["threads"] == torch.get_num_threads()
    assert origin["device"] and isinstance(origin["device"], str)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    assert re.fullmatch(time, origin["date"])


def test_provenance_is_taken_when_a_result_is_made():
    made = make(provenance=provenance())
    assert made.provenance.keys() == provenance().keys()


@pytest.fixture
def package_in(tmp_path, monkeypatch):
    """Pretend that the package lies in a folder; returns a git in it."""

    def place(home):
        (home / "ciper").mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(ciper, "__file__", str(home / "ciper" / "x.py"))

    return place


def git(home, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *name, *words], cwd=home, capture_output=True, text=True
    )
    return done.stdout.strip()


def checkout(home):
    git(home, "init")
    (home / "file").write_text("1")
    git(home, "add", ".")
    git(home, "commit", "-m", "one")
    return git(home, "rev-parse", "HEAD")


def test_the_commit_is_that_of_the_checkout(tmp_path, package_in):
    commit = checkout(tmp_path)
    package_in(tmp_path)
    assert provenance()["git_commit"] == commit and len(commit) == 40


def test_an_edited_checkout_is_called_dirty(tmp_path, package_in):
    commit = checkout(tmp_path)
    (tmp_path / "file").write_text("2")
    package_in(tmp_path)
    assert provenance()["git_commit"] == f"{commit}-dirty"


def test_an_installed_package_has_no_commit(tmp_path, package_in):
    checkout(tmp_path)  # somebody else's repository around the environment
    package_in(tmp_path / "venv" / "site-packages")
    assert provenance()["git_commit"] is None


def test_no_git_on_the_machine_means_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance()["git_commit"] is None


# the record


def test_a_result_cannot_be_edited():
    with pytest.raises(FrozenInstanceError):
        make().seed = 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_refused_by_name(value):
    with pytest.raises(ValueError, match="r2_azimuth must be finite, got"):
        make(metrics={"object_accuracy": 1.0, "r2_azimuth": value})


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], {}, 10**400])
def test_a_metric_that_is_no_number_is_refused_by_name(
    value, without_shape_checks
):
    with pytest.raises(ValueError, match="r2_azimuth must be finite, got"):
        make(metrics={"r2_azimuth": value})


ODD = [None, True, [], {}, "x", 1, -0.5, 10**400, math.nan, [[1]], [[1, "x"]]]
FINE = {
    "experiment": ["x"],
    "scale": ["x"],
    "data": ["x"],
    "method": ["x"],
    "command": ["x"],
    "seed": [1, 10**400],
    "settings": [{}],
    "metrics": [{}],
    "provenance": [{}],
    "train_seconds": [1, -0.5],
    "images_per_second": [1, -0.5],
    "knn_curve": [[]],
}


@pytest.mark.parametrize("field", FINE)
def test_a_field_of_another_kind_is_refused_by_name(
    field, without_shape_checks
):
    for value in ODD:
        if any(value == x and type(value) is type(x) for x in FINE[field]):
            found = replace(make(), **{field: value})
            assert getattr(found, field) == value
        else:
            with pytest.raises(ValueError, match=f"^{field} must "):
                replace(make(), **{field: value})


@pytest.mark.parametrize("kind", ["experiment", "scale", "method"])
@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", "", ".a", "a\n", "*"])
def test_a_name_that_could_leave_its_folder_is_refused(kind, name):
    with pytest.raises(ValueError, match="not a name for a file"):
        make(**{kind: name})


# what it tells of the machine


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ("digits", "digits"),
        ("core50:usual", "core50:usual"),
        ("folder:photos", "folder:photos"),
        ("folder:photos/", "folder:photos"),
        ("folder:a/photos", "folder:a/photos"),
        ("hf:someone/flowers", "hf:someone/flowers"),
        ("folder:/data/me/photos", "folder:photos@"),
        ("folder:~/photos", "folder:photos@"),
        ("folder:../me/photos", "folder:photos@"),
        ("hf:/data/me/flowers", "hf:flowers@"),
    ],
)
def test_the_data_are_named_without_a_place_of_this_machine(data, kept):
    digits = "[0-9a-f]{8}" if kept.endswith("@") else ""
    found = make(data=data, settings={"data": data, "lr": 1})
    assert re.fullmatch(re.escape(kept) + digits, found.data)
    assert found.settings == {"data": found.data, "lr": 1}
    again = make(data=found.data, settings=found.settings)
    assert again == found


def test_a_folder_is_the_same_however_its_path_is_written(monkeypatch):
    monkeypatch.setenv("HOME", "/data/me")
    monkeypatch.chdir("/usr")
    paths = "~/photos", "/data/me/photos/", "../data/me/x/../photos"
    assert len({make(data=f"folder:{path}").data for path in paths}) == 1
    others = "/data/you/photos", "photos", "~/photos/photos"
    names = {make(data=f"folder:{path}").data for path in (*others, paths[0])}
    assert len(names) == 4


def test_the_command_is_kept_without_places_of_this_machine(monkeypatch):
    words = ["/data/me/bin/ciper", "table", "3", "--data"]
    words += ["folder:/data/me/my photos", "--out=/data/me/o", "--runs", "~/r"]
    monkeypatch.setattr(sys, "argv", words)
    run = Run(recipe_at("smoke", data=words[4]), Encoder(width=0.125), [])
    found = run_result("x", "smoke", run, {})
    assert shlex.split(found.command) == [
        *("ciper", "table", "3", "--data", "folder:my photos"),
        *("--out=o", "--runs", "r"),
    ]
    assert "home" not in json.dumps(asdict(found))


def test_an_older_file_is_read_and_its_paths_are_not(tmp_path):
    path = save_result(make(), tmp_path)
    content = json.loads(path.read_text())
    for place in (content, content["settings"]):
        place["data"] = "folder:/data/me/photos"
    content["command"] = "ciper table 3 --data folder:/data/me/photos"
    path.write_text(json.dumps(content))
    found = load_result(path)
    assert found.command == "ciper table 3 --data folder:photos"
    assert found.data == found.settings["data"]
    assert found.data == make(data="folder:/data/me/photos").data


# files


def test_a_saved_result_is_loaded_equal(tmp_path):
    result = make()
    path = save_result(result, tmp_path)
    assert path == tmp_path / "table2" / "laptop" / "ciper-0.json"
    assert load_results(tmp_path) == [result]


def test_a_curve_is_kept_and_a_file_without_one_is_read(tmp_path):
    result = make(knn_curve=[[10, 0.5], [20, 0.625]])
    path = save_result(result, tmp_path)
    assert load_result(path) == result
    content = json.loads(path.read_text())
    del content["knn_curve"]
    path.write_text(json.dumps(content))
    assert load_result(path) == make() and make().knn_curve == []


def test_the_record_of_a_run_has_the_epochs_that_were_watched():
    epochs = [{"seconds": 1.5, "images_per_second": 8.0} for _ in range(20)]
    epochs[9]["knn_accuracy"], epochs[19]["knn_accuracy"] = 0.5, 0.625
    recipe = recipe_at("smoke-20", data="digits")
    run = Run(recipe, Encoder(width=0.125), epochs)
    record = run_result("digits", "smoke-20", run, {})
    assert record.knn_curve == [[10, 0.5], [20, 0.625]]
    assert record.train_seconds == 30


def test_the_file_has_its_format_sorted_keys_and_readable_floats(tmp_path):
    third = np.float32(1 / 3).item()  # 0.3333333432674408
    text = save_result(make(metrics={"b": third, "a": 1.0}), tmp_path)
    text = text.read_text(encoding="utf-8")
    content = json.loads(text)
    assert content["format"] == 1
    assert list(content) == sorted(content)
    assert list(content["metrics"]) == ["a", "b"]
    assert '"b": 0.333333\n' in text


def test_the_same_result_gives_the_same_bytes(tmp_path):
    a = save_result(make(settings={"x": 1, "y": 2}), tmp_path / "a")
    b = save_result(make(settings={"y": 2, "x": 1}), tmp_path / "b")
    assert a.read_bytes() == b.read_bytes()


def test_saving_again_replaces_the_result(tmp_path):
    save_result(make(), tmp_path)
    again = make(metrics={"object_accuracy": 0.75})
    save_result(again, tmp_path)
    assert load_results(tmp_path) == [again]


@pytest.mark.parametrize("call", ["os.replace", "os.fsync"])
def test_an_interrupted_write_leaves_the_old_result(
    tmp_path, monkeypatch, call
):
    path = save_result(make(), tmp_path)
    before = path.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(call, stop)
    with pytest.raises(KeyboardInterrupt):
        save_result(make(metrics={"object_accuracy": 0.75}), tmp_path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_results import make, save_result
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
save_result(make(metrics={"object_accuracy": 0.75}), sys.argv[2])
"""


def test_a_process_killed_while_writing_leaves_the_old_result(tmp_path):
    result = make()
    save_result(result, tmp_path)
    here = str(Path(__file__).parent)
    died = subprocess.run([sys.executable, "-c", KILLED, here, str(tmp_path)])
    assert died.returncode == -9
    assert load_results(tmp_path) == [result]  # and no warning


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_results import make, save_result
for _ in range(5):
    for seed in range(int(sys.argv[3]), 20, 2):
        save_result(make(seed=seed), sys.argv[2])
"""


def test_two_processes_write_their_seeds_side_by_side(tmp_path):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", WRITER, here, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(i)]) for i in (0, 1)]
    while any(writer.poll() is None for writer in writers):
        load_results(tmp_path)  # a reader never meets half a file
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [r.seed for r in load_results(tmp_path)] == list(range(20))
    assert len(list(tmp_path.rglob("*.*"))) == 20


def test_results_come_ordered_and_can_be_chosen(tmp_path):
    for seed in (10, 2):
        save_result(make(seed=seed), tmp_path)
    save_result(make("random"), tmp_path)
    save_result(make(scale="smoke"), tmp_path)
    save_result(make(experiment="alpha"), tmp_path)
    found = [
        (r.experiment, r.scale, r.method, r.seed)
        for r in load_results(tmp_path)
    ]
    assert found == [
        ("alpha", "laptop", "ciper", 0),
        ("table2", "laptop", "ciper", 2),
        ("table2", "laptop", "ciper", 10),
        ("table2", "laptop", "random", 0),
        ("table2", "smoke", "ciper", 0),
    ]
    assert len(load_results(tmp_path, "table2")) == 4
    assert len(load_results(tmp_path, "table2", "smoke")) == 1
    assert len(load_results(tmp_path, scale="laptop")) == 4


def test_a_folder_that_is_not_there_holds_no_results(tmp_path):
    assert load_results(tmp_path / "nothing") == []


def bad_files():
    good = json.dumps({"format": 1, **make(seed=7).__dict__})
    half = good[: len(good) // 2]
    other = good.replace('"format": 1', '"format": 2')
    more = good.replace('"seed"', '"sead"')
    nan = good.replace('"object_accuracy": 0.5', '"object_accuracy": NaN')
    return {
        "half": half.encode(),
        "empty": b"",
        "a list": b"[1, 2]",
        "a number": b"3",
        "foreign": b'{"accuracy": 0.9}',
        "another format": other.encode(),
        "an unknown field": more.encode(),
        "not a number": nan.encode(),
        "metrics that are none": good.replace(
            '{"object_accuracy": 0.5}', '"high"'
        ).encode(),
        "nested too deep": b'{"format": 1, "settings": ' + b"[" * 10**5,
        "not text": b"\xff\xfe\x00",
        "another seed's": good.replace('"seed": 7', '"seed": 8').encode(),
    }


@pytest.mark.parametrize("kind", bad_files())
def test_a_bad_file_is_named_in_a_warning_and_skipped(tmp_path, kind):
    result = make()
    path = save_result(result, tmp_path).with_name("ciper-7.json")
    path.write_bytes(bad_files()[kind])
    with pytest.warns(UserWarning) as caught:
        assert load_results(tmp_path) == [result]
    assert len(caught) == 1
    assert str(caught[0].message).startswith(f"skipped {path}: ")


def test_a_folder_with_a_files_name_is_named_and_skipped(tmp_path):
    (save_result(make(), tmp_path).parent / "ciper-1.json").mkdir()
    with pytest.warns(UserWarning, match=r"ciper-1\.json"):
        assert len(load_results(tmp_path)) == 1


@pytest.mark.timeout(10)
def test_what_is_no_file_is_named_and_skipped(tmp_path):
    folder = save_result(make(), tmp_path).parent
    (folder / "ciper-1.json").symlink_to("ciper-1.json")
    os.mkfifo(folder / "ciper-2.json")
    with pytest.warns(UserWarning) as caught:
        assert len(load_results(tmp_path)) == 1
    said = "\n".join(sorted(str(w.message) for w in caught))
    assert re.fullmatch(
        rf"skipped {folder}/ciper-1.json: .*symbolic links.*\n"
        rf"skipped {folder}/ciper-2.json: not a file",
        said,
    )


def test_a_leftover_draft_is_no_result(tmp_path):
    path = save_result(make(), tmp_path)
    path.with_name(".ciper-1.json.123.tmp").write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_results(tmp_path)) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a umask")
def test_a_result_is_as_readable_as_the_umask_allows(tmp_path):
    old = os.umask(0o022)
    try:
        path = save_result(make(), tmp_path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644


# summaries


def test_the_spread_divides_by_n_minus_1(results):
    found = summarize(results, "object_accuracy")["simclr"]
    assert found.mean == pytest.approx(np.mean(SIMCLR))
    assert found.std == pytest.approx(np.std(SIMCLR, ddof=1))
    assert found.n == 3


def test_one_training_has_no_spread():
    found = summarize([make()], "object_accuracy")["ciper"]
    assert math.isnan(found.std) and found.n == 1
    assert str(found) == "0.500 (1)"


def test_only_trainings_with_the_metric_are_counted(results):
    results.append(make("ciper", 9, {"view_error": 1.0}))
    results.append(make("random", 0, {"view_error": 1.0}))
    found = summarize(results, "object_accuracy")
    assert found["ciper"].n == 3 and "random" not in found


@pytest.mark.parametrize("field", ["experiment", "scale", "data"])
def test_results_of_two_kinds_are_not_averaged(results, field):
    other = replace(results[0], **{field: "other"})
    with pytest.raises(ValueError, match=f"need one {field}, got .*'other'"):
        summarize([*results, other], "object_accuracy")


def test_no_results_are_refused():
    with pytest.raises(ValueError, match=r"need one experiment, got \[\]"):
        summarize([], "object_accuracy")


def test_an_unknown_metric_names_the_nearest(results):
    with pytest.raises(ValueError, match="nearest is 'object_accuracy'"):
        summarize(results, "acuracy")


def test_the_paired_difference_is_that_of_the_paired_t_test(results):
    gap = paired_difference(results, "ciper", "simclr", "object_accuracy")
    expected = stats.ttest_rel(CIPER, SIMCLR).statistic
    assert gap.mean == pytest.approx(np.mean(CIPER) - np.mean(SIMCLR))
    assert gap.mean / (gap.std / gap.n**0.5) == pytest.approx(expected)


def test_only_shared_seeds_are_paired_in_any_order(results):
    extra = make("ciper", 9, {"object_accuracy": 0.0})
    gap = paired_difference(
        [extra, *reversed(results)], "ciper", "simclr", "object_accuracy"
    )
    assert gap.n == 3 and gap.mean == pytest.approx(0.07 / 3)
    pairs = paired(results, "ciper", "simclr", "object_accuracy")
    assert pairs == [*zip(CIPER, SIMCLR)]


# tables

PAPER = {
    "ciper": {"view_error": "6.48 ± 0.15"},
    "essl": {"view_error": "9.9"},
}


def test_the_table_stands_beside_the_paper(results):
    table = results_table(results, ["object_accuracy", "view_error"], PAPER)
    assert table.splitlines() == [
        "| method | object_accuracy | view_error | view_error, paper |",
        "| --- | --- | --- | --- |",
        "| simclr | 0.920 ± 0.010 (3) | 7.000 ± 0.000 (3) | – |",
        "| ciper | 0.943 ± 0.025 (3) | 7.000 ± 0.000 (3) | 6.48 ± 0.15 |",
        "| essl | – | – | 9.9 |",
        "",
        "Turntable, laptop scale; mean ± std (trainings)",
    ]


def test_without_the_paper_there_is_no_column_for_it(results):
    table = results_table(results, ["view_error"])
    assert table.startswith("| method | view_error |\n| --- | --- |\n")


def test_a_table_of_an_unknown_metric_is_refused(results):
    with pytest.raises(ValueError, match="nearest is 'view_error'"):
        results_table(results, ["object_accuracy", "view_eror"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.988 ± 0.123 (5)"),
        (-0.5, "-0.500 ± 0.123 (5)"),
        (6.4812, "6.481 ± 0.123 (5)"),
        (37.7222, "37.72 ± 0.12 (5)"),
        (12345.6, "12346 ± 0 (5)"),
    ],
)
def test_a_summary_shows_four_digits(value, text):
    assert str(Summary(value, 0.1234, 5)) == text


def test_settings_are_kept_to_the_last_digit(tmp_path):
    result = Result(
        "a", "smoke", "b", "c", 0, {"alpha": 1 / 3}, {}, 1.0, 1.0, "", {}
    )
    assert load_result(save_result(result, tmp_path)).settings == {
        "alpha": 1 / 3
    }


def test_a_page_finds_results_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = in_clone("results")
    assert place == Path(ciper.__file__).parents[1] / "results"
    assert load_results(place, "demo", "laptop")


def test_an_installed_package_says_how_to_get_the_results(
    tmp_path, monkeypatch
):
    installed = tmp_path / "ciper/__init__.py"
    monkeypatch.setattr(ciper, "__file__", str(installed))
    with pytest.raises(FileNotFoundError, match="git clone https://"):
        in_clone("results")


def test_a_page_refuses_a_scale_that_there_is_not(monkeypatch):
    monkeypatch.setenv("CIPER_SCALE", "smoky")
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        page_scale()
    monkeypatch.delenv("CIPER_SCALE")
    assert page_scale() == "laptop"


# alike


@pytest.mark.parametrize(
    ("name", "usual", "stray"),
    [("numeric_version", 1, None), ("precision", "bfloat16", "float32"),
     ("threads", 1, 2)],
)  # fmt: skip
def test_a_stray_training_is_named_and_refused(name, usual, stray):
    made = [make(seed=s, provenance=ORIGIN | {name: usual}) for s in range(3)]
    assert summarize(made, "object_accuracy")["ciper"].n == 3
    made[1] = make(seed=1, provenance=ORIGIN | {name: stray})
    where = f"one {name.replace('_', ' ')}: table2/laptop/ciper-1.json"
    with pytest.raises(ValueError, match=f"{where} has {stray or 'none'}, 2"):
        summarize(made, "object_accuracy")
    with pytest.raises(ValueError, match=where):
        paired_difference(made, "ciper", "simclr", "object_accuracy")


def test_a_row_that_is_there_to_differ_may_differ():
    usual = make(provenance=ORIGIN | {"precision": "bfloat16"})
    label = "ciper-precision=float32"
    other = make(label, provenance=ORIGIN | {"precision": "float32"})
    assert len(summarize([usual, other], "object_accuracy")) == 2
    untrained = make("random", train_seconds=0.0)
    assert len(summarize([usual, untrained], "object_accuracy")) == 2
