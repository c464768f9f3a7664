"""Hottest: a layer gets as many slots as it has among the experts used most of all.

Where the most used experts of a training trace are placed whatever their layer, as Fiddler does (K.
Kamahori et al., arXiv:2402.07033, section 3.3), this is how many each layer has of them; within its
quota a layer may then change its mind. Of equally used ones the lower layer counts first.
"""

from __future__ import annotations

import numpy as np

from specmd.policy import World, demanded, give_slots, policy


@policy("hottest", axis="allocate", source="Fiddler, arXiv:2402.07033", needs=["training"])
class Hottest:
    """Takes the hottest first."""

    @classmethod
    def create(cls) -> Hottest:
        """Build it."""
        return cls()

    def quotas(self, slots: int, world: World) -> list[int]:
        """Slots of each layer; they add up to `slots`."""
        uses = sum(used.astype(np.float64) for used in demanded(world))
        falling = np.pad(-np.sort(-uses, axis=1), ((0, 0), (0, 1)))
        layers = np.arange(world.num_layers)
        return give_slots(slots, world, lambda found: falling[layers, found])
