"""Static: the keys most used in a *training* trace stay; the least used there leaves first.

The frozen hot set of Fiddler (arXiv:2402.07033) and of `--n-cpu-moe` style placement, fitted on
another trace than the one it is judged on. With `admission=bypass` it never changes once filled.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import (
    Core,
    Event,
    FloatArray,
    Heap,
    KeyArray,
    World,
    drop,
    least_evictable,
    make_heap,
    policy,
    put,
)


@policy("static", source="Fiddler, arXiv:2402.07033", needs=["training"], compiled=True)
class Static(NamedTuple):
    """Popularity in the training trace, and a heap by it."""

    heap: Heap
    popularity: FloatArray
    pool: KeyArray

    @classmethod
    def create(cls, world: World) -> Static:
        """Build the empty heap."""
        return cls(make_heap(world.num_keys, world.pools), world.popularity, world.pool)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter by popularity."""
        put(self.heap, pool, key, self.popularity[key], 0)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the heap."""
        drop(self.heap, pool, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the least popular."""
        return least_evictable(self.heap, pool, core)
