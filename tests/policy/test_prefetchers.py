"""What prefetchers propose, against the same said with sets and sorts."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd.conformance.cases import Case, small_trace, watch_proposals
from specmd.core.event import Event, World
from specmd.core.prefetch import Outlook, Proposals, propose, rank_proposals
from specmd.core.serve import PREFETCH_REDUNDANT
from specmd.errors import SpecmdError
from specmd.policy.registry import choose
from specmd.runs.options import RunConfig
from specmd.simulation.events import EventStream
from specmd.simulation.replay import replay
from specmd.trace import TraceHeader, build_trace, synthetic

LAYERS, EXPERTS = 4, 8


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(1, 9)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_proposals_stand_by_falling_score_then_ascending_key(made):
    ours = Proposals([99] * 40, [0] * 40, [0.0] * 40, [1, 1])  # one of an earlier event
    best = {}
    for key, score, due in made:
        propose(ours, key, due, float(score))
        if key not in best or score > best[key][0]:
            best[key] = (score, due)
    rank_proposals(ours)
    found = list(zip(ours.key, ours.score, ours.due, strict=True))[1 : ours.count[0]]
    expected = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
    assert found == [(key, score, due) for key, (score, due) in expected]
    assert ours.key[0] == 99


def proposed(spelled):
    """Per event: (step, layer, [(key, due - clock, score)] in order)."""
    choice = choose("prefetch", spelled)
    needs = choice.entry.needs
    stream = EventStream(small_trace(), future="future" in needs, weights="weights" in needs)
    chunk = stream.chunk(0, stream.num_steps)
    chunk = watch_proposals(choice, Case("", EXPERTS), chunk, stream, 0, stream.num_steps)
    rows = []
    for i, (first, stop) in enumerate(pairwise(chunk.prefetch_start.tolist())):
        clock = chunk.clock[0] + i
        wanted = [
            (
                int(chunk.prefetch_keys[j]),
                int(chunk.prefetch_due[j]) - clock,
                float(chunk.prefetch_score[j]),
            )
            for j in range(first, stop)
        ]
        rows.append((int(chunk.step[i]), int(chunk.layer[i]), wanted))
    return rows


def demanded(step, layer):
    """Router weight of every key of an event."""
    trace, found = small_trace(), Counter()
    here = np.asarray(trace.step) == step
    keys = np.asarray(trace.expert_ids)[here, layer].reshape(-1) + layer * EXPERTS
    weights = np.asarray(trace.weights)[here, layer].reshape(-1).astype(np.float32)
    for key, weight in zip(keys.tolist(), weights.tolist(), strict=True):
        found[key] += weight
    return found


def events():
    steps = int(small_trace().step[-1]) + 1
    return [(step, layer) for step in range(steps) for layer in range(LAYERS)]


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_the_oracle_proposes_what_is_demanded(depth):
    coming = events()
    for i, (_, _, found) in enumerate(proposed(f"oracle:depth={depth}")):
        expected = {}
        for ahead in range(1, depth + 1):
            if i + ahead < len(coming):
                for key in sorted(demanded(*coming[i + ahead])):
                    expected.setdefault(key, ahead)
        assert {key: due for key, due, _ in found} == expected
        assert [due for _, due, _ in found] == sorted(due for _, due, _ in found)


def test_an_oracle_is_worsened_by_recall_and_extra():
    coming = events()
    right = wrong = wanted = 0
    for i, (_, _, found) in enumerate(proposed("oracle:recall=0.5,extra=2")[:-1]):
        true = demanded(*coming[i + 1])
        keys = {key for key, _, _ in found}
        assert {key // EXPERTS for key in keys} <= {coming[i + 1][1]}
        right += len(keys & set(true))
        wanted += len(true)
        wrong += len(keys - set(true))
        assert len(keys - set(true)) == min(2, EXPERTS - len(true))
    assert 0.35 < right / wanted < 0.65
    assert wrong > 0


def test_the_previous_token_is_proposed_again():
    last = {}
    for step, layer, found in proposed("prev_token:depth=2"):
        last[layer] = demanded(step, layer)
        expected = set()
        for ahead in (1, 2):
            expected |= set(last.get((layer + ahead) % LAYERS, ()))
        assert {key for key, _, _ in found} == expected
        assert [due for _, due, _ in found] == sorted(due for _, due, _ in found)
        near = [key for key, due, _ in found if due == 1]
        weight = last.get((layer + 1) % LAYERS, Counter())
        assert near == sorted(near, key=lambda key: (-weight[key], key))


def test_the_previous_token_is_judged_by_its_weights():
    ids = np.array([[[0, 5], [1, 2]], [[3, 4], [6, 7]]])
    weights = np.array([[[0.1, 0.9], [0.8, 0.2]], [[0.5, 0.5], [0.4, 0.6]]], np.float32)
    trace = build_trace(ids, num_experts=8, weights=weights)
    chosen = RunConfig(evict="lru", prefetch="prev_token:width=1", capacity="16", capacity_slots=16)
    outcome = replay(trace, chosen, interpreted=True)
    # Layer 0 used 5 rather than 0: 5 is proposed (and there); then 8 + 1, rather than 8 + 2.
    assert outcome.counters[..., PREFETCH_REDUNDANT].sum() == 3
    with pytest.raises(SpecmdError, match="router weights"):
        replay(build_trace(ids, num_experts=8), chosen, interpreted=True)


def wrongly_proposed(seed):
    """What the oracle adds at each of 120 events, all of which demand the same two keys."""
    oracle = choose("prefetch", "oracle:recall=0.5,extra=2").create(
        World.of(TraceHeader(num_layers=1, num_experts=64, top_k=2), [64], seed=seed)
    )
    found = []
    for clock in range(1, 121):
        made = Proposals([0] * 64, [0] * 64, [0.0] * 64, [0, 0])
        event = Event(clock, clock, 0, 1, 0, 2, [0, 1], [1, 1], [], 1, 64, [])
        oracle.predict(event, Outlook(0, [0, 2, 4], [0, 1, 0, 1], [0, 1, 2], clock, None), made)
        found.append(tuple(made.key[: made.count[0]]))
    return found


@pytest.mark.parametrize("apart", [1, 131, 262])
def test_another_seed_is_not_the_same_draw_at_another_time(apart):
    one, other = wrongly_proposed(7), wrongly_proposed(7 + apart)
    for shift in range(4):
        assert sum(a == b for a, b in zip(one[shift:], other, strict=False)) < 10
        assert sum(a == b for a, b in zip(one, other[shift:], strict=False)) < 10


def test_a_width_keeps_the_heaviest():
    for (_, _, all_), (_, _, some) in zip(
        proposed("prev_token"), proposed("prev_token:width=2"), strict=True
    ):
        assert some == all_[:2]


def test_static_top_proposes_the_most_popular_of_the_next_layer():
    uses = Counter()
    ids = np.asarray(small_trace().expert_ids)
    for layer in range(LAYERS):
        uses.update((ids[:, layer] + layer * EXPERTS).reshape(-1).tolist())
    for _, layer, found in proposed("static_top:width=3"):
        ahead = (layer + 1) % LAYERS
        keys = range(ahead * EXPERTS, (ahead + 1) * EXPERTS)
        assert [key for key, _, _ in found] == sorted(keys, key=lambda k: (-uses[k], k))[:3]


def test_random_draws_without_replacement_from_the_next_layer():
    seen = Counter()
    for _, layer, found in proposed("random:width=3"):
        keys = [key for key, _, _ in found]
        assert len(set(keys)) == 3
        assert {key // EXPERTS for key in keys} == {(layer + 1) % LAYERS}
        seen.update(keys)
    assert len(seen) == LAYERS * EXPERTS


def test_the_next_gate_lets_every_token_vote():
    trace = small_trace()
    scores = np.asarray(trace.lookahead, np.float32)
    for step, layer, found in proposed("next_gate:width=3"):
        if layer == LAYERS - 1:
            assert found == []
            continue
        votes = Counter()
        for row in scores[np.asarray(trace.step) == step, layer, 0]:
            best = sorted(range(EXPERTS), key=lambda expert, row=row: (-row[expert], expert))[:3]
            votes.update({expert: 3 - place for place, expert in enumerate(best)})
        assert {key - (layer + 1) * EXPERTS for key, _, _ in found} == set(votes)
        ranked = [votes[key - (layer + 1) * EXPERTS] for key, _, _ in found]
        assert ranked == sorted(ranked, reverse=True)
        assert {due for _, due, _ in found} == {1}


def test_a_good_gate_is_mostly_right():
    trace = synthetic(num_layers=3, lookahead_depth=1, lookahead_recall=1.0, decode_length=8)
    best = np.argsort(-np.asarray(trace.lookahead[:, :-1, 0], np.float32), axis=-1)[..., :4]
    assert (np.sort(best, axis=-1) == np.sort(trace.expert_ids[:, 1:], axis=-1)).all()
