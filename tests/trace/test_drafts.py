"""Drafted experts beside a trace: kept, checked, cut and put together like what was chosen."""

from dataclasses import replace

import numpy as np
import pytest

from specmd.errors import SpecmdError
from specmd.trace import build_trace, load, save, slice_tokens, synthetic
from specmd.trace.checks import check_trace
from specmd.trace.composition import concatenate, interleave
from specmd.trace.slicing import select_requests, slice_layers
from specmd.trace.synthesis import with_scores


@pytest.fixture
def trace():
    plain = synthetic(num_layers=3, num_requests=3, prompt_length=2, decode_length=5, seed=1)
    return with_scores(plain, seed=1)


def test_drafts_are_saved_loaded_and_part_of_the_digest(trace, tmp_path):
    found = load(save(trace, tmp_path / "drafted.npz"), verify=True)
    np.testing.assert_array_equal(found.draft_ids, trace.draft_ids)
    assert found.header.version == 2
    assert found.digest != replace(trace, draft_ids=None).digest


def test_a_trace_without_drafts_is_what_it_was(trace, tmp_path):
    plain = replace(trace, draft_ids=None)
    found = load(save(plain, tmp_path / "plain.npz"))
    assert found.draft_ids is None
    assert found.header.version == 1
    assert (
        save(replace(load(tmp_path / "plain.npz")), tmp_path / "again.npz").read_bytes()
        == (tmp_path / "plain.npz").read_bytes()
    )


def test_drafts_follow_their_tokens(trace):
    part = slice_tokens(trace, 3, 9)
    np.testing.assert_array_equal(part.draft_ids, trace.draft_ids[3:9])
    some = select_requests(trace, [1])
    np.testing.assert_array_equal(some.draft_ids, trace.draft_ids[trace.request == 1])
    np.testing.assert_array_equal(slice_layers(trace, 2).draft_ids, trace.draft_ids[:, :2])
    both = concatenate([trace, trace])
    np.testing.assert_array_equal(both.draft_ids, np.concatenate([trace.draft_ids] * 2))
    mixed = interleave(trace, 2)
    check_trace(mixed)
    assert sorted(map(bytes, mixed.draft_ids)) == sorted(map(bytes, trace.draft_ids))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([8, 0], "draft_ids: expert id 8"),
        ([3, 3], "draft_ids: .*twice"),
        ([-1, 2], "after the end"),
    ],
)
def test_what_is_no_draft_is_refused(row, message):
    ids = np.array([[[0, 1]], [[2, 3]]])
    with pytest.raises(SpecmdError, match=message):
        build_trace(ids, num_experts=8, draft_ids=[[[0, -1]], [row]])


def test_drafts_of_another_shape_are_refused():
    with pytest.raises(SpecmdError, match="draft_ids has shape"):
        build_trace([[[0, 1]], [[2, 3]]], num_experts=8, draft_ids=np.zeros((2, 1), int))
    with pytest.raises(SpecmdError, match="16 bits"):
        build_trace([[[0, 1]]], num_experts=8, draft_ids=[[[1 << 20]]])
