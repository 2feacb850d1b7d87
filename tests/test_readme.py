"""The README's example runs, and its table is the one in the result files."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ciper.evaluation.cards import Audit
from ciper.reproduce.demo import METRICS
from ciper.reproduce.results import load_results, results_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_on_a_folder_of_images(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(45):
            pixels = draw.integers(0, 256, (40, 48, 3), np.uint8)
            path = tmp_path / "photos" / name / f"{i}.jpg"
            Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    card, code = re.findall(r"```python\n(.*?)```", README, re.S)
    code, count = re.subn(r"epochs=\d+", "epochs=1", code)
    assert count == 1
    names = {}
    exec(code, names)
    assert names["h"].shape == (72, names["run"].encoder.features)
    assert names["params"]["crop"].shape == (8, 4)
    assert (tmp_path / "runs/photos/encoder.safetensors").exists()
    card, count = re.subn("timm:resnet18", "pixels", card)
    assert count == 1
    exec(card, names)
    assert Audit.load("card.json") == names["card"]


def test_the_table_is_computed_from_the_result_files():
    results = load_results(ROOT / "results", "demo", "laptop")
    assert results_table(results, list(METRICS)).strip() in README


def test_it_is_at_most_90_lines():
    assert len(README.splitlines()) <= 90
