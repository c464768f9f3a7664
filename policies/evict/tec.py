"""TEC: what a layer used in its last `window` events stays; of the rest the least used leaves.

The union of the last window's experts and, until the cache is full, the most frequent ones: the
rolling window of the temporal expert caches of MoE servers (window = 8 tokens). Where all that may
leave is inside the window, the least recent leaves: a cache smaller than the windows is LRU.
*Inferred*: that the window counts the events of a layer (one a step), and that the less recent of
equally used keys leaves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Count, Event, IntArray, Scores, World, join, policy

USE = 1 << 32  # above any clock
INSIDE = 1 << 52  # above any count of uses


@policy("tec", source="rolling-window expert caches", remembers=True, compiled=True)
class TEC(NamedTuple):
    """Uses, clock of the last touch, and the layer's event in which that was."""

    scores: Scores
    uses: IntArray  # (keys,)
    last: IntArray  # (keys,)
    seen: IntArray  # (keys,) events of the layer at the last touch
    layer: IntArray  # (keys,)
    events: IntArray  # (layers,) so far
    window: int

    @classmethod
    def create(cls, world: World, *, window: Count = 8) -> TEC:
        """Start with an empty window."""
        numbers, layer = np.zeros(world.num_keys, np.int64), np.arange(world.num_keys)
        events = np.zeros(world.num_layers, np.int64)
        last, seen = numbers.copy(), numbers.copy()
        layer //= world.num_experts
        return cls(Scores.of(world), numbers, last, seen, layer, events, window)

    def on_event(self, event: Event) -> None:
        """Count the event and the uses."""
        self.events[event.layer] += 1
        for i in range(event.start, event.stop):
            key = event.keys[i]
            self.uses[key] += 1
            self.last[key] = event.clock
            self.seen[key] = self.events[event.layer]

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Come into the window."""
        self.last[key] = event.clock
        self.seen[key] = self.events[self.layer[key]]
        join(self.scores, pool, key)

    def rank(self, key: int, event: Event) -> float:
        """Rank by uses outside the window, above them by recency inside."""
        inside = self.events[self.layer[key]] - self.seen[key] < self.window
        return (INSIDE if inside else self.uses[key] * USE) + self.last[key]
