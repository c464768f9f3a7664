"""`specmd validate`: check a file without running anything with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from specmd.errors import Exit


def validate(
    kind: Annotated[
        Literal["trace", "profile", "policy"],
        typer.Argument(metavar="KIND", help="trace|profile|policy"),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to check.")],
) -> int:
    """Check a trace, a hardware profile, or a plug-in's policies."""
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
        from specmd.hardware import read_profile

        profile = read_profile(file)
        typer.echo(f"{file}: valid profile '{profile.name}', {profile.title}")
        for warning in profile.warnings():
            typer.echo(f"warning: {warning}", err=True)
        return Exit.OK
    return _policies(file)


def _policies(file: Path) -> int:
    """Run the conformance suite over every policy a plug-in declares."""
    from specmd.conformance import check_policy
    from specmd.policy.registry import add_plugin

    failed = 0
    for entry in add_plugin(file):
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
