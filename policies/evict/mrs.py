"""MRS: the key of the least router weight of late leaves first ("minus recent score").

HybriMoE (S. Zhong et al., arXiv:2504.05897). At each event of a layer the `2 K` experts of the most
weight get `S = alpha * weight + (1 - alpha) * S`, the others of the layer `(1 - alpha) * S`; the
smallest S leaves. Rule, alpha = 0.5 and 12 = 2 K are those of `KScoreAwareCache` in its code
(github.com/PKU-SEC-Lab/HybriMoE at 508a85b, 2025-12-16), which looks at the first token only: here
weights are summed over the tokens. An event tells the weights of the executed experts, not of all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, FloatArray, Share, World, policy


@policy(
    "mrs",
    source="HybriMoE, arXiv:2504.05897",
    needs=["weights"],
    remembers=True,
    compiled=True,
)
class MRS(NamedTuple):
    """The score of each key."""

    score: FloatArray  # (keys,)
    alpha: float
    width: int

    @classmethod
    def create(cls, world: World, *, alpha: Share = 0.5) -> MRS:
        """Start with no score."""
        return cls(np.zeros(world.num_keys), alpha, 2 * world.top_k)

    def on_event(self, event: Event) -> None:
        """Fade the scores of the layer, and add to those of the most weight."""
        first = event.layer * event.num_experts
        for key in range(first, first + event.num_experts):
            self.score[key] *= 1.0 - self.alpha
        for i in range(event.start, event.stop):
            if event.stop - event.start <= self.width or heavier(event, i) < self.width:
                self.score[event.keys[i]] += self.alpha * event.gates[i]

    def rank(self, key: int, event: Event) -> float:
        """Rank by score."""
        return self.score[key]


def heavier(event: Event, i: int) -> int:
    """Count the keys of more weight than the i-th; of equals the smaller key has more."""
    count = 0
    for j in range(event.start, event.stop):
        more = event.gates[j] > event.gates[i]
        count += more or (event.gates[j] == event.gates[i] and j < i)
    return count
