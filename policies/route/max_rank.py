"""Max-Rank: an expert that is there is preferred, as long as the router ranks it high enough.

"Cache-conditional experts" (A. Skliar et al., arXiv:2412.00099): the top `always` experts stay;
then those that are there among the first `ranks`; then the rest; each by rank. The first k are
executed.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import (
    Core,
    Count,
    Event,
    Rows,
    Width,
    World,
    chosen,
    execute,
    execute_only,
    is_there,
    policy,
    rank_experts,
)


@policy(
    "max_rank",
    axis="route",
    source="arXiv:2412.00099",
    needs=["logits", "weights"],
    compiled=True,
    lossy=True,
)
class MaxRank(NamedTuple):
    """How many experts stay, and down to which rank one is preferred."""

    always: int
    ranks: int

    @classmethod
    def create(cls, world: World, *, always: Count = 1, ranks: Width = 0) -> MaxRank:
        """Prefer what is there among the first `ranks` (0: 1.5 times top-k)."""
        return cls(always, ranks or -(-3 * world.top_k // 2))

    def route(self, event: Event, rows: Rows, core: Core) -> None:
        """Take the top, then what is there, then the rest."""
        for token in range(rows.tokens[0]):
            rank_experts(rows, token)
            count, done = chosen(rows, token), 0
            for stage in range(3):
                for rank in range(rows.experts):
                    expert = rows.order[rank]
                    near = rank < self.ranks and is_there(core, event, expert)
                    preferred = 0 if rank < self.always else 1 if near else 2
                    if preferred == stage and done < count:
                        execute(rows, token, done, expert)
                        done += 1
            execute_only(rows, token, done)
