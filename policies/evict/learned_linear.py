"""Learned next use, linear: the key predicted to be used again latest leaves first.

Relaxed Belady (Z. Song et al., NSDI 2020): log2(1 + d), d cycles of all layers until the next use,
as a weighted sum of age in cycles, log2(1 + n), 1 / (1 + n), sqrt(u), u, two averages of the uses a
cycle that keep KEPT of themselves, and cycles until its layer runs. u: all uses a cycle; n: cycles
begun since the last touch, at most MOST. `specmd train learned_linear` fits the weights.
"""

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Event,
    FloatArray,
    IntArray,
    ModelFile,
    Scores,
    World,
    cycles_since,
    join,
    least_scored,
    load_weights,
    part,
    policy,
)

MOST, KEPT, GAIN = 1023, (0.85, 0.98, 1.0), (0.15, 0.02, 1.0)


@policy("learned_linear", source="LRB, NSDI 2020", needs=["model"], remembers=True, compiled=True)
class LearnedLinear(NamedTuple):
    """What the features of a key are made of."""

    scores: Scores
    weight: FloatArray  # (8,)
    of_age: FloatArray  # (MOST + 1,) what n adds
    left: tuple[FloatArray, ...]  # (MOST + 1,) each: what n cycles leave of the averages
    layer: IntArray  # (keys,)
    last: IntArray  # (keys,) clock of the last touch
    mean: tuple[FloatArray, ...]  # (keys,) each, as of the last touch; the last counts all uses

    @classmethod
    def create(cls, world: World, *, model: ModelFile = "") -> "LearnedLinear":
        """Read the weights."""
        w, n = load_weights(model, "learned_linear", world)["weight"], np.arange(MOST + 1.0)
        of_age, left = w[1] * np.log2(1 + n) + w[2] / (1 + n), tuple(kept**n for kept in KEPT)
        layer, mean = np.arange(world.num_keys) // world.num_experts, np.zeros((3, world.num_keys))
        return cls(Scores.of(world), w, of_age, left, layer, np.zeros_like(layer), tuple(mean))

    def on_event(self, event: Event) -> None:
        """Count the uses."""
        for i in range(event.start, event.stop):
            touch(self, event.keys[i], event, 1)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter as touched: a use has been counted, a prefetch is none."""
        touch(self, key, event, 0)
        join(self.scores, pool, key)

    def rank(self, key: int, event: Event) -> float:
        """Predict; the latest leaves first."""
        w, n = self.weight, min(cycles_since(event, self.last[key]), MOST)
        u = self.mean[2][key] * event.num_layers / event.clock
        ahead = self.layer[key] - event.layer
        ahead += event.num_layers if ahead <= 0 else 0
        due = (w[0] * (event.clock - self.last[key]) + w[7] * ahead) / event.num_layers
        due += self.of_age[n] + w[3] * np.sqrt(u) + w[4] * u
        due += w[5] * self.mean[0][key] * self.left[0][n]
        return -(due + w[6] * self.mean[1][key] * self.left[1][n])

    on_evict, victim = part, least_scored  # type: ignore[misc]


def touch(self: LearnedLinear, key: int, event: Event, used: int) -> None:
    """Bring the averages of a key up to now."""
    n = min(cycles_since(event, self.last[key]), MOST)
    for i in range(3):
        self.mean[i][key] = self.mean[i][key] * self.left[i][n] + GAIN[i] * used
    self.last[key] = event.clock
