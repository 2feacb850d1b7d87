"""The probes against closed forms, other implementations and hostile input."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from invented import Reader, turning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision.transforms import v2

from ciper import Factor, ImageData
from ciper.evaluation import probes as module
from ciper.evaluation.probes import (
    accuracy,
    default_k,
    embed,
    evaluate,
    evaluate_pose,
    evaluate_view,
    fit_linear,
    fit_logistic,
    fit_ridge,
    knn_accuracy,
    pixel_encoder,
    r_squared,
    session_accuracy,
)


@pytest.fixture
def g():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def clusters(g):
    """300 + 200 embeddings in 5 overlapping clusters."""
    centers = 2 * torch.randn(5, 8, generator=g)
    y = torch.randint(0, 5, (500,), generator=g)
    h = centers[y] + 1.5 * torch.randn(500, 8, generator=g)
    return h[:300], y[:300], h[300:], y[300:]


@pytest.fixture
def encoder():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())


@pytest.fixture
def images(g):
    return torch.randint(0, 256, (7, 3, 6, 6), generator=g, dtype=torch.uint8)


GRID = torch.cartesian_prod(*(torch.arange(k) for k in (36, 7, 4)))


def camera(view):
    turn = view[:, :1] * (math.tau / 36)
    return torch.cat([turn.cos(), turn.sin(), view[:, 1:]], 1)


# embed


def test_embed_uses_the_running_statistics_and_leaves_them(encoder, images):
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    h = embed(encoder, images, batch_size=3)
    torch.testing.assert_close(h, encoder.eval()(images / 255).detach())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_embed_puts_back_the_mode_of_every_module(encoder, images):
    encoder.train()
    encoder[1].eval()
    embed(encoder, images)
    assert [m.training for m in encoder.modules()] == [True, True, False, True]


def test_embed_puts_back_the_mode_after_a_failure(encoder, images):
    with pytest.raises(RuntimeError):
        embed(encoder, images[:, :2])  # channels are the encoder's business
    assert all(m.training for m in encoder.modules())


def test_embed_records_no_gradient_but_h_can_be_trained_on(encoder, images):
    h = embed(encoder, images)
    assert not h.requires_grad and h.dtype == torch.float32
    nn.Linear(h.shape[1], 2)(h).sum().backward()
    assert all(p.grad is None for p in encoder.parameters())


def test_float_images_embed_as_their_uint8_originals(encoder, images):
    h = embed(encoder, images / 255)
    torch.testing.assert_close(h, embed(encoder, images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.float(), "divide by 255"),
        (lambda x: x.long(), "use images.to.torch.uint8. for 0..255"),
        (
            lambda x: x / 128 - 1,
            "leave normalization to the encoder, as in nn",
        ),
        (lambda x: x[0], r"must be \(n, c, h, w\), got shape \(3, 6, 6\)"),
        (lambda x: x[:0], "at least one image"),
        (lambda x: x.numpy(), "must be a torch tensor, got ndarray"),
    ],
)
def test_images_out_of_the_domain_are_refused(
    encoder, images, change, message, without_shape_checks
):
    with pytest.raises(ValueError, match=message):
        embed(encoder, change(images))


def test_an_encoder_for_normalized_images_is_wrapped(encoder, images):
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    h = embed(nn.Sequential(v2.Normalize(mean, std), encoder), images)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    expected = encoder.eval()((images / 255 - mean) / std).detach()
    torch.testing.assert_close(h, expected)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_images_come_in_the_type_of_the_weights(encoder, images, kind):
    expected = embed(encoder, images)
    h = embed(encoder.to(kind), images)
    assert h.dtype == torch.float32
    torch.testing.assert_close(h, expected, atol=0.05, rtol=0.05)
    h = embed(encoder.float(), (images / 255).to(kind))
    torch.testing.assert_close(h, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("result", [lambda x: x, lambda x: [x]])
def test_what_is_no_representation_is_refused(images, result):
    encoder = nn.Identity()
    encoder.forward = result
    with pytest.raises(ValueError, match="must give h of shape .n, d., got "):
        embed(encoder, images)


def test_defaults_of_a_program_change_no_number(
    encoder, images, clusters, strange_defaults
):
    h, y, h_test, y_test = clusters
    view = GRID[torch.arange(300) * 3]
    room = Factor(torch.arange(300) % 3, "categorical", ("x", "y", "z"))
    pixels = torch.zeros(300, 3, 8, 8, dtype=torch.uint8)
    data = ImageData("d", pixels, y, tuple("abcde"), {"session": room})

    def numbers():
        linear = fit_linear(h, y, 5, epochs=2)
        scores = accuracy(linear, h_test, y_test), session_accuracy(h, data)
        votes = knn_accuracy(h, y, h_test, y_test)
        views = evaluate_view(h, view, h, view)
        return embed(encoder, images), scores, votes, views

    plain = numbers()
    with strange_defaults():
        strange = numbers()
    assert torch.equal(plain[0], strange[0])
    assert plain[0].dtype == strange[0].dtype == torch.float32
    assert plain[1:] == strange[1:]


def test_an_encoder_without_parameters_embeds(images):
    assert embed(nn.Flatten(), images).shape == (7, 108)


# linear


def test_the_learning_rate_falls_by_3_33_every_ten_epochs(g, monkeypatch):
    seen = []
    step = torch.optim.SGD.step

    def spy(self, *args):
        seen.append(dict(self.param_groups[0]))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    fit_linear(torch.randn(8, 2, generator=g), torch.arange(8) % 2, 2)
    rates = [group["lr"] for group in seen]
    assert len(rates) == 100 and rates[:10] == [1.0] * 10
    assert rates[10] == pytest.approx(1 / 3.33)
    assert rates[99] == pytest.approx(1 / 3.33**9)
    assert (seen[0]["momentum"], seen[0]["nesterov"]) == (0.9, True)
    assert seen[0]["weight_decay"] == 1e-6


def test_one_step_is_the_gradient_of_the_cross_entropy(clusters):
    h, y = clusters[:2]
    start = fit_linear(h, y, 5, epochs=0)
    nn.functional.cross_entropy(start(h), y).backward()
    stepped = fit_linear(h, y, 5, epochs=1, lr=0.1, batch_size=300)
    # Nesterov's first step is (1 + momentum) times the gradient
    expected = start.weight - 0.1 * 1.9 * start.weight.grad
    torch.testing.assert_close(stepped.weight, expected, atol=1e-6, rtol=0)


def test_each_epoch_sees_every_embedding_once_in_a_new_order(g, monkeypatch):
    seen = []
    loss = nn.functional.cross_entropy

    def spy(logits, y):
        seen.append(y.clone())
        return loss(logits, y)

    monkeypatch.setattr("ciper.evaluation.probes.F.cross_entropy", spy)
    fit_linear(
        torch.randn(10, 2, generator=g),
        torch.arange(10),
        10,
        epochs=2,
        batch_size=4,
    )
    assert [len(y) for y in seen] == [4, 4, 2, 4, 4, 2]
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort()[0], torch.arange(10))
    assert not torch.equal(first, second)


def test_the_linear_probe_finds_separable_classes(g):
    y = torch.randint(0, 12, (600,), generator=g)
    h = torch.randn(600, 32, generator=g)
    h[torch.arange(600), y] += 12
    classifier = fit_linear(h[:300], y[:300], 12)
    assert accuracy(classifier, h[300:], y[300:]) == 1.0


def test_the_linear_probe_is_the_same_for_a_seed_and_not_for_another(clusters):
    h, y = clusters[:2]
    a, b, c = (fit_linear(h, y, 5, epochs=3, seed=s) for s in (1, 1, 2))
    assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)
    assert not torch.equal(a.weight, c.weight)


def test_probes_leave_the_global_random_state_alone(clusters, encoder, images):
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]
    h, y, h_test, y_test = clusters
    embed(encoder, images)
    fit_linear(h, y, 5, epochs=2)
    fit_ridge(h, h)
    knn_accuracy(h, y, h_test, y_test)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_no_gradient_reaches_what_made_the_embeddings(clusters):
    h, y = clusters[:2]
    h = h.clone().requires_grad_()
    fit_linear(h, y, 5, epochs=1)
    fit_ridge(h, h)
    assert h.grad is None


def test_the_linear_probe_trains_under_no_grad(clusters):
    h, y = clusters[:2]
    with torch.no_grad():
        classifier = fit_linear(h, y, 5, epochs=5)
    assert accuracy(classifier, h, y) > 0.6


def test_accuracy_is_the_exact_fraction():
    logits = torch.eye(3)[[0, 1, 2, 0, 0, 0, 0]]
    y = torch.tensor([0, 1, 2, 1, 1, 1, 1])
    assert accuracy(nn.Identity(), logits, y) == 3 / 7


@pytest.mark.parametrize("labels", [[0, 1, 5], [0, 1, -1]])
def test_a_label_outside_the_classes_is_refused(labels):
    with pytest.raises(ValueError, match=r"labels must be 0\.\.4"):
        fit_linear(torch.zeros(3, 2), torch.tensor(labels), 5)


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(3), torch.zeros(3).bool(), ["a", "b", "c"], [0.0, 1.0, 2.0]]
    + [[0, 1], [[0], [1], [2]], [0, 1, -1], None],
)
def test_every_probe_refuses_what_is_no_label(labels, without_shape_checks):
    h, y = torch.eye(3), torch.arange(3)
    for probe in (
        lambda: fit_linear(h, labels, 3),
        lambda: accuracy(nn.Identity(), h, labels),
        lambda: knn_accuracy(h, labels, h, y),
        lambda: knn_accuracy(h, y, h, labels),
    ):
        with pytest.raises(ValueError, match="^(labels must|h needs) "):
            probe()


@pytest.mark.parametrize("form", [list, np.array, torch.IntTensor])
def test_labels_of_any_form_are_the_same_labels(form, without_shape_checks):
    h, y = torch.eye(3), form([2, 0, 1])
    classifier = fit_linear(h, y, 3, epochs=20)
    assert accuracy(classifier, h, y) == 1 == knn_accuracy(h, y, h, y)


@pytest.mark.parametrize("seed", [0.5, "0", None, True, -1, 2**32])
def test_a_seed_of_a_probe_is_a_whole_number(seed, without_shape_checks):
    h, y = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match="^seed must be "):
        fit_linear(h, y, 3, seed=seed)
    a, b = (fit_linear(h, y, 3, 2, seed=s).weight for s in (3, np.int64(3)))
    assert torch.equal(a, b)


def test_a_descent_that_diverges_is_refused():
    h = 1e25 * torch.eye(3)
    with pytest.raises(ValueError, match=r"diverged: h up to 1e\+25, lr 1"):
        fit_linear(h, torch.arange(3), 3)


# neighbors


def test_few_images_are_not_outvoted_by_the_largest_class(g):
    """20, 10 and 8 images in clusters that all lie close to one direction."""
    y = torch.arange(3).repeat_interleave(torch.tensor([20, 10, 8]))
    h = 10 + torch.eye(3)[y] + 0.05 * torch.randn(38, 3, generator=g)
    assert knn_accuracy(h, y, h, y, k=38) == 20 / 38  # all of them vote
    assert default_k(y) == 8
    assert knn_accuracy(h, y, h, y) == 1


@pytest.mark.parametrize(
    ("sizes", "k"),
    [((250, 250), 200), ((199, 300), 199), ((1, 9), 1), ((0, 5), 5)],
)
def test_as_many_vote_as_the_smallest_class_has_images(sizes, k):
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    assert default_k(y) == k


def test_a_class_of_200_images_is_voted_on_as_ever(g):
    y = torch.arange(3).repeat_interleave(230)
    h = torch.randn(690, 8, generator=g) + torch.eye(8)[y]
    assert knn_accuracy(h, y, h, y) == knn_accuracy(h, y, h, y, k=200)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("k", [1, 20, 200])
def test_the_vote_is_that_of_scikit_learn(clusters, k, temperature):
    h, y, h_test, y_test = clusters
    oracle = KNeighborsClassifier(
        k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    oracle.fit(h.double().numpy(), y.numpy())
    expected = oracle.score(h_test.double().numpy(), y_test.numpy())
    found = knn_accuracy(h, y, h_test, y_test, k, temperature)
    assert 0.3 < expected < 1
    assert found == pytest.approx(expected, abs=1e-12)


def test_weights_decide_and_not_the_count():
    h = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    y = torch.tensor([0, 1, 1])
    near, one = torch.tensor([[1.0, 0.2]]), torch.tensor([0])
    assert knn_accuracy(h, y, near, one, 3, temperature=0.1) == 1
    assert knn_accuracy(h, y, near, one, 3, temperature=100.0) == 0


def test_more_neighbors_than_there_are_means_all(clusters):
    assert knn_accuracy(*clusters, k=10**9) == knn_accuracy(*clusters, k=300)


def test_a_tiny_temperature_neither_overflows_nor_loses_the_vote(clusters):
    tiny = knn_accuracy(*clusters, temperature=1e-6)
    assert tiny == knn_accuracy(*clusters, k=1)


def test_a_class_without_training_embeddings_counts_as_wrong():
    h = torch.eye(2)
    y = torch.tensor([0, 1])
    assert knn_accuracy(h, y, h, torch.tensor([0, 7])) == 0.5


def test_the_blocks_bound_the_similarities_held(monkeypatch, g):
    import ciper.evaluation.probes

    sizes, vote = [], ciper.evaluation.probes._vote

    def spy(cosine, *rest):
        sizes.append(cosine.numel())
        return vote(cosine, *rest)

    monkeypatch.setattr(ciper.evaluation.probes, "_vote", spy)
    h = torch.randn(10_000, 2, generator=g)
    y = (h[:, 0] > 0).long()
    assert knn_accuracy(h, y, h[:4000], y[:4000], k=1) > 0.99
    assert len(sizes) == 3 and max(sizes) <= 2**24


@pytest.mark.parametrize("setting", [{"k": 0}, {"temperature": -0.5}])
def test_a_setting_that_is_not_positive_is_refused(clusters, setting):
    with pytest.raises(ValueError, match="must be > 0, got"):
        knn_accuracy(*clusters, **setting)


# ridge


def test_ridge_solves_the_normal_equations(g, monkeypatch):
    monkeypatch.setattr(
        "ciper.evaluation.probes.torch.logspace",
        lambda *a, **k: torch.tensor([7.0]),
    )
    h = 3 * torch.randn(50, 4, generator=g) + 5
    r = torch.randn(50, 2, generator=g)
    read = fit_ridge(h, r)
    x = ((h - h.mean(0)) / h.std(0, correction=0)).double()
    y = (r - r.mean(0)).double()
    weight = torch.linalg.solve(x.T @ x + 7 * torch.eye(4).double(), x.T @ y)
    expected = x @ weight + r.mean(0)
    torch.testing.assert_close(read(h), expected.float(), atol=1e-5, rtol=0)


def test_the_penalty_has_the_least_leave_one_out_error(g):
    h = torch.randn(30, 20, generator=g)
    r = h[:, :1] + 2 * torch.randn(30, 1, generator=g)
    x = ((h - h.mean(0)) / h.std(0, correction=0)).double().numpy()
    y = r.double().numpy()[:, 0]

    def read(alpha, rows):
        m, c = x[rows].mean(0), y[rows].mean()
        a, b = x[rows] - m, y[rows] - c
        w = np.linalg.solve(a.T @ a + alpha * np.eye(20), a.T @ b)
        return (x - m) @ w + c

    def left_out(alpha):
        rows = np.arange(30)
        return sum((read(alpha, rows != i)[i] - y[i]) ** 2 for i in rows)

    best = min(torch.logspace(-3, 6, 19).tolist(), key=left_out)
    expected = torch.tensor(read(best, np.arange(30) >= 0)).float()[:, None]
    torch.testing.assert_close(fit_ridge(h, r)(h), expected, atol=1e-4, rtol=0)


def test_columns_choose_their_penalties_apart(g):
    h = torch.randn(200, 30, generator=g)
    r = torch.stack([h[:, 0], torch.randn(200, generator=g)], 1)
    together = fit_ridge(h, r)(h)
    apart = torch.cat([fit_ridge(h, c[:, None])(h) for c in r.T], 1)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_ridge_does_not_care_about_the_units_of_h(g):
    h = torch.randn(100, 5, generator=g)
    r = h[:, :2] + torch.randn(100, 2, generator=g)
    scaled = h * torch.tensor([1e-3, 1, 1e3, 10, 0.1])
    expected = fit_ridge(h, r)(h)
    torch.testing.assert_close(
        fit_ridge(scaled, r)(scaled), expected, atol=1e-4, rtol=0
    )


def test_a_dead_feature_and_more_features_than_rows_are_fine(g):
    h = torch.randn(20, 40, generator=g)
    h[:, 3] = 0.1
    read = fit_ridge(h, torch.randn(20, 2, generator=g))
    assert read(h).isfinite().all() and read.weight[:, 3].abs().max() < 1e-3


def test_r_squared_is_that_of_scikit_learn(g):
    r = torch.randn(50, 3, generator=g)
    r_hat = r + torch.randn(50, 3, generator=g)
    expected = r2_score(r, r_hat, multioutput="raw_values")
    np.testing.assert_allclose(r_squared(r_hat, r), expected, rtol=1e-5)


def test_r_squared_of_a_constant_column_is_nan():
    r = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])
    score = r_squared(r, r)
    assert score[0].isnan() and score[1] == 1


# view


def test_chance_on_the_full_grid_is_37_72():
    scores = evaluate_view(camera(GRID), GRID, camera(GRID), GRID)
    expected = ((36**2 - 1) + (7**2 - 1) + (4**2 - 1)) / 12 / 3
    assert scores["view_mse_steps_chance"] == pytest.approx(expected, rel=1e-6)
    assert round(scores["view_mse_steps_chance"], 2) == 37.72


def test_chance_predicts_the_mean_of_training_not_of_test():
    train, test = GRID[GRID[:, 0] < 18], GRID[GRID[:, 0] >= 18]
    scores = evaluate_view(camera(train), train, camera(test), test)
    steps = train.float().mean(0) - test
    expected = steps.square().mean().item()
    assert scores["view_mse_steps_chance"] == pytest.approx(expected)


def test_an_embedding_that_holds_the_camera_scores_perfectly():
    scores = evaluate_view(camera(GRID[::2]), GRID[::2], camera(GRID), GRID)
    assert scores["azimuth_error_deg"] < 1e-3
    for name in ("azimuth", "elevation", "distance"):
        assert scores[f"r2_{name}"] == pytest.approx(1, abs=1e-5)


def test_the_view_error_of_a_perfect_circle_is_the_rest_of_the_sawtooth():
    scores = evaluate_view(camera(GRID), GRID, camera(GRID), GRID)
    # least squares of 0..35 on cos and sin: the first Fourier pair goes
    steps, turn = np.arange(36), np.arange(36) * math.tau / 36
    first = abs(np.sum(steps * np.exp(1j * turn)) / 36) ** 2 * 2
    expected = (np.var(steps) - first) / 3
    assert scores["view_mse_steps"] == pytest.approx(expected, rel=1e-4)


def test_an_embedding_that_holds_the_steps_has_no_view_error():
    scores = evaluate_view(GRID.float(), GRID, GRID.float(), GRID)
    assert scores["view_mse_steps"] < 1e-4


def test_a_meaningless_embedding_is_at_chance(g):
    h = torch.randn(len(GRID), 8, generator=g)
    order = torch.randperm(len(GRID), generator=g)
    a, b = order[:504], order[504:]
    scores = evaluate_view(h[a], GRID[a], h[b], GRID[b])
    assert abs(scores["azimuth_error_deg"] - 90) < 10
    assert abs(scores["r2_azimuth"]) < 0.05
    ratio = scores["view_mse_steps"] / scores["view_mse_steps_chance"]
    assert ratio == pytest.approx(1, abs=0.05)


def test_the_azimuth_error_wraps_around_the_circle():
    """A camera read 20 degrees too far everywhere, across the seam too."""
    off = GRID.clone()
    off[:, 0] = (off[:, 0] + 2) % 36
    scores = evaluate_view(camera(GRID), GRID, camera(off), GRID)
    assert scores["azimuth_error_deg"] == pytest.approx(20, abs=1e-2)


@pytest.mark.parametrize("bad", [[360, 0, 0], [0, 7, 0], [0, 0, -1]])
def test_a_view_off_the_grid_is_refused(bad):
    view = torch.cat([GRID[:9], torch.tensor([bad])])
    h = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="view must be steps up to 35, 6, 3"):
        evaluate_view(h, view, h, view)


# input


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_embeddings_that_are_not_finite_are_refused(clusters, value):
    h, y, h_test, y_test = (x.clone() for x in clusters)
    h[3, 2] = value
    for probe in (
        lambda: fit_linear(h, y, 5),
        lambda: knn_accuracy(h, y, h_test, y_test),
        lambda: fit_ridge(h, h_test[:1].expand_as(h)),
    ):
        with pytest.raises(ValueError, match="h must be finite"):
            probe()


def test_no_embeddings_are_refused():
    with pytest.raises(ValueError, match="one target a row, got 0, 0"):
        fit_linear(torch.zeros(0, 3), torch.zeros(0).long(), 2)


# session


def one_hot(y, classes):
    return nn.functional.one_hot(y, classes).float()


def test_an_embedding_that_holds_the_session_reads_it():
    data = turning(sessions=4)
    session = data.factors["session"].values
    assert session_accuracy(one_hot(session, 4), data) == 1.0
    wrong = turning(sessions=4).factors["session"].values.flip(0)
    assert session_accuracy(one_hot(wrong, 4), data) == 1.0  # 3 - session


def test_the_session_is_scored_on_images_that_were_not_fitted_on():
    """What knows every image by heart knows nothing of the other half."""
    data = turning(objects=8, sessions=4)
    by_heart = torch.eye(len(data))
    assert session_accuracy(by_heart, data) < 0.4
    session = data.factors["session"].values
    fitted = fit_linear(by_heart, session, 4)
    assert accuracy(fitted, by_heart, session) == 1.0


def test_the_session_is_fitted_on_half_the_images_and_scored_on_the_rest(
    monkeypatch,
):
    data, fitted, scored = turning(sessions=4), [], []
    h = torch.arange(float(len(data)))[:, None]
    monkeypatch.setattr(module, "fit_linear", lambda x, *_: fitted.append(x))
    monkeypatch.setattr(
        module, "accuracy", lambda c, x, y: scored.append(x) or 0.5
    )
    session_accuracy(h, data)
    assert len(fitted[0]) == len(scored[0]) == len(data) // 2
    assert torch.equal(torch.cat(fitted + scored).sort(0).values, h)
    assert not torch.equal(fitted[0], h[: len(h) // 2])  # at random


def test_an_embedding_without_the_session_is_at_chance(g):
    data = turning(objects=8, sessions=4)
    h = torch.randn(len(data), 4, generator=g)
    assert abs(session_accuracy(h, data) - 1 / 4) < 0.1


def test_evaluate_reads_the_session_off_the_test_images_alone():
    train, test = turning(), turning(sessions=4)
    metrics = evaluate(Reader(), train, test)
    assert metrics.keys() == {
        "linear_accuracy",
        "logistic_accuracy",
        "knn_accuracy",
        "knn_k",
        "session_accuracy",
    }
    assert metrics["linear_accuracy"] == metrics["knn_accuracy"] == 1.0
    expected = session_accuracy(embed(Reader(), test.images), test)
    assert metrics["session_accuracy"] == expected


def test_evaluate_has_no_session_accuracy_without_sessions():
    metrics = evaluate(Reader(), turning(sessions=4), turning())
    names = {"linear_accuracy", "logistic_accuracy", "knn_accuracy", "knn_k"}
    assert metrics.keys() == names


# train and test

NAMES = ("ant", "bee", "cat")


def part(name, order, classes=NAMES, size=8, **factors):
    """Images whose red is that of their class, wherever the name stands."""
    known = {"ant": 0, "bee": 1, "cat": 2, "dog": 3}
    k = torch.tensor([classes.index(x) for x in order])
    red = torch.tensor([known[x] for x in order], dtype=torch.uint8)
    images = torch.zeros(len(order), 3, size, size, dtype=torch.uint8)
    images[:, 0] = red[:, None, None]
    return ImageData(name, images, k, classes, factors)


TRAIN = part("train", NAMES * 6)


@pytest.mark.parametrize(
    "test",
    [
        part("turned", NAMES * 2, NAMES[::-1]),
        part("fewer", ("cat", "bee") * 3, ("cat", "bee")),
        part("missing", ("cat", "cat")),
    ],
    ids=lambda data: data.name,
)
def test_classes_are_compared_by_name(test):
    metrics = evaluate(Reader(), TRAIN, test)
    assert metrics["linear_accuracy"] == metrics["knn_accuracy"] == 1.0
    assert metrics["knn_k"] == 6.0


def test_a_class_without_training_images_counts_as_wrong():
    train = part("train", ("ant", "bee") * 5)
    metrics = evaluate(Reader(), train, part("test", NAMES))
    assert metrics["linear_accuracy"] == metrics["knn_accuracy"] == 2 / 3


def test_a_class_with_one_image_is_read_like_any_other():
    train = part("train", ("ant",) * 9 + ("bee",))
    metrics = evaluate(Reader(), train, part("test", ("ant", "bee") * 4))
    assert metrics["linear_accuracy"] == metrics["knn_accuracy"] == 1.0
    assert metrics["knn_k"] == 1.0


def filmed(data, names=("azimuth", "elevation", "distance"), levels=(0, 10)):
    values = 10.0 * (torch.arange(len(data)) % 2)
    kinds = {"azimuth": "circular"}
    factors = {
        name: Factor(values, kinds.get(name, "continuous"), levels)
        for name in names
    }
    return replace(data, factors=factors)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (TRAIN, part("t", ("dog",), ("dog", "ant")), "no class 'dog' of t"),
        (TRAIN, part("t", NAMES, size=9), "one size, got 8x8 and 9x9"),
        (TRAIN, filmed(part("t", NAMES)), "one part .* t has 'azimuth'"),
        (filmed(TRAIN), part("t", NAMES), "one part .* train has 'azimuth'"),
        (
            filmed(TRAIN),
            filmed(part("t", NAMES), ("azimuth", "distance")),
            "one part .* train has 'elevation'",
        ),
        (
            filmed(TRAIN),
            filmed(part("t", NAMES), levels=(0, 10, 20)),
            "'azimuth' has other levels",
        ),
        (
            filmed(TRAIN, levels=()),
            filmed(part("t", NAMES), levels=()),
            "a circular factor without levels: no steps",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(train, test, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Reader(), train, test)


def test_one_session_is_no_question():
    one = Factor(torch.zeros(6).long(), "categorical", ("hall", "attic"))
    test = part("test", NAMES * 2, session=one)
    assert "session_accuracy" not in evaluate(Reader(), TRAIN, test)
    with pytest.raises(ValueError, match="test: expected two sessions"):
        session_accuracy(torch.eye(6), test)


def test_a_regression_needs_two_rows():
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        fit_ridge(torch.ones(1, 3), torch.ones(1, 1))
    with pytest.raises(ValueError, match="targets must be finite"):
        fit_ridge(torch.eye(3), torch.full((3, 1), math.nan))


# converged, and raw pixels


def blobs(g, n=300, classes=3, scale=1.0):
    y = torch.arange(n) % classes
    h = torch.eye(classes, 5)[y] * 3 + torch.randn(n, 5, generator=g)
    return scale * h, y


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_converged_probe_does_not_depend_on_the_unit(g, scale):
    h, y = blobs(g)
    score = accuracy(fit_logistic(h * scale, y, 3), h * scale, y)
    assert score == accuracy(fit_logistic(h, y, 3), h, y) > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_the_converged_probe_is_scikit_learns(g, classes):
    h, y = blobs(g, classes=classes)
    x = StandardScaler().fit_transform(h.double().numpy())
    grid = {"C": np.logspace(-4, 2, 7)}
    oracle = GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=3)
    expected = oracle.fit(x, y.numpy()).predict_proba(x)
    found = fit_logistic(h, y, classes)(h).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_classes_without_images_are_never_the_answer(g):
    h, y = blobs(g, n=20)
    probe = fit_logistic(h, 2 * y, 7)  # 0, 2 and 4 have images
    assert {*probe(h).argmax(1).tolist()} <= {0, 2, 4}
    assert accuracy(probe, h, 2 * y) > 0.9
    alone = fit_logistic(h, torch.full_like(y, 3), 7)
    assert (alone(h).argmax(1) == 3).all()
    rare = y.clone()
    rare[0] = 5  # one image: nothing to choose the penalty by
    assert accuracy(fit_logistic(h, rare, 7), h, rare) > 0.8


def test_pixels_keep_their_distances_while_components_are_enough(g):
    images = (torch.rand(20, 3, 8, 8, generator=g) * 255).byte()
    data = ImageData("x", images, torch.zeros(20).long(), ("a",))
    h = embed(pixel_encoder(data), images)
    assert h.shape == (20, 20)
    flat = images.flatten(1) / 255
    torch.testing.assert_close(
        torch.cdist(h, h), torch.cdist(flat, flat), atol=1e-3, rtol=1e-3
    )
    assert embed(pixel_encoder(data, 4), images).shape == (20, 4)


def photographed(n=72):
    azimuth = 5.0 * torch.arange(n) % 360
    elevation = 15.0 * (torch.arange(n) // 12)
    factors = {
        "azimuth": Factor(azimuth, "circular", unit="degree"),
        "elevation": Factor(elevation, "continuous", unit="degree"),
    }
    blank = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
    labels = torch.zeros(n).long()
    return ImageData("photographs", blank, labels, ("a",), factors)


def test_a_pose_off_the_grid_is_read_and_an_azimuth_alone_is_not_asked(g):
    data = photographed()
    azimuth, elevation = (f.values for f in data.factors.values())
    angle = azimuth.deg2rad()
    h = torch.stack([angle.cos(), angle.sin(), elevation / 90], 1)
    found = evaluate_pose(h, data, h, data)
    assert found.keys() == {"r2_azimuth", "r2_elevation", "azimuth_error_deg"}
    assert found["azimuth_error_deg"] < 1 and found["r2_elevation"] > 0.99
    alone = replace(data, factors={"azimuth": data.factors["azimuth"]})
    assert evaluate_pose(h, alone, h, alone) == {}


def test_unseen_objects_are_not_asked_for_their_class():
    data = turning(objects=4)
    seen = data.labels < 2
    names = evaluate(Reader(), data[seen], data[~seen]).keys()
    assert not {n for n in names if "accuracy" in n}
