"""The link of a machine without accelerator: slots in host memory, filled by the copy thread.

Everything asynchronous is real here: the mover's thread copies while the main thread computes,
because a large copy lets go of the interpreter's lock. Both streams are host threads that have
finished their work when they say so, so a mark is reached as soon as it is made; the waiting is
done where the threads meet, in the mover.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from specmd.live.links.link import Mark
from specmd.live.slots import CANARY, Slots

SMALL_BYTES = 256 << 10


class HostLink:
    """Copies by the calling thread. See `specmd.live.links.link`."""

    name = "cpu"
    needs_pinned = False

    def __init__(self, slots: Slots) -> None:
        self.device = torch.device("cpu")
        self._slots = [blob.numpy() for blob in slots.blobs]

    def record(self, stream: int) -> Mark:
        """Return a mark that is reached already."""
        return True

    def order(self, stream: int, mark: Mark) -> None:
        """Nothing to wait for."""

    def reached(self, mark: Mark) -> bool:
        """Host threads have done what they say they have."""
        return True

    def synchronise(self, mark: Mark, timeout_s: float) -> None:
        """Nothing to wait for."""

    def tick(self, stream: int) -> None:
        """Keep no time: here the thread that waits is the one that computes."""

    def elapsed_s(self, before: Mark, after: Mark) -> float:
        """Never asked for: there are no ticks."""
        return 0.0

    def copy(self, slot: int, source: Tensor, start: int, stop: int, pinned: bool) -> None:
        """Copy now; the interpreter is free meanwhile, unless the copy is over sooner than that.

        Giving the interpreter away and getting it back takes two threads tens of microseconds, in
        which a small copy is long done. A memoryview keeps it.
        """
        into, out_of = self._slots[slot][start:stop], source.numpy()
        if stop - start > SMALL_BYTES:
            np.copyto(into, out_of)
        else:
            into.data[:] = out_of.data

    def blank(self, slot: int) -> None:
        """Overwrite a slot with the canary."""
        self._slots[slot].fill(CANARY)

    def attach(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Let go of the slots."""
        self._slots = []
