"""Replay a trace through the residency core: configuration and trace in, counts and times out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from specmd.core import serve as residency
from specmd.core.event import World
from specmd.core.instant_link import Immediate
from specmd.core.kernel import as_lists, bind_plan, bind_replay, is_compiled
from specmd.core.prefetch import Outlook, Proposals
from specmd.errors import SpecmdError
from specmd.policy.registry import Choice, choose
from specmd.runs.options import RunConfig
from specmd.simulation.events import EventStream
from specmd.simulation.loads import popularity as count_popularity
from specmd.simulation.loads import step_loads
from specmd.simulation.timed_link import BUSY, Clock

if TYPE_CHECKING:
    from specmd.simulation.costs import CostCoefficients
    from specmd.trace import Trace

# Columns of `Outcome.step_seconds`; they add up to the duration of the step.
PARTS = ("compute", "demand_stall", "late_prefetch_stall", "cpu_expert", "overhead")


@dataclass(frozen=True)
class Outcome:
    """What happened, as arrays; `specmd.simulate` turns it into a `Run`."""

    counters: npt.NDArray[np.int64]  # (2 phases, layers, NUM_COUNTERS), see specmd.core.serve
    decision_digest: str
    step_seconds: npt.NDArray[np.float64] | None  # (counted steps, PARTS); None without a clock
    first_step: int  # the first counted step: steps before it were warm-up
    link_busy_s: float | None  # time the link carried bytes, of the counted steps


def replay(
    trace: Trace,
    config: RunConfig,
    *,
    training: Trace | None = None,
    costs: CostCoefficients | None = None,
    residency: Literal["cache", "all", "none"] = "cache",
    interpreted: bool = False,
) -> Outcome:
    """Run one configuration over a trace.

    `costs` switches the clock on. `residency` "all" starts with every expert resident, "none"
    admits nothing: the two ends every result is compared with. `training` is the trace that
    policies fitted beforehand are fitted on. `config.capacity_slots`, not `config.capacity`, is
    what counts. Raises SpecmdError when a policy's needs are not met.
    """
    return _Replay(trace, config, training, costs, residency, interpreted).run()


class _Replay:
    """One run: the parts it is made of, and the walk over the trace."""

    def __init__(
        self,
        trace: Trace,
        config: RunConfig,
        training: Trace | None,
        costs: CostCoefficients | None,
        resident: str,
        interpreted: bool,
    ) -> None:
        if config.tokens is not None and config.tokens < trace.num_tokens:
            from specmd.trace import slice_tokens

            trace = slice_tokens(trace, 0, config.tokens)
        self.trace, self.config, self.costs, self.resident = trace, config, costs, resident
        self.evict = choose("evict", config.evict)
        self.prefetch = choose("prefetch", config.prefetch)
        self.schedule = choose("schedule", config.schedule).create()
        self.miss = choose("miss", config.miss).create()
        needs = {*self.evict.entry.needs, *self.prefetch.entry.needs}
        self._check(needs, training)
        self.compiled = not interpreted and is_compiled(self.evict.entry.cls)
        self.plan_compiled = not interpreted and is_compiled(self.prefetch.entry.cls)
        self.world = self._world(training)
        self.prefetcher = self._create(self.prefetch)
        self.predicts = hasattr(self.prefetch.entry.cls, "predict")
        self.events = EventStream(
            trace,
            sequential=config.sequential,
            weights="weights" in needs,
            future="future" in needs,
            ahead_events=getattr(self.prefetcher, "depth", 0) if "future" in needs else 0,
        )
        self.space = 0
        self.busy_before_s = 0.0

    def _check(self, needs: set[str], training: Trace | None) -> None:
        config, trace = self.config, self.trace
        for choice in (self.evict, self.prefetch):
            name = choice.spelled
            if "training" in choice.entry.needs and training is None:
                raise SpecmdError(f"{name} needs a training trace: give one with --training")
            if "lookahead" in choice.entry.needs and trace.lookahead is None:
                raise SpecmdError(f"{name} needs lookahead scores, which the trace does not hold")
            if "weights" in choice.entry.needs and trace.weights is None:
                raise SpecmdError(f"{name} needs router weights, which the trace does not hold")
        if config.sequential and (self.prefetch.entry.name != "none" or self.costs is not None):
            raise SpecmdError(
                "sequential mode is for cross-checks of eviction alone: it has neither a clock nor "
                "prefetches; leave out --prefetch and --profile, or --sequential"
            )
        depth = self.prefetch.values.get("depth", 0)
        if "lookahead" in needs and trace.lookahead is not None:
            held = trace.lookahead.shape[2]
            if depth > held:
                raise SpecmdError(
                    f"{self.prefetch.spelled}: the trace holds lookahead scores {held} deep"
                )
        if training is not None:
            same = ("num_layers", "num_experts")
            if any(getattr(training.header, n) != getattr(trace.header, n) for n in same):
                raise SpecmdError(
                    "the training trace is of another model: layers or experts differ"
                )

    def _world(self, training: Trace | None) -> World:
        header, config = self.trace.header, self.config
        keys = header.num_layers * header.num_experts
        slots = keys if self.resident == "all" else config.capacity_slots
        if config.scope == "layer" and self.resident != "all":
            capacity = choose("allocate", config.allocate).create().quotas(slots, header.num_layers)
        else:
            capacity = [slots]
        popularity = np.zeros(0)
        if training is not None:
            popularity = count_popularity(training)
        return World(
            header.num_layers,
            header.num_experts,
            header.top_k,
            len(capacity),
            np.minimum(np.asarray(capacity, np.int64), keys // len(capacity)),
            config.seed & 0x7FFFFFFF,
            popularity,
        )

    def _create(self, choice: Choice) -> Any:
        return choice.create(self.world)

    def run(self) -> Outcome:
        config, events, world = self.config, self.events, self.world
        if config.warmup >= events.num_steps and config.warmup > 0:
            raise SpecmdError(
                f"warm-up of {config.warmup} steps leaves nothing of a trace of {events.num_steps}"
            )
        link = self._link()
        run = bind_replay(
            self.evict.entry.cls,
            type(link),
            sequential=config.sequential,
            compiled=self.compiled,
        )
        core = residency.create_core(world, self._admission(), self.schedule.guard)
        if self.resident == "all":
            core.state[:] = residency.READY
            core.mark[:] = residency.FETCHED_EVER | residency.USED
        policy = self._create(self.evict)
        if not self.compiled:
            core, link, policy = as_lists(core), as_lists(link), as_lists(policy)
        resets = self._resets()
        cuts = sorted({0, events.num_steps, *resets, config.warmup})
        events.split(cuts[1:-1])
        future = events.first_use.copy() if self.compiled else events.first_use.tolist()
        for first, last in pairwise(cuts):
            if first in resets:
                core, policy = self._emptied(core, link)
            if first == config.warmup and first > 0:
                _forget_counts(core)
                self.busy_before_s = link.time[BUSY] if self.costs is not None else 0.0
            for low, high in events.stretches(first, last):
                chunk = self._with_prefetches(events.chunk(low, high), low, high)
                if not self.compiled:
                    chunk = as_lists(chunk)
                run(core, policy, link, future, chunk, world.num_experts)
        _write_off(core)
        return self._outcome(core, link)

    def _link(self) -> Any:
        if self.costs is None:
            return Immediate.create(self.world.num_keys)
        if self.trace.header.expert_bytes is None:
            raise SpecmdError(
                "a timed simulation needs the bytes of an expert: import with --expert-bytes"
            )
        costs = self.costs
        if "lookahead" in choose("prefetch", self.config.prefetch).entry.needs:
            layer_s = costs.layer_launch_s + costs.predict_s
            costs = costs._replace(layer_launch_s=layer_s)
        return Clock.create(
            self.world.num_keys,
            costs,
            float(self.trace.header.expert_bytes),
            step_loads(self.trace, self.events),
            by_score=self.schedule.by_score,
            cancels=self.schedule.cancel,
            blocks=self.miss.blocks,
        )

    def _admission(self) -> int:
        if self.resident == "none":
            return residency.NEVER_ADMIT
        bypass = self.config.admission == "bypass" or self.evict.values.get("bypass") is True
        return residency.BYPASS if bypass else residency.FORCED

    def _resets(self) -> set[int]:
        """List the steps that share no request with the one before, under `reset=request`."""
        if self.config.reset == "none":
            return set()
        starts, request = self.events.step_start, self.trace.request
        resets = set()
        before: set[int] = set()
        for step in range(self.events.num_steps):
            now = set(request[starts[step] : starts[step + 1]].tolist())
            if step > 0 and not now & before:
                resets.add(step)
            before = now
        return resets

    def _emptied(self, core: residency.Core, link: Any) -> tuple[residency.Core, Any]:
        """Empty the cache between requests; what was ever fetched stays known."""
        _write_off(core)
        fresh = residency.create_core(self.world, self._admission(), self.schedule.guard)
        link.drain()
        policy = self._create(self.evict)
        if not self.compiled:
            fresh, policy = as_lists(fresh), as_lists(policy)
        for key, mark in enumerate(core.mark):
            fresh.mark[key] = mark & residency.FETCHED_EVER
        return fresh._replace(counters=core.counters, digest=core.digest), policy

    def _with_prefetches(self, chunk: residency.Chunk, first: int, last: int) -> residency.Chunk:
        if not self.predicts:
            return chunk
        plan = bind_plan(self.prefetch.entry.cls, compiled=self.plan_compiled)
        low, high = int(self.events.step_start[first]), int(self.events.step_start[last])
        lookahead = np.zeros((0, 0, 0, 0), np.float32)
        if "lookahead" in self.prefetch.entry.needs:
            assert self.trace.lookahead is not None
            lookahead = np.ascontiguousarray(self.trace.lookahead[low:high], dtype=np.float32)
        outlook = Outlook(
            0,
            chunk.start,
            chunk.keys,
            self.events.step_start[first : last + 1] - low,
            first,
            lookahead,
        )
        events = len(chunk.layer)
        self.space = max(self.space, 4 * self.world.num_keys, 8 * events)
        proposals, starts = _proposals(self.space), np.zeros(events + 1, np.int64)
        layers, experts = self.world.num_layers, self.world.num_experts
        done = 0
        while done < events:
            args: Any = (chunk, outlook, layers, experts, done, starts, proposals)
            if self.plan_compiled:
                done = plan(self.prefetcher, *args)
            else:
                listed = as_lists(args)
                done = plan(self.prefetcher, *listed)
                for array, values in zip(proposals, listed[-1], strict=True):
                    array[:] = values
                starts[:] = listed[-2]
            if done < events:
                self.space *= 2
                wider = _proposals(self.space)
                for array, old in zip(wider, proposals, strict=True):
                    array[: len(old)] = old
                proposals = wider
        return chunk._replace(
            prefetch_start=starts,
            prefetch_keys=proposals.key,
            prefetch_due=proposals.due,
            prefetch_score=proposals.score,
        )

    def _outcome(self, core: residency.Core, link: Any) -> Outcome:
        shape = (2, self.world.num_layers, residency.NUM_COUNTERS)
        digest = "".join(f"{int(lane):08x}" for lane in core.digest)
        counters = np.asarray(core.counters, np.int64).reshape(shape)
        first = self.config.warmup
        if self.costs is None:
            return Outcome(counters, digest, None, first, None)
        seconds = np.asarray(link.parts, np.float64).reshape(-1, len(PARTS))[first:]
        return Outcome(
            counters, digest, seconds, first, float(link.time[BUSY] - self.busy_before_s)
        )


def _proposals(space: int) -> Proposals:
    return Proposals(
        np.zeros(space, np.uint32),
        np.zeros(space, np.int64),
        np.zeros(space, np.float64),
        np.zeros(2, np.int64),
    )


def _forget_counts(core: residency.Core) -> None:
    """End of the warm-up: count from zero; prefetches still unused count as issued."""
    unused = unused_prefetches(core)
    for i in range(len(core.counters)):
        core.counters[i] = 0
    core.counters[first_decode_row(core) + residency.PREFETCH_ISSUED] = unused


def _write_off(core: residency.Core) -> None:
    """Count the prefetches that ended unused, in the row of the first decode layer."""
    core.counters[first_decode_row(core) + residency.PREFETCH_WASTED] += unused_prefetches(core)


def first_decode_row(core: residency.Core) -> int:
    """Index of the first decode layer's counters."""
    return len(core.counters) // residency.NUM_COUNTERS // 2 * residency.NUM_COUNTERS


def unused_prefetches(core: residency.Core) -> int:
    """Count the prefetched keys that have not been used in their present stay."""
    brought = residency.PREFETCHED
    return sum(
        1
        for state, mark in zip(core.state, core.mark, strict=True)
        if state != residency.EMPTY and mark & (residency.USED | brought) == brought
    )
