"""Static: a hot set chosen on a *training* trace is resident from the start and for ever.

Misses pass it by, prefetches find no slot. Hot are, of equals the smaller key: `global_freq`, the
most used (Fiddler, arXiv:2402.07033); `layer_quota`, as many of each layer; `rank_weighted`, a use
counting K for a token's first expert, 1 for its K-th (by weight; by order without); `coverage`, the
key of most (token, layer) rows not covered so far, all afresh when none is left (*inferred*).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from specmd.policy import NOBODY, Core, Event, FloatArray, KeyArray, World, policy

Choice = Literal["global_freq", "layer_quota", "rank_weighted", "coverage"]


@policy(
    "static", source="Fiddler, arXiv:2402.07033", needs=["training"], frozen=True, compiled=True
)
class Static(NamedTuple):
    """The hot set."""

    kept: KeyArray  # (slots,)

    @classmethod
    def create(cls, world: World, *, choice: Choice = "global_freq") -> Static:
        """Choose the hottest keys of each pool, or of each layer."""
        room, group = world.capacity, world.pool
        if choice == "layer_quota":
            of_layer = world.pool[:: world.num_experts]
            layers, group = np.bincount(of_layer), np.arange(world.num_keys) // world.num_experts
            turn = np.array([np.sum(of_layer[:i] == p) for i, p in enumerate(of_layer)])
            room = room[of_layer] // layers[of_layer] + (turn < (room % layers)[of_layer])
        fits = {"rank_weighted": weighted, "coverage": covering}
        heat = fits[choice](world) if choice in fits else world.popularity
        order = np.argsort(-heat, kind="stable").astype(np.uint32)
        return cls(np.concatenate([order[group[order] == g][:n] for g, n in enumerate(room)]))

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Let nothing leave."""
        return NOBODY


def rows(world: World) -> KeyArray:
    """Return each token's keys by weight, (tokens, layers, top_k); num_keys where there is none."""
    assert world.training is not None  # it is needed
    ids, weights = world.training.expert_ids, world.training.weights
    keys = ids + np.arange(world.num_layers)[:, None] * world.num_experts
    keys = np.where(ids < 0, world.num_keys, keys)
    order = np.argsort(-weights, axis=-1, kind="stable")
    return np.take_along_axis(keys, order, axis=-1) if weights.size else keys


def weighted(world: World) -> FloatArray:
    """Weigh uses by rank."""
    keys = rows(world)
    worth = np.broadcast_to(np.arange(keys.shape[-1], 0, -1.0), keys.shape)
    return np.bincount(keys.ravel(), worth.ravel(), minlength=world.num_keys + 1)[:-1]


def covering(world: World) -> FloatArray:
    """Rank keys by the turn in which the greedy cover takes them."""
    keys, heat, gain = rows(world), np.zeros(world.num_keys), np.zeros(world.num_keys)
    left = np.zeros(keys.shape[:2], bool)  # rows not covered
    for turn in range(world.num_keys, 0, -1):
        if gain.max() <= 0:
            left[:] = True
            gain = np.bincount(keys.ravel(), minlength=world.num_keys + 1)[:-1] * (heat == 0)
        key = int(np.argmax(gain))
        if gain[key] == 0:
            break  # the others are never used
        layer, heat[key] = key // world.num_experts, turn
        new = left[:, layer] & (keys[:, layer] == key).any(axis=-1)
        left[new, layer] = False
        gain -= np.bincount(keys[new, layer].ravel(), minlength=world.num_keys + 1)[:-1]
    return heat
