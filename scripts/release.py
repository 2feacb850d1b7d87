"""Make and check the small weights that are attached to a release.

    python scripts/release.py make runs/paper/NAME ... --out DIR
    python scripts/release.py check DIR [--measure]

An asset is an encoder in bfloat16 with its recipe, as `load_run` reads it, and
beside it a card: its result with the provenance, and its hash.
`make` refuses a run without a result. `check` compares the hashes and loads
every encoder; with `--measure` it evaluates them again, as rounded as they
are, on the images of their cards.
"""

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from ciper.evaluation.probes import evaluate
from ciper.files import read_json, replace_file
from ciper.reproduce.plans import Job, images_of
from ciper.reproduce.results import Result, kept_settings, load_results
from ciper.training.trainer import Recipe, Run, export_run, load_run

TOLERANCE = 0.01  # of an accuracy: what rounding may change


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def result_of(run: Run, results: Path) -> Result:
    """The result of the run's own training."""
    made = kept_settings(run.recipe), run.recipe.seed
    missing = kept_settings(Recipe())  # an older file lacks newer settings
    for result in load_results(results):
        if ({**missing, **result.settings}, result.seed) == made:
            return result
    raise SystemExit(f"no result in {results} for the run {run.recipe}")


def make(places: list[Path], results: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for place in places:
        run = load_run(place)
        result = result_of(run, results)
        parts = result.experiment, result.scale, result.method, result.seed
        path = out / ("-".join(map(str, parts)) + ".safetensors")
        export_run(run, path)
        card = {"sha256": digest(path), **asdict(result)}
        text = json.dumps(card, indent=2, sort_keys=True) + "\n"
        replace_file(
            path.with_suffix(".json"), lambda p, text=text: p.write_text(text)
        )
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")


def check(folder: Path, measure: bool) -> None:
    cards = sorted(folder.glob("*.json"))
    if not cards:
        raise SystemExit(f"{folder}: no assets")
    for path in cards:
        weights = path.with_suffix(".safetensors")
        try:
            card = read_json(path)
            if digest(weights) != card.get("sha256"):
                raise ValueError(f"{weights}: not what the card describes")
            run = load_run(weights)
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from None
        x = torch.rand(2, 3, run.recipe.size, run.recipe.size)
        if not run.encoder(x).isfinite().all():
            raise SystemExit(f"{weights}: representations are not finite")
        found = measured_again(run, card) if measure else ""
        print(f"{weights.name}: right{found}")


def measured_again(run: Run, card: dict) -> str:
    """The nearest neighbors' accuracy, where it is about what it was.

    No read-out is trained for it, so what changes comes from the rounding.
    """
    sets = images_of(Job(run.recipe, card["scale"]))
    now = evaluate(run.encoder, *sets)["knn_accuracy"]
    then = card["metrics"]["knn_accuracy"]
    if abs(now - then) > TOLERANCE:
        raise SystemExit(f"kNN accuracy is {now:.4f}, was {then:.4f}")
    return f", kNN accuracy {now:.4f} (was {then:.4f})"


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("make", help="files from finished runs")
    one.add_argument("runs", nargs="+", type=Path)
    one.add_argument("--results", type=Path, default=Path("results"))
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("check", help="hashes, and encoders that load")
    two.add_argument("folder", type=Path)
    two.add_argument("--measure", action="store_true")
    asked = parser.parse_args(given)
    if asked.command == "make":
        make(asked.runs, asked.results, asked.out)
    else:
        check(asked.folder, asked.measure)


if __name__ == "__main__":
    main()
