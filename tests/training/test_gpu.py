"""Steps on a GPU nobody has: tensors with a device and without numbers."""

import traceback

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode

from ciper.augment.chain import Augment
from ciper.augment.params import Params
from ciper.data.sources import Batch, to_float
from ciper.training.methods.registry import METHODS
from ciper.training.trainer import Monitor, build, recipe_at

READS = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.equal,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.masked_select,
    torch.ops.aten.nonzero,
}


class Waits(TorchDispatchMode):
    """Names what makes a processor wait for its GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        if op.overloadpacket in READS or self._copies(op, args, kwargs, out):
            frames = traceback.extract_stack()
            lines = [f.line for f in frames if "/ciper/" in f.filename]
            self.found.append(f"{op} in {lines[-1:]}")
        return out

    @staticmethod
    def _copies(op, args, kwargs, out) -> bool:
        if op.overloadpacket is torch.ops.aten._to_copy:
            there = out.device.type != args[0].device.type
            return there and not (kwargs or {}).get("non_blocking")
        if op.overloadpacket is torch.ops.aten.copy_:
            there = args[0].device.type != args[1].device.type
            return there and not (len(args) > 2 and args[2])
        return False


def views_of(images, augment):
    """A view and its targets, without a draw: GPUs have own generators."""
    n, width, flags = len(images), len(augment.schema), len(augment.operations)
    table = torch.empty(n, width, device="cuda")
    flags = torch.empty(n, flags, dtype=torch.bool, device="cuda")
    params = Params(table, flags, augment.schema)
    return augment.apply(images, params), params.vector()


def batch_of(recipe, n=8):
    """What `AugmentedViews` makes of n images."""
    images = torch.empty(n, 3, 16, 16, dtype=torch.uint8, device="cuda")
    augment = Augment.preset(recipe.preset, size=16)
    pairs = [views_of(images, augment) for _ in range(2)]
    small = None
    if METHODS[recipe.method].small:
        small, _ = views_of(images, Augment.preset(recipe.preset, size=8))
    return Batch(to_float(images), *zip(*pairs), small)


@pytest.mark.parametrize("name", [m for m in METHODS if m != "random"])
def test_a_training_step_never_waits_for_the_gpu(name):
    recipe = recipe_at("smoke", method=name, data="digits", size=16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        classes = tuple(Augment.preset("paper", size=16).classes)
        with torch.device("cuda"):
            method = build(recipe, classes)
        monitor = Monitor()
        with Waits() as waits:
            total, parts = method(batch_of(recipe))
            monitor.add(parts)
    assert total.device.type == "cuda"
    assert not waits.found


def test_waiting_is_noticed():
    with FakeTensorMode(), Waits() as waits:
        x = torch.empty(3, device="cuda")
        with pytest.raises(DynamicOutputShapeException):
            x.nonzero()  # fake tensors refuse it by themselves
        torch.empty(2).to("cuda")
        torch.empty(2).to("cuda", non_blocking=True)
        x.cpu()
    names = [name.split(".")[1] for name in waits.found]
    assert names == ["_to_copy", "_to_copy"]
