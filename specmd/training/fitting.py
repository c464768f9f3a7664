"""What every fit takes and returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Fitted(NamedTuple):
    """Weights by name, and how the fit went."""

    tensors: dict[str, npt.NDArray[Any]]
    loss: list[float]  # of each epoch
    held_out_loss: float | None
    settings: Mapping[str, float]


def shuffled_rows(labels: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """Give every sample the labels of another: the control. What is learnt is their mean."""
    return labels[np.random.default_rng(seed + 1).permutation(len(labels))]
