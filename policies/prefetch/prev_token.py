"""Previous token: a coming layer will want what it wanted the last time it ran."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Count,
    Event,
    FloatArray,
    IntArray,
    Outlook,
    Proposals,
    Width,
    World,
    policy,
    propose,
)


@policy(
    "prev_token",
    axis="prefetch",
    source="baseline of most published predictors",
    needs=["weights"],
    compiled=True,
    ahead="depth",
)
class PrevToken(NamedTuple):
    """The keys each layer used last, with their weight."""

    used: IntArray  # (keys,) clock of the last use
    ran: IntArray  # (layers,) clock at which the layer ran last
    weight: FloatArray  # (keys,) summed gate of the last use
    depth: int
    width: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0) -> PrevToken:
        """Propose for the next `depth` layers, at most `width` keys each (0: all)."""
        keys = world.num_keys
        used, ran = np.zeros(keys, np.int64), np.zeros(world.num_layers, np.int64)
        return cls(used, ran, np.zeros(keys), depth, width or world.num_experts)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Remember U; propose what the next layers used last, best weight first."""
        self.ran[event.layer] = event.clock
        for i in range(event.start, event.stop):
            self.used[event.keys[i]] = event.clock
            self.weight[event.keys[i]] = event.gates[i]
        for ahead in range(1, self.depth + 1):
            layer = (event.layer + ahead) % event.num_layers
            first = layer * event.num_experts
            if self.ran[layer] == 0:
                continue
            for key in range(first, first + event.num_experts):
                if self.used[key] == self.ran[layer]:
                    better = 0
                    for other in range(first, first + event.num_experts):
                        if self.used[other] == self.ran[layer] and (
                            self.weight[other] > self.weight[key]
                            or (self.weight[other] == self.weight[key] and other < key)
                        ):
                            better += 1
                    if better < self.width:
                        propose(proposals, key, event.clock + ahead, -ahead - better / 65536.0)
