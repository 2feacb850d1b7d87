"""What the methods compute, and where their gradients go."""

import pytest
import torch

from ciper.data.sources import Batch
from ciper.training.encoders import Encoder, rotation_head
from ciper.training.losses import nt_xent, predictive_loss
from ciper.training.methods.registry import METHODS, build_method

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


# E-SSL


@pytest.fixture
def with_small(batch):
    g = torch.Generator().manual_seed(1)
    return batch._replace(small=torch.rand(6, 3, 8, 8, generator=g))


def test_the_total_of_essl_is_its_contrastive_and_rotation_losses(with_small):
    method = make("essl", temperature=0.2).eval()
    total, parts = method.loss(with_small)
    z1, z2 = (method.projector(method.encoder(x)) for x in with_small.views)
    contrastive = nt_xent(z1, z2, 0.2)
    losses = []  # one image and rotation at a time
    for x in with_small.small:
        for quarters in range(4):
            turned = torch.rot90(x, quarters, (1, 2))[None]
            logits = method.rotation_head(method.encoder(turned))
            losses.append(-logits.log_softmax(1)[0, quarters])
    rotation = torch.stack(losses).mean()
    torch.testing.assert_close(parts["contrastive"], contrastive)
    torch.testing.assert_close(parts["rotation"], rotation)
    torch.testing.assert_close(total, contrastive + 0.4 * rotation)


def test_small_views_are_turned_by_the_number_of_quarters():
    one = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 3, 2, 2)
    turned, quarters = make("essl").turn(one)
    assert quarters.tolist() == [0, 1, 2, 3]
    assert turned[:, 0].tolist() == [
        [[1, 2], [3, 4]],
        [[2, 4], [1, 3]],
        [[4, 3], [2, 1]],
        [[3, 1], [4, 2]],
    ]


def test_every_small_view_is_turned_all_four_ways(with_small):
    turned, quarters = make("essl").turn(with_small.small)
    back = [x.rot90(-int(k), (1, 2)) for x, k in zip(turned, quarters)]
    assert torch.equal(torch.stack(back), with_small.small.repeat(4, 1, 1, 1))
    assert quarters.bincount().tolist() == [6, 6, 6, 6]


def test_gradients_of_essl_reach_the_encoder_and_both_heads(with_small):
    method = make("essl")
    method.loss(with_small)[0].backward()
    assert reached(method.encoder)
    assert reached(method.projector)
    assert reached(method.rotation_head)


@pytest.mark.parametrize("name", ["simclr", "predictive", "ciper", "essl"])
def test_a_method_encodes_as_many_images_as_its_cost_says(name, with_small):
    method, seen = make(name), []
    method.encoder.register_forward_hook(lambda m, i, o: seen.append(len(o)))
    method.loss(with_small)
    assert sum(seen) == METHODS[name].passes * len(with_small.anchor)


def test_essl_costs_six_and_alone_asks_for_small_views():
    assert METHODS["essl"].passes == 6
    assert [name for name, method in METHODS.items() if method.small] == [
        "essl"
    ]


def test_essl_without_small_views_is_refused(batch):
    with pytest.raises(ValueError, match="needs small views: use views='im"):
        make("essl").loss(batch)


def test_an_undecided_rotation_head_loses_log_4(with_small):
    method = make("essl")
    for p in method.rotation_head[-1].parameters():
        torch.nn.init.zeros_(p)
    rotation = method.loss(with_small)[1]["rotation"]
    torch.testing.assert_close(rotation, torch.tensor(4.0).log())


def test_the_rotation_head_has_three_layers_and_two_normalizations():
    head = rotation_head(128, 64)
    layers = [m for m in head if isinstance(m, torch.nn.Linear)]
    widths = [(m.in_features, m.out_features) for m in layers]
    assert widths == [(128, 64), (64, 64), (64, 4)]
    kinds = [type(m).__name__ for m in head]
    assert kinds == 2 * ["Linear", "LayerNorm", "ReLU"] + ["Linear"]
    assert rotation_head(9)[0].out_features == 2048
