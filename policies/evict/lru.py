"""LRU: the key touched longest ago leaves first.

R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation techniques for storage
hierarchies", IBM Systems Journal 9(2), 1970. The clock ticks once an event.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.order.touches import Touches, forget, make_touches, oldest_evictable, touch
from specmd.policy.event import Event, KeyArray, World
from specmd.policy.registry import policy
from specmd.residency import Core


@policy("lru", source="Mattson et al., IBM Systems Journal 9(2), 1970")
class LRU(NamedTuple):
    """Keys in order of their last touch."""

    touches: Touches
    pool: KeyArray

    @classmethod
    def create(cls, world: World) -> LRU:
        """Start empty."""
        return cls(make_touches(world.num_keys, world.pools), world.pool_of_keys())

    def on_use(self, key: int, event: Event) -> None:
        """Touch."""
        touch(self.touches, self.pool[key], key, event.clock)

    def on_insert(self, key: int, event: Event) -> None:
        """Touch."""
        touch(self.touches, self.pool[key], key, event.clock)

    def on_prefetch(self, key: int, event: Event) -> None:
        """Touch: a prefetch counts as one."""
        touch(self.touches, self.pool[key], key, event.clock)

    def on_evict(self, key: int, event: Event) -> None:
        """Leave."""
        forget(self.touches, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the oldest touch."""
        return oldest_evictable(self.touches, pool, core)
