"""Checking: the real engine, without bytes, under every order that streams allow.

Residence, mover and decisions are those of a live run; only the link is `CheckingLink` and the
copy thread's steps are taken when a chooser says so. A *case* is a small world and a list of
events; a *schedule* is one sequence of choices over it: when prefetches are issued, when the copy
thread gets a turn, when each stream does its next piece of work. Random schedules look everywhere;
for cases of a few copies all schedules can be tried.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from checking_link import CheckingLink, Chooser
from torch import Tensor

from specmd.core.event import World
from specmd.errors import SpecmdError
from specmd.live.core import Decisions
from specmd.live.service import Residence
from specmd.live.slots import Slots
from specmd.live.transfers import Mover
from specmd.models.layout import Layout
from specmd.policy.registry import choose as choose_policy
from specmd.trace import TraceHeader

_BLOB = torch.zeros(0, dtype=torch.uint8)


class SymbolicStore:
    """A store without bytes; every second expert is pageable."""

    pinned_bytes = 0

    def __init__(self, layout: Layout, num_keys: int) -> None:
        self.layout, self.num_keys = layout, num_keys

    def blob(self, key: int) -> Tensor:
        """Return nothing."""
        return _BLOB

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
        staging_slots: slots for what passes through.
        chunks: chunks of an expert.
        prefetch: prefetcher.
        events: experts demanded, event by event; event i is layer i % L.
        canary: blank slots before copies.

    """

    layers: int
    experts: int
    capacity: int
    events: tuple[tuple[int, ...], ...]
    staging_slots: int = 1
    chunks: int = 2
    prefetch: str = "random:depth=1,width=2"
    canary: bool = False


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
        evict: str = "lru",
    ) -> None:
        self.case, self._mover, self._residence = case, mover, residence
        top_k = max(1, min(case.experts, 2))
        sizes = TraceHeader(num_layers=case.layers, num_experts=case.experts, top_k=top_k)
        world = World.of(sizes, [case.capacity], seed=7)
        self._decisions = Decisions(
            world,
            choose_policy("evict", evict),
            choose_policy("prefetch", case.prefetch),
            choose_policy("schedule", "guard").create(),
        )
        self._layout = Layout((), case.chunks, case.chunks)
        self._store = SymbolicStore(self._layout, case.layers * case.experts)

    def run(self, choose: Chooser) -> list[str]:
        """Run one schedule; return what it showed."""
        case = self.case
        slots = Slots(
            self._layout,
            case.capacity,
            case.staging_slots,
            torch.device("cpu"),
            canary=case.canary,
        )
        chunks = tuple(range(case.chunks))
        link = CheckingLink(case.capacity + case.staging_slots, chunks, choose)
        mover = self._mover(link, self._store, slots, chunk_bytes=1)
        self._decisions.reset()
        residence = self._residence(self._decisions, slots, mover)
        try:
            for number, experts in enumerate(case.events):
                self._serve(number, experts, residence, mover, link, choose)
            while mover.step():
                pass
            link.finish()
        except SpecmdError as error:
            link.findings.append(f"refused: {error}")
        return link.findings

    def _serve(
        self,
        number: int,
        experts: tuple[int, ...],
        residence: Residence,
        mover: Mover,
        link: CheckingLink,
        choose: Chooser,
    ) -> None:
        step, layer = divmod(number, self.case.layers)
        while choose(2) and mover.step():
            pass
        keys = np.array(experts, np.int64) + layer * self.case.experts
        ones = np.ones(len(keys), np.int64)
        self._decisions.propose(step, layer, 1, keys, ones, None, 1, None)
        for key, slot in residence.serve(keys.tolist()):
            link.use(slot, key)
            if choose(2):
                mover.step()


def random_case(chance: random.Random) -> Case:
    """Draw a case: narrow and wide events, few slots, few staging slots."""
    layers, experts = chance.randint(1, 3), chance.randint(2, 5)
    events = tuple(
        tuple(sorted(chance.sample(range(experts), chance.randint(1, min(experts, 4)))))
        for _ in range(chance.randint(3, 6))
    )
    return Case(
        layers,
        experts,
        chance.randint(1, max(2, layers * experts - 1)),
        events,
        staging_slots=chance.randint(1, 2),
        chunks=chance.randint(1, 2),
        prefetch=chance.choice(["none", "random:width=2", "random:depth=2,width=2"]),
        canary=chance.random() < 0.3,
    )


def check_random(count: int, *, seed: int = 0, per_case: int = 50, **parts: Any) -> Verdict:
    """Run `count` random schedules over random cases, `per_case` on each.

    `parts` may replace the classes under test (`mover`, `residence`).
    """
    chance = random.Random(seed)
    verdict = Verdict()
    while verdict.schedules < count:
        bench = Bench(random_case(chance), **parts)
        for _ in range(min(per_case, count - verdict.schedules)):
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
