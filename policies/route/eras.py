"""ERAS: what is there gets a bonus in probability, or what is not a handicap in logits.

ERAS, as the project's design notes describe it: `rule=threshold` takes the top-k by softmax plus
`bonus` where the expert is there; `rule=bias` lowers the logit of an expert that is not there by
1 - f, f being the share of the layer's visits that used it. Weights are those of the true softmax.
The constants are *inferred*.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from specmd.policy import (
    Core,
    Event,
    FloatArray,
    Rows,
    World,
    chosen,
    execute,
    execute_only,
    is_there,
    policy,
    read_chances,
)

Bonus = Annotated[float, Field(ge=0)]


@policy("eras", axis="route", source="ERAS", needs=["logits", "weights"], compiled=True, lossy=True)
class ERAS(NamedTuple):
    """How often a layer ran, and used each expert."""

    uses: FloatArray  # (keys,)
    visits: FloatArray  # (layers,)
    bonus: float
    biases: bool

    @classmethod
    def create(
        cls, world: World, *, bonus: Bonus = 0.05, rule: Literal["threshold", "bias"] = "threshold"
    ) -> ERAS:
        """Prefer what is there by `bonus`."""
        uses, visits = np.zeros(world.num_keys), np.zeros(world.num_layers)
        return cls(uses, visits, bonus, rule == "bias")

    def route(self, event: Event, rows: Rows, core: Core) -> None:
        """Choose by the changed scores; then count what was chosen in truth."""
        first = event.layer * rows.experts
        for token in range(rows.tokens[0]):
            read_chances(rows, token)
            for expert in range(rows.experts):
                there = is_there(core, event, expert)
                if self.biases:
                    often = self.uses[first + expert] / max(1.0, self.visits[event.layer])
                    lowered = 0.0 if there else often - 1.0
                    rows.score[expert] = rows.logits[token * rows.experts + expert] + lowered
                else:
                    raised = self.bonus if there else 0.0
                    rows.score[expert] = rows.chance[expert] + raised
            count = chosen(rows, token)
            for done in range(count):
                best = 0
                for expert in range(rows.experts):
                    if rows.score[expert] > rows.score[best]:
                        best = expert
                rows.score[best] = -np.inf
                execute(rows, token, done, best)
            execute_only(rows, token, count)
        self.visits[event.layer] += 1.0
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1.0
