"""Parameters for pipelines that exist already."""

import pickle

import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_pil_image

from ciper.adapters import Recorded, ViewCollate, ViewTransform, as_tensor
from ciper.augment import Augment

AUGMENT = Augment.preset("paper", 8)
SIMCLR = v2.Compose(
    [
        v2.RandomResizedCrop(8),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        v2.RandomGrayscale(0.2),
    ]
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_image(seed=0):
    shape = 3, 12, 12
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=seeded(seed)
    )


class Pictures(Dataset):
    """PIL images with labels, as torchvision's data sets have them."""

    def __init__(self, transform=None):
        self.transform = transform

    def __len__(self):
        return 8

    def __getitem__(self, index):
        image = to_pil_image(some_image(index))
        return self.transform(image) if self.transform else image, index


def replay(image, record):
    """A view made again from torchvision's functions and a record."""
    image = F.resized_crop(image, **record["RandomResizedCrop"], size=[8, 8])
    if record["RandomHorizontalFlip"] is not None:
        image = F.horizontal_flip(image)
    if (jitter := record["ColorJitter"]) is not None:
        names = "brightness", "contrast", "saturation", "hue"
        for k in jitter["fn_idx"]:
            name = names[k]
            adjust = getattr(F, f"adjust_{name}")
            image = adjust(image, jitter[f"{name}_factor"])
    if record["RandomGrayscale"] is not None:
        image = F.rgb_to_grayscale(image, 3)
    return image


def test_a_record_says_all_that_torchvision_did():
    generator, recorded = seeded(), Recorded(SIMCLR)
    skipped = set()
    for seed in range(30):
        image = some_image(seed)
        view, record = recorded(image, generator)
        assert torch.equal(replay(image, record), view)
        skipped |= {name for name, part in record.items() if part is None}
    assert skipped == {
        "RandomHorizontalFlip",
        "ColorJitter",
        "RandomGrayscale",
    }


def test_two_transforms_of_a_kind_have_two_entries():
    pipeline = v2.Compose([v2.ColorJitter(0.1), v2.ColorJitter(hue=0.1)])
    _, record = Recorded(pipeline)(some_image())
    assert list(record) == ["ColorJitter", "ColorJitter_2"]
    assert record["ColorJitter"]["hue_factor"] is None
    assert record["ColorJitter_2"]["hue_factor"] is not None


def test_recording_leaves_the_transform_as_it_was():
    crop = v2.RandomCrop(4)
    before = dict(vars(crop))
    Recorded(crop)(some_image())
    assert vars(crop) == before
    with pytest.raises(ValueError):
        Recorded(crop)(torch.zeros(3, 2, 2))
    assert vars(crop) == before


def test_recording_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    first = Recorded(SIMCLR)(some_image(), seeded())
    second = Recorded(SIMCLR)(some_image(), seeded())
    assert torch.equal(first[0], second[0])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_takes_a_view_transform(workers):
    data = Pictures(ViewTransform(AUGMENT))
    loader = DataLoader(data, batch_size=4, num_workers=workers)
    vectors = []
    for ((x1, r1), (x2, r2)), labels in loader:
        assert x1.shape == x2.shape == (4, 3, 8, 8)
        assert r1.shape == (4, 10) and len(labels) == 4
        vectors += [*r1, *r2]
    assert len({tuple(vector.tolist()) for vector in vectors}) == 16


def test_workers_follow_the_seed_of_the_loader():
    def vectors(seed):
        data = Pictures(ViewTransform(AUGMENT))
        loader = DataLoader(
            data, batch_size=4, num_workers=2, generator=seeded(seed)
        )
        return torch.cat([r1 for ((_, r1), _), _ in loader])

    assert torch.equal(vectors(0), vectors(0))
    assert not torch.equal(vectors(0), vectors(1))


def test_a_view_transform_can_be_sent_to_another_process():
    transform = ViewTransform(AUGMENT, count=1)
    transform(some_image())
    again = pickle.loads(pickle.dumps(transform))
    [(view, vector)] = again(some_image())
    assert view.shape == (3, 8, 8) and vector.shape == (10,)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_collated_batch_can_be_replayed(workers):
    collate = ViewCollate(AUGMENT, count=3)
    loader = DataLoader(
        Pictures(), batch_size=4, collate_fn=collate, num_workers=workers
    )
    for images, pairs, labels in loader:
        assert len(pairs) == 3 and labels.tolist() in (
            [0, 1, 2, 3],
            [4, 5, 6, 7],
        )
        assert torch.equal(images[0], some_image(labels[0].item()))
        for views, params in pairs:
            assert torch.equal(AUGMENT.apply(images, params), views)


def test_images_of_different_sizes_cannot_be_collated():
    batch = [(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 9, 8), 1)]
    with pytest.raises(ValueError, match=r"one size, got \(3, 8, 8\) and"):
        ViewCollate(AUGMENT)(batch)


def test_every_mode_of_pil_becomes_one_or_three_channels():
    picture = to_pil_image(some_image())
    assert torch.equal(as_tensor(picture), some_image())
    assert as_tensor(picture.convert("L")).shape == (1, 12, 12)
    for mode in ("P", "RGBA", "CMYK"):
        assert as_tensor(picture.convert(mode)).shape == (3, 12, 12)
    with pytest.raises(ValueError, match="PIL image or a tensor, got list"):
        as_tensor([1, 2])


def test_no_views_at_all_are_refused():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        ViewTransform(AUGMENT, count=0)
