"""The drawing functions: what they draw, and what they refuse."""

import matplotlib.pyplot as plt
import pytest
import torch

from ciper.draw import bars, compasses, loss_curves, montage

IMAGES = (
    torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8).repeat(5, 1, 1, 1)
)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("images", [IMAGES, IMAGES / 255, IMAGES[:, :1]])
def test_a_montage_has_a_place_for_each_image(images):
    fig = montage(images, 3, ["first"])
    assert [len(ax.images) for ax in fig.axes] == [1] * 5 + [0]
    assert fig.axes[0].get_title() == "first"


def test_a_part_that_comes_late_is_drawn():
    late = [{"predictive": 2.0}, {"predictive": 1.0, "contrastive": 3.0}]
    fig = loss_curves({"ciper": late})
    drawn = {ax.get_ylabel(): len(ax.lines[0].get_xdata()) for ax in fig.axes}
    assert drawn == {"contrastive loss": 1, "predictive loss": 2}


TABLE = {"ciper": {"accuracy": 0.5}}


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: montage(IMAGES[:0], 3), "at least one image"),
        (lambda: montage(IMAGES[0], 3), "must be .n, c, h, w."),
        (lambda: montage(IMAGES.float(), 3), "divide by 255"),
        (lambda: montage(IMAGES, 0), "columns must be >= 1, got 0"),
        (lambda: montage(IMAGES, 2.5), "columns must be whole, got 2.5"),
        (lambda: montage(IMAGES[:1], 1, ["a", "b"]), "2 titles for 1 images"),
        (lambda: loss_curves({}), "at least one method"),
        (lambda: loss_curves({"ciper": []}), "no part to draw"),
        (lambda: loss_curves({"ciper": [{"loss": 1.0}]}), "no part to draw"),
        (lambda: loss_curves({"mine": [{"predictive": 1.0}]}), "'mine'"),
        (lambda: bars({}, {"accuracy": "a"}), "at least one method"),
        (lambda: bars(TABLE, {}), "at least one metric"),
        (lambda: bars(TABLE, {"error": "e"}), "ciper has no metric 'error'"),
        (lambda: bars({"cipre": {}}, {"error": "e"}), "did you mean 'ciper'"),
        (lambda: compasses(IMAGES[:0], [], {"ciper": []}), "least one image"),
        (lambda: compasses(IMAGES[:2], [0.0], {}), "at least one method"),
        (
            lambda: compasses(IMAGES[:2], [0.0], {"ciper": [0, 0]}),
            "truth needs",
        ),
        (
            lambda: compasses(IMAGES[:1], [0], {"ciper": []}),
            "got 0 for 1 images",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(
    draw, message, without_shape_checks
):
    with pytest.raises(ValueError, match=message) as error:
        draw()
    assert "\n" not in str(error.value)
