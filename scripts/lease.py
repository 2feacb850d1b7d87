"""Train a table on a GPU that is lent for minutes and passes small files only.

    python scripts/lease.py run "table 3" "figure 4a" --scale paper-100 \\
        --images cifar10_jpeg.tar.xz --seeds 3 --minutes 8 --back OUT
    python scripts/lease.py run ... --brought FOLDER   # go on from OUT
    python scripts/lease.py more 4 --back OUT          # parts 4, 5, ...

`run` unpacks the images, trains what is missing of the plan until time is up,
and leaves in OUT the result files as one archive and the weights in parts:
the encoders that were asked for with `--keep`, in bfloat16, and the exact
checkpoints of trainings that are not finished. As many parts as `--room`
allows; `more` gives the others. What was brought back goes into FOLDER, in
one go or in several, and `run` goes on from it, to the same numbers as a
training that was never interrupted.
"""

import argparse
import io
import os
import tarfile
import time
from functools import partial
from pathlib import Path

from ciper.reproduce.plans import is_done, plan, work
from ciper.reproduce.sweep import sweep
from ciper.training.trainer import (
    CHECKPOINT,
    ENCODER,
    OutOfTime,
    export_run,
    load_run,
)

MEBIBYTE = 2**20
RESULTS, RUNS, PARTS = Path("results"), Path("runs"), Path("parts")


def unpack_images(archive: Path, name: str) -> None:
    """Images that are not there yet, into the folder of that name."""
    if not Path(name).exists():
        draft = Path(f"{name}.part")
        with tarfile.open(archive) as file:
            file.extractall(draft, filter="data")
        draft.rename(name)


def extract(file: tarfile.TarFile) -> None:
    """What is not there yet: what is there may have gone on since."""
    for member in file:
        if not Path(member.name).exists():
            file.extract(member, filter="data")


def take_brought(folder: Path) -> bool:
    """Results, and weights once all their parts are there; if they are."""
    for path in folder.rglob("results.tar"):
        with tarfile.open(path) as file:
            extract(file)
    PARTS.mkdir(exist_ok=True)
    for path in folder.rglob("weights-*"):
        (PARTS / path.name).write_bytes(path.read_bytes())
    parts = sorted(PARTS.iterdir())
    wanted = {path.name.rpartition("of-")[2] for path in parts}
    if len(wanted) > 1:
        raise SystemExit("parts of two leases: bring those of the last one")
    if len(parts) < (count := int(*wanted or [0])):
        print(f"{len(parts)} of {count} parts are here: bring the others")
        return False
    if parts:
        whole = b"".join(path.read_bytes() for path in parts)
        with tarfile.open(fileobj=io.BytesIO(whole)) as file:
            extract(file)
    return True


def train(items: list[str], scale: str, seeds: int, name: str, until: float):
    """What is missing of the plans; whether all of it is there now."""
    data = [f"folder:{name}"]
    jobs = [job for i in items for job in plan(i, scale, range(seeds), data)]
    jobs.sort(key=lambda job: job.recipe.seed)  # whole rows of seeds first
    report = sweep(
        jobs,
        partial(work, results=RESULTS, runs=RUNS, until=until),
        partial(is_done, results=RESULTS),
        cost=lambda job: job.cost,
        later=(OutOfTime,),
    )
    print(report)
    return report.ok


def pack(paths: list[Path], file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        for path in paths:
            archive.add(path)


def pack_weights(keep: list[str], part_size: int) -> None:
    """Encoders to keep, and unfinished trainings, as files of a size."""
    small = []
    for run in sorted(RUNS.glob("*/*/*")):
        if run.name in keep and (run / ENCODER).exists():
            small.append(run / "small.safetensors")
            export_run(load_run(run), small[-1])
    for path in PARTS.glob("*"):
        path.unlink()
    PARTS.mkdir(exist_ok=True)
    unfinished = [p.parent for p in sorted(RUNS.rglob(CHECKPOINT))]
    if not small + unfinished:
        return
    pack(small + unfinished, Path("weights.tar"))
    whole = Path("weights.tar").read_bytes()
    starts = range(0, len(whole), part_size)
    for i, start in enumerate(starts):
        name = f"weights-{i:03}-of-{len(starts):03}"
        (PARTS / name).write_bytes(whole[start : start + part_size])


def give(back: Path, first: int, room: int) -> None:
    """The results, and the parts from the first one on that there is room."""
    back.mkdir(parents=True, exist_ok=True)
    pack(sorted(RESULTS.rglob("*.json")), back / "results.tar")
    room -= (back / "results.tar").stat().st_size
    parts = sorted(PARTS.glob("*"))
    for i, path in enumerate(parts[first:], first):
        room -= path.stat().st_size
        if room < 0:
            print(f"parts from {i} of {len(parts)} are left: more {i}")
            break
        (back / path.name).write_bytes(path.read_bytes())


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train, until time is up")
    run.add_argument("items", nargs="+", metavar="ITEM")
    run.add_argument("--images", type=Path, required=True)
    run.add_argument("--name", default="cifar10-jpeg")
    run.add_argument("--scale", default="paper-100")
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--minutes", type=float, default=8)
    run.add_argument("--brought", type=Path)
    run.add_argument("--keep", nargs="*", default=[], metavar="LABEL-SEED")
    run.add_argument("--part", type=float, default=15, help="MiB")
    more = commands.add_parser("more", help="give further parts")
    more.add_argument("first", type=int)
    for command in (run, more):
        command.add_argument("--back", type=Path, required=True)
        command.add_argument("--room", type=float, default=60, help="MiB")
        command.add_argument("--work", type=Path, default=Path("runs/lease"))
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    asked, start = arguments(given), time.time()
    for name in ("images", "brought", "back"):
        if getattr(asked, name, None):
            setattr(asked, name, getattr(asked, name).resolve())
    asked.work.mkdir(parents=True, exist_ok=True)
    os.chdir(asked.work)  # so that results name their data as elsewhere
    room = int(asked.room * MEBIBYTE)
    if asked.command == "more":
        give(asked.back, asked.first, room)
        return 0
    if asked.brought and not take_brought(asked.brought):
        return 1
    unpack_images(asked.images, asked.name)
    until = start + 60 * asked.minutes
    for path in (RESULTS, RUNS):
        path.mkdir(exist_ok=True)
    ok = train(asked.items, asked.scale, asked.seeds, asked.name, until)
    pack_weights(asked.keep, int(asked.part * MEBIBYTE))
    give(asked.back, 0, room)
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
