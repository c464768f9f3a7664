"""Scores of experts: the best of them, probabilities, and the votes of a step's tokens by rank.

A predictor scores the experts of a layer for each token of a step. What a cache is asked for is the
union of the tokens' choices, so the tokens vote: each for its best `width` experts, by rank.
"""

from __future__ import annotations

import math
from typing import Any

from specmd.core.event import FloatArray

OUT = -1e300  # below every score: taken already


def largest(values: FloatArray) -> int:
    """Return the index of the largest value, of equals the first."""
    best, most = 0, values[0]
    for i in range(1, len(values)):
        if values[i] > most:
            best, most = i, values[i]
    return best


def fill(values: FloatArray, value: float) -> None:
    """Set every value."""
    for i in range(len(values)):
        values[i] = value


def vote(votes: FloatArray, row: Any, width: int, scratch: FloatArray) -> None:
    """Add a token's votes: `width` for its best expert, one fewer for the next, and so on.

    `row` are its scores, (experts,). The margin to the next lower score breaks ties between tokens.
    """
    for expert in range(len(scratch)):
        scratch[expert] = float(row[expert])
    expert = largest(scratch)
    for place in range(width):
        score = scratch[expert]
        scratch[expert] = OUT
        following = largest(scratch)
        margin = min(score - max(scratch[following], -1e30), 1e5)
        votes[expert] += width - place + margin / 1e6
        expert = following


def vote_worth(votes: FloatArray, row: Any, width: int, least: float, scratch: FloatArray) -> None:
    """Add what a token's best `width` experts are worth to it: `least` at least, and not 0.

    `row` are its scores, (experts,), none below 0; `scratch` may be the same.
    """
    for expert in range(len(scratch)):
        scratch[expert] = float(row[expert])
    for _ in range(width):
        expert = largest(scratch)
        if scratch[expert] <= 0.0 or scratch[expert] < least:
            break
        votes[expert] += scratch[expert]
        scratch[expert] = 0.0


def vote_until(
    votes: FloatArray, row: Any, share: float, least: int, most: int, scratch: FloatArray
) -> None:
    """Add the probabilities of a token's likeliest experts, until they have `share` of it.

    `row` are probabilities, (experts,); no fewer than `least` and no more than `most` are taken.
    """
    for expert in range(len(scratch)):
        scratch[expert] = float(row[expert])
    covered = 0.0
    for place in range(most):
        if place >= least and covered >= share:
            break
        expert = largest(scratch)
        covered += scratch[expert]
        votes[expert] += max(scratch[expert], 1e-9)
        scratch[expert] = OUT


def add_softmax(total: FloatArray, row: Any, scratch: FloatArray) -> None:
    """Add the probabilities of scores, (experts,)."""
    softmax(row, scratch)
    for expert in range(len(scratch)):
        total[expert] += scratch[expert]


def softmax(row: Any, scores: FloatArray) -> None:
    """Turn scores, (experts,), into probabilities."""
    highest = float(row[0])
    for expert in range(1, len(scores)):
        highest = max(highest, float(row[expert]))
    total = 0.0
    for expert in range(len(scores)):
        scores[expert] = math.exp(float(row[expert]) - highest)
        total += scores[expert]
    for expert in range(len(scores)):
        scores[expert] /= total
