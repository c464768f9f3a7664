"""The bound in time is never beaten, whatever is evicted, fetched ahead, and on which clock."""

import numpy as np
import pytest
from learned_files import others, with_weights

from specmd.core import state as residency
from specmd.policy import registry
from specmd.policy.needs import offered, unmet
from specmd.runs.options import RunConfig
from specmd.runs.resolve import grid
from specmd.simulation import bounds as module
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.replay import replay
from specmd.trace import slice_steps, synthetic

SEEDS = range(16)
BYTES = 1_000_000


def random_trace(rng):
    layers, experts = int(rng.integers(1, 5)), int(rng.integers(3, 9))
    return synthetic(
        num_layers=layers,
        num_experts=experts,
        top_k=int(rng.integers(1, experts // 2 + 1)),
        num_requests=int(rng.integers(1, 4)),
        prompt_length=int(rng.choice([0, 1, 5])),
        decode_length=int(rng.integers(3, 9)),
        batch=int(rng.integers(1, 3)),
        zipf=float(rng.choice([0.0, 1.5])),
        reuse=float(rng.choice([0.0, 0.7])),
        lookahead_depth=min(1, layers - 1),
        expert_bytes=BYTES,
        seed=int(rng.integers(1 << 30)),
    )


def random_clock(rng):
    """A clock of any balance, from transfers that cost nothing to ones that are all that counts."""
    transfer_s = float(10 ** rng.uniform(-3, 2))
    figures = dict.fromkeys(CostCoefficients._fields, 0.0) | {
        "expert_flop_s": float(rng.uniform(0, 1)),
        "read_s_per_byte": float(rng.uniform(0, 2)) / BYTES,
        "launch_s": float(rng.choice([0.0, 0.1])),
        "layer_read_s": float(rng.uniform(0, 3)),
        "head_read_s": float(rng.uniform(0, 1)),
        "latency_s": float(rng.choice([0.0, 0.2])),
        "bytes_per_s": BYTES / transfer_s,
        "chunk_bytes": BYTES / float(rng.choice([1, 3, 8])),
        "wake_s": float(rng.choice([0.0, 0.05])),
        "resume_s": float(rng.choice([0.0, 0.3])),
        "predict_s": float(rng.choice([0.0, 0.1])),
        "decide_s": float(rng.choice([0.0, 0.2])),
        "fetch_s": float(rng.choice([0.0, 0.1])),
        "prefill_flop_scale": float(rng.choice([0.5, 1.0, 2.0])),
        "prefill_read_scale": float(rng.choice([0.5, 1.0, 2.0])),
        "disk_latency_s": float(rng.choice([0.0, 0.2])),
        "disk_s_per_byte": float(10 ** rng.uniform(-3, 2)) / BYTES,
    }
    return CostCoefficients(**figures)


def random_tier(rng, trace):
    """A host tier of any size and policy."""
    keys = trace.header.num_layers * trace.header.num_experts
    able = [e.name for e in registry.entries("evict") if not e.needs and not e.frozen]
    slots = int(rng.integers(1, keys + 1))
    return {"host_capacity": str(slots), "host_slots": slots, "host_evict": str(rng.choice(able))}


def names(axis, trace=None):
    return [
        entry.name if trace is None else with_weights(axis, entry.name, trace.header)
        for entry in registry.entries(axis)
        if trace is None or not unmet(registry.Choice.usual(entry), offered(trace, trace))
    ]


def only_moving():
    """Names of the miss policies that fetch all: others are lossy, or compute on the host."""
    return [e.name for e in registry.entries("miss") if not hasattr(e.cls, "answer")]


def random_configs(rng, trace):
    """Every eviction policy once, each with whatever else there is; the bound is that of all."""
    keys = trace.header.num_layers * trace.header.num_experts
    scope = str(rng.choice(["global", "layer"]))
    least = trace.header.num_layers if scope == "layer" else 1
    slots = int(rng.integers(least, keys + 1))
    shared = {
        "reset": str(rng.choice(["none", "request"])),
        "warmup": int(rng.choice([0, 0, 2])),
        "seed": int(rng.integers(100)),
    }
    for evict in (with_weights("evict", name, trace.header) for name in names("evict")):
        (config,) = grid(
            trace,
            evict=evict,
            capacity=slots,
            scope=scope,
            prefetch=str(rng.choice(names("prefetch", trace))),
            schedule=str(rng.choice(names("schedule"))),
            miss=str(rng.choice(only_moving())),
            admission=str(rng.choice(names("admission"))),
            **shared,
        )
        yield config


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(module, "_known", {})


def ends(trace, config, costs):
    return module._ends(trace, config, costs, others(trace), True, None)


def seconds(trace, config, costs):
    outcome = replay(trace, config, training=others(trace), costs=costs, interpreted=True)
    return float(outcome.step_seconds.sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_roofline_is_never_beaten(seed):
    rng = np.random.default_rng(seed)
    trace, costs = random_trace(rng), random_clock(rng)
    for config in random_configs(rng, trace):
        found = ends(trace, config, costs)
        assert found.roofline_s <= seconds(trace, config, costs) * (1 + 1e-9), f"{seed}: {config}"
        assert found.roofline_s <= found.belady_bypass.total_s * (1 + 1e-9), f"{seed}: {config}"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_roofline_of_a_chain_is_never_beaten(seed):
    rng = np.random.default_rng(2000 + seed)
    trace, costs = random_trace(rng), random_clock(rng)
    tier = random_tier(rng, trace)
    for plain in random_configs(rng, trace):
        config = plain.model_copy(update=tier)
        found = ends(trace, config, costs)
        took_s = seconds(trace, config, costs)
        assert found.roofline_s <= took_s * (1 + 1e-9), f"{seed}: {config}"
        assert found.roofline_s <= found.belady_bypass.total_s * (1 + 1e-9), f"{seed}: {config}"
        without_s = ends(trace, plain, costs).roofline_s
        assert found.roofline_s >= without_s * (1 - 1e-9), f"{seed}: {config}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_disk_is_never_free_and_without_any_cache_it_is_slowest(seed):
    rng = np.random.default_rng(3000 + seed)
    trace, costs = random_trace(rng), random_clock(rng)
    keys = trace.header.num_layers * trace.header.num_experts
    slots = int(rng.integers(1, keys + 1))
    plain = RunConfig(capacity=str(slots), capacity_slots=slots)
    config = plain.model_copy(update=random_tier(rng, trace))
    found, free = ends(trace, config, costs), ends(trace, plain, costs)
    assert found.belady.total_s <= found.no_cache.total_s * (1 + 1e-9), f"{seed}: {config}"
    assert found.all_resident.model_dump() == pytest.approx(free.all_resident.model_dump())
    for end in ("belady", "belady_bypass", "compulsory", "no_cache"):
        ours, without = getattr(found, end), getattr(free, end)
        assert ours.misses == without.misses
        assert ours.total_s >= without.total_s * (1 - 1e-9), f"{seed} {end}: {config}"


@pytest.mark.parametrize("seed", SEEDS)
def test_no_memory_is_free_so_no_cache_is_no_faster_than_the_optimum(seed):
    rng = np.random.default_rng(1000 + seed)
    trace, costs = random_trace(rng), random_clock(rng)
    keys = trace.header.num_layers * trace.header.num_experts
    for slots in {1, 2, int(rng.integers(1, keys + 1))}:
        for reset in ("none", "request"):
            config = RunConfig(capacity=str(slots), capacity_slots=slots, reset=reset)
            found = ends(trace, config, costs)
            assert found.belady.total_s <= found.no_cache.total_s * (1 + 1e-9), f"{seed}: {config}"
            assert found.belady_bypass.total_s <= found.no_cache.total_s * (1 + 1e-9), seed
            assert found.all_resident.total_s <= found.belady.total_s * (1 + 1e-9), seed
            assert found.all_resident.misses == 0


def test_the_roofline_is_reached_where_transfers_or_computing_are_all_there_is():
    trace = synthetic(num_layers=3, num_experts=6, top_k=2, decode_length=20, expert_bytes=BYTES)
    none = dict.fromkeys(CostCoefficients._fields, 0.0)
    moving = CostCoefficients(**none | {"bytes_per_s": BYTES, "chunk_bytes": BYTES})
    config = RunConfig(capacity="5", capacity_slots=5)
    found = ends(trace, config, moving)
    assert found.roofline_s == found.belady_bypass.misses
    assert seconds(
        trace, config.model_copy(update={"evict": "belady:bypass=true"}), moving
    ) == pytest.approx(found.roofline_s)
    computing = CostCoefficients(
        **none | {"bytes_per_s": float("inf"), "chunk_bytes": BYTES, "read_s_per_byte": 1 / BYTES}
    )
    module._known.clear()  # a clock made up here is not part of what a bound is known by
    found = ends(trace, config, computing)
    events = trace.num_steps * 3
    assert found.roofline_s == pytest.approx(events * 2)
    assert seconds(trace, config, computing) == pytest.approx(found.roofline_s)


def test_what_either_cache_holds_need_not_be_read():
    # All there is to wait for is the disk; the optimum of 3 + 2 slots is what must be read.
    trace = synthetic(num_layers=2, num_experts=5, top_k=2, decode_length=20, expert_bytes=BYTES)
    none = dict.fromkeys(CostCoefficients._fields, 0.0)
    clock = none | {"bytes_per_s": float("inf"), "chunk_bytes": BYTES, "disk_s_per_byte": 1 / BYTES}
    costs = CostCoefficients(**clock)
    config = RunConfig(capacity="3", capacity_slots=3, host_capacity="2", host_slots=2)
    both = RunConfig(evict="belady:bypass=true", capacity="5", capacity_slots=5, admission="bypass")
    total = replay(trace, both, interpreted=True).counters.sum(axis=(0, 1))
    misses = total[residency.COMPULSORY_MISSES : residency.CAPACITY_MISSES + 1].sum()
    assert ends(trace, config, costs).roofline_s == misses


def test_after_a_warm_up_what_slots_may_hold_is_not_counted():
    # Half of it warm: the optimum of the rest from an empty cache, less one transfer a slot.
    trace = synthetic(num_layers=2, num_experts=5, top_k=2, decode_length=20, expert_bytes=1)
    costs = CostCoefficients(
        **dict.fromkeys(CostCoefficients._fields, 0.0) | {"bytes_per_s": 1.0, "chunk_bytes": 1.0}
    )
    config = RunConfig(capacity="3", capacity_slots=3, warmup=10)
    cold = replay(
        slice_steps(trace, 10),
        RunConfig(evict="belady:bypass=true", capacity="3", capacity_slots=3, admission="bypass"),
        interpreted=True,
    )
    total = cold.counters.sum(axis=(0, 1))
    misses = total[residency.COMPULSORY_MISSES : residency.CAPACITY_MISSES + 1].sum()
    assert ends(trace, config, costs).roofline_s == misses - 3
