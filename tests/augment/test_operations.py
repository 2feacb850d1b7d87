"""More operations, each against torchvision on the same parameters."""

import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close

from ciper.augment.chain import Augment, RandomResizedCrop
from ciper.augment.operations import (
    Equalize,
    FourFoldRotation,
    GaussianBlur,
    Posterize,
    Rotation,
    Solarize,
    Translation,
    VerticalFlip,
)
from ciper.augment.params import Params

few = settings(max_examples=30, deadline=None, derandomize=True)
sizes, seeds = st.integers(1, 40), st.integers(0, 2**31)
channels, integers = st.sampled_from([1, 3]), st.booleans()
EVERY = [VerticalFlip(), FourFoldRotation(), Rotation(), Translation()]
EVERY += [GaussianBlur(5), Solarize(), Posterize(), Equalize()]
SKIPPED = [VerticalFlip(p=0.0), FourFoldRotation(p=0.0), Rotation(p=0.0)]
SKIPPED += [Translation(p=0.0), GaussianBlur(5, p=0.0), Solarize(p=0.0)]
SKIPPED += [Posterize(p=0.0), Equalize(p=0.0)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def image_and_float(seed, c, height, width, integer):
    """A random image with extreme pixels, and the same as floats."""
    image = torch.rand(1, c, height, width, generator=seeded(seed)) * 1.4 - 0.2
    image = image.clamp(0, 1)
    image = (image * 255).to(torch.uint8) if integer else image
    return image, image / 255 if integer else image


def apply(operation, image, *values):
    table = torch.tensor([values], dtype=torch.float32)
    params = Params(table, torch.tensor([[True]]), operation.parameters)
    return operation.apply(image, params)


@few
@given(seeds, channels, sizes, sizes, integers)
def test_vertical_flip_equals_torchvision(seed, c, height, width, integer):
    image, oracle = image_and_float(seed, c, height, width, integer)
    assert torch.equal(
        apply(VerticalFlip(), image, 1.0), F.vertical_flip(oracle)
    )


@few
@given(seeds, channels, sizes, st.integers(0, 3), integers)
def test_quarter_turns_equal_torchvision(seed, c, size, turns, integer):
    image, oracle = image_and_float(seed, c, size, size, integer)
    oracle = F.rotate(oracle, 90 * turns)
    assert_close(apply(FourFoldRotation(), image, turns), oracle)


@few
@given(seeds, channels, sizes, sizes, st.floats(-180, 180, width=32), integers)
def test_rotation_equals_torchvision(seed, c, height, width, angle, integer):
    image, oracle = image_and_float(seed, c, height, width, integer)
    oracle = F.rotate(oracle, angle, F.InterpolationMode.BILINEAR)
    assert_close(apply(Rotation(), image, angle), oracle, atol=5e-5, rtol=0)


@few
@given(st.data(), seeds, channels, sizes, sizes, integers)
def test_translation_equals_torchvision(data, seed, c, height, width, integer):
    x = data.draw(st.integers(-width, width))
    y = data.draw(st.integers(-height, height))
    image, oracle = image_and_float(seed, c, height, width, integer)
    view = apply(Translation(1.0), image, x / width, y / height)
    rest = dict(angle=0.0, scale=1.0, shear=[0.0, 0.0])
    assert torch.equal(view, F.affine(oracle, translate=[x, y], **rest))


@few
@given(
    *(seeds, channels, st.integers(6, 40), st.integers(6, 40)),
    *(st.sampled_from([1, 3, 5, 11]), st.floats(0.125, 5, width=32), integers),
)
def test_blur_equals_torchvision(seed, c, height, width, k, sigma, integer):
    image, oracle = image_and_float(seed, c, height, width, integer)
    oracle = F.gaussian_blur(oracle, [k, k], [sigma])
    blur = GaussianBlur(k, sigma=(0.1, 5.0))
    assert_close(apply(blur, image, sigma), oracle, atol=1e-5, rtol=0)


@few
@given(seeds, channels, sizes, sizes, st.floats(0, 1, width=32), integers)
def test_solarize_equals_torchvision(seed, c, height, width, level, integer):
    image, oracle = image_and_float(seed, c, height, width, integer)
    view = apply(Solarize((0.0, 1.0)), image, level)
    assert_close(view, F.solarize(oracle, level), atol=1e-6, rtol=0)


@few
@given(seeds, channels, sizes, sizes, st.integers(1, 8), integers)
def test_posterize_equals_torchvision(seed, c, height, width, bits, integer):
    image, oracle = image_and_float(seed, c, height, width, integer)
    view = apply(Posterize((1, 8)), image, bits)
    assert torch.equal(view, F.posterize(oracle, bits))


@few
@given(seeds, channels, sizes, sizes, integers)
def test_equalize_equals_torchvision(seed, c, height, width, integer):
    image, oracle = image_and_float(seed, c, height, width, integer)
    assert_close(apply(Equalize(), image, 1.0), F.equalize(oracle))


@pytest.mark.parametrize("operation", EVERY, ids=lambda o: o.name)
def test_a_batch_is_its_images_one_by_one(operation):
    images, _ = image_and_float(0, 3, 16, 16, True)
    images = torch.cat([images.roll(k, 3) for k in range(12)])
    params = operation.sample(12, seeded(), (16, 16))
    views = operation.apply(images, params)
    for i in range(12):
        view = operation.apply(images[i], params[i])
        assert_close(view, views[i], atol=1e-6, rtol=0)


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("at", ["cuda", "cpu"])
def test_every_step_stays_on_the_device_of_the_images(c, at):
    chain = Augment([*EVERY, *Augment.preset("paper", 12).operations])
    k, o = len(chain.schema), len(chain.operations)
    with FakeTensorMode(
        allow_non_fake_inputs=True
    ):  # tensors without numbers, on a GPU nobody has
        images = torch.empty(6, c, 16, 16, dtype=torch.uint8, device="cuda")
        flags = torch.empty(6, o, dtype=torch.bool, device=at)
        params = Params(torch.empty(6, k, device=at), flags, chain.schema)
        views = chain.apply(images, params)
        assert views.device.type == "cuda" and views.shape == (6, c, 12, 12)
        assert params.vector(normalize=True).device.type == at


def test_skipped_operations_change_nothing_and_record_the_identity():
    image, oracle = image_and_float(0, 3, 12, 12, True)
    augment = Augment(SKIPPED)
    view, params = augment(image, seeded())
    assert torch.equal(view, oracle)
    assert not params.flags.any()
    identity = [parameter.identity for parameter in augment.schema]
    assert params.table[0].tolist() == identity


def test_all_operations_in_one_chain_replay_bit_by_bit():
    images = torch.cat(
        [image_and_float(k, 3, 20, 20, True)[0] for k in range(30)]
    )
    augment = Augment(EVERY)
    views, params = augment(images, seeded())
    assert torch.equal(augment.apply(images, params), views)
    assert views.min() >= 0 and views.max() <= 1


def torchvision_draws(transform, key, n=3000):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.zeros(3, 20, 30)
        return [transform.make_params([image])[key] for _ in range(n)]


CHAINS = [*([operation] for operation in EVERY)]
CHAINS += [[operation] for operation in Augment.preset("paper", 12).operations]
CHAINS += [[*EVERY, *Augment.preset("simclr", 12).operations]]


@pytest.mark.parametrize(
    "chain", CHAINS, ids=lambda c: f"{len(c)}-{c[0].name}"
)
def test_defaults_of_a_program_change_no_view(chain, strange_defaults):
    images, _ = image_and_float(0, 3, 16, 16, True)
    images, augment = images.repeat(5, 1, 1, 1), Augment(chain)
    halves = [images, images / 255, (images / 255).double()]
    halves += [halves[1].half(), halves[1].bfloat16()]
    plain = [augment(given, seeded(1)) for given in halves]
    with strange_defaults():
        strange = [augment(given, seeded(1)) for given in halves]
        vector = strange[0][1].vector(normalize=True)
    for (views, params), (again, same) in zip(plain, strange):
        assert views.dtype == again.dtype == torch.float32
        assert same.table.dtype == vector.dtype == torch.float32
        assert torch.equal(views, again)
        assert torch.equal(params.table, same.table)


def test_angles_and_sigmas_are_distributed_as_torchvisions():
    ours = Rotation(50.0).sample(3000, seeded(1))["angle"][:, 0].numpy()
    theirs = torchvision_draws(v2.RandomRotation(50), "angle")
    assert kstest(ours, theirs).pvalue > 0.01
    blur = GaussianBlur(3, (0.5, 1.5), p=1.0)
    ours = blur.sample(3000, seeded(2))["sigma"][:, 0].numpy()
    theirs = torchvision_draws(v2.GaussianBlur(3, (0.5, 1.5)), "sigma")
    assert kstest(ours, [sigma[0] for sigma in theirs]).pvalue > 0.01


def test_shifts_are_distributed_as_torchvisions():
    params = Translation(0.3).sample(3000, seeded(3), (20, 30))
    shifts = params.table * torch.tensor([30, 20])
    transform = v2.RandomAffine(0, translate=(0.3, 0.3))
    theirs = torch.tensor(torchvision_draws(transform, "translate"))
    for ours, other in zip(shifts.round().T, theirs.T):
        assert kstest(ours.numpy(), other.numpy()).pvalue > 0.01


def test_every_number_of_bits_in_the_range_is_drawn():
    bits = Posterize((3, 6), p=1.0).sample(500, seeded())["bits"]
    assert bits.unique().tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Rotation(200.0), "degrees must .*200"),
        (lambda: Translation(1.5), "fraction must .*1.5"),
        (
            lambda: GaussianBlur(4),
            "kernel_size must be odd, got 4",
        ),
        (lambda: GaussianBlur(3, (0.0, 1.0)), r"sigma must .*\(0, 1\)"),
        (lambda: Solarize((0.9, 0.1)), r"threshold must .*\(0.9, 0.1\)"),
        (lambda: Posterize((0, 4)), r"bits must .*\(0, 4\)"),
        (lambda: Equalize(p=2.0), "p must lie"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_an_operation_cannot_treat_are_refused():
    with pytest.raises(ValueError, match="must be square, got 8 x 9"):
        Augment([FourFoldRotation()])(torch.zeros(1, 3, 8, 9), seeded())
    with pytest.raises(ValueError, match="at least 6 pixels .* got 5 x 9"):
        Augment([GaussianBlur(11)])(torch.zeros(1, 3, 5, 9), seeded())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(8.5), "^size must be whole, got 8.5$"),
        (lambda: Posterize((2.5, 3)), "^bits must be whole, got 2.5$"),
        (lambda: VerticalFlip().sample(-1), "^n must be >= 1, got -1$"),
    ],
)
def test_what_can_only_be_counted_is_refused_in_halves(
    make, message, without_shape_checks
):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotation("30"), "degrees must be a number, got '30'"),
        (lambda: Rotation((0, 30)), "degrees must be a number"),
        (lambda: Rotation(float("nan")), "degrees must lie .* got nan"),
        (lambda: Translation(None), "fraction must be a number, got None"),
        (lambda: GaussianBlur(3.0), "kernel_size must be whole, got 3.0"),
        (lambda: GaussianBlur(3, 1.0), "sigma must be two numbers, got 1.0"),
        (lambda: GaussianBlur(3, (1, float("inf"))), "sigma must satisfy"),
        (lambda: Solarize(0.5), "threshold must be two numbers, got 0.5"),
        (lambda: Posterize((3, 6, 8)), "bits must be two numbers, got"),
        (lambda: Posterize((True, 6)), "bits must be whole, got True"),
    ],
)
def test_odd_settings_are_refused_in_a_line(
    make, message, without_shape_checks
):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
