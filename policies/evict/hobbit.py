"""HOBBIT: the least weighted sum of recency, frequency, precision and nearness leaves first.

P. Tang et al., arXiv:2411.01433: LRU, LFU, LHU (least high-precision used) and FLD (farthest layer
distance), each from 0 to 1. *Inferred*, as the paper's weights and measures could not be verified:
equal weights; clock of the last touch over the clock; uses over steps of this sequence, which
begins at the first prefill after a decode; of these the uses in high precision: what outweighs the
expert sums to at most 0.6 of all weight; `1 - d / L`, of d layers that run before the key's own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, FloatArray, IntArray, Scores, Share, World, join, policy

HIGH = 0.6  # T1 of the paper


@policy(
    "hobbit",
    source="Tang et al., arXiv:2411.01433",
    needs=["weights"],
    remembers=True,
    compiled=True,
)
class Hobbit(NamedTuple):
    """Touches, and uses of the present sequence."""

    scores: Scores
    last: IntArray  # (keys,) clock of the last touch
    uses: FloatArray  # (keys,) counted as `lfu`, and as `lhu` if in high precision
    sequence: IntArray  # [steps of it, number of the present one, phase of the last event]
    factor: FloatArray  # [of last touches now, of uses now]
    near: FloatArray  # (2 * layers,) by a layer's place after the present one, from -layers on
    layer: IntArray  # (keys,)
    parts: FloatArray  # [lru, lfu, lhu]

    @classmethod
    def create(
        cls, world: World, *, lru: Share = 1, lfu: Share = 1, lhu: Share = 1, fld: Share = 1
    ) -> Hobbit:
        """Start with no sequence."""
        ahead = (np.arange(2 * world.num_layers) - 1) % world.num_layers
        near, parts = fld * (1 - ahead / world.num_layers), np.array([lru, lfu, lhu], float)
        last, layer = np.zeros(world.num_keys, np.int64), np.arange(world.num_keys)
        sequence, uses = np.array([0, -1, 0]), np.zeros(world.num_keys)
        layer //= world.num_experts
        return cls(Scores.of(world), last, uses, sequence, np.zeros(2), near, layer, parts)

    def on_event(self, event: Event) -> None:
        """Count steps and uses, from zero where a sequence begins."""
        if event.phase < self.sequence[2]:
            self.sequence[0] = 0
            for key in range(len(self.uses)):
                self.uses[key] = 0.0
        self.sequence[0] += event.step != self.sequence[1] or self.sequence[0] == 0
        self.sequence[1], self.sequence[2] = event.step, event.phase
        self.factor[0], self.factor[1] = self.parts[0] / event.clock, 1.0 / self.sequence[0]
        for i in range(event.start, event.stop):
            heavier, total = 0.0, 0.0
            for weight in event.gates[event.start : event.stop]:
                heavier += weight if weight > event.gates[i] else 0.0
                total += weight
            high = self.parts[2] if heavier <= HIGH * total else 0.0
            self.uses[event.keys[i]] += self.parts[1] + high
            self.last[event.keys[i]] = event.clock

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Touch."""
        self.last[key] = event.clock
        join(self.scores, pool, key)

    def rank(self, key: int, event: Event) -> float:
        """Rank by the sum."""
        near = self.near[self.layer[key] - event.layer + event.num_layers]
        return self.factor[0] * self.last[key] + self.factor[1] * self.uses[key] + near
