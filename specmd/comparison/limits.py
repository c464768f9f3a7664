"""How much worse a metric may get: `tpot:5%`, `ttft:0.2ms`, `hit_rate:0.5pp`, `misses:100`.

What is worse is declared with the metric. A share of the baseline is relative, for every metric;
anything else is in the metric's own unit. Points of a share are `pp`: `hit_rate:1%` allows 99 after
100, `hit_rate:1pp` 79 after 80.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from specmd.errors import SpecmdError
from specmd.runs.metrics import METRICS, Metric, Unit, metric

_UNITS: dict[Unit, dict[str, float]] = {
    "count": {"": 1.0},
    "ratio": {"": 1.0, "x": 1.0},
    "share": {"pp": 0.01},
    "bytes": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    "bytes/token": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    "s": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
    "tokens/s": {"tokens/s": 1.0, "": 1.0},
    "number": {"": 1.0},
}


@dataclass(frozen=True)
class Limit:
    """The most by which a metric may be worse: a share of the baseline, or an amount (SI)."""

    metric: Metric
    spelled: str
    relative: float | None = None
    absolute: float | None = None

    def is_crossed(self, old: float, new: float) -> bool:
        """Whether the new value is worse by more than is allowed."""
        worse = old - new if self.metric.better == "higher" else new - old
        if self.absolute is not None:
            return worse > self.absolute
        return worse > (self.relative or 0.0) * abs(old)


def metric_of(spelled: str) -> Metric:
    """Look a metric up, `tpot` for `tpot_s`; raises SpecmdError with the closest names."""
    timed = f"{spelled}_s"
    return METRICS[timed] if spelled not in METRICS and timed in METRICS else metric(spelled)


def parse_limit(text: str) -> Limit:
    """Read `METRIC:AMOUNT`; raises SpecmdError for what cannot be held to."""
    name, colon, amount = text.strip().partition(":")
    if not colon:
        raise SpecmdError(f"--fail-on {text}: write METRIC:AMOUNT, as in tpot:5%")
    found = metric_of(name.strip())
    if found.better == "neither":
        raise SpecmdError(f"--fail-on {text}: no value of {found.name} is better than another")
    parts = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z/%]*)", amount.strip())
    units = _UNITS[found.unit]
    if parts is None or parts[2] not in ("%", *units):
        named = [f"5{unit}" for unit in ("%", *units)]
        raise SpecmdError(f"--fail-on {text}: write the amount as {' or '.join(named)}")
    number, unit = float(parts[1]), parts[2]
    if unit == "%":
        return Limit(found, text, relative=number / 100)
    return Limit(found, text, absolute=number * units[unit])
