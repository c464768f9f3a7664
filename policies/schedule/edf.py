"""EDF: earliest deadline first, and what would arrive too late is not fetched ahead at all.

C. L. Liu, J. W. Layland, JACM 20(1), 1973, with S3 of SpecMD's catalogue: dropped where the
expected arrival is past the deadline. Both are expected on a clock, from how long events took of
late and what the link has to carry first; without a clock nothing is late.
"""

from __future__ import annotations

from specmd.policy import Schedule, policy


@policy("edf", axis="schedule", source="Liu and Layland, JACM 20(1), 1973", simulated_only=True)
class EDF:
    """Chooses the options of the link."""

    @classmethod
    def create(cls, *, guard: bool = True) -> Schedule:
        """Build it; without `guard` a prefetch may evict a nearer one."""
        return Schedule(by_score=True, guard=guard, cancel=True, by_deadline=True, drop_late=True)
