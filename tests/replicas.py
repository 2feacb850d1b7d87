"""Generated images: in the layouts of published archives, and a toy."""

import hashlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ciper.data.folders import Core50Layout, TDWLayout
from ciper.data.images import Factor, ImageData
from ciper.data.photographs import Coil100Layout, Eth80Layout

SMALL_CORE50 = Core50Layout(frames=(12,) * 11, objects=6)
SMALL_TDW = TDWLayout(
    objects=("cup", "comb"),
    distance=(0.3, 0.4),
    elevation=(10.0, 20.0, 30.0),
    azimuth=(0.0, 90.0, 180.0, 270.0),
)

SMALL_COIL100 = Coil100Layout(objects=5, step=90)
SMALL_ETH80 = Eth80Layout(("apple", "car"), 3, ((0, 0), (90, 45)))


def picture(path, seed, size=8):
    """A small image, a function of its seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def core50(root, layout=SMALL_CORE50, size=8):
    """core50_32x32/s1/o1/C_01_01_000.png and so on."""
    home = root / "core50_32x32"
    for s, frames in enumerate(layout.frames, 1):
        for k in range(frames):
            o, i = k % layout.objects + 1, k // layout.objects
            name = f"s{s}/o{o}/C_{s:02}_{o:02}_{i:03}.png"
            picture(home / name, (s, o, i), size)
    return home


def tdw(root, layout=SMALL_TDW):
    """spherical_photoreal_64x64_DoF/train/00000.png and so on."""
    home = root / "spherical_photoreal_64x64_DoF"
    for part in ("train", "test"):
        for i in range(len(layout.factors()["object"].values)):
            picture(home / part / f"{i:05}.png", (i, len(part)))
    return home


def coil100(root, layout=SMALL_COIL100, size=8):
    """coil-100/obj1__0.png and so on."""
    home = root / "coil-100"
    for k in range(1, layout.objects + 1):
        for degree in range(0, 360, layout.step):
            picture(home / f"obj{k}__{degree}.png", (k, degree), size)
    return home


def eth80(root, layout=SMALL_ETH80, size=8):
    """eth80-cropped-close256/1/1/apple8-000-000.png, with maps.

    Each map is another random half of the pixels, but for the first pixel: it
    is set for the second object of a category and for no other.
    """
    home = root / "eth80-cropped-close256"
    for place in layout.places():
        c, o, tilt, degree = place
        # the published names do not always repeat the folder's number
        name = f"{layout.categories[c - 1]}{o + 7}-{tilt:03}-{degree:03}"
        picture(home / f"{c}/{o}/{name}.png", place, size)
        pixels = np.random.default_rng(place).random((size, size)) < 0.5
        pixels[0, 0] = o == 2
        path = home / f"{c}/{o}/maps/{name}-map.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return home


def zipped(folder):
    """The folder as a zip archive beside it, like the published ones."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
    return path


def md5(path):
    return hashlib.md5(Path(path).read_bytes()).hexdigest()


def cifar(home, files, meta, key, labels, monkeypatch, kind):
    """The pickled batches of CIFAR, with their checksums in torchvision."""
    home.mkdir(parents=True)
    draw, sums = np.random.default_rng(0), {}
    for name in files:
        pixels = draw.integers(0, 256, (4, 3072)).astype(np.uint8)
        batch = {"data": pixels, labels: [0, 1, 0, 1]}
        (home / name).write_bytes(pickle.dumps(batch))
        sums[name] = md5(home / name)
    (home / meta).write_bytes(pickle.dumps({key: ["cat", "dog"]}))
    lists = [[name, sums[name]] for name in files]
    monkeypatch.setattr(kind, "train_list", lists[:-1])
    monkeypatch.setattr(kind, "test_list", lists[-1:])
    about = {"filename": meta, "key": key, "md5": md5(home / meta)}
    monkeypatch.setattr(kind, "meta", about)


def stl10(home, monkeypatch, kind):
    """The binary files of STL-10, with their checksums in torchvision."""
    home.mkdir(parents=True)
    draw, lists = np.random.default_rng(0), {}
    for part in ("train", "test"):
        pixels = draw.integers(0, 256, (3, 3, 96, 96)).astype(np.uint8)
        (home / f"{part}_X.bin").write_bytes(pixels.tobytes())
        (home / f"{part}_y.bin").write_bytes(bytes([1, 2, 1]))
        names = [f"{part}_X.bin", f"{part}_y.bin"]
        lists[part] = [[name, md5(home / name)] for name in names]
    (home / "class_names.txt").write_text("airplane\nbird\n")
    names = ["class_names.txt", md5(home / "class_names.txt")]
    monkeypatch.setattr(kind, "train_list", [*lists["train"], names])
    monkeypatch.setattr(kind, "test_list", lists["test"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(kind="circular", levels=()):
    values = torch.tensor([350.0, 10.0, 90.0, 0.0, 180.0])
    owner = torch.tensor([0, 0, 0, 1, 1])
    if kind == "categorical":
        values, levels = torch.tensor([0, 1, 2, 0, 2]), ("a", "b", "c")
    factors = {
        "object": Factor(owner, "categorical", ("x", "y")),
        "factor": Factor(values, kind, levels),
    }
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None]
    images = images.expand(5, 3, 8, 8).contiguous()
    return ImageData("toy", images, owner, ("x", "y"), factors, ("factor",))
