"""What prefetchers propose, against the same said with sets and sorts."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd.conformance.cases import Case, small_trace, watch_proposals
from specmd.core.prefetch import Proposals, propose, rank_proposals
from specmd.policy.registry import choose
from specmd.simulation.events import EventStream
from specmd.trace import synthetic

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
    """Tokens of every key of an event."""
    trace = small_trace()
    rows = np.asarray(trace.expert_ids)[np.asarray(trace.step) == step]
    return Counter((rows[:, layer] + layer * EXPERTS).reshape(-1).tolist())


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
        count = last.get((layer + 1) % LAYERS, Counter())
        assert near == sorted(near, key=lambda key: (-count[key], key))


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
