"""How sure a difference is.

Measured runs were played several times: the difference of their means has a confidence interval
(Welch 1947, which lets the two spreads differ; quantiles of Student's t as in any table). A run
that keeps its requests tells how much a difference depends on which requests there were: the same
requests of both runs are drawn again and again with replacement (Efron 1979), by a fixed seed, and
the middle 95 % of the differences is the interval. A simulation has no noise: its numbers are what
they are, and an interval over requests only says how far they carry beyond its trace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from specmd.comparison.matching import Recorded
from specmd.runs.details import Details, Floats
from specmd.runs.metrics import METRICS
from specmd.runs.run import Run

Basis = Literal["exact", "repetitions", "requests", "unknown"]
SEED = 20261126
DRAWS = 2000
_LEVEL = (2.5, 97.5)
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160),
    *(2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056),
    *(2.052, 2.048, 2.045, 2.042),
)
"""Two-sided 95 % quantiles of Student's t, for 1 to 30 degrees of freedom."""
OF_REQUESTS = ("ttft_s", "tpot_s", "hit_rate")
"""Metrics that a run tells of each of its requests."""
_SAME = 1e-9
"""Relative difference that two machines' arithmetic may make."""


@dataclass(frozen=True)
class Evidence:
    """What a difference rests on; `low` to `high` is its 95 % interval in SI units, if any.

    `count` is the repetitions of both runs, or their common requests.
    """

    basis: Basis
    count: int = 0
    low: float | None = None
    high: float | None = None

    def is_real(self, difference: float) -> bool | None:
        """Say whether runs of this difference differ at all; None if that is not known."""
        if self.basis == "exact":
            return difference != 0
        if self.low is None or self.high is None:
            return None if difference else False
        return not self.low <= 0 <= self.high


def value_of(run: Run, name: str) -> float | None:
    """Return a metric of a run: of a measured one that was repeated, the mean of repetitions."""
    value = run.value(name)
    spread = run.measurement.spread.get(name) if run.measurement is not None else None
    return value if spread is None or value is None else spread.mean


def difference(old: float, new: float) -> float:
    """Return `new - old`, 0 where they differ by arithmetic only."""
    return 0.0 if math.isclose(old, new, rel_tol=_SAME) else new - old


def evidence(old: Recorded, new: Recorded, name: str) -> Evidence:
    """Return what the difference of a metric between two runs rests on."""
    if old.run.source == new.run.source == "simulated":
        same = value_of(old.run, name) == value_of(new.run, name)
        over = None if same else _over_requests(old, new, name)
        return Evidence("exact", *(() if over is None else (over.count, over.low, over.high)))
    repeated = _over_repetitions(old.run, new.run, name)
    if repeated is not None:
        return repeated
    if all(_always_decides_alike(each.run) for each in (old, new)) and not _is_timed(name):
        return Evidence("exact")
    return _over_requests(old, new, name) or Evidence("unknown")


def _over_repetitions(old: Run, new: Run, name: str) -> Evidence | None:
    samples = []
    for run in (old, new):
        spread = run.measurement.spread.get(name) if run.measurement is not None else None
        if spread is None and run.source == "measured":
            return None
        values = [] if spread is None else spread.values
        samples.append(values or [run.value(name) or 0.0])
    if max(len(each) for each in samples) < 2 or any(
        len(values) < 2 and run.source == "measured"
        for values, run in zip(samples, (old, new), strict=True)
    ):
        return None
    low, high = welch(*(np.asarray(each, float) for each in samples))
    return Evidence("repetitions", sum(len(each) for each in samples), low, high)


def welch(old: Floats, new: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two means; a single value has no spread."""
    parts = [each.var(ddof=1) / len(each) if len(each) > 1 else 0.0 for each in (old, new)]
    middle, total = float(new.mean() - old.mean()), float(sum(parts))
    if total == 0:
        return middle, middle
    lost = sum(p * p / (len(e) - 1) for p, e in zip(parts, (old, new), strict=True) if p)
    freedom = max(1, int(total * total / lost))
    reach = (_T[min(freedom, len(_T)) - 1] if freedom <= len(_T) else 1.96) * math.sqrt(total)
    return middle - reach, middle + reach


def _over_requests(old: Recorded, new: Recorded, name: str) -> Evidence | None:
    """Draw the requests of both runs again, in pairs; None if they are not known, or under two."""
    if name not in OF_REQUESTS:
        return None
    sides = [_sums(each.run.details, name) for each in (old, new) if each.run.details is not None]
    if len(sides) < 2 or len({array.shape for side in sides for array in side}) > 1:
        return None
    (over, under), (new_over, new_under) = sides
    known = np.isfinite(over) & np.isfinite(new_over) & (under > 0) & (new_under > 0)
    if known.sum() < 2:
        return None
    low, high = bootstrap(*(each[known] for each in (over, under, new_over, new_under)))
    return Evidence("requests", int(known.sum()), low, high)


def bootstrap(
    over: Floats, under: Floats, new_over: Floats, new_under: Floats
) -> tuple[float, float]:
    """Return the 95 % interval of `sum(new_over) / sum(new_under) - sum(over) / sum(under)`.

    All are of shape (requests,); a request is drawn with all four of its numbers.
    """
    drawn = _draws(len(over))
    found = drawn @ new_over / (drawn @ new_under) - drawn @ over / (drawn @ under)
    low, high = np.percentile(found, _LEVEL)
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(count: int) -> npt.NDArray[np.int64]:
    """Return how often each of `count` requests is drawn, (DRAWS, count)."""
    rng = np.random.default_rng(SEED)
    return rng.multinomial(count, np.full(count, 1 / count), size=DRAWS)


def _sums(details: Details, name: str) -> tuple[Floats, Floats]:
    """Return what a metric is a quotient of, by request, each of shape (requests,)."""
    if name == "ttft_s":
        return details.request_ttft_s, np.ones(details.request_ttft_s.shape)
    if name == "tpot_s":
        steps = details.request_decode_steps.astype(np.float64)
        return details.request_tpot_s * steps, steps
    asked = details.request_accesses.astype(np.float64)
    return asked - details.request_misses, asked


def _always_decides_alike(run: Run) -> bool:
    """Whether the counters of a run would be the same in a repetition."""
    return run.measurement is None or len(run.measurement.decision_digests) == 1


def _is_timed(name: str) -> bool:
    return name in METRICS and METRICS[name].group == "time"
