"""A question: what is counted, how it is tabled and drawn, and what the answer is.

Findings are sentences made of numbers, with a verdict, and with the condition under which they
hold. A text holds them word for word, so a number that moves is seen, and so is one that turns
a sentence false.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from specmd.errors import SpecmdError
from specmd.runs.declared import OPTIONS
from specmd.runs.metrics import METRICS, Metric, metric

FOLDER = Path(__file__).resolve().parents[1]
Verdict = Literal["agrees", "differs", "beyond"]
"""What the paper says, too; what it says otherwise; what public sources do not have it say."""

_MORE = {
    "belady": METRICS["hit_rate"],
    "belady_bypass": METRICS["hit_rate"],
    "all_resident_tpot_s": METRICS["tpot_s"],
    "all_resident_ttft_s": METRICS["ttft_s"],
}


def declared(name: str) -> Metric:
    """Return the declaration of a column of numbers: its unit, and which way is better."""
    return _MORE.get(name) or metric(name.rpartition(":")[2])


class Finding(NamedTuple):
    """A sentence with its numbers, its verdict, and whether it holds."""

    verdict: Verdict
    text: str
    holds: bool


@dataclass(frozen=True)
class Table:
    """A pivot of numbers: the best of each column of a trace is bold.

    `where` keeps rows by the value of a column; `rows` and `columns` name options. A column that is
    not that of one run is an error: what is not said by rows, columns and `where` must not vary.
    """

    title: str
    metric: str
    columns: Sequence[str]
    rows: Sequence[str] = ("evict",)
    where: Mapping[str, Sequence[Any]] | None = None
    bound: str = ""
    """A column of numbers that is a last row: what cannot be beaten, the best of each cell."""


@dataclass(frozen=True)
class Figure:
    """Lines of a metric, a panel a trace (or what `panels` names)."""

    x: str
    metric: str
    lines: Sequence[str] = ("evict",)
    panels: str = "trace"
    where: Mapping[str, Sequence[Any]] | None = None
    log: bool = False
    x_label: str = ""
    ticks: Mapping[str, str] = field(default_factory=dict)
    """What is written instead of a value at its tick."""
    title: str = ""
    alike: bool = True
    """Whether panels share an axis of values; not where devices differ by magnitudes."""
    bound: str = ""
    """A column drawn dotted and black, one value an x: what cannot be beaten."""


@dataclass(frozen=True)
class Question:
    """What a folder asks; `findings` is given the numbers of a half, or of both."""

    metrics: Sequence[str]
    tables: Sequence[Table]
    findings: Callable[[Numbers], Sequence[Finding]]
    figure: Figure | None = None
    derived: Callable[[Numbers], str] | None = None
    """A table, in Markdown, of what is made of several runs; below the others."""

    @property
    def options(self) -> set[str]:
        """Options that its tables and its figure name: columns of numbers even if they are one."""
        found = {"trace", "evict", "capacity"}
        for table in self.tables:
            found |= {*table.rows, *table.columns, *(table.where or {})}
        if self.figure is not None:
            found |= {self.figure.x, *self.figure.lines, self.figure.panels}
        return found


class Numbers:
    """The rows of both halves, asked by the values of their columns."""

    def __init__(self, rows: pd.DataFrame, texts: pd.DataFrame | None = None) -> None:
        self.rows = rows
        options = [name for name in OPTIONS if name in rows]
        self._texts = rows[["trace", *options]].map(shown) if texts is None else texts

    def where(self, **asked: Any) -> Numbers:
        """Keep the rows with these values, or one of several; None is a value not given."""
        kept = np.ones(len(self.rows), bool)
        for name, wanted in asked.items():
            if name not in self._texts:
                raise SpecmdError(f"numbers have no column {name}: {', '.join(self._texts)}")
            values = wanted if isinstance(wanted, list | tuple | set) else (wanted,)
            kept &= self._texts[name].isin({shown(value) for value in values}).to_numpy()
        return Numbers(self.rows[kept], self._texts[kept])

    def value(self, name: str, **asked: Any) -> float:
        """Return the value of the one row asked for; SpecmdError for none and for several."""
        found = self.where(**asked).rows[name]
        if len(found) != 1:
            raise SpecmdError(f"{name} of {asked}: {len(found)} rows, 1 is asked for")
        return float(found.iloc[0])

    def values(self, name: str, **asked: Any) -> list[float]:
        """Return the values of all rows asked for; raises SpecmdError for none."""
        found = self.where(**asked).rows[name]
        if found.empty:
            raise SpecmdError(f"{name} of {asked}: no row")
        return [float(value) for value in found]

    def each(self, name: str) -> list[Any]:
        """Return the values of a column, each once, in order."""
        return list(dict.fromkeys(None if pd.isna(v) else v for v in self.rows[name]))

    def best(self, name: str, by: str = "evict", **asked: Any) -> str:
        """Return which value of `by` has the best of a metric among the rows asked for."""
        found = self.where(**asked).rows
        column = found[name].astype(float)
        place = column.idxmax() if declared(name).better == "higher" else column.idxmin()
        return str(found.loc[place, by])


def shown(value: Any) -> str:
    """Write the value of an option; `-` for one that is not given."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "-"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def points(share: float) -> str:
    """Write a share, or a difference of two, in percent with one decimal."""
    return f"{100 * share:.1f}"


def span(values: Sequence[float], digits: int = 1) -> str:
    """Write the least and the most of some numbers."""
    low, high = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    return low if low == high else f"{low} to {high}"


def questions() -> list[str]:
    """Name every folder that asks a question."""
    return sorted(path.parent.name for path in FOLDER.glob("*/question.py"))


def read_question(name: str) -> Question:
    """Read a folder's question; raises SpecmdError if it asks none."""
    path = FOLDER / name / "question.py"
    if not path.is_file():
        raise SpecmdError(f"no question '{name}': there are {', '.join(questions())}")
    spec = importlib.util.spec_from_file_location(f"question_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Question = module.QUESTION
    return found
