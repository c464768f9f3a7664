"""Replay a trace through the residency core: configuration and trace in, counts and times out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from specmd.config import RunConfig

if TYPE_CHECKING:
    from specmd.costs import CostCoefficients
    from specmd.trace import Trace

# Columns of `Outcome.step_seconds`; they add up to the duration of the step.
PARTS = ("compute", "demand_stall", "late_prefetch_stall", "cpu_expert", "overhead")


@dataclass(frozen=True)
class Outcome:
    """What happened, as arrays; `specmd.simulate` turns it into a `Run`."""

    counters: npt.NDArray[np.int64]  # (2 phases, layers, NUM_COUNTERS), see specmd.residency
    decision_digest: str
    step_seconds: npt.NDArray[np.float64] | None  # (counted steps, PARTS); None without a clock
    first_step: int  # the first counted step: steps before it were warm-up
    link_busy_s: float | None  # time the link carried bytes, of the counted steps


def replay(
    trace: Trace,
    config: RunConfig,
    *,
    training: Trace | None = None,
    costs: CostCoefficients | None = None,
    residency: Literal["cache", "all", "none"] = "cache",
    interpreted: bool = False,
) -> Outcome:
    """Run one configuration over a trace.

    `costs` switches the clock on. `residency` "all" starts with every expert resident, "none"
    admits nothing: the two ends every result is compared with. `training` is the trace that
    policies fitted beforehand are fitted on. `config.capacity_slots`, not `config.capacity`, is
    what counts. Raises SpecmdError when a policy's needs are not met.
    """
    raise NotImplementedError
