"""Recipes, determinism, checkpoints, exact resume, and what is refused."""

import json
import math
import time
from dataclasses import asdict, replace

import pytest
import torch

from ciper import ImageData, embed
from ciper import train as module
from ciper.datasets import load
from ciper.methods import SimCLR
from ciper.plans import neighbors_watch
from ciper.train import (
    Monitor,
    OutOfTime,
    Recipe,
    base_scale,
    cosine,
    export_run,
    fit,
    load_run,
    recipe_at,
)
from ciper.views import AugmentedViews


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
    real, saves = module.save_file, []

    def dies(tensors, path, *rest):
        saves.append(path)
        if len(saves) == 2:
            path.write_bytes(b"half")
            raise OSError("disk full")
        real(tensors, path, *rest)

    monkeypatch.setattr(module, "save_file", dies)
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


def test_an_encoder_is_watched_every_ten_epochs():
    assert module.WATCH_EVERY == 10


def test_a_watched_training_has_the_values_and_the_same_weights(
    recipe, digits, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "WATCH_EVERY", 2)
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


def test_a_batch_larger_than_the_data_is_refused(recipe, digits):
    with pytest.raises(
        ValueError, match="batch_size 161 is larger than the 160"
    ):
        run(replace(recipe, batch_size=161), digits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0"),
        ({"epochs": 0}, "epochs must be > 0, got 0"),
        ({"learning_rate": math.nan}, "learning_rate must be > 0, got nan"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
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
