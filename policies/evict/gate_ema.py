"""Gate EMA: the key whose router weight was least on a moving average leaves first.

`S = rate * weight + (1 - rate) * S` at each event that chooses the key, rate = 0.3, after the
programs that cache experts by their gate scores; *inferred*: no paper states it. With `fade` the
other experts of the layer fade as well, as if they had been chosen with no weight: then it is `mrs`
of HybriMoE but for the top experts that one looks at. An event tells the weights of the executed
experts, summed over its tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, FloatArray, Share, World, policy


@policy(
    "gate_ema",
    source="moving average of gate scores, as in MoE-serving programs",
    needs=["weights"],
    remembers=True,
    compiled=True,
)
class GateEMA(NamedTuple):
    """The moving average of each key."""

    score: FloatArray  # (keys,)
    rate: float
    fade: int

    @classmethod
    def create(cls, world: World, *, rate: Share = 0.3, fade: bool = False) -> GateEMA:
        """Start with no weight."""
        return cls(np.zeros(world.num_keys), rate, int(fade))

    def on_event(self, event: Event) -> None:
        """Fade, and add the weights of this event."""
        first, kept = event.layer * event.num_experts, 1.0 - self.rate
        if self.fade:
            for key in range(first, first + event.num_experts):
                self.score[key] *= kept
        for i in range(event.start, event.stop):
            key = event.keys[i]
            before = self.score[key] if self.fade else kept * self.score[key]
            self.score[key] = before + self.rate * event.gates[i]

    def rank(self, key: int, event: Event) -> float:
        """Rank by the average."""
        return self.score[key]
