"""Belady: the key used again latest leaves first. The bound, for those who know the future.

L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
Journal 5(2), 1966. With `bypass=true` a miss that is used again later than all that could leave is
not admitted.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.order.heap import Heap, drop, least_evictable, make_heap, put, settle_rank
from specmd.policy.event import Event, KeyArray, World
from specmd.policy.registry import policy
from specmd.residency import Core


@policy("belady", source="Belady, IBM Systems Journal 5(2), 1966", needs=["future"])
class Belady(NamedTuple):
    """A heap by the next use, the latest on top."""

    heap: Heap
    pool: KeyArray

    @classmethod
    def create(cls, world: World, *, bypass: bool = False) -> Belady:
        """Build the empty heap; `bypass` is read by the run, which may then refuse a miss."""
        return cls(make_heap(world.num_keys, world.pools), world.pool_of_keys())

    def on_use(self, key: int, event: Event) -> None:
        """Rank by the use after this one."""
        settle_rank(self.heap, self.pool[key], key, -float(event.next_use[key]), 0)

    def on_insert(self, key: int, event: Event) -> None:
        """Enter by the next use."""
        put(self.heap, self.pool[key], key, -float(event.next_use[key]), 0)

    def on_prefetch(self, key: int, event: Event) -> None:
        """Enter by the next use."""
        put(self.heap, self.pool[key], key, -float(event.next_use[key]), 0)

    def on_evict(self, key: int, event: Event) -> None:
        """Leave the heap."""
        drop(self.heap, self.pool[key], key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the latest next use."""
        return least_evictable(self.heap, pool, core)

    def admits(self, key: int, leaving: int, event: Event) -> bool:
        """Admit what is used again no later than what would leave."""
        return event.next_use[key] <= event.next_use[leaving]
