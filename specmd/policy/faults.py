"""What went wrong in somebody's policy: one line with what was raised, the file and the line.

Files are called by their names alone: the line is kept with results, which hold no paths.
"""

from __future__ import annotations

import difflib
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from specmd.core.clearance import FRAME
from specmd.core.guards import Fault

_OWN = Path(__file__).parents[1]
_PLACE = re.compile(r'(?:File "|(?:at|from|location:) )([^"\n(]+?)(?:", line | \()(\d+)')
_FUNCTION = re.compile(r"<function (\S+) at")
_NOISE = re.compile(r"Failed in .*|During: .*|Invalid use of .*")
_ENDLESS = re.compile(r"^(File .*|There are \d+ candidate.*)$", re.MULTILINE)
_LONGEST = 300


def told(error: BaseException) -> str:
    """Say what was raised and where: of numba's pages, what is wrong and the policy's own line."""
    kind = type(error)
    if kind.__module__.startswith("numba."):
        lines = [line.strip() for line in _ENDLESS.split(str(error))[0].splitlines()]
        useful = " ".join(line for line in lines if line and not _NOISE.fullmatch(line))
        return f"{_shorten(useful)} ({_numba_place(str(error)) or 'while compiling'})"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{kind.__name__}: {error.msg} ({Path(error.filename).name}:{error.lineno})"
    named = str(error) and not isinstance(error, Fault)
    text = _shorten(f"{kind.__name__}: {error}" if named else str(error) or kind.__name__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".py")]
    foreign = [f for f in frames if not is_own(f.filename)]
    if not foreign and not isinstance(error, Fault):
        foreign = frames
    if not foreign:
        return text
    frame = foreign[-1]
    file = Path(frame.filename).name
    if frame is frames[-1] and frame.name.startswith(FRAME):
        return f"{text} ({file}, compiled: `specmd validate policy` finds the line)"
    if frame.name.startswith(FRAME):
        return f"{text} ({file})"
    return f"{text} ({file}:{frame.lineno}, in {frame.name})"


def standing_at(frame: FrameType | None) -> str:
    """Say which line of a policy a thread is in, as ` (mine.py:12, in on_use)`; nothing if none."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.endswith(".py") and not is_foreign_to_authors(code.co_filename):
            file = Path(code.co_filename).name
            if code.co_name.startswith(FRAME):
                return f" ({file}, compiled)"
            return f" ({file}:{frame.f_lineno}, in {code.co_name})"
        frame = frame.f_back
    return ""


def is_foreign_to_authors(file: str) -> bool:
    """Whether a file is of this package, of a library or of Python itself."""
    return is_own(file) or Path(file).is_relative_to(sysconfig.get_path("stdlib"))


def _numba_place(text: str) -> str:
    for file, line in _PLACE.findall(text):
        if not is_own(file):
            return f"{Path(file).name}:{line}"
    function = _FUNCTION.search(text)
    return f"in {function[1]}" if function else ""


def is_own(file: str) -> bool:
    """Whether a file is of this package or of a library, where no author looks for a mistake."""
    path = Path(file).resolve()
    return path.is_relative_to(_OWN) or "site-packages" in path.parts


def misspelt(cls: type, hooks: Iterable[str]) -> str:
    """Name a method that nobody calls because its name is nearly that of a hook; else nothing."""
    known = set(hooks)
    absent = {name for name in known if not hasattr(cls, name)}
    if "victim" not in absent or "rank" not in absent:
        absent -= {"victim", "rank"}  # one of them is enough
    for base in cls.__mro__:
        for name in vars(base) if base not in (object, tuple) and known else ():
            near = difflib.get_close_matches(name, absent, n=1, cutoff=0.75)
            if name in known or not (name.startswith("on_") or near):
                continue
            if callable(getattr(cls, name)):
                hint = f"did you mean {near[0]}?" if near else f"hooks are {', '.join(hooks)}"
                return f"{name} is no hook: {hint}"
    return ""


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
