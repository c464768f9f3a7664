"""A small trace of the embedded model, and a space small enough to try all of."""

from pathlib import Path

import pytest

from specmd.advice import space
from specmd.core import specialise
from specmd.policy.registry import entries
from specmd.trace import load, slice_tokens

TRACES = Path(__file__).resolve().parents[2] / "traces"
FEW = {
    "evict": {"lru", "lfu", "slru", "belady", "static"},
    "prefetch": {"none", "prev_token", "oracle"},
    "schedule": {"fifo", "cancel"},
    "miss": {"overlap", "block"},
    "route": {"none"},
    "allocate": {"uniform"},
    "admission": {"forced", "prompt_never"},
}


@pytest.fixture
def few_policies(monkeypatch):
    """Let the registry of the search have few policies, and whatever is not built in."""

    def few(axis=None):
        return [e for e in entries(axis) if e.name in FEW[e.axis] or e.origin != "built-in"]

    monkeypatch.setattr(space, "entries", few)
    # So little is asked of each kernel that compiling it would take most of the time.
    monkeypatch.setattr(specialise, "COMPILING_S", 60.0)


@pytest.fixture(params=["one at a time", "eight at once"])
def small_trace(request):
    """The end of a prompt and some decoding, of the embedded model."""
    if request.param == "one at a time":
        return slice_tokens(load(TRACES / "tiny-docs-b1.npz"), 94, 144)
    return slice_tokens(load(TRACES / "tiny-mixed-b8.npz"), 480, 560)


@pytest.fixture
def one_trace():
    """Some tokens of one trace."""
    return slice_tokens(load(TRACES / "tiny-docs-b1.npz"), 80, 130)
