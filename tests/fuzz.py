"""Damaged and odd inputs at every door: each is read, or refused in a line.

    python tests/fuzz.py --count 3000 --seed 0

Every input is a function of its kind and a number, so that a failure can be
made again: `python tests/fuzz.py --kind zip --only 17`.
"""

import argparse
import contextlib
import faulthandler
import io
import itertools
import json
import math
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path

import torch
from fuzz_commands import odd_command_lines
from PIL import Image

import ciper
from ciper.data.store import decode
from ciper.reproduce.results import Result, load_result
from ciper.training.trainer import (
    Recipe,
    Run,
    build_encoder,
    export_run,
    load_run,
)

REFUSALS = ValueError, OSError  # what a door may raise
SECONDS = 30  # that one input may take
FORMATS = ["png", "jpg", "gif", "webp", "tiff", "bmp", "ppm", "jp2"]

# -- damage ---------------------------------------------------------------


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The same bytes with one to three accidents."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        draw.choice(ACCIDENTS)(data, draw)
    return bytes(data)


def _cut(data, draw):
    del data[draw.randint(0, len(data)) :]


def _flip(data, draw):
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _overwrite(data, draw):
    start = draw.randint(0, len(data))
    data[start : start + 8] = draw.randbytes(draw.randint(0, 8))


def _large_number(data, draw):
    start = draw.randint(0, min(64, len(data)))
    data[start : start + 4] = draw.choice([b"\xff" * 4, b"\x7f" + b"\xff" * 3])


def _hole(data, draw):
    start = draw.randint(0, len(data))
    end = min(len(data), start + draw.randint(1, 512))
    data[start:end] = bytes(end - start)


def _twice(data, draw):
    start = draw.randint(0, len(data))
    data[start:start] = data[start : start + draw.randint(1, 256)]


def _lost(data, draw):
    start = draw.randint(0, len(data))
    del data[start : start + draw.randint(1, 256)]


ACCIDENTS = [_cut, _flip, _overwrite, _large_number, _hole, _twice, _lost]

# -- whole inputs to damage -------------------------------------------------


@cache
def picture(kind: str, mode: str = "RGB", size=(20, 14)) -> bytes:
    """A small image file."""
    count = size[0] * size[1] * len(mode)
    pixels = bytes(i * 37 % 256 for i in range(count))
    file = io.BytesIO()
    image = Image.frombytes(mode, size, pixels)
    names = {"jpg": "JPEG", "jp2": "JPEG2000"}
    image.save(file, names.get(kind, kind.upper()))
    return file.getvalue()


RECIPE = ciper.recipe_at("smoke", data="digits", size=8, epochs=1)


@cache
def run_folder() -> Path:
    """A finished run of a tiny training."""
    out = Path(tempfile.mkdtemp(prefix="fuzz-run-"))
    data = ciper.load("digits", 8, progress=False)[:64]
    ciper.fit(RECIPE, data, out, progress=False)
    run = Run(RECIPE, build_encoder(RECIPE), [])
    export_run(run, out / "small.safetensors")
    return out


def _result(draw: random.Random) -> dict:
    settings = asdict(RECIPE)
    settings.pop("seed")
    about = dict(provenance={"torch": "2"}, command="ciper train")
    where = "digits", "smoke", "digits", "ciper-image", 0
    made = Result(*where, settings, {"knn_accuracy": 0.5}, 1.0, 10.0, **about)
    return {"format": 1, **asdict(made)}


ODD = [
    *(None, True, -1, 0, 0.5, 1e308, math.nan, math.inf, 2**70, -(2**70)),
    *("", "x", "\x1b[31m", "ciper: error:\nok", "[bold]", "../..", "\0"),
    *([], [[]], {}, {"a": {}}, [1, "x"], "é" * 300, b"\xff".hex(), 1e-320),
]

# -- the doors --------------------------------------------------------------


def try_image(draw: random.Random, folder: Path) -> None:
    """A damaged picture."""
    content = damaged(picture(draw.choice(FORMATS)), draw)
    view = decode(content, draw.choice([None, 8, 16]))
    assert view is None or view.dtype == torch.uint8


NAMES = [
    *("cat", "dog", "a b", "[bold]", "\x1b[31mred", "new\nline", "é", "train"),
    *("test", "val", "Train", "x" * 200, "-rf", "~", "%s", "{}", "con."),
]


def try_folder(draw: random.Random, folder: Path) -> None:
    """A tree of odd names, links, empty and damaged files."""
    root = folder / draw.choice(NAMES)
    root.mkdir()
    for _ in range(draw.randint(0, 14)):
        names = draw.choice([NAMES, NAMES[:7]])
        place = root.joinpath(*draw.choices(names, k=draw.randint(0, 3)))
        with contextlib.suppress(OSError):  # a file is in the way
            place.mkdir(parents=True, exist_ok=True)
            _odd_file(draw, place)
    options = dict(strict=draw.random() < 0.3, progress=False)
    part = draw.choice([*4 * ["train", "all", "test"], "val", "x"])
    ciper.load(f"folder:{root}", draw.choice([8, 9, 16]), part, **options)


def _odd_file(draw: random.Random, place: Path) -> None:
    kind = draw.choice(FORMATS)
    path = place / f"{draw.choice(NAMES)}.{draw.choice([kind, 'txt', 'heic'])}"
    if os.path.lexists(path):
        return
    what = draw.randrange(8)
    if what == 0:
        path.symlink_to(draw.choice([place, path, place.parent]))
    elif what == 1:
        os.mkfifo(path)
    elif what == 2:
        path.mkdir()
    elif what == 3:
        path.touch()
    elif what == 4:
        path.write_bytes(damaged(picture(kind), draw))
    else:
        path.write_bytes(picture(kind))


def try_zip(draw: random.Random, folder: Path) -> None:
    """A damaged archive, or one with odd members."""
    path = folder / "photos.zip"
    with zipfile.ZipFile(path, "w", draw.choice([0, 8, 12, 14])) as archive:
        for i in range(draw.randint(0, 4)):
            parts = draw.choices([*NAMES, "..", "", "\\"], k=2)
            name = "/".join([*parts, f"{i}.png"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two of one name
                archive.writestr(name, picture("png"))
    if draw.random() < 0.8:
        path.write_bytes(damaged(path.read_bytes(), draw))
    part = draw.choice(["train", "all"])
    ciper.load(f"folder:{path}", 8, part, progress=False)


def try_recipe(draw: random.Random, folder: Path) -> None:
    """Odd settings, by name or from a file."""
    known = [field.name for field in fields(Recipe)]
    settings = asdict(RECIPE)
    for name in draw.choices([*known, "unknown"], k=draw.randint(1, 3)):
        settings[name] = draw.choice(ODD)
    if draw.random() < 0.5:
        ciper.recipe_at("smoke", **settings)
    else:
        copied = _copy_run(folder)
        (copied / "recipe.json").write_text(json.dumps(settings))
        ciper.fit(RECIPE, _some_digits(), copied, resume=True, progress=False)


@cache
def _some_digits():
    return ciper.load("digits", 8, progress=False)[:64]


def _copy_run(folder: Path) -> Path:
    place = folder / "run"
    place.mkdir()
    for file in run_folder().iterdir():
        if file.is_file():
            (place / file.name).write_bytes(file.read_bytes())
    return place


def try_weights(draw: random.Random, folder: Path) -> None:
    """Damaged encoders: of a run, or small ones to give away."""
    place = _copy_run(folder)
    name = draw.choice(["encoder.safetensors", "small.safetensors"])
    content = (place / name).read_bytes()
    other = [picture("png"), b"", b"{}", content[::-1], bytes(100)]
    new = damaged(content, draw) if draw.random() < 0.9 else draw.choice(other)
    (place / name).write_bytes(new)
    load_run(place if name.startswith("enc") else place / name)


def try_checkpoint(draw: random.Random, folder: Path) -> None:
    """A damaged checkpoint, and a training that is resumed from it."""
    place = _copy_run(folder)
    path = place / "checkpoint.safetensors"
    path.write_bytes(damaged(path.read_bytes(), draw))
    (place / "encoder.safetensors").unlink()
    ciper.fit(RECIPE, _some_digits(), place, resume=True, progress=False)


def try_params(draw: random.Random, folder: Path) -> None:
    """Damaged parameters of views."""
    path = folder / "params.safetensors"
    generator = torch.Generator().manual_seed(0)
    ciper.Augment.preset("paper").sample(4, generator).save(path)
    path.write_bytes(damaged(path.read_bytes(), draw))
    ciper.Params.load(path)


def try_result(draw: random.Random, folder: Path) -> None:
    """A result file with odd values, or with damaged bytes."""
    path = folder / "digits/smoke/ciper-image-0.json"
    path.parent.mkdir(parents=True)
    content = _result(draw)
    for name in draw.choices([*content, "unknown"], k=draw.randint(0, 2)):
        content[name] = draw.choice(ODD)
    if draw.random() < 0.3:
        content["metrics"] = {draw.choice(["", "a"]): draw.choice(ODD)}
    raw = json.dumps(content).encode()
    path.write_bytes(damaged(raw, draw) if draw.random() < 0.5 else raw)
    load_result(path)
    found = ciper.load_results(folder)
    for result in found:
        ciper.results_table([result], sorted(result.metrics)[:1])


DTYPES = [
    *(torch.uint8, torch.int64, torch.bool, torch.float16, torch.bfloat16),
    *(torch.float32, torch.float64, torch.complex64),
]
SHAPES = [(), (3,), (3, 8, 8), (0, 3, 8, 8), (4, 3, 8, 8), (4, 1, 8, 8)]
SHAPES += [(4, 3, 1, 1), (4, 4, 8, 8), (4, 3, 8, 9), (2, 4, 3, 8, 8)]


def _numbers(draw: random.Random, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(draw.randrange(100))
    x = torch.rand(shape, generator=generator) * draw.choice([1, 1, 1, 255])
    if draw.random() < 0.3 and x.numel():
        x.view(-1)[0] = draw.choice([math.nan, math.inf, -1.0, 300.0])
    x = x - draw.choice([0, 0, 0.5])
    return x.to(draw.choice(DTYPES))


def try_numbers(draw: random.Random, folder: Path) -> None:
    """Images and labels of odd types, shapes and ranges."""
    images = _numbers(draw, draw.choice(SHAPES))
    labels = _numbers(draw, draw.choice([(4,), (4,), (3,), (4, 1), (0,)]))
    labels = draw.choice([labels, labels.tolist(), "abcd", None, 3])
    door = draw.randrange(6)
    encoder = load_run(run_folder()).encoder
    classifier = torch.nn.Linear(encoder.features, 3)
    if door == 0:
        ciper.Augment.preset("paper", size=8)(images, draw.choice(ODD))
    elif door == 1:
        ciper.embed(encoder, images)
    elif door == 2:
        ciper.saliency(encoder, classifier, images, labels)
    elif door == 3:
        classes = draw.choice([("a", "b", "c"), ("a", "a"), (), "abc", None])
        ciper.ImageData("odd", images, labels, classes)
    elif door == 4:
        h = _numbers(draw, draw.choice([(4, 5), (4,), (0, 5)]))
        ciper.knn_accuracy(h, labels, h, labels, draw.choice(ODD))
    else:
        h = _numbers(draw, (4, 5))
        ciper.fit_linear(h, labels, draw.choice([3, 0, 2.5, None]), epochs=1)


COMMANDS = odd_command_lines(10**6, 0)


def try_command(draw: random.Random, folder: Path) -> None:
    """An odd command line."""
    from ciper.cli import main

    command = next(COMMANDS)
    sys.argv = ["ciper", *command]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.chdir(folder):
        try:
            main()
        except SystemExit as stop:
            assert stop.code in (0, 1, 2, 130), (command, stop.code)
    lines = said.getvalue().splitlines()
    errors = [x for x in lines if x.startswith("ciper: error: ")]
    assert len(errors) <= 1 and "Traceback" not in said.getvalue(), command


DOORS: dict[str, Callable] = {
    "image": try_image,
    "folder": try_folder,
    "zip": try_zip,
    "recipe": try_recipe,
    "weights": try_weights,
    "checkpoint": try_checkpoint,
    "params": try_params,
    "result": try_result,
    "numbers": try_numbers,
    "command": try_command,
}

# -- the loop ---------------------------------------------------------------


def outcome(kind: str, number: int) -> str:
    """ "read", "refused", or what went wrong, with its place."""
    draw, quiet = random.Random(f"{kind} {number}"), io.StringIO()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        faulthandler.dump_traceback_later(
            SECONDS, exit=True, file=sys.__stderr__
        )
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(quiet):
                warnings.simplefilter("ignore")
                DOORS[kind](draw, Path(folder))
        except REFUSALS as error:
            return _judged(error)
        except Exception as error:
            *_, last = traceback.extract_tb(error.__traceback__)
            place = f"{Path(last.filename).name}:{last.lineno}"
            return f"{type(error).__name__} at {place}: {str(error)[:200]!r}"
        finally:
            faulthandler.cancel_dump_traceback_later()
    return "read"


def _judged(error: Exception) -> str:
    """A refusal is one line, but for what a name brings along."""
    if isinstance(error, UnicodeError):
        return f"{type(error).__name__} is no sentence: {error}"
    lines = str(error).replace("new\nline", "").splitlines()
    return "refused" if 1 <= len(lines) <= 2 else f"no one line: {error!r}"


def fuzz(count: int, seed: int = 0, kinds=DOORS) -> dict[str, Counter]:
    """So many inputs, spread over the kinds; for each kind its outcomes."""
    found = {kind: Counter() for kind in kinds}
    for kind, i in zip(itertools.cycle(kinds), range(count)):
        number = seed * 10**6 + i
        what = outcome(kind, number)
        good = what in ("read", "refused")
        found[kind][what if good else "failed"] += 1
        if not good:
            print(f"{kind} {number}: {what}", file=sys.stderr, flush=True)
    return found


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=DOORS)
    parser.add_argument("--only", type=int, help="one number of --kind")
    given = parser.parse_args()
    if given.only is not None:
        print(outcome(given.kind, given.only))
        return 0
    start = time.monotonic()
    kinds = [given.kind] if given.kind else DOORS
    found = fuzz(given.count, given.seed, kinds)
    columns = "read", "refused", "failed"
    print(f"{'':12}" + "".join(f"{name:>9}" for name in columns))
    for kind, counts in found.items():
        cells = "".join(f"{counts[name]:9}" for name in columns)
        print(f"{kind:12}{cells}")
    print(f"{given.count} inputs in {time.monotonic() - start:.0f} s")
    return int(any(counts["failed"] for counts in found.values()))


if __name__ == "__main__":
    sys.exit(_main())
