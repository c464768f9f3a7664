"""HOBBIT: the less the experts before a missing one leave to it, the fewer bits it comes with.

P. Tang et al., "HOBBIT: a mixed precision expert offloading system", arXiv:2411.01433, section on
token-level loading: with s the weight of the experts that a token ranks above the missing one, it
is fetched whole while s is at most `full`, as a copy of few bits while s is at most `low`, and left
out beyond. Where tokens differ, the one that wants most decides. The thresholds are *inferred*.
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
    "hobbit",
    axis="miss",
    source="HOBBIT, arXiv:2411.01433",
    needs=["weights"],
    compiled=True,
    lossy=True,
    renormalises=True,
    bits="bits",
)
class HobbitBits(NamedTuple):
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
    ) -> HobbitBits:
        """Fetch whole up to `full`, as `bits` bits up to `low`."""
        return cls(full, low, bits)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Ask each token; the largest wish counts."""
        expert = key - event.layer * event.num_experts
        least = least_before(rows, expert, core, event, 0)
        return FETCH if least <= self.full else LOWBIT if least <= self.low else DROP
