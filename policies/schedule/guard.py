"""Guard: cancel, and a prefetch may not evict what a nearer unused prefetch brought."""

from __future__ import annotations

from specmd.policy import Schedule, policy


@policy("guard", axis="schedule", source="SpecMD evaluation contract, schedule S5")
class Guard:
    """Chooses the options of the link."""

    @classmethod
    def create(cls) -> Schedule:
        """Build it."""
        return Schedule(by_score=True, guard=True, cancel=True)
