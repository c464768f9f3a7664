"""EMA: the experts of a coming layer that its late events used most, by a fading average.

The history predictor of policylang and colibri: per layer S = a U + (1 - a) S, with a = 0.3. In a
batch, U is the share of the step's tokens that chose the expert, so that every token has its part.
"""

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
    Share,
    Width,
    World,
    largest,
    policy,
    propose,
    tokens_of,
)


@policy(
    "ema", axis="prefetch", source="history (policylang, colibri)", compiled=True, ahead="depth"
)
class Ema(NamedTuple):
    """The fading average of every key, and how many each layer demanded last."""

    used: FloatArray  # (keys,)
    demanded: IntArray  # (layers,)
    left: FloatArray  # (experts,) scratch: those not proposed yet
    depth: int
    rate: float
    width: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, rate: Share = 0.3, width: Width = 0) -> Ema:
        """Propose `width` experts (0: as many as its last event had) of the next `depth` layers."""
        demanded = np.zeros(world.num_layers, np.int64)
        experts = np.zeros(world.num_experts)
        return cls(np.zeros(world.num_keys), demanded, experts, depth, rate, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Fold the event into the average of its layer; propose the largest of the next layers."""
        begin, end = tokens_of(event, outlook)
        first = event.layer * event.num_experts
        for key in range(first, first + event.num_experts):
            self.used[key] *= 1.0 - self.rate
        for i in range(event.start, event.stop):
            self.used[event.keys[i]] += self.rate * event.tokens[i] / (end - begin)
        self.demanded[event.layer] = event.stop - event.start
        for ahead in range(1, self.depth + 1):
            layer = (event.layer + ahead) % event.num_layers
            first = layer * event.num_experts
            for expert in range(event.num_experts):
                self.left[expert] = self.used[first + expert]
            for place in range(min(self.width or self.demanded[layer], event.num_experts)):
                expert = largest(self.left)
                if self.left[expert] <= 0.0:
                    break
                self.left[expert] = 0.0
                propose(proposals, first + expert, event.clock + ahead, -ahead - place / 65536.0)
