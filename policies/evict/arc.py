"""ARC: two LRU lists, of keys used once and used again, whose balance learns from regrets.

N. Megiddo and D. S. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003. A miss
on a key that left a list lately moves the balance towards that list. Where the list to take from
holds only held keys, the other one gives. A prefetch is no use: a prefetched key's first use does
what its miss would have done, and one that leaves unused goes back to where it was known.
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

ONCE, AGAIN, ONCE_GHOST, AGAIN_GHOST, NOWHERE, USED = range(6)


@policy("arc", source="Megiddo and Modha, FAST 2003", remembers=True, compiled=True)
class ARC(NamedTuple):
    """Per pool four lists, latest at the front: T1, T2, B1, B2 of the paper."""

    lists: Lists
    where: KeyArray  # (keys,)
    origin: KeyArray  # (keys,) where a key not used since its prefetch came from; else USED
    size: IntArray  # (4 * pools,)
    target: FloatArray  # (pools,) wanted size of ONCE
    slots: IntArray  # (pools,)
    coming: IntArray  # [key + 1 of the miss whose regret was just learnt, if any; new keys coming]

    @classmethod
    def create(cls, world: World) -> ARC:
        """Build the empty lists."""
        where = np.full(world.num_keys, NOWHERE, np.uint32)
        lists = make_lists(world.num_keys, 4 * world.pools)
        size, target = np.zeros(4 * world.pools, np.int64), np.zeros(world.pools)
        origin, coming = np.full_like(where, USED), np.zeros(2, np.int64)
        return cls(lists, where, origin, size, target, world.capacity, coming)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Move to the front of AGAIN; on the first use after a prefetch, as a miss would."""
        if self.origin[key] == USED:
            move(self, pool, key, AGAIN)
        else:
            if self.origin[key] != NOWHERE:
                learn(self, self.origin[key], pool)
            move(self, pool, key, ONCE if self.origin[key] == NOWHERE else AGAIN)
            self.origin[key] = USED

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter AGAIN if remembered, else ONCE."""
        known = self.where[key] == ONCE_GHOST or self.where[key] == AGAIN_GHOST
        move(self, pool, key, AGAIN if known or self.coming[0] == key + 1 else ONCE)
        self.coming[0] = 0

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter ONCE: nothing has been used."""
        if self.origin[key] == USED:
            self.origin[key] = self.where[key]
        move(self, pool, key, ONCE)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Become a ghost; the oldest goes where T1 and B1, with the key to come, outgrow C."""
        first = 4 * pool
        ghost = ONCE_GHOST if self.where[key] == ONCE else AGAIN_GHOST
        if self.origin[key] != USED:
            ghost = self.origin[key]
            self.origin[key] = USED
        room = self.slots[pool] - self.coming[1]
        if ghost == ONCE_GHOST and self.size[first + ONCE] > room and self.size[first + ghost] == 0:
            ghost = NOWHERE  # it would be the one to go
        move(self, pool, key, ghost)
        if self.size[first + ONCE] + self.size[first + ONCE_GHOST] > room:
            forget_oldest(self, pool, ONCE_GHOST)
        elif total(self, first) > self.slots[pool] + room:
            forget_oldest(self, pool, AGAIN_GHOST)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Learn from the regret, then take from the list that is longer than it should be."""
        first = 4 * pool
        ghost = NOWHERE
        regret = False
        self.coming[1] = 0
        if incoming != NOBODY:
            ghost = self.where[incoming]
            if ghost == NOWHERE:
                self.coming[1] = self.coming[0] != incoming + 1
            elif demanded(event, incoming):
                regret = True
                move(self, pool, incoming, NOWHERE)
                learn(self, ghost, pool)
                self.coming[0] = incoming + 1
        once = self.size[first + ONCE]
        from_once = once >= 1 and (
            once > self.target[pool] or (ghost == AGAIN_GHOST and once == self.target[pool])
        )
        key = last_evictable(self.lists, first + (ONCE if from_once else AGAIN), core)
        if key == NOBODY:
            key = last_evictable(self.lists, first + (AGAIN if from_once else ONCE), core)
        if ghost != NOWHERE and not regret and key != NOBODY:
            self.origin[incoming] = ghost  # it is prefetched: out of the way of the new ghost
            move(self, pool, incoming, NOWHERE)
        return key


def demanded(event: Event, key: int) -> bool:
    """Tell a miss from a prefetch."""
    found = False
    for i in range(event.start, event.stop):
        found |= event.keys[i] == key
    return found


def learn(policy: ARC, ghost: int, pool: int) -> None:
    """Move the target by the ratio of the ghosts' lengths, at least by one.

    The key they told of is in neither list any more, and is counted.
    """
    ones, agains = policy.size[4 * pool + ONCE_GHOST], policy.size[4 * pool + AGAIN_GHOST]
    if ghost == ONCE_GHOST:
        step = max(1.0, agains / (ones + 1))
        policy.target[pool] = min(float(policy.slots[pool]), policy.target[pool] + step)
    else:
        step = max(1.0, ones / (agains + 1))
        policy.target[pool] = max(0.0, policy.target[pool] - step)


def total(policy: ARC, first: int) -> int:
    """Keys in all four lists of a pool."""
    return (
        policy.size[first]
        + policy.size[first + 1]
        + policy.size[first + 2]
        + policy.size[first + 3]
    )


def forget_oldest(policy: ARC, pool: int, ghosts: int) -> None:
    """Drop the oldest ghost of a list."""
    if policy.size[4 * pool + ghosts] > 0:
        move(policy, pool, back(policy.lists, 4 * pool + ghosts), NOWHERE)


def move(policy: ARC, pool: int, key: int, target: int) -> None:
    """Take a key out of its list, if any, and put it at the front of another, if any."""
    if policy.where[key] != NOWHERE:
        policy.size[4 * pool + policy.where[key]] -= 1
        unlink(policy.lists, key)
    policy.where[key] = target
    if target != NOWHERE:
        policy.size[4 * pool + target] += 1
        push_front(policy.lists, 4 * pool + target, key)
