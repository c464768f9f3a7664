"""Least-Stale: keys not touched in the present step leave before those that were.

SpecMD (arXiv:2602.03921) publishes this, and the order of the forward pass for either, but no code.
So `order` is *inferred*: `cycle` (the layer just passed first, then least recent) has the published
effect; `fifo` (first touched in its step first), `layer` (lowest first, then least recent) and
`recent` (least recent: LRU) are other readings, as are the policies ls_*.
"""

from typing import Literal, NamedTuple, Self

import numpy as np

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    IntArray,
    Lists,
    World,
    last_evictable,
    make_lists,
    place_ordered,
    policy,
    unlink,
)


@policy("least_stale", source="SpecMD, arXiv:2602.03921", compiled=True)
class LeastStale(NamedTuple):
    """Lists of a layer or of a pool, the latest touch at the front: so current before stale."""

    lists: Lists
    last: IntArray
    step: IntArray  # of the last touch
    group: IntArray  # (keys,) list of each key
    order: int  # 0 cycle, 1 fifo, 2 another

    @classmethod
    def create(
        cls, world: World, *, order: Literal["cycle", "fifo", "layer", "recent"] = "cycle"
    ) -> Self:
        """Build the empty lists."""
        layer, last = np.arange(world.num_keys) // world.num_experts, np.zeros(world.num_keys, int)
        group = layer if order in ("cycle", "layer") else world.pool.astype(np.int64)
        lists = make_lists(world.num_keys, world.num_layers)
        return cls(lists, last, last - 1, group, {"cycle": 0, "fifo": 1}.get(order, 2))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Become current; in FIFO order only the first touch of a step moves a key."""
        if self.order != 1 or self.step[key] != event.step:
            unlink(self.lists, key)
            enter(self, key, event)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter as current."""
        enter(self, key, event)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the list."""
        unlink(self.lists, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Take the first stale key at the back of a list, in turn; else the first current one."""
        spare = NOBODY
        for turn in range(event.num_layers):
            which = turn if self.order else (event.layer - turn) % event.num_layers
            key = last_evictable(self.lists, which, core)
            if key != NOBODY and core.pool[key] == pool:
                if self.step[key] != event.step:
                    return key
                spare = key if spare == NOBODY else spare
        return spare


def enter(policy: LeastStale, key: int, event: Event) -> None:
    """Put a key at the front of its list and stamp it; in FIFO order no two stamps are alike."""
    policy.step[key] = event.step
    stamp = -1 - int(key) if policy.order == 1 else event.clock
    place_ordered(policy.lists, policy.group[key], key, policy.last, stamp)
