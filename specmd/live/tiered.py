"""The mover where experts come from a disk through host slots: one more thread, which reads.

A transfer begins by asking the host tier for its key: a demand when it is queued, a prefetch when
the reading thread takes it up. What is in a host slot may cross the link at once; what is not is
read into its slot, chunk by chunk, and may cross when it is whole. Meanwhile the copy thread
carries others, so reading one expert overlaps copying another. Demands are read before prefetches,
from the next chunk on. A prefetch is taken up when no other is read or waits for the link: what has
begun can no longer be cancelled.

A host slot changes hands by decision; its bytes follow. An expert is read into a slot only when the
copies out of it are over. Where such a copy must itself wait for something to be computed, and for
an expert that the tier refused, the expert passes through a spare slot instead, and is read again
the next time.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from torch import Tensor

from specmd.live.host import Answer, HostTier
from specmd.live.stores.tiered import TieredStore
from specmd.live.transfer import Transfer, unfinished_in_host
from specmd.live.transfers import Mover


class TieredMover(Mover):
    """A mover with a tier; see `Mover` for the other arguments.

    Args:
        tier: decides; asked with the lock held.
        host: holds the bytes; the mover's store.

    Attributes:
        disk_busy_s: time the disk was read.

    """

    def __init__(self, *args: Any, tier: HostTier, host: TieredStore, **more: Any) -> None:
        super().__init__(*args, **more)
        self.tier, self.host = tier, host
        self.disk_busy_s = 0.0
        self._answers: dict[int, Answer] = {}  # of demands that are not queued yet
        self._user: dict[int, Transfer] = {}  # host slot -> the last transfer it was given to
        self._copied: dict[int, Any] = {}  # host slot -> the mark behind the last copy out of it
        self._reader: threading.Thread | None = None

    # What is queued. The lock is held.

    def set_out(self, key: int, issued: tuple[int, int]) -> None:
        """Ask the host for a demanded key that is about to be queued."""
        self._answers[key] = self.tier.ask(key, *issued)

    def set_out_late(self, transfer: Transfer) -> None:
        """Ask the host for a prefetch that is demanded before it began."""
        if not transfer.started:
            self._begin(transfer)

    def queue(self, transfer: Transfer) -> Transfer:
        """Accept a transfer; a demand begins."""
        transfer.whole = False
        if transfer.demanded:
            self._place(transfer, self._answers.pop(transfer.key, Answer(False, None)))
        return super().queue(transfer)

    def keep(self, transfer: Transfer) -> None:
        """Let a key be read that is computed in host memory, unless it is there."""
        self.queue(transfer)

    def let_go(self, transfer: Transfer) -> None:
        """Let the host slot of a computed key be read into."""
        with self.lock:
            transfer.done = True
            self.demand.remove(transfer)
            self.lock.notify_all()

    def in_host(self, transfer: Transfer) -> Tensor:
        """Return the bytes in a key's host slot."""
        assert transfer.host is not None
        return self.host.chunk(transfer.host, 0, self.slots.layouts.of(transfer.key).blob_bytes)

    def _begin(self, transfer: Transfer) -> None:
        transfer.started = True
        self._place(transfer, self.tier.ask(transfer.key, *transfer.issued))

    def _place(self, transfer: Transfer, answer: Answer) -> None:
        """Give a transfer its host slot."""
        slot = transfer.host = answer.slot
        if slot is not None:
            transfer.whole = answer.there and self.host.held[slot] == transfer.key
            transfer.host_after = self._user.get(slot)
            self._user[slot] = transfer

    def restart(self, *, counted: bool) -> None:
        """Empty the tier; with `counted` forget what it counted, too. Nothing is under way."""
        self._answers.clear()
        self._user.clear()
        self.host.forget()
        if counted:
            self.tier.restart()
        else:
            self.tier.reset()

    # Reading, on the reading thread.

    def _take_up(self) -> Transfer | None:
        """Pick what is read: a demand, else the prefetch that is being read, else the next."""
        for transfer in self.demand:
            if not transfer.whole and self._has_slot(transfer):
                return transfer
        begun = [t for t in self.ahead if t.started]
        for transfer in begun:
            if not transfer.whole:
                return transfer if self._has_slot(transfer) else None
        if any(not transfer.crossing for transfer in begun):
            return None
        fresh = [t for t in self.ahead if not t.started]
        if not fresh:
            return None
        transfer = max(fresh, key=self.urgency)
        self._begin(transfer)
        self.lock.notify_all()
        return self._take_up()

    def _has_slot(self, transfer: Transfer) -> bool:
        """Whether a transfer may be read now, if need be into a spare slot."""
        if transfer.spare:
            return True
        before = transfer.host_after = unfinished_in_host(transfer.host_after)
        if transfer.host is not None and before is None:
            return True
        waits = transfer.host is not None and before is not None and not before.blocked
        if waits or transfer.blocked:
            return False
        for spare in range(self.host.slots, len(self.host.held)):
            user = self._user.get(spare)
            if user is None or user.done:
                transfer.host, transfer.spare = spare, True
                self._user[spare] = transfer
                return True
        return False

    def _read(self, transfer: Transfer) -> int:
        """Read one chunk; return the byte it ends before."""
        start, slot = transfer.read_bytes, transfer.host
        assert slot is not None
        stop = min(start + self.chunk_bytes, self.slots.layouts.of(transfer.key).blob_bytes)
        try:
            if start == 0:
                self._wait_for_copies(slot)
            began_s = time.perf_counter()
            self.host.load(transfer.key, slot, start, stop)
            ended_s = time.perf_counter()
        except BaseException as error:
            with self.lock:
                transfer.error, self.failure, self._failed_key = error, error, transfer.key
                self.lock.notify_all()
            raise
        self.disk_busy_s += ended_s - began_s
        if self.timeline is not None:
            name = self.timeline.key_name(transfer.key)
            self.timeline.span("disk", name, began_s, ended_s, slot=slot, bytes=stop - start)
        return stop

    def _wait_for_copies(self, slot: int) -> None:
        """Wait until the device has read the last bytes that were copied out of a host slot."""
        mark = self._copied.pop(slot, None)
        if mark is not None:
            self.link.synchronise(mark, self.timeout_s)

    def _has_read(self, transfer: Transfer, stop: int) -> None:
        """Count a chunk that has been read; the lock is held."""
        transfer.read_bytes = stop
        if stop < self.slots.layouts.of(transfer.key).blob_bytes:
            return
        assert transfer.host is not None
        self.host.held[transfer.host] = transfer.key
        transfer.whole, transfer.whole_s = True, time.perf_counter()
        self.lock.notify_all()

    # Copying, on the copy thread.

    def _source(self, transfer: Transfer, start: int, stop: int) -> tuple[Tensor, bool]:
        assert transfer.host is not None
        return self.host.chunk(transfer.host, start, stop), self.host.is_locked()

    def _arrive(self, transfer: Transfer, stop: int) -> None:
        super()._arrive(transfer, stop)
        if transfer.done and transfer.host is not None:
            self._copied[transfer.host] = transfer.ready
            self.lock.notify_all()

    def step(self) -> bool:
        """Read one chunk, or move one; False if there is nothing that may."""
        with self.lock:
            transfer = self._take_up()
        if transfer is None:
            return super().step()
        stop = self._read(transfer)
        with self.lock:
            self._has_read(transfer, stop)
        return True

    # The thread.

    def start(self) -> None:
        """Start both threads."""
        super().start()
        self._reader = threading.Thread(target=self._work_reading, name="specmd-read", daemon=True)
        self._reader.start()

    def _threads(self) -> list[threading.Thread]:
        return [*super()._threads(), *([] if self._reader is None else [self._reader])]

    def _work_reading(self) -> None:
        self._work_off(self._take_up, lambda transfer, _: self._read(transfer), self._has_read)
