"""Static: the keys most used in a *training* trace are resident from the start and for ever.

The frozen hot set of Fiddler (arXiv:2402.07033) and of `--n-cpu-moe` style placement, fitted on
another trace than the one it is judged on. Misses pass the cache by, prefetches find no slot. Of
equally popular keys the smaller one is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import NOBODY, Core, Event, KeyArray, World, policy


@policy(
    "static", source="Fiddler, arXiv:2402.07033", needs=["training"], frozen=True, compiled=True
)
class Static(NamedTuple):
    """The hot set."""

    kept: KeyArray  # (slots,)

    @classmethod
    def create(cls, world: World) -> Static:
        """Choose the most popular keys of each pool."""
        order = np.argsort(-world.popularity, kind="stable").astype(np.uint32)
        pool = world.pool[order]
        return cls(np.concatenate([order[pool == p][:c] for p, c in enumerate(world.capacity)]))

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Let nothing leave."""
        return NOBODY
