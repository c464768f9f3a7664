"""Predicted against measured: a simulation of the very runs that were measured.

A measured run comes with the trace of its routing. Simulated on a profile of the machine, with the
run's own policies, capacity and pace of the link, it should take as long and decide alike. How far
it is off, over many runs, says how far a simulation may be trusted.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specmd.errors import SpecmdError
from specmd.hardware.engines import load_engine
from specmd.hardware.profile import Figure, HardwareProfile
from specmd.hardware.shape import load_shape
from specmd.runs.counters import tally, tally_host
from specmd.runs.latency import latency
from specmd.runs.run import Metrics, Run, read_run
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import replay
from specmd.trace import Trace, load

TIMES = ("ttft_s", "tpot_s")
RATES = ("hit_rate", "late_rate")


@dataclass(frozen=True)
class Prediction:
    """One measured run, and what a simulation of it says.

    Attributes:
        run: as measured.
        predicted: metrics of the simulation, by name.
        same_decisions: whether a replay of its trace makes the decisions of the live run; None for
            a run whose decisions depend on timing.
        reason: why there is no prediction, "" if there is one.

    """

    run: Run
    predicted: Metrics
    same_decisions: bool | None
    reason: str = ""

    def error(self, name: str) -> float | None:
        """Predicted over measured, less 1; None where either is unknown."""
        measured, predicted = self.run.metrics.get(name), self.predicted.get(name)
        if not measured or predicted is None:
            return None
        return float(predicted / measured - 1)

    def difference(self, name: str) -> float | None:
        """Predicted less measured; None where either is unknown."""
        measured, predicted = self.run.metrics.get(name), self.predicted.get(name)
        return None if measured is None or predicted is None else float(predicted - measured)

    def record(self) -> dict[str, Any]:
        """Return it as one flat row."""
        config, measurement = self.run.config, self.run.measurement
        row: dict[str, Any] = {
            "id": self.run.id,
            "trace": self.run.trace.name,
            "evict": config.evict,
            "prefetch": config.prefetch,
            "schedule": config.schedule,
            "miss": config.miss,
            "capacity_slots": config.capacity_slots,
            "throttle_bytes_per_s": measurement.throttle_bytes_per_s if measurement else None,
        }
        for name in (*TIMES, *RATES):
            row[f"{name}_measured"] = self.run.metrics.get(name)
            row[f"{name}_predicted"] = self.predicted.get(name)
        for name in TIMES:
            row[f"{name}_error"] = self.error(name)
        if config.host_slots is not None:
            row |= {"host_slots": config.host_slots, "host_evict": config.host_evict}
            for name in ("host_hit_rate", "tpot_disk_stall_s"):
                row[f"{name}_measured"] = self.run.metrics.get(name)
                row[f"{name}_predicted"] = self.predicted.get(name)
        return row | {"same_decisions": self.same_decisions, "reason": self.reason}


@dataclass(frozen=True)
class Agreement:
    """How well the predictions of one metric agree with what was measured.

    Attributes:
        runs: with both numbers.
        median_error: of the absolute relative errors.
        largest_error: the worst of them.
        rank_correlation: Spearman's, over all runs; None for fewer than three.

    """

    runs: int
    median_error: float
    largest_error: float
    rank_correlation: float | None


def read_measured(paths: Sequence[Path]) -> list[tuple[Run, Trace]]:
    """Read measured runs with their traces: run files, or folders of them.

    Raises:
        SpecmdError: there is none, a run is simulated or failed, or its trace is not beside it.

    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = []
    for file in files:
        run = read_run(file)
        if run.source != "measured":
            raise SpecmdError(f"{file}: a simulated run; give runs that `specmd run --out` wrote")
        if run.status != "ok":
            continue
        trace = file.with_suffix(".npz")
        if not trace.is_file():
            raise SpecmdError(f"{file}: its trace {trace.name} is not beside it")
        found.append((run, load(trace)))
    if not found:
        raise SpecmdError(f"{', '.join(map(str, paths))}: no measured run there")
    return found


def predict(
    run: Run, trace: Trace, profile: HardwareProfile, training: Trace | None = None
) -> Prediction:
    """Simulate a measured run on a profile of the machine it was measured on."""
    measurement = run.measurement
    if measurement is None:
        raise SpecmdError(f"{run.id}: a measured run without its measurement")
    if measurement.prefill != "waves":
        reason = f"prefill {measurement.prefill} is not simulated"
        return Prediction(run, {}, None, reason)
    expert_bytes = trace.header.expert_bytes
    if expert_bytes is None:
        return Prediction(run, {}, None, "the trace does not say how large an expert is")
    if measurement.deterministic:
        decided = replay(trace, run.config, training=training)
        same = (decided.decision_digest, decided.host_digest) == (
            run.decision_digest,
            run.host_digest,
        )
        return Prediction(run, {}, same, "deterministic: decisions are compared, not times")
    if run.config.host_slots is not None and profile.ssd is None:
        return Prediction(run, {}, None, f"{profile.name} knows no disk: calibrate with --disk")
    paced = pace(profile, measurement.throttle, measurement.chunk_bytes, expert_bytes)
    shape = load_shape(run.config.shape) if run.config.shape else None
    costs = coefficients(paced, shape, expert_bytes, load_engine("eager"))
    outcome = replay(trace, run.config, training=training, costs=costs)
    assert outcome.step_seconds is not None
    rows = outcome.counters.sum(axis=0)
    predicted: Metrics = tally(rows, trace.header.layer_bytes, trace.num_tokens)
    if outcome.host_counters is not None:
        host_rows = outcome.host_counters.sum(axis=0)
        predicted |= tally_host(host_rows, trace.header.layer_bytes, trace.num_tokens)
    busy_s = outcome.link_busy_s, outcome.disk_busy_s
    predicted |= latency(trace, outcome.step_seconds, 0, *busy_s).metrics
    return Prediction(run, predicted, None)


def pace(
    profile: HardwareProfile,
    throttle: tuple[float, float] | None,
    chunk_bytes: float,
    expert_bytes: int,
) -> HardwareProfile:
    """Give a profile's link the pace and the chunks of a run: the slower of throttle and link."""
    link = profile.host_link
    said = "as the run was set up"
    chunk = Figure(value=chunk_bytes, unit="B", kind="design", source=said)
    changed: dict[str, Any] = {"chunk_bytes": chunk}
    if throttle is not None:
        rate, latency_s = throttle
        own_s = link.latency_s.value + expert_bytes / link.bytes_per_s.value
        if latency_s + expert_bytes / rate > own_s:
            changed["bytes_per_s"] = link.bytes_per_s.model_copy(update={"value": rate})
            changed["latency_s"] = link.latency_s.model_copy(update={"value": latency_s})
    return profile.model_copy(update={"host_link": link.model_copy(update=changed)})


def agreement(predictions: Sequence[Prediction], name: str) -> Agreement | None:
    """Compare one metric over all runs; None where no run has both numbers."""
    pairs = [
        (float(measured), float(predicted))
        for each in predictions
        if (measured := each.run.metrics.get(name)) and (predicted := each.predicted.get(name))
    ]
    if not pairs:
        return None
    errors = [abs(predicted / measured - 1) for measured, predicted in pairs]
    return Agreement(
        runs=len(pairs),
        median_error=statistics.median(errors),
        largest_error=max(errors),
        rank_correlation=_spearman(pairs) if len(pairs) >= 3 else None,
    )


def _spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    import pandas

    ranks = pandas.DataFrame(pairs).rank()
    found = ranks[0].corr(ranks[1])
    return None if np.isnan(found) else float(found)
