"""W-TinyLFU: what leaves a small window stays only if it was used more often than who would go.

G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM
Transactions on Storage 13(4), 2017, with Caffeine's segmented LRU behind the window. The window has
`window` of the slots, one at least. Uses are counted to 15, and halved every 10 * C of them. An
event wider than the window keeps its keys there for their contests. A prefetch is no use.
"""

from typing import NamedTuple, Self

from specmd.policy import (
    NOWHERE,
    Core,
    Cut,
    Event,
    TinyLFU,
    World,
    bring,
    contest,
    count_uses,
    depart,
    enter_window,
    make_tinylfu,
    policy,
    use_segment,
)

WINDOW = 0


@policy("w_tinylfu", source="Einziger et al., ACM TOS 13(4), 2017", remembers=True, compiled=True)
class WTinyLFU(NamedTuple):
    """The segments and the counters."""

    tiny: TinyLFU

    @classmethod
    def create(cls, world: World, *, window: Cut = 0.01, protected: Cut = 0.8) -> Self:
        """Build the empty segments."""
        return cls(make_tinylfu(world, window, protected))

    def on_event(self, event: Event) -> None:
        """Count the uses."""
        count_uses(self.tiny, event)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Go to the front: of the window if there, else of the protected."""
        use_segment(self.tiny.segments, pool, key)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter the window; what no miss of an event could contest goes on unopposed."""
        enter_window(self.tiny.segments, pool, key, event.stop - event.start - 1)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter the window."""
        bring(self.tiny.segments.queues, pool, key, WINDOW)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave."""
        depart(self.tiny.segments.queues, pool, key, NOWHERE)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Let the oldest of a full window contest the place of the oldest on probation."""
        return contest(self.tiny, pool, core)
