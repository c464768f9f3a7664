"""Slicing, concatenation and interleaving: nothing lost, order kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import assert_same_tokens, names, recordings

from specmd.errors import SpecmdError
from specmd.trace import (
    concatenate,
    interleave,
    select_requests,
    slice_steps,
    slice_tokens,
    synthetic,
)
from specmd.trace.checks import check_trace

small = settings(max_examples=60, deadline=None, derandomize=True)


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
