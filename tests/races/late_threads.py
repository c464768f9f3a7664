"""Threads of which one runs at a time, and who goes on is chosen; see `late_device`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Clock = list[int]
LINES = 5  # two threads and three streams: the numbers of a clock


class Stuck(RuntimeError):
    """Nobody can go on."""


class Over(BaseException):
    """The schedule is over: threads that are left end."""


@dataclass(eq=False)
class Line:
    """A thread or a stream: something inside which things happen in order."""

    name: str
    number: int
    clock: Clock


def join(clock: Clock, other: Clock) -> None:
    """Know from now on what another knew."""
    for i, time in enumerate(other):
        if time > clock[i]:
            clock[i] = time


class Thread:
    """`threading.Thread`, of which one runs at a time; the first is the caller's own."""

    def __init__(self, device: Any, name: str, target: Callable[[], None] | None = None) -> None:
        self._device, self._target = device, target
        self.line = device.line(name)
        self.baton = threading.Lock()  # held but for a hand-over; the quickest there is
        self.baton.acquire()
        self.ready: Callable[[], bool] | None = None
        self.over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def may_run(self) -> bool:
        """Whether what it waits for has happened."""
        return self.ready is None or self.ready()

    def start(self) -> None:
        join(self.line.clock, self._device.here.clock)
        self._thread.start()
        self._device.threads.append(self)

    def _run(self) -> None:
        self.baton.acquire()
        assert self._target is not None
        with suppress(Over):
            if not self._device.over:
                self._target()
        if not self._device.over:
            self._device.leave(self)

    def end(self) -> None:
        """Wait for the real thread."""
        self._thread.join()

    def is_alive(self) -> bool:
        return not self.over

    def join(self, timeout: float) -> None:
        """Wait; as long as the other can go on, no timeout passes."""
        self._device.turn(lambda: self.over)
        join(self._device.here.clock, self.line.clock)


class Condition:
    """`threading.Condition`: who gets the lock knows what those knew who had it before."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._owner: Line | None = None
        self._depth = 0
        self._clock: Clock = [0] * LINES
        self._waiting: list[Line] = []

    def __enter__(self) -> Condition:
        here = self._device.here
        if self._owner is not here:
            if self._owner is None:
                self._device.step_aside()
            if self._owner is not None:
                self._device.turn(lambda: self._owner is None)
            self._owner = here
            join(here.clock, self._clock)
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._release()
            self._device.step_aside()

    def _release(self) -> None:
        here = self._device.here
        here.clock[here.number] += 1
        join(self._clock, here.clock)
        self._owner = None

    def wait(self, timeout: float) -> None:
        """Sleep until notified; the timeout passes only if nobody else can go on."""
        here, depth = self._device.here, self._depth
        self._waiting.append(here)
        self._depth = 0
        self._release()
        self._device.turn(lambda: here not in self._waiting and self._owner is None)
        self._owner, self._depth = here, depth
        join(here.clock, self._clock)

    def notify_all(self) -> None:
        assert self._owner is self._device.here, "notified without the lock"
        self._waiting.clear()
