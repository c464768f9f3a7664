"""Activation matrix: do as the past sequence did whose expert counts are most like this one's.

L. Xue et al., "MoE-Infinity", arXiv:2401.14361. A sequence's matrix is how often it used each
expert; of past ones `cap` are kept, the nearest to a new one gives way. After layer l, that of the
highest mean cosine of rows 0..l says what comes: there all of it, here the best `width` a layer.
"""

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    SEATS,
    Collection,
    Count,
    Event,
    FloatArray,
    Outlook,
    Proposals,
    Seats,
    Width,
    World,
    add_cosines,
    count_choices,
    fill,
    leaves,
    make_collection,
    make_seats,
    most_like,
    policy,
    propose_votes,
    retire_by_layer,
    vote_worth,
)


@policy(
    "activation_matrix",
    axis="prefetch",
    source="arXiv:2401.14361",
    needs=["choices"],
    compiled=True,
    ahead="depth",
)
class Eam(NamedTuple):
    """Scratch, and the matrices of the sequences in flight and of those kept."""

    seats: Seats
    past: Collection
    votes: FloatArray  # (experts,)
    score: FloatArray  # (experts,)
    depth: int
    width: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0, cap: Count = 300) -> "Eam":
        """Propose `width` experts (0: top-k) of each of the next `depth` layers."""
        past = make_collection(world.num_layers, world.num_experts, cap, SEATS)
        votes, score = np.zeros((2, world.num_experts))
        width = min(width or world.top_k, len(votes))
        return cls(make_seats(), past, votes, score, depth, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Count the event, find the nearest past sequences, propose the experts they used most."""
        past = self.past
        count_choices(past, self.seats, event, outlook)
        for row in range(SEATS):
            if leaves(self.seats, row, event):
                retire_by_layer(past, row)
        for row in range(SEATS):
            if self.seats.seen[row] == event.step:
                add_cosines(past, row, event.layer)
        for ahead in range(1, min(self.depth, event.num_layers - 1 - event.layer) + 1):
            fill(self.votes, 0.0)
            for row in range(SEATS):
                if self.seats.seen[row] == event.step and past.held[0] > 0:
                    counts = past.kept[event.layer + ahead, :, most_like(past, row)]
                    vote_worth(self.votes, counts, self.width, 0.0, self.score)
            weight = 1.0 - ahead / (event.num_layers + 1.0)
            propose_votes(proposals, self.votes, event, ahead, weight, 0.0)
