"""MoE-Infinity as its program has it: least product of layer, sequence and frequency leaves first.

`priority_score` of github.com/EfficientMoE/MoE-Infinity (at d617801, 2026-03-03), which nothing
there calls. Three matrices over all keys, each divided by its sum, plus 1e-6: by layer (`depths`;
half of the layers is an encoder's), shares of a layer's tokens in this sequence (1 / E of none; it
begins at the first prefill after a decode), hits since entry (1 for a half of the layers of none).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, FloatArray, IntArray, Scores, World, forget, part, policy

LITTLE = 1e-6


@policy("moe_infinity_code", source="Xue et al., arXiv:2401.14361", remembers=True, compiled=True)
class MoEInfinityCode(NamedTuple):
    """Tokens of the present sequence; hits of each resident, and of both halves of the layers."""

    scores: Scores
    tokens: FloatArray  # (keys + layers,) of each key, then of each layer
    share: FloatArray  # (keys,) factor of the sequence
    depth: FloatArray  # (layers * layers,) factor of a layer in the event of another
    factor: FloatArray  # (keys,) both, as of this event
    phase: IntArray  # [of the last event]
    uses: FloatArray  # (keys,) since entry
    total: FloatArray  # [of the first half, of the second half]

    @classmethod
    def create(cls, world: World) -> MoEInfinityCode:
        """Start with no sequence."""
        keys, layers, experts = world.num_keys, world.num_layers, world.num_experts
        tokens, uses, total = np.zeros(keys + layers), np.zeros(keys), np.zeros(2)
        share, phase = np.full(keys, 1 / experts / layers + LITTLE), np.zeros(1, np.int64)
        depth, scores = depths(layers, experts), Scores.of(world)
        return cls(scores, tokens, share, depth, share.copy(), phase, uses, total)

    def on_event(self, event: Event) -> None:
        """Count tokens, from zero where a sequence begins, and share them out."""
        experts, layers, row = event.num_experts, event.num_layers, len(self.uses) + event.layer
        if event.phase < self.phase[0]:
            for i in range(len(self.tokens)):
                self.tokens[i] = 0.0
            for key in range(len(self.share)):
                self.share[key] = 1.0 / experts / layers + LITTLE
        self.phase[0] = event.phase
        for i in range(event.start, event.stop):
            self.tokens[event.keys[i]] += event.tokens[i]
            self.tokens[row] += event.tokens[i]
        total = max(self.tokens[row], 1.0) * layers
        for key in range(event.layer * experts, (event.layer + 1) * experts):
            self.share[key] = self.tokens[key] / total + LITTLE
        for layer in range(layers):
            depth = self.depth[event.layer * layers + layer]
            for key in range(layer * experts, (layer + 1) * experts):
                self.factor[key] = depth * self.share[key]

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count the use."""
        self.uses[key] += 1.0
        self.total[half_of(key, event)] += 1.0

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Forget the uses; those of the others count for more then, but where none are left."""
        half = half_of(key, event)
        self.total[half] -= self.uses[key]
        if self.uses[key] > 0.0 and self.total[half] == 0.0:
            for each in range(len(self.scores.ranked)):
                forget(self.scores, each)
        self.uses[key] = 0.0
        part(self, key, pool, event)

    def rank(self, key: int, event: Event) -> float:
        """Rank by the product."""
        first = event.num_layers // 2 * event.num_experts
        total = (self.total[0] or first) + (self.total[1] or len(self.uses) - first)
        uses = self.uses[key] if self.total[half_of(key, event)] > 0.0 else 1.0
        return self.factor[key] * (uses / total + LITTLE)


def half_of(key: int, event: Event) -> int:
    """Tell the half of the layers that a key is of."""
    return 1 if key >= event.num_layers // 2 * event.num_experts else 0


def depths(layers: int, experts: int) -> FloatArray:
    """Compute the factor by layer: 1 for those run of the present half, rising in the second."""
    half, now, layer = layers // 2, np.arange(layers)[:, None], np.arange(layers)
    fading = np.where(layer < half, 1 - layer / max(half, 1), (layer - half) / (half + 1))
    factor = np.where((layer <= now) & ((layer < half) == (now < half)), 1.0, fading)
    return (factor / factor.sum(axis=1, keepdims=True) / experts + LITTLE).reshape(-1)
