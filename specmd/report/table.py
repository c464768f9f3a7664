"""Runs as a table: what a reader wants to know first, in an order that answers it.

Runs that may be compared (same trace, capacity, contract) stand in one section, best values bold,
under what they share. Runs that differ in their clock only share a row: hit rates are said once,
and what depends on the clock has a column a profile, so that each has its winner. Beside the
absolute numbers stand the distances to Belady and to the roofline; below the runs stand the bounds
that no policy leaves. What could not run is a row that says why, and every warning is printed once.
Columns are metrics as `specmd.runs.metrics` declares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from specmd.hardware.shape import shape_for_model
from specmd.policy.registry import AXES
from specmd.report.names import (
    CIRCUMSTANCES,
    captions,
    changes_answers,
    is_clairvoyant,
    policy_name,
    varied_axes,
)
from specmd.report.notes import marks, notes
from specmd.report.text import Cell, Column, Section, Style, Table, cells
from specmd.runs.declared import spelled
from specmd.runs.identity import SPELLED
from specmd.runs.metrics import PARTS, Better, Metric, choices
from specmd.runs.options import RunConfig
from specmd.runs.policy_metrics import look_up
from specmd.runs.run import Bounds, Run

_GROUPED = tuple(
    name for name in RunConfig.model_fields if name not in (*AXES, *SPELLED, "seed", "profile")
)
_BOUND_ROWS = (
    ("belady", "belady"),
    ("belady_bypass", "belady bypass"),
    ("compulsory", "compulsory"),
    ("all_resident", "all resident"),
    ("no_cache", "no cache"),
)
_OF_ANY_CAPACITY = ("compulsory", "all_resident", "no_cache")
_SPARE = ("collision_rate", "misses", "prefetch_precision", "stall_share")
"""Columns a narrow terminal may leave out, if they were not asked for; the last goes first."""
_BYPASS_MATTERS = 0.05  # forced Belady so far above Belady with bypass flatters every policy

Line = dict[str | None, Run]
"""Runs of a row by their profile, None without one: all but the clock is the same."""
_ANY = ""  # in place of a profile: whichever comes first


@dataclass(frozen=True)
class _Shown:
    """A column of numbers: how a run and a bound fill it."""

    column: Column
    better: Better
    value: Callable[[Line], float | None]
    of_bound: Callable[[Line, str], float | None]
    text: Callable[[float | None], str]


def run_table(
    runs: Sequence[Run],
    metrics: Sequence[str] = (),
    rank: str | None = None,
    *,
    verbose: bool = False,
) -> Table:
    """Lay runs out for reading; `metrics` replaces the columns that are chosen by what is there.

    `rank` is a metric by which the runs of a section are ordered, best first; `verbose` has the
    notes explain everything.
    Raises SpecmdError for an unknown metric.
    """
    chosen = [look_up(name, runs) for name in metrics or default_metrics(runs)]
    groups = _groups(runs)
    if rank is not None:
        groups = [_ranked(group, look_up(rank, runs)) for group in groups]
    shown = _columns(list(chain.from_iterable(groups)), chosen, () if metrics else _SPARE)
    varied = varied_axes(runs)
    shared = _shared_words(groups)
    sections = [
        Section(_rows(group, shown, varied), " · ".join(_words(group, shared))) for group in groups
    ]
    sections += _capacity_free_sections(groups, shown, shared)
    columns = [Column("policy"), *(each.column for each in shown)]
    return Table(columns, sections, notes(runs, verbose=verbose), " · ".join(shared))


def _groups(runs: Sequence[Run]) -> list[list[Line]]:
    """Put runs that may be compared together; those that differ in their clock only are a line."""
    groups: dict[tuple[Any, ...], dict[str, Line]] = {}
    for run in runs:
        config = run.config.model_dump()
        group = (run.source, run.trace.digest, run.trace.name, *(config[n] for n in _GROUPED))
        if run.source == "measured":
            group = (*group, run.label)
        policy = str((*(config[name] for name in (*AXES, "seed")), run.status, run.reason))
        lines = groups.setdefault(group, {})
        while run.config.profile in lines.get(policy, ()):
            policy += "again"
        lines.setdefault(policy, {})[run.config.profile] = run
    return [list(lines.values()) for lines in groups.values()]


def _ranked(group: list[Line], by: Metric) -> list[Line]:
    """Order runs by a metric, best first, those without it last; equals stay in their order."""
    sign = -1 if by.better == "higher" else 1

    def place(line: Line) -> tuple[bool, float]:
        value = next(iter(line.values())).value(by.name)
        return value is None, sign * (value or 0)

    return sorted(group, key=place)


def _columns(lines: Sequence[Line], chosen: Sequence[Metric], spare: Sequence[str]) -> list[_Shown]:
    """Choose the columns of numbers: a metric that depends on the clock has one for each clock."""
    shown = []
    for each in chosen:
        values = [[run.value(each.name) for run in line.values()] for line in lines]
        digits = each.digits(chain.from_iterable(values))
        apart = any(len({each.text(one, digits=digits) for one in row}) > 1 for row in values)
        for profile in _clocks(lines, each) if apart else [_ANY]:
            title = f"{each.label} {profile}" if apart and profile else each.label
            column = Column(title, number=True, spare=each.name in spare)
            shown.append(_metric_column(each, profile, column, digits))
    bounds = [run.bounds for line in lines for run in line.values() if run.bounds is not None]
    if any(each.regret_share is not None for each in bounds):
        shown.append(_regret_column("belady"))
        if any(each.bypass_gap > _BYPASS_MATTERS * each.belady_bypass.misses for each in bounds):
            shown.append(_regret_column("belady_bypass"))
    return shown


def _clocks(lines: Sequence[Line], each: Metric) -> list[str | None]:
    """List the profiles under which a metric has values; None: runs without one, as measured."""
    return list(
        dict.fromkeys(
            profile
            for line in lines
            for profile, run in line.items()
            if run.value(each.name) is not None
        )
    )


def _metric_column(each: Metric, profile: str | None, column: Column, digits: int) -> _Shown:
    def of(line: Line) -> Run | None:
        return next(iter(line.values())) if profile is _ANY else line.get(profile)

    def value(line: Line) -> float | None:
        run = of(line)
        return None if run is None else run.value(each.name)

    def of_bound(line: Line, name: str) -> float | None:
        run = of(line)
        if run is None or run.bounds is None:
            return None
        bound, roofline_s = getattr(run.bounds, name), run.bounds.roofline_s
        if each.name == "over_roofline":
            whole = None if name in _OF_ANY_CAPACITY else bound.total_s
            return whole / roofline_s if whole is not None and roofline_s else None
        found: float | None = getattr(bound, each.name, None)
        return found

    return _Shown(column, each.better, value, of_bound, partial(each.text, digits=digits))


def _regret_column(optimum: str) -> _Shown:
    def above(bounds: Bounds | None, misses: int | None) -> float | None:
        best = getattr(bounds, optimum).misses if bounds is not None else 0
        return None if misses is None or not best else (misses - best) / best

    def value(line: Line) -> float | None:
        bounds = next(iter(line.values())).bounds
        if bounds is None or bounds.regret_misses is None:
            return None
        return above(bounds, bounds.regret_misses + bounds.belady.misses)

    def of_bound(line: Line, name: str) -> float | None:
        bounds = next(iter(line.values())).bounds
        return None if name in _OF_ANY_CAPACITY else above(bounds, getattr(bounds, name).misses)

    title = f"vs {optimum.replace('belady_', '')} (%)"
    return _Shown(Column(title, number=True), "lower", value, of_bound, _signed)


def default_metrics(runs: Sequence[Run]) -> list[str]:
    """Choose the columns that say something about these runs."""
    names = ["hit_rate", "collision_rate", "misses"]
    if any(map(changes_answers, runs)):
        names[1:1] = ["true_hit_rate", "kept_mass"]
        names += [name for name in choices("quality") if any(run.metrics.get(name) for run in runs)]
    if any(run.config.prefetch != "none" for run in runs):
        names[1:1] = ["late_rate"]
        names += ["prefetch_precision", "bytes_per_token"]
    if any(run.config.host_slots is not None for run in runs):
        names += ["host_hit_rate", "disk_bytes_per_token"]
    times = ["ttft_s", "tpot_s", "stall_share", "over_roofline"]
    if len({run.config.profile for run in runs}) > 1:
        names = [name for name in names if name not in _SPARE]
        times = ["tpot_s", "over_roofline"]
    names += [name for name in times if any(run.metrics.get(name) is not None for run in runs)]
    if runs and all(run.source == "measured" for run in runs):
        names = [name for name in names if name != "stall_share"]
        parts = [name for name in PARTS if any(run.metrics.get(f"tpot_{name}_s") for run in runs)]
        names += [f"tpot_{name}_s" for name in parts]
    return names


def _words(group: Sequence[Line], without: Sequence[str] = ()) -> list[str]:
    """Say what the runs of a group share, most telling first."""
    runs = [run for line in group for run in line.values()]
    run = runs[0]
    config, trace = run.config, run.trace
    keys = trace.num_layers * trace.num_experts
    size = [f"{config.capacity_slots / keys:.1%}"]
    if run.regime is not None and run.regime.slots_bytes is not None:
        size.append(_bytes(run.regime.slots_bytes))
    slots = f"{config.capacity_slots:,} of {keys:,} slots ({', '.join(size)})"
    if run.memory is not None and run.memory.device_bytes is not None:
        there = {each.memory.device_bytes for each in runs if each.memory is not None}
        of = f" of {_bytes(run.memory.device_bytes)}" if len(there) == 1 else ""
        slots += f", {_bytes(run.memory.total_bytes)}{of} on the device"
    words = [trace.name, slots]
    if config.host_slots is not None:
        words.append(f"host {config.host_slots:,} slots, {config.host_evict}")
    if run.regime is not None:
        words.append(f"C/T {run.regime.capacity_over_working_set:.2f}")
    words.append(captions(runs))
    own = {"shape"} if _is_its_own(run) else set()
    words += spelled({name: getattr(config, name) for name in CIRCUMSTANCES if name not in own})
    return [word for word in words if word not in without]


def _is_its_own(run: Run) -> bool:
    """Whether a run's shape is the one its model has by name."""
    known = shape_for_model(run.trace.model)
    return known is not None and known.name == run.config.shape


def _bytes(size: int) -> str:
    unit, scale = ("GB", 1e9) if size >= 1e8 else ("MB", 1e6) if size >= 1e5 else ("kB", 1e3)
    return f"{size / scale:,.2f} {unit}"


def _shared_words(groups: Sequence[Sequence[Line]]) -> list[str]:
    if not groups:
        return []
    first, *others = [_words(group) for group in groups]
    return [word for word in first if all(word in other for other in others)]


def _rows(
    group: Sequence[Line], shown: Sequence[_Shown], varied: Sequence[str]
) -> list[list[Cell]]:
    rows = []
    best = _best(group, shown)
    for line in group:
        run = next(iter(line.values()))
        name = policy_name(run, varied)
        if run.status != "ok":
            reason = f"{run.status}: {run.reason or 'no reason recorded'}"
            rows.append([Cell(name, "dim"), Cell(reason, "dim", spill=True)])
            continue
        future = is_clairvoyant(run)
        row = [Cell(name + marks(run), "dim" if future else "")]
        for each, top in zip(shown, best, strict=True):
            value = each.value(line)
            style: Style = "dim" if future else ""
            if not future and value is not None and value == top:
                style = "bold"
            row.append(Cell(each.text(value), style))
        rows.append(row)
    bounded = next((line for line in group if _bounds_of(line) is not None), None)
    if bounded is not None:
        ran = {policy_name(run) for line in group for run in line.values() if run.status == "ok"}
        rows += _bound_rows(bounded, shown, ran)
    return rows


def _bounds_of(line: Line) -> Bounds | None:
    return next(iter(line.values())).bounds


def _best(group: Sequence[Line], shown: Sequence[_Shown]) -> list[float | None]:
    """Return the best value of each column among runs one could really have; none if all tie."""
    real = [
        line
        for line in group
        if (run := next(iter(line.values()))).status == "ok" and not is_clairvoyant(run)
    ]
    found: list[float | None] = []
    for each in shown:
        values = [value for line in real if (value := each.value(line)) is not None]
        if each.better == "neither" or len(values) < 2 or min(values) == max(values):
            found.append(None)
        else:
            found.append(max(values) if each.better == "higher" else min(values))
    return found


def _bound_rows(
    line: Line, shown: Sequence[_Shown], ran: Iterable[str], *, any_capacity: bool = False
) -> list[list[Cell]]:
    """Rows of the bounds, but for those that were run themselves."""
    return [
        cells(f"{label} ‡", *(each.text(each.of_bound(line, field)) for each in shown), style="dim")
        for field, label in _BOUND_ROWS
        if (field in _OF_ANY_CAPACITY) == any_capacity and label.replace(" ", ":") not in ran
    ]


def _capacity_free_sections(
    groups: Sequence[Sequence[Line]], shown: Sequence[_Shown], shared: Sequence[str]
) -> list[Section]:
    """Give the bounds that do not depend on the capacity, once for groups that share them."""
    found: dict[str, tuple[str, list[list[Cell]]]] = {}
    for group in groups:
        line = next((line for line in group if _bounds_of(line) is not None), None)
        if line is None:
            continue
        rows = _bound_rows(line, shown, (), any_capacity=True)
        words = _words(group, shared)
        title = " · ".join(["any capacity", *(word for word in words if not _of_capacity(word))])
        found.setdefault(f"{title}\n{rows}", (title, rows))
    return [Section(rows, title) for title, rows in found.values()]


def _of_capacity(word: str) -> bool:
    return " slots (" in word or word.startswith("C/T ")


def _signed(share: float | None) -> str:
    if share is None:
        return "-"
    return "0.0" if round(share * 100, 1) == 0 else f"{share * 100:+,.1f}"
