"""NVTX ranges: what the live cache does, named for a profiler that watches the device.

A torch that was built without CUDA has the functions and raises when one is called, so they are
asked for once, where there is a device; elsewhere a range is nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch


@cache
def are_taken() -> bool:
    """Say whether this torch and this machine take ranges."""
    if not torch.cuda.is_available():
        return False
    nvtx: Any = torch.cuda.nvtx
    try:
        nvtx.range_push("specmd")
        nvtx.range_pop()
    except RuntimeError:  # built without NVTX
        return False
    return True


def named(name: str, device: torch.device) -> AbstractContextManager[None]:
    """Return a range of a name around what is issued to a device."""
    return _range(name) if device.type == "cuda" and are_taken() else nullcontext()


@contextmanager
def _range(name: str) -> Iterator[None]:
    nvtx: Any = torch.cuda.nvtx
    nvtx.range_push(name)
    try:
        yield
    finally:
        nvtx.range_pop()
