"""Parameter tables: choosing, joining, saving, comparing."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.testing import assert_close

from ciper.augment.chain import Augment, ColorJitter
from ciper.augment.operations import FourFoldRotation, Rotation
from ciper.augment.params import Params, as_number, as_whole, relative, rows_of

AUGMENT = Augment.preset("paper")
TURNS = Augment([FourFoldRotation(), Rotation(), ColorJitter()])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def given(augment, *rows):
    table = torch.tensor(rows)
    flags = torch.ones(len(rows), len(augment.operations), dtype=torch.bool)
    return Params(table, flags, augment.schema)


def test_saved_parameters_come_back_bit_by_bit(tmp_path):
    params = TURNS.sample(7, seeded())
    params.save(tmp_path / "params.safetensors")
    again = Params.load(tmp_path / "params.safetensors")
    assert torch.equal(again.table, params.table)
    assert torch.equal(again.flags, params.flags)
    assert again.schema == params.schema


def test_loaded_parameters_replay_the_same_views(tmp_path):
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    views, params = AUGMENT(images, seeded())
    params[2:4].save(tmp_path / "two.safetensors")
    again = AUGMENT.apply(
        images[2:4], Params.load(tmp_path / "two.safetensors")
    )
    assert_close(again, views[2:4], atol=1e-6, rtol=0)


def test_parameters_saved_by_another_augmentation_are_refused(tmp_path):
    weak = Augment([ColorJitter(0.1)])
    weak.sample(1, seeded()).save(tmp_path / "weak.safetensors")
    strong = Augment([ColorJitter(0.8)])
    message = r"another augmentation: jitter.brightness \(.*0.9 to 1.1\), "
    message += r"expected jitter.brightness \(.*0.2 to 1.8\)"
    with pytest.raises(ValueError, match=message):
        images = torch.zeros(1, 3, 4, 4)
        strong.apply(images, Params.load(tmp_path / "weak.safetensors"))


def test_other_files_are_refused_by_name(tmp_path):
    text, tensors = tmp_path / "text", tmp_path / "tensors"
    text.write_text("no tensors here")
    save_file({"table": torch.zeros(2)}, tensors)
    save_file({"table": torch.zeros(2)}, tmp_path / "odd", {"schema": "[{}]"})
    for path in (text, tensors, tmp_path / "odd"):
        with pytest.raises(ValueError, match=path.name):
            Params.load(path)
    with pytest.raises(FileNotFoundError):
        Params.load(tmp_path / "nothing")


def test_the_schema_in_the_file_is_plain_json(tmp_path):
    AUGMENT.sample(1, seeded()).save(tmp_path / "params.safetensors")
    with open(tmp_path / "params.safetensors", "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    schema = json.loads(header["__metadata__"]["schema"])
    assert schema[0]["name"] == "x" and schema[0]["kind"] == "continuous"


def test_joined_parameters_are_one_after_the_other():
    first, second = AUGMENT.sample(2, seeded(0)), AUGMENT.sample(3, seeded(1))
    joined = Params.cat([first, second])
    assert torch.equal(joined.table, torch.cat([first.table, second.table]))
    assert torch.equal(joined[2:].flags, second.flags)
    with pytest.raises(ValueError, match="another augmentation"):
        Params.cat([first, TURNS.sample(1, seeded())])


def test_a_circular_parameter_is_a_point_on_the_circle():
    augment = Augment([Rotation()])
    assert augment.names == ("angle_cos", "angle_sin")
    assert augment.kinds == ("circular", "circular")
    vector = given(augment, [0.0], [90.0], [-180.0]).vector()
    expected = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    assert_close(vector, expected, atol=1e-6, rtol=0)


def test_a_categorical_parameter_is_its_class():
    augment = Augment([FourFoldRotation()])
    assert augment.kinds == ("categorical",) and augment.classes == (4,)
    params = augment.sample(400, seeded())
    assert params.vector().unique().tolist() == [0, 1, 2, 3]


def test_normalized_parameters_lie_between_minus_1_and_1():
    params = AUGMENT.sample(2000, seeded())
    vector = params.vector(normalize=True)
    assert vector.min() == -1 and vector.max() == 1
    jitter = vector[:, 5:9]
    assert jitter.amin() < -0.99 and jitter.amax() > 0.99
    hue = params["hue"][:, 0] / 0.1
    assert_close(vector[:, 8], hue)


def test_a_parameter_that_never_changes_is_not_divided_by_zero():
    augment = Augment([ColorJitter(hue=0.0)])
    vector = augment.sample(9, seeded()).vector(normalize=True)
    assert vector.isfinite().all()


def test_relative_parameters_of_equal_views_are_the_identity():
    params = TURNS.sample(20, seeded())
    change = relative(params, params)
    expected = torch.tensor([0.0, 1, 0, 0, 0, 0, 0]).expand(20, 7)
    assert_close(change, expected)


def test_relative_turns_count_modulo_four():
    augment = Augment([FourFoldRotation()])
    a, b = given(augment, [3.0], [1.0]), given(augment, [0.0], [0.0])
    assert relative(a, b).tolist() == [[1.0], [3.0]]


def test_relative_angles_do_not_jump():
    augment = Augment([Rotation()])
    a, b = given(augment, [170.0]), given(augment, [-170.0])
    expected = given(augment, [20.0]).vector()
    assert_close(relative(a, b), expected, atol=1e-5, rtol=0)


def test_relative_flips_say_whether_the_two_differ():
    a, b = AUGMENT.sample(50, seeded(0)), AUGMENT.sample(50, seeded(1))
    differ = (a["flip"] != b["flip"])[:, 0].float()
    assert torch.equal(relative(a, b)[:, 4], differ)
    assert torch.equal(relative(a, b)[:, :4], b["crop"] - a["crop"])


def test_relative_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="another augmentation"):
        relative(AUGMENT.sample(2, seeded()), TURNS.sample(2, seeded()))
    with pytest.raises(ValueError, match="as many rows, got 2 and 3"):
        relative(AUGMENT.sample(2, seeded()), AUGMENT.sample(3, seeded()))


# Which rows an index means

FORMS = {
    "list": list,
    "numpy": np.array,
    "int32": lambda rows: np.array(rows, dtype=np.int32),
    "reversed view": lambda rows: np.array(rows[::-1])[::-1],
    "torch": torch.tensor,
    "int16": lambda rows: torch.tensor(rows, dtype=torch.int16),
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None, derandomize=True)
@each(rows=st.lists(st.integers(-7, 6), min_size=1, max_size=5))
def test_rows_are_those_that_numpy_means(form, rows):
    expected = np.arange(7)[rows].tolist()
    assert rows_of(FORMS[form](rows), 7).tolist() == expected


@settings(max_examples=50, deadline=None, derandomize=True)
@each(st.slices(7))
def test_slices_are_those_of_numpy_also_backwards(rows):
    assert rows_of(rows, 7).tolist() == np.arange(7)[rows].tolist()


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_booleans_choose_rows(form):
    mask = [True, False, True]
    assert rows_of(form(mask), 3).tolist() == [0, 2]


@pytest.mark.parametrize("none", [[], np.array([]), torch.tensor([])])
def test_no_index_at_all_means_no_row(none):
    assert rows_of(none, 3).tolist() == []
    assert len(AUGMENT.sample(3, 0)[none]) == 0


@pytest.mark.parametrize(
    "number", [-1, np.int64(-1), np.uint8(6), torch.tensor(6), np.array(6)]
)
def test_a_number_is_one_row_whoever_made_it(number):
    assert rows_of(number, 7) == 6 and type(rows_of(number, 7)) is int
    params = AUGMENT.sample(7, 0)
    assert torch.equal(params[number].table, params.table[6:])


@pytest.mark.parametrize("index", [7, -8, np.int64(7), [0, 7], [-8, 0]])
def test_a_row_out_of_range_is_an_index_error_that_ends_a_loop(index):
    with pytest.raises(IndexError, match="(7|-8) is out of range for 7 rows"):
        rows_of(index, 7)
    assert len(list(AUGMENT.sample(7, 0))) == 7


@pytest.mark.parametrize(
    "index",
    [1.0, None, True, torch.tensor(True), "a", {1}, (1, 2), [0.5], [[1], [2]]]
    + [
        slice("a"),
        [[1], [2, 3]],
        [True] * 6,
        torch.zeros(7, dtype=torch.uint8),
    ],
)
def test_what_is_no_index_is_refused_in_a_line(index):
    with pytest.raises(ValueError, match="^(an index is|no rows are at) "):
        rows_of(index, 7)


@pytest.mark.parametrize(
    "value", [3, np.int64(3), np.uint8(3), torch.tensor(3)]
)
def test_a_whole_number_is_an_int_whoever_made_it(value):
    assert as_whole("k", value) == 3 and type(as_whole("k", value)) is int


@pytest.mark.parametrize(
    "value",
    [3.0, True, np.True_, torch.tensor(True), torch.tensor(3.0), "3", None]
    + [[3], torch.tensor([3, 4]), float("nan")],
)
def test_what_cannot_be_counted_is_refused(value):
    with pytest.raises(ValueError, match="^k must be whole, got "):
        as_whole("k", value)


def test_a_number_is_a_float_whoever_made_it():
    assert as_number("p", np.float32(0.5)) == 0.5 == as_number("p", 0.5)
    for value in (True, "0.5", None, (0.5,)):
        with pytest.raises(ValueError, match="^p must be a number, got "):
            as_number("p", value)


def test_nothing_can_be_joined_or_compared_but_parameters():
    for parts in ([], [None], [AUGMENT.sample(1, 0), 3]):
        with pytest.raises(ValueError, match="^expected Params to join, got"):
            Params.cat(parts)


def test_what_is_no_table_is_not_compared(without_shape_checks):
    with pytest.raises(ValueError, match="two Params, got Params and int"):
        relative(AUGMENT.sample(1, 0), 3)
