"""When what happens in a simulated step: spans of computing, copying and waiting.

The first steps of a run are replayed once more, interpreted, with the timed link's own functions
and a watcher in the place of the few that spend time: what is written down is what was counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specmd.errors import SpecmdError
from specmd.runs.timeline import Timeline
from specmd.simulation import host_lane, lanes, timed_link
from specmd.simulation import timeline as device
from specmd.simulation.lanes import IDLE
from specmd.simulation.simulate import hardware, prepared
from specmd.simulation.timeline import DEVICE, LATE_KEY
from specmd.simulation.walk import Walk
from specmd.trace import DECODE
from specmd.trace.slicing import slice_steps

if TYPE_CHECKING:
    from specmd.core.event import Event
    from specmd.runs.options import RunConfig
    from specmd.trace import Trace

MOST_TOKENS = 1_000  # replayed interpreted, in some seconds
STEPS = 3


class Span(NamedTuple):
    """Something on a track, in seconds from the start of the run."""

    track: str
    name: str
    begin_s: float
    end_s: float


class Watcher:
    """Stands in for the functions of a timed link that spend time, and writes down what they do.

    Waiting is what lies between two things that the device computes.
    """

    def __init__(self, experts: int) -> None:
        self.spans: list[Span] = []
        self.step_s: dict[int, float] = {}  # when each step began
        self._names = Timeline(experts)
        self._event: tuple[int, int] = (-1, -1)  # step, layer
        self._next: list[str] = []  # what the link is about to spend time on
        self._key, self._cause = IDLE, "demand"
        self._until_s = 0.0

    def hooks(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """Return what to put in the place of which function."""
        spend, compute, carry = device.spend, device.compute, lanes.carry
        costs_of, whole, host = device.costs_of, timed_link.whole_in_host_s, host_lane.await_host

        def begin(clock: Any, event: Event) -> Any:
            self._begin(event, clock.now_s[DEVICE])
            return costs_of(clock, event)

        def spent(clock: Any, row: int, seconds: float, launch_s: float) -> None:
            name = self._next.pop(0) if self._next else "copies submitted"
            self._timed(clock, name, spend, clock, row, seconds, launch_s)

        def computed(clock: Any, event: Event, key: int, position: int) -> None:
            self._timed(clock, self._names.key_name(key), compute, clock, event, key, position)

        def awaited(clock: Any, core: Any, key: int) -> Any:
            self._key = key
            self._cause = "late prefetch" if clock.wanted[key] == LATE_KEY else "demand"
            return whole(clock, core, key)

        def hosted(clock: Any, event: Event) -> None:
            before_s = clock.now_s[DEVICE]
            host(clock, event)
            self._wait("waits for the host's experts", before_s, clock.now_s[DEVICE])

        def carried(on: Any, lane: int, start_s: float, finish_s: float) -> None:
            ahead = on.under_way[lane] != IDLE
            key, cause = (on.under_way[lane], "prefetch") if ahead else (self._key, self._cause)
            name = f"{self._names.key_name(key)} {cause}"
            self.spans.append(Span("link", name, start_s, finish_s))
            carry(on, lane, start_s, finish_s)

        return {
            costs_of: begin, spend: spent, compute: computed, carry: carried, whole: awaited,
            host: hosted,
        }  # fmt: skip

    def _begin(self, event: Event, now_s: float) -> None:
        self._wait("waits", self._until_s, now_s)
        self._next = [f"layer {event.layer}: attention, router"]
        if event.step != self._event[0]:
            self.step_s[event.step] = now_s
            self._next.insert(0, f"step {event.step}: embedding, head")
        self._event = event.step, event.layer

    def _timed(self, clock: Any, name: str, does: Callable[..., None], *given: Any) -> None:
        before_s = clock.now_s[DEVICE]
        self._wait(f"waits for {self._names.key_name(self._key)}", self._until_s, before_s)
        does(*given)
        self._until_s = clock.now_s[DEVICE]
        if self._until_s > before_s:
            self.spans.append(Span("compute", name, before_s, self._until_s))

    def _wait(self, name: str, begin_s: float, end_s: float) -> None:
        if end_s > begin_s:
            self.spans.append(Span("stall", name, begin_s, end_s))
            self._until_s = end_s


class StepSpans(NamedTuple):
    """A timeline, the first step in it, and how long that one lasts."""

    timeline: Timeline
    step: int
    seconds: float


def step_spans(trace: Trace, config: RunConfig, training: Trace | None = None) -> StepSpans:
    """Return what happens in a decode step of median duration, and in the two after it.

    Of a long trace only the first tokens are replayed, and the step is one of their second half,
    when the cache is warm.

    Raises:
        SpecmdError: the run has no clock, or a disk behind host memory.

    """
    if config.host_slots is not None:
        raise SpecmdError("--timeline shows the link alone: leave out --host-capacity")
    trace = prepared(trace, config)
    _, costs, _ = hardware(trace, config)
    if costs is None:
        raise SpecmdError("--timeline needs a clock: give --profile")
    starts = trace.step_starts
    steps = max(1, int(np.searchsorted(starts, min(MOST_TOKENS, trace.num_tokens), "right")) - 1)
    part = slice_steps(trace, 0, steps)
    cold = config.model_copy(update={"warmup": 0, "tokens": None})
    watcher = Watcher(trace.header.num_experts)
    walk = Walk(part, cold, training, costs, "cache", True, None, also=watcher.hooks())
    seconds = walk.run().step_seconds
    assert seconds is not None
    step = _median(part, seconds.sum(axis=1))
    begin_s = watcher.step_s[step]
    end_s = watcher.step_s.get(step + STEPS, np.inf)
    timeline = Timeline(trace.header.num_experts)
    for span in watcher.spans:
        if begin_s <= span.begin_s < end_s:
            timeline.span(span.track, span.name, span.begin_s, span.end_s)
    return StepSpans(timeline, step, float(seconds[step].sum()))


def _median(trace: Trace, seconds: Any) -> int:
    """Choose the decode step of median duration in the second half; else of all steps."""
    decodes = np.unique(trace.step[trace.phase == DECODE])
    found = decodes[len(decodes) // 2 :] if len(decodes) else np.arange(trace.num_steps)
    return int(found[np.argsort(seconds[found], kind="stable")[(len(found) - 1) // 2]])
