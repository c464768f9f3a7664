"""Texts in step with numbers: what stands between two marks is made from the committed rows.

    <!-- findings -->  <!-- tables -->  <!-- figure -->  <!-- made -->  ...  <!-- end -->

What stands outside the marks is written by hand and names no number of a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from reproduction.numbers import HALVES
from reproduction.questions import Numbers, Question, Table, declared, shown

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
    written = (_table(table, numbers) for table in question.tables)
    return "\n\n".join(text for text in written if text)


def _table(table: Table, numbers: Numbers) -> str:
    kept = numbers.where(**(table.where or {}))
    kept = Numbers(kept.rows[kept.rows[table.metric].notna()])
    if kept.rows.empty:
        return ""
    said = declared(table.metric)
    heads = [
        head
        for head in product(*(kept.each(name) for name in table.columns))
        if not kept.where(**dict(zip(table.columns, head, strict=True))).rows.empty
    ]
    several = len(kept.each("trace")) > 1
    first = ["trace", *table.rows] if several else list(table.rows)
    columns = [
        " ".join(filter(None, (_head(*pair) for pair in zip(table.columns, head, strict=True))))
        for head in heads
    ]
    lines = [
        f"{table.title}",
        "",
        "| " + " | ".join([*first, *columns]) + " |",
        "|" + "---|" * len(first) + "---:|" * len(columns),
    ]
    for trace in kept.each("trace"):
        here = kept.where(trace=trace)
        rows = list(dict.fromkeys(map(tuple, here.rows[list(table.rows)].map(shown).to_numpy())))
        cells = {(row, head): _cell(here, table, row, head) for row in rows for head in heads}
        for row in rows:
            texts = []
            for head in heads:
                value = cells[row, head]
                column = [cells[other, head] for other in rows if cells[other, head] is not None]
                text = said.text(value)
                best = (
                    column
                    and value is not None
                    and not any(said.is_better(other, value) for other in column)
                )
                alone = len({said.text(other) for other in column}) == 1
                texts.append(f"**{text}**" if best and not alone else text)
            lead = [str(trace), *row] if several else list(row)
            lines.append("| " + " | ".join([*lead, *texts]) + " |")
        if table.bound:
            ends = [_end(here, table, head) for head in heads]
            lead = [str(trace)] * several + [f"{table.bound} †"] + [""] * (len(table.rows) - 1)
            lines.append("| " + " | ".join([*lead, *map(said.text, ends)]) + " |")
    return "\n".join(lines)


def _head(name: str, value: Any) -> str:
    """Write the value of an option as a column is headed; an option that is off is left out."""
    if isinstance(value, bool | np.bool_):
        return name if value else ""
    plain = name in ("capacity", "prefetch", "profile", "trace", "evict", "scope", "miss")
    return shown(value) if plain else f"{name.replace('_', ' ')} {shown(value)}"


def _end(here: Numbers, table: Table, head: Any) -> float | None:
    """Return the bound of a column, the best of its rows."""
    found = here.where(**dict(zip(table.columns, head, strict=True))).rows[table.bound].dropna()
    higher = declared(table.metric).better == "higher"
    return None if found.empty else float(found.max() if higher else found.min())


def _cell(here: Numbers, table: Table, row: Any, head: Any) -> float | None:
    asked = dict(zip((*table.rows, *table.columns), (*row, *head), strict=True))
    found = here.where(**asked).rows
    return None if found.empty else here.value(table.metric, **asked)
