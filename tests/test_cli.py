"""The command line, as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

SMALL = ["--scale", "smoke", "--size", "16", "--batch-size", "16"]


def command(*arguments):
    code = "from ciper.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def ciper(*arguments, cwd=None):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, low in {"dark": 0, "light": 200}.items():
        (folder / name).mkdir()
        for i in range(60):
            pixels = draw.integers(low, low + 50, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def assert_one_line(done, message, code=2):
    assert done.returncode == code, done.stderr
    lines = [x for x in done.stderr.splitlines() if x.startswith("ciper: ")]
    assert lines[-1].startswith("ciper: error: ")
    assert message in lines[-1]
    assert "Traceback" not in done.stderr


def test_help_shows_every_command_and_an_example_for_each():
    assert all(
        c in ciper("--help").stdout for c in ("demo", "train", "evaluate")
    )
    for name in ("demo", "train", "evaluate"):
        assert f"Example: ciper {name}" in ciper(name, "--help").stdout


def test_a_folder_is_trained_on_and_evaluated(photos, tmp_path):
    out = tmp_path / "run"
    trained = ciper(
        "train", "--data", f"folder:{photos}", "--out", out, *SMALL
    )
    assert trained.returncode == 0, trained.stderr
    lines = trained.stdout.splitlines()
    assert lines[0] == (
        f"folder:{photos}: 96 training images of 16x16 pixels, "
        "2 classes: dark, light"
    )
    assert f"next: ciper evaluate {out}" in lines
    done = ciper("evaluate", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"folder:{photos}: 96 training and 24 test images of 16x16 pixels, "
        "2 classes: dark, light\n"
    )
    (path,) = out.glob("results/evaluate/*/ciper-0.json")
    assert str(photos) not in path.read_text()
    metrics = json.loads(path.read_text())["metrics"]
    assert metrics["linear_accuracy"] >= 0.9  # dark against light
    assert metrics["kept_brightness"] > 0.2 > metrics["kept_saturation"]
    again = ciper("train", "--data", f"folder:{photos}", "--out", out, *SMALL)
    assert_one_line(again, "already holds this run")


def test_names_are_text_and_a_bad_place_is_found_at_once(photos, tmp_path):
    out = tmp_path / ("[/b] :smile: \x1b[31m\n" + "long " * 30)
    shown = str(out).replace("\x1b", "\\x1b").replace("\n", "\\n")
    data = f"folder:{photos}/"
    arguments = ["train", "--data", data, "--method", "random", *SMALL]
    trained = ciper(*arguments, "--out", out)
    assert trained.returncode == 0, trained.stderr
    *_, encoder, _, after = trained.stdout.splitlines()
    assert encoder == f"encoder in {shown}"
    assert after == f"next: ciper evaluate '{shown}'"
    (out / "results").write_text("in the way")
    done = ciper("evaluate", out)
    assert done.returncode == 0 and "linear accuracy" in done.stdout
    (line,) = [x for x in done.stderr.splitlines() if "warning" in x]
    assert line.startswith("ciper: warning: the result is not kept: ")
    (tmp_path / "file").touch()
    for place in "file", "file/below", "x" * 300, "new/" + "x" * 300:
        bad = ciper(*arguments, "--out", tmp_path / place)
        assert_one_line(bad, f"cannot write to {tmp_path / place}: ")
        assert bad.stdout == ""
    assert sorted(p.name for p in tmp_path.iterdir())[-1] == "file"


def test_one_class_can_be_trained_on_and_has_no_accuracy(photos, tmp_path):
    data = ["--data", f"folder:{photos / 'dark'}"]
    trained = ciper("train", *data, "--out", tmp_path, *SMALL)
    assert trained.returncode == 0, trained.stderr
    done = ciper("evaluate", tmp_path)
    assert done.returncode == 0 and "accuracy" not in done.stdout
    assert "what is left of the parameters" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "digist"], "did you mean 'digits'"),
        (["train", "--data", "folder:nowhere"], "no such folder: nowhere"),
        (["train", "--data", "digits", "--method", "simlcr"], "mean 'simclr'"),
        (["train", "--data", "digits", "--scale", "laptp"], "mean 'laptop'"),
        (["train", "--data", "digits", "--temperature", "0"], "must be > 0"),
        (["train", "--data", "digits", "--batch-size", "9999"], "9999"),
        (["train"], "--data"),
        (["evaluate", "nowhere"], "nowhere is not a run"),
        (["demo", "--scale", "paper"], "unknown scale 'paper'"),
        (["train", "--data", "digits", "--epoch", "3"], "--epochs"),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_code_2(
    arguments, message, tmp_path
):
    assert_one_line(ciper(*arguments, cwd=tmp_path), message)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_unreadable_image_is_named_and_strict_refuses_it(photos, tmp_path):
    bad = photos / "dark" / "bad.png"
    bad.write_bytes(b"no image")
    try:
        arguments = ["train", "--data", f"folder:{photos}", *SMALL]
        done = ciper(*arguments, "--out", tmp_path / "a")
        assert done.returncode == 0
        assert "ciper: warning: " in done.stderr
        assert "bad.png (no picture that Pillow knows); " in done.stderr
        strict = ciper(*arguments, "--out", tmp_path / "b", "--strict")
        assert_one_line(strict, "bad.png")
    finally:
        bad.unlink()


def test_ctrl_c_keeps_the_checkpoint_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    arguments = [
        "train",
        "--data",
        "digits",
        "--scale",
        "smoke",
        "--size",
        "16",
    ]
    arguments += ["--epochs", "40", "--out", out]
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "40"},
    )
    deadline = time.time() + 120
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"stopped; whole epochs are kept in {out}." in said
    assert f"--out {out} --resume" in said
    assert "Traceback" not in error
    assert (out / "checkpoint.safetensors").exists()


def test_the_demo_writes_table_results_weights_and_pictures(tmp_path):
    done = ciper("demo", "--scale", "smoke", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "table.json").read_text())
    keys = {
        "object_accuracy",
        "r2_azimuth",
        "r2_elevation",
        "r2_distance",
        "azimuth_error_deg",
        "view_mse_steps",
        "train_seconds",
    }
    assert list(table) == ["random", "simclr", "predictive", "ciper"]
    assert all(row.keys() == keys for row in table.values())
    assert table["random"]["train_seconds"] == 0
    assert all((tmp_path / m / "encoder.safetensors").exists() for m in table)
    assert len(list(tmp_path.glob("results/demo/smoke/*.json"))) == 4
    for name in ("data", "table", "losses", "camera"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 600
            low, high = picture.convert("L").getextrema()
            assert high - low > 100


def test_precision_and_threads_are_kept_in_the_result(photos, tmp_path):
    out = tmp_path / "run"
    how = ["--precision", "float32", "--threads", "1"]
    trained = ciper(
        "train", "--data", f"folder:{photos}", "--out", out, *SMALL, *how
    )
    assert trained.returncode == 0, trained.stderr
    assert ciper("evaluate", out).returncode == 0
    (path,) = out.glob("results/*/*/*.json")
    kept = json.loads(path.read_text())
    assert kept["settings"]["precision"] == "float32"
    used = kept["provenance"]
    assert (used["precision"], used["threads"]) == ("float32", 1)
    assert_one_line(
        ciper("train", "--data", "digits", "--precision", "half"),
        "One of auto, float32, bfloat16",
    )


# audits


@pytest.fixture(scope="module")
def card(photos, tmp_path_factory):
    """A card in every form, of images without labels, and what was said."""
    folder = tmp_path_factory.mktemp("card")
    kinds = ("png", "svg", "md", "html", "json")
    outs = [x for kind in kinds for x in ("--out", folder / f"c.{kind}")]
    done = ciper(
        *("audit", "random:resnet18", "--size", "16", "--augment", "simclr"),
        *("--data", f"folder:{photos / 'dark'}", "--views", "3", *outs),
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_unlabeled_photographs_give_a_full_card(card):
    folder, said = card
    kept = json.loads((folder / "c.json").read_text())["kept"]
    assert {"crop_x", "flip", "brightness", "hue", "grayscale"} <= kept.keys()
    assert "class" not in kept
    for text in (said, (folder / "c.md").read_text()):
        assert all(x in text for x in ("pixels", "random", "brightness"))
    assert (folder / "c.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (folder / "c.svg").read_text()
    assert "<img" in (folder / "c.html").read_text()


@pytest.mark.parametrize(
    ("least", "code", "said"),
    [("brightness=-1", 0, "keeps what it must"), ("hue=0.99", 1, "below")],
)
def test_a_kept_card_is_checked_for_a_test_suite(card, least, code, said):
    done = ciper("audit", "--check", card[0] / "c.json", "--min", least)
    assert done.returncode == code and said in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs encoders, and --data"),
        (["pixels"], "needs encoders, and --data"),
        (["nothing:at-all", "--data", "digits"], "nothing:at-all"),
        (["pixels", "--data", "digits", "--augment", "wild"], "wild"),
        (["pixels", "--data", "digits", "--out", "card.gif"], "gif"),
        (["--check", "missing.json", "--min", "hue=1"], "missing.json"),
        (["--check", "missing.json"], "needs --min"),
        (["pixels", "x", "--data", "digits", "--layers"], "one encoder"),
    ],
)
def test_an_audit_that_cannot_be_is_one_line(tmp_path, arguments, words):
    assert_one_line(ciper("audit", *arguments, cwd=tmp_path), words)
    assert not [*tmp_path.iterdir()]
