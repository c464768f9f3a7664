"""Static top: the experts of the coming layer most used in a *training* trace."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Count, Event, KeyArray, Outlook, Proposals, Width, World, policy, propose


@policy(
    "static_top",
    axis="prefetch",
    source="baseline (BigMoeOnEdge)",
    needs=["training"],
    compiled=True,
    ahead="depth",
)
class StaticTop(NamedTuple):
    """Per layer its keys by falling popularity."""

    best: KeyArray  # (layers * width,)
    depth: int
    width: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0) -> StaticTop:
        """Propose `width` experts (0: top-k) of each of the next `depth` layers."""
        width = min(width or world.top_k, world.num_experts)
        table = world.popularity.reshape(world.num_layers, world.num_experts)
        order = np.argsort(-table, axis=1, kind="stable")[:, :width]
        base = np.arange(world.num_layers)[:, None] * world.num_experts
        return cls((order + base).reshape(-1).astype(np.uint32), depth, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose the most popular keys, the nearer layer first."""
        for ahead in range(1, self.depth + 1):
            layer = (event.layer + ahead) % event.num_layers
            for i in range(self.width):
                key = self.best[layer * self.width + i]
                propose(proposals, key, event.clock + ahead, -ahead - i / 65536.0)
