"""Least-Stale by layers: stale keys first, of these the lowest layer, then the first to enter.

A key is stale if it was not touched in the present step. A note of tinyserve
(github.com/e1n00r/tinyserve, `notes/throughput_roadmap_v2.md`) reads SpecMD so: prefer stale keys,
break ties by FIFO in the order of the layers. Its code does not (see `ls_2gen_fifo`). That FIFO is
by entry into the cache, not by touch, is *inferred*; by touch it is `least_stale:order=layer`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, IntArray, World, policy

LAYER = 1 << 40  # above any clock


@policy("ls_2gen_layerfifo", source="tinyserve, after SpecMD, arXiv:2602.03921", compiled=True)
class TwoGenerationsByLayer(NamedTuple):
    """Clock of each key's entry, and step of its last touch."""

    entry: IntArray  # (keys,)
    step: IntArray  # (keys,)
    layer: IntArray  # (keys,)

    @classmethod
    def create(cls, world: World) -> TwoGenerationsByLayer:
        """Build stamps for all keys."""
        stamps = np.zeros(world.num_keys, np.int64)
        return cls(stamps, stamps.copy(), np.arange(world.num_keys) // world.num_experts)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Become current."""
        self.step[key] = event.step

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter as current."""
        self.entry[key] = event.clock
        self.step[key] = event.step

    def rank(self, key: int, event: Event) -> float:
        """Rank by generation, then layer, then entry."""
        current = self.step[key] == event.step
        return (current * event.num_layers + self.layer[key]) * LAYER + self.entry[key]
