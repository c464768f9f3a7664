"""Prompt never: a prefill admits nothing, its misses stream through; decodes admit everything.

What a prompt demands is wide and soon over; what a decode demands comes again. Prefetches issued by
a prefill are refused with it.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import DECODE, Core, Event, World, policy


@policy("prompt_never", axis="admission", source="imp #1408: prefill never admits", compiled=True)
class PromptNever(NamedTuple):
    """Looks at the phase."""

    @classmethod
    def create(cls, world: World) -> PromptNever:
        """Build it."""
        return cls()

    def admits(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Let decodes in."""
        return event.phase == DECODE

    def admits_ahead(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Let what decodes prefetch in."""
        return event.phase == DECODE
