"""SLRU: a key proves itself by a second use; unproven keys leave first, oldest first.

R. Karedla, J. S. Love, B. G. Wherry, "Caching strategies to improve disk system performance",
IEEE Computer 27(3), 1994. The protected segment holds `protected` of the slots, at least one, and
leaves at least one to the probation segment. The first use of a prefetched key is no second use.
"""

from typing import NamedTuple, Self

from specmd.policy import (
    EMPTY,
    NOWHERE,
    Core,
    Cut,
    Event,
    Segments,
    World,
    bring,
    depart,
    enter_window,
    make_segments,
    older,
    policy,
    use_segment,
)

PROBATION, PROTECTED = 1, 2  # there is no window


@policy("slru", source="Karedla, Love and Wherry, IEEE Computer 27(3), 1994", compiled=True)
class SLRU(NamedTuple):
    """The segments, latest at the front."""

    segments: Segments

    @classmethod
    def create(cls, world: World, *, protected: Cut = 0.8) -> Self:
        """Build the empty segments."""
        return cls(make_segments(world, 0.0, protected))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Go to the front of the protected segment; its last key makes room in probation.

        The first use of a prefetched key leads to the front of probation.
        """
        use_segment(self.segments, pool, key)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front of probation."""
        enter_window(self.segments, pool, key, 0)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front of probation."""
        bring(self.segments.queues, pool, key, PROBATION)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the segment."""
        depart(self.segments.queues, pool, key, NOWHERE)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose from the back of probation, else of the protected segment."""
        return older(self.segments.queues, pool, PROBATION, PROTECTED, core)

    def metrics(self) -> dict[str, float]:
        """Count the keys that have proven themselves."""
        return {"proven": int((self.segments.queues.where == PROTECTED).sum())}

    def finished(self, core: Core) -> str:
        """Compare the segments with the cache."""
        kept, there = int(self.segments.queues.size.sum()), int((core.state != EMPTY).sum())
        return "" if kept == there else f"{kept} keys in segments, {there} in the cache"
