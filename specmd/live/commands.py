"""The link of the live engine: it moves nothing itself, it writes down what is to be moved.

The residency core decides a whole event at once. Before it, Python says which prefetches have
arrived and which have not started yet; while it decides, this link lists commands (fetch, promote,
prefetch, cancel, await, host, low-bit, defer); after it, Python hands them to a mover that carries
bytes. Arrays on both sides, so that the core is compiled here as it is for a replay: one event
costs some 15 us.

Nothing physical happens while the core decides, so `await_landing` may declare the next arrival:
the mover keeps that copy ahead of whatever the core then puts into the slot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import NOBODY, Event, FloatArray, IntArray, KeyArray
from specmd.core.hooks import moved_bytes, staged
from specmd.core.state import Core, land

# Commands; the mover carries them out in the order in which they were written.
FETCH, PROMOTE, PREFETCH, CANCEL, AWAIT, HOST, LOWBIT, DEFER = range(8)
NUM_COMMANDS = 8
MISSED = FETCH, HOST, LOWBIT, DEFER  # what a missing key is answered with
# Entries of `Commands.count`.
PENDING, PROMOTED, WRITTEN = range(3)


class Commands(NamedTuple):
    """Prefetches under way, what Python knows of them, and the commands of the present event."""

    pending: KeyArray  # (keys,) loading prefetches in order of issue: pending[:count[PENDING]]
    arrived: IntArray  # (keys,) set by Python: 1 once all bytes of the prefetch are there
    queued: IntArray  # (keys,) set by Python: 1 while not a byte of the prefetch has moved
    promoted: KeyArray  # (keys,) late keys of this event
    command: IntArray  # (3 * keys,) FETCH ... DEFER
    key: KeyArray  # (3 * keys,) the key each command is about
    written: IntArray  # (NUM_COMMANDS * keys,) how often each command was written of each key
    score: FloatArray  # (keys,) of a prefetch; larger is fetched first where the schedule says so
    count: IntArray  # type: ignore[assignment]  # PENDING, PROMOTED, WRITTEN
    cancels: int

    @classmethod
    def create(cls, num_keys: int, *, cancels: bool) -> Commands:
        """Build an idle link."""
        keys, numbers = np.zeros(num_keys, np.uint32), np.zeros(num_keys, np.int64)
        return cls(
            pending=keys.copy(),
            arrived=numbers.copy(),
            queued=numbers.copy(),
            promoted=keys.copy(),
            command=np.zeros(3 * num_keys, np.int64),
            key=np.zeros(3 * num_keys, np.uint32),
            written=np.zeros(NUM_COMMANDS * num_keys, np.int64),
            score=np.zeros(num_keys),
            count=np.zeros(3, np.int64),
            cancels=int(cancels),
        )

    def drain(self) -> None:
        """Forget what is under way: the cache is being emptied."""
        for i in range(len(self.count)):
            self.count[i] = 0

    def settle(self, core: Core, event: Event) -> None:
        """Land what Python says has arrived; forget the commands of the event before."""
        self.count[WRITTEN] = 0
        self.count[PROMOTED] = 0
        kept = 0
        for i in range(self.count[PENDING]):
            key = self.pending[i]
            if self.arrived[key] != 0:
                land(core, key)
            else:
                self.pending[kept] = key
                kept += 1
        self.count[PENDING] = kept

    def promote(self, core: Core, key: int) -> None:
        """Move a loading prefetch to the demanded keys; it lands within this event."""
        forget(self, key)
        self.promoted[self.count[PROMOTED]] = key
        self.count[PROMOTED] += 1
        write(self, PROMOTE, key)

    def withdraw(self, core: Core, event: Event) -> int:
        """Take back a prefetch meant for this event that is not in U and has not started."""
        if self.cancels:
            for i in range(self.count[PENDING]):
                key = self.pending[i]
                if (
                    core.due[key] <= event.clock
                    and core.hold[key] <= 1 + staged(core, key)
                    and self.queued[key] != 0
                ):
                    forget(self, key)
                    write(self, CANCEL, key)
                    return key
        return NOBODY

    def reclaim(self, core: Core, pool: int) -> int:
        """Take back the last prefetch into the pool that has not started."""
        for i in range(self.count[PENDING] - 1, -1, -1):
            key = self.pending[i]
            if core.pool[key] == pool and self.queued[key] != 0:
                forget(self, key)
                write(self, CANCEL, key)
                return key
        return NOBODY

    def await_landing(self, core: Core, pool: int) -> bool:
        """Count the oldest started prefetch into the pool as landed; the mover waits for it."""
        for i in range(self.count[PENDING]):
            key = self.pending[i]
            if core.pool[key] == pool:
                forget(self, key)
                write(self, AWAIT, key)
                land(core, key)
                return True
        return False

    def fetch(self, core: Core, key: int, event: Event) -> None:
        """Ask for a demanded key; where it goes is known when the event has been decided."""
        write(self, FETCH if moved_bytes(core, key, 1.0) == 1.0 else LOWBIT, key)

    def compute_on_host(self, core: Core, key: int, tokens: int, event: Event) -> None:
        """Ask for a demanded key to be computed where it is."""
        write(self, HOST, key)

    def defer(self, core: Core, key: int, tokens: int, event: Event) -> None:
        """Ask for a demanded key to be computed where it is, for the next layer to add."""
        write(self, DEFER, key)

    def prefetch(self, core: Core, key: int, score: float, event: Event) -> None:
        """Ask for a key ahead of its use."""
        self.pending[self.count[PENDING]] = key
        self.count[PENDING] += 1
        self.arrived[key] = 0
        self.queued[key] = 1
        self.score[key] = score
        write(self, PREFETCH, key)

    def execute(self, core: Core, event: Event) -> None:
        """Land the late keys: the mover brings them before they are computed."""
        for i in range(self.count[PROMOTED]):
            land(core, self.promoted[i])


def write(link: Commands, command: int, key: int) -> None:
    """Append a command."""
    at = link.count[WRITTEN]
    link.command[at] = command
    link.key[at] = key
    link.written[command * len(link.pending) + key] += 1
    link.count[WRITTEN] = at + 1


def forget(link: Commands, key: int) -> None:
    """Remove a key from the prefetches under way, keeping their order."""
    kept = 0
    for i in range(link.count[PENDING]):
        if link.pending[i] != key:
            link.pending[kept] = link.pending[i]
            kept += 1
    link.count[PENDING] = kept
