"""Images per second of SimCLR's four augmentations, library against library.

    pip install -e '.[bench]'
    python benchmarks/augment.py              # about two minutes, one thread
    python benchmarks/augment.py --compile    # about five

Every library gets the same decoded images in its favorite form (a uint8 batch,
PIL images, numpy arrays) and must return one float batch in [0, 1]. Rounds are
interleaved, so that a busy machine slows down everybody; the time is processor
time, the best round counts.
"""

import argparse
import json
import math
import platform
import time
import warnings
from importlib.metadata import version

import numpy as np
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from sklearn.datasets import load_sample_image
from torchvision.transforms.functional import to_pil_image

from ciper.augment.chain import Augment

SCALE, JITTER = (0.2, 1.0), (0.4, 0.4, 0.4, 0.1)


def photographs(n: int, size: int) -> torch.Tensor:
    """n square cuttings of two photographs, uint8."""
    generator = torch.Generator().manual_seed(0)
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    photos = [torch.tensor(photo).permute(2, 0, 1) for photo in photos]
    cuttings = []
    for i in range(n):
        photo = photos[i % 2]
        side = int(torch.randint(64, 400, (1,), generator=generator))
        top = int(torch.randint(0, 427 - side, (1,), generator=generator))
        left = int(torch.randint(0, 640 - side, (1,), generator=generator))
        box = top, left, side, side
        cuttings.append(v2.functional.resized_crop(photo, *box, [size, size]))
    return torch.stack(cuttings)


def ciper(images):
    augment = Augment.preset("simclr", images.shape[-1])
    generator = torch.Generator().manual_seed(0)
    return lambda: augment(images, generator)[0]


def ciper_compiled(images):
    """`apply` compiled for blocks that stay in the cache."""
    augment = Augment.preset("simclr", images.shape[-1])
    generator = torch.Generator().manual_seed(0)
    apply = torch.compile(augment.apply, dynamic=False)
    n, size = len(images), tuple(images.shape[-2:])
    block = 2 ** math.floor(math.log2(2**19 / images[0].numel()))

    def run():
        params = augment.sample(n, generator, size)
        starts = range(0, n, block)
        views = [
            apply(images[i:][:block], params[i : i + block]) for i in starts
        ]
        return torch.cat(views)

    return run


def recipe(module, size: int) -> list:
    return [
        module.RandomResizedCrop(size, SCALE),
        module.RandomHorizontalFlip(),
        module.RandomApply([module.ColorJitter(*JITTER)], 0.8),
        module.RandomGrayscale(0.2),
    ]


def torchvision_pil(images):
    transforms = [*recipe(v1, images.shape[-1]), v1.ToTensor()]
    transform, pictures = (
        v1.Compose(transforms),
        list(map(to_pil_image, images)),
    )
    return lambda: torch.stack([transform(picture) for picture in pictures])


def torchvision_tensor(images):
    to_float = v2.ToDtype(torch.float32, scale=True)
    transform = v2.Compose([*recipe(v2, images.shape[-1]), to_float])
    return lambda: torch.stack([transform(image) for image in images])


def kornia(images):
    import kornia.augmentation as K

    size = images.shape[-1]
    transform = torch.nn.Sequential(
        K.RandomResizedCrop((size, size), SCALE),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*JITTER, p=0.8),
        K.RandomGrayscale(p=0.2),
    )
    return lambda: transform(images.float() / 255)


def albumentations(images):
    import albumentations as A
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    size = images.shape[-1]
    transform = A.Compose(
        [
            A.RandomResizedCrop((size, size), scale=SCALE),
            A.HorizontalFlip(),
            A.ColorJitter(
                *((1 - s, 1 + s) for s in JITTER[:3]), (-0.1, 0.1), p=0.8
            ),
            A.ToGray(p=0.2),
        ]
    )
    arrays = [np.ascontiguousarray(i.permute(1, 2, 0).numpy()) for i in images]

    def run():
        views = np.stack([transform(image=array)["image"] for array in arrays])
        return torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255

    return run


LIBRARIES = {
    "ciper": ciper,
    "ciper, compiled": ciper_compiled,
    "torchvision, PIL": torchvision_pil,
    "torchvision, tensor": torchvision_tensor,
    "kornia": kornia,
    "albumentations": albumentations,
}


def contestants(images, names) -> dict:
    """The libraries that are installed, warmed up and checked."""
    ready = {}
    for name in names:
        try:
            run = LIBRARIES[name](images)
        except ImportError:
            print(f"{name} is not installed: left out")
            continue
        views = run()
        assert views.shape == images.shape and views.dtype == torch.float32
        assert views.min() >= 0 and views.max() <= 1 + 1e-5
        run()
        ready[name] = run
    return ready


def measure(images, names, rounds: int) -> dict[str, float]:
    """Best images per second of each library."""
    ready = contestants(images, names)
    best = dict.fromkeys(ready, float("inf"))
    for _ in range(rounds):
        for name, run in ready.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return {name: len(images) / seconds for name, seconds in best.items()}


def table(speeds: dict[int, dict[str, float]]) -> str:
    """A markdown table: images per second, and ratios to ours."""
    head = "".join(f" {s}x{s} images/s | ours is faster by |" for s in speeds)
    lines = [f"| library |{head}", "|---|" + "---:|---:|" * len(speeds)]
    for name in next(iter(speeds.values())):
        cells = [
            f"{by[name]:,.0f} | {by['ciper'] / by[name]:.1f}"
            for by in speeds.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile, too"
    )
    parser.add_argument("--json", help="write the figures to this file, too")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    names = [n for n in LIBRARIES if args.compile or "compiled" not in n]
    speeds = {
        size: measure(photographs(args.batch, size), names, args.rounds)
        for size in args.sizes
    }
    packages = "torch", "torchvision", "kornia", "albumentations", "pillow"
    print(
        f"batch {args.batch}, {args.threads} thread(s), {platform.processor()}"
    )
    print(", ".join(f"{p} {version(p)}" for p in packages))
    print(table(speeds))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(speeds, file, indent=1)


if __name__ == "__main__":
    main()
