"""Draw the book's logo, favicon and pictures of results into nbs/_static.

    python scripts/drawings.py            # all four
    python scripts/drawings.py welcome    # after new results in results/demo
    python scripts/drawings.py card       # after new cards in results/audits

The logo has one idea: an image (upright), a view of it (turned), and a compass
needle that has kept by how much it was turned.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from ciper.data.turntable import render
from ciper.draw import COLORS, NAMES
from ciper.evaluation.cards import Audit, draw_card
from ciper.reproduce.results import in_clone, load_results

STATIC = Path(__file__).parents[1] / "nbs/_static"
TURN = 32  # degrees between the image and its view
STABLE = {"svg.hashsalt": "ciper", "svg.fonttype": "path"}  # same bytes again


def blank(width: float, height: float, scale: float = 1.0) -> Axes:
    """Axes without a frame, one unit per `scale` inches."""
    fig = plt.figure(figsize=(width * scale, height * scale))
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.set_axis_off()
    return ax


def mark(ax: Axes) -> None:
    """The sign itself, in the unit square."""
    turn = Affine2D().rotate_deg_around(0.5, 0.5, -TURN)
    shape = dict(boxstyle="round,pad=0,rounding_size=0.12", lw=0)
    for color, place in (
        (COLORS["predictive"], turn),
        (COLORS["ciper"], None),
    ):
        box = FancyBboxPatch((0.17, 0.17), 0.66, 0.66, color=color, **shape)
        box.set_transform((place or Affine2D()) + ax.transData)
        ax.add_patch(box)
    for sign, color in ((1, "white"), (-1, "#0B3D2E")):
        needle = Polygon([(-0.1, 0), (0, sign * 0.28), (0.1, 0)], color=color)
        needle.set(lw=0)
        place = Affine2D().rotate_deg(-TURN).translate(0.5, 0.5)
        needle.set_transform(place + ax.transData)
        ax.add_patch(needle)


def write(ax: Axes, text: str, x: float, y: float, size: float) -> None:
    """Text as a shape, so that it looks alike without the font."""
    font = FontProperties(family="DejaVu Sans", weight="bold")
    letters = TextPath((x, y), text, size=size, prop=font)
    ax.add_patch(PathPatch(letters, color=COLORS["ciper"], lw=0))


def save(ax: Axes, name: str, **options) -> None:
    """Write a drawing, the same bytes on every run."""
    kind = name.rsplit(".", 1)[1]
    about = {"Date": None} if kind == "svg" else {"Software": None}
    with plt.rc_context(STABLE):
        ax.figure.savefig(STATIC / name, metadata=about, **options)
    plt.close(ax.figure)


def logo() -> None:
    """The sign and the name, for the head of the sidebar."""
    ax = blank(3.1, 1)
    mark(ax)
    write(ax, "ciper", 1.08, 0.29, 0.72)
    save(ax, "logo.svg", transparent=True)


def favicon() -> None:
    """The sign alone, at 64 pixels."""
    ax = blank(0.84, 0.84)
    ax.set(xlim=(0.08, 0.92), ylim=(0.08, 0.92))
    mark(ax)
    save(ax, "favicon.png", transparent=True, dpi=64 / 0.84)


def welcome() -> None:
    """What can be read of the object and of the camera, per encoder."""
    results = load_results(in_clone("results"), "demo", "laptop")
    fig = plt.figure(figsize=(6, 2.9), layout="constrained")
    left, right = fig.add_gridspec(1, 2, width_ratios=(1, 1.7))
    views = left.subgridspec(3, 3, hspace=0.04, wspace=0.04)
    show_views([fig.add_subplot(views[i]) for i in range(9)])
    ax = fig.add_subplot(right)
    for method in dict.fromkeys(r.method for r in results):
        found = [r.metrics for r in results if r.method == method]
        x = [100 * m["object_accuracy"] for m in found]
        y = [m["azimuth_error_deg"] for m in found]
        ax.plot(x, y, "o", ms=6, alpha=0.8, color=COLORS[method])
        above = sum(x) / len(x), min(y)
        label = dict(ha="center", xytext=(0, 7), textcoords="offset points")
        label |= dict(color=COLORS[method], fontweight="bold")
        ax.annotate(NAMES[method], above, **label)
    ax.set(xlabel="which object? (% right)", xlim=(35, 104))
    ax.set(ylabel="seen from where? (error, degrees)", ylim=(30, 0))
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("both can be read", loc="right", fontsize=9, color="0.35")
    save(ax, "welcome.png", dpi=150, facecolor="white")


def show_views(axes: list[Axes]) -> None:
    """Three objects from three sides each."""
    objects = torch.tensor([0, 2, 6]).repeat_interleave(3)
    azimuth = torch.tensor([20.0, 140.0, 260.0]).repeat(3)
    pose = torch.full((9,), 30.0), torch.full((9,), 0.35)
    for ax, image in zip(axes, render(objects, azimuth, *pose, size=96)):
        ax.imshow(image.permute(1, 2, 0))
        ax.set_axis_off()


def card() -> None:
    """What SimCLR and CIPER keep of digits, for the README."""
    names = "simclr", "ciper", "pixels", "random"
    folder = in_clone("results") / "audits"
    audits = [Audit.load(folder / f"digits-{name}.json") for name in names]
    (ax,) = draw_card(audits, [COLORS[name] for name in names[:2]]).axes
    save(ax, "card.png", dpi=110, facecolor="white")


DRAWINGS = {
    "logo": logo,
    "favicon": favicon,
    "welcome": welcome,
    "card": card,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or DRAWINGS:
        DRAWINGS[name]()
