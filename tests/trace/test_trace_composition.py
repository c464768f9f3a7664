"""Concatenation, batches and chunks: every token once, in order, with what it had."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import assert_same_tokens, names, recordings

from specmd.errors import SpecmdError
from specmd.trace import (
    DECODE,
    PREFILL,
    build_trace,
    chunk_prefills,
    compose,
    concatenate,
    interleave,
    slice_tokens,
    synthetic,
)
from specmd.trace.checks import check_trace

small = settings(max_examples=60, deadline=None, derandomize=True)


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
@given(recordings(), st.integers(1, 5))
def test_mixed_batches_lose_nothing_and_run_one_prompt_at_a_time(trace, batch):
    mixed = interleave(trace, batch, mixed=True)
    assert_same_tokens(mixed, trace)
    assert sorted(names(mixed)) == names(trace)
    seen = set()
    for step in range(mixed.num_steps):
        rows = np.flatnonzero(mixed.step == step)
        units = {(int(mixed.request[row]), int(trace.step[names(mixed)[row]])) for row in rows}
        assert len(units) == len({request for request, _ in units}) <= batch
        prompts = {int(mixed.request[row]) for row in rows if mixed.phase[row] == PREFILL} - seen
        assert len(prompts) <= 1
        seen |= {int(mixed.request[row]) for row in rows if mixed.phase[row] == DECODE}
    for number in range(trace.num_requests):
        mine = np.array(names(mixed))[mixed.request == number]
        np.testing.assert_array_equal(mine, np.flatnonzero(trace.request == number))
        # Once begun, a request has a unit in every step until it ends.
        steps = np.unique(mixed.step[mixed.request == number])
        assert len(steps) == steps[-1] - steps[0] + 1


@small
@given(recordings())
def test_alone_there_is_nobody_to_mix_with(trace):
    assert interleave(trace, 1, mixed=True).digest == trace.digest


@small
@given(recordings(), st.integers(1, 5), st.booleans())
def test_idle_steps_are_those_between_which_no_request_goes_on(trace, batch, mixed):
    made = interleave(trace, batch, mixed=mixed)
    expected = [
        step
        for step in range(1, made.num_steps)
        if not set(made.request[made.step < step]) & set(made.request[made.step >= step])
    ]
    assert made.idle_steps.tolist() == expected


def test_mixed_by_hand():
    # Prompts of 4 tokens in chunks of 2, then 2 decoded; three requests, two in flight.
    trace = build_trace(
        np.arange(18)[:, None],
        num_experts=18,
        step=[0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 6, 6, 6, 7, 8],
        request=np.repeat([0, 1, 2], 6),
        phase=np.tile([PREFILL] * 4 + [DECODE] * 2, 3),
    )
    mixed = compose(trace, prefill_chunk=2, batch=2, mixed=True)
    steps = [[names(mixed)[row] for row in np.flatnonzero(mixed.step == s)] for s in range(8)]
    assert steps == [[0, 1], [2, 3], [6, 7, 4], [8, 9, 5], [12, 13, 10], [14, 15, 11], [16], [17]]


@small
@given(recordings(), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_chunks_hold_every_token_once_and_none_too_many(trace, chunk, batch, joined):
    trace = batched_prompts(trace, batch) if joined else trace
    made = chunk_prefills(trace, chunk)
    check_trace(made)
    assert names(made) == names(trace)
    assert_same_tokens(made, trace)
    sizes = np.diff(made.step_starts)
    before = np.diff(trace.step_starts)
    wide = np.zeros(trace.num_steps, bool)
    wide[trace.step[trace.phase == PREFILL]] = True
    expected = [
        size
        for whole, is_wide in zip(before.tolist(), wide.tolist(), strict=True)
        for size in ([chunk] * (whole // chunk) + [whole % chunk] * (whole % chunk > 0)) * is_wide
        or [whole]
    ]
    assert sizes.tolist() == expected


def batched_prompts(trace, width):
    """Put `width` steps together into one, whatever they hold: a batch of several requests."""
    return replace(trace, step=(trace.step // width).astype(np.int32))


@small
@given(recordings(), st.integers(4, 9))
def test_a_chunk_as_long_as_the_prompt_changes_nothing(trace, chunk):
    assert chunk_prefills(trace, chunk) is trace
    assert compose(trace, prefill_chunk=chunk, tokens=trace.num_tokens) is trace


@small
@given(recordings(), st.integers(1, 3), st.integers(1, 3))
def test_chunks_and_batches_do_not_depend_on_their_order(trace, chunk, batch):
    one = interleave(chunk_prefills(trace, chunk), batch)
    other = chunk_prefills(interleave(trace, batch), chunk)
    assert one.digest == other.digest


@small
@given(recordings(), st.integers(1, 3), st.booleans(), st.data())
def test_composing_again_changes_nothing(trace, chunk, mixed, data):
    batch = data.draw(st.integers(1, trace.num_requests))
    made = compose(trace, prefill_chunk=chunk, batch=batch)
    again = compose(made, prefill_chunk=chunk, batch=batch)
    assert again.digest == made.digest
    tokens = data.draw(st.integers(1, trace.num_tokens))
    first = slice_tokens(trace, 0, tokens)
    if batch <= first.num_requests:
        cut = compose(trace, tokens=tokens, prefill_chunk=chunk, batch=batch, mixed=mixed)
        assert sorted(names(cut)) == list(range(tokens))


def test_chunks_share_memory_and_say_so():
    trace = synthetic(prompt_length=5, num_requests=2, decode_length=3)
    made = chunk_prefills(trace, 2)
    assert made.num_steps == trace.num_steps + 4
    assert np.shares_memory(made.weights, trace.weights)
    assert "prefill in chunks of 2 tokens" in made.header.notes
    assert "chunks" not in chunk_prefills(trace, 5).header.notes


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"batch": 3}, "batch 3: the trace has 2 requests"),
        ({"batch": 2, "tokens": 4}, "batch 2: the trace has 1 request,"),
        ({"mixed": True}, "give batch, too"),
        ({"prefill_chunk": 0}, "at least one token"),
    ],
)
def test_what_cannot_be_composed(asked, said):
    with pytest.raises(SpecmdError, match=said):
        compose(synthetic(num_requests=2, decode_length=5), **asked)


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
