"""How a policy is declared, and what is known of one: its parameters, its needs, how it is spelled.

A policy is a class that carries a declaration, put there by the decorator `policy`. Its parameters
are the keyword-only arguments of its `create`; their annotations and defaults are the schema.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

from specmd.policy.needs import Name
from specmd.policy.weights import ModelFile, file_content

Axis = Literal["evict", "prefetch", "schedule", "miss", "route", "allocate", "admission"]
AXES: tuple[Axis, ...] = typing.get_args(Axis)
C = TypeVar("C", bound=type)


BUILT_IN = "built-in"


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a policy says of itself."""

    axis: Axis
    name: str
    source: str
    needs: tuple[str, ...] = ()
    compiled: bool = False
    ahead: str = ""
    bypass: bool | str = False
    remembers: bool | str = False
    pins: bool = False
    frozen: bool = False
    lossy: bool = False
    bits: str = ""
    blocks: bool = False
    renormalises: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry(Declaration):
    """A registered policy: its declaration, its class, and where it came from."""

    summary: str
    origin: str
    cls: Any = field(repr=False)

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Keyword-only parameters of `create`."""
        found = inspect.signature(self.cls.create).parameters.values()
        return {p.name: p for p in found if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def row(self) -> dict[str, Any]:
        """Build the row for `specmd list policies`."""
        hints = typing.get_type_hints(self.cls.create)
        parameters = {
            name: {"type": _spell_type(hints.get(name, str)), "default": parameter.default}
            for name, parameter in self.parameters.items()
        }
        return {
            "axis": self.axis,
            "name": self.name,
            "summary": self.summary,
            "needs": list(self.needs),
            "parameters": parameters,
            "lossless": not self.lossy,
            "remembers": self.remembers,
            "compiled": self.compiled,
            "source": self.source,
            "origin": self.origin,
        }


@dataclass(frozen=True)
class Choice:
    """A policy with the values of all its parameters."""

    entry: Entry
    values: dict[str, Any]

    @classmethod
    def usual(cls, entry: Entry) -> Choice:
        """Choose a policy with the defaults of its parameters."""
        return cls(entry, {name: found.default for name, found in entry.parameters.items()})

    @property
    def spelled(self) -> str:
        """Canonical spelling: the name, then the values that are not the default, by name."""
        changed = [
            f"{name}={_spell_value(value)}"
            for name, value in sorted(self.values.items())
            if value != self.entry.parameters[name].default
        ]
        return self.entry.name + (":" + ",".join(changed) if changed else "")

    @property
    def content(self) -> str:
        """Canonical spelling by content: a file of weights counts by what is in it."""
        kinds = typing.get_type_hints(self.entry.cls.create, include_extras=True)
        files = {name for name in self.values if kinds.get(name) == ModelFile}
        if not files:
            return self.spelled
        known = {name: file_content(self.values[name]) for name in files}
        return Choice(self.entry, self.values | known).spelled

    @property
    def cls(self) -> Any:
        """Class of the policy."""
        return self.entry.cls

    @property
    def compiled(self) -> bool:
        """Whether the class is in the compiled form."""
        return self.entry.compiled

    @property
    def pins(self) -> bool:
        """Whether `kept` of its state names keys that are resident from the start and for ever."""
        return self.entry.pins or self.entry.frozen

    @property
    def frozen(self) -> bool:
        """Whether nothing but `kept` of its state is ever resident."""
        return self.entry.frozen

    @property
    def needs(self) -> tuple[str, ...]:
        """What it must be told, see `specmd.policy.needs`."""
        return self.entry.needs

    @property
    def ahead(self) -> int:
        """How many layers ahead it looks; 0 where it does not say."""
        return int(self.values[self.entry.ahead]) if self.entry.ahead else 0

    @property
    def bypasses(self) -> bool:
        """Whether a miss that finds no free slot waits until the policy's order is asked."""
        said = self.entry.bypass
        return said if isinstance(said, bool) else bool(self.values[said])

    @property
    def bits(self) -> int:
        """Bits a weight of the low-bit copies that it fetches; 0 where it fetches none."""
        return int(self.values[self.entry.bits]) if self.entry.bits else 0

    @property
    def blocks(self) -> bool:
        """Whether a layer computes nothing before all that has room is there."""
        return self.entry.blocks

    @property
    def renormalises(self) -> bool:
        """Whether the weights of a token are scaled up where it leaves experts out."""
        return self.entry.renormalises

    @property
    def executes(self) -> bool:
        """Whether it says what is executed of the router's choice, or where."""
        return any(hasattr(self.cls, hook) for hook in ("route", "answer"))

    @property
    def remembers(self) -> bool:
        """Whether what the policy knows of a key outlives the key's eviction."""
        told = self.entry.remembers
        if isinstance(told, bool):
            return told
        name, _, value = told.partition("=")
        return _spell_value(self.values[name]) == value

    def create(self, *args: Any) -> Any:
        """Build the policy, giving `create` what its axis passes and the parameters."""
        return self.entry.cls.create(*args, **self.values)


def policy(
    name: str,
    *,
    axis: Axis = "evict",
    source: str,
    needs: Iterable[Name] = (),
    compiled: bool = False,
    ahead: str = "",
    bypass: bool | str = False,
    remembers: bool | str = False,
    pins: bool = False,
    frozen: bool = False,
    lossy: bool = False,
    bits: str = "",
    blocks: bool = False,
    renormalises: bool = False,
) -> Callable[[C], C]:
    """Declare a class as a policy.

    Args:
        name: by which it is chosen.
        axis: what it decides.
        source: where the rule comes from.
        needs: what it must be told beyond the event.
        compiled: the class is a NamedTuple of arrays and numbers, its hooks in the subset of Python
            that numba compiles. Any other class may do what it likes, and is interpreted.
        ahead: the parameter of `create` that says how many layers ahead it looks.
        bypass: whether it asks for bypass admission, or the parameter of `create` that does so if
            it is true.
        remembers: whether its history of a key outlives the key's eviction, so that it profits from
            more memory than the slots; "parameter=value" where it does for that value only.
        pins: its attribute `kept` names keys that are resident from the start and for ever; where
            nothing else may leave, its `victim` names no key.
        frozen: it pins, and nothing else ever enters: misses pass the cache by, prefetches find no
            slot.
        lossy: it changes what the model computes.
        bits: the parameter of `create` that says of how many bits its low-bit copies are.
        blocks: a layer computes nothing before all that has room is there.
        renormalises: a token's weights are scaled up where some of its experts are left out.

    """
    said = Declaration(**{**locals(), "needs": tuple(needs)})

    def declare(cls: C) -> C:
        cls.__specmd__ = said  # type: ignore[attr-defined]
        return cls

    return declare


def _spell_type(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "|".join(str(value) for value in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint))


def _spell_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
