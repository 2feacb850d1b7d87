"""Recipes, determinism, checkpoints, exact resume, and what is refused."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ciper import Augment, Factor, ImageData, embed, files
from ciper.data.datasets import load
from ciper.data.sources import AugmentedViews, Neighbors
from ciper.files import load_tensors, save_tensors
from ciper.reproduce.plans import neighbors_watch
from ciper.training import trainer as module
from ciper.training.losses import nt_xent, predictive_loss
from ciper.training.methods.simclr import SimCLR
from ciper.training.trainer import (
    Monitor,
    OutOfTime,
    Recipe,
    base_scale,
    choose_precision,
    choose_threads,
    cosine,
    default_fabric,
    export_run,
    fit,
    load_run,
    recipe_at,
)


@pytest.fixture(scope="module")
def digits():
    return load("digits", 16).subset(torch.arange(160))


@pytest.fixture(scope="module")
def recipe():
    return recipe_at("smoke", data="digits", size=16, epochs=4)


@pytest.fixture(scope="module")
def whole(recipe, digits):
    """All four epochs, undisturbed."""
    return run(recipe, digits)


def run(recipe, data, out=None, **options):
    return fit(recipe, data, out, progress=False, **options)


def assert_same_weights(a, b):
    one, other = a.encoder.state_dict(), b.encoder.state_dict()
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


class Stop:
    """Raises once, when the views of a given batch are asked for."""

    def __init__(self, monkeypatch, batch, error=KeyboardInterrupt):
        self.left, self.error = batch, error
        self.original = AugmentedViews.__call__
        monkeypatch.setattr(
            AugmentedViews, "__call__", lambda *a: self.call(*a)
        )

    def call(self, *arguments):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.original(*arguments)


def test_the_same_seed_gives_the_same_weights_twice(recipe, digits, whole):
    assert_same_weights(run(recipe, digits), whole)


def test_another_seed_gives_other_weights(recipe, digits):
    short = replace(recipe, epochs=1)
    one, other = (
        next(run(replace(short, seed=s), digits).encoder.parameters())
        for s in (0, 1)
    )
    assert not torch.equal(one, other)


def test_training_leaves_the_global_random_state_alone(recipe, digits):
    before = torch.get_rng_state()
    run(replace(recipe, epochs=1), digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_four_epochs_equal_two_and_two_resumed(
    recipe, digits, whole, tmp_path, monkeypatch
):
    Stop(monkeypatch, batch=13)  # 5 batches an epoch: in the third epoch
    with pytest.raises(KeyboardInterrupt):
        run(recipe, digits, tmp_path)
    resumed = run(recipe, digits, tmp_path, resume=True)
    assert_same_weights(whole, resumed)
    losses = [epoch["contrastive"] for epoch in whole.history]
    assert [e["contrastive"] for e in resumed.history] == losses


def test_a_finished_run_is_read_back(recipe, digits, tmp_path):
    done = run(replace(recipe, epochs=1), digits, tmp_path)
    again = load_run(tmp_path)
    assert_same_weights(done, again)
    assert again.recipe == done.recipe
    assert again.history == done.history
    assert not again.encoder.training


def test_resuming_a_finished_run_trains_no_further(recipe, digits, tmp_path):
    done = run(replace(recipe, epochs=1), digits, tmp_path)
    again = run(replace(recipe, epochs=1), digits, tmp_path, resume=True)
    assert_same_weights(done, again)
    assert again.history == done.history


def test_a_run_in_the_folder_is_not_touched_unasked(recipe, digits, tmp_path):
    short = replace(recipe, epochs=1)
    run(short, digits, tmp_path)
    files = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="resume or overwrite"):
        run(short, digits, tmp_path)
    with pytest.raises(FileExistsError, match="other settings of alpha"):
        run(replace(short, alpha=2.0), digits, tmp_path, resume=True)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == files


def test_overwrite_starts_anew(recipe, digits, tmp_path):
    short = replace(recipe, epochs=1)
    run(short, digits, tmp_path)
    other = run(replace(short, seed=5), digits, tmp_path, overwrite=True)
    assert_same_weights(load_run(tmp_path), other)
    assert json.loads((tmp_path / "recipe.json").read_text())["seed"] == 5


def test_an_unfinished_run_cannot_be_loaded(
    tmp_path, recipe, digits, monkeypatch
):
    Stop(monkeypatch, batch=7)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, digits, tmp_path)
    with pytest.raises(FileNotFoundError, match="is not finished; resume it"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a run"):
        load_run(tmp_path / "elsewhere")


def test_a_write_that_dies_leaves_the_last_checkpoint(
    recipe, digits, whole, tmp_path, monkeypatch
):
    real, saves = files.save_file, []

    def dies(tensors, path, *rest):
        saves.append(path)
        if len(saves) == 2:
            path.write_bytes(b"half")
            raise OSError("disk full")
        real(tensors, path, *rest)

    monkeypatch.setattr(files, "save_file", dies)
    with pytest.raises(OSError, match="disk full"):
        run(recipe, digits, tmp_path)
    monkeypatch.undo()
    resumed = run(recipe, digits, tmp_path, resume=True)
    assert_same_weights(resumed, whole)


def test_a_loss_that_is_not_finite_stops_and_names_its_part(
    recipe, digits, whole, tmp_path, monkeypatch
):
    real, calls = SimCLR.contrast, []

    def breaks(self, h1, h2):
        calls.append(1)
        loss = real(self, h1, h2)
        return loss * math.nan if len(calls) > 7 else loss

    monkeypatch.setattr(SimCLR, "contrast", breaks)
    with pytest.raises(
        FloatingPointError, match="the contrastive loss.*step 3"
    ):
        run(recipe, digits, tmp_path)
    monkeypatch.undo()
    resumed = run(recipe, digits, tmp_path, resume=True)
    assert_same_weights(resumed, whole)


# in time


class Clock:
    """Stands still but for the epochs, which take as long as told."""

    def __init__(self, *epochs):
        self.now, self.epochs, self.begun = 0.0, iter(epochs), False

    def time(self):
        return self.now

    def perf_counter(self):
        self.now += next(self.epochs) if self.begun else 0
        self.begun = not self.begun
        return self.now


@pytest.mark.parametrize(
    ("until", "count"), [(0.0, 0), (32.0, 1), (72.0, 2), (74.0, 3)]
)
def test_an_epoch_as_slow_as_the_slowest_must_fit_and_a_tenth_more(
    recipe, digits, monkeypatch, until, count
):
    """30 and 33 seconds, 40 and 33, 50 and 33."""
    monkeypatch.setattr(module, "time", Clock(30, 10, 10))
    with pytest.raises(OutOfTime, match=f"^time is up after {count} of 4 ep"):
        run(recipe, digits, until=until)


def test_a_run_out_of_time_goes_on_to_the_same_weights(
    recipe, digits, whole, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        for clock, until in (Clock(9, 9), 20.0), (Clock(), 0.0):
            patch.setattr(module, "time", clock)
            with pytest.raises(OutOfTime, match="after 2 of 4 epochs$"):
                run(recipe, digits, tmp_path, resume=True, until=until)
    with pytest.raises(FileNotFoundError, match="not finished; resume it"):
        load_run(tmp_path)
    resumed = run(recipe, digits, tmp_path, resume=True)
    assert_same_weights(resumed, whole)
    losses = [epoch["contrastive"] for epoch in whole.history]
    assert [e["contrastive"] for e in resumed.history] == losses
    assert [e["seconds"] for e in resumed.history[:2]] == [9, 9]


@pytest.mark.parametrize("method", ["random", "simclr"])
def test_what_needs_no_epoch_is_never_out_of_time(
    recipe, digits, tmp_path, method
):
    short = replace(recipe, method=method, epochs=1)
    run(short, digits, tmp_path)
    again = run(short, digits, tmp_path, resume=True, until=time.time())
    assert len(again.history) == (method != "random")


# watched


def test_an_encoder_is_watched_ten_times():
    assert module.WATCHES == 10


def test_a_watched_training_has_the_values_and_the_same_weights(
    recipe, digits, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "WATCHES", 2)
    look, seen = neighbors_watch(digits, digits), []

    def watch(encoder):
        seen.append(look(encoder)["knn_accuracy"])
        return {"knn_accuracy": seen[-1]}

    watched = run(recipe, digits, tmp_path, watch=watch)
    assert_same_weights(watched, whole)
    curve = [e.get("knn_accuracy") for e in load_run(tmp_path).history]
    assert curve == [None, seen[0], None, seen[1]]
    assert seen[1] == look(watched.encoder)["knn_accuracy"]


# given away


def test_an_exported_run_has_half_the_bytes_and_every_bias(whole, tmp_path):
    path, weights = tmp_path / "small.safetensors", whole.encoder.state_dict()
    export_run(whole, path)
    size = sum(weight.nbytes for weight in weights.values())
    assert path.stat().st_size / size == pytest.approx(0.5, abs=0.05)
    small = load_run(path).encoder.state_dict()
    assert small.keys() == weights.keys()
    for name, weight in weights.items():
        assert small[name].dtype == weight.dtype
        tolerance = 2**-8 if weight.ndim > 1 else 0
        torch.testing.assert_close(
            small[name], weight, rtol=tolerance, atol=0, msg=name
        )


def test_an_exported_run_sees_almost_the_same(whole, digits, tmp_path):
    export_run(whole, tmp_path / "small.safetensors")
    small = load_run(tmp_path / "small.safetensors")
    assert (small.recipe, small.history) == (whole.recipe, whole.history)
    assert not small.encoder.training
    h, close = (embed(r.encoder, digits.images) for r in (whole, small))
    assert 0 < (close - h).norm() / h.norm() < 0.01


def test_a_random_encoder_can_be_exported(recipe, digits, tmp_path):
    done = run(replace(recipe, method="random"), digits)
    export_run(done, tmp_path / "random.safetensors")
    small = load_run(tmp_path / "random.safetensors")
    assert (small.recipe, small.history) == (done.recipe, [])


def test_the_monitor_names_the_part_that_broke_first():
    monitor = Monitor()
    nan, one = torch.tensor(math.nan), torch.tensor(1.0)
    monitor.add({"contrastive": one, "predictive": one})
    monitor.add({"contrastive": one, "predictive": nan})
    monitor.add({"contrastive": nan, "predictive": nan})
    with pytest.raises(FloatingPointError, match="predictive loss.*step 2"):
        monitor.means()


def test_the_learning_rate_is_a_cosine_without_warm_up():
    recipe = Recipe(learning_rate=0.03)
    rates = [cosine(recipe, t, 100) for t in (0, 25, 50, 100)]
    expected = [0.03, 0.015 * (1 + math.sqrt(0.5)), 0.015, 0.0]
    assert rates == pytest.approx(expected)


def test_the_rate_of_each_step_is_the_cosines(recipe, digits, monkeypatch):
    rates, real = [], torch.optim.SGD.step

    def step(self, *arguments, **options):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    run(replace(recipe, epochs=2), digits)
    assert rates == [cosine(recipe, t, 10) for t in range(10)]


def test_a_random_encoder_is_left_as_it_was_initialized(recipe, digits):
    done = run(replace(recipe, method="random"), digits)
    fresh = module.build_encoder(recipe).state_dict()
    for name, weight in done.encoder.state_dict().items():
        assert torch.equal(weight, fresh[name])


def test_all_methods_start_from_the_same_encoder(recipe):
    one, other = (
        module.build(replace(recipe, method=name), (0,)).encoder.state_dict()
        for name in ("simclr", "ciper")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_trained_encoder_is_in_eval_mode(recipe, digits):
    done = run(replace(recipe, epochs=1), digits)
    assert not any(m.training for m in done.encoder.modules())


def test_dataset_augmentations_need_partners(recipe, digits):
    with pytest.raises(ValueError, match="no partner views"):
        run(replace(recipe, views="dataset"), digits)


@pytest.mark.parametrize("method", ["simclr", "ciper"])
def test_a_training_learns_from_neighbors_in_time(recipe, method):
    data = load("turntable", 16, progress=False)
    data = data.subset(data.factors["object"].values < 3)
    turning = dict(data="turntable", views="next", method=method, epochs=1)
    done = run(replace(recipe, **turning), data)
    assert done.recipe.views == "next"
    assert all(math.isfinite(x) for x in done.history[-1].values())
    source = module.view_source(done.recipe, data)
    assert isinstance(source.companions, Neighbors)


def test_a_sample_too_thin_for_neighbors_is_refused(recipe):
    thin = replace(recipe, data="turntable", views="next", images=192)
    with pytest.raises(ValueError, match="take all images .images=0"):
        run(thin, module.training_images(thin, False))


def test_a_batch_larger_than_the_data_is_refused(recipe, digits):
    with pytest.raises(
        ValueError, match="batch_size 161 is larger than the 160"
    ):
        run(replace(recipe, batch_size=161), digits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number"),
        ({"batch_size": 1}, "batch_size must be >= 2, got 1"),
        ({"alpha": -1.0}, "alpha must be >= 0, got -1"),
        ({"method": "simclir"}, "did you mean 'simclr'"),
        ({"views": "images"}, "did you mean 'image'"),
        ({"preset": "papr"}, "preset 'papr'"),
        ({"backbone": "resnet81"}, "did you mean 'resnet18'"),
    ],
)
def test_a_recipe_says_what_it_expected(digits, settings, message):
    with pytest.raises(ValueError, match=message):
        settings = {"data": "digits", "batch_size": 16, **settings}
        run(Recipe(size=16, **settings), digits)


def test_an_unknown_scale_is_refused():
    with pytest.raises(
        ValueError, match="unknown scale 'lptop'[:;] did you mean"
    ):
        recipe_at("lptop")


@pytest.mark.parametrize(
    ("scale", "changes"), [("paper-100", {"epochs": 100}), ("paper", {})]
)
def test_a_scale_may_have_another_number_of_epochs(scale, changes):
    assert base_scale(scale) == ("paper", changes)
    usual = asdict(recipe_at("paper", data="digits"))
    found = asdict(recipe_at(scale, data="digits"))
    assert found == usual | changes


def test_epochs_that_are_given_go_before_those_of_the_scale():
    assert recipe_at("smoke-20", data="digits", epochs=5).epochs == 5


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("paper-", "number of epochs, as in paper-100"),
        ("paper-x", "number of epochs, as in paper-100"),
        ("paper-0", "number of epochs, as in paper-100"),
        ("paper-0100", "number of epochs, as in paper-100"),
        ("paper--5", "number of epochs, as in paper-100"),
        ("laptop-1.5", "number of epochs, as in laptop-100"),
        ("huge-3", "unknown scale 'huge': did you mean"),
        ("-3", "unknown scale ''"),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused_in_one_line(scale, message):
    with pytest.raises(ValueError, match=message) as error:
        recipe_at(scale)
    assert "\n" not in str(error.value)


# what a recipe trains on, and the views it takes


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        ("crop", {"x", "y", "height", "width"}),
        ("flip", {"flip"}),
        ("jitter", {"brightness", "contrast", "saturation", "hue"}),
        ("grayscale", {"grayscale"}),
    ],
)
def test_an_operation_left_out_is_in_no_view_and_no_target(
    recipe, digits, without, gone
):
    whole = module.view_source(recipe, digits)
    part = module.view_source(replace(recipe, without=without), digits)
    assert len(whole.names) == 10
    assert set(whole.names) - set(part.names) == gone
    assert list(part.names) == [n for n in whole.names if n not in gone]
    heads = module.build(replace(recipe, without=without), part.classes)
    assert heads.predictor[-1].out_features == 10 - len(gone)


def test_only_without_grayscale_no_view_is_gray(recipe):
    """A fifth of the views of a red image are gray otherwise."""
    red = torch.zeros(500, 3, 16, 16, dtype=torch.uint8)
    red[:, 0], red[:, 1] = 200, 80
    data = ImageData("red", red, torch.zeros(500).long(), ("red",))
    shares = []
    for without in ("grayscale", "flip"):
        source = module.view_source(replace(recipe, without=without), data)
        generator = torch.Generator().manual_seed(0)
        x, _ = source(data, torch.arange(500), generator).views
        gray = (x.amax(1) - x.amin(1)).amax((1, 2)) < 1e-4
        shares.append(gray.float().mean().item())
    assert shares[0] == 0
    assert shares[1] == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"without": "flipp"}, "no operation 'flipp', expected one of crop"),
        ({"images": 5000}, "cannot draw 5000 of 1438 images"),
        ({"images": -1}, "images must be >= 0, got -1"),
    ],
)
def test_an_impossible_selection_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        recipe = recipe_at("smoke", data="digits", size=16, **settings)
        fit(recipe, progress=False)


def test_a_recipe_trains_on_as_many_images_as_it_says(recipe):
    whole = module.training_images(recipe, False)
    some = module.training_images(replace(recipe, images=100), False)
    again = module.training_images(replace(recipe, images=100, seed=7), False)
    assert (len(whole), len(some)) == (1438, 100)
    assert torch.equal(some.images, again.images)  # other seeds, same images
    place = {
        image.numpy().tobytes(): i for i, image in enumerate(whole.images)
    }
    found = [place[image.numpy().tobytes()] for image in some.images]
    assert torch.equal(whole.labels[found], some.labels)
    assert found != sorted(found)  # not the first ones
    assert torch.equal(whole.sample(100).images, some.images)


def test_fit_draws_the_images_of_the_recipe_itself(recipe):
    short = replace(recipe, images=64, epochs=1)
    given = run(short, module.training_images(short, False))
    assert_same_weights(run(short, None), given)


def test_essl_gets_a_small_view_of_every_anchor(recipe, digits):
    source = module.view_source(replace(recipe, method="essl"), digits)
    index = torch.arange(5)
    batch = source(digits, index, torch.Generator().manual_seed(0))
    assert batch.small.shape == (5, 3, 8, 8)
    assert batch.views[0].shape == (5, 3, 16, 16)
    assert 0 <= batch.small.min() < batch.small.max() <= 1
    flat = batch.small.flatten(1)
    assert not torch.equal(flat[0], flat[1])


@pytest.mark.parametrize("method", ["simclr", "predictive", "ciper"])
def test_other_methods_get_no_small_view(recipe, digits, method):
    source = module.view_source(replace(recipe, method=method), digits)
    generator = torch.Generator().manual_seed(0)
    assert source(digits, torch.arange(5), generator).small is None


def test_essl_sees_the_views_that_simclr_sees(recipe, digits):
    one, other = (
        module.view_source(replace(recipe, method=name), digits)(
            digits, torch.arange(9), torch.Generator().manual_seed(0)
        )
        for name in ("simclr", "essl")
    )
    assert all(torch.equal(a, b) for a, b in zip(one.views, other.views))


def test_essl_trains_both_of_its_losses(recipe, digits):
    done = run(replace(recipe, method="essl", epochs=2), digits)
    first, last = done.history
    assert {"contrastive", "rotation"} <= first.keys()
    assert 0 < last["rotation"] < first["rotation"] < 2 * math.log(4)


def test_essl_on_dataset_views_is_refused(recipe):
    turning = replace(recipe, data="turntable", views="dataset")
    data = module.training_images(replace(turning, images=600), False)
    with pytest.raises(ValueError, match="essl needs small views"):
        run(replace(turning, method="essl"), data)


# a recipe is right or refused

ODD = [
    *(None, "x", "", True, 1.5, 0, -1, math.nan, math.inf, -math.inf),
    *(10**400, -(10**400), [], {}, b"x", 2 + 0j, object(), 2**63, 1e308),
    *(torch.tensor(1), np.float64("nan"), np.array([1, 2]), "papr"),
]


@pytest.mark.parametrize("field", fields(Recipe), ids=lambda f: f.name)
def test_an_odd_setting_is_refused_in_one_line_or_right(
    without_shape_checks, field
):
    kind = type(field.default)
    for odd in ODD:
        try:
            value = getattr(Recipe(**{field.name: odd}), field.name)
        except ValueError as error:
            assert "\n" not in str(error)
            words = str(error).replace("_", " ")
            named = field.name.replace("_", " ") in words
            assert named or field.name == "without", words
        else:
            assert type(value) is kind
            assert (odd is True) == (kind is bool)
            assert kind is not float or math.isfinite(value)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("epochs", 1.5, "epochs must be a whole number, got 1.5"),
        ("epochs", "9", "epochs must be a whole number, got '9'"),
        ("width", 0, "width must be > 0, got 0"),
        ("width", math.inf, "width must be a finite number, got inf"),
        ("alpha", True, "alpha must be a finite number, got True"),
        ("images", True, "images must be a whole number, got True"),
        ("data", None, "data must be text, got None"),
        ("coordinates", 1, "coordinates must be True or False, got 1"),
        ("size", 7, "size must be >= 8, got 7"),
        ("size", 16.5, "size must be a whole number, got 16.5"),
        ("batch_size", 2.5, "batch_size must be a whole number, got 2.5"),
        ("projector_width", 0, "projector_width must be >= 1, got 0"),
        ("seed", -1, "seed must be >= 0, got -1"),
        ("seed", 2**63, f"seed must be <= {2**63 - 2}, got {2**63}"),
        ("stem", "smal", "unknown stem 'smal': did you mean 'small'"),
        ("precision", "float16", "unknown precision 'float16'"),
        ("without", "flipp", "no operation 'flipp', expected one of crop"),
    ],
)
def test_a_wrong_setting_is_told_what_was_expected(
    without_shape_checks, name, wrong, message
):
    with pytest.raises(ValueError) as error:
        Recipe(**{name: wrong})
    assert str(error.value).startswith(message)


def test_numbers_of_numpy_become_plain(without_shape_checks):
    recipe = Recipe(
        epochs=np.int64(3), width=np.float32(0.25), coordinates=np.True_
    )
    assert recipe == Recipe(epochs=3, width=0.25, coordinates=True)
    kinds = [type(getattr(recipe, f.name)) for f in fields(Recipe)]
    assert kinds == [type(f.default) for f in fields(Recipe)]
    json.dumps(asdict(recipe))


# precision


@pytest.mark.parametrize(
    ("stem", "size", "method", "expected"),
    [
        ("small", 8, "simclr", "bfloat16"),
        ("small", 8, "essl", "float32"),  # its small views have 4 pixels
        ("small", 9, "essl", "float32"),
        ("small", 10, "essl", "bfloat16"),
        ("usual", 16, "ciper", "float32"),
        ("usual", 17, "ciper", "bfloat16"),
        ("usual", 33, "essl", "float32"),
        ("usual", 34, "essl", "bfloat16"),
        ("usual", 32, "simclr", "bfloat16"),
        ("small", 32, "essl", "bfloat16"),
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_where_it_is_fast_and_no_map_is_one_pixel(
    monkeypatch, stem, size, method, expected, fast
):
    monkeypatch.setattr(module, "_bfloat16_is_fast", lambda: fast)
    recipe = Recipe(stem=stem, size=size, method=method)
    assert choose_precision(recipe) == (expected if fast else "float32")


def test_six_trainings_on_maps_of_one_pixel_have_one_outcome():
    recipe = recipe_at(
        "smoke", data="digits", size=8, method="essl", batch_size=16
    )
    data = load("digits", 8).subset(torch.arange(96))
    first, *others = (run(recipe, data) for _ in range(6))
    assert first.precision == "float32"
    for other in others:
        assert_same_weights(first, other)


def test_bfloat16_on_maps_of_one_pixel_is_warned_of(monkeypatch):
    recipe = Recipe(stem="usual", size=16, precision="bfloat16")
    with pytest.warns(UserWarning, match="bfloat16 with views of 16 pixels"):
        assert choose_precision(recipe) == "bfloat16"
    assert choose_precision(replace(recipe, size=32)) == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_precision_of_the_recipe_is_used_and_kept(
    recipe, digits, tmp_path, precision
):
    short = replace(recipe, epochs=1, precision=precision)
    seen, real = [], SimCLR.contrast

    def contrast(self, h1, h2):
        seen.append(h1.dtype)
        return real(self, h1, h2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimCLR, "contrast", contrast)
        done = run(short, digits, tmp_path)
    assert set(seen) == {getattr(torch, precision)}
    assert done.precision == load_run(tmp_path).precision == precision
    _, about = load_tensors(tmp_path / "checkpoint.safetensors")
    assert about["precision"] == precision
    export_run(done, tmp_path / "small")
    assert load_run(tmp_path / "small").precision == precision


def test_the_precision_of_a_given_fabric_is_used_and_kept(recipe, digits):
    short = replace(recipe, epochs=1)
    for precision, name in module.PRECISIONS.items():
        fabric = Fabric(accelerator="cpu", devices=1, precision=name)
        assert run(short, digits, fabric=fabric).precision == precision


def test_a_fabric_of_another_precision_than_the_recipes_is_refused(recipe):
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    with pytest.raises(
        ValueError, match="float32 in the recipe and bfloat16 in the fabric"
    ):
        fit(replace(recipe, precision="float32"), fabric=fabric)


# threads


@pytest.fixture
def two_threads(monkeypatch):
    """As on a machine of two processors where nobody said how many."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "_quota", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def chosen(recipe):
    method = module.build(recipe, (0,))
    return choose_threads(recipe, method, default_fabric("float32"))


def test_small_steps_get_one_thread_and_very_large_ones_all(two_threads):
    assert chosen(recipe_at("smoke")) == chosen(recipe_at("laptop")) == 1
    assert chosen(Recipe()) == 2


def test_no_more_threads_than_the_machine_lets(two_threads, monkeypatch):
    monkeypatch.setattr(module, "_quota", lambda: 1)
    assert chosen(Recipe()) == 1


def test_the_users_environment_goes_before_the_rule(two_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert chosen(recipe_at("smoke")) == 2


@pytest.mark.parametrize(
    ("text", "count"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)],
)
def test_a_containers_limit_is_read(tmp_path, monkeypatch, text, count):
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert module._quota(tmp_path) == count


def test_the_work_of_an_image_is_what_torch_counts():
    for settings in {}, {"stem": "usual", "size": 96}:
        recipe = Recipe(**settings)
        with torch.device("meta"):
            encoder = module.build_encoder(recipe).eval()
            images = torch.empty(1, 3, recipe.size, recipe.size)
        with FlopCounterMode(display=False) as counter:
            encoder(images)
        counted = counter.get_total_flops() / 2
        work = module._image_work(recipe, encoder)
        assert work == pytest.approx(counted, rel=0.2)


def test_threads_are_used_kept_and_set_back(recipe, digits, tmp_path):
    before, seen = torch.get_num_threads(), []

    def watch(_):
        seen.append(torch.get_num_threads())
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WATCHES", 1)
        short = replace(recipe, epochs=1)
        done = run(short, digits, tmp_path, threads=3, watch=watch)
    assert seen == [3] and torch.get_num_threads() == before
    assert done.threads == load_run(tmp_path).threads == 3
    again = run(short, digits, tmp_path, resume=True)
    assert again.threads == 3  # the checkpoint's
    with pytest.raises(ValueError, match="threads must be >= 1, got 0"):
        run(short, digits, threads=0)


def test_threads_are_set_back_after_an_interruption(
    recipe, digits, monkeypatch
):
    before = torch.get_num_threads()
    Stop(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, digits, threads=before + 1)
    assert torch.get_num_threads() == before


# resuming onto something else


@pytest.fixture(scope="module")
def finished(recipe, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(replace(recipe, epochs=1), digits, folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished run of one epoch."""
    return shutil.copytree(finished, tmp_path / "run")


def rewrite(path, change):
    tensors, about = load_tensors(path)
    change(tensors, about)
    save_tensors(path, tensors, about)


def resume(folder, data, **options):
    return run(load_run(folder).recipe, data, folder, resume=True, **options)


def other_images(data):
    images = data.images.clone()
    images[-1, 0, 0, 0] ^= 1
    return replace(data, images=images)


def other_labels(data):
    labels = data.labels.clone()
    labels[0] += 1
    return replace(data, labels=labels)


def other_factors(data):
    values = torch.arange(float(len(data)))
    return replace(data, factors={"size": Factor(values, "continuous")})


@pytest.mark.parametrize("change", [other_images, other_labels, other_factors])
def test_other_images_are_refused(folder, digits, change):
    assert resume(folder, digits)
    with pytest.raises(FileExistsError, match="with other images .*overwrite"):
        resume(folder, change(digits))


def test_the_fingerprint_knows_names_kinds_and_partners(digits):
    values = torch.arange(float(len(digits)))
    factor = Factor(values, "continuous")
    circular = Factor(values, "circular")
    data = replace(digits, factors={"size": factor})
    seen = [
        data,
        replace(data, factors={"weight": factor}),
        replace(data, factors={"size": circular}),
        replace(data, partners=("size",)),
        replace(data, images=data.images.flip(0)),
    ]
    assert len({module.fingerprint(one) for one in seen}) == len(seen)
    assert module.fingerprint(replace(data)) == module.fingerprint(data)


def test_another_precision_is_refused(folder, digits):
    now = load_run(folder).precision
    other = {"float32": "bf16-mixed", "bfloat16": "32-true"}[now]
    fabric = Fabric(accelerator="cpu", devices=1, precision=other)
    with pytest.raises(FileExistsError, match="with other precision"):
        resume(folder, digits, fabric=fabric)


def test_a_checkpoint_of_another_recipe_is_refused(folder, digits):
    def change(_, about):
        about["recipe"] |= {"alpha": 2.0, "seed": 3}

    rewrite(folder / "checkpoint.safetensors", change)
    with pytest.raises(FileExistsError, match=r"other recipe \(alpha, seed\)"):
        resume(folder, digits)


@pytest.mark.parametrize(
    ("name", "then"), [("torch", "1.0"), ("device", "GPU"), ("ciper", "0.0")]
)
def test_what_may_change_the_last_digits_is_warned_of(
    folder, digits, name, then
):
    path = folder / "checkpoint.safetensors"
    rewrite(path, lambda _, about: about.update({name: then}))
    with pytest.warns(UserWarning, match=f"{name} {then}, now"):
        resume(folder, digits)


def test_another_number_of_threads_is_warned_of(folder, digits):
    with pytest.warns(UserWarning, match="threads 1, now 2"):
        assert resume(folder, digits, threads=2).threads == 2


def test_a_checkpoint_from_before_is_resumed_with_a_warning(folder, digits):
    def change(_, about):
        for name in about.keys() - {"recipe", "history"}:
            del about[name]
        del about["recipe"]["precision"]

    rewrite(folder / "checkpoint.safetensors", change)
    before = load_run(folder)
    with pytest.warns(UserWarning, match="images not known"):
        assert_same_weights(resume(folder, digits), before)


def test_a_run_from_before_is_loaded_and_resumed(folder, digits):
    def change(_, about):
        for name in about.keys() - {"recipe", "history"}:
            del about[name]
        del about["recipe"]["precision"]

    rewrite(folder / "encoder.safetensors", change)
    old = json.loads((folder / "recipe.json").read_text())
    del old["precision"]
    (folder / "recipe.json").write_text(json.dumps(old))
    done = load_run(folder)
    assert (done.precision, done.threads) == ("", 0)
    assert done.recipe.precision == "auto"
    assert_same_weights(resume(folder, digits), done)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def spoil(path):
    def change(tensors, _):
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = tensor * math.nan

    rewrite(path, change)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def reshape(path):
    def change(tensors, _):
        name = next(k for k in tensors if k.endswith("conv1.weight"))
        tensors[name] = tensors[name][:1]

    rewrite(path, change)


def rename(path):
    rewrite(path, lambda _, about: about["recipe"].update(lr=0.1))


def replace_by_photo(path):
    Image.new("RGB", (9, 9)).save(path, format="png")


DAMAGE = [
    (flip, "is damaged"),
    (spoil, "not finite"),
    (cut, "cut or damaged"),
    (reshape, "conv1.weight is"),
    (rename, "settings that no recipe knows: lr"),
    (replace_by_photo, "no safetensors file"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_checkpoint_is_refused(folder, digits, damage, message):
    recipe = load_run(folder).recipe
    damage(folder / "checkpoint.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        run(recipe, digits, folder, resume=True)
    text = str(error.value)
    assert "checkpoint.safetensors" in text and "\n" not in text
    assert "overwrite to start anew" in text
    run(recipe, digits, folder, overwrite=True)


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_encoder_is_refused(folder, damage, message):
    damage(folder / "encoder.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        load_run(folder)
    text = str(error.value)
    assert "encoder.safetensors" in text and "\n" not in text


def test_weights_that_end_not_finite_are_no_encoder(
    recipe, digits, tmp_path, monkeypatch
):
    real = torch.optim.SGD.step

    def step(self, *arguments, **options):
        real(self, *arguments, **options)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(math.inf)

    short = replace(recipe, epochs=1, batch_size=160)
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(FloatingPointError, match="not finite after epoch 1"):
        run(short, digits, tmp_path)
    assert not [*tmp_path.glob("*.safetensors")]


# folders


def test_a_folder_in_use_is_refused_until_its_process_is_gone(
    recipe, digits, tmp_path
):
    program = (
        "import sys, time; from filelock import FileLock; "
        "lock = FileLock(sys.argv[1]).acquire(); print(1, flush=True); "
        "time.sleep(99)"
    )
    command = [sys.executable, "-c", program, tmp_path / ".lock"]
    short = replace(recipe, epochs=1)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OSError, match="is in use by another training"):
            run(short, digits, tmp_path)
        other.kill()
    assert run(short, digits, tmp_path)


def test_a_run_in_its_folder_holds_the_lock(recipe, digits, tmp_path):
    def watch(_):
        with pytest.raises(OSError, match="is in use"):
            run(recipe, digits, tmp_path, resume=True)
        return {"looked": 1.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WATCHES", 1)
        short = replace(recipe, epochs=1)
        assert run(short, digits, tmp_path, watch=watch).history[0]["looked"]


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_a_bad_folder_is_found_before_data_are_loaded(
    recipe, tmp_path, monkeypatch, name
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(module, "load", None)
    with pytest.raises(OSError, match=name) as error:
        fit(recipe, out=tmp_path / name)
    assert "\n" not in str(error.value)


def test_what_the_data_refuse_leaves_the_old_run(folder, digits):
    before = load_run(folder)
    with pytest.raises(ValueError, match="larger than the 160"):
        wrong = replace(before.recipe, batch_size=999)
        run(wrong, digits, folder, overwrite=True)
    assert_same_weights(load_run(folder), before)
    assert resume(folder, digits).recipe == before.recipe


def test_weights_of_an_unknown_run_are_not_touched(folder, digits):
    recipe = load_run(folder).recipe
    (folder / "recipe.json").unlink()
    with pytest.raises(FileExistsError, match="holds weights, but no recipe"):
        run(recipe, digits, folder, resume=True)
    assert (folder / "encoder.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not whole, valid JSON"),
        ('{"lr": 0.1}', "settings that no recipe knows: lr"),
        ('{"epochs": 0}', "epochs must be >= 1, got 0"),
        ("[]", "must hold a JSON object"),
    ],
)
def test_a_bad_recipe_in_a_folder_is_named(folder, digits, content, message):
    recipe = load_run(folder).recipe
    (folder / "recipe.json").write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        run(recipe, digits, folder, resume=True)
    text = str(error.value)
    assert "recipe.json" in text and "overwrite starts anew" in text


def test_what_is_no_run_is_refused_in_one_line(tmp_path, digits):
    (tmp_path / "empty").mkdir()
    replace_by_photo(tmp_path / "photo.png")
    params = Augment.preset("paper").sample(2, torch.Generator())
    params.save(tmp_path / "params")
    for name, kind in [
        ("empty", FileNotFoundError),
        ("photo.png", ValueError),
        ("params", ValueError),
    ]:
        with pytest.raises(kind, match=name) as error:
            load_run(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["folder", "file/below", "n" * 300])
def test_an_export_to_a_bad_path_names_it(whole, tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=name):
        export_run(whole, tmp_path / name)


# the default type of the session


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("method", ["ciper", "essl"])
def test_a_training_is_the_same_under_another_default_type(
    recipe, digits, method
):
    short = replace(recipe, epochs=1, method=method)
    usual = run(short, digits)
    torch.set_default_dtype(torch.float64)
    try:
        other = run(short, digits)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same_weights(usual, other)


def test_a_run_is_loaded_the_same_under_another_default_type(folder, float64):
    encoder = load_run(folder).encoder
    kinds = {w.dtype for w in encoder.state_dict().values()}
    assert kinds == {torch.float32, torch.int64}


# the optimizer, by hand


def test_the_weights_are_those_of_sgd_written_by_hand(digits):
    """Weight decay, momentum, learning rate, its schedule, batch size."""
    recipe = recipe_at(
        "smoke",
        **dict(data="digits", size=16, epochs=2, batch_size=24),
        **dict(learning_rate=0.02, momentum=0.7, weight_decay=0.05),
        **dict(alpha=0.5, temperature=0.3, seed=4, precision="float32"),
    )
    data = digits.subset(torch.arange(40))  # one batch and a rest
    source = module.view_source(recipe, data)
    method = module.build(recipe, source.classes)
    method = method.to(memory_format=torch.channels_last)
    velocity = {name: 0 for name, _ in method.named_parameters()}
    for epoch, rate in enumerate([0.02, 0.01]):  # a cosine of two steps
        order = torch.randperm(
            40, generator=module._generator("cpu", 4, epoch)
        )
        index, generator = order[:24], module._generator("cpu", 4, epoch, 1)
        method.zero_grad()
        batch = source(data, index, generator)
        h, h1, h2 = method.encode(batch.anchor, *batch.views)
        z1, z2 = method.projector(torch.cat([h1, h2])).chunk(2)
        r_hat = method.predictor(torch.cat([h - h1, h - h2]))
        predictive = predictive_loss(
            r_hat, torch.cat(batch.targets), source.classes
        )
        (nt_xent(z1, z2, 0.3) + 0.5 * predictive).backward()
        with torch.no_grad():
            for name, w in method.named_parameters():
                pull = w.grad + 0.05 * w
                velocity[name] = 0.7 * velocity[name] + pull
                w -= rate * velocity[name]
    done = run(recipe, data).encoder.state_dict()
    for name, weight in method.encoder.state_dict().items():
        torch.testing.assert_close(
            done[name], weight, rtol=1e-5, atol=2e-6, msg=name
        )


def test_a_small_encoder_does_not_say_where_its_images_lay(tmp_path):
    recipe = recipe_at("smoke", data="folder:/srv/somebody/my photos")
    run = module.Run(recipe, module.build_encoder(recipe), [])
    export_run(run, tmp_path / "small.safetensors")
    assert b"somebody" not in (tmp_path / "small.safetensors").read_bytes()
    found = load_run(tmp_path / "small.safetensors").recipe
    assert found.data == "folder:my photos"


# older files


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({"views": "dataset"}, "circular"),
        ({"views": "image"}, "raw"),
        ({}, "raw"),
        ({"views": "dataset", "target": "raw"}, "raw"),
    ],
)
def test_what_an_older_file_does_not_say_is_what_it_was_then(settings, target):
    assert module.as_then(settings) == {**settings, "target": target}
