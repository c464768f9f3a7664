"""Residence: from decisions to copies and kernels, in an order that is always right.

The core decides, moving nothing; what it left behind is carried out here. First the demand: its
copies are on their way before anything is looked ahead for. Then the prefetches.

* A fetched key goes to the slot it was given. In an event wider than the cache (|U| > C) some keys
  are given theirs only at the end, and another key of the event may still lie there: their copies
  are blocked until that one has been computed. A key that does not stay passes through a staging
  slot, one after the other. So every missing key costs one copy, nothing is dropped, and nothing
  deadlocks: keys that are there are computed first, and each one computed frees a slot (these are
  the *waves* of a prefill).
* A key left to the host is computed there, by this thread, whenever nothing that has come to the
  device waits for it; it has no slot. Nor has one put off to the next layer, which is another
  thread's (`specmd.live.deferral`) once this event has nothing left for the host.
* A key is computed once its copy is done, whatever the order of arrival.
* Slots of the event's keys are safe meanwhile: the core evicts none of them, and a slot that
  changes hands inside the event waits for the last kernel that reads it.

One thread, the caller's, owns all of this; the mover's only moves bytes, the other computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from torch import Tensor

from specmd.errors import SpecmdError
from specmd.live.commands import (
    AWAIT,
    CANCEL,
    DEFER,
    FETCH,
    HOST,
    LOWBIT,
    MISSED,
    PREFETCH,
    PROMOTE,
)
from specmd.live.core import Decisions
from specmd.live.deferral import Deferral
from specmd.live.layer_buffers import LayerBuffers
from specmd.live.slots import Home, Slots
from specmd.live.stalls import CPU_EXPERT, DEMAND_STALL, LATE_STALL, Stalls
from specmd.live.transfer import Transfer
from specmd.live.transfers import Mover

ON_HOST, LATER = -1, -2  # in place of a slot


class Residence:
    """Which expert lies where, and the service of one event.

    Args:
        decisions: decides.
        slots: where experts lie.
        mover: brings them there.
        blocks: compute nothing before all experts that can be there are there.
        deterministic: complete all transfers before each event.
        buffers: two layers' worth of slots for events that pass the cache by, or None.

    """

    def __init__(
        self,
        decisions: Decisions,
        slots: Slots,
        mover: Mover,
        *,
        blocks: bool = False,
        deterministic: bool = False,
        buffers: LayerBuffers | None = None,
    ) -> None:
        self.decisions, self.slots, self.mover = decisions, slots, mover
        self.blocks, self.deterministic, self.buffers = blocks, deterministic, buffers
        self.deciding_s = 0.0
        self._stalls, self._host = Stalls(mover.link), Stalls(mover.link, [CPU_EXPERT])
        self.waits = 0  # events in which the host found nothing there to compute
        self._waited = False  # whether the present event is one of them
        self._home: dict[int, Home] = {}  # key -> where it lies, or will
        self._under_way: dict[int, Transfer] = {}  # key -> its copy, until seen to be done
        self._occupant: dict[int, int] = {}  # slot -> key of the present event to be computed there
        self._unblocks: dict[int, Transfer] = {}  # key -> the copy that may go once it is computed
        self.hosted: dict[int, Transfer] = {}  # keys of the present event left to the host
        self._later: list[int] = []  # those of them that are put off
        self.deferral = Deferral(mover)
        self._passing = 0  # keys of the present event that passed through staging slots
        self._interrupted = False

    def serve(
        self, keys: Sequence[int], look_ahead: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, int]]:
        """Serve the event set by `decisions.begin`: yield each (key, slot) when it is there.

        The slot of a key that is computed on the host is ON_HOST, see `tensors`; of one that is put
        off LATER, wherever it is: the caller passes it on to `deferral`. The caller issues
        the kernels of a key before it asks for the next one. Every key of the
        event comes exactly once. `look_ahead` is called once what is missing is on its way.

        Raises:
            SpecmdError: a copy failed, the copy thread died, or a wait took too long.

        """
        if self._interrupted:
            self._start_over()
        self._interrupted = True
        self._waited = False
        if self.deterministic:
            self.mover.drain()
        self.mover.raise_failure()
        self._occupant, self._unblocks, self._passing = {}, {}, 0
        self.hosted, self._later = {}, []
        late: list[tuple[int, int]] = []
        # No copy may start between the look and the commands.
        with self.mover.lock if self._under_way else nullcontext():
            self._look_at_arrivals()
            commands = self._decide(self.decisions.demand)
            served = self.decisions.served(list(keys))
            if commands:
                with self.mover.lock:
                    late = self._carry_out_demand(commands, served)
        look_ahead()
        commands = late + self._decide(self.decisions.complete)
        if commands or self.buffers is not None:
            with self.mover.lock:
                self._carry_out(commands, last=True)
                self._fill_buffers(keys)
        yield from self._in_order(served)
        self._interrupted = False

    @property
    def stall_s(self) -> dict[str, float]:
        """Seconds so far that kernels waited for copies, by cause; see `specmd.live.stalls`."""
        return self._stalls.seconds()

    @property
    def host_s(self) -> float:
        """Seconds so far that the device waited for experts computed on the host."""
        return self._host.seconds()[CPU_EXPERT]

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Count the time inside as that of experts computed on the host."""
        began = self._host.begin()
        yield
        self._host.end(began, CPU_EXPERT)

    def tensors(self, key: int, slot: int) -> dict[str, Tensor]:
        """Tensors of a key that was yielded with its slot, valid until the next is asked for."""
        if slot == ON_HOST:
            return self.slots.layouts.of(key).views(self.mover.in_host(self.hosted[key]))
        return self.slots.tensors(key, slot)

    def _decide(self, decide: Callable[[], list[tuple[int, int]]]) -> list[tuple[int, int]]:
        began_s = time.perf_counter()
        commands = decide()
        self.deciding_s += time.perf_counter() - began_s
        return commands

    def _look_at_arrivals(self) -> None:
        link = self.decisions.link
        for key in self.decisions.pending():
            transfer = self._under_way[key]
            if self.mover.has_arrived(transfer):
                link.arrived[key] = 1
                del self._under_way[key]
            else:
                link.arrived[key] = 0
                link.queued[key] = 0 if transfer.started else 1

    def _carry_out_demand(
        self, commands: list[tuple[int, int]], keys: Sequence[int]
    ) -> list[tuple[int, int]]:
        for command, key in commands:
            if command in (FETCH, LOWBIT):
                self.mover.set_out(key, self.decisions.moment)
            elif command in (PROMOTE, AWAIT):
                self.mover.set_out_late(self._under_way[key])
            elif command in (HOST, DEFER):
                self.mover.set_out(key, self.decisions.moment)
        missing = {key for command, key in commands if command in MISSED}
        for key in keys:
            if key not in missing and (home := self._home.get(key)) is not None:
                self._occupant[home.slot] = key
        return self._carry_out(commands, last=not self.decisions.predicts)

    def _carry_out(self, commands: list[tuple[int, int]], *, last: bool) -> list[tuple[int, int]]:
        """Queue copies; return the fetches that may yet be given a slot, unless these are last."""
        later: list[tuple[int, int]] = []
        mover, under_way = self.mover, self._under_way
        for command, key in commands:
            if command in (FETCH, LOWBIT):
                slot = self.decisions.slot_of(key)
                if slot is None and not last and not self.decisions.passes_by:
                    later.append((command, key))
                else:
                    under_way[key] = self._fetch(key, slot, low=command == LOWBIT)
            elif command == PREFETCH:
                slot = self.decisions.slot_of(key)
                assert slot is not None, "a prefetch always has a slot"
                score = float(self.decisions.link.score[key])
                home = self._settle_in(key, slot)
                due = int(self.decisions.core.due[key])
                ahead = Transfer(key, home, demanded=False, score=score, due=due, prefetched=True)
                ahead.issued = self.decisions.moment
                under_way[key] = mover.queue(ahead)
            elif command == PROMOTE:
                mover.hasten(under_way[key])
            elif command == CANCEL:
                mover.cancel(under_way.pop(key))
            elif command in (HOST, DEFER):
                self.hosted[key] = Transfer(key, Home(ON_HOST, -1), demanded=True, stays=True)
                mover.keep(self.hosted[key])
                if command == DEFER:
                    self._later.append(key)
            elif command == AWAIT:
                mover.hasten(under_way.pop(key))
        return later

    def _fetch(self, key: int, slot: int | None, *, low: bool) -> Transfer:
        """Queue a demanded copy; without a slot it passes through one of those for staging."""
        if slot is None and self.buffers is not None:
            ahead = self.buffers.take(key)
            if ahead is not None:
                self.mover.hasten(ahead)
                return ahead
            slot = self.buffers.slot_of(key)
        elif slot is None:
            slot = self.slots.cached + self._passing % self.slots.staging
            self._passing += 1
        before = self._occupant.get(slot)
        self._occupant[slot] = key
        if before is None:
            home = self._settle_in(key, slot, low=low)
            return self.mover.queue(Transfer(key, home, demanded=True, low=low))
        transfer = Transfer(key, Home(slot, -1), demanded=True, blocked=True, low=low)
        self._unblocks[before] = transfer
        return self.mover.queue(transfer)

    def _fill_buffers(self, keys: Sequence[int]) -> None:
        """Drop what this layer did not want; let the next layer's experts follow."""
        if self.buffers is None:
            return
        for transfer in self.buffers.drop_all():
            if not transfer.started:
                self.mover.cancel(transfer)
        if not self.decisions.passes_by:
            return
        for key in self.buffers.next_layer(keys[0]):
            if self.decisions.slot_of(key) is None:
                home = self._settle_in(key, self.buffers.slot_of(key))
                transfer = Transfer(key, home, demanded=False, prefetched=True)
                self.buffers.put(key, self.mover.queue(transfer))

    def _settle_in(self, key: int, slot: int, *, low: bool = False) -> Home:
        home = self._home[key] = self.slots.assign(slot, key, low=low)
        return home

    def _in_order(self, keys: Sequence[int]) -> Iterator[tuple[int, int]]:
        under_way = self._under_way
        waiting = {key: under_way[key] for key in keys if key in under_way} if under_way else {}
        if self.blocks:
            for transfer in list(waiting.values()):
                if not transfer.blocked:
                    self._wait([transfer])
        hosted = {key: each for key, each in self.hosted.items() if key not in self._later}
        if not hosted:
            yield from self._put_off()
        for key in keys:
            if key not in waiting and key not in self.hosted:
                slot = self._slot_of(key)
                self.mover.before_use(slot)
                yield key, slot
                self._leave(key, slot)
        while waiting or hosted:
            done = self._next([*waiting.values(), *hosted.values()])
            if done.stays:
                del hosted[done.key]
                yield done.key, ON_HOST
                self.mover.let_go(done)
                if not hosted:
                    yield from self._put_off()
                continue
            del waiting[done.key]
            under_way.pop(done.key, None)
            slot = self._slot_of(done.key)
            yield done.key, slot
            self._leave(done.key, slot)

    def _put_off(self) -> Iterator[tuple[int, int]]:
        return ((key, LATER) for key in self._later)

    def _leave(self, key: int, slot: int) -> None:
        """Note that a key's kernels are issued; let the copy go that was blocked by it."""
        self.mover.after_use(slot)
        transfer = self._unblocks.pop(key, None)
        if transfer is not None:
            with self.mover.lock:
                home = self._settle_in(transfer.key, slot, low=transfer.low)
                self.mover.unblock(transfer, home)

    def _slot_of(self, key: int) -> int:
        home = self._locate(key)
        self.slots.check(key, home)
        return home.slot

    def _locate(self, key: int) -> Home:
        home = self._home.get(key)
        if home is None:
            raise SpecmdError(f"expert {key} is in no slot; this is a bug of specmd, report it")
        return home

    def _next(self, transfers: list[Transfer]) -> Transfer:
        """Return the first that can be computed; wait unless the host can start at once."""
        if transfers[-1].stays:
            there = next((transfer for transfer in transfers if transfer.there), None)
            if there is not None and there.stays:
                return there
        return self._wait(transfers)

    def _wait(self, transfers: Iterable[Transfer]) -> Transfer:
        """Let the host wait until one of the copies is issued, and kernels until it is there."""
        timeline = self.mover.timeline
        began_s = time.perf_counter()
        wanted = list(transfers)
        if not self._waited and not any(transfer.there for transfer in wanted):
            self._waited = True
            self.waits += 1
        began = self._stalls.begin()
        done = self.mover.wait_for_any(wanted)
        if not done.stays:
            self.mover.before_use(done.home.slot)
        cause = LATE_STALL if done.prefetched else DEMAND_STALL
        waited_s = time.perf_counter() - began_s
        from_disk_s = min(max(0.0, done.whole_s - began_s), waited_s)
        self._stalls.end(began, cause, from_disk_s / waited_s if waited_s > 0 else 0.0)
        if timeline is not None:
            name = f"{timeline.key_name(done.key)} {cause.replace('_', ' ')}"
            timeline.span("stall", name, began_s, time.perf_counter())
        return done

    def preload(self) -> None:
        """Bring what is resident before the first event, and wait for it."""
        with self.mover.lock:
            for key in self.decisions.kept:
                slot = self.decisions.slot_of(key)
                assert slot is not None, "a kept key has a slot"
                self.mover.queue(Transfer(key, self._settle_in(key, slot), demanded=True))
        self.mover.drain()

    def restart(self) -> None:
        """Empty the cache and forget all it did; nothing may be running."""
        self._start_over()
        self.decisions.restart()
        self.mover.restart(counted=True)
        self.deciding_s = 0.0
        self.waits = 0
        self._stalls.restart()
        self._host.restart()

    def _start_over(self) -> None:
        """After an interrupted event nothing is certain: empty the cache, keep the counts."""
        self.deferral.drop()
        with self.mover.lock:
            for transfer in [t for t in self.mover.demand if t.blocked]:
                self.mover.demand.remove(transfer)
        self.mover.drain()
        with self.mover.lock:
            self.mover.demand.clear()  # what was left to the host
        self.decisions.reset()
        self.mover.restart(counted=False)
        self._home.clear()
        if self.buffers is not None:
            self.buffers.drop_all()
        self._under_way.clear()
        self.preload()
        self._interrupted = False
