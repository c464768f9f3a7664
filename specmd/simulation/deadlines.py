"""Deadlines on a clock: when a prefetch is expected to arrive, and when its event to begin.

Nobody knows how long the events ahead will take; they are taken to last as those of late did. The
arrival is that of an idle demand queue: behind this event's copies, what is under way, and what is
queued and due no later.
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import Event
from specmd.core.state import Core
from specmd.simulation.costs import transfer_s
from specmd.simulation.lanes import IDLE, Lanes

FADE = 0.125  # weight of the last event in the mean
# Entries of `TimedLink.pace_s`.
ROUTED, LASTS, SEEN = range(3)


def note_event(pace_s: Any, routed_s: float) -> None:
    """Note when an event's routing was known; `pace_s` holds that, the mean time, and a count."""
    if pace_s[SEEN] > 0.0:
        took_s = routed_s - pace_s[ROUTED]
        pace_s[LASTS] += (took_s - pace_s[LASTS]) * (1.0 if pace_s[SEEN] < 2.0 else FADE)
    pace_s[SEEN] += 1.0
    pace_s[ROUTED] = routed_s


def arrives_in_time(clock: Any, core: Core, key: int, due: int, event: Event) -> bool:
    """Tell whether a prefetch issued now is expected to be whole when its event begins."""
    if clock.pace_s[SEEN] < 2.0:
        return True
    lanes, lane = clock.lanes, len(clock.lanes.queued) - 1
    routed_s = clock.pace_s[ROUTED]
    at_s = max(routed_s, lanes.free_s[lane]) + transfer_s(clock.costs, clock.whole[key])
    for i in range(clock.count[0]):
        at_s += lanes.remaining_s[clock.demand[i]]
    at_s += waiting_s(lanes, core, lane, due)
    return bool(at_s <= routed_s + (due - event.clock) * clock.pace_s[LASTS])


def waiting_s(lanes: Lanes, core: Core, lane: int, due: int) -> float:
    """Seconds of transfer that go before a prefetch of a due."""
    found = 0.0
    if lanes.under_way[lane] != IDLE:
        found += lanes.remaining_s[lanes.under_way[lane]]
    for i in range(lane * lanes.keys, lane * lanes.keys + lanes.queued[lane]):
        if core.due[lanes.queue[i]] <= due:
            found += lanes.remaining_s[lanes.queue[i]]
    return found
