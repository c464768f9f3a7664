"""Cache-Prior: the logits of experts that are there are raised, by a share of their usual range.

"Cache-conditional experts" (A. Skliar et al., arXiv:2412.00099): z' = z + strength * D where the
expert is there, D the moving average (0.99) of max z - min z in the layer. The top `always` by z
stay; the rest of k are the best by z'. Weights are the model's rule on z. CECAR's MOCCE is this
with always=2, strength=0.2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Core,
    Event,
    FloatArray,
    Rows,
    Share,
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
    "cache_prior",
    axis="route",
    source="arXiv:2412.00099",
    needs=["logits", "weights"],
    compiled=True,
    lossy=True,
)
class CachePrior(NamedTuple):
    """The usual range of a layer's logits; -1 before its first event."""

    range: FloatArray  # (layers,)
    always: int
    strength: float

    @classmethod
    def create(cls, world: World, *, always: Width = 2, strength: Share = 0.2) -> CachePrior:
        """Keep the top `always`; raise what is there by `strength` of the range."""
        return cls(np.full(world.num_layers, -1.0), always, strength)

    def route(self, event: Event, rows: Rows, core: Core) -> None:
        """Choose by the raised logits; then fold this event's range in."""
        spread = 0.0
        for token in range(rows.tokens[0]):
            base = token * rows.experts
            top = bottom = rows.logits[base]
            for i in range(base, base + rows.experts):
                top, bottom = max(top, rows.logits[i]), min(bottom, rows.logits[i])
            spread += top - bottom
        spread /= max(1, rows.tokens[0])
        usual = self.range[event.layer] if self.range[event.layer] >= 0.0 else spread
        for token in range(rows.tokens[0]):
            rank_experts(rows, token)
            for expert in range(rows.experts):
                raised = self.strength * usual if is_there(core, event, expert) else 0.0
                rows.score[expert] = rows.logits[token * rows.experts + expert] + raised
            count = chosen(rows, token)
            for done in range(count):
                best = rows.order[done]
                if done >= self.always:
                    best = -1
                    for rank in range(rows.experts):
                        expert = rows.order[rank]
                        free = rows.score[expert] > -np.inf
                        if free and (best < 0 or rows.score[expert] > rows.score[best]):
                            best = expert
                rows.score[best] = -np.inf
                execute(rows, token, done, best)
            execute_only(rows, token, count)
        self.range[event.layer] = 0.99 * usual + 0.01 * spread
