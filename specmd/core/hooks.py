"""The questions the residency core asks an eviction policy: names to be bound, never called.

`specmd.core.specialise` replaces these placeholders by the methods of a policy class. A policy
defines the ones it needs; the rest do nothing.
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import NOBODY, Event


def on_event(policy: Any, event: Event) -> None:
    """Tick: called once per event, before anything is classified."""


def on_use(policy: Any, key: int, event: Event) -> None:
    """Note that a resident (or arriving) key of U is used."""


def on_insert(policy: Any, key: int, event: Event) -> None:
    """Note that a missed key of U enters; this is its use in this event, too."""


def on_prefetch(policy: Any, key: int, event: Event) -> None:
    """Note that a key enters ahead of its use; it counts as touched, not as used."""


def on_evict(policy: Any, key: int, event: Event) -> None:
    """Note that a key left; called for every key that leaves, whoever chose it."""


def victim(policy: Any, incoming: int, pool: int, core: Any, event: Event) -> Any:
    """Choose an evictable resident key of the pool to make room for `incoming`.

    NOBODY if none may leave. `incoming` is NOBODY where no key enters (a wide event narrows).
    """
    return NOBODY
