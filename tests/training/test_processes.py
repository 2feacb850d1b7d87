"""Two processes compute what one computes."""

import os
import subprocess
import sys

import torch

from ciper.training.trainer import load_run

GRADIENTS = """
import copy
import torch
from lightning_fabric import Fabric
from ciper.data.sources import Batch
from ciper.training.methods.ciper import CIPER
from ciper.training.trainer import gather_rows

class Plain(torch.nn.Module):
    features = 8

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(12, 8)

    def forward(self, x):
        return self.layer(x.flatten(1)).tanh()

torch.manual_seed(0)
method = CIPER(Plain(), (0, 3), projector_width=8, predictor_width=8)
method.projector = torch.nn.Linear(8, 8)  # batch norm sees its own rows
x, x1, x2 = torch.rand(3, 8, 3, 2, 2)
r1, r2 = torch.cat([torch.rand(2, 8, 1), torch.randint(3, (2, 8, 1))], 2)
alone = copy.deepcopy(method)
alone.loss(Batch(x, (x1, x2), (r1, r2)))[0].backward()

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
mine = slice(fabric.global_rank, None, 2)
model = fabric.setup(method)
gather_rows(method, fabric)
batch = Batch(x[mine], (x1[mine], x2[mine]), (r1[mine], r2[mine]))
fabric.backward(model(batch)[0])
for one, other in zip(alone.parameters(), method.parameters()):
    torch.testing.assert_close(one.grad, other.grad)
print(f"rank {fabric.global_rank} agrees", flush=True)
"""

FIT = """
import sys
import torch
from lightning_fabric import Fabric
from ciper.data.datasets import load
from ciper.training.trainer import fit, recipe_at

recipe = recipe_at("smoke", data="digits", size=16)
data = load("digits", 16).subset(torch.arange(128))
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
run = fit(recipe, data, sys.argv[1], fabric=fabric, progress=False)
weights = torch.cat([w.flatten() for w in run.encoder.parameters()])
print(f"rank {fabric.global_rank}: {weights.double().sum():.12f}", flush=True)
"""


def processes(tmp_path, code, *arguments):
    script = tmp_path / "script.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=200,
    )


def test_the_gradients_are_those_of_the_whole_batch(tmp_path):
    done = processes(tmp_path, GRADIENTS)
    assert done.returncode == 0, done.stderr
    assert "rank 0 agrees" in done.stdout
    assert "rank 1 agrees" in done.stdout


def test_all_processes_end_with_the_weights_that_are_saved(tmp_path):
    done = processes(tmp_path, FIT, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = [x for x in done.stdout.splitlines() if x.startswith("rank")]
    encoder = load_run(tmp_path / "run").encoder
    weights = torch.cat([w.flatten() for w in encoder.parameters()])
    expected = f"{weights.double().sum():.12f}"
    assert sorted(lines) == [f"rank {i}: {expected}" for i in range(2)]
