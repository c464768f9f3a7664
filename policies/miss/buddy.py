"""Buddy: in place of a missing expert, one that tokens choose together with it.

BuddyMoE (arXiv:2511.10054): each expert has the `buddies` experts that were chosen together with it
most often in a training trace; the one of them that is there and has the largest count stands in,
with the original's weight. Where none is there, the miss is fetched. Details are *inferred*.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    FETCH,
    Core,
    Count,
    Event,
    FloatArray,
    Rows,
    World,
    policy,
    replace_by_nearest,
)


@policy(
    "buddy",
    axis="miss",
    source="BuddyMoE, arXiv:2511.10054",
    needs=["training", "weights"],
    compiled=True,
    lossy=True,
)
class Buddy(NamedTuple):
    """How near each expert is to each other one of its layer."""

    near: FloatArray  # (layers * experts * experts,)
    least: float

    @classmethod
    def create(cls, world: World, *, buddies: Count = 3) -> Buddy:
        """Let the best of `buddies` experts stand in."""
        experts, seen = world.num_experts, world.training
        together = np.zeros((world.num_layers, experts, experts))
        if seen is not None:
            layer = np.arange(world.num_layers)[None, :]
            for i in range(world.top_k):
                for j in range(world.top_k):
                    one, other = seen.expert_ids[..., i], seen.expert_ids[..., j]
                    both = (one >= 0) & (other >= 0) & (one != other)
                    np.add.at(together, (layer + 0 * one, one, other), both)
        least = np.sort(together, axis=2)[..., -min(buddies, experts), None]
        return cls(np.where(together >= least, together, 0.0).ravel(), 0.0)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Let the nearest that is there stand in for all tokens."""
        replace_by_nearest(rows, key, core, event, self.near, self.least)
        return FETCH
