"""ARC: two LRU lists, of keys used once and used again, whose balance learns from regrets.

N. Megiddo and D. S. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003. A miss
on a key that left a list lately moves the balance towards that list. Where the list to take from
holds only held keys, the other one gives. A prefetch is no use: a prefetched key's first use does
what its miss would have done, and one that leaves unused goes back to where it was known.
"""

from typing import NamedTuple, Self

from specmd.policy import (
    NOWHERE,
    Balance,
    Core,
    Event,
    World,
    belongs,
    bring,
    expect,
    is_known,
    learn,
    length,
    make_balance,
    make_way,
    move,
    older,
    policy,
    retire,
)

ONCE, AGAIN, ONCE_GHOST, AGAIN_GHOST = range(4)  # T1, T2, B1, B2 of the paper


@policy("arc", source="Megiddo and Modha, FAST 2003", remembers=True, compiled=True)
class ARC(NamedTuple):
    """The four lists and the wanted size of ONCE."""

    balance: Balance

    @classmethod
    def create(cls, world: World) -> Self:
        """Build the empty lists."""
        return cls(make_balance(world))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Move to the front of AGAIN; on the first use after a prefetch, as a miss would."""
        move(self.balance.queues, pool, key, belongs(self.balance, pool, key))

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter AGAIN if remembered, else ONCE."""
        known = is_known(self.balance.queues, key)
        move(self.balance.queues, pool, key, AGAIN if known else ONCE)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter ONCE: nothing has been used."""
        bring(self.balance.queues, pool, key, ONCE)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Become a ghost."""
        retire(self.balance, pool, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Learn from the regret, then take from the list that is longer than it should be."""
        queues, ghost, regret = self.balance.queues, expect(self.balance, incoming), False
        for i in range(event.start, event.stop):
            regret |= ghost != NOWHERE and event.keys[i] == incoming
        if regret:
            bring(queues, pool, incoming, NOWHERE)
            learn(self.balance, pool, ghost)
        ones, target = length(queues, pool, ONCE), self.balance.target[pool]
        too_many = ones > target or (ones == target and ghost == AGAIN_GHOST)
        first, then = (ONCE, AGAIN) if ones >= 1 and too_many else (AGAIN, ONCE)
        return make_way(queues, pool, incoming, older(queues, pool, first, then, core))

    def metrics(self) -> dict[str, float]:
        """Say where the balance came to stand: the wanted size of ONCE, of all pools."""
        return {"target": float(self.balance.target.sum())}
