"""Images per second of training, against a plain PyTorch loop.

    python benchmarks/train.py                          # small, on any machine
    python benchmarks/train.py --scale paper --data folder:PATH --batches 50

First the machine's own ceilings are measured: how fast it copies memory and
multiplies bfloat16 matrices. Then each method trains for some batches, and a
plain loop trains SimCLR on the same images: a DataLoader with a worker for
each processor, torchvision's transforms on PIL images, the same encoder, loss
and precision. Rounds are interleaved; the median of their times counts.
"""

import argparse
import json
import os
import statistics
import time
from functools import partial
from pathlib import Path

import torch
import torchvision.transforms as T
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import to_pil_image

from ciper.data.datasets import load
from ciper.data.images import ImageData
from ciper.data.sources import Batch
from ciper.reproduce.results import markdown, provenance
from ciper.training.trainer import (
    build,
    choose_precision,
    default_fabric,
    recipe_at,
    view_source,
)

METHODS = "simclr", "predictive", "ciper", "essl"


def seconds(device: torch.device, work) -> float:
    """Of a call, to the end of what it left the device to do."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def ceilings(device: torch.device) -> dict[str, float]:
    """Copied bytes (read and written) and bfloat16 operations per second."""
    large = device.type == "cuda"
    x = torch.randn(2**29 if large else 2**25, device=device)
    y, side = torch.empty_like(x), 8192 if large else 1024
    a = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    works = {
        "copy_bytes_per_second": (lambda: y.copy_(x), 8 * x.numel()),
        "bf16_flop_per_second": (lambda: a[0] @ a[1], 2 * side**3),
    }
    found = {}
    for name, (work, amount) in works.items():
        work()
        times = [seconds(device, work) for _ in range(10)]
        found[name] = amount / statistics.median(times)
    return found


class Ours:
    """A method as `ciper.training.trainer.fit` trains it, batch by batch."""

    def __init__(self, recipe, data: ImageData, compiled: bool = False):
        self.recipe = recipe
        self.fabric = default_fabric(choose_precision(recipe))
        self.source = view_source(recipe, data)
        method = build(recipe, self.source.classes)
        method = method.to(memory_format=torch.channels_last)
        if compiled:
            method.encoder.compile()
        optimizer = torch.optim.SGD(method.parameters(), 0.03, 0.9)
        self.model, self.optimizer = self.fabric.setup(method, optimizer)
        self.device = self.fabric.device
        self.data = data.to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(0)

    def views(self) -> Batch:
        index = torch.randint(
            len(self.data), (self.recipe.batch_size,), device=self.device
        )
        return self.source(self.data, index, self.generator)

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        self.fabric.backward(self.model(batch)[0])
        self.optimizer.step()

    def train(self, batches: int) -> None:
        for _ in range(batches):
            self.step(self.views())

    def flops(self) -> int:
        """Operations of a batch, forward and backward."""
        with FlopCounterMode(display=False) as counter:
            self.step(self.views())
        return counter.get_total_flops()


class Pairs(Dataset):
    """Two views of each PIL image by torchvision's transforms."""

    def __init__(self, data: ImageData):
        self.pictures = [to_pil_image(image) for image in data.images]
        self.transform = T.Compose(
            [
                T.RandomResizedCrop(data.images.shape[-1], (0.2, 1)),
                T.RandomHorizontalFlip(0.8),
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                T.RandomGrayscale(0.2),
                T.ToTensor(),
            ]
        )

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        picture = self.pictures[i]
        return self.transform(picture), self.transform(picture)


class Plain:
    """SimCLR in a plain loop over a DataLoader."""

    def __init__(self, ours: Ours, data: ImageData, workers: int):
        self.ours = ours
        self.loader = DataLoader(
            Pairs(data),
            ours.recipe.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=ours.device.type == "cuda",
            persistent_workers=True,
        )
        self.batches = self.forever()
        next(self.batches)  # start the workers

    def forever(self):
        while True:
            yield from self.loader

    def train(self, batches: int) -> None:
        for _ in range(batches):
            views = [
                x.to(self.ours.device, non_blocking=True)
                for x in next(self.batches)
            ]
            self.ours.step(Batch(views[0], tuple(views), ()))


def measure(loops: dict, rounds: int, batches: int) -> dict[str, float]:
    """name -> median seconds a batch."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(1 + rounds):
        for name, (device, train) in loops.items():
            work = partial(train, batches)
            times[name].append(seconds(device, work))
    return {k: statistics.median(v[1:]) / batches for k, v in times.items()}


def loops_of(ours: dict[str, Ours], plain: Plain) -> dict:
    loops = {name: (loop.device, loop.train) for name, loop in ours.items()}
    for name, loop in ours.items():

        def draw(batches, loop=loop):
            for _ in range(batches):
                loop.views()

        loops[f"{name} views"] = loop.device, draw
    return loops | {"plain": (plain.ours.device, plain.train)}


def rows(ours, found, top: dict) -> list[list[str]]:
    """What to show of each method, and of the plain loop."""
    table, peak = [], top["bf16_flop_per_second"]
    for name, loop in ours.items():
        flops = ours[name.split(",")[0]].flops()
        share = flops / found[name] / peak
        views = found[f"{name} views"] / found[name]
        speed = loop.recipe.batch_size / found[name]
        table.append([name, f"{speed:,.0f}", f"{share:.0%}", f"{views:.0%}"])
        plain = found["plain"] / found[name]
        table[-1].append(f"{plain:.1f}" if name.startswith("simclr") else "")
    speed = ours["simclr"].recipe.batch_size / found["plain"]
    return [*table, ["simclr, plain loop", f"{speed:,.0f}", "", "", "1.0"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--data", default="turntable")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", help="file for the numbers")
    asked = parser.parse_args()
    settings = dict(data=asked.data, size=32)
    data = load(asked.data, 32)
    data = data.sample(min(len(data), 10_000))
    recipes = {
        m: recipe_at(asked.scale, method=m, **settings) for m in METHODS
    }
    ours = {name: Ours(recipe, data) for name, recipe in recipes.items()}
    if asked.compile:
        ours["simclr, compiled"] = Ours(recipes["simclr"], data, True)
    plain = Plain(Ours(recipes["simclr"], data), data, asked.workers)
    top = ceilings(plain.ours.device)
    found = measure(loops_of(ours, plain), asked.rounds, asked.batches)
    header = "method", "images/s", "of the bf16 peak", "views' share"
    print(markdown([*header, "times the plain loop"], rows(ours, found, top)))
    print({k: f"{v:.3g}" for k, v in top.items()})
    if asked.json:
        chosen = {k: v for k, v in vars(asked).items() if k != "json"}
        about = {"seconds_a_batch": found, "ceilings": top, **chosen}
        text = json.dumps({**about, "provenance": provenance()}, indent=2)
        Path(asked.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
