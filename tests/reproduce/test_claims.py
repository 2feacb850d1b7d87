"""The paper's sentences: what they compare, and how they are judged."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from invented import result
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from ciper.reproduce.claims import (
    CLAIMS,
    CONTRAST,
    GROUPS,
    INSIDE,
    OPERATIONS,
    PHOTOGRAPHED,
    PHOTOS,
    VIEWS,
    Claim,
    Part,
    claims_table,
    compare,
    finding,
    holm,
    joint,
    judgments,
    needed,
)
from ciper.reproduce.plans import DATA, PHOTOGRAPHS, ROWS, place_of, plan
from ciper.reproduce.tables import COLUMNS, METRICS

SIMCLR = [0.80, 0.82, 0.79, 0.83, 0.81]
CIPER = [0.84, 0.85, 0.84, 0.86, 0.83]
PARTS = [
    (c, i, Part.read(line)) for c in CLAIMS for i, line in enumerate(c.parts)
]


def trainings(item, data, metric, values, scale="laptop"):
    """Results of rows: label -> a value for each seed."""
    jobs = plan(item, scale, range(5), [data])
    return [
        result(job, **{metric: values[job.label][job.recipe.seed]})
        for job in jobs
        if job.recipe.seed < len(values.get(job.label, ()))
    ]


def photos(simclr=SIMCLR, ciper=CIPER, data="digits", scale="laptop"):
    values = {"simclr-image": simclr, "ciper-image": ciper}
    return trainings("table 3", data, "linear_accuracy", values, scale)


def views(better, worse, data="turntable", metric="view_mse_steps", **how):
    values = {"ciper-dataset": better, "simclr-dataset": worse}
    return trainings("table 2", data, metric, values, **how)


# the test


def test_p_and_interval_are_those_of_scipys_paired_test():
    seen = compare([*zip(CIPER, SIMCLR)])
    expected = stats.ttest_rel(CIPER, SIMCLR)
    assert seen.p == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert seen.interval == pytest.approx([*interval], rel=1e-9)
    assert seen.means == pytest.approx((np.mean(CIPER), np.mean(SIMCLR)))
    mirrored = compare([*zip(SIMCLR, CIPER)])
    assert mirrored.p == pytest.approx(seen.p)
    assert (seen.way, mirrored.way) == ("holds", "does not hold")


def test_the_p_without_pairs_is_welchs():
    seen = compare([*zip(CIPER, SIMCLR)])
    expected = stats.ttest_ind(CIPER, SIMCLR, equal_var=False).pvalue
    assert seen.welch == pytest.approx(expected, rel=1e-9)


def test_pairs_see_what_welchs_test_does_not():
    seen = compare([(x + 0.01 + 0.001 * i, x) for i, x in enumerate(SIMCLR)])
    assert seen.p < 0.001 < 0.05 < seen.welch


def test_a_border_is_tested_in_the_place_of_zero():
    seen = compare([*zip(SIMCLR, CIPER)], low=-0.1)
    above = [a - b + 0.1 for a, b in zip(SIMCLR, CIPER)]
    assert seen.p == pytest.approx(stats.ttest_1samp(above, 0).pvalue)
    assert (seen.way, seen.borders) == ("holds", (-0.1,))


@pytest.mark.parametrize(
    ("pairs", "borders", "p", "way"),
    [
        ([(1.0, 0.0)] * 3, (0.0, math.inf), 0.0, "holds"),
        ([(0.0, 1.0)] * 3, (0.0, math.inf), 0.0, "does not hold"),
        ([(1.0, 1.0)] * 3, (0.0, math.inf), 1.0, "does not hold"),
        ([(1.0, 1.0)] * 3, (-0.1, 0.1), 0.0, "holds"),
        ([(2.0, 1.0)] * 3, (-0.1, 0.1), 0.0, "does not hold"),
        ([(1.0, 0.0)], (0.0, math.inf), math.nan, "holds"),
        ([(1.0, 1.0)], (-0.1, 0.1), math.nan, "holds"),
    ],
)
def test_pairs_without_any_spread(pairs, borders, p, way):
    seen = compare(pairs, *borders)
    assert seen.p == pytest.approx(p, nan_ok=True)
    assert seen.way == way
    assert seen.interval[0] == pytest.approx(
        math.nan if len(pairs) == 1 else seen.difference.mean, nan_ok=True
    )


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="a seed that both rows have"):
        compare([])


def test_without_statsmodels_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.stats.weightstats", None)
    command = re.escape('pip install "ciper-book[statistics]"')
    with pytest.raises(ModuleNotFoundError, match=command):
        compare([*zip(CIPER, SIMCLR)])


# alike, within a margin

NEAR = [(3.01, 3.00), (2.97, 2.99), (3.02, 3.01), (3.00, 2.99)]


def test_alike_within_a_margin_is_tost():
    seen = compare(NEAR, -0.05, 0.05)
    expected = ttost_paired(*map(np.array, zip(*NEAR)), -0.05, 0.05)[0]
    d = [a - b for a, b in NEAR]
    sides = (
        stats.ttest_1samp(d, -0.05, alternative="greater").pvalue,
        (stats.ttest_1samp(d, 0.05, alternative="less").pvalue),
    )
    assert seen.p == pytest.approx(expected) == pytest.approx(max(sides))
    assert (seen.way, seen.borders) == ("holds", (-0.05, 0.05))


def test_wholly_outside_the_margin_is_different_on_either_side():
    for sign in (1, -1):
        far = [(x + 0.2 * sign, y) for x, y in NEAR]
        seen = compare(far, -0.05, 0.05)
        assert seen.way == "does not hold"
        border = 0.05 * sign
        assert seen.borders == (border,)
        expected = stats.ttest_1samp([a - b for a, b in far], border).pvalue
        assert seen.p == pytest.approx(expected) and seen.p < 0.05


def test_few_scattered_pairs_are_neither_alike_nor_different():
    seen = compare([(0.0, 1.0), (1.0, 0.0), (0.2, 0.0)], -0.05, 0.05)
    assert seen.p > 0.05


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "not settled"], "not settled"),
        (["not settled", "does not hold"], "does not hold"),
        (["does not hold", "holds"], "does not hold"),
    ],
)
def test_a_claim_is_as_good_as_its_worst_part(verdicts, outcome):
    assert joint(verdicts) == outcome


# how many would settle it


def with_effect(effect):
    """Four pairs whose mean difference is so many standard deviations."""
    d = np.array([-1.5, -0.5, 0.5, 1.5])
    d = d / d.std(ddof=1) + effect
    return [(float(x), 0.0) for x in d]


@pytest.mark.parametrize("effect", [0.45, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_needed_pairs_are_those_of_the_librarys_power(effect, level):
    about = dict(effect_size=effect, alpha=level, power=0.8)
    n = math.ceil(TTestPower().solve_power(**about))
    expected = n if n <= 50 else None
    assert needed(compare(with_effect(effect)), level) == expected
    assert needed(compare(with_effect(-effect)), level) == expected


def test_needed_pairs_count_from_the_border():
    seen = compare([(x - 1.0, y) for x, y in with_effect(1.0)], low=-1.0)
    assert needed(seen) == needed(compare(with_effect(1.0))) == 10


def test_needed_pairs_of_an_equivalence_pass_both_sides():
    seen = compare(with_effect(0.0), -0.8, 0.8)
    n = needed(seen)
    generator = np.random.default_rng(0)

    def power(n):
        tests = [
            compare([(x, 0.0) for x in row], -0.8, 0.8)
            for row in generator.standard_normal((1000, n))
        ]
        return np.mean([t.way == "holds" and t.p < 0.05 for t in tests])

    assert power(n) == pytest.approx(0.8, abs=0.05)
    assert power(n - 4) < 0.75


@pytest.mark.parametrize(
    "pairs",
    [[(1.0, 0.0), (-1.0, 0.0)], [(1.0, 1.0)] * 3, [(1.0, 0.0)]],
    ids=["mean zero", "the same", "one pair"],
)
def test_nothing_to_find_needs_no_number_of_pairs(pairs):
    assert needed(compare(pairs)) is None


def test_a_tiny_difference_cannot_be_settled():
    assert needed(compare(with_effect(0.39))) is None
    assert needed(compare(with_effect(0.41))) == 49


@pytest.mark.parametrize("effect", [5.0, 9.2, 50.0, 1e6])
def test_a_huge_difference_needs_few_pairs(effect):
    assert needed(compare(with_effect(effect)), 0.05) <= 3
    assert needed(compare(with_effect(effect)), 0.001) <= 5


# the list


def test_there_are_at_least_ten_claims_and_no_two_alike():
    assert len(CLAIMS) == len({claim.text for claim in CLAIMS}) >= 10
    assert sum(map(len, GROUPS.values())) == len(CLAIMS)


def test_a_part_is_read_from_its_line():
    part = Part.read("tdw view_mse_steps: ciper-dataset > random")
    where = "tdw", "view_mse_steps", "ciper-dataset", "random"
    assert part == (*where, ">", 0.0)
    part = Part.read("tdw view_mse_steps: ciper-dataset = random within 0.05")
    assert part == (*where, "=", 0.05)


@pytest.mark.parametrize(
    ("line", "between"),
    [
        ("linear_accuracy: ciper-image > random", (0, math.inf)),
        ("view_mse_steps: ciper-image > random", (-math.inf, 0)),
        ("linear_accuracy: ciper-image >= random within 1", (-1, math.inf)),
        ("view_mse_steps: ciper-image >= random within 1", (-math.inf, 1)),
        ("linear_accuracy: ciper-image = random within 1", (-1, 1)),
        ("contrastive_loss: ciper-image = random within .1", (-0.1, 0.1)),
    ],
)
def test_a_part_says_where_the_difference_should_lie(line, between):
    assert Part.read(f"tdw {line}").between == between


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ciper-image > random", "must read 'data metric: row > row'"),
        ("tdw linear_accuracy: random", "must read"),
        ("tdw linear_accuracy: ciper-image < random", "must read"),
        ("tdw linear_accuracy: ciper-image = random", "must read"),
        ("tdw linear_accuracy: ciper-image > random within 1", "must read"),
        (
            "tdw linear_accuracy: ciper-image > simclr",
            "unknown row of tdw 'simclr': did you mean 'simclr-",
        ),
        (
            "cifar10 linear_accuracy: ciper-dataset > random",
            "unknown row of cifar10 'ciper-dataset'",
        ),
        (
            "turntable linear_accuracy: ciper-image > random",
            "unknown data 'turntable'",
        ),
        (
            "coil10 linear_accuracy: ciper-image > random",
            "unknown data 'coil10': did you mean 'coil100'",
        ),
        (
            "eth80 linear_accuracy: ciper-datasets > random",
            "unknown row of eth80 'ciper-datasets': did you mean 'ciper-",
        ),
        ("tdw accuracy: ciper-image > random", "unknown metric 'accuracy'"),
        *[
            (
                f"tdw linear_accuracy: ciper-image = random within {margin}",
                f"a margin must be > 0, got {margin} in 'tdw",
            )
            for margin in ("0", "-1", "nan", "inf", "much")
        ],
    ],
)
def test_a_part_that_cannot_be_tested_is_refused_in_a_line(line, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        Part.read(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_a_claim_names_rows_that_are_trained_and_metrics_that_are_shown(claim):
    assert claim.parts
    for line in claim.parts:
        part = Part.read(line)
        known = part.data in PHOTOGRAPHS
        assert known or part.data in {"cifar10", "core50", "tdw"}
        assert part.metric in METRICS
        place = place_of("table 2", part.data) if known else part.data
        items = [item for item in ROWS if place in DATA[item]]
        jobs = [j for i in items for j in plan(i, "paper", [0], [part.data])]
        labels = {job.label for job in jobs}
        assert {part.first, part.second} <= labels
        assert part.first != part.second


def test_the_claims_that_nothing_is_impaired_have_a_margin():
    same, no_worse, _ = CONTRAST
    assert {Part.read(x)[-2:] for x in same.parts} == {("=", 0.05)}
    assert {Part.read(x)[-2:] for x in no_worse.parts} == {(">=", 1.0)}


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_a_claim_is_dated_by_a_day_or_by_the_commit_that_first_wrote_it(claim):
    if re.fullmatch(r"\d{4}-\d\d-\d\d", claim.since):
        return
    assert re.fullmatch("[0-9a-f]{7}", claim.since)
    git = ["git", "-C", str(ROOT)]
    log = [*git, "log", "--reverse", "--format=%h", f"-S{claim.text}"]
    try:
        known = subprocess.run([*git, "cat-file", "-e", claim.since])
        found = subprocess.run(log, capture_output=True, text=True)
    except OSError:
        pytest.skip("no git here")
    if known.returncode:
        pytest.skip("a clone without that commit")
    assert found.stdout.splitlines()[0].startswith(claim.since)


def test_a_claim_on_photographs_is_on_nothing_else():
    """`judgments` takes other photographs for these two groups alone."""
    on_photos = {c for c, _, part in PARTS if part.data == "cifar10"}
    assert on_photos == {*PHOTOS, *OPERATIONS}
    assert {p.data for c, _, p in PARTS if c in on_photos} == {"cifar10"}


def test_claims_on_photographed_objects_are_late_and_on_nothing_else():
    """They were written when the first of their results had been seen."""
    here = {c for c, _, part in PARTS if part.data in PHOTOGRAPHS}
    assert here == {*PHOTOGRAPHED} and all(c.late for c in here)
    assert {p.data for c, _, p in PARTS if c in here} == {*PHOTOGRAPHS}


def paper_number(part, row):
    """The number that the paper's tables print, without its spread."""
    for column in COLUMNS["table 2"] + COLUMNS["table 3"]:
        if (column.data, column.metric) == part[:2]:
            return column.paper.get(row, "–").split(" ± ")[0]
    raise LookupError(part)


WORDS = "bars", "curves", "picture", "words"
NUMBERED = [c for c in CLAIMS if c.paper not in WORDS]


@pytest.mark.parametrize("claim", NUMBERED, ids=lambda claim: claim.text)
def test_the_papers_numbers_in_a_claim_are_those_of_its_tables(claim):
    pairs = [text.split(", ") for text in claim.paper.split("; ")]
    found = [[number.split(" ± ")[0] for number in pair] for pair in pairs]
    parts = [Part.read(line) for line in claim.parts]
    rows = [(part.first, part.second) for part in parts]
    expected = [
        [paper_number(part, row) for row in pair]
        for part, pair in zip(parts, rows)
    ]
    assert found == expected


def test_claims_without_numbers_are_on_the_figures_or_in_the_text():
    for claim in set(CLAIMS) - set(NUMBERED):
        assert ("Figure" in claim.place) == (claim.paper != "words")


# judging


def judged_alone(claim, results):
    """The judgment of one claim among no other tests; None if there is none.

    Photographs are digits.
    """
    return next(iter(judgments(results, "laptop", ["digits"], [claim])), None)


def dated(*parts):
    return Claim("said", "here", "words", parts, since="2000-01-01")


def test_a_claim_that_the_results_bear_out_holds():
    judged = judged_alone(PHOTOS[0], photos())
    assert (judged.data, judged.verdict) == ("Digits", "holds")
    (test,) = judged.tests
    p = stats.ttest_rel(CIPER, SIMCLR).pvalue
    assert test.seen.p == pytest.approx(p, rel=1e-9)
    assert test.corrected == test.seen.p  # nothing else was tested
    assert test.seen.means == pytest.approx((84.4, 81))  # percent


def test_results_the_other_way_round_do_not_hold():
    judged = judged_alone(PHOTOS[0], photos(CIPER, SIMCLR))
    assert judged.verdict == "does not hold"


def test_less_of_an_error_is_better():
    low, high = [6.0, 6.2, 6.1], [40.0, 41.0, 40.5]
    assert judged_alone(VIEWS[0], views(low, high)).verdict == "holds"
    other = judged_alone(VIEWS[0], views(high, low))
    assert other.verdict == "does not hold"


def test_a_smaller_azimuth_gap_and_more_saliency_inside_are_better():
    gap = {"ciper-dataset": [20.0, 21, 20], "simclr-dataset": [50.0, 52, 50]}
    item = "table 2", "turntable", "azimuth_gap_deg"
    judged = judged_alone(INSIDE[0], trainings(*item, gap))
    assert judged.verdict == "holds"
    mass = {"ciper-dataset": [0.1, 0.11, 0.1], "simclr-dataset": [0.2] * 3}
    item = "table 2", "turntable-rooms", "mass_inside"
    judged = judged_alone(INSIDE[1], trainings(*item, mass))
    assert judged.verdict == "holds"


@pytest.mark.parametrize(
    ("shift", "same", "no_worse"),
    [
        (0.0, "holds", "holds"),
        (0.3, "does not hold", "does not hold"),  # a larger loss
        (-0.3, "does not hold", "holds"),  # a smaller one impairs nothing
    ],
)
def test_alike_minds_both_directions_and_no_worse_minds_one(
    shift, same, no_worse
):
    loss = [2.5, 2.52, 2.49, 2.51]
    other = [x + shift + 0.004 * (-1) ** i for i, x in enumerate(loss)]
    values = {"ciper-dataset": other, "simclr-dataset": loss}
    made = trainings("table 2", "turntable", "contrastive_loss", values)
    rows = "tdw contrastive_loss: ciper-dataset {} simclr-dataset within 0.05"
    for sign, expected in (("=", same), (">=", no_worse)):
        judged = judged_alone(dated(rows.format(sign)), made)
        assert judged.verdict == expected


def test_margins_of_accuracies_are_percentage_points():
    values = {"ciper-dataset": SIMCLR, "simclr-dataset": SIMCLR}
    values["ciper-dataset"] = [
        x - 0.005 + 0.001 * (-1) ** i for i, x in enumerate(SIMCLR)
    ]
    made = trainings("table 2", "turntable", "linear_accuracy", values)
    line = "tdw linear_accuracy: ciper-dataset >= simclr-dataset within "
    assert judged_alone(dated(line + "1"), made).verdict == "holds"
    assert judged_alone(dated(line + "0.1"), made).verdict == "does not hold"


def test_a_claim_without_its_trainings_has_no_verdict():
    only = [r for r in photos() if r.method == "simclr-image"]
    assert judged_alone(PHOTOS[0], only) is None
    assert judged_alone(PHOTOS[0], []) is None
    elsewhere = photos(data="turntable")
    assert judged_alone(PHOTOS[0], elsewhere) is None


def test_results_without_the_metric_are_no_trainings():
    made = trainings(
        "table 2",
        "turntable",
        "linear_accuracy",
        {
            "ciper-dataset": CIPER,
            "simclr-dataset": SIMCLR,
        },
    )
    assert judged_alone(VIEWS[0], made) is None


def test_one_part_without_trainings_leaves_the_whole_claim_out():
    values = {
        "ciper-image": [0.9, 0.92, 0.91],
        "simclr-image": [0.9, 0.91, 0.9],
    }
    values["ciper-image-without=crop"] = [0.5, 0.5, 0.5]
    some = trainings("figure 4a", "digits", "linear_accuracy", values)
    part = OPERATIONS[0]._replace(parts=OPERATIONS[0].parts[:1])
    assert judged_alone(part, some).verdict == "holds"
    assert judged_alone(OPERATIONS[0], some) is None


def test_the_tests_of_a_claim_left_out_are_not_counted():
    values = {"ciper-image": CIPER, "ciper-image-without=crop": SIMCLR}
    made = photos() + trainings(
        "figure 4a", "digits", "linear_accuracy", values
    )
    (judged,) = judgments(made, "laptop", ["digits"])
    assert judged.tests[0].corrected == judged.tests[0].seen.p


def test_rows_without_a_common_seed_are_not_compared():
    made = photos(SIMCLR[:1], ()) + photos((), CIPER)
    apart = [r for r in made if r.method == "simclr-image" or r.seed > 0]
    assert len(apart) == 5
    assert judged_alone(PHOTOS[0], apart) is None


def test_seeds_that_one_row_lacks_are_not_compared():
    (test,) = judged_alone(PHOTOS[0], photos(SIMCLR[:3])).tests
    p = stats.ttest_rel(CIPER[:3], SIMCLR[:3]).pvalue
    assert test.seen.difference.n == 3 and test.seen.p == pytest.approx(p)


def test_one_seed_is_shown_without_a_p_and_an_interval():
    made = photos(SIMCLR[:1], CIPER[:1])
    assert judged_alone(PHOTOS[0], made).verdict == "not settled"
    (row,) = rows(claims_table(made, "laptop"))
    assert row["difference [95 %]"] == "4 –"
    assert row["p; Holm; Welch"] == "–; –; –"
    said = "**not settled** (1 pair: too few for an interval)"
    assert row["verdict (pairs)"] == said


def test_results_of_two_numeric_versions_are_not_compared():
    made = photos()
    made[0].provenance["numeric_version"] = 7
    with pytest.raises(ValueError, match="need one numeric version"):
        judgments(made, "laptop")


def test_a_claim_of_two_data_sets_names_both():
    claim = dated(
        "tdw linear_accuracy: ciper-dataset > simclr-dataset",
        "core50 linear_accuracy: ciper-dataset > simclr-dataset",
    )
    values = {"ciper-dataset": CIPER, "simclr-dataset": SIMCLR}
    fewer = {"ciper-dataset": SIMCLR[:3], "simclr-dataset": CIPER[:3]}
    item = "table 2", "linear_accuracy"
    made = trainings(item[0], "turntable", item[1], values)
    made += trainings(item[0], "turntable-rooms", item[1], fewer)
    judged = judged_alone(claim, made)
    assert judged.data == "Turntable, Turntable-rooms"
    assert [t.seen.difference.n for t in judged.tests] == [5, 3]
    assert [t.verdict for t in judged.tests] == ["holds", "does not hold"]
    assert judged.verdict == "does not hold"


# photographed objects


@pytest.mark.parametrize("scale", ["laptop", "paper-100"])
def test_photographed_objects_stand_for_themselves_at_every_scale(scale):
    about = dict(data="coil100", metric="change_error_deg", scale=scale)
    made = views([20.0, 21.0, 20.5], [89.0, 90.0, 89.2], **about)
    (judged,) = judgments(made, scale)
    assert judged.claim == PHOTOGRAPHED[0]
    assert (judged.data, judged.verdict) == (
        "COIL-100 (64-pixel copy)",
        "holds",
    )
    made = views([20.0, 21.0, 20.5], [89.0, 90.0, 89.2], scale=scale)
    assert PHOTOGRAPHED[0] not in [j.claim for j in judgments(made, scale)]


def test_photographed_objects_with_one_seed_settle_nothing():
    one = [0.5]
    rows = "random", "simclr-dataset", "predictive-dataset", "ciper-dataset"
    made = [
        r
        for data, metric in dict.fromkeys(part[:2] for _, _, part in PARTS)
        if data in PHOTOGRAPHS
        for r in trainings("table 2", data, metric, dict.fromkeys(rows, one))
    ]
    for claim in PHOTOGRAPHED:
        judged = judged_alone(claim, made)
        assert judged.verdict == "not settled"
        assert [t.seen.difference.n for t in judged.tests] == [1]


def test_photographed_objects_are_in_the_family_of_all_tests():
    better, worse = [0.27, 0.28, 0.275], [0.26, 0.262, 0.263]
    photographed = views(worse, better, data="eth80", metric="mass_inside")
    alone, together = (
        judgments(made, "laptop", ["digits"])
        for made in (photos(), photos() + photographed)
    )
    first, saliency = together
    assert saliency.claim == PHOTOGRAPHED[-1] == CLAIMS[-1]
    p, more = first.tests[0].seen.p, saliency.tests[0].seen.p
    assert saliency.tests[0].seen.way == "holds"
    assert alone[0].tests[0].corrected == p
    expected = holm([p, more])
    assert [j.tests[0].corrected for j in together] == expected != [p, more]


# many tests


def test_holm_multiplies_by_the_number_of_tests_that_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02, math.nan]) == pytest.approx(
        [0.04, math.nan], nan_ok=True
    )
    assert holm([]) == []


def test_a_verdict_that_many_tests_undo_is_not_settled():
    near = [x + 0.013 + 0.01 * (-1) ** i for i, x in enumerate(SIMCLR)]
    made = photos(SIMCLR, near) + photos(data="turntable")
    p = [t.seen.p for j in judgments(made, "laptop") for t in j.tests]
    assert p[1] < 0.025 < p[0] < 0.05  # 0.05 / 2
    judged = judgments(made, "laptop")
    assert [j.verdict for j in judged] == ["holds", "holds"]
    made += photos(SIMCLR, SIMCLR[::-1], data="more")
    names = "digits", "turntable", "more"
    judged = judgments(made, "laptop", names)
    assert [j.tests[0].corrected for j in judged[:2]] == pytest.approx(
        [2 * p[0], 3 * p[1]]
    )
    verdicts = [j.verdict for j in judged]
    assert verdicts == ["not settled", "holds", "not settled"]
    assert [j.tests[0].level for j in judged] == [0.025] * 3  # two are open


def test_a_test_of_two_claims_is_counted_once():
    twice = [PHOTOS[0], PHOTOS[0]._replace(text="again")]
    judged = judgments(photos(), "laptop", ["digits"], twice)
    assert [j.claim.text for j in judged] == [PHOTOS[0].text, "again"]
    assert {t.corrected for j in judged for t in j.tests} == {
        judged[0].tests[0].seen.p
    }


def test_a_contrary_verdict_stays_contrary_after_the_correction():
    (judged,) = judgments(photos(CIPER, SIMCLR), "laptop")
    assert judged.verdict == "does not hold"


def test_claims_of_ones_own_are_judged_in_the_place_of_the_list():
    own = dated("tdw view_mse_steps: ciper-dataset > simclr-dataset")
    made = views([6.0, 6.2, 6.1], [40.0, 41.0, 40.5]) + photos()
    (judged,) = judgments(made, "laptop", claims=[own])
    assert (judged.claim, judged.verdict) == (own, "holds")


# the table


def rows(text):
    """The rows of all tables in a text, by their headings."""
    found, header = [], None
    for line in text.splitlines():
        cells = [x.strip() for x in line.split("|")[1:-1]]
        if not cells:
            header = None
        elif header is None:
            header = cells
        elif cells[0] != "---":
            found.append(dict(zip(header, cells)))
    return found


def test_the_table_has_a_row_for_each_test():
    assert rows(claims_table([], "laptop")) == []
    (row,) = rows(claims_table(photos(), "laptop"))
    test = stats.ttest_rel(CIPER, SIMCLR)
    low, high = (100 * x for x in test.confidence_interval())
    welch = stats.ttest_ind(CIPER, SIMCLR, equal_var=False).pvalue
    assert row == {
        "claim (where)": f"{PHOTOS[0].text} (4.2, Table 3)",
        "tested": (
            "Digits, accuracy (%): ciper-image 84.4 better than "
            "simclr-image 81; paper: 92.2 ± 0.3, 91.7 ± 0.1"
        ),
        "difference [95 %]": f"3.4 [{low:.3g}, {high:.3g}]",
        "p; Holm; Welch": f"{test.pvalue:.2g}; {test.pvalue:.2g}; {welch:.2g}",
        "verdict (pairs)": "**holds** (5 pairs)",
    }


def test_an_open_test_says_how_many_pairs_it_needs():
    some = [x + 0.01 + 0.01 * (-1) ** i for i, x in enumerate(SIMCLR)]
    made = photos(SIMCLR, some)
    (row,) = rows(claims_table(made, "laptop"))
    (test,) = judgments(made, "laptop")[0].tests
    n = needed(test.seen)
    assert 5 < n < 50 and test.level == 0.05
    said = f"**not settled** (5 pairs; needs {n}, by Holm {n})"
    assert row["verdict (pairs)"] == said
    made += photos(SIMCLR, SIMCLR[::-1], data="turntable")
    first, second = rows(claims_table(made, "laptop"))
    more = needed(test.seen, 0.025)
    assert more > n
    assert f"needs {n}, by Holm {more})" in first["verdict (pairs)"]
    assert "(5 pairs; cannot be settled here)" in second["verdict (pairs)"]


def test_a_number_of_pairs_may_be_too_large_by_holm_alone():
    effect = 0.45
    d = np.array([x for x, _ in with_effect(effect)]) / 100
    made = photos([0.8] * 4, [0.8 + x for x in d])
    for i, name in enumerate("abcdef"):
        made += photos([0.8] * 2, [0.81, 0.79 + i / 10_000], data=name)
    names = ["digits", *"abcdef"]
    row = rows(claims_table(made, "laptop", names))[0]
    assert "needs 41, by Holm over 50" in row["verdict (pairs)"]


def test_several_parts_have_a_row_each_and_one_together():
    values = {
        "ciper-dataset": CIPER,
        "predictive-dataset": SIMCLR,
        "simclr-dataset": SIMCLR,
    }
    made = trainings("table 2", "turntable", "linear_accuracy", values)
    errors = {"ciper-dataset": [6.0, 6.2, 6.1], "simclr-dataset": [40, 41, 40]}
    made = [r for r in made if r.seed < 3]
    for r in made:
        if r.method in errors:
            r.metrics["view_mse_steps"] = errors[r.method][r.seed]
    text = claims_table(made, "laptop")
    found = rows(text[text.index("**Both objectives**") :])
    first, second, both = found
    assert first["claim (where)"] == f"{CONTRAST[2].text} † (4.2, Table 2)"
    assert first["tested"].endswith("; paper: 98.92, –")
    assert second["claim (where)"] == both["claim (where)"] == ""
    assert both["tested"] == "all parts"
    assert both["verdict (pairs)"] == "**holds**"
    assert "† written when results of a part were committed" in text
    assert "†" not in claims_table(photos(), "laptop")


def test_the_table_says_the_margin():
    values = {"ciper-dataset": [2.5, 2.51], "simclr-dataset": [2.5, 2.52]}
    made = [
        r
        for data in ("turntable", "turntable-rooms")
        for views in ("dataset", "image")
        for r in trainings(
            "table 2",
            data,
            "contrastive_loss",
            {k.replace("dataset", views): x for k, x in values.items()},
        )
    ]
    first, *_, together = rows(claims_table(made, "laptop"))
    assert first["tested"] == (
        "Turntable, contrastive loss: ciper-dataset 2.505 the same as "
        "simclr-dataset 2.51 within 0.05"
    )
    assert together["tested"] == "all parts"


def test_the_table_has_each_photographs_claim_once_a_data_set():
    made = photos() + photos(CIPER, SIMCLR, "turntable")
    found = rows(claims_table(made, "laptop"))
    data = [row["tested"].split(",")[0] for row in found]
    assert data == ["Digits", "Turntable"]
    verdicts = [row["verdict (pairs)"].split(" (")[0] for row in found]
    assert verdicts == ["**holds**", "**does not hold**"]


@pytest.mark.parametrize("name", ["cifar10", "folder:elsewhere/cifar10"])
def test_the_table_takes_other_photographs(name):
    made = photos() + photos(data="cifar10")
    (row,) = rows(claims_table(made, "laptop", [name]))
    assert row["tested"].startswith("CIFAR-10, ")


def test_the_table_leaves_other_scales_out():
    made = photos() + photos(CIPER, SIMCLR, scale="smoke")
    made += photos(CIPER, SIMCLR, scale="laptop-3")
    assert claims_table(made, "laptop") == claims_table(photos(), "laptop")


def test_fewer_epochs_are_judged_on_what_stands_in_as_well():
    (row,) = rows(claims_table(photos(scale="laptop-3"), "laptop-3"))
    assert row["tested"].startswith("Digits")
    assert row["verdict (pairs)"].startswith("**holds**")


@pytest.mark.parametrize("scale", ["paper", "paper-100"])
def test_at_paper_scale_the_papers_own_data_are_judged(scale):
    made = photos(data="cifar10", scale=scale)
    values = {"ciper-dataset": [6.5, 6.6], "simclr-dataset": [40.0, 41.0]}
    item = "table 2", "tdw", "view_mse_steps"
    made += trainings(*item, values, scale)
    found = rows(claims_table(made, scale))
    data = [row["tested"].split(",")[0] for row in found]
    assert data == ["CIFAR-10", "TDW"]


def test_every_claim_has_a_row_once_everything_is_trained():
    jobs = {j for i in ROWS for j in plan(i, "laptop", range(2))}
    jobs |= {*plan("table 2", "laptop", range(2), PHOTOGRAPHS)}
    numbers = {name: 0.5 for name in METRICS}
    found = rows(claims_table([result(j, **numbers) for j in jobs], "laptop"))
    texts = {row["claim (where)"].rsplit(" (", 1)[0] for row in found} - {""}
    assert {text.removesuffix(" †") for text in texts} == {
        claim.text for claim in CLAIMS
    }


# what a page says


def test_a_finding_has_the_verdict_and_numbers_of_its_claims():
    judged = judgments(photos(CIPER, SIMCLR), "laptop")
    p = stats.ttest_rel(CIPER, SIMCLR).pvalue
    claim, line, *_ = finding(judged, PHOTOS[0].text).splitlines()
    assert claim == f"- *{PHOTOS[0].text}*"
    (row,) = rows(claims_table(photos(CIPER, SIMCLR), "laptop"))
    asked = row["tested"].split("; paper")[0]
    numbers = f"{row['difference [95 %]']}, p = {p:.2g}, corrected {p:.2g}"
    assert line == f"  - {asked}: **does not hold** ({numbers}, 5 pairs)"


def test_a_finding_says_the_corrected_verdict_and_how_many_were_tested():
    names = ["digits", *"abcdefghijklmnopqrs"]
    made = [r for name in names for r in photos(data=name)]
    p = stats.ttest_rel(CIPER, SIMCLR).pvalue
    assert p < 0.05 < 20 * p
    text = finding(judgments(made, "laptop", names), PHOTOS[0].text)
    assert text.count("**not settled**") == 20 and "**holds**" not in text
    assert f"p = {p:.2g}, corrected {20 * p:.2g}," in text
    assert "correction for 20 tests" in text


def test_a_finding_has_a_line_for_each_part():
    values = {
        "ciper-image": CIPER,
        "simclr-image": SIMCLR,
        "ciper-dataset": CIPER,
        "simclr-dataset": SIMCLR,
    }
    made = trainings("table 2", "turntable-rooms", "session_accuracy", values)
    text = "CIPER keeps more of the session than contrastive learning"
    _, together, *parts = finding(judgments(made, "laptop"), text).split("\n")
    assert together == "  - Turntable-rooms: **holds**"
    assert [x.startswith("    - Turntable-rooms, s") for x in parts[:2]] == [
        True,
        True,
    ]


def test_a_finding_of_a_claim_without_trainings_says_so():
    text = finding(judgments(photos(), "laptop"), VIEWS[0].text)
    assert text.splitlines()[:2] == [
        f"- *{VIEWS[0].text}*",
        "  - no trainings yet",
    ]


def test_a_finding_on_words_that_no_claim_has_is_refused():
    with pytest.raises(ValueError, match="unknown claim 'CIPER improves'"):
        finding([], "CIPER improves")
