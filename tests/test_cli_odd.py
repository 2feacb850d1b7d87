"""Whatever is typed, read or raised: one line, and never a traceback."""

import io
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
from fuzz_commands import odd_command_lines

import ciper as package
from ciper import cli

ROOT = Path(__file__).parents[1]


def ciper(*arguments):
    """Run the command in this process: exit code, output, error."""
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ciper", *map(str, arguments)])
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        with (
            redirect_stdout(out),
            redirect_stderr(error),
            pytest.raises(SystemExit) as end,
        ):
            cli.main()
    code = end.value.code or 0
    return SimpleNamespace(code=code, out=out.getvalue(), err=error.getvalue())


def assert_one_line(done, *words, code=2):
    """An error of one line, which nothing in it can end or forge."""
    assert done.code == code, done.err
    (line,) = done.err.removesuffix("\n").split("\n")
    assert line.startswith("ciper: error: ") and line.isprintable()
    assert all(word in line for word in words), line


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder, from which nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CIPER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CIPER_DEBUG", raising=False)
    return tmp_path


def test_three_hundred_odd_command_lines_are_each_one_line(
    here, monkeypatch, without_shape_checks
):
    def works(*_, **__):
        raise AssertionError("nothing may be trained")

    monkeypatch.setattr("ciper.training.trainer.fit", works)
    monkeypatch.setattr("ciper.reproduce.plans.fit", works)
    monkeypatch.setattr("ciper.reproduce.demo.fit", works)
    for arguments in odd_command_lines(310, seed=0):
        done = ciper(*arguments)
        try:
            assert done.code in (1, 2)
            assert_one_line(done, code=done.code)
        except AssertionError as error:
            raise AssertionError(f"ciper {arguments!r}") from error
    assert {p.name for p in here.iterdir()} <= {"cache"}


# what is raised


def fails_with(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("ciper.reproduce.tables.table_1", fail)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("a\nb"), 2, ["a\\nb"]),
        (ValueError(), 2, ["ValueError"]),
        (OSError(28, "No space left on device", "/x\n"), 2, ["No space"]),
        (FloatingPointError("not finite"), 1, ["not finite"]),
        (UserWarning("odd\x1b[0m"), 1, ["odd\\x1b[0m"]),
        (MemoryError(), 1, ["MemoryError"]),
        (RecursionError("deep"), 1, ["RecursionError: deep"]),
        (RuntimeError("CUDA out of memory.\nTried"), 1, ["out of memory."]),
        (RuntimeError("[x] can't allocate memory"), 1, ["RuntimeError: "]),
        (RuntimeError("No space left on device (28)"), 1, ["RuntimeError"]),
        (KeyboardInterrupt(), 130, ["stopped"]),
        (KeyError("x\n"), 70, ["KeyError", "fault of ciper", "CIPER_DEBUG=1"]),
        (RuntimeError("shapes\nb"), 70, ["RuntimeError: shapes", "report"]),
        (ExceptionGroup("g", [KeyError()]), 70, ["ExceptionGroup: g"]),
    ],
)
def test_whatever_is_raised_is_one_line(monkeypatch, error, code, words):
    fails_with(monkeypatch, error)
    done = ciper("table", 1)
    assert_one_line(done, *words, code=code)
    assert (package.REPOSITORY in done.err) == (code == 70)


def test_with_ciper_debug_a_fault_is_raised_as_it_is(monkeypatch):
    fails_with(monkeypatch, KeyError("x"))
    monkeypatch.setenv("CIPER_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["ciper", "table", "1"])
    with pytest.raises(KeyError):
        cli.main()


def test_help_that_was_asked_for_by_nothing_is_no_error():
    for arguments in [], ["data"]:
        done = ciper(*arguments)
        assert "Usage" in done.out and done.err == ""


# as a process


def process(*arguments, before="", env=None, **options):
    """The same for a process, started by a shell."""
    command = [sys.executable, "-m", "ciper", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | (env or {})
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE) | options
    shell = ["bash", "-c", f'{before} exec "$0" "$@"', *command]
    done = subprocess.run(shell, env=env, text=True, timeout=90, **options)
    return SimpleNamespace(
        code=done.returncode, out=done.stdout, err=done.stderr
    )


def test_as_a_module_it_is_the_same_command():
    assert_one_line(process("table", "9"), "unknown table '9'")


def test_a_terminal_that_knows_no_letters_gets_the_same_table():
    done = process("data", "list", env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0 and done.out.isascii() and "turntable" in done.out


@pytest.mark.parametrize(
    ("before", "code", "error"),
    [
        ("exec >&-;", 0, ""),
        ("exec 2>&-;", 0, ""),
        ("exec >/dev/full;", 2, "ciper: error: [Errno 28] No space left"),
    ],
)
def test_output_that_cannot_be_written_is_no_traceback(before, code, error):
    done = process("data", "list", before=before)
    assert (done.code, done.err.count("\n")) == (code, int(bool(error)))
    assert done.err.startswith(error)


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = process("data", "list", stdout=write)
    os.close(write)
    assert done.err == "" and done.code in (0, 1)


@pytest.mark.parametrize("name", ["rich", "torch"])
def test_ctrl_c_while_it_is_imported_is_one_line(tmp_path, name):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    (tmp_path / f"{name}.py").write_text(code)
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = process("train", "--data", "digits", env=env)
    assert_one_line(done, "stopped", code=130)


def test_a_warning_that_was_made_an_error_is_one_line(tmp_path):
    bad = tmp_path / "digits/smoke/ciper-image-0.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("[]")
    env = {"PYTHONWARNINGS": "error::UserWarning"}
    arguments = "claims", "--scale", "smoke", "--results", tmp_path
    done = process(*arguments, env=env)
    assert_one_line(done, "skipped", "must hold a JSON object", code=1)
