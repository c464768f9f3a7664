"""Measure: a workload played through a live cache, several times, made into a `Run`.

The record is that of a simulation, `measured` instead of `simulated`: the same metrics by the same
formulas (`specmd.runs.counters`, `specmd.runs.latency`), from the live cache's own counters and the
clock on the wall. Every play starts with an empty cache, so that it can be compared with the others
and with a simulation of its trace; the first ones, in which kernels compile and memory is touched
for the first time, do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from specmd.errors import SpecmdError
from specmd.hardware import machine
from specmd.live import Offload, Report, offload
from specmd.live.commands import CANCEL, MISSED, PREFETCH, PROMOTE
from specmd.measurement.doubts import doubts
from specmd.measurement.identity import measured_id
from specmd.measurement.quality import Answers, quality
from specmd.measurement.settings import LiveSettings
from specmd.measurement.workload import Workload
from specmd.policy.registry import AXES, choose, is_lossy
from specmd.runs.contract import contract, recorded_config, trace_facts, unmet_need
from specmd.runs.counters import by_layer, by_phase, check, tally, tally_host, tally_masses
from specmd.runs.declared import COMPOSED, OPTIONS
from specmd.runs.details import Details
from specmd.runs.foresight import Foreseen
from specmd.runs.identity import provenance
from specmd.runs.latency import latency
from specmd.runs.metrics import METRICS, PARTS
from specmd.runs.options import RunConfig
from specmd.runs.policy_metrics import Published, flat
from specmd.runs.regime import cautions, regime
from specmd.runs.run import Measurement, Metrics, Repeated, Run
from specmd.simulation.bounds import bounds as bounds_of
from specmd.simulation.detailing import detail
from specmd.simulation.loads import require_unseen
from specmd.simulation.walk import Outcome
from specmd.trace import Trace, locality

_STALLS = [column for column, part in enumerate(PARTS.values()) if part.is_stall]
_OF_THE_WORKLOAD = (*COMPOSED, "profile", "shape")


@dataclass(frozen=True)
class Measured:
    """A measured run and the trace of its routing, which a simulation can be asked about."""

    run: Run
    trace: Trace


@dataclass(frozen=True)
class _Play:
    """One counted play: counters (2, L, NUM_COUNTERS), step seconds (steps, PARTS), and so on."""

    counters: npt.NDArray[np.int64]
    commands: npt.NDArray[np.int64]  # (NUM_COMMANDS, keys), see `specmd.live.commands`
    step_seconds: npt.NDArray[np.float64]
    digest: str
    moved_bytes: int
    busy_s: float
    routing_s: float
    given_s: float
    host_counters: npt.NDArray[np.int64] | None
    host_digest: str
    read_bytes: int
    disk_busy_s: float
    published: Published
    masses: npt.NDArray[np.float64] | None
    low_share: float
    trace: Trace | None
    foreseen: Foreseen | None

    @property
    def total_s(self) -> float:
        return float(self.step_seconds.sum())

    @property
    def core_share(self) -> float:
        """Of a core that the computing thread was given while it did not wait for copies."""
        own_s = self.total_s - float(self.step_seconds[:, _STALLS].sum())
        return min(1.0, self.given_s / own_s)


def measure(
    workload: Workload,
    config: RunConfig,
    settings: LiveSettings,
    *,
    training: Trace | None = None,
    bounds: bool = True,
    timeline: Any = None,
    argv: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Play a workload through a live cache and measure it.

    Args:
        workload: what to run.
        config: policies and capacity, as of a simulation; see specmd.runs.resolve.
        settings: device, link, pace, repetitions.
        training: the trace that policies fitted beforehand are fitted on.
        bounds: whether to put Belady and the other bounds beside the result.
        timeline: takes down the last play, a `specmd.runs.timeline.Timeline`, or None.
        argv: command line, for the record.
        progress: called with (plays done, plays).

    Raises:
        SpecmdError: what cannot be run, see `specmd.offload`.

    """
    refuse(config)
    unmet = "" if workload.trace is None else unmet_need(workload.trace, config, training)
    if unmet:
        raise SpecmdError(unmet)
    if workload.trace is not None:
        require_unseen(config, workload.trace, training)
    own = _lossless_answers(workload, config, settings, training)
    plays: list[_Play] = []
    total = settings.warmup_runs + settings.repetitions
    with _enter(workload, config, settings, training, timeline) as cache:
        before = cache.report()
        for number in range(total):
            if progress is not None:
                progress(number, total)
            cache.restart()
            if timeline is not None:
                timeline.restart()
            start = cache.report()
            began_s = time.thread_time()
            workload.play()
            given_s = time.thread_time() - began_s
            if number >= settings.warmup_runs:
                plays.append(_played(cache, start, given_s, keep_trace=not plays))
        if progress is not None:
            progress(total, total)
        report = cache.report()
        heard = None if own is None else _answers(cache, workload)
        trace = plays[0].trace
        assert trace is not None
        facts_of_device = device_facts(cache.device)
        threads = torch.get_num_threads()
    middle = sorted(plays, key=lambda play: play.total_s)[(len(plays) - 1) // 2]
    metrics, warnings, timed = _metrics(trace, plays, middle, lossy=is_lossy(config))
    if own is not None and heard is not None:
        metrics |= quality(own, heard)
    moved = report.moved_bytes - before.moved_bytes
    busy_s = report.busy_s - before.busy_s
    found = locality(trace)
    facts = trace_facts(trace, trace, workload.name or trace.header.model, 0)
    told = middle.low_share, middle.masses
    phases = by_phase(middle.counters, trace.header.layer_bytes, *told)
    paced = settings.throttle
    measurement = Measurement(
        device=str(facts_of_device["name"]),
        device_facts=facts_of_device,
        link="cpu" if report.link == "cpu" else "accelerator",
        throttle_bytes_per_s=None if paced is None else paced[0],
        throttle_latency_s=None if paced is None else paced[1],
        deterministic=settings.deterministic,
        prefill=settings.prefill,
        chunk_bytes=settings.chunk_bytes,
        compute_threads=threads,
        workload=dict(workload.facts),
        warmup_runs=settings.warmup_runs,
        repetitions=settings.repetitions,
        spread={name: _spread(values) for name, values in timed.items()},
        decision_digests=list(dict.fromkeys(play.digest for play in plays)),
        link_bytes_per_s=moved / busy_s if busy_s > 0 else None,
        moved_bytes=middle.moved_bytes,
        disk=report.disk,
        read_bytes=middle.read_bytes,
        disk_bytes_per_s=middle.read_bytes / middle.disk_busy_s if middle.disk_busy_s else None,
        store_bytes=report.store_bytes,
        pinned_share=report.pinned_share,
        pin_failure=report.pin_failure,
        slot_bytes=report.slot_bytes,
        dense_bytes=report.dense_bytes,
        peak_device_bytes=report.peak_device_bytes,
        core_share=statistics.median(play.core_share for play in plays)
        if report.link == "cpu"
        else None,
        routing_share=middle.routing_s / middle.total_s if middle.total_s > 0 else None,
    )
    run = Run(
        id=measured_id(workload, config, settings, training=training, bounds=bounds),
        source="measured",
        label=label(measurement),
        config=recorded_config(config, None),
        trace=facts,
        metrics=metrics,
        policy_metrics=middle.published,
        per_phase=phases,
        per_layer=by_layer(middle.counters, trace.header.layer_bytes, *told),
        regime=regime(found, trace.header, config, training),
        locality=found.model_dump(mode="json"),
        bounds=bounds_of(trace, config, metrics, costs=None, training=training, interpreted=False)
        if bounds
        else None,
        measurement=measurement,
        contract=contract(config),
        decision_digest=middle.digest,
        host_digest=middle.host_digest,
        warnings=[
            *cautions(trace, config, facts, found, metrics, phases.get("decode")),
            *warnings,
            *doubts(plays, report, paced),
        ],
        provenance=provenance(config, trace.digest, argv),
    )
    return Measured(run.with_details(_details(trace, middle)), trace)


def _lossless_answers(
    workload: Workload, config: RunConfig, settings: LiveSettings, training: Trace | None
) -> Answers | None:
    """Ask the model under the same policies but for the lossy ones; None unless wanted."""
    if not settings.quality:
        return None
    lossy = [axis for axis in AXES if choose(axis, getattr(config, axis)).entry.lossy]
    lossless = config.model_copy(update={axis: OPTIONS[axis].default for axis in lossy})
    with _enter(workload, lossless, settings, training, None) as cache:
        return _answers(cache, workload)


def _answers(cache: Offload, workload: Workload) -> Answers:
    cache.restart()
    return workload.answers()


def _details(trace: Trace, play: _Play) -> Details:
    """Say what a play did for each request and each expert."""
    outcome = Outcome(
        counters=play.counters,
        decision_digest=play.digest,
        step_seconds=play.step_seconds,
        first_step=0,
        link_busy_s=play.busy_s,
        missed=play.commands[[*MISSED]].sum(axis=0),
        late=play.commands[PROMOTE],
        ahead=play.commands[PREFETCH] - play.commands[CANCEL],
    )
    return detail(trace, outcome)


def refuse(config: RunConfig) -> None:
    """Raise SpecmdError for what a simulation can do and a live run cannot."""
    for option in OPTIONS.values():
        asked = getattr(config, option.name)
        if not option.live and option.name not in _OF_THE_WORKLOAD and asked != option.default:
            raise SpecmdError(f"a live run has no {option.name}={asked}: simulate it")


def label(measurement: Measurement) -> str:
    """Caption measured numbers: link and device."""
    link = f"{measurement.link} link"
    if measurement.throttle_bytes_per_s is not None:
        link += f" at {measurement.throttle_bytes_per_s / 1e9:.3g} GB/s"
    return f"measured ({measurement.device}, {link})"


def _enter(
    workload: Workload,
    config: RunConfig,
    settings: LiveSettings,
    training: Trace | None,
    timeline: Any,
) -> Offload:
    asked = {name: getattr(config, name) for name, option in OPTIONS.items() if option.live}
    return offload(
        workload.model,
        **asked | {"capacity": config.capacity_slots, "host_capacity": config.host_slots},
        throttle=settings.throttle,
        deterministic=settings.deterministic,
        training=training,
        log_routing=True,
        prefill=settings.prefill,
        timeline=timeline,
        **settings.placement(),
        **workload.offload_options(settings, config.capacity_slots),
    )


def _played(cache: Offload, start: Report, given_s: float, *, keep_trace: bool) -> _Play:
    host_digest = cache.host_digest  # before the report: it may wait for transfers to end
    end = cache.report()
    play = _Play(
        counters=cache.final_counters,
        commands=cache.commands_by_key,
        step_seconds=cache.step_seconds,
        digest=cache.decision_digest,
        moved_bytes=end.moved_bytes - start.moved_bytes,
        busy_s=end.busy_s - start.busy_s,
        routing_s=end.routing_s,
        given_s=given_s,
        host_counters=cache.host_counters,
        host_digest=host_digest,
        read_bytes=end.read_bytes - start.read_bytes,
        disk_busy_s=end.disk_busy_s - start.disk_busy_s,
        published=cache.policy_metrics,
        masses=cache.masses,
        low_share=cache.low_share,
        trace=cache.trace if keep_trace else None,
        foreseen=end.foreseen,
    )
    check(play.counters)
    return play


def _metrics(
    trace: Trace, plays: Sequence[_Play], middle: _Play, *, lossy: bool
) -> tuple[Metrics, list[str], dict[str, list[float]]]:
    """Return the metrics of the middle play, warnings, and time metrics of all plays."""
    if len(middle.step_seconds) != trace.num_steps:
        raise SpecmdError(
            f"{len(middle.step_seconds)} passes were timed, but {trace.num_steps} were logged: "
            "this way of running the model cannot be measured"
        )
    metrics: Metrics = dict.fromkeys(METRICS)
    counted, sizes = middle.counters.sum(axis=0), trace.header.layer_bytes
    metrics |= tally(counted, sizes, trace.num_tokens, middle.low_share)
    metrics |= tally_masses(middle.masses, lossy=lossy)
    metrics |= _host(trace, middle)
    if middle.foreseen is not None:
        metrics |= middle.foreseen.metrics()
    timed: dict[str, list[float]] = {}
    warnings: list[str] = []
    for play in plays:
        tiered = play.host_counters is not None
        disk_s = play.disk_busy_s if tiered else None
        found = latency(trace, play.step_seconds, 0, play.busy_s, disk_s)
        counted = tally(play.counters.sum(axis=0), trace.header.layer_bytes) | _host(trace, play)
        rates = ("hit_rate", "late_rate", *(("host_hit_rate",) if tiered else ()))
        several = found.metrics | {name: counted[name] for name in rates} | flat(play.published)
        for name, value in several.items():
            if value is not None:
                timed.setdefault(name, []).append(float(value))
        if play is middle:
            metrics |= found.metrics
            warnings = found.warnings
    return metrics, warnings, timed


def _host(trace: Trace, play: _Play) -> Metrics:
    """Metrics of the host tier; none without one."""
    if play.host_counters is None:
        return {}
    rows = play.host_counters.sum(axis=0)
    return tally_host(rows, trace.header.layer_bytes, trace.num_tokens)


def _spread(values: Sequence[float]) -> Repeated:
    return Repeated(
        values=list(values),
        mean=statistics.fmean(values),
        median=statistics.median(values),
        stdev=statistics.stdev(values) if len(values) > 1 else 0.0,
        low=min(values),
        high=max(values),
    )


def device_facts(device: torch.device) -> dict[str, Any]:
    """Name and facts of the device: by NVML where it is NVIDIA's, else what torch says."""
    host = {"processor": machine.processor(), "cores": machine.cores()}
    if device.type == "cpu":
        return {"name": host["processor"], **host}
    facts: dict[str, Any] = {"name": str(device), "type": device.type}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"name": properties.name}
        facts |= machine.gpu_of_uuid(str(getattr(properties, "uuid", "")))
    return facts | host
