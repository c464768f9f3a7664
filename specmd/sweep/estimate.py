"""How long a sweep will take: from the runs that are there already, or from a short probe.

A run costs what serving its accesses costs, and bounds are made once for all policies beside them.
Results say how long their making took on the machine that made them, so a folder that holds some is
the best source. Where there is none, the first run is made twice on a prefix of the trace: once for
what is compiled and found out only once, and once, a token longer, for the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specmd.runs.options import RunConfig
from specmd.runs.run import Run
from specmd.simulation.simulate import try_config
from specmd.sweep.jobs import MADE_IN_S, Job, existing
from specmd.trace import Trace, load

PROBED_ACCESSES = 400_000


@dataclass(frozen=True)
class Estimate:
    """Seconds for so many accesses, and how they were come by; None: too few to ask."""

    seconds: float | None
    basis: str
    accesses: int


def estimate(
    jobs: Sequence[Job], out: Path | None, *, training: str | None, bounds: bool, workers: int
) -> Estimate:
    """Estimate the time for those jobs that have no result yet."""
    kept = [found for job in jobs if out and (found := existing(out, job.run_id, "none"))]
    there = {run.id for run in kept}
    todo = [job for job in jobs if job.run_id not in there]
    workers = max(1, min(workers, len(todo)))
    traces = {path: load(path) for path in {job.trace for job in todo}}
    accesses = [_accesses(traces[job.trace], job.config.tokens) for job in todo]
    rates = [_rate(run) for run in kept if run.provenance.get(MADE_IN_S)]
    total = sum(accesses)
    if total < PROBED_ACCESSES:
        return Estimate(None, f"{total:,} accesses", total)
    if rates:
        mean_s = statistics.fmean(rates)
        basis = f"{mean_s * 1e9:.3g} ns an access in {len(rates)} runs that are there"
        return Estimate(mean_s * total / workers, basis, total)
    trace = traces[todo[0].trace]
    learned = load(training) if training else None
    run_s, length = _probe(trace, todo[0], learned, bounds=False)
    basis = f"{run_s * 1e9:.3g} ns an access of {todo[0].config.evict} over {length} tokens"
    total_s = run_s * total
    if bounds:
        both_s, _ = _probe(trace, todo[0], learned, bounds=True)
        bounds_s = max(0.0, both_s - run_s)
        distinct = {
            (job.bounds, job.config.profile): n for job, n in zip(todo, accesses, strict=True)
        }
        total_s += bounds_s * sum(distinct.values())
        basis += f", {bounds_s * 1e9:.3g} ns for the bounds of each of {len(distinct)} cells"
    return Estimate(total_s / workers, f"{basis}: probed just now", total)


def _accesses(trace: Trace, tokens: int | None) -> int:
    share = min(1.0, (tokens or trace.num_tokens) / max(1, trace.num_tokens))
    return max(1, int(trace.expert_ids.size * share))


def _rate(run: Run) -> float:
    facts = run.trace
    accesses = facts.tokens * facts.num_layers * facts.top_k
    return float(run.provenance[MADE_IN_S]) / max(1, accesses)


def _probe(trace: Trace, job: Job, training: Trace | None, *, bounds: bool) -> tuple[float, int]:
    """Time a job over a prefix of its trace; returns seconds an access, and tokens."""
    whole = min(job.config.tokens or trace.num_tokens, trace.num_tokens)
    per_token = max(1, trace.expert_ids.size // max(1, trace.num_tokens))
    length = max(1, min(whole - 1, PROBED_ACCESSES // per_token))

    def make(tokens: int) -> float:
        config: RunConfig = job.config.model_copy(update={"tokens": tokens})
        started = time.perf_counter()
        try_config(trace, config, training=training, bounds=bounds)
        return time.perf_counter() - started

    make(length)
    taken_s = make(length + 1) if length < whole else make(length)
    return taken_s / (length * per_token), length
