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
    EMPTY,
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
                if (
                    heavier
                    and rows.ids[other] != NO_EXPERT
                    and core.state[first + rows.ids[other]] == EMPTY
                ):
                    before += share(rows, other)
            least = min(least, before)
        return FETCH if least <= self.full else LOWBIT if least <= self.low else DROP
