"""Expert map: do as the past iteration did whose router probabilities were most like this one's.

H. Yu et al., FineMoE, arXiv:2502.05370. A map is an iteration's router probabilities by layer. The
one whose layers 0..l have the highest cosine with those seen is followed: as many experts of a
coming layer as reach the probability 1 - cosine, k at least. Each request of a step is one;
of `cap` maps the likest gives way. The *semantic* phase compares embeddings, which no trace has.
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
    World,
    add_products,
    add_softmax,
    amend_all,
    fill,
    make_collection,
    most_like,
    policy,
    propose_votes,
    retire_whole,
    tokens_of,
    vote_until,
)


@policy(
    "expert_map",
    axis="prefetch",
    source="arXiv:2502.05370",
    needs=["logits", "choices"],
    compiled=True,
    ahead="depth",
)
class ExpertMap(NamedTuple):
    """The maps kept and those of the step's requests, and scratch for the experts of a layer."""

    past: Collection
    sums: FloatArray  # (experts,)
    chance: FloatArray  # (experts,)
    votes: FloatArray  # (experts,)
    depth: int
    top_k: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, cap: Count = 1000) -> "ExpertMap":
        """Propose the experts of each of the next `depth` layers that the nearest map has."""
        past = make_collection(world.num_layers, world.num_experts, cap, SEATS)
        sums, chance, votes = np.zeros((3, world.num_experts))
        return cls(past, sums, chance, votes, depth, world.top_k)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Fill the maps of the step's requests, and follow the nearest of each."""
        (begin, end), layer, past, maps = tokens_of(event, outlook), event.layer, self.past, 0
        for token in range(begin, end):
            add_softmax(self.sums, outlook.logits[token, layer], self.chance)
            if token + 1 == end or outlook.request[token + 1] != outlook.request[token]:
                amend_all(past, min(maps, SEATS - 1), layer, self.sums, 1.0 / (token + 1 - begin))
                maps, begin = maps + 1, token + 1
        for row in range(min(maps, SEATS)):
            add_products(past, row, layer)
        for ahead in range(1, min(self.depth, event.num_layers - 1 - layer) + 1):
            fill(self.votes, 0.0)
            for row in range(min(maps, SEATS) if past.held[0] > 0 else 0):
                near = most_like(past, row)
                likely, needed = past.kept[layer + ahead, :, near], 1.0 - past.like[row, near]
                vote_until(self.votes, likely, needed, self.top_k, event.num_experts, self.chance)
            weight = 1.0 - (ahead - 1.0) / event.num_layers
            propose_votes(proposals, self.votes, event, ahead, weight, 0.0)
        for row in range(min(maps, SEATS) if layer == event.num_layers - 1 else 0):
            retire_whole(past, row)
