"""Uniform: every layer gets the same number of slots; what is left over goes to the low layers."""

from __future__ import annotations

from specmd.policy import World, policy


@policy("uniform", axis="allocate", source="baseline")
class Uniform:
    """Divides evenly."""

    @classmethod
    def create(cls) -> Uniform:
        """Build it."""
        return cls()

    def quotas(self, slots: int, world: World) -> list[int]:
        """Slots of each layer; they add up to `slots`."""
        each, over = divmod(slots, world.num_layers)
        return [each + (layer < over) for layer in range(world.num_layers)]
