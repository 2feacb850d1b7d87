"""Shared by all tests; types are checked as pyproject.toml's addopts say."""

import importlib.util
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import pytest
import torch


@pytest.fixture
def without_shape_checks():
    """What a user runs: the package without jaxtyping's checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def script():
    """Gives a file of scripts/ as a module, by its name."""

    def load(name):
        path = Path(__file__).parents[1] / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def strange_defaults():
    """Gives a context with the defaults that some programs set."""

    @contextmanager
    def inside():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")  # whatever lands there has no values
        try:
            yield
        finally:
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)

    return inside
