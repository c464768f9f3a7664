"""Co-activation: what tokens that chose this layer's experts went on to choose in a coming layer.

A Markov chain over layers, as in policylang, mlx-flash and btx: A[i, j] counts the tokens that
chose i here and j there, and a token's score of j is the sum over its experts i of A[i, j] over the
sum of its row. The counts are made online, from the tokens seen so far; every token votes.
"""

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Count,
    Event,
    FloatArray,
    Outlook,
    Proposals,
    Share,
    Width,
    World,
    fill,
    policy,
    propose_votes,
    tokens_of,
    vote_worth,
)


@policy(
    "co_activation",
    axis="prefetch",
    source="Markov (policylang, mlx-flash, btx)",
    needs=["choices"],
    compiled=True,
    ahead="depth",
)
class Pairs(NamedTuple):
    """Counts of pairs by distance and layer, and of the rows of pairs."""

    pairs: FloatArray  # (depth, layers, experts here, experts there)
    row: FloatArray  # (depth, layers, experts)
    score: FloatArray  # (experts,) of a token
    votes: FloatArray  # (experts,)
    depth: int
    threshold: float
    width: int

    @classmethod
    def create(
        cls, world: World, *, depth: Count = 1, threshold: Share = 0.0, width: Width = 0
    ) -> "Pairs":
        """Propose each token's best `width` (0: top-k) of score `threshold` or more."""
        experts = world.num_experts
        pairs = np.zeros((depth, world.num_layers, experts, experts))
        row, (score, votes) = pairs[..., 0].copy(), np.zeros((2, experts))
        width = min(width or world.top_k, experts)
        return cls(pairs, row, score, votes, depth, threshold, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Count what the earlier layers led to, and propose what this layer leads to."""
        (begin, end), layer = tokens_of(event, outlook), event.layer
        for far in range(self.depth):
            earlier = layer - far - 1
            fill(self.votes, 0.0)
            for token in range(begin, end):
                fill(self.score, 0.0)
                for here in outlook.ids[token, layer]:
                    for before in outlook.ids[token, max(earlier, 0)]:
                        if earlier >= 0 and here >= 0 and before >= 0:
                            self.pairs[far, earlier, before, here] += 1.0
                            self.row[far, earlier, before] += 1.0
                    if here >= 0 and self.row[far, layer, here] > 0.0:
                        row, pairs = self.row[far, layer, here], self.pairs[far, layer, here]
                        for there in range(event.num_experts):
                            self.score[there] += pairs[there] / row
                vote_worth(self.votes, self.score, self.width, self.threshold, self.score)
            scale = 1.0 / ((end - begin) * event.num_experts)
            propose_votes(proposals, self.votes, event, far + 1, scale, -far - 1.0)
