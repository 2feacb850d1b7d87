"""Parameters for pipelines that exist already."""

import pickle

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_pil_image

from ciper.augment.adapters import (
    Recorded,
    ViewCollate,
    ViewTransform,
    as_tensor,
)
from ciper.augment.chain import Augment

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
    with torch.random.fork_rng():
        torch.manual_seed(0)  # two whole views without a jitter are alike
        batches = list(loader)
    for ((x1, r1), (x2, r2)), labels in batches:
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


class Twice:
    """Two transforms of one kind, as a data set with two roles has them."""

    def __init__(self):
        self.one, self.two = (ViewTransform(AUGMENT, 1) for _ in range(2))

    def __call__(self, image):
        return self.one(image)[0][1], self.two(image)[0][1]


@pytest.mark.parametrize("workers", [0, 2])
def test_two_transforms_agree_no_more_often_than_by_chance(workers):
    data = torch.utils.data.ConcatDataset([Pictures(Twice())] * 8)
    loader = DataLoader(data, 16, num_workers=workers, generator=seeded())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pairs = [pair for pair, _ in loader]
    one, two = (torch.cat(vectors) for vectors in zip(*pairs))
    first, second = (AUGMENT.sample(20_000, k).vector() for k in (1, 2))
    chance = (first == second).double().mean().item()
    assert (one == two).double().mean() == pytest.approx(chance, abs=0.1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("collate", [None, ViewCollate(AUGMENT, 1)])
def test_torchs_seed_governs_workers_and_epochs_differ(workers, collate):
    transform = None if collate else ViewTransform(AUGMENT, 1)
    how = dict(batch_size=4, num_workers=workers, collate_fn=collate)
    how["persistent_workers"] = workers > 0
    loader = DataLoader(Pictures(transform), **how)

    def vectors():
        if collate:
            epoch = [params.vector() for _, [(_, params)], _ in loader]
        else:
            epoch = [vector for [(_, vector)], _ in loader]
        return torch.cat(epoch)

    with torch.random.fork_rng():
        torch.manual_seed(5)
        first, second = vectors(), vectors()
        loader = DataLoader(Pictures(transform), **how)
        torch.manual_seed(5)
        again = vectors()
    assert torch.equal(first, again)
    assert len(torch.cat([first, second]).unique(dim=0)) == 16


@pytest.mark.parametrize(
    "use", [ViewTransform(AUGMENT), Recorded(SIMCLR)], ids=["view", "record"]
)
def test_a_whole_number_is_a_seed(use):
    def first(result):
        return result[0][0] if isinstance(result, list) else result[0]

    image = some_image()
    for given in (7, np.int64(7)):
        assert torch.equal(
            first(use(image, given)), first(use(image, seeded(7)))
        )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one, two = first(use(image)), first(use(image))
        torch.manual_seed(3)
        assert torch.equal(first(use(image)), one)
    assert not torch.equal(one, two)
    for odd in (0.5, "7", True, np.random.RandomState(7)):
        with pytest.raises(ValueError, match="^generator must be"):
            use(image, odd)


def test_a_seeded_batch_repeats_itself():
    batch = [(some_image(k), k) for k in range(4)]
    collate = ViewCollate(AUGMENT, 1)
    tables = [collate(batch, 7)[1][0][1].table for _ in range(2)]
    assert torch.equal(*tables)


def test_recording_draws_what_it_always_drew():
    _, record = Recorded(v2.RandomCrop(4))(torch.zeros(3, 99, 99), seeded(1))
    assert (record["RandomCrop"]["top"], record["RandomCrop"]["left"]) == (
        30,
        18,
    )


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
    with pytest.raises(ValueError, match=r"one size .* got \(3, 8, 8\)"):
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
    with pytest.raises(ValueError, match="count must be >= 1, got 0"):
        ViewTransform(AUGMENT, count=0)


def test_what_is_no_transform_is_not_recorded():
    crop = v2.RandomCrop(4)
    odd = [3, "crop", None, [crop], lambda x: x, T.RandomCrop(4)]
    for given in odd:
        with pytest.raises(
            ValueError, match="^expected a transform of torchv"
        ):
            Recorded(given)
    with pytest.raises(ValueError, match="has one object twice, use copies"):
        Recorded(v2.Compose([crop, crop]))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([], "list of .image, ...."),
        ([torch.zeros(3, 8, 8)], "list of .image, ...."),
        ([(torch.zeros(8, 8), 0)], r"images must be .* got shape \(1, 8, 8\)"),
        ([(255 * torch.ones(3, 8, 8), 0)], "divide by 255"),
        (
            [(some_image(), 0), (some_image() / 255, 1)],
            "size and type, got .* torch.float32 and .* torch.uint8",
        ),
        ([(np.zeros((8, 8, 3)), 0)], "a PIL image or a tensor, got ndarray"),
    ],
)
def test_odd_batches_are_refused(batch, message, without_shape_checks):
    with pytest.raises(ValueError, match=message):
        ViewCollate(AUGMENT)(batch)


@pytest.mark.parametrize("kind", [ViewTransform, ViewCollate])
def test_views_need_an_augment_and_a_count(kind, without_shape_checks):
    with pytest.raises(ValueError, match="^expected an Augment, got None"):
        kind(None)
    with pytest.raises(ValueError, match="^count must be whole, got 2.5"):
        kind(AUGMENT, 2.5)


def test_images_without_channels_do_not_become_one_image():
    gray = [(torch.zeros(8, 8), k) for k in range(3)]
    with pytest.raises(ValueError, match=r"\(n, c, h, w\).* got shape"):
        ViewCollate(AUGMENT)(gray)
    with pytest.raises(ValueError, match=r"be \(c, h, w\).* got shape"):
        ViewTransform(AUGMENT)(torch.zeros(2, 3, 8, 8))
