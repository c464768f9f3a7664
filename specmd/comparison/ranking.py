"""Does the ranking of policies change from one column to the next, and at which capacity.

An arena is where policies meet: the same trace, capacity and options. In each column of an arena
(a GPU, a commit) the policies have an order by a metric. Two orders are compared by Kendall's tau-b
(1945): 1 where every pair of policies stands the same way round, -1 where each is reversed; ties
count for neither. Winners are among those that can be run: what knows the future is ranked, but
does not win.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from specmd.comparison.evidence import difference, evidence, value_of
from specmd.comparison.fields import Value
from specmd.comparison.labels import Labels
from specmd.comparison.matching import Line, Recorded
from specmd.report.names import is_clairvoyant
from specmd.runs.metrics import Metric


@dataclass(frozen=True)
class Place:
    """Who is ahead in one column of an arena; `margin` is to the next, as a share.

    `is_sure` says whether repetitions or requests put the winner ahead of the next, None where
    neither is known.
    """

    winners: tuple[str, ...]
    value: float
    margin: float | None
    is_sure: bool | None

    @property
    def name(self) -> str:
        """Winners that are level, in one word."""
        return " = ".join(self.winners)


@dataclass(frozen=True)
class Arena:
    """Policies under the same circumstances; a place a column, None where nothing was run.

    Only policies that every column has are ranked; `left_out` is the number of others.
    """

    where: Mapping[str, Value]
    places: tuple[Place | None, ...]
    ranks: Mapping[str, tuple[float | None, ...]]
    taus: Mapping[tuple[int, int], float]
    left_out: int = 0

    @property
    def least_tau(self) -> float | None:
        """Rank correlation of the two columns that agree least; None if none can be told."""
        return min(self.taus.values(), default=None)

    @property
    def is_one_winner(self) -> bool:
        """Whether one policy is ahead, or level with the best, in every column."""
        found = [set(place.winners) for place in self.places if place is not None]
        return bool(set.intersection(*found)) if found else True


def arenas(labels: Labels, columns: int, metric: Metric) -> list[Arena]:
    """Rank the policies of every arena in every column."""

    def where(each: tuple[Line, str]) -> tuple[tuple[str, Value], ...]:
        return tuple((name, each[0].key.get(name)) for name in labels.fields)

    return [
        _arena(dict(place), list(group), columns, metric)
        for place, group in groupby(labels.lines, key=where)
    ]


def _arena(
    where: Mapping[str, Value], lines: Sequence[tuple[Line, str]], columns: int, metric: Metric
) -> Arena:
    values: dict[str, list[float | None]] = {}
    real: dict[str, Line] = {}
    for line, policy in lines:
        values[policy] = [
            None if cell is None else value_of(cell.run, metric.name) for cell in line.cells
        ]
        if not is_clairvoyant(line.first):
            real[policy] = line
    met, values = len(values), _everywhere(values, columns)
    real = {policy: line for policy, line in real.items() if policy in values}
    taus = {}
    for one, other in combinations(range(columns), 2):
        both = [(v[one], v[other]) for v in values.values()]
        tau = kendall([(a, b) for a, b in both if a is not None and b is not None])
        if tau is not None:
            taus[one, other] = tau
    return Arena(
        where,
        tuple(
            _place({p: values[p][c] for p in real}, {p: real[p].cells[c] for p in real}, metric)
            for c in range(columns)
        ),
        _ranks(values, columns, metric),
        taus,
        met - len(values),
    )


def _everywhere(
    values: Mapping[str, Sequence[float | None]], columns: int
) -> dict[str, list[float | None]]:
    """Keep the policies that have a value in every column in which any has one."""
    there = [c for c in range(columns) if any(v[c] is not None for v in values.values())]
    return {p: [*v] for p, v in values.items() if all(v[c] is not None for c in there)}


def _place(
    values: Mapping[str, float | None], cells: Mapping[str, Recorded | None], metric: Metric
) -> Place | None:
    known = {policy: value for policy, value in values.items() if value is not None}
    if not known:
        return None
    pick = max if metric.better == "higher" else min
    best = pick(known.values())
    winners = tuple(policy for policy, value in known.items() if not difference(best, value))
    others = {policy: value for policy, value in known.items() if policy not in winners}
    if not others:
        return Place(winners, best, None, None)
    next_policy = pick(others, key=lambda policy: others[policy])
    margin = abs(others[next_policy] - best) / abs(best) if best else None
    ahead, behind = cells[winners[0]], cells[next_policy]
    assert ahead is not None
    assert behind is not None
    found = evidence(behind, ahead, metric.name)
    sure = None if found.low is None or found.high is None else not found.low <= 0 <= found.high
    return Place(winners, best, margin, sure)


def _ranks(
    values: Mapping[str, Sequence[float | None]], columns: int, metric: Metric
) -> dict[str, tuple[float | None, ...]]:
    """Rank from 1, the best; those that are level share the mean of their ranks."""

    def rank(policy: str, column: int) -> float | None:
        own = values[policy][column]
        if own is None:
            return None
        others = [v[column] for p, v in values.items() if p != policy]
        known = [value for value in others if value is not None]
        level = [not difference(own, value) for value in known]
        ahead = [metric.is_better(v, own) for v, e in zip(known, level, strict=True) if not e]
        return 1 + sum(ahead) + sum(level) / 2

    return {policy: tuple(rank(policy, c) for c in range(columns)) for policy in values}


def kendall(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Kendall's tau-b of two orders; None where one of them is no order, or too short."""
    agree = one = other = 0
    for (a, x), (b, y) in combinations(pairs, 2):
        left, right = difference(a, b), difference(x, y)
        agree += (left * right > 0) - (left * right < 0)
        one += left != 0
        other += right != 0
    return agree / math.sqrt(one * other) if one and other else None


def verdicts(found: Sequence[Arena], columns: Sequence[str], metric: Metric, by: str) -> list[str]:
    """Answer in words: where the winner depends on the column, and where on the capacity."""
    contested = [arena for arena in found if sum(place is not None for place in arena.places) > 1]
    if not contested:
        return []
    apart = [arena for arena in contested if not arena.is_one_winner]
    places = "capacities" if set(found[0].where) <= {"capacity_slots"} else "places"
    everywhere = f", at all {len(contested)} {places}" if len(contested) > 1 else ""
    told = [f"the winner by {metric.name} is the same in every column{everywhere}"]
    if apart:
        where = "; ".join(spell(arena) for arena in apart)
        told = [
            f"the winner by {metric.name} changes with {by} at {len(apart)} of {len(contested)} "
            f"{places}: {where}"
        ]
    taus = [(tau, pair, arena) for arena in contested for pair, tau in arena.taus.items()]
    if taus:
        least, (one, other), arena = min(taus, key=lambda each: each[0])
        told.append(
            f"rank correlation (Kendall's tau-b) is 1 in {sum(t == 1 for t, *_ in taus)} of "
            f"{len(taus)} comparisons of two columns; least {least:+.2f}: {columns[one]} and "
            f"{columns[other]} at {spell(arena)}"
        )
    short = [arena for arena in found if arena.left_out]
    if short:
        told.append(
            f"not ranked at {len(short)} of {len(found)} {places}: policies that a column lacks, "
            f"e.g. {short[0].left_out} at {spell(short[0])}"
        )
    return told + _along(found, columns)


def _along(found: Sequence[Arena], columns: Sequence[str]) -> list[str]:
    """Say in which columns the winner changes as the capacity grows."""
    told = []
    groups: dict[tuple[str, ...], list[Arena]] = {}
    for arena in found:
        beside = tuple(str(v) for k, v in arena.where.items() if k != "capacity_slots")
        groups.setdefault(beside, []).append(arena)
    for beside, group in groups.items():
        turns: dict[str, list[str]] = {}
        for place, name in enumerate(columns):
            steps = [
                (arena.where.get("capacity_slots"), at.name)
                for arena in group
                if (at := arena.places[place]) is not None
            ]
            new = [each for i, each in enumerate(steps) if i == 0 or steps[i - 1][1] != each[1]]
            if len(new) > 1:
                text = ", ".join(f"{won} from {slots} slots" for slots, won in new)
                turns.setdefault(text, []).append(name)
        where = f" ({', '.join(beside)})" if beside else ""
        told += [f"{', '.join(names)}{where}: {text}" for text, names in turns.items()]
    return told


def spell(arena: Arena) -> str:
    """Say where an arena is: `51 slots`."""
    words = []
    for name, value in arena.where.items():
        slots = name == "capacity_slots" and isinstance(value, int)
        words.append(f"{value:,} slots" if slots else str(value))
    return ", ".join(words) or "the one capacity there is"
