"""Reading a plug-in's source for what makes two runs of it differ: where a finding points to."""

from __future__ import annotations

import ast
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from specmd.core.clearance import foreign_files

_DRAWS = ("random", "secrets", "uuid", "time", "datetime")
_DRAWN = ("os.urandom", "id", "hash")
Kept = dict[tuple[str, str], bytes]


def kept_state(cls: type) -> Kept:
    """Copy what outlives a run: attributes of the class and its bases, and globals of its module.

    By (name of the class, or "", name) as pickled; what cannot be pickled is left out.
    """
    own = [base for base in cls.__mro__ if base.__module__ == cls.__module__]
    module = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    places = [("", module), *((base.__name__, vars(base)) for base in own)]
    found: Kept = {}
    for owner, names in places:
        for name, value in names.items():
            plain = not callable(value) and not isinstance(value, ModuleType | FunctionType)
            if plain and not name.startswith("__"):
                with suppress(Exception):
                    found[owner, name] = pickle.dumps(value)
    return found


def why_different(cls: type, before: Kept) -> str:
    """Say what may make two runs of a policy differ, with file and line; empty if nothing is seen.

    Args:
        cls: the policy.
        before: `kept_state` before the runs.

    """
    changed = [name for name, value in kept_state(cls).items() if before.get(name) != value]
    trees = list(_trees(cls))
    for owner, name in changed:
        for file, tree in trees:
            line = _assigned(tree, owner, name)
            if line:
                whose = f"{owner}.{name}" if owner else f"the global {name}"
                return f"{whose} keeps its content from one run to the next ({file}:{line})"
    for file, tree in trees:
        classes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
        own = [n for n in classes if n.name in {base.__name__ for base in cls.__mro__}]
        found = [each for part in (*own, tree) for each in _draws(part, tree)]
        if found:
            line, called = found[0]
            return f"{called} is another in every run; draw from `world.seed` ({file}:{line})"
    return ""


def _trees(cls: type) -> Iterator[tuple[str, ast.Module]]:
    for file in foreign_files(cls):
        with suppress(OSError, SyntaxError, ValueError):
            yield Path(file).name, ast.parse(Path(file).read_text(encoding="utf-8"))


def _assigned(tree: ast.Module, owner: str, name: str) -> int:
    """Return the line in which a class, or the module, first gives a name its value; 0 if none."""
    bodies: list[Any] = [tree]
    if owner:
        bodies = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == owner]
    for body in bodies:
        for statement in body.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if isinstance(statement, ast.AnnAssign):
                targets = [statement.target]
            if any(isinstance(each, ast.Name) and each.id == name for each in targets):
                return int(statement.lineno)
    return 0


def _draws(part: ast.AST, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield calls of clocks and of generators that nobody has given a seed, in a part of a file."""
    known = _imported(tree)
    for node in ast.walk(part):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        first, _, rest = called.partition(".")
        full = f"{known.get(first, first)}.{rest}" if rest else known.get(first, first)
        if full.endswith("default_rng") and node.args:
            continue
        if full.startswith(("numpy.random.", *(f"{each}." for each in _DRAWS))) or full in _DRAWN:
            yield node.lineno, f"{called}()"


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return what the names of imports stand for, spelled out."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.asname or each.name: each.name for each in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return found


def place_of(function: Callable[..., Any]) -> str:
    """Say where a function stands, as ` (mine.py:12, in on_use)`."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    return f" ({Path(code.co_filename).name}:{code.co_firstlineno}, in {code.co_name})"
