"""Locality against hand-made cases and plain references."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from specmd.trace import PREFILL, build_trace, locality, synthetic
from specmd.trace.statistics import ReuseDistances


def plain_distances(events):
    """LRU stack distances with a list, as bins; each event is looked up before it is pushed."""
    stack, bins, first = [], {}, 0
    for keys in events:
        for key in keys:
            if key in stack:
                width = stack.index(key).bit_length()
                bins[width] = bins.get(width, 0) + 1
            else:
                first += 1
        stack = [*keys, *(key for key in stack if key not in keys)]
    return [bins.get(width, 0) for width in range(max(bins, default=-1) + 1)], first


@pytest.mark.parametrize("num_keys", [1, 2, 5, 33])
@pytest.mark.parametrize("part", [1, 7, 2000])
@pytest.mark.parametrize("widest", [1, 4])
def test_reuse_distances_equal_a_plain_stack(num_keys, part, widest):
    rng = np.random.default_rng(num_keys)
    events = [np.unique(rng.zipf(1.3, rng.integers(1, widest + 1)) % num_keys) for _ in range(2000)]
    distances = ReuseDistances(num_keys, accesses=2000)
    for start in range(0, len(events), part):
        some = events[start : start + part]
        distances.add(np.concatenate(some), np.array([len(keys) for keys in some]))
    expected = plain_distances([keys.tolist() for keys in events])
    assert (distances.histogram(), distances.first_uses) == expected
    assert distances.accesses == sum(len(keys) for keys in events)


def plain_sets(trace):
    sets = [[set() for _ in range(trace.header.num_layers)] for _ in range(trace.num_steps)]
    for token in range(trace.num_tokens):
        for layer, chosen in enumerate(trace.expert_ids[token].tolist()):
            sets[trace.step[token]][layer].update(chosen)
    return sets


@pytest.mark.parametrize("experts", [5, 16, 70])
def test_everything_equals_a_plain_reference(experts):
    trace = synthetic(
        num_layers=3, num_experts=experts, prompt_length=3, decode_length=9, batch=3, zipf=1
    )
    found = locality(trace)
    sets = plain_sets(trace)
    sizes = np.array([[len(keys) for keys in step] for step in sets])
    shared = np.array([[len(a & b) for a, b in zip(*pair, strict=True)] for pair in pairwise(sets)])
    assert found.previous_step_reuse == pytest.approx(shared.sum() / sizes[1:].sum())
    np.testing.assert_allclose(
        found.previous_step_reuse_by_layer, shared.sum(axis=0) / sizes[1:].sum(axis=0)
    )
    chance = (sizes[1:] * sizes[:-1]).sum() / experts / sizes[1:].sum()
    assert found.previous_step_reuse_random == pytest.approx(chance)
    wide = np.array([(trace.phase[trace.step == s] == PREFILL).any() for s in range(len(sets))])
    assert found.step_keys.mean == pytest.approx(sizes.sum(axis=1).mean())
    assert found.step_keys.p95 == pytest.approx(np.percentile(sizes.sum(axis=1), 95))
    assert found.event_keys_prefill.p50 == np.percentile(sizes[wide], 50)
    assert found.event_keys_decode.mean == pytest.approx(sizes[~wide].mean())
    events = [
        [layer * experts + expert for expert in sorted(used)]
        for step in sets
        for layer, used in enumerate(step)
    ]
    keys = [key for used in events for key in used]
    assert (found.reuse_distance_counts, found.reuse_first_uses) == plain_distances(events)
    assert (found.reuse_accesses, found.reuse_complete) == (len(keys), True)
    assert found.keys_used == len(set(keys))
    assert found.keys_total == 3 * experts


@pytest.mark.parametrize("cells", [1, 1000])
def test_chunks_do_not_show(monkeypatch, cells):
    trace = synthetic(prompt_length=3, batch=3, raggedness=0.9)
    whole = locality(trace, max_reuse_accesses=3000)
    monkeypatch.setattr("specmd.trace.statistics._CHUNK_CELLS", cells)
    assert locality(trace, max_reuse_accesses=3000) == whole


def test_popularity_by_hand():
    ids = [[0], [0], [0], [1]]
    found = locality(build_trace(ids, num_experts=4))
    assert found.popularity_entropy[0] == pytest.approx(
        -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(4)
    )
    assert found.top_tenth_share == [0.75]
    assert found.previous_step_reuse == pytest.approx(2 / 3)
    assert found.previous_step_reuse_random == pytest.approx(0.25)
    assert found.reuse_distance_counts == [2]


def test_one_step_has_no_previous_one():
    found = locality(build_trace([[[0, 1]]], num_experts=2, phase=PREFILL))
    assert found.previous_step_reuse is None
    assert found.step_keys_decode is None
    assert found.looping_requests is None
    assert found.lookahead_recall == []


def test_one_expert_is_neither_uniform_nor_an_error():
    assert locality(build_trace([[0], [0]], num_experts=1)).popularity_entropy == [0]


def test_reuse_distances_stop_at_a_step_and_say_so():
    trace = synthetic(decode_length=50)
    found = locality(trace, max_reuse_accesses=1000)
    assert found.reuse_accesses == 992  # 31 steps of 8 layers of 4
    assert not found.reuse_complete
    assert sum(found.reuse_distance_counts) + found.reuse_first_uses == 992


def test_looping_requests_are_counted():
    rng = np.random.default_rng(0)

    def chosen(tokens):
        return np.argsort(rng.random((tokens, 4, 32)), axis=2)[:, :, :4]

    free, turn, brief = chosen(200), chosen(7), chosen(20)
    loop = np.concatenate((chosen(40), np.tile(turn, (20, 1, 1))))
    ids = np.concatenate((free, loop, brief))
    request = np.repeat([0, 1, 2], [len(free), len(loop), len(brief)])
    assert locality(build_trace(ids, num_experts=32, request=request)).looping_requests == 0.5


def test_recall_of_both_lookaheads():
    trace = synthetic(lookahead_depth=1, lookahead_recall=1.0, num_layers=2)
    scores = trace.lookahead
    arrays = {"lookahead": scores, "lookahead_renormalised": -scores}
    both = build_trace(trace.expert_ids, num_experts=16, **arrays)
    assert locality(both).lookahead_recall == [1.0]
    assert locality(both).lookahead_renormalised_recall == [0.0]


def test_it_is_json():
    found = locality(synthetic(prompt_length=2, lookahead_depth=1))
    assert json.loads(found.model_dump_json()) == found.model_dump()


def test_importing_traces_is_light():
    heavy = "{'numba', 'torch', 'pandas', 'matplotlib'}"
    code = f"import sys, specmd.trace; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
