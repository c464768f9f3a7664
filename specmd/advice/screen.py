"""The answer on one screen: a column for each device, then the commands, then what was left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from specmd.advice.answer import Answer, Column
from specmd.advice.commands import commands
from specmd.advice.question import METRIC
from specmd.advice.requests import Spread
from specmd.advice.space import PARTS, Composition, composition, spell
from specmd.report import text
from specmd.report.text import Cell, Section, Table, cells

if TYPE_CHECKING:
    from specmd.advice.live import Measured

NAMES = {"tpot": "TPOT", "ttft": "TTFT", "total": "total time"}


def headline(answer: Answer) -> str:
    """Say what was asked."""
    return (
        f"{answer.trace} ({answer.model}), {answer.question.memory}: {answer.slots:,} of "
        f"{answer.keys:,} experts fit; least {NAMES[answer.question.objective]}"
    )


def letters(answer: Answer) -> dict[Composition, str]:
    """Give every composition that is spoken of a letter, the winners first."""
    spoken = [column.composition for column in answer.columns]
    spoken += [composition(c.second.config) for c in answer.columns if c.second is not None]
    spoken += [best for size in answer.sizes for best, _ in size.best.values() if best]
    unique = dict.fromkeys(spoken)
    names = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return {each: names[place % len(names)] for place, each in enumerate(unique)}


def winners(answer: Answer) -> list[str]:
    """Say what is best where, a line for each composition."""
    found: dict[Composition, list[str]] = {}
    for column in answer.columns:
        found.setdefault(column.composition, []).append(column.profile)
    named = letters(answer)
    return [
        f"{named[best]} = {spell(best)}: best on {', '.join(profiles)}"
        for best, profiles in found.items()
    ]


def others(answer: Answer) -> list[str]:
    """Spell the other compositions that have a letter."""
    best = {column.composition for column in answer.columns}
    return [f"{n} = {spell(each)}" for each, n in letters(answer).items() if each not in best]


def answer_table(answer: Answer) -> Table:
    """Make the table: rows are what is said, columns are profiles."""
    named = letters(answer)
    columns = answer.columns
    sections = [
        Section(
            [_row("best", columns, lambda c: named[c.composition]), *_measures(answer)],
        ),
        Section(_certainty(answer, named)),
        Section(_gains(answer), f"What would buy more: {NAMES[answer.question.objective]}, ms"),
        Section(_sizes(answer, named), "Best of the finalists with other memories"),
    ]
    profiles = [text.Column(column.profile, number=True) for column in columns]
    return Table(
        [text.Column("simulated"), *profiles],
        [each for each in sections if each.rows],
        notes=[*winners(answer), *others(answer), *notes(answer)],
        title=headline(answer),
    )


def _row(title: str, columns: Sequence[Column], say: Callable[[Column], str]) -> list[Cell]:
    return cells(title, *(say(column) for column in columns))


def _ms(seconds: float | int | None) -> str:
    return (
        "-"
        if seconds is None
        else f"{seconds * 1e3:,.3g}"
        if seconds < 1
        else f"{seconds * 1e3:,.0f}"
    )


def _spread(seconds: Any, found: Spread | None) -> str:
    if seconds is None:
        return "-"
    if found is None:
        return _ms(seconds)
    return f"{_ms(seconds)} ({_ms(found.low)}-{_ms(found.high)})"


def _measures(answer: Answer) -> list[list[Cell]]:
    columns = answer.columns
    rows = [
        _row("TPOT, ms", columns, lambda c: _spread(c.winner.metrics.get("tpot_s"), c.tpot)),
        _row("TPOT p50, p99, ms", columns, lambda c: _percentiles(c, "tpot")),
        _row("TTFT, ms", columns, lambda c: _spread(c.winner.metrics.get("ttft_s"), c.ttft)),
        _row("hit rate", columns, lambda c: _share(c.winner.metrics.get("hit_rate"))),
        _row("x roofline", columns, lambda c: _times(c.winner.metrics.get("over_roofline"))),
        _row("faster than LRU by", columns, lambda c: _beside(answer, c)),
    ]
    return [row for row in rows if any(cell.text != "-" for cell in row[1:])]


def _percentiles(column: Column, short: str) -> str:
    found = [column.winner.metrics.get(f"{short}_p{p}_s") for p in (50, 99)]
    return "-" if None in found else ", ".join(_ms(each) for each in found)


def _share(value: Any) -> str:
    return "-" if value is None else f"{value:.1%}"


def _times(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}"


def _beside(answer: Answer, column: Column) -> str:
    theirs = answer.question.value(column.default)
    return _percent(theirs / column.ranking[0][1] - 1)


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %" if abs(value) < 1 else f"{100 * value:,.0f} %"


def _certainty(answer: Answer, named: dict[Composition, str]) -> list[list[Cell]]:
    columns = answer.columns
    if all(column.second is None for column in columns):
        return []

    def stays(column: Column) -> str:
        return "one request" if column.lead is None else f"{column.lead.stays_first:.1%}"

    def margin(column: Column) -> str:
        found = column.lead
        if column.second is None:
            return "-"
        if found is None:
            value = answer.question.value(column.second)
            return _percent(value / column.ranking[0][1] - 1)
        return f"{100 * found.margin:.2g} ± {50 * (found.high - found.low):.1g} %"

    def second(column: Column) -> str:
        return "-" if column.second is None else named[composition(column.second.config)]

    return [
        _row("second", columns, second),
        _row("behind by", columns, margin),
        _row("best stays first in", columns, stays),
    ]


def _gains(answer: Answer) -> list[list[Cell]]:
    names = list(dict.fromkeys(name for column in answer.columns for name in column.more))

    def gain(column: Column, name: str) -> str:
        found = column.more.get(name)
        if found is None or found.value_s is None:
            return "-"
        change = found.value_s / column.ranking[0][1] - 1
        return f"{_ms(found.value_s)} ({100 * change:+.0f} %)"

    return [cells(name, *(gain(column, name) for column in answer.columns)) for name in names]


def _sizes(answer: Answer, named: dict[Composition, str]) -> list[list[Cell]]:
    rows = []
    for size in answer.sizes:
        label = f"{_size(size.memory_bytes)}, {size.slots:,} slots"
        if size.all_fits:
            said = ["all fits"] * len(answer.columns)
        else:
            best = [size.best.get(column.profile) for column in answer.columns]
            said = ["-" if each is None else f"{named[each[0]]} {_ms(each[1])}" for each in best]
        rows.append(cells(label, *said))
    return rows


def _size(n_bytes: int) -> str:
    unit, scale = ("GB", 1e9) if n_bytes >= 1e9 else ("MB", 1e6)
    return f"{n_bytes / scale:.3g} {unit}"


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def notes(answer: Answer) -> list[str]:
    """Say how it was found and what was left out."""
    first, second, last = (f"{each / 1e6:.3g} M" for each in answer.accesses)
    part = "the whole trace" if answer.whole else f"its first {last} accesses"
    found = [
        f"{answer.tried} compositions: on prefixes of {first} and {second} accesses, finalists on "
        f"{part}, {_requests(answer.requests)}"
    ]
    reasons: dict[str, list[str]] = {}
    for name, reason in answer.skipped.items():
        reasons.setdefault(reason, []).append(name)
    if reasons:
        said = (f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        found.append("skipped: " + "; ".join(said))
    if any(column.winner.metrics.get("host_experts") for column in answer.columns):
        found.append(
            "the host computes some experts: perfect policy and roofline, which move all of them, "
            "are no bounds of that"
        )
    if answer.failed:
        parts, reason = next(iter(answer.failed.items()))
        found.append(f"{len(answer.failed)} failed, as {spell(parts)}: {reason}")
    return found


def live_table(answer: Answer, measured: Sequence[Measured]) -> Table:
    """Put what was measured live beside the simulation of the same runs."""
    named = letters(answer)
    rows = []
    for each in measured:
        name = f"{named.get(each.parts, '')} {spell(each.parts)}".strip()
        found = each.prediction
        if found is None:
            rows.append([Cell(name), Cell(f"failed: {each.reason}", spill=True)])
            continue
        times = [_ms(found.run.metrics.get("tpot_s")), _ms(found.predicted.get("tpot_s"))]
        rates = [_share(found.run.metrics.get("hit_rate")), _share(found.predicted.get("hit_rate"))]
        rows.append(cells(name, *times, *rates))
    heads = ["TPOT, ms, measured", f"simulated ({answer.columns[0].profile})"]
    heads += ["hit rate, measured", "simulated"]
    columns = [text.Column("live"), *(text.Column(head, number=True) for head in heads)]
    device = next((each.prediction.run.label for each in measured if each.prediction), "")
    return Table(columns, [Section(rows)], notes=[device])


def records(answer: Answer, trace: str, measured: Sequence[Measured] = ()) -> list[dict[str, Any]]:
    """Return a record for each profile, for programs; what was measured is in that of the first."""
    metric = METRIC[answer.question.objective]
    found: list[dict[str, Any]] = []
    for column in answer.columns:
        lead = column.lead
        found.append(
            {
                "profile": column.profile,
                "trace": answer.trace,
                "memory": answer.question.memory,
                "slots": answer.slots,
                "objective": metric,
                **dict(zip(PARTS, column.composition, strict=True)),
                **{
                    name: column.winner.metrics.get(name)
                    for name in ("tpot_s", "ttft_s", "total_s", "hit_rate", "over_roofline")
                },
                "tpot_low_s": column.tpot and column.tpot.low,
                "tpot_high_s": column.tpot and column.tpot.high,
                "ttft_low_s": column.ttft and column.ttft.low,
                "ttft_high_s": column.ttft and column.ttft.high,
                "stays_first": lead and lead.stays_first,
                "margin": lead and lead.margin,
                "second": column.second
                and spell(tuple(getattr(column.second.config, part) for part in PARTS)),
                "lru_s": answer.question.value(column.default),
                "more": {name: each.value_s for name, each in column.more.items()},
                "commands": commands(answer, trace),
                "skipped": dict(answer.skipped),
            }
        )
    if measured:
        found[0]["live"] = [_live_record(each) for each in measured]
    return found


def _live_record(each: Measured) -> dict[str, Any]:
    found = each.prediction
    record: dict[str, Any] = {"composition": spell(each.parts), "reason": each.reason}
    for name in ("tpot_s", "hit_rate"):
        record[f"measured_{name}"] = found and found.run.metrics.get(name)
        record[f"simulated_{name}"] = found and found.predicted.get(name)
    return record


_NESTED = ("more", "skipped", "live")


def flat(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flatten the records for CSV."""
    rows = []
    for record in records:
        row = {key: value for key, value in record.items() if key not in _NESTED}
        row |= {f"more_{name.replace(' ', '_')}_s": v for name, v in record["more"].items()}
        rows.append(row | {"commands": "; ".join(record["commands"])})
    return rows
