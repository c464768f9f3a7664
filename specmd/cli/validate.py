"""`specmd validate`: check a file without running anything with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from specmd.errors import Exit, SpecmdError


def validate(
    kind: Annotated[
        Literal["trace", "profile", "config", "policy"],
        typer.Argument(metavar="KIND", help="trace|profile|config|policy"),
    ],
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The file to check.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of KIND instead.")
    ] = False,
) -> int:
    """Check a trace, a hardware profile, an experiment, or a plug-in's policies."""
    if schema:
        return _print_schema(kind)
    if file is None:
        raise SpecmdError(f"validate {kind}: name the file to check")
    if kind == "policy":
        return _policies(file)
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
    from specmd.policy.registry import add_plugin
    from specmd.sweep.experiment import read_experiment
    from specmd.trace import load

    experiment = read_experiment(file)
    for path in experiment.plugin:
        add_plugin(path)
    if experiment.training is not None:
        load(experiment.training)
    runs = sum(len(experiment.grid.expand(load(path).header)) for path in experiment.traces)
    typer.echo(f"{file}: valid experiment, {len(experiment.traces)} traces, {runs} runs")
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


def _policies(file: Path) -> int:
    """Run the conformance suite over every policy a plug-in declares."""
    from specmd.policy.registry import add_plugin

    entries = add_plugin(file)
    from specmd.conformance.suite import (
        check_policy,  # slow to import, and only needed for a good file
    )

    failed = 0
    for entry in entries:
        findings = check_policy(entry)
        for finding in findings:
            verdict = "ok  " if finding.passed else "FAIL"
            detail = f": {finding.detail}" if finding.detail else ""
            typer.echo(f"{verdict} {entry.axis} {entry.name}: {finding.name}{detail}")
        failed += sum(not finding.passed for finding in findings)
    if failed:
        typer.echo(f"specmd: {file}: {failed} checks failed", err=True)
        return Exit.RUN_FAILED
    return Exit.OK
