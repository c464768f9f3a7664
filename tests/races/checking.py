"""Checking: the real engine, link included, under every order that streams and threads allow.

Residence, mover, link and decisions are those of a live run; only the device under them is
`late_device`. A *case* is a small world and a list of events; a *schedule* is one sequence of
choices over it: when the copy thread gets a turn, when each stream does its next piece of work.
Random schedules look everywhere; for cases of a few copies all schedules can be tried.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from late_device import Chooser, Device, Memory
from late_threads import Over, Stuck
from late_torch import LateTorch, Part, patched

from specmd.core.event import World
from specmd.errors import SpecmdError
from specmd.live import transfers
from specmd.live.core import Decisions
from specmd.live.links import accelerator
from specmd.live.service import Residence
from specmd.live.slots import CANARY, Slots
from specmd.live.transfers import Mover
from specmd.models.layout import Layout, Layouts
from specmd.policy.registry import choose as choose_policy
from specmd.trace import TraceHeader

IN_FLIGHT = 3  # two chunks, and the one that is just being issued


class SymbolicStore:
    """A store of a few numbers; every second expert is pageable."""

    pinned_bytes = locked_bytes = 0

    def __init__(self, layouts: Layouts, device: Device | None = None) -> None:
        self.layouts, self.num_keys, self._device = layouts, layouts.num_keys, device

    def bytes_of(self, key: int) -> list[int]:
        """Return what an expert consists of."""
        size = self.layouts.largest_bytes
        return [1000 + key * size + i for i in range(self.layouts.of(key).blob_bytes)]

    def read(self, key: int, start: int, stop: int) -> Any:
        """Return part of an expert."""
        if self._device is None:
            return None
        blob = Memory(f"expert {key}", self.bytes_of(key), pinned=self.is_pinned(key))
        return Part(self._device, blob, start, stop)

    def is_pinned(self, key: int) -> bool:
        """Let odd keys pass through staging buffers."""
        return key % 2 == 0

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True)
class Case:
    """A small world, and what its layers demand.

    Attributes:
        layers: L.
        experts: E.
        capacity: slots.
        events: experts demanded, event by event; event i is layer i % L.
        staging_slots: slots for what passes through.
        chunks: chunks of an expert.
        prefetch: prefetcher.
        canary: blank slots before copies.
        threaded: the copies have a thread of their own.
        streams: the caller computes on so many, in turn; with more than one all must fit.
        deterministic: complete all transfers before each event.

    """

    layers: int
    experts: int
    capacity: int
    events: tuple[tuple[int, ...], ...]
    staging_slots: int = 1
    chunks: int = 2
    prefetch: str = "random:depth=1,width=2"
    canary: bool = False
    threaded: bool = False
    streams: int = 1
    deterministic: bool = False


@dataclass
class Verdict:
    """What was found over many schedules.

    Attributes:
        schedules: how many were run.
        faulty: how many of them showed something.
        findings: distinct lines, at most twenty.

    """

    schedules: int = 0
    faulty: int = 0
    findings: list[str] = field(default_factory=list)

    def add(self, findings: Sequence[str]) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.faulty += bool(findings)
        for line in findings:
            if line not in self.findings and len(self.findings) < 20:
                self.findings.append(line)


class Bench:
    """Runs schedules of one case. `mover` and `residence` are the classes under test."""

    def __init__(
        self,
        case: Case,
        *,
        mover: type[Mover] = Mover,
        residence: type[Residence] = Residence,
    ) -> None:
        self.case, self._mover, self._residence = case, mover, residence
        top_k = max(1, min(case.experts, 2))
        sizes = TraceHeader(num_layers=case.layers, num_experts=case.experts, top_k=top_k)
        self._decisions = Decisions(
            World.of(sizes, [case.capacity], seed=7),
            choose_policy("evict", "lru"),
            choose_policy("prefetch", case.prefetch),
            choose_policy("schedule", "guard").create(),
            interpreted=True,
        )
        layout = Layout((), case.chunks, case.chunks)
        self._layouts = Layouts((layout,) * case.layers, case.experts)

    def run(self, choose: Chooser) -> list[str]:
        """Run one schedule; return what it showed."""
        device = Device(choose, IN_FLIGHT, threaded=self.case.threaded)
        late = LateTorch(device)
        with patched(
            (accelerator, "torch", late),
            (accelerator, "time", late.time),
            (transfers, "threading", late.threading),
            (transfers, "time", late.time),
        ):
            try:
                self._run(device)
            except SpecmdError as error:
                device.findings.append(f"refused: {error}")
            except (Stuck, Over) as error:
                device.findings.append(str(error))
            finally:
                device.close()
        return device.findings

    def _run(self, device: Device) -> None:
        case, layouts = self.case, self._layouts
        slots = Slots(
            layouts, [case.capacity], case.staging_slots, torch.device("cpu"), canary=case.canary
        )
        memories = [
            Memory(f"slot {number}", [CANARY] * case.chunks, on_device=True)
            for number in range(case.capacity + case.staging_slots)
        ]
        slots.blobs = [Part(device, memory, 0, case.chunks) for memory in memories]  # type: ignore[misc]
        store = SymbolicStore(layouts, device)
        link = accelerator.AcceleratorLink(slots, 1)
        mover = self._mover(link, store, slots, chunk_bytes=1)
        self._decisions.reset()
        residence = self._residence(self._decisions, slots, mover)
        if case.threaded:
            mover.start()
        for number, experts in enumerate(case.events):
            while not case.threaded and device.choose(2) and mover.step():
                pass
            device.compute = device.compute_streams[number % case.streams]
            if case.deterministic:
                mover.drain()
                if mover.demand or mover.ahead or device.busy(device.streams[2:]):
                    device.findings.append("drain: copies are left")
            step, layer = divmod(number, case.layers)
            keys = np.array(experts, np.int64) + layer * case.experts
            self._decisions.begin(step, layer, 1, keys, np.ones(len(keys), np.int64))

            def look_ahead() -> None:
                self._check_arrivals(residence, memories, store, device)
                self._decisions.look_ahead(1)

            for key, slot in residence.serve(keys.tolist(), look_ahead):
                device.kernel(memories[slot], store.bytes_of(key), key)
                if case.threaded:
                    device.turn()
                elif device.choose(2):
                    mover.step()
        if case.streams > 1:  # who computes on several streams ends them himself
            device.finish()
        mover.stop()
        if device.busy(device.streams):
            device.findings.append("stop: the slots are given away, and work on them is left")
        device.finish()

    def _check_arrivals(
        self, residence: Residence, memories: list[Memory], store: SymbolicStore, device: Device
    ) -> None:
        """Compare what the core was told has landed with what has."""
        core, link = self._decisions.core, self._decisions.link
        pending = set(self._decisions.pending())
        for key, arrived in enumerate(link.arrived):
            slot = core.slot[key]
            there = slot >= len(memories) or memories[slot].data == store.bytes_of(key)
            if arrived and key not in pending and not there:
                device.findings.append(f"arrival: expert {key} counts as landed and has not")
            link.arrived[key] = 0


def random_case(chance: random.Random, *, threaded: bool = False) -> Case:
    """Draw a case: narrow and wide events, few slots, few staging slots."""
    layers, experts = chance.randint(1, 3), chance.randint(2, 5)
    events = tuple(
        tuple(sorted(chance.sample(range(experts), chance.randint(1, min(experts, 4)))))
        for _ in range(chance.randint(3, 6))
    )
    capacity = chance.randint(1, max(2, layers * experts))
    return Case(
        layers,
        experts,
        capacity,
        events,
        staging_slots=chance.randint(1, 2),
        chunks=chance.randint(1, 3),
        prefetch=chance.choice(["none", "random:width=2", "random:depth=2,width=2"]),
        canary=chance.random() < 0.3,
        threaded=threaded,
        streams=2 if capacity >= layers * experts else 1,
        deterministic=chance.random() < 0.2,
    )


def check_random(
    count: int, *, seed: int = 0, per_case: int = 50, threaded: bool = False, **parts: Any
) -> Verdict:
    """Run `count` random schedules over random cases, `per_case` on each.

    `parts` may replace the classes under test (`mover`, `residence`).
    """
    chance = random.Random(seed)
    verdict = Verdict()
    while verdict.schedules < count:
        case = random_case(chance, threaded=threaded)
        check_case(case, min(per_case, count - verdict.schedules), chance, verdict, **parts)
    return verdict


def check_case(
    case: Case,
    count: int,
    chance: random.Random | None = None,
    verdict: Verdict | None = None,
    **parts: Any,
) -> Verdict:
    """Run `count` random schedules of one case."""
    chance, verdict = chance or random.Random(0), verdict or Verdict()
    bench = Bench(case, **parts)
    for _ in range(count):
        verdict.add(bench.run(lambda n: int(chance.random() * n)))
    return verdict


def check_all(case: Case, *, limit: int = 100_000, **parts: Any) -> Verdict:
    """Run every schedule of a small case.

    Raises:
        SpecmdError: there are more than `limit` of them.

    """
    bench, verdict = Bench(case, **parts), Verdict()
    for choices in _every_sequence():
        verdict.add(bench.run(choices))
        if verdict.schedules > limit:
            raise SpecmdError(f"more than {limit:,} schedules: give a smaller case")
    return verdict


def _every_sequence() -> Iterator[Chooser]:
    """Yield choosers that together make every sequence of choices: depth first, by replay."""
    path: list[list[int]] = []  # [choice, possibilities] along the present branch
    while True:
        position = 0

        def choose(possibilities: int) -> int:
            nonlocal position
            if position == len(path):
                path.append([0, possibilities])
            position += 1
            return path[position - 1][0]

        yield choose
        del path[position:]
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1][0] += 1
