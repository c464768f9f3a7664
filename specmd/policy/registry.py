"""Where policies are found: built-in files, plug-in files and folders, and entry points.

A policy is a class that carries a declaration (`specmd.policy.declaration`). Listing imports
neither torch nor numba.
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
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from specmd.errors import SpecmdError, unknown
from specmd.policy.declaration import AXES, BUILT_IN, Axis, Choice, Declaration, Entry
from specmd.policy.faults import misspelt, told

__all__ = [
    "AXES",
    "BUILT_IN",
    "HOOKS",
    "Axis",
    "Choice",
    "Entry",
    "add_plugin",
    "choose",
    "entries",
]
LOG = logging.getLogger("specmd")
# What is asked of a policy; a method whose name is nearly one of these is a mistake.
HOOKS = {
    "evict": ("on_event", "on_use", "on_insert", "on_prefetch", "on_evict", "rank", "victim"),
    "prefetch": ("predict",),
    "route": ("route",),
    "miss": ("prepare", "answer"),
    "admission": ("observe", "admits", "admits_ahead", "outweighs"),
}
AT_THE_END = ("metrics", "finished")
"""What a policy of any axis may answer after a run, see `specmd.runs.policy_metrics`."""


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
    hints = typing.get_type_hints(entry.cls.create)
    values = Choice.usual(entry).values
    for part in filter(None, rest.split(",")):
        key, equals, text = part.partition("=")
        key = key.strip()
        if key not in values:
            raise unknown(f"parameter of {name}", key, values or ["(it has none)"])
        if not equals:
            raise SpecmdError(f"'{part}' in '{spelled}': write {key}=VALUE")
        try:
            values[key] = _read_value(hints[key], text.strip())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise SpecmdError(f"'{spelled}': {key}={text} is not valid: {reason}") from None
    return Choice(entry, values)


def plugins_of(config: Any) -> list[str]:
    """Return the files, or entry points, of those policies of a run that are not built in."""
    origins = [choose(axis, getattr(config, axis)).entry.origin for axis in AXES]
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
            if not callable(getattr(cls, "create", None)):
                raise SpecmdError(f"policy '{declaration.name}' ({origin}) has no `create`")
            known = HOOKS.get(declaration.axis, ())
            if odd := misspelt(cls, (*known, *AT_THE_END) if known else ()):
                raise SpecmdError(f"policy '{declaration.name}' ({origin}): {odd}")
            if declaration.axis == "admission" and {*declaration.needs} - {"training"}:
                raise SpecmdError(
                    f"policy '{declaration.name}' ({origin}): an admission policy sees the bare "
                    "event; of the needs it may have `training`"
                )
            if declaration.compiled and not (issubclass(cls, tuple) and hasattr(cls, "_fields")):
                raise SpecmdError(
                    f"policy '{declaration.name}' ({origin}) says compiled=True: make its class a "
                    "NamedTuple of arrays and numbers"
                )
            if declaration.axis == "evict" and not (hasattr(cls, "victim") or hasattr(cls, "rank")):
                raise SpecmdError(
                    f"policy '{declaration.name}' ({origin}) has neither `victim` nor `rank`"
                )
            found.append(Entry(**vars(declaration), summary="", origin=origin, cls=cls))
    docs = [inspect.getdoc(each.cls) if len(found) > 1 else module.__doc__ for each in found]
    return [
        replace(
            each, summary=(own or module.__doc__ or each.cls.__doc__ or "").strip().split("\n")[0]
        )
        for each, own in zip(found, docs, strict=True)
    ]


def _read_value(hint: Any, text: str) -> Any:
    """Read a parameter's value; numbers among named choices are named by their digits."""
    if typing.get_origin(hint) is Literal:
        named = {str(value): value for value in typing.get_args(hint)}
        text = named.get(text, text)
        return TypeAdapter(hint).validate_python(text)
    return TypeAdapter(hint).validate_strings(text)
