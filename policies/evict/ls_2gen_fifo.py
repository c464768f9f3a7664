"""Least-Stale in two queues: a stale key in order of arrival, else a current one likewise.

The first touch in a step takes a key to the end of the current queue, further ones leave it where
it is; when a step begins, the current queue is appended to the stale one. So reads tinyserve
(github.com/e1n00r/tinyserve at 197d368, `LeastStalePolicy`) SpecMD, and quotes the paper's 1.6 to
1.9 % of collisions. Where each key is touched once a step and nothing is prefetched, it is LRU.
"""

from __future__ import annotations

from typing import NamedTuple

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
    policy,
    push_front,
    splice_front,
    unlink,
)


@policy("ls_2gen_fifo", source="tinyserve, after SpecMD, arXiv:2602.03921", compiled=True)
class TwoGenerationsInQueues(NamedTuple):
    """Per pool two queues, latest at the front: 2 * pool the stale, 2 * pool + 1 the current."""

    queues: Lists
    step: IntArray  # (keys,) of the last touch
    present: IntArray  # [step whose keys are in the current queues]
    pools: int

    @classmethod
    def create(cls, world: World) -> TwoGenerationsInQueues:
        """Build the empty queues."""
        queues, step = make_lists(world.num_keys, 2 * world.pools), np.zeros(world.num_keys)
        return cls(queues, step.astype(np.int64), np.full(1, -1, np.int64), world.pools)

    def on_event(self, event: Event) -> None:
        """At the first event of a step, what was current becomes stale."""
        if event.step != self.present[0]:
            for pool in range(self.pools):
                splice_front(self.queues, 2 * pool + 1, 2 * pool)
        self.present[0] = event.step

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Make a stale key current."""
        if self.step[key] != event.step:
            self.step[key] = event.step
            unlink(self.queues, key)
            push_front(self.queues, 2 * pool + 1, key)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter as current."""
        self.step[key] = event.step
        push_front(self.queues, 2 * pool + 1, key)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the queue."""
        unlink(self.queues, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the head of the stale queue, else of the current one."""
        key = last_evictable(self.queues, 2 * pool, core)
        return last_evictable(self.queues, 2 * pool + 1, core) if key == NOBODY else key
