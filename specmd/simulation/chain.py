"""The chain of a timed simulation: a disk, host memory with a cache of its own, the link.

A transfer is one leg or two. When it begins it asks the host for its key (`specmd.core.tier`). What
is there crosses the link; what is not is read from the disk first, and crosses when it is whole.
Each hop is a lane with its own clock, bandwidth, latency and chunks, so the legs of different
transfers overlap, and on both a demand goes ahead of prefetches at the next chunk boundary.

Prefetches wait where the chain begins. The next one begins when the disk is idle and nothing waits
for the link: an expert is read while the one before it crosses, and no more is begun than that, for
what has begun cannot be cancelled.

Host slots are not waited for: a victim's slot is taken as free at once. With two slots or more that
is so, unless the link is slower than the disk, and then the link decides how long it takes.
"""

from __future__ import annotations

from math import inf
from typing import Any, ClassVar

from specmd.core.event import Event
from specmd.core.hooks import stage
from specmd.core.state import Core
from specmd.simulation import timed_link
from specmd.simulation.costs import host_expert_s, read_s, transfer_s
from specmd.simulation.host_lane import wait_for_host
from specmd.simulation.lanes import (
    IDLE,
    begin,
    begin_s,
    best,
    carry,
    end_s,
    enqueue,
    finish,
    interrupt,
    let_rest,
    put_off,
    rest_s,
    rests,
    start_next,
    unqueue,
)
from specmd.simulation.timed_link import LINK, TimedLink
from specmd.simulation.timeline import (
    DEVICE,
    DISK_STALL,
    HOST_KEY,
    LATE_KEY,
    LATER_KEY,
    NUM_PARTS,
    READY_KEY,
)

DISK = 1  # the lane before LINK


def set_out(clock: TimedLink, key: int) -> None:
    """Begin a transfer: ask the host for its key, and put it on the lane of its first leg."""
    lanes = clock.lanes
    lanes.started[key] = 1
    if stage(clock.tier, key, clock.step[key], clock.phase[key]):
        lanes.lane[key] = LINK
        lanes.remaining_s[key] = transfer_s(clock.costs, clock.size[key])
    else:
        lanes.lane[key] = DISK
        lanes.remaining_s[key] = read_s(clock.costs, clock.size[key])


def set_out_late(clock: TimedLink, key: int) -> None:
    """Begin a prefetch that has been demanded before it began; or take it from before the link."""
    if clock.lanes.started[key] == 0:
        set_out(clock, key)
    elif clock.lanes.lane[key] == LINK:
        open_up(clock, clock.routed_s[DEVICE])


def land_prefetches(clock: TimedLink, core: Core) -> None:
    """Let prefetches go on until now."""
    while go_on(clock, core, clock.now_s[DEVICE]) != IDLE:
        pass


def land_into(clock: TimedLink, core: Core, pool: int) -> bool:
    """Let prefetches go on until one has landed in a pool; False if none will."""
    landed = go_on(clock, core, inf)
    while landed != IDLE and core.pool[landed] != pool:
        landed = go_on(clock, core, inf)
    return landed != IDLE


def go_on(clock: TimedLink, core: Core, until_s: float) -> int:
    """Let prefetches go on until one has landed, or until a time; return its key, IDLE if none."""
    lanes = clock.lanes
    while True:
        waiting = lanes.queued[LINK]
        start_next(lanes, LINK, until_s)
        if lanes.queued[LINK] < waiting:
            open_up(clock, lanes.begun_s[LINK])
        begin_reading(clock, until_s)
        if lanes.under_way[LINK] == IDLE and lanes.queued[LINK] > 0:
            continue
        crossed_s, whole_s = under_way_until(clock, LINK), under_way_until(clock, DISK)
        if min(crossed_s, whole_s) == inf or min(crossed_s, whole_s) > until_s:
            return IDLE
        if crossed_s <= whole_s:
            key: int = lanes.under_way[LINK]
            finish(lanes, core, LINK, crossed_s)
            return key
        hand_over(clock, whole_s)


def under_way_until(clock: TimedLink, lane: int) -> float:
    """When the prefetch under way on a lane will be through; a demanded one is not waited for."""
    key = clock.lanes.under_way[lane]
    if key == IDLE or clock.wanted[key] == LATE_KEY:
        return inf
    return end_s(clock.lanes, lane)


def begin_reading(clock: TimedLink, until_s: float) -> None:
    """Begin the next prefetch, or go on with one put off, unless one is read or waits to cross."""
    lanes = clock.lanes
    if lanes.under_way[DISK] != IDLE or lanes.queued[DISK] == 0 or lanes.queued[LINK] > 0:
        return
    if rests(lanes, DISK, until_s):
        return
    position = best(lanes, DISK)
    key = lanes.queue[DISK * lanes.keys + position]
    fresh = lanes.started[key] == 0
    begin(lanes, DISK, position)
    lanes.begun_s[DISK] = max(lanes.begun_s[DISK], clock.open_s[0])
    if fresh:
        set_out(clock, key)
        if lanes.lane[key] == LINK:
            lanes.under_way[DISK] = IDLE
            wait_to_cross(clock, key, lanes.begun_s[DISK])


def wait_to_cross(clock: TimedLink, key: int, since_s: float) -> None:
    """Queue an expert that is whole in the host for the link."""
    lanes = clock.lanes
    lanes.lane[key] = LINK
    seconds = transfer_s(clock.costs, clock.size[key])
    enqueue(lanes, key, lanes.score[key], since_s, seconds)
    lanes.started[key] = 1


def open_up(clock: TimedLink, at_s: float) -> None:
    """Note since when nothing waits for the link."""
    if clock.lanes.queued[LINK] == 0:
        clock.open_s[0] = max(clock.open_s[0], at_s)


def hand_over(clock: TimedLink, at_s: float) -> None:
    """End the reading of a prefetch: it is whole in the host."""
    lanes = clock.lanes
    key = lanes.under_way[DISK]
    carry(lanes, DISK, lanes.begun_s[DISK], at_s)
    let_rest(lanes, DISK, at_s)
    lanes.under_way[DISK] = IDLE
    wait_to_cross(clock, key, at_s)


def await_host(clock: TimedLink, event: Event) -> None:
    """Wait until the host has computed what it was asked for, and before that has been given it."""
    wait_for_disk(clock, event, clock.given_s[DEVICE])
    clock.given_s[DEVICE] = 0.0
    for i in range(event.start, event.stop):
        key = event.keys[i]
        if clock.wanted[key] == HOST_KEY:
            clock.wanted[key] = READY_KEY
            wait_for_disk(clock, event, clock.arrival[key])
        elif clock.wanted[key] == LATER_KEY:
            clock.wanted[key] = READY_KEY
            clock.given_s[DEVICE] = max(clock.given_s[DEVICE], clock.arrival[key])
    wait_for_host(clock, event)


def wait_for_disk(clock: TimedLink, event: Event, until_s: float) -> None:
    """Let the device wait until an expert is whole in the host."""
    if until_s > clock.now_s[DEVICE]:
        clock.parts[event.step * NUM_PARTS + DISK_STALL] += until_s - clock.now_s[DEVICE]
        clock.now_s[DEVICE] = until_s


def line_up(clock: TimedLink, core: Core, demanded: int) -> None:
    """Put this event's demands in the order in which they cross; prefetches yield the disk to them.

    What the host has goes first, for it need not wait for what is read meanwhile.
    """
    lanes = clock.lanes
    place = 0
    for lane in (LINK, DISK):
        for i in range(demanded):
            key = clock.demand[i]
            if lanes.lane[key] == lane:
                clock.order[place] = key
                place += 1
    for i in range(demanded):
        clock.demand[i] = clock.order[i]
    if lanes.lane[clock.demand[demanded - 1]] == DISK:
        clear_disk(clock)


def clear_disk(clock: TimedLink) -> None:
    """Let a prefetch that is read yield to a demand, at its next chunk boundary."""
    lanes = clock.lanes
    under_way = lanes.under_way[DISK]
    if under_way != IDLE and clock.wanted[under_way] != LATE_KEY:
        stays = rest_s(lanes, DISK, clock.routed_s[DEVICE])
        if stays > 0.0:
            put_off(lanes, DISK, stays)
        else:
            hand_over(clock, end_s(lanes, DISK))


def whole_in_host_s(clock: TimedLink, core: Core, key: int) -> float:
    """Read a demanded key from the disk, unless the host has it; return when it is whole there.

    Until then the link carries prefetches.
    """
    whole_s: float = clock.routed_s[DEVICE]
    if clock.lanes.lane[key] == DISK:
        whole_s = read_demanded(clock, key, whole_s)
    cross_until(clock, core, whole_s)
    return whole_s


def cross_until(clock: TimedLink, core: Core, until_s: float) -> None:
    """Let the prefetches that are whole cross, up to the chunk boundary after a time."""
    lanes = clock.lanes
    while lanes.under_way[LINK] != IDLE or lanes.queued[LINK] > 0:
        if lanes.under_way[LINK] == IDLE:
            key = lanes.queue[LINK * lanes.keys]
            if begin_s(lanes, LINK, lanes.issued_s[key]) >= until_s:
                return
            begin(lanes, LINK, 0)
            open_up(clock, lanes.begun_s[LINK])
        if clock.wanted[lanes.under_way[LINK]] == LATE_KEY:
            return
        if end_s(lanes, LINK) > until_s:
            interrupt(lanes, core, LINK, until_s)
            return
        finish(lanes, core, LINK, end_s(lanes, LINK))


def read_demanded(clock: TimedLink, key: int, asked_s: float) -> float:
    """Read a demanded key; return when it is whole in the host."""
    lanes = clock.lanes
    start_s = begin_s(lanes, DISK, asked_s)
    whole_s: float = start_s + lanes.remaining_s[key]
    if lanes.under_way[DISK] == key:
        start_s, whole_s = lanes.begun_s[DISK], end_s(lanes, DISK)
        lanes.under_way[DISK] = IDLE
    carry(lanes, DISK, start_s, whole_s)
    lanes.lane[key] = LINK
    lanes.remaining_s[key] = transfer_s(clock.costs, clock.size[key])
    return whole_s


class ChainedLink(TimedLink):
    """A link behind which lies a tier, and behind that a disk; the kernel is given the tier."""

    replaces: ClassVar[dict[Any, Any]] = {
        getattr(timed_link, each.__name__): each
        for each in (
            *(set_out, set_out_late, land_prefetches, land_into),
            *(line_up, whole_in_host_s, await_host),
        )
    }

    def compute_on_host(self, core: Core, key: int, tokens: int, event: Event) -> None:
        """Let the host compute an expert that it has, or reads first."""
        self.step[key], self.phase[key] = event.step, event.phase
        self.size[key] = self.whole[key]
        set_out(self, key)
        whole_s = self.routed_s[DEVICE]
        if self.lanes.lane[key] == DISK:
            clear_disk(self)
            whole_s = read_demanded(self, key, whole_s)
        self.arrival[key] = whole_s
        start_s = max(self.host_s[DEVICE], self.now_s[DEVICE], whole_s)
        self.host_s[DEVICE] = start_s + host_expert_s(self.costs, tokens, self.size[key])
        self.owed_s[DEVICE] = self.host_s[DEVICE]
        self.wanted[key] = HOST_KEY
        self.missed[key] += 1

    def conclude(self, core: Core) -> None:
        """Ask the host for what is still queued: its transfer counts as begun."""
        lanes = self.lanes
        while lanes.queued[DISK] > 0:
            position = best(lanes, DISK)
            key = lanes.queue[DISK * lanes.keys + position]
            unqueue(lanes, DISK, position)
            if lanes.started[key] == 0:
                set_out(self, key)
