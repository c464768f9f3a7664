"""Entropy: a layer gets slots as the entropy of its experts' use on a training trace.

A layer that uses few of its experts needs few slots. `effective=true` weighs it by 2 to its
entropy: as many experts, used alike, as would be as hard to foretell.
"""

from __future__ import annotations

import numpy as np

from specmd.policy import World, demanded, policy, share_slots


@policy("entropy", axis="allocate", source="SpecMD policy catalogue, 5.7 A3", needs=["training"])
class Entropy:
    """Weighs a layer by its entropy, in bits."""

    @classmethod
    def create(cls, *, effective: bool = False) -> Entropy:
        """Build it."""
        return cls(effective)

    def __init__(self, effective: bool) -> None:
        self.effective = effective

    def quotas(self, slots: int, world: World) -> list[int]:
        """Slots of each layer; they add up to `slots`."""
        uses = np.sum([used.astype(np.float64) for used in demanded(world)], axis=0)
        share = uses / np.maximum(uses.sum(axis=1, keepdims=True), 1)
        bits = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1)
        return share_slots(slots, world, 2**bits if self.effective else bits)
