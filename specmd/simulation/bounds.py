"""Bounds: the ends between which every result lies, on the same trace, capacity and hardware.

A miss count means little by itself. Belady's rule, which evicts what is used farthest in the
future, says how few misses were possible when every miss must be admitted; letting it refuse to
admit (`belady:bypass=true`) says how few were possible at all. No cache can miss less often than
each expert's first use, the *compulsory floor*; an all-resident model never misses, and without a
cache every access is fetched. All run without prefetch.

A prefetch moves a fetch in time and never saves one: whatever is fetched ahead, no fewer transfers
cross the link than `belady:bypass=true` has misses at that capacity. So no lossless run that only
moves experts is faster than the **roofline**: the longer of computing with every expert resident
and of those transfers, one after the other. Where experts come from a disk through a cache in host
memory, the disk bounds it as well: what either cache holds need not be read, so no fewer experts
are read than `belady:bypass=true` has misses at both capacities together. "Without a cache" is then
without either. The other ends have the run's host cache.

Steps that are not counted cost nothing: after a warm-up Belady is given the best that any policy
could hold of the keys demanded so far, and the roofline the best of all keys, for anything may have
been fetched ahead. Beside a policy that starts with its keys resident, both start with the best of
all (and the compulsory floor is no floor).

The gap to the optimum splits in two: the *forced gap*, misses of the policy above Belady, is what
better eviction would save; the *bypass gap*, misses of Belady above Belady with bypass, is what a
better admission would save on top.

Bounds do not depend on the policy, so a grid of six policies computes each of them once: they are
kept in memory, and in a folder (`keep_in`) where several processes share them. Without a clock they
do not depend on the capacity either: one walk gives Belady's misses at all of them, up to the
largest that will be asked for (see `specmd.simulation.curves`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from specmd.core.state import ACCESSES
from specmd.files import write_text
from specmd.policy.registry import choose, is_lossy
from specmd.runs.counters import tally
from specmd.runs.identity import SPELLED, code, digest, hardware_digest
from specmd.runs.latency import latency
from specmd.runs.options import RunConfig
from specmd.runs.pools import host_pools, pools_of
from specmd.runs.run import Bound, Bounds, Metrics
from specmd.simulation.costs import CostCoefficients, read_s, transfer_s
from specmd.simulation.curves import Rule, Start, curve
from specmd.simulation.replay import replay
from specmd.simulation.walk import Outcome, Residency
from specmd.trace import Trace, slice_steps

_FREE_AXES = (
    "evict",
    "prefetch",
    "schedule",
    "route",
    "admission",
)  # a bound does not depend on these
_MOVING = "overlap"  # bounds move every missing expert, whatever else a run does with them


class Ends(BaseModel):
    """The bounds of a trace and a configuration, whatever the policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    belady: Bound
    belady_bypass: Bound
    compulsory: Bound
    all_resident: Bound
    no_cache: Bound
    roofline_s: float | None


class Limits(BaseModel):
    """Those of the bounds under a clock that are the same at every capacity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compulsory: Bound
    all_resident: Bound
    no_cache: Bound


class Counts(BaseModel):
    """What the bounds without a clock are made of, at every capacity up to some.

    `belady` and `belady_bypass` are accesses by the depth at which each pool's stack had them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accesses: int
    first_uses: int
    belady: list[list[int]]
    belady_bypass: list[list[int]]


_known: dict[str, BaseModel] = {}
_Kept = TypeVar("_Kept", bound=BaseModel)


def bounds(
    trace: Trace,
    config: RunConfig,
    metrics: Metrics,
    *,
    costs: CostCoefficients | None = None,
    training: Trace | None = None,
    interpreted: bool = False,
    keep_in: Path | None = None,
    most_slots: int = 0,
) -> Bounds:
    """Bound a run whose metrics are given; `trace` is the one that was run, cut to `tokens`.

    `most_slots` is the largest capacity that bounds will be asked for of this trace.
    """
    ends = _ends(trace, config, costs, training, interpreted, keep_in, most_slots)
    misses = metrics["misses"]
    assert isinstance(misses, int)
    optimum = ends.belady.misses
    regret = misses - optimum if config.prefetch == "none" and not is_lossy(config) else None
    return Bounds(
        **{name: getattr(ends, name) for name in Ends.model_fields},
        regret_misses=regret,
        regret_share=None if regret is None or not optimum else regret / optimum,
        forced_gap=regret,
        bypass_gap=optimum - ends.belady_bypass.misses,
    )


def over_roofline(metrics: Metrics, found: Bounds) -> float | None:
    """How many times the roofline a run took.

    None without a clock, and where the host computed experts or others were executed than were
    chosen: that bounds what moves them all.
    """
    total_s = metrics.get("total_s")
    if metrics.get("host_experts") or metrics.get("kept_mass") != 1.0:
        return None
    return total_s / found.roofline_s if total_s is not None and found.roofline_s else None


def _ends(
    trace: Trace,
    config: RunConfig,
    costs: CostCoefficients | None,
    training: Trace | None,
    interpreted: bool,
    keep_in: Path | None,
    most_slots: int = 0,
) -> Ends:
    if costs is None:
        return _count(trace, config, training, interpreted, keep_in, most_slots)
    timing = _Timing(trace, config, costs, training, interpreted)
    limits = _keep(_key(trace, config, training, any_capacity=True), Limits, keep_in, timing.limits)
    return _keep(_key(trace, config, training), Ends, keep_in, lambda: timing.ends(limits))


def _keep(key: str, kind: type[_Kept], keep_in: Path | None, make: Callable[[], _Kept]) -> _Kept:
    """Return what is known by a key, here or to another process; otherwise make it."""
    found = _known.get(key)
    if isinstance(found, kind):
        return found
    file = keep_in / f"{key}.json" if keep_in else None
    made = _read(file, kind) if file else None
    if made is None:
        made = make()
        if file:
            write_text(file, made.model_dump_json())
    _known[key] = made
    return made


def _plain() -> dict[str, Any]:
    return {axis: RunConfig.model_fields[axis].default for axis in _FREE_AXES}


def _count(
    trace: Trace,
    config: RunConfig,
    training: Trace | None,
    interpreted: bool,
    keep_in: Path | None,
    most_slots: int,
) -> Ends:
    """Bound without a clock, from the curves."""
    slots = pools_of(trace.header, config, training=training).slots
    most = max(most_slots, config.capacity_slots)
    depth = max(*slots, *pools_of(trace.header, config, most, training=training).slots)

    def make() -> Counts:
        start: Start = _start(config)
        forced, bypass = (
            curve(trace, config, rule, depth=depth, start=start, interpreted=interpreted)
            for rule in ("belady", "belady:bypass=true")
        )
        return Counts(
            accesses=forced.accesses,
            first_uses=forced.first_uses,
            belady=forced.by_pool(),
            belady_bypass=bypass.by_pool(),
        )

    counts = _keep(_key(trace, config, training, depth), Counts, keep_in, make)

    def bound(misses: int) -> Bound:
        return Bound(misses=misses, hit_rate=(counts.accesses - misses) / counts.accesses)

    def optimum(found: list[list[int]]) -> Bound:
        hits = sum(sum(row[:room]) for row, room in zip(found, slots, strict=True))
        return bound(counts.accesses - hits)

    return Ends(
        belady=optimum(counts.belady),
        belady_bypass=optimum(counts.belady_bypass),
        compulsory=bound(counts.first_uses),
        all_resident=bound(0),
        no_cache=bound(counts.accesses),
        roofline_s=None,
    )


def _start(config: RunConfig) -> Start:
    """Return what Belady is given so that it bounds, see `specmd.simulation.replay.replay`."""
    if choose("evict", config.evict).pins:
        return "any"
    return "seen" if config.warmup else "cache"


def _key(
    trace: Trace,
    config: RunConfig,
    training: Trace | None,
    depth: int | None = None,
    *,
    any_capacity: bool = False,
) -> str:
    """Hash what the bounds of a run depend on: its capacity, or the depth of their curves."""
    free = {*_FREE_AXES, *SPELLED, "context", "profile", "shape"}
    if depth is not None:
        free |= {"capacity_slots", "allocate", "host_slots", "host_evict"}
        config = config.model_copy(update={"host_slots": None})
    if any_capacity:
        free |= {"capacity_slots", "allocate", "scope"}
    if config.host_slots is None:  # the policy of the host's tier may draw lots
        free |= {"seed"}
    kept = config.model_dump(mode="json", exclude=free)
    return digest(
        {
            "trace": trace.digest,
            "layer_bytes": trace.header.layer_bytes,
            "config": kept,
            "depth": depth,
            "hardware": hardware_digest(config),
            "training": training.digest if training else None,
            "code": code(config.model_copy(update=_plain()), bounds=True),
            "frozen": choose("evict", config.evict).pins,
        }
    )


@dataclass(frozen=True)
class _Timing:
    """Bounds under a clock, by replays."""

    trace: Trace
    config: RunConfig
    costs: CostCoefficients
    training: Trace | None
    interpreted: bool

    def limits(self) -> Limits:
        """Time what is bounded alike at every capacity."""
        keys = self.trace.header.num_layers * self.trace.header.num_experts
        return Limits(
            compulsory=self._bound("lru", capacity_slots=keys, scope="global"),
            all_resident=self._bound("lru", "all"),
            no_cache=self._bound("lru", "none"),
        )

    def ends(self, limits: Limits) -> Ends:
        """Time what depends on the run's capacity."""
        trace, config, costs = self.trace, self.config, self.costs
        bypass = choose("evict", "belady:bypass=true").spelled
        best = _start(config)
        run = self._end(bypass, best, admission="bypass")
        transfers_s = _transfers_s(trace, run, costs)
        reads_s = _reads_s(trace, config, run, costs, best, self.training, self.interpreted)
        if config.warmup:
            counted, cold = (
                slice_steps(trace, config.warmup),
                config.model_copy(update={"warmup": 0}),
            )
            start = self._end(bypass, "any", counted, admission="bypass", warmup=0)
            transfers_s = _transfers_s(counted, start, costs)
            reads_s = _reads_s(counted, cold, start, costs, "any", self.training, self.interpreted)
        computing_s = limits.all_resident.total_s or 0.0
        return Ends(
            belady=self._bound("belady", best),
            belady_bypass=_bound(trace, run),
            **{name: getattr(limits, name) for name in Limits.model_fields},
            roofline_s=max(computing_s, transfers_s, reads_s),
        )

    def _bound(self, evict: str, residency: Residency = "cache", **changes: Any) -> Bound:
        return _bound(self.trace, self._end(evict, residency, **changes))

    def _end(
        self,
        evict: str,
        residency: Residency = "cache",
        part: Trace | None = None,
        **changes: Any,
    ) -> Outcome:
        config = self.config
        changed = {**config.model_dump(), **_plain(), "admission": "forced", "evict": evict}
        if choose("miss", config.miss).executes:
            changed["miss"] = _MOVING
        return replay(
            self.trace if part is None else part,
            RunConfig.model_validate(changed | changes),
            training=self.training,
            costs=self.costs,
            residency=residency,
            interpreted=self.interpreted,
        )


def _transfers_s(trace: Trace, outcome: Outcome, costs: CostCoefficients) -> float:
    """Seconds of all transfers of a run without prefetch, one after the other."""
    rows = outcome.counters.sum(axis=0)
    misses = [tally(rows[layer : layer + 1], None)["misses"] or 0 for layer in range(len(rows))]
    sizes = trace.header.layer_bytes or ()
    return sum(count * transfer_s(costs, size) for count, size in zip(misses, sizes, strict=True))


def _reads_s(
    trace: Trace,
    config: RunConfig,
    outcome: Outcome,
    costs: CostCoefficients,
    start: Start,
    training: Trace | None,
    interpreted: bool,
) -> float:
    """Seconds of the fewest reads from the disk, one after the other; 0 without a host tier.

    They are the misses of one cache as large as device and host together, by size of experts.
    """
    if config.host_slots is None:
        return 0.0
    header = trace.header
    host, device = host_pools(header, config), pools_of(header, config, training=training)
    room = list(host.slots)
    for pool, slots in enumerate(device.slots):
        room[host.of_layer[device.of_layer.index(pool)]] += slots
    both = config.model_copy(update={"scope": "global"})
    depth = max(room)
    rule: Rule = "belady:bypass=true"
    found = curve(trace, both, rule, depth=depth, start=start, interpreted=interpreted)
    asked = outcome.counters[..., ACCESSES].sum(axis=0)
    misses = (asked - found.hits(room).sum(axis=0)).tolist()
    sizes = header.layer_bytes or ()
    taken: float = sum(n * read_s(costs, size) for n, size in zip(misses, sizes, strict=True))
    return taken


def _bound(trace: Trace, outcome: Outcome) -> Bound:
    found = tally(outcome.counters.sum(axis=0), None)
    if outcome.step_seconds is not None:
        found |= latency(trace, outcome.step_seconds, outcome.first_step, None).metrics
    return Bound.model_validate({name: found.get(name) for name in Bound.model_fields})


def _read(file: Path, kind: type[_Kept]) -> _Kept | None:
    """Bounds another process kept; None if there are none, or the file is damaged."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
