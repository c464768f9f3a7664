"""Laws that hold whatever the trace: what is optimal, what includes what, what never hits."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from learned_files import others, with_weights
from reference import random_steps

from specmd.core import state as residency
from specmd.policy import registry
from specmd.policy.registry import choose
from specmd.runs.options import RunConfig
from specmd.simulation.replay import replay
from specmd.trace import build_trace, synthetic

ONLINE = [
    entry.name
    for entry in registry.entries("evict")
    if "future" not in entry.needs and not (entry.frozen or entry.pins)
]


def ran(trace, evict, slots, resident="cache", **more):
    evict = with_weights("evict", evict, trace.header)
    chosen = RunConfig(evict=evict, capacity=str(slots), capacity_slots=slots, **more)
    return replay(trace, chosen, training=others(trace), residency=resident, interpreted=True)


def misses(outcome):
    total = outcome.counters.sum(axis=(0, 1))
    kinds = ("COMPULSORY_MISSES", "COLLISION_MISSES", "CAPACITY_MISSES")
    return int(sum(total[getattr(residency, kind)] for kind in kinds))


def hits(outcome):
    return int(outcome.counters[..., residency.REUSE_HITS].sum())


def fewest_misses(steps, slots, bypass, starts=(frozenset(),)):
    """Dynamic programming over every set that could be resident after each event."""
    states = dict.fromkeys(starts, 0)
    for now in steps:
        demanded = frozenset(now.tokens)
        after = {}
        for cache, cost in states.items():
            total = cost + len(demanded - cache)
            if len(demanded) > slots and not bypass:
                # Everything else has left; of the demanded keys any `slots` may stay.
                choices = map(frozenset, combinations(sorted(demanded), slots))
            elif bypass:
                able = sorted(cache | demanded)
                size = min(slots, len(able))
                choices = map(frozenset, combinations(able, size))
            else:
                others = sorted(cache - demanded)
                size = min(slots - len(demanded), len(others))
                choices = (demanded | set(kept) for kept in combinations(others, size))
            for kept in choices:
                after[kept] = min(after.get(kept, total), total)
        states = after
    return min(states.values())


@pytest.mark.parametrize("seed", range(40))
def test_belady_equals_brute_force(seed):
    trace, steps = random_steps(seed + 5000)
    steps = steps[: 24 if trace.header.num_layers * trace.header.num_experts <= 12 else 12]
    whole = trace.header.num_layers
    trace, steps = shorten(trace, steps[: len(steps) // whole * whole])
    slots = 1 + seed % 5
    for bypass in (False, True):
        found = ran(trace, f"belady:bypass={str(bypass).lower()}", slots)
        assert misses(found) == fewest_misses(steps, slots, bypass), f"seed {seed} slots {slots}"


def shorten(trace, steps):
    from specmd.trace import slice_steps

    return slice_steps(trace, 0, steps[-1].step + 1), steps


@pytest.mark.parametrize("seed", range(6))
def test_belady_is_never_beaten(seed):
    trace, _ = random_steps(seed + 6000)
    keys = trace.header.num_layers * trace.header.num_experts
    for slots in {1, keys // 3 + 1, keys * 2 // 3 + 1}:
        forced, bypass = (
            misses(ran(trace, f"belady:bypass={value}", slots)) for value in ("false", "true")
        )
        compulsory = len(np.unique(trace.expert_ids + base(trace)))
        assert compulsory <= bypass <= forced
        for name in ONLINE:
            least = bypass if choose("evict", name).bypasses else forced
            assert least <= misses(ran(trace, name, slots)), f"{name} seed {seed} slots {slots}"
            online = misses(ran(trace, name, slots, admission="bypass"))
            assert bypass <= online, f"{name} seed {seed} slots {slots}"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"scope": "layer"}, {"sequential": True}], ids=str)
def test_after_a_warm_up_the_bound_is_never_beaten(seed, options):
    trace, steps = random_steps(seed + 6200)
    layers, experts = trace.header.num_layers, trace.header.num_experts
    slots = layers * (1 + seed % experts)
    for warmup in {1, steps[-1].step // 2, steps[-1].step}:
        more = options | {"warmup": warmup}
        forced, bypass = (
            misses(ran(trace, f"belady:bypass={value}", slots, "seen", **more))
            for value in ("false", "true")
        )
        assert bypass <= forced <= misses(ran(trace, "belady", slots, **more))
        for name in ONLINE:
            where = f"{name} seed {seed} slots {slots} warm-up {warmup}"
            least = bypass if choose("evict", name).bypasses else forced
            assert least <= misses(ran(trace, name, slots, **more)), where


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_after_a_warm_up_is_the_best_of_all_contents(seed):
    trace, steps = random_steps(seed + 6400)
    slots, warmup = 1 + seed % 3, steps[-1].step // 2
    seen = sorted({key for now in steps if now.step < warmup for key in now.tokens})
    counted = [now for now in steps if now.step >= warmup][:14]
    trace, _ = shorten(trace, [now for now in steps if now.step <= counted[-1].step])
    counted = [now for now in steps if warmup <= now.step <= counted[-1].step]
    starts = [
        frozenset(start)
        for size in range(slots + 1)
        for start in combinations(seen, min(size, len(seen)))
    ]
    for bypass in (False, True):
        name = f"belady:bypass={str(bypass).lower()}"
        found = misses(ran(trace, name, slots, "seen", warmup=warmup))
        assert found == fewest_misses(counted, slots, bypass, starts), f"seed {seed} slots {slots}"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("reset", ["none", "request"])
def test_what_starts_resident_is_bounded_by_the_best_start(seed, reset):
    trace, _ = random_steps(seed + 6300)
    keys = trace.header.num_layers * trace.header.num_experts
    for slots in {1, keys // 3 + 1, keys}:
        bound = misses(ran(trace, "belady:bypass=true", slots, "any", reset=reset))
        assert bound <= misses(ran(trace, "static", slots, reset=reset))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"admission": "bypass", "scope": "layer"},
        {"reset": "request", "warmup": 3},
        {"prefetch": "random:width=3", "schedule": "guard"},
        {"sequential": True},
    ],
    ids=str,
)
def test_static_never_changes(options):
    trace = synthetic(num_layers=3, num_experts=8, top_k=2, num_requests=5, decode_length=20)
    outcome = ran(trace, "static", 9, **options)
    total = outcome.counters.sum(axis=(0, 1))
    assert total[residency.EVICTIONS] == total[residency.PREFETCH_ISSUED] == 0
    assert misses(outcome) == total[residency.BYPASSED] > 0
    # Its hits are the accesses to the nine keys most used in training, or to three of each layer.
    ids = others(trace).expert_ids.swapaxes(0, 1)
    counts = np.stack([np.bincount(row.reshape(-1), minlength=8) for row in ids])
    kept = np.argsort(-counts.reshape(-1), kind="stable")[:9]
    if options.get("scope") == "layer":
        order = np.argsort(-counts, axis=1, kind="stable")[:, :3]
        kept = (order + np.arange(3)[:, None] * 8).reshape(-1)
    wanted = np.isin(trace.expert_ids + base(trace), kept)[options.get("warmup", 0) :].sum()
    assert hits(outcome) == wanted


def base(trace):
    return (np.arange(trace.header.num_layers) * trace.header.num_experts)[None, :, None]


@pytest.mark.parametrize("seed", range(8))
def test_a_quota_a_layer_is_no_better_than_one_pool_for_belady(seed):
    trace, _ = random_steps(seed + 6500)
    layers, experts = trace.header.num_layers, trace.header.num_experts
    quota = 1 + seed % experts
    apart = misses(ran(trace, "belady:bypass=true", quota * layers, scope="layer"))
    assert misses(ran(trace, "belady:bypass=true", quota * layers)) <= apart


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_lru_includes_every_smaller_lru(seed, scope):
    # LRU keeps the keys of the latest stamps (of equals the smaller keys), however many fit:
    # so a larger cache holds all that a smaller one does, also where U is wider than either.
    trace, _ = random_steps(seed + 7000)
    layers, keys = trace.header.num_layers, trace.header.num_layers * trace.header.num_experts
    step = layers if scope == "layer" else 1
    counts = [hits(ran(trace, "lru", slots, scope=scope)) for slots in range(step, keys + 1, step)]
    assert counts == sorted(counts), f"seed {seed}: {counts}"


@pytest.mark.parametrize("seed", range(6))
def test_lru_never_hits_in_a_cache_smaller_than_what_one_step_needs(seed):
    rng = np.random.default_rng(seed)
    layers, top_k = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    working_set = layers * top_k
    sizes = {"num_layers": layers, "num_experts": 8, "top_k": top_k, "num_requests": 3}
    trace = synthetic(**sizes, decode_length=15, reuse=0.9, seed=seed)
    for slots in range(1, working_set - top_k + 1):
        assert hits(ran(trace, "lru", slots)) == 0, f"seed {seed}, {slots} of {working_set}"
    assert hits(ran(trace, "lru", working_set)) > 0


def test_that_bound_is_sharp():
    # The same experts in every step: one slot more than T - K, and keys survive the cycle.
    trace = build_trace(np.tile(np.array([[[0, 1], [2, 3], [4, 5]]]), (5, 1, 1)), num_experts=6)
    assert hits(ran(trace, "lru", 4)) == 0
    assert hits(ran(trace, "lru", 5)) > 0
    assert hits(ran(trace, "lru", 6)) == 24


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_stale_first_then_oldest_is_lru(seed, scope):
    trace, _ = random_steps(seed + 8000)
    layers, experts = trace.header.num_layers, trace.header.num_experts
    slots = layers * (1 + seed % experts) + (seed % 3 if scope == "global" else 0)
    for admission in ("forced", "bypass"):
        options = {"scope": scope, "admission": admission}
        ours = ran(trace, "least_stale:order=recent", slots, **options)
        lru = ran(trace, "lru", slots, **options)
        assert ours.decision_digest == lru.decision_digest
        assert (ours.counters == lru.counters).all()


@pytest.mark.parametrize("name", [*ONLINE, "belady"])
def test_a_cache_for_all_keys_misses_each_once(name):
    trace, steps = random_steps(9001)
    keys = trace.header.num_layers * trace.header.num_experts
    used = Counter(key for now in steps for key in now.tokens)
    outcome = ran(trace, name, keys)
    assert misses(outcome) == len(used)
    assert hits(outcome) == sum(used.values()) - len(used)
    assert outcome.counters[..., residency.EVICTIONS].sum() == 0


def test_least_stale_collides_less_than_lru_where_lru_cycles():
    trace = synthetic(num_layers=8, num_experts=16, top_k=4, num_requests=2, decode_length=60)
    collisions = {
        name: ran(trace, name, 24).counters[..., residency.COLLISION_MISSES].sum()
        for name in ("lru", "least_stale", "layer_distance")
    }
    assert hits(ran(trace, "lru", 24)) == 0
    assert collisions["lru"] > 4 * collisions["least_stale"]
