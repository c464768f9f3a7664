"""No race in the real engine; every planted one is found (see test_mutants for changed code)."""

from __future__ import annotations

from typing import Any

import pytest
from checking import Case, Verdict, check_all, check_random

from specmd.live.links.link import COMPUTE
from specmd.live.service import Residence
from specmd.live.slots import Home
from specmd.live.transfer import Transfer
from specmd.live.transfers import Mover


class NoWaitOnReady(Mover):
    def before_use(self, slot: int) -> None:
        pass


class NoWaitOnLastUse(Mover):
    def _wait_for_last_use(self, slot: int) -> None:
        pass


class DroppedEvent(Mover):
    """The mark of a slot's first copy is kept; those of later ones are lost."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._first: dict[int, Any] = {}

    def _arrive(self, transfer: Transfer, stop: int) -> None:
        super()._arrive(transfer, stop)
        if transfer.done:
            slot = transfer.home.slot
            self._ready[slot] = self._first.setdefault(slot, transfer.ready)


class LastUseTooEarly(Mover):
    """The last use is recorded before the kernel is issued."""

    def before_use(self, slot: int) -> None:
        super().before_use(slot)
        self._last_use[slot] = self.link.record(COMPUTE)

    def after_use(self, slot: int) -> None:
        pass


class EarlySlotReuse(Residence):
    """A copy into a slot does not wait until the event's key in it has been computed."""

    def _carry_out(self, commands: Any, *, last: bool) -> Any:
        later = super()._carry_out(commands, last=last)
        for before, transfer in self._unblocks.items():
            slot = self._home[before].slot if before in self._home else transfer.home.slot
            kept = self._home[before]
            self.mover.unblock(transfer, self._settle_in(transfer.key, slot))
            self.slots.key_in[slot], self.slots.generation[slot] = before, kept.generation
        self._unblocks.clear()
        return later


class StaleMap(Residence):
    """Where a key lay first is where it is looked for ever after."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._first: dict[int, Home] = {}

    def _locate(self, key: int) -> Home:
        return self._first.setdefault(key, super()._locate(key))


class StaleMapUnchecked(StaleMap):
    """The same, in an engine without generations."""

    def _locate(self, key: int) -> Home:
        home = super()._locate(key)
        self.slots.key_in[home.slot], self.slots.generation[home.slot] = key, home.generation
        return home


BUGS: list[tuple[str, type]] = [
    ("mover", NoWaitOnReady),
    ("mover", NoWaitOnLastUse),
    ("mover", DroppedEvent),
    ("mover", LastUseTooEarly),
    ("residence", EarlySlotReuse),
    ("residence", StaleMap),
    ("residence", StaleMapUnchecked),
]


def lines(verdict: Verdict) -> str:
    return "\n".join(verdict.findings)


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_random_schedules_of_the_real_engine(seed: int, threaded: bool) -> None:
    verdict = check_random(500, seed=seed, per_case=25, threaded=threaded)
    assert verdict.schedules == 500
    assert verdict.faulty == 0, lines(verdict)


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(("part", "bug"), BUGS, ids=[bug.__name__ for _, bug in BUGS])
def test_planted_bugs_are_found(part: str, bug: type, threaded: bool) -> None:
    verdict = check_random(100, seed=1, per_case=5, threaded=threaded, **{part: bug})
    assert verdict.faulty, "not found"


@pytest.mark.parametrize(
    ("bug", "expected"),
    [
        (NoWaitOnReady, "order: read of slot"),
        (NoWaitOnLastUse, "order: write of slot"),
        (DroppedEvent, "order: read of slot"),
    ],
)
def test_findings_name_the_access(bug: type[Mover], expected: str) -> None:
    verdict = check_random(100, seed=2, per_case=5, mover=bug)
    assert expected in lines(verdict)


SMALL = [
    Case(1, 3, 1, ((0,), (1,)), chunks=1, prefetch="none"),
    Case(1, 3, 1, ((0, 1),), chunks=1, prefetch="none"),
    Case(1, 3, 2, ((0,), (0,)), chunks=2, prefetch="none"),
]


@pytest.mark.parametrize("case", SMALL, ids=["reuse", "wide", "hit"])
def test_every_schedule_of_small_cases(case: Case) -> None:
    verdict = check_all(case)
    assert verdict.schedules > 50
    assert verdict.faulty == 0, lines(verdict)


def test_exhaustive_search_finds_what_contents_show() -> None:
    verdict = check_all(SMALL[0], mover=NoWaitOnLastUse)
    assert "contents: a kernel" in lines(verdict)
    assert 0 < verdict.faulty <= verdict.schedules
