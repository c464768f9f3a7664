"""Differences as a table and as records: a section a metric, what changed, and how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specmd.comparison.comparing import Comparison, Difference
from specmd.comparison.fields import said
from specmd.comparison.labels import Labels, label
from specmd.comparison.limits import Limit
from specmd.comparison.matching import Recorded
from specmd.report.table import default_metrics
from specmd.report.text import Cell, Column, Section, Table
from specmd.runs.policy_metrics import look_up, metrics_of

ROWS = 20
"""Most rows of a metric; the largest changes are shown."""
_FIELDS = 8


def shown_metrics(found: Comparison, asked: Sequence[str]) -> list[str]:
    """Return the metrics to show: those asked for and held to limits, or those that say most."""
    runs = found.matched.runs
    names = [look_up(name, runs).name for name in asked] or default_metrics(runs)
    return list(dict.fromkeys([*names, *(limit.metric.name for limit in found.limits)]))


def difference_table(found: Comparison, metrics: Sequence[str], *, everything: bool) -> Table:
    """Lay out what changed against the first column; everything: what did not, too."""
    names, labels = found.matched.columns, label(found.matched)
    crossed = _by_difference(found)
    policies = {id(line): policy for line, policy in labels.lines}
    place = {id(line): number for number, (line, _) in enumerate(labels.lines)}
    sections, hidden = [], 0
    for metric in metrics:
        for column in range(1, len(names)):
            of_it = [
                each
                for each in found.differences
                if each.metric.name == metric and each.column == column
            ]
            changed = [each for each in of_it if each.is_changed]
            rows = of_it if everything else _largest(changed)
            hidden += 0 if everything else len(changed) - len(rows)
            if not rows:
                continue
            rows = sorted(rows, key=lambda each: place[id(each.line)])
            sections.append(
                Section(
                    [_row(e, labels, policies[id(e.line)], crossed.get(id(e), [])) for e in rows],
                    _title(of_it, changed, names[column] if len(names) > 2 else ""),
                )
            )
    notes = summary(found, metrics)
    if hidden:
        notes.insert(1, f"{hidden:,} more changes, smaller ones: --all shows every row")
    columns = [*map(Column, labels.titles), *(Column(text, number=True) for text in _NUMBERS)]
    return Table([*columns, Column("sure")] if sections else [], sections, notes, _heading(found))


_NUMBERS = ("baseline", "new", "difference", "%", "95 % interval (%)")


def _row(each: Difference, labels: Labels, policy: str, crossed: Sequence[Limit]) -> list[Cell]:
    text = each.metric.text
    interval = [each.share(each.evidence.low), each.share(each.evidence.high)]
    numbers = [
        text(each.old) if each.old is not None else _missing(each.line.cells[0]),
        text(each.new) if each.new is not None else _missing(each.line.cells[each.column]),
        _signed(each.absolute, text(each.absolute)),
        _percent(each.relative),
        "-" if None in interval else f"{_percent(interval[0])} to {_percent(interval[1])}",
    ]
    past = [f"past {limit.spelled.partition(':')[2].strip()}" for limit in crossed]
    words = [*labels.words(each.line, policy), *numbers, ", ".join([verdict(each), *past])]
    return [Cell(word, "bold" if crossed else "") for word in words]


def verdict(each: Difference) -> str:
    """Say whether a metric got better or worse, and what that rests on."""
    basis = {
        "exact": "exact",
        "repetitions": f"{each.evidence.count} repetitions",
        "requests": f"{each.evidence.count} requests",
        "unknown": "one play: not known",
    }[each.evidence.basis]
    if each.new is None or each.old is None:
        return "no value" if each.new is None else "new value"
    if each.is_real is False:
        return "same" if not each.absolute else f"within noise, {basis}"
    if each.evidence.basis == "exact" and each.evidence.count:
        low, high = each.evidence.low or 0.0, each.evidence.high or 0.0
        basis += f"; {each.evidence.count} requests" + ("" if low * high > 0 else " disagree")
    return ", ".join(filter(None, [each.direction or "other", basis]))


def _missing(cell: Recorded | None) -> str:
    return cell.run.status if cell is not None and cell.run.status != "ok" else "-"


def _title(of_it: Sequence[Difference], changed: Sequence[Difference], column: str) -> str:
    metric = of_it[0].metric
    ways = [each.direction for each in changed]
    counts = [f"{ways.count(way)} {way}" for way in ("worse", "better") if way in ways]
    best = "" if metric.better == "neither" else f", {metric.better} is better"
    told = ": " + ", ".join(counts) if counts else ""
    words = [f"{metric.label}{best}", f"{len(changed)} of {len(of_it)} changed{told}"]
    return " · ".join([*([column] if column else []), *words])


def _heading(found: Comparison) -> str:
    first, *others = found.matched.columns
    return f"{first} → {', '.join(others)}"


def summary(found: Comparison, metrics: Sequence[str]) -> list[str]:
    """Say what was compared, what differs in it, and what could not be compared."""
    matched = found.matched
    pairs = {(id(each.line), each.column): each for each in found.differences}
    notes = [f"{count_of(len(pairs), 'pair')} of {_sources(found)} runs"]
    arrow = " | " if matched.by else " → "
    differs = [
        f"{name} {arrow.join(dict.fromkeys(map(said, values)))}"
        for name, values in matched.compared.items()
        if name not in matched.by
    ]
    more = f", and {len(differs) - _FIELDS} more" if len(differs) > _FIELDS else ""
    if differs:
        notes.append(
            f"differs{', too' if matched.by else ''}: {', '.join(differs[:_FIELDS])}{more}"
        )
    elif not matched.by:
        notes.append("differs: nothing that a run says of its inputs and of its making")
    counts: dict[str, int] = {}
    for each in found.changed:
        counts[each.metric.name] = counts.get(each.metric.name, 0) + 1
    if not found.differences:
        notes[0] = "nothing to hold beside another: no pair of runs has numbers"
    elif not counts:
        alike = len({each.metric.name for each in found.differences})
        notes.insert(0, f"nothing changed: {alike} metrics of every pair are the same")
    else:
        beside = {name: count for name, count in counts.items() if name not in metrics}
        if beside and not matched.by:
            known = metrics_of(matched.runs)
            spelled = ", ".join([n for n in known if n in beside][:_FIELDS])
            spelled += f" and {len(beside) - _FIELDS} more" if len(beside) > _FIELDS else ""
            notes.append(f"changed, too (--metric NAME shows it): {spelled}")
    digests = [[each.run.decision_digest for each in line.present] for line in matched.lines]
    decided = [first == other for first, *rest in digests for other in rest if first or other]
    if decided:
        notes.append(f"decisions are the same in {sum(decided):,} of {len(decided):,} pairs")
    notes += [f"not compared: {text}" for text in matched.alone]
    notes += [f"compared anyway: {text}" for text in found.cautions]
    return notes


def count_of(number: int, noun: str) -> str:
    """Spell a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _sources(found: Comparison) -> str:
    return " and ".join(sorted({run.source for run in found.matched.runs}))


def _by_difference(found: Comparison) -> Mapping[int, list[Limit]]:
    crossed: dict[int, list[Limit]] = {}
    for limit, each in found.crossed():
        crossed.setdefault(id(each), []).append(limit)
    return crossed


def _largest(changed: Sequence[Difference]) -> list[Difference]:
    def size(each: Difference) -> float:
        return float("inf") if each.relative is None else abs(each.relative)

    return sorted(changed, key=size, reverse=True)[:ROWS]


def records(found: Comparison, metrics: Sequence[str], *, everything: bool) -> list[dict[str, Any]]:
    """Return the differences for programs, in SI units."""
    labels, names = label(found.matched), found.matched.columns
    crossed = _by_difference(found)
    rows = []
    of_line: dict[int, list[Difference]] = {}
    for each in found.differences:
        of_line.setdefault(id(each.line), []).append(each)
    for line, policy in labels.lines:
        for each in of_line.get(id(line), ()):
            if each.metric.name not in metrics:
                continue
            if not (each.is_changed or everything):
                continue
            old, new = line.cells[0], line.cells[each.column]
            assert old is not None
            assert new is not None
            rows.append(
                {
                    "baseline": names[0],
                    "compared": names[each.column],
                    "policy": policy,
                    **{name: line.key.get(name) for name in labels.fields},
                    "metric": each.metric.name,
                    "unit": each.metric.unit,
                    "old": each.old,
                    "new": each.new,
                    "difference": each.absolute,
                    "relative": each.relative,
                    "basis": each.evidence.basis,
                    "count": each.evidence.count,
                    "low": each.evidence.low,
                    "high": each.evidence.high,
                    "changed": each.is_real,
                    "direction": each.direction,
                    "past": [limit.spelled for limit in crossed.get(id(each), [])],
                    "old_source": old.run.source,
                    "new_source": new.run.source,
                    "old_id": old.run.id,
                    "new_id": new.run.id,
                }
            )
    return rows


def _signed(value: float | None, text: str) -> str:
    return f"+{text}" if value is not None and value > 0 else text


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return "0.0" if round(share * 100, 1) == 0 else f"{share * 100:+,.1f}"


def crossing(found: Comparison, limit: Limit, each: Difference) -> str:
    """Say which metric of which runs is past a threshold, in one line."""
    labels = label(found.matched)
    policy = next(policy for line, policy in labels.lines if line is each.line)
    names = found.matched.columns
    titled = zip(labels.titles[1:], labels.words(each.line, policy)[1:], strict=True)
    where = ", ".join([policy, *(f"{title} {word}" for title, word in titled)])
    at = each.line.cells[each.column]
    share = "" if each.relative is None else f"{_percent(each.relative)} %, "
    new = each.metric.text(each.new, with_unit=True) if each.new is not None else _missing(at)
    return (
        f"past {limit.spelled}: {where}: {each.metric.name} "
        f"{each.metric.text(each.old, with_unit=True)} in {names[0]}, {new} in "
        f"{names[each.column]} ({share}{verdict(each)})"
    )
