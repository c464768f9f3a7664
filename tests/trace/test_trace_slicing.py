"""Slicing, concatenation and interleaving: nothing lost, order kept."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd.errors import SpecmdError
from specmd.trace import (
    DECODE,
    PREFILL,
    build_trace,
    concatenate,
    interleave,
    select_requests,
    slice_steps,
    slice_tokens,
    synthetic,
)
from specmd.trace.checks import check_trace

small = settings(max_examples=60, deadline=None, derandomize=True)


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


@small
@given(recordings(), st.integers(1, 5))
def test_interleaving_loses_nothing_and_keeps_each_request_in_order(trace, batch):
    mixed = interleave(trace, batch)
    assert_same_tokens(mixed, trace)
    assert sorted(names(mixed)) == names(trace)
    assert mixed.num_requests == trace.num_requests
    for number in range(trace.num_requests):
        mine = np.array(names(mixed))[mixed.request == number]
        np.testing.assert_array_equal(mine, np.flatnonzero(trace.request == number))


@small
@given(recordings(), st.integers(1, 5))
def test_a_step_is_one_prefill_or_one_token_of_each_request_in_flight(trace, batch):
    mixed = interleave(trace, batch)
    in_flight = []
    for step in range(mixed.num_steps):
        rows = np.flatnonzero(mixed.step == step)
        requests = mixed.request[rows].tolist()
        if mixed.phase[rows[0]] == PREFILL:
            assert set(mixed.phase[rows]) == {PREFILL}
            original = trace.step[np.array(names(mixed))[rows]]
            assert len(set(original.tolist())) == 1
            assert len(rows) == int((trace.step == original[0]).sum())
        else:
            assert set(mixed.phase[rows]) == {DECODE}
            assert len(set(requests)) == len(requests) <= batch
            in_flight.append(requests)
    # A lane is empty only when no request is left to take it.
    last = Counter(int(r) for requests in in_flight for r in requests)
    for at, requests in enumerate(in_flight):
        if len(requests) < batch:
            started = {r for earlier in in_flight[: at + 1] for r in earlier}
            assert started == set(last)


@small
@given(recordings())
def test_one_request_in_flight_changes_nothing(trace):
    assert interleave(trace, 1).digest == trace.digest


@small
@given(recordings(), st.integers(1, 4), st.integers(1, 4))
def test_interleaving_again_depends_on_the_last_batch_alone(trace, first, second):
    direct = interleave(trace, second)
    assert interleave(interleave(trace, first), second).digest == direct.digest


def test_continuous_batching_by_hand():
    # Requests of 3, 1 and 2 tokens, two at a time: the third takes the lane of the second.
    trace = build_trace(
        np.arange(6)[:, None], num_experts=6, request=[0, 0, 0, 1, 2, 2], prompt_lengths=[7, 8, 9]
    )
    mixed = interleave(trace, 2)
    assert mixed.step.tolist() == [0, 0, 1, 1, 2, 2]
    assert mixed.request.tolist() == [0, 1, 0, 2, 0, 2]
    assert names(mixed) == [0, 3, 1, 4, 2, 5]
    assert mixed.prompt_lengths.tolist() == [7, 8, 9]
    assert "2 requests in flight" in mixed.header.notes


def test_prefill_runs_alone_before_its_request_joins():
    # Two prompt tokens then two decoded, three requests, two at a time.
    trace = build_trace(
        np.arange(12)[:, None],
        num_experts=12,
        step=[0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8],
        request=np.repeat([0, 1, 2], 4),
        phase=np.tile([PREFILL, PREFILL, DECODE, DECODE], 3),
    )
    mixed = interleave(trace, 2)
    assert names(mixed) == [0, 1, 4, 5, 2, 6, 3, 7, 8, 9, 10, 11]
    assert mixed.step.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6]


@small
@given(recordings(), st.data())
def test_tokens_are_those_of_the_slice(trace, data):
    start = data.draw(st.integers(0, trace.num_tokens - 1))
    stop = data.draw(st.integers(start + 1, trace.num_tokens))
    part = slice_tokens(trace, start, stop)
    assert names(part) == list(range(start, stop))
    assert_same_tokens(part, trace)
    assert np.array_equal(np.diff(part.step) > 0, np.diff(trace.step[start:stop]) > 0)


@small
@given(recordings(), st.data())
def test_steps_are_whole(trace, data):
    start = data.draw(st.integers(0, trace.num_steps - 1))
    stop = data.draw(st.integers(start + 1, trace.num_steps))
    part = slice_steps(trace, start, stop)
    assert names(part) == np.flatnonzero((trace.step >= start) & (trace.step < stop)).tolist()
    assert part.num_steps == stop - start
    assert_same_tokens(part, trace)


@small
@given(recordings(), st.integers(1, 3), st.data())
def test_requests_are_whole(trace, batch, data):
    trace = interleave(trace, batch)
    chosen = data.draw(st.sets(st.integers(0, trace.num_requests - 1), min_size=1))
    part = select_requests(trace, chosen)
    wanted = np.isin(trace.request, list(chosen))
    assert names(part) == np.array(names(trace))[wanted].tolist()
    assert part.num_requests == len(chosen)
    check_trace(part)


@small
@given(recordings(), st.data())
def test_cutting_between_requests_and_joining_gives_the_whole(trace, data):
    cut = data.draw(st.integers(0, trace.num_requests))
    parts = [
        select_requests(trace, part)
        for part in (range(cut), range(cut, trace.num_requests))
        if len(part)
    ]
    whole = concatenate(parts)
    check_trace(whole)
    assert whole.digest == trace.digest


def test_a_contiguous_part_shares_memory():
    trace = synthetic()
    assert np.shares_memory(slice_tokens(trace, 3, 90).expert_ids, trace.expert_ids)
    assert np.shares_memory(select_requests(trace, slice(2, 4)).weights, trace.weights)


def test_slices_count_as_in_python():
    trace = synthetic(num_requests=2, decode_length=5)
    assert slice_tokens(trace, -3).num_tokens == 3
    assert slice_tokens(trace, stop=99).num_tokens == 10
    assert slice_steps(trace, 8).num_steps == 2
    assert select_requests(trace, slice(-1, None)).num_tokens == 5


@pytest.mark.parametrize(
    "attempt",
    [
        lambda trace: slice_tokens(trace, 5, 5),
        lambda trace: slice_steps(trace, 9999),
        lambda trace: select_requests(trace, []),
        lambda trace: select_requests(trace, [0, 99]),
        lambda trace: select_requests(trace, [-1]),
        lambda trace: interleave(trace, 0),
        lambda trace: concatenate([]),
    ],
)
def test_impossible_parts(attempt):
    with pytest.raises(SpecmdError):
        attempt(synthetic(num_requests=2, decode_length=5))


def test_concatenation_of_different_models():
    with pytest.raises(SpecmdError, match="num_experts is 16 in one, 8 in other"):
        concatenate([synthetic(), synthetic(num_experts=8)])
    with pytest.raises(SpecmdError, match="model"):
        concatenate([synthetic(), synthetic(model="other")])


def test_concatenation_of_unequal_optional_arrays():
    one = synthetic(num_requests=2, decode_length=3, prompt_length=2, lookahead_depth=1)
    two = synthetic(num_requests=1, decode_length=3, seed=1)
    real = replace(two, header=two.header.model_copy(update={"kind": "recorded"}))
    both = concatenate([one, real])
    check_trace(both)
    assert both.lookahead is None
    assert both.prompt_lengths.tolist() == [2, 2, -1]
    assert both.weights.shape[0] == one.num_tokens + two.num_tokens
    assert both.header.kind == "synthetic"
