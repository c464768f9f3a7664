"""The expert store: every expert of the model in host memory, as one contiguous blob each.

Where a blob lies decides how fast it can leave. A device reads *pinned* (page-locked) memory by
itself, at full link speed and in the background; *pageable* memory has to be copied by the
processor into a pinned staging buffer first. Pinned memory is scarce and a failed request for it
can poison later calls, so it is asked for in whole layers, up to a budget of bytes really locked
(`specmd.live.stores.pinning`), and the first refusal makes the rest pageable; the share that is
pinned is reported. A model larger than the host's memory has its blobs read from its checkpoint
(`specmd.live.stores.checkpoint`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from specmd.errors import SpecmdError
from specmd.live.stores.pinning import Pinned, locked_size, new_arena, pin
from specmd.models.layout import Layouts, expert_tensors


class ExpertStore(Protocol):
    """What the engine asks of a store."""

    layouts: Layouts
    pinned_bytes: int
    locked_bytes: int
    num_keys: int

    def read(self, key: int, start: int, stop: int) -> Tensor:
        """Return bytes start..stop of a key's blob, (stop - start,) uint8 on the host.

        Called by the copy thread, a chunk at a time. What is not pinned is valid until the next
        call.
        """
        ...

    def whole(self, key: int) -> Tensor:
        """Return all of a key's blob, which stays as it is while it is held.

        Called by the thread that computes.
        """
        ...

    def is_pinned(self, key: int) -> bool:
        """Whether a device can read the blob by itself."""
        ...

    def close(self) -> None:
        """Let go of the memory."""
        ...


class ArenaStore:
    """All blobs in host memory, an arena a layer: pinned up to a budget, pageable beyond it.

    Args:
        layouts: of the experts.
        pinned_budget_bytes: how much may be locked; None is no limit, 0 nothing.
        pin: pins an arena.

    Attributes:
        pinned_bytes: bytes of experts that are pinned.
        locked_bytes: what the system locked for them.
        pin_failure: why pinning stopped, "" if it did not.

    """

    def __init__(
        self,
        layouts: Layouts,
        *,
        pinned_budget_bytes: int | None = None,
        pin: Callable[[Tensor], Pinned] = pin,
    ) -> None:
        self.layouts = layouts
        self.num_keys = layouts.num_keys
        self.pinned_bytes = self.locked_bytes = 0
        self.pin_failure = ""
        self._experts = layouts.experts
        self._arenas: list[Tensor] = []  # per layer (experts, blob_bytes)
        self._locks: list[Pinned | None] = []
        self._pin = pin
        self._budget = pinned_budget_bytes

    def add_layer(self) -> Tensor:
        """Make the arena of the next layer, (experts, blob_bytes) of anything, and return it."""
        size = self.layouts.of_layer[len(self._arenas)].blob_bytes
        arena = new_arena(self._experts * size)
        lock = self._lock(arena)
        arena = (lock.tensor if lock else arena).view(self._experts, size)
        self._arenas.append(arena)
        self._locks.append(lock)
        return arena

    def _lock(self, arena: Tensor) -> Pinned | None:
        size, budget = arena.numel(), self._budget
        if self.pin_failure:
            return None
        if budget is not None and self.locked_bytes + locked_size(size) > budget:
            return None
        try:
            lock = self._pin(arena)
        except (RuntimeError, NotImplementedError) as error:
            self.pin_failure = (str(error).strip() or type(error).__name__).splitlines()[0]
            return None
        self.locked_bytes += lock.locked_bytes
        self.pinned_bytes += size
        return lock

    def read(self, key: int, start: int, stop: int) -> Tensor:
        """Return bytes start..stop of a key's blob; shares the arena's memory."""
        return self.blob(key)[start:stop]

    def whole(self, key: int) -> Tensor:
        """Return the blob of a key; shares the arena's memory."""
        return self.blob(key)

    def blob(self, key: int) -> Tensor:
        """Return the blob of a key; shares the arena's memory."""
        if not self._arenas:
            raise SpecmdError("the expert store is closed: leave and enter offload again")
        return self._arenas[key // self._experts][key % self._experts]

    def is_pinned(self, key: int) -> bool:
        """Whether a device can read the blob by itself."""
        return self._locks[key // self._experts] is not None

    def release_layer(self, layer: int) -> None:
        """Free one layer's arena."""
        lock, self._locks[layer] = self._locks[layer], None
        if lock is not None:
            lock.release()
        self._arenas[layer] = torch.empty(0, dtype=torch.uint8)

    def close(self) -> None:
        """Let go of the memory."""
        for layer in range(len(self._arenas)):
            self.release_layer(layer)
        self._arenas = []


class HostStore(ArenaStore):
    """The experts of a model that is in memory, taken from it.

    Layers are taken one after the other (`take_layer`), so that a model is never in memory twice.
    """

    def take_layer(self, experts: nn.Module) -> None:
        """Copy the experts of the next layer in."""
        tensors = expert_tensors(experts)
        if any(tensor.is_meta for tensor in tensors.values()):
            raise SpecmdError(
                "the model's experts hold no values (they are on meta): give the folder they are "
                "in, offload(..., checkpoint=folder)"
            )
        layout = self.layouts.of_layer[len(self._arenas)]
        blobs = self.add_layer()
        with torch.no_grad():
            for piece in layout.pieces:
                # (experts, bytes) of this tensor, viewed as its elements.
                part = blobs[:, piece.start : piece.start + piece.num_bytes]
                flat = tensors[piece.name].detach().reshape(self._experts, -1).contiguous()
                part.copy_(flat.view(torch.uint8))

    def fused(self, layer: int, name: str, out: Tensor) -> None:
        """Write a parameter of a layer back as the model had it, (experts, ...)."""
        piece = next(p for p in self.layouts.of_layer[layer].pieces if p.name == name)
        part = self._arenas[layer][:, piece.start : piece.start + piece.num_bytes]
        flat = part.contiguous().view(piece.dtype)
        out.copy_(flat.view(self._experts, *piece.shape))
