"""The figures: the numbers drawn are the numbers measured."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import replicas
import torch
from invented import Reader, result, turning

from ciper import Encoder, Run, embed, fit_linear, load, recipe_at
from ciper.data import datasets
from ciper.data.datasets import object_masks
from ciper.data.photographs import most_turning, read_coil100
from ciper.evaluation.explain import map_2d, neighbor_share, saliency
from ciper.reproduce import figures
from ciper.reproduce.figures import (
    figure_1,
    figure_2,
    figure_3,
    figure_4a,
    figure_4b,
    figure_epochs,
)
from ciper.reproduce.plans import ALPHAS, OPERATIONS, plan


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def principal_components(monkeypatch):
    """PaCMAP takes its time to compile."""
    monkeypatch.setattr(figures, "map_2d", lambda h: map_2d(h, "pca"))


@pytest.fixture(scope="module")
def runs():
    """Two encoders as they were initialized."""
    found = {}
    for seed, method in enumerate(("simclr", "ciper")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = Encoder(width=0.125).eval()
        found[method] = Run(recipe_at("smoke", method=method), encoder, [])
    return found


@pytest.fixture(scope="module")
def views():
    """A dozen views of each of three objects, and two of each."""
    data = load("turntable", 16, "test", progress=False)
    three = [(data.labels == k).nonzero()[:, 0] for k in range(3)]
    spread = torch.cat([index[:: len(index) // 12][:12] for index in three])
    few = torch.cat([index[:200:100] for index in three])
    return data.subset(spread), data.subset(few)


def texts(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def numbers(results, data, metric):
    """label -> value of single trainings."""
    here = [r for r in results if r.experiment == data]
    return {r.method: r.metrics[metric] for r in here}


# figure 1


def test_the_overview_has_the_widths_of_the_papers_heads():
    boxes = texts(figure_1())
    assert "projector\n512 → 2,048 → 2,048" in boxes
    # the paper's ten parameters
    assert "predictor\n512 → 512 → 10" in boxes


def test_the_overview_shows_an_image_twice_and_two_different_views_of_it():
    pictures = [image.get_array() for image in figure_1().axes[0].images]
    assert len(pictures) == 4
    first, anchor, second, used = pictures
    assert np.array_equal(anchor, used)
    assert not np.array_equal(first, second)
    assert all(p.min() >= 0 and p.max() <= 1 for p in pictures)


def test_the_overview_is_the_same_every_time():
    one, other = (
        np.stack([i.get_array() for i in figure_1().axes[0].images])
        for _ in range(2)
    )
    assert np.array_equal(one, other)


# figure 2


def test_the_maps_show_each_view_once_by_object_and_by_azimuth(runs, views):
    test, _ = views
    fig = figure_2(runs, test)
    by_object, by_azimuth = fig.axes[0], fig.axes[1]
    expected = map_2d(embed(runs["simclr"].encoder, test.images), "pca")
    for ax in (by_object, by_azimuth):
        points = ax.collections[0].get_offsets()
        np.testing.assert_allclose(points, expected.points)
    colors = by_object.collections[0].get_array()
    assert np.array_equal(colors, test.labels)
    colors = by_azimuth.collections[0].get_array()
    assert np.array_equal(colors, test.factors["azimuth"].values)


def test_the_titles_of_the_maps_have_the_scores_of_the_points(runs, views):
    test, _ = views
    titles = [ax.get_title() for ax in figure_2(runs, test).axes]
    azimuth = test.factors["azimuth"].values
    for name, run in zip(("SimCLR", "CIPER"), runs.values()):
        points = map_2d(embed(run.encoder, test.images), "pca").points
        share = neighbor_share(points, test.labels, "categorical")
        gap = neighbor_share(points, azimuth, "circular", within=test.labels)
        expected = f"{name}: {share.neighbors:.0%} of neighbors share"
        assert any(t.startswith(expected) for t in titles)
        expected = f"{name}: neighbors {gap.neighbors:.0f}° apart"
        assert any(t.startswith(expected) for t in titles)


def test_a_map_that_keeps_the_azimuth_says_so_in_its_titles(runs, monkeypatch):
    """10 neighbors: 10, 20, ..., 50 degrees to either side."""

    def circles(h):  # one for each object
        return map_2d(h, "pca")._replace(points=h[:, -2:] + h[:, :2])

    monkeypatch.setattr(figures, "map_2d", circles)
    monkeypatch.setattr(figures, "embed", lambda e, x: Reader()(x / 255))
    fig = figure_2({"ciper": runs["ciper"]}, turning())
    titles = [ax.get_title() for ax in fig.axes]
    assert "CIPER: 100% of neighbors share the object" in titles
    assert "CIPER: neighbors 30° apart in azimuth" in titles


def test_of_many_objects_the_map_shows_the_twelve_that_turn_most(
    runs, tmp_path, monkeypatch
):
    layout = replicas.Coil100Layout(objects=30, step=30)
    home = replicas.coil100(tmp_path, layout)
    data = read_coil100(home, 16, "test", layout=layout, progress=False)
    data.images[data.labels < 10] //= 2  # less contrast
    assert len(data.labels.unique()) == 24
    fig = figure_2({"ciper": runs["ciper"]}, data)
    kept = most_turning(data, 12)
    points = fig.axes[0].collections[0]
    assert len(points.get_offsets()) == len(kept) == 12 * 6
    assert {*points.get_array()} == {*range(12)}  # as many colors
    assert kept.labels.min() >= 10


# figure 3


def test_the_saliency_rows_are_the_maps_of_the_images(runs, views):
    train, some = views
    fig = figure_3(runs, train, some, count=4)
    axes = np.array(fig.axes).reshape(3, 4)
    drawn = [torch.tensor(ax.images[0].get_array()) for ax in axes[0]]
    rows = [
        (some.images == image.permute(2, 0, 1)).flatten(1).all(1).nonzero()
        for image in drawn
    ]
    some = some.subset(torch.cat(rows).flatten())
    assert len(some) == 4
    masks = object_masks(some)
    for row, run in zip(axes[1:], runs.values()):
        h = embed(run.encoder, train.images)
        classifier = fit_linear(h, train.labels, len(train.classes))
        maps = saliency(run.encoder, classifier, some.images, some.labels)
        for i, ax in enumerate(row):
            drawn = ax.images[0].get_array()
            np.testing.assert_allclose(drawn, maps[i], atol=1e-6)
            inside = (maps[i] * masks[i]).sum() / maps[i].sum()
            ratio = inside / masks[i].float().mean()
            assert ax.get_xlabel() == f"{ratio:.2f}"
    for i, ax in enumerate(axes[0]):
        assert ax.get_title() == some.classes[some.labels[i]]
    labels = [row[0].get_ylabel() for row in axes]
    assert labels == ["image", "SimCLR", "CIPER"]


def titles(fig, count):
    return [ax.get_title() for ax in fig.axes[:count]]


def test_no_class_is_drawn_again_before_all_were(runs, views):
    train, some = views
    a, b, c = train.classes[:3]
    assert titles(figure_3(runs, train, train, count=3), 3) == [a, b, c]
    shown = titles(figure_3(runs, train, train, count=6), 6)
    assert shown == [a, a, b, b, c, c]


def test_the_outlines_of_photographs_are_drawn(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "ETH80", replicas.SMALL_ETH80)
    monkeypatch.setenv("CIPER_DATA", str(tmp_path))
    replicas.eth80(tmp_path)
    images = [load("eth80", 16, s, progress=False) for s in ("train", "test")]
    fig = figure_3(runs, *images, count=2)
    assert titles(fig, 2) == ["apple", "car"]
    assert all(ax.get_xlabel() for ax in fig.axes[2:])
    bare = [replace(data, name="others") for data in images]
    fig = figure_3(runs, *bare, count=2)
    assert not any(ax.get_xlabel() for ax in fig.axes)


# figure 4


@pytest.fixture(scope="module")
def ablations():
    """Three seeds of each row; every number is another one."""
    jobs = plan("figure 4a", "laptop", range(3), ["digits", "turntable"])
    return [
        result(job, linear_accuracy=0.5 + i**2 / 2000)
        for i, job in enumerate(jobs)
    ]


def test_the_bars_are_the_mean_accuracies_without_each_operation(ablations):
    fig = figure_4a(ablations, ["folder:elsewhere/digits", "turntable"])
    assert [ax.get_title() for ax in fig.axes] == ["Digits", "Turntable"]
    for ax, data in zip(fig.axes, ("digits", "turntable")):
        ticks = [tick.get_text() for tick in ax.get_xticklabels()]
        assert ticks == ["nothing", *OPERATIONS]
        bars = [patch.get_height() for patch in ax.patches]
        for name, height in zip(ticks, bars, strict=True):
            row = "ciper-image" + f"-without={name}" * (name != "nothing")
            found = [
                100 * r.metrics["linear_accuracy"]
                for r in ablations
                if (r.experiment, r.method) == (data, row)
            ]
            assert len(found) == 3
            assert height == pytest.approx(np.mean(found))


def test_the_whiskers_are_the_standard_deviations(ablations):
    ax = figure_4a(ablations, ["digits"]).axes[0]
    (whiskers,) = ax.collections
    found = [
        100 * r.metrics["linear_accuracy"]
        for r in ablations
        if (r.experiment, r.method) == ("digits", "ciper-image-without=crop")
    ]
    low, high = whiskers.get_segments()[1][:, 1]
    assert high - low == pytest.approx(2 * np.std(found, ddof=1))


def test_an_operation_without_results_has_no_bar(ablations):
    some = [r for r in ablations if "flip" not in r.method]
    ax = figure_4a(some, ["digits"]).axes[0]
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert ticks == ["nothing", "crop", "jitter", "grayscale"]
    assert len(ax.patches) == 4


@pytest.fixture(scope="module")
def weighted():
    """One seed of each weight on both data sets, each its own numbers."""
    jobs = plan("figure 4b", "laptop", [0])
    found = []
    for i, job in enumerate(jobs):
        metrics = dict(linear_accuracy=0.5 + i / 100, view_mse_steps=30.5 - i)
        if job.experiment == "turntable-rooms":
            metrics["session_accuracy"] = 0.8 + i**2 / 1000
        found.append(result(job, **metrics))
    return found


ROOMS = "turntable-rooms"


@pytest.mark.parametrize(
    ("panel", "metric", "factor", "data"),
    [
        (0, "linear_accuracy", 100, [ROOMS, "turntable"]),
        (1, "session_accuracy", 100, [ROOMS]),
        (2, "view_mse_steps", 1, ["turntable"]),
    ],
)
def test_the_curves_are_the_numbers_at_each_alpha(
    weighted, panel, metric, factor, data
):
    fig = figure_4b(weighted, [ROOMS, "turntable"])
    lines = [container.lines[0] for container in fig.axes[panel].containers]
    assert len(lines) == len(data)
    for line, name in zip(lines, data):
        found = numbers(weighted, name, metric)
        rows = [f"ciper-dataset-alpha={alpha:g}" for alpha in ALPHAS]
        rows[ALPHAS.index(1)] = "ciper-dataset"
        expected = [factor * found[row] for row in rows]
        assert line.get_ydata() == pytest.approx(expected)
        assert [*line.get_xdata()] == [*range(6)]
    labels = [tick.get_text() for tick in fig.axes[panel].get_xticklabels()]
    assert labels == ["0", "0.1", "0.3", "1", "3", "10"]


def test_a_weight_without_results_is_left_out_at_its_place(weighted):
    some = [r for r in weighted if "0.3" not in r.method]
    ax = figure_4b(some, ["turntable"]).axes[0]
    assert [*ax.containers[0].lines[0].get_xdata()] == [0, 1, 3, 4, 5]


def test_the_legend_names_the_data(weighted):
    fig = figure_4b(weighted, [ROOMS, "folder:elsewhere/turntable"])
    legend = fig.axes[0].get_legend().get_texts()
    titles = ["Turntable-rooms", "Turntable"]
    assert [text.get_text() for text in legend] == titles


def watched(seed, method, **changes):
    """A result whose accuracy is the epoch, a percent more for each seed."""
    job = plan("table 3", "smoke-30", [seed], ["digits"])[0]
    job = replace(job, recipe=replace(job.recipe, method=method, **changes))
    curve = [[epoch, (epoch + seed) / 100] for epoch in (10, 20, 30 - seed)]
    return replace(result(job), knn_curve=curve)


def test_the_curves_are_means_over_trainings_where_all_were_watched():
    results = [watched(seed, "ciper") for seed in (0, 1)]
    results += [watched(0, "simclr"), result(plan("table 3")[0])]
    ax = figure_epochs(results).axes[0]
    both, one = (container.lines[0] for container in ax.containers)
    assert [*both.get_xdata()] == [10, 20]  # one was not watched at 30
    assert both.get_ydata() == pytest.approx([10.5, 20.5])
    assert one.get_ydata() == pytest.approx([10, 20, 30])
    spread = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert spread == pytest.approx([10.5 - 0.5**0.5, 10.5 + 0.5**0.5])


def test_a_second_row_of_a_method_is_dashed():
    rows = watched(0, "ciper"), watched(0, "ciper", preset="simclr")
    ax = figure_epochs(rows).axes[0]
    styles = [
        container.lines[0].get_linestyle() for container in ax.containers
    ]
    assert styles == ["-", "--"]


def test_figures_without_results_are_empty():
    for fig in (
        figure_4a([], ["digits"]),
        figure_4b([], []),
        figure_epochs([]),
    ):
        assert not fig.axes[0].lines
