"""ARC: two LRU lists, of keys used once and used again, whose balance learns from regrets.

N. Megiddo and D. S. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003. A miss
on a key that left a list lately moves the balance towards that list. Where the list to take from
holds only held keys, the other one gives.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    FloatArray,
    IntArray,
    KeyArray,
    Lists,
    World,
    back,
    last_evictable,
    make_lists,
    policy,
    push_front,
    unlink,
)

ONCE, AGAIN, ONCE_GHOST, AGAIN_GHOST, NOWHERE = range(5)


@policy("arc", source="Megiddo and Modha, FAST 2003", compiled=True)
class ARC(NamedTuple):
    """Per pool four lists, latest at the front: T1, T2, B1, B2 of the paper."""

    lists: Lists
    where: IntArray  # (keys,)
    size: IntArray  # (4 * pools,)
    target: FloatArray  # (pools,) wanted size of ONCE
    slots: IntArray  # (pools,)
    pool: KeyArray
    coming: IntArray  # [key + 1 of the miss whose regret was just learnt, if any; new keys coming]

    @classmethod
    def create(cls, world: World) -> ARC:
        """Build the empty lists."""
        where = np.full(world.num_keys, NOWHERE, np.int64)
        lists, pool = make_lists(world.num_keys, 4 * world.pools), world.pool
        size, target = np.zeros(4 * world.pools, np.int64), np.zeros(world.pools)
        return cls(lists, where, size, target, world.capacity, pool, np.zeros(2, np.int64))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Move to the front of AGAIN."""
        move(self, key, AGAIN)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter AGAIN if remembered, else ONCE."""
        known = self.where[key] == ONCE_GHOST or self.where[key] == AGAIN_GHOST
        move(self, key, AGAIN if known or self.coming[0] == key + 1 else ONCE)
        self.coming[0] = 0

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter ONCE: nothing has been used."""
        move(self, key, ONCE)
        self.coming[0] = 0

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Become a ghost; the oldest goes where T1 and B1, with the key to come, outgrow C."""
        pool = pool
        first = 4 * pool
        once = self.where[key] == ONCE
        move(self, key, ONCE_GHOST if once else AGAIN_GHOST)
        room = self.slots[pool] - self.coming[1]
        if self.size[first + ONCE] + self.size[first + ONCE_GHOST] > room:
            forget_oldest(self, first + ONCE_GHOST)
        elif total(self, first) > self.slots[pool] + room:
            forget_oldest(self, first + AGAIN_GHOST)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Learn from the regret, then take from the list that is longer than it should be."""
        first = 4 * pool
        again_ghost = False
        self.coming[1] = 0
        if incoming != NOBODY:
            again_ghost = self.where[incoming] == AGAIN_GHOST
            learn(self, incoming, first, pool)
        once = self.size[first + ONCE]
        from_once = once >= 1 and (
            once > self.target[pool] or (again_ghost and once == self.target[pool])
        )
        key = last_evictable(self.lists, first + (ONCE if from_once else AGAIN), core)
        if key == NOBODY:
            key = last_evictable(self.lists, first + (AGAIN if from_once else ONCE), core)
        return key


def learn(policy: ARC, key: int, first: int, pool: int) -> None:
    """Move the target by the ratio of the ghosts' lengths, at least by one; forget the ghost."""
    ones, agains = policy.size[first + ONCE_GHOST], policy.size[first + AGAIN_GHOST]
    if policy.where[key] == ONCE_GHOST:
        step = max(1.0, agains / ones)
        policy.target[pool] = min(float(policy.slots[pool]), policy.target[pool] + step)
    elif policy.where[key] == AGAIN_GHOST:
        step = max(1.0, ones / agains)
        policy.target[pool] = max(0.0, policy.target[pool] - step)
    else:
        policy.coming[1] = policy.coming[0] != key + 1
        return
    move(policy, key, NOWHERE)
    policy.coming[0], policy.coming[1] = key + 1, 0


def total(policy: ARC, first: int) -> int:
    """Keys in all four lists of a pool."""
    return (
        policy.size[first]
        + policy.size[first + 1]
        + policy.size[first + 2]
        + policy.size[first + 3]
    )


def forget_oldest(policy: ARC, which: int) -> None:
    """Drop the oldest ghost of a list."""
    if policy.size[which] > 0:
        move(policy, back(policy.lists, which), NOWHERE)


def move(policy: ARC, key: int, target: int) -> None:
    """Take a key out of its list, if any, and put it at the front of another, if any."""
    first = 4 * policy.pool[key]
    if policy.where[key] != NOWHERE:
        policy.size[first + policy.where[key]] -= 1
        unlink(policy.lists, key)
    policy.where[key] = target
    if target != NOWHERE:
        policy.size[first + target] += 1
        push_front(policy.lists, first + target, key)
