"""MoE-Infinity: the key that this sequence used least, early layers being kept, leaves first.

L. Xue et al., arXiv:2401.14361, on its expert cache: least `(r + epsilon) * (1 - layer / L)`, with
r the share of the layer's tokens that the expert had so far in this sequence (the activation matrix
of the sequence): later layers can be prefetched in time, so they leave first. The formula is
*inferred* from the paper's description; what its program has is `moe_infinity_code`. A sequence
begins at the first prefill after a decode step: where several run at once, they are one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, FloatArray, IntArray, Scores, World, policy

EPSILON = 1e-6


@policy("moe_infinity", source="Xue et al., arXiv:2401.14361", remembers=True, compiled=True)
class MoEInfinity(NamedTuple):
    """The activation matrix of the present sequence."""

    scores: Scores
    tokens: FloatArray  # (keys + layers,) of each key, then of each layer
    phase: IntArray  # [of the last event]
    layer: IntArray  # (keys,) where each key's layer is in `tokens`
    keep: FloatArray  # (keys,) 1 - layer / L

    @classmethod
    def create(cls, world: World) -> MoEInfinity:
        """Start with no sequence."""
        layer = np.arange(world.num_keys) // world.num_experts
        tokens, phase = np.zeros(world.num_keys + world.num_layers), np.zeros(1, np.int64)
        keep = 1.0 - layer / world.num_layers
        return cls(Scores.of(world), tokens, phase, world.num_keys + layer, keep)

    def on_event(self, event: Event) -> None:
        """Count tokens, from zero where a sequence begins."""
        if event.phase < self.phase[0]:
            for i in range(len(self.tokens)):
                self.tokens[i] = 0.0
        self.phase[0] = event.phase
        for i in range(event.start, event.stop):
            self.tokens[event.keys[i]] += event.tokens[i]
            self.tokens[self.layer[event.keys[i]]] += event.tokens[i]

    def rank(self, key: int, event: Event) -> float:
        """Rank by share and layer."""
        share = self.tokens[key] / max(self.tokens[self.layer[key]], 1.0)
        return (share + EPSILON) * self.keep[key]
