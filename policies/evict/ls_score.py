"""Least-Stale by score: `0.4 * frequency + 0.4 * recency + 0.2 * (1 - layer / L)`, least first.

Frequency is uses a step, recency `exp(-steps since the last touch / 100)`. MLX-Flash
(github.com/szibis/MLX-Flash at 47f2011, `smart_eviction.py`) calls this Least-Stale after SpecMD
(arXiv:2602.03921); it knows of no staleness.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

import numpy as np

from specmd.policy import Event, FloatArray, IntArray, Scores, World, join, policy

HORIZON = 5000  # steps; what is left of recency is then below the last bit of a score


@policy("ls_score", source="MLX-Flash, after arXiv:2602.03921", remembers=True, compiled=True)
class Score(NamedTuple):
    """Uses and last touches, counted in steps."""

    scores: Scores
    uses: IntArray  # (keys,)
    last: IntArray  # (keys,) steps begun at the last touch
    steps: IntArray  # [steps begun before this one, number of this one]
    recency: FloatArray  # (HORIZON,) by steps since the last touch

    @classmethod
    def create(cls, world: World) -> Score:
        """Start with no use."""
        numbers = np.zeros(world.num_keys, np.int64)
        recency = np.array([exp(-age / 100) for age in range(HORIZON)])
        return cls(Scores.of(world), numbers, numbers.copy(), np.array([-1, -1]), recency)

    def on_event(self, event: Event) -> None:
        """Count steps and uses."""
        if event.step != self.steps[1]:
            self.steps[0] += 1
            self.steps[1] = event.step
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1
            self.last[event.keys[i]] = self.steps[0]

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Touch."""
        self.last[key] = self.steps[0]
        join(self.scores, pool, key)

    def rank(self, key: int, event: Event) -> float:
        """Rank by the score."""
        age = min(self.steps[0] - self.last[key], HORIZON - 1)
        depth = key // event.num_experts / event.num_layers
        frequency = self.uses[key] / max(self.steps[0], 1)
        return 0.4 * frequency + 0.4 * self.recency[age] + 0.2 * (1.0 - depth)
