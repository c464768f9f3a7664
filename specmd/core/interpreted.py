"""The form in which interpreted runs hold their state: lists for arrays, plain attributes.

Python indexes a list several times faster than an array, and reads an attribute of a plain object
in a third of the time that a field of a NamedTuple takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, make_dataclass, replace
from functools import cache
from typing import Any

import numpy as np


def as_lists(value: Any) -> Any:
    """Copy a tuple of arrays (nested) into one of lists, for interpreted runs.

    A NamedTuple becomes an object with the same fields and methods: its attributes are read, which
    is most of what an interpreted event does, in a third of the time.
    """
    kind: Any = type(value)
    if kind is np.ndarray:
        return value.tolist() if value.ndim == 1 else value
    if kind in _PLAIN:
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        parts = map(as_lists, value)
        return open_form(kind)(*parts) if hasattr(kind, "_fields") else tuple(parts)
    return value


_PLAIN = frozenset({int, float, bool, str, type(None)})


def follow(value: Any) -> tuple[Any, Callable[[], None]]:
    """Copy a NamedTuple as `as_lists` does; return the copy, and what brings it up to date.

    Its arrays are filled anew and stay where they are: a live event costs no walk over its fields.
    """
    form = as_lists(value)
    arrays = list(_arrays(form, value))

    def renew() -> None:
        for holder, name, array in arrays:
            setattr(holder, name, array.tolist())

    return form, renew


def _arrays(form: Any, value: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yield where in a form there are lists that can change, and the arrays they are copies of."""
    for name in value._fields:
        part = getattr(value, name)
        if hasattr(part, "_fields"):
            yield from _arrays(getattr(form, name), part)
        elif isinstance(part, np.ndarray) and part.ndim == 1 and part.size:
            yield form, name, part


@cache
def open_form(cls: Any) -> Any:
    """Return a class with all that a NamedTuple class has, but plain attributes for fields."""
    own: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):  # all but object
        own |= vars(base) if base is not tuple else {}
    given = {"_make", "_replace", "_asdict", "_fields", "_field_defaults", *cls._fields}
    kept = {n: v for n, v in own.items() if n not in given and not n.startswith("__")}
    made = make_dataclass(cls.__name__, cls._fields, bases=(Open,), namespace=kept, slots=True)
    made.__closed_form__ = cls  # type: ignore[attr-defined]
    return made


def as_arrays(value: Any) -> Any:
    """Copy what `as_lists` made back into a tuple of arrays, for whoever reads it afterwards."""
    if isinstance(value, list):
        return np.array(value)
    if isinstance(value, Open):
        return type(value).__closed_form__(*map(as_arrays, value))
    return value


class Open:
    """What else of a NamedTuple is used: order, and copies with some fields changed."""

    __slots__ = ()
    __closed_form__: Any = None  # the class it was made of

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]

    def _replace(self, **changes: Any) -> Any:
        return replace(self, **changes)  # type: ignore[type-var]
