"""Shuffled: what another prefetcher proposes, with the experts of each layer exchanged.

The control for predictors (mlx-lm#1588): as many keys of the same layers at the same time, and the
wrong ones. What a prefetcher gains over its shuffled self, it gains by prediction, and not by how
much it fetches. The exchange is drawn once from the seed. Write `;` for a comma of the other's own
parameters: `shuffled:of=next_gate:depth=2;width=4`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from specmd.policy import Event, KeyArray, Outlook, Proposals, World, ask, policy


@policy(
    "shuffled",
    axis="prefetch",
    source="control (mlx-lm#1588)",
    needs=["lookahead"],
    compiled=True,
    of="of",
)
class Shuffled(NamedTuple):
    """The other prefetcher, and for each key the one proposed in its place."""

    other: Any
    instead: KeyArray  # (keys,)

    @classmethod
    def create(cls, world: World, other: Any, *, of: str = "next_gate") -> Shuffled:
        """Exchange the experts within each layer that the prefetcher `of` proposes."""
        rng = np.random.default_rng(world.seed)
        orders = [rng.permutation(world.num_experts) for _ in range(world.num_layers)]
        base = np.arange(world.num_layers)[:, None] * world.num_experts
        return cls(other, (np.array(orders) + base).reshape(-1).astype(np.uint32))

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Let the other propose, and exchange the keys."""
        ask(self.other, event, outlook, proposals)
        for i in range(proposals.count[1], proposals.count[0]):
            proposals.key[i] = self.instead[proposals.key[i]]
