"""A copy of a recording is known whatever was done to it; another is not taken for one."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd.errors import SpecmdError
from specmd.trace import build_trace, compose, load, save, select_requests, slice_tokens, synthetic
from specmd.trace.header import PREFILL
from specmd.trace.overlap import groups, require_apart, seen, shared_requests, split

SIZES = {"num_layers": 3, "num_experts": 16, "top_k": 4, "reuse": 0.3}


def recorded(seed=0, **more):
    usual = {"num_requests": 6, "prompt_length": 8, "decode_length": 60}
    return synthetic(**(SIZES | usual | more), seed=seed)


def renamed(trace):
    header = trace.header.model_copy(update={"model": "another", "source": "?", "digest": ""})
    return dataclasses.replace(trace, header=header)


def sorted_rows(trace):
    """As an engine writes it that keeps no order of experts."""
    return dataclasses.replace(trace, expert_ids=np.sort(trace.expert_ids, axis=2), weights=None)


@st.composite
def copies(draw):
    """A recording, and a copy of a part of it that has 64 tokens in a row of some request."""
    trace = recorded(draw(st.integers(0, 5)), decode_length=draw(st.integers(64, 100)))
    copy = trace
    if draw(st.booleans()):
        chosen = draw(st.sets(st.integers(0, 5), min_size=1))
        copy = select_requests(copy, sorted(chosen))
    if draw(st.booleans()):
        first = draw(st.integers(0, 8))
        copy = slice_tokens(copy, first, first + draw(st.integers(64, copy.num_tokens)))
    if draw(st.booleans()):
        copy = compose(copy, batch=draw(st.integers(1, copy.num_requests)))
    for change in (renamed, sorted_rows):
        copy = change(copy) if draw(st.booleans()) else copy
    return trace, copy


@given(copies())
@settings(max_examples=60, deadline=None)
def test_a_copy_is_known_whatever_was_done_to_it(pair):
    for known, judged in (pair, pair[::-1]):
        with pytest.raises(SpecmdError, match="`specmd split` makes two traces of one"):
            require_apart(seen(known), judged, "it")


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_another_recording_is_not_taken_for_a_copy(seed, batch):
    one, other = recorded(seed), recorded(seed + 1, batch=batch)
    require_apart(seen(one), other, "it")
    assert shared_requests(seen(one), other) == []


def test_the_requests_in_common_are_named():
    trace = recorded()
    known = seen(select_requests(trace, [1, 4]))
    assert shared_requests(known, trace) == [1, 4]
    with pytest.raises(SpecmdError, match="it has 2 of the 6 requests of the trace that is judged"):
        require_apart(known, trace, "it")
    with pytest.raises(SpecmdError, match="it is the trace that is judged"):
        require_apart(seen(trace), renamed(trace), "it")


def test_a_request_shorter_than_a_window_is_known_as_a_whole():
    trace = recorded(prompt_length=0, decode_length=12)
    assert shared_requests(seen(select_requests(trace, [2])), trace) == [2]
    cut = slice_tokens(select_requests(trace, [2]), 0, 11)
    assert shared_requests(seen(cut), trace) == []


def test_the_same_text_routed_otherwise_is_known_by_its_tokens():
    one, other = recorded(1), recorded(2)
    text = np.random.default_rng(0).integers(0, 500, one.num_tokens).astype(np.int32)
    pair = [dataclasses.replace(each, token_ids=text) for each in (one, other)]
    assert len(shared_requests(seen(pair[0]), pair[1])) == one.num_requests
    assert shared_requests(seen(pair[0]), other) == []


def chat(seed, template, own):
    """Requests that begin with the same prompt of a system."""
    rng = np.random.default_rng(seed)
    ids, request, phase = [], [], []
    for number in range(3):
        rows = np.concatenate([template, rng.random((own, 3, 16)).argsort(axis=2)[..., :4]])
        ids.append(rows)
        request += [number] * len(rows)
        phase += [PREFILL] * len(template) + [1] * own
    step = np.arange(len(request))
    return build_trace(np.concatenate(ids), num_experts=16, step=step, request=request, phase=phase)


def test_a_system_prompt_in_common_is_no_request_in_common():
    template = np.random.default_rng(9).random((80, 3, 16)).argsort(axis=2)[..., :4]
    one, other = chat(1, template, 70), chat(2, template, 70)
    require_apart(seen(one), other, "it")
    assert groups(one).tolist() == [0, 1, 2]
    assert len(shared_requests(seen(one), select_requests(one, [1]))) == 1


def test_a_loop_in_common_is_no_request_in_common():
    loop = np.random.default_rng(9).random((5, 3, 16)).argsort(axis=2)[..., :4]
    looping = np.concatenate([loop] * 20)
    one, other = chat(1, looping[:0], 70), chat(2, looping[:0], 70)
    one, other = (
        build_trace(
            np.concatenate([each.expert_ids, looping]),
            num_experts=16,
            request=np.append(each.request, np.full(len(looping), 3)),
        )
        for each in (one, other)
    )
    require_apart(seen(one), other, "it")


@given(st.integers(0, 50), st.floats(0.05, 0.95), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_split_has_all_requests_once_and_none_in_common(seed, share, batch):
    trace = recorded(seed, batch=batch)
    parts = split(trace, share, seed)
    assert sum(part.num_requests for part in parts) == trace.num_requests
    assert sum(part.num_tokens for part in parts) == trace.num_tokens
    for known, judged in (parts, parts[::-1]):
        require_apart(seen(known), judged, "it")


def test_requests_that_are_the_same_stay_together():
    trace = recorded()
    request = np.concatenate([trace.request, trace.request + 6])
    twice = build_trace(np.concatenate([trace.expert_ids] * 2), num_experts=16, request=request)
    assert groups(twice).tolist() == [0, 1, 2, 3, 4, 5] * 2
    one, other = split(twice, 0.5)
    assert (one.num_requests, other.num_requests) == (6, 6)
    require_apart(seen(one), other, "it")


def test_one_request_is_cut_in_time():
    trace = recorded(num_requests=1, prompt_length=0, decode_length=200)
    one, other = split(trace, 0.25)
    assert (one.num_tokens, other.num_tokens) == (50, 150)
    require_apart(seen(one), other, "it")


@pytest.mark.parametrize("share", [0, 1, -1, 2])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(SpecmdError, match="between 0 and 1"):
        split(recorded(), share)


def test_a_trace_of_one_step_cannot_be_split():
    with pytest.raises(SpecmdError, match="nothing"):
        split(slice_tokens(recorded(), 0, 1), 0.5)


def test_a_file_is_known_as_well(tmp_path):
    trace = recorded()
    again = load(save(trace, tmp_path / "copy.npz"))
    assert shared_requests(seen(trace), again) == list(range(6))
