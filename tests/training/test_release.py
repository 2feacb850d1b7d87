"""Weights to give away, made and checked."""

import json

import pytest

from ciper.reproduce.plans import plan, work


@pytest.fixture(scope="module")
def release(script):
    return script("release")


@pytest.fixture(scope="module")
def assets(release, tmp_path_factory):
    """The random encoder of Table 3 on the digits, as a release has it."""
    root = tmp_path_factory.mktemp("release")
    job, *_ = plan("table 3", "smoke", [0], ["digits"])
    work(job, root / "results", root / "runs")
    run, out = str(root / "runs" / job.name), root / "assets"
    where = "--results", str(root / "results"), "--out", str(out)
    release.main(["make", run, *where])
    return out


def test_assets_are_measured_again_as_they_were(release, assets, capsys):
    release.main(["check", str(assets), "--measure"])
    assert (
        "digits-smoke-random-0.safetensors: right" in capsys.readouterr().out
    )


def test_a_card_has_the_result_and_its_provenance(assets):
    card = json.loads((assets / "digits-smoke-random-0.json").read_text())
    assert {"settings", "metrics", "provenance", "sha256"} <= card.keys()


def test_other_weights_than_the_cards_are_noticed(release, assets, tmp_path):
    for path in assets.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "digits-smoke-random-0.safetensors").open("ab") as file:
        file.write(b"0")
    with pytest.raises(SystemExit, match="not what the card describes"):
        release.main(["check", str(tmp_path)])


def test_nothing_to_check_or_nothing_known_is_said(release, assets, tmp_path):
    with pytest.raises(SystemExit, match="no assets"):
        release.main(["check", str(tmp_path)])
    weights = str(assets / "digits-smoke-random-0.safetensors")
    where = "--results", str(tmp_path), "--out", str(tmp_path / "out")
    with pytest.raises(SystemExit, match="no result in"):
        release.main(["make", weights, *where])
