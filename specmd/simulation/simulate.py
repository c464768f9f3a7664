"""Simulate: a trace and a configuration in, a `Run` out.

A run is replayed once through the residency core, with a clock if a hardware profile is given, and
what happened is turned into numbers: metrics, their breakdown by phase and layer, the regime, the
locality of the trace, the bounds, and the warnings that qualify them. All numbers made here are
`simulated`; a live engine writes the same record with `measured`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from specmd.errors import SpecmdError
from specmd.hardware.engines import load_engine
from specmd.hardware.profile import HardwareProfile, load_profile
from specmd.hardware.shape import load_shape
from specmd.policy.faults import told
from specmd.policy.registry import is_lossy, plugins_of
from specmd.runs.contract import (
    contract,
    label,
    recorded_config,
    trace_facts,
    unmet_need,
    without_numbers,
)
from specmd.runs.counters import (
    AccountingError,
    by_layer,
    by_phase,
    check,
    check_host,
    tally,
    tally_host,
    tally_masses,
)
from specmd.runs.declared import COMPOSED, takes_options
from specmd.runs.identity import provenance, run_id
from specmd.runs.latency import latency, unfinished_prompt
from specmd.runs.memory import device_shortage, memory
from specmd.runs.metrics import METRICS
from specmd.runs.options import RunConfig
from specmd.runs.regime import cautions, regime
from specmd.runs.resolve import make_grid, with_sizes
from specmd.runs.run import Metrics, Run, Status
from specmd.simulation.bounds import bounds as bounds_of
from specmd.simulation.bounds import over_roofline
from specmd.simulation.costs import CostCoefficients, coefficients, cost_warnings
from specmd.simulation.detailing import detail
from specmd.simulation.prefill import mean_ttft_estimate
from specmd.simulation.replay import replay
from specmd.trace import Locality, Trace, compose, load, locality

_prepared: WeakKeyDictionary[Trace, dict[tuple[Any, ...], Trace]] = WeakKeyDictionary()
_localities: WeakKeyDictionary[Trace, Locality] = WeakKeyDictionary()


@takes_options()
def simulate(
    trace: Trace | str | PathLike[str],
    *,
    bounds: bool = True,
    training: Trace | str | PathLike[str] | None = None,
    interpreted: bool = False,
    **options: Any,
) -> Run:
    """Simulate one expert cache over a trace.

    Args:
        trace: a trace, or the path of one.
        **options: spelled out here.
        bounds: whether to run the bounds too (see specmd.simulation.bounds).
        training: the trace that policies fitted beforehand are fitted on, or its path.
        interpreted: run the core as Python, to debug it or a policy.

    Raises:
        SpecmdError: bad input, or a policy whose needs the trace does not meet.

    """
    several = [name for name, value in options.items() if isinstance(value, list | tuple)]
    if several:
        raise SpecmdError(f"{several[0]}: give one value; a grid of runs is a sweep")
    loaded, name = (trace, "") if isinstance(trace, Trace) else (load(trace), Path(trace).stem)
    learned = training if isinstance(training, Trace | None) else load(training)
    (config,) = make_grid(options).expand(loaded, training=learned)
    return run_config(
        loaded, config, name=name, training=learned, bounds=bounds, interpreted=interpreted
    )


def run_config(
    trace: Trace,
    config: RunConfig,
    *,
    name: str = "",
    training: Trace | None = None,
    bounds: bool = True,
    interpreted: bool = False,
    keep_bounds_in: Path | None = None,
    most_slots: int = 0,
    argv: Sequence[str] | None = None,
) -> Run:
    """Run one expanded configuration (see specmd.runs.resolve); raises SpecmdError.

    `name` is what the trace is called in the result. `keep_bounds_in` is a folder in which bounds
    are shared with other processes, `most_slots` the largest capacity they will be asked for.
    """
    unmet = unmet_need(trace, config, training)
    if unmet:
        raise SpecmdError(unmet)
    whole = trace
    trace = prepared(whole, config)
    layer_bytes = trace.header.layer_bytes
    profile, costs, warnings = hardware(trace, config)
    outcome = replay(trace, config, training=training, costs=costs, interpreted=interpreted)
    check(outcome.counters)
    if not config.warmup:
        check_host(outcome.counters, outcome.host_counters)

    facts = trace_facts(whole, trace, name, outcome.first_step)
    metrics: Metrics = dict.fromkeys(METRICS)
    low = outcome.low_share
    metrics |= tally(outcome.counters.sum(axis=0), layer_bytes, facts.counted_tokens, low)
    metrics |= tally_masses(outcome.masses, lossy=is_lossy(config))
    metrics["total_predict_s"] = outcome.predict_s
    if outcome.foreseen is not None:
        metrics |= outcome.foreseen.metrics()
    if outcome.host_counters is not None:
        host_rows = outcome.host_counters.sum(axis=0)
        metrics |= tally_host(host_rows, layer_bytes, facts.counted_tokens)
    estimate_s = None
    unfinished = unfinished_prompt(whole, trace.num_tokens)
    if outcome.step_seconds is not None and costs is not None:
        timed = latency(
            trace,
            outcome.step_seconds,
            outcome.first_step,
            outcome.link_busy_s,
            outcome.disk_busy_s,
            unfinished=unfinished,
        )
        metrics |= timed.metrics
        warnings += timed.warnings
        estimate_s = mean_ttft_estimate(trace, costs, disk=config.host_slots is not None)
    found = _locality(trace)
    needs = memory(trace, config, training)
    if profile is not None and needs is not None:
        shortage = device_shortage(profile, config.capacity_slots, needs)
        warnings += [shortage] if shortage else []
    phases = by_phase(outcome.counters, layer_bytes, low, outcome.masses)
    ends = None
    if bounds:
        ends = bounds_of(
            trace,
            config,
            metrics,
            costs=costs,
            training=training,
            interpreted=interpreted,
            keep_in=keep_bounds_in,
            most_slots=most_slots,
        )
        metrics["over_roofline"] = over_roofline(metrics, ends)
    made = Run(
        id=run_id(whole, config, bounds=bounds, training=training),
        label=label(profile),
        config=recorded_config(config, profile),
        trace=facts,
        metrics=metrics,
        policy_metrics=outcome.published,
        per_phase=phases,
        per_layer=by_layer(outcome.counters, layer_bytes, low, outcome.masses),
        regime=regime(found, trace.header, config, training),
        memory=needs,
        locality=found.model_dump(mode="json"),
        bounds=ends,
        ttft_estimate_s=estimate_s,
        contract=contract(config),
        decision_digest=outcome.decision_digest,
        host_digest=outcome.host_digest,
        warnings=cautions(trace, config, facts, found, metrics, phases.get("decode")) + warnings,
        provenance=provenance(config, whole.digest, argv),
    )
    return made.with_details(detail(trace, outcome, unfinished=unfinished))


def try_config(
    trace: Trace,
    config: RunConfig,
    *,
    name: str = "",
    training: Trace | None = None,
    bounds: bool = True,
    interpreted: bool = False,
    keep_bounds_in: Path | None = None,
    most_slots: int = 0,
    argv: Sequence[str] | None = None,
) -> Run:
    """Run one configuration; what cannot be run is a `skipped` or `failed` Run with its reason.

    Skipped: the trace lacks what a policy declared to need. Failed: any other SpecmdError, and any
    exception out of a policy.
    """
    unmet = unmet_need(trace, config, training)
    status: Status = "skipped"
    if not unmet:
        try:
            return run_config(
                trace,
                config,
                name=name,
                training=training,
                bounds=bounds,
                interpreted=interpreted,
                keep_bounds_in=keep_bounds_in,
                most_slots=most_slots,
                argv=argv,
            )
        except SpecmdError as error:
            status, unmet = "failed", str(error)
        except AccountingError as error:
            plugins = plugins_of(config)
            if not plugins:
                raise  # a bug of ours is not a result
            status, unmet = "failed", f"{error}; it ran the plug-in {', '.join(plugins)}"
        except Exception as error:
            status, unmet = "failed", told(error)
    return without_numbers(
        trace, config, status, unmet, name=name, training=training, bounds=bounds, argv=argv
    )


def prepared(trace: Trace, config: RunConfig) -> Trace:
    """Return the trace as it is run: cut, chunked and batched, knowing how large an expert is.

    See `specmd.trace.compose` for the order; raises SpecmdError where it cannot be batched so.
    """
    sized = with_sizes(trace.header, config.shape)
    asked = {name: getattr(config, name) for name in COMPOSED}
    key = (sized.expert_bytes, *asked.values())
    made = _prepared.setdefault(trace, {})
    if key not in made:
        part = compose(trace, **asked)
        if sized is not trace.header:
            part = dataclasses.replace(part, header=with_sizes(part.header, config.shape))
        if part is trace:
            return trace  # kept for as long as itself, it would be kept for ever
        made[key] = part
    return made[key]


def hardware(
    trace: Trace, config: RunConfig
) -> tuple[HardwareProfile | None, CostCoefficients | None, list[str]]:
    """Return a run's profile, what things cost on it, and what to know of that; no clock: None."""
    expert_bytes = trace.header.expert_bytes
    if config.profile is None:
        return None, None, []
    if expert_bytes is None:
        raise SpecmdError(
            "a timed simulation needs to know how large an expert is: import the trace with "
            "--expert-bytes, or name its model's shape (--shape)"
        )
    profile = load_profile(config.profile)
    shape = load_shape(config.shape) if config.shape else None
    engine = load_engine(config.engine)
    costs = coefficients(profile, shape, expert_bytes, engine)
    warnings = cost_warnings(profile, shape, expert_bytes, engine)
    return profile, costs, warnings


def _locality(trace: Trace) -> Locality:
    if trace not in _localities:
        _localities[trace] = locality(trace)
    return _localities[trace]
