"""What `ciper.views` promises: partners, targets and batches."""

import math

import pytest
import torch
from replicas import generator, toy

from ciper.augment import Augment
from ciper.datasets import load
from ciper.views import AugmentedViews, PartnerViews


def test_a_circular_change_is_cosine_and_sine_of_the_turn():
    source = PartnerViews(toy())
    change = source._change(torch.tensor([0]), torch.tensor([1]))
    turn = math.radians(20)
    expected = torch.tensor([[math.cos(turn), math.sin(turn)]])
    torch.testing.assert_close(change, expected, atol=1e-6, rtol=0)
    assert source.names == ("factor (cos)", "factor (sin)")
    assert source.classes == (0, 0)


def test_a_continuous_change_is_a_difference():
    source = PartnerViews(toy("continuous"))
    change = source._change(torch.tensor([1]), torch.tensor([2]))
    assert change.tolist() == [[80.0]]


def test_a_categorical_target_is_the_class_of_the_partner():
    source = PartnerViews(toy("categorical"))
    assert source.classes == (3,)
    change = source._change(torch.tensor([0]), torch.tensor([2]))
    assert change.tolist() == [[2.0]]


def test_partners_are_others_of_the_same_object_drawn_uniformly():
    whole, n = toy(), 20_000
    source = PartnerViews(whole)
    index = torch.arange(5).repeat(n)
    partner = source.companions.draw(index, generator())
    owner = whole.factors["object"].values
    assert (partner != index).all()
    assert torch.equal(owner[partner], owner[index])
    counts = torch.bincount(partner[index == 0], minlength=5)
    assert abs(counts[1].item() - n / 2) < 4 * math.sqrt(n / 4)


def test_an_object_with_one_image_has_no_partner():
    with pytest.raises(ValueError, match="only one image"):
        PartnerViews(toy().subset(torch.tensor([0, 1, 2, 3])))


def test_data_without_partners_are_refused():
    with pytest.raises(ValueError, match="no partner views"):
        PartnerViews(load("digits", 16))


def test_the_targets_of_a_view_are_the_parameters_that_made_it():
    augment = Augment.preset("paper", size=16)
    data = load("digits", 16)
    index = torch.arange(9)
    batch = AugmentedViews(augment)(data, index, generator(3))
    g = generator(3)
    for view, r in zip(batch.views, batch.targets):
        again, params = augment(data.images[index], generator=g)
        assert torch.equal(view, again)
        assert torch.equal(r, params.vector())
    assert batch.targets[0].shape == (9, 10)
    assert torch.equal(batch.anchor, data.images[index] / 255)
