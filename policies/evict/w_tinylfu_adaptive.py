"""Adaptive W-TinyLFU: the window grows or shrinks, whichever raised the hit rate the last time.

Einziger, Eytan, Friedman, Manes, "Adaptive software cache management", Middleware 2018, climbing as
Caffeine does: every 10 * C uses a sixteenth of the slots (one at least), 2 % less each time, and
anew where the rate changed by 5 points. Otherwise it is `w_tinylfu`.
"""

from typing import NamedTuple, Self

import numpy as np

from specmd.policy import (
    NOWHERE,
    Core,
    Event,
    FloatArray,
    TinyLFU,
    World,
    bring,
    contest,
    count_uses,
    depart,
    enter_window,
    make_tinylfu,
    policy,
    set_window,
    use_segment,
)

SHARE, STEP, LONGEST, HITS, RATE, PERIODS = range(6)


@policy("w_tinylfu_adaptive", source="Einziger et al., 2018", remembers=True, compiled=True)
class AdaptiveWTinyLFU(NamedTuple):
    """The segments and counters, and where the climber stands: see the names above."""

    tiny: TinyLFU
    climber: FloatArray

    @classmethod
    def create(cls, world: World) -> Self:
        """Start with a window of a hundredth."""
        step = max(1 / 16, 1 / max(1, int(world.capacity.max())))
        return cls(make_tinylfu(world, 0.01, 0.8), np.array([0.01, step, step, 0, 0, 0]))

    def on_event(self, event: Event) -> None:
        """Count the uses; when it is time, go a step, and turn around where the hit rate fell."""
        count_uses(self.tiny, event)
        at = self.climber
        if self.tiny.seen[0] // self.tiny.sample > at[PERIODS]:
            rate = at[HITS] / self.tiny.sample
            way = at[STEP] if rate >= at[RATE] else -at[STEP]
            at[SHARE] = min(max(at[SHARE] + way, 0.001), 0.99)
            far = at[LONGEST] if way > 0 else -at[LONGEST]
            at[STEP] = far if abs(rate - at[RATE]) >= 0.05 else 0.98 * way
            at[HITS], at[RATE], at[PERIODS] = 0.0, rate, at[PERIODS] + 1
            set_window(self.tiny.segments, at[SHARE])

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Go to the front: of the window if there, else of the protected."""
        self.climber[HITS] += 1
        use_segment(self.tiny.segments, pool, key)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter the window; what no miss of an event could contest goes on unopposed."""
        enter_window(self.tiny.segments, pool, key, event.stop - event.start - 1)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter the window."""
        bring(self.tiny.segments.queues, pool, key, 0)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave."""
        depart(self.tiny.segments.queues, pool, key, NOWHERE)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Let the oldest of a full window contest the place of the oldest on probation."""
        return contest(self.tiny, pool, core)
