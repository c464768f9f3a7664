"""The link of an accelerator: any device that `torch.accelerator` reports.

Written against PyTorch's device-neutral streams, events and pinned memory alone, so the same lines
run on CUDA, on other accelerators and on emulated ones. Copies have a stream of their own, apart
from whatever stream the caller computes on. Pageable experts pass through a ring of pinned buffers,
because a copy out of pageable memory would not be asynchronous at all.

A mark is an event. Making one costs the driver more than recording it, so events are used again: as
soon as nobody holds a mark any more, nobody can ask for it, and its event goes back to the pool. A
stream that was told to wait for it is not concerned: it waits for what was recorded by then.
"""

from __future__ import annotations

import time
from contextlib import suppress

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.live.links.link import COPY
from specmd.live.slots import CANARY, Slots

STAGING_BUFFERS = 2
_POLL_S = 20e-6


class EventMark:
    """A recorded event; back to its pool when it is let go of."""

    __slots__ = ("_pool", "event")

    def __init__(self, event: torch.Event, pool: list[torch.Event]) -> None:
        self.event, self._pool = event, pool

    def __del__(self) -> None:
        self._pool.append(self.event)


class AcceleratorLink:
    """Copies on a stream of the slots' device. See `specmd.live.links.link`.

    Args:
        slots: on the accelerator.
        chunk_bytes: size of a staging buffer.
        timeout_s: of waiting for a staging buffer.

    """

    name = "accelerator"
    needs_pinned = True

    def __init__(self, slots: Slots, chunk_bytes: int, *, timeout_s: float = 60.0) -> None:
        self.device = slots.buffer.device
        self._blobs, self._timeout_s = slots.blobs, timeout_s
        self._copies = torch.Stream(self.device)
        self._pools: tuple[list[torch.Event], list[torch.Event]] = ([], [])  # untimed, timed
        self._buffer_bytes = min(chunk_bytes, slots.layouts.largest_bytes)
        self._buffers: list[Tensor] = []
        self._staged: list[EventMark | None] = [None] * STAGING_BUFFERS
        self._next = 0
        torch.accelerator.synchronize(self.device)  # the slots were made on another stream
        self._keeps_time = self._can_time()

    def record(self, stream: int) -> EventMark:
        """Record an event on the copy stream or on the caller's current one."""
        return self._record(stream, timed=False)

    def order(self, stream: int, mark: EventMark) -> None:
        """Let a stream wait for an event."""
        self._stream(stream).wait_event(mark.event)

    def reached(self, mark: EventMark) -> bool:
        """Whether an event has happened."""
        return bool(mark.event.query())

    def synchronise(self, mark: EventMark, timeout_s: float) -> None:
        """Poll an event: a blocking wait could not time out."""
        deadline = time.monotonic() + timeout_s
        while not self.reached(mark):
            if time.monotonic() > deadline:
                raise SpecmdError(f"the accelerator did not finish a copy within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def tick(self, stream: int) -> EventMark | None:
        """Record an event that notes the device's time."""
        return self._record(stream, timed=True) if self._keeps_time else None

    def elapsed_s(self, before: EventMark, after: EventMark) -> float:
        """Device time between two ticks."""
        return float(before.event.elapsed_time(after.event)) * 1e-3

    def copy(self, slot: int, source: Tensor, start: int, stop: int, pinned: bool) -> None:
        """Copy on the copy stream: out of pinned memory, or out of a buffer filled by the host."""
        buffer = self._next
        if not pinned:
            source = self._stage(buffer, source)
        with self._copies:
            self._blobs[slot][start:stop].copy_(source, non_blocking=True)
        if not pinned:
            self._staged[buffer] = self.record(COPY)
            self._next = (buffer + 1) % STAGING_BUFFERS

    def _stage(self, buffer: int, source: Tensor) -> Tensor:
        """Fill a staging buffer once the copy out of it is done."""
        if not self._buffers:
            self._buffers = [self._pinned(self._buffer_bytes) for _ in range(STAGING_BUFFERS)]
        mark = self._staged[buffer]
        if mark is not None:
            self.synchronise(mark, self._timeout_s)
        staged = self._buffers[buffer][: len(source)]
        staged.copy_(source)
        return staged

    def blank(self, slot: int) -> None:
        """Overwrite a slot with the canary on the copy stream."""
        with self._copies:
            self._blobs[slot].fill_(CANARY)

    def attach(self) -> None:
        """Make the device current in the copy thread."""
        torch.accelerator.set_device_index(self.device.index or 0)

    def close(self) -> None:
        """Let go of slots and buffers."""
        self._blobs, self._buffers = [], []

    def _record(self, stream: int, *, timed: bool) -> EventMark:
        pool = self._pools[timed]
        try:
            event = pool.pop()
        except IndexError:
            event = torch.Event(self.device, enable_timing=timed)
        event.record(self._stream(stream))
        return EventMark(event, pool)

    def _can_time(self) -> bool:
        with suppress(RuntimeError, NotImplementedError, ValueError):
            before, after = self._record(COPY, timed=True), self._record(COPY, timed=True)
            torch.accelerator.synchronize(self.device)
            return self.elapsed_s(before, after) >= 0.0
        return False  # then stalls are what the host waits

    def _pinned(self, size: int) -> Tensor:
        plain = torch.empty(size, dtype=torch.uint8)
        try:
            return plain.pin_memory()
        except (RuntimeError, NotImplementedError):
            return plain  # copies out of it are correct, and slower

    def _stream(self, stream: int) -> torch.Stream:
        if stream == COPY:
            return self._copies
        return torch.accelerator.current_stream(self.device)
