"""`specmd validate`: check a file without running anything with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from specmd.cli import completion
from specmd.errors import Exit, SpecmdError

if TYPE_CHECKING:
    from specmd.policy.registry import Choice


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
) -> int:
    """Check a trace, profile or experiment, or a plug-in's policies."""
    if schema:
        return _print_schema(kind)
    if file is None:
        raise SpecmdError(f"validate {kind}: name the file to check")
    if kind == "policy":
        return _policies(file)
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


def _policies(named: str) -> int:
    """Run the conformance suite over a plug-in's policies, or over those of a name.

    What all of a file's policies have passed runs without checks from then on.
    """
    choices = _choices(named)
    from specmd.conformance.suite import check_policy  # slow to import, only needed from here on
    from specmd.core.clearance import clear

    failed = 0
    for choice in choices:
        entry = choice.entry
        findings = check_policy(entry, **choice.values)
        for finding in findings:
            verdict = "ok  " if finding.passed else "FAIL"
            detail = f": {finding.detail}" if finding.detail else ""
            typer.echo(f"{verdict} {entry.axis} {choice.spelled}: {finding.name}{detail}")
        failed += sum(not finding.passed for finding in findings)
    if failed:
        typer.echo(f"specmd: {named}: {failed} checks failed", err=True)
        return Exit.RUN_FAILED
    for choice in choices:
        clear(choice.entry.cls)
    return Exit.OK


def _choices(named: str) -> list[Choice]:
    """Return the policies of a file, or those of a registered name and of whatever declares it."""
    from specmd.errors import unknown
    from specmd.policy.registry import BUILT_IN, Choice, add_plugin, choose, entries

    path = Path(named)
    if path.suffix == ".py" or path.is_dir() or len(path.parts) > 1:
        return [Choice.usual(entry) for entry in add_plugin(path)]
    name = named.partition(":")[0]
    found = [entry for entry in entries() if entry.name == name]
    if not found:
        raise unknown("policy", name, {entry.name for entry in entries()})
    origins = {entry.origin for entry in found} - {BUILT_IN}
    beside = [entry for entry in entries() if entry.origin in origins and entry not in found]
    return [
        *(choose(entry.axis, named) for entry in found),
        *(Choice.usual(entry) for entry in beside),
    ]
