"""Two lists of residents, two of ghosts, and a balance that learns: what the ARC family shares.

N. Megiddo and D. S. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, fig. 4;
S. Bansal and D. S. Modha, "CAR: clock with adaptive replacement", FAST 2004, fig. 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import NOBODY, FloatArray, IntArray, World
from specmd.core.order.queues import (
    NOWHERE,
    USED,
    Queues,
    first_use,
    leave_to,
    length,
    make_queues,
    move,
    move_oldest,
)

ONCE, AGAIN, ONCE_GHOST, AGAIN_GHOST = range(4)  # T1, T2, B1, B2 of the papers


class Balance(NamedTuple):
    """Four queues a pool, and how long ONCE should be."""

    queues: Queues
    target: FloatArray  # (pools,)
    slots: IntArray  # (pools,)
    new: IntArray  # (1,) how many keys, 0 or 1, that are in no queue are about to enter


def make_balance(world: World) -> Balance:
    """Build the empty lists."""
    target, new = np.zeros(world.pools), np.zeros(1, np.int64)
    return Balance(make_queues(world, 4), target, world.capacity, new)


def expect(balance: Balance, incoming: int) -> int:
    """Note which key is to enter; tell the ghosts' queue that it is in, NOWHERE if in none."""
    queues = balance.queues
    balance.new[0] = 0
    if incoming == NOBODY:
        return NOWHERE
    balance.new[0] = queues.where[incoming] == NOWHERE and queues.origin[incoming] == USED
    return queues.where[incoming]


def learn(balance: Balance, pool: int, ghost: int) -> None:
    """Move the target by the ratio of the ghosts' lengths, at least by one.

    The key that was missed is in neither list any more, and is counted. Nothing is learnt of a key
    that was no ghost.
    """
    ones = length(balance.queues, pool, ONCE_GHOST)
    agains = length(balance.queues, pool, AGAIN_GHOST)
    target = balance.target[pool]
    if ghost == ONCE_GHOST:
        most = float(balance.slots[pool])
        balance.target[pool] = min(most, target + max(1.0, agains / (ones + 1)))
    elif ghost == AGAIN_GHOST:
        balance.target[pool] = max(0.0, target - max(1.0, ones / (agains + 1)))


def belongs(balance: Balance, pool: int, key: int) -> int:
    """Tell the list of a key now used: AGAIN, but ONCE on the first use of a new prefetched one.

    That use does what the key's miss would have done: it also learns, if the key was a ghost.
    """
    origin = first_use(balance.queues, key)
    learn(balance, pool, origin)
    return ONCE if origin == NOWHERE else AGAIN


def retire(balance: Balance, pool: int, key: int) -> None:
    """Make a ghost of a key that leaves, unless it was never used.

    The oldest ghost goes where ONCE and its ghosts, with the key to come, outgrow the slots, or all
    four lists outgrow them twice.
    """
    queues, slots = balance.queues, balance.slots[pool]
    ghost = ONCE_GHOST if queues.where[key] == ONCE else AGAIN_GHOST
    move(queues, pool, key, leave_to(queues, key, ghost))
    ones = length(queues, pool, ONCE) + length(queues, pool, ONCE_GHOST) + balance.new[0]
    agains = length(queues, pool, AGAIN) + length(queues, pool, AGAIN_GHOST)
    if ones > slots:
        move_oldest(queues, pool, ONCE_GHOST, NOWHERE)
    elif ones + agains > 2 * slots:
        move_oldest(queues, pool, AGAIN_GHOST, NOWHERE)
