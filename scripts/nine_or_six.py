"""Train and question the encoders behind "Nine or six?", a file per training.

    python scripts/nine_or_six.py --seeds 3

The page `nbs/beyond/nine_or_six` trains with one seed and shows what happens;
this does the same with several and keeps `results/nine_or_six/laptop/*.json`,
from which other pages take their numbers. A training that has its file is not
repeated.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from ciper import Augment, AugmentedViews, embed, fit, load, recipe_at
from ciper.augment.chain import RandomResizedCrop
from ciper.augment.operations import Rotation
from ciper.data.images import ImageData
from ciper.evaluation.probes import accuracy, fit_linear
from ciper.reproduce.results import run_result, save_result

METHODS = "random", "simclr", "ciper"
SETTINGS = dict(
    data="digits",
    views="own",
    size=16,
    width=0.125,
    coordinates=False,
    epochs=25,
    batch_size=64,
    learning_rate=0.06,
    temperature=0.2,
)


def views() -> AugmentedViews:
    """Any angle, and a crop that shifts and scales a little."""
    crop = RandomResizedCrop(16, scale=(0.64, 1.0), ratio=(1.0, 1.0))
    return AugmentedViews(Augment([Rotation(180), crop]))


def turned(data: ImageData) -> torch.Tensor:
    """The images after a half turn."""
    return data.images.rot90(2, (2, 3))


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Cosine similarities of all rows of one with all rows of the other."""
    return F.normalize(one) @ F.normalize(other).T


def ask(encoder, train: ImageData, test: ImageData) -> dict[str, float]:
    """The page's four questions to a frozen encoder, as shares."""
    h, h_test = embed(encoder, train.images), embed(encoder, test.images)
    down, down_test = (
        embed(encoder, turned(train)),
        embed(encoder, turned(test)),
    )
    pair, pair_test = (
        (d.labels == 6) | (d.labels == 9) for d in (train, test)
    )
    nearest = cosines(h_test[pair_test], h[pair]).argmax(1)
    found = train.labels[pair][nearest] == test.labels[pair_test]
    itself = F.cosine_similarity(down_test, h_test)
    own = itself > cosines(down_test, h).amax(1)
    digits = fit_linear(h, train.labels, 10)
    side, side_test = (
        torch.arange(2).repeat_interleave(len(d)) for d in (train, test)
    )
    upright = fit_linear(torch.cat([h, down]), side, 2)
    both = torch.cat([h_test, down_test])
    return {
        "six_nine_neighbor": found.double().mean().item(),
        "digit_accuracy": accuracy(digits, h_test, test.labels),
        "upright_accuracy": accuracy(upright, both, side_test),
        "turned_is_itself": own.double().mean().item(),
        "turned_cosine": itself.mean().item(),
    }


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    train, test = (load("digits", 16, part) for part in ("train", "test"))
    for seed in range(given.seeds):
        for method in METHODS:
            name = f"nine_or_six/laptop/{method}-{seed}.json"
            if (given.out / name).exists():
                continue
            recipe = recipe_at("laptop", **SETTINGS, method=method, seed=seed)
            run = fit(recipe, train, source=views(), progress=False)
            metrics = ask(run.encoder, train, test)
            result = replace(
                run_result("nine_or_six", "laptop", run, metrics),
                command=f"python scripts/nine_or_six.py --seeds {seed + 1}",
            )
            print(save_result(result, given.out), metrics, flush=True)


if __name__ == "__main__":
    main()
