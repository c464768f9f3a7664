"""Bounds bound, add up, are computed once, and survive a damaged file."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specmd
from specmd.runs.resolve import grid
from specmd.simulation import bounds as module
from specmd.simulation.simulate import run_config
from specmd.trace import build_trace, synthetic

simulate = partial(specmd.simulate, interpreted=True)


@pytest.fixture
def replays(monkeypatch):
    """Every walk over the trace that a bound asks for, from an empty memory."""
    seen = []
    replay, curve = module.replay, module.curve

    def replayed(trace, config, **options):
        seen.append((config.evict, config.capacity_slots, options["residency"]))
        return replay(trace, config, **options)

    def walked(trace, config, rule, **options):
        seen.append((rule, options["depth"], options["start"]))
        return curve(trace, config, rule, **options)

    monkeypatch.setattr(module, "replay", replayed)
    monkeypatch.setattr(module, "curve", walked)
    monkeypatch.setattr(module, "_known", {})
    return seen


def tiny(**more):
    sizes = {"num_layers": 2, "num_experts": 5, "top_k": 2, "num_requests": 2, "decode_length": 10}
    return synthetic(**(sizes | more))


def fewest_misses(ids, capacity, bypass):
    """Brute force over every choice of victims, one layer, sets of `ids` (steps, k)."""
    states = {frozenset(): 0}
    for row in ids:
        demanded = frozenset(row)
        after = {}
        for cache, misses in states.items():
            missing = demanded - cache
            # What is demanded may not leave while its event lasts; under bypass it may at the end.
            held = frozenset() if bypass else demanded
            others = (cache | demanded) - held
            kept = [held | more for more in subsets(others, capacity - len(held))]
            for cache_after in kept:
                cost = misses + len(missing)
                after[cache_after] = min(after.get(cache_after, cost), cost)
        states = after
    return min(states.values())


def subsets(keys, size):
    keys = sorted(keys)
    chosen = [
        frozenset(k for k, bit in zip(keys, bits, strict=True) if bit)
        for bits in product((0, 1), repeat=len(keys))
    ]
    return [each for each in chosen if len(each) <= size]


@given(
    st.lists(
        st.lists(st.integers(0, 4), min_size=2, max_size=2, unique=True), min_size=1, max_size=8
    ),
    st.integers(2, 4),
)
@settings(max_examples=40, deadline=None)
def test_belady_equals_brute_force_forced_and_with_bypass(rows, capacity):
    trace = build_trace(np.array(rows)[:, None, :], num_experts=5)
    found = simulate(trace, capacity=capacity).bounds
    assert found.belady.misses == fewest_misses(rows, capacity, bypass=False)
    assert found.belady_bypass.misses == fewest_misses(rows, capacity, bypass=True)
    assert found.compulsory.misses == len({key for row in rows for key in row})


@given(
    st.integers(0, 5),
    st.sampled_from(["lru", "fifo", "least_stale", "mru", "lfu"]),
    st.integers(2, 9),
    st.sampled_from(["global", "layer"]),
    st.sampled_from(["none", "request"]),
)
@settings(max_examples=30, deadline=None)
def test_the_bounds_are_in_order_and_the_gaps_add_up(seed, evict, capacity, scope, reset):
    capacity = max(capacity, 4) if scope == "layer" else capacity
    run = simulate(tiny(seed=seed), evict, capacity, scope=scope, reset=reset)
    found = run.bounds
    misses = run.metrics["misses"]
    assert 0 == found.all_resident.misses <= found.compulsory.misses
    assert found.compulsory.misses <= found.belady_bypass.misses <= found.belady.misses
    assert found.belady.misses <= misses <= found.no_cache.misses == run.metrics["accesses"]
    assert found.regret_misses == found.forced_gap == misses - found.belady.misses
    assert found.forced_gap + found.bypass_gap == misses - found.belady_bypass.misses
    assert found.regret_share == pytest.approx(found.regret_misses / found.belady.misses)


def test_belady_itself_has_no_regret():
    found = simulate(tiny(), "belady", 4).bounds
    assert (found.regret_misses, found.regret_share) == (0, 0)
    bypass = simulate(tiny(), "belady:bypass=true", 4)
    assert bypass.metrics["misses"] == found.belady_bypass.misses
    assert bypass.config.admission == "bypass"


def test_after_a_warm_up_belady_still_bounds():
    # Belady itself, which plans from the start, holds 1 and 2 after the warm-up and misses 0.
    trace = build_trace(np.array([0, 1, 2, 1, 2, 1, 2, 0])[:, None, None], num_experts=3)
    regrets = {}
    for evict in ("mru", "lru", "belady"):
        run = simulate(trace, evict, 2, warmup=7)
        assert run.bounds.belady.misses == run.bounds.belady_bypass.misses == 0
        regrets[evict] = run.bounds.regret_misses
    assert regrets == {"mru": 0, "lru": 1, "belady": 1}


def test_a_policy_that_starts_resident_is_bounded_from_the_best_start():
    trace = tiny(seed=3)
    for capacity in (4, 10):
        found = {
            evict: simulate(trace, evict, capacity, training=tiny(seed=4))
            for evict in ("static", "lru")
        }
        ours, cold = found["static"].bounds, found["lru"].bounds
        assert ours.belady_bypass.misses <= found["static"].metrics["misses"]
        assert ours.belady.misses < cold.belady.misses
    assert ours.belady.misses == 0
    assert found["static"].config.admission == "bypass"


def test_with_a_clock_every_bound_has_times_and_they_are_in_order():
    trace = tiny(prompt_length=3, expert_bytes=10**7)
    run = simulate(trace, "lru", 4, profile="rtx4090")
    found = run.bounds
    ends = [found.all_resident, found.compulsory, found.belady, found.no_cache]
    assert all(end.tpot_s > 0 and end.ttft_s > 0 for end in [*ends, found.belady_bypass])
    assert [end.tpot_s for end in ends] == sorted(end.tpot_s for end in ends)
    assert found.all_resident.tpot_s < run.metrics["tpot_s"] <= found.no_cache.tpot_s


def test_without_a_clock_the_bounds_have_no_times():
    found = simulate(tiny(), "lru", 4).bounds
    assert {end.tpot_s for end in (found.belady, found.all_resident, found.no_cache)} == {None}


def test_a_grid_of_policies_computes_each_bound_once(replays):
    trace = tiny()
    policies = ["lru", "fifo", "mru", "lfu", "least_stale", "belady"]
    runs = [
        run_config(trace, config, interpreted=True, most_slots=6)
        for config in grid(trace, evict=policies, capacity=[4, 6], seed=[0])
    ]
    assert len({run.bounds.belady.misses for run in runs}) == 2
    # Without a clock one walk is enough for every capacity.
    assert replays == [("belady", 6, "cache"), ("belady:bypass=true", 6, "cache")]


def test_under_a_clock_a_grid_of_policies_replays_each_bound_once_a_capacity(replays):
    trace = tiny(expert_bytes=10**7)
    for config in grid(trace, evict=["lru", "fifo"], capacity=[4, 6], profile="rtx4090"):
        run_config(trace, config, interpreted=True)
    expected = [
        (evict, slots, residency)
        for slots in (4, 6)
        for evict, residency in (("belady", "cache"), ("belady:bypass=true", "cache"))
    ]
    # What depends on no capacity is replayed once.
    expected += [("lru", 10, "cache"), ("lru", 4, "all"), ("lru", 4, "none")]
    assert sorted(replays) == sorted(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "layer"},
        {"reset": "request"},
        {"sequential": True},
        {"warmup": 3},
        {"tokens": 11},
        {"profile": "h200"},
    ],
)
def test_what_bounds_depend_on_is_computed_anew(replays, change):
    trace = tiny(expert_bytes=1000)
    simulate(trace, capacity=6)
    before = len(replays)
    simulate(trace, capacity=6, **change)
    assert len(replays) > before


@pytest.mark.parametrize(
    "change",
    [
        {"evict": "fifo"},
        {"prefetch": "prev_token"},
        {"admission": "bypass"},
    ],
)
def test_what_bounds_do_not_depend_on_is_not(replays, change):
    trace = tiny(expert_bytes=1000)
    first = simulate(trace, capacity=6).bounds
    before = len(replays)
    assert simulate(trace, capacity=6, **change).bounds.belady == first.belady
    assert len(replays) == before


def test_bounds_can_be_left_out(replays):
    assert simulate(tiny(), capacity=4, bounds=False).bounds is None
    assert replays == []


def test_processes_share_bounds_through_a_folder(replays, tmp_path):
    trace = tiny()
    (config,) = grid(trace, capacity=4)
    run = partial(run_config, trace, config, interpreted=True, keep_bounds_in=tmp_path)
    first = run().bounds
    computed = len(replays)
    module._known.clear()  # another process
    assert run().bounds == first
    assert len(replays) == computed


@pytest.mark.parametrize("damage", ["", "{", '{"belady": {"misses": 1}}', "\0\0"])
def test_a_damaged_file_of_bounds_is_computed_again(replays, tmp_path, damage):
    trace = tiny()
    (config,) = grid(trace, capacity=4)
    run = partial(run_config, trace, config, interpreted=True, keep_bounds_in=tmp_path)
    first = run().bounds
    (kept,) = tmp_path.glob("*.json")
    whole = kept.read_text()
    kept.write_text(damage)
    module._known.clear()
    assert run().bounds == first
    assert kept.read_text() == whole
