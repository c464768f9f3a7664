"""What computing loses to what goes on beside it: waits, copies, predictions.

A processor that had to wait goes on slower than it stopped: its caches have gone cold, and one wait
in a layer is enough for that. A copy thread that works while another computes takes the interpreter
from it, for every copy. A prefetcher that looks ahead runs another gate in every layer. With small
experts all that is not small. Plays tell them apart: no expert resident, and a third of them
(layers with few and with many copies tell a wait from a copy), every expert resident but with a
prefetcher (predicting alone), and half of them with a prefetcher. Each loss is what a simulation
with the losses before it leaves of its play. On an accelerator kernels wait and not the host, which
costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from specmd.calibration.fit import Floats, fit_nonnegative
from specmd.calibration.plays import Play

RESIDENT, WAITED, PARTLY = "resident", "waited", "partly"
PREDICTED, FETCHED = "predicted", "fetched"
_UNIT_S = 1e-7  # a loss so small that it changes nothing else

Round = Mapping[str, Play]


@dataclass(frozen=True)
class Losses:
    """Seconds lost by computing.

    Attributes:
        resume_s: in a layer that waited.
        fetch_s: by a copy that was demanded.
        predict_s: by looking ahead once.
        transfer_s: by a prefetch.

    """

    resume_s: float = 0.0
    fetch_s: float = 0.0
    predict_s: float = 0.0
    transfer_s: float = 0.0

    def within(self, limit: Losses) -> Losses:
        """Return the smaller one of each."""
        names = [field.name for field in fields(self)]
        return Losses(**{name: min(getattr(self, name), getattr(limit, name)) for name in names})


def limits(layer_s: float, top_k: int) -> Losses:
    """Bound what can be lost.

    A layer whose caches are cold takes no more than three times as long, a prediction no longer
    than a layer, and a copy takes no more from the computing thread than an expert does.

    Args:
        layer_s: seconds of a layer of a decode step, every expert resident.
        top_k: experts that such a layer computes.

    """
    each_s = layer_s / top_k
    return Losses(resume_s=2 * layer_s, fetch_s=each_s, predict_s=layer_s, transfer_s=each_s)


def fit_losses(
    rounds: Sequence[Round], simulated: Callable[[Play, Losses], Floats], limit: Losses
) -> Losses:
    """Charge each play's loss to what is new in it.

    What a step lost is how much longer than in the resident play of its round it took, the median
    over rounds, less how much longer it is simulated to take.

    Args:
        rounds: plays by name; those with a prefetcher may be missing, and nothing is then said of
            prefetching.
        simulated: (steps,) seconds of a play, simulated with the losses known so far.
        limit: no loss is larger than this, whatever was measured, nor below 0.

    """
    found = Losses()
    for ways, names in (
        ((WAITED, PARTLY), ("resume_s", "fetch_s")),
        ((PREDICTED,), ("predict_s",)),
        ((FETCHED,), ("transfer_s",)),
    ):
        tables, lefts = [], []
        for way in ways:
            pairs = [(each[way], each[RESIDENT]) for each in rounds if way in each]
            if not pairs or (way in (WAITED, PARTLY) and not pairs[0][0].waits):
                continue
            play, resident = pairs[0]
            longer = [each.step_seconds - beside.step_seconds for each, beside in pairs]
            known = simulated(play, found)
            left = np.median(longer, axis=0) - (known - simulated(resident, found))
            units = [simulated(play, replace(found, **{name: _UNIT_S})) - known for name in names]
            weight = 1 / np.median([each.step_seconds for each, _ in pairs], axis=0)
            tables.append(np.stack(units, axis=1) / _UNIT_S * weight[:, None])
            lefts.append(left * weight)
        if tables:
            fitted = fit_nonnegative(np.concatenate(tables), np.concatenate(lefts)).tolist()
            found = replace(found, **dict(zip(names, fitted, strict=True))).within(limit)
    return found
