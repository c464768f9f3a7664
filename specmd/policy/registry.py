"""Where policies are found: built-in files, plug-in files and folders, and entry points.

A policy is a class that carries a declaration, put there by the decorator `policy`. Its parameters
are the keyword-only arguments of its `create`; their annotations and defaults are the schema.
Listing imports neither torch nor numba.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import pkgutil
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from specmd.errors import SpecmdError, unknown
from specmd.policy.declaration import AXES, HOOKS, Axis, Declaration, flaw, policy
from specmd.policy.faults import told
from specmd.policy.weights import ModelFile, count_weights, file_content, load_model

LOG = logging.getLogger("specmd")

BUILT_IN = "built-in"

__all__ = [
    "AXES",
    "BUILT_IN",
    "HOOKS",
    "Axis",
    "Choice",
    "Declaration",
    "Entry",
    "add_plugin",
    "choose",
    "entries",
    "forget",
    "is_lossy",
    "plugins_of",
    "policy",
]


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

    @cached_property
    def hints(self) -> dict[str, Any]:
        """Types of what `create` is given, as they are annotated."""
        return typing.get_type_hints(self.cls.create, include_extras=True)

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
            "computes": self.computes,
            "parameters": parameters,
            "lossless": not self.lossy,
            "remembers": self.remembers,
            "compiled": self.compiled,
            "simulated_only": self.simulated_only,
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
        return self._with_files(file_content)

    @property
    def recorded(self) -> str:
        """Canonical spelling as it is recorded: files by their names, not by where they lie."""
        return self._with_files(lambda path: Path(path).name)

    def _with_files(self, spell: Callable[[str], str]) -> str:
        said = {
            name: spell(value)
            for name, value in self.values.items()
            if value and self.entry.hints.get(name) == ModelFile
        }
        if self.inner is not None:
            said[self.entry.of] = self.inner._with_files(spell).replace(",", ";")
        return Choice(self.entry, self.values | said).spelled if said else self.spelled

    @property
    def weights_file(self) -> str:
        """The file of learned weights it decides by; empty where none is named."""
        return str(self.parts[-1].values.get("model", "")) if "model" in self.needs else ""

    @property
    def cls(self) -> Any:
        """Class of the policy."""
        return self.entry.cls

    @cached_property
    def inner(self) -> Choice | None:
        """The policy it is made of, where it is made of another."""
        if not self.entry.of:
            return None
        found = choose(self.entry.axis, str(self.values[self.entry.of]).replace(";", ","))
        if found.entry.of or not hasattr(found.cls, "predict"):
            raise SpecmdError(
                f"{self.entry.name}: {self.entry.of}={found.spelled} predicts nothing"
            )
        return found

    @property
    def parts(self) -> tuple[Choice, ...]:
        """Itself and what it is made of."""
        return (self,) if self.inner is None else (self, *self.inner.parts)

    @property
    def compiled(self) -> bool:
        """Whether the class is in the compiled form, and that of what it is made of."""
        return all(part.entry.compiled for part in self.parts)

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
        return self.parts[-1].entry.needs

    @property
    def work(self) -> tuple[int, int]:
        """Gates of later layers, and weights of its own, that it computes in a layer."""
        found = self.parts[-1]
        if found.entry.computes == "weights":
            return 0, int(found.cls.weights(**found.values))
        if self.weights_file:
            header, tensors = load_model(self.weights_file)
            return 0, count_weights(tensors) // header.num_layers
        return (max(1, found.ahead) if found.entry.computes == "gates" else 0), 0

    @property
    def ahead(self) -> int:
        """How many layers ahead it looks; 0 where it does not say."""
        if self.inner is not None:
            return self.inner.ahead
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
        if self.inner is not None:
            args += (self.inner.create(*args),)
        return self.entry.cls.create(*args, **self.values)


def entries(axis: Axis | None = None) -> list[Entry]:
    """All registered policies, of one axis or of all, in order of axis and name."""
    found = [entry for entry in _registry().values() if axis in (None, entry.axis)]
    return sorted(found, key=lambda entry: (AXES.index(entry.axis), entry.name))


def choose(axis: Axis, spelled: str) -> Choice:
    """Resolve `name:key=value,...`; raises SpecmdError with the closest known names."""
    name, _, rest = spelled.strip().partition(":")
    entry = _registry().get((axis, name))
    if entry is None:
        raise unknown(f"{axis} policy", name, {each.name for each in entries(axis)})
    if not rest:
        return Choice.usual(entry)
    values = Choice.usual(entry).values
    for part in filter(None, rest.split(",")):
        key, equals, text = part.partition("=")
        key = key.strip()
        if key not in values:
            raise unknown(f"parameter of {name}", key, values or ["(it has none)"])
        if not equals:
            raise SpecmdError(f"'{part}' in '{spelled}': write {key}=VALUE")
        try:
            values[key] = _read_value(entry.hints[key], text.strip())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise SpecmdError(f"'{spelled}': {key}={text} is not valid: {reason}") from None
    made = Choice(entry, values)
    if made.inner is not None:
        values[entry.of] = made.inner.spelled.replace(",", ";")
    return made


def plugins_of(config: Any) -> list[str]:
    """Return the files, or entry points, of those policies of a run that are not built in."""
    chosen = [choose(axis, getattr(config, axis)) for axis in AXES]
    origins = [part.entry.origin for choice in chosen for part in choice.parts]
    return list(dict.fromkeys(Path(origin).name for origin in origins if origin != BUILT_IN))


def is_lossy(config: Any) -> bool:
    """Tell whether any policy of a run changes what the model computes."""
    return any(choose(axis, getattr(config, axis)).entry.lossy for axis in AXES)


def add_plugin(path: str | Path) -> list[Entry]:
    """Register the policies of a Python file, or of every file of a folder."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.glob("*.py") if not p.name.startswith(("_", "test_")))
        if not files:
            raise SpecmdError(f"plug-in folder {path} holds no .py file")
        return [entry for file in files for entry in add_plugin(file)]
    if not path.is_file():
        raise SpecmdError(f"plug-in {path} does not exist")
    path = path.resolve()
    name = f"specmd_plugin_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SpecmdError(f"plug-in {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SpecmdError(f"plug-in {path} cannot be imported: {told(error)}") from error
    found = _declared(module, str(path))
    if not found:
        raise SpecmdError(f"plug-in {path} declares no policy: decorate a class with @policy(...)")
    for entry in found:
        known = _registry().get((entry.axis, entry.name))
        if known is not None and known.origin != entry.origin:
            raise SpecmdError(
                f"plug-in {path}: {entry.axis} policy '{entry.name}' is already registered "
                f"by {known.origin}"
            )
        _registry()[entry.axis, entry.name] = entry
    return found


def forget(found: Iterable[Entry]) -> None:
    """Remove policies, so that others may have their names."""
    for entry in found:
        _registry().pop((entry.axis, entry.name), None)


@cache
def _registry() -> dict[tuple[Axis, str], Entry]:
    import specmd.policies

    found: dict[tuple[Axis, str], Entry] = {}
    for info in pkgutil.walk_packages(specmd.policies.__path__, "specmd.policies."):
        if not info.ispkg:
            for entry in _declared(importlib.import_module(info.name), BUILT_IN):
                found[entry.axis, entry.name] = entry
    for point in importlib.metadata.entry_points(group="specmd.policies"):
        try:
            for entry in _pointed_at(point):
                found.setdefault((entry.axis, entry.name), entry)
        except Exception as error:  # a broken plug-in must not break the rest
            reason = error if isinstance(error, SpecmdError) else told(error)
            LOG.warning("plug-in %s cannot be used: %s", point.value, reason)
    return found


def _pointed_at(point: importlib.metadata.EntryPoint) -> list[Entry]:
    """Policies of an entry point, which names a module or a class."""
    named, origin = point.load(), f"entry point {point.value}"
    if isinstance(named, ModuleType):
        found = _declared(named, origin)
    else:
        module = sys.modules[getattr(named, "__module__", __name__)]
        found = [entry for entry in _declared(module, origin) if entry.cls is named]
    if not found:
        raise SpecmdError("it declares no policy: decorate a class with @policy(...)")
    return found


def _declared(module: ModuleType, origin: str) -> list[Entry]:
    found = []
    for cls in vars(module).values():
        declaration = vars(cls).get("__specmd__") if isinstance(cls, type) else None
        if isinstance(declaration, Declaration) and cls.__module__ == module.__name__:
            if odd := flaw(declaration, cls):
                raise SpecmdError(f"policy '{declaration.name}' ({origin}){odd}")
            found.append(Entry(**vars(declaration), summary="", origin=origin, cls=cls))
    docs = [inspect.getdoc(each.cls) if len(found) > 1 else module.__doc__ for each in found]
    return [
        replace(
            each, summary=(own or module.__doc__ or each.cls.__doc__ or "").strip().split("\n")[0]
        )
        for each, own in zip(found, docs, strict=True)
    ]


_adapter = cache(TypeAdapter)


def _read_value(hint: Any, text: str) -> Any:
    """Read a parameter's value; numbers among named choices are named by their digits."""
    if typing.get_origin(hint) is Literal:
        named = {str(value): value for value in typing.get_args(hint)}
        text = named.get(text, text)
        return _adapter(hint).validate_python(text)
    return _adapter(hint).validate_strings(text)


def _spell_type(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "|".join(str(value) for value in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint))


def _spell_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
