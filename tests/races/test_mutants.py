"""The tests of races, tested: each way of breaking the real code must be found, without a device.

A mutant is a change of the code as somebody might make it. Nothing of it is imitated: what is
patched is what runs on an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from checking import Case, check_case, check_random
from test_live_orders import StaleMap

from specmd.live import transfers
from specmd.live.links.accelerator import AcceleratorLink, EventMark
from specmd.live.links.link import COMPUTE, COPY
from specmd.live.service import Residence
from specmd.live.slots import Home, Slots
from specmd.live.transfers import Mover

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, tuple[Callable[[Patch], None], str]] = {}  # name -> patch, what is found


def mutant(found: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """List a mutant under its function's name."""

    def keep(patch: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[patch.__name__] = patch, found
        return patch

    return keep


# The link.


@mutant("order: write of staging buffer")
def synchronise_returns_at_once(patch: Patch) -> None:
    patch.setattr(AcceleratorLink, "synchronise", lambda *_: None)


@mutant("order: ")
def record_on_the_other_stream(patch: Patch) -> None:
    original = AcceleratorLink._record
    other = {COPY: COMPUTE, COMPUTE: COPY}
    patch.setattr(
        AcceleratorLink, "_record", lambda self, s, *, timed: original(self, other[s], timed=timed)
    )


@mutant("order: ")
def order_on_the_other_stream(patch: Patch) -> None:
    original = AcceleratorLink.order
    patch.setattr(AcceleratorLink, "order", lambda self, s, mark: original(self, 1 - s, mark))


@mutant("slow: a copy was issued to the stream of the kernels")
def copies_on_the_callers_stream(patch: Patch) -> None:
    def copy(self: Any, slot: int, source: Any, start: int, stop: int, pinned: bool) -> None:
        self._blobs[slot][start:stop].copy_(source, non_blocking=True)

    patch.setattr(AcceleratorLink, "copy", copy)


@mutant("slow: the host waits for a copy")
def a_blocking_copy(patch: Patch) -> None:
    def copy(self: Any, slot: int, source: Any, start: int, stop: int, pinned: bool) -> None:
        with self._copies:
            self._blobs[slot][start:stop].copy_(source)

    patch.setattr(AcceleratorLink, "copy", copy)


@mutant("slow: the host waits for a copy")
def pageable_copies_without_staging(patch: Patch) -> None:
    patch.setattr(AcceleratorLink, "_stage", lambda self, buffer, source: source)


@mutant("order: write of staging buffer")
def staging_buffers_refilled_at_once(patch: Patch) -> None:
    def stage(self: Any, buffer: int, source: Any) -> Any:
        self._staged[buffer] = None
        return original(self, buffer, source)

    original = AcceleratorLink._stage
    patch.setattr(AcceleratorLink, "_stage", stage)


@mutant("arrival: ")
def reached_is_always_true(patch: Patch) -> None:
    patch.setattr(AcceleratorLink, "reached", lambda *_: True)


@mutant("order: ")
def events_used_again_at_once(patch: Patch) -> None:
    def record(self: Any, stream: int, *, timed: bool) -> EventMark:
        mark = original(self, stream, timed=timed)
        self._pools[timed].append(mark.event)
        return mark

    original = AcceleratorLink._record
    patch.setattr(AcceleratorLink, "_record", record)


# The mover.


@mutant("arrival: ")
def has_arrived_ignores_the_device(patch: Patch) -> None:
    patch.setattr(Mover, "has_arrived", lambda self, transfer: transfer.done)


@mutant("order: read of slot")
def before_use_forgets_what_is_not_reached(patch: Patch) -> None:
    def before_use(self: Any, slot: int) -> None:
        original(self, slot)
        self._ready[slot] = None

    original = Mover.before_use
    patch.setattr(Mover, "before_use", before_use)


@mutant("stop: ")
def stop_does_not_wait(patch: Patch) -> None:
    patch.setattr(Mover, "stop", lambda self: self.link.close())


@mutant("stop: ")
def stop_does_not_wait_for_the_device(patch: Patch) -> None:
    def stop(self: Any) -> None:
        synchronise, self.link.synchronise = self.link.synchronise, lambda *_: None
        original(self)
        self.link.synchronise = synchronise

    original = Mover.stop
    patch.setattr(Mover, "stop", stop)


@mutant("drain: ")
def drain_does_not_wait(patch: Patch) -> None:
    patch.setattr(Mover, "drain", lambda self: None)


@mutant("drain: ")
def drain_does_not_wait_for_the_device(patch: Patch) -> None:
    def drain(self: Any) -> None:
        synchronise, self.link.synchronise = self.link.synchronise, lambda *_: None
        original(self)
        self.link.synchronise = synchronise

    original = Mover.drain
    patch.setattr(Mover, "drain", drain)


@mutant("slow: more than 3 copies are in flight")
def no_limit_in_flight(patch: Patch) -> None:
    patch.setattr(transfers, "IN_FLIGHT_CHUNKS", 1000)


# The residence.


@mutant("order: write of slot")
def unblock_before_after_use(patch: Patch) -> None:
    def leave(self: Any, key: int, slot: int) -> None:
        transfer = self._unblocks.pop(key, None)
        if transfer is not None:
            with self.mover.lock:
                self.mover.unblock(transfer, self._settle_in(transfer.key, slot))
        self.mover.after_use(slot)

    patch.setattr(Residence, "_leave", leave)


@mutant("order: read of slot")
def a_hit_that_does_not_wait(patch: Patch) -> None:
    def in_order(self: Any, keys: Any) -> Any:
        before_use = self.mover.before_use
        waited = {transfer.home.slot for transfer in self._under_way.values()}
        self.mover.before_use = lambda slot: before_use(slot) if slot in waited else None
        yield from original(self, keys)
        del self.mover.before_use

    original = Residence._in_order
    patch.setattr(Residence, "_in_order", in_order)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str, monkeypatch: Patch) -> None:
    patch, found = MUTANTS[name]
    patch(monkeypatch)
    findings: list[str] = []
    for seed in range(12):
        findings += check_random(10, seed=seed, per_case=2, threaded=seed % 2 == 0).findings
        if any(line.startswith(found) for line in findings):
            return
    pytest.fail(f"not found; but {findings}")


def test_without_a_mutant_nothing_is_found() -> None:
    for seed in range(12):
        assert not check_random(10, seed=seed, per_case=2, threaded=seed % 2 == 0).findings


# Generations: the last line of defence, behind a map that is wrong already.


def test_no_kernel_reads_by_a_stale_map() -> None:
    verdict = check_random(100, seed=1, per_case=5, residence=StaleMap)
    assert verdict.faulty
    assert all(line.startswith("refused: stale map") for line in verdict.findings)


def test_without_the_check_it_does(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Slots, "check", lambda *_: None)
    with pytest.raises(AssertionError):
        test_no_kernel_reads_by_a_stale_map()


def test_a_key_that_has_come_back_to_its_slot_has_another_generation() -> None:
    case = Case(1, 3, 1, ((0,), (1,), (0,)), prefetch="none")
    verdict = check_case(case, 5, residence=StaleMap)
    assert verdict.faulty == verdict.schedules
    assert all(
        "refused: stale map: expert 0 was in slot 0 (generation 1)" in line
        for line in verdict.findings
    )


def test_without_generations_it_passes(monkeypatch: Patch) -> None:
    def check(self: Slots, key: int, home: Home) -> None:
        assert self.key_in[home.slot] == key

    monkeypatch.setattr(Slots, "check", check)
    with pytest.raises(AssertionError):
        test_a_key_that_has_come_back_to_its_slot_has_another_generation()
