"""The one error type of SpecMD, and the exit codes of its command line.

A message says what is wrong, where, and what to do about it. The command line prints it as a
single line on stderr; a traceback is always a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """Process exit codes."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    THRESHOLD = 3
    PARTLY_FAILED = 4
    NOT_WRITTEN = 5
    INTERRUPTED = 130


class SpecmdError(Exception):
    """Bad input or an impossible request; the message says what to do.

    `code` is how the command line exits: `USAGE`, or `NOT_WRITTEN` where a file could not be
    written, which is nobody's input.
    """

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


def unknown(kind: str, name: str, known: Iterable[str]) -> SpecmdError:
    """Build the error for a name that is not registered, with the closest known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
    return SpecmdError(f"unknown {kind} '{name}': {hint}")
