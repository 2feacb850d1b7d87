"""Tables 2 and 3 against numbers written by hand and printed by the paper."""

import json
import math
import random
import statistics
import sys
import warnings
from dataclasses import asdict, replace

import pytest
from invented import result

from ciper.reproduce.claims import claims_table
from ciper.reproduce.plans import (
    DATA,
    data_of,
    finished,
    is_done,
    plan,
    result_path,
)
from ciper.reproduce.results import (
    ALIKE,
    Summary,
    load_results,
    save_result,
)
from ciper.reproduce.tables import (
    COLUMNS,
    METRICS,
    chance,
    costs,
    data_title,
    row_name,
    scaled,
    setup_box,
    shown_summaries,
    table,
    table_1,
)

TABLE_2 = """
random         | 18.44 ± 10.01 | 60.73 ± 8.39 | 81.29 ± 5.51 | 37.07 ± 0.52
simclr-image   | 66.95 ± 0.84  | 95.91 ± 0.17 | 99.08 ± 0.09 | 40.88 ± 1.38
simclr-dataset | 60.55 ± 0.87  | 98.32 ± 0.15 | 96.81 ± 0.61 | 40.84 ± 2.69
ciper-image    | 75.43 ± 0.61  | 97.36 ± 0.16 | 99.97 ± 0.02 | 29.63 ± 1.71
ciper-dataset  | 67.46 ± 0.41  | 98.92 ± 0.41 | 99.72 ± 0.07 | 6.48 ± 0.15
"""  # row by row, as the paper prints it
TABLE_3 = """
simclr-image     | 91.7 ± 0.1
essl-image       | 94.1 ± 0.0
predictive-image | 53.4 ± 2.3
ciper-image      | 92.2 ± 0.3
"""


def parts(text):
    """data set -> Table 2's table of it, as `cells` gives it."""
    titles, tables = text.split("\n\n")[::2], text.split("\n\n")[1::2]
    names = [title.strip("*").split(",")[0] for title in titles]
    return dict(zip(names, map(cells, tables), strict=True))


def cells(text):
    """row -> column -> cell of a markdown table."""
    lines = [[x.strip() for x in y.split("|")] for y in text.splitlines()]
    header, ruler, *rows = ([*line[1:-1]] for line in lines)
    assert set(ruler) == {"---"}
    assert all(len(row) == len(header) for row in rows)
    return {row[0]: dict(zip(header[1:], row[1:])) for row in rows}


def printed(text):
    lines = [line.split("|") for line in text.strip().splitlines()]
    return {row[0].strip(): [x.strip() for x in row[1:]] for row in lines}


ACCURACIES = 0.9123, 0.9251, 0.9004
TITLE = "accuracy (%)"


@pytest.fixture
def results(tmp_path):
    """Three trainings of one row, one of another; read from files."""
    jobs = plan("table 2", "laptop", range(3), ["turntable"])
    for job in jobs:
        seed = job.recipe.seed
        if job.label == "ciper-image" or (job.label, seed) == ("random", 1):
            metrics = dict(linear_accuracy=ACCURACIES[seed])
            made = result(job, **metrics, view_mse_steps=20.5 + seed)
            save_result(made, tmp_path)
    return finished(jobs, tmp_path)


def test_a_cell_is_mean_std_and_number_of_the_files(results):
    assert len(results) == 4
    found = parts(table("table 2", results, "laptop"))["Turntable"]
    mean = 100 * statistics.mean(ACCURACIES)
    std = 100 * statistics.stdev(ACCURACIES)
    row = found["CIPER, image views"]
    assert row[TITLE] == f"{mean:.2f} ± {std:.2f} (3)" == "91.26 ± 1.24 (3)"
    title = "view error (grid steps²)"
    assert row[title] == "21.50 ± 1.00 (3)"


def test_a_single_training_has_no_spread(results):
    found = parts(table("table 2", results, "laptop"))["Turntable"]
    assert found["Random encoder"][TITLE] == "92.51 (1)"


def test_what_is_missing_is_a_dash(results):
    found = parts(table("table 2", results, "laptop"))
    assert found["Turntable"]["SimCLR, image views"][TITLE] == "–"
    for row in found["Turntable-rooms"].values():
        assert len(row) == 5
        ours = [cell for title, cell in row.items() if "paper" not in title]
        assert ours in (["–"] * 3, ["8.33", "8.33", "11.11"])  # or chance
    empty = parts(table("table 2", [], "laptop"))["Turntable"]
    assert {row[TITLE] for row in empty.values()} == {"8.33", "–"}


def test_results_of_other_scales_are_left_out(results):
    jobs = plan("table 2", "smoke", range(5), ["turntable"])
    other = [result(job, linear_accuracy=0.1) for job in jobs]
    expected = table("table 2", results, "laptop")
    assert table("table 2", results + other, "laptop") == expected
    assert table("table 2", results + other, "smoke") != expected


def test_results_of_other_figures_are_left_out(results):
    jobs = plan("figure 4b", "laptop", range(5), ["turntable"])
    other = [
        result(job, linear_accuracy=0.1)
        for job in jobs
        if job.recipe.alpha > 1
    ]
    expected = table("table 2", results, "laptop")
    assert table("table 2", results + other, "laptop") == expected


def test_the_numbers_beside_ours_are_those_of_table_2():
    found = parts(table("table 2", [], "laptop"))
    columns = [
        ("Turntable-rooms", "paper: accuracy (%)"),
        ("Turntable", "paper: accuracy (%)"),
        ("Turntable-rooms", "paper: session accuracy (%)"),
        ("Turntable", "paper: view error (grid steps²)"),
    ]
    for label, numbers in printed(TABLE_2).items():
        assert [found[d][row_name(label)][c] for d, c in columns] == numbers


def test_the_numbers_beside_ours_are_those_of_table_3():
    found = cells(table("table 3", [], "laptop"))
    beside = {k: v["paper, CIFAR-10: accuracy (%)"] for k, v in found.items()}
    for label, (number,) in printed(TABLE_3).items():
        assert beside.pop(row_name(label)) == number
    assert beside.pop("Chance") == "10.00"
    rows = "Random encoder", "CIPER, image views, preset = simclr"
    assert beside == dict.fromkeys(rows, "–")


def test_the_columns_of_the_paper_have_a_row_for_each_of_its_rows():
    for column in COLUMNS["table 2"]:
        assert column.paper.keys() == printed(TABLE_2).keys()
        assert column.metric in METRICS


def test_table_2_is_a_table_for_each_of_the_papers_data():
    titles = table("table 2", [], "smoke").split("\n\n")[::2]
    assert titles == [
        "**Turntable, in the place of TDW**",
        "**Turntable-rooms, in the place of CORE50**",
    ]
    assert table("table 2", [], "paper").split("\n\n")[::2] == [
        "**TDW**",
        "**CORE50**",
    ]


@pytest.mark.parametrize("name", ["Turntable", "Turntable-rooms"])
def test_a_table_opens_with_chance_pixels_and_the_untrained_encoder(name):
    found = parts(table("table 2", [], "laptop"))[name]
    assert [*found][:3] == ["Chance", "Raw pixels", "Random encoder"]
    titles = [*next(iter(found.values()))]
    theirs = [x for x in titles if x.startswith("paper: ")]
    assert [x.removeprefix("paper: ") for x in theirs] == [
        x for x in titles if x not in theirs and "converged" not in x
    ]
    assert titles[1] == "accuracy, converged probe (%)"


@pytest.mark.parametrize(
    ("name", "metric", "value"),
    [
        ("cifar10", "linear_accuracy", "10.00"),
        ("turntable-rooms", "linear_accuracy", "8.33"),
        ("turntable-rooms", "session_accuracy", "11.11"),
        ("tdw", "view_mse_steps", "37.72"),
        ("core50", "linear_accuracy", "–"),  # 10 or 50: the paper is silent
        ("turntable", "azimuth_gap_deg", "–"),
    ],
)
def test_chance_is_what_an_answer_without_looking_reaches(name, metric, value):
    assert chance(name, metric) == value


def test_the_chance_of_the_measured_images_goes_before_that_of_the_grid():
    job, *_ = plan("table 2", "laptop", [0], ["turntable"])
    made = [result(job, view_mse_steps=9, view_mse_steps_chance=38.519)]
    found = parts(table("table 2", made, "laptop"))["Turntable"]["Chance"]
    assert found["view error (grid steps²)"] == "38.52"
    assert found["paper: view error (grid steps²)"] == "37.72"


@pytest.mark.parametrize("data", ["cifar10", "folder:elsewhere/cifar10"])
def test_table_3_takes_other_photographs(data):
    jobs = plan("table 3", "laptop", [0], [data])
    made = [result(job, linear_accuracy=0.5) for job in jobs]
    found = cells(table("table 3", made, "laptop", [data]))
    title = "CIFAR-10: accuracy (%)"
    assert found["E-SSL, image views"][title] == "50.00 (1)"
    usual = cells(table("table 3", made, "laptop"))
    assert title not in usual["E-SSL, image views"]


def test_photographs_stand_in_the_place_of_tdw():
    jobs = plan("table 2", "laptop", [0], ["coil100"])
    errors = dict(change_error_deg=40, unseen_change_error_deg=80)
    made = [result(job, linear_accuracy=0.5, **errors) for job in jobs]
    text = table("table 2", made, "laptop", ["coil100"])
    assert text.startswith("**COIL-100 (64-pixel copy), in the place of TDW**")
    (found,) = parts(text).values()
    assert [*found] == ["Chance"] + [row_name(job.label) for job in jobs]
    row = found["CIPER, dataset views"]
    assert row == {
        "accuracy (%)": "50.00 (1)",
        "accuracy, converged probe (%)": "–",
        "paper: accuracy (%)": "98.92 ± 0.41",
        "error of a turn (degree)": "40.00 (1)",
        "error of a turn, unseen objects (degree)": "80.00 (1)",
    }
    by_chance = ["1.25", "1.25", "8.33", "90.00", "90.00"]  # 80 objects
    assert [*found["Chance"].values()] == by_chance
    other = table("table 2", made, "laptop")  # the usual data have no results
    assert "50.00" not in other and "COIL" not in other


def test_a_category_of_unseen_objects_is_compared_with_no_paper():
    jobs = plan("table 2", "laptop", [0], ["eth80"])
    scores = dict(r2_azimuth=0.25, r2_elevation=0.75, azimuth_error_deg=45)
    made = [result(job, linear_accuracy=0.5, **scores) for job in jobs]
    text = table("table 2", made, "laptop", ["coil100", "eth80"])
    found = parts(text)["ETH-80 (64-pixel copy)"]
    assert "paper" not in "".join(found["CIPER, dataset views"])
    row = found["CIPER, dataset views"]
    assert row["R² of azimuth"] == "0.250 (1)"
    assert row["azimuth error (degree)"] == "45.00 (1)"
    assert found["Chance"]["accuracy (%)"] == "12.50"  # 8 categories
    assert found["Chance"]["R² of elevation"] == "0.00"
    title = "error of a turn (degree)"
    assert found["Chance"][title] == "90.00" and row[title] == "–"


def test_data_that_cannot_stand_in_are_refused():
    with pytest.raises(ValueError, match="digits has no such views") as error:
        table("table 2", [], "laptop", ["coil100", "digits"])
    assert "\n" not in str(error.value)


def test_the_setup_of_photographs_is_compared_with_tdw():
    made = [result(j) for j in plan("table 2", "laptop", [0], ["coil100"])]
    found, text = setup(made)
    (place,) = found["in the place of"].values()
    assert place == "TDW"
    assert "`ciper table 2 --seeds 1 --data coil100`" in text
    made = [result(j) for j in plan("figure 3", "laptop", [0], ["eth80"])]
    found, _ = setup(made, "figure 3")
    assert [*found["in the place of"].values()] == ["CORE50"]


def test_both_presets_have_a_row_of_table_3_with_its_own_results():
    jobs = plan("table 3", "laptop", [0], ["digits"])
    made = [
        result(
            job, linear_accuracy=0.25 + 0.5 * (job.recipe.preset != "paper")
        )
        for job in jobs
    ]
    found = cells(table("table 3", made, "laptop"))
    title = "Digits: accuracy (%)"
    assert found["CIPER, image views"][title] == "25.00 (1)"
    other = found["CIPER, image views, preset = simclr"]
    assert other[title] == "75.00 (1)"


def test_paper_scale_shows_the_papers_own_data():
    jobs = plan("table 2", "paper", [0])
    made = [
        result(job, linear_accuracy=0.25 + 0.5 * (job.experiment == "tdw"))
        for job in jobs
    ]
    found = parts(table("table 2", made, "paper"))
    assert found["CORE50"]["Random encoder"][TITLE] == "25.00 (1)"
    assert found["TDW"]["Random encoder"][TITLE] == "75.00 (1)"


@pytest.mark.parametrize(
    ("base", "epochs", "name"),
    [("paper", 100, "TDW"), ("laptop", 3, "Turntable")],
)
def test_another_number_of_epochs_has_the_same_data_and_its_own_results(
    base, epochs, name
):
    scale = f"{base}-{epochs}"
    made = [
        result(job, linear_accuracy=job.recipe.epochs / 200)
        for job in plan("table 2", scale, [0]) + plan("table 2", base, [0])
    ]
    found = parts(table("table 2", made, scale))[name]
    shown = {row[TITLE] for row in found.values()} - {"8.33"}
    assert shown == {f"{epochs / 2:#.4g} (1)"}
    before = parts(table("table 2", made[:10], base))[name]
    assert {row[TITLE] for row in before.values()} == {"8.33", "–"}


def test_costs_are_measured_against_simclr_as_two():
    speeds = dict(
        random=0.0, simclr=90.0, predictive=60.0, ciper=45.0, essl=30
    )
    jobs = plan("table 3", "laptop", [0], ["digits"])
    made = [result(j, float(speeds[j.recipe.method])) for j in jobs]
    assert costs(made) == {
        "simclr-image": "2× (2.0×)",
        "predictive-image": "3× (3.0×)",
        "ciper-image": "3× (4.0×)",
        "ciper-image-preset=simclr": "3× (4.0×)",
        "essl-image": "6× (6.0×)",
    }


def test_the_cost_is_of_the_fastest_training_and_a_mean_over_data():
    """Trainings beside others are slow for reasons of their own."""
    jobs = plan("table 3", "laptop", [0, 1], ["digits", "turntable"])
    speed = {
        ("simclr", "digits", 0): 100.0,
        ("simclr", "digits", 1): 40.0,
        ("ciper", "digits", 0): 30.0,
        ("ciper", "digits", 1): 50.0,
        ("simclr", "turntable", 0): 10.0,
        ("ciper", "turntable", 0): 10.0,
    }
    keys = [(j.recipe.method, j.recipe.data, j.recipe.seed) for j in jobs]
    made = [result(j, speed[k]) for j, k in zip(jobs, keys) if k in speed]
    assert costs(made)["ciper-image"] == "3× (3.0×)"  # of 4 and 2


def test_without_simclr_no_cost_is_claimed():
    jobs = plan("table 3", "laptop", [0], ["digits"])
    made = [result(job) for job in jobs if job.recipe.method != "simclr"]
    assert costs(made) == {}
    assert cells(table("table 3", [], "laptop"))["CIPER, image views"][
        "cost (measured)"
    ] == ("–")


def test_an_unknown_table_is_refused_in_one_line():
    with pytest.raises(ValueError, match="unknown table 'table 4'") as error:
        table("table 4", [], "laptop")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("random", "Random encoder"),
        ("simclr-image", "SimCLR, image views"),
        ("essl-image", "E-SSL, image views"),
        ("ciper-dataset-alpha=0.3", "CIPER, dataset views, alpha = 0.3"),
        ("ciper-image-without=crop", "CIPER, image views, without crop"),
        ("ciper-image-preset=simclr", "CIPER, image views, preset = simclr"),
    ],
)
def test_a_label_is_named_for_people(label, name):
    assert row_name(label) == name


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("turntable", "Turntable"),
        ("cifar10-jpeg", "CIFAR-10 (JPEG copy)"),
        ("photos", "photos"),
    ],
)
def test_a_data_set_is_named_for_people_and_a_folder_as_it_is(name, title):
    assert data_title(name) == title


def test_all_data_of_the_tables_and_figures_have_names_for_people():
    scales = "laptop", "paper"
    names = {name for i in DATA for s in scales for name in data_of(i, s)}
    titles = {data_title(name) for name in names}
    assert len(titles) == len(names) and not titles & names


def test_a_fraction_is_shown_in_percent_and_a_degree_as_it_is():
    spread = Summary(0.5, 0.25, 3)
    assert scaled(spread, "linear_accuracy") == (50, 25, 3)
    assert scaled(spread, "azimuth_error_deg") == spread


def test_a_metric_that_nobody_has_gives_no_summaries(results):
    assert shown_summaries(results, "session_accuracy") == {}
    (found,) = (
        v for k, v in shown_summaries(results, "linear_accuracy").items()
        if k == "random"
    )  # fmt: skip
    assert found.mean == pytest.approx(92.51) and math.isnan(found.std)


@pytest.mark.parametrize(
    ("preset", "flip"), [("paper", "0.8"), ("simclr", "0.5")]
)
def test_table_1_has_the_probabilities_and_kinds_of_the_papers(preset, flip):
    """crop 4, flip 1, jitter 4 (and the order of the four), grayscale 1."""
    header, _, *rows = table_1(preset).splitlines()
    assert header.split(" | ")[:4] == ["| operation", "p", "parameter", "kind"]
    columns = [line.strip("| ").split(" | ")[:4] for line in rows]
    continuous = {
        ("crop", "1"): "x y height width",
        ("jitter", "0.8"): "brightness contrast saturation hue",
    }
    expected = [
        [*operation, name, "continuous"]
        for operation, names in continuous.items()
        for name in names.split()
    ]
    expected.insert(4, ["flip", flip, "flip", "binary"])
    expected.append(["jitter", "0.8", "order", "categorical"])
    expected.append(["grayscale", "0.2", "grayscale", "binary"])
    assert columns == expected


# whatever a file holds


ODD = [None, True, "x", "", -1, 0, 1e308, 10**400, math.nan, [], {}, [[1]]]
ODD += [{"a": {}}, ["x"] * 3, "a|b", "\x1b[31m", "\ud800", 10**5000, 2.5]


def places(tree, at=()):
    """The address of everything in a tree of dicts and lists."""
    yield at
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*at, key))


def odd_files(count, seed):
    """Result files with one thing in them changed, left out or cut."""
    draw = random.Random(seed)
    for _ in range(count):
        (job,) = draw.sample(plan("table 3", "smoke", [0], ["digits"]), 1)
        good = result(job, linear_accuracy=0.5, knn_accuracy=0.5)
        good = replace(good, knn_curve=[[10, 0.5]])
        tree = json.loads(json.dumps({"format": 1, **asdict(good)}))
        *where, key = draw.choice([*places(tree)][1:])
        inner = tree
        for step in where:
            inner = inner[step]
        kind = draw.choice(["change", "change", "leave out", "rename", "cut"])
        if kind == "change":
            inner[key] = draw.choice(ODD)
        else:
            value = inner.pop(key)
        if kind == "rename" and isinstance(inner, dict):
            inner[draw.choice(["x", "", "method", "\n"])] = value
        sys.set_int_max_str_digits(0)
        text = json.dumps(tree)
        sys.set_int_max_str_digits(4300)
        stop = draw.randrange(len(text)) if kind == "cut" else None
        yield job, text[:stop]


def alike(found):
    """Whether the results may stand in one table."""
    made = [[r.provenance.get(name) for name in ALIKE] for r in found]
    return len({r.data for r in found}) == 1 and made == [made[0]] * len(made)


def test_whatever_a_result_file_holds_what_is_loaded_can_be_shown(
    tmp_path, without_shape_checks
):
    jobs = plan("table 3", "smoke", [0, 1], ["digits"])
    for job in jobs:
        value = 0.5 + 0.01 * job.recipe.seed
        save_result(result(job, linear_accuracy=value), tmp_path)
    refused = 0
    for k, (job, text) in enumerate(odd_files(300, seed=0)):
        path = result_path(job, tmp_path)
        before = path.read_text()
        path.write_text(text)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = load_results(tmp_path)
            done = is_done(job, tmp_path)
        assert all(str(path) in str(w.message) for w in caught)
        assert done <= (len(found) == len(jobs)) == (not caught)
        refused += not done
        if alike(found):
            assert "CIPER" in table("table 3", found, "smoke", ["digits"])
            if k % 10 == 0:  # its tests take time
                assert "verdict" in claims_table(found, "smoke", ["digits"])
        path.write_text(before)
    assert 100 < refused < 290


# how a table was made


def setup(made, item="table 2", scale="laptop"):
    """name of a setting -> data set -> its values, and the text below."""
    rows, _, text = setup_box(made, item, scale).partition("\n\n")
    return cells(rows), text


def test_the_setup_is_that_of_the_result_files_beside_the_papers():
    made = [result(job) for job in plan("table 2", "laptop", range(2))]
    found, _ = setup(made)
    assert found["in the place of"] == {
        "Turntable-rooms": "CORE50",
        "Turntable": "TDW",
    }
    assert found["image size (pixels)"] == {
        "Turntable-rooms": "24 (paper: 128)",
        "Turntable": "24 (paper: 64)",
    }
    here = {title: cell["Turntable"] for title, cell in found.items()}
    assert here["training images"] == "3,000 (paper: all)"
    assert here["width of its layers"] == "0.25 (paper: 1.0)"
    assert here["epochs"] == "20 (paper: 100)"
    assert here["batch size"] == "64"  # the paper's too
    assert here["seeds per row"] == "2"
    assert (here["trainings"], here["untrained encoders"]) == ("12", "2")
    assert here["minutes for all"] == "1"  # ten seconds, rounded up


def test_settings_of_trainings_that_differ_are_all_listed():
    one, other = (
        result(job)
        for job in plan("table 2", "laptop", [0], ["turntable"])[:2]
    )
    other = replace(other, settings=other.settings | {"epochs": 50})
    found, _ = setup([one, other])
    assert found["epochs"]["Turntable"] == "20, 50 (paper: 100)"


def test_a_row_with_fewer_seeds_is_named():
    jobs = plan("figure 4b", "laptop", range(2), ["turntable"])
    made = [
        result(job)
        for job in jobs
        if (job.recipe.alpha, job.recipe.seed) != (3, 1)
    ]
    found, _ = setup(made, "figure 4b")
    seeds = found["seeds per row"]["Turntable"]
    assert seeds == "2; but 1 of CIPER, dataset views, alpha = 3"


def test_trainings_of_different_code_or_machines_are_said_to_be():
    jobs = plan("table 2", "laptop", [0], ["turntable"])[:2]
    origins = [{"numeric_version": x, "threads": 1} for x in (1, 2)]
    made = [
        replace(result(job), provenance=origin)
        for job, origin in zip(jobs, origins)
    ]
    _, text = setup(made)
    assert "2 numeric versions of the code: 1, 2" in text
    assert "threads" not in text
    _, text = setup([replace(x, provenance=origins[0]) for x in made])
    assert "alike" not in text


@pytest.mark.parametrize(
    ("item", "scale", "data", "command"),
    [
        ("table 2", "laptop", [], "ciper table 2 --seeds 3`"),
        ("table 2", "paper", [], "ciper table 2 --seeds 3 --scale paper`"),
        ("figure 4a", "laptop", [], "ciper figure 4a --seeds 3`"),
        (
            "table 3",
            "paper-100",
            ["folder:cifar10"],
            "ciper table 3 --seeds 3 --scale paper-100 --data folder:cifar10`",
        ),
        ("precision", "laptop", [], "ciper rows precision --seeds 3`"),
    ],
)
def test_the_command_of_a_setup_makes_these_results(
    item, scale, data, command
):
    jobs = plan(item, scale, range(3), data)
    _, text = setup([result(job) for job in jobs], item, scale)
    assert f"Make it again: `{command}" in text


def test_at_the_papers_scale_the_setup_is_compared_with_nothing():
    made = [result(job) for job in plan("table 2", "paper", [0])]
    found, text = setup(made, scale="paper")
    assert "in the place of" not in found
    assert found["training images"] == {"CORE50": "all", "TDW": "all"}
    assert found["image size (pixels)"]["CORE50"] == "128"
    assert "Measured on all unseen images." in text
