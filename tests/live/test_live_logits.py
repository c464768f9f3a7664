"""Logits do not depend on policy, capacity, or order of arrival; the model is left as it was."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import torch
from live_models import FAMILIES, build, generate, offload, prompt, resident, tiny, weights_of

from specmd.live.service import Residence
from specmd.live.transfers import Mover
from specmd.models.moe import find_moe


def same(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def random_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both threads pause now and then."""
    chance = random.Random(3)
    move, compute = Mover._move, Residence._locate

    def slow_move(self: Mover, *args: Any) -> int:
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.002)
        return move(self, *args)

    def slow_compute(self: Residence, *args: Any) -> Any:
        if chance.random() < 0.2:
            time.sleep(chance.random() * 0.002)
        return compute(self, *args)

    monkeypatch.setattr(Mover, "_move", slow_move)
    monkeypatch.setattr(Residence, "_locate", slow_compute)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families(family: str) -> None:
    model = build(family)
    before, own = weights_of(model), generate(model)
    layers = len(find_moe(model).layers)
    with offload(model, capacity="100%", canary=True, interpreted=True) as cache:
        whole = generate(model)
    assert torch.equal(whole[0], own[0])
    assert (whole[1] - own[1]).abs().max() <= 1e-5 * max(1.0, float(own[1].abs().max()))
    assert cache.report().misses <= layers * 8
    for capacity, prefetch in ((3, "none"), (7, "next_gate"), (layers * 8 - 1, "prev_token")):
        with offload(
            model, capacity=capacity, prefetch=prefetch, interpreted=True, canary=True
        ) as cache:
            assert same(generate(model), whole)
        assert cache.report().misses > 0
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert same(generate(model), own)


@pytest.mark.parametrize("miss", ["overlap", "block"])
@pytest.mark.parametrize("schedule", ["fifo", "priority", "cancel", "guard"])
def test_schedules_under_random_delays(random_delays: None, schedule: str, miss: str) -> None:
    model, inputs = build("olmoe"), prompt(2, 9)
    with offload(
        model,
        evict="lru",
        prefetch="next_gate:depth=2,width=4",
        schedule=schedule,
        miss=miss,
        capacity=7,
        chunk_bytes=1000,
        throttle=(40e6, 50e-6),
        interpreted=True,
        canary=True,
    ) as cache:
        assert same(generate(model, 10, **inputs), resident("olmoe", 10, 2, 9))
    report = cache.report()
    assert report.prefetches_issued > 0
    assert report.accesses == report.hits + report.late_hits + report.misses


@pytest.mark.parametrize("capacity", [1, 3, 4, 7, 8, 24])
@pytest.mark.parametrize("rows", [1, 8])
def test_capacities_and_batches(capacity: int, rows: int) -> None:
    """C from below top-k, over K and |U| - 1, to E and beyond."""
    model, inputs = build("olmoe"), prompt(rows, 16)
    for staging in (1, 3):
        with offload(
            model,
            capacity=capacity,
            prefetch="prev_token",
            interpreted=True,
            canary=True,
            staging_slots=staging,
        ) as cache:
            assert same(generate(model, 6, **inputs), resident("olmoe", 6, rows, 16))
    report = cache.report()
    assert report.slot_bytes == (capacity + 3) * cache._layouts.largest_bytes


def test_a_wide_event_copies_each_missing_expert_once() -> None:
    model, inputs = build("mixtral"), prompt(1, 64)
    with offload(model, capacity=2, interpreted=True, deterministic=True) as cache, torch.no_grad():
        model(**inputs)
    report = cache.report()
    assert report.moved_bytes == report.misses * cache._layouts.largest_bytes
    assert report.misses == report.accesses > 3 * 2


def test_two_models_at_once() -> None:
    first, second = build("olmoe"), build("olmoe", seed=1)
    second.config = first.config  # built from one configuration, as copies are
    own = generate(first), generate(second)
    with offload(first, capacity=5, interpreted=True, link="cpu"):
        assert torch.equal(generate(second)[0], own[1][0])
        with offload(second, capacity=9, interpreted=True):
            assert torch.equal(generate(first)[0], own[0][0])
            assert torch.equal(generate(second)[0], own[1][0])
        assert torch.equal(generate(first)[0], own[0][0])
    assert same(generate(first), own[0])
    assert same(generate(second), own[1])


def test_bfloat16_is_bitwise_too() -> None:
    model = build("olmoe").to(torch.bfloat16)
    with offload(model, capacity="100%", interpreted=True):
        whole = generate(model)
    with offload(model, capacity=4, prefetch="next_gate", interpreted=True):
        assert same(generate(model), whole)


def test_the_shipped_model_on_all_cores_but_one() -> None:
    model, inputs = tiny(), prompt(1, 12, vocab=2048)
    own = generate(model, 12, **inputs)
    with offload(model, capacity="10%", prefetch="next_gate", interpreted=True) as cache:
        live = generate(model, 12, **inputs)
    assert torch.equal(own[0], live[0])
    assert (own[1] - live[1]).abs().max() < 1e-5
    assert cache.report().hits > 0


@pytest.mark.parametrize("prefill", ["waves", "bypass", "double_buffer"])
def test_prefill_strategies(random_delays: None, prefill: str) -> None:
    model, inputs = build("olmoe"), prompt(2, 40)
    whole = resident("olmoe", 6, 2, 40)
    with offload(
        model,
        evict="lru",
        prefetch="next_gate",
        capacity=6,
        prefill=prefill,
        throttle=(40e6, 50e-6),
        interpreted=True,
        canary=True,
    ) as cache:
        assert same(generate(model, 6, **inputs), whole)
        assert same(generate(model, 6, **inputs), whole)
    assert cache.report().misses > 0


def test_bypass_keeps_the_working_set_of_the_decode() -> None:
    model, short, long = build("olmoe"), prompt(1, 1), prompt(1, 64)
    held: dict[str, set[int]] = {}
    with torch.no_grad():
        for prefill in ("waves", "bypass"):
            with offload(model, "lru", capacity=6, prefill=prefill, interpreted=True) as cache:
                model(**short)
                before = set(cache._decisions.core.key_in)
                model(**long)
                held[prefill] = before & set(cache._decisions.core.key_in)
    assert held["bypass"] == before
    assert len(held["waves"]) < len(before)


def test_a_throttled_link_is_as_slow_as_asked() -> None:
    model = build("olmoe")
    with offload(model, capacity=3, throttle=(2e6, 1e-3), interpreted=True) as cache:
        generate(model, 6)
    report = cache.report()
    blob = cache._layouts.largest_bytes
    asked = blob / (1e-3 + blob / 2e6)
    assert report.link_bytes_per_s is not None
    assert 0.5 * asked < report.link_bytes_per_s < 1.1 * asked
    assert report.demand_stall_s > 0.5 * report.busy_s
