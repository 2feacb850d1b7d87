"""The renderer against closed forms, and what a data set needs of it."""

import importlib
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ciper.data.turntable import (
    OBJECTS,
    ROOMS,
    box,
    capsule,
    cone,
    cylinder,
    length,
    normals,
    render,
    smooth_union,
    sphere,
    torus,
    trace,
    turntable_grid,
)

module = importlib.import_module("ciper.data.turntable")
VIEW = ("object", "azimuth", "elevation", "distance")


def some_views(n, seed=0):
    """n random rows of the grid, as the positional arguments of render."""
    g = torch.Generator().manual_seed(seed)
    grid, rows = turntable_grid(), torch.randperm(12_096, generator=g)[:n]
    return [grid[name][rows] for name in VIEW]


def around(name, azimuth, elevation=30.0, distance=0.4):
    azimuth = torch.as_tensor(azimuth, dtype=torch.float32)
    k = torch.full(azimuth.shape, OBJECTS.index(name))
    full = [torch.full_like(azimuth, v) for v in (elevation, distance)]
    return [k, azimuth, *full]


def rays_at_sphere(n=4000, radius=0.7):
    """Rays from a point, and where they meet a sphere (root > 0)."""
    g = torch.Generator().manual_seed(1)
    origin = torch.tensor([[2.0], [-1.5], [1.0]], dtype=torch.float64).expand(
        3, n
    )
    aim = torch.rand(3, n, generator=g, dtype=torch.float64) * 2 - 1
    direction = (aim - origin) / length(*(aim - origin))
    b = -(origin * direction).sum(0)
    root = b**2 - (origin**2).sum(0) + radius**2
    return origin, direction, b - root.sqrt(), root


def traced(origin, direction, radius=0.7, **options):
    near, far = torch.zeros_like(origin[0]), torch.full_like(origin[0], 5.0)
    return trace(
        lambda p: sphere(p, radius), origin, direction, near, far, **options
    )


# The tracer


def test_traced_sphere_has_the_closed_form_depth():
    origin, direction, expected, root = rays_at_sphere()
    depth, hit = traced(origin, direction, tolerance=1e-10, steps=1000)
    clear = root.abs() > 1e-3
    assert 1000 < hit.sum() < 3500
    assert torch.equal(hit[clear], (root > 0)[clear])
    both = clear & hit
    torch.testing.assert_close(depth[both], expected[both], atol=1e-8, rtol=0)


def test_single_precision_depth_is_within_its_tolerance_of_the_closed_form():
    origin, direction, expected, root = rays_at_sphere()
    depth, hit = traced(origin.float(), direction.float())
    steep = (
        root > 0.05
    )  # elsewhere a gap of 1e-3 is a longer way along the ray
    assert hit[steep].all()
    error = (depth[steep] - expected[steep].float()).abs()
    assert error.max() < 2e-3


def test_a_cone_stops_before_every_ray_in_it():
    origin, direction, expected, root = rays_at_sphere()
    g = torch.Generator().manual_seed(2)
    spread = 0.05
    axis = direction + spread / 2 * torch.randn(3, len(root), generator=g)
    axis = axis / length(*axis)
    inside = (axis * direction).sum(0).arccos().tan() < spread
    depth, hit = traced(origin, axis, spread=spread)
    checked = inside & (root > 0)
    assert checked.sum() > 500
    assert hit[checked].all()
    assert (depth[checked] <= expected[checked]).all()


def test_normals_of_a_sphere_point_from_its_center():
    p = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    p = 0.7 * p / length(*p)
    normal = normals(lambda q: sphere(q, 0.7), p)
    torch.testing.assert_close(normal, p / 0.7, atol=2e-3, rtol=0)
    torch.testing.assert_close(length(*normal), torch.ones(1000))


@pytest.mark.parametrize("size", [8, 9, 30, 33, 64])
@pytest.mark.parametrize("distance", [0.3, 0.6])
def test_a_sphere_silhouette_is_the_analytic_disc(size, distance):
    view = [torch.tensor([v]) for v in (70.0, 35.0, distance)]
    position, axes = module._camera(*view)
    (_, i, j), points, _ = module._surface(
        lambda p: sphere(p, 0.8), position, axes, (0.8, 0.8, 0.8), size
    )
    tolerance = module._SLOPE / size / 6  # a twelfth of a pixel at depth 1
    hits = torch.zeros(2 * size, 2 * size, dtype=torch.bool)
    hits[i, j] = True
    c = (torch.arange(2 * size) + 0.5) / size - 1
    r = torch.hypot(c[:, None], c) * module._SLOPE

    def disc(radius):
        return r < radius / math.sqrt((10 * distance) ** 2 - radius**2)

    assert not (disc(0.8 - 1e-5) & ~hits).any()
    assert not (hits & ~disc(0.8 + tolerance + 1e-5)).any()
    assert (length(*points) - 0.8).abs().max() < tolerance + 1e-4


# The primitives

PRIMITIVES = {
    "box": lambda p: box(p, (0.8, 0.5, 0.6), 0.1),
    "cylinder": lambda p: cylinder(p, 0.5, 0.7, 0.1),
    "torus": lambda p: torus(p, 0.6, 0.2),
    "capsule": lambda p: capsule(p, (-0.4, 0.1, 0.0), (0.5, 0.2, 0.4), 0.2),
    "cone": lambda p: cone(p, 0.7, 0.2, 0.6),
}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitives_outside_are_exact_distances(name):
    f = PRIMITIVES[name]
    g = torch.Generator().manual_seed(3)
    p = torch.rand(3, 300, generator=g, dtype=torch.float64) * 4 - 2
    p = p[:, f(p) > 0.05]
    steps = 1e-6 * torch.eye(3, dtype=torch.float64)[..., None]
    slope = torch.stack([f(p + step) - f(p - step) for step in steps]) / 2e-6
    # One step of the distance down the gradient ends on the surface, and no
    # shorter one reaches it: the gradient is a unit vector.
    torch.testing.assert_close(
        length(*slope), torch.ones_like(p[0]), atol=1e-6, rtol=0
    )
    assert f(p - f(p) * slope).abs().max() < 1e-6


def test_smooth_union_equals_the_union_away_from_the_seam():
    a, b = torch.tensor([0.1, 0.3, 0.2]), torch.tensor([0.9, 0.31, 0.2])
    expected = torch.tensor([0.1, 0.3 - 0.2 / 4 * 0.95**2, 0.2 - 0.2 / 4])
    torch.testing.assert_close(smooth_union(a, b, 0.2), expected)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_never_promise_too_much_space_and_stay_in_their_box(name):
    g = torch.Generator().manual_seed(4)
    f, half = (
        module._distance(name),
        torch.tensor(module._SHAPES[name][1])[:, None],
    )
    p = torch.rand(3, 60_000, generator=g) * 2.4 - 1.2
    q = p + 0.05 * torch.randn(3, 60_000, generator=g)
    assert ((f(p) - f(q)).abs() <= length(*(p - q)) + 1e-5).all()
    inside = p[:, f(p) < 0]
    assert inside.shape[1] > 100
    assert (inside.abs() < half).all()
    assert length(*inside).max() < 1


# The grid and the names


def test_names_are_those_of_the_data_set():
    expected = (
        "cup comb scissor hammer book calculator goblet candle headphones "
        "screwdriver cassette bottle"
    )
    assert " ".join(OBJECTS) == expected
    assert len(ROOMS) == len(set(ROOMS)) == 11


def test_grid_has_tdws_order():
    grid = turntable_grid()
    index = torch.arange(12_096)
    d, e, a = (grid[f"{k}_step"] for k in ("distance", "elevation", "azimuth"))
    assert {len(v) for v in grid.values()} == {12_096}
    assert torch.equal(grid["object"], index // 1008)
    assert torch.equal(d * 252 + e * 36 + a, index % 1008)
    assert (a.max(), e.max(), d.max()) == (35, 6, 3)


def test_grid_has_tdws_angles_and_distances():
    grid = turntable_grid()
    assert grid["azimuth"].unique().tolist() == list(range(0, 360, 10))
    assert grid["elevation"].unique().tolist() == list(range(10, 80, 10))
    distances = grid["distance"].unique()
    torch.testing.assert_close(distances, torch.tensor([0.3, 0.4, 0.5, 0.6]))
    assert torch.equal(grid["azimuth"], 10.0 * grid["azimuth_step"])


# The images


def test_shapes_and_types():
    image, mask = render(*some_views(5), size=17, return_mask=True)
    assert image.shape == (5, 3, 17, 17) and image.dtype == torch.uint8
    assert mask.shape == (5, 17, 17) and mask.dtype == torch.bool
    assert render(*some_views(0)).shape == (0, 3, 32, 32)


def test_same_input_gives_the_same_bytes_and_leaves_the_random_state():
    few, before = around("comb", [0.0, 50.0, 200.0]), torch.get_rng_state()
    first = render(*few)
    assert torch.equal(first, render(*few))
    assert torch.equal(before, torch.get_rng_state())


def test_a_view_depends_on_no_other_row(monkeypatch):
    views, g = some_views(12), torch.Generator().manual_seed(5)
    views[0] = torch.full((12,), OBJECTS.index("book"))
    room = torch.arange(12) % 2 * 5
    image, mask = render(*views, room=room, return_mask=True)
    order = torch.randperm(12, generator=g)
    shuffled = render(*[v[order] for v in views], room=room[order])
    assert torch.equal(shuffled, image[order])
    monkeypatch.setattr(module, "_PIXELS", 2 * 32**2)
    small = render(*views, room=room, return_mask=True)
    assert torch.equal(small[0], image) and torch.equal(small[1], mask)
    for row in (0, 7):
        alone = render(*[v[[row]] for v in views], room=room[[row]])
        assert torch.equal(alone[0], image[row])


def test_threads_change_nothing_and_their_number_is_restored():
    few, threads = (
        around("bottle", torch.arange(36) * 10.0),
        torch.get_num_threads(),
    )
    try:
        torch.set_num_threads(3)
        several = render(*few, size=96)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        assert torch.equal(render(*few, size=96), several)
    finally:
        torch.set_num_threads(threads)


def test_64_pixels_averaged_are_nearly_32_pixels():
    views = some_views(1008)[:]
    views = [v[views[0] % 4 == 0][:60] for v in views]
    small = render(*views, size=32).float()
    large = F.avg_pool2d(render(*views, size=64).float(), 2)
    assert (large - small).abs().mean() < 1.5  # of 255
    change = (large - small).flatten(1).square().mean(1).sqrt()
    assert change.max() < 9


def test_whole_turns_change_nothing():
    views = around("hammer", [30.0, 120.0])
    turned = [views[0], views[1] - 360, *views[2:]]
    difference = render(*views).float() - render(*turned).float()
    assert difference.abs().mean() < 0.1


@pytest.mark.parametrize("elevation", [10.0, 70.0])
def test_azimuth_shows_in_every_object(elevation):
    azimuth = torch.arange(36) * 10.0
    for name in OBJECTS:
        views = around(name, azimuth, elevation)
        image, mask = render(*views, return_mask=True)
        image = image.float().flatten(1) / 255
        change = torch.cdist(image, image) / math.sqrt(3 * 32**2)
        others = change + torch.eye(36)
        assert others.min() > 0.015, name
        opposite = change[torch.arange(36), (torch.arange(36) + 18) % 36]
        assert opposite.min() > 0.05, name


def test_azimuth_shows_on_the_object_itself():
    """Without the shadow on the floor: pixels that both views' masks hold."""
    azimuth = torch.arange(36) * 10.0
    for name in OBJECTS:
        image, mask = render(*around(name, azimuth), return_mask=True)
        own = (image.float() / 255 * mask[:, None]).flatten(1)
        change = torch.cdist(own, own) / mask.sum((1, 2)).float().mean().sqrt()
        assert (change + torch.eye(36)).min() > 0.03, name


def test_objects_look_different():
    k = torch.arange(12)
    views = [torch.full((12,), v) for v in (30.0, 30.0, 0.4)]
    image, mask = render(k, *views, return_mask=True)
    own = (image.float() / 255 * mask[:, None]).flatten(1)
    change = torch.cdist(own, own) / 32 + torch.eye(12)
    assert change.min() > 0.1


def test_every_view_of_the_grid_stays_in_the_frame():
    grid = turntable_grid()
    worst = (grid["distance_step"] == 0) & (grid["azimuth_step"] % 3 == 0)
    rows = worst.nonzero()[::3, 0]
    mask = render(*[grid[k][rows] for k in VIEW], return_mask=True)[1]
    assert not mask[:, [0, -1]].any() and not mask[:, :, [0, -1]].any()
    assert (mask.flatten(1).sum(1) > 20).all()


def test_distance_scales_the_mask_by_its_square():
    views = [v.repeat(2) for v in around("bottle", [0.0])]
    views[3] = torch.tensor([0.3, 0.6])
    mask = render(*views, size=96, return_mask=True)[1]
    near, far = mask.flatten(1).sum(1).tolist()
    assert 3.7 < near / far < 4.5


def test_the_mask_is_where_the_object_is():
    """One ray through the center of each pixel says the same but at edges."""
    name, size = "headphones", 64
    views = around(name, [50.0], 20.0, 0.35)
    mask = render(*views, size=size, return_mask=True)[1][0]
    position, axes = module._camera(*views[1:])
    c = (2 * torch.arange(size) + 1) / size - 1
    d = module._directions(
        axes[..., None], c.repeat(size), -c.repeat_interleave(size)
    )
    o, d = position.expand(3, size * size), d[:, 0]
    near, far = torch.full_like(o[0], 2.0), torch.full_like(o[0], 5.0)
    depth, hit = trace(module._distance(name), o, d, near, far)
    differs = hit.view(size, size) != mask
    edge = F.max_pool2d(mask[None, None].float(), 3, 1, 1) != -F.max_pool2d(
        -mask[None, None].float(), 3, 1, 1
    )
    assert not (differs & ~edge[0, 0]).any()
    assert differs.float().mean() < 0.02
    assert abs(mask.sum() - hit.sum()) < 0.08 * hit.sum()  # ties count


def test_the_mask_does_not_depend_on_the_room():
    views = [v.repeat(11) for v in around("candle", [80.0])]
    image, mask = render(*views, room=torch.arange(11), return_mask=True)
    assert (mask == mask[0]).all()
    assert len(image.flatten(1).unique(dim=0)) == 11


def test_arrays_and_lists_are_rendered_as_tensors_are(without_shape_checks):
    view, room = some_views(5), torch.arange(5)
    expected = render(*view, room=room, size=8)
    for form in (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.double):
        odd = [form(value) for value in view[1:]]
        k = (
            view[0].to(torch.uint8)
            if form is torch.Tensor.numpy
            else view[0].tolist()
        )
        assert torch.equal(
            render(k, *odd, np.arange(5), np.int64(8)), expected
        )
    one = render(*view, room=np.int64(3), size=8)
    assert torch.equal(one, render(*view, room=3, size=8))


def test_defaults_of_a_program_change_no_picture(strange_defaults):
    _, *rest = around("cup", [0.0, 90.0, 200.0])
    k, room = torch.tensor([1, 6, 11]), torch.tensor([1, 7, 8])
    module._rgb.cache_clear()
    module._shadow.cache_clear()
    with strange_defaults():
        strange = render(k, *rest, room, size=8, return_mask=True)
        grid = turntable_grid()
    kept = render(k, *rest, room, size=8)  # with what was cached
    module._rgb.cache_clear()
    module._shadow.cache_clear()
    image, mask = render(k, *rest, room, size=8, return_mask=True)
    assert torch.equal(kept, image)
    assert torch.equal(strange[0], image) and torch.equal(strange[1], mask)
    for name, column in turntable_grid().items():
        assert torch.equal(grid[name], column)
        assert grid[name].dtype == column.dtype


def test_no_room_is_the_studio_and_a_number_is_a_room_for_all():
    views = some_views(3)
    assert torch.equal(render(*views), render(*views, room=0))
    street = torch.full((3,), ROOMS.index("street"))
    assert torch.equal(render(*views, room=10), render(*views, room=street))


def test_edges_are_antialiased():
    image = render(*around("book", [0.0], 10.0, 0.3), size=32)[0].int()
    assert len(image.flatten(1).unique(dim=1)[0]) > 100


# Mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"object": torch.tensor([12])},
            "object must be an index in 0..11, got 12",
        ),
        (
            {"object": torch.tensor([-1])},
            "object must be an index in 0..11, got -1",
        ),
        (
            {"object": torch.tensor([1.0])},
            "object must be whole numbers, got torch.float32",
        ),
        ({"room": 11}, "room must be an index in 0..10, got 11"),
        (
            {"room": torch.tensor([-2])},
            "room must be an index in 0..10, got -2",
        ),
        (
            {"azimuth": torch.tensor([math.nan])},
            "azimuth must be finite .*got nan",
        ),
        (
            {"azimuth": torch.tensor([math.inf])},
            "azimuth must be finite .*got inf",
        ),
        (
            {"elevation": torch.tensor([-1.0])},
            "elevation must be 0 to 90 .*got -1",
        ),
        (
            {"distance": torch.tensor([0.1])},
            "distance must be 0.15 to 10 .*got 0.1",
        ),
        ({"azimuth": torch.zeros(2)}, "one shape"),
        ({"room": torch.tensor([0, 1])}, "one shape"),
        ({"object": torch.tensor(0)}, "one shape"),
        ({"size": 7}, "size must be >= 8, got 7"),
        ({"size": 16.0}, "size must be whole, got 16.0"),
        ({"size": "16"}, "size must be whole, got 16"),
        ({"room": 2.5}, "room must be whole numbers, got float"),
        ({"room": True}, "room must be whole numbers, got bool"),
        ({"object": ["cup"]}, "object must be whole numbers, got list"),
        ({"object": 0, "azimuth": 30.0}, "one shape"),
        ({"azimuth": ["north"]}, "azimuth must be .*got"),
        (
            {"azimuth": torch.tensor([True])},
            "azimuth must be numbers, got torc",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(change, message, without_shape_checks):
    good = dict(zip(VIEW, around("cup", [0.0]), strict=True))
    with pytest.raises(ValueError, match=message) as error:
        render(**{**good, **change})
    assert "\n" not in str(error.value)
