"""Random: experts of the coming layer drawn without replacement. The control for predictors."""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import Count, Event, Outlook, Proposals, Width, World, mix, policy, propose


@policy("random", axis="prefetch", source="control", compiled=True, ahead="depth")
class RandomPrefetch(NamedTuple):
    """Draws depend on the seed, the clock and the depth alone."""

    depth: int
    width: int
    seed: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0) -> RandomPrefetch:
        """Draw `width` experts (0: top-k) of each of the next `depth` layers."""
        return cls(depth, min(width or world.top_k, world.num_experts), world.seed)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose the experts of the smallest hashes: a sample without replacement."""
        for ahead in range(1, self.depth + 1):
            layer = (event.layer + ahead) % event.num_layers
            for expert in range(event.num_experts):
                mine = mix(self.seed * 64 + ahead, event.clock * 65536 + expert)
                smaller = 0
                for other in range(event.num_experts):
                    its = mix(self.seed * 64 + ahead, event.clock * 65536 + other)
                    if its < mine or (its == mine and other < expert):
                        smaller += 1
                if smaller < self.width:
                    key = layer * event.num_experts + expert
                    propose(proposals, key, event.clock + ahead, float(-ahead))
