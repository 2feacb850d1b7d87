"""A short part of `make fuzz`: the same inputs each time, all kinds."""

import pytest
from fuzz import DOORS, fuzz

COUNT = 40  # inputs of each kind
pytestmark = pytest.mark.usefixtures("without_shape_checks")


@pytest.mark.parametrize("kind", DOORS)
def test_damaged_and_odd_inputs_are_read_or_refused_in_a_line(kind, capsys):
    found = fuzz(COUNT, kinds=[kind])[kind]
    assert not found["failed"], capsys.readouterr().err
    assert found.total() == COUNT


def test_a_traceback_would_be_noticed(monkeypatch, capsys):
    def broken(draw, folder):
        raise KeyError("lost")

    monkeypatch.setitem(DOORS, "image", broken)
    assert fuzz(1, kinds=["image"])["image"]["failed"] == 1
    assert "KeyError at test_fuzz.py" in capsys.readouterr().err
