"""A slower link than the machine has: copies paced to a bandwidth and a latency.

A transfer of n bytes then takes `latency + n / bandwidth`, as in the simulator, whatever the memory
of the machine can do. Sleeps are never exact; a chunk that was waiting when the one before ended is
paced from the moment that one *should* have ended, so errors do not add up.
"""

from __future__ import annotations

import time

from specmd.errors import SpecmdError


class Throttle:
    """Paces one link.

    Args:
        bytes_per_s: bandwidth.
        latency_s: fixed cost of a transfer.

    Raises:
        SpecmdError: a bandwidth that is not positive, or a negative latency.

    """

    def __init__(self, bytes_per_s: float, latency_s: float) -> None:
        if not bytes_per_s > 0 or not latency_s >= 0:
            raise SpecmdError(
                f"throttle ({bytes_per_s}, {latency_s}): give bytes per second above 0 and a "
                "latency in seconds of 0 or more"
            )
        self.bytes_per_s, self.latency_s = float(bytes_per_s), float(latency_s)
        self._free_s = 0.0  # when the link is free again, on the clock of time.perf_counter

    def begin(self, first: bool, *, busy: bool = False) -> float:
        """Return when a chunk begins; call it before the copy.

        Args:
            first: of its transfer: the latency is added.
            busy: it was waiting for the chunk before.

        """
        start = self._free_s if busy else max(self._free_s, time.perf_counter())
        return start + (self.latency_s if first else 0.0)

    def pace(self, begin_s: float, num_bytes: int) -> None:
        """Sleep until the chunk that began at `begin_s` should have arrived."""
        self._free_s = begin_s + num_bytes / self.bytes_per_s
        left = self._free_s - time.perf_counter()
        if left > 0:
            time.sleep(left)
