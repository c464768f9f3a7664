"""FineMoE: the key of the least `probability * (1 + uses)` leaves first.

H. Yu et al., arXiv:2502.05370 (EuroSys 2026); in its program (`finemoe/csrc/cache.cpp` of
github.com/IntelliSys-Lab/FineMoE-EuroSys26 at 80717e9) probability times frequency, and counts
outlive eviction. There the probability is what the map of experts most like the present one says,
which is for its prefetcher to know. Here it is the key's share of its layer in the *training* trace
(*inferred*), and 1 is added so that keys without a use are told apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, FloatArray, IntArray, World, policy


@policy(
    "fine_moe",
    source="Yu et al., arXiv:2502.05370",
    needs=["training"],
    remembers=True,
    compiled=True,
)
class FineMoE(NamedTuple):
    """What is expected of each key, and its uses."""

    probability: FloatArray  # (keys,)
    uses: IntArray  # (keys,)

    @classmethod
    def create(cls, world: World) -> FineMoE:
        """Share out each layer's uses in the training trace."""
        counts = world.popularity.reshape(world.num_layers, -1)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
        return cls(shares.reshape(-1), np.zeros(world.num_keys, np.int64))

    def on_event(self, event: Event) -> None:
        """Count uses."""
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1

    def rank(self, key: int, event: Event) -> float:
        """Rank by the product."""
        return self.probability[key] * (1 + self.uses[key])
