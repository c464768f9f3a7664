"""Pinned memory: host memory that a device can read by itself, and what it really costs.

`Tensor.pin_memory` copies into a block of PyTorch's own, which it may round up to a power of two
and keeps when it is freed: 90 GB of experts can lock 137. Where the platform lets memory be
registered that exists already (CUDA, ROCm), an arena is locked where it lies, to the page, and
given back whole.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Pinned(NamedTuple):
    """Memory that was locked.

    Attributes:
        tensor: the bytes, the given ones or a copy.
        locked_bytes: what the system keeps locked for them.
        release: unlocks them; to be called before the memory goes.

    """

    tensor: Tensor
    locked_bytes: int
    release: Callable[[], None]


def new_arena(size: int) -> Tensor:
    """Make (size,) uint8 of whole pages that nothing else lies in."""
    return torch.frombuffer(mmap.mmap(-1, max(1, size)), dtype=torch.uint8, count=size)


def locked_size(size: int) -> int:
    """Bytes that `pin` will lock for so many at most."""
    return size if torch.cuda.is_available() else 1 << max(0, size - 1).bit_length()


def pin(arena: Tensor) -> Pinned:
    """Pin an arena.

    Raises:
        RuntimeError: the platform refused, or pinned nothing.
        NotImplementedError: it cannot pin.

    """
    size = locked_size(arena.numel())
    if torch.cuda.is_available():
        pinned = Pinned(arena, size, _register(arena))
    else:
        pinned = Pinned(arena.pin_memory(), size, lambda: None)
    if not pinned.tensor.is_pinned():
        pinned.release()
        raise RuntimeError("the platform says that what it pinned is not pinned")
    return pinned


def _register(arena: Tensor) -> Callable[[], None]:
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    address = arena.data_ptr()
    failed = int(runtime.cudaHostRegister(address, arena.numel(), 0))
    if failed:
        with suppress(RuntimeError):  # the failure waits for the next kernel: let this one have it
            torch.zeros(1, device="cuda")
        raise RuntimeError(f"cudaHostRegister refused {arena.numel():,} bytes: error {failed}")

    def release() -> None:
        runtime.cudaHostUnregister(address)

    return release
