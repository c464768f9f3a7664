"""Shallow: the first layer gets most slots, the last least, and between them it falls evenly.

The first layers are the worst predicted, so Fate keeps more of their experts (Z. Fang et al.,
"Fate: fast edge inference of mixture-of-experts models via cross-layer gate", arXiv:2502.12224).
"""

from __future__ import annotations

import numpy as np

from specmd.policy import Share, World, policy, share_slots


@policy("shallow", axis="allocate", source="Fate, arXiv:2502.12224")
class Shallow:
    """Weighs the layers by a straight line."""

    @classmethod
    def create(cls, *, slope: Share = 0.5) -> Shallow:
        """Build it; the first layer weighs 1 + slope, the last 1 - slope."""
        return cls(slope)

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def quotas(self, slots: int, world: World) -> list[int]:
        """Slots of each layer; they add up to `slots`."""
        weights = np.linspace(1 + self.slope, 1 - self.slope, world.num_layers)
        return share_slots(slots, world, weights)
