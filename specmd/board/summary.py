"""What the board says as a whole: medians by how much was fitted, and the rows furthest off.

Rows are judged apart by the anchors of their group, two or fewer, and of these once more those
without any. Anchors themselves are in no median: what a profile was fitted to is no prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from specmd.board.predict import Verdict
from specmd.board.rows import MOST_ANCHORS

TWO, FEWER, NONE = "two anchors", "fewer anchors", "those of them without an anchor"
WORST = 8


@dataclass(frozen=True)
class Median:
    """The errors of a class of rows: of the time per token, without sign."""

    title: str
    rows: int
    error: float
    largest: float
    within: float  # share of rows at most a quarter off


def kind_of(verdict: Verdict) -> str:
    """Class of a row by the anchors of its group."""
    return TWO if verdict.anchors >= MOST_ANCHORS else FEWER


def medians(verdicts: Sequence[Verdict]) -> list[Median]:
    """Median errors of the rows that are predictions, class by class."""
    found = []
    for title, counts in ((TWO, (MOST_ANCHORS,)), (FEWER, (0, 1)), (NONE, (0,))):
        errors = [
            abs(each.error)
            for each in predictions(verdicts)
            if each.anchors in counts and each.error is not None
        ]
        if errors:
            near = sum(error <= 0.25 for error in errors) / len(errors)
            found.append(Median(title, len(errors), median(errors), max(errors), near))
    return found


def worst(verdicts: Sequence[Verdict], count: int = WORST) -> list[Verdict]:
    """Predictions furthest off, by the logarithm of their ratio, the furthest first."""
    return sorted(
        predictions(verdicts), key=lambda each: -abs(math.log(max(each.ratio or 1.0, 1e-9)))
    )[:count]


def predictions(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Verdicts with a ratio, anchors left out."""
    return [each for each in verdicts if each.ratio is not None and each.row.anchor == "none"]


def hit_rate_gap(verdicts: Iterable[Verdict], label: str) -> tuple[int, float] | None:
    """Rows of a kind of routing with a published hit rate, and the largest distance; or None."""
    gaps = [
        abs(each.hit_rate - each.row.hit_rate)
        for each in verdicts
        if each.label == label and each.hit_rate is not None and each.row.hit_rate is not None
    ]
    return (len(gaps), max(gaps)) if gaps else None
