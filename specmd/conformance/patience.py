"""Running somebody's code with patience, but not for ever."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from specmd.policy.faults import standing_at

PATIENCE_S = 10.0  # for a case of some 0.05 s
_LOOK_S = 0.25


class _Stopped(BaseException):
    """Thrown into a policy that does not return."""


def run_guarded(run: Callable[[], str]) -> tuple[str, BaseException | None]:
    """Run in a thread of its own: return the answer and what was raised, if it ever returns.

    Patience is with what it computes; a busy machine, or one that sleeps, is given ten times more,
    and compiling does not count.
    """
    answer, problem = "", None

    def work() -> None:
        nonlocal answer, problem
        with suppress(_Stopped):
            try:
                answer = run()
            except BaseException as raised:  # a policy may raise anything, SystemExit too
                problem = raised

    thread = threading.Thread(target=work, daemon=True)
    spent_s = 0.0
    thread.start()
    while thread.is_alive() and spent_s < PATIENCE_S:
        began, computed_s = time.monotonic(), time.process_time()
        thread.join(min(PATIENCE_S, _LOOK_S))
        waited_s = (time.monotonic() - began) / 10
        if not _is_compiling(thread):
            spent_s += max(waited_s, time.process_time() - computed_s)
    if thread.is_alive():
        place = standing_at(sys._current_frames().get(thread.ident or 0))
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Stopped)
        )
        thread.join(1.0)
        return "", TimeoutError(f"did not return within {PATIENCE_S:g} s{place}")
    return answer, problem


def _is_compiling(thread: threading.Thread) -> bool:
    """Tell whether a thread is within numba's compiler."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("numba.core."):
            return True
        frame = frame.f_back
    return False
