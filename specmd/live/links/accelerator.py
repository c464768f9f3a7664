"""The link of an accelerator: any device that `torch.accelerator` reports.

Written against PyTorch's device-neutral streams, events and pinned memory alone, so the same lines
run on CUDA, on other accelerators and on emulated ones. Copies have a stream of their own, apart
from whatever stream the caller computes on. Pageable experts pass through a ring of pinned buffers,
because a copy out of pageable memory would not be asynchronous at all.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.live.links.link import COPY, Mark
from specmd.live.slots import CANARY, Slots

_POLL_S = 20e-6


class AcceleratorLink:
    """Copies on a stream of the slots' device. See `specmd.live.links.link`.

    Args:
        slots: on the accelerator.
        chunk_bytes: size of a staging buffer.
        buffers: how many staging buffers there are.
        needs_pinned: False if the device reads all host memory by itself.

    """

    name = "accelerator"

    def __init__(
        self, slots: Slots, chunk_bytes: int, buffers: int, *, needs_pinned: bool = True
    ) -> None:
        self.device = slots.buffer.device
        self.needs_pinned = needs_pinned
        self._blobs = slots.blobs
        self._copies = torch.Stream(self.device)
        size = min(chunk_bytes, slots.layout.blob_bytes)
        self._sizes = (buffers, size)
        self._buffers: list[Tensor] = []
        torch.accelerator.synchronize(self.device)  # the slots were made on another stream
        self._keeps_time = self._can_time()

    def record(self, stream: int) -> Mark:
        """Record an event on the copy stream or on the caller's current one."""
        return self._record(stream, timed=False)

    def order(self, stream: int, mark: Mark) -> None:
        """Let a stream wait for an event."""
        self._stream(stream).wait_event(mark)

    def reached(self, mark: Mark) -> bool:
        """Whether an event has happened."""
        return bool(mark.query())

    def synchronise(self, mark: Mark, timeout_s: float) -> None:
        """Poll an event: a blocking wait could not time out."""
        deadline = time.monotonic() + timeout_s
        while not mark.query():
            if time.monotonic() > deadline:
                raise SpecmdError(f"the accelerator did not finish a copy within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def tick(self, stream: int) -> Mark | None:
        """Record an event that notes the device's time."""
        return self._record(stream, timed=True) if self._keeps_time else None

    def elapsed_s(self, before: Mark, after: Mark) -> float:
        """Device time between two ticks."""
        return float(before.elapsed_time(after)) * 1e-3

    def copy(self, slot: int, key: int, source: Tensor, start: int, stop: int) -> None:
        """Copy from pinned memory on the copy stream."""
        with self._copies:
            self._blobs[slot][start:stop].copy_(source[start:stop], non_blocking=True)

    def stage(self, buffer: int, key: int, source: Tensor, start: int, stop: int) -> None:
        """Copy into a pinned buffer, on the host."""
        if not self._buffers:
            self._buffers = [self._pinned(self._sizes[1]) for _ in range(self._sizes[0])]
        self._buffers[buffer][: stop - start].copy_(source[start:stop])

    def copy_staged(self, slot: int, key: int, buffer: int, start: int, stop: int) -> None:
        """Copy from a pinned buffer on the copy stream."""
        with self._copies:
            staged = self._buffers[buffer][: stop - start]
            self._blobs[slot][start:stop].copy_(staged, non_blocking=True)

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

    def _record(self, stream: int, *, timed: bool) -> Mark:
        mark = torch.Event(self.device, enable_timing=timed)
        mark.record(self._stream(stream))
        return mark

    def _can_time(self) -> bool:
        try:
            before, after = self._record(COPY, timed=True), self._record(COPY, timed=True)
            torch.accelerator.synchronize(self.device)
            return self.elapsed_s(before, after) >= 0.0
        except (RuntimeError, NotImplementedError, ValueError):
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
