"""Policies that decide by learned weights: each against its rule in plain Python."""

from itertools import pairwise
from math import ceil, log2, sqrt

import numpy as np
import pytest
import reference
from learned_files import cecar, linear, mlp, write_weights
from reference import Reference, core_log, random_steps

from specmd.core import state as residency
from specmd.core.event import World
from specmd.core.planner import Planner
from specmd.core.prefetch import Outlook
from specmd.policy.registry import choose
from specmd.runs.options import RunConfig
from specmd.simulation.events import EventStream
from specmd.simulation.replay import replay
from specmd.trace import synthetic

PLACES = [
    {},
    {"pools": True},
    {"prefetches": True, "guard": True},
    {"bypass": True, "prefetches": True},
]


class Predicted:
    """What a rule may keep of keys; the key of the largest prediction leaves."""

    def __init__(self, know, capacity, slots, *weights):
        self.know, self.slots, self.weights = know, slots, weights
        self.touched, self.uses, self.means = {}, {}, {}

    def cycles(self, key, now):
        return ceil((now.clock - self.touched.get(key, 0)) / self.know.layers)

    def touch(self, key, now, used):
        n = min(self.cycles(key, now), 1023)
        fast, slow = self.means.get(key, (0.0, 0.0))
        self.means[key] = (fast * 0.85**n + 0.15 * used, slow * 0.98**n + 0.02 * used)
        self.uses[key] = self.uses.get(key, 0) + used
        self.touched[key] = now.clock

    def used(self, key, now):
        self.touch(key, now, 1)

    def entered(self, key, now, prefetched):
        self.touch(key, now, 0 if prefetched else 1)

    def left(self, key):
        pass

    def victim(self, able, incoming, now):
        # Values that differ by rounding alone are the same; of those the larger key leaves.
        ranked = [(round(self.due(key, now), 9), key) for key in able]
        return max(ranked, default=(0, None))[1]


class Linear(Predicted):
    def due(self, key, now):
        layers, (w,) = self.know.layers, self.weights
        n, u = min(self.cycles(key, now), 1023), self.uses[key] * layers / now.clock
        fast, slow = (
            mean * left**n for mean, left in zip(self.means[key], (0.85, 0.98), strict=True)
        )
        ahead = (self.know.layer_of(key) - now.layer - 1) % layers + 1
        features = [
            *((now.clock - self.touched[key]) / layers, log2(1 + n), 1 / (1 + n), sqrt(u), u),
            *(fast, slow, ahead / layers),
        ]
        return sum(a * b for a, b in zip(w, features, strict=True))


class Cecar(Predicted):
    def due(self, key, now):
        experts, (w,) = self.know.experts, self.weights
        layer = self.know.layer_of(key) * experts
        most = max(1, *(self.uses.get(each, 0) for each in range(layer, layer + experts)))
        share = int(64 * self.uses[key] / most + 0.5) / 64
        x = np.array([1 / max(1, min(self.cycles(key, now), 511)), share])
        long = 0.5 * min(1.0, self.slots / 24)
        found = 0.0
        for name, part in (("short", 1 - long), ("long", long)):
            y = x
            for i in range(3):
                y = w[f"{name}.{i}.weight"] @ y + w[f"{name}.{i}.bias"]
                y = y / (1 + np.exp(-y)) if i < 2 else np.abs(y)
            found += part * float(y[0])
        return round(found, 6)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize(("rule", "draw"), [(Linear, linear), (Cecar, cecar)])
def test_they_decide_as_their_rule_does(rule, draw, place, monkeypatch, tmp_path):
    for seed in range(4):
        prefetches = place.get("prefetches", False)
        trace, steps = random_steps(seed + 50, prefetches=prefetches)
        rng = np.random.default_rng(seed)
        layers, experts = trace.header.num_layers, trace.header.num_experts
        pools = layers if place.get("pools") else 1
        capacity = rng.integers(1, layers * experts // pools + 1, pools)
        tensors = draw(rng, layers, experts)
        kind = f"learned_{rule.__name__.lower()}"
        sizes = (layers, experts, trace.header.top_k)
        file = write_weights(tmp_path / f"{seed}.safetensors", kind, sizes, tensors)
        weights = tensors["weight"] if rule is Linear else tensors
        slots = np.minimum(capacity, layers * experts // pools).sum() / layers
        made = lambda know, c, s=slots, w=weights: rule(know, c, s, w)  # noqa: E731
        monkeypatch.setitem(reference.QUEUES, kind, made)
        how = {name: place.get(name, False) for name in ("bypass", "guard")}
        sizes = (steps, layers, experts, pools, capacity.tolist(), kind)
        expected, counts = Reference(*sizes, **how, popularity=None).run()
        admission = residency.BYPASS if how["bypass"] else residency.FORCED
        spelled = f"{kind}:model={file}"
        found, total, _ = core_log(
            trace, steps, spelled, capacity, admission=admission, guard=how["guard"]
        )
        assert found == expected, seed
        assert total == counts, seed


@pytest.mark.parametrize("place", [{}, {"scope": "layer"}, {"prefetch": "random:depth=2,width=3"}])
def test_where_age_alone_counts_it_is_lru(place, tmp_path):
    trace = synthetic(
        num_layers=4, num_experts=8, top_k=2, prompt_length=5, decode_length=30, batch=2, seed=3
    )
    tensors = {"weight": np.array([1.0, 0, 0, 0, 0, 0, 0, 0])}
    file = write_weights(tmp_path / "w.safetensors", "learned_linear", (4, 8, 2), tensors)
    for slots in (1, 2, 5, 12, 20):
        digests = {
            replay(
                trace,
                RunConfig(evict=evict, capacity=str(slots), capacity_slots=slots, **place),
                interpreted=True,
            ).decision_digest
            for evict in ("lru", f"learned_linear:model={file}")
        }
        assert len(digests) == 1, slots


def proposed(trace, spelled, interpreted):
    """Of each event the keys and when they are due, in order."""
    choice, stream = choose("prefetch", spelled), EventStream(trace, weights=True)
    chunk = stream.chunk(0, stream.num_steps)
    none = np.zeros(0, np.int64)
    outlook = Outlook(0, none, chunk.keys, stream.step_start, 0, np.zeros((0,) * 4, np.float32))
    planner = Planner(World.of(trace.header, [4]), choice, interpreted=interpreted)
    found = planner.plan(chunk, outlook)
    keys, due = found.prefetch_keys.tolist(), found.prefetch_due.tolist()
    return [
        list(zip(keys[first:stop], due[first:stop], strict=True))
        for first, stop in pairwise(found.prefetch_start.tolist())
    ]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_network_proposes_what_it_says(batch, tmp_path):
    layers, experts = 3, 6
    trace = synthetic(
        num_layers=layers,
        num_experts=experts,
        top_k=2,
        num_requests=3,
        decode_length=6,
        batch=batch,
    )
    w = mlp(np.random.default_rng(5), layers, experts)
    file = write_weights(tmp_path / "w.safetensors", "learned_mlp", (layers, experts, 2), w)
    spelled = f"learned_mlp:depth=2,width=3,model={file}"
    found = proposed(trace, spelled, interpreted=True)
    assert proposed(trace, spelled, interpreted=False) == found
    rows = np.zeros((trace.num_steps * layers, experts))
    for token, step in enumerate(trace.step):
        for layer in range(layers):
            np.add.at(
                rows[step * layers + layer],
                trace.expert_ids[token, layer],
                trace.weights[token, layer].astype(np.float64),
            )
    rows /= rows.sum(axis=1, keepdims=True)
    for event in range(len(rows)):
        layer = event % layers
        seen = [
            rows[at] if at >= 0 else np.zeros(experts)
            for at in (event, event - 1, event + 1 - layers)
        ]
        inner = np.maximum(np.concatenate(seen) @ w["first"][layer, 1:] + w["first"][layer, 0], 0)
        logits = (inner @ w["second"][layer, 1:] + w["second"][layer, 0]).reshape(2, experts)
        expected = [
            ((layer + ahead) % layers * experts + expert, event + 1 + ahead)
            for ahead in (1, 2)
            for expert in np.argsort(-logits[ahead - 1])[:3]
        ]
        assert found[event] == expected, event
