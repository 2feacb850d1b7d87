"""What the methods compute, and where their gradients go."""

import pytest
import torch

from ciper.data import Batch
from ciper.losses import nt_xent, predictive_loss
from ciper.methods import METHODS, build_method
from ciper.models import Encoder

NARROW = dict(projector_width=16, predictor_width=16)


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    x, x1, x2 = torch.rand(3, 6, 3, 16, 16, generator=g)
    r1, r2 = torch.rand(2, 6, 2, generator=g)
    return Batch(x, (x1, x2), (r1, r2))


def make(name, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder(width=0.125)
        return build_method(name, encoder, (0, 0), **NARROW, **settings)


def reached(module):
    grads = [p.grad for p in module.parameters()]
    return all(g is not None and g.abs().max() > 0 for g in grads)


def test_the_total_of_ciper_is_equation_2(batch):
    method = make("ciper", alpha=0.25)
    total, parts = method.loss(batch)
    expected = parts["contrastive"] + 0.25 * parts["predictive"]
    torch.testing.assert_close(total, expected)


def test_ciper_with_the_heads_of_the_others_has_their_losses(batch):
    method = make("ciper", temperature=0.2).eval()
    h, h1, h2 = (method.encoder(x) for x in (batch.anchor, *batch.views))
    parts = method.loss(batch)[1]
    z1, z2 = method.projector(h1), method.projector(h2)
    torch.testing.assert_close(parts["contrastive"], nt_xent(z1, z2, 0.2))
    r_hat = method.predictor(torch.cat([h - h1, h - h2]))
    expected = predictive_loss(r_hat, torch.cat(batch.targets), (0, 0))
    torch.testing.assert_close(parts["predictive"], expected)


def test_gradients_reach_the_encoder_and_both_heads(batch):
    method = make("ciper")
    method.loss(batch)[0].backward()
    assert reached(method.encoder)
    assert reached(method.projector)
    assert reached(method.predictor)


@pytest.mark.parametrize("name", ["simclr", "predictive"])
def test_one_loss_alone_reaches_the_encoder(batch, name):
    method = make(name)
    method.loss(batch)[0].backward()
    assert reached(method.encoder)


def test_a_view_equal_to_its_anchor_gives_the_predictor_nothing(batch):
    method = make("predictive").eval()
    same = batch._replace(views=(batch.anchor, batch.anchor))
    h = method.encoder(batch.anchor)
    seen = []
    method.predictor.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    method.loss(same)
    torch.testing.assert_close(seen[0], torch.zeros(2 * len(h), h.shape[1]))


def test_passes_are_the_papers_costs():
    costs = {name: method.passes for name, method in METHODS.items()}
    expected = {"random": 0, "simclr": 2, "predictive": 3, "ciper": 3}
    assert costs.items() >= expected.items()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cipher", {}, "unknown method 'cipher'[:;] did you mean 'ciper'"),
        ("ciper", {"temperature": 0.0}, "temperature must be > 0, got 0"),
        ("ciper", {"alpha": -1.0}, "alpha must be >= 0, got -1"),
    ],
)
def test_a_method_says_what_it_expected(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make(name, **settings)


def test_a_predictor_without_targets_is_refused():
    with pytest.raises(ValueError, match="a predictor needs targets"):
        build_method("ciper", Encoder(width=0.125))
