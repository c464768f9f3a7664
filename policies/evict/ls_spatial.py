"""Least-Stale in time and space: stale keys of layers already run leave before all others.

Then other stale keys, then current keys of layers already run, then those of layers to come,
the farthest layer first. A key is stale if it was not touched in the present step; a layer has been
run if it is not above the present one. A reading of SpecMD (arXiv:2602.03921), whose text speaks of
temporal and spatial order but gives no code; all of it, and least recent first within each group,
is *inferred*.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, IntArray, Scores, World, join, policy

GROUP = 1 << 40  # above any clock


@policy("ls_spatial", source="SpecMD, arXiv:2602.03921", compiled=True)
class Spatial(NamedTuple):
    """Clock and step of the last touch."""

    scores: Scores
    last: IntArray  # (keys,)
    step: IntArray  # (keys,)
    layer: IntArray  # (keys,)

    @classmethod
    def create(cls, world: World) -> Spatial:
        """Build stamps for all keys."""
        stamps = np.zeros(world.num_keys, np.int64)
        layer = np.arange(world.num_keys) // world.num_experts
        return cls(Scores.of(world), stamps, stamps.copy(), layer)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Stamp."""
        self.last[key] = event.clock
        self.step[key] = event.step

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Stamp."""
        self.last[key], self.step[key] = event.clock, event.step
        join(self.scores, pool, key)

    def rank(self, key: int, event: Event) -> float:
        """Rank by group, then last touch."""
        layer = self.layer[key]
        current, ahead = self.step[key] == event.step, layer > event.layer
        group = 2 * current + ahead
        if current and ahead:
            group += event.num_layers - layer
        return group * GROUP + self.last[key]
