"""Exact counts and digests of every policy on two shipped traces, frozen in `frozen_counts.json`.

They change only with the meaning of a number, and then on purpose: with the contract, a policy's
rule, a counter or what the digest logs. To freeze them anew, run

    SPECMD_FREEZE=1 python -m pytest tests/test_frozen_counts.py

read the difference of the JSON file, and say in the commit why it is right.
"""

import json
import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from learned_files import with_weights

from specmd.core.state import HOST_EXPERTS
from specmd.policy import registry
from specmd.runs.options import RunConfig
from specmd.runs.pools import parse_capacity
from specmd.simulation.replay import replay
from specmd.trace import load, slice_steps
from specmd.trace.synthesis import with_scores

HERE = Path(__file__).parent
FROZEN = HERE / "frozen_counts.json"
TRACES = {"tiny-prose-b1": (40, 100, "40%"), "tiny-mixed-b8": (0, 24, "75%")}  # steps, capacity
# What is trained on: the mixed recording has requests of every other but this.
TRAINING = {"tiny-prose-b1": "tiny-math-b1", "tiny-mixed-b8": "tiny-jargon-b1"}
EVICT = [
    "lru", "fifo", "mru", "random", "lfu", "lfu:resident=true", "lfu:ties=key", "lfru", "lrfu",
    "lrfu:resident=false", "slru", "arc", "sieve", "s3fifo", "s3fifo:warm=true", "least_stale",
    "least_stale:order=fifo", "least_stale:order=layer", "layer_distance",
    "layer_distance:ties=frequency", "static", "belady", "belady:bypass=true",
    "moving",
    "static:choice=layer_quota", "static:choice=rank_weighted", "static:choice=coverage",
    "hot_tail", "hot_tail:share=0.2", "moe_infinity", "moe_infinity_code", "mrs", "gate_ema",
    "gate_ema:fade=true", "dali", "dali:window=64,hot=0.05", "tec", "tec:window=1", "heat",
    "hobbit", "fine_moe", "freq_threshold", "hysteresis", "hysteresis:cap=2,dwell=2",
    "ls_2gen_access", "ls_2gen_fifo", "ls_2gen_layerfifo", "ls_spatial", "ls_minlayer",
    "ls_ewma_overdue", "ls_ewma_farthest", "ls_score", "learned_linear", "learned_cecar",
    "expected_use", "expected_use:bypass=false",
    "car", "clock", "clock:bits=2", "gdsf", "hyperbolic", "lcp:decay=8", "lecar", "lfu:aging=16",
    "lfu_da", "lirs", "lru_k", "lru_k:k=3", "two_q", "w_tinylfu",
    "w_tinylfu_adaptive",
]  # fmt: skip
# Alike by what they are: the tests of their rules say why.
ALIKE = {
    "evict=ls_2gen_access": "evict=lru",
    "evict=least_stale prefetch=own_gate": "evict=least_stale",  # all it proposes is there
    "evict=dali": "evict=lru",
    "evict=tec": "evict=lru",
    "evict=ls_2gen_fifo": "evict=least_stale:order=fifo",
}
PREFETCH = [
    "prev_token", "next_gate", "static_top:width=2", "random", "oracle:recall=0.8,extra=1",
    "next_gate_renormalised", "score_threshold", "cumulative:p=0.6", "co_activation", "ema:depth=2",
    "activation_matrix", "shuffled", "shuffled:of=prev_token",
    "residual_gate", "expert_map", "own_gate", "draft:depth=2",
    "learned_mlp:depth=2",
]  # fmt: skip
RUNS = [
    *({"evict": evict} for evict in EVICT),
    *({"evict": "least_stale", "prefetch": prefetch} for prefetch in PREFETCH),
    {"evict": "lru", "prefetch": "oracle:depth=3", "schedule": "guard"},
    {"evict": "lru", "scope": "layer"},
    {"evict": "arc", "sequential": True},
    {"evict": "lru", "admission": "bypass"},
    {"evict": "lfu", "reset": "request", "warmup": 2},
    {"evict": "two_q", "sequential": True},
    {"evict": "lecar", "scope": "layer", "prefetch": "random"},
    {"evict": "w_tinylfu", "admission": "bypass", "reset": "request"},
]


@cache
def shipped(name):
    first, stop, _ = TRACES[name]
    trace, training = (
        load(HERE.parents[1] / "traces" / f"{file}.npz") for file in (name, TRAINING[name])
    )
    # What these recordings lack is made up: logits and drafts.
    return tuple(
        with_scores(slice_steps(*each)) for each in ((trace, first, stop), (training, 0, 60))
    )


def spelled(options):
    return " ".join(f"{name}={value}" for name, value in options.items())


def count(name, options):
    trace, training = shipped(name)
    capacity = TRACES[name][2]
    slots = parse_capacity(capacity, trace.header.num_layers, trace.header.num_experts, None)
    armed = {
        axis: with_weights(axis, options[axis], trace.header)
        for axis in ("evict", "prefetch")
        if axis in options
    }
    config = RunConfig(capacity=capacity, capacity_slots=slots, seed=7, **options | armed)
    outcome = replay(trace, config, training=training, interpreted=True)
    assert not outcome.counters[..., HOST_EXPERTS].any()  # of an axis that is not varied here
    counters = outcome.counters[..., :HOST_EXPERTS]
    return {
        "digest": outcome.decision_digest,
        "counters": counters.sum(axis=(0, 1)).tolist(),
        "by_phase_and_layer": int((counters.reshape(-1) * np.arange(1, counters.size + 1)).sum()),
    }


@pytest.fixture(scope="module")
def frozen():
    if os.environ.get("SPECMD_FREEZE"):
        found = {name: {spelled(run): count(name, run) for run in RUNS} for name in TRACES}
        lines = json.dumps(found, indent=2).replace("\n      ", " ").replace("\n    }", " }")
        FROZEN.write_text(re.sub(r"\[[^]]*\]", lambda m: " ".join(m[0].split()), lines) + "\n")
    return json.loads(FROZEN.read_text())


@pytest.mark.parametrize("options", RUNS, ids=spelled)
@pytest.mark.parametrize("name", TRACES)
def test_counts_are_what_they_were(frozen, name, options):
    assert count(name, options) == frozen[name][spelled(options)]


def test_every_policy_is_frozen(frozen):
    for axis, named in (("evict", EVICT), ("prefetch", [*PREFETCH, "none"])):
        known = {entry.name for entry in registry.entries(axis)}
        assert known == {name.partition(":")[0] for name in named}
    for name in TRACES:
        assert set(frozen[name]) == {spelled(run) for run in RUNS}
    # The batch leaves little to choose; on the other trace no other two decide alike.
    digests = {run: found["digest"] for run, found in frozen["tiny-prose-b1"].items()}
    for one, other in ALIKE.items():
        assert digests.pop(one) == digests[other]
    assert len(set(digests.values())) == len(digests)
