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
    cycles_by_age,
    join,
    load_weights,
    policy,
)

MOST, KEPT, GAIN = 1023, (0.85, 0.98), (0.15, 0.02)


@policy("learned_linear", source="LRB, NSDI 2020", needs=["model"], remembers=True, compiled=True)
class LearnedLinear(NamedTuple):
    """What the features of a key are made of."""

    scores: Scores
    weight: FloatArray  # (8,)
    cycles: IntArray  # (MOST * layers + 1,) n by age in events
    of_age: FloatArray  # (MOST + 1,) what n adds
    left: FloatArray  # (2 * (MOST + 1),) what n cycles leave of both averages
    layer: IntArray  # (keys,)
    last: IntArray  # (keys,) clock of the last touch
    mean: FloatArray  # (2 * keys,) both averages as of the last touch
    uses: FloatArray  # (keys,)
    root: FloatArray  # (keys,) of the uses

    @classmethod
    def create(cls, world: World, *, model: ModelFile = "") -> "LearnedLinear":
        """Read the weights."""
        w, n = load_weights(model, "learned_linear", world)["weight"], np.arange(MOST + 1.0)
        of_age, left = w[1] * np.log2(1 + n) + w[2] / (1 + n), np.append(KEPT[0] ** n, KEPT[1] ** n)
        cycles = cycles_by_age(world.num_layers, MOST)
        layer, last = np.arange(world.num_keys) // world.num_experts, np.zeros(world.num_keys, int)
        mean, (uses, root) = np.zeros(2 * world.num_keys), np.zeros((2, world.num_keys))
        return cls(Scores.of(world), w, cycles, of_age, left, layer, last, mean, uses, root)

    def on_event(self, event: Event) -> None:
        """Count the uses."""
        for i in range(event.start, event.stop):
            touch(self, event.keys[i], event, 1.0)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter as touched: a use has been counted, a prefetch is none."""
        touch(self, key, event, 0.0)
        join(self.scores, pool, key)

    def rank(self, key: int, event: Event) -> float:
        """Predict; the latest leaves first."""
        w, age = self.weight, event.clock - self.last[key]
        n = self.cycles[min(age, len(self.cycles) - 1)]
        rate = np.sqrt(event.num_layers / event.clock)
        ahead = self.layer[key] - event.layer
        ahead += event.num_layers if ahead <= 0 else 0
        due = (w[0] * age + w[7] * ahead) * (1.0 / event.num_layers)
        due += self.of_age[n] + (w[3] * self.root[key] + w[4] * self.uses[key] * rate) * rate
        due += w[5] * self.mean[key] * self.left[n]
        return -(due + w[6] * self.mean[len(self.uses) + key] * self.left[MOST + 1 + n])


def touch(self: LearnedLinear, key: int, event: Event, used: float) -> None:
    """Bring the averages of a key up to now."""
    n = self.cycles[min(event.clock - self.last[key], len(self.cycles) - 1)]
    other = len(self.uses) + key
    self.mean[key] = self.mean[key] * self.left[n] + GAIN[0] * used
    self.mean[other] = self.mean[other] * self.left[MOST + 1 + n] + GAIN[1] * used
    self.uses[key] += used
    self.root[key] = np.sqrt(self.uses[key])
    self.last[key] = event.clock
