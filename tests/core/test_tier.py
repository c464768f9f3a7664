"""A tier decides alike in every engine, and by the same lines as a cache of single accesses."""

import numpy as np
import pytest
from test_engines_agree import FAST_LINK, SLOW_LINK, made

from specmd.core import state as residency
from specmd.policy import registry
from specmd.runs.counters import check_host
from specmd.runs.options import RunConfig
from specmd.simulation.replay import replay
from specmd.trace import build_trace

# FAST_LINK has an infinitely fast disk, too.
SLOW_DISK = SLOW_LINK._replace(disk_latency_s=3e-5, disk_s_per_byte=5e-10)
OPTIONS = (
    {},
    {"prefetch": "oracle:depth=3,recall=0.7,extra=2", "schedule": "guard"},
    {"prefetch": "random:depth=3,width=3", "schedule": "cancel", "slots": 6},
    {"prefetch": "next_gate:depth=2", "schedule": "priority", "admission": "bypass"},
    {"slots": 3, "prefetch": "random:width=3", "scope": "global"},
    {"reset": "request", "prefetch": "prev_token:depth=2"},
    {"warmup": 5, "prefetch": "prev_token"},
)


def config(evict="lru", slots=13, host=9, host_evict="lru", **more):
    host_tier = {"host_capacity": str(host), "host_slots": host, "host_evict": host_evict}
    return RunConfig(evict=evict, capacity=str(slots), capacity_slots=slots, **host_tier, **more)


def same(one, other, counted=True):
    assert one.decision_digest == other.decision_digest
    assert one.host_digest == other.host_digest
    assert (one.counters == other.counters).all()
    assert not counted or (one.host_counters == other.host_counters).all()


def able():
    """Policies that a tier may have."""
    return [e.name for e in registry.entries("evict") if not e.needs and not e.frozen]


@pytest.mark.parametrize("host_evict", able())
def test_an_infinitely_fast_chain_decides_like_none(host_evict):
    trace = made()
    for options in OPTIONS:
        chosen = config(host_evict=host_evict, **options)
        runs = [replay(trace, chosen, interpreted=True, costs=c) for c in (None, FAST_LINK)]
        # Without a clock, what is queued when the warm-up ends has asked the host before.
        same(*runs, counted="warmup" not in options)


def test_interpreted_is_compiled():
    # One kernel, with a clock: the options are values in it.
    trace, ahead = made(), {"prefetch": "oracle:depth=3,recall=0.7,extra=2"}
    for options in ({}, ahead | {"schedule": "guard"}, ahead | {"schedule": "cancel", "slots": 6}):
        chosen = config("least_stale", host_evict="fifo", **options)
        compiled, interpreted = (
            replay(trace, chosen, costs=SLOW_DISK, interpreted=each, compiled=not each)
            for each in (False, True)
        )
        same(compiled, interpreted)
        assert compiled.step_seconds.tobytes() == interpreted.step_seconds.tobytes()
        assert compiled.disk_busy_s == interpreted.disk_busy_s > 0


@pytest.mark.parametrize("evict", ["lru", "lfu"])
@pytest.mark.parametrize("host_evict", ["lru", "lfu", "s3fifo"])
def test_the_policies_of_device_and_host_are_not_mixed_up(evict, host_evict):
    trace = made(prompt_length=0, batch=1)
    chosen = config(evict, host_evict=host_evict)
    outcome = replay(trace, chosen, interpreted=True)
    plain = chosen.model_copy(update={"host_slots": None})
    assert outcome.decision_digest == replay(trace, plain, interpreted=True).decision_digest
    swapped = config(host_evict, host_evict=evict)
    assert (replay(trace, swapped, interpreted=True).host_digest == outcome.host_digest) == (
        evict == host_evict
    )


def test_a_device_of_no_use_leaves_the_host_all_accesses():
    # One layer, one expert a step, one slot that always holds another: the host sees the trace.
    ids = np.random.default_rng(0).permuted(np.tile(np.arange(6), (40, 1)), axis=1).reshape(-1)
    ids = ids[np.append(True, ids[1:] != ids[:-1])]
    trace = build_trace(ids[:, None, None], num_experts=6)
    outcome = replay(trace, config("lru", slots=1, host=3, host_evict="lfu"), interpreted=True)
    alone = RunConfig(evict="lfu", capacity="3", capacity_slots=3)
    expected = replay(trace, alone, interpreted=True)
    assert outcome.host_digest == expected.decision_digest
    assert (outcome.host_counters == expected.counters).all()


@pytest.mark.parametrize("prefetch", ["none", "random:depth=3,width=3"])
def test_the_host_is_asked_once_a_transfer(prefetch):
    trace = made()
    for schedule in ("fifo", "cancel"):
        for costs in (None, FAST_LINK, SLOW_DISK):
            chosen = config(slots=7, prefetch=prefetch, schedule=schedule)
            outcome = replay(trace, chosen, interpreted=True, costs=costs)
            check_host(outcome.counters, outcome.host_counters)
            assert outcome.host_counters[..., residency.ACCESSES].sum() > 0


def test_without_a_tier_nothing_is_counted_behind_the_link():
    outcome = replay(made(), RunConfig(capacity="9", capacity_slots=9), interpreted=True)
    assert (outcome.host_counters, outcome.host_digest, outcome.disk_busy_s) == (None, "", None)


def test_a_host_of_all_experts_reads_each_once():
    trace = made()
    outcome = replay(trace, config(slots=4, host=32), interpreted=True)
    total = outcome.host_counters.sum(axis=(0, 1))
    assert total[residency.COMPULSORY_MISSES] == len(
        np.unique(trace.expert_ids + 8 * np.arange(4)[:, None])
    )
    assert total[residency.EVICTIONS] == total[residency.CAPACITY_MISSES] == 0
