"""`specmd board`: published measurements beside their simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specmd.cli.output import Format
from specmd.errors import Exit, SpecmdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specmd.board.predict import Verdict
    from specmd.report.text import Cell, Table


def board(
    published: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of published rows; by default those shipped."),
    ] = None,
    traces: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of recordings that rows name.")
    ] = None,
    row: Annotated[
        str, typer.Option(metavar="GLOB", help="Only rows, or groups, of these names.")
    ] = "*",
    form: Annotated[
        Format, typer.Option("--format", help="table, md, csv, json or jsonl.")
    ] = "table",
) -> int:
    """Simulate what others measured, and say how far off it is.

    A row runs on its very trace where --traces has it, else on routing fitted to the hit rates
    that its group publishes; on the profile of its device, fitted to the anchors of its group.
    Rows that cannot be simulated say why.
    """
    from specmd.board.predict import judge
    from specmd.board.rows import load_rows
    from specmd.cli.output import show
    from specmd.cli.progress import progress

    everything = load_rows(published)
    chosen = load_rows(published, row)
    if traces is not None and not traces.is_dir():
        raise SpecmdError(f"{traces}: no such folder; --traces is where recordings lie")
    with progress("simulating") as report:
        verdicts = judge(chosen, everything, traces, note=report)
    show(form, [_record(each) for each in verdicts], _table(verdicts))
    return Exit.OK


def _record(each: Verdict) -> dict[str, Any]:
    from specmd.board.summary import kind_of

    return {
        **each.row.model_dump(mode="json"),
        "anchors": kind_of(each),
        "measured_tpot_s": each.row.measured_tpot_s,
        "simulated_tpot_s": each.tpot_s,
        "ratio": each.ratio,
        "simulated_ttft_s": each.ttft_s if each.row.ttft_s is not None else None,
        "ttft_ratio": each.ttft_ratio,
        "simulated_hit_rate": each.hit_rate,
        "routing": each.label,
        "routing_from": each.routing,
        "anchored": each.anchored,
        "not_simulated": each.reason,
    }


def _table(verdicts: Sequence[Verdict]) -> Table:
    from specmd.board.rows import by_group
    from specmd.report.text import Column, Section, Table

    columns = [
        Column("row"),
        Column("cache"),
        Column("routing"),
        Column("hit rate (%) published", number=True),
        Column("simulated", number=True),
        Column("TPOT (ms) measured", number=True),
        Column("simulated", number=True),
        Column("ratio", number=True),
        Column("TTFT ratio", number=True, spare=True),
    ]
    by_id = {each.row.id: each for each in verdicts}
    sections = []
    for name, rows in by_group(each.row for each in verdicts).items():
        first = rows[0]
        title = f"{name} · {first.engine}, {first.model}, {first.machine} · {first.source}"
        sections.append(Section([_cells(by_id[row.id]) for row in rows], title))
    return Table(columns, sections, _notes(verdicts), "simulated beside published measurements")


def _cells(each: Verdict) -> list[Cell]:
    from specmd.report.text import Cell
    from specmd.runs.metrics import metric

    row = each.row
    name = row.id if row.anchor == "none" else f"{row.id} (anchor)"
    cells = [Cell(name), Cell(row.capacity or "?")]
    if each.reason:
        return [*cells, Cell(f"not simulated: {each.reason}", "dim", spill=True)]
    share, tpot = metric("hit_rate"), metric("tpot_s")
    texts = [
        each.label or "",
        share.text(row.hit_rate),
        share.text(each.hit_rate),
        tpot.text(row.measured_tpot_s),
        tpot.text(each.tpot_s),
        _ratio(each.ratio),
        _ratio(each.ttft_ratio),
    ]
    return [*cells, *(Cell(text) for text in texts)]


def _notes(verdicts: Sequence[Verdict]) -> list[str]:
    from specmd.board.summary import TWO, WORST, hit_rate_gap, medians, worst

    left = sum(bool(each.reason) for each in verdicts)
    notes = [
        f"{len(verdicts)} rows, {len(verdicts) - left} simulated; measured: as published, "
        "simulated: by SpecMD on the profile of the row's device; anchors are in no median"
    ]
    notes += [
        f"TPOT, {each.title}: median error {each.error:.1%}, largest {each.largest:.1%} over "
        f"{each.rows} rows, {each.within:.0%} of them within 25 %"
        for each in medians(verdicts)
    ]
    for label, what in (("trace", "the very trace"), ("fitted", "routing fitted to hit rates")):
        if gap := hit_rate_gap(verdicts, label):
            notes.append(f"hit rate, {what}: at most {100 * gap[1]:.2f} points off, {gap[0]} rows")
    for each in worst(verdicts, WORST):
        if each.error is not None and abs(each.error) > 0.25:
            known = f"routing {each.label}, {('no anchor', 'one anchor', TWO)[each.anchors]}"
            notes.append(
                f"far off: {each.row.id}, {_ratio(each.ratio)} ({known}): {each.row.note or '-'}"
            )
    return notes + _assumptions(verdicts)


def _assumptions(verdicts: Sequence[Verdict]) -> list[str]:
    """Say once for each group what its profile was fitted to and where its routing is from."""
    said = [f"profile of {each.row.group}: {each.anchored}" for each in verdicts if each.anchored]
    said += [
        f"routing of {each.row.group}, {each.label}: {each.routing}"
        for each in verdicts
        if each.label in ("fitted", "assumed", "recorded")
    ]
    return list(dict.fromkeys(said))


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
