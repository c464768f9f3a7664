"""The host tier's memory: slots for experts read from a disk, and a few to pass through.

Which expert is to lie in which slot is decided elsewhere (`specmd.live.host`); here are its bytes,
and what is known of them. A slot holds an expert once all of it has been read; until then, and
after another began to be read into it, it holds nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from specmd.core.event import World
from specmd.hardware.memory import require_memory
from specmd.live.stores.disk import Extent, UncachedFiles
from specmd.live.stores.pinning import Pinned, locked_size, new_arena, pin
from specmd.models.layout import Layouts

PASSING_SLOTS = 2
NOBODY = -1


@runtime_checkable
class OnDisk(Protocol):
    """A store whose experts lie in files."""

    layouts: Layouts
    num_keys: int

    def extents(self, key: int) -> list[Extent]:
        """Return where the parts of a key's blob lie."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class TieredStore:
    """Host slots in front of a store on disk. As an `ExpertStore` it is asked for no bytes.

    Args:
        behind: the experts on disk; closed with this one.
        world: of the tier: its pools, whose slots are numbered pool after pool.
        pinned_budget_bytes: how much may be locked; None is no limit, 0 nothing. All or nothing is.
        pin: pins an arena.

    Attributes:
        held: by slot, the expert whose bytes are all there, or NOBODY.
        read_bytes: bytes read from the disk, as experts; what alignment adds is not counted.
        pinned_bytes: bytes of slots that are pinned.
        locked_bytes: what the system locked for them.
        pin_failure: why they are not, "" if they are or need not be.

    Raises:
        SpecmdError: it does not fit into memory, or a file cannot be opened.

    """

    def __init__(
        self,
        behind: OnDisk,
        world: World,
        *,
        pinned_budget_bytes: int | None = None,
        pin: Callable[[Tensor], Pinned] = pin,
    ) -> None:
        self.layouts, self.num_keys = behind.layouts, behind.num_keys
        self.slots = int(world.capacity.sum())
        self._behind = behind
        largest = [0] * world.pools
        for key in range(self.num_keys):
            pool = int(world.pool[key])
            largest[pool] = max(largest[pool], self.layouts.of(key).blob_bytes)
        sizes = [size for size, n in zip(largest, world.capacity, strict=True) for _ in range(n)]
        sizes += [self.layouts.largest_bytes] * PASSING_SLOTS
        require_memory(sizes, 0, "the cache in host memory, a slot a layer,")
        self._extents = [behind.extents(key) for key in range(self.num_keys)]
        self.files = UncachedFiles(sorted({each.file for row in self._extents for each in row}))
        self.num_bytes = sum(sizes)
        self.pinned_bytes = self.locked_bytes = 0
        self.pin_failure = ""
        arena = new_arena(self.num_bytes)
        self._lock = self._pinned(arena, pinned_budget_bytes, pin)
        arena = arena if self._lock is None else self._lock.tensor
        self._blobs: list[Tensor] = list(torch.split(arena, sizes))
        self.held = [NOBODY] * len(sizes)
        self.read_bytes = 0

    def _pinned(
        self, arena: Tensor, budget: int | None, pin: Callable[[Tensor], Pinned]
    ) -> Pinned | None:
        if budget is not None and locked_size(self.num_bytes) > budget:
            return None
        try:
            lock = pin(arena)
        except (RuntimeError, NotImplementedError) as error:
            self.pin_failure = (str(error).strip() or type(error).__name__).splitlines()[0]
            return None
        self.pinned_bytes, self.locked_bytes = self.num_bytes, lock.locked_bytes
        return lock

    def load(self, key: int, slot: int, start: int, stop: int) -> None:
        """Read bytes start..stop of a key's blob from the disk into a slot."""
        out = self._blobs[slot].numpy()
        self.held[slot] = NOBODY
        for extent in self._extents[key]:
            begin, end = max(start, extent.at), min(stop, extent.at + extent.size)
            if begin < end:
                self.files.read(extent.file, extent.offset + begin - extent.at, out[begin:end])
                self.read_bytes += end - begin

    def chunk(self, slot: int, start: int, stop: int) -> Tensor:
        """Return bytes start..stop of a slot, (stop - start,) uint8; shares its memory."""
        return self._blobs[slot][start:stop]

    def is_locked(self) -> bool:
        """Whether a device can read the slots by itself."""
        return self._lock is not None

    def forget(self) -> None:
        """Hold nobody any more."""
        self.held = [NOBODY] * len(self.held)

    def read(self, key: int, start: int, stop: int) -> Tensor:
        """Read bytes of a key's blob through the last slot; valid until the next call."""
        slot = len(self.held) - 1
        self.load(key, slot, start, stop)
        return self.chunk(slot, start, stop)

    def whole(self, key: int) -> Tensor:
        """Read all of a key's blob through the last slot; valid until the next call."""
        return self.read(key, 0, self.layouts.of(key).blob_bytes)

    def is_pinned(self, key: int) -> bool:
        """Whether what is in the host can be read by a device itself."""
        return self.is_locked()

    def close(self) -> None:
        """Let go of files and memory."""
        self.files.close()
        self._blobs = []
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
        self._behind.close()
