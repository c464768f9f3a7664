"""Stalls on a device with a clock: a link whose streams take the time that a script says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checking import SymbolicStore
from torch import Tensor

from specmd.core.event import World
from specmd.live.core import Decisions
from specmd.live.links.host import HostLink
from specmd.live.links.link import COMPUTE, COPY
from specmd.live.service import Residence
from specmd.live.slots import Slots
from specmd.live.stalls import DEMAND_STALL, DISK_STALL, LATE_STALL, Stalls
from specmd.live.transfers import Mover
from specmd.models.layout import Layout, Layouts
from specmd.policy.registry import choose
from specmd.trace import TraceHeader

EXPERTS, CHUNKS = 8, 4


class ScriptedLink:
    """Two streams and a host with clocks of their own; a mark is the moment it is reached."""

    name = "scripted"
    device = torch.device("cpu")
    needs_pinned = False

    def __init__(self, chunk_s: float, kernel_s: float, *, keeps_time: bool = True) -> None:
        self.chunk_s, self.kernel_s, self._keeps_time = chunk_s, kernel_s, keeps_time
        self.now_s = 0.0
        self.free_s = [0.0, 0.0]  # when a stream has done what was issued to it
        self.busy_s = [0.0, 0.0]

    def _issue(self, stream: int, seconds: float) -> float:
        self.free_s[stream] = max(self.free_s[stream], self.now_s) + seconds
        self.busy_s[stream] += seconds
        return self.free_s[stream]

    def record(self, stream: int) -> float:
        return self._issue(stream, 0.0)

    def order(self, stream: int, mark: float) -> None:
        self.free_s[stream] = max(self.free_s[stream], mark)

    def reached(self, mark: float) -> bool:
        return mark <= self.now_s

    def synchronise(self, mark: float, timeout_s: float) -> None:
        self.now_s = max(self.now_s, mark)

    def tick(self, stream: int) -> float | None:
        return self._issue(stream, 0.0) if self._keeps_time else None

    def elapsed_s(self, before: float, after: float) -> float:
        assert self.reached(after), "a tick is read before it is reached"
        return after - before

    def copy(self, slot: int, source: Tensor, start: int, stop: int, pinned: bool) -> None:
        self._issue(COPY, self.chunk_s)

    def attach(self) -> None:
        pass

    def close(self) -> None:
        pass

    def compute(self) -> None:
        self._issue(COMPUTE, self.kernel_s)


def make(link: Any, capacity: int = 5, *, prefetch: str = "none", miss: str = "overlap") -> Any:
    """A residence over a link, and a function that serves one event of layer 0."""
    sizes = TraceHeader(num_layers=1, num_experts=EXPERTS, top_k=2)
    world = World.of(sizes, [capacity], seed=7)
    schedule = choose("schedule", "fifo").create()
    decisions = Decisions(world, choose("evict", "lru"), choose("prefetch", prefetch), schedule)
    layouts = Layouts((Layout((), CHUNKS, CHUNKS),), EXPERTS)
    slots = Slots(layouts, [capacity], 1, torch.device("cpu"), canary=False)
    mover = Mover(link, SymbolicStore(layouts), slots, chunk_bytes=1)
    residence = Residence(decisions, slots, mover, blocks=miss == "block")

    def serve(step: int, *keys: int) -> None:
        ones = np.ones(len(keys), np.int64)
        decisions.begin(step, 0, 1, np.array(keys, np.int64), ones)
        for _ in residence.serve(keys, lambda: decisions.look_ahead(1)):
            link.compute()

    return residence, serve


def test_slow_copies_stall_for_what_kernels_do_not_cover() -> None:
    link = ScriptedLink(chunk_s=10.0, kernel_s=1.0)
    residence, serve = make(link)
    serve(0, 0, 1, 2)
    link.now_s = link.free_s[COMPUTE]
    # 40 s for each expert; the kernels of the first two run beside the copy of the next.
    assert residence.stall_s == {DISK_STALL: 0.0, DEMAND_STALL: 118.0, LATE_STALL: 0.0}
    serve(1, 0, 1, 2)  # hits
    link.now_s = link.free_s[COMPUTE]
    assert residence.stall_s[DEMAND_STALL] == 118.0


def test_waiting_beside_a_busy_device_is_no_stall() -> None:
    link = ScriptedLink(chunk_s=1.0, kernel_s=50.0)
    residence, serve = make(link)
    serve(0, 0, 1, 2)
    link.now_s = link.free_s[COMPUTE]
    assert residence.stall_s[DEMAND_STALL] == 4.0  # the first expert; all others come in time


def test_waits_that_are_not_over_are_counted_later() -> None:
    link = ScriptedLink(chunk_s=10.0, kernel_s=1.0)
    residence, serve = make(link)
    serve(0, 0)
    assert link.now_s < 40.0  # the host has run ahead: it never waits for the last chunks
    assert residence.stall_s[DEMAND_STALL] == 0.0
    link.now_s = 40.0
    assert residence.stall_s[DEMAND_STALL] == 40.0
    residence.restart()
    assert residence.stall_s == {DISK_STALL: 0.0, DEMAND_STALL: 0.0, LATE_STALL: 0.0}


def test_the_share_of_a_wait_that_an_expert_was_read_is_the_disks() -> None:
    link = ScriptedLink(chunk_s=8.0, kernel_s=1.0)
    stalls = Stalls(link)
    for cause in (DEMAND_STALL, LATE_STALL):
        began = stalls.begin()
        link.copy(0, torch.zeros(1), 0, 1, True)
        link.order(COMPUTE, link.record(COPY))
        stalls.end(began, cause, 0.25)
    assert stalls.seconds()[DISK_STALL] == 0.0
    link.now_s = link.free_s[COMPUTE]
    assert stalls.seconds() == {DISK_STALL: 4.0, DEMAND_STALL: 6.0, LATE_STALL: 6.0}


def test_a_prefetch_that_comes_late_has_its_own_cause() -> None:
    link = ScriptedLink(chunk_s=10.0, kernel_s=1.0)
    residence, serve = make(link, 4, prefetch="random:width=4")
    proposed = []
    original = residence.mover.queue

    def queue(transfer: Any) -> Any:
        if transfer.prefetched:
            proposed.append(transfer.key)
        return original(transfer)

    residence.mover.queue = queue
    serve(0, 0)
    link.now_s = link.free_s[COMPUTE]
    assert proposed
    serve(1, proposed[0])
    link.now_s = link.free_s[COMPUTE]
    assert residence.stall_s[DEMAND_STALL] == 40.0
    assert residence.stall_s[LATE_STALL] > 0


@pytest.mark.parametrize("miss", ["overlap", "block"])
@pytest.mark.parametrize(("chunk_s", "kernel_s"), [(3.0, 1.0), (1.0, 3.0), (1.0, 4.0), (0.0, 1.0)])
def test_computing_and_stalls_add_up(miss: str, chunk_s: float, kernel_s: float) -> None:
    link = ScriptedLink(chunk_s, kernel_s)
    residence, serve = make(link, 3, prefetch="random:width=1", miss=miss)
    chance = np.random.default_rng(3)
    for step in range(40):
        keys = np.sort(chance.choice(EXPERTS, chance.integers(1, 6), replace=False))
        serve(step, *keys.tolist())
        link.now_s = max(link.now_s, link.free_s[COMPUTE])  # as bringing the next choice back does
    stalls = residence.stall_s
    # The device is idle only for a copy, or while the host waits for one to be issued.
    assert link.busy_s[COMPUTE] + sum(stalls.values()) == link.free_s[COMPUTE]
    assert stalls[DEMAND_STALL] > 0 or chunk_s == 0


def test_a_device_without_clock_counts_what_the_host_waits() -> None:
    for link in (ScriptedLink(1.0, 1.0, keeps_time=False), object.__new__(HostLink)):
        stalls = Stalls(link)
        stalls.end(stalls.begin(), LATE_STALL)
        seconds = stalls.seconds()
        assert seconds[DEMAND_STALL] == 0.0 < seconds[LATE_STALL]
