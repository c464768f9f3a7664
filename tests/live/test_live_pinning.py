"""What is locked, what that costs, and what is given back; on a runtime that only takes note."""

from __future__ import annotations

import mmap
from typing import Any

import pytest
import torch

from specmd.live.stores import pinning
from specmd.live.stores.store import ArenaStore
from specmd.models.layout import Layout, Layouts

BLOB, EXPERTS, LAYERS = 768, 3, 4
LAYER = BLOB * EXPERTS


class Runtime:
    """`torch.cuda.cudart()`: the arenas that are registered; refuses from the third on."""

    def __init__(self) -> None:
        self.registered: dict[int, int] = {}
        self.asked = self.failures = 0

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.asked += 1
        if self.asked > 2:
            return 2
        assert address % mmap.PAGESIZE == 0, "an arena shares a page with something else"
        self.registered[address] = size
        return 0

    def launch(self, *_: Any, device: str) -> None:
        """Stand for a kernel: the first after a refusal is told of it."""
        self.failures += 1
        raise RuntimeError("CUDA error: out of memory")

    def cudaHostUnregister(self, address: int) -> int:
        del self.registered[address]
        return 0


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch, "zeros", runtime.launch)
    monkeypatch.setattr(
        torch.Tensor, "is_pinned", lambda self: self.data_ptr() in runtime.registered
    )
    return runtime


def fill(**options: Any) -> ArenaStore:
    store = ArenaStore(Layouts((Layout((), BLOB, BLOB),) * LAYERS, EXPERTS), **options)
    for layer in range(LAYERS):
        store.add_layer().fill_(layer)
    return store


def test_arenas_are_registered_where_they_lie_and_given_back(runtime: Runtime) -> None:
    store = fill()
    assert list(runtime.registered.values()) == [LAYER, LAYER]
    assert store.blob(0).data_ptr() in runtime.registered
    assert store.pinned_bytes == store.locked_bytes == 2 * LAYER
    assert "error 2" in store.pin_failure
    assert runtime.failures == 1  # and the model's own kernels are not
    assert runtime.asked == 3  # after a refusal nothing more is asked for
    assert [store.is_pinned(layer * EXPERTS) for layer in range(LAYERS)] == [True] * 2 + [False] * 2
    assert [int(store.read(layer * EXPERTS, 5, 6)) for layer in range(LAYERS)] == [0, 1, 2, 3]
    store.release_layer(0)
    assert len(runtime.registered) == 1
    store.close()
    assert not runtime.registered


def test_the_budget_is_of_bytes_really_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere a layer of 2,304 bytes may lock 4,096 of them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)
    store = fill(pinned_budget_bytes=3 * LAYER)
    assert (store.pinned_bytes, store.locked_bytes) == (LAYER, 4096)
    store = fill(pinned_budget_bytes=8192)
    assert (store.pinned_bytes, store.locked_bytes) == (2 * LAYER, 8192)


def test_what_is_not_pinned_is_not_called_so(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: False)
    with pytest.raises(RuntimeError, match="not pinned"):
        pinning.pin(pinning.new_arena(LAYER))
    assert not runtime.registered
    store = fill()
    assert store.pinned_bytes == store.locked_bytes == 0
    assert "not pinned" in store.pin_failure
