"""What a simulation tells the policies of routing and misses: their rows, prices and rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from specmd.core.binding import Executing
from specmd.core.event import FloatArray, World
from specmd.errors import SpecmdError
from specmd.hardware.precision import STORED_BITS, low_bit_share
from specmd.hardware.shape import load_shape
from specmd.policy.registry import Choice, choose
from specmd.runs.options import RunConfig
from specmd.simulation.costs import CostCoefficients, expert_s, host_expert_s, transfer_s

if TYPE_CHECKING:
    from specmd.trace import Trace

SAMPLE = 4096
"""Rows of a trace that are looked at for the rule of its weights."""
NEAR = 0.02
"""How far a recorded weight may be from its rule's; recordings are of 16 bits."""


def executing(
    trace: Trace, config: RunConfig, world_of: Callable[[Choice], World]
) -> Executing | None:
    """Return the policies that say what is executed; None where the true choice is fetched.

    Raises:
        SpecmdError: the trace's weights follow no rule that is known, and routing may change.

    """
    router, misser = choose("route", config.route), choose("miss", config.miss)
    if not (router.executes or misser.executes):
        return None
    has_rows = router.executes or misser.entry.lossy
    if has_rows and trace.weights is None:
        raise SpecmdError(
            f"what is not executed is weighed: {router.spelled}, {misser.spelled} need router "
            "weights, and the trace has none"
        )
    bits = misser.bits
    shape = load_shape(config.shape) if config.shape else None
    stored = shape.expert_weight_bits if shape else STORED_BITS
    return Executing(
        router=router if router.executes else None,
        misser=misser if misser.executes else None,
        tokens=int(np.diff(trace.step_starts).max()),
        has_rows=has_rows,
        low_share=low_bit_share(bits, stored) if bits else 1.0,
        rule_renormalises=renormalises(trace) if router.executes else True,
        world_of=world_of,
    )


def renormalises(trace: Trace) -> bool:
    """Tell whether a model's weights are a softmax over the chosen experts, or over all.

    Found from what was recorded; raises SpecmdError where it is neither.
    """
    if trace.logits is None or trace.weights is None:
        return True
    logits = trace.logits.reshape(-1, trace.header.num_experts)
    ids = trace.expert_ids.reshape(len(logits), -1)
    weights = trace.weights.reshape(len(logits), -1)
    looked = np.linspace(0, len(logits) - 1, min(SAMPLE, len(logits))).astype(np.int64)
    return rule_of(logits[looked], ids[looked].astype(np.int64), weights[looked])


def rule_of(
    logits: npt.NDArray[Any], ids: npt.NDArray[np.int64], weights: npt.NDArray[Any]
) -> bool:
    """Tell whether weights (rows, K) of experts (rows, K) are a softmax over them, or over all E.

    Ids outside 0..E-1 are nobody's. `logits` is (rows, E). Raises SpecmdError where it is neither.
    """
    known, scores = weights.astype(np.float64), logits.astype(np.float64)
    there = (ids >= 0) & (ids < scores.shape[1])
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    mine = np.where(there, np.take_along_axis(shares, np.where(there, ids, 0), axis=1), 0.0)
    over_chosen = mine / np.maximum(mine.sum(axis=1, keepdims=True), 1e-30)
    for rule, expected in ((True, over_chosen), (False, mine)):
        if np.allclose(np.where(there, known, 0.0), expected, atol=NEAR):
            return rule
    raise SpecmdError(
        "the router's weights are no softmax of its logits, over all experts or over the chosen: "
        "routing policies cannot weigh what they choose"
    )


def rates(costs: CostCoefficients | None, expert_bytes: int | None) -> FloatArray:
    """Return the seconds of `specmd.core.event.World.rates` on a profile; nothing without one."""
    if costs is None or expert_bytes is None:
        return np.zeros(0)
    once = host_expert_s(costs, 1, expert_bytes)
    more = host_expert_s(costs, 2, expert_bytes) - once
    device = expert_s(costs, 1, expert_bytes)
    return np.array([transfer_s(costs, expert_bytes), once, more, device])
