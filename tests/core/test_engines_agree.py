"""One run, many ways to run it: the same decisions, bit for bit."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from learned_files import with_weights

from specmd.policy import registry
from specmd.runs.options import RunConfig
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.replay import replay
from specmd.trace import synthetic

# (expert_flop, expert_read, launch, layer_flop, attn, layer_read, kv_read, layer_launch, head_flop,
#  head_read, step_launch, latency, bytes_per_s, chunk_bytes)
FAST_LINK = CostCoefficients(
    1e-6, 1e-5, 1e-6, 1e-6, 1e-9, 1e-5, 1e-9, 1e-6, 1e-6, 1e-5, 1e-6, 0.0, float("inf"), 1e6
)
SLOW_LINK = FAST_LINK._replace(latency_s=1e-5, bytes_per_s=1e10)

POLICIES = [
    "lru", "fifo", "mru", "random", "lfu", "lfu:resident=true", "lfu:ties=key", "lfru", "lrfu",
    "lrfu:resident=false", "slru", "arc", "sieve", "s3fifo", "s3fifo:warm=true", "least_stale",
    "least_stale:order=fifo", "least_stale:order=layer", "least_stale:order=recent",
    "layer_distance", "layer_distance:ties=frequency", "static", "belady", "belady:bypass=true",
    "moving",
    "static:choice=layer_quota", "static:choice=rank_weighted", "static:choice=coverage",
    "hot_tail", "moe_infinity", "moe_infinity_code", "mrs", "gate_ema", "gate_ema:fade=true",
    "dali", "dali:window=12,hot=0.2", "tec", "tec:window=1", "heat:hot=2", "ls_2gen_access",
    "ls_2gen_fifo", "ls_2gen_layerfifo", "ls_spatial", "ls_minlayer", "ls_ewma_overdue",
    "ls_ewma_farthest", "ls_score", "hobbit", "fine_moe", "freq_threshold:window=5,share=0.4",
    "hysteresis", "hysteresis:bypass=false", "learned_linear", "learned_cecar",
    "car", "clock", "gdsf", "hyperbolic", "lcp:decay=8", "lecar", "lfu:aging=16", "lfu_da",
    "lirs", "lru_k", "two_q", "w_tinylfu", "w_tinylfu_adaptive",
    "expected_use",
]  # fmt: skip
# Another policy by another name, on the trace and at the capacity of these tests.
ALIKE = [
    "least_stale:order=recent", "ls_2gen_access", "ls_2gen_fifo", "dali", "tec",
    "static:choice=layer_quota",
]  # fmt: skip


REMEMBERING = [
    "arc", "s3fifo", "s3fifo:warm=true", "lfu", "lfu:ties=key", "lfru", "lrfu:resident=false",
    "layer_distance:ties=frequency", "moving", "moe_infinity", "moe_infinity_code", "mrs",
    "gate_ema",
    "gate_ema:fade=true", "dali", "dali:window=12,hot=0.2", "tec", "tec:window=1",
    "ls_ewma_overdue", "ls_score", "hobbit", "fine_moe", "freq_threshold:window=5,share=0.4",
    "hysteresis", "hysteresis:bypass=false", "learned_linear", "learned_cecar",
    "car", "lecar", "lfu:aging=16", "lirs", "lru_k", "two_q", "w_tinylfu", "w_tinylfu_adaptive",
    "expected_use",
]  # fmt: skip


def made(**more):
    sizes = {
        "num_layers": 4, "num_experts": 8, "top_k": 2, "num_requests": 5, "prompt_length": 4,
        "decode_length": 14, "batch": 2, "lookahead_depth": 2, "expert_bytes": 1 << 20,
    }  # fmt: skip
    return synthetic(**(sizes | more))


def config(evict="lru", slots=13, **more):
    evict = with_weights("evict", evict, made().header)
    return RunConfig(evict=evict, capacity=str(slots), capacity_slots=slots, **more)


def both(trace, chosen, **more):
    """Outcomes compiled, however few the accesses are, and interpreted."""
    return (
        replay(trace, chosen, compiled=True, **more),
        replay(trace, chosen, interpreted=True, **more),
    )


def same(one, other, seconds=True):
    assert one.decision_digest == other.decision_digest
    assert (one.counters == other.counters).all()
    if seconds and one.step_seconds is not None:
        assert one.step_seconds.tobytes() == other.step_seconds.tobytes()
        assert one.link_busy_s == other.link_busy_s


def test_every_eviction_policy_is_listed_here():
    assert {name.partition(":")[0] for name in POLICIES} == {
        entry.name for entry in registry.entries("evict")
    }


@pytest.mark.parametrize("spelled", POLICIES)
def test_a_history_that_outlives_eviction_is_declared(spelled):
    assert registry.choose("evict", spelled).remembers == (spelled in REMEMBERING)


# A kernel takes seconds to compile (test_compiled_policies.py compiles every policy alone): a list,
# one that knows the future and may bypass, and one that pins.
COMPILED = ["lru", "belady", "static"]


@pytest.mark.parametrize("evict", COMPILED)
def test_interpreted_is_compiled(evict):
    trace = made()
    for options in (
        {},
        {"scope": "layer", "slots": 9},
        {"prefetch": "oracle:depth=3,recall=0.7,extra=2", "schedule": "guard"},
        {"slots": 3},
        {"admission": "bypass", "slots": 6},
        {"reset": "request", "warmup": 3},
    ):
        same(*both(trace, config(evict, **options), training=made(seed=1)))


def test_interpreted_is_compiled_in_sequential_mode():
    trace = made()
    for options in (
        {},
        {"scope": "layer", "slots": 9},
        {"slots": 3},
        {"reset": "request", "warmup": 3},
    ):
        same(*both(trace, config(sequential=True, **options)))


@pytest.mark.parametrize("prefetch", ["oracle:depth=3,recall=0.6,extra=2", "next_gate:depth=2"])
def test_interpreted_is_compiled_on_the_clock_bit_for_bit(prefetch):
    # One kernel for the clock; the schedules and ways to handle a miss are values in it.
    trace = made()
    for schedule, miss in (("fifo", "overlap"), ("guard", "block"), ("cancel", "overlap")):
        chosen = config(prefetch=prefetch, schedule=schedule, miss=miss)
        for costs in (SLOW_LINK, FAST_LINK):
            compiled, interpreted = both(trace, chosen, costs=costs)
            assert compiled.step_seconds.sum() > 0
            same(compiled, interpreted)


@pytest.mark.parametrize("evict", POLICIES)
def test_an_infinitely_fast_link_decides_like_no_link(evict):
    trace = made()
    for options in (
        {},
        {"prefetch": "oracle:depth=2,recall=0.7,extra=2"},
        {"prefetch": "random:depth=3,width=3", "schedule": "guard"},
        {"prefetch": "random:depth=3,width=3", "schedule": "cancel", "slots": 6},
        {"slots": 3, "prefetch": "random:width=3"},
        {"scope": "layer", "slots": 8, "prefetch": "prev_token"},
        {"admission": "bypass", "prefetch": "prev_token"},
        {"reset": "request", "prefetch": "prev_token:depth=2", "schedule": "guard"},
    ):
        chosen = config(evict, **options)
        runs = [
            replay(trace, chosen, training=made(seed=1), interpreted=True, costs=costs)
            for costs in (None, FAST_LINK)
        ]
        same(*runs, seconds=False)


@pytest.mark.parametrize("evict", POLICIES)
def test_the_seed_matters_for_chance_alone(evict):
    trace = made()
    runs = [
        replay(trace, config(evict, seed=seed), training=made(seed=1), interpreted=True)
        for seed in (0, 1, 12345)
    ]
    if evict in ("random", "lecar"):
        assert len({run.decision_digest for run in runs}) == 3
    else:
        same(runs[0], runs[1])
        same(runs[0], runs[2])


def test_how_a_trace_is_cut_into_stretches_does_not_matter(monkeypatch):
    from specmd.simulation import events

    trace = made(num_requests=8, decode_length=30)
    chosen = [
        config("belady", prefetch="oracle:depth=5", schedule="guard"),
        config("lfu", reset="request"),
        config("least_stale", prefetch="next_gate:depth=2"),
        config("belady", sequential=True),
        config("lru", warmup=7, prefetch="prev_token:depth=3"),
    ]
    whole = [replay(trace, each, interpreted=True) for each in chosen]
    for size in (1, 50, 333):
        monkeypatch.setattr(events, "CHUNK_ACCESSES", size)
        for each, expected in zip(chosen, whole, strict=True):
            same(replay(trace, each, interpreted=True), expected)


def test_other_decisions_have_another_digest():
    trace = made()
    digests = [
        replay(trace, config(evict), training=made(seed=1), interpreted=True).decision_digest
        for evict in POLICIES
        if evict not in ALIKE
    ]
    assert len(set(digests)) == len(digests)


PROGRAM = """
    import json, sys
    sys.path.insert(0, sys.argv[1])
    from test_engines_agree import POLICIES, config, made
    from specmd.simulation.replay import replay

    trace = made()
    json.dump(
        [
            replay(trace, config(name), training=made(seed=1), interpreted=True).decision_digest
            for name in POLICIES
        ],
        sys.stdout,
    )
"""


def test_two_processes_agree_whatever_the_hash_seed():
    found = []
    for seed in ("1", "4242"):
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), str(Path(__file__).parent)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(answer.stdout))
    trace = made()
    here = [
        replay(trace, config(name), training=made(seed=1), interpreted=True).decision_digest
        for name in POLICIES
    ]
    assert found == [here, here]
    assert np.unique(here).size == len(here) - len(ALIKE)
