"""Checking a plug-in in a process of its own, which it may crash, end or hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from specmd.errors import SpecmdError
from specmd.policy.deadline import read_note


class Said(NamedTuple):
    """One line about a policy: the verdict of a check, or (`passed` is None) its speed."""

    subject: str  # axis and policy; "" where none could be read
    name: str
    passed: bool | None
    detail: str


def check_apart(named: str, *, limit_s: float | None = None, timed: bool = True) -> Iterator[Said]:
    """Check what a file, a folder or a name stands for; yields every finding when it is there.

    Args:
        named: a file or folder of policies, or the name of a registered one.
        limit_s: seconds of computing that a case may take; None: ten.
        timed: whether to measure the speed of what has passed.

    Raises:
        SpecmdError: there is no such policy, or it cannot be imported.

    """
    with tempfile.TemporaryDirectory(prefix="specmd-") as folder:
        note = Path(folder) / "note"
        asked = {"named": named, "limit_s": limit_s, "timed": timed, "note": str(note)}
        process = subprocess.Popen(
            [sys.executable, "-m", "specmd.conformance.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin, process.stdout:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                yield from _read(process.stdout, note)
        finally:
            process.kill()
            process.wait()


def _read(lines: Iterator[str], note: Path) -> Iterator[Said]:
    subject = case = ""
    for text in lines:
        line = json.loads(text)
        if "error" in line:
            raise SpecmdError(line["error"])
        if line.get("ended"):
            return
        subject, case = line.get("subject", subject), line.get("case", case)
        if "finding" in line:
            yield Said(subject, **line["finding"])
        if "speed" in line:
            yield Said(subject, "speed", None, line["speed"])
    found = read_note(note)
    why = "its process ended: killed, or it called os._exit" if found is None else found.text
    yield Said(subject, case, False, why)
