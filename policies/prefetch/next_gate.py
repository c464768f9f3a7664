"""Next gate: apply the gate of a coming layer to the present layer's gate input.

A. Eliseev and D. Mazur, "Fast inference of mixture-of-experts language models with offloading",
arXiv:2312.17238. The residual stream changes little from layer to layer, so the guess is good. In
a batch, every token votes for its best `width` experts by rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Count,
    Event,
    FloatArray,
    Outlook,
    Proposals,
    Width,
    World,
    policy,
    propose,
)


@policy(
    "next_gate",
    axis="prefetch",
    source="arXiv:2312.17238",
    needs=["lookahead"],
    compiled=True,
    ahead="depth",
)
class NextGate(NamedTuple):
    """Scratch for the scores of one layer."""

    score: FloatArray  # (experts,)
    depth: int
    width: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0) -> NextGate:
        """Propose each token's best `width` experts (0: top-k) of each of the next layers."""
        width = min(width or world.top_k, world.num_experts)
        return cls(np.zeros(world.num_experts), depth, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose the experts that the scores put in some token's top `width`."""
        step = event.step - outlook.first_step
        tokens = range(outlook.token_start[step], outlook.token_start[step + 1])
        for ahead in range(1, min(self.depth, event.num_layers - 1 - event.layer) + 1):
            for expert in range(event.num_experts):
                self.score[expert] = 0.0
            for token in tokens:
                for expert in range(event.num_experts):
                    mine = float(outlook.lookahead[token, event.layer, ahead - 1, expert])
                    better = 0
                    below = -1e30
                    for other in range(event.num_experts):
                        its = float(outlook.lookahead[token, event.layer, ahead - 1, other])
                        if its > mine or (its == mine and other < expert):
                            better += 1
                        elif other != expert and its > below:
                            below = its
                    if better < self.width:
                        # Votes by rank decide; the margin to the next lower logit breaks ties.
                        self.score[expert] += self.width - better + min(mine - below, 1e5) / 1e6
            first = (event.layer + ahead) * event.num_experts
            for expert in range(event.num_experts):
                if self.score[expert] > 0.0:
                    score = self.score[expert] / (len(tokens) * (self.width + 1.0)) - ahead
                    propose(proposals, first + expert, event.clock + ahead, score)
