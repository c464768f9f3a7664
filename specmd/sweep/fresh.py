"""A process for one task: `python -m specmd.sweep.fresh RESULT`, with the task on stdin."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from specmd.sweep.executor import keep_notes, perform


def main() -> None:
    """Read a task, perform it, and leave what it made in a file that appears whole or not."""
    result = Path(sys.argv[1])
    keep_notes(result.parent)
    made = pickle.dumps(perform(pickle.load(sys.stdin.buffer)))  # noqa: S301 - from its parent
    partial = result.with_suffix(".partial")
    partial.write_bytes(made)
    partial.replace(result)


if __name__ == "__main__":
    main()
