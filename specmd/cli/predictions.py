"""The output of `specmd simulate --validate`: measured runs beside their simulation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from specmd.errors import Exit, SpecmdError

if TYPE_CHECKING:
    from specmd.cli.options import Options
    from specmd.hardware.profile import HardwareProfile
    from specmd.measurement.prediction import Prediction
    from specmd.report.text import Table


def validate_runs(paths: Sequence[Path], options: Options) -> int:
    """Predict measured runs on a profile and print both."""
    from specmd.cli.output import export, show
    from specmd.cli.requests import prepare
    from specmd.hardware.profile import load_profile
    from specmd.measurement.prediction import predict, read_measured
    from specmd.trace import load

    given = [name for name in options.run if name != "profile"]
    if given:
        raise SpecmdError(f"--validate takes the runs as they were: leave --{given[0]} out")
    profiles = options.run.get("profile", ())
    if len(profiles) != 1:
        raise SpecmdError(
            "--validate needs one --profile: that of the machine the runs were measured on, as "
            "`specmd calibrate` writes it"
        )
    prepare(options)
    profile = load_profile(profiles[0])
    training = load(options.training) if options.training else None
    found = [predict(run, trace, profile, training) for run, trace in read_measured(paths)]
    found.sort(key=_order)
    records = [each.record() for each in found]
    cautions = _cautions(found, profile)
    table = _table(found, profile.name, [*profile.warnings(), *cautions])
    for path in options.exports or []:
        export(path, records, table)
    show(options.form, records, table)
    differing = [each for each in found if each.same_decisions is False]
    for each in differing:
        typer.echo(f"specmd: {each.run.id[:12]}: the replay decides otherwise", err=True)
    for path in options.figures or []:
        from specmd.report.pairs import draw_pairs

        for text in draw_pairs(found, profile.name, path, cautions):
            typer.echo(f"specmd: {path}: left out: {text}", err=True)
    return Exit.RUN_FAILED if differing else Exit.OK


def _cautions(found: Sequence[Prediction], profile: HardwareProfile) -> list[str]:
    """List what makes a comparison say little: runs made on a busy machine, or unlike the check."""
    from specmd.runs.run import BUSY_SHARE

    measured = [each.run.measurement for each in found if each.run.measurement]
    shares = [one.core_share for one in measured if one.core_share is not None]
    shares = [share for share in shares if share < BUSY_SHARE]
    cautions = []
    if shares:
        cautions.append(
            f"{len(shares)} of {len(found)} runs were measured on a busy machine (the computing "
            f"thread was given {min(shares):.0%} of a core): measure them again"
        )
    freely = sum(one.link == "cpu" and one.throttle_bytes_per_s is None for one in measured)
    if freely and profile.check is not None:
        cautions.append(
            f"{freely} of {len(found)} runs are on a host link that is not paced (--throttle), "
            "which calibrations are not checked on"
        )
    return cautions


def _order(each: Prediction) -> tuple[str, float, int, str, str]:
    measurement, config = each.run.measurement, each.run.config
    rate = (measurement.throttle_bytes_per_s if measurement else None) or float("inf")
    return each.run.trace.name, rate, config.capacity_slots, config.evict, config.prefetch


def _table(found: Sequence[Prediction], profile: str, warnings: Sequence[str]) -> Table:
    from specmd.measurement.prediction import TIMES
    from specmd.report.names import caption, policy_name
    from specmd.report.text import Cell, Column, Section, Table
    from specmd.runs.metrics import metric

    columns = [Column("policy"), Column("slots", number=True)]
    digits = {
        name: metric(name).digits(
            value for one in found for value in (one.run.metrics.get(name), one.predicted.get(name))
        )
        for name in TIMES
    }
    for name in TIMES:
        label = metric(name).label
        columns += [
            Column(f"{label} measured", number=True),
            Column("± (%)", number=True, spare=True),
            Column("simulated", number=True),
            Column("error (%)", number=True),
        ]
    rates = _rates(found)
    for name in rates:
        columns += [
            Column(f"{metric(name).label} measured", number=True),
            Column("simulated", number=True),
        ]
    sections: dict[str, list[list[Cell]]] = {}
    for each in found:
        title = f"{each.run.trace.name} · {caption(each.run)}"
        if each.run.config.host_slots is not None:
            title += f" · host {each.run.config.host_slots:,} slots, {each.run.config.host_evict}"
        rows = sections.setdefault(title, [])
        start = [Cell(policy_name(each.run)), Cell(f"{each.run.config.capacity_slots:,}")]
        if each.reason:
            same = {None: "", True: "; the same decisions", False: "; OTHER DECISIONS"}
            text = each.reason + same[each.same_decisions]
            rows.append([*start, Cell(text, "dim", spill=True)])
            continue
        for name in TIMES:
            spell = partial(metric(name).text, digits=digits[name])
            start += [
                Cell(spell(each.run.metrics.get(name))),
                Cell(_share(_spread(each, name))),
                Cell(spell(each.predicted.get(name))),
                Cell(_share(each.error(name), sign="+")),
            ]
        for name in rates:
            shown = metric(name)
            start += [
                Cell(shown.text(each.run.metrics.get(name))),
                Cell(shown.text(each.predicted.get(name))),
            ]
        rows.append(start)
    notes = [*_agreements(found), *(f"warning: {text}" for text in warnings)]
    title = f"simulated ({profile}) beside measured"
    return Table(columns, [Section(rows, name) for name, rows in sections.items()], notes, title)


def _agreements(found: Sequence[Prediction]) -> list[str]:
    from specmd.measurement.prediction import TIMES, agreement
    from specmd.runs.metrics import metric

    notes = []
    for name in TIMES:
        agreed = agreement(found, name)
        if agreed is None:
            continue
        text = (
            f"{metric(name).title}: median error {agreed.median_error:.1%}, largest "
            f"{agreed.largest_error:.1%} over {agreed.runs} runs"
        )
        if agreed.rank_correlation is not None:
            text += f"; rank correlation {agreed.rank_correlation:.3f}"
        notes.append(text)
    for name in _rates(found):
        gaps = [abs(gap) for each in found if (gap := each.difference(name)) is not None]
        if gaps:
            noise = [_range(each, name) for each in found if not each.reason]
            notes.append(
                f"{metric(name).title}: simulated and measured at most {max(gaps) * 100:.2f} "
                f"points apart; repetitions of one run at most {max(noise) * 100:.2f}"
            )
    checked = [each for each in found if each.same_decisions is not None]
    if checked:
        same = sum(bool(each.same_decisions) for each in checked)
        notes.append(f"deterministic runs: {same} of {len(checked)} decide as their replay")
    return notes


def _rates(found: Sequence[Prediction]) -> tuple[str, ...]:
    from specmd.measurement.prediction import RATES

    tiered = any(each.run.config.host_slots is not None for each in found)
    return (*RATES, "host_hit_rate") if tiered else RATES


def _spread(each: Prediction, name: str) -> float | None:
    spread = each.run.measurement.spread.get(name) if each.run.measurement else None
    return None if spread is None or not spread.mean else spread.stdev / spread.mean


def _range(each: Prediction, name: str) -> float:
    spread = each.run.measurement.spread.get(name) if each.run.measurement else None
    return 0.0 if spread is None else spread.high - spread.low


def _share(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value * 100:{sign}.1f}"
