"""The tokens of one layer's pass as the core sees them, and what it says is executed of them.

A trace has a token's experts by falling weight, and router weights and logits of 16 bits; decisions
are made from these very numbers, so that a simulation of the trace makes them, too. Kernels weigh
with the gate's own numbers wherever the core has left a pair of token and expert as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
NO_EXPERT = -1


@dataclass(frozen=True)
class TrueRows:
    """What the router chose for the T tokens that count.

    Attributes:
        ids: (T, K) experts by falling weight, NO_EXPERT where a token chose fewer.
        weights: (T, K) as a trace has them.
        own: (T, K) the same, as the gate gave them.

    """

    ids: Ids
    weights: npt.NDArray[np.float64]
    own: npt.NDArray[np.float32]


def true_rows(chosen: Ids, own: npt.NDArray[np.float32], experts: int, *, half: bool) -> TrueRows:
    """Put the choices of tokens into the order of a trace.

    Args:
        chosen: (T, K) experts; E is none.
        own: (T, K) their weights.
        experts: E.
        half: a trace has weights of 16 bits.

    """
    kept = own.astype(np.float16) if half else own
    ids = np.where(chosen < experts, chosen, NO_EXPERT).astype(np.int64)
    order = np.argsort(-np.where(ids < 0, -1, kept), axis=-1, kind="stable")
    ids = np.take_along_axis(ids, order, -1)
    sorted_own = np.where(ids < 0, np.float32(0), np.take_along_axis(own, order, -1))
    weights = np.where(ids < 0, 0.0, np.take_along_axis(kept, order, -1).astype(np.float64))
    return TrueRows(ids, weights, sorted_own)


def executed_weights(
    true: TrueRows, ids: Ids, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Return the weights (T, K) that kernels take: the gate's own where nothing was changed."""
    found = weights.astype(np.float32)
    for place in range(ids.shape[1]):  # a routing policy may have put them into another order
        same = (ids == true.ids[:, place, None]) & (weights == true.weights[:, place, None])
        found = np.where(same, true.own[:, place, None], found)
    return found


def spread(
    values: npt.NDArray[np.generic], live: npt.NDArray[np.bool_] | None, fill: int
) -> npt.NDArray[np.generic]:
    """Put rows of the tokens that count among those of all tokens of a pass."""
    if live is None:
        return values
    whole = np.full((len(live), *values.shape[1:]), fill, values.dtype)
    whole[live] = values
    return whole
