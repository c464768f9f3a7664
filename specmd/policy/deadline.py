"""A limit on code that may never return or may crash, and the note that says where it stood.

Python's own watchdog (`faulthandler`) needs neither the interpreter nor its lock, so that it ends a
process that loops in compiled code as well. Before it does, it writes where every thread stands
into a file; so does a crash. Whoever started the process reads the note.
"""

from __future__ import annotations

import faulthandler
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from specmd.core.clearance import FRAME
from specmd.policy.faults import is_foreign_to_authors

_LATE = re.compile(r"^Timeout \(([0-9:.]+)\)!", re.MULTILINE)
_CRASH = re.compile(r"^(?:Fatal Python error|Windows fatal exception): (.+)$", re.MULTILINE)
_FRAME = re.compile(r'^  File "([^"\n]+)", line (\d+) in (\S+)', re.MULTILINE)


class Note(NamedTuple):
    """How a process ended: too late, or crashed; and what it was in."""

    is_late: bool
    text: str


@contextmanager
def noting(path: Path, limit_s: float | None = None) -> Iterator[None]:
    """End this process where a block takes longer than `limit_s`; leave a note of that, or a crash.

    The file is gone where the block was left in another way.
    """
    with path.open("w", encoding="utf-8") as file:
        was_on = faulthandler.is_enabled()
        faulthandler.enable(file)
        if limit_s is not None:
            faulthandler.dump_traceback_later(limit_s, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
            if was_on:
                faulthandler.enable()
    path.unlink(missing_ok=True)


def read_note(path: Path) -> Note | None:
    """Read what a process left behind; None where there is no such note."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    where = _place(text)
    if late := _LATE.search(text):
        hours, minutes, seconds = map(float, late[1].split(":"))
        return Note(
            True, f"did not return within {3600 * hours + 60 * minutes + seconds:g} s{where}"
        )
    crash = _CRASH.search(text)
    return Note(False, f"{crash[1]}{where}") if crash else None


def _place(text: str) -> str:
    """Name the line of a policy that a thread stood at."""
    for file, line, name in _FRAME.findall(text):
        if is_foreign_to_authors(file) or not file.endswith(".py"):
            continue
        if name.startswith(FRAME):
            return f" ({Path(file).name}, compiled)"
        return f" ({Path(file).name}:{line}, in {name})"
    return ""
