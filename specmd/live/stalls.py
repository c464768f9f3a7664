"""Stalls: how long kernels were kept waiting for copies.

On the processor's own link the thread that waits is the thread that computes, so its waiting is the
stall. On an accelerator it is not: the thread runs ahead of the device, and what waits is the
compute stream. While the thread waits for a copy the device may still be busy with earlier kernels
(no stall), and when the thread goes on the device may not have the last chunk yet (a stall that no
host clock sees). So the compute stream itself is asked: one tick before the wait and one behind
it. The first is reached when the kernels before are done, the second when the copy has landed too;
the time between them is the stall, whoever waited. A stream does one thing after the other, so no
second is counted twice. Ticks are read when they have been reached; nothing waits for them.

An expert computed on the host is waited for in the same way: its own time is between two ticks.

The share of a wait in which the expert was still read from the disk is the disk's; the host knows
it, and the device's wait is divided alike.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from specmd.live.links.link import COMPUTE, Link, Mark
from specmd.runs.metrics import PARTS

DEMAND_STALL, LATE_STALL, DISK_STALL = "demand_stall", "late_prefetch_stall", "disk_stall"
CPU_EXPERT = "cpu_expert"
_CAUSES = tuple(name for name, part in PARTS.items() if part.is_stall)


class Stalls:
    """Adds up the stalls of one link, by cause.

    Args:
        link: whose compute stream waits.
        causes: what it waits for.

    """

    def __init__(self, link: Link, causes: Iterable[str] = _CAUSES) -> None:
        self._link = link
        self._seconds = dict.fromkeys(causes, 0.0)
        self._open: deque[tuple[Mark, Mark, str, float]] = deque()

    def begin(self) -> Mark:
        """Return what `end` is to be given: call it before waiting for a copy."""
        tick = self._link.tick(COMPUTE)
        return time.perf_counter() if tick is None else tick

    def end(self, began: Mark, cause: str, from_disk: float = 0.0) -> None:
        """Count a wait; call it after the compute stream was told to wait for the copy.

        `from_disk` is the share of it that was the disk's, 0 to 1.
        """
        tick = self._link.tick(COMPUTE)
        if tick is None:
            self._count(time.perf_counter() - began, cause, from_disk)
        else:
            self._open.append((began, tick, cause, from_disk))

    def _count(self, seconds: float, cause: str, from_disk: float) -> None:
        if from_disk:
            self._seconds[DISK_STALL] += from_disk * seconds
        self._seconds[cause] += (1.0 - from_disk) * seconds

    def seconds(self) -> dict[str, float]:
        """Return seconds so far by cause, as far as the device has got."""
        self.settle()
        return dict(self._seconds)

    def settle(self) -> None:
        """Count the waits that are over on the device; never blocks."""
        link = self._link
        while self._open and link.reached(self._open[0][1]):
            began, ended, cause, from_disk = self._open.popleft()
            self._count(link.elapsed_s(began, ended), cause, from_disk)

    def restart(self) -> None:
        """Forget all."""
        self._open.clear()
        self._seconds = dict.fromkeys(self._seconds, 0.0)
