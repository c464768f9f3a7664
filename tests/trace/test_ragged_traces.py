"""Ragged traces: rows of fewer experts, layers that not all tokens reach. Nothing is made up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd.core import state
from specmd.core.specialise import specialise
from specmd.errors import SpecmdError
from specmd.runs.options import RunConfig
from specmd.simulation import events
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.events import EventStream
from specmd.simulation.replay import replay
from specmd.trace import (
    PREFILL,
    build_trace,
    concatenate,
    interleave,
    load,
    locality,
    save,
    select_requests,
    slice_layers,
    slice_steps,
    slice_tokens,
)

# A prompt of three tokens, of which only the last reaches layer 1, then two decoded tokens, one of
# them with a single expert in layer 0.
IDS = [
    [[0, 1], [-1, -1]],
    [[1, 2], [-1, -1]],
    [[3, -1], [0, 3]],
    [[1, -1], [3, 2]],
    [[0, 3], [2, -1]],
]
STEPS = [0, 0, 0, 1, 2]
PHASES = [0, 0, 0, 1, 1]
EVENTS = [{0: 1, 1: 2, 2: 1, 3: 1}, {4: 1, 7: 1}, {1: 1}, {7: 1, 6: 1}, {0: 1, 3: 1}, {6: 1}]


def made(num_experts=4, **more):
    given = {"step": STEPS, "phase": PHASES, "ragged": True}
    return build_trace(IDS, num_experts=num_experts, **(given | more))


def listed(trace, **options):
    stream = EventStream(trace, **options)
    found = []
    for first, last in stream.stretches(0, stream.num_steps):
        chunk = stream.chunk(first, last)
        for event in range((last - first) * trace.header.num_layers):
            at = slice(int(chunk.start[event]), int(chunk.start[event + 1]))
            found.append(list(zip(chunk.keys[at].tolist(), chunk.tokens[at].tolist(), strict=True)))
    return found


def test_events_hold_what_was_chosen():
    assert [dict(event) for event in listed(made())] == EVENTS
    one_by_one = [[key for key, _ in event] for event in listed(made(), sequential=True)]
    assert one_by_one == [[0, 1, 1, 2, 3], [4, 7], [1], [7, 6], [0, 3], [6]]


def test_interpreted_and_compiled_gather_the_same():
    trace = made()
    for entry in (events.gather, events.gather_sequential):
        outs = []
        for compiled in (False, True):
            out = events.Buffers(
                np.zeros(7, np.int64), np.zeros(20, np.uint32), np.ones(20, np.uint32),
                np.zeros(0), np.zeros(0, np.int64), np.zeros(4, np.int64), np.zeros(4),
            )  # fmt: skip
            starts = np.array([0, 3, 4, 5])
            weights = np.zeros((0, 0, 0), np.float32)
            specialise(entry, {}, compiled=compiled)(trace.expert_ids, weights, starts, 4, out)
            outs.append([array.tolist() for array in out])
        assert outs[0] == outs[1]


def test_a_replay_counts_what_was_chosen():
    run = replay(made(), RunConfig(capacity="4", capacity_slots=4), interpreted=True)
    # LRU: 0 1 2 3 | 4 7 | 1 | 6 7 | 0 3 | 6. Of equal ranks the larger key leaves: 3 and 2 for
    # layer 1; then 0 for 6, 4 and 1 for 0 and 3. Hits are 1, 7 and the last 6.
    count = run.counters.sum((0, 1))
    assert (count[state.ACCESSES], count[state.REUSE_HITS], count[state.EVICTIONS]) == (12, 3, 5)
    assert (count[state.TOKEN_ACCESSES], count[state.TOKEN_HITS]) == (13, 3)


def test_timed_runs_take_layers_that_nobody_reaches():
    nobody = build_trace(
        [[[0, 1], [-1, -1]], [[1, 2], [3, -1]]],
        num_experts=4,
        phase=[0, 1],
        ragged=True,
        header={"expert_bytes": 1 << 20},
    )
    costs = CostCoefficients(*[1e-6] * 11, 1e-5, 1e10, 1e6)
    run = replay(nobody, RunConfig(capacity="4", capacity_slots=4), costs=costs, interpreted=True)
    assert (run.step_seconds.sum(axis=1) > 0).all()


def test_the_file_keeps_them(tmp_path):
    weights = np.where(np.array(IDS) >= 0, 0.5, 0)
    trace = made(weights=weights)
    again = load(save(trace, tmp_path / "t.npz"), verify=True)
    assert again.header.ragged
    assert again.digest == trace.digest
    np.testing.assert_array_equal(again.chosen, np.array(IDS) >= 0)


@pytest.mark.parametrize(("experts", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_no_expert_is_the_largest_value_of_a_type_that_has_room(experts, dtype):
    trace = made(experts)
    assert trace.expert_ids.dtype == dtype
    assert trace.expert_ids.max() == np.iinfo(dtype).max
    assert dict(listed(trace)[0]) == EVENTS[0]


def test_a_trace_that_is_whole_is_no_ragged_one(tmp_path):
    ids = [[[0, 1]], [[2, 3]]]
    plain, said = build_trace(ids, num_experts=4), build_trace(ids, num_experts=4, ragged=True)
    assert not said.header.ragged
    assert plain.digest == said.digest
    assert b"ragged" not in save(said, tmp_path / "t.npz").read_bytes()


@pytest.mark.parametrize(
    ("ids", "more", "expected"),
    [
        ([[[-1, 0]]], {}, "after the end"),
        ([[[0, -2]]], {}, "expert id -2 at token 0"),
        ([[[0, -1]]], {"ragged": False}, "expert id -1 at token 0"),
        ([[[0, 4]], [[1, -1]]], {}, "expert id 4 at token 0"),
        ([[[2, 2, -1]]], {}, "lists an expert twice"),
        ([[[2, -1, -1]]], {"weights": [[[1, 0.5, 0]]]}, "weight after the end"),
    ],
)
def test_what_is_wrong_is_refused(ids, more, expected):
    with pytest.raises(SpecmdError, match=expected):
        build_trace(ids, num_experts=4, **({"ragged": True} | more))


def test_parts_and_batches_keep_them():
    trace = made()
    assert [dict(e) for e in listed(slice_steps(trace, 1))] == EVENTS[2:]
    assert dict(listed(slice_tokens(trace, 2))[0]) == {3: 1}
    assert [dict(e) for e in listed(slice_layers(trace, 1))] == EVENTS[::2]
    twice = concatenate([trace, trace])
    assert [dict(e) for e in listed(twice)] == EVENTS * 2
    assert [dict(e) for e in listed(select_requests(twice, [1]))] == EVENTS
    batched = [dict(e) for e in listed(interleave(twice, 2))]
    assert batched[-4:] == [{1: 2}, {7: 2, 6: 2}, {0: 2, 3: 2}, {6: 2}]
    whole = build_trace([[[0, 1], [1, 2]]], num_experts=4)
    mixed = concatenate([whole, trace])
    assert mixed.header.ragged
    assert [dict(e) for e in listed(mixed)] == [{0: 1, 1: 1}, {5: 1, 6: 1}, *EVENTS]


def test_locality_counts_them():
    found = locality(made())
    assert found.keys_used == 7
    assert found.step_keys.mean == pytest.approx(12 / 3)
    assert found.event_keys_decode.mean == 1.5
    # Of the five keys of the last two steps, layer 1: 7 and then 6 were used in the step before.
    assert found.previous_step_reuse == pytest.approx(3 / 6)


@st.composite
def ragged(draw):
    experts, layers, tokens = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 8)),
    )
    row = st.lists(st.integers(0, experts - 1), max_size=3, unique=True)
    rows = draw(
        st.lists(st.lists(row, min_size=layers, max_size=layers), min_size=tokens, max_size=tokens)
    )
    new = draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens))
    return experts, rows, np.cumsum([0, *new[1:]])


@settings(deadline=None, max_examples=150)
@given(ragged(), st.booleans())
def test_events_are_the_unions_of_what_tokens_chose(case, sequential):
    experts, rows, step = case
    ids = np.full((len(rows), len(rows[0]), 3), -1)
    for token, layers in enumerate(rows):
        for layer, row in enumerate(layers):
            ids[token, layer, : len(row)] = row
    trace = build_trace(ids, num_experts=max(experts, 3), step=step, phase=PREFILL, ragged=True)
    trace = replace(trace)
    expected = []
    for number in range(int(step[-1]) + 1):
        for layer in range(len(rows[0])):
            base = layer * max(experts, 3)
            used = [base + e for t in np.flatnonzero(step == number) for e in rows[t][layer]]
            tally = [(key, used.count(key)) for key in sorted(set(used))]
            expected.append([(key, 1) for key in used] if sequential else tally)
    assert listed(trace, sequential=sequential, future=True) == expected
