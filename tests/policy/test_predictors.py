"""Every prediction rule, compiled, against the same rule said in plain Python."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from specmd.conformance.cases import small_trace
from specmd.core.event import World
from specmd.core.planner import Planner
from specmd.policy.registry import choose
from specmd.simulation.events import EventStream
from specmd.simulation.loads import training_rows
from specmd.simulation.plans import foreseen
from specmd.trace import DECODE, synthetic
from specmd.trace.synthesis import with_scores

TRACES = {
    "batch": small_trace,
    "alone": lambda: with_scores(
        synthetic(
            num_layers=5, num_experts=12, top_k=3, num_requests=7, prompt_length=0,
            decode_length=9, lookahead_depth=3, reuse=0.7, seed=3,
        ),
        seed=3,
    ),
}  # fmt: skip


@pytest.fixture(params=TRACES)
def trace(request):
    return TRACES[request.param]()


def planned(trace, spelled, *, interpreted=False, training=None, tokens=None):
    """Proposals of every event, {(step, layer): {key: (clocks until due, score)}}."""
    choice = choose("prefetch", spelled)
    stream = EventStream(trace, future="future" in choice.needs, weights="weights" in choice.needs)
    chunk = stream.chunk(0, stream.num_steps)
    learnt = training_rows(training or trace) if "training" in choice.needs else None
    header = trace.header
    world = World.of(header, [4], seed=5, training=learnt)
    outlook = foreseen(
        trace,
        choice.needs,
        slice(None),
        start=chunk.start if "future" in choice.needs else chunk.start[:0],
        keys=chunk.keys,
        token_start=stream.step_start,
        first_step=0,
    )
    chunk = Planner(world, choice, interpreted=interpreted).plan(chunk, outlook)
    found = {}
    for i in range(len(chunk.layer)):
        mine = range(chunk.prefetch_start[i], chunk.prefetch_start[i + 1])
        clock = int(chunk.clock[0]) + i
        found[int(chunk.step[i]), int(chunk.layer[i])] = {
            int(chunk.prefetch_keys[j]): (
                int(chunk.prefetch_due[j]) - clock,
                float(chunk.prefetch_score[j]),
            )
            for j in mine
        }
    return found


def steps_of(trace):
    """Tokens of each step."""
    bounds = trace.step_starts.tolist()
    return [range(a, b) for a, b in pairwise(bounds)]


def best(scores, width):
    """Indices of the largest of some scores; of equals the first."""
    return sorted(range(len(scores)), key=lambda e: (-scores[e], e))[:width]


def keys(trace, found, step, layer, ahead):
    """Experts proposed for the layer so many ahead."""
    experts = trace.header.num_experts
    return {
        key - (layer + ahead) * experts
        for key, (due, _) in found[step, layer].items()
        if due == ahead and 0 <= key - (layer + ahead) * experts < experts
    }


def gate_sets(trace, pick, depth, scores=None):
    """What the tokens of each event pick of each coming layer: {(step, layer, ahead): set}."""
    scores = np.asarray(trace.lookahead if scores is None else scores, np.float64)
    layers = trace.header.num_layers
    return {
        (step, layer, ahead): set().union(*(pick(scores[t, layer, ahead - 1]) for t in tokens))
        for step, tokens in enumerate(steps_of(trace))
        for layer in range(layers)
        for ahead in range(1, min(depth, layers - 1 - layer) + 1)
    }


def assert_proposes(trace, spelled, expected):
    found = planned(trace, spelled)
    for (step, layer, ahead), wanted in expected.items():
        assert keys(trace, found, step, layer, ahead) == wanted, (step, layer, ahead)
    assert sum(map(len, found.values())) == sum(map(len, expected.values()))


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [x / sum(powers) for x in powers]


def test_the_renormalised_gate(trace):
    expected = gate_sets(trace, lambda row: best(row, 3), 2, trace.lookahead_renormalised)
    assert_proposes(trace, "next_gate_renormalised:depth=2,width=3", expected)
    assert expected != gate_sets(trace, lambda row: best(row, 3), 2)


@pytest.mark.parametrize("tau", [0.0, 0.1, 0.2, 1.0])
def test_the_score_threshold(trace, tau):
    top_k = trace.header.top_k

    def pick(row):
        chance = softmax(row)
        order = best(chance, 2 * top_k)
        return [e for n, e in enumerate(order) if n < top_k or chance[e] >= tau]

    assert_proposes(trace, f"score_threshold:depth=2,tau={tau}", gate_sets(trace, pick, 2))


@pytest.mark.parametrize("p", [0.0, 0.5, 0.7, 1.0])
def test_the_cumulative_probability(trace, p):
    top_k = trace.header.top_k

    def pick(row):
        chance = softmax(row)
        found, total = [], 0.0
        for expert in best(chance, 2 * top_k):
            if len(found) >= top_k and total >= p:
                break
            found.append(expert)
            total += chance[expert]
        return found

    assert_proposes(trace, f"cumulative:depth=2,p={p}", gate_sets(trace, pick, 2))


def test_the_residual_gate_adds_the_mean_of_what_is_missing(trace):
    raw = np.asarray(trace.lookahead, np.float64)
    logits = np.asarray(trace.logits, np.float64)
    corrected = raw.copy()
    for ahead in (1, 2):
        for layer in range(trace.header.num_layers - ahead):
            off = (logits[:, layer + ahead] - raw[:, layer, ahead - 1]).mean(axis=0)
            corrected[:, layer, ahead - 1] += off
    width = trace.header.top_k
    expected = gate_sets(trace, lambda row: best(row, width), 2, corrected)
    assert_proposes(trace, "residual_gate:depth=2", expected)


def test_the_residual_gate_repairs_scores_that_are_off_by_a_constant():
    trace = TRACES["alone"]()
    off = np.random.default_rng(1).normal(size=(1, *trace.lookahead.shape[1:])) * 3
    true = np.stack([np.roll(trace.logits, -d, axis=1) for d in (1, 2, 3)], axis=2)
    seen = replace(trace, lookahead=np.asarray(true - off, np.float16))
    width = trace.header.top_k
    good = planned(seen, "residual_gate")
    for step, tokens in enumerate(steps_of(trace)):
        for layer in range(trace.header.num_layers - 1):
            demanded = {int(e) for t in tokens for e in trace.expert_ids[t, layer + 1]}
            assert keys(trace, good, step, layer, 1) == demanded
    raw = planned(seen, f"next_gate:width={width}")
    assert raw != good


def test_the_own_gate_proposes_what_the_event_demands(trace):
    found = planned(trace, "own_gate")
    for step, tokens in enumerate(steps_of(trace)):
        for layer in range(trace.header.num_layers):
            demanded = {int(e) for t in tokens for e in trace.expert_ids[t, layer]}
            assert keys(trace, found, step, layer, 0) == demanded


@pytest.mark.parametrize("width", [0, 2])
def test_the_moving_average(trace, width):
    header, rate, depth = trace.header, 0.25, 3
    found = planned(trace, f"ema:depth={depth},rate={rate},width={width}")
    average = np.zeros((header.num_layers, header.num_experts))
    last = [0] * header.num_layers
    for step, tokens in enumerate(steps_of(trace)):
        for layer in range(header.num_layers):
            uses = Counter(int(e) for t in tokens for e in trace.expert_ids[t, layer])
            share = np.array([uses[e] / len(tokens) for e in range(header.num_experts)])
            average[layer] = (1 - rate) * average[layer] + rate * share
            last[layer] = len(uses)
            expected = {}
            for ahead in range(1, depth + 1):
                there = (layer + ahead) % header.num_layers
                some = best(average[there].round(12), width or last[there])
                for expert in some:
                    if average[there, expert] > 0:
                        expected.setdefault(there * header.num_experts + expert, ahead)
            assert {key: due for key, (due, _) in found[step, layer].items()} == expected


def test_co_activation_follows_the_pairs_seen_so_far(trace):
    header, depth = trace.header, 2
    found = planned(trace, f"co_activation:depth={depth},width=3,threshold=0.05")
    pairs = {}  # (ahead, layer, i, j): tokens
    for step, tokens in enumerate(steps_of(trace)):
        for layer in range(header.num_layers):
            for ahead in range(1, depth + 1):
                wanted = set()
                for t in tokens:
                    here = trace.expert_ids[t, layer].tolist()
                    if layer >= ahead:
                        for i in trace.expert_ids[t, layer - ahead].tolist():
                            for j in here:
                                at = (ahead, layer - ahead, i, j)
                                pairs[at] = pairs.get(at, 0) + 1
                    score = np.zeros(header.num_experts)
                    for i in sorted(here):
                        row = [pairs.get((ahead, layer, i, j), 0) for j in range(len(score))]
                        if sum(row):
                            score += np.array(row) / sum(row)
                    wanted |= {e for e in best(score, 3) if score[e] > 0 and score[e] >= 0.05}
                if layer + ahead < header.num_layers:
                    assert keys(trace, found, step, layer, ahead) == wanted


@pytest.mark.parametrize("cap", [300, 2])
def test_the_activation_matrix_follows_the_nearest_past_sequence(trace, cap):
    header, depth, width = trace.header, 2, 3
    found = planned(trace, f"activation_matrix:depth={depth},width={width},cap={cap}")
    shape = header.num_layers, header.num_experts
    past, flight, like, proposed = [], {}, {}, 0

    def cosine(a, b):
        both = math.sqrt((a @ a) * (b @ b))
        return (a @ b) / both if both else 0.0

    for step, tokens in enumerate(steps_of(trace)):
        decodes = all(trace.phase[t] == DECODE for t in tokens)
        asking = sorted({int(trace.request[t]) for t in tokens})
        for layer in range(header.num_layers):
            for t in tokens:
                matrix = flight.setdefault(int(trace.request[t]), np.zeros(shape))
                matrix[layer, trace.expert_ids[t, layer].astype(int)] += 1
            for request in list(flight):  # in order of their seats
                if decodes and request not in asking:
                    matrix = flight.pop(request)
                    if len(past) < cap:
                        past.append(matrix)
                    else:
                        sims = [sum(map(cosine, matrix, kept)) for kept in past]
                        past[best(np.round(sims, 9), 1)[0]] = matrix
            for request in asking:
                matrix = flight[request]
                like[request] = [
                    sum(cosine(matrix[n], kept[n]) for n in range(layer + 1)) for kept in past
                ]
            for ahead in range(1, min(depth, header.num_layers - 1 - layer) + 1):
                wanted = set()
                for request in asking if past else ():
                    nearest = past[best(np.round(like[request], 9), 1)[0]]
                    counts = nearest[layer + ahead]
                    wanted |= {e for e in best(counts, width) if counts[e] > 0}
                assert keys(trace, found, step, layer, ahead) == wanted, (step, layer)
                proposed += len(wanted)
    assert proposed > 0


@pytest.mark.parametrize("cap", [1000, 3])
def test_the_expert_map_follows_the_nearest_trajectory(trace, cap):
    header, depth = trace.header, 2
    found = planned(trace, f"expert_map:depth={depth},cap={cap}")
    chances = np.array([[softmax(row) for row in rows] for rows in trace.logits.astype(float)])
    past, proposed = [], 0

    def likeness(own, layer):
        def cosine(a, b):
            return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))

        return [cosine(own[: layer + 1], kept[: layer + 1]) for kept in past]

    for step, tokens in enumerate(steps_of(trace)):
        runs = []
        for t in tokens:
            if not runs or trace.request[runs[-1][-1]] != trace.request[t]:
                runs.append([])
            runs[-1].append(t)
        maps = [chances[run].mean(axis=0) for run in runs]
        for layer in range(header.num_layers):
            for ahead in range(1, min(depth, header.num_layers - 1 - layer) + 1):
                wanted = set()
                for own in maps if past else ():
                    like = likeness(own, layer)
                    near = best(np.round(like, 6), 1)[0]
                    row, total = past[near][layer + ahead], 0.0
                    for n, expert in enumerate(best(row, header.num_experts)):
                        if n >= header.top_k and total >= 1 - like[near]:
                            break
                        wanted.add(expert)
                        total += row[expert]
                assert keys(trace, found, step, layer, ahead) == wanted, (step, layer)
                proposed += len(wanted)
        for own in maps:
            if len(past) < cap:
                past.append(own)
            else:
                like = likeness(own, header.num_layers - 1)
                past[best(np.round(like, 6), 1)[0]] = own
    assert proposed > 0


def test_drafts_are_proposed_up_to_the_cutoff(trace):
    found = planned(trace, "draft:depth=2,cutoff=3")
    for step, tokens in enumerate(steps_of(trace)):
        for layer in range(trace.header.num_layers):
            for ahead in (1, 2):
                wanted = set()
                if layer + ahead <= min(3, trace.header.num_layers - 1):
                    drafted = trace.draft_ids[list(tokens), layer + ahead]
                    wanted = {int(e) for e in drafted.reshape(-1) if e >= 0}
                assert keys(trace, found, step, layer, ahead) == wanted


def test_shuffling_exchanges_the_experts_of_a_layer(trace):
    plain = planned(trace, "next_gate:depth=2,width=3")
    mixed = planned(trace, "shuffled:of=next_gate:depth=2;width=3")
    instead = {}
    for event, found in plain.items():
        assert sorted(found.values()) == sorted(mixed[event].values())
        for key, told in found.items():
            able = {other for other, its in mixed[event].items() if its == told}
            instead[key] = instead.get(key, able) & able
    experts = trace.header.num_experts
    assert all(instead.values())
    assert {k // experts for k in instead} == {o // experts for s in instead.values() for o in s}
    assert any(key not in others for key, others in instead.items())
