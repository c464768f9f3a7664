"""The same configurations side by side, a column a value; and who is ahead in which column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specmd.comparison.comparing import Comparison
from specmd.comparison.evidence import difference, value_of
from specmd.comparison.labels import TITLES, Labels, label
from specmd.comparison.matching import Line
from specmd.comparison.ranking import Arena, Place, arenas, verdicts
from specmd.comparison.tables import summary
from specmd.policy.registry import AXES
from specmd.report.names import is_clairvoyant
from specmd.report.text import Cell, Column, Section, Style, Table
from specmd.runs.metrics import Metric
from specmd.runs.policy_metrics import metrics_of


def side_table(found: Comparison, metrics: Sequence[str], *, everything: bool) -> Table:
    """Lay lines out with a column for every value; lines with equal values only on request."""
    labels, names = label(found.matched), found.matched.columns
    across, known = _has_policies(found), metrics_of(found.matched.runs)
    sections, alike = [], 0
    for name in metrics:
        metric, rows = known[name], []
        best = {} if across else _best_of_arenas(labels, len(names), metric)
        for line, policy in labels.lines:
            values = _values(line, metric)
            if all(value is None for value in values):
                continue
            if _is_alike(values) and not everything:
                alike += 1
                continue
            top = _best(values, metric) if across else best[_where(line, labels)]
            rows.append(_row(line, policy, labels, values, metric, top))
        if rows:
            better = "" if metric.better == "neither" else f", {metric.better} is better"
            sections.append(Section(rows, f"{metric.label}{better}"))
    notes = summary(found, metrics)
    if alike:
        notes.insert(0, f"{alike:,} rows have one value in all columns: --all shows them")
    columns = [*map(Column, labels.titles), *(Column(name, number=True) for name in names)]
    return Table(columns, sections, notes, f"by {' and '.join(found.matched.by)}")


def _row(
    line: Line,
    policy: str,
    labels: Labels,
    values: Sequence[float | None],
    metric: Metric,
    best: Sequence[float | None],
) -> list[Cell]:
    future = is_clairvoyant(line.first)
    shown = [
        Cell(
            cell.run.status if cell is not None and cell.run.status != "ok" else metric.text(value),
            "dim" if future else "bold" if value is not None and value == top else "",
        )
        for value, cell, top in zip(values, line.cells, best, strict=True)
    ]
    return [*(Cell(word, "dim" if future else "") for word in labels.words(line, policy)), *shown]


def _best(values: Sequence[float | None], metric: Metric) -> list[float | None]:
    """Return the best of some values once for each of them; None if they are all alike."""
    known = [value for value in values if value is not None]
    if metric.better == "neither" or not known or _is_alike(known):
        return [None] * len(values)
    return [max(known) if metric.better == "higher" else min(known)] * len(values)


def _best_of_arenas(
    labels: Labels, columns: int, metric: Metric
) -> dict[tuple[Any, ...], list[float | None]]:
    """Return the best value of each column among the policies that meet, by where they do."""
    found: dict[tuple[Any, ...], list[list[float | None]]] = {}
    for line, _ in labels.lines:
        values = _values(line, metric)
        if is_clairvoyant(line.first):
            values = [None] * columns
        found.setdefault(_where(line, labels), []).append(values)
    return {
        where: [_best(column, metric)[0] for column in zip(*rows, strict=True)]
        for where, rows in found.items()
    }


def _where(line: Line, labels: Labels) -> tuple[Any, ...]:
    return tuple(line.key.get(name) for name in labels.fields)


def _has_policies(found: Comparison) -> bool:
    """Whether the columns are policies."""
    return bool({"policy", *AXES} & {*found.matched.by, *found.matched.compared})


def _values(line: Line, metric: Metric) -> list[float | None]:
    return [None if cell is None else value_of(cell.run, metric.name) for cell in line.cells]


def _is_alike(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return len(known) == len(values) and not any(difference(known[0], v) for v in known[1:])


def ranked(found: Comparison, metrics: Sequence[str]) -> tuple[Metric, list[Arena]] | None:
    """Rank the policies in every column; None where the columns are policies, or there is one.

    By the first metric that has a direction, a time before a rate.
    """
    if _has_policies(found):
        return None
    known = metrics_of(found.matched.runs)
    usable = [known[name] for name in metrics if known[name].better != "neither"]
    timed = [each for each in usable if each.name == "tpot_s"]
    labels = label(found.matched)
    if not usable or len({policy for _, policy in labels.lines}) < 2:
        return None
    metric = (timed or usable)[0]
    return metric, arenas(labels, len(found.matched.columns), metric)


def ranking_table(found: Comparison, metric: Metric, ranks: Sequence[Arena]) -> Table:
    """Say who wins where, by how much, and how alike the orders of the columns are."""
    names = found.matched.columns
    fields = list(ranks[0].where)
    by = " and ".join(found.matched.by)
    rows = []
    for arena in ranks:
        row = [Cell(_spelled(value)) for value in arena.where.values()]
        for place in arena.places:
            margin = "" if place is None else _lead(place)
            style: Style = "" if arena.is_one_winner else "bold"
            row.append(Cell("-" if place is None else place.name + margin, style))
        tau = arena.least_tau
        rows.append([*row, Cell("-" if tau is None else f"{tau:+.2f}")])
    columns = [*(Column(TITLES.get(name, name)) for name in fields), *map(Column, names)]
    title = f"winners by {metric.name}, {metric.better} is better, and their lead over the next"
    notes = verdicts(ranks, names, metric, by)
    if any(place is not None and place.is_sure is False for a in ranks for place in a.places):
        notes.append(
            "not sure: other requests, or repetitions, might put the next one ahead (95 %)"
        )
    return Table([*columns, Column("least tau-b", number=True)], [Section(rows)], notes, title)


def _lead(place: Place) -> str:
    """Spell a lead with a digit that says something, and whether it is one."""
    if place.margin is None:
        return ""
    lead = f" by {place.margin:.{1 if place.margin >= 0.001 else 2}%}"
    return lead + (" (not sure)" if place.is_sure is False else "")


def _spelled(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def side_records(
    found: Comparison, metrics: Sequence[str], *, everything: bool
) -> list[dict[str, Any]]:
    """Return a record a line and metric; of the metric that ranks, with the ranks of policies."""
    labels, names = label(found.matched), found.matched.columns
    ranking, known = ranked(found, metrics), metrics_of(found.matched.runs)
    rows = []
    for name in metrics:
        for line, policy in labels.lines:
            values = _values(line, known[name])
            if all(v is None for v in values) or (_is_alike(values) and not everything):
                continue
            where = {field: line.key.get(field) for field in labels.fields}
            row: dict[str, Any] = {"policy": policy, **where, "metric": name}
            row |= {"unit": known[name].unit, "by": " / ".join(found.matched.by)}
            row |= dict(zip(names, values, strict=True))
            if ranking is not None and ranking[0].name == name:
                arena = next(each for each in ranking[1] if each.where == where)
                ranks = arena.ranks.get(policy, [None] * len(names))
                row |= {f"rank {n}": r for n, r in zip(names, ranks, strict=True)}
            rows.append(row)
    return rows


def ranking_records(
    found: Comparison, metric: Metric, ranks: Sequence[Arena]
) -> list[dict[str, Any]]:
    """Return a record an arena: the winner of every column, its lead, and rank correlations."""
    names = found.matched.columns
    return [
        {
            **arena.where,
            "ranked_by": metric.name,
            "one_winner": arena.is_one_winner,
            "winners": {n: list(p.winners) for n, p in zip(names, arena.places, strict=True) if p},
            "lead": {n: p.margin for n, p in zip(names, arena.places, strict=True) if p},
            "kendall_tau_b": [
                {"columns": [names[a], names[b]], "tau": tau} for (a, b), tau in arena.taus.items()
            ],
        }
        for arena in ranks
    ]
