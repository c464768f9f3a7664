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
    NO_EXPERT,
    Core,
    Event,
    Rows,
    Share,
    World,
    needs_it,
    pairs,
    policy,
    share,
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
        first = event.layer * event.num_experts
        least = 2.0
        for pair in range(pairs(rows)):
            if not needs_it(rows, pair, key - first):
                continue
            before = 0.0
            begin = pair // rows.top_k * rows.top_k
            for other in range(begin, begin + rows.top_k):
                mine, its = rows.weights[pair], rows.weights[other]
                heavier = its > mine or (its == mine and other < pair)
                if heavier and rows.ids[other] != NO_EXPERT:
                    before += share(rows, other)
            least = min(least, before)
        return FETCH if least <= self.full else LOWBIT if least <= self.low else DROP
