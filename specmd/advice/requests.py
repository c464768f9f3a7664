"""Times of each request, and how sure they make a ranking: a paired bootstrap over requests.

Requests differ far more from each other than compositions do on one request; so the same requests
are drawn, with replacement, for all compositions, and the difference is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from specmd.runs.run import Run

Seconds = NDArray[np.float64]

DRAWS = 2000
_TAILS = (2.5, 97.5)


class RequestTimes(NamedTuple):
    """Of each request, (R,): NaN where it has none."""

    ttft_s: Seconds
    tpot_s: Seconds  # mean of the decode steps it took part in
    decode_steps: NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """How a mean over requests would move with other requests of the same kind; None if one."""

    low: float
    high: float
    requests: int


@dataclass(frozen=True)
class Lead:
    """How far the first is ahead of the second: a share of the first's time, and how surely."""

    margin: float
    low: float
    high: float
    stays_first: float  # share of the draws in which it is first
    requests: int


def request_times(run: Run) -> RequestTimes | None:
    """Return the times of a run's requests; None without a clock."""
    found = run.details
    if found is None:
        return None
    return RequestTimes(found.request_ttft_s, found.request_tpot_s, found.request_decode_steps)


def sums(times: RequestTimes, objective: str) -> tuple[Seconds, Seconds]:
    """Return (R,) seconds and (R,) weights, whose quotient of sums is the objective's mean."""
    spent = np.nan_to_num(times.tpot_s) * times.decode_steps
    steps = times.decode_steps.astype(np.float64)
    known = ~np.isnan(times.ttft_s)
    if objective == "tpot":
        return spent, steps
    if objective == "ttft":
        return np.nan_to_num(times.ttft_s), known.astype(np.float64)
    return spent + np.nan_to_num(times.ttft_s), np.ones(len(steps))


def draw_counts(requests: int, seed: int) -> NDArray[np.float64]:
    """Return (DRAWS, requests): how often each draw has each request."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(requests, np.full(requests, 1 / requests), DRAWS).astype(np.float64)


def spread(times: RequestTimes | None, objective: str, seed: int) -> Spread | None:
    """Return the middle 95 % of the mean over drawn requests; None where one or none has times."""
    if times is None:
        return None
    total, weight = sums(times, objective)
    some = weight > 0
    if some.sum() < 2:
        return None
    counts = draw_counts(int(some.sum()), seed)
    means = (counts @ total[some]) / (counts @ weight[some])
    low, high = np.percentile(means, _TAILS).tolist()
    return Spread(low, high, int(some.sum()))


def lead(
    first: RequestTimes | None, second: RequestTimes | None, objective: str, seed: int
) -> Lead | None:
    """Compare two runs by the same drawn requests; None where fewer than two have times."""
    if first is None or second is None:
        return None
    ours, weight = sums(first, objective)
    theirs, _ = sums(second, objective)
    some = weight > 0
    if some.sum() < 2:
        return None
    counts = draw_counts(int(some.sum()), seed)
    ours, theirs = ours[some], theirs[some]
    margins = (counts @ theirs) / (counts @ ours) - 1
    low, high = np.percentile(margins, _TAILS).tolist()
    return Lead(
        float(theirs.sum() / ours.sum() - 1),
        low,
        high,
        float(np.mean(margins > 0)),
        int(some.sum()),
    )
