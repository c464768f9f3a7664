"""Runs that could not be compared: how many of which column, why, and one of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from specmd.comparison.fields import Value, said
from specmd.report.names import policy_name
from specmd.runs.run import Run

Row = Mapping[str, Value]


@dataclass(frozen=True)
class Leftover:
    """A run without a partner: its column, its inputs, and what is wrong ("" for no partner)."""

    place: int
    run: Run
    row: Row
    reason: str = ""


def told(
    left: Sequence[Leftover],
    names: Sequence[str],
    tables: Sequence[Sequence[Row]],
    compared: Collection[str],
) -> tuple[str, ...]:
    """Say of every column which runs are left over; `tables` are the inputs of all its runs."""
    found = []
    for place, name in enumerate(names):
        for reason in dict.fromkeys(each.reason for each in left if each.place == place):
            some = [each for each in left if each.place == place and each.reason == reason]
            count = f"{name}: {len(some)} of {len(tables[place])} runs"
            first = some[0]
            example = f"{policy_name(first.run)} at {first.run.config.capacity_slots:,} slots"
            if reason:
                found.append(f"{count} left out: {reason}, e.g. {example}")
                continue
            others = [row for other, table in enumerate(tables) if other != place for row in table]
            apart = _nearest(first.row, others, compared)
            found.append(f"{count} have no partner, e.g. {example}: the nearest has {apart}")
    return tuple(found)


def _nearest(row: Row, others: Sequence[Row], compared: Collection[str]) -> str:
    """Say in what the row that differs least from this one differs."""
    apart = [
        {
            name: other.get(name)
            for name in {**row, **other}
            if name not in compared and row.get(name) != other.get(name)
        }
        for other in others
    ]
    least = min(apart, key=lambda each: (len(each), sum(_far(row.get(n), each[n]) for n in each)))
    words = [f"{name} {said(value)}, not {said(row.get(name))}" for name, value in least.items()]
    return "; ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _far(one: Value, other: Value) -> float:
    """Return how far apart two numbers are, as a share; 1 for all else."""
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return 1.0
    return abs(one - other) / max(abs(one), abs(other), 1)
