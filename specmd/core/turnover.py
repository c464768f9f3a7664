"""Turnover: who leaves a slot, who enters one ahead of its use, and whom the policy is told of."""

from __future__ import annotations

from typing import Any

from specmd.core.event import NOBODY, Event
from specmd.core.hooks import on_evict, on_prefetch, on_use, victim
from specmd.core.state import (
    BEFORE,
    EVICTIONS,
    FETCHED_EVER,
    FROZEN,
    LOG_CANCEL,
    LOG_EVICT,
    NUM_COUNTERS,
    PREFETCH_CANCELLED,
    PREFETCH_WASTED,
    PREFETCHED,
    UNUSED_EVICTIONS,
    USED,
    Core,
    give_back,
    log,
    take_free,
    unseat,
)


def evict(core: Core, policy: Any, key: int, row: int, event: Event) -> int:
    """Remove a key from the cache; return the slot it leaves, which is not free yet."""
    core.counters[row + EVICTIONS] += 1
    if not core.mark[key] & USED:
        core.counters[row + UNUSED_EVICTIONS] += 1
        if core.mark[key] & PREFETCHED != 0:
            layer = event.phase * event.num_layers + key // event.num_experts
            core.counters[layer * NUM_COUNTERS + PREFETCH_WASTED] += 1  # its bytes are those
    core.evicted_step[key] = event.step
    note_left(core, policy, key, event)
    log(core, LOG_EVICT, key)
    return unseat(core, key)


def cancel(core: Core, policy: Any, key: int, row: int, event: Event) -> None:
    """Take back a prefetch that has not started, as if never issued; its slot becomes free."""
    core.counters[row + PREFETCH_CANCELLED] += 1
    core.hold[key] -= 1
    note_left(core, policy, key, event)
    log(core, LOG_CANCEL, key)
    give_back(core, core.pool[key], unseat(core, key))
    core.mark[key] = core.mark[key] // BEFORE * FETCHED_EVER


def has_budget(core: Core, event: Event) -> bool:
    """Tell whether one more prefetch may be issued in this step."""
    if core.budget == 0:
        return True
    if core.guard[2] != event.step:
        core.guard[2] = event.step
        core.guard[3] = 0
    return core.guard[3] < core.budget


# What staging does otherwise (`specmd.core.staging`).


def slot_ahead(
    core: Core, policy: Any, key: int, pool: int, due: int, row: int, event: Event
) -> Any:
    """Return a slot for a prefetch: a free one, else that of whom the policy names."""
    slot = take_free(core, pool)
    if slot == NOBODY and core.admission[0] != FROZEN:
        core.guard[0] = due if core.guarded else -1
        leaving = victim(policy, key, pool, core, event)
        core.guard[0] = -1
        if leaving != NOBODY:
            slot = evict(core, policy, leaving, row, event)
    return slot


def note_ahead(core: Core, policy: Any, key: int, pool: int, event: Event) -> None:
    """Tell the policy of a key that is fetched ahead."""
    on_prefetch(policy, key, pool, event)


def note_use(core: Core, policy: Any, key: int, event: Event) -> None:
    """Tell the policy of a use."""
    on_use(policy, key, core.pool[key], event)


def note_left(core: Core, policy: Any, key: int, event: Event) -> None:
    """Tell the policy of a key that left."""
    on_evict(policy, key, core.pool[key], event)


def admit_staged(core: Core, policy: Any, row: int, event: Event) -> None:
    """Admit the staged keys of U: there are none."""
