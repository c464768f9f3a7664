"""Single values of text files, read strictly: what is not a number is an error with its line.

``"3.0"``, ``true`` and ``1e2`` are not expert ids: whoever wrote them meant something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL

_PHASES = {"prefill": PREFILL, "decode": DECODE, "0": PREFILL, "1": DECODE}
_LARGEST = (1 << 31) - 1
_LARGEST_WEIGHT = 3.4e38


def integer(line: int, name: str, value: Any) -> int:
    """Return an integer of at most 32 bits, from a number or from text."""
    if isinstance(value, str):
        digits = value.strip().removeprefix("-")
        if digits.isdecimal() and digits.isascii() and len(digits) < 12:
            value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST:
        raise SpecmdError(f"line {line}: {name} {str(value)[:40]!r} is not a 32-bit integer")
    return value


def integers(line: int, name: str, values: list[Any]) -> list[int]:
    """Return the values as integers; plain ones, the usual case, are checked all at once."""
    plain = bool(values) and set(map(type, values)) == {int}
    if plain and min(values) >= -_LARGEST and max(values) <= _LARGEST:
        return values
    return [integer(line, name, value) for value in values]


def reals(line: int, values: list[Any]) -> list[float]:
    """Return the values as gate weights; plain ones are checked all at once."""
    # A NaN fails every comparison, but may hide from min and max: the sum shows it.
    plain = bool(values) and set(map(type, values)) == {float}
    if plain and min(values) >= 0 and 0 <= sum(values) <= _LARGEST_WEIGHT:
        return values
    return [real(line, value) for value in values]


def real(line: int, value: Any) -> float:
    """Return a gate weight, finite and not negative, from a number or from text."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        raise SpecmdError(f"line {line}: weight {str(value)[:40]!r} is not a number") from None
    if not 0 <= number <= _LARGEST_WEIGHT:
        raise SpecmdError(f"line {line}: weight {number}: it must be finite and not negative")
    return number


def phase_code(line: int, value: Any) -> int:
    """Return ``PREFILL`` or ``DECODE`` from its name or number."""
    code = _PHASES.get(str(value).strip().lower())
    if code is None:
        raise SpecmdError(f"line {line}: phase {str(value)[:40]!r}: write prefill or decode")
    return code


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file; whatever is wrong with it or found in it becomes an error naming it."""
    try:
        if not path.exists():
            raise SpecmdError("no such file")
        if not path.is_file():
            raise SpecmdError("not a regular file")
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except SpecmdError as error:
        raise SpecmdError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise SpecmdError(f"{path}: not a text file in UTF-8") from error
    except OSError as error:
        raise SpecmdError(f"{path}: cannot be read: {error.strerror or error}") from error
