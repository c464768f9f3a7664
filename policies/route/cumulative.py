"""Cumulative: of the likeliest experts that together reach a probability, those that are there.

"Cache-conditional experts" (A. Skliar et al., arXiv:2412.00099), the variant by cumulative sum: S
is the smallest set of best-ranked experts whose probabilities add up to `mass`; those of S that are
there come first, then the rest by rank. The first k are executed.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import (
    Core,
    Event,
    Rows,
    Share,
    World,
    chosen,
    execute,
    execute_only,
    is_there,
    policy,
    rank_experts,
    read_chances,
)


@policy(
    "cumulative",
    axis="route",
    source="arXiv:2412.00099",
    needs=["logits", "weights"],
    compiled=True,
    lossy=True,
)
class Cumulative(NamedTuple):
    """The probability that S reaches."""

    mass: float

    @classmethod
    def create(cls, world: World, *, mass: Share = 0.8) -> Cumulative:
        """Prefer what is there among the likeliest that reach `mass`."""
        return cls(mass)

    def route(self, event: Event, rows: Rows, core: Core) -> None:
        """Take what is there of S, then the rest."""
        for token in range(rows.tokens[0]):
            rank_experts(rows, token)
            read_chances(rows, token)
            reached, size = 0.0, 0
            while size < rows.experts and reached < self.mass:
                reached += rows.chance[rows.order[size]]
                size += 1
            count, done = chosen(rows, token), 0
            for stage in range(2):
                for rank in range(rows.experts):
                    expert = rows.order[rank]
                    preferred = 0 if rank < size and is_there(core, event, expert) else 1
                    if preferred == stage and done < count:
                        execute(rows, token, done, expert)
                        done += 1
            execute_only(rows, token, done)
