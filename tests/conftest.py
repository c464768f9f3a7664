"""Tests share one process; what one registers must not reach the next."""

import gc
import os
import sys
from pathlib import Path

import pytest

from specmd.policy import registry

# Some test modules are used from other folders, too, whichever of them are run.
for folder in ("races", "core", "cli", "live", "trace", "comparison"):
    sys.path.append(str(Path(__file__).parent / folder))

# A compiled kernel leaves a hundred thousand objects that live as long as the process: looking
# through them for garbage again and again is a seventh of the time of the next.
gc.set_threshold(200_000, 50, 100)


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=60, help="mutated inputs of each kind")


@pytest.fixture(autouse=True)
def _only_built_in_policies():
    yield
    if any(entry.origin != "built-in" for entry in registry.entries()):
        registry._registry.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def _children_keep_bytecode(tmp_path_factory):
    """Where none may be written, processes that tests start share what one of them compiled."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        base = tmp_path_factory.getbasetemp()
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(shared / "bytecode"))
