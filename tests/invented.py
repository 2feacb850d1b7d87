"""Results and data of known content, for the tests of tables and figures."""

from dataclasses import asdict

import torch
from torch import nn

from ciper import Factor, ImageData
from ciper.reproduce.results import Result


def result(job, speed=100.0, **metrics):
    """What a job might have left behind, with these metrics."""
    settings = asdict(job.recipe)
    seed = settings.pop("seed")
    where = job.experiment, job.scale, job.recipe.data, job.label
    metrics = {name: float(value) for name, value in metrics.items()}
    about = settings, metrics, 1.0, speed, "ciper", {}
    return Result(*where, seed, *about)


def turning(objects=3, sessions=0):
    """Images that hold their object and azimuth step in red and green."""
    k, step = torch.cartesian_prod(torch.arange(objects), torch.arange(36)).T
    images = torch.zeros(len(k), 3, 8, 8, dtype=torch.uint8)
    images[:, 0], images[:, 1] = k[:, None, None], step[:, None, None]
    classes = tuple("abcdefgh"[:objects])
    factors = {
        "object": Factor(k, "categorical", classes),
        "azimuth": Factor(
            10.0 * step, "circular", tuple(10.0 * x for x in range(36))
        ),
    }
    if sessions:
        levels = tuple(str(i) for i in range(sessions))
        factors["session"] = Factor(step % sessions, "categorical", levels)
    return ImageData("turning", images, k, classes, factors)


class Reader(nn.Module):
    """Reads object and azimuth step off the images of `turning`.

    Steps are multiplied by `shuffled`, objects are `apart` from each other.
    """

    def __init__(self, shuffled=1, apart=10.0):
        super().__init__()
        self.shuffled, self.apart = shuffled, apart
        self.here = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        k, step, _ = (x[:, :, 0, 0] * 255).round().long().T
        angle = torch.deg2rad(10.0 * step * self.shuffled)
        objects = self.apart * nn.functional.one_hot(k, 8)
        turn = torch.stack([angle.cos(), angle.sin()], 1)
        return torch.cat([objects, turn], 1)
