"""Watched runs: the small trace and the tight places in which the conformance suite runs policies.

An eviction policy replays the trace under `specmd.conformance.watch`; a prefetcher is asked for its
proposals and each is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from specmd.conformance.watch import Violation, Watch, watched
from specmd.core import prefetch
from specmd.core import state as residency
from specmd.core.binding import bind_prefetcher
from specmd.core.event import World
from specmd.core.interpreted import as_lists
from specmd.core.kernel import Kernel
from specmd.core.prefetch import Outlook, Proposals
from specmd.core.specialise import specialise
from specmd.core.state import Chunk
from specmd.policy.admission import admitting
from specmd.policy.registry import Choice, choose
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.events import EventStream
from specmd.simulation.plans import foreseen
from specmd.trace import Trace, synthetic
from specmd.trace.synthesis import with_scores
from specmd.trace.training import training_rows

PROPOSALS = "only keys of coming events are proposed"


# 2 ms an expert against some 50 us of computing a layer: late and cancelled prefetches abound.
SLOW_LINK = CostCoefficients(
    expert_flop_s=0,
    read_s_per_byte=1e-5 / (1 << 20),
    launch_s=1e-6,
    layer_flop_s_per_token=0,
    attn_flop_s=0,
    layer_read_s=1e-5,
    kv_read_s=0,
    layer_launch_s=1e-6,
    head_flop_s=0,
    head_read_s=1e-5,
    step_launch_s=1e-6,
    latency_s=1e-5,
    bytes_per_s=5e8,
    chunk_bytes=2e5,
)


class Case(NamedTuple):
    """A tight place: `slots` in all, over one pool or one a layer."""

    name: str
    slots: int
    layered: bool = False
    admission: int = residency.FORCED
    prefetches: bool = False
    guarded: bool = False
    seed: int = 1
    blind: bool = False  # events come one at a time: nothing lies beyond them
    gate: Choice | None = None  # the admission policy


@cache
def small_trace() -> Trace:
    """Four layers of eight experts, top-2: wide prefills, then decode steps of two requests."""
    made = synthetic(
        num_layers=4,
        num_experts=8,
        top_k=2,
        num_requests=4,
        prompt_length=5,
        decode_length=10,
        batch=2,
        lookahead_depth=2,
        logits=True,
        expert_bytes=1 << 20,
        seed=7,
    )
    return with_scores(made)


@cache
def other_trace() -> Trace:
    """Sizes of another model: what was written for the small trace's own does not fit here."""
    made = synthetic(
        num_layers=6,
        num_experts=20,
        top_k=3,
        num_requests=2,
        prompt_length=9,
        decode_length=30,
        lookahead_depth=2,
        logits=True,
        expert_bytes=1 << 20,
        seed=11,
    )
    return with_scores(made)


def training_trace(trace: Trace) -> Trace:
    """Routing of the same sizes, of other requests: what is fitted beforehand is fitted on it."""
    header = trace.header
    return synthetic(
        num_layers=header.num_layers,
        num_experts=header.num_experts,
        top_k=header.top_k,
        decode_length=40,
        lookahead_depth=2,
        logits=True,
        expert_bytes=header.expert_bytes,
        seed=13,
    )


def equipped(choice: Choice, trace: Trace) -> Choice:
    """Give a policy that needs learned weights a file of them, for the model of a trace.

    Raises SpecmdError where `specmd train` knows nothing of the policy, and no file is given.
    """
    if "model" not in choice.needs or choice.values.get("model"):
        return choice
    from specmd.training.training import train

    sizes = trace.header.num_layers, trace.header.num_experts
    file = Path(_files().name) / f"{choice.entry.name}-{sizes[0]}-{sizes[1]}.safetensors"
    if not file.exists():
        train(choice.entry.name, training_trace(trace), file, hold_out=0)
    return replace(choice, values=choice.values | {"model": str(file)})


@cache
def _files() -> TemporaryDirectory[str]:
    """Return a folder that goes with the process."""
    return TemporaryDirectory(prefix="specmd-")


def widest_event() -> int:
    """Keys of the widest event of the small trace."""
    trace = small_trace()
    rows = np.split(trace.expert_ids, trace.step_starts[1:-1])
    return max(len(np.unique(row[:, layer])) for row in rows for layer in range(row.shape[1]))


def small_world(case: Case, needs: tuple[str, ...]) -> World:
    """Sizes of the small trace, with the pools of a case."""
    header = small_trace().header
    pools = header.num_layers if case.layered else 1
    popularity, rows = np.zeros(0), None
    if "training" in needs:
        rows = training_rows(small_trace())
        popularity = np.zeros((header.num_layers, header.num_experts))
        for layer in range(header.num_layers):
            np.add.at(popularity[layer], small_trace().expert_ids[:, layer], 1.0)
    slots = [case.slots // pools] * pools
    popularity = popularity.reshape(-1)
    return World.of(header, slots, seed=case.seed, popularity=popularity, training=rows)


def watch_eviction(choice: Choice, case: Case) -> str:
    """Replay the small trace under an eviction policy; return the digest of its decisions.

    Raises Violation where a rule is broken, and whatever the policy raises.
    """
    needs = choice.needs
    world = small_world(case, needs)
    stream = EventStream(small_trace(), weights="weights" in needs, future="future" in needs)
    link = Watch(world)
    admission, gate = case.admission, None
    if case.gate is not None:
        admission, gate = admitting(case.gate, choice)
    kernel = Kernel(
        world,
        watched(choice),
        link,
        admission=admission,
        gate=None if gate is None else (small_world(case, gate.needs), gate),
        guarded=case.guarded,
        interpreted=True,
        future=stream.first_use,
    )
    link.moved = sum(state != residency.EMPTY for state in kernel.core.state)
    for first, last in stream.stretches(0, stream.num_steps):
        chunk = stream.chunk(first, last)
        if case.prefetches:
            predictor = choose("prefetch", "random:depth=3,width=3")
            chunk = watch_proposals(predictor, case, chunk, stream, first, last)
        for part in _one_by_one(chunk) if case.blind else (chunk,):
            kernel.run(part)
    link.conclude(kernel.core)
    return kernel.digest


def watch_prefetches(choice: Choice, case: Case) -> str:
    """Let a prefetcher run over the small trace; return all it proposed, as text."""
    needs = choice.needs
    stream = EventStream(small_trace(), weights="weights" in needs, future="future" in needs)
    text = []
    for first, last in stream.stretches(0, stream.num_steps):
        chunk = watch_proposals(choice, case, stream.chunk(first, last), stream, first, last)
        planned = (
            chunk.prefetch_start,
            chunk.prefetch_keys,
            chunk.prefetch_due,
            chunk.prefetch_score,
        )
        text.append(str([array.tolist() for array in planned]))
    return "".join(text)


def watch_proposals(
    choice: Choice, case: Case, chunk: Chunk, stream: EventStream, first: int, last: int
) -> Chunk:
    """Return a chunk with a prefetcher's proposals, each of which was looked at."""
    world = small_world(case, choice.needs)
    prefetcher = choice.create(world)
    if choice.compiled:
        prefetcher = as_lists(prefetcher)
    plan = specialise(prefetch.plan, bind_prefetcher(choice), compiled=False)
    token_start: Any = stream.step_start.tolist()
    whole = foreseen(
        small_trace(),
        choice.needs,
        slice(None),
        start=[],
        keys=[],
        token_start=token_start,
        first_step=0,
    )
    starts: list[int] = [0]
    found: tuple[list[Any], ...] = ([], [], [])
    for part in _one_by_one(chunk) if case.blind else (chunk,):
        events = len(part.layer)
        space = (events + 1) * world.num_keys
        proposals = Proposals([0] * space, [0] * space, [0.0] * space, [0, 0])  # type: ignore[arg-type]
        listed = as_lists(part)
        shown = _up_to_now(whole, part) if case.blind else whole
        outlook = shown._replace(start=listed.start, keys=listed.keys)
        begins = [0] * (events + 1)
        plan(prefetcher, listed, outlook, [], 0, begins, proposals)
        for event in range(events):
            demanded = listed.keys[listed.start[event] : listed.start[event + 1]]
            clock = int(part.clock[0]) + event
            _look_at(proposals, begins[event], begins[event + 1], clock, world, demanded)
            starts.append(starts[-1] + begins[event + 1] - begins[event])
        for all_, new in zip(found, proposals[:3], strict=True):
            all_.extend(new[: begins[-1]])
    return chunk._replace(
        prefetch_start=np.array(starts, np.int64),
        prefetch_keys=np.array(found[0], np.uint32),
        prefetch_due=np.array(found[1], np.int64),
        prefetch_score=np.array(found[2], np.float64),
    )


def _up_to_now(whole: Outlook, part: Chunk) -> Outlook:
    """Hide what an outlook has of later steps, and of later layers of the one event of a chunk."""
    step, layer = int(part.step[0]), int(part.layer[0])
    first, stop = whole.token_start[step], whole.token_start[step + 1]
    shown = {}
    for name in ("lookahead", "renormalised", "logits", "draft", "ids"):
        array = getattr(whole, name).copy()
        array[stop:] = -1
        if name != "draft" and array.size:
            array[first:, layer + 1 :] = -1
        shown[name] = array
    return whole._replace(**shown)


def _look_at(
    proposals: Proposals, first: int, stop: int, clock: int, world: World, demanded: list[int]
) -> None:
    seen = set()
    for i in range(first, stop):
        key, due, score = proposals.key[i], proposals.due[i], proposals.score[i]
        if not (0 <= key < world.num_keys and key == int(key)):
            raise Violation(PROPOSALS, f"{key!r} is not a key")
        if due < clock or (due == clock and key not in demanded):  # what is there does no harm
            raise Violation(PROPOSALS, f"key {key} is due at clock {due}, and it is {clock}")
        if score != score:
            raise Violation(PROPOSALS, f"key {key} has no score")
        if key in seen:
            raise Violation(PROPOSALS, f"key {key} is proposed twice in one event")
        seen.add(key)


def _one_by_one(chunk: Chunk) -> Iterator[Chunk]:
    """Each event of a chunk as a chunk of its own."""
    for i in range(len(chunk.layer)):
        a, b = int(chunk.start[i]), int(chunk.start[i + 1])
        part = chunk._replace(
            clock=chunk.clock + i,
            step=chunk.step[i : i + 1],
            layer=chunk.layer[i : i + 1],
            phase=chunk.phase[i : i + 1],
            start=np.array([0, b - a]),
            keys=chunk.keys[a:b].copy(),
            tokens=chunk.tokens[a:b].copy(),
            gates=chunk.gates[a:b].copy(),
            next_use=chunk.next_use[a:b].copy(),
        )
        if len(chunk.prefetch_start) > 0:
            c, d = int(chunk.prefetch_start[i]), int(chunk.prefetch_start[i + 1])
            part = part._replace(
                prefetch_start=np.array([0, d - c]),
                prefetch_keys=chunk.prefetch_keys[c:d],
                prefetch_due=chunk.prefetch_due[c:d],
                prefetch_score=chunk.prefetch_score[c:d],
            )
        yield part
