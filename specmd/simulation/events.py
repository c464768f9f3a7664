"""From tokens to events: what each MoE layer of each step demands, in execution order.

A step runs its layers one after the other, each over all tokens of the step; so an event's set U
is the union of the tokens' choices. Events are built a stretch of steps at a time into buffers
that are used again, so that a long trace costs no more memory than a short one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from specmd.core.event import NEVER, FloatArray, IntArray, KeyArray
from specmd.core.interpreted import as_lists
from specmd.core.specialise import Function, is_cheaper_interpreted, specialise
from specmd.core.state import NO_CHOICES, Choices, Chunk

if TYPE_CHECKING:
    from specmd.trace import Trace

_sorted: WeakKeyDictionary[Trace, npt.NDArray[np.uint8]] = WeakKeyDictionary()

CHUNK_ACCESSES = 1 << 17  # small enough that a stretch stays in the processor's cache


class Buffers(NamedTuple):
    """Where a stretch of events is built."""

    start: IntArray
    keys: KeyArray
    tokens: KeyArray
    gates: FloatArray
    next_use: IntArray
    uses: IntArray  # (experts,) scratch
    weight: FloatArray  # (experts,) scratch


class EventStream:
    """The events of steps `first..last` of a trace, in stretches; can be walked several times.

    `compiled` where it pays to compile what gathers them, however short the trace.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        sequential: bool = False,
        weights: bool = False,
        future: bool = False,
        ahead_events: int = 0,
        choices: bool = False,
        compiled: bool = False,
    ) -> None:
        self.trace = trace
        self.choices = choices
        self.layers, self.experts = trace.header.num_layers, trace.header.num_experts
        self.sequential = sequential
        self.weights = weights and trace.weights is not None
        self.ahead_steps = -(-ahead_events // self.layers)
        # Steps are numbered densely here; a sliced trace may start anywhere.
        starts = np.flatnonzero(np.diff(trace.step, prepend=-1))
        self.step_start = np.append(starts, len(trace.step)).astype(np.int64)
        self.num_steps = len(starts)
        phase = np.ones(self.num_steps, np.uint32)
        prefill = np.flatnonzero(trace.phase == 0)
        phase[np.searchsorted(self.step_start, prefill, side="right") - 1] = 0
        self.step_phase = phase
        self.future = future
        self._stretches = self._divide()
        self._buffers: Buffers | None = None
        none = np.zeros(0, np.uint32)
        self._pattern = (none, none, none)
        chosen = trace.chosen
        counts = np.full(len(starts), self.layers * trace.header.top_k, np.int64)
        if chosen is None:
            counts *= np.diff(self.step_start)
        else:
            counts = np.add.reduceat(chosen.sum((1, 2)), starts)
        self._accesses = np.concatenate(([0], np.cumsum(counts)))  # before each step
        self._base = np.repeat(
            np.arange(self.layers, dtype=np.uint32) * self.experts, trace.header.top_k
        )
        size = None if compiled else trace.expert_ids.size // 10
        self._gather = _kernel(gather_sequential if sequential else gather, size)
        self._upcoming: dict[int, IntArray] = {}
        self.first_use: IntArray = np.zeros(0, np.int64)
        if future:
            self._look_back = _kernel(look_back, size)
            self._walk_back()

    @property
    def accesses(self) -> int:
        """Accesses of all steps, at most: tokens that agree on an expert share one."""
        return int(self._accesses[-1])

    def stretches(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """List the stretches in steps first..last; both must be stretch boundaries or ends."""
        for a, b in self._stretches:
            low, high = max(a, first), min(b, last)
            if low < high:
                yield low, high

    def split(self, steps: list[int]) -> None:
        """Make each of the given steps begin a stretch."""
        cuts = sorted({a for a, _ in self._stretches} | set(steps) - {self.num_steps})
        self._stretches = list(zip(cuts, [*cuts[1:], self.num_steps], strict=True))
        if self.future:
            self._walk_back()

    def resets(self) -> set[int]:
        """List the steps before which no request is in flight, where `reset=request` acts."""
        return set(self.trace.idle_steps.tolist())

    def upcoming(self, step: int) -> IntArray:
        """Return the clock of each key's next use, (keys,), as of a step that begins a stretch."""
        return self._upcoming[step]

    def chunk(self, first: int, last: int) -> Chunk:
        """Build the events of steps first..last-1; valid until the next call."""
        ahead = min(last + self.ahead_steps, self.num_steps)
        buffers = self._fill(first, ahead)
        events = (last - first) * self.layers
        if self.future:
            self._look_back(
                buffers,
                int(buffers.start[events]),
                self._first_clock(first),
                events,
                self._upcoming[last].copy(),
                self.sequential,
            )
        none = np.zeros(0, np.int64)
        return Chunk(
            np.array([self._first_clock(first)]),
            *self._labels(first, last),
            buffers.start[: (ahead - first) * self.layers + 1],
            buffers.keys,
            buffers.tokens,
            buffers.gates,
            buffers.next_use,
            none,
            np.zeros(0, np.uint32),
            none,
            np.zeros(0, np.float64),
            self.layers,
            self.experts,
            self._choices(first, last) if self.choices else NO_CHOICES,
        )

    def _choices(self, first: int, last: int) -> Choices:
        """Return what the tokens of some steps chose."""
        start = self.step_start[first : last + 1]
        return Choices(start - start[0], **choices_of(self.trace, int(start[0]), int(start[-1])))

    def _labels(self, first: int, last: int) -> tuple[KeyArray, KeyArray, KeyArray]:
        """Step, layer and phase of every event; the patterns that repeat are built once."""
        events = (last - first) * self.layers
        if len(self._pattern[0]) < events:
            steps = np.repeat(np.arange(last - first, dtype=np.uint32), self.layers)
            layers = np.tile(np.arange(self.layers, dtype=np.uint32), last - first)
            self._pattern = (steps, layers, np.ones(events, np.uint32))
        steps, layers, decode = (array[:events] for array in self._pattern)
        phase = self.step_phase[first:last]
        phases = decode if phase.all() else np.repeat(phase, self.layers)
        return steps + np.uint32(first), layers, phases

    def _first_clock(self, step: int) -> int:
        if self.sequential:
            return 1 + int(self._accesses[step])
        return 1 + step * self.layers

    def _divide(self) -> list[tuple[int, int]]:
        tokens = max(1, CHUNK_ACCESSES // (self.layers * self.trace.header.top_k))
        cuts, start = [0], 0
        while start < self.num_steps:
            stop = int(np.searchsorted(self.step_start, self.step_start[start] + tokens, "right"))
            start = min(max(stop - 1, start + 1), self.num_steps)
            cuts.append(start)
        return list(pairwise(cuts))

    def _fill(self, first: int, last: int) -> Buffers:
        low, high = int(self.step_start[first]), int(self.step_start[last])
        size = (high - low) * self.layers * self.trace.header.top_k
        events = (last - first) * self.layers
        held = self._buffers
        if held is None or len(held.keys) < size or len(held.start) < events + 1:
            held = self._buffers = Buffers(
                np.zeros(events + 1, np.int64),
                np.zeros(size, np.uint32),
                np.ones(size, np.uint32),
                np.zeros(size if self.weights else 0, np.float64),
                np.zeros(size if self.future else 0, np.int64),
                np.zeros(self.experts, np.int64),
                np.zeros(self.experts, np.float64),
            )
        ids = np.ascontiguousarray(self.trace.expert_ids[low:high])
        weights = np.zeros((0, 0, 0), np.float32)
        if self.weights:
            assert self.trace.weights is not None
            weights = np.ascontiguousarray(self.trace.weights[low:high], dtype=np.float32)
        steps = self.step_start[first : last + 1] - low
        plain = not (self.weights or self.trace.header.ragged)
        if high - low == last - first and plain:
            # One token a step: a row is an event, in recorded order or, for U, in ascending order.
            ids = ids if self.sequential else _ascending(self.trace)[low:high]
            flat = (len(ids), len(self._base))
            keys = held.keys[:size].reshape(flat)
            np.add(ids.reshape(flat), self._base, out=keys, dtype=np.uint32)
            np.multiply(np.arange(events + 1), ids.shape[2], out=held.start[: events + 1])
            held.tokens[:size] = 1
            return held
        self._gather(ids, weights, steps, self.experts, held)
        return held

    def _walk_back(self) -> None:
        """Note, at each stretch's end, the clock of every key's next use: Belady's memory."""
        upcoming = np.full(self.layers * self.experts, NEVER, np.int64)
        self._upcoming = {self.num_steps: upcoming.copy()}
        for first, last in reversed(self._stretches):
            buffers = self._fill(first, last)
            events = (last - first) * self.layers
            accesses = int(buffers.start[events])
            clock = self._first_clock(first)
            self._look_back(buffers, accesses, clock, events, upcoming, self.sequential)
            self._upcoming[first] = upcoming.copy()
        self.first_use = upcoming


def _ascending(trace: Trace) -> npt.NDArray[np.uint8]:
    """Return the expert ids of a trace, each token's in ascending order; sorted once."""
    if trace not in _sorted:
        _sorted[trace] = np.sort(trace.expert_ids, axis=2)
    return _sorted[trace]


def _kernel(entry: Function, size: int | None) -> Function:
    cheap = is_cheaper_interpreted(entry, {}, size)
    made = specialise(entry, {}, compiled=not cheap)
    return made if not cheap or entry is look_back else partial(_over_lists, made)


def _over_lists(gathering: Function, *told: Any) -> None:
    """Let Python gather into lists, several times faster than into arrays; the last is filled."""
    lists = as_lists(told)
    gathering(*lists)
    for array, filled in zip(told[-1], lists[-1], strict=True):
        array[:] = filled


def gather(
    ids: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32],
    step_start: IntArray,
    experts: int,
    out: Buffers,
) -> None:
    """Build the events of some steps: per layer the union of the tokens' choices, ascending."""
    at = 0
    event = 0
    out.start[0] = 0
    for step in range(len(step_start) - 1):
        for layer in range(ids.shape[1]):
            begin = at
            for token in range(step_start[step], step_start[step + 1]):
                for k in range(ids.shape[2]):
                    expert = int(ids[token, layer, k])
                    if expert >= experts:
                        break  # a ragged row ends
                    if out.uses[expert] == 0:
                        place = at
                        while place > begin and out.keys[place - 1] > layer * experts + expert:
                            out.keys[place] = out.keys[place - 1]
                            place -= 1
                        out.keys[place] = layer * experts + expert
                        at += 1
                    out.uses[expert] += 1
                    if len(out.gates) > 0:
                        out.weight[expert] += weights[token, layer, k]
            for i in range(begin, at):
                expert_id = out.keys[i] - layer * experts
                out.tokens[i] = out.uses[expert_id]
                out.uses[expert_id] = 0
                if len(out.gates) > 0:
                    out.gates[i] = out.weight[expert_id]
                    out.weight[expert_id] = 0.0
            event += 1
            out.start[event] = at


def gather_sequential(
    ids: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32],
    step_start: IntArray,
    experts: int,
    out: Buffers,
) -> None:
    """List every access of some steps, as recorded: by layer, then token, then rank."""
    at = 0
    event = 0
    out.start[0] = 0
    for step in range(len(step_start) - 1):
        for layer in range(ids.shape[1]):
            for token in range(step_start[step], step_start[step + 1]):
                for k in range(ids.shape[2]):
                    if ids[token, layer, k] >= experts:
                        break
                    out.keys[at] = layer * experts + int(ids[token, layer, k])
                    if len(out.gates) > 0:
                        out.gates[at] = weights[token, layer, k]
                    at += 1
            event += 1
            out.start[event] = at


def look_back(
    out: Buffers, accesses: int, first_clock: int, events: int, upcoming: IntArray, sequential: bool
) -> None:
    """Fill `next_use` from the end; `upcoming` holds each key's next use and is carried along."""
    if sequential:
        for i in range(accesses - 1, -1, -1):
            key = out.keys[i]
            out.next_use[i] = upcoming[key]
            upcoming[key] = first_clock + i
    else:
        for event in range(events - 1, -1, -1):
            for i in range(out.start[event], out.start[event + 1]):
                key = out.keys[i]
                out.next_use[i] = upcoming[key]
                upcoming[key] = first_clock + event


def choices_of(trace: Trace, low: int, high: int) -> dict[str, Any]:
    """Return what the tokens low..high-1 of a trace chose, see `specmd.core.state.Choices`."""
    ids = trace.expert_ids[low:high].astype(np.int64)
    ids[ids >= trace.header.num_experts] = -1
    assert trace.weights is not None
    logits = np.zeros(0)
    if trace.logits is not None:
        logits = trace.logits[low:high].astype(np.float64).ravel()
    weights = trace.weights[low:high].astype(np.float64).ravel()
    return {
        "ids": ids.ravel(),
        "weights": np.where(ids.ravel() < 0, 0.0, weights),
        "logits": logits,
        "layers": trace.header.num_layers,
    }
