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
        prefetched: it began as a prefetch.
        blocked: an expert of the present event must be computed out of the slot first.
        after: an unfinished copy into the same slot that goes first.
        moved_bytes: how far it is.
        started: its first chunk is under way or done: it can no longer be cancelled.
        done: all its chunks are issued, and `ready` is the mark behind them.
        error: why it failed.

    """

    key: int
    home: Home
    demanded: bool
    score: float = 0.0
    prefetched: bool = False
    blocked: bool = False
    after: Transfer | None = None
    moved_bytes: int = 0
    started: bool = False
    done: bool = False
    ready: Any = None
    error: BaseException | None = None

    @property
    def may_move(self) -> bool:
        """Whether its next chunk may be copied now."""
        self.after = unfinished(self.after)
        return not self.blocked and self.after is None


def unfinished(transfer: Transfer | None) -> Transfer | None:
    """Return the transfer or the last before it into the same slot that is still to be made."""
    while transfer is not None and transfer.done:
        transfer = transfer.after  # of one that was cancelled
    return transfer
