"""Routing and miss handling in the core: every rule as its reference has it, in every engine."""

import numpy as np
import pytest
import reference_execution as plain
from relay import register_relay

from specmd.core import masses
from specmd.core import state as residency
from specmd.core.binding import Executing
from specmd.core.event import World
from specmd.core.instant_link import InstantLink
from specmd.core.kernel import Kernel
from specmd.core.state import CHANGED_ROWS, NUM_COUNTERS, ROWS
from specmd.policy.registry import choose, entries
from specmd.simulation.events import EventStream
from specmd.trace import DECODE, PREFILL, build_trace
from specmd.trace.training import training_rows

RATES = np.array([1.0, 0.6, 0.25, 0.01])
ROUTES = [
    *("none", "max_rank", "max_rank:always=2,ranks=4", "cumulative", "cumulative:mass=0.5"),
    *("cache_prior", "cache_prior:always=0,strength=0.7", "eras", "eras:bonus=0.4"),
    *("eras:rule=bias", "cecar", "cecar:keep=1", "adaptive_top_k", "adaptive_top_k:threshold=0.1"),
    *("top_k", "top_k:keep=1"),
]
MISSES = [
    *("overlap", "host", "host:tokens=2", "fiddler", "hybrimoe", "freetoken", "fetch_lowest_bit"),
    *("drop", "drop:factor=1", "hobbit", "hobbit:full=0.3,low=0.5", "drop_priority_cascade"),
    *(
        "drop_priority_cascade:full=0.1,low=0.3",
        "substitute",
        "substitution_score",
        "buddy",
        "buddy:buddies=1",
        "deferral",
        "deferral:deferred=1",
    ),
]
PAIRS = [("none", miss) for miss in MISSES] + [(route, "overlap") for route in ROUTES[1:]]
PAIRS += [
    ("max_rank", "substitute"),
    ("cache_prior", "drop_priority_cascade"),
    ("cecar", "fetch_lowest_bit"),
    ("max_rank", "deferral:deferred=1"),
]
COMBINED = [pytest.param(*pair, id="-".join(pair)) for pair in PAIRS]


def made(seed, *, tokens=None, over_chosen=True):
    """A small random trace with logits; steps of one to three tokens."""
    rng = np.random.default_rng(seed)
    layers, experts = int(rng.integers(1, 4)), int(rng.integers(4, 9))
    top_k, few = int(rng.integers(1, 4)), int(rng.integers(12, 30))
    tokens = tokens or few
    usual = rng.normal(size=(1, layers, experts)) * 1.5
    logits = (usual + rng.normal(size=(tokens, layers, experts))).astype(np.float16)
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(axis=-1, keepdims=True)
    ids = np.argsort(-logits.astype(np.float64), axis=-1, kind="stable")[..., :top_k]
    weights = np.take_along_axis(shares, ids, axis=-1)
    if over_chosen:
        weights /= weights.sum(axis=-1, keepdims=True)
    step = np.cumsum(rng.random(tokens) < rng.choice([0.4, 0.7, 1.0]))
    step = np.minimum.accumulate((step - step[0])[::-1])[::-1]
    for _ in range(tokens):  # at most three tokens a step
        crowded = np.flatnonzero(np.bincount(step) > 3)
        if not len(crowded):
            break
        step[np.flatnonzero(step == crowded[0])[3] :] += 1
    return build_trace(
        ids, num_experts=experts, weights=weights.astype(np.float16), logits=logits, step=step,
        phase=np.where(step < 3, PREFILL, DECODE),
    )  # fmt: skip


def kernel_of(trace, slots, route, miss, *, over_chosen, also=None, **how):
    header = trace.header
    router, misser = choose("route", route), choose("miss", miss)
    world = World.of(header, [slots], training=training_rows(trace), rates=RATES)
    executing = Executing(
        router=router if router.executes else None,
        misser=misser if misser.executes else None,
        tokens=3,
        has_rows=True,
        low_share=0.25,
        rule_renormalises=over_chosen,
        world_of=lambda _: world,
    )
    keys = header.num_layers * header.num_experts
    stream = EventStream(trace, choices=True)
    kernel = Kernel(
        world, choose("evict", "lru"), InstantLink.create(keys), execution=executing,
        also=also, **how,
    )  # fmt: skip
    kernel.run(stream.chunk(0, stream.num_steps))
    return kernel


def reference_of(trace, slots, route, miss, *, over_chosen):
    header = trace.header
    layers, experts, top_k = header.num_layers, header.num_experts, header.top_k
    state = choose("miss", miss)
    near = {}
    if miss.startswith(("buddy", "substitution_score")):
        world = World.of(header, [slots], training=training_rows(trace))
        table = state.create(world).near.reshape(layers * experts, experts)
        near = {(k, e): table[k, e] for k in range(len(table)) for e in range(experts)}
    cache = plain.Cache(
        slots, layers, experts, top_k, route, miss,
        rule=over_chosen, scales=state.renormalises, near=near, rates=RATES,
    )  # fmt: skip
    clock = 0
    for step in range(trace.num_steps):
        inside = np.flatnonzero(trace.step == step)
        cache.miss.prefill = trace.phase[inside[0]] == PREFILL
        for layer in range(layers):
            clock += 1
            tokens = [
                plain.Token(
                    [
                        (int(e), float(w))
                        for e, w in zip(
                            trace.expert_ids[t, layer], trace.weights[t, layer], strict=True
                        )
                    ],
                    trace.logits[t, layer].astype(float).tolist(),
                )
                for t in inside
            ]
            cache.serve(tokens, layer, clock)
    return cache


@pytest.mark.parametrize(("route", "miss"), COMBINED)
@pytest.mark.parametrize("over_chosen", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_every_rule_decides_as_its_reference(route, miss, seed, over_chosen):
    trace = made(seed, over_chosen=over_chosen)
    widest = max(
        len(np.unique(trace.expert_ids[trace.step == s, layer]))
        for s in range(trace.num_steps)
        for layer in range(trace.header.num_layers)
    )
    slots = min(
        max(widest, 3 * trace.header.top_k) + 1, trace.header.num_layers * trace.header.num_experts
    )
    log, rows = [], []

    def tell(core, entry, key):
        log.append((entry, int(key)))

    def finish(execution, token):
        masses.finish_row(execution, token)
        own = slice(token * execution.rows.top_k, (token + 1) * execution.rows.top_k)
        ids, weights = execution.rows.ids[own], execution.rows.weights[own]
        rows.append({e: w for e, w in zip(ids, weights, strict=True) if e >= 0})

    kernel = kernel_of(
        trace, slots, route, miss, over_chosen=over_chosen, interpreted=True,
        also={residency.log: tell, masses.finish_row: finish},
    )  # fmt: skip
    expected = reference_of(trace, slots, route, miss, over_chosen=over_chosen)
    assert log == expected.log
    assert len(rows) == len(expected.rows)
    for row, other in zip(rows, expected.rows, strict=True):
        assert row == pytest.approx(other)
    whole, *parts = kernel.masses.sum(axis=(0, 1)).tolist()
    names = ("kept", "low", "substituted", "dropped")
    assert parts == pytest.approx([expected.mass[name] for name in names])
    assert (
        sum(parts) == pytest.approx(whole) == pytest.approx(float(trace.weights.sum(dtype=float)))
    )
    counters = kernel.counters.reshape(-1, NUM_COUNTERS).sum(axis=0)
    assert counters[CHANGED_ROWS] == expected.changed
    assert counters[ROWS] == trace.num_tokens * trace.header.num_layers


def test_compiled_as_interpreted(tmp_path):
    """All rules in one kernel, in turns."""
    route = register_relay("route", ROUTES[1:], tmp_path)
    miss = register_relay("miss", MISSES[1:], tmp_path)
    for over_chosen in (True, False):
        trace = made(4, tokens=400, over_chosen=over_chosen)
        header = trace.header
        assert trace.num_steps * header.num_layers > 20 * len(MISSES)
        slots = header.num_layers * header.num_experts // 3
        one, other = (
            kernel_of(trace, slots, route, miss, over_chosen=over_chosen, interpreted=interpreted)
            for interpreted in (True, False)
        )
        assert other.compiled
        assert one.digest == other.digest
        assert (one.counters == other.counters).all()
        assert (one.masses == other.masses).all()


def test_every_rule_is_compiled_and_has_a_reference():
    tried = {("route", each.partition(":")[0]) for each in ROUTES}
    tried |= {("miss", each.partition(":")[0]) for each in MISSES} | {("miss", "block")}
    own = {(e.axis, e.name) for e in entries() if e.axis in ("route", "miss")}
    assert tried == {each for each in own if choose(*each).entry.origin == "built-in"}
