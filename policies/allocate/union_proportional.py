"""Union-proportional: a layer gets slots as it demands distinct experts in a step, on average.

Layers differ in how many experts the tokens of a batch or a prompt choose between them; where all
steps are of one token all demand as many, and the division is even.
"""

from __future__ import annotations

from specmd.policy import World, demanded, policy, share_slots


@policy(
    "union_proportional",
    axis="allocate",
    source="SpecMD policy catalogue, 5.7 A3",
    needs=["training"],
)
class UnionProportional:
    """Weighs a layer by the mean size of U."""

    @classmethod
    def create(cls) -> UnionProportional:
        """Build it."""
        return cls()

    def quotas(self, slots: int, world: World) -> list[int]:
        """Slots of each layer; they add up to `slots`."""
        return share_slots(slots, world, sum(used.sum(axis=1) for used in demanded(world)))
