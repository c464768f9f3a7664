"""Compare: runs in columns, every metric of every line beside the first column's.

A `Difference` is one metric of one line in one column against the baseline, with what it rests on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from specmd.comparison.agreement import disagreements, require_agreement
from specmd.comparison.evidence import Evidence, difference, evidence, value_of
from specmd.comparison.limits import Limit, metric_of, parse_limit
from specmd.comparison.matching import Line, Matched, by_fields, gather, match
from specmd.errors import SpecmdError
from specmd.runs.metrics import Metric
from specmd.runs.policy_metrics import metrics_of


@dataclass(frozen=True)
class Difference:
    """A metric of a line: its value in the first column, and in another one; SI units."""

    line: Line
    column: int
    metric: Metric
    old: float | None
    new: float | None
    evidence: Evidence

    @property
    def absolute(self) -> float | None:
        """Return `new - old`."""
        return None if self.old is None or self.new is None else difference(self.old, self.new)

    @property
    def relative(self) -> float | None:
        """Return the difference as a share of the old value."""
        return self.share(self.absolute)

    def share(self, amount: float | None) -> float | None:
        """Return an amount as a share of the old value; None where that is 0."""
        if amount is None or not self.old:
            return None if amount else amount
        return amount / abs(self.old)

    @property
    def is_real(self) -> bool | None:
        """Whether the values differ; None where that cannot be told."""
        if self.absolute is None:
            return self.old is not self.new
        return self.evidence.is_real(self.absolute)

    @property
    def is_changed(self) -> bool:
        """Whether to show it: it differs, or is not known not to."""
        return self.is_real is not False

    @property
    def direction(self) -> str:
        """Return `better`, `worse`, or "" for neither."""
        if not self.absolute or self.old is None or self.new is None or self.is_real is False:
            return "worse" if self.new is None and self.old is not None else ""
        if self.metric.better == "neither":
            return ""
        return "better" if self.metric.is_better(self.new, self.old) else "worse"

    def crosses(self, limit: Limit) -> bool:
        """Whether it is worse by more than is allowed, and more than noise; so is a lost value."""
        if limit.metric.name != self.metric.name or self.old is None:
            return False
        if self.new is None:
            return True
        return self.is_changed and limit.is_crossed(self.old, self.new)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, and in what they differ; `cautions` is what was compared all the same."""

    matched: Matched
    limits: tuple[Limit, ...] = ()
    cautions: tuple[str, ...] = ()

    @cached_property
    def differences(self) -> list[Difference]:
        """Every metric of every line of the first column, in every other one."""
        found: list[Difference] = []
        for line in self.matched.lines:
            if line.cells[0] is None:
                continue
            for place in range(1, len(line.cells)):
                if line.cells[place] is not None:
                    found += _differences(line, place)
        return found

    @property
    def changed(self) -> list[Difference]:
        """Those that differ, or are not known not to."""
        return [each for each in self.differences if each.is_changed]

    def crossed(self) -> list[tuple[Limit, Difference]]:
        """Return what is past a threshold; raises SpecmdError for a limit with nothing to hold."""
        for limit in self.limits:
            if not any(each.metric == limit.metric for each in self.differences):
                raise SpecmdError(
                    f"--fail-on {limit.spelled}: no runs that are compared have {limit.metric.name}"
                )
        return [
            (limit, each)
            for limit in self.limits
            for each in self.differences
            if each.crosses(limit)
        ]


def compare(
    *paths: str | Path,
    by: Sequence[str] = (),
    fail_on: Iterable[str] = (),
    anyway: bool = False,
) -> Comparison:
    """Compare folders of runs, or run files; the first is the baseline.

    Args:
        *paths: what `specmd sweep --out` and `specmd run --out` wrote.
        by: fields whose values are the columns, instead of the paths.
        fail_on: thresholds as `specmd.comparison.limits` reads them, for `crossed()`.
        anyway: compare runs of different contracts or traces, too, and measured with simulated.

    Raises:
        SpecmdError: nothing to compare, or what should not be.

    """
    limits = tuple(parse_limit(text) for text in fail_on)
    if len(paths) < 2 and not by:
        raise SpecmdError("one place of runs: name another to compare it with, or say --by FIELD")
    columns = gather(paths)
    matched = match(by_fields(columns, by) if by else columns, by)
    if not matched.lines:
        raise SpecmdError(f"nothing to compare: {'; '.join(matched.alone)}")
    if not anyway:
        require_agreement(matched)
    return Comparison(matched, limits, tuple(disagreements(matched)) if anyway else ())


def chosen(names: Iterable[str]) -> list[str]:
    """Return metrics by their full names; raises SpecmdError for an unknown one.

    One of a policy's own is known to the runs only.
    """
    return [name if "." in name else metric_of(name).name for name in names]


def _differences(line: Line, place: int) -> Iterable[Difference]:
    old, new = line.cells[0], line.cells[place]
    assert old is not None
    assert new is not None
    for name, each in metrics_of((old.run, new.run)).items():
        values = value_of(old.run, name), value_of(new.run, name)
        if values == (None, None):
            continue
        rests_on = Evidence("exact") if None in values else evidence(old, new, name)
        yield Difference(line, place, each, *values, rests_on)
