"""Shared by all tests; types are checked as pyproject.toml's addopts say."""

import jaxtyping
import pytest


@pytest.fixture
def without_shape_checks():
    """What a user runs: the package without jaxtyping's checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
