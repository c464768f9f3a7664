"""Batch-1 recordings whose every token can be followed."""

import numpy as np
from hypothesis import strategies as st

from specmd.trace import DECODE, PREFILL, build_trace
from specmd.trace.checks import check_trace


@st.composite
def recordings(draw):
    """Batch-1 recordings: each request is prefill chunks and single decoded tokens, in any order.

    The expert ids spell the token's number, so that every token can be followed.
    """
    units = draw(
        st.lists(
            st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=6),
            min_size=1,
            max_size=7,
        )
    )
    step, request, phase = [], [], []
    steps = 0
    for number, parts in enumerate(units):
        for decodes, width in parts:
            count = 1 if decodes else width
            step += [steps] * count
            request += [number] * count
            phase += [DECODE if decodes else PREFILL] * count
            steps += 1
    tokens = len(step)
    return build_trace(
        np.arange(tokens)[:, None, None],
        num_experts=1024,
        step=step,
        request=request,
        phase=np.array(phase),
        weights=np.arange(tokens, dtype=np.float32)[:, None, None],
        token_ids=np.arange(tokens) + 5,
        prompt_lengths=np.arange(len(units)) + 100,
    )


def names(trace):
    return trace.expert_ids[:, 0, 0].tolist()


def assert_same_tokens(part, whole):
    """Every token of `part` carries the facts it had in `whole`."""
    check_trace(part)
    rows = names(part)
    np.testing.assert_array_equal(part.weights[:, 0, 0], rows)
    np.testing.assert_array_equal(part.token_ids, np.array(rows) + 5)
    np.testing.assert_array_equal(part.phase, whole.phase[rows])
    np.testing.assert_array_equal(
        part.prompt_lengths[part.request], whole.prompt_lengths[whole.request[rows]]
    )
