"""Least squares whose solution is physical: no rate, latency or loss is negative."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def fit_nonnegative(table: Floats, wanted: Floats, needed: tuple[int, ...] = ()) -> Floats:
    """Return x >= 0 that makes `table @ x - wanted` smallest; for a handful of columns.

    Args:
        table: (n, columns).
        wanted: (n,).
        needed: columns whose x must be above 0.

    """
    columns = range(table.shape[1])
    best, found = np.inf, np.zeros(table.shape[1])
    for size in range(1, len(columns) + 1):
        for kept in combinations(columns, size):
            if not set(needed) <= set(kept):
                continue
            solution = np.linalg.lstsq(table[:, kept], wanted, rcond=None)[0]
            error = float(((table[:, kept] @ solution - wanted) ** 2).sum())
            if (solution > 0).all() and error < best:
                best, found = error, np.zeros(table.shape[1])
                found[list(kept)] = solution
    return found
