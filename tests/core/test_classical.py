"""What classical policies are to one another: equal decisions where one is the other's limit."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import core_log, random_steps

from specmd.core import state as residency
from specmd.core.event import NOBODY
from specmd.core.order.chance import below
from specmd.policy.registry import choose
from specmd.runs.options import RunConfig
from specmd.simulation.replay import replay
from specmd.trace import load, slice_steps

SAME = [
    ("lru_k:k=1", "lru"),
    ("gdsf:cost=even", "lfu_da"),
    ("lcp:base=1.0", "lfu:resident=true"),
    ("lfu:aging=1000", "lfu"),
    ("lfu:aging=1000,resident=true,ties=key", "lfu:resident=true,ties=key"),
    ("hyperbolic:sample=64", "hyperbolic:sample=1000"),
]


def decided(name, seed, pools, bypass):
    trace, steps = random_steps(seed, prefetches=True)
    rng = np.random.default_rng(seed)
    layers, experts = trace.header.num_layers, trace.header.num_experts
    pools = layers if pools else 1
    capacity = rng.integers(1, layers * experts // pools + 1, pools)
    admission = residency.BYPASS if bypass else residency.FORCED
    log, counts, _ = core_log(trace, steps, name, capacity, admission=admission, guard=True)
    return log, counts


@pytest.mark.parametrize(("one", "other"), SAME)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_limit_of_one_is_the_other(one, other, seed, pools, bypass):
    assert decided(one, seed, pools, bypass) == decided(other, seed, pools, bypass)


@pytest.mark.parametrize("one", ["clock", "sieve"])
def test_without_a_second_use_all_is_fifo(one):
    # As many slots as a token takes, and several layers: nothing is ever hit.
    compared = 0
    for seed in range(40):
        trace, steps = random_steps(seed)
        top_k = trace.header.top_k
        if trace.header.num_layers > 1 and all(len(step.tokens) == top_k for step in steps):
            found = [core_log(trace, steps, name, [top_k])[0] for name in (one, "fifo")]
            assert found[0] == found[1]
            compared += 1
    assert compared > 2


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_hyperbolic_looks_at_as_many_slots_as_it_is_told(slots, sample, seed, data):
    world = SimpleNamespace(num_keys=slots, seed=seed)
    policy = choose("evict", f"hyperbolic:sample={sample}").create(world)
    held = data.draw(st.sets(st.integers(0, slots - 1), max_size=slots - 1))
    for key in range(slots):
        policy.uses[key] = data.draw(st.integers(0, 5))
        policy.entered[key] = data.draw(st.integers(1, 20))
    key_in = np.random.default_rng(seed).permutation(slots)
    core = SimpleNamespace(
        first_slot=[0, slots],
        key_in=key_in.tolist(),
        hold=[int(key in held) for key in range(slots)],
        guard=[-1, 20],
        due=[-1] * slots,
        state=[residency.READY] * slots,
        pool=[0] * slots,
    )
    first = below(slots, seed, 1)
    drawn = [int(key_in[(first + i) % slots]) for i in range(min(sample, slots))]
    able = [key for key in drawn if key not in held] or sorted(set(range(slots)) - held)
    ages = 21 - policy.entered
    ratio = {key: policy.uses[key] / ages[key] for key in able}
    least = min(ratio.values())
    expected = max(key for key in able if np.isclose(ratio[key], least, rtol=1e-12))
    assert policy.victim(slots, 0, core, SimpleNamespace(clock=20)) == expected
    assert policy.victim(int(NOBODY), 0, core, SimpleNamespace(clock=20)) not in held


@pytest.fixture(scope="module")
def decode():
    whole = load(Path(__file__).parents[2] / "traces" / "tiny-prose-b1.npz")
    return slice_steps(whole, 2, 60)


@pytest.mark.parametrize("name", ["lirs", "w_tinylfu", "lru_k", "two_q", "lecar", "car", "arc"])
def test_a_cache_no_larger_than_an_event_is_served(decode, name):
    for slots in (1, decode.header.top_k):
        config = RunConfig(evict=name, capacity=str(slots), capacity_slots=slots)
        counters = replay(decode, config, interpreted=True).counters
        assert counters[..., residency.ACCESSES].sum() > 0


@pytest.mark.parametrize("name", ["lirs", "w_tinylfu", "lru_k"])
def test_what_resists_a_scan_hits_where_lru_does_not(decode, name):
    header = decode.header
    slots = header.num_layers * header.top_k // 2  # half of what a step needs
    hits = {}
    for each in ("lru", name):
        config = RunConfig(evict=each, capacity=str(slots), capacity_slots=slots)
        counters = replay(decode, config, interpreted=True).counters
        hits[each] = int(counters[..., residency.REUSE_HITS].sum())
    assert hits["lru"] == 0 < hits[name]
