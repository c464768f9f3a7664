"""Allocation: limits, proportion, the least misses, and each policy against its formula."""

from itertools import combinations, product

import numpy as np
import pytest

from specmd import simulate
from specmd.core.event import World
from specmd.core.instant_link import InstantLink
from specmd.core.kernel import Kernel
from specmd.core.state import CAPACITY_MISSES, COLLISION_MISSES, COMPULSORY_MISSES
from specmd.errors import SpecmdError
from specmd.policy import best_quotas, lru_misses, share_slots
from specmd.policy.registry import add_plugin, choose, entries, forget
from specmd.runs.options import RunConfig
from specmd.runs.pools import divide, pools_of
from specmd.simulation.events import EventStream
from specmd.trace import build_trace, synthetic
from specmd.trace.training import training_rows

MISSES = [COMPULSORY_MISSES, COLLISION_MISSES, CAPACITY_MISSES]
NAMES = [
    *(entry.name for entry in entries("allocate")),
    *("entropy:effective=true", "miss_ratio_curve:exact=true", "shallow:slope=1"),
]


def made(number, **more):
    rng = np.random.default_rng(number)
    experts = int(rng.integers(3, 9))
    sizes = {
        "num_layers": int(rng.integers(2, 5)),
        "num_experts": experts,
        "top_k": int(rng.integers(1, min(3, experts) + 1)),
        "num_requests": int(rng.integers(1, 4)),
        "batch": int(rng.integers(1, 3)),
        "prompt_length": int(rng.integers(1, 6)),
        "decode_length": int(rng.integers(5, 30)),
        "expert_bytes": 1 << 20,
    }
    return synthetic(**{**sizes, "seed": number, **more})


def world_of(trace, slots=1):
    return World.of(trace.header, [slots], training=training_rows(trace))


def shared(allocate, trace, slots):
    layers = trace.header.num_layers
    how = {"scope": "layer", "allocate": allocate, "model": trace.header, "training": trace}
    return divide(slots, layers, **how).slots


def misses(trace, quotas):
    """Misses of LRU by layer, each layer with its quota."""
    header = trace.header
    world, link = (
        World.of(header, quotas),
        InstantLink.create(header.num_layers * header.num_experts),
    )
    kernel, events = (
        Kernel(world, choose("evict", "lru"), link, interpreted=True),
        EventStream(trace),
    )
    for first, last in events.stretches(0, events.num_steps):
        kernel.run(events.chunk(first, last))
    return kernel.counters[..., MISSES].sum(axis=(0, 2))


@pytest.mark.parametrize("name", NAMES)
def test_quotas_add_up_and_keep_to_the_limits(name):
    for seed in range(12):
        trace = made(seed)
        header = trace.header
        keys = header.num_layers * header.num_experts
        before = None
        for slots in range(1, keys + 1):
            found = shared(name, trace, slots)
            where = f"seed {seed} slots {slots}: {found}"
            assert sum(found) == slots, where
            assert max(found) <= header.num_experts, where
            enough = slots >= header.num_layers * header.top_k
            least = header.top_k if enough else min(1, slots // header.num_layers)
            assert min(found) >= least, where
            before = found
        assert before == (header.num_experts,) * header.num_layers


@pytest.mark.parametrize("weights", [np.zeros(5), np.full(5, 3.0)])
def test_equal_weights_are_an_even_split(weights):
    world = World.of(made(1, num_layers=5, num_experts=8, top_k=2).header, [1])
    for slots in range(1, 41):
        each, over = divmod(slots, 5)
        assert share_slots(slots, world, weights) == [each + (layer < over) for layer in range(5)]


def test_shares_are_as_the_weights_and_never_fall_with_more_slots():
    world = World.of(made(1, num_layers=3, num_experts=200, top_k=1).header, [1])
    assert share_slots(60, world, np.array([1.0, 2.0, 3.0])) == [10, 20, 30]
    rng = np.random.default_rng(5)
    for _ in range(5):
        weights, last = rng.random(3), np.zeros(3)
        for slots in range(3, 90):
            found = np.array(share_slots(slots, world, weights))
            assert (found >= last).all()
            last = found


def test_the_best_quotas_are_the_best_of_all():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        header = made(seed, num_layers=3).header
        world = World.of(header, [1])
        costs = rng.integers(0, 20, (3, header.num_experts + 1)).astype(float)
        slots = int(rng.integers(1, 3 * header.num_experts + 1))
        found = best_quotas(slots, world, costs)
        least = header.top_k if slots >= 3 * header.top_k else min(1, slots // 3)
        able = [
            each
            for each in product(range(least, header.num_experts + 1), repeat=3)
            if sum(each) == slots
        ]
        best = min(sum(costs[range(3), each]) for each in able)
        assert tuple(found) in able, f"seed {seed}"
        assert costs[range(3), found].sum() == pytest.approx(best), f"seed {seed}"


def test_misses_at_every_capacity_are_those_of_replays():
    for seed in range(6):
        trace = made(seed)
        curves = lru_misses(world_of(trace))
        for quota in range(1, trace.header.num_experts + 1):
            assert (curves[:, quota] == misses(trace, [quota] * trace.header.num_layers)).all(), (
                f"seed {seed} {quota} slots"
            )


def on_its_own_trace(allocate, trace, slots):
    """Misses with what a policy gives, of the trace it was fitted to: no run is judged so."""
    quotas = shared(allocate, trace, slots)
    curves = lru_misses(world_of(trace))
    return int(curves[range(len(quotas)), np.minimum(quotas, trace.header.num_experts)].sum())


@pytest.mark.parametrize("name", ["miss_ratio_curve", "miss_ratio_curve:exact=true"])
def test_it_is_never_worse_than_an_even_split_on_its_own_trace(name):
    better = 0
    for seed in range(25):
        trace = made(seed)
        keys = trace.header.num_layers * trace.header.num_experts
        slots = int(np.random.default_rng(seed).integers(1, keys + 1))
        even, ours = (
            int(misses(trace, shared(each, trace, slots)).sum()) for each in ("uniform", name)
        )
        assert ours <= even, f"seed {seed}, {slots} slots"
        better += ours < even
    assert better > 5


def test_the_exact_division_is_no_worse_than_the_greedy_one():
    for seed in range(15):
        trace = made(seed)
        greedy, exact = (
            int(misses(trace, shared(f"miss_ratio_curve:exact={each}", trace, 9)).sum())
            for each in ("false", "true")
        )
        assert exact <= greedy, f"seed {seed}"


def test_adap_moe_is_the_least_of_its_formula():
    for seed in range(8):
        trace = made(seed, num_layers=3, num_experts=5, top_k=2)
        ids, layers = trace.expert_ids.astype(int), range(3)
        hits = np.zeros((3, 2))  # foretold, asked
        for token in range(1, len(ids)):
            for layer in layers[1:]:
                before, now = (set(ids[t, layer].tolist()) for t in (token - 1, token))
                hits[layer] += [len(before & now), 0]
        hits[:, 1] = ids[:, 0].size
        ahead = hits[:, 0] / hits[:, 1]

        def cost(layer, slots, ahead=ahead):
            lost = [sum(e >= slots for e in chosen) for chosen in combinations(range(5), 2)]
            return np.mean([(j - ahead[layer]) * (j > 0) for j in lost])

        for slots in range(6, 15):
            found = shared("adap_moe", trace, slots)
            able = [q for q in product(range(2, 6), repeat=3) if sum(q) == slots]
            sums = [sum(cost(layer, quota) for layer, quota in enumerate(q)) for q in able]
            ours = sum(cost(layer, quota) for layer, quota in enumerate(found))
            assert ours == pytest.approx(min(sums)), f"seed {seed}, {slots} slots: {found}"


def test_hottest_counts_the_most_used_of_all():
    trace = made(4, num_layers=3, num_experts=6, top_k=1, prompt_length=1, batch=1)
    uses = np.zeros((3, 6))
    for row in trace.expert_ids:
        uses[range(3), row[:, 0]] += 1
    for slots in range(3, 18):
        order = sorted(np.ndindex(3, 6), key=lambda key: (-uses[key], key[0]))
        expected = np.ones(3, int)  # one at least
        for layer, expert in order:
            if expected.sum() == slots:
                break
            taken = sum(1 for key in order[: order.index((layer, expert)) + 1] if key[0] == layer)
            expected[layer] = max(expected[layer], taken)
        assert shared("hottest", trace, slots) == tuple(expected), f"{slots} slots"


def test_a_layer_that_uses_few_experts_gets_few_slots():
    few = synthetic(num_layers=2, num_experts=8, top_k=1, decode_length=64, seed=1)
    ids = few.expert_ids.copy()
    ids[:, 0] %= 2  # of the first layer, two experts are used
    trace = build_trace(ids, num_experts=8, step=few.step, request=few.request, phase=few.phase)
    for name in ("entropy", "entropy:effective=true", "miss_ratio_curve", "hottest"):
        first, second = shared(name, trace, 8)
        assert first < second, name
    assert shared("shallow", trace, 8)[0] > 4


def test_without_a_training_trace_the_run_is_skipped_and_says_so():
    trace = made(2)
    slots = trace.header.num_layers * 2
    options = {"evict": "lru", "scope": "layer", "capacity": str(slots), "allocate": "entropy"}
    with pytest.raises(SpecmdError, match="needs a training trace: allocate entropy"):
        simulate(trace, **options)
    run = simulate(trace, **options, training=made(2, seed=99))
    assert run.bounds.regret_misses >= 0


def test_quotas_that_are_none_are_refused(tmp_path):
    file = tmp_path / "greedy.py"
    file.write_text(
        'from specmd.policy import policy\n@policy("all_first", axis="allocate", source="test")\n'
        "class AllFirst:\n    @classmethod\n    def create(cls):\n        return cls()\n"
        "    def quotas(self, slots, world):\n        return [slots] + [0] * (world.num_layers - 1)"
    )
    found = add_plugin(file)
    try:
        trace = made(3, num_layers=3, num_experts=4, top_k=2)
        config = RunConfig(
            capacity="9",
            capacity_slots=9,
            scope="layer",
            allocate=choose("allocate", "all_first").spelled,
        )
        with pytest.raises(SpecmdError, match="all_first divides 9 slots among 3 layers"):
            pools_of(trace.header, config)
    finally:
        forget(found)
