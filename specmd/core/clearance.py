"""Compiled code that is not ours: bounds-checked until the conformance suite has passed on it.

Compiled code does not notice that it writes beyond an array: it changes whatever lies there, and
the numbers of the run with it. So the kernels of a plug-in check every index, until the suite has
passed on this very source beside this very core; then a stamp lies in the folder of the kernels,
named by the digest of both. What is checked runs as it does otherwise, only slower.
"""

from __future__ import annotations

import faulthandler
import hashlib
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from specmd.core.specialise import cache_home, reachable

FRAME = "compiled_code_of_"
_BESIDE = (Path(__file__).parent, Path(__file__).parents[1] / "conformance")


def is_cleared(cls: type) -> bool:
    """Whether a policy class may run unchecked: a built-in one, or one with a stamp."""
    files = foreign_files(cls)
    try:
        return not files or _stamp(files).exists()
    except OSError:  # made up without a file
        return False


def clear(cls: type) -> None:
    """Keep the stamp that lets a policy class run unchecked; without a folder it stays checked."""
    if files := foreign_files(cls):
        with suppress(OSError):
            cache_home().mkdir(parents=True, exist_ok=True)
            _stamp(files).touch()


def foreign_files(cls: type) -> list[str]:
    """Source files from outside the package that a policy class is made of, sorted."""
    classes = [base for base in cls.__mro__ if _is_foreign(base)]
    methods = [getattr(each, "__func__", each) for base in classes for each in vars(base).values()]
    functions = {f for method in methods for f in reachable(method) if _is_foreign(f)}
    return sorted({_file_of(each) for each in (*classes, *functions)})


def _is_foreign(made: Any) -> bool:
    package = str(made.__module__).partition(".")[0]
    # The methods of a NamedTuple are made by the standard library.
    return package not in {"specmd", *sys.stdlib_module_names} and "namedtuple_" not in package


def _file_of(made: Any) -> str:
    if isinstance(made, FunctionType):
        return made.__code__.co_filename
    return str(getattr(sys.modules.get(made.__module__), "__file__", made.__module__))


def named(kernel: Callable[..., Any], cls: type) -> Callable[..., Any]:
    """Call a kernel of a plug-in from a frame that bears its file: what a crash of it shows."""
    files = foreign_files(cls)
    if not files:
        return kernel
    with suppress(Exception):  # standard error may be closed, or no file
        if not faulthandler.is_enabled():
            faulthandler.enable()
    scope = {"kernel": kernel}
    name = FRAME + cls.__name__
    frame = f"def {name}(*arguments): return kernel(*arguments)"
    exec(compile(frame, files[0], "exec"), scope)  # noqa: S102 - the line above, no input
    return scope[name]


def _stamp(files: list[str]) -> Path:
    hasher = hashlib.blake2b(_digest_of_core(), digest_size=12)
    for file in files:
        hasher.update(hashlib.blake2b(Path(file).read_bytes(), digest_size=16).digest())
    return cache_home() / f"conforms-{hasher.hexdigest()}"


@cache
def _digest_of_core() -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    for file in sorted(file for folder in _BESIDE for file in folder.rglob("*.py")):
        hasher.update(file.read_bytes())
    return hasher.digest()
