"""Random: experts of the coming layer drawn without replacement. The control for predictors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Count,
    Event,
    FloatArray,
    Outlook,
    Proposals,
    Width,
    World,
    largest,
    mix,
    policy,
    propose,
)


@policy("random", axis="prefetch", source="control", compiled=True, ahead="depth")
class RandomPrefetch(NamedTuple):
    """Draws depend on the seed, the clock and the depth alone."""

    draw: FloatArray  # (experts,) scratch: the hashes, negated
    depth: int
    width: int
    seed: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0) -> RandomPrefetch:
        """Draw `width` experts (0: top-k) of each of the next `depth` layers."""
        width = min(width or world.top_k, world.num_experts)
        return cls(np.zeros(world.num_experts), depth, width, world.seed)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose the experts of the smallest hashes: a sample without replacement."""
        for ahead in range(1, self.depth + 1):
            layer = (event.layer + ahead) % event.num_layers
            for expert in range(event.num_experts):
                self.draw[expert] = -mix(self.seed * 64 + ahead, event.clock * 65536 + expert)
            for _ in range(self.width):
                expert = largest(self.draw)
                self.draw[expert] = -1e300
                key = layer * event.num_experts + expert
                propose(proposals, key, event.clock + ahead, float(-ahead))
