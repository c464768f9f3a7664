"""SLRU: a key proves itself by a second use; unproven keys leave first, oldest first.

R. Karedla, J. S. Love, B. G. Wherry, "Caching strategies to improve disk system performance",
IEEE Computer 27(3), 1994. The protected segment holds `protected` of the slots, at least one, and
leaves at least one to the probation segment. The first use of a prefetched key is no second use.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from specmd.policy import (
    NOBODY,
    Core,
    Event,
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

Share = Annotated[float, Field(gt=0, lt=1)]


PROBATION, PROTECTED, WAITING = range(3)


@policy("slru", source="Karedla, Love and Wherry, IEEE Computer 27(3), 1994", compiled=True)
class SLRU(NamedTuple):
    """Per pool two lists, latest at the front: 2 * pool probation, 2 * pool + 1 protected."""

    lists: Lists
    standing: KeyArray  # (keys,) PROBATION, PROTECTED, or WAITING in probation for a first use
    size: IntArray  # (pools,) of the protected segment
    limit: IntArray  # (pools,)

    @classmethod
    def create(cls, world: World, *, protected: Share = 0.8) -> SLRU:
        """Build the empty segments."""
        limit = np.maximum(1, (world.capacity * protected).astype(np.int64))
        limit = np.minimum(limit, np.maximum(world.capacity - 1, 0))
        lists = make_lists(world.num_keys, 2 * world.pools)
        size = np.zeros(world.pools, np.int64)
        return cls(lists, np.zeros(world.num_keys, np.uint32), size, limit)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Go to the front of the protected segment; its last key makes room in probation.

        The first use of a prefetched key leads to the front of probation.
        """
        unlink(self.lists, key)
        if self.standing[key] != PROTECTED:
            if self.limit[pool] == 0 or self.standing[key] == WAITING:
                self.standing[key] = PROBATION
                push_front(self.lists, 2 * pool, key)
                return
            if self.size[pool] >= self.limit[pool]:
                demoted = back(self.lists, 2 * pool + 1)
                unlink(self.lists, demoted)
                push_front(self.lists, 2 * pool, demoted)
                self.standing[demoted] = PROBATION
            else:
                self.size[pool] += 1
            self.standing[key] = PROTECTED
        push_front(self.lists, 2 * pool + 1, key)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front of probation."""
        push_front(self.lists, 2 * pool, key)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front of probation."""
        self.standing[key] = WAITING
        push_front(self.lists, 2 * pool, key)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the segment."""
        unlink(self.lists, key)
        self.size[pool] -= self.standing[key] == PROTECTED
        self.standing[key] = PROBATION

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose from the back of probation, else of the protected segment."""
        key = last_evictable(self.lists, 2 * pool, core)
        return last_evictable(self.lists, 2 * pool + 1, core) if key == NOBODY else key
