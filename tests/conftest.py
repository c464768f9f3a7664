"""Tests share one process; what one registers must not reach the next."""

import pytest

from specmd.policy import registry


@pytest.fixture(autouse=True)
def _only_built_in_policies():
    yield
    if any(entry.origin != "built-in" for entry in registry.entries()):
        registry._registry.cache_clear()
