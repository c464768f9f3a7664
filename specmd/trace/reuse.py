"""Reuse distances: how many other keys are used between two uses of the same key.

An LRU cache of C slots holds a key exactly if its reuse distance is below C, so the histogram of
distances is LRU's hit rate at every capacity at once (Mattson et al., IBM Systems Journal 1970). A
Fenwick tree over time counts the keys whose last use lies after a given moment. Time is compacted
whenever the tree is full, so the tree is twice as large as the number of keys, not of uses, and
stays in the processor's cache: logarithmic in the number of keys for each use.

numba compiles the kernel, is imported here only when used, and keeps the result on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CLOCK, _FIRST, _ACCESSES = 0, 1, 2


class ReuseDistances:
    """Reuse distances of a stream of keys, given in parts.

    Keys are integers 0..num_keys-1.
    """

    def __init__(self, num_keys: int) -> None:
        slots = 2 * num_keys + 1
        self._last = np.full(num_keys, -1, dtype=np.int64)
        self._owner = np.full(slots, -1, dtype=np.int64)
        self._tree = np.zeros(slots + 1, dtype=np.int64)
        self._bins = np.zeros(int(num_keys).bit_length() + 1, dtype=np.int64)
        self._state = np.zeros(3, dtype=np.int64)

    @property
    def accesses(self) -> int:
        """Uses seen so far."""
        return int(self._state[_ACCESSES])

    @property
    def first_uses(self) -> int:
        """Uses of a key never seen before."""
        return int(self._state[_FIRST])

    def add(self, keys: NDArray[np.int64]) -> None:
        """Continue with `keys`, (N,) int64, in order of use."""
        if keys.size:
            _kernel()(keys, self._last, self._owner, self._tree, self._bins, self._state)

    def histogram(self) -> list[int]:
        """Return counts by distance: bin 0 is distance 0, bin i is 2^(i-1)..2^i - 1."""
        used = np.flatnonzero(self._bins)
        return [int(count) for count in self._bins[: int(used[-1]) + 1 if used.size else 0]]


@cache
def _kernel() -> Callable[..., None]:
    from specmd.trace.reuse_kernel import advance

    kernel: Callable[..., Any] = advance
    return kernel
