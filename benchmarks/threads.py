"""How much slower a training gets when other programs use the processor.

    python benchmarks/threads.py --json benchmarks/threads.json

A training step of SimCLR is timed with one thread, with all threads and with
the number that `fit` chooses by itself; on the machine as it is, and beside
one endless loop for each processor, which this script starts and stops. All
cases take turns in every round; the median of the rounds counts.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import torch

from ciper import fit, load, recipe_at
from ciper.reproduce.results import markdown, provenance

SIZES = {"smoke": 16, "laptop": 24}  # scale -> pixels
STEPS = 6  # of each measurement


def spin() -> None:
    """What a busy neighbor does."""
    while True:
        pass


@contextlib.contextmanager
def neighbors(count: int):
    """So many busy loops beside us."""
    loops = [multiprocessing.Process(target=spin) for _ in range(count)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.terminate()
            loop.join()


def step_seconds(scale: str, threads: int | None) -> tuple[float, int]:
    """Seconds of a training step, and the threads that did it."""
    recipe = recipe_at(
        scale, data="digits", method="simclr", size=SIZES[scale], epochs=1
    )
    data = load("digits", recipe.size, progress=False)
    data = data[: STEPS * recipe.batch_size]
    run = fit(recipe, data, threads=threads, progress=False)
    return run.seconds / STEPS, run.threads


def measure(scales, rounds: int) -> dict:
    """(scale, threads, busy) -> seconds of a step in each round."""
    cases = [(s, t) for s in scales for t in (None, 1, os.cpu_count())]
    found: dict[tuple, list[float]] = {}
    for _ in range(rounds):
        for busy in (0, os.cpu_count()):
            with neighbors(busy):
                for scale, threads in cases:
                    seconds, used = step_seconds(scale, threads)
                    chosen = "chosen" if threads is None else "asked"
                    key = scale, f"{used} ({chosen})", bool(busy)
                    found.setdefault(key, []).append(seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load_before = os.getloadavg()[0]
    step_seconds("smoke", 1)  # the first one compiles and imports
    start, found = time.time(), measure(SIZES, given.rounds)
    rows = []
    for scale, threads, busy in found:
        if not busy:
            idle = statistics.median(found[scale, threads, False])
            beside = statistics.median(found[scale, threads, True])
            rows.append([scale, threads, idle, beside, beside / idle])
    head = "scale", "threads", "s a step", "busy: s a step", "busy / idle"
    shown = [[a, b, *(f"{x:.3f}" for x in c)] for a, b, *c in rows]
    print(markdown(head, shown))
    if given.json:
        about = dict(
            columns=head,
            rows=rows,
            rounds=given.rounds,
            steps=STEPS,
            load_average_before=load_before,
            seconds=time.time() - start,
            processors=os.cpu_count(),
            provenance=provenance()
            | {"torch_threads": torch.get_num_threads()},
        )
        given.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
