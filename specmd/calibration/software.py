"""What software costs a step, beyond the roofline: so much once, and so much for every expert.

Steps that ask for few experts and steps that ask for many (decode and prefill) tell the two apart.
Where all steps ask for alike, an expert timed alone says what it costs, and the rest is the base.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_VARIED = 0.2  # standard deviation over mean of the demand, below which nothing can be told apart


@dataclass(frozen=True)
class Software:
    """Seconds a step takes beside its roofline: `base_s + expert_s * experts`."""

    base_s: float
    expert_s: float


def split_software(left_s: Floats, experts: Floats, alone_s: float, taken_s: Floats) -> Software:
    """Fit the two costs.

    Args:
        left_s: (steps,) what the roofline does not explain of each step.
        experts: (steps,) experts each step asked for.
        alone_s: seconds of an expert beside its roofline, timed alone.
        taken_s: (steps,) what each step took: relative errors of it are what is made small.

    """
    expert_s = alone_s
    if experts.std() > _VARIED * experts.mean():
        table = np.stack([np.ones_like(experts), experts], axis=1) / taken_s[:, None]
        base_s, fitted_s = np.linalg.lstsq(table, left_s / taken_s, rcond=None)[0].tolist()
        if base_s >= 0 and fitted_s >= 0:
            return Software(base_s, fitted_s)
        if fitted_s < 0:
            expert_s = 0.0
    return Software(max(0.0, float(np.median(left_s - expert_s * experts))), expert_s)
