"""LRU of ordinary Python objects: what a plug-in without arrays costs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from specmd.policy import may_leave, policy


@policy("python_lru", source="benchmark")
class PythonLRU:
    """Keys by last touch, the oldest first."""

    def __init__(self) -> None:
        self.order: OrderedDict[int, None] = OrderedDict()

    @classmethod
    def create(cls, world: Any) -> PythonLRU:
        """Start empty."""
        return cls()

    def on_use(self, key: int, pool: int, event: Any) -> None:
        """Move to the end."""
        self.order.move_to_end(key)

    def on_insert(self, key: int, pool: int, event: Any) -> None:
        """Enter at the end."""
        self.order[key] = None

    def on_evict(self, key: int, pool: int, event: Any) -> None:
        """Leave."""
        del self.order[key]

    def victim(self, incoming: int, pool: int, cache: Any, event: Any) -> int | None:
        """Choose the oldest that may leave."""
        return next((key for key in self.order if may_leave(cache, pool, key)), None)
