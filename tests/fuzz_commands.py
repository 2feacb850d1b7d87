"""Command lines that are all wrong, each in another way."""

import random
import sys
from collections.abc import Iterator

TEXTS = [
    "",
    " ",
    "-",
    "[/b]",
    "[bold]x",
    "a b",
    "a\nciper: error: forged",
    "\x1b[2K\rx",
    "\x00",
    "\udcff",
    "\u202egnp",
    "写真",
    "'",
    "$(x)",
    "~nobody/x",
    "..",
    "x" * 300,
    "1e400",
    "null",
    ":",
    ":smile:",
]
NUMBERS = ["", "x", "1,5", "0x", "1e", "--", "½", "\n", "[1]", "1 2"]
DATA = ["", ":", "folder:", "hf:", "digist", "digits:x", "cifar", "Digits"]
DATA += ["folder", "folder:/nowhere", "folder:[/b]", "folder:a\nb"]
DATA += ["folder:\x1b[31m", "folder:~nobody/x", "folder:" + "x" * 300]
DATA += ["folder:/dev/null", "folder:\x00", "folder:\udcff", "folder:/proc/1"]

TRAIN = ["train", "--data", "digits", "--scale", "smoke"]
TABLE = ["table", "3", "--scale", "smoke", "--data", "digits"]
FIGURE = ["figure", "4a", "--scale", "smoke", "--data", "digits"]
WHOLE = ["--size", "--epochs", "--batch-size", "--seed"]
REAL = ["--width", "--learning-rate", "--temperature", "--alpha", "--minutes"]
CHOICES = ["--method", "--views", "--scale"]


def odd_command_lines(count: int, seed: int) -> Iterator[list[str]]:
    """So many command lines, not one of which may do anything."""
    draw = random.Random(seed)
    kinds = [
        lambda: [draw.choice(["", "-", "trian", "[x]", "\x1b[2J", "data x"])],
        lambda: [*_command(draw), "--" + _text(draw).lstrip("-") + "x"],
        lambda: [*_command(draw), _text(draw), _text(draw), "x"],
        lambda: [*TRAIN, draw.choice(WHOLE + REAL), draw.choice(NUMBERS)],
        lambda: [*TRAIN, draw.choice(CHOICES), _text(draw)],
        lambda: [*TRAIN, "--temperature", draw.choice(["0", "-1", "nan"])],
        lambda: [*TRAIN, "--epochs", draw.choice(["0", "-1", "-9" * 30])],
        lambda: [*TRAIN, "--minutes", draw.choice(["-1", "nan", "-inf"])],
        lambda: [*TRAIN, "--batch-size", draw.choice(["0", "1"])],
        lambda: [*TRAIN, "--out", draw.choice(["/dev/null/x", "x" * 300])],
        lambda: ["train", "--data", draw.choice(DATA)],
        lambda: ["evaluate", _place(draw)],
        lambda: ["demo", "--scale", "paper" + _text(draw)],
        lambda: ["demo", "--scale", "smoke", "--out", "/dev/null/x"],
        lambda: ["table", draw.choice(["0", "4", "-1", _text(draw) + "x"])],
        lambda: [*TABLE, "--seeds", draw.choice([*NUMBERS, "0", "-1", "101"])],
        lambda: [*TABLE, "--minutes", draw.choice([*NUMBERS, "-1", "nan"])],
        lambda: [*TABLE, "--engine", _text(draw)],
        lambda: [*TABLE, "--results", "/dev/null/x"],
        lambda: [*TABLE, "--runs", draw.choice(["/dev/null/x", "x" * 300])],
        lambda: [*TABLE, "--data", draw.choice(DATA)],
        lambda: ["table", draw.choice("12"), "--data", _text(draw)],
        lambda: ["rows", draw.choice(["table 2", "2", _text(draw) + "x"])],
        lambda: ["figure", draw.choice(["0", "4", "5", _text(draw) + "x"])],
        lambda: ["figure", "1", "--data", "digits"],
        lambda: [*FIGURE, "--data", draw.choice(DATA)],
        lambda: ["figure", "1", "--out", "x." + _text(draw) + "x"],
        lambda: ["figure", "1", "--out", draw.choice(["/dev/null/x", "/"])],
        lambda: ["claims", "--scale", _text(draw)],
        lambda: ["data", _text(draw)],
        lambda: ["data", "get", draw.choice([*DATA, "digits", "turntable"])],
        lambda: ["data", "check", draw.choice(DATA[:8])],
    ]
    for i in range(count):
        yield kinds[i % len(kinds)]()


def _command(draw: random.Random) -> list[str]:
    return draw.choice(
        [TRAIN, TABLE, FIGURE, ["claims"], ["demo"], ["data", "list"]]
    )


def _text(draw: random.Random) -> str:
    if draw.random() < 0.5:
        return draw.choice(TEXTS)
    points = [draw.randrange(1, sys.maxunicode) for _ in range(3)]
    return "".join(map(chr, points))


def _place(draw: random.Random) -> str:
    return draw.choice(["nowhere", "/", "/dev/null", "x" * 300, "a\nb", ""])
