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
import warnings
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from specmd.errors import SpecmdError, unknown
from specmd.trace.importers.source import Integer, Source, integers, phase_codes, wrong
from specmd.trace.importers.table import Ints, Table
from specmd.trace.trace import Trace

_FACTS = ("request", "step", "token", "token_id")
_COLUMNS = ("layer", "expert", "experts", "weight", "weights", "phase", *_FACTS)
_DIGITS = re.compile(r"\s*[+-]?\d{1,11}\s*", re.ASCII)
_COMMAS = {ord(" "): ",", ord("\n"): ","}
_DECODERS: dict[Any, Any] = {
    np.int64: msgspec.json.Decoder(list[Integer]).decode,
    np.float64: msgspec.json.Decoder(list[float]).decode,
}


def read_csv(source: Source) -> Trace:
    """Build a trace from a CSV file; see the module for the columns.

    Raises SpecmdError naming the line.
    """
    at, head = next(source.opening(), (0, ""))
    if not head:
        raise SpecmdError("no rows: the file is empty")
    names = [name.strip().lower() for name in head.split(",")]
    _require_columns(names, f"line {at}")
    frame, lines = read_cells(source, at, names, ("experts", "weights", "phase"))
    return _table(frame, lines).build(source.experts(), source.phase, source.header)


def read_parquet(source: Source) -> Trace:
    """Build a trace from a parquet file with the columns of a CSV file."""
    try:
        frame = pd.read_parquet(io.BytesIO(source.data))
    except ImportError:
        raise SpecmdError("parquet needs pyarrow: pip install 'specmd-bench[parquet]'") from None
    except Exception as error:
        raise SpecmdError(f"not readable as parquet ({str(error).splitlines()[0]})") from error
    frame = frame.rename(columns=str)
    _require_columns(list(frame.columns), "parquet")
    rows = np.arange(1, len(frame) + 1)
    return _table(frame, rows).build(source.experts(), source.phase, source.header)


def _require_columns(names: list[str], where: str) -> None:
    for name in names:
        if name not in _COLUMNS:
            raise unknown(f"column in {where}:", name, _COLUMNS)
    if len(set(names)) < len(names):
        raise SpecmdError(f"{where}: a column is named twice")
    if "layer" not in names or ("expert" in names) == ("experts" in names):
        raise SpecmdError(f"{where}: 'layer' and either 'expert' or 'experts' are needed")


def read_cells(
    source: Source, skip: int, names: list[str], texts: tuple[str, ...] = ()
) -> tuple[pd.DataFrame, Ints]:
    """Return the cells of a CSV file by column, as pandas reads them, and (N,) their lines.

    Args:
        source: the file.
        skip: lines that stand before the cells.
        names: the columns.
        texts: those columns that are to be left as they are.

    Raises SpecmdError where a line has more or fewer cells than `names`, or is not CSV.

    """
    if b"\0" in source.data:  # releases of pandas end a cell there, or do not
        raise SpecmdError("not a text file: it holds a NUL byte")
    data = source.data if b"\r" not in source.data else source.text.encode()
    rows = data.count(b"\n") + (not data.endswith(b"\n")) - skip
    shown = {names.index(name): str for name in texts if name in names}
    if rows > 0 and data.isascii():
        try:
            frame = _parsed(io.BytesIO(data), skiprows=skip, na_filter=False, dtype=shown)
        except (ValueError, OverflowError, pd.errors.ParserError):
            pass
        else:
            if frame.shape == (rows, len(names)):
                frame.columns = pd.Index(names)
                if all(_regular(frame[name], name, texts) for name in names):
                    return frame, np.arange(skip + 1, skip + 1 + rows)
    return _read_again(source, skip, names, texts)


def _parsed(file: Any, **options: Any) -> pd.DataFrame:
    shared: dict[str, Any] = {"skip_blank_lines": False, "keep_default_na": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # such columns are refused
        frame: pd.DataFrame = pd.read_csv(file, header=None, **shared, **options)
    return frame


def _regular(column: Any, name: str, texts: tuple[str, ...]) -> bool:
    if name in texts:
        return not (column == "").any()
    return name == "weight" or _plain(column)


def _read_again(
    source: Source, skip: int, names: list[str], texts: tuple[str, ...]
) -> tuple[pd.DataFrame, Ints]:
    """Read a file with blank lines, or say which of its lines is wrong."""
    numbers, lines = source.lines
    head = int((numbers <= skip).sum())
    numbers, lines = numbers[head:], lines[head:]
    if not lines:
        raise SpecmdError("no rows: the file is empty")
    shown = {names.index(name): str for name in texts if name in names}
    try:
        frame = _parsed(io.StringIO("\n".join(lines)), low_memory=False, dtype=shown)
    except (ValueError, pd.errors.ParserError) as error:
        _explain(lines, names, numbers)
        raise SpecmdError(f"not valid CSV ({' '.join(str(error).split())[:120]})") from error
    if frame.shape != (len(lines), len(names)):
        _explain(lines, names, numbers)
        raise SpecmdError("not valid CSV: a cell holds a line break")
    frame.columns = pd.Index(names)
    if not all(_regular(frame[name], name, texts) for name in names):
        _explain(lines, names, numbers)
    return frame, numbers


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
        weights = reals(frame[shown], lines) if shown in frame else None
        return Table(lines, facts.pop("layer"), counts, experts, weights, **facts).merged()
    experts, counts = _listed(frame["experts"], lines, np.int64)
    weights = None
    if shown in frame:
        weights, lengths = _listed(frame[shown], lines, np.float64)
        if (lengths != counts).any():
            at = int(np.argmax(lengths != counts))
            raise SpecmdError(f"line {lines[at]}: {lengths[at]} weights for {counts[at]} experts")
    return Table(lines, facts.pop("layer"), counts, experts, weights, **facts)


def _listed(column: Any, lines: Ints, kind: Any) -> tuple[Any, Ints]:
    """Return the numbers that the cells list, one after another, and how many each lists."""
    cells = column.tolist()
    if isinstance(cells[0], str):
        text = "\n".join(cells).replace(";", " ")
        letters = np.frombuffer(f"\n{text}\n".encode(), np.uint8)
        gaps = np.flatnonzero(letters == ord(" "))
        ends = np.flatnonzero(letters == ord("\n"))[1:]
        # Usually one separator stands between two numbers, and these are as JSON writes them.
        if (np.minimum(letters[gaps - 1], letters[gaps + 1]) > ord(" ")).all():
            counts = np.diff(np.searchsorted(gaps, ends), prepend=0) + 1
            try:
                flat = _DECODERS[kind](f"[{text.translate(_COMMAS)}]")
            except msgspec.MsgspecError:
                flat = []
            if len(flat) == counts.sum():
                return np.fromiter(flat, kind, len(flat)), counts
        cells = [cell.replace(";", " ").split() for cell in cells]
    counts = np.array(list(map(len, cells)), np.int64)
    values, where = list(chain.from_iterable(cells)), np.repeat(lines, counts)
    return (reals if kind is np.float64 else _experts)(values, where), counts


def whole(name: str, column: Any, lines: Ints) -> Ints:
    """Return a column as integers; raise SpecmdError naming the line where one is none."""
    if _plain(column):
        return np.asarray(column.to_numpy(np.int64))
    return integers(name, column.tolist(), lines)


def _experts(values: list[Any], lines: Ints) -> Ints:
    """Return expert ids of lists: text in CSV, numbers in parquet."""
    if not values or not isinstance(values[0], str):
        numbers = [int(each) if isinstance(each, np.integer) else each for each in values]
        return integers("expert", numbers, lines)
    for value, line in zip(values, lines.tolist(), strict=True):
        if not _DIGITS.fullmatch(value):
            wrong(line, "expert", value)
    return np.array(list(map(int, values)), np.int64)


def reals(values: Any, lines: Ints) -> Any:
    """Return a column or a list as floats; raise SpecmdError naming the line where one is none."""
    if isinstance(values, pd.Series):
        if values.dtype in (np.float64, np.int64):
            return values.to_numpy(np.float64)
        values = values.tolist()
    try:
        return np.array(list(map(float, values)), np.float64)
    except (TypeError, ValueError):
        for value, line in zip(values, lines.tolist(), strict=True):
            try:
                float(value)
            except (TypeError, ValueError):
                raise SpecmdError(
                    f"line {line}: weight {str(value)[:40]!r} is not a number"
                ) from None
        raise
