"""MoE-Infinity as its program has it: least product of layer, sequence and frequency leaves first.

`priority_score` of github.com/EfficientMoE/MoE-Infinity (at d617801, 2026-03-03), which nothing
there calls. Three matrices over all keys, each divided by its sum, plus 1e-6: by layer (`depths`;
half of the layers is an encoder's), shares of a layer's tokens in this sequence (1 / E of none; it
begins at the first prefill after a decode), hits since entry (1 for a half of the layers of none).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, FloatArray, IntArray, World, policy

LITTLE = 1e-6


@policy("moe_infinity_code", source="Xue et al., arXiv:2401.14361", remembers=True, compiled=True)
class MoEInfinityCode(NamedTuple):
    """Tokens of the present sequence; hits of each resident, and of both halves of the layers."""

    tokens: FloatArray  # (keys + layers,) of each key, then of each layer
    share: FloatArray  # (keys + layers,) factor of the sequence; the last are not used
    phase: IntArray  # [of the last event]
    uses: FloatArray  # (keys + 2,) since entry of each key, then of all of each half
    layer: IntArray  # (keys,)
    half: IntArray  # (keys,) where its half is in `uses`
    depth: FloatArray  # (layers * layers,) factor of a layer in the event of another

    @classmethod
    def create(cls, world: World) -> MoEInfinityCode:
        """Start with no sequence."""
        keys, layers, experts = world.num_keys, world.num_layers, world.num_experts
        layer = np.arange(keys) // experts
        tokens, uses, phase = np.zeros(keys + layers), np.zeros(keys + 2), np.zeros(1, np.int64)
        half, share = keys + (layer >= layers // 2), tokens + (1 / experts / layers + LITTLE)
        return cls(tokens, share, phase, uses, layer, half, depths(layers, experts))

    def on_event(self, event: Event) -> None:
        """Count tokens, from zero where a sequence begins, and share them out."""
        first, row = event.layer * event.num_experts, len(self.half) + event.layer
        if event.phase < self.phase[0]:
            for i in range(len(self.tokens)):
                self.tokens[i] = 0.0
                self.share[i] = 1.0 / event.num_experts / event.num_layers + LITTLE
        self.phase[0] = event.phase
        for i in range(event.start, event.stop):
            self.tokens[event.keys[i]] += event.tokens[i]
            self.tokens[row] += event.tokens[i]
        total = max(self.tokens[row], 1.0) * event.num_layers
        for key in range(first, first + event.num_experts):
            self.share[key] = self.tokens[key] / total + LITTLE

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count the use."""
        self.uses[key] += 1.0
        self.uses[self.half[key]] += 1.0

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Forget the uses."""
        self.uses[self.half[key]] -= self.uses[key]
        self.uses[key] = 0.0

    def rank(self, key: int, event: Event) -> float:
        """Rank by the product."""
        keys, half = len(self.half), event.num_layers // 2 * event.num_experts
        total = (self.uses[keys] or half) + (self.uses[keys + 1] or keys - half)
        uses = self.uses[key] if self.uses[self.half[key]] > 0.0 else 1.0
        place = event.layer * event.num_layers + self.layer[key]
        return self.depth[place] * self.share[key] * (uses / total + LITTLE)


def depths(layers: int, experts: int) -> FloatArray:
    """Compute the factor by layer: 1 for those run of the present half, rising in the second."""
    half, now, layer = layers // 2, np.arange(layers)[:, None], np.arange(layers)
    fading = np.where(layer < half, 1 - layer / max(half, 1), (layer - half) / (half + 1))
    factor = np.where((layer <= now) & ((layer < half) == (now < half)), 1.0, fading)
    return (factor / factor.sum(axis=1, keepdims=True) / experts + LITTLE).reshape(-1)
