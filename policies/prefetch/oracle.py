"""Oracle: the true demand of coming layers, worsened at will. The bound for predictors.

`recall` is the chance that a truly demanded key is proposed, `extra` the number of wrong keys
proposed with each layer.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from specmd.policy import (
    Count,
    Event,
    Outlook,
    Proposals,
    Share,
    World,
    below,
    fraction,
    mix,
    policy,
    propose,
)

Extra = Annotated[int, Field(ge=0)]


@policy("oracle", axis="prefetch", source="bound", needs=["future"], compiled=True, ahead="depth")
class Oracle(NamedTuple):
    """Draws depend on the seed, the clock of the predicted event and the key alone."""

    depth: int
    recall: float
    extra: int
    seed: int

    @classmethod
    def create(
        cls, world: World, *, depth: Count = 1, recall: Share = 1.0, extra: Extra = 0
    ) -> Oracle:
        """See `depth` layers ahead."""
        return cls(depth, recall, min(extra, world.num_experts), world.seed)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose what the next layers will demand, the nearer layer first."""
        for ahead in range(1, self.depth + 1):
            coming = outlook.index + ahead
            if coming + 1 >= len(outlook.start):
                break
            due = event.clock + ahead
            chance = mix(self.seed, due)
            start, stop = outlook.start[coming], outlook.start[coming + 1]
            for i in range(start, stop):
                key = outlook.keys[i]
                if self.recall >= 1.0 or fraction(chance, key) < self.recall:
                    propose(proposals, key, due, float(-ahead))
            first = (event.layer + ahead) % event.num_layers * event.num_experts
            for n in range(self.extra):
                wrong = below(event.num_experts, chance, 1_000_000 + n)
                for _ in range(event.num_experts):
                    demanded = False
                    for i in range(start, stop):
                        if outlook.keys[i] == first + wrong:
                            demanded = True
                    for i in range(proposals.count[1], proposals.count[0]):
                        if proposals.key[i] == first + wrong:
                            demanded = True
                    if not demanded:
                        propose(proposals, first + wrong, due, -ahead - 0.5)
                        break
                    wrong = (wrong + 1) % event.num_experts
