"""Trainings on lent machines: stopped in time, brought back, gone on with."""

import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from replicas import picture

import ciper.training.trainer
from ciper.reproduce.plans import is_done, plan, trained
from ciper.training.trainer import OutOfTime, load_run

RUN = ["run", "figure 4a", "--scale", "smoke-2", "--seeds", "1"]
STOPPED = "pics/smoke-2/ciper-image-without=flip-0"


@pytest.fixture
def lease(script):
    return script("lease")


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A small archive, the cache beside it, and the folder to come back to."""
    monkeypatch.setenv("CIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for part, count in (("train", 100), ("test", 8)):
        for kind in ("cat", "dog"):
            for i in range(count):
                place = tmp_path / "made" / part / kind / f"{i}.png"
                picture(place, (i, len(part), len(kind), ord(kind[0])))
    with tarfile.open("pics.tar.xz", "w:xz") as file:
        for part in ("train", "test"):
            file.add(tmp_path / "made" / part, part)
    return tmp_path / "pics.tar.xz"


def stop_within_the_third(monkeypatch):
    """Time is up after an epoch of the training without flips."""

    def stop(fabric, begun, recipe, slowest, until):
        if recipe.without == "flip" and begun:
            raise OutOfTime("time is up")

    monkeypatch.setattr(ciper.training.trainer, "_stop_in_time", stop)


def arguments(images, tmp_path, place, *more):
    folders = ["--work", tmp_path / place, "--back", tmp_path / f"{place}-out"]
    name = ["--images", images, "--name", "pics"]
    return list(map(str, [*RUN, *name, *folders, *more]))


def test_a_training_goes_on_from_what_was_brought_back(
    lease, images, tmp_path, monkeypatch, capsys
):
    small = "--part", "0.1", "--keep", "ciper-image-0"
    with monkeypatch.context() as patch:
        stop_within_the_third(patch)
        first = arguments(images, tmp_path, "first", *small, "--room", "0.25")
        assert lease.main(first) == 1
    assert "2 finished, 3 to be done later" in capsys.readouterr().out
    out, parts = tmp_path / "first-out", tmp_path / "first" / "parts"
    brought = len(list(out.glob("weights-*")))
    assert 1 <= brought < len(list(parts.iterdir()))
    with tarfile.open(out / "results.tar") as file:
        assert len(file.getnames()) == 2

    monkeypatch.chdir(tmp_path)
    again = arguments(images, tmp_path, "second", "--brought", str(out))
    assert lease.main(again) == 1
    assert "bring the others" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    rest = ["more", str(brought), "--back", str(out)]
    assert lease.main([*rest, "--work", str(tmp_path / "first")]) == 0
    begun = []
    original = ciper.training.trainer.fit
    monkeypatch.setattr(
        "ciper.reproduce.plans.fit",
        lambda recipe, *a, **k: (
            begun.append(recipe) or original(recipe, *a, **k)
        ),
    )
    monkeypatch.chdir(tmp_path)
    assert lease.main(again) == 0
    assert [recipe.without for recipe in begun] == [
        "flip",
        "jitter",
        "grayscale",
    ]

    monkeypatch.chdir(tmp_path / "second")
    jobs = plan("figure 4a", "smoke-2", [0], ["folder:pics"])
    assert all(is_done(job, "results") for job in jobs)
    (job,) = [job for job in jobs if job.name == STOPPED]
    whole = trained(job, tmp_path / "never-stopped").encoder.state_dict()
    for name, weight in (
        load_run(Path("runs", STOPPED)).encoder.state_dict().items()
    ):
        assert torch.equal(weight, whole[name])
    kept = Path("runs/pics/smoke-2/ciper-image-0/small.safetensors")
    assert load_run(kept).recipe == jobs[0].recipe


def test_what_has_gone_on_since_is_not_put_back(lease, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old, new = tmp_path / "old", tmp_path / "results" / "a"
    for folder, text in ((new, "old"),):
        folder.mkdir(parents=True)
        (folder / "x.json").write_text(text)
    old.mkdir()
    lease.pack([Path("results/a/x.json")], old / "results.tar")
    (new / "x.json").write_text("new")
    assert lease.take_brought(old)
    assert (new / "x.json").read_text() == "new"
    shutil.rmtree("results")
    assert lease.take_brought(old)
    assert (new / "x.json").read_text() == "old"


def test_parts_of_two_leases_are_refused(lease, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("weights-000-of-002", "weights-001-of-003"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    with pytest.raises(SystemExit, match="parts of two leases"):
        lease.take_brought(tmp_path / "in")
