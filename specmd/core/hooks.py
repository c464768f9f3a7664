"""Every question the core asks: a policy, a prefetcher, a link, a tier. Names, never called.

`specmd.core.kernel` puts the methods of a class in their place. A class defines the ones it needs;
the rest do nothing, but that `on_prefetch` is `on_insert` where a policy does not tell them apart.
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import NOBODY, Event


def on_event(policy: Any, event: Event) -> None:
    """Tick: called once per event, before anything is classified."""


def on_use(policy: Any, key: int, pool: int, event: Event) -> None:
    """Note that a resident (or arriving) key of U is used."""


def on_insert(policy: Any, key: int, pool: int, event: Event) -> None:
    """Note that a missed key of U enters; this is its use in this event, too."""


def on_prefetch(policy: Any, key: int, pool: int, event: Event) -> None:
    """Note that a key enters ahead of its use; it counts as touched, not as used."""


def on_evict(policy: Any, key: int, pool: int, event: Event) -> None:
    """Note that a key left; called for every key that leaves, whoever chose it."""


def victim(policy: Any, incoming: int, pool: int, core: Any, event: Event) -> Any:
    """Choose an evictable resident key of the pool to make room for `incoming`.

    NOBODY if none may leave. `incoming` is NOBODY where no key enters (a wide event narrows).
    """
    return NOBODY


def rank(policy: Any, key: int, event: Event) -> float:
    """Rank a resident key, smallest leaves first: what a policy may have in place of `victim`."""
    return 0.0


def predict(prefetcher: Any, event: Event, outlook: Any, proposals: Any) -> None:
    """Learn from an event and propose keys (see `specmd.core.prefetch`)."""


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


def compute_on_host(link: Any, core: Any, key: int, tokens: int, event: Event) -> None:
    """Start computing a missed key where it is, for so many tokens of the event."""


def prefetch(link: Any, core: Any, key: int, score: float, event: Event) -> None:
    """Queue a copy ahead of its use."""


def execute(link: Any, core: Any, event: Event) -> None:
    """Compute the event's experts, each no sooner than it is there."""


def conclude(link: Any, core: Any) -> None:
    """Begin what is still queued: no event follows, or none before the cache is emptied."""


def stage(tier: Any, key: int, step: int, phase: int) -> bool:
    """Ask what lies behind the link for a key whose transfer begins; False: it is read first.

    A link asks it, once a transfer. Without a tier every key is there (see `specmd.core.tier`).
    """
    return True
