"""Texts in step with numbers: what stands between two marks is made from the committed rows.

    <!-- findings -->  <!-- tables -->  <!-- figure -->  <!-- made -->  ...  <!-- end -->

What stands outside the marks is written by hand and names no number of a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reproduction.numbers import HALVES
from reproduction.questions import Numbers, Question, Table, declared, shown
from specmd.errors import SpecmdError
from specmd.policy.registry import AXES, choose

_MARKED = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TITLES = {"others": "Recordings of real models by others", "own": "The project's own traces"}


def render(text: str, parts: Mapping[str, str]) -> str:
    """Put each part between its marks; parts that a text has no marks for are left out."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{parts[match[2]]}\n{match[3]}" if match[2] in parts else match[0]

    return _MARKED.sub(fill, text)


def parts_of(question: Question, halves: Mapping[str, tuple[pd.DataFrame, Any]]) -> dict[str, str]:
    """Make all that stands between marks from the rows of both halves."""
    both = Numbers(pd.concat([rows for rows, _ in halves.values()], ignore_index=True))
    return {
        "findings": findings_text(question, both),
        "tables": "\n\n".join(
            f"### {TITLES[half]}\n\n{tables_text(question, Numbers(halves[half][0]))}"
            for half in HALVES
            if half in halves
        ),
        "figure": "![figure](figure.png)",
        "made": "\n".join(f"- {TITLES[half]}: {made_text(halves[half][1])}" for half in halves),
    }


def made_text(made: Mapping[str, Any]) -> str:
    """Write provenance as a line."""
    traces = ", ".join(f"{name} `{digest}`" for name, digest in made["traces"].items())
    tokens = " and ".join(f"{count:,}" for count in made["tokens"])
    return f"{made['simulated by']}, {made['with']}, {made['on']}; {tokens} tokens; {traces}"


def findings_text(question: Question, numbers: Numbers) -> str:
    """Write the findings as a list; one that does not hold says so."""
    return "\n".join(
        f"- *{each.verdict}{'' if each.holds else ', BUT NO LONGER TRUE'}* · {each.text}"
        for each in question.findings(numbers)
    )


def tables_text(question: Question, numbers: Numbers) -> str:
    """Write all tables that a half has rows for."""
    written = [_table(table, numbers) for table in question.tables]
    written += [question.derived(numbers)] if question.derived else []
    return "\n\n".join(text for text in written if text)


def _table(table: Table, numbers: Numbers) -> str:
    """Write a pivot as Markdown; empty where none of its rows is there."""
    kept = numbers.where(**(table.where or {})).rows
    kept = kept[kept[table.metric].notna()]
    if kept.empty:
        return ""
    said = declared(table.metric)
    several = len(set(kept["trace"])) > 1
    cells: dict[tuple[Any, Any, Any], float] = {}
    bounds: dict[tuple[Any, Any], list[float]] = {}
    for _, run in kept.iterrows():
        row = tuple(shown(run[name]) for name in table.rows)
        head = tuple(_head(name, run[name]) for name in table.columns)
        if (run["trace"], row, head) in cells:
            raise SpecmdError(f"table '{table.title}': two runs in one cell: {row} {head}")
        cells[run["trace"], row, head] = float(run[table.metric])
        if table.bound and not pd.isna(run[table.bound]):
            bounds.setdefault((run["trace"], head), []).append(float(run[table.bound]))
    heads = list(dict.fromkeys(head for *_, head in cells))
    lead = ["trace"] * several + list(table.rows)
    lines = [
        table.title,
        "",
        "| " + " | ".join([*lead, *(" ".join(filter(None, head)) for head in heads)]) + " |",
        "|" + "---|" * len(lead) + "---:|" * len(heads),
    ]
    for trace in dict.fromkeys(trace for trace, *_ in cells):
        rows = list(dict.fromkeys(row for other, row, _ in cells if other == trace))
        ahead = {row for row in rows if _knows_future(table.rows, row)}
        texts = {row: [f"{row[0]} †", *row[1:]] if row in ahead else [*row] for row in rows}
        for head in heads:
            column = {row: cells.get((trace, row, head)) for row in rows}
            for row, value in column.items():
                peers = [
                    peer
                    for other, peer in column.items()
                    if other[:-1] == row[:-1] and peer is not None and other not in ahead
                ]
                best = (
                    value is not None
                    and row not in ahead
                    and len({said.text(peer) for peer in peers}) > 1
                    and not any(said.is_better(peer, value) for peer in peers)
                )
                texts[row].append(f"**{said.text(value)}**" if best else said.text(value))
        if bounds:
            pick = max if said.better == "higher" else min
            ends = [
                pick(bounds[trace, head]) if (trace, head) in bounds else None for head in heads
            ]
            texts[()] = [f"{table.bound.replace('_', ' ')} †", *[""] * (len(table.rows) - 1)]
            texts[()] += map(said.text, ends)
        lines += ["| " + " | ".join([trace] * several + text) + " |" for text in texts.values()]
    return "\n".join(lines)


def _knows_future(axes: Sequence[str], row: Sequence[str]) -> bool:
    """Whether one of a row's policies needs to know the future: a bound, not a choice."""
    pairs = zip(axes, row, strict=True)
    return any("future" in choose(axis, name).needs for axis, name in pairs if axis in AXES)


def _head(name: str, value: Any) -> str:
    """Write the value of an option as a column is headed; an option that is off is left out."""
    if isinstance(value, bool | np.bool_):
        return name if value else ""
    plain = name in ("capacity", "profile", "scope", *AXES)
    return shown(value) if plain else f"{name.replace('_', ' ')} {shown(value)}"
