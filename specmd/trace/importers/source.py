"""A file to import: its kind of bytes, its text, and where in it something is wrong."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.importers.table import Ints

PHASES = {"prefill": PREFILL, "decode": DECODE}


@dataclass
class Source:
    """What is known of a file before it is read, and what the user says of it.

    Attributes:
        path: the file.
        phase: ``decode`` or ``prefill``, where the file does not say.
        num_experts: experts of a layer, or None: the file says.
        top_k: experts a token, for forms of flat arrays that do not say.
        prompt_tokens: of a request, for forms that do not say.
        header: further fields of the trace's header; a reader may add what the file says.

    """

    path: Path
    phase: str = "decode"
    num_experts: int | None = None
    top_k: int | None = None
    prompt_tokens: int | None = None
    header: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def data(self) -> bytes:
        """The whole file."""
        return self.path.read_bytes()

    @cached_property
    def text(self) -> str:
        """The whole file as UTF-8."""
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise SpecmdError("not a text file in UTF-8") from None

    @cached_property
    def lines(self) -> tuple[Ints, list[str]]:
        """Numbers of the lines that are not blank, and these lines."""
        every = self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        kept = [number for number, line in enumerate(every) if line and not line.isspace()]
        return np.array(kept, np.int64) + 1, [every[number] for number in kept]

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """JSON lines: an object a line."""
        numbers, lines = self.lines
        found: list[Any]
        try:
            found = json.loads(f"[{','.join(lines)}]")
        except (ValueError, RecursionError):
            found = []
        if len(found) != len(lines):
            found = [self._object(int(n), line) for n, line in zip(numbers, lines, strict=True)]
        if set(map(type, found)) != {dict}:
            at = next(at for at, row in enumerate(found) if type(row) is not dict)
            kind = type(found[at]).__name__
            raise SpecmdError(f"line {numbers[at]}: a JSON object is needed, not a {kind}")
        return found

    def _object(self, number: int, line: str) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SpecmdError(f"line {number}: not valid JSON ({error})") from None

    @cached_property
    def first(self) -> dict[str, Any]:
        """The first line as a JSON object, or the whole file; empty where neither is one."""
        _, lines = self.lines
        found = _loaded(lines[0]) if len(lines) > 1 else None
        found = self.document if found is None else found
        found = found[0] if isinstance(found, list) and found else found
        return found if isinstance(found, dict) else {}

    @cached_property
    def document(self) -> Any:
        """The whole file as one JSON value; None where it is not one."""
        return _loaded(self.text)

    def experts(self, told: int | None = None) -> int:
        """Return the number of experts, from the user or from the file (`told`).

        Raises SpecmdError if neither says, or if they differ.
        """
        if told is None and self.num_experts is None:
            raise SpecmdError("the file does not say how many experts a layer has: give --experts")
        if told is not None and self.num_experts not in (None, told):
            raise SpecmdError(f"the file says {told} experts a layer, not {self.num_experts}")
        return told if told is not None else int(self.num_experts or 0)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make every error that is raised inside name the file."""
    # Millions of small lists are made, and none of them in cycles: the collector only slows it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    except SpecmdError as error:
        raise SpecmdError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except MemoryError:
        raise SpecmdError(f"{path}: does not fit into memory") from None
    except OSError as error:
        raise SpecmdError(f"{path}: cannot be read: {error.strerror or error}") from error
    finally:
        if collecting:
            gc.enable()


def integers(name: str, values: list[Any], lines: Ints) -> Ints:
    """Return values of a JSON field as (N,) integers; `lines` (N,) name what is none."""
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError:
            pass
    limit = 1 << 31
    for value, line in zip(values, lines.tolist(), strict=True):
        if type(value) is not int or abs(value) >= limit:
            wrong(line, name, value)
    return np.array(values, np.int64)


def wrong(line: int, name: str, value: Any) -> NoReturn:
    """Refuse a value that is no integer."""
    raise SpecmdError(f"line {line}: {name} {str(value)[:40]!r} is not a 32-bit integer")


def phase_codes(values: list[Any], lines: Ints) -> Ints:
    """Return (N,) PREFILL or DECODE from their names or numbers."""
    names = {**PHASES, "0": PREFILL, "1": DECODE}
    codes = {value: names.get(str(value).strip().lower()) for value in set(map(str, values))}
    for value, line in zip(values, lines.tolist(), strict=True):
        if codes[str(value)] is None:
            text = str(value)[:40]
            raise SpecmdError(f"line {line}: phase {text!r}: write prefill or decode")
    return np.array([codes[str(value)] for value in values], np.int64)
