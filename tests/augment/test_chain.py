"""Augmentations whose parameters are data, against torchvision."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch.testing import assert_close

from ciper.augment.chain import (
    _ORDERS,
    Augment,
    ColorJitter,
    Grayscale,
    HorizontalFlip,
    Params,
    RandomResizedCrop,
    as_generator,
    as_seed,
    check_images,
)

TABLE_1 = [
    *("x", "y", "height", "width"),
    "flip",
    *("brightness", "contrast", "saturation", "hue"),
    "grayscale",
]
few = settings(max_examples=40, deadline=None, derandomize=True)
sizes = st.integers(1, 50)
channels = st.sampled_from([1, 3])
factors = st.floats(0, 2, width=32)
turns = st.floats(-0.5, 0.5, width=32)
seeds = st.integers(0, 2**31)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_images(seed, *shape, integer=True):
    """Random images with flat and extreme pixels among them."""
    images = torch.rand(shape, generator=seeded(seed)) * 1.4 - 0.2
    images = images.clamp(0, 1)
    return (images * 255).to(torch.uint8) if integer else images


def params_of(operation, *values, applied=True):
    """Parameters for one image, given by hand."""
    table = torch.tensor([values], dtype=torch.float32)
    return Params(table, torch.tensor([[applied]]), operation.parameters)


def float_image(image):
    return image / 255 if image.dtype == torch.uint8 else image


def apply_by_torchvision(image, params, size):
    """One view of one image: torchvision's functions, our parameters."""
    view = float_image(image)
    height, width = view.shape[-2:]
    x, y, h, w = params["crop"][0].tolist()
    box = [round(y * height), round(x * width)]
    box += [round(h * height), round(w * width)]
    view = F.resized_crop(view, *box, [size, size], antialias=True)
    if params.applied["flip"].item():
        view = F.horizontal_flip(view)
    if params.applied["jitter"].item():
        view = jitter_by_torchvision(view, params)
    if params.applied["grayscale"].item():
        view = F.rgb_to_grayscale(view, image.shape[0])
    return view


def jitter_by_torchvision(view, params):
    adjust = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation
    adjust = *adjust, F.adjust_hue
    factors = params["jitter"][0].tolist()
    for which in _ORDERS[int(params["order"].item())]:
        view = adjust[which](view, factors[which])
    return view


# One operation against torchvision's


@few
@given(st.data(), seeds, channels, sizes, sizes, sizes, st.booleans())
def test_crop_equals_torchvision(data, seed, c, height, width, size, integer):
    h = data.draw(st.integers(1, height))
    w = data.draw(st.integers(1, width))
    top = data.draw(st.sampled_from([0, (height - h) // 2, height - h]))
    left = data.draw(st.sampled_from([0, (width - w) // 3, width - w]))
    crop = RandomResizedCrop(size)
    box = left / width, top / height, h / height, w / width
    image = some_images(seed, 1, c, height, width, integer=integer)
    view = crop.apply(image, params_of(crop, *box))
    oracle = F.resized_crop(
        float_image(image), top, left, h, w, [size, size], antialias=True
    )
    assert_close(view, oracle, atol=1e-5, rtol=0)


@few
@given(seeds, channels, sizes, sizes, st.booleans())
def test_flip_equals_torchvision(seed, c, height, width, integer):
    image = some_images(seed, 1, c, height, width, integer=integer)
    flip = HorizontalFlip()
    view = flip.apply(image, params_of(flip, 1.0))
    assert torch.equal(view, F.horizontal_flip(float_image(image)))


@few
@given(
    st.integers(0, 23),
    st.tuples(factors, factors, factors, turns),
    *(seeds, channels, sizes, sizes, st.booleans()),
)
def test_jitter_equals_torchvision(
    order, strengths, seed, c, height, width, integer
):
    image = some_images(seed, 1, c, height, width, integer=integer)
    jitter = ColorJitter(1.0, 1.0, 1.0, 0.5)
    params = params_of(jitter, *strengths, float(order))
    oracle = jitter_by_torchvision(float_image(image), params)
    assert_close(jitter.apply(image, params), oracle, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "strengths",
    [
        (0.0, 1.0, 1.0, 0.0),
        (1.0, 0.0, 1.0, 0.0),
        (1.0, 1.0, 0.0, 0.0),
        (1.0, 1.0, 1.0, 0.5),
        (1.0, 1.0, 1.0, -0.5),
        (2.0, 2.0, 2.0, 0.25),
    ],
)
def test_jitter_extremes_equal_torchvision_in_every_order(strengths):
    image = some_images(1, 3, 9, 7)
    jitter = ColorJitter(1.0, 1.0, 1.0, 0.5)
    for order in range(24):
        params = params_of(jitter, *strengths, float(order))
        oracle = jitter_by_torchvision(image / 255, params)
        assert_close(jitter.apply(image, params), oracle, atol=1e-5, rtol=0)


@few
@given(seeds, channels, sizes, sizes)
def test_grayscale_equals_torchvision(seed, c, height, width):
    image = some_images(seed, 1, c, height, width)
    gray = Grayscale()
    view = gray.apply(image, params_of(gray, 1.0))
    oracle = F.rgb_to_grayscale(image / 255, num_output_channels=c)
    assert_close(view, oracle, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 45, 31), (1, 33, 64)])
@pytest.mark.parametrize("integer", [True, False])
def test_a_batch_equals_torchvision_image_by_image(shape, integer):
    images = some_images(0, 150, *shape, integer=integer)
    views, params = Augment.preset("paper", 24)(images, seeded())
    oracle = [
        apply_by_torchvision(image, params[i], 24)
        for i, image in enumerate(images)
    ]
    assert_close(views, torch.stack(oracle), atol=1e-5, rtol=0)


# Drawing


def draws_of_torchvision(transform, image, n):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [transform.make_params([image]) for _ in range(n)]


@pytest.mark.parametrize("image_size", [(32, 32), (20, 50), (50, 20), (7, 7)])
def test_crops_are_distributed_as_torchvisions(image_size):
    height, width = image_size
    params = RandomResizedCrop(8).sample(3000, seeded(1), image_size)
    sizes = torch.tensor([width, height, height, width])
    left, top, h, w = (params.table * sizes).round().numpy().T
    image = torch.zeros(3, height, width)
    transform = v2.RandomResizedCrop(8, (0.2, 1.0))
    boxes = draws_of_torchvision(transform, image, 3000)
    ours = {"left": left, "top": top, "area": h * w, "ratio": w / h}
    theirs = {
        "left": [box["left"] for box in boxes],
        "top": [box["top"] for box in boxes],
        "area": [box["height"] * box["width"] for box in boxes],
        "ratio": [np.float32(box["width"] / box["height"]) for box in boxes],
    }
    for name, values in ours.items():
        assert kstest(values, theirs[name]).pvalue > 0.01, name


def test_a_box_that_never_fits_becomes_the_largest_central_one():
    crop = RandomResizedCrop(8, scale=(1.0, 1.0))
    params = crop.sample(5, seeded(), (10, 40))
    theirs = v2.RandomResizedCrop(8, (1.0, 1.0)).make_params(
        [torch.zeros(3, 10, 40)]
    )
    assert theirs == dict(top=0, left=13, height=10, width=13)
    box = torch.tensor([13 / 40, 0.0, 1.0, 13 / 40])
    assert_close(params["crop"], box.expand(5, 4))


def test_jitter_is_distributed_as_torchvisions():
    jitter = ColorJitter(0.4, 0.4, 1.5, 0.1, p=1.0)
    params = jitter.sample(3000, seeded(2))
    transform = v2.ColorJitter(0.4, 0.4, 1.5, 0.1)
    theirs = draws_of_torchvision(transform, torch.zeros(3, 4, 4), 3000)
    for name in ("brightness", "contrast", "saturation", "hue"):
        factors = [draw[f"{name}_factor"] for draw in theirs]
        assert kstest(params[name][:, 0].numpy(), factors).pvalue > 0.01


def test_all_24_orders_are_equally_frequent():
    order = ColorJitter(p=1.0).sample(24_000, seeded())["order"][:, 0].long()
    counts = torch.bincount(order, minlength=24)
    assert len(counts) == 24 and (counts - 1000).abs().max() < 5 * 31


def test_operations_are_applied_with_their_probability():
    augment = Augment.preset("paper")
    applied = augment.sample(20_000, seeded()).applied
    rates = {
        name: flags.float().mean().item() for name, flags in applied.items()
    }
    expected = {"crop": 1.0, "flip": 0.8, "jitter": 0.8, "grayscale": 0.2}
    assert rates == pytest.approx(expected, abs=0.01)


def test_the_two_presets_differ_in_the_flip_alone():
    paper, simclr = Augment.preset("paper", 48), Augment.preset("simclr", 48)
    differences = [
        (a.name, a.p, b.p)
        for a, b in zip(paper.operations, simclr.operations)
        if a != b
    ]
    assert differences == [("flip", 0.8, 0.5)]


def test_drawing_leaves_the_global_random_state_alone():
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    augment = Augment.preset("paper")
    augment(some_images(0, 4, 3, 8, 8), 7)
    augment(some_images(0, 4, 3, 8, 8), seeded())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)


@pytest.mark.parametrize("seed", [7, np.int64(7), np.uint32(7)])
def test_a_whole_number_is_the_seed_of_a_new_generator(seed):
    augment, images = Augment.preset("paper", 8), some_images(0, 4, 3, 8, 8)
    views, params = augment(images, seeded(7))
    for again in (augment(images, seed), augment.views(images, 1, seed)[0]):
        assert torch.equal(again[0], views)
    alone = ColorJitter().sample(3, seeded(7)).table
    assert torch.equal(ColorJitter().sample(3, seed).table, alone)
    first, second = augment.views(images, 2, seed)
    assert not torch.equal(first[1].table, second[1].table)


def test_torchs_own_seed_governs_what_has_no_generator():
    augment = Augment.preset("paper")
    with torch.random.fork_rng():
        tables = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            tables.append([augment.sample(4).table for _ in range(2)])
    (a, b), (again, _), (other, _) = tables
    assert torch.equal(a, again)
    assert not torch.equal(a, b) and not torch.equal(a, other)


@pytest.mark.parametrize(
    "given",
    [0.5, True, "0", np.random.RandomState(0), np.random.default_rng(0)]
    + [torch.tensor(0), [0], -1, 2**32],
)
def test_what_is_no_generator_is_refused(given):
    with pytest.raises(ValueError, match="^(generator|seed) must be "):
        as_generator(given)


def test_a_seed_that_torch_would_cut_off_is_refused():
    cut = [torch.rand(1, generator=seeded(1 + high)) for high in (0, 2**32)]
    assert torch.equal(*cut)  # why: a CPU's generator has 32 bits
    with pytest.raises(
        ValueError, match=r"^seed must be 0\.\.4294967295, got"
    ):
        as_seed(2**32 + 1)


def test_without_a_generator_every_call_is_different():
    images = some_images(0, 4, 3, 8, 8)
    augment = Augment.preset("paper")
    first, second = augment(images)[1], augment(images)[1]
    assert not torch.equal(first.table, second.table)


# Parameters


def test_the_vector_has_the_columns_of_table_1():
    augment = Augment.preset("paper")
    params = augment.sample(6, seeded())
    assert list(augment.names) == TABLE_1
    assert params.vector().shape == (6, 10)
    for column, name in enumerate(TABLE_1):
        assert torch.equal(params.vector()[:, column], params[name][:, 0])


def test_a_skipped_operation_is_the_identity_and_says_so():
    operations = [
        RandomResizedCrop(8, p=0.0),
        HorizontalFlip(p=0.0),
        ColorJitter(p=0.0),
        Grayscale(p=0.0),
    ]
    images = some_images(0, 5, 3, 8, 8)
    views, params = Augment(operations)(images, seeded())
    identity = torch.tensor([0.0, 0, 1, 1, 0, 1, 1, 1, 0, 0])
    assert torch.equal(params.vector(), identity.expand(5, 10))
    assert not params.flags.any()
    assert torch.equal(views, images / 255)


def test_indexing_parameters_chooses_views():
    images = some_images(0, 12, 3, 16, 16)
    augment = Augment.preset("paper", 16)
    views, params = augment(images, seeded())
    chosen = torch.tensor([7, 2, 2])
    for key in (3, slice(2, 9, 3), chosen, params.applied["grayscale"]):
        rows = [key] if isinstance(key, int) else key
        again = augment.apply(images[rows], params[key])
        assert_close(again, views[rows], atol=1e-6, rtol=0)


def test_an_unknown_column_is_named():
    params = Augment.preset("paper").sample(2, seeded())
    with pytest.raises(ValueError, match="no parameter 'zoom', expected one"):
        params["zoom"]


def test_describe_names_every_parameter_with_its_identity():
    table = Augment.preset("paper").describe()
    assert [row[2] for row in table.rows if row[2] != "order"] == TABLE_1
    row = (
        "jitter     0.8  hue         continuous   -0.1 to 0.1  0         turn"
    )
    assert row in repr(table).splitlines()
    assert "<td>-0.1 to 0.1</td>" in table._repr_html_()


# Applying


@pytest.mark.parametrize("integer", [True, False])
def test_replay_is_the_same_bit_by_bit(integer):
    images = some_images(3, 200, 3, 32, 32, integer=integer)
    augment = Augment.preset("paper")
    views, params = augment(images, seeded(5))
    assert torch.equal(augment.apply(images, params), views)
    again, _ = augment(images, seeded(5))
    assert torch.equal(again, views)


def test_views_are_float32_between_0_and_1():
    images = some_images(0, 64, 3, 20, 30)
    views, _ = Augment.preset("paper", 16)(images, seeded())
    assert views.dtype == torch.float32 and views.shape == (64, 3, 16, 16)
    assert views.min() >= 0 and views.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_give_nearly_the_same_views(dtype):
    images = some_images(0, 4, 3, 16, 16, integer=False)
    augment = Augment.preset("paper", 16)
    params = augment.sample(4, seeded(), (16, 16))
    views = augment.apply(images.to(dtype), params)
    assert views.dtype == torch.float32
    assert_close(views, augment.apply(images, params), atol=1e-2, rtol=0)


def test_images_are_left_as_they_were():
    for integer in (True, False):
        images = some_images(0, 9, 3, 16, 16, integer=integer)
        before = images.clone()
        Augment.preset("paper", 16)(images, seeded())
        assert torch.equal(images, before)


def test_the_path_for_accelerators_agrees_with_the_sorted_one(monkeypatch):
    images = some_images(0, 64, 3, 16, 16)
    augment = Augment.preset("paper", 16)
    views, params = augment(images, seeded())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_close(augment.apply(images, params), views, atol=1e-6, rtol=0)


def test_one_image_gives_one_view():
    image = some_images(0, 3, 20, 20)
    augment = Augment.preset("paper", 16)
    view, params = augment(image, seeded())
    batch, _ = augment(image[None], seeded())
    assert view.shape == (3, 16, 16) and len(params) == 1
    assert torch.equal(view, batch[0])


def test_a_crop_can_be_replayed_at_another_resolution():
    image = some_images(0, 1, 3, 64, 64)
    small = F.resize(image, [32, 32])
    crop = RandomResizedCrop(16)
    params = crop.sample(1, seeded(), (32, 32))
    difference = crop.apply(image, params) - crop.apply(small, params)
    assert difference.abs().max() < 0.35 and difference.abs().mean() < 0.05


def test_leaving_an_operation_out_leaves_its_columns_out():
    augment = Augment.preset("paper").without("jitter")
    assert [operation.name for operation in augment.operations] == [
        "crop",
        "flip",
        "grayscale",
    ]
    assert list(augment.names) == TABLE_1[:5] + TABLE_1[9:]
    views, params = augment(some_images(0, 3, 3, 8, 8), seeded())
    assert params.vector().shape == (3, 6)


def test_without_the_crop_views_keep_the_size_of_the_images():
    augment = Augment.preset("paper", 8).without("crop")
    views, _ = augment(some_images(0, 3, 3, 20, 30), seeded())
    assert views.shape == (3, 3, 20, 30)


# Any place


COMPILE = """
import torch
from ciper.augment.chain import Augment

generator = torch.Generator().manual_seed(0)
shape = 6, 3, 16, 16
images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
augment = Augment.preset("paper", 12)
params = augment.sample(6, generator, (16, 16))
apply = torch.compile(augment.apply, backend="aot_eager", fullgraph=True)
views = augment.apply(images, params)
torch.testing.assert_close(apply(images, params), views, atol=1e-6, rtol=0)
"""


def test_apply_compiles_without_a_graph_break():
    # in a process of its own, as type checks on annotations do break graphs
    subprocess.run([sys.executable, "-c", COMPILE], check=True)


def test_autocast_does_not_make_views_coarser():
    images = some_images(0, 6, 3, 16, 16)
    augment = Augment.preset("paper", 16)
    params = augment.sample(6, seeded(), (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        views = augment.apply(images, params)
    assert torch.equal(views, augment.apply(images, params))


@pytest.mark.parametrize("integer", [True, False])
def test_the_layout_of_images_in_memory_does_not_matter(integer):
    images = some_images(0, 6, 3, 16, 20, integer=integer)
    augment = Augment.preset("paper", 16)
    params = augment.sample(6, seeded(), (16, 20))
    views = augment.apply(images, params)
    last = images.to(memory_format=torch.channels_last)
    strided = images.repeat_interleave(2, 3)[..., ::2]
    for same in (last, strided):
        assert torch.equal(augment.apply(same, params), views)


def test_blocks_do_not_show_in_the_views(monkeypatch):
    images = some_images(0, 50, 3, 16, 20)
    augment = Augment.preset("paper", 16)
    views, params = augment(images, seeded())
    for images_in_a_block in (1, 7, 50):
        numbers = images_in_a_block * images[0].numel()
        monkeypatch.setattr("ciper.augment.chain._BLOCK", numbers)
        again = augment.apply(images, params)
        assert_close(again, views, atol=1e-6, rtol=0)


def test_n_views_at_once_are_independent_and_seeded():
    images = some_images(0, 3, 3, 16, 16)
    augment = Augment.preset("paper", 16)
    pairs = augment.views(images, 3, seeded())
    again = augment.views(images, 3, seeded())
    tables = [params.table for _, params in pairs]
    assert len(pairs) == 3 and not torch.equal(tables[0], tables[1])
    for (views, params), (same, _) in zip(pairs, again):
        assert torch.equal(views, same)
        assert torch.equal(augment.apply(images, params), views)


def test_gradients_are_not_recorded():
    images = some_images(0, 2, 3, 8, 8, integer=False).requires_grad_()
    views, _ = Augment.preset("paper", 8)(images, seeded())
    assert not views.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_views_on_an_accelerator_agree_with_those_on_the_processor():
    images = some_images(0, 64, 3, 32, 32)
    augment = Augment.preset("paper")
    views, params = augment(images, seeded())
    moved = augment.apply(images.cuda(), params)
    assert moved.is_cuda
    assert_close(moved.cpu(), views, atol=1e-5, rtol=0)
    assert torch.equal(augment.apply(images.cuda(), params.to("cuda")), moved)


# Bad input: what was wrong, and what was expected

AUGMENT = Augment.preset("paper", 8)
NAN = torch.full((2, 3, 8, 8), math.nan)
REFUSED = {
    r"must be \(n, c, h, w\) .* got shape \(8, 8\)": torch.zeros(8, 8),
    r"1 or 3 channels, got shape \(2, 4, 8, 8\)": torch.zeros(2, 4, 8, 8),
    r"at least one image, got shape \(0, 3, 8, 8\)": torch.zeros(0, 3, 8, 8),
    r"must be uint8, or .* got torch.int64": torch.ones(2, 3, 8, 8).long(),
    r"must lie in \[0, 1\], got values from 0 to 255": NAN.nan_to_num(
        255
    ).index_fill(0, torch.tensor(0), 0.0),
    r"must lie in \[0, 1\], got values from nan": NAN,
    r"got torch.int64: use images.to\(torch.uint8\)": torch.ones(
        3, 8, 8
    ).long(),
    "got torch.bool": torch.ones(3, 8, 8).bool(),
    "got torch.complex64": torch.ones(3, 8, 8) * 1j,
    "from 0 to 255: divide by 255": 255 * torch.eye(8).expand(3, 8, 8),
    "from -2 to 2: leave normalization to the": 4
    * torch.eye(8).expand(3, 8, 8)
    - 2,
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_images_are_refused(message):
    with pytest.raises(ValueError, match=message):
        AUGMENT(REFUSED[message], seeded())


def test_a_door_says_which_shapes_it_takes():
    with pytest.raises(ValueError, match=r"must be \(n, c, h, w\), got shape"):
        check_images(torch.zeros(5, 8, 8), ranks=(4,))
    check_images(torch.zeros(2, 5, 8, 8), ranks=(4,))


def test_images_that_are_no_tensor_are_refused(without_shape_checks):
    with pytest.raises(ValueError, match="a torch tensor, got ndarray"):
        AUGMENT(np.zeros((2, 3, 8, 8), dtype=np.uint8), seeded())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: HorizontalFlip(p=1.2), r"p must lie in \[0, 1\], got 1.2"),
        (lambda: Grayscale(p=-0.1), r"p must lie in \[0, 1\], got -0.1"),
        (lambda: RandomResizedCrop(8, (0.2, 1.5)), r"scale .*0.2, 1.5"),
        (lambda: RandomResizedCrop(8, (1.0, 0.2)), r"scale .*1, 0.2"),
        (lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)), r"ratio .*2, 1"),
        (lambda: RandomResizedCrop(0), r"size must .*got 0"),
        (lambda: ColorJitter(hue=0.6), "hue must .*0.6"),
        (lambda: ColorJitter(brightness=-1.0), "brightness must .*-1"),
        (lambda: Augment([]), "different operations, got none"),
        (lambda: Augment([Grayscale()] * 2), "got grayscale, grayscale"),
        (lambda: Augment.preset("byol"), "expected one of paper, simclr"),
        (lambda: AUGMENT.without("blur"), "expected one of crop, flip"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parameters_of_another_augmentation_are_refused():
    params = AUGMENT.without("flip").sample(2, seeded())
    with pytest.raises(ValueError, match="another augmentation: .*brightness"):
        AUGMENT.apply(some_images(0, 2, 3, 8, 8), params)


def test_parameters_of_another_number_of_images_are_refused():
    params = AUGMENT.sample(3, seeded())
    with pytest.raises(ValueError, match="got 3 rows for 2 images"):
        AUGMENT.apply(some_images(0, 2, 3, 8, 8), params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HorizontalFlip(p="1"), "p must be a number, got '1'"),
        (lambda: HorizontalFlip(p=True), "p must be a number, got True"),
        (
            lambda: HorizontalFlip(p=math.nan),
            r"p must lie in \[0, 1\], got nan",
        ),
        (lambda: RandomResizedCrop("8"), "size must be whole, got 8"),
        (lambda: RandomResizedCrop(True), "size must be whole, got True"),
        (lambda: RandomResizedCrop(8, 0.5), "scale must be two numbers, got"),
        (lambda: RandomResizedCrop(8, (0.5,)), "scale must be two numbers"),
        (lambda: RandomResizedCrop(8, (math.nan, 1)), "scale must .*nan"),
        (lambda: RandomResizedCrop(8, ratio="12"), "ratio must be a number"),
        (lambda: ColorJitter((0.1, 0.2)), "brightness must be a number"),
        (lambda: ColorJitter(hue=math.nan), "hue must lie .* got nan"),
        (lambda: Augment(Grayscale()), "expected a list of operations, got"),
        (lambda: Augment([Grayscale]), "expected a list of operations, got"),
        (lambda: Augment(None), "expected a list of operations, got None"),
        (lambda: Augment.preset(3), "no preset 3"),
        (lambda: AUGMENT.views(NAN[:, :, :8], 0), "count must be >= 1, got 0"),
        (lambda: AUGMENT.sample(2.0), "n must be whole, got 2.0"),
        (
            lambda: AUGMENT.sample(2, 0, 32),
            "image_size must be .height, width",
        ),
        (
            lambda: AUGMENT.sample(2, 0, (8, 0)),
            "image_size must be >= 1, got 0",
        ),
        (
            lambda: AUGMENT.apply(NAN.nan_to_num(), 3),
            "expected Params, got int",
        ),
    ],
)
def test_odd_settings_are_refused_in_a_line(
    make, message, without_shape_checks
):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_numbers_of_numpy_are_settings_like_any_others(without_shape_checks):
    ours = RandomResizedCrop(8, (0.5, 1.0), p=0.5)
    scale = np.array([0.5, 1.0])
    theirs = RandomResizedCrop(np.int64(8), scale, p=np.float32(0.5))
    assert theirs == ours and type(theirs.size) is int
    assert theirs.sample(3, 0).schema == ours.sample(3, 0).schema
