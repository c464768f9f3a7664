"""Least-Stale: keys not touched in the present step leave before those that were.

SpecMD (arXiv:2602.03921) publishes this rule, and that within the stale and within the current keys
the order is that of the forward pass, but no code. So the order is *inferred*: `cycle` (the layer
just passed first, then least recent) is the reading that shows the published effect; `fifo` (first
touched in its step first), `layer` (lowest layer first, then least recent) and `recent` (least
recent; without prefetches this is LRU) are other readings.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    IntArray,
    KeyArray,
    Lists,
    World,
    evictable,
    make_lists,
    place_ordered,
    policy,
    push_front,
    splice_front,
    unlink,
)

CYCLE, LAYER, FIFO, RECENT = range(4)


@policy("least_stale", source="SpecMD, arXiv:2602.03921", compiled=True)
class LeastStale(NamedTuple):
    """Lists by touch, latest at the front: one a layer, or for each pool stale and current."""

    lists: Lists
    last: IntArray
    step: IntArray  # of the last touch
    group: KeyArray  # (keys,) list of a key that is touched now
    present: IntArray  # [step whose keys are in the current lists]
    pools: int
    by_layer: bool
    turns: int  # lists that are searched one after the other
    order: int

    @classmethod
    def create(
        cls, world: World, *, order: Literal["cycle", "fifo", "layer", "recent"] = "cycle"
    ) -> LeastStale:
        """Build the empty lists."""
        kind = {"cycle": CYCLE, "layer": LAYER, "fifo": FIFO, "recent": RECENT}[order]
        layer = (np.arange(world.num_keys) // world.num_experts).astype(np.uint32)
        group = layer if kind <= LAYER else (world.pool * 2 + 1).astype(np.uint32)
        count = world.num_layers if kind <= LAYER else world.pools * 2
        last = np.zeros(world.num_keys, np.int64)
        step = np.full(world.num_keys, -1, np.int64)
        lists = make_lists(world.num_keys, count)
        by_layer = world.is_by_layer
        turns = world.num_layers if kind <= LAYER and not by_layer else 1
        present = np.full(1, -1, np.int64)
        return cls(lists, last, step, group, present, world.pools, by_layer, turns, kind)

    def on_event(self, event: Event) -> None:
        """At the first event of a step, what was current becomes stale."""
        if self.order >= FIFO and event.step != self.present[0]:
            for pool in range(self.pools):
                splice_front(self.lists, 2 * pool + 1, 2 * pool)
        self.present[0] = event.step

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Become current; in FIFO order only the first touch of a step moves a key."""
        if self.order != FIFO or self.step[key] != event.step:
            unlink(self.lists, key)
            enter(self, key, event)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter as current."""
        enter(self, key, event)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the lists."""
        unlink(self.lists, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Search the stale keys of every list in turn, then the current ones."""
        for current in range(2):
            for turn in range(self.turns):
                end = self.lists.size + list_in_turn(self, turn, current, pool, event)
                key = self.lists.prev[end]
                if key != end and core.pool[key] != pool:
                    continue
                while key != end:
                    touched = self.step[key] == event.step
                    if touched and not current:
                        break  # what was touched in this step is at the front of every list
                    if touched == current and evictable(core, key):
                        return key
                    key = self.lists.prev[key]
        return NOBODY


def list_in_turn(policy: LeastStale, turn: int, current: int, pool: int, event: Event) -> int:
    """Name the list to search: a pool's stale or current one, or that of a layer."""
    if policy.order >= FIFO:
        return 2 * pool + current
    if policy.by_layer:
        return pool
    return turn if policy.order == LAYER else (event.layer - turn) % event.num_layers


def enter(policy: LeastStale, key: int, event: Event) -> None:
    """Put a key in its list of current keys and stamp it."""
    policy.step[key] = event.step
    if policy.order == FIFO:
        push_front(policy.lists, policy.group[key], key)
    else:
        place_ordered(policy.lists, policy.group[key], key, policy.last, event.clock)
