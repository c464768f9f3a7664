"""Bounds: the ends between which every result lies, on the same trace, capacity and hardware.

A miss count means little by itself. Belady's rule, which evicts what is used farthest in the
future, says how few misses were possible when every miss must be admitted; letting it refuse to
admit (`belady:bypass=true`) says how few were possible at all. No cache can miss less often than
each expert's first use, the *compulsory floor*; an all-resident model never misses, and without a
cache every access is fetched. All run without prefetch.

A prefetch moves a fetch in time and never saves one: whatever is fetched ahead, no fewer transfers
cross the link than `belady:bypass=true` has misses at that capacity. So no lossless run that only
moves experts is faster than the **roofline**: the longer of computing with every expert resident
and of those transfers, one after the other.

Steps that are not counted cost nothing: after a warm-up Belady is given the best that any policy
could hold of the keys demanded so far, and the roofline the best of all keys, for anything may have
been fetched ahead. Beside a policy that starts with its keys resident, both start with the best of
all (and the compulsory floor is no floor).

The gap to the optimum splits in two: the *forced gap*, misses of the policy above Belady, is what
better eviction would save; the *bypass gap*, misses of Belady above Belady with bypass, is what a
better admission would save on top.

Bounds do not depend on the policy, so a grid of six policies computes each of them once: they are
kept in memory, and in a folder (`keep_in`) where several processes share them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from specmd.core.state import ACCESSES
from specmd.files import write_text
from specmd.policy.registry import choose
from specmd.runs.counters import tally
from specmd.runs.identity import code, digest, hardware_digest
from specmd.runs.latency import latency
from specmd.runs.options import RunConfig
from specmd.runs.run import Bound, Bounds, Metrics
from specmd.simulation.costs import CostCoefficients, transfer_s
from specmd.simulation.replay import Outcome, Residency, replay
from specmd.trace import Trace, slice_steps

_FREE_AXES = ("evict", "prefetch", "schedule", "route")  # a bound does not depend on these


class Ends(BaseModel):
    """The bounds of a trace and a configuration, whatever the policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    belady: Bound
    belady_bypass: Bound
    compulsory: Bound
    all_resident: Bound
    no_cache: Bound
    roofline_s: float | None


_known: dict[str, Ends] = {}


def bounds(
    trace: Trace,
    config: RunConfig,
    metrics: Metrics,
    *,
    costs: CostCoefficients | None = None,
    training: Trace | None = None,
    interpreted: bool = False,
    keep_in: Path | None = None,
) -> Bounds:
    """Bound a run whose metrics are given; `trace` is the one that was run, cut to `tokens`."""
    ends = _ends(trace, config, costs, training, interpreted, keep_in)
    misses = metrics["misses"]
    assert isinstance(misses, int)
    optimum = ends.belady.misses
    regret = misses - optimum if config.prefetch == "none" else None
    return Bounds(
        **{name: getattr(ends, name) for name in Ends.model_fields},
        regret_misses=regret,
        regret_share=None if regret is None or not optimum else regret / optimum,
        forced_gap=regret,
        bypass_gap=optimum - ends.belady_bypass.misses,
    )


def over_roofline(metrics: Metrics, found: Bounds) -> float | None:
    """How many times the roofline a run took; None without a clock."""
    total_s = metrics.get("total_s")
    return total_s / found.roofline_s if total_s is not None and found.roofline_s else None


def _ends(
    trace: Trace,
    config: RunConfig,
    costs: CostCoefficients | None,
    training: Trace | None,
    interpreted: bool,
    keep_in: Path | None,
) -> Ends:
    key = _key(trace, config, training)
    if key in _known:
        return _known[key]
    file = keep_in / f"{key}.json" if keep_in else None
    found = _read(file) if file else None
    if found is None:
        found = _compute(trace, config, costs, training, interpreted)
        if file:
            write_text(file, found.model_dump_json())
    _known[key] = found
    return found


def _plain() -> dict[str, Any]:
    return {axis: RunConfig.model_fields[axis].default for axis in _FREE_AXES}


def _key(trace: Trace, config: RunConfig, training: Trace | None) -> str:
    """Hash what the bounds of a run depend on."""
    kept = config.model_dump(
        mode="json", exclude={*_FREE_AXES, "capacity", "admission", "profile", "shape"}
    )
    return digest(
        {
            "trace": trace.digest,
            "expert_bytes": trace.header.expert_bytes,
            "config": kept,
            "hardware": hardware_digest(config.profile, config.shape),
            "training": training.digest if training else None,
            "code": code(config.model_copy(update=_plain()), bounds=True),
            "frozen": choose("evict", config.evict).entry.frozen,
        }
    )


def _compute(
    trace: Trace,
    config: RunConfig,
    costs: CostCoefficients | None,
    training: Trace | None,
    interpreted: bool,
) -> Ends:
    keys = trace.header.num_layers * trace.header.num_experts

    def end(
        evict: str, residency: Residency = "cache", part: Trace = trace, **changes: Any
    ) -> Outcome:
        changed = {**config.model_dump(), **_plain(), "admission": "forced", "evict": evict}
        return replay(
            part,
            RunConfig.model_validate(changed | changes),
            training=training,
            costs=costs,
            residency=residency,
            interpreted=interpreted,
        )

    bypass = choose("evict", "belady:bypass=true").spelled
    best: Residency = "seen" if config.warmup else "cache"
    if choose("evict", config.evict).entry.frozen:
        best = "any"
    belady = end("belady", best)
    optimum = _bound(trace, end(bypass, best, admission="bypass"))
    roofline_s = None
    if costs is None:  # without a clock these two need no replay: all hits, and all misses
        accesses = int(belady.counters[..., ACCESSES].sum())
        all_resident = Bound(misses=0, hit_rate=1.0)
        no_cache = Bound(misses=accesses, hit_rate=0.0)
    else:
        all_resident = _bound(trace, end("lru", "all"))
        no_cache = _bound(trace, end("lru", "none"))
        transfers = optimum.misses
        if config.warmup:
            counted = slice_steps(trace, config.warmup)
            start = end(bypass, "any", counted, admission="bypass", warmup=0)
            transfers = _bound(counted, start).misses
        roofline_s = max(all_resident.total_s or 0.0, transfers * _transfer_s(trace, costs))
    return Ends(
        belady=_bound(trace, belady),
        belady_bypass=optimum,
        compulsory=_bound(trace, end("lru", capacity_slots=keys, scope="global")),
        all_resident=all_resident,
        no_cache=no_cache,
        roofline_s=roofline_s,
    )


def _transfer_s(trace: Trace, costs: CostCoefficients) -> float:
    return transfer_s(costs, float(trace.header.expert_bytes or 0))


def _bound(trace: Trace, outcome: Outcome) -> Bound:
    found = tally(outcome.counters.sum(axis=(0, 1)), None)
    if outcome.step_seconds is not None:
        found |= latency(trace, outcome.step_seconds, outcome.first_step, None).metrics
    return Bound.model_validate({name: found.get(name) for name in Bound.model_fields})


def _read(file: Path) -> Ends | None:
    """Bounds another process kept; None if there are none, or the file is damaged."""
    try:
        return Ends.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
