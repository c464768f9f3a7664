"""Prompt apart: a prefill takes free slots and those that prefills brought; decodes take any.

So prompts turn over a part of the cache that is theirs, and shrinks as decodes take from it.
Prefetches of a prefill take free slots only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import DECODE, PREFILL, Core, Event, IntArray, World, policy


@policy("prompt_apart", axis="admission", source="imp #1408: separate slots", compiled=True)
class PromptApart(NamedTuple):
    """The phase in which each key was last let in."""

    brought: IntArray  # (keys,)

    @classmethod
    def create(cls, world: World) -> PromptApart:
        """Build it; nobody has brought anything."""
        return cls(np.full(world.num_keys, DECODE, np.int64))

    def admits(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Note who asks."""
        self.brought[key] = event.phase
        return True

    def admits_ahead(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Let in what decodes prefetch, and what needs nobody's slot."""
        self.brought[key] = event.phase
        return event.phase == DECODE or core.num_free[pool] > 0

    def outweighs(self, key: int, leaving: int, core: Core, event: Event) -> bool:
        """Let a prefill replace what a prefill brought."""
        return event.phase == DECODE or self.brought[leaving] == PREFILL
