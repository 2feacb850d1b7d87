"""Full gradients add up, maps repeat, neighbors are compared with chance."""

import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms import v2

import ciper.evaluation.explain as explain
from ciper.evaluation.explain import (
    full_gradient,
    map_2d,
    mass_inside,
    mass_ratio,
    neighbor_share,
    saliency,
)
from ciper.training.encoders import Encoder


def perturbed(network, seed=0):
    """The network, its constants moved far from zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        noise = torch.rand(value.shape, generator=generator)
        if "running_var" in name:
            value.data = 0.5 + noise
        elif "running_mean" in name or "bias" in name:
            value.data = noise - 0.5
        elif value.ndim == 1 and value.is_floating_point():
            value.data = 0.5 + noise
    return network


def case(encoder, d, n=3, c=3, size=24, seed=0):
    """An encoder, a read-out of five classes, images and their classes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = nn.Linear(d, 5)
    images = torch.rand(n, c, size, size, generator=generator)
    return perturbed(encoder), classifier, images, torch.arange(n) % 5


def small(**kwargs):
    torch.manual_seed(0)
    return Encoder(width=0.125, **kwargs)


def head():
    return nn.AdaptiveAvgPool2d(1), nn.Flatten()


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, groups=2),
        nn.LeakyReLU(0.1),
        *head(),
        nn.Linear(8, 8),
        nn.ReLU(),
    )


class Twice(nn.Module):
    """Calls one convolution and one normalization two times each."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 4)  # registered before the layers it follows
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x = F.relu(self.first(x), inplace=True)
        for _ in range(2):
            x = x + F.relu(self.norm(self.conv(x)), inplace=True)
        return self.last(x.mean((2, 3)))


def torchvision_resnet():
    torch.manual_seed(0)
    network = resnet18(weights=None)
    network.fc = nn.Identity()
    return network


NETWORKS = {
    "coordinates": lambda: (small(), 64),
    "no coordinates": lambda: (small(coordinates=False), 64),
    "usual stem": lambda: (small(stem="usual"), 64),
    "bottleneck": lambda: (small(backbone="resnet50"), 256),
    "full width": lambda: (Encoder(), 512),
    "torchvision": lambda: (torchvision_resnet(), 512),
    "plain": lambda: (plain(), 8),
    "called twice": lambda: (Twice(), 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_add_up_to_the_logit(name):
    encoder, classifier, images, classes = case(*NETWORKS[name]())
    parts = full_gradient(encoder, classifier, images, classes)
    logits = classifier(encoder.eval()(images)).detach()
    assert_close(parts.logit, logits[range(3), classes])
    assert parts.error.max() < 1e-4
    assert parts.logit.abs().min() > 1e-3  # so relative errors mean something


@pytest.mark.parametrize("name", NETWORKS)
def test_in_double_precision_nothing_is_left(name):
    encoder, classifier, images, classes = case(*NETWORKS[name]())
    both = encoder.double(), classifier.double()
    assert full_gradient(*both, images.double(), classes).error.max() < 1e-10


def test_without_biases_of_normalization_the_sum_would_miss():
    parts = full_gradient(*case(small(), 64))
    sums = parts.sums()
    norms = sum(v for k, v in sums.items() if "bn" in k or "downsample.1" in k)
    for part in (norms, sums["coordinates"], sums["normalization"]):
        assert (part / parts.logit).abs().min() > 1e-3


def test_layer_parts_equal_bias_times_gradient_of_the_bias():
    encoder, classifier, images, classes = case(plain(), 8, n=1)
    parts = full_gradient(encoder, classifier, images, classes)
    biases = {
        "encoder.0": encoder[0].bias,
        "encoder.3": encoder[3].bias,
        "encoder.7": encoder[7].bias,
        "classifier": classifier.bias,
    }
    logit = classifier(encoder(images))[0, classes[0]]
    gradients = torch.autograd.grad(logit, list(biases.values()))
    assert set(parts.layers) == set(biases)
    for (name, bias), gradient in zip(biases.items(), gradients):
        assert_close(parts.sums()[name][0].float(), (bias * gradient).sum())


def test_calls_of_one_layer_have_a_part_each():
    layers = full_gradient(*case(Twice(), 4)).layers
    assert list(layers) == [
        "encoder.first",
        "encoder.conv",
        "encoder.norm",
        "encoder.conv (call 2)",
        "encoder.norm (call 2)",
        "encoder.last",
        "classifier",
    ]


def test_normalization_is_an_implicit_bias_of_minus_mean_over_std():
    encoder, classifier, images, classes = case(small(), 64)
    parts = full_gradient(encoder, classifier, images, classes)
    expected = -encoder.mean * (parts.image / images)
    assert_close(parts.normalization, expected, atol=1e-4, rtol=1e-3)


def test_coordinates_are_a_part_of_two_channels_and_not_drawn():
    case_ = case(small(), 64)
    parts = full_gradient(*case_)
    assert parts.coordinates.shape == (3, 2, 24, 24)
    assert (parts.sums()["coordinates"] != 0).all()
    doubled = explain.FullGradient(
        parts.logit,
        parts.image,
        parts.normalization,
        2 * parts.coordinates,
        parts.layers,
    )
    assert torch.equal(explain._draw(doubled), explain._draw(parts))


def test_batch_normalization_without_affine_is_complete():
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6, affine=False),
        nn.ReLU(inplace=True),
        FrozenBatchNorm2d(6),
        *head(),
        nn.BatchNorm1d(6, affine=False),
    )
    parts = full_gradient(*case(network, 6))
    assert parts.error.max() < 1e-4
    names = "encoder.1", "encoder.3", "encoder.6", "classifier"
    assert tuple(parts.layers) == names
    assert all((v != 0).all() for k, v in parts.sums().items() if k in names)


def test_many_images_give_what_each_gives_alone():
    encoder, classifier, images, classes = case(small(), 64, n=4)
    both = full_gradient(encoder, classifier, images, classes)
    for i in range(4):
        one = images[i : i + 1], classes[i : i + 1]
        alone = full_gradient(encoder, classifier, *one)
        assert_close(both.image[i : i + 1], alone.image)
        for name, part in alone.layers.items():
            assert_close(both.layers[name][i : i + 1], part)


def test_nothing_of_the_encoder_is_touched():
    encoder, classifier, images, classes = case(small(), 64)
    encoder.train()
    encoder.trunk.layer1.eval().requires_grad_(False)
    modes = [m.training for m in encoder.modules()]
    state = {k: v.clone() for k, v in encoder.state_dict().items()}
    images.requires_grad_()
    drawn = torch.get_rng_state()
    saliency(encoder, classifier, images, classes)
    assert [m.training for m in encoder.modules()] == modes
    assert_close(encoder.state_dict(), state, atol=0, rtol=0)
    weights = [*encoder.parameters(), *classifier.parameters(), images]
    assert all(w.grad is None for w in weights)
    assert not any(m._forward_hooks for m in encoder.modules())
    assert not any(m._forward_pre_hooks for m in encoder.modules())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_hooks_and_modes_are_put_back_after_an_error():
    encoder, _, images, classes = case(small(), 64)
    encoder.train()
    with pytest.raises(ValueError, match="of shape .n, 9., the encoder gives"):
        full_gradient(encoder, nn.Linear(9, 5), images, classes)
    assert all(m.training for m in encoder.modules())
    assert not any(m._forward_hooks for m in encoder.modules())


def test_frozen_encoders_and_surrounding_contexts_change_nothing():
    encoder, classifier, images, classes = case(small(), 64)
    maps = saliency(encoder, classifier, images, classes)
    encoder.requires_grad_(False)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = saliency(encoder, classifier, images, classes)
    with torch.inference_mode():
        third = saliency(encoder, classifier, images.clone(), classes)
    assert torch.equal(maps, again) and torch.equal(maps, third)


def test_bytes_are_explained_as_numbers_from_0_to_1():
    encoder, classifier, images, classes = case(small(), 64)
    images = (255 * images).to(torch.uint8)
    maps = saliency(encoder, classifier, images, classes)
    other = saliency(encoder, classifier, images / 255, classes)
    assert torch.equal(maps, other)


class Squash(nn.Module):
    def forward(self, x):
        return x.sigmoid()


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.GELU(), "GELU"),
        (nn.Sigmoid(), "Sigmoid"),
        (nn.SiLU(), "SiLU"),
        (nn.GroupNorm(2, 6), "GroupNorm"),
        (nn.LayerNorm([6, 22, 22]), "LayerNorm"),
        (nn.InstanceNorm2d(6), "InstanceNorm2d"),
        (nn.BatchNorm2d(6, track_running_stats=False), "BatchNorm2d"),
        (Squash(), "Squash"),
    ],
)
def test_what_is_not_piecewise_linear_is_refused_by_name(layer, name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), layer, nn.ReLU(), *head())
    with pytest.raises(ValueError, match=rf"not: encoder.1 \({name}\)$"):
        full_gradient(*case(network, 6))


def test_a_function_that_adds_an_unseen_constant_is_refused():
    class Shift(nn.Conv2d):
        pass

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = Shift(3, 6, 3)

        def forward(self, x):
            return (self.conv(x) + 1).relu().mean((2, 3))

    with pytest.raises(ValueError, match="some function in a forward method"):
        full_gradient(*case(Network(), 6))


def test_the_map_is_the_sum_of_layers_rescaled_as_a_whole():
    network = nn.Conv2d(3, 2, 1, bias=True), nn.ReLU(), *head()
    encoder, classifier, images, classes = case(nn.Sequential(*network), 2)
    parts = full_gradient(encoder, classifier, images, classes)
    expected = torch.zeros(3, 24, 24)
    for part in (parts.image, parts.layers["encoder.0"]):
        for i, layer in enumerate(part.abs()):
            layer = (layer - layer.min()) / (layer.max() - layer.min())
            expected[i] += layer.sum(0)
    expected /= expected.amax((1, 2), keepdim=True)
    assert_close(saliency(encoder, classifier, images, classes), expected)


def test_normalization_inside_the_encoder_draws_as_normalized_images():
    encoder, classifier, images, classes = case(small(coordinates=False), 64)
    trunk = nn.Sequential(encoder.trunk, encoder.pool, nn.Flatten())
    first = v2.Normalize(encoder.mean.flatten(), encoder.std.flatten())
    wrapped = nn.Sequential(first, trunk)  # what the docstrings advise
    expected = saliency(wrapped, classifier, images, classes)
    maps = saliency(encoder, classifier, images, classes)
    assert_close(maps, expected, atol=1e-4, rtol=1e-4)


def test_maps_lie_in_0_to_1_and_do_not_depend_on_the_batch():
    case_ = case(small(), 64, n=5)
    maps = saliency(*case_)
    assert maps.shape == (5, 24, 24)
    assert maps.min() >= 0
    assert_close(maps.amax((1, 2)), torch.ones(5))
    batches = saliency(*case_, batch_size=2)
    assert_close(maps, batches, atol=1e-4, rtol=1e-4)


def test_the_chosen_class_changes_the_map():
    encoder, classifier, images, classes = case(small(), 64)
    maps = saliency(encoder, classifier, images, classes)
    others = saliency(encoder, classifier, images, (classes + 1) % 5)
    assert (maps - others).abs().amax((1, 2)).min() > 0.01


def test_a_silent_network_has_an_empty_map():
    encoder, classifier, images, classes = case(small(), 64)
    nn.init.zeros_(classifier.weight)
    maps = saliency(encoder, classifier, images, classes)
    assert (maps == 0).all()
    assert mass_inside(maps, maps == 0).isnan().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(3, 24, 24)}, r"\(n, c, h, w\).*\(3, 24, 24\)"),
        ({"images": torch.rand(0, 3, 24, 24)}, "at least one image"),
        (
            {"classes": torch.tensor([0, 1])},
            r"classes must have shape \(3,\), got",
        ),
        ({"classes": torch.tensor([0, 1, 5])}, r"must be 0..4, got 0..5"),
        ({"classes": torch.tensor([0, -1, 1])}, r"must be 0..4, got -1..1"),
        ({"images": torch.full((3, 3, 24, 24), torch.nan)}, "from nan to nan"),
        ({"images": 255 * torch.ones(3, 3, 24, 24)}, "divide by 255"),
        ({"images": torch.ones(3, 3, 24, 24).long()}, "got torch.int64"),
        ({"images": torch.ones(3, 3, 24, 24) - 3}, "leave normalization to"),
        ({"classes": torch.zeros(3)}, "be whole numbers, got torch.float32"),
        ({"classes": torch.zeros(3).bool()}, "whole numbers, got torch.bool"),
        ({"encoder": nn.Sequential(nn.Flatten())}, "no convolution"),
        ({"classifier": nn.Linear(8, 5)}, r"\(n, 8\), the encoder gives"),
    ],
)
@pytest.mark.parametrize("function", [full_gradient, saliency])
def test_bad_input_is_refused_in_one_line(
    without_shape_checks, function, change, message
):
    names = "encoder", "classifier", "images", "classes"
    given = dict(zip(names, case(small(), 64))) | change
    with pytest.raises(ValueError, match=message) as error:
        function(**given)
    assert "\n" not in str(error.value)


def test_a_broken_weight_is_reported():
    encoder, classifier, images, classes = case(small(), 64)
    classifier.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="logits must be finite"):
        full_gradient(encoder, classifier, images, classes)


def test_mass_is_shared_by_hand():
    maps = torch.tensor([[[1.0, 3.0], [0.0, 4.0]]])
    mask = torch.tensor([[[True, True], [False, False]]])
    assert_close(mass_inside(maps, mask), torch.tensor([0.5]))
    assert_close(mass_ratio(maps, mask), torch.tensor([1.0]))
    assert_close(mass_ratio(maps, ~mask), torch.tensor([1.0]))
    assert mass_ratio(maps, mask & False).isnan().all()


@pytest.mark.parametrize(
    ("maps", "mask", "message"),
    [
        (
            torch.ones(1, 2, 2),
            torch.ones(1, 2, 3).bool(),
            r"both be \(n, h, w",
        ),
        (torch.ones(2, 2), torch.ones(2, 2).bool(), r"both be \(n, h, w"),
        (-torch.ones(1, 2, 2), torch.ones(1, 2, 2).bool(), "finite and >= 0"),
        (
            torch.full((1, 2, 2), torch.nan),
            torch.ones(1, 2, 2).bool(),
            "finite",
        ),
    ],
)
def test_bad_maps_are_refused(without_shape_checks, maps, mask, message):
    with pytest.raises(ValueError, match=message):
        mass_inside(maps, mask)


def blobs(n=90, d=8):
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(n) % 3
    centers = 20 * torch.eye(3, d)
    return centers[group] + torch.randn(n, d, generator=generator), group


@pytest.mark.parametrize("method", ["pacmap", "pca"])
def test_a_map_repeats_and_touches_no_random_state(method, caplog, capfd):
    if method == "pacmap":
        pytest.importorskip("pacmap")
    h, group = blobs()
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = map_2d(h, method, seed=3)
    assert first.method == method
    assert first.points.shape == (90, 2) and first.points.isfinite().all()
    assert (np.random.get_state()[1] == states[0]).all()
    assert torch.equal(torch.get_rng_state(), states[1])
    np.random.seed(1)
    assert torch.equal(map_2d(h, method, seed=3).points, first.points)
    assert neighbor_share(first.points, group, "categorical").neighbors == 1
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_the_seed_of_pacmap_matters():
    pytest.importorskip("pacmap")
    h, _ = blobs()
    maps = [map_2d(h, "pacmap", seed=seed).points for seed in (0, 1)]
    assert not torch.equal(*maps)


def test_without_pacmap_the_map_says_that_it_is_pca(monkeypatch):
    monkeypatch.setattr(explain, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pacmap", None)
    h, _ = blobs()
    assert map_2d(h).method == "pca"
    with pytest.raises(ValueError, match=r"pip install .ciper-book\[maps\]"):
        map_2d(h, "pacmap")


def test_principal_components_are_those_of_the_covariance():
    h, _ = blobs()
    h = h.double() * torch.arange(1, 9)
    points = map_2d(h.float(), "pca").points
    values, vectors = torch.linalg.eigh(h.T.cov())
    expected = (h - h.mean(0)) @ vectors.flip(1)[:, :2]
    assert_close(points.abs(), expected.abs().float(), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("h", "method", "message"),
    [
        (torch.rand(20, 8), "pacmap", r"n >= 36 and d >= 2, got \(20, 8\)"),
        (torch.rand(50, 1), "pca", r"d >= 2, got \(50, 1\)"),
        (torch.rand(50), "pca", r"got \(50,\)"),
        (torch.full((50, 3), torch.nan), "pca", "h must be finite"),
        (torch.rand(50, 3), "tsne", "unknown method 'tsne'"),
        (torch.ones(50, 3), "pca", "h must differ, got 50 times the same row"),
    ],
)
def test_what_cannot_be_mapped_is_refused(
    without_shape_checks, h, method, message
):
    with pytest.raises(ValueError, match=message):
        map_2d(h, method)


def test_neighbors_are_counted_as_a_loop_counts_them():
    h, group = blobs(30)
    h = h[:, 3:]  # without the centers: chance level
    angle = 12.0 * torch.arange(30)
    same, turn = [], []
    for i in range(30):
        far = (h - h[i]).norm(dim=1)
        far[i] = torch.inf
        for j in far.argsort()[:4]:
            same.append(float(group[i] == group[j]))
            around = (angle[i] - angle[j]).abs().item()
            turn.append(min(around, 360 - around))
    found = neighbor_share(h, group, "categorical", k=4)
    assert found.neighbors == pytest.approx(sum(same) / 120)
    assert found.chance == pytest.approx(9 / 29)
    found = neighbor_share(h, angle, "circular", k=4)
    assert found.neighbors == pytest.approx(sum(turn) / 120)
    assert found.chance == pytest.approx(90 * 30 / 29)


def test_chance_is_what_random_points_have():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2000, 2, generator=generator)
    group = torch.randint(0, 5, (2000,), generator=generator)
    angle = 360 * torch.rand(2000, generator=generator)
    found, chance = neighbor_share(points, group, "categorical")
    assert found == pytest.approx(chance, abs=0.01)
    found, chance = neighbor_share(points, angle, "circular", within=group)
    assert found == pytest.approx(chance, abs=2)


def test_within_a_group_only_its_members_are_neighbors():
    turn = torch.tensor([0.0, 10, 20, 180, 190, 200])
    points = torch.stack([torch.tensor([0.0, 1, 2, 0, 1, 2]), 0 * turn], 1)
    group = torch.arange(6) // 3
    mixed = neighbor_share(points, turn, "circular", k=1)
    inside = neighbor_share(points, turn, "circular", k=1, within=group)
    assert mixed.neighbors == 180
    assert inside == pytest.approx((10, 40 / 3))


def test_among_copies_the_order_of_the_data_decides_nothing():
    """25 of one class and 5 of another in each of 40 places."""
    place = torch.arange(40).repeat_interleave(30)
    group = (torch.arange(30) >= 25).long().repeat(40)
    points = 10.0 * torch.stack([place, place], 1)
    expected = (25 * 24 + 5 * 4) / (30 * 29)
    found = neighbor_share(points, group, "categorical").neighbors
    assert found == pytest.approx(expected, abs=0.02)  # 0.83 as they come


def test_a_seed_of_a_map_is_a_whole_number(without_shape_checks):
    h, _ = blobs()
    same = map_2d(h, "pca", np.int64(3)).points
    assert torch.equal(same, map_2d(h, "pca", 3).points)
    for seed in (0.5, "0", None, True, -1):
        with pytest.raises(ValueError, match="^seed must be "):
            map_2d(h, "pca", seed)


def test_defaults_of_a_program_change_no_explanation(strange_defaults):
    encoder, classifier, images, classes = case(small(), 64)
    points, turn = torch.rand(60, 2), 6.0 * torch.arange(60)
    given = encoder, classifier, (255 * images).byte(), classes

    def all_of_it():
        share = neighbor_share(points, turn, "circular", 3)
        return saliency(*given), map_2d(points, "pca").points, share

    maps, places, share = all_of_it()
    with strange_defaults():
        same = all_of_it()
    assert torch.equal(maps, same[0]) and maps.dtype == torch.float32
    assert torch.equal(places, same[1]) and share == same[2]


def test_copies_of_a_point_do_not_hide_its_neighbors():
    points = torch.zeros(4, 2)
    group = torch.tensor([0, 0, 0, 0])
    assert neighbor_share(points, group, "categorical", k=3) == (1, 1)


@settings(max_examples=20, deadline=None)
@given(st.floats(-720, 720, width=32))
def test_circular_differences_ignore_where_zero_is(offset):
    h, _ = blobs(24)
    angle = 15.0 * torch.arange(24)
    expected = neighbor_share(h, angle, "circular", k=3)
    found = neighbor_share(h, angle + offset, "circular", k=3)
    assert found == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "linear"}, "unknown kind 'linear'"),
        ({"k": 30}, r"k must be 1..29 .*, got 30"),
        ({"k": 0}, r"k must be 1..29 .*, got 0"),
        ({"within": torch.arange(30) // 10}, r"k must be 1..9 .*, got 10"),
        ({"values": torch.arange(29)}, r"\(30, 8\), 29 and 29"),
        ({"within": torch.zeros(29).long()}, r"\(30, 8\), 30 and 29"),
        ({"points": torch.rand(30)}, r"points \(n, d\) need n values"),
        ({"points": torch.full((30, 2), torch.nan)}, "must be finite"),
        (
            {"values": torch.full((30,), torch.nan), "kind": "circular"},
            "must be finite",
        ),
        ({"values": torch.rand(30)}, "values must be whole numbers"),
        ({"values": -torch.arange(30)}, r"values must be >= 0, got -29\.\.0"),
        ({"within": torch.rand(30)}, "within must be whole numbers"),
        (
            {"values": torch.ones(30).bool(), "kind": "circular"},
            "values must be degrees, got torch.bool",
        ),
        ({"k": 2.5}, "k must be whole, got 2.5"),
    ],
)
def test_what_has_no_neighbors_is_refused(
    without_shape_checks, change, message
):
    h, group = blobs(30)
    given = {"points": h, "values": group, "kind": "categorical"} | change
    with pytest.raises(ValueError, match=message):
        neighbor_share(**given)
