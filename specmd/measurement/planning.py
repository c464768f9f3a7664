"""The live runs of an experiment: models on prompts, and traces followed by random weights.

A live run has fewer options than a simulated one. What says how a trace is composed belongs to its
workload, as does the seed, which draws the text of a model; a hardware profile is what the device
of the run is, and is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from specmd.errors import SpecmdError
from specmd.live.placement import find_device
from specmd.live.room import free_bytes
from specmd.measurement.jobs import LiveJob, refuse_job
from specmd.measurement.settings import LiveSettings, parse_throttle
from specmd.measurement.sources import PromptSource, Source, TraceSource
from specmd.models.generation import Generation
from specmd.models.prompts import read_prompts
from specmd.runs.declared import COMPOSED, OPTIONS
from specmd.runs.options import RunConfig, parse_bytes
from specmd.runs.resolve import Grid, make_grid
from specmd.sweep.experiment import Experiment

_OF_THE_WORKLOAD = (*COMPOSED, "seed", "shape")
_OF_THE_DEVICE = ("profile", "engine")


@dataclass(frozen=True)
class _Subject:
    """What is run live: a model, or a trace."""

    name: str
    make: Callable[..., Source]  # of the options of the workload
    settings: dict[str, Any]


def plan_live(
    experiment: Experiment,
    grids: Sequence[Grid],
    *,
    out: Path | None = None,
    again: bool = False,
    argv: Sequence[str] = (),
) -> list[LiveJob]:
    """List the live runs in order; raises SpecmdError for what no live run can be."""
    live = experiment.live
    jobs: dict[tuple[Any, ...], LiveJob] = {}
    for subject, grid in product(_subjects(experiment), grids):
        for (source, config), pace, tags in product(
            _runs(subject, grid, experiment), live.throttle, live.resources
        ):
            settings = LiveSettings(
                device=live.device,
                link=live.link,
                throttle=parse_throttle(pace),
                prefill=live.prefill,
                deterministic=live.deterministic,
                pinned_budget=parse_bytes(live.pinned_budget) if live.pinned_budget else None,
                compute_threads=live.threads,
                warmup_runs=live.warmup_runs,
                quality=live.quality,
                repetitions=live.repetitions,
                **subject.settings,
            )
            job = LiveJob(
                source,
                config,
                settings,
                training=str(experiment.training) if experiment.training else None,
                bounds=experiment.bounds,
                plugins=tuple(map(str, experiment.plugin)),
                out=str(out) if out else None,
                rerun=again,
                argv=tuple(argv),
                tags=tuple(sorted(tags.items())),
                keeps_failures=True,
            )
            refuse_job(job)
            jobs.setdefault((source, config, settings.model_dump_json(), job.tags), job)
    return list(jobs.values())


def _subjects(experiment: Experiment) -> Iterator[_Subject]:
    live = experiment.live
    on_disk = live.experts == "disk"
    if experiment.models:
        prompts = tuple(read_prompts(live.prompts, live.domain))
    for model in experiment.models:

        def prompted(model: str = model, **asked: Any) -> Source:
            unfit = [name for name in ("shape", "tokens", "mixed") if asked[name]]
            if unfit:
                raise SpecmdError(f"{unfit[0]} goes with a trace, and {model} is a model")
            generation = Generation(
                prompts,
                max_new_tokens=live.max_new_tokens,
                batch=asked["batch"] or 1,
                temperature=live.temperature,
                seed=asked["seed"],
                prefill_chunk=asked["prefill_chunk"],
            )
            return PromptSource(model, generation, live.dtype, from_disk=on_disk)

        yield _Subject(model, prompted, {"checkpoint": model} if on_disk else {})
    for path in experiment.follow:

        def followed(path: Path = path, seed: int = 0, **asked: Any) -> Source:
            return TraceSource(str(path), layers=live.layers, dtype=live.dtype, **asked)

        scratch = {"scratch": str(live.scratch or gettempdir())} if on_disk else {}
        yield _Subject(str(path), followed, scratch)


def _runs(
    subject: _Subject, grid: Grid, experiment: Experiment
) -> Iterator[tuple[Source, RunConfig]]:
    """Yield each workload of a subject with each configuration of a grid."""
    given = {name: getattr(grid, name) for name in grid.model_fields_set}
    for name, values in given.items():
        known = OPTIONS[name].live or name in (*_OF_THE_WORKLOAD, *_OF_THE_DEVICE)
        if not known and set(values) != {OPTIONS[name].default}:
            raise SpecmdError(f"a live run has no {name}={values[0]}: give it to a simulation")
    live, header = experiment.live, None

    def free() -> int:
        return free_bytes(find_device(live.link, live.device)[0])

    for chosen in product(*(getattr(grid, name) for name in _OF_THE_WORKLOAD)):
        asked = dict(zip(_OF_THE_WORKLOAD, chosen, strict=True))
        source = subject.make(**asked)
        header = header or source.header()
        policies = {name: values for name, values in given.items() if OPTIONS[name].live}
        shape = {"shape": asked["shape"]} if asked["shape"] else {}
        own = make_grid({**policies, **shape, "seed": asked["seed"]})
        for config in own.expand(header, free_bytes=free):
            if not any(rule.matches(config) for rule in experiment.exclude):
                yield source, config
