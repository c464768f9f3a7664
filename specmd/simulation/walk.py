"""One walk over a trace with a cache: the parts a run is made of, and what they counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from specmd.core.event import DECODE, NEVER, NO_RATES, IntArray, World
from specmd.core.instant_link import NOTED, InstantLink
from specmd.core.kernel import Kernel
from specmd.core.planner import Planner
from specmd.core.prefetch import Outlook
from specmd.core.specialise import Function
from specmd.core.staging import as_told
from specmd.core.state import BYPASS, FETCHED_EVER, FORCED, NEVER_ADMIT, Chunk
from specmd.errors import SpecmdError
from specmd.policy.admission import admitting
from specmd.policy.needs import offered, shown, unmet
from specmd.policy.registry import Choice, choose, is_lossy
from specmd.runs.foresight import Foreseen
from specmd.runs.metrics import PARTS
from specmd.runs.options import RunConfig
from specmd.runs.policy_metrics import Published, publish
from specmd.runs.pools import host_pools, pools_of
from specmd.simulation.chain import ChainedLink
from specmd.simulation.clock import Notes, require_sizes, take_notes
from specmd.simulation.costs import predicting_s, with_predictor
from specmd.simulation.events import EventStream
from specmd.simulation.executing import executing, rates
from specmd.simulation.loads import popularity as count_popularity
from specmd.simulation.loads import require_same_model, require_unseen
from specmd.simulation.plans import PLANNED, Plans, foreseen
from specmd.simulation.timed_link import TimedLink
from specmd.simulation.timeline import TRAIL
from specmd.trace.contexts import step_loads
from specmd.trace.training import training_rows

if TYPE_CHECKING:
    from specmd.simulation.costs import CostCoefficients
    from specmd.trace import Trace

Residency = Literal["cache", "all", "none", "seen", "any"]


@dataclass(frozen=True)
class Outcome:
    """What happened, as arrays; `specmd.simulate` turns it into a `Run`."""

    counters: npt.NDArray[np.int64]  # (2 phases, layers, NUM_COUNTERS), see specmd.core.state
    decision_digest: str
    step_seconds: npt.NDArray[np.float64] | None  # (counted steps, PARTS); None without a clock
    first_step: int  # the first counted step: steps before it were warm-up
    link_busy_s: float | None  # time the link carried bytes, of the counted steps
    host_counters: npt.NDArray[np.int64] | None = None  # of the host tier; None without one
    host_digest: str = ""
    disk_busy_s: float | None = None
    # Of each key, (keys,), in the counted steps: demand fetches, late hits, prefetches that moved.
    missed: IntArray | None = None
    late: IntArray | None = None
    ahead: IntArray | None = None
    notes: Notes | None = None  # of a run whose decisions depend on no time
    trail: npt.NDArray[np.float64] | None = None  # (steps, layers, PARTS) of the last steps
    published: Published = field(default_factory=dict)  # see `specmd.runs.policy_metrics`
    foreseen: Foreseen | None = None  # of a run with a prefetcher
    predict_s: float | None = None  # spent on prediction, of the counted steps; None without clock
    median: tuple[int, npt.NDArray[np.float64]] | None = None  # see `specmd.simulation.replay`
    masses: npt.NDArray[np.float64] | None = None  # of what was executed, by phase and layer
    low_share: float = 1.0  # bytes of a low-bit copy over those of the expert


def is_timeless(config: RunConfig) -> bool:
    """Tell whether no decision of a run depends on time, so that none needs a clock.

    Where other experts are executed than were chosen, notes of what was chosen say too little.
    """
    if config.host_slots is not None or config.sequential:
        return False
    if is_lossy(config) or choose("route", config.route).executes:
        return False
    return not hasattr(choose("prefetch", config.prefetch).cls, "predict")


class Walk:
    """One run: the parts it is made of, and the walk over the trace.

    See `specmd.simulation.replay.replay` for the arguments; `size` are the accesses to come, None
    where it pays to compile whatever they are; `also` is for whoever looks on, see `Kernel`.
    """

    def __init__(
        self,
        trace: Trace,
        config: RunConfig,
        training: Trace | None,
        costs: CostCoefficients | None,
        resident: str,
        interpreted: bool,
        size: int | None,
        also: Mapping[Function, Function] | None = None,
    ) -> None:
        self.trace, self.config, self.costs, self.resident = trace, config, costs, resident
        self.evict = choose("evict", config.evict)
        self.prefetch = choose("prefetch", config.prefetch)
        self.schedule = choose("schedule", config.schedule).create()
        self.miss, self.route = choose("miss", config.miss), choose("route", config.route)
        admission, gate = admitting(choose("admission", config.admission), self.evict)
        self._check(training, gate)
        self.shows = shown(self.evict.needs), shown(self.prefetch.needs)
        world_of = partial(self._world, training=training)
        usual = resident == "cache"
        self.executing = executing(trace, config, world_of) if usual else None
        self.plans = self._plans(training, interpreted)
        asking = () if self.plans is None or self.plans.known else self.prefetch.needs
        needs = {*self.evict.needs, *asking}
        self.events = EventStream(
            trace,
            sequential=config.sequential,
            weights="weights" in needs,
            future="future" in needs,
            ahead_events=self.prefetch.ahead if "future" in asking else 0,
            choices=self.executing is not None and self.executing.has_rows,
            compiled=size is None and not interpreted,
        )
        self.kernel = Kernel(
            self._world(self.evict, training),
            self.evict,
            self._link(),
            admission=NEVER_ADMIT if resident == "none" else admission,
            gate=None if gate is None else (self._world(gate, training), gate),
            guarded=self.schedule.guard,
            budget=self.schedule.budget,
            staging=self.schedule.staging if resident == "cache" else 0,
            execution=self.executing,
            resident=resident == "all",
            sequential=config.sequential,
            interpreted=interpreted,
            accesses=size,
            future=self.events.first_use if "future" in self.evict.needs else None,
            behind=self._behind(),
            also=also,
        )
        if self.plans is not None and not self.plans.known:
            make = partial(Planner, maker=self.prefetch, interpreted=interpreted, accesses=size)
            self.plans.begin(self._world(self.prefetch, training), make)

    def _plans(self, training: Trace | None, interpreted: bool) -> Plans | None:
        """Return the prefetcher's plan, None if there is no prefetcher."""
        if not hasattr(self.prefetch.cls, "predict"):
            return None
        fitted = training.digest if training is not None else None
        parts = tuple(part.cls for part in self.prefetch.parts)
        choice = (self.prefetch.content, parts, self.config.seed, fitted)
        key = (*choice, interpreted, self.config.warmup, self.config.reset)
        return Plans(self.trace, key, warmup=self.config.warmup)

    def _check(self, training: Trace | None, gate: Choice | None) -> None:
        config, trace = self.config, self.trace
        asked = self.evict, self.prefetch, self.miss, self.route
        for choice in (*asked, *filter(None, [gate])):
            if reason := unmet(choice, offered(trace, training, timed=self.costs is not None)):
                raise SpecmdError(reason)
        if config.sequential and (self.prefetch.entry.name != "none" or self.costs is not None):
            raise SpecmdError(
                "sequential mode is for cross-checks of eviction alone: it has neither a clock nor "
                "prefetches; leave out --prefetch and --profile, or --sequential"
            )
        if training is not None:
            require_same_model(training, trace.header)
        require_unseen(config, trace, training)
        steps = trace.num_steps
        if 0 < steps <= config.warmup:
            raise SpecmdError(
                f"warm-up of {config.warmup} steps leaves nothing of a trace of {steps}"
            )

    def _world(self, choice: Choice, training: Trace | None) -> World:
        """Build the world as one of the policies may know it."""
        header, config = self.trace.header, self.config
        everything = header.num_layers * header.num_experts if self.resident == "all" else None
        pools = pools_of(header, config, everything, training=training)
        popularity = rows = None
        if training is not None and "training" in choice.needs:
            popularity, rows = count_popularity(training), training_rows(training)
        known = rates(self.costs, header.expert_bytes) if "rates" in choice.needs else NO_RATES
        return World.of(
            header, *pools, seed=config.seed, popularity=popularity, training=rows, rates=known
        )

    def _behind(self) -> tuple[World, Choice, int] | None:
        """Return what the host tier is made of, None where every expert is in host memory."""
        config, header = self.config, self.trace.header
        if config.host_slots is None:
            return None
        choice = choose("evict", config.host_evict)
        world = World.of(header, *host_pools(header, config), seed=config.seed)
        admission = BYPASS if choice.bypasses else FORCED
        return world, choice, NEVER_ADMIT if self.resident == "none" else admission

    def run(self) -> Outcome:
        """Serve the whole trace."""
        config, events, kernel = self.config, self.events, self.kernel
        busy_before_s = np.zeros(2)
        resets = events.resets() if config.reset == "request" else set()
        cuts = sorted({0, events.num_steps, *resets, config.warmup})
        events.split(cuts[1:-1])
        for first, last in pairwise(cuts):
            if first in resets:
                self._published()  # of a state that is about to be forgotten
                kernel.empty()
            elif first == config.warmup and first > 0 and self.resident == "seen":
                self._fill()
            if self.resident == "any" and (first == 0 or first in resets):
                self._fill()
            if first == config.warmup and first > 0:
                kernel.forget_counts()
                for counts in self._by_key():
                    counts[:] = [0] * len(counts)
                busy_before_s = self._busy_s()
            for low, high in events.stretches(first, last):
                kernel.run(self._with_prefetches(events.chunk(low, high), low, high))
        kernel.conclude()
        kernel.write_off()
        if self.plans is not None:
            self.plans.conclude()
        seconds = link_s = disk_s = notes = None
        if self.costs is not None:
            parts = np.asarray(kernel.link.parts, np.float64).reshape(-1, len(PARTS))
            seconds = parts[config.warmup :]
            link_s, disk_s = (self._busy_s() - busy_before_s).tolist()
        elif is_timeless(config):
            noted = np.asarray(kernel.link.noted, np.uint8)[: kernel.link.count[NOTED]]
            notes = take_notes(
                events, noted, int(kernel.core.admission[0]), interpreted=not kernel.compiled
            )
        missed, late, ahead = (np.array(counts, np.int64) for counts in self._by_key())
        return Outcome(
            counters=kernel.counters,
            decision_digest=kernel.digest,
            step_seconds=seconds,
            first_step=config.warmup,
            link_busy_s=link_s,
            host_counters=kernel.tier_counters,
            host_digest=kernel.tier_digest,
            disk_busy_s=None if config.host_slots is None else disk_s,
            missed=missed,
            late=late,
            ahead=ahead,
            notes=notes,
            trail=None if self.costs is None else self._trail(),
            masses=kernel.masses,
            low_share=1.0 if self.executing is None else self.executing.low_share,
            published=self._published(),
            foreseen=None if self.plans is None else self.plans.foreseen,
            predict_s=self._predict_s(),
        )

    def _published(self) -> Published:
        """Ask the policies how it ended; nobody but those of a run, not of its bounds."""
        if self.resident != "cache":
            return {}
        kernel, name = self.kernel, self.evict.entry.name
        found = publish("evict", name, kernel.policy, as_told(kernel.core))
        if self.config.host_slots is not None:
            tier, name = kernel.link.tier, choose("evict", self.config.host_evict).entry.name
            found |= publish("host_evict", name, tier.policy, tier.core)
        made = kernel.core.execution if self.executing is not None else None
        for axis, choice, part in (("route", self.route, "router"), ("miss", self.miss, "misser")):
            if made is not None and choice.executes:
                found |= publish(axis, choice.entry.name, getattr(made, part))
        if self.plans is not None:
            found |= publish("prefetch", self.prefetch.entry.name, self.plans.state)
        return found

    def _predict_s(self) -> float | None:
        """Seconds that the counted steps spend on prediction; None without prefetcher or clock."""
        if self.plans is None or self.costs is None:
            return None
        link, warmup = self.kernel.link, self.config.warmup
        phases = np.minimum.reduceat(self.trace.phase, self.trace.step_starts[:-1])
        decodes = phases[warmup:] == DECODE
        tokens = np.asarray(link.step_tokens)[warmup:]
        predicts = "future" not in self.prefetch.needs
        total_s = self.costs.predict_s * len(tokens) * self.trace.header.num_layers * predicts
        for costs, some in ((link.costs, decodes), (link.prefill, ~decodes)):
            for left in range(self.trace.header.num_layers):
                counts = np.unique(tokens[some], return_counts=True)
                total_s += sum(
                    predicting_s(costs, n, left) * times
                    for n, times in zip(*(each.tolist() for each in counts), strict=True)
                )
        return float(total_s)

    def _by_key(self) -> tuple[Any, Any, Any]:
        """Return the link's counts of each key: demand fetches, late hits, prefetches."""
        link = self.kernel.link
        late = link.late if self.costs is not None else np.zeros(0, np.int64)
        return link.missed, late, link.ahead

    def _trail(self) -> npt.NDArray[np.float64]:
        """Return the time of the last steps by layer, (steps, layers, PARTS)."""
        steps = min(TRAIL, self.events.num_steps - self.config.warmup)
        shape = (TRAIL, self.trace.header.num_layers, len(PARTS))
        trail = np.asarray(self.kernel.link.trail, np.float64).reshape(shape)
        found = trail[np.arange(self.events.num_steps - steps, self.events.num_steps) % TRAIL]
        return np.diff(found, axis=1, prepend=0.0)

    def _busy_s(self) -> npt.NDArray[np.float64]:
        """Seconds that link and disk have carried bytes, (2,); 0 without a clock or a disk."""
        lanes = self.kernel.link.lanes.busy_s if self.costs is not None else ()
        return np.array([*lanes, 0.0, 0.0])[:2]

    def _link(self) -> Any:
        header = self.trace.header
        if self.costs is None:
            accesses = self.events.accesses if is_timeless(self.config) else 0
            return InstantLink.create(header.num_layers * header.num_experts, accesses=accesses)
        require_sizes(header)
        costs = self.costs
        if self.resident == "all":
            costs = costs._replace(decide_s=0.0)  # nothing is asked where all is there
        if self.plans is not None and "future" not in self.prefetch.needs:
            costs = with_predictor(costs, *self.prefetch.work)
        link = TimedLink if self.config.host_slots is None else ChainedLink
        return link.create(
            np.repeat(np.asarray(header.layer_bytes, np.float64), header.num_experts),
            costs,
            step_loads(self.trace),
            schedule=self.schedule,
            blocks=self.miss.blocks,
            disk=link is ChainedLink,
            layers=header.num_layers,
        )

    def _fill(self) -> None:
        """Give Belady the keys that are used again soonest: of those seen so far, or of all."""
        wanted = np.array(self.kernel.future)
        if self.resident == "seen":
            wanted[np.asarray(self.kernel.core.mark) & FETCHED_EVER == 0] = NEVER
        keys = np.argsort(-wanted, kind="stable").astype(np.uint32)  # the soonest enter last
        keys = keys[wanted[keys] < NEVER]
        self.kernel.fill(keys, wanted[keys])

    def _with_prefetches(self, chunk: Chunk, first: int, last: int) -> Chunk:
        """Show the eviction policy what it needs of a chunk, and the prefetcher what it needs."""
        seen, foreseen = (show(chunk) for show in self.shows)
        if self.plans is None:
            return seen
        planned = self.plans.plan(
            foreseen, lambda: self._outlook(chunk, first, last), (first, last)
        )
        return seen._replace(**{name: getattr(planned, name) for name in PLANNED})

    def _outlook(self, chunk: Chunk, first: int, last: int) -> Outlook:
        """Return what a prefetcher may know beyond the events of some steps."""
        needs, starts = self.prefetch.needs, self.events.step_start
        low, high = int(starts[first]), int(starts[last])
        return foreseen(
            self.trace,
            needs,
            slice(low, high),
            start=chunk.start if "future" in needs else chunk.start[:0],
            keys=chunk.keys,
            token_start=starts[first : last + 1] - low,
            first_step=first,
        )
