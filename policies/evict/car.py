"""CAR: ARC with two clocks in place of its lists: a hit sets a bit, and whoever needs room looks.

S. Bansal, D. S. Modha, "CAR: clock with adaptive replacement", FAST 2004, fig. 2. A key used since
it entered T1 goes over to T2 when the hand comes by. A miss on a ghost moves the balance, after
room was made for it. Where one clock holds only held keys, the other one gives. A prefetched key's
first use does what its miss would have done.
"""

from typing import NamedTuple, Self

from specmd.policy import (
    NOBODY,
    NOWHERE,
    USED,
    Balance,
    Core,
    Event,
    World,
    belongs,
    bring,
    expect,
    make_balance,
    make_way,
    move,
    policy,
    retire,
    sweep,
    sweep_up,
)

ONCE, AGAIN = range(2)  # T1, T2 of the paper


@policy("car", source="Bansal and Modha, FAST 2004", remembers=True, compiled=True)
class CAR(NamedTuple):
    """The clocks, their ghosts, and the wanted size of ONCE."""

    balance: Balance

    @classmethod
    def create(cls, world: World) -> Self:
        """Build the empty clocks."""
        return cls(make_balance(world))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Set the bit; the first use of a prefetched key is a miss that found its room."""
        if self.balance.queues.origin[key] == USED:
            self.balance.queues.uses[key] = 1
        else:
            move(self.balance.queues, pool, key, belongs(self.balance, pool, key))

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Learn, and enter AGAIN if remembered, else ONCE."""
        bring(self.balance.queues, pool, key, NOWHERE)
        move(self.balance.queues, pool, key, belongs(self.balance, pool, key))

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter ONCE: nothing has been used."""
        bring(self.balance.queues, pool, key, ONCE)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Become a ghost."""
        retire(self.balance, pool, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Sweep ONCE while it has its size, then AGAIN; then what is left of both."""
        queues = self.balance.queues
        expect(self.balance, incoming)
        key = sweep_up(queues, pool, ONCE, AGAIN, 1, max(1.0, self.balance.target[pool]), core)
        if key == NOBODY:
            key = sweep(queues, pool, AGAIN, core)
        if key == NOBODY:
            key = sweep_up(queues, pool, ONCE, AGAIN, 1, 0.0, core)
        if key == NOBODY:
            key = sweep(queues, pool, AGAIN, core)
        return make_way(queues, pool, incoming, key)
