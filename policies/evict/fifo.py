"""FIFO: the key that entered first leaves first, whatever its use since.

L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
Journal 5(2), 1966.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import (
    Core,
    Event,
    Lists,
    World,
    last_evictable,
    make_lists,
    policy,
    push_front,
    unlink,
)


@policy("fifo", source="Belady, IBM Systems Journal 5(2), 1966", compiled=True)
class FIFO(NamedTuple):
    """Keys by arrival, the latest at the front."""

    arrival: Lists

    @classmethod
    def create(cls, world: World) -> FIFO:
        """Build the empty queue."""
        return cls(make_lists(world.num_keys, world.pools))

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front."""
        push_front(self.arrival, pool, key)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the queue."""
        unlink(self.arrival, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose from the back."""
        return last_evictable(self.arrival, pool, core)
