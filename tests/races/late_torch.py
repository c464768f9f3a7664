"""What the link and the mover take from `torch`, `threading` and `time`; see `late_device`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from late_device import Device, Memory, Recorded, Stream
from late_threads import Condition, Thread, join


class Event:
    """`torch.Event`: means what was recorded last."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.recorded: Recorded | None = None

    def record(self, stream: Stream) -> None:
        self._device.step_aside()
        self.recorded = Recorded(stream.tick())
        stream.queue.append(("event", self.recorded))

    def query(self) -> bool:
        recorded = self.recorded
        assert recorded is not None, "an event is asked for before it is recorded"
        if recorded.done:
            self._device.step_aside()
        else:
            self._device.turn()
        if recorded.done:
            join(self._device.here.clock, recorded.clock)
        return recorded.done

    def elapsed_time(self, other: Event) -> float:
        raise NotImplementedError


@dataclass
class Part:
    """Bytes of a memory: as much of a tensor as the link and the mover use."""

    device: Device
    memory: Memory
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> Part:
        start, stop, _ = part.indices(len(self))
        return Part(self.device, self.memory, self.start + start, self.start + stop)

    def copy_(self, source: Part, *, non_blocking: bool = False) -> None:
        assert len(source) == len(self)
        if self.memory.on_device:
            self.device.copy(self, source, asynchronous=non_blocking)
            return
        here = self.device.here
        here.clock[here.number] += 1
        self.device.write(here, self.memory, here.clock)
        self.memory.data[self.start : self.stop] = source.memory.data[source.start : source.stop]

    def fill_(self, value: int) -> None:
        self.device.fill(self.memory, value)

    def pin_memory(self) -> Part:
        self.memory.pinned = True
        return self


class LateTorch:
    """What the link and the mover take from `torch`, `threading` and `time`."""

    uint8 = torch.uint8

    def __init__(self, device: Device) -> None:
        self._device = device
        self.accelerator = SimpleNamespace(
            synchronize=lambda _: None,
            current_stream=lambda _: device.current,
            set_device_index=lambda _: None,
        )
        self.threading = SimpleNamespace(
            Condition=lambda: Condition(device),
            Thread=lambda target, name, daemon: Thread(device, "the copy thread", target),
        )
        self.time = SimpleNamespace(
            monotonic=lambda: 0.0, perf_counter=lambda: 0.0, sleep=lambda _: device.pause()
        )
        self._made = 0

    def Stream(self, _: Any) -> Stream:
        return Stream(self._device)

    def Event(self, _: Any, *, enable_timing: bool) -> Event:
        if enable_timing:
            raise NotImplementedError
        return Event(self._device)

    def empty(self, size: int, dtype: torch.dtype) -> Part:
        self._made += 1
        return Part(self._device, Memory(f"staging buffer {self._made}", [0] * size), 0, size)


@contextmanager
def patched(*places: tuple[Any, str, Any]) -> Any:
    """Set attributes for a while: thousands of schedules make pytest's own way slow."""
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    for place, name, value in places:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
