"""FIFO: the key that entered first leaves first, whatever its use since.

L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
Journal 5(2), 1966.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.core.event import Event, KeyArray, World
from specmd.core.order.lists import Lists, last_evictable, make_lists, push_front, unlink
from specmd.core.serve import Core
from specmd.policy.registry import policy


@policy("fifo", source="Belady, IBM Systems Journal 5(2), 1966")
class FIFO(NamedTuple):
    """Keys by arrival, the latest at the front."""

    arrival: Lists
    pool: KeyArray

    @classmethod
    def create(cls, world: World) -> FIFO:
        """Build the empty queue."""
        return cls(make_lists(world.num_keys, world.pools), world.pool_of_keys())

    def on_insert(self, key: int, event: Event) -> None:
        """Enter at the front."""
        push_front(self.arrival, self.pool[key], key)

    def on_prefetch(self, key: int, event: Event) -> None:
        """Enter at the front."""
        push_front(self.arrival, self.pool[key], key)

    def on_evict(self, key: int, event: Event) -> None:
        """Leave the queue."""
        unlink(self.arrival, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose from the back."""
        return last_evictable(self.arrival, pool, core)
