"""CECAR: what is there is raised the more, the sooner it will be used; the tail needs to be there.

CECAR's rule, as the project's design notes give it: with D = z_top - z_(k), an expert that is there
gets z' = z + D (1 - s / s_max), s its predicted reuse distance. By z', the first `keep` experts are
executed in any case, later ones only if they are there: k may shrink. Weights are those of the
softmax over all. CECAR predicts s by a network; here it is the time since the last use (*inferred*:
the prediction that LRU makes).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Core,
    Event,
    IntArray,
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
    "cecar", axis="route", source="CECAR", needs=["logits", "weights"], compiled=True, lossy=True
)
class CECAR(NamedTuple):
    """When each expert was chosen last."""

    last: IntArray  # (keys,) clock
    keep: int

    @classmethod
    def create(cls, world: World, *, keep: Width = 0) -> CECAR:
        """Execute `keep` experts in any case (0: half of top-k)."""
        return cls(np.zeros(world.num_keys, np.int64), keep or -(-world.top_k // 2))

    def route(self, event: Event, rows: Rows, core: Core) -> None:
        """Choose by the raised logits."""
        first, oldest = event.layer * rows.experts, 1
        for expert in range(rows.experts):
            if is_there(core, event, expert):
                oldest = max(oldest, event.clock - self.last[first + expert])
        for token in range(rows.tokens[0]):
            rank_experts(rows, token)
            base, count, done = token * rows.experts, chosen(rows, token), 0
            if count == 0:
                continue
            reach = rows.logits[base + rows.order[0]] - rows.logits[base + rows.order[count - 1]]
            for expert in range(rows.experts):
                age = event.clock - self.last[first + expert]
                raised = reach * (1.0 - age / oldest) if is_there(core, event, expert) else 0.0
                rows.score[expert] = rows.logits[base + expert] + raised
            for place in range(count):
                best = 0
                for expert in range(rows.experts):
                    if rows.score[expert] > rows.score[best]:
                        best = expert
                rows.score[best] = -np.inf
                if place < self.keep or is_there(core, event, best):
                    execute(rows, token, done, best)
                    done += 1
            execute_only(rows, token, done)
        for i in range(event.start, event.stop):
            self.last[event.keys[i]] = event.clock
