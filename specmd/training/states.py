"""What a policy could know of keys at moments of a trace, and when they were used next.

A moment is the end of an event drawn at random in each step: the layers up to it have run in this
step, the others will. There the policies of `policies/evict/learned_*.py` are asked; what they
compute of a key is computed here for many keys at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specmd.trace import Trace

NEVER = np.inf
RATES = (0.15, 0.02)  # as in policies/evict/learned_linear.py

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class States(NamedTuple):
    """Sampled keys (samples,) at sampled moments."""

    age: Floats  # events since the last use
    uses: Floats
    most: Floats  # uses of the layer's most used key
    clock: Floats  # events so far
    fast: Floats  # averages of its uses a cycle, by RATES
    slow: Floats
    ahead: Floats  # layers until its own runs, 1 to layers
    due: Floats  # events until the next use; NEVER


def sample_states(trace: Trace, *, per_step: int, seed: int) -> States:
    """Draw up to so many keys, of those used so far, at one moment of each step."""
    rng = np.random.default_rng(seed)
    layers, experts = trace.header.num_layers, trace.header.num_experts
    moments = rng.integers(0, layers, trace.num_steps)
    drawn, known = [], []
    last, uses, mean = (np.zeros(s) for s in ((layers, experts),) * 2 + ((2, layers, experts),))
    row = np.arange(1.0, layers + 1)[:, None]
    for step, used in enumerate(_uses(trace)):
        now, clock = int(moments[step]), step * layers + int(moments[step]) + 1.0
        _update(slice(0, now + 1), used, step * layers + row, last, uses, mean)
        there = np.flatnonzero(uses)
        keys = np.sort(rng.permutation(there)[:per_step])
        drawn.append(keys)
        layer = keys // experts
        age = clock - last.flat[keys]
        left = np.ceil(age / layers)
        known.append(
            np.stack(
                [
                    age,
                    uses.flat[keys],
                    uses.max(axis=1)[layer],
                    np.full(len(keys), clock),
                    *(mean[i].flat[keys] * (1 - RATES[i]) ** left for i in range(2)),
                    np.where(layer > now, layer - now, layer - now + layers),
                ]
            )
        )
        _update(slice(now + 1, layers), used, step * layers + row, last, uses, mean)
    columns: list[Floats] = [*np.concatenate(known, axis=1)]
    return States._make([*columns, _due(trace, moments, drawn)])


def _uses(trace: Trace, backwards: bool = False) -> Iterator[Mask]:
    """Yield which experts each step uses, (layers, experts)."""
    layers, experts = trace.header.num_layers, trace.header.num_experts
    row = np.arange(layers)[None, :, None]
    starts = trace.step_starts
    for step in range(trace.num_steps)[:: -1 if backwards else 1]:
        used = np.zeros((layers, experts + 1), np.bool_)  # what is no expert goes to the end
        ids = trace.expert_ids[starts[step] : starts[step + 1]]
        used[row, np.minimum(ids, experts)] = True
        yield used[:, :experts]


def _update(
    rows: slice, used: Mask, clock: Floats, last: Floats, uses: Floats, mean: Floats
) -> None:
    """Count a step's uses in some layers."""
    now = np.broadcast_to(clock, used.shape)[rows][used[rows]]
    cycles = np.ceil((now - last[rows][used[rows]]) / len(used))
    for i, rate in enumerate(RATES):
        mean[i][rows][used[rows]] = mean[i][rows][used[rows]] * (1 - rate) ** cycles + rate
    last[rows][used[rows]] = now
    uses[rows] += used[rows]


def _due(
    trace: Trace, moments: npt.NDArray[np.int64], drawn: list[npt.NDArray[np.int64]]
) -> Floats:
    """Find when the drawn keys are used next, from the end."""
    layers = trace.header.num_layers
    row = np.arange(1.0, layers + 1)[:, None]
    upcoming = np.full((layers, trace.header.num_experts), NEVER)
    found = []
    steps = range(trace.num_steps)[::-1]
    for step, used in zip(steps, _uses(trace, backwards=True), strict=True):
        now, clock = int(moments[step]), np.broadcast_to(step * layers + row, used.shape)
        later, earlier = used.copy(), used.copy()
        later[: now + 1], earlier[now + 1 :] = False, False
        upcoming[later] = clock[later]
        found.append(upcoming.flat[drawn[step]] - (step * layers + now + 1))
        upcoming[earlier] = clock[earlier]
    return np.concatenate(found[::-1])
