"""Prompt free: a prefill takes free slots only and evicts nothing; decodes admit everything.

The mild form of `prompt_never`: the first prompt warms the cache, later ones do not disturb it.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import DECODE, Core, Event, World, policy


@policy("prompt_free", axis="admission", source="imp #1408, with free slots", compiled=True)
class PromptFree(NamedTuple):
    """Looks at the phase, and for room."""

    @classmethod
    def create(cls, world: World) -> PromptFree:
        """Build it."""
        return cls()

    def admits(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Let decodes in, and what needs nobody's slot."""
        return event.phase == DECODE or core.num_free[pool] > 0

    def admits_ahead(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Let in, ahead of its use, by the same rule."""
        return event.phase == DECODE or core.num_free[pool] > 0
