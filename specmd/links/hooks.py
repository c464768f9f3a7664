"""What the residency core asks of a link: names to be bound, never called (see specmd.kernel)."""

from __future__ import annotations

from typing import Any

from specmd.policy.event import Event


def settle(link: Any, core: Any, event: Event) -> None:
    """Bring the link to the moment this event's routing is known; land what has arrived."""


def promote(link: Any, core: Any, key: int) -> None:
    """A loading prefetch is demanded: treat it as demand from now on."""


def withdraw(link: Any, core: Any, event: Event) -> None:
    """The event's true routing is known: cancel queued prefetches for it that were wrong."""


def make_room(link: Any, core: Any, pool: int) -> bool:
    """No key may leave: free a slot, or make a key evictable, by cancelling or waiting."""
    return False


def fetch(link: Any, core: Any, key: int, event: Event) -> None:
    """Start a demand copy. `core.slot[key]` is its slot, -1 when it only streams through."""


def prefetch(link: Any, core: Any, key: int, score: float, event: Event) -> None:
    """Queue a copy ahead of its use."""


def execute(link: Any, core: Any, event: Event) -> None:
    """Compute the event's experts, each no sooner than it is there."""
