"""A device whose streams work late, and threads that meet in any order: what a race test runs on.

A real device hides races: its copy stream happens to be quick, its kernels happen to be late. Here
the link is the accelerator's own, but its `torch` is `late_torch`: streams are queues, and
a chooser decides when a stream does its next piece, within what stream semantics allow: in order
inside a stream, after the events it was told to wait for, otherwise whenever it likes. The mover's
thread and the one that computes are real threads of which one runs at a time; where they touch a
lock, an event or the device, the chooser decides who goes on. Two independent checks are made:

* *order*: every access to a slot or a staging buffer carries a vector clock over all threads and
  streams. Two accesses, one of them a write, that nothing orders are reported, whatever this
  schedule happened to do;
* *contents*: bytes are copied when the stream comes to it; a kernel must find its expert's.

What is merely slow is reported, too: copies that the host waits for, copies on the stream of the
kernels, copies out of pageable memory, and more of them in flight than a demand should wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from late_threads import LINES, Clock, Line, Over, Stuck, Thread, join

Chooser = Callable[[int], int]


@dataclass(eq=False)
class Recorded:
    """One recording of an event."""

    clock: Clock
    done: bool = False


@dataclass(eq=False)
class Memory:
    """A slot, a staging buffer or a blob: its bytes, its last write, and the reads since."""

    name: str
    data: list[int]
    pinned: bool = False
    on_device: bool = False
    write: tuple[Line, int] | None = None
    reads: dict[Line, int] = field(default_factory=dict)


class Device:
    """Streams, threads, and who goes on next.

    Args:
        choose: picks one of n possibilities, 0..n-1.
        in_flight: so many copies may wait in a stream.
        threaded: threads may be changed wherever they touch what others see; else only streams
            go on, and only where a thread looks at an event or waits.

    """

    def __init__(self, choose: Chooser, in_flight: int, *, threaded: bool) -> None:
        self.choose, self._in_flight, self.threaded = choose, in_flight, threaded
        self.findings: list[str] = []
        self._lines: list[Line] = []
        self.streams: list[Stream] = []
        self.threads: list[Thread] = [Thread(self, "the computing thread")]
        self._running = self.threads[0]
        self.compute_streams = [Stream(self) for _ in range(2)]
        self._current: dict[Line, list[Stream]] = {}
        self.compute = self.compute_streams[0]
        self._done = 0  # pieces of work, and changes of thread
        self.passed = 0  # waits that are over
        self.over = False

    def line(self, name: str) -> Line:
        """Make a line that knows of nothing so far."""
        line = Line(name, len(self._lines), [0] * LINES)
        self._lines.append(line)
        return line

    # Who goes on.

    @property
    def here(self) -> Line:
        """The thread that runs."""
        return self._running.line

    def turn(self, ready: Callable[[], bool] | None = None) -> None:
        """Let streams and other threads go first, as the chooser likes; return when `ready`."""
        me = self._running
        me.ready = ready
        while True:
            if self.over:
                raise Over
            threads = [t for t in self.threads if t.may_run()]
            streams = self._able()
            count = len(threads) + len(streams)
            if not count:
                raise Stuck("deadlock: every thread and every stream waits for another")
            pick = self.choose(count) if count > 1 else 0
            if pick >= len(threads):
                streams[pick - len(threads)].do()
                self._done += 1
                continue
            if threads[pick] is not me:
                self._hand_over(me, threads[pick])
            me.ready = None
            return

    def step_aside(self) -> None:
        """Let others go first, where threads may be changed."""
        if self.threaded:
            self.turn()

    def pause(self) -> None:
        """Wait until somebody else has done something."""
        before = self._done
        self.turn(lambda: self._done > before)

    def _hand_over(self, me: Thread, other: Thread) -> None:
        self._done += 1
        self._running = other
        other.baton.release()
        me.baton.acquire()
        if self.over:
            raise Over

    def leave(self, me: Thread) -> None:
        """End a thread: the caller's own goes on."""
        me.over = True
        self.threads.remove(me)
        first = self._running = self.threads[0]
        while not self.over and not first.may_run():
            able = self._able()
            if not able:
                self.over = True  # nobody will wake it
                self.findings.append("deadlock: a thread has ended that another waits for")
                break
            able[0].do()
        first.baton.release()

    def close(self) -> None:
        """End all threads but the caller's own."""
        self.over = True
        for thread in self.threads[1:]:
            thread.baton.release()
            thread.end()

    # Work.

    @property
    def current(self) -> Stream:
        """The stream the running thread issues to."""
        entered = self._current.get(self.here)
        return entered[-1] if entered else self.compute

    def enter(self, stream: Stream) -> None:
        self._current.setdefault(self.here, []).append(stream)

    def exit(self) -> None:
        self._current[self.here].pop()

    def copy(self, into: Any, out_of: Any, *, asynchronous: bool) -> None:
        """Issue a copy to the device."""
        stream = self.current
        if stream in self.compute_streams:
            self.findings.append("slow: a copy was issued to the stream of the kernels")
        if not asynchronous or not out_of.memory.pinned:
            self.findings.append("slow: the host waits for a copy")
        self.step_aside()
        now = stream.tick()
        self.read(stream.line, out_of.memory, now)
        self.write(stream.line, into.memory, now)

        def work() -> None:
            into.memory.data[into.start : into.stop] = out_of.memory.data[
                out_of.start : out_of.stop
            ]

        stream.queue.append(("copy", work))
        stream.copies += 1
        if stream.copies > self._in_flight:
            self.findings.append(f"slow: more than {self._in_flight} copies are in flight")
        if not asynchronous:
            self.turn(lambda: ("copy", work) not in stream.queue)

    def kernel(self, slot: Memory, expected: list[int], key: int) -> None:
        """Issue a kernel that reads an expert in a slot."""
        stream = self.compute
        self.read(stream.line, slot, stream.tick())

        def work() -> None:
            if slot.data != expected:
                self.findings.append(f"contents: a kernel of expert {key} found other bytes")

        stream.queue.append(("kernel", work))

    def fill(self, slot: Memory, value: int) -> None:
        """Issue the canary."""
        stream = self.current
        self.write(stream.line, slot, stream.tick())

        def work() -> None:
            slot.data[:] = [value] * len(slot.data)

        stream.queue.append(("fill", work))

    def _able(self) -> list[Stream]:
        """Return the streams that may do a piece of work."""
        while True:
            passed = self.passed
            able = [stream for stream in self.streams if stream.queue and stream.able()]
            if able or passed == self.passed:
                return able

    def busy(self, streams: Sequence[Stream]) -> bool:
        """Whether work is left on streams."""
        return any(kind != "wait" for stream in streams for kind, _ in stream.queue)

    def finish(self) -> None:
        """Let the streams do all that is left."""
        while able := self._able():
            able[0].do()
        if self.busy(self.streams):
            self.findings.append("deadlock: work is left that nothing will start")

    # Order.

    def read(self, line: Line, memory: Memory, now: Clock) -> None:
        """Note a read."""
        self._compare(line, memory, "read", now, memory.write, "write")
        memory.reads[line] = now[line.number]

    def write(self, line: Line, memory: Memory, now: Clock) -> None:
        """Note a write."""
        self._compare(line, memory, "write", now, memory.write, "write")
        for reader, time in memory.reads.items():
            self._compare(line, memory, "write", now, (reader, time), "read")
        memory.write = line, now[line.number]
        memory.reads = {}

    def _compare(
        self,
        line: Line,
        memory: Memory,
        what: str,
        now: Clock,
        before: tuple[Line, int] | None,
        other: str,
    ) -> None:
        if before is not None and now[before[0].number] < before[1]:
            self.findings.append(
                f"order: {what} of {memory.name} by {line.name} is not ordered behind the "
                f"{other} by {before[0].name}"
            )


class Stream:
    """A queue of work; `torch.Stream` to the link."""

    def __init__(self, device: Device) -> None:
        self._device = device
        name = ("the compute stream", "another compute stream", "the copy stream")
        self.line = device.line(name[min(2, len(device.streams))])
        self.queue: deque[tuple[str, Any]] = deque()
        self.copies = 0  # in the queue
        device.streams.append(self)

    def tick(self) -> Clock:
        """Return the time of work issued now: behind all that the issuing thread knows of."""
        here = self._device.here
        here.clock[here.number] += 1
        join(self.line.clock, here.clock)
        self.line.clock[self.line.number] += 1
        return list(self.line.clock)

    def able(self) -> bool:
        """Whether the next piece of work may be done."""
        queue = self.queue
        while queue:
            kind, work = queue[0]
            if kind == "event" and not self._device.threaded:
                work.done = True  # as soon as the work before it, to have fewer schedules
            elif kind != "wait" or not work.done:
                return kind != "wait"
            queue.popleft()
            self._device.passed += 1
        return False

    def do(self) -> None:
        """Do the next piece of work."""
        kind, work = self.queue.popleft()
        self.copies -= kind == "copy"
        if kind == "event":
            work.done = True
        else:
            work()

    def wait_event(self, event: Any) -> None:
        assert event.recorded is not None, "an event is waited for before it is recorded"
        self.tick()
        join(self.line.clock, event.recorded.clock)
        self.queue.append(("wait", event.recorded))

    def __enter__(self) -> Stream:
        self._device.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._device.exit()
