"""Frequency threshold: LRU among keys used in less than `share` of their layer's last events.

Where all are used more often, LRU among all. A rule of programs that make the eviction policy a
choice, with 5 % of 100 events; *inferred*: no paper states it, nor that the events are those of the
key's own layer (of all events, 5 % would be more than a key of a deep model can be used in).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Count, Event, IntArray, KeyArray, Share, World, policy

OFTEN = 1 << 40  # above any clock


@policy("freq_threshold", source="MoE-serving programs", remembers=True, compiled=True)
class FrequencyThreshold(NamedTuple):
    """Who was used in which of the last events, and stamps."""

    used: KeyArray  # (window * keys,) 1 where a key was used in an event of its layer
    uses: IntArray  # (keys,) in the window
    last: IntArray  # (keys,) clock of the last touch
    events: IntArray  # (layers,) so far
    window: int
    least: float

    @classmethod
    def create(
        cls, world: World, *, window: Count = 100, share: Share = 0.05
    ) -> FrequencyThreshold:
        """Start with an empty window."""
        zero, events = np.zeros(world.num_keys, np.int64), np.zeros(world.num_layers, np.int64)
        used = np.zeros(window * world.num_keys, np.uint8)
        return cls(used, zero, zero.copy(), events, window, share * window)

    def on_event(self, event: Event) -> None:
        """Slide the layer's window."""
        place = self.events[event.layer] % self.window * len(self.last)
        self.events[event.layer] += 1
        first = event.layer * event.num_experts
        for key in range(first, first + event.num_experts):
            self.uses[key] -= self.used[place + key]
            self.used[place + key] = 0
        for i in range(event.start, event.stop):
            key = event.keys[i]
            self.used[place + key] = 1
            self.uses[key] += 1
            self.last[key] = event.clock

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Touch."""
        self.last[key] = event.clock

    def rank(self, key: int, event: Event) -> float:
        """Rank by last touch, and what is used often above the rest."""
        return self.last[key] + OFTEN * (self.uses[key] >= self.least)
