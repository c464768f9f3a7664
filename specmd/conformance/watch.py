"""A watch over the residency core: a link and a `victim` that look at every decision.

They are bound to the core like any link and policy (see specmd.core.specialise), so what is checked
is what happened, not what a second implementation says should have. The first rule that is broken
ends the run: what follows would only be its echo.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from specmd.conformance.sources import place_of
from specmd.core import hooks
from specmd.core import state as residency
from specmd.core.binding import POLICY_HOOKS, Maker, bind_policy, candidates, may_leave
from specmd.core.event import NOBODY, Event, World
from specmd.core.interpreted import Open, as_lists, open_form
from specmd.core.order.heap import Heap
from specmd.core.specialise import specialise
from specmd.core.state import Core, land
from specmd.runs.counters import AccountingError, check

CAPACITY = "resident never above capacity"
VICTIMS = "only what may leave is evicted"
FETCHES = "every miss fetched exactly once"
COUNTERS = "counters add up"
RANKS = "ranks are numbers"
ROWS_ADD_UP = "kept, low-bit, substituted and dropped mass add up"
UNTOUCHED = "writes to nothing but itself"


class Violation(Exception):  # noqa: N818 - what the suite looks for, not an error of its own
    """A rule was broken: the rule, and what was seen."""


class Watch:
    """A link that lands everything before the next event, like `immediate`, and looks on."""

    def __init__(self, world: World) -> None:
        self.world, self.popularity = world, world.popularity.copy()
        self.capacity = world.capacity.tolist()
        self.pending: list[int] = []
        self.missing: set[int] = set()
        self.fetched: list[int] = []
        self.moved = 0
        self.event: Event | None = None
        self.told: tuple[list[Any], ...] = ()

    def settle(self, core: Core, event: Event) -> None:
        """Land the prefetches; between two events nothing may be above capacity or held."""
        self.compare()
        self.event, self.told = event, _told(event)
        for key in self.pending:
            land(core, key)
        self.pending.clear()
        self.count_residents(core)
        demanded = event.keys[event.start : event.stop]
        self.missing = {key for key in demanded if core.state[key] == residency.EMPTY}
        self.fetched = []

    def fetch(self, core: Core, key: int, event: Event) -> None:
        """Note a demand fetch."""
        self.fetched.append(key)
        self.moved += 1

    def prefetch(self, core: Core, key: int, score: float, event: Event) -> None:
        """Queue a copy; it lands before the next event."""
        self.pending.append(key)
        self.moved += 1

    def execute(self, core: Core, event: Event) -> None:
        """All is decided: the misses have been fetched, all of U that was resident still is."""
        self.compare()
        if sorted(self.fetched) != sorted(self.missing):
            raise Violation(FETCHES, f"missing {sorted(self.missing)}, fetched {self.fetched}")
        for key in event.keys[event.start : event.stop]:
            if core.state[key] == residency.EMPTY and key not in self.missing:
                raise Violation(VICTIMS, f"key {key} left in the event that uses it")

    def compare(self) -> None:
        """Look whether anybody wrote to the event, or to the sizes of the world."""
        if self.event is not None and _told(self.event) != self.told:
            raise Violation(UNTOUCHED, f"the event at clock {self.event.clock} was written to")
        same = np.array_equal(self.world.popularity, self.popularity)
        if not same or self.world.capacity.tolist() != self.capacity:
            raise Violation(UNTOUCHED, "the arrays of `world` were written to")

    def count_residents(self, core: Core) -> int:
        """Count the resident keys, pool by pool, against the capacity."""
        counts = [0] * len(self.capacity)
        for key, state in enumerate(core.state):
            counts[core.pool[key]] += state != residency.EMPTY
            if core.hold[key] != 0:
                raise Violation(VICTIMS, f"key {key} is held between two events")
        for pool, count in enumerate(counts):
            if count > self.capacity[pool]:
                raise Violation(
                    CAPACITY, f"pool {pool} of {self.capacity[pool]} slots holds {count} keys"
                )
        return sum(counts)

    def conclude(self, core: Core) -> None:
        """End the run: what came in has left or is there."""
        self.compare()
        for key in self.pending:
            land(core, key)
        residents = self.count_residents(core)
        counters = np.array(core.counters).reshape(-1, residency.NUM_COUNTERS)
        left = int(counters[:, (residency.EVICTIONS, residency.BYPASSED)].sum())
        if self.moved != left + residents:
            raise Violation(COUNTERS, f"{self.moved} came in, {left} left, {residents} stay")
        unused = sum(
            state != residency.EMPTY and mark & residency.USED == 0
            for state, mark in zip(core.state, core.mark, strict=True)
        )
        counters[-1, residency.PREFETCH_WASTED] += unused
        try:
            check(counters.reshape(2, -1, residency.NUM_COUNTERS))
        except AccountingError as error:
            raise Violation(COUNTERS, str(error)) from None


class Watched(NamedTuple):
    """A policy whose every victim is looked at; what `Kernel` takes for a policy."""

    choice: Maker
    cls: type
    compiled: bool = True  # its `victim` is called as that of a compiled class is

    @property
    def pins(self) -> bool:
        """As the policy says."""
        return self.choice.pins

    @property
    def frozen(self) -> bool:
        """As the policy says."""
        return self.choice.frozen

    @property
    def renormalises(self) -> bool:
        """No: it is an eviction policy."""
        return False

    def create(self, world: World) -> Any:
        """Build the policy, in lists where its class is in the compiled form."""
        return as_lists(self.choice.create(world))


def watched(choice: Maker) -> Watched:
    """Put the `victim` of a policy under watch."""
    cls = choice.cls
    found = bind_policy(choice)
    ask = found.get(hooks.own_victim, found[hooks.victim])
    place = place_of(cls.victim if hasattr(cls, "victim") else cls.rank)
    if hasattr(cls, "rank") and (choice.compiled or not hasattr(cls, "victim")):
        answer = cls.rank

        def looked_at(policy: Any, key: int, event: Event) -> Any:
            value = answer(policy, key, event)
            if not isinstance(value, int | float | np.number) or value != value:
                raise Violation(RANKS, f"rank of key {key} is {value!r}{place}")
            return value

        ask = specialise(ask, {hooks.rank: looked_at}, compiled=False)
    elif not choice.compiled:
        ask = cls.victim

    def victim(policy: Any, incoming: int, pool: int, core: Any, event: Event) -> int:
        before = [list(part) for part in core if isinstance(part, list)]
        key = ask(policy, incoming, pool, core, event)
        if before != [part for part in core if isinstance(part, list)]:
            raise Violation(UNTOUCHED, f"victim wrote to the core's arrays{place}")
        _look_at_heaps(policy)
        if key is None or key == NOBODY:
            kept = set(policy.kept) if choice.pins else set()
            able = next((key for key in candidates(core, pool) if key not in kept), None)
            if able is not None:
                raise Violation(VICTIMS, f"victim named no key, though {able} may leave{place}")
            return int(NOBODY)
        if not (isinstance(key, int) and 0 <= key < len(core.state)):
            raise Violation(VICTIMS, f"victim returned {key!r}, which is not a key{place}")
        if not may_leave(core, pool, key):
            why = "is not resident"
            if core.pool[key] != pool:
                why = f"is of pool {core.pool[key]}, not {pool}"
            elif core.state[key] != residency.EMPTY:
                why = "may not leave now"
            raise Violation(VICTIMS, f"victim returned key {key}, which {why}{place}")
        return int(key)

    told = (hook for hook in POLICY_HOOKS if hook is not hooks.victim and found[hook] is not hook)
    named = {hook.__name__: _noticing(found[hook]) for hook in told}
    return Watched(choice, type(cls.__name__, (), {**named, "victim": victim}))


def _noticing(hook: Any) -> Any:
    """Return a hook that notices what it writes to the event."""
    if not isinstance(hook, FunctionType):
        return hook  # which the suite has named
    place = place_of(hook)
    hook = specialise(hook, {}, compiled=False)

    def noticing(policy: Any, *told: Any) -> None:
        before, event = _told(told[-1]), told[-1]
        hook(policy, *told)
        if _told(event) != before:
            seen = f"the event at clock {event.clock} was written to{place}"
            raise Violation(UNTOUCHED, seen)

    return noticing


def _told(event: Event) -> tuple[list[Any], ...]:
    """Copy what an event says of its keys."""
    own = slice(event.start, event.stop)
    return list(event.keys[own]), list(event.tokens[own]), list(event.gates[own])


def _look_at_heaps(policy: Any) -> None:
    """Look for ranks that cannot be compared; whatever is below them is lost."""
    for heap in policy if isinstance(policy, Open) else ():
        if isinstance(heap, open_form(Heap)):
            for pool, count in enumerate(heap.count):
                ranks = heap.rank[pool * heap.span : pool * heap.span + count]
                if any(value != value for value in ranks):
                    raise Violation(RANKS, f"a heap holds a rank that is not a number: {ranks}")
