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


def observe(gate: Any, event: Event) -> None:
    """Let an admission policy see an event, before anything of it is classified."""


def admits(gate: Any, key: int, pool: int, core: Any, event: Event) -> bool:
    """Tell whether a missed key may enter; asked before a slot is looked for."""
    return True


def admits_ahead(gate: Any, key: int, pool: int, core: Any, event: Event) -> bool:
    """Tell whether a prefetched key may enter; a refused one counts as dropped."""
    return True


def outweighs(gate: Any, key: int, leaving: int, core: Any, event: Event) -> bool:
    """Tell whether a missed key may enter in the place of the one that would leave for it."""
    return True


def own_victim(policy: Any, incoming: int, pool: int, core: Any, event: Event) -> Any:
    """Choose as the policy itself does, where `victim` looks at the answer first."""
    return NOBODY


def own_rank(policy: Any, key: int, event: Event) -> float:
    """Rank as the policy itself does, where `rank` looks at the answer first."""
    return 0.0


def own_route(router: Any, event: Event, rows: Any, core: Any) -> None:
    """Choose as the policy itself does, where `route` looks at the choice afterwards."""


def own_answer(misser: Any, key: int, event: Event, rows: Any, core: Any) -> int:
    """Answer as the policy itself does, where `answer` looks at that first."""
    return 0


def predict(prefetcher: Any, event: Event, outlook: Any, proposals: Any) -> None:
    """Learn from an event and propose keys (see `specmd.core.prefetch`)."""


def reroute(core: Any, chunk: Any, index: int, event: Event) -> Event:
    """Return the event that is served in place of the true one (see `specmd.core.execution`)."""
    return event


def rerouted(core: Any, event: Event) -> Event:
    """Return it again."""
    return event


def answer_misses(core: Any, policy: Any, link: Any, row: int, event: Event, missing: int) -> int:
    """Decide what is done about each missing key; return how many are to be fetched."""
    return missing


def close(core: Any, event: Event) -> Event:
    """Account for what was executed; return the event as it is computed."""
    return event


def moved_bytes(core: Any, key: int, n_bytes: float) -> float:
    """Return the bytes of a key's copy, given those of the expert."""
    return n_bytes


def route(router: Any, event: Event, rows: Any, core: Any) -> None:
    """Change the executed choice of the event's tokens (`rows`), which is the true one so far."""


def prepare(misser: Any, event: Event, core: Any, missing: int) -> None:
    """Look at an event's missing keys, the first of `core.missing`, before any is asked about."""


def answer(misser: Any, key: int, event: Event, rows: Any, core: Any) -> int:
    """Say what is done about a missing key: 0, it is fetched."""
    return 0


def ask(prefetcher: Any, event: Event, outlook: Any, proposals: Any) -> None:
    """Let the prefetcher that another is made of predict."""


def staged(core: Any, key: int) -> bool:
    """Tell whether a key is staged, see `specmd.core.staging`."""
    return False


def reserved(core: Any, pool: int) -> int:
    """Count the free slots of a pool that a miss may not take."""
    return 0


def in_time(link: Any, core: Any, key: int, due: int, event: Event) -> bool:
    """Tell whether a prefetch issued now is expected to arrive before it is due."""
    return True


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


def defer(link: Any, core: Any, key: int, tokens: int, event: Event) -> None:
    """Start computing a missed key where it is; the next event of the step waits for it."""


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
