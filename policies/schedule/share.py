"""Share: prefetches take no more than a share of the link's time; else as guard.

After each prefetch, or the part of one that moved before a demand interrupted it, the link is left
to demands for as long as the share asks for (colibri issue 333: half of the link).
"""

from __future__ import annotations

from specmd.policy import Schedule, policy


@policy("share", axis="schedule", source="colibri issue 333", simulated_only=True)
class Share:
    """Chooses the options of the link."""

    @classmethod
    def create(cls, *, share: float = 0.5, guard: bool = True) -> Schedule:
        """Build it; `share` is above 0, and 1 leaves the link to whoever comes."""
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}: give more than 0, and at most 1")
        return Schedule(by_score=True, guard=guard, cancel=True, share=share)
