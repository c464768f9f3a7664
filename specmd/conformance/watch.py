"""A watch over the residency core: a link and a `victim` that look at every decision.

They are bound to the core like any link and policy (see specmd.core.specialise), so what is checked
is what happened, not what a second implementation says should have. The first rule that is broken
ends the run: what follows would only be its echo.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from specmd.core import serve as residency
from specmd.core.event import NOBODY, Event, World
from specmd.core.kernel import POLICY_HOOKS, Candidates, is_compiled
from specmd.core.order.scan import least_ranked, rank
from specmd.core.serve import Core, land
from specmd.core.specialise import specialise
from specmd.runs.counters import AccountingError, check

CAPACITY = "resident never above capacity"
VICTIMS = "only what may leave is evicted"
FETCHES = "every miss fetched exactly once"
COUNTERS = "counters add up"


class Violation(Exception):  # noqa: N818 - what the suite looks for, not an error of its own
    """A rule was broken: the rule, and what was seen."""


class Watch:
    """A link that lands everything before the next event, like `immediate`, and looks on."""

    def __init__(self, world: World) -> None:
        self.capacity = world.capacity.tolist()
        self.pending: list[int] = []
        self.missing: set[int] = set()
        self.fetched: list[int] = []
        self.moved = 0

    def settle(self, core: Core, event: Event) -> None:
        """Land the prefetches; between two events nothing may be above capacity or held."""
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
        self.moved += core.state[key] != residency.EMPTY

    def prefetch(self, core: Core, key: int, score: float, event: Event) -> None:
        """Queue a copy; it lands before the next event."""
        self.pending.append(key)
        self.moved += 1

    def execute(self, core: Core, event: Event) -> None:
        """All is decided: the misses have been fetched, all of U that was resident still is."""
        if sorted(self.fetched) != sorted(self.missing):
            raise Violation(FETCHES, f"missing {sorted(self.missing)}, fetched {self.fetched}")
        for key in event.keys[event.start : event.stop]:
            if core.state[key] == residency.EMPTY and key not in self.missing:
                raise Violation(VICTIMS, f"key {key} left in the event that uses it")

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


def watched_class(cls: type) -> type:
    """Build a class with the hooks of a policy class, its `victim` under watch."""
    ask = _question(cls)

    def victim(policy: Any, incoming: int, pool: int, core: Core, event: Event) -> int:
        key = ask(policy, incoming, pool, core, event)
        may_leave = Candidates(core, pool)
        if key == NOBODY:
            able = next(iter(may_leave), None)
            if able is not None:
                raise Violation(VICTIMS, f"victim named no key, though {able} may leave")
            return int(NOBODY)
        if not (isinstance(key, int) and 0 <= key < len(core.state)):
            raise Violation(VICTIMS, f"victim returned {key!r}, which is not a key")
        if key not in may_leave:
            why = "is not resident"
            if core.pool[key] != pool:
                why = f"is of pool {core.pool[key]}, not {pool}"
            elif core.state[key] != residency.EMPTY:
                why = "may not leave now"
            raise Violation(VICTIMS, f"victim returned key {key}, which {why}")
        return int(key)

    hooks = {hook.__name__ for hook in POLICY_HOOKS} - {"victim"}
    named = {name: getattr(cls, name) for name in hooks if hasattr(cls, name)}
    return type(cls.__name__, (tuple,), {**named, "_fields": (), "victim": victim})


def _question(cls: Any) -> Callable[..., Any]:
    """How a class is asked for a victim: as the core does, see specmd.core.kernel."""
    if not hasattr(cls, "victim"):
        return specialise(least_ranked, {rank: cls.rank}, compiled=False)
    if is_compiled(cls):
        return cls.victim  # type: ignore[no-any-return]

    def ask(policy: Any, incoming: int, pool: int, core: Core, event: Event) -> Any:
        key = policy.victim(Candidates(core, pool), incoming, event)
        return NOBODY if key is None else key

    return ask
