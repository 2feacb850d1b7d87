"""The encoders against torchvision, the heads against the paper."""

import pytest
import torch
import torchvision
from safetensors.torch import load, save
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from ciper.training.encoders import (
    Encoder,
    append_coordinates,
    load_weights,
    map_sides,
    predictor,
    projector,
)


def images(n=2, size=32, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, size, size, generator=generator)


def seeded(make, *args, seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*args, **settings)


def small_encoder(**settings):
    return seeded(Encoder, width=1 / 8, **settings)


def count(module):
    return sum(p.numel() for p in module.parameters())


def trunk_input(encoder, x):
    seen = []
    hook = encoder.trunk.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    encoder(x)
    hook.remove()
    return seen[0]


def test_coordinates_are_those_of_the_definition():
    h, w = 4, 7
    got = append_coordinates(torch.zeros(2, 3, h, w))[:, 3:]
    for i in range(h):
        for j in range(w):
            u, v = 2 * j / (w - 1) - 1, 2 * i / (h - 1) - 1
            assert got[:, 0, i, j].tolist() == pytest.approx([u, u], abs=1e-6)
            assert got[:, 1, i, j].tolist() == pytest.approx([v, v], abs=1e-6)


def test_coordinates_are_appended_behind_the_untouched_channels():
    x = images(channels=5)
    assert torch.equal(append_coordinates(x)[:, :5], x)
    assert append_coordinates(x).shape == (2, 7, 32, 32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_coordinates_keep_the_type_of_the_images(dtype):
    assert append_coordinates(images().to(dtype)).dtype == dtype


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_a_plain_encoder_is_torchvisions_resnet_to_the_last_bit(name):
    reference = seeded(getattr(torchvision.models, name))
    reference.fc = nn.Identity()
    plain = Encoder(name, stem="usual", coordinates=False)
    with torch.no_grad():
        reference(images(4, size=32))  # moves the running statistics
        plain.trunk.load_state_dict(reference.state_dict())
        x = images(2, size=32)
        wanted = reference.eval()((x - plain.mean) / plain.std)
        assert torch.equal(plain.eval()(x), wanted)
    assert plain.features == wanted.shape[1]


@pytest.mark.parametrize(
    "name, parameters",
    [("resnet18", 11176512), ("resnet34", 21284672), ("resnet50", 23508032)],
)
def test_plain_encoders_have_torchvisions_number_of_parameters(
    name, parameters
):
    with torch.device("meta"):
        plain = Encoder(name, stem="usual", coordinates=False)
    assert count(plain) == parameters


def test_the_papers_encoder_has_the_cifar_resnet18s_parameters_and_1152():
    with torch.device("meta"):
        encoder = Encoder()
    cifar_resnet18 = 11173962 - 513 * 10  # without its classifier
    assert count(encoder) == cifar_resnet18 + 2 * 9 * 64
    assert encoder.features == 512


@pytest.mark.parametrize(
    "name, width, features",
    [
        ("resnet18", 0.25, 128),
        ("resnet18", 0.3, 154),
        ("resnet34", 2.0, 1024),
        ("resnet50", 0.125, 256),
        ("resnet18", 1e-4, 1),
    ],
)
def test_features_is_the_width_of_the_representation(name, width, features):
    with torch.device("meta"):
        encoder = Encoder(name, width)
        h = encoder(torch.empty(2, 3, 32, 32))
    assert encoder.features == features
    assert h.shape == (2, features)


def multiplications(width):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Encoder(width=width)(torch.empty(2, 3, 32, 32))
    return counter.get_total_flops() / 4


def test_a_quarter_of_the_width_is_about_a_sixteenth_of_the_work():
    assert 15 < multiplications(1.0) / multiplications(0.25) < 16
    assert multiplications(1.0) == pytest.approx(557e6, rel=0.01)


@pytest.mark.parametrize(
    "stem, size, side",
    [("small", 32, 4), ("usual", 32, 1), ("usual", 96, 3), ("small", 64, 8)],
)
def test_the_stem_decides_the_side_of_the_last_feature_map(stem, size, side):
    encoder = small_encoder(stem=stem)
    maps = encoder.trunk(trunk_input(encoder, images(size=size)))
    assert maps.shape == (2, encoder.features, side, side)


def test_the_small_stem_is_the_papers():
    first = Encoder(width=1 / 8).trunk.conv1
    assert first.kernel_size == (3, 3) and first.stride == (1, 1)
    assert not any(isinstance(m, nn.MaxPool2d) for m in Encoder().modules())


def test_colors_are_normalized_and_then_coordinates_appended():
    x = images()
    encoder = small_encoder(mean=(0.1, 0.2, 0.3), std=(0.5, 2.0, 4.0))
    got = trunk_input(encoder, x)
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    std = torch.tensor([0.5, 2.0, 4.0]).view(1, 3, 1, 1)
    assert_close(got[:, :3], (x - mean) / std)
    assert torch.equal(got[:, 3:], append_coordinates(x)[:, 3:])


def test_without_coordinates_the_trunk_sees_the_colors_alone():
    encoder = small_encoder(coordinates=False)
    assert trunk_input(encoder, images()).shape[1] == 3


def test_coordinates_tell_an_encoder_where_a_pattern_lies():
    tiles = images(size=8).repeat(1, 1, 4, 4)
    shifted = tiles.roll(8, dims=3)
    assert torch.equal(tiles, shifted)
    marked, moved = tiles.clone(), tiles.clone()
    marked[..., 8:16, 8:16], moved[..., 8:16, 16:24] = 0, 0
    for coordinates in (False, True):
        encoder = small_encoder(coordinates=coordinates).eval()
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                module.padding_mode = "circular"
        change = (encoder(marked) - encoder(moved)).abs().max()
        assert (change > 1e-3) == coordinates


def test_one_entry_of_mean_and_std_makes_an_encoder_of_gray_images():
    encoder = small_encoder(mean=(0.5,), std=(0.25,))
    assert encoder(images(channels=1)).shape == (2, 64)


def test_normalization_travels_with_the_weights():
    encoder = small_encoder(mean=(0.5, 0.4, 0.3)).eval()
    other = small_encoder(seed=1).eval()
    other.load_state_dict(load(save(encoder.state_dict())))
    assert torch.equal(other(images()), encoder(images()))


def test_the_same_seed_gives_the_same_weights():
    first, again = small_encoder().state_dict(), small_encoder().state_dict()
    other = small_encoder(seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        first["trunk.conv1.weight"], other["trunk.conv1.weight"]
    )


def test_convolutions_start_with_the_variance_of_their_fan_out():
    trunk = seeded(Encoder).trunk
    for weight in (trunk.conv1.weight, trunk.layer3[0].conv2.weight):
        variance = 2 / (weight.shape[0] * weight[0, 0].numel())
        assert weight.var().item() == pytest.approx(variance, rel=0.1)
    assert (trunk.layer2[0].downsample[1].weight == 1).all()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_gradient_reaches_every_parameter(name):
    encoder = seeded(Encoder, name, 1 / 8)
    encoder(images(4, size=16)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in encoder.parameters())


def test_in_eval_mode_an_image_is_encoded_without_regard_to_the_others():
    encoder = small_encoder().eval()
    assert_close(encoder(images(4))[:1], encoder(images(4)[:1]))


def test_an_encoder_runs_under_bfloat16_autocast():
    encoder = small_encoder().eval()
    exact = encoder(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = encoder(images())
    assert_close(h.float(), exact, atol=0.05, rtol=0.05)


def kinds(head):
    return [type(layer).__name__ for layer in head]


def test_the_projector_is_the_papers_to_the_letter():
    head = projector(512)
    assert kinds(head) == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
        "BatchNorm1d",
    ]
    assert head[0].weight.shape == (2048, 512)
    assert head[3].weight.shape == (2048, 2048)
    assert head[0].bias is None and head[3].bias is None
    assert head[1].affine and not head[4].affine
    assert count(head) == 512 * 2048 + 2 * 2048 + 2048 * 2048


def test_the_predictor_is_the_papers_to_the_letter():
    head = predictor(512, 10)
    assert kinds(head) == ["Linear", "LayerNorm", "ReLU", "Linear"]
    assert head[0].weight.shape == (512, 512)
    assert head[3].weight.shape == (10, 512)
    assert head[0].bias is not None and head[3].bias is not None
    assert count(head) == 512 * 513 + 2 * 512 + 10 * 513


def test_narrower_heads_have_the_widths_asked_for():
    h = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    assert projector(64, hidden=32, out=16)(h).shape == (4, 16)
    assert predictor(64, 10, hidden=32)(h).shape == (4, 10)
    assert predictor(64, 10, hidden=32)[0].weight.shape == (32, 64)


def test_projections_are_standardized_over_the_batch():
    h = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    z = seeded(projector, 32, 64, 64)(h)
    assert_close(z.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    assert_close(z.var(0, correction=0), torch.ones(64), atol=1e-3, rtol=0)


def test_a_prediction_does_not_depend_on_the_rest_of_the_batch():
    h = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    head = seeded(predictor, 32, 10)
    assert_close(head(h)[:2], head(h[:2]))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"backbone": "resnet19"}, "^unknown backbone 'resnet19': did you"),
        ({"backbone": "ResNet-50"}, "did you mean 'resnet50'"),
        ({"backbone": ""}, "One of resnet18, resnet34, resnet50$"),
        ({"stem": "smal"}, "unknown stem 'smal': did you mean 'small'"),
        ({"width": 0.0}, "^width must be > 0, got 0.0$"),
        ({"width": -1.0}, "^width must be > 0, got -1.0$"),
        ({"width": float("nan")}, "^width must be a finite number, got nan$"),
        ({"width": float("inf")}, "^width must be a finite number, got inf$"),
        ({"mean": (0.5, float("nan"), 0.0)}, "^mean and std must be numbers"),
        ({"mean": (0.5,)}, "mean and std must have one length, got 1 and 3"),
        ({"std": (0.2, 0.0, 0.2)}, r"std must be > 0, got \(0.2, 0.0, 0.2\)"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        Encoder(**settings)


def test_the_nearest_backbone_is_named():
    with pytest.raises(ValueError, match="did you mean 'resnet34'"):
        Encoder("resnet-34")


def test_bytes_are_refused_with_the_cure(without_shape_checks):
    message = "float in .* got torch.uint8: divide by 255 or use ciper.embed"
    with pytest.raises(ValueError, match=message):
        small_encoder()((255 * images()).byte())


@pytest.mark.parametrize(
    "shape", [(2, 1, 8, 8), (3, 8, 8), (2, 8, 8, 3), (2, 3, 8)]
)
def test_images_of_another_layout_are_refused(shape, without_shape_checks):
    message = r"^images must be \(n, 3, h, w\), got \("
    with pytest.raises(ValueError, match=message):
        small_encoder()(torch.zeros(shape))


# sides of the maps, and weights from elsewhere


@pytest.mark.parametrize("stem", ["small", "usual"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_sides_of_the_maps_are_those_of_the_network(stem, backbone):
    trunk = Encoder(backbone, width=1 / 64, stem=stem).trunk.eval()
    found = []
    for i in range(1, 5):
        trunk.get_submodule(f"layer{i}").register_forward_hook(
            lambda *args: found.append(args[-1].shape[-1])
        )
    for size in 4, 8, 9, 16, 17, 31, 32, 33, 65:
        found.clear()
        trunk(torch.zeros(1, 5, size, size))
        assert map_sides(stem, size) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("mean"), "^weights of another network: mean is miss"),
        (lambda w: w.update(x=w["mean"]), "network: x is not known$"),
        (
            lambda w: w.update(mean=w["mean"][:1]),
            r"mean is \(1, 1, 1\), expected \(3, 1, 1\)$",
        ),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(change, message):
    encoder = Encoder(width=1 / 64)
    weights = dict(encoder.state_dict())
    change(weights)
    with pytest.raises(ValueError, match=message):
        load_weights(encoder, weights)


def test_networks_are_float32_whatever_the_default_type():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        usual = [Encoder(width=1 / 8), projector(8), predictor(8, 2)]
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            other = [Encoder(width=1 / 8), projector(8), predictor(8, 2)]
        finally:
            torch.set_default_dtype(torch.float32)
    for one, two in zip(usual, other):
        for name, weight in one.state_dict().items():
            assert torch.equal(weight, two.state_dict()[name]), name
            assert weight.dtype == two.state_dict()[name].dtype, name
