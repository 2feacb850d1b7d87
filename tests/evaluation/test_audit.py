"""Audits of encoders whose answer is known."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from ciper.augment.chain import (
    Augment,
    ColorJitter,
    Grayscale,
    HorizontalFlip,
    Operation,
)
from ciper.augment.operations import FourFoldRotation
from ciper.augment.params import Parameter
from ciper.data.images import Factor, ImageData
from ciper.evaluation import audit as module
from ciper.evaluation.audit import (
    audit,
    audit_layers,
    ceilings,
    effective_rank,
    wide_augment,
)
from ciper.evaluation.cards import failures, sentences
from ciper.training.encoders import Encoder

FEW = dict(images=0, views=4, progress=False)
TURNS = Augment([FourFoldRotation()])


@pytest.fixture(scope="module")
def photos():
    """Colored noise with a bright corner, and no labels to speak of."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 160, (240, 3, 12, 12), generator=g)
    images[:, :, :4, :4] += 90
    plain = torch.zeros(240, dtype=torch.int64)
    return ImageData("photos", images.to(torch.uint8), plain, ("all",))


def flat(x):
    return x.flatten(1)


def constant(x):
    return torch.ones(len(x), 4)


def averaged(x):
    return sum(x.rot90(k, (2, 3)) for k in range(4)).flatten(1)


@dataclass(frozen=True)
class Stamp(Operation):
    """Writes its parameter into the first pixel: a view that tells it."""

    name: ClassVar[str] = "stamp"
    parameters: ClassVar = (
        Parameter("stamp", "stamp", "continuous", 0.0, 1.0, 0.0),
    )

    def draw(self, n, generator, image_size):
        return torch.rand(n, 1, generator=generator)

    def pixels(self, images, values, applied):
        images[:, :, 0, 0] = torch.where(
            applied[:, None], values, images[:, :, 0, 0]
        )
        return images


# known answers


def test_an_identity_keeps_what_a_constant_has_lost(photos):
    chain = Augment([ColorJitter(p=1.0)])
    all_, none = (audit(f, photos, chain, **FEW) for f in (flat, constant))
    assert all_.kept["brightness"].any > 0.9
    for kept in none.kept.values():
        assert kept.is_lost and abs(kept.any - kept.floor) < 0.05
    assert none.useful["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert none.equivariance["all"]["no_change"] == 0


def test_an_average_over_turns_is_exactly_invariant_to_them(photos):
    card = audit(averaged, photos, TURNS, **FEW)
    assert card.invariance["all"]["own"][0] == pytest.approx(1, abs=1e-4)
    assert card.invariance["all"]["retrieved"] == [1.0]
    assert card.kept["four_fold_rotation_quarter_turns"].is_lost
    assert (
        audit(flat, photos, TURNS, **FEW)
        .kept["four_fold_rotation_quarter_turns"]
        .is_kept
    )


def test_an_encoder_that_returns_the_parameters_keeps_them_exactly(photos):
    card = audit(lambda x: x[:, :, 0, 0], photos, Augment([Stamp()]), **FEW)
    kept = card.kept["stamp"]
    assert kept.linear > 0.999 and kept.interval[0] > 0.99
    assert abs(kept.floor) < 0.05 and kept.ceiling > 0.999
    assert card.equivariance["all"]["map"] < 0.01
    assert card.equivariance["all"]["h1"] > 0.95
    assert card.equivariance["all"]["pre"] < 0.01


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_a_known_signal_to_noise_ratio_is_found(photos, noise):
    """Noise from the picture itself, of a known share of the variance."""

    def noisy(x):
        own = 255 * x[:, 0, 6, 6] - 79.5  # uniform, of variance 160^2 / 12
        r = x[:, 0, 0, 0] + own / 160 * noise**0.5
        return r[:, None].expand(-1, 2)

    card = audit(noisy, photos, Augment([Stamp()]), **FEW)
    view = card.kept["stamp"].sources["view"][0]
    assert abs(view - 1 / (1 + noise)) < 0.08


def test_a_difference_finds_what_a_view_alone_hides(photos):
    """The stamp plus a number of the picture itself, which varies more."""

    def hidden(x):
        own = x[:, :, 6, 6]
        return torch.stack([x[:, 0, 0, 0] + 20 * own[:, 0]] * 2, 1)

    sources = audit(hidden, photos, Augment([Stamp()]), **FEW)
    sources = sources.kept["stamp"].sources
    assert sources["difference"][0] > 0.3 + sources["view"][0]


def test_a_parameter_hidden_nonlinearly_is_left_to_the_network(photos):
    def folded(x):
        sign = (255 * x[:, :1, 6, 6] - 79.5).sign()
        return torch.cat([sign * (x[:, :1, 0, 0] - 0.5), sign], 1)

    many = FEW | {"views": 20}
    card = audit(folded, photos, Augment([Stamp()]), **many)
    kept = card.kept["stamp"]
    assert kept.linear < 0.1 < 0.9 < kept.any


def test_factors_of_the_data_are_asked_too(photos):
    angle = photos.images[:, 0, 6, 6].float() * 2
    known = {"azimuth": Factor(angle, "circular", unit="degree")}
    data = ImageData("p", photos.images, photos.labels, ("all",), known)

    def directions(x):
        turn = (x[:, 0, 6, 6] * 510).deg2rad()
        return torch.stack([turn.cos(), turn.sin()], 1)

    card = audit(directions, data, TURNS, **FEW)
    kept = card.kept["azimuth"]
    assert kept.of == "data" and kept.linear > 0.999
    assert kept.details["error_deg"] < 1


def test_a_factor_that_is_called_like_a_parameter_hides_nothing(photos):
    known = {"flip": Factor(photos.images[:, 0, 6, 6].float(), "continuous")}
    data = replace(photos, factors=known)
    card = audit(flat, data, Augment([HorizontalFlip()]), **FEW)
    assert card.kept["flip"].of == "augmentation"
    assert card.kept["image_flip"].of == "data"


# ceilings


def test_a_picture_without_colors_shows_no_saturation():
    gray = torch.arange(240)[:, None, None, None].expand(-1, 3, 12, 12)
    data = ImageData(
        "gray",
        gray.to(torch.uint8).contiguous(),
        torch.zeros(240).long(),
        ("all",),
    )
    chain = Augment([ColorJitter(p=1.0), HorizontalFlip()])
    params = chain.sample(240 * 2, 0, (12, 12))
    found = ceilings(chain, data, params, torch.arange(240))
    assert found["saturation"] == pytest.approx(0, abs=0.02)
    assert found["flip"] == pytest.approx(0, abs=0.02)  # flat pictures
    assert found["brightness"] > 0.9


def test_a_gray_view_hides_the_saturation_of_its_share(photos):
    """Half of the views are gray: half of the variance is hidden."""
    mild = photos.images.float() / 4 + 100  # nothing is clipped
    photos = replace(photos, images=mild.to(torch.uint8))
    chain = Augment([ColorJitter(p=1.0, hue=0.0), Grayscale(p=0.5)])
    params = chain.sample(240 * 4, 0, (12, 12))
    found = ceilings(chain, photos, params, torch.arange(240))
    assert found["saturation"] == pytest.approx(0.5, abs=0.1)
    assert found["grayscale"] > 0.95


# protocol


def test_the_batch_changes_nothing(photos, monkeypatch):
    encoder = Encoder(width=0.125)
    cards = []
    for batch in (256, 50):
        monkeypatch.setattr(module, "_BATCH", batch)
        cards.append(audit(encoder, photos, TURNS, **FEW))
    a, b = (c.kept["four_fold_rotation_quarter_turns"] for c in cards)
    assert a.any == pytest.approx(b.any, abs=0.02)


def test_two_runs_agree_to_the_bit(photos):
    a, b = (audit(flat, photos, "paper", **FEW) for _ in range(2))
    assert a == b and a.to_dict()["kept"] == b.to_dict()["kept"]


def test_every_view_is_encoded_once(photos):
    seen = []

    def counting(x):
        seen.append(len(x))
        return flat(x)

    audit(counting, photos, TURNS, **FEW)
    checks = 8 + 8 + 2  # before it begins
    alone = 144 + 36 + 60  # one operation, one strength
    assert sum(seen) <= checks + 240 * 5 + alone


def test_a_card_names_its_protocol(photos):
    card = audit(flat, photos, "paper", **FEW)
    p = card.protocol
    assert (p["images"], p["views"], p["scored"]) == (240, 4, 60)
    assert p["encoder"]["pooling"] == "as it is"
    assert card.provenance["seconds"] > 0
    assert {"crop_x", "flip", "hue", "grayscale"} <= card.kept.keys()
    assert (
        card.invariance["crop"]["own"][0] > card.invariance["crop"]["own"][3]
    )


def test_sentences_agree_with_the_card(photos):
    card = audit(flat, photos, "paper", **FEW)
    said = " ".join(sentences(card))
    for name, kept in card.kept.items():
        assert f"{name.replace('_', ' ')} ({kept}" in said
    assert failures(card, {"brightness": card.kept["brightness"].any}) == []


def test_layers_come_from_one_pass_and_equal_their_own_audit(photos):
    encoder = Encoder(width=0.125)
    layers = audit_layers(encoder, photos, augment=TURNS, **FEW)
    assert [name.split(".")[-1] for name in layers] == [
        "layer1",
        "layer2",
        "layer3",
        "layer4",
    ]
    last = layers["trunk.layer4"].kept["four_fold_rotation_quarter_turns"]
    whole = audit(encoder, photos, TURNS, **FEW)
    whole = whole.kept["four_fold_rotation_quarter_turns"]
    assert last.any == pytest.approx(whole.any, abs=0.05)


def test_names_do_for_encoders_and_data():
    card = audit("pixels", "digits", "simclr", **(FEW | {"images": 60}))
    assert card.encoder == "pixels" and card.data == "digits"
    assert "linear_accuracy" in card.useful


def test_a_chain_has_all_that_people_train_with():
    names = {q.operation for q in wide_augment(32).schema}
    assert names == {
        "crop",
        "flip",
        "rotation",
        "translation",
        "jitter",
        "grayscale",
        "blur",
    }


def test_the_effective_rank_of_equal_directions_is_their_number():
    assert effective_rank(torch.eye(6)) == pytest.approx(6)
    assert effective_rank(torch.ones(9, 4)) == pytest.approx(1, abs=1e-4)


# refusals


class Noisy(nn.Module):
    def forward(self, x):
        return x.flatten(1) + torch.rand(len(x), 1)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (lambda x: (x, x), "gives a tuple"),
        (lambda x: {"h": x}, "gives a dict"),
        (lambda x: x.flatten(1) * torch.nan, "NaN"),
        (Noisy(), "at each call"),
        (lambda x: x.flatten(1) - x.flatten(1).mean(0), "beside other"),
    ],
)
def test_an_encoder_that_cannot_be_audited_is_refused(photos, encoder, words):
    with pytest.raises(ValueError, match=words):
        audit(encoder, photos, **FEW)


def test_too_few_images_are_refused(photos):
    with pytest.raises(ValueError, match="at least 8 images"):
        audit(flat, photos[:7], **FEW)


def test_few_images_have_no_interval_and_the_card_says_so(photos):
    card = audit(flat, photos[:30], TURNS, **FEW)
    assert all(kept.interval is None for kept in card.kept.values())
    assert "too few for intervals" in sentences(card)[-1]


def test_own_views_need_a_run_of_ours(photos):
    with pytest.raises(ValueError, match="does not say what"):
        audit(flat, photos, "own", **FEW)


def test_an_unknown_chain_is_refused(photos):
    with pytest.raises(ValueError, match="augmentation"):
        audit(flat, photos, "wild", **FEW)


def test_a_parameter_that_never_varies_is_left_out_and_named(photos):
    chain = Augment([HorizontalFlip(p=1.0), ColorJitter(p=1.0, hue=0.0)])
    card = audit(flat, photos, chain, **FEW)
    assert card.protocol["left_out"] == ["flip", "hue"]
    assert not {"flip", "hue"} & card.kept.keys()
