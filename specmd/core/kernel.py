"""Bind the residency core to a policy and a link, compiled or interpreted.

A policy whose class is a NamedTuple of arrays and numbers is compiled. Any other class, with
whatever Python objects it likes, is interpreted: the same core then runs over Python lists, which
Python indexes several times faster than arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from specmd.core import hooks as policy_hooks
from specmd.core import link_hooks
from specmd.core import prefetch as prefetching
from specmd.core import serve as residency
from specmd.core.event import NOBODY, Event
from specmd.core.specialise import specialise

POLICY_HOOKS: tuple[Callable[..., Any], ...] = (
    policy_hooks.on_event,
    policy_hooks.on_use,
    policy_hooks.on_insert,
    policy_hooks.on_prefetch,
    policy_hooks.on_evict,
    policy_hooks.victim,
)
_NOBODY = int(NOBODY)
LINK_HOOKS: tuple[Callable[..., Any], ...] = (
    link_hooks.settle,
    link_hooks.promote,
    link_hooks.withdraw,
    link_hooks.reclaim,
    link_hooks.await_landing,
    link_hooks.fetch,
    link_hooks.prefetch,
    link_hooks.execute,
)


def is_compiled(cls: type) -> bool:
    """Whether a policy class is in the compiled form: a NamedTuple."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def bind_replay(
    policy: type, link: type, *, sequential: bool, compiled: bool
) -> Callable[..., None]:
    """Return `residency.run` (or `run_sequential`) for a policy class and a link class."""
    entry = residency.run_sequential if sequential else residency.run
    return specialise(entry, bind_hooks(policy, link), compiled)


def bind_hooks(policy: type, link: type) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what the names stand for by which the core calls a policy and a link."""
    bindings: dict[Callable[..., Any], Callable[..., Any]] = {
        hook: getattr(link, hook.__name__, hook) for hook in LINK_HOOKS
    }
    for hook in POLICY_HOOKS:
        bindings[hook] = getattr(policy, hook.__name__, hook)
    if not hasattr(policy, "victim"):
        bindings[policy_hooks.victim] = _least_ranked(policy)
    elif not is_compiled(policy):
        bindings[policy_hooks.victim] = _ask_with_candidates
    return bindings


def bind_plan(prefetcher: type, *, compiled: bool) -> Callable[..., int]:
    """Return `prefetching.plan` for a prefetcher class."""
    return specialise(prefetching.plan, bind_predict(prefetcher), compiled)


def bind_predict(prefetcher: type) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what the name stands for by which a prefetcher is asked."""
    return {prefetching.predict: prefetcher.predict}  # type: ignore[attr-defined]


class Candidates:
    """The keys of a pool that may leave now, as an ordinary Python policy sees them.

    Iterating gives them by falling key, so that the first of equals is the one the tie rule
    evicts; `key in candidates` is the cheap test for policies that keep an order of their own.
    """

    __slots__ = ("_core", "_pool")

    def __init__(self, core: residency.Core, pool: int) -> None:
        self._core = core
        self._pool = pool

    def __contains__(self, key: Any) -> bool:
        core = self._core
        if core.hold[key] or core.state[key] != residency.READY or core.pool[key] != self._pool:
            return False
        return core.guard[0] < 0 or residency.evictable(core, key)

    def __iter__(self) -> Iterator[int]:
        return (key for key in range(len(self._core.state) - 1, -1, -1) if key in self)


def _ask_with_candidates(
    policy: Any, incoming: int, pool: int, core: residency.Core, event: Event
) -> int:
    candidates = Candidates(core, pool)
    key = policy.victim(candidates, incoming, event)
    if key is None:
        return _NOBODY
    if not isinstance(key, int) or not 0 <= key < len(core.state) or key not in candidates:
        raise ValueError(f"{type(policy).__name__}.victim returned {key!r}, not a candidate")
    return key


def _least_ranked(policy: type) -> Callable[..., int]:
    """Victim by full scan for policies that only define `rank` (smallest leaves first)."""
    from specmd.core.order.scan import least_ranked, rank

    if not hasattr(policy, "rank"):
        raise TypeError(f"policy {policy.__name__} defines neither victim nor rank")
    return specialise(least_ranked, {rank: policy.rank}, compiled=False)


def as_lists(value: Any) -> Any:
    """Copy a tuple of arrays (nested) into one of lists, for interpreted runs."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.ndim == 1 else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        parts = [as_lists(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
