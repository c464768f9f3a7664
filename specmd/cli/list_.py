"""`specmd list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from specmd.cli import completion

if TYPE_CHECKING:
    from specmd.report.text import Table

Kind = Literal["policies", "profiles", "shapes", "traces", "metrics"]


def list_(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What to list.")],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Where to look for traces; by default traces/."),
    ] = None,
    form: Annotated[
        Literal["table", "md", "csv", "json", "jsonl"],
        typer.Option("--format", help="Output format."),
    ] = "table",
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Plug-in file or folder to list as well.  [repeatable]"),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS",
            help="Only policies that decide this.  [repeatable]",
            autocompletion=completion.axes,
        ),
    ] = None,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="Only policies that leave the model's output as it is."),
    ] = False,
) -> None:
    """List policies, profiles, shapes, traces or metrics."""
    from specmd.cli.output import show
    from specmd.errors import SpecmdError

    if kind != "policies" and (axis or lossless):
        raise SpecmdError(f"--axis and --lossless choose among policies; there are none of {kind}")
    records = {
        "policies": lambda: _policies(plugin or [], axis or [], lossless),
        "profiles": _profiles,
        "shapes": _shapes,
        "traces": lambda: _traces(folders or []),
        "metrics": _metrics,
    }[kind]()
    show(form, records, _table(kind, records))


def _policies(
    plugins: list[Path], axes: Sequence[str] = (), lossless: bool = False
) -> list[dict[str, Any]]:
    from specmd.errors import unknown
    from specmd.policy.registry import AXES, add_plugin, entries

    for path in plugins:
        add_plugin(path)
    for axis in axes:
        if axis not in AXES:
            raise unknown("axis", axis, AXES)
    return [
        entry.row()
        for entry in entries()
        if entry.axis in (axes or AXES) and not (lossless and entry.lossy)
    ]


def _profiles() -> list[dict[str, Any]]:
    from specmd.hardware.profile import list_profiles, load_profile

    rows = []
    for name in list_profiles():
        profile = load_profile(name)
        rows.append(
            {
                "name": name,
                "title": profile.title,
                "memory_bytes": profile.memory_bytes.value,
                "memory_bytes_per_s": profile.memory_bytes_per_s.value,
                "flops_per_s": profile.flops_per_s.value,
                "link": profile.host_link.describe(),
                "link_bytes_per_s": profile.host_link.bytes_per_s.value,
                "calibrated": profile.calibrated,
                "assumed": profile.assumed(),
            }
        )
    return rows


def _shapes() -> list[dict[str, Any]]:
    from specmd.hardware.shape import list_shapes, load_shape

    rows = []
    for name in list_shapes():
        shape = load_shape(name)
        rows.append(
            {
                "name": name,
                "title": shape.title,
                "moe_layers": shape.moe_layers,
                "experts": shape.experts,
                "top_k": shape.top_k,
                "expert_bytes": shape.expert_bytes,
                "parameters": int(shape.total_parameters),
                "aliases": list(shape.aliases),
            }
        )
    return rows


def _traces(folders: list[Path]) -> list[dict[str, Any]]:
    from specmd.errors import SpecmdError
    from specmd.trace import load

    if not folders:
        # Next to the package in a checkout; where the user works otherwise.
        beside = Path(__file__).resolve().parents[2] / "traces"
        folders = [path for path in dict.fromkeys((Path("traces"), beside)) if path.is_dir()]
    rows: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise SpecmdError(f"{folder}: no such folder")
        for path in sorted(folder.glob("*.npz")):
            row: dict[str, Any] = {"path": str(path)}
            try:
                trace = load(path)
                digest = trace.digest
            except SpecmdError as error:
                row["error"] = str(error)
            else:
                header = trace.header
                row |= {
                    "model": header.model,
                    "kind": header.kind,
                    "layers": header.num_layers,
                    "experts": header.num_experts,
                    "top_k": header.top_k,
                    "tokens": trace.num_tokens,
                    "steps": trace.num_steps,
                    "requests": trace.num_requests,
                    "license": header.license,
                    "digest": digest,
                }
            rows.setdefault(path.resolve(), row)
    if not rows:
        typer.echo("specmd: no traces found: `specmd import` makes one", err=True)
    return list(rows.values())


def _metrics() -> list[dict[str, Any]]:
    from dataclasses import asdict

    from specmd.runs.metrics import METRICS

    return [asdict(metric) | {"label": metric.label} for metric in METRICS.values()]


def _table(kind: Kind, records: list[dict[str, Any]]) -> Table:
    from specmd.report.text import Cell, Column, Section, Table, cells

    if kind == "policies":
        return _policy_table(records)
    if kind == "profiles":
        columns = [
            Column("name"),
            Column("link"),
            Column("link (GB/s)", number=True),
            Column("memory (GB)", number=True),
            Column("memory (GB/s)", number=True),
            Column("Tflop/s", number=True),
        ]
        lines = [
            cells(
                row["name"],
                row["link"],
                f"{row['link_bytes_per_s'] / 1e9:,.1f}",
                f"{row['memory_bytes'] / 1e9:,.1f}",
                f"{row['memory_bytes_per_s'] / 1e9:,.0f}",
                f"{row['flops_per_s'] / 1e12:,.{0 if row['flops_per_s'] >= 1e13 else 2}f}",
            )
            for row in records
        ]
        calibrated = sum(bool(row["calibrated"]) for row in records)
        note = f"{calibrated} of {len(records)} calibrated; the others are datasheet figures"
        return Table(columns, [Section(lines)], [note])
    if kind == "metrics":
        lines = []
        for row in records:
            lines.append(cells(row["name"], row["label"], row["better"]))
            lines.append([Cell(""), Cell(row["formula"], "dim", spill=True)])
        return Table([Column("name"), Column("label"), Column("better")], [Section(lines)])
    if kind == "traces":
        return _trace_table(records)
    words = ["name", "moe_layers", "experts", "top_k", "expert_bytes", "parameters"]
    numbers = {word for word in words if any(isinstance(row.get(word), int) for row in records)}
    lines = [cells(*(_spell(row.get(word, "")) for word in words)) for row in records]
    columns = [Column(word.replace("_", " "), number=word in numbers) for word in words]
    return Table(columns, [Section(lines)])


def _trace_table(records: list[dict[str, Any]]) -> Table:
    """Lay traces out by folder: a row of a file tells its model, or why it cannot be read."""
    from specmd.report.text import Cell, Column, Section, Table, cells

    folders: dict[str, list[list[Cell]]] = {}
    for row in records:
        path = Path(row["path"])
        rows = folders.setdefault(str(path.parent), [])
        if "error" in row:
            rows.append([Cell(path.name), Cell(row["error"], "dim", spill=True)])
            continue
        experts = f"{row['layers']}x{row['experts']} top-{row['top_k']}"
        numbers = (f"{row[name]:,}" for name in ("tokens", "steps", "requests"))
        rows.append(cells(path.name, row["model"], experts, *numbers))
    columns = [Column("file"), Column("model"), Column("experts")]
    columns += [Column(name, number=True) for name in ("tokens", "steps", "requests")]
    return Table(columns, [Section(rows, folder) for folder, rows in folders.items()])


def _policy_table(records: list[dict[str, Any]]) -> Table:
    """Lay policies out by axis: the rule beside the name, what it takes below the rule."""
    from specmd.report.text import Column, Section, Table, cells

    sections = []
    for axis in dict.fromkeys(row["axis"] for row in records):
        rows = []
        for row in records:
            if row["axis"] != axis:
                continue
            rows.append(cells(row["name"], row["summary"]))
            defaults = [
                f"{name}={_spell(facts['default'])}" for name, facts in row["parameters"].items()
            ]
            beside = [
                ", ".join(defaults),
                ", ".join(row["needs"]) and f"needs {', '.join(row['needs'])}",
            ]
            if not row["lossless"]:
                beside.append("lossy")
            if row["origin"] != "built-in":
                beside.append(f"from {row['origin']}")
            if text := "; ".join(filter(None, beside)):
                rows.append(cells("", text, style="dim"))
        count = sum(row["axis"] == axis for row in records)
        sections.append(Section(rows, f"{axis} ({count})"))
    return Table([Column(""), Column("")], sections, ["name:key=value,... sets parameters"])


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)
