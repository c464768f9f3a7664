"""The best few compositions live on this machine, beside a simulation of those very runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from specmd.advice.answer import Answer
from specmd.advice.space import PARTS, Composition, composition
from specmd.advice.trials import Report
from specmd.errors import SpecmdError
from specmd.hardware.profile import load_profile
from specmd.measurement.jobs import LiveJob, run_jobs
from specmd.measurement.prediction import Prediction, predict, read_measured
from specmd.measurement.settings import LiveSettings, parse_throttle
from specmd.measurement.sources import TraceSource
from specmd.runs.resolve import make_grid
from specmd.trace import load

TOP, TOKENS, REPETITIONS = 3, 64, 2


@dataclass(frozen=True)
class Measured:
    """One composition: what was measured and what a simulation of it says; or why neither."""

    parts: Composition
    prediction: Prediction | None
    reason: str = ""


def measure(
    answer: Answer,
    trace: Path,
    *,
    layers: int | None = None,
    tokens: int | None = None,
    throttle: str | None = None,
    training: Path | None = None,
    plugins: Sequence[Path] = (),
    report: Report = lambda what, done, total: None,
) -> list[Measured]:
    """Run the best few of the first profile live, each in a process of its own.

    Random weights of the model's shapes follow the first tokens of the trace in a cache of the same
    share of the experts. The simulation is on the first profile: of this machine, best.

    Args:
        answer: whose ranking it is.
        trace: the file it was made from.
        layers: only the first so many MoE layers; None: all.
        tokens: only the first so many tokens.
        throttle: pace of the link, as of `specmd run`; None: as it is.
        training: trace that policies fitted beforehand are fitted on.
        plugins: files of policies.
        report: told what is waited for.

    """
    column = answer.columns[0]
    profile = load_profile(column.asked)
    source = TraceSource(
        str(trace),
        answer.question.options.get("shape"),
        layers=layers,
        tokens=tokens or TOKENS,
        batch=answer.question.options.get("batch"),
        prefill_chunk=answer.question.options.get("prefill_chunk"),
    )
    header = source.header()
    best = [parts for parts, _ in column.ranking[:TOP]]
    settings = LiveSettings(
        throttle=None if throttle is None else parse_throttle(throttle),
        repetitions=REPETITIONS,
    )
    with TemporaryDirectory(prefix="specmd-") as folder:
        jobs = [
            LiveJob(
                source,
                config,
                settings,
                training=None if training is None else str(training),
                bounds=False,
                plugins=tuple(map(str, plugins)),
                out=folder,
            )
            for parts in best
            for config in make_grid(_options(answer, parts)).expand(header)
        ]
        report("live runs, a process each", 0, len(jobs))
        failed: dict[Composition, str] = {}
        for done, run in enumerate(run_jobs(jobs), start=1):
            report("live runs, a process each", done, len(jobs))
            if run.status != "ok":
                failed[composition(run.config)] = run.reason
        if len(failed) == len(jobs):
            raise SpecmdError(f"no live run succeeded: {next(iter(failed.values()))}")
        learned = None if training is None else load(training)
        made = {
            composition(run.config): predict(run, part, profile, learned)
            for run, part in read_measured([Path(folder)])
        }
    return [Measured(parts, made.get(parts), failed.get(parts, "")) for parts in best]


def _options(answer: Answer, parts: Composition) -> dict[str, Any]:
    """Spell a composition in a cache of the same share of the experts."""
    share = f"{100 * answer.slots / answer.keys:.6f}%"
    return {
        **_named(parts),
        "capacity": share,
        "seed": answer.question.seed,
    }


def _named(parts: Composition) -> dict[str, str]:
    return dict(zip(PARTS, parts, strict=True))
