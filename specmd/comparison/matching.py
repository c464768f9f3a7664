"""Which run is compared with which: runs in columns, lines of runs that agree in all else.

Columns are folders, or the values of a field. What is the same within every column and not the same
in all of them is what is being compared; runs agree when all their other inputs do. Nothing has to
be told of that: two commits, two devices, two policies are found alike. What finds no partner, or
more than one, is kept with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from specmd.comparison.fields import Value, circumstances, inputs, order, reader, said
from specmd.comparison.leftovers import Leftover, told
from specmd.errors import SpecmdError
from specmd.runs.run import Run, read_run, read_runs

T = TypeVar("T")


@dataclass(frozen=True)
class Recorded:
    """A run, and what decides its numbers."""

    run: Run

    @cached_property
    def inputs(self) -> dict[str, Value]:
        """Return the inputs by name."""
        return inputs(self.run)


@dataclass(frozen=True)
class Column:
    """Runs that stand in one column."""

    name: str
    members: tuple[Recorded, ...]


@dataclass(frozen=True)
class Line:
    """Runs that agree but for what is compared: one a column, None where there is none."""

    key: Mapping[str, Value]
    cells: tuple[Recorded | None, ...]

    @property
    def present(self) -> list[Recorded]:
        """Runs of the line."""
        return [cell for cell in self.cells if cell is not None]

    @property
    def first(self) -> Run:
        """The run that names the line."""
        return self.present[0].run


@dataclass(frozen=True)
class Matched:
    """Columns of runs side by side.

    `compared` are the fields that differ between the columns, with their value in each; `alone`
    says of every column but for which of its runs there was nothing to compare with, and why.
    """

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    compared: Mapping[str, tuple[Value, ...]]
    by: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    varying: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """All runs that are compared."""
        return [each.run for line in self.lines for each in line.present]


def gather(paths: Sequence[str | Path]) -> list[Column]:
    """Read run files and folders of runs, a column each; raises SpecmdError for an empty one."""
    columns = []
    for path in map(Path, paths):
        runs = read_runs(path) if path.is_dir() else [read_run(path)]
        if not runs:
            raise SpecmdError(f"{path}: holds no runs: it takes what `specmd sweep --out` wrote")
        columns.append(Column(str(path), tuple(map(Recorded, runs))))
    return columns


def by_fields(columns: Iterable[Column], names: Sequence[str]) -> list[Column]:
    """Pool the runs of all columns and part them anew, by the values of fields.

    Raises SpecmdError for a field no run has, or one that has the same value in all of them.
    """
    members = [(place, each) for place, column in enumerate(columns) for each in column.members]
    readers = [reader(name, (each.run for _, each in members)) for name in names]
    parts: dict[tuple[Value, ...], dict[str, Recorded]] = {}
    first: dict[tuple[Value, ...], int] = {}
    for place, each in members:
        values = tuple(read(each.run) for read in readers)
        parts.setdefault(values, {}).setdefault(each.run.id, each)
        first.setdefault(values, place)
    if len(parts) == 1:
        spelled = ", ".join(map(said, next(iter(parts))))
        raise SpecmdError(f"--by {' '.join(names)}: all runs have {spelled}: nothing to compare")
    inorder = sorted(parts, key=lambda values: (first[values], [order(value) for value in values]))
    return [
        Column(" / ".join(map(said, values)), tuple(parts[values].values())) for values in inorder
    ]


def match(columns: Sequence[Column], by: Sequence[str] = ()) -> Matched:
    """Put runs that agree into lines; by what capacities come to, or as they were spelled."""
    found = _match(columns, by, lambda each: each.inputs)
    if not any(len(line.present) > 1 for line in found.lines):
        spelled = _match(columns, by, _as_spelled)
        if any(len(line.present) > 1 for line in spelled.lines):
            return spelled
    return found


def _as_spelled(each: Recorded) -> dict[str, Value]:
    config = each.run.config
    return each.inputs | {
        "capacity_slots": config.capacity,
        "host_slots": config.host_capacity,
    }


def _match(
    columns: Sequence[Column],
    by: Sequence[str],
    read: Callable[[Recorded], dict[str, Value]],
) -> Matched:
    traces = _known_everywhere(columns)
    tables = [
        [
            read(each) | {"trace": traces.get(each.run.trace.digest, each.run.trace.name)}
            for each in column.members
        ]
        for column in columns
    ]
    compared = _between(tables)
    lines: dict[tuple[tuple[str, Value], ...], list[list[Recorded]]] = {}
    key: tuple[tuple[str, Value], ...]
    for place, (column, table) in enumerate(zip(columns, tables, strict=True)):
        for each, row in zip(column.members, table, strict=True):
            key = tuple(
                sorted((k, v) for k, v in row.items() if k not in compared and v is not None)
            )
            lines.setdefault(key, [[] for _ in columns])[place].append(each)
    made: list[Line] = []
    left: list[Leftover] = []
    for key, cells in lines.items():
        single = tuple(_only(cell) for cell in cells)
        for place, (cell, one) in enumerate(zip(cells, single, strict=True)):
            if cell and one is None:
                left += [Leftover(place, e.run, dict(key), _several(cell)) for e in cell]
        line = Line(dict(key), single)
        if len(line.present) > 1 and (by or single[0] is not None):
            made.append(line)
        else:
            left += [
                Leftover(place, each.run, dict(key))
                for place, one in enumerate(single)
                if one is not None
                for each in cells[place]
            ]
    names = [column.name for column in columns]
    around = _between([[circumstances(e.run) for e in column.members] for column in columns])
    found = Matched(
        tuple(names),
        tuple(made),
        {name: values for name, values in (compared | around).items() if name != "trace"},
        tuple(by),
        told(left, names, tables, compared),
        _varying(made),
    )
    found = _without_empty(found) if by and made else found
    return replace(found, alone=found.alone + _gaps(found.lines, found.columns))


def _without_empty(found: Matched) -> Matched:
    """Leave out the values of a field of which no run has a partner: `alone` tells of them."""
    kept = [n for n in range(len(found.columns)) if any(line.cells[n] for line in found.lines)]

    def of(values: Sequence[T]) -> tuple[T, ...]:
        return tuple(values[place] for place in kept)

    compared = {name: of(values) for name, values in found.compared.items()}
    return replace(
        found,
        columns=of(found.columns),
        lines=tuple(replace(line, cells=of(line.cells)) for line in found.lines),
        compared={name: values for name, values in compared.items() if len(set(values)) > 1},
    )


def _known_everywhere(columns: Sequence[Column]) -> dict[str, str]:
    """Name traces that several columns have by their content: they may be called differently."""
    digests = [{each.run.trace.digest for each in column.members} for column in columns]
    shared = {d for d in set().union(*digests) if d and sum(d in each for each in digests) > 1}
    names: dict[str, str] = {}
    for column in columns:
        for each in column.members:
            if each.run.trace.digest in shared:
                names.setdefault(each.run.trace.digest, each.run.trace.name)
    doubled = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {d: f"{n} ({d[:8]})" if n in doubled else n for d, n in names.items()}


def _between(tables: Sequence[Sequence[Mapping[str, Value]]]) -> dict[str, tuple[Value, ...]]:
    """Return the fields that are the same within each table and not in all of them."""
    names = dict.fromkeys(name for table in tables for row in table for name in row)
    found = {}
    for name in names:
        values = [{row.get(name) for row in table} for table in tables]
        if all(len(each) == 1 for each in values) and len(set().union(*values)) > 1:
            found[name] = tuple(next(iter(each)) for each in values)
    return found


def _only(cell: Sequence[Recorded]) -> Recorded | None:
    """Return the run of a cell; of several the first if they say the same, else None."""
    said_ = {(run.status, run.decision_digest, str(run.metrics)) for run in (e.run for e in cell)}
    return cell[0] if len(said_) == 1 else None


def _gaps(lines: Sequence[Line], names: Sequence[str]) -> tuple[str, ...]:
    """Say which columns lack runs that others have."""
    missing = [sum(line.cells[place] is None for line in lines) for place in range(len(names))]
    return tuple(
        f"{name}: lacks {count} of the {len(lines)} lines"
        for name, count in zip(names, missing, strict=True)
        if count
    )


def _several(cell: Sequence[Recorded]) -> str:
    """Say how runs of the same inputs differ."""
    around = [circumstances(each.run) for each in cell]
    apart = [n for n in around[0] if len({row.get(n) for row in around}) > 1]
    return "others have the same inputs and other numbers" + (
        f" (made with other {', '.join(apart[:3])}: --by {apart[0]})" if apart else ""
    )


def _varying(lines: Sequence[Line]) -> tuple[str, ...]:
    """Name the inputs in which the lines differ."""
    names = dict.fromkeys(name for line in lines for name in line.key)
    return tuple(name for name in names if len({line.key.get(name) for line in lines}) > 1)
