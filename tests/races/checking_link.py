"""A link that moves nothing and checks everything: streams as promised, not as they behave.

A real device hides races: its copy stream happens to be quick, its kernels happen to be late. Here
work issued to a stream waits in a queue, and a chooser decides when a stream does its next piece,
within what stream semantics allow: in order inside a stream, after the marks it was told to wait
for, and otherwise whenever it likes. Two independent checks are made:

* *order*: every access to a slot or a staging buffer carries a vector clock (host, copy stream,
  compute stream). Two accesses, one of them a write, that neither a stream nor a mark orders are
  reported, whatever this schedule happened to do;
* *contents*: every chunk written carries its key, every kernel that reads a slot must find all
  chunks of its key there, in this schedule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.live.links.link import COMPUTE, COPY

HOST = 2
_NAMES = {COPY: "copy stream", COMPUTE: "compute stream", HOST: "host"}
Clock = tuple[int, int, int]
Chooser = Callable[[int], int]
NOTHING = -1


@dataclass(eq=False, slots=True)
class SymbolicMark:
    """A mark: what happened before it, and whether this schedule has got there."""

    clock: Clock
    done: bool = False


@dataclass(slots=True)
class _Place:
    """Accesses to a slot or a buffer: its last write, and the reads since, by timeline."""

    write: tuple[int, int] | None = None  # timeline, time on it
    reads: dict[int, int] = field(default_factory=dict)


class CheckingLink:
    """Records what is issued and does it in any order that is allowed. See `specmd.live.links`.

    Args:
        slots: number of slots.
        chunks: chunks of an expert, as start bytes.
        choose: picks one of n possibilities, 0..n-1.

    Attributes:
        findings: what was wrong, one line each.

    """

    name = "checking"
    needs_pinned = True

    def __init__(self, slots: int, chunks: tuple[int, ...], choose: Chooser) -> None:
        self.device = torch.device("cpu")
        self.findings: list[str] = []
        self._chunks, self._choose = chunks, choose
        self._contents = [dict.fromkeys(chunks, NOTHING) for _ in range(slots)]
        self._buffers: dict[int, int] = {}
        self._places: dict[tuple[str, int], _Place] = {}
        self._clocks: list[Clock] = [(0, 0, 0), (0, 0, 0), (0, 0, 0)]
        self._queues: tuple[deque[Any], deque[Any]] = (deque(), deque())

    # The interface of a link.

    def record(self, stream: int) -> SymbolicMark:
        """Queue a mark."""
        mark = SymbolicMark(self._tick(stream))
        self._queues[stream].append((None, mark))
        return mark

    def order(self, stream: int, mark: SymbolicMark) -> None:
        """Queue a wait."""
        self._clocks[stream] = _join(self._clocks[stream], mark.clock)
        self._queues[stream].append((mark, None))

    def reached(self, mark: SymbolicMark) -> bool:
        """Let the streams work for a while, then look."""
        self.progress()
        if mark.done:
            self._clocks[HOST] = _join(self._clocks[HOST], mark.clock)
        return mark.done

    def synchronise(self, mark: SymbolicMark, timeout_s: float) -> None:
        """Let the streams work until the mark is reached."""
        while not mark.done:
            able = self._able()
            if not able:
                raise SpecmdError("deadlock: both streams wait for each other")
            self._do(able[self._choose(len(able))])
        self._clocks[HOST] = _join(self._clocks[HOST], mark.clock)

    def tick(self, stream: int) -> None:
        """Keep no time: schedules have an order and no durations."""

    def elapsed_s(self, before: SymbolicMark, after: SymbolicMark) -> float:
        """Never asked for: there are no ticks."""
        return 0.0

    def copy(self, slot: int, key: int, source: Tensor, start: int, stop: int) -> None:
        """Queue a chunk."""
        self._write(COPY, "slot", slot, self._tick(COPY))
        self._queues[COPY].append((None, ("copy", slot, start, key)))

    def stage(self, buffer: int, key: int, source: Tensor, start: int, stop: int) -> None:
        """Overwrite a staging buffer, now."""
        self._write(HOST, "staging buffer", buffer, self._tick(HOST))
        self.progress()
        self._buffers[buffer] = key

    def copy_staged(self, slot: int, key: int, buffer: int, start: int, stop: int) -> None:
        """Queue a chunk out of a staging buffer."""
        now = self._tick(COPY)
        self._read(COPY, "staging buffer", buffer, now)
        self._write(COPY, "slot", slot, now)
        self._queues[COPY].append((None, ("staged", slot, start, buffer)))

    def blank(self, slot: int) -> None:
        """Queue the canary."""
        self._write(COPY, "slot", slot, self._tick(COPY))
        self._queues[COPY].append((None, ("blank", slot, 0, 0)))

    def attach(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to let go of."""

    # The kernels, and the streams at work.

    def use(self, slot: int, key: int) -> None:
        """Queue a kernel that reads the expert `key` in a slot."""
        self._read(COMPUTE, "slot", slot, self._tick(COMPUTE))
        self._queues[COMPUTE].append((None, ("use", slot, 0, key)))

    def progress(self) -> None:
        """Let the streams do as many pieces of work as the chooser likes."""
        while able := self._able():
            pick = self._choose(len(able) + 1)
            if pick == len(able):
                return
            self._do(able[pick])

    def finish(self) -> None:
        """Let the streams do all that is left."""
        while able := self._able():
            self._do(able[self._choose(len(able)) if len(able) > 1 else 0])
        if self._queues[COPY] or self._queues[COMPUTE]:
            self.findings.append("deadlock: work is left that nothing will start")

    def _able(self) -> list[int]:
        return [
            stream
            for stream in (COPY, COMPUTE)
            if self._queues[stream]
            and (self._queues[stream][0][0] is None or self._queues[stream][0][0].done)
        ]

    def _do(self, stream: int) -> None:
        waited, piece = self._queues[stream].popleft()
        if waited is not None:
            return
        if isinstance(piece, SymbolicMark):
            piece.done = True
            return
        kind, slot, start, value = piece
        held = self._contents[slot]
        if kind == "copy":
            held[start] = value
        elif kind == "staged":
            held[start] = self._buffers.get(value, NOTHING)
        elif kind == "blank":
            for chunk in self._chunks:
                held[chunk] = NOTHING
        elif any(key != value for key in held.values()):
            self.findings.append(
                f"contents: a kernel of expert {value} read slot {slot} holding "
                f"{sorted(set(held.values()))}"
            )

    # Vector clocks.

    def _tick(self, timeline: int) -> Clock:
        clock = list(self._clocks[timeline])
        if timeline != HOST:  # work is issued by the host, so after what the host knows of
            clock = [max(a, b) for a, b in zip(clock, self._clocks[HOST], strict=True)]
        clock[timeline] += 1
        self._clocks[timeline] = now = (clock[0], clock[1], clock[2])
        return now

    def _read(self, timeline: int, kind: str, number: int, now: Clock) -> None:
        place = self._places.setdefault((kind, number), _Place())
        if place.write is not None and now[place.write[0]] < place.write[1]:
            self._report(kind, number, "read", timeline, "write", place.write[0])
        place.reads[timeline] = now[timeline]

    def _write(self, timeline: int, kind: str, number: int, now: Clock) -> None:
        place = self._places.setdefault((kind, number), _Place())
        if place.write is not None and now[place.write[0]] < place.write[1]:
            self._report(kind, number, "write", timeline, "write", place.write[0])
        for reader, time in place.reads.items():
            if now[reader] < time:
                self._report(kind, number, "write", timeline, "read", reader)
        place.write = (timeline, now[timeline])
        place.reads.clear()

    def _report(self, kind: str, number: int, what: str, by: int, other: str, of: int) -> None:
        self.findings.append(
            f"order: {what} of {kind} {number} by the {_NAMES[by]} is not ordered after the "
            f"{other} by the {_NAMES[of]}"
        )


def _join(a: Clock, b: Clock) -> Clock:
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]))
