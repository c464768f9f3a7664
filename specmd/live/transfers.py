"""The mover: carries experts into slots, demand before prefetch, chunk by chunk.

One thread moves bytes and owns nothing else: which key goes to which slot was decided before
(`specmd.live.service`). It works from two lists. A demanded expert goes first, at the next
chunk boundary of whatever is under way; a prefetch that has started is finished before another
starts; one that has not started can be taken back. Copies are issued on the link's copy stream
with the marks that order them against the kernels; at most two chunks are in flight, so that a
prefetch does not fill the device's queue ahead of a demand.

Nothing is swallowed: a copy that fails keeps its error, and whoever next waits for it, or for
anything, gets it, with the key. Every wait has a timeout.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from torch import Tensor

from specmd.errors import SpecmdError
from specmd.live.links.link import COMPUTE, COPY, Link, Mark
from specmd.live.links.throttle import Throttle
from specmd.live.ranges import named
from specmd.live.slots import Home, Slots
from specmd.live.stores.store import ExpertStore
from specmd.live.transfer import Transfer, unfinished
from specmd.runs.timeline import Timeline

IN_FLIGHT_CHUNKS = 2
LOOK_S = 0.25  # how often a waiting thread looks whether the other is still alive


class Mover:
    """Two queues and the thread that works them off. `lock` guards them; queueing needs it held.

    Args:
        link: where the copies go.
        store: where the experts come from.
        slots: where they go to.
        chunk_bytes: a demand waits for at most one chunk of a prefetch.
        by_score: the best prefetch first, else the oldest.
        by_deadline: before that, the one that is due first.
        timeout_s: a wait longer than this is an error.
        copies: where copies of few bits come from, or None.
        throttle: paces the copies, or None.
        timeline: takes down the chunks, or None.

    """

    def __init__(
        self,
        link: Link,
        store: ExpertStore,
        slots: Slots,
        *,
        chunk_bytes: int,
        by_score: bool = True,
        by_deadline: bool = False,
        timeout_s: float = 60.0,
        copies: ExpertStore | None = None,
        throttle: Throttle | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.lock = threading.Condition()
        self.link, self.store, self.slots = link, store, slots
        self.copies = copies or store
        self.chunk_bytes, self.by_score = max(1, chunk_bytes), by_score
        self.by_deadline = by_deadline
        self.timeout_s, self.throttle, self.timeline = timeout_s, throttle, timeline
        self.demand: list[Transfer] = []
        self.ahead: list[Transfer] = []
        self.moved_bytes = 0
        self.busy_s = 0.0  # time the link carried chunks
        self.unloaded_bytes_per_s: float | None = None  # what it carries when nothing else runs
        self.failure: BaseException | None = None
        self._failed_key = -1
        self._into: dict[int, Transfer] = {}  # slot -> the last that was to go there
        # By slot: the mark behind the copy that filled it, and behind the last kernel that read
        # it; None once nobody needs to wait for it any more.
        self._ready: list[Mark | None] = [None] * len(slots.key_in)
        self._last_use: list[Mark | None] = [None] * len(slots.key_in)
        self._issued: deque[Mark] = deque()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._busy = False  # the chunk to be moved was waiting for the one before

    # What a mover with a disk behind the host does otherwise (`specmd.live.tiered`).

    def set_out(self, key: int, issued: tuple[int, int]) -> None:
        """Note that the transfer of a demanded key begins, in some step and phase."""

    def set_out_late(self, transfer: Transfer) -> None:
        """Note that a prefetch begins, if it has not, because it is demanded."""

    def keep(self, transfer: Transfer) -> None:
        """Accept a demanded key that is computed in host memory."""

    def let_go(self, transfer: Transfer) -> None:
        """Note that a key has been computed in host memory."""

    def in_host(self, transfer: Transfer) -> Tensor:
        """Return the whole blob of a key that is computed in host memory."""
        return self.store.whole(transfer.key)

    def restart(self, *, counted: bool) -> None:
        """Forget what is kept on the way to the link; with `counted` also what was counted."""

    def _source(self, transfer: Transfer, start: int, stop: int) -> tuple[Tensor, bool]:
        """Return bytes of a transfer in host memory, and whether a device can read them."""
        store = self.copies if transfer.low else self.store
        return store.read(transfer.key, start, stop), store.is_pinned(transfer.key)

    # What is queued. The lock is held.

    def queue(self, transfer: Transfer) -> Transfer:
        """Accept a transfer: behind the demands if it is one, else among the prefetches."""
        if not (transfer.blocked or transfer.stays):
            self._follow(transfer)
        (self.demand if transfer.demanded else self.ahead).append(transfer)
        self.lock.notify_all()
        return transfer

    def unblock(self, transfer: Transfer, home: Home) -> None:
        """Let a blocked transfer go: its slot has been computed out of."""
        transfer.home, transfer.blocked = home, False
        self._follow(transfer)
        self.lock.notify_all()

    def hasten(self, transfer: Transfer) -> None:
        """Treat a prefetch as a demand from now on; one under way stays ahead of the others."""
        transfer.demanded = True
        if transfer in self.ahead:
            self.ahead.remove(transfer)
            self.demand.insert(0 if transfer.moves else len(self.demand), transfer)
            self.lock.notify_all()

    def cancel(self, transfer: Transfer) -> None:
        """Take back a prefetch of which nothing has moved."""
        assert not transfer.started, "a transfer that has started is not cancelled"
        self.ahead.remove(transfer)
        transfer.done = True

    def _follow(self, transfer: Transfer) -> None:
        slot = transfer.home.slot
        transfer.after = unfinished(self._into.get(slot))
        self._into[slot] = transfer

    # Waiting, on the thread that computes.

    def has_arrived(self, transfer: Transfer) -> bool:
        """Whether all bytes of a transfer are there."""
        return transfer.done and transfer.error is None and self.link.reached(transfer.ready)

    def raise_failure(self) -> None:
        """Raise what went wrong on the copy thread, if anything did."""
        if self.failure is None:
            return
        where = f"copying expert {self._failed_key} failed" if self._failed_key >= 0 else "failed"
        kind = type(self.failure).__name__
        raise SpecmdError(
            f"the copy thread stopped: {where}: {kind}: {self.failure}; leave the offload block "
            "and enter it again"
        ) from self.failure

    def wait_for_any(self, transfers: Iterable[Transfer]) -> Transfer:
        """Block until one of the transfers can be computed, and return it.

        Raises:
            SpecmdError: the copy thread failed or died, or `timeout_s` passed.

        """
        wanted = list(transfers)
        deadline = time.monotonic() + self.timeout_s
        while True:
            with self.lock:
                self.raise_failure()
                for transfer in wanted:
                    if transfer.there:
                        return transfer
                if self._thread is not None:
                    self.lock.wait(LOOK_S)
                    self._look_after_thread(deadline, wanted[0].key)
            if self._thread is None and not self.step():
                raise SpecmdError(f"nothing can move, but expert {wanted[0].key} is waited for")

    def drain(self) -> None:
        """Block until nothing is queued or under way and every byte has arrived."""
        while True:
            with self.lock:
                self.raise_failure()
                waiting = [t for t in (*self.demand, *self.ahead) if not (t.blocked or t.there)]
            if not waiting:
                break
            self.wait_for_any(waiting)
        for slot, mark in enumerate(self._ready):
            if mark is not None:
                self.link.synchronise(mark, self.timeout_s)
                self._ready[slot] = None

    def _threads(self) -> list[threading.Thread]:
        return [] if self._thread is None else [self._thread]

    def _look_after_thread(self, deadline: float, key: int) -> None:
        if not all(each.is_alive() for each in self._threads()) and self.failure is None:
            self.failure = RuntimeError("it ended without a word")
        if time.monotonic() > deadline and self.failure is None:
            raise SpecmdError(
                f"waited {self.timeout_s:g} s for expert {key}: the link is stuck or far too slow; "
                "raise timeout_s if it is meant to be that slow"
            )

    def before_use(self, slot: int) -> None:
        """Let the compute stream wait for the copy that filled a slot, unless it has landed."""
        mark = self._ready[slot]
        if mark is None:
            return
        if self.link.reached(mark):
            self._ready[slot] = None
        else:  # kept: the next kernel may run on another stream of the caller's
            self.link.order(COMPUTE, mark)

    def after_use(self, slot: int) -> None:
        """Note that all kernels that read a slot have been issued."""
        self._last_use[slot] = self.link.record(COMPUTE)

    # Copying, on the copy thread.

    def step(self) -> bool:
        """Move one chunk; False if there is nothing that may move."""
        with self.lock:
            transfer = self._start_next()
        if transfer is not None:
            stop = self._move_or_fail(transfer)
            with self.lock:
                self._arrive(transfer, stop)
        return transfer is not None

    def _start_next(self) -> Transfer | None:
        """Pick what moves: a demand, else the prefetch that has started, else the best."""
        able = next((t for t in self.demand if t.may_move), None)
        if able is None and (ahead := [t for t in self.ahead if t.may_move]):
            able = max(ahead, key=lambda t: (t.crossing, *self.urgency(t)))
        if able is not None:
            able.started = able.crossing = True
        return able

    def urgency(self, ahead: Transfer) -> tuple[float, float]:
        """Say how soon a prefetch is to begin, the largest first."""
        return -ahead.due if self.by_deadline else 0, ahead.score if self.by_score else 0

    def _move_or_fail(self, transfer: Transfer) -> int:
        """Move a chunk; what goes wrong is kept for whoever waits."""
        try:
            return self._move(transfer, transfer.moved_bytes)
        except BaseException as error:
            with self.lock:
                transfer.error, self.failure, self._failed_key = error, error, transfer.key
                self.lock.notify_all()
            raise

    def _move(self, transfer: Transfer, start: int) -> int:
        """Issue one chunk; return the byte it ends before."""
        link, slot, key = self.link, transfer.home.slot, transfer.key
        stop = min(start + self.chunk_bytes, self.slots.num_bytes_of(key, transfer.low))
        began_s = time.perf_counter()
        begin_s = self.throttle.begin(start == 0, busy=self._busy) if self.throttle else 0.0
        if start == 0:
            self._wait_for_last_use(slot)
            if self.slots.canary:
                link.blank(slot)
        source, pinned = self._source(transfer, start, stop)
        with named("specmd copy", link.device):
            link.copy(slot, source, start, stop, pinned)
        transfer.ready = link.record(COPY)
        self._issued.append(transfer.ready)
        if len(self._issued) > IN_FLIGHT_CHUNKS:
            link.synchronise(self._issued.popleft(), self.timeout_s)
        if self.throttle:
            self.throttle.pace(begin_s, stop - start)
        ended_s = time.perf_counter()
        self.busy_s += ended_s - began_s
        if self.timeline is not None:
            cause = "prefetch" if transfer.prefetched else "demand"
            name = f"{self.timeline.key_name(key)} {cause}"
            self.timeline.span("link", name, began_s, ended_s, slot=slot, bytes=stop - start)
        return stop

    def _wait_for_last_use(self, slot: int) -> None:
        """Let the copy stream wait for the last kernel that read a slot, unless it is over."""
        mark, self._last_use[slot] = self._last_use[slot], None
        if mark is not None and not self.link.reached(mark):
            self.link.order(COPY, mark)

    def _arrive(self, transfer: Transfer, stop: int) -> None:
        """Count a chunk that has been issued; the lock is held."""
        self.moved_bytes += stop - transfer.moved_bytes
        transfer.moved_bytes = stop
        if stop < self.slots.num_bytes_of(transfer.key, transfer.low):
            return
        slot = transfer.home.slot
        self._ready[slot] = transfer.ready
        transfer.done = True
        (self.demand if transfer in self.demand else self.ahead).remove(transfer)
        self.lock.notify_all()

    # The thread.

    def start(self) -> None:
        """Start the copy thread; without it `step` has to be called."""
        self._thread = threading.Thread(target=self._work, name="specmd-copy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the copy thread, whatever is queued, and let go of the slots; safe to call twice.

        What was issued to the device is waited for: the slots' memory is about to be given to
        somebody else, and a copy on its way there, or a kernel reading it, would not know.

        Raises:
            SpecmdError: the device did not finish within `timeout_s`.

        """
        with self.lock:
            self._stopping = True
            self.lock.notify_all()
        for thread in self._threads():
            thread.join(min(self.timeout_s, 10.0))
        self._thread = None
        try:
            link = self.link
            for mark in (link.record(COPY), link.record(COMPUTE), *self._last_use):
                if mark is not None:
                    link.synchronise(mark, self.timeout_s)
        finally:
            self._issued.clear()
            self._ready = [None] * len(self._ready)
            self._last_use = [None] * len(self._last_use)
            self.link.close()

    def _work(self) -> None:
        self._work_off(self._start_next, self._carry, self._arrive)

    def _carry(self, transfer: Transfer, waited: bool) -> int:
        self._busy = not waited
        return self._move_or_fail(transfer)

    def _work_off(
        self,
        take: Callable[[], Transfer | None],
        carry: Callable[[Transfer, bool], int],
        account: Callable[[Transfer, int], None],
    ) -> None:
        """Carry chunk after chunk, with one hold of the lock between two of them.

        Every time this thread wants the lock or the interpreter, the thread that computes may have
        to wait for it, and then to be woken up.

        Args:
            take: picks what is next, or nothing; the lock is held.
            carry: carries a chunk, told whether it had to be waited for; returns where it ends.
            account: notes that it was carried so far; the lock is held.

        """
        try:
            self.link.attach()
            transfer: Transfer | None = None
            stop = 0
            while True:
                with self.lock:
                    if transfer is not None:
                        account(transfer, stop)
                    transfer = None if self._stopping else take()
                    waited = transfer is None
                    while transfer is None and not self._stopping:
                        self.lock.wait(LOOK_S)
                        transfer = None if self._stopping else take()
                if transfer is None:
                    return
                stop = carry(transfer, waited)
        except BaseException as error:  # whoever waits for us gets it
            with self.lock:
                self.failure = self.failure or error
                self.lock.notify_all()
