"""A small trace of the embedded model, and a space small enough to try all of."""

from pathlib import Path

import pytest

from specmd.advice import space
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


@pytest.fixture(params=["one at a time", "eight at once"])
def small_trace(request):
    """The end of a prompt and some decoding, of the embedded model."""
    if request.param == "one at a time":
        return slice_tokens(load(TRACES / "tiny-docs-b1.npz"), 80, 180)
    return slice_tokens(load(TRACES / "tiny-mixed-b8.npz"), 480, 640)


@pytest.fixture
def one_trace():
    """Some tokens of one trace."""
    return slice_tokens(load(TRACES / "tiny-docs-b1.npz"), 80, 180)
