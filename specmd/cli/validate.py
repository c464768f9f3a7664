"""`specmd validate`: check a file without running anything with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from specmd.cli import completion
from specmd.errors import Exit, SpecmdError


def validate(
    kind: Annotated[
        Literal["trace", "profile", "config", "policy"],
        typer.Argument(metavar="KIND", help="What it is."),
    ],
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="The file to check; for a policy, its name will do as well.",
            autocompletion=completion.names_to_validate,
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of KIND instead.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.001,
            help="Most that one case of a policy's checks may compute; default 10.",
        ),
    ] = None,
) -> int:
    """Check a trace, profile or experiment, or a plug-in's policies."""
    if schema:
        return _print_schema(kind)
    if file is None:
        raise SpecmdError(f"validate {kind}: name the file to check")
    if kind == "policy":
        return _policies(file, time_limit)
    return _file(kind, Path(file))


def _file(kind: str, file: Path) -> int:
    if kind == "trace":
        from specmd.trace import load

        trace = load(file, verify=True)
        header = trace.header
        typer.echo(
            f"{file}: valid trace of {header.model}, {trace.num_tokens:,} tokens, "
            f"digest {trace.digest}"
        )
        return Exit.OK
    if kind == "profile":
        from specmd.hardware.profile import read_profile

        profile = read_profile(file)
        typer.echo(f"{file}: valid profile '{profile.name}', {profile.title}")
        for warning in profile.warnings():
            typer.echo(f"warning: {warning}", err=True)
        return Exit.OK
    return _config(file)


def _config(file: Path) -> int:
    """Expand the grid over each trace, as a sweep would, and count."""
    from specmd.measurement.planning import plan_live
    from specmd.policy.registry import add_plugin
    from specmd.sweep.experiment import read_experiment
    from specmd.sweep.sweep import plan
    from specmd.trace import load

    experiment = read_experiment(file)
    for path in experiment.plugin:
        add_plugin(path)
    if experiment.training is not None:
        load(experiment.training)
    runs = len(plan(experiment.traces, experiment.grid, exclude=experiment.exclude))
    live = len(plan_live(experiment, experiment.grid))
    said = f"{len(experiment.traces)} traces, {runs} runs"
    typer.echo(f"{file}: valid experiment, {said}" + (f", {live} live runs" if live else ""))
    return Exit.OK


def _print_schema(kind: str) -> int:
    import json

    from pydantic import BaseModel

    from specmd.hardware.profile import HardwareProfile
    from specmd.sweep.experiment import Experiment
    from specmd.trace import TraceHeader

    models: dict[str, type[BaseModel]] = {
        "trace": TraceHeader,
        "profile": HardwareProfile,
        "config": Experiment,
    }
    if kind not in models:
        raise SpecmdError("a policy is Python code and has no schema: see docs/plugins.md")
    schema = models[kind].model_json_schema(by_alias=True)
    typer.echo(json.dumps(schema, indent=1))
    return Exit.OK


def _policies(named: str, time_limit: float | None) -> int:
    """Run the conformance suite over a plug-in's policies, or over those of a name.

    What all of a file's policies have passed runs without checks from then on.
    """
    from specmd.conformance.apart import check_apart

    failed = 0
    for said in check_apart(named, limit_s=time_limit):
        who = said.subject or named
        if said.passed is None:
            typer.echo(f"specmd: {who}: {said.detail}", err=True)
            continue
        verdict = "ok  " if said.passed else "FAIL"
        detail = f": {said.detail}" if said.detail else ""
        typer.echo(f"{verdict} {who}: {said.name}{detail}")
        failed += not said.passed
    if failed:
        typer.echo(f"specmd: {named}: {failed} checks failed", err=True)
        return Exit.RUN_FAILED
    return Exit.OK
