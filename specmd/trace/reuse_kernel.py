"""The compiled loop of `specmd.trace.reuse`; importing it imports numba."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(cache=True)
def advance(keys: Any, last: Any, owner: Any, tree: Any, bins: Any, state: Any) -> None:
    """Take `keys` one by one and count their distances into `bins`; all arrays are int64.

    `last` (num_keys,) is the moment of a key's last use or -1, `owner` (slots,) the key of each
    moment or -1, `tree` (slots + 1,) the Fenwick tree over moments that are some key's last use,
    and `state` the clock, the first uses and the uses so far.
    """
    slots = owner.shape[0]
    clock = state[0]
    live = 0
    for key in range(last.shape[0]):
        live += last[key] >= 0
    for key in keys:
        if clock == slots:
            clock = 0
            for moment in range(slots):
                kept = owner[moment]
                if kept >= 0:
                    owner[moment] = -1
                    owner[clock] = kept
                    last[kept] = clock
                    clock += 1
            for node in range(1, slots + 1):
                low = node & -node
                # Moments 0..clock-1 are all in use now: count those that this node covers.
                begin = node - low
                tree[node] = max(0, min(node, clock) - begin)
        moment = last[key]
        if moment < 0:
            state[1] += 1
            live += 1
        else:
            older = 0
            node = moment + 1
            while node > 0:
                older += tree[node]
                node -= node & -node
            distance = live - older
            width = 0
            while distance > 0:
                width += 1
                distance >>= 1
            bins[width] += 1
            owner[moment] = -1
            node = moment + 1
            while node <= slots:
                tree[node] -= 1
                node += node & -node
        last[key] = clock
        owner[clock] = key
        node = clock + 1
        while node <= slots:
            tree[node] += 1
            node += node & -node
        clock += 1
    state[0] = clock
    state[2] += keys.shape[0]
