"""One expert on its way into a slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specmd.live.slots import Home


@dataclass(eq=False, slots=True)
class Transfer:
    """The state of a copy; guarded by the lock of its mover.

    Attributes:
        key: the expert.
        home: the slot it goes to, and that slot's generation.
        demanded: a layer waits for it; else it is a prefetch.
        score: of a prefetch, larger is copied first where the schedule says so.
        due: of a prefetch, smaller is copied first where the schedule says so.
        prefetched: it began as a prefetch.
        blocked: an expert of the present event must be computed out of the slot first.
        after: an unfinished copy into the same slot that goes first.
        moved_bytes: how far it is.
        started: its first chunk is under way or done: it can no longer be cancelled.
        done: all its chunks are issued, and `ready` is the mark behind them.
        error: why it failed.
        issued: step and phase in which it was asked for.
        whole: all its bytes are in host memory, from where they may cross.
        crossing: its first chunk has crossed, or is about to.
        host: its slot in a host tier; None: it passes through.
        host_after: the transfer that had that host slot before: its copy goes first.
        low: it is the expert's copy of few bits.
        stays: it is computed in host memory, and crosses no link.
        spare: it passes through a spare slot of the host, though it was given another.
        read_bytes: how much of it has been read from the disk.
        whole_s: when the last byte had been read, by `time.perf_counter`; 0: it was there.

    """

    key: int
    home: Home
    demanded: bool
    score: float = 0.0
    due: int = 0
    prefetched: bool = False
    blocked: bool = False
    after: Transfer | None = None
    moved_bytes: int = 0
    started: bool = False
    done: bool = False
    ready: Any = None
    error: BaseException | None = None
    issued: tuple[int, int] = (0, 0)
    whole: bool = True
    crossing: bool = False
    host: int | None = None
    host_after: Transfer | None = None
    low: bool = False
    stays: bool = False
    spare: bool = False
    read_bytes: int = 0
    whole_s: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether a part of it has been read or copied, or is."""
        return self.crossing or self.read_bytes > 0

    @property
    def there(self) -> bool:
        """Whether it can be computed: its copy is issued, or it is whole where it stays."""
        return self.done or (self.stays and self.whole)

    @property
    def may_move(self) -> bool:
        """Whether its next chunk may be copied now."""
        self.after = unfinished(self.after)
        return self.whole and not self.blocked and not self.stays and self.after is None


def unfinished(transfer: Transfer | None) -> Transfer | None:
    """Return the transfer or the last before it into the same slot that is still to be made."""
    while transfer is not None and transfer.done:
        transfer = transfer.after  # of one that was cancelled
    return transfer


def unfinished_in_host(transfer: Transfer | None) -> Transfer | None:
    """Return the transfer or the last before it that is still to be copied out of its host slot."""
    while transfer is not None and (transfer.done or transfer.spare):
        transfer = transfer.host_after
    return transfer
