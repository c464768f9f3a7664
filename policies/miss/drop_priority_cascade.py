"""Drop cascade: a token's misses by falling weight are fetched, then fetched small, then dropped.

SpecMD (arXiv:2602.03921) names it "drop priority cascade" and reports it to be inconsistent from
model to model; its exact rule is not public, so this reading is *inferred*: with s the weight of
the token's heavier misses, a miss is fetched whole while s is at most `full`, as a copy of few bits
while s is at most `low`, and dropped beyond. Where tokens differ, the one that wants most decides.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from specmd.policy import (
    DROP,
    FETCH,
    LOWBIT,
    Core,
    Event,
    Rows,
    Share,
    World,
    least_before,
    policy,
)


@policy(
    "drop_priority_cascade",
    axis="miss",
    source="SpecMD, arXiv:2602.03921",
    needs=["weights"],
    compiled=True,
    lossy=True,
    renormalises=True,
    bits="bits",
)
class DropCascade(NamedTuple):
    """Thresholds of the weight that goes before."""

    full: float
    low: float
    bits: int

    @classmethod
    def create(
        cls,
        world: World,
        *,
        full: Share = 0.6,
        low: Share = 0.9,
        bits: Literal[4, 8] = 4,
    ) -> DropCascade:
        """Fetch whole up to `full`, as `bits` bits up to `low`."""
        return cls(full, low, bits)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Ask each token; the largest wish counts."""
        expert = key - event.layer * event.num_experts
        least = least_before(rows, expert, core, event, 1)
        return FETCH if least <= self.full else LOWBIT if least <= self.low else DROP
