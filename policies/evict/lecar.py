"""LeCaR: the one that LRU or the one that LFU names leaves, drawn by how little each was regretted.

G. Vietri et al., "Driving cache replacement with ML-based LeCaR", HotStorage 2018. A miss on one of
the last C keys that an expert let go costs it a factor exp(-rate * d ** events since), where
d = 0.005 ** (1 / C); what both name is not remembered. As in the authors' code, a ghost keeps its
count of uses, and no weight falls below 0.01. A prefetch is no use: a prefetched key's first use
does what its miss would have done.
"""

from typing import NamedTuple, Self

from specmd.policy import (
    Core,
    Event,
    Experts,
    Ladder,
    Share,
    World,
    choose_one,
    climb,
    come,
    come_ahead,
    go,
    last_evictable,
    look_back,
    make_experts,
    make_ladder,
    oldest,
    policy,
    step_off,
    step_on,
    use,
)

RESIDENT = 0


@policy("lecar", source="Vietri et al., HotStorage 2018", remembers=True, compiled=True)
class LeCaR(NamedTuple):
    """The two experts, with the residents by last use, and the residents by uses."""

    experts: Experts
    ladder: Ladder

    @classmethod
    def create(cls, world: World, *, rate: Share = 0.45) -> Self:
        """Build the empty orders."""
        return cls(make_experts(world, rate, 0.005), make_ladder(world.num_keys, world.pools))

    def on_event(self, event: Event) -> None:
        """Learn from the misses."""
        look_back(self.experts, event)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Move to the front and one rung up."""
        use(self.experts, key, event.clock)
        climb(self.ladder, key, event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with this use, and those that are remembered."""
        step_on(self.ladder, pool, key, come(self.experts, key), event.clock)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter with the uses that are remembered."""
        step_on(self.ladder, pool, key, come_ahead(self.experts, key), event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave both orders."""
        step_off(self.ladder, key)
        go(self.experts, key, event.clock)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Draw one of the two that are named."""
        stalest = oldest(self.experts.queues, pool, RESIDENT, core)
        rarest = last_evictable(self.ladder.lists, pool, core)
        return choose_one(self.experts, pool, stalest, rarest, event.clock)

    def metrics(self) -> dict[str, float]:
        """Say how much LRU is trusted in the end, LFU has the rest."""
        return {"recency_weight": float(self.experts.weight.mean())}
