"""`specmd run`: play prompts or a trace through a live cache and measure it."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from specmd.cli import completion
from specmd.cli.options import (
    AGAIN,
    Device,
    Domain,
    Dtype,
    Layers,
    LinkKind,
    ModelName,
    Options,
    PromptFile,
    Threads,
    takes_options,
)
from specmd.errors import Exit, SpecmdError

if TYPE_CHECKING:
    from specmd.measurement.jobs import LiveJob
    from specmd.measurement.sources import Source

_TRACE = "With --trace: "


@takes_options(live=True)
def run(
    model: ModelName = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Follow a trace instead: random weights of true shapes (--shape).",
            autocompletion=completion.traces,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{_TRACE}model shape, or a .toml file; default its model's.",
            autocompletion=completion.shapes,
        ),
    ] = None,
    layers: Layers = None,
    tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help=f"{_TRACE}only the first N tokens.")
    ] = None,
    prompts: PromptFile = "builtin",
    domain: Domain = None,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens generated for a prompt.")
    ] = 64,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="B",
            min=1,
            help="Prompts or requests of a trace that run together; default 1, or as recorded.",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0, help="Of sampling; 0 decodes greedily.")
    ] = 0.8,
    prefill_chunk: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Tokens of a prefill chunk; default all at once."),
    ] = None,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help=f"{_TRACE}prefill chunks ride along with decodes."),
    ] = False,
    dtype: Dtype = None,
    experts: Annotated[
        Literal["host", "disk"],
        typer.Option(
            help="Where experts wait: host memory, or their checkpoint's files; see "
            "--host-capacity. With --trace: host memory, or a file made for the run (--scratch)."
        ),
    ] = "host",
    scratch: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=f"{_TRACE}where that file is made; default the system's."),
    ] = None,
    device: Device = None,
    link: LinkKind = "auto",
    throttle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RATE",
            help=f"Pace the link: 2GB/s, 2GB/s,20us, or that of a hardware profile.{AGAIN}",
        ),
    ] = None,
    prefill: Annotated[
        Literal["waves", "bypass", "double_buffer"],
        typer.Option(help="What steps wider than the cache do; see `specmd.offload`."),
    ] = "waves",
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Complete all transfers before each layer decides."),
    ] = False,
    pinned_budget: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Host memory that may be pinned, as 8GB.")
    ] = None,
    threads: Threads = None,
    repetitions: Annotated[
        int, typer.Option(metavar="N", min=1, help="Plays of the workload that count.")
    ] = 3,
    warmup_runs: Annotated[
        int, typer.Option(metavar="N", min=0, help="Plays before them that do not.")
    ] = 1,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality",
            help="Set answers to the prompts beside those of lossless policies: KL, perplexity, "
            "top-1, greedy match.",
        ),
    ] = False,
    timeline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the last play as a timeline for ui.perfetto.dev."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the results: a run file and its trace each."),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Run again what has a result in --out.")
    ] = False,
    *,
    options: Options,
) -> int:
    """Run a model behind a live expert cache and measure it.

    The model generates from prompts, or, with --trace, random weights of a model's true shapes
    follow recorded routing. Several values of an option make a grid, each run of it in a process of
    its own. With --out, `specmd simulate --validate DIR` compares a simulation with it.
    """
    from specmd.cli.progress import progress
    from specmd.cli.requests import deliver, grid_of, prepare
    from specmd.live.placement import find_device
    from specmd.live.room import free_bytes
    from specmd.measurement.jobs import LiveJob, run_jobs
    from specmd.measurement.settings import LiveSettings, parse_throttle
    from specmd.models.generation import Generation
    from specmd.models.load import quiet_hub
    from specmd.models.prompts import read_prompts
    from specmd.report.names import policy_name
    from specmd.runs.options import parse_bytes

    prepare(options)
    source: Source
    if trace is not None:
        if model is not None:
            raise SpecmdError("give a MODEL or --trace, not both")
        from specmd.measurement.sources import TraceSource

        source = TraceSource(
            str(trace),
            shape,
            layers=layers,
            tokens=tokens,
            prefill_chunk=prefill_chunk,
            batch=batch,
            mixed=mixed,
            dtype=dtype,
        )
    else:
        from specmd.measurement.sources import PromptSource

        given = {"shape": shape, "layers": layers, "tokens": tokens, "mixed": mixed or None}
        unfit = next((name for name, value in given.items() if value is not None), None)
        if unfit:
            raise SpecmdError(f"--{unfit} goes with --trace")
        generation = Generation(
            tuple(read_prompts(prompts, domain)),
            max_new_tokens=max_new_tokens,
            batch=batch or 1,
            temperature=temperature,
            seed=options.run.get("seed", [0])[0],
            prefill_chunk=prefill_chunk,
        )
        source = PromptSource(model or "tiny", generation, dtype, from_disk=experts == "disk")
        quiet_hub(bars=sys.stderr.isatty())
    on_disk = experts == "disk"
    jobs = [
        LiveJob(
            source,
            config,
            LiveSettings(
                device=device,
                link=link,
                throttle=parse_throttle(pace),
                prefill=prefill,
                deterministic=deterministic,
                pinned_budget=None if pinned_budget is None else parse_bytes(pinned_budget),
                compute_threads=threads,
                checkpoint=model if on_disk and trace is None else None,
                scratch=str(scratch or gettempdir()) if on_disk and trace is not None else None,
                warmup_runs=warmup_runs,
                quality=quality,
                repetitions=repetitions,
            ),
            training=None if options.training is None else str(options.training),
            bounds=not options.no_bounds,
            plugins=tuple(str(path) for path in options.plugin or ()),
            out=None if out is None else str(out),
            rerun=rerun,
            timeline=None if timeline is None else str(timeline),
            argv=tuple(sys.argv),
        )
        for pace in throttle or ["none"]
        for config in grid_of(options, {"shape": shape} if shape else None).expand(
            source.header(), free_bytes=lambda: free_bytes(find_device(link, device)[0])
        )
    ]
    _refuse(jobs, timeline)
    runs = []
    with progress("running") as report:
        report(0, len(jobs), "")
        for result in run_jobs(jobs, lambda done, total: report(done, total, "")):
            runs.append(result)
            report(len(runs), len(jobs), policy_name(result))
    deliver(runs, options)
    failed = [result for result in runs if result.status == "failed"]
    for result in failed:
        typer.echo(f"specmd: {policy_name(result)} failed: {result.reason}", err=True)
    if out is not None:
        typer.echo(f"specmd: {out}: {len(runs) - len(failed)} runs with their traces", err=True)
    return Exit.RUN_FAILED if failed else Exit.OK


def _refuse(jobs: list[LiveJob], timeline: Path | None) -> None:
    """Fail on what can be seen to be wrong before a model is loaded."""
    from specmd.measurement.jobs import refuse_job

    if timeline is not None and len(jobs) > 1:
        raise SpecmdError(f"--timeline is of one run, and these are {len(jobs)}")
    for job in jobs:
        refuse_job(job)
