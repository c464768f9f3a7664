"""Where results go: data on stdout in the chosen format, and into files by their suffix.

Everything that is not data (progress, notes, warnings about the run) is written to stderr by the
commands, so that `specmd ... --format json | jq` always works.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from specmd.errors import SpecmdError
from specmd.files import replacing, write_text
from specmd.report.text import Table, markdown, plain, terminal

Format = Literal["table", "md", "csv", "json", "jsonl"]
Records = Sequence[Mapping[str, Any]]
SUFFIXES: dict[str, Format] = {
    ".txt": "table",
    ".md": "md",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
}
PARQUET = ".parquet"


def render(form: Format, records: Records, table: Table, flat: Records | None = None) -> str:
    """Render as text: `table` for people, `records` for programs, `flat` (or they) for CSV."""
    if form == "table":
        return plain(table)
    if form == "md":
        return markdown(table)
    if form == "csv":
        return to_csv(records if flat is None else flat)
    if form == "jsonl":
        return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    return json.dumps(list(records), indent=1, allow_nan=False) + "\n"


def show(form: Format, records: Records, table: Table, flat: Records | None = None) -> None:
    """Print to stdout; a table adapts to the terminal if stdout is one."""
    if form == "table" and sys.stdout.isatty():
        sys.stdout.write(terminal(table))
    else:
        sys.stdout.write(render(form, records, table, flat))


def export_format(path: Path) -> Format | Literal["parquet"]:
    """Return the format a file's suffix stands for; checked before anything is computed."""
    suffix = path.suffix.lower()
    if suffix == PARQUET:
        if find_spec("pyarrow") is None:
            raise SpecmdError(f"{path}: needs pyarrow: pip install 'specmd-bench[parquet]'")
        return "parquet"
    if suffix not in SUFFIXES:
        known = ", ".join((*SUFFIXES, PARQUET))
        raise SpecmdError(f"{path}: cannot tell the format by its suffix; use one of {known}")
    return SUFFIXES[suffix]


def export(path: Path, records: Records, table: Table, flat: Records | None = None) -> None:
    """Write a file in the format of its suffix."""
    form = export_format(path)
    if form == "parquet":
        _write_parquet(path, records if flat is None else flat)
    else:
        write_text(path, render(form, records, table, flat))


def _write_parquet(path: Path, records: Records) -> None:
    """Write the rows of the CSV as parquet, numbers as numbers; a column of nothing is of nulls."""
    import pandas

    with replacing(path) as file:
        pandas.DataFrame([dict(record) for record in records]).to_parquet(file, index=False)


def to_csv(records: Records) -> str:
    """Render records as CSV; columns in order of first appearance, lists and mappings as JSON."""
    names = list(dict.fromkeys(name for record in records for name in record))
    if not names:
        return ""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for record in records:
        writer.writerow([_spell(record.get(name)) for name in names])
    return buffer.getvalue()


def _spell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value)
    return value
