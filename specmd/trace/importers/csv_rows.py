"""Traces from CSV, and from parquet with the same columns.

``layer,experts[,weights]``, with a header line
    one row per token and layer, experts and weights separated by spaces or semicolons;
``layer,expert[,weight]``, with a header line
    one row per chosen expert, the rows of a token and layer one after another.

Both take the columns ``request``, ``step``, ``token``, ``phase`` and ``token_id``, which mean what
they mean in JSON lines (`specmd.trace.importers.json_rows`). In parquet, experts and weights are
lists; it needs pyarrow.
"""

from __future__ import annotations

import csv
import io
import re
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from specmd.errors import SpecmdError, unknown
from specmd.trace.importers.source import Source, integers, phase_codes, wrong
from specmd.trace.importers.table import Ints, Table
from specmd.trace.trace import Trace

_FACTS = ("request", "step", "token", "token_id")
_COLUMNS = ("layer", "expert", "experts", "weight", "weights", "phase", *_FACTS)
_DIGITS = re.compile(r"\s*[+-]?\d{1,11}\s*", re.ASCII)
_LISTED = re.compile(r"[\d\s-]*", re.ASCII)


def read_csv(source: Source) -> Trace:
    """Build a trace from a CSV file; see the module for the columns.

    Raises SpecmdError naming the line.
    """
    numbers, lines = source.lines
    if not lines:
        raise SpecmdError("no rows: the file is empty")
    names = [name.strip().lower() for name in lines[0].split(",")]
    for name in names:
        if name not in _COLUMNS:
            raise unknown(f"column in line {numbers[0]}:", name, _COLUMNS)
    _require_columns(names, f"line {numbers[0]}: ")
    frame = read_cells(lines[1:], names, numbers[1:], ("experts", "weights", "phase"))
    return _table(frame, numbers[1:]).build(source.experts(), source.phase, source.header)


def read_parquet(source: Source) -> Trace:
    """Build a trace from a parquet file with the columns of a CSV file."""
    try:
        frame = pd.read_parquet(io.BytesIO(source.data))
    except ImportError:
        raise SpecmdError("parquet needs pyarrow: pip install 'specmd-bench[parquet]'") from None
    except Exception as error:
        raise SpecmdError(f"not readable as parquet ({str(error).splitlines()[0]})") from error
    frame = frame.rename(columns=str)[[n for n in frame.columns.map(str) if n in _COLUMNS]]
    _require_columns(list(frame.columns), "")
    rows = np.arange(1, len(frame) + 1)
    return _table(frame, rows).build(source.experts(), source.phase, source.header)


def _require_columns(names: list[str], where: str) -> None:
    if len(set(names)) < len(names):
        raise SpecmdError(f"{where}a column is named twice")
    if "layer" not in names or ("expert" in names) == ("experts" in names):
        raise SpecmdError(f"{where}'layer' and either 'expert' or 'experts' are needed")


def read_cells(
    lines: list[str], names: list[str], numbers: Ints, texts: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Return the cells of CSV lines by column, as pandas reads them; `texts` as they are.

    Raises SpecmdError where a line has more or fewer cells than `names`, or is not CSV.
    """
    if not lines:
        raise SpecmdError("no rows: the file is empty")
    try:
        frame = pd.read_csv(
            io.StringIO("\n".join(lines)),
            header=None,
            skip_blank_lines=False,
            low_memory=False,
            keep_default_na=False,
            dtype={names.index(name): str for name in texts if name in names},
        )
    except (ValueError, pd.errors.ParserError) as error:
        _explain(lines, names, numbers)
        raise SpecmdError(f"not valid CSV ({' '.join(str(error).split())[:120]})") from error
    if frame.shape != (len(lines), len(names)):
        _explain(lines, names, numbers)
        raise SpecmdError("not valid CSV: a cell holds a line break")
    frame.columns = pd.Index(names)
    for name in names:
        if (
            (frame[name] == "").any()
            if name in texts
            else name != "weight" and not _plain(frame[name])
        ):
            _explain(lines, names, numbers)
    return frame


def _plain(column: Any) -> bool:
    return bool(column.dtype == np.int64)


def _explain(lines: list[str], names: list[str], numbers: Ints) -> None:
    """Raise SpecmdError about the first line that is not as it should be, if there is one."""
    whole = {n for n in names if n in ("layer", "expert") or n in _FACTS}
    reader = csv.reader(lines, strict=True)
    at = 0
    try:
        for at, cells in enumerate(reader):
            line = int(numbers[min(at, len(numbers) - 1)])
            if len(cells) != len(names):
                raise SpecmdError(
                    f"line {line}: {len(cells)} cells, but there are {len(names)} columns"
                )
            for name, cell in zip(names, cells, strict=True):
                if name in whole and not _DIGITS.fullmatch(cell):
                    wrong(line, name, cell)
    except csv.Error as error:
        at = int(numbers[min(at, len(numbers) - 1)])
        raise SpecmdError(f"line {at}: not valid CSV ({error})") from error


def _table(frame: pd.DataFrame, lines: Ints) -> Table:
    """Make columns of a frame with the columns of the module."""
    single = "expert" in frame
    facts: dict[str, Any] = {}
    for name in ("layer", "expert", *_FACTS):
        if name in frame:
            facts[name] = whole(name, frame[name], lines)
    if "phase" in frame:
        facts["phase"] = phase_codes(frame["phase"].tolist(), lines)
    shown = "weight" if "weight" in frame else "weights"
    if single:
        counts = np.ones(len(frame), np.int64)
        experts = facts.pop("expert")
        weights = reals(frame[shown].tolist(), lines) if shown in frame else None
        return Table(lines, facts.pop("layer"), counts, experts, weights, **facts).merged()
    flat, counts = _split(frame["experts"].tolist())
    experts = _listed(flat, np.repeat(lines, counts))
    weights = None
    if shown in frame:
        given, lengths = _split(frame[shown].tolist())
        if (lengths != counts).any():
            at = int(np.argmax(lengths != counts))
            raise SpecmdError(f"line {lines[at]}: {lengths[at]} weights for {counts[at]} experts")
        weights = reals(given, np.repeat(lines, counts))
    return Table(lines, facts.pop("layer"), counts, experts, weights, **facts)


def _split(cells: list[Any]) -> tuple[list[Any], Ints]:
    """Return what the cells list, one after another, and how many each lists."""
    if isinstance(cells[0], str):
        cells = [cell.replace(";", " ") for cell in cells]
        flat = " ".join(cells).split()
        counts = np.array([cell.count(" ") for cell in cells], np.int64) + 1
        if counts.sum() == len(flat) and " " not in {cell[:1] for cell in cells}:
            return flat, counts  # usually one separator between two numbers
        cells = [cell.split() for cell in cells]
    return list(chain.from_iterable(cells)), np.array(list(map(len, cells)), np.int64)


def whole(name: str, column: Any, lines: Ints) -> Ints:
    """Return a column as integers; raise SpecmdError naming the line where one is none."""
    if _plain(column):
        return np.asarray(column.to_numpy(np.int64))
    return integers(name, column.tolist(), lines)


def _listed(cells: list[Any], lines: Ints) -> Ints:
    """Return expert ids of lists: text in CSV, numbers in parquet."""
    if not cells or not isinstance(cells[0], str):
        return integers(
            "expert", [int(c) if isinstance(c, np.integer) else c for c in cells], lines
        )
    if _LISTED.fullmatch(" ".join(cells)):
        try:
            return np.array(list(map(int, cells)), np.int64)
        except (ValueError, OverflowError):
            pass
    for cell, line in zip(cells, lines.tolist(), strict=True):
        if not _DIGITS.fullmatch(cell):
            wrong(line, "expert", cell)
    return np.array(list(map(int, cells)), np.int64)


def reals(cells: list[Any], lines: Ints) -> Any:
    """Return cells as floats; raise SpecmdError naming the line where one is none."""
    try:
        return np.array(list(map(float, cells)), np.float64)
    except (TypeError, ValueError):
        for cell, line in zip(cells, lines.tolist(), strict=True):
            try:
                float(cell)
            except (TypeError, ValueError):
                raise SpecmdError(
                    f"line {line}: weight {str(cell)[:40]!r} is not a number"
                ) from None
        raise
