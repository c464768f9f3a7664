"""How long every forward pass took, and what of it was waiting or deciding.

A step lasts from the moment the decoder is entered to the moment it is entered again, so what
`generate` does between two passes (sampling, stopping, preparing inputs) belongs to the step before
it; the last step of a call ends with the call. A pass outside of `generate` ends when the model
returns. Its parts are the columns of `specmd.runs.metrics.PARTS`: stalls are what
was waited for copies; overhead is bringing the router's choice to the host, deciding, and what
happens between two passes; all the rest is computing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from specmd.runs.metrics import PART_COLUMN
from specmd.runs.timeline import Timeline

_COMPUTE, _OVERHEAD = PART_COLUMN["compute"], PART_COLUMN["overhead"]


class StepTimes:
    """Follows one model's passes.

    Args:
        totals: returns seconds so far by part, of all parts but computing.
        timeline: takes down the steps, or None.
        settle: waits until the device has computed what it was given; None where it always has.

    """

    def __init__(
        self,
        totals: Callable[[], Mapping[str, float]],
        timeline: Timeline | None = None,
        settle: Callable[[], None] | None = None,
    ) -> None:
        self._totals, self._timeline, self._settle = totals, timeline, settle
        self._rows: list[list[float]] = []
        self._began_s = 0.0
        self._left_s = 0.0
        self._before: Mapping[str, float] | None = None

    def begin(self) -> None:
        """Begin a step, ending the one before if it is still open."""
        now = time.perf_counter()
        self._end(now)
        self._began_s = self._left_s = now
        self._before = self._totals()

    def leave(self) -> None:
        """Note that the model has returned; the step goes on."""
        self._left_s = time.perf_counter()

    def end(self) -> None:
        """End the open step, if there is one."""
        if self._settle is not None and self._before is not None:
            self._settle()
        self._end(time.perf_counter())

    def drop(self) -> None:
        """Forget the open step: no token of it counts."""
        self._before = None

    def restart(self) -> None:
        """Forget all steps."""
        self._rows, self._before = [], None

    def seconds(self) -> npt.NDArray[np.float64]:
        """Return (steps, PARTS) seconds of the steps that have ended."""
        return np.array(self._rows, np.float64).reshape(-1, len(PART_COLUMN))

    def _end(self, now: float) -> None:
        if self._before is None:
            return
        row = [0.0] * len(PART_COLUMN)
        row[_OVERHEAD] = now - self._left_s
        for part, seconds in self._totals().items():
            row[PART_COLUMN[part]] += seconds - self._before[part]
        row[_COMPUTE] = max(0.0, now - self._began_s - sum(row))
        if self._timeline is not None:
            self._timeline.span("compute", f"step {len(self._rows)}", self._began_s, now)
        self._rows.append(row)
        self._before = None
