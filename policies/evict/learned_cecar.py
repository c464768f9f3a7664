"""Learned next use, two small networks: the key whose predicted distance is longest leaves first.

CECAR's eviction score: recency 1 / n (n: cycles begun since the last touch, at most MOST) and uses
as a share (in STEPSths) of the layer's most used key, through two networks 2-32-32-1 (SiLU, then
absolute), fitted to short and long distances; mixed evenly, less of the long below 24 slots a layer
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

MOST, STEPS = 511, 64


@policy("learned_cecar", source="CECAR", needs=["model"], remembers=True, compiled=True)
class LearnedCecar(NamedTuple):
    """The networks as a table, and what its rows and columns are made of."""

    scores: Scores
    table: FloatArray  # (MOST + 1, STEPS + 1) flat: what leaves first by n and share
    row: IntArray  # (MOST * layers + 1,) where the row of an age in events begins
    last: IntArray  # (keys,) clock of the last touch
    share: IntArray  # (keys,) column
    uses: IntArray  # (keys,)
    most: IntArray  # (layers,) uses of the most used key

    @classmethod
    def create(cls, world: World, *, model: ModelFile = "") -> "LearnedCecar":
        """Read the weights and compute the table."""
        w = load_weights(model, "learned_cecar", world)
        n, share = np.arange(MOST + 1).clip(1), np.arange(STEPS + 1) / STEPS
        x = np.stack(np.meshgrid(1 / n, share, indexing="ij"), axis=-1).reshape(-1, 2)
        slots = world.capacity.sum() / world.num_layers
        long = 0.5 * min(1.0, slots / 24)
        score = (1 - long) * forward(w, "short", x) + long * forward(w, "long", x)
        row = cycles_by_age(world.num_layers, MOST) * (STEPS + 1)
        last, column, uses = np.zeros((3, world.num_keys), np.int64)
        most = np.ones(world.num_layers, np.int64)
        return cls(Scores.of(world), -np.round(score, 6), row, last, column, uses, most)

    def on_event(self, event: Event) -> None:
        """Count the uses."""
        for i in range(event.start, event.stop):
            key = event.keys[i]
            self.uses[key] += 1
            self.last[key] = event.clock
            self.most[event.layer] = max(self.most[event.layer], self.uses[key])
        most, first = self.most[event.layer], event.layer * event.num_experts
        for key in range(first, first + event.num_experts):
            self.share[key] = (2 * STEPS * self.uses[key] + most) // (2 * most)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter as touched: a use has been counted, a prefetch is none."""
        self.last[key] = event.clock
        join(self.scores, pool, key)

    def rank(self, key: int, event: Event) -> float:
        """Look the score up."""
        age = min(event.clock - self.last[key], len(self.row) - 1)
        return self.table[self.row[age] + self.share[key]]


def forward(w: dict[str, FloatArray], name: str, x: FloatArray) -> FloatArray:
    """Run a network on rows of features (rows, 2)."""
    for i in range(3):
        x = x @ w[f"{name}.{i}.weight"].T + w[f"{name}.{i}.bias"]
        x = x / (1 + np.exp(-x)) if i < 2 else np.abs(x[:, 0])
    return x
