"""What a trace can answer, on traces small enough to answer by hand."""

from dataclasses import replace

import numpy as np
import pytest

from specmd.policy.registry import Choice, entries
from specmd.runs.answers import answers
from specmd.trace import DECODE, PREFILL, build_trace, locality, slice_tokens, synthetic


def answered(trace):
    return answers(trace, locality(trace))


def made(tokens, ids, **facts):
    step, request, phase = zip(*tokens, strict=True)
    return build_trace(
        np.array(ids)[:, None], num_experts=8, step=step, request=request, phase=phase, **facts
    )


TOKENS = [
    (0, 0, PREFILL),
    (0, 0, PREFILL),
    (1, 0, DECODE),
    (2, 1, PREFILL),
    (3, 1, DECODE),
    (3, 2, DECODE),
    (4, 2, DECODE),
]


def test_prompts_batches_and_cold_starts():
    found = answered(made(TOKENS, [0, 1, 0, 1, 0, 1, 0], prompt_lengths=[2, 3, 5]))
    assert (found["ttft"], found["whole_prompts"], found["cut_prompts"]) == ("recorded", 1, 1)
    assert found["tpot"]
    assert (found["in_flight"], found["largest_batch"], found["reset_steps"]) == ([1, 2], 3, 1)
    assert found["expert_bytes"] is None
    estimated = answered(LATER)
    assert (estimated["ttft"], estimated["whole_prompts"]) == ("estimated", 0)
    assert answered(replace(LATER, prompt_lengths=None))["ttft"] == "none"


LATER = slice_tokens(synthetic(prompt_length=4, num_requests=1, decode_length=6), 4)


def test_a_recording_that_stopped_in_a_prompt_says_so():
    cut = made(TOKENS[:4], [0, 1, 0, 1], header={"complete": False})
    assert (answered(cut)["whole_prompts"], answered(cut)["cut_prompts"]) == (1, 1)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("depth", [0, 1])
def test_what_is_skipped_is_what_declares_a_need(weights, depth):
    trace = synthetic(num_requests=1, decode_length=6, lookahead_depth=depth)
    trace = trace if weights else replace(trace, weights=None)
    missing = {
        *("training", "residuals", "model", "rates"),
        *("logits", "renormalised", "draft"),
        *(() if weights else ("weights",)),
        *(() if depth else ("lookahead",)),
    }
    expected = {
        f"{entry.axis} {entry.name}"
        for entry in entries()
        if missing & set(entry.needs)
        or (Choice.usual(entry).ahead > depth > 0 and "lookahead" in entry.needs)
    }
    assert set(answered(trace)["skipped"]) == expected


def test_capacities_at_which_first_uses_are_most_misses():
    # One layer, top-1: 0 1 0 1 ... 32 times, with two first uses: 2 keys hold everything, 1 none.
    ids = [0, 1] * 16
    found = answered(made([(i, 0, DECODE) for i in range(32)], ids))
    assert found["short_from_slots"] == 2
    # 0..7 once each, then 0 again: with one slot 9 misses, 8 of them first uses.
    ids = [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert answered(made([(i, 0, DECODE) for i in range(9)], ids))["short_from_slots"] == 0
