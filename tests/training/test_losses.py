"""The losses against loops, closed forms and other people's arithmetic."""

from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from ciper.training.losses import (
    info_nce,
    nt_xent,
    predictive_loss,
    standardize,
)

CONTRASTIVE = [nt_xent, info_nce]


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def cosine(a, b):
    return (a @ b) / (a.norm() * b.norm())


def nt_xent_loop(z1, z2, temperature):
    n, z, terms = len(z1), torch.cat([z1, z2]), []
    for i in range(2 * n):
        p = i + n if i < n else i - n
        denominator = sum(
            (cosine(z[i], z[k]) / temperature).exp()
            for k in range(2 * n)
            if k != i
        )
        ratio = (cosine(z[i], z[p]) / temperature).exp() / denominator
        terms.append(-ratio.log())
    return torch.stack(terms).mean()


def info_nce_loop(z1, z2, temperature):
    terms = []
    for a, b in ((z1, z2), (z2, z1)):
        for i in range(len(a)):
            scores = [(cosine(a[i], x) / temperature).exp() for x in b]
            terms.append(-(scores[i] / sum(scores)).log())
    return torch.stack(terms).mean()


def predictive_loop(r_hat, r):
    """Eq. 1, without its minus, element by element."""
    (m, k), total = r.shape, 0
    for j in range(k):
        mean = sum(r[:, j]) / m
        variance = sum((x - mean) ** 2 for x in r[:, j]) / m
        for i in range(m):
            wanted = (r[i, j] - mean) / variance**0.5
            total = total + (wanted - r_hat[i, j]) ** 2
    return total / (m * k)


LOOPS = [(nt_xent, nt_xent_loop), (info_nce, info_nce_loop)]


@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
@pytest.mark.parametrize("n, d", [(2, 3), (5, 8), (9, 2)])
@pytest.mark.parametrize("loss, loop", LOOPS)
def test_contrastive_losses_equal_their_loops(loss, loop, n, d, temperature):
    z1, z2 = normal(2, n, d)
    assert_close(loss(z1, z2, temperature), loop(z1, z2, temperature))


@pytest.mark.parametrize("loss, loop", LOOPS)
def test_contrastive_gradients_equal_those_of_the_loops(loss, loop):
    z = normal(2, 5, 4).requires_grad_()
    (matrix,) = torch.autograd.grad(loss(*z, 0.3), z)
    (draft,) = torch.autograd.grad(loop(*z, 0.3), z)
    assert_close(matrix, draft)
    assert matrix.abs().max() > 1e-3


@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_contrastive_gradients_equal_finite_differences(loss):
    z1, z2 = normal(2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(loss, (z1, z2))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("n", [2, 7, 64])
def test_identical_embeddings_give_log_2n_minus_1(n, temperature):
    z = torch.ones(n, 5)
    loss = nt_xent(z, z, temperature).item()
    assert loss == pytest.approx(log(2 * n - 1), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("n", [2, 7, 64])
def test_identical_embeddings_give_log_n_across_views(n, temperature):
    z = torch.ones(n, 5)
    loss = info_nce(z, z, temperature).item()
    assert loss == pytest.approx(log(n), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.2, 0.5, 1.0])
def test_orthogonal_images_give_the_closed_forms(temperature):
    z, other = torch.eye(6), exp(-1 / temperature)
    both = nt_xent(z, z, temperature).item()
    across = info_nce(z, z, temperature).item()
    assert both == pytest.approx(log(1 + 10 * other), rel=1e-5)
    assert across == pytest.approx(log(1 + 5 * other), rel=1e-5)


def test_two_images_with_exchanged_partners_have_the_value_by_hand():
    z1 = torch.tensor([[1.0, 0], [0, 1]])
    loss = nt_xent(z1, z1.flip(0), temperature=1.0).item()
    across = info_nce(z1, z1.flip(0), temperature=1.0).item()
    assert loss == pytest.approx(log(2 + exp(1)), rel=1e-6)
    assert across == pytest.approx(log(1 + exp(1)), rel=1e-6)


def test_the_default_temperature_is_one_half():
    z1, z2 = normal(2, 4, 3)
    assert nt_xent(z1, z2) == nt_xent(z1, z2, 0.5) != nt_xent(z1, z2, 0.6)
    assert info_nce(z1, z2) == info_nce(z1, z2, 0.5) != info_nce(z1, z2, 0.6)


@pytest.mark.parametrize("loss", CONTRASTIVE)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 12))
def test_order_length_and_naming_of_the_views_do_not_matter(loss, seed, n):
    z1, z2 = normal(2, n, 4, seed=seed)
    order = normal(n, seed=seed).argsort()
    length = normal(n, 1, seed=seed).exp()
    assert_close(loss(z1[order], z2[order]), loss(z1, z2))
    assert_close(loss(z2, z1), loss(z1, z2))
    assert_close(loss(length * z1, 3 * z2), loss(z1, z2))


@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_autocast_around_a_contrastive_loss_changes_no_bit(loss):
    z1, z2 = normal(2, 64, 32, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(z1, z2, 0.1)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(z1, z2, 0.1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_half_precision_embeddings_are_contrasted_in_float32(loss, dtype):
    z1, z2 = (100 * normal(2, 16, 512, dtype=torch.float32)).to(dtype)
    got = loss(z1, z2, 0.1)
    assert got.dtype == torch.float32
    assert torch.equal(got, loss(z1.float(), z2.float(), 0.1))


@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_a_zero_embedding_leaves_loss_and_gradient_finite(loss):
    z = normal(2, 4, 3, dtype=torch.float32)
    z[0, 1] = 0
    value = loss(*z.requires_grad_(), 0.1)
    (gradient,) = torch.autograd.grad(value, z)
    assert value.isfinite() and gradient.isfinite().all()


class LargestTensor(TorchDispatchMode):
    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


@pytest.mark.parametrize("loss, side", [(nt_xent, 64), (info_nce, 32)])
def test_nothing_larger_than_the_similarity_matrix_is_made(loss, side):
    z = normal(2, 32, 8).requires_grad_()
    with LargestTensor() as largest:
        loss(*z).backward()
    assert largest.numbers == side**2


@pytest.mark.parametrize("temperature", [-0.5, 0.0, float("nan")])
@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_a_temperature_that_is_not_positive_is_refused(loss, temperature):
    z = torch.ones(3, 2)
    message = f"^temperature must be > 0, got {temperature}$"
    with pytest.raises(ValueError, match=message):
        loss(z, z, temperature)


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
def test_an_infinite_temperature_is_refused(loss):
    z = torch.eye(4)
    message = "^temperature must be a finite number, got inf$"
    with pytest.raises(ValueError, match=message):
        loss(z, z, float("inf"))


@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_one_image_is_refused_for_want_of_negatives(loss):
    z = torch.ones(1, 2)
    with pytest.raises(ValueError, match="n must be >= 2, got 1: one image"):
        loss(z, z)


@pytest.mark.parametrize("shape", [(4, 2), (3, 5), (3,), (3, 2, 1)])
@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_projections_of_other_shapes_are_refused(
    loss, shape, without_shape_checks
):
    message = r"^z1 and z2 must both be \(n, d\), got \(3, 2\) and \("
    with pytest.raises(ValueError, match=message):
        loss(torch.ones(3, 2), torch.ones(shape))


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2)])
@pytest.mark.parametrize("loss", CONTRASTIVE)
def test_projections_that_are_not_rows_are_refused(
    loss, shape, without_shape_checks
):
    with pytest.raises(ValueError, match=r"^z1 and z2 must both be \(n, d\)"):
        loss(torch.ones(shape), torch.ones(shape))


def test_standardized_columns_have_mean_0_and_variance_1():
    r = normal(50, 3) * torch.tensor([1e-6, 1.0, 1e6]) + 7
    z = standardize(r)
    assert_close(z.mean(0), torch.zeros(3).double(), atol=1e-8, rtol=0)
    assert_close(z.square().mean(0), torch.ones(3).double())


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7e8, 1e-30])
@pytest.mark.parametrize("m", [1, 2, 100, 999])
def test_a_constant_column_becomes_exactly_zero(value, m):
    assert (standardize(torch.full((m, 2), value)) == 0).all()


def test_a_large_offset_does_not_cost_precision():
    r = torch.arange(8.0)[:, None]
    assert_close(standardize(r + 2**20), standardize(r))


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_units_and_offsets_of_targets_do_not_matter(scale, offset):
    r, r_hat = normal(2, 12, 3)
    moved = predictive_loss(r_hat, scale * r + offset)
    assert_close(moved, predictive_loss(r_hat, r))


def test_predictive_loss_equals_equation_1_without_its_minus():
    r_hat, r = normal(2, 10, 4)
    assert_close(predictive_loss(r_hat, r), predictive_loop(r_hat, r))


def test_predictive_gradient_equals_that_of_the_loop():
    r_hat, r = normal(2, 6, 3)
    r_hat.requires_grad_()
    (matrix,) = torch.autograd.grad(predictive_loss(r_hat, r), r_hat)
    (draft,) = torch.autograd.grad(predictive_loop(r_hat, r), r_hat)
    assert_close(matrix, draft)
    assert_close(matrix, 2 * (r_hat - standardize(r)).detach() / 18)


def test_predictive_gradient_of_mixed_targets_equals_finite_differences():
    r = torch.cat([normal(6, 2), torch.arange(6.0)[:, None] % 3], dim=1)
    r_hat = normal(6, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(predictive_loss, (r_hat, r, (0, 0, 3)))


def test_answering_the_mean_costs_1_and_the_targets_cost_0():
    r = normal(30, 5)
    mean = predictive_loss(torch.zeros_like(r), r).item()
    assert mean == pytest.approx(1, rel=1e-6)
    assert predictive_loss(standardize(r), r).item() == 0


def test_one_minus_the_loss_is_the_mean_r2():
    r = normal(40, 3) * torch.tensor([1.0, 90, 0.1]) + 5
    z = standardize(r)
    r_hat = 0.7 * z + 0.4 * normal(40, 3, seed=1)
    explained = 1 - predictive_loss(r_hat, r).item()
    assert explained == pytest.approx(r2_score(z, r_hat), rel=1e-6)


def test_a_constant_target_costs_what_the_prediction_departs_from_0():
    r = torch.cat([normal(8, 1), torch.full((8, 1), 0.1)], dim=1).float()
    r_hat = standardize(r)
    assert predictive_loss(r_hat, r) == 0
    r_hat[:, 1] = 3
    assert predictive_loss(r_hat, r).item() == pytest.approx(4.5)


def test_a_rare_binary_gives_a_finite_gradient_whether_drawn_or_not():
    r = torch.eye(8)[:, :2]
    r[:, 1] = 0
    r_hat = torch.ones(8, 2, requires_grad=True)
    predictive_loss(r_hat, r).backward()
    assert r_hat.grad.isfinite().all()
    assert_close(r_hat.grad[:, 1], torch.full((8,), 2 / 16))


def test_both_views_share_one_mean_and_variance():
    r = torch.cat([torch.rand(8, 1), 10 + torch.rand(8, 1)])
    which = torch.cat([-torch.ones(8, 1), torch.ones(8, 1)])
    assert predictive_loss(which, r) < 0.01


def test_class_targets_in_the_middle_take_their_columns_of_the_output():
    r = torch.tensor([[0.0, 2, 5], [1, 0, 5], [3, 1, 9], [4, 2, 2]])
    r_hat = normal(4, 5, dtype=torch.float32)
    numeric = predictive_loss(r_hat[:, [0, 4]], r[:, [0, 2]])
    entropy = F.cross_entropy(r_hat[:, 1:4], r[:, 1].long())
    assert_close(predictive_loss(r_hat, r, (0, 3, 0)), numeric + entropy)


def test_cross_entropies_of_several_class_targets_are_averaged():
    r = torch.tensor([[0.0, 1], [1, 3], [1, 2]])
    loss = predictive_loss(torch.zeros(3, 6), r, (2, 4)).item()
    assert loss == pytest.approx((log(2) + log(4)) / 2, rel=1e-6)


def test_autocast_around_the_predictive_loss_changes_no_bit():
    r = torch.cat([normal(8, 2), torch.arange(8)[:, None] % 2], dim=1).float()
    r_hat = normal(8, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = predictive_loss(r_hat, r, (0, 0, 2))
    assert torch.equal(inside, predictive_loss(r_hat, r, (0, 0, 2)))


def test_half_precision_outputs_are_scored_in_float32():
    r = normal(8, 2, dtype=torch.float32)
    r_hat = normal(8, 2, seed=1).bfloat16()
    loss = predictive_loss(r_hat, r)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, predictive_loss(r_hat.float(), r))


def test_targets_finer_than_the_outputs_can_be_learned_from():
    r_hat = torch.zeros(4, 1, requires_grad=True)
    loss = predictive_loss(r_hat, normal(4, 1))
    loss.backward()
    assert loss.dtype == torch.float32


BAD_TARGETS = [
    ((8, 2), (6, 2), None, r"both have m rows, got \(8, 2\) and \(6, 2\)"),
    ((8,), (8, 1), None, r"both have m rows, got \(8,\) and \(8, 1\)"),
    ((8, 3), (8, 2), None, "must have 2 columns for these targets, got 3"),
    ((8, 3), (8, 2), (0, 3), "must have 4 columns for these targets, got 3"),
    ((8, 2), (8, 2), (0,), "one entry a column, got 1 for r of shape"),
    ((8, 2), (8, 2), (0, 1), r"0 \(numeric\) or > 1, got \(0, 1\)"),
    ((8, 2), (8, 2), (0, -3), r"0 \(numeric\) or > 1, got \(0, -3\)"),
    ((0, 2), (0, 2), None, r"got 2 for r of shape \(0, 2\)"),
    ((8, 0), (8, 0), None, r"got 0 for r of shape \(8, 0\)"),
]


@pytest.mark.parametrize("outputs, targets, classes, message", BAD_TARGETS)
def test_targets_that_do_not_fit_the_outputs_are_refused(
    outputs, targets, classes, message, without_shape_checks
):
    with pytest.raises(ValueError, match=message):
        predictive_loss(torch.ones(outputs), torch.zeros(targets), classes)


@pytest.mark.parametrize("wrong", [3.0, -100.0, 0.5, float("nan")])
def test_a_class_out_of_range_is_refused(wrong):
    r = torch.tensor([[0.0], [wrong]])
    message = "class targets must be whole numbers from 0 to 2, got"
    with pytest.raises(ValueError, match=message):
        predictive_loss(torch.zeros(2, 3), r, (3,))
