"""What the residency core asks of a link: names to be bound, never called."""

from __future__ import annotations

from typing import Any

from specmd.core.event import NOBODY, Event


def settle(link: Any, core: Any, event: Event) -> None:
    """Bring the link to the moment this event's routing is known; land what has arrived."""


def promote(link: Any, core: Any, key: int) -> None:
    """Treat a loading prefetch, now demanded, as demand from now on."""


def withdraw(link: Any, core: Any, event: Event) -> int:
    """Unqueue a prefetch meant for this event whose key is not in U; NOBODY if there is none."""
    return NOBODY


def reclaim(link: Any, core: Any, pool: int) -> int:
    """Unqueue the last queued prefetch of a pool that has not started; NOBODY if there is none."""
    return NOBODY


def await_landing(link: Any, core: Any, pool: int) -> bool:
    """Wait until a prefetch under way into the pool has landed; False if none is."""
    return False


def fetch(link: Any, core: Any, key: int, event: Event) -> None:
    """Start a demand copy into `core.slot[key]`; -1 when the key only streams through."""


def prefetch(link: Any, core: Any, key: int, score: float, event: Event) -> None:
    """Queue a copy ahead of its use."""


def execute(link: Any, core: Any, event: Event) -> None:
    """Compute the event's experts, each no sooner than it is there."""
