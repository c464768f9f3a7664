"""Prefixes end between requests where there is such a place."""

import numpy as np

from specmd.advice.prefix import prefix, steps_of
from specmd.trace import synthetic


def test_a_prefix_has_whole_requests():
    trace = synthetic(num_requests=6, prompt_length=4, decode_length=9)
    for share in (0.4, 0.7, 0.95):
        steps = steps_of(trace, int(trace.expert_ids.size * share))
        assert steps in trace.idle_steps
        part = prefix(trace, steps)
        assert part.num_tokens <= share * trace.num_tokens
        lengths = np.bincount(trace.request)[: part.num_requests]
        assert np.bincount(part.request).tolist() == lengths.tolist()


def test_a_request_is_cut_rather_than_the_prefix_halved():
    trace = synthetic(num_requests=1, prompt_length=4, decode_length=30)
    assert steps_of(trace, trace.expert_ids.size // 2) == 14  # 1 + 13 steps have 17 tokens


def test_all_of_a_short_trace():
    trace = synthetic(num_requests=2, prompt_length=4, decode_length=9)
    assert prefix(trace, steps_of(trace, 10**9)) is trace
