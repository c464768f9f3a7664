"""What allocation policies share: their limits, a training trace's demand, two solvers.

All slots are given, to no layer more than it has experts, and to none fewer than a token chooses;
or, where there are too few for that, one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.core.event import FloatArray, World


def least_slots(slots: int, world: World) -> int:
    """Return the slots that every layer has at least."""
    enough = slots >= world.num_layers * world.top_k
    return min(world.top_k if enough else 1, slots // world.num_layers)


def give_slots(
    slots: int, world: World, worth: Callable[[npt.NDArray[np.int64]], FloatArray]
) -> list[int]:
    """Give slots one by one to the layer to which the next is worth most; of equals to the lowest.

    `worth` is asked for the worth of one more slot, (layers,), given what they have.
    """
    found = np.full(world.num_layers, least_slots(slots, world), np.int64)
    for _ in range(slots - int(found.sum())):
        open_ = np.where(found < world.num_experts, worth(found), -np.inf)
        found[np.argmax(open_)] += 1
    return [int(each) for each in found]


def share_slots(slots: int, world: World, weights: FloatArray) -> list[int]:
    """Divide slots in proportion to weights, (layers,), by the quotients of Sainte-Lague.

    More slots never give any layer fewer. Without any weight, all layers weigh the same.
    """
    weights = weights if weights.any() else np.ones(world.num_layers)
    return give_slots(slots, world, lambda found: weights / (2 * found + 1))


def best_quotas(slots: int, world: World, costs: FloatArray) -> list[int]:
    """Return the quotas of least total cost, by a dynamic programme over layers and slots left.

    `costs` are (layers, 0 to experts slots). Of equals the lower layers have more.
    """
    least, most = least_slots(slots, world), min(slots, world.num_experts)
    total = np.full((world.num_layers + 1, slots + 1), np.inf)  # of the layers from l on
    total[-1, 0] = 0
    for layer in range(world.num_layers - 1, -1, -1):
        for quota in range(least, most + 1):
            rest = total[layer + 1, : slots + 1 - quota] + costs[layer, quota]
            np.minimum(total[layer, quota:], rest, out=total[layer, quota:])
    found, left = [], slots
    for layer in range(world.num_layers):
        choices = np.arange(least, min(most, left) + 1)
        sums = costs[layer, choices] + total[layer + 1, left - choices]
        found.append(int(choices[len(sums) - 1 - np.argmin(sums[::-1])]))
        left -= found[-1]
    return found


def demanded(world: World) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield, for each step of the training trace, which experts it demanded, (layers, experts)."""
    assert world.training is not None
    ids, layer = world.training.expert_ids, np.arange(world.num_layers)[:, None]
    edges = np.flatnonzero(np.diff(world.training.step, prepend=-1, append=-1))
    for first, stop in pairwise(edges):
        found = np.zeros((world.num_layers, world.num_experts + 1), np.bool_)
        found[layer, ids[first:stop]] = True  # -1, nobody, is the last column
        yield found[:, :-1]


def lru_misses(world: World) -> Any:
    """Count the misses of each layer's own LRU on the training trace, (layers, 0 to experts slots).

    A key at depth d of its layer's stack, the latest used first and of those the smaller, is a hit
    where there are more than d slots (see `specmd.core.stacks`). What was counted last is kept.
    """
    if _LAST and _LAST[0] is world.training:
        return _LAST[1]
    shape = world.num_layers, world.num_experts
    last, hits = np.full(shape, -1), np.zeros((shape[0], shape[1] + 1), np.int64)
    accesses = np.zeros(shape[0], np.int64)
    layers = np.broadcast_to(np.arange(shape[0])[:, None], shape)
    for moment, used in enumerate(demanded(world)):
        depth = np.empty(shape, np.int64)
        order = np.argsort(-last, axis=1, kind="stable")
        np.put_along_axis(depth, order, np.broadcast_to(np.arange(shape[1]), shape), axis=1)
        again = used & (last >= 0)
        np.add.at(hits, (layers[again], depth[again] + 1), 1)
        accesses += used.sum(axis=1)
        last[used] = moment
    _LAST[:] = [world.training, accesses[:, None] - np.cumsum(hits, axis=1)]
    return _LAST[1]


_LAST: list[Any] = []  # training rows, and what `lru_misses` counted on them
