"""`specmd calibrate`: measure this machine and write a hardware profile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specmd.cli import completion
from specmd.cli.options import AGAIN, Device, Dtype, Layers, LinkKind, ModelName, Threads
from specmd.errors import Exit, SpecmdError

if TYPE_CHECKING:
    from specmd.calibration import Calibration
    from specmd.calibration.disk import DiskFigures
    from specmd.hardware.profile import Check
    from specmd.measurement.sources import Source

_TRACE = "With --trace: "
_ANCHOR = "With --anchor: "


def calibrate(
    model: ModelName = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Random weights of true shapes instead (--shape).",
            autocompletion=completion.traces,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Model shape, or a .toml file; default the model's.",
            autocompletion=completion.shapes,
        ),
    ] = None,
    layers: Layers = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"{_TRACE}only the first N tokens; default 256, with --anchor 2000.",
        ),
    ] = None,
    dtype: Dtype = None,
    device: Device = None,
    link: LinkKind = "auto",
    threads: Threads = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Of the profile: lower case, as in results.")
    ] = "this-machine",
    out: Annotated[Path, typer.Option(metavar="FILE.toml", help="Profile to write.")] = Path(
        "this-machine.toml"
    ),
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT=TIME",
            help="Measure nothing: fit --profile to a published time. resident, no_cache, ttft or "
            f"a capacity, as resident=4.4ms or 25%=19tok/s; needs --trace.{AGAIN}",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{_ANCHOR}hardware profile to start from.",
            autocompletion=completion.profiles,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="KIND", help=f"{_ANCHOR}eager, grouped (default) or graph."),
    ] = None,
    evict: Annotated[str, typer.Option(metavar="POLICY", help=f"{_ANCHOR}of capacities.")] = "lru",
    capacity: Annotated[str, typer.Option(metavar="SIZE", help=f"{_ANCHOR}of ttft.")] = "100%",
    disk: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Measure the disk, too, by large files that lie there."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write a profile that fails its check; it will say so.")
    ] = False,
) -> None:
    """Measure this machine and write a hardware profile.

    It says what link, memory, arithmetic and software cost. Rates of arithmetic and costs of
    software are those of the model: calibrate with the one to be simulated. All its experts must
    fit on the device beside their originals on the host; of larger models, --trace with --layers
    runs a part. Plays that the profile was not fitted to check it; one that fails is not written
    (exit code 1). A busy machine is the usual reason.

    With --anchor nothing is measured: the profile of a device is fitted to published times of an
    engine on it, and says what it assumed.
    """
    from specmd.calibration import calibrate as measure
    from specmd.cli.progress import progress
    from specmd.files import write_text
    from specmd.hardware.shape import load_shape, shape_for_model
    from specmd.hardware.toml import profile_text
    from specmd.measurement.settings import LiveSettings

    if out.suffix != ".toml":
        raise SpecmdError(f"{out}: a profile is a .toml file")
    if anchor:
        run = {"evict": evict, "capacity": capacity, "tokens": tokens or 2000}
        _anchor(anchor, profile, engine, trace, shape, out, run)
        return
    if profile is not None or engine is not None:
        raise SpecmdError("--profile and --engine go with --anchor")
    source = _source(model, trace, shape, layers, tokens or 256, dtype)
    known = load_shape(shape) if shape else shape_for_model(source.header().model)
    settings = LiveSettings(device=device, link=link, compute_threads=threads)
    read = None
    if disk is not None:
        from specmd.calibration.disk import measure_disk

        expert_bytes = source.header().expert_bytes
        assert expert_bytes is not None
        read = measure_disk(disk, expert_bytes, settings.chunk_bytes)
    with progress("calibrating") as report:
        found = measure(source.workload(), known, settings, name=name, progress=report)
    made = found.profile
    if read is not None:
        from specmd.calibration.disk import with_disk

        made = with_disk(made, read)
    assert made.check is not None
    typer.echo(f"{out}: {made.title}", err=True)
    for line in [*_figures(found), *_disk(read), *_check(made.check)]:
        typer.echo(line, err=True)
    if known is None:
        typer.echo(
            "warning: no shape is known for the model: attention counts as software", err=True
        )
    if not made.check.accepted and not force:
        typer.echo(
            f"specmd: error: {out} is not written: {made.check.reason}; try again, or write it "
            "as it is with --force",
            err=True,
        )
        raise typer.Exit(Exit.RUN_FAILED)
    write_text(out, profile_text(made))
    for text in made.warnings():
        typer.echo(f"warning: {text}", err=True)


def _anchor(
    anchors: list[str],
    profile: str | None,
    engine: str | None,
    trace: Path | None,
    shape: str | None,
    out: Path,
    options: dict[str, Any],
) -> None:
    """Fit a profile to published times, write it and say what it is."""
    from specmd.calibration.anchors import fit, parse_anchor
    from specmd.files import write_text
    from specmd.hardware.engines import load_engine
    from specmd.hardware.profile import load_profile
    from specmd.hardware.shape import load_shape, shape_for_model
    from specmd.hardware.toml import profile_text
    from specmd.trace import load

    if trace is None or profile is None:
        raise SpecmdError("an anchor needs the --profile of its device and a --trace of its model")
    loaded = load(trace)
    known = load_shape(shape) if shape else shape_for_model(loaded.header.model)
    if known is None:
        raise SpecmdError(f"no shape is known for '{loaded.header.model}': give --shape")
    wanted = [parse_anchor(text) for text in anchors]
    found = fit(load_profile(profile), known, loaded, load_engine(engine), wanted, **options)
    stack = found.profile.stack
    assert stack is not None
    assert stack.fetch_s is not None
    typer.echo(f"{out}: {found.profile.title}, {found.profile.anchored}", err=True)
    for anchor, (given, simulated) in found.met.items():
        error = f"{simulated / given - 1:+.1%}"
        typer.echo(f"anchor    {anchor}: simulated {simulated * 1e3:.4g} ms ({error})", err=True)
    layer_us, fetch_us = stack.layer_s.value * 1e6, stack.fetch_s.value * 1e6
    typer.echo(f"software  {layer_us:.0f} us a layer, {fetch_us:.0f} us a demanded copy", err=True)
    for text in found.assumed:
        typer.echo(f"assumed   {text}", err=True)
    write_text(out, profile_text(found.profile))


def _source(
    model: str | None,
    trace: Path | None,
    shape: str | None,
    layers: int | None,
    tokens: int,
    dtype: str | None,
) -> Source:
    if trace is not None:
        if model is not None:
            raise SpecmdError("give a MODEL or --trace, not both")
        from specmd.measurement.sources import TraceSource

        return TraceSource(str(trace), shape, layers=layers, tokens=tokens, dtype=dtype)
    if layers is not None:
        raise SpecmdError("--layers goes with --trace")
    from specmd.measurement.sources import PromptSource
    from specmd.models.generation import Generation
    from specmd.models.load import quiet_hub
    from specmd.models.prompts import read_prompts

    quiet_hub(bars=sys.stderr.isatty())
    generation = Generation(tuple(read_prompts()[:2]), max_new_tokens=8)
    return PromptSource(model or "tiny", generation, dtype)


def _figures(found: Calibration) -> list[str]:
    profile, link, stack = found.profile, found.link, found.profile.stack
    assert stack is not None

    def us(name: str) -> str:
        return f"{getattr(stack, name).value * 1e6:.0f} us"

    return [
        f"link      {link.bytes_per_s / 1e9:.2f} GB/s, {link.latency_s * 1e6:.0f} us a transfer, "
        f"{link.wake_s * 1e6:.0f} us to wake (fit within {link.misfit:.1%})",
        f"memory    {profile.memory_bytes_per_s.value / 1e9:.2f} GB/s read",
        f"experts   {profile.flops_per_s.value / 1e9:.1f} GFLOP/s",
        f"software  {us('expert_s')} an expert, {us('layer_s')} a layer, {us('step_s')} a step",
        f"losses    {us('resume_s')} a layer that waited, {us('fetch_s')} a copy waited for, "
        f"{us('transfer_s')} a prefetch, {us('predict_s')} a layer looked ahead from",
    ]


def _disk(read: DiskFigures | None) -> list[str]:
    if read is None:
        return []
    return [
        f"disk      {read.bytes_per_s / 1e9:.2f} GB/s, {read.latency_s * 1e6:.0f} us an expert, "
        f"read by {read.way} (fit within {read.misfit:.1%})"
    ]


def _check(check: Check) -> list[str]:
    """Say what the check found, a line a configuration."""
    share = "" if check.core_share is None else f", {check.core_share:.0%} of a core"
    lines = [
        f"check     simulated over measured, plays not fitted to: {check.rounds} rounds that "
        f"differ by {check.spread:.1%}{share}"
    ]
    errors: dict[str, list[str]] = {}
    for name, error in check.errors.items():
        way, _, metric = name.rpartition("_")
        errors.setdefault(way.replace("_", " "), []).append(f"{metric.upper()} {error:+.1%}")
    return lines + [f"          {way:21} {', '.join(found)}" for way, found in errors.items()]
