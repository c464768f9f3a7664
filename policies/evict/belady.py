"""Belady: the key used again latest leaves first. The bound, for those who know the future.

L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
Journal 5(2), 1966. With `bypass=true` the run admits a miss only if it is among the keys used
again soonest.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import (
    Blocks,
    Core,
    Event,
    World,
    enter,
    largest_evictable,
    leave,
    make_blocks,
    policy,
    set_value,
)


@policy(
    "belady",
    source="Belady, IBM Systems Journal 5(2), 1966",
    needs=["future"],
    compiled=True,
    bypass="bypass",
)
class Belady(NamedTuple):
    """The clock of every resident key's next use."""

    next_use: Blocks

    @classmethod
    def create(cls, world: World, *, bypass: bool = False) -> Belady:
        """Start empty; `bypass` is read by the run, as `--admission bypass` is."""
        return cls(make_blocks(world))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Rank by the use after this one."""
        set_value(self.next_use, key, event.next_use[key])

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter by the next use."""
        enter(self.next_use, pool, key, event.next_use[key])

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave."""
        leave(self.next_use, pool, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the latest next use."""
        return largest_evictable(self.next_use, pool, core)
