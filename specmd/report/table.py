"""Runs as a table: what a reader wants to know first, in an order that answers it.

Runs that may be compared (same trace, capacity, hardware, contract) stand in one section, best
values bold, under what they share. Beside the absolute numbers stands the distance to Belady; below
the runs stand the bounds that no policy leaves. What could not run is a row that says why, and
every warning is printed once. Columns are metrics as `specmd.runs.metrics` declares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from specmd.hardware.shape import shape_for_model
from specmd.policy.registry import AXES
from specmd.report.conditions import circumstances
from specmd.report.names import caption, is_clairvoyant, outlives_eviction, policy_name, varied_axes
from specmd.report.text import Cell, Column, Section, Table, cells
from specmd.runs.metrics import PARTS, Metric, metric
from specmd.runs.options import RunConfig
from specmd.runs.run import Bounds, Run

RELATIVE = "vs belady"
_GROUPED = tuple(name for name in RunConfig.model_fields if name not in (*AXES, "seed", "capacity"))
_BOUND_ROWS = (
    ("belady", "belady"),
    ("belady_bypass", "belady bypass"),
    ("compulsory", "compulsory"),
    ("all_resident", "all resident"),
    ("no_cache", "no cache"),
)
_SPARE = ("collision_rate", "misses", "prefetch_precision")
"""Columns a narrow terminal may leave out, if they were not asked for; the last goes first."""
_OF_ANY_CAPACITY = ("compulsory", "all_resident", "no_cache")


def run_table(runs: Sequence[Run], metrics: Sequence[str] = ()) -> Table:
    """Lay runs out for reading; `metrics` replaces the columns that are chosen by what is there.

    Raises SpecmdError for an unknown metric.
    """
    chosen = [metric(name) for name in metrics or default_metrics(runs)]
    relative = any(run.bounds is not None for run in runs)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_group(run), []).append(run)
    spare = () if metrics else _SPARE
    columns = [
        Column("policy"),
        *(Column(each.label, number=True, spare=each.name in spare) for each in chosen),
    ]
    if relative:
        columns.append(Column(f"{RELATIVE} (%)", number=True))
    varied = varied_axes(runs)
    shared = _shared_words(runs)
    sections = [
        Section(_rows(group, chosen, relative, varied), " · ".join(_words(group[0], shared)))
        for group in groups.values()
    ]
    sections += _capacity_free_sections(list(groups.values()), chosen, shared)
    return Table(columns, sections, _notes(runs, relative), " · ".join(shared))


def default_metrics(runs: Sequence[Run]) -> list[str]:
    """Choose the columns that say something about these runs."""
    names = ["hit_rate", "collision_rate", "misses"]
    if any(run.config.prefetch != "none" for run in runs):
        names[1:1] = ["late_rate"]
        names += ["prefetch_precision", "bytes_per_token"]
    names += [
        name
        for name in ("ttft_s", "tpot_s", "stall_share")
        if any(run.metrics.get(name) is not None for run in runs)
    ]
    if runs and all(run.source == "measured" for run in runs):
        names.remove("stall_share")
        parts = [name for name in PARTS if any(run.metrics.get(f"tpot_{name}_s") for run in runs)]
        names += [f"tpot_{name}_s" for name in parts]
    return names


def _group(run: Run) -> tuple[Any, ...]:
    config = run.config.model_dump()
    return (run.source, run.trace.digest, run.trace.name, *(config[name] for name in _GROUPED))


def _words(run: Run, without: Sequence[str] = ()) -> list[str]:
    """Say what the runs of a group share, most telling first."""
    config, trace = run.config, run.trace
    keys = trace.num_layers * trace.num_experts
    words = [trace.name, f"{config.capacity_slots:,} of {keys:,} slots"]
    size = [f"{config.capacity_slots / keys:.1%}"]
    if trace.expert_bytes:
        size.append(_bytes(config.capacity_slots * trace.expert_bytes))
    words[1] += f" ({', '.join(size)})"
    if run.regime is not None:
        words.append(f"C/T {run.regime.capacity_over_working_set:.2f}")
    words.append(caption(run))
    defaults = RunConfig.model_fields
    for name in ("scope", "admission", "reset", "tokens", "warmup", "shape"):
        value = getattr(config, name)
        own = name == "shape" and _is_its_own(run)
        if value != defaults[name].default and not own:
            words.append(f"{name} {value}")
    if config.sequential:
        words.append("sequential")
    return [word for word in words if word not in without]


def _is_its_own(run: Run) -> bool:
    """Whether a run's shape is the one its model has by name."""
    known = shape_for_model(run.trace.model)
    return known is not None and known.name == run.config.shape


def _bytes(size: int) -> str:
    unit, scale = ("GB", 1e9) if size >= 1e8 else ("MB", 1e6) if size >= 1e5 else ("kB", 1e3)
    return f"{size / scale:,.2f} {unit}"


def _shared_words(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return []
    first, *others = [_words(run) for run in runs]
    return [word for word in first if all(word in other for other in others)]


def _rows(
    group: Sequence[Run], chosen: Sequence[Metric], relative: bool, varied: Sequence[str]
) -> list[list[Cell]]:
    rows = []
    best = _best(group, chosen)
    for run in group:
        name = policy_name(run, varied)
        if run.status != "ok":
            reason = f"{run.status}: {run.reason or 'no reason recorded'}"
            rows.append([Cell(name, "dim"), Cell(reason, "dim", spill=True)])
            continue
        future = is_clairvoyant(run)
        row = [Cell(name + _mark(run, future), "dim" if future else "")]
        for each in chosen:
            value = run.metrics.get(each.name)
            top = value is not None and not future and value == best.get(each.name)
            row.append(Cell(each.text(value), "bold" if top else "dim" if future else ""))
        if relative:
            share = run.bounds.regret_share if run.bounds else None
            least = not future and share is not None and share == best.get(RELATIVE)
            row.append(Cell(_signed(share), "bold" if least else "dim" if future else ""))
        rows.append(row)
    bounds = next((run.bounds for run in group if run.bounds is not None), None)
    if bounds is not None:
        ran = {policy_name(run) for run in group if run.status == "ok"}
        rows += _bound_rows(bounds, chosen, ran)
    return rows


def _mark(run: Run, future: bool) -> str:
    if future:
        return " †"
    if outlives_eviction(run):
        return " °"
    return " *" if policy_name(run) == "lru" else ""


def _best(group: Sequence[Run], chosen: Sequence[Metric]) -> dict[str, float]:
    """Return the best value of each column among runs one could really have; none if all tie."""
    real = [run for run in group if run.status == "ok" and not is_clairvoyant(run)]
    found: dict[str, float] = {}
    for each in chosen:
        values = [value for run in real if (value := run.metrics.get(each.name)) is not None]
        if each.better != "neither" and len(values) > 1 and min(values) != max(values):
            found[each.name] = max(values) if each.better == "higher" else min(values)
    shares = [
        run.bounds.regret_share
        for run in real
        if run.bounds is not None and run.bounds.regret_share is not None
    ]
    if len(shares) > 1 and min(shares) != max(shares):
        found[RELATIVE] = min(shares)
    return found


def _bound_rows(
    bounds: Bounds, chosen: Sequence[Metric], ran: Iterable[str], *, any_capacity: bool = False
) -> list[list[Cell]]:
    """Rows of the bounds, but for those that were run themselves."""
    rows = []
    for field, label in _BOUND_ROWS:
        if (field in _OF_ANY_CAPACITY) != any_capacity or label.replace(" ", ":") in ran:
            continue
        bound = getattr(bounds, field)
        texts = [each.text(getattr(bound, each.name, None)) for each in chosen]
        optimum = bounds.belady.misses
        share = (bound.misses - optimum) / optimum if optimum and not any_capacity else None
        rows.append(cells(f"{label} ‡", *texts, _signed(share), style="dim"))
    return rows


def _capacity_free_sections(
    groups: Sequence[Sequence[Run]], chosen: Sequence[Metric], shared: Sequence[str]
) -> list[Section]:
    """Give the bounds that do not depend on the capacity, once for groups that share them."""
    found: dict[str, tuple[str, list[list[Cell]]]] = {}
    for group in groups:
        run = next((run for run in group if run.bounds is not None), None)
        if run is None or run.bounds is None:
            continue
        rows = _bound_rows(run.bounds, chosen, (), any_capacity=True)
        words = _words(run, shared)
        title = " · ".join(["any capacity", *(word for word in words if not _of_capacity(word))])
        found.setdefault(f"{title}\n{rows}", (title, rows))
    return [Section(rows, title) for title, rows in found.values()]


def _of_capacity(word: str) -> bool:
    return " slots (" in word or word.startswith("C/T ")


def _signed(share: float | None) -> str:
    if share is None:
        return "-"
    return "0.0" if round(share * 100, 1) == 0 else f"{share * 100:+,.1f}"


def _notes(runs: Sequence[Run], relative: bool) -> list[str]:
    notes = []
    ok = [run for run in runs if run.status == "ok"]
    if any(policy_name(run) == "lru" for run in ok):
        notes.append("* the usual baseline")
    if any(is_clairvoyant(run) for run in ok):
        notes.append("† knows the future: a bound, not a choice")
    if any(outlives_eviction(run) for run in ok):
        notes.append("° remembers experts that left the cache, beyond what its slots hold")
    if relative:
        notes.append(
            "‡ bound, without prefetch; vs belady: misses above Belady's (forced admission)"
        )
    if ok:
        notes.append(_contract(ok))
    return notes + circumstances(ok) + _warnings(runs)


def _warnings(runs: Sequence[Run]) -> list[str]:
    """Every warning once; those that differ in their numbers only are told by the first."""
    alike: dict[str, list[str]] = {}
    for run in runs:
        for text in run.warnings:
            alike.setdefault(re.sub(r"[0-9][0-9.,]*", "#", text), []).append(text)
    notes = []
    for texts in alike.values():
        more = len(set(texts)) - 1
        beside = [f"and {more} more like it"] if more else []
        if len(texts) < len(runs):
            beside.append(f"{len(texts)} of {len(runs)} runs")
        notes.append(f"warning: {texts[0]}" + (f" ({', '.join(beside)})" if beside else ""))
    return notes


def _contract(runs: Sequence[Run]) -> str:
    """Spell the choices of the evaluation contract, `a|b` where the runs differ."""
    spelled: list[tuple[str, Callable[[Run], Any]]] = [
        ("", lambda run: "sequential" if run.config.sequential else "event-atomic"),
        ("scope", lambda run: run.config.scope),
        ("admission", lambda run: run.config.admission),
        ("reset", lambda run: run.config.reset),
        ("warm-up", lambda run: run.config.warmup),
        ("seed", lambda run: run.config.seed),
        ("trace", lambda run: run.trace.digest[:12]),
    ]
    parts = []
    for label, pick in spelled:
        values = "|".join(dict.fromkeys(str(pick(run)) for run in runs))
        parts.append(f"{label} {values}".strip())
    return f"contract: {', '.join(parts)}; ties: larger key leaves first"
