"""One source, two ways to run it: specialise the core for a policy and a link.

The core (`specmd.core.serve`) calls its policy and its link by the names in `specmd.core.hooks`.
`specialise` rebuilds the functions reachable from an entry point with those placeholders replaced,
either as they are (interpreted: any Python policy, a debugger works) or each compiled by numba
(native speed, policy and link inlined). Only the entry point is cached on disk: numba does not
notice edits to callees, so the cache directory carries a digest of every source involved.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

Function = Callable[..., Any]
_CHECKED = "checked"

LOG = logging.getLogger("specmd")  # what is waited for; the command line says it


def cache_home() -> Path:
    """Folder for compiled kernels: $SPECMD_CACHE_DIR, else the user's cache folder."""
    if explicit := os.environ.get("SPECMD_CACHE_DIR"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specmd"


def specialise(
    entry: Function,
    bindings: Mapping[Function, Function],
    compiled: bool = True,
    checked: bool = False,
) -> Function:
    """Rebuild `entry` with placeholders replaced by `bindings`, interpreted or compiled.

    A placeholder is recognised by identity, wherever a reachable function refers to it by name.
    Specialisations are kept: asking again for the same one costs nothing. Compiled code reads and
    writes wherever an index leads, unless it is `checked` (see `specmd.core.clearance`).
    """
    return _specialise(entry, tuple(bindings.items()), compiled, checked)


def embed(entry: Function, bindings: Mapping[Function, Function]) -> Function:
    """Rebuild `entry` to be bound in another specialisation; what it is bound to stays so.

    It is compiled once and called, not put in the place of every call.
    """
    return _embed(entry, tuple(bindings.items()))


@cache
def _embed(entry: Function, bindings: tuple[tuple[Function, Function], ...]) -> Function:
    function = _Graph(dict(bindings)).rebuild(entry, lambda function, _: function)
    vars(function)["apart"] = True
    return function


def reachable(function: Any) -> list[FunctionType]:
    """All functions that a function calls by global name, and those they call, itself first."""
    return _Graph({}).reachable(function)


def specialise_frozen(
    entry: Function,
    bindings: Mapping[Function, Function],
    frozen: tuple[Any, ...],
    checked: bool = False,
) -> Function:
    """Compile `entry` with its leading arguments read once (see `specmd.core.frozen_args`).

    Returns a function of the other arguments. The frozen arrays may change, be replaced they may
    not.
    """
    numba: Any = importlib.import_module("numba")
    freezing: Any = importlib.import_module("specmd.core.frozen_args")
    call, keep = _specialise_frozen(entry, tuple(bindings.items()), numba.typeof(frozen), checked)
    bound = partial(call, freezing.hold(keep, frozen))
    vars(bound)["frozen"] = frozen  # alive as long as what was made of it
    return bound


@cache
def _specialise_frozen(
    entry: Function, bindings: tuple[tuple[Function, Function], ...], kind: Any, checked: bool
) -> tuple[Function, Function]:
    freezing: Any = importlib.import_module("specmd.core.frozen_args")
    graph = _Graph({**dict(bindings), freezing.entry: entry})
    # What numba keeps of `keep` names the types, too: one folder for each, like `call`'s own.
    own = str(kind), _digest(graph.reachable(freezing.call_held))
    call = _compile(graph, freezing.call_held, *own, checked=checked, thaw=freezing.make_thaw(kind))
    place = kind, cache_home()
    if place not in _keeping:
        _keeping[place] = _compile(_Graph({}), freezing.keep, *own)
    return call, _keeping[place]


_keeping: dict[Any, Function] = {}  # by type: a live cache holds the same state for its two halves


INTERPRETED_PER_S = 100_000.0
COMPILING_S = 3.0


def is_cheaper_interpreted(
    entry: Function,
    bindings: Mapping[Function, Function],
    accesses: int | None,
    checked: bool = False,
) -> bool:
    """Tell whether so few accesses are served sooner than a kernel for them is compiled.

    A kernel that lies in the cache is always used. One that does not is compiled when what was
    interpreted for want of it, in this process, would have paid for it: never more than twice the
    time of whoever knows what is still to come (the ski-rental rule).
    """
    if accesses is None:
        return False
    bound = tuple(bindings.items())
    if (entry, bound) in _interpreted or not _is_kept(entry, bound, checked):
        spent = _interpreted.get((entry, bound), 0.0) + accesses / INTERPRETED_PER_S
        _interpreted[entry, bound] = spent
        return spent < COMPILING_S
    return False


_interpreted: dict[Any, float] = {}  # seconds spent on interpreting what is not compiled


@cache
def _is_kept(
    entry: Function, bindings: tuple[tuple[Function, Function], ...], checked: bool
) -> bool:
    """Tell whether a kernel lies in the cache."""
    folder = _folder(_Graph(dict(bindings)), entry, *(_CHECKED,) * checked)
    return folder.is_dir() and any(folder.rglob("*.nbc"))


@cache
def _specialise(
    entry: Function,
    bindings: tuple[tuple[Function, Function], ...],
    compiled: bool,
    checked: bool,
) -> Function:
    graph = _Graph(dict(bindings))
    if not compiled:
        return graph.rebuild(entry, lambda function, _: _with_plain_numbers(function))
    return _compile(graph, entry, checked=checked)


class _Graph:
    """The functions reachable from an entry point by global name, placeholders resolved."""

    def __init__(self, bindings: Mapping[Function, Function]) -> None:
        self.bindings = dict(bindings)

    def resolve(self, value: object) -> FunctionType | None:
        """Return the function a global stands for, None when it is not one to rebuild."""
        value = getattr(value, "py_func", value)  # compiled by its author: compiled again, as ours
        if not isinstance(value, FunctionType):
            return None
        bound = self.bindings.get(value, value)
        return bound if isinstance(bound, FunctionType) else None

    def reachable(self, entry: Function) -> list[FunctionType]:
        """All functions reachable from `entry`, itself first, in a stable order."""
        found: dict[FunctionType, None] = {}
        todo = [entry]
        while todo:
            function = todo.pop()
            if not isinstance(function, FunctionType) or function in found:
                continue
            found[function] = None
            for name in function.__code__.co_names:
                resolved = self.resolve(function.__globals__.get(name))
                if resolved is not None:
                    todo.append(resolved)
        return list(found)

    def _unbound(self, entry: Function) -> set[FunctionType]:
        """Those of the functions called from `entry` from which no placeholder is reached."""
        known: dict[FunctionType, bool] = {}

        def unbound(function: FunctionType) -> bool:
            if function not in known:
                known[function] = True
                for name in function.__code__.co_names:
                    value = function.__globals__.get(name)
                    called = self.resolve(value)
                    if called is not None:
                        itself = getattr(value, "py_func", value) is called
                        known[function] &= itself and unbound(called)
            return known[function]

        return {f for f in self.reachable(entry) if unbound(f)} - {entry}

    def rebuild(
        self,
        entry: Function,
        finish: Callable[[FunctionType, bool], Function],
        shared: dict[FunctionType, Function] | None = None,
    ) -> Function:
        """Clone the graph; `finish(clone, is_entry)` decorates each function after its callees.

        What reaches no placeholder is the same in every graph: it is taken from `shared`, or left
        there for the next.
        """
        own: dict[FunctionType, Function] = {}
        alike = set() if shared is None else self._unbound(entry)

        def build(function: FunctionType) -> Function:
            done = own if shared is None or function not in alike else shared
            if function in done:
                return done[function]
            scope = dict(function.__globals__)
            for name in function.__code__.co_names:
                resolved = self.resolve(scope.get(name))
                if resolved is not None:
                    scope[name] = build(resolved)
            clone = FunctionType(
                function.__code__,
                scope,
                function.__name__,
                function.__defaults__,
                function.__closure__,
            )
            clone.__kwdefaults__ = function.__kwdefaults__
            vars(clone).update(vars(function))
            clone.__module__ = function.__module__
            clone.__qualname__ = function.__qualname__
            done[function] = finish(clone, function is entry)
            return done[function]

        assert isinstance(entry, FunctionType)
        return build(entry)


def _with_plain_numbers(function: FunctionType) -> FunctionType:
    """Replace numpy scalars among the constants: Python compares its own numbers faster."""
    scope = function.__globals__
    for name in function.__code__.co_names:
        constant = scope.get(name)
        if isinstance(constant, np.generic):
            scope[name] = constant.item()
    return function


def _compile(
    graph: _Graph, entry: Function, *extra: str, checked: bool = False, **names: Any
) -> Function:
    """Compile `entry`; `names` are globals it is given, told apart in the cache by `extra`."""
    extra += (_CHECKED,) * checked
    folder = _folder(graph, entry, *extra)
    if not folder.is_dir():
        LOG.info("compiling %s: once, the next run finds it", _name(graph, entry))
    numba: Any = importlib.import_module("numba")  # slow to import, and its options are untyped
    config = numba.core.config

    def finish(function: FunctionType, is_entry: bool) -> Function:
        if is_entry:
            function.__globals__.update(names)
        jitted: Function = numba.njit(
            error_model="numpy",
            nogil=True,
            _nrt=False,
            boundscheck=checked,
            forceinline=not is_entry and not vars(function).get("apart"),
            no_cpython_wrapper=not is_entry,
            no_cfunc_wrapper=True,
        )(function)
        if is_entry:
            before = config.CACHE_DIR
            config.CACHE_DIR = str(folder)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                jitted.enable_caching()  # type: ignore[attr-defined]
            except (OSError, RuntimeError):
                _say_uncached(str(folder))
            finally:
                config.CACHE_DIR = before
        return jitted

    return graph.rebuild(entry, finish, _compiled[checked])


# Functions compiled into more than one kernel, by whether they are checked: numba takes most of a
# kernel's time for them, and once a process is enough.
_compiled: tuple[dict[FunctionType, Function], ...] = {}, {}


def _folder(graph: _Graph, entry: Function, *extra: str) -> Path:
    """Folder in which a kernel is kept."""
    version = importlib.metadata.version("numba")
    return cache_home() / f"kernels-{_digest(graph.reachable(entry), version, *extra)}"


def _name(graph: _Graph, entry: Function) -> str:
    """Call a kernel by the policy bound in it, or by what it does."""
    ours = ("specmd.core", "specmd.simulation", "specmd.live")
    found = {
        function.__qualname__.partition(".")[0]
        for function in graph.bindings.values()
        if "." in function.__qualname__ and not function.__module__.startswith(ours)
    }
    return ", ".join(sorted(found)) or entry.__name__


def _digest(functions: list[FunctionType], *extra: str) -> str:
    """Digest of the source files the functions come from and of which function is bound where."""
    hasher = hashlib.blake2b(digest_size=10)
    for file in sorted({inspect.getfile(function) for function in functions}):
        hasher.update(_file_digest(file))
    for function in functions:
        hasher.update(f"{function.__module__}.{function.__qualname__}\n".encode())
    for text in extra:
        hasher.update(text.encode())
    return hasher.hexdigest()


@cache
def _file_digest(file: str) -> bytes:
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).digest()


@cache
def _say_uncached(folder: str) -> None:
    LOG.info(
        f"cannot write {folder}; kernels are compiled anew in every process (set SPECMD_CACHE_DIR "
        "to a writable folder)"
    )
