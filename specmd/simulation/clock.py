"""The clock of decisions already made: one replay, and as many hardware profiles as are asked for.

Without a prefetch nothing is under way between two events, so how long an event takes depends on
what became of its accesses and on no time, and what becomes of them depends on no clock. A run of
that kind is replayed once without a clock, the instant link noting what became of each access
(`specmd.core.instant_link`); afterwards `timed` lets the timed link execute the noted events, each
on an idle link, and adds them up. The lines that say what an event costs are those of
`specmd.simulation.timed_link`; none of them is repeated here.

In a trace of one token a step, events differ in nothing but their layer's size of experts, their
phase, and what became of their few accesses: each kind is executed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from specmd.core.binding import bind_link
from specmd.core.event import NOBODY, PREFILL, IntArray, KeyArray, World, event_at
from specmd.core.hooks import compute_on_host, execute, fetch
from specmd.core.instant_link import NOTED_HIT, NOTED_HOST, NOTED_PASSING
from specmd.core.interpreted import as_lists
from specmd.core.specialise import Function, is_cheaper_interpreted, specialise
from specmd.core.state import Chunk, Core, create_core
from specmd.errors import SpecmdError
from specmd.policy.schedule import Schedule
from specmd.simulation.costs import CostCoefficients, layer_s, step_s
from specmd.simulation.timed_link import LINK, TimedLink
from specmd.simulation.timeline import DEVICE, NUM_PARTS, spend
from specmd.trace.contexts import step_loads

if TYPE_CHECKING:
    from specmd.simulation.events import EventStream
    from specmd.trace import TraceHeader

Seconds = npt.NDArray[np.float64]
MOST_KINDS = 1 << 20
NONE_YET = -1.0  # when the link was last busy: long ago


@dataclass(frozen=True)
class Notes:
    """What became of every access of a run, and the events it was in.

    Attributes:
        noted: (accesses,) what became of each, see `specmd.core.instant_link`; or nothing.
        kind: (events,) the kind of each event, where events are of few kinds.
        kinds: an event of each kind, and `noted` of its accesses.
        step_start: (steps + 1,) accesses before each step.
        admission: of the run, see `specmd.core.state`.

    """

    noted: KeyArray
    kind: npt.NDArray[Any] | None
    kinds: tuple[Chunk, KeyArray] | None
    step_start: IntArray
    admission: int

    @cached_property
    def step_misses(self) -> npt.NDArray[np.int64]:
        """Count the accesses of each step that were no hits, (steps,)."""
        if self.kind is None or self.kinds is None:
            missed = np.append(0, np.cumsum(self.noted != NOTED_HIT))
            return np.asarray(np.diff(missed[self.step_start]))
        chunk, noted = self.kinds
        misses = np.add.reduceat(noted != NOTED_HIT, chunk.start[:-1], dtype=np.int32)
        by_step = np.take(misses, self.kind).reshape(len(self.step_start) - 1, -1)
        return np.asarray(by_step.sum(axis=1))


def require_sizes(header: TraceHeader) -> None:
    """Raise SpecmdError where a clock cannot know how large an expert is."""
    if header.layer_bytes is None:
        raise SpecmdError(
            "a timed simulation needs the bytes of an expert: import with --expert-bytes"
        )


def take_notes(
    events: EventStream, noted: KeyArray, admission: int, *, interpreted: bool = False
) -> Notes:
    """Keep what a replay noted of all events of a stream, as little as is needed of it."""
    trace, steps = events.trace, events.num_steps
    header = trace.header
    layers, top_k = header.num_layers, header.top_k
    if trace.num_tokens > steps or header.ragged:
        counts = np.concatenate(
            [[0], *(_counts(events, *each) for each in events.stretches(0, steps))]
        )
        return Notes(noted, None, None, np.cumsum(counts), admission)
    start = np.arange(steps + 1) * (layers * top_k)
    sizes = np.zeros(layers, np.int64)
    if header.layer_bytes is not None:
        sizes = np.unique(np.asarray(header.layer_bytes), return_inverse=True)[1]
    shapes = 2 * (int(sizes.max()) + 1)
    most = shapes << (2 * top_k)
    if most > MOST_KINDS:
        return Notes(noted, None, None, start, admission)
    kind, example = (
        np.zeros(steps * layers, np.uint32),
        np.zeros(min(most, steps * layers), np.int64),
    )
    count, number = np.zeros(1, np.int64), np.zeros(most, np.int64)
    facts = noted, 2 * sizes, events.step_phase, top_k, shapes
    call(sort_out, {}, len(noted) // 10, (*facts, number, count, example, kind), interpreted)
    first = example[: count[0]]
    rows = noted.reshape(-1, top_k)[first].ravel()
    small = np.uint8 if len(first) <= 1 << 8 else np.uint16 if len(first) <= 1 << 16 else np.uint32
    return Notes(noted[:0], kind.astype(small), (_gathered(events, first), rows), start, admission)


def _counts(events: EventStream, low: int, high: int) -> IntArray:
    """Count the accesses of each step of a stretch."""
    start = events.chunk(low, high).start
    return np.diff(start[:: events.layers][: high - low + 1])


def _gathered(events: EventStream, chosen: IntArray) -> Chunk:
    """Make a chunk of some events of a stream of one token a step."""
    layer = (chosen % events.layers).astype(np.uint32)
    step = chosen // events.layers
    ids = np.sort(events.trace.expert_ids[step, layer], axis=1)
    keys = (ids + layer[:, None] * np.uint32(events.experts)).astype(np.uint32).ravel()
    start = np.arange(len(chosen) + 1) * ids.shape[1]
    phase = events.step_phase[step]
    return _chunk(events, layer, phase, start, keys, np.ones(len(keys), np.uint32))


def _chunk(
    events: EventStream,
    layer: KeyArray,
    phase: KeyArray,
    start: IntArray,
    keys: KeyArray,
    tokens: KeyArray,
) -> Chunk:
    none = np.zeros(0, np.int64)
    return Chunk(
        clock=np.ones(1, np.int64),
        step=np.arange(len(layer), dtype=np.uint32),  # each event its own row of parts
        layer=layer,
        phase=phase,
        start=start,
        keys=keys,
        tokens=tokens,
        gates=np.zeros(0),
        next_use=none,
        prefetch_start=none,
        prefetch_keys=np.zeros(0, np.uint32),
        prefetch_due=none,
        prefetch_score=np.zeros(0),
        num_layers=events.layers,
        num_experts=events.experts,
    )


class Clock:
    """A profile's clock over the noted events of a stream.

    Args:
        events: the stream that was replayed.
        notes: what became of its accesses.
        costs: of a profile.
        blocks: whether a layer computes nothing before all that has room is there.
        interpreted: run as Python.

    """

    def __init__(
        self,
        events: EventStream,
        notes: Notes,
        costs: CostCoefficients,
        *,
        blocks: bool,
        interpreted: bool = False,
    ) -> None:
        self.events, self.notes, self.interpreted = events, notes, interpreted
        header = events.trace.header
        self.loads = step_loads(events.trace)
        sizes = np.repeat(np.asarray(header.layer_bytes, np.float64), header.num_experts)
        nothing = (np.zeros(0),) * len(self.loads)
        self.link = TimedLink.create(
            sizes, costs, nothing, schedule=Schedule(False, False, False), blocks=blocks
        )
        world = World.of(header, [len(sizes)])
        self.core = create_core(world, notes.admission)

    def step_seconds(self) -> Seconds:
        """Time every step by part, (steps, PARTS)."""
        notes, steps = self.notes, self.events.num_steps
        parts = self._dense(0, steps)
        if notes.kind is not None and notes.kinds is not None:
            table = self._kinds.ravel()
            flat = parts.ravel()
            arguments = (notes.kind, table, flat, self.events.layers)
            call(add_up, {}, notes.kind.size // 10, arguments, self.interpreted)
            return flat.reshape(steps, NUM_PARTS)
        for low, high in self.events.stretches(0, steps):
            parts[low:high] += self._stretch(low, high).sum(axis=1)
        return parts

    def layer_seconds(self, step: int) -> Seconds:
        """Time a step's layers by part, (layers, PARTS); what is done once is the first's."""
        notes, layers = self.notes, self.events.layers
        whole = self._dense(step, step + 1)[0]
        once = self._dense(step, step + 1, layers=0)[0]
        found = np.tile((whole - once) / layers, (layers, 1))
        found[0] += once
        if notes.kind is not None and notes.kinds is not None:
            return np.asarray(found + self._kinds[notes.kind[step * layers : (step + 1) * layers]])
        return np.asarray(found + self._stretch(step, step + 1)[0])

    @cached_property
    def _kinds(self) -> Seconds:
        """Time an event of each kind, (kinds, PARTS)."""
        assert self.notes.kinds is not None
        return self._execute(*self.notes.kinds)

    def _stretch(self, low: int, high: int) -> Seconds:
        """Time the events of some steps, (steps, layers, PARTS)."""
        made = self.events.chunk(low, high)
        chunk = _chunk(self.events, made.layer, made.phase, made.start, made.keys, made.tokens)
        start = self.notes.step_start
        parts = self._execute(chunk, self.notes.noted[start[low] : start[high]])
        return parts.reshape(high - low, self.events.layers, NUM_PARTS)

    def _execute(self, chunk: Chunk, noted: KeyArray) -> Seconds:
        """Execute the events of a chunk, each on an idle link, (events, PARTS)."""
        link = self.link._replace(parts=np.zeros(len(chunk.layer) * NUM_PARTS))
        arguments = (self.core, link, chunk, noted, np.zeros(0, np.int64))
        bindings = bind_link(TimedLink)
        done = call(execute_noted, bindings, len(noted), arguments, self.interpreted)[1]
        return np.asarray(done.parts, np.float64).reshape(-1, NUM_PARTS)

    def _dense(self, low: int, high: int, layers: int | None = None) -> Seconds:
        """Time all of some steps but their experts, (steps, PARTS)."""
        loads = [each[low:high] for each in self.loads]
        link = self.link._replace(
            step_tokens=loads[0],
            step_context=loads[1],
            step_kv=loads[2],
            step_logits=loads[3],
            parts=np.zeros((high - low) * NUM_PARTS),
        )
        layers = self.events.layers if layers is None else layers
        arguments = (link, self.events.step_phase[low:high], layers)
        done = call(attend, {}, high - low, arguments, self.interpreted)[0]
        return np.asarray(done.parts, np.float64).reshape(-1, NUM_PARTS)


def call(
    entry: Function, bindings: Any, work: int, arguments: tuple[Any, ...], interpreted: bool
) -> tuple[Any, ...]:
    """Call a kernel, compiled or interpreted; return its arguments, which it wrote into.

    `work` is how much of it there is, in accesses.
    """
    cheap = interpreted or is_cheaper_interpreted(entry, bindings, work)
    given = as_lists(arguments) if cheap else arguments
    specialise(entry, bindings, compiled=not cheap)(*given)
    if cheap:
        for array, values in zip(arguments, given, strict=True):
            if isinstance(array, np.ndarray):
                array[:] = values
    return given


def sort_out(
    noted: Any,
    sizes: Any,
    phase: Any,
    top_k: int,
    shapes: int,
    number: Any,
    count: Any,
    example: Any,
    kind: Any,
) -> None:
    """Give the kinds of events numbers in order of appearance, and name an example of each.

    A kind is what became of the `top_k` accesses, the layer's size of experts, and the phase.
    """
    for event in range(len(kind)):
        code = 0
        for i in range(event * top_k, (event + 1) * top_k):
            code = code * 4 + noted[i]
        step = event // len(sizes)
        code = code * shapes + sizes[event - step * len(sizes)] + phase[step]
        if number[code] == 0:
            example[count[0]] = event
            count[0] += 1
            number[code] = count[0]
        kind[event] = number[code] - 1


def execute_noted(
    core: Core, link: TimedLink, chunk: Chunk, noted: KeyArray, future: IntArray
) -> None:
    """Let the timed link execute each event, with what was noted of its accesses."""
    at = 0
    for index in range(len(chunk.layer)):
        event = event_at(chunk, index, future)
        link.now_s[DEVICE] = 0.0
        link.routed_s[DEVICE] = 0.0
        link.host_s[DEVICE] = 0.0
        link.lanes.free_s[LINK] = NONE_YET
        for i in range(event.start, event.stop):
            key = event.keys[i]
            core.slot[key] = NOBODY if noted[at] == NOTED_PASSING else 0
            if noted[at] == NOTED_HOST:
                compute_on_host(link, core, key, event.tokens[i], event)
            elif noted[at] != NOTED_HIT:
                fetch(link, core, key, event)
            at += 1
        execute(link, core, event)


def attend(link: TimedLink, phase: KeyArray, layers: int) -> None:
    """Spend what every step takes beside its experts, as `TimedLink.settle` does."""
    for step in range(len(phase)):
        costs = link.prefill if phase[step] == PREFILL else link.costs
        row = step * NUM_PARTS
        spend(link, row, step_s(costs, link.step_logits[step]), costs.step_launch_s)
        dense = layer_s(costs, link.step_tokens[step], link.step_context[step], link.step_kv[step])
        seconds, launch_s = dense + costs.decide_s, costs.layer_launch_s + costs.decide_s
        spend(link, row, layers * seconds, layers * launch_s)


def add_up(kind: Any, table: Any, parts: Any, layers: int) -> None:
    """Add to the parts of each step those of its events, by their kinds."""
    for event in range(len(kind)):
        row, each = event // layers * NUM_PARTS, kind[event] * NUM_PARTS
        for part in range(NUM_PARTS):
            parts[row + part] += table[each + part]
