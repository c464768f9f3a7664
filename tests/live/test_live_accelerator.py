"""The accelerator link on whatever device torch reports: results; skipped where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerator import here, live, marks, on_device
from live_models import FAMILIES, build, build_mixed, generate, prompt, tiny, weights_of

from specmd import simulate
from specmd.live import offload

pytestmark = marks

WAYS: list[dict[str, Any]] = [
    {"capacity": 3},
    {"capacity": 7, "prefetch": "next_gate", "miss": "block"},
    {"capacity": 9, "prefetch": "prev_token", "chunk_bytes": 700, "pinned_budget": 0},
    {"capacity": 9, "prefill": "double_buffer", "pinned_budget": 70_000},
]
ON_HOST: list[dict[str, Any]] = [
    {"capacity": 3, "miss": "host"},
    {"capacity": 7, "miss": "host:tokens=99", "prefetch": "next_gate", "pinned_budget": 0},
]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families(family: str) -> None:
    model = build(family)
    before, own = weights_of(model), generate(model, **prompt(1, 16))
    ids, logits, _ = live(model, capacity="100%")
    assert torch.equal(ids, own[0])
    assert (logits - own[1]).abs().max() <= 1e-4 * max(1.0, float(own[1].abs().max()))
    for options in WAYS:
        again, same_logits, _ = live(model, **options)
        assert torch.equal(again, ids)
        assert torch.equal(same_logits, logits)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("options", ON_HOST, ids=str)
def test_experts_computed_on_the_host(family: str, options: dict[str, Any]) -> None:
    model = build(family)
    ids, logits, _ = live(model, capacity="100%")
    again, found, cache = live(model, **options, deterministic=True, log_routing=True)
    assert torch.equal(again, ids)
    assert (logits - found).abs().max() <= 1e-4 * max(1.0, float(logits.abs().max()))
    report = cache.report()
    run = simulate(
        cache.trace, **{name: options[name] for name in options if name != "pinned_budget"},
        bounds=False, interpreted=True,
    )  # fmt: skip
    assert cache.decision_digest == run.decision_digest
    assert report.host_experts == run.metrics["host_experts"] > 0
    assert report.cpu_expert_s > 0


@pytest.mark.parametrize(
    "asked",
    [
        {"route": "max_rank", "prefetch": "next_gate"},
        {"miss": "drop_priority_cascade", "chunk_bytes": 700},
        {"miss": "fetch_lowest_bit", "pinned_budget": 0},
        {"miss": "substitute", "prefetch": "prev_token"},
        {"miss": "deferral"},
        {"miss": "deferral:deferred=1", "pinned_budget": 0},
    ],
    ids=str,
)
def test_what_is_executed_is_what_the_host_would_execute(asked: dict[str, Any]) -> None:
    inputs = prompt(2, 12)
    for family in ("olmoe", "gpt_oss"):
        model, given = build(family), {"capacity": 9, "deterministic": True, "log_routing": True}
        with offload(model, link="cpu", interpreted=True, **given, **asked) as cache:
            _, own = generate(model, 6, **inputs)
        _, logits, there = live(model, 6, inputs, **given, **asked)
        assert there.decision_digest == cache.decision_digest
        assert (logits - own).abs().max() <= 1e-4 * max(1.0, float(own.abs().max()))
        named = {
            name: asked[name] for name in asked if name not in ("chunk_bytes", "pinned_budget")
        }
        run = simulate(there.trace, capacity=9, **named, bounds=False, interpreted=True)
        assert there.decision_digest == run.decision_digest


def test_layers_of_experts_of_several_sizes() -> None:
    model = build_mixed()
    own = generate(model, **prompt(1, 16))
    ids, logits, _ = live(model, capacity="100%")
    assert torch.equal(ids, own[0])
    for options in WAYS:
        again, same_logits, cache = live(model, **options, deterministic=True, log_routing=True)
        assert torch.equal(again, ids)
        assert torch.equal(same_logits, logits)
        if "prefill" not in options:
            asked = {name: options[name] for name in ("capacity", "prefetch") if name in options}
            run = simulate(cache.trace, **asked, bounds=False)
            assert cache.decision_digest == run.decision_digest


def test_the_model_itself_on_the_device() -> None:
    model, inputs = build("mixtral"), prompt(1, 16)
    _, logits, _ = live(model, capacity=4)
    model.set_experts_implementation("eager")
    with torch.no_grad():
        own = model.to(here())(**on_device(**inputs)).logits[:, -1].cpu()
    assert (logits[0] - own).abs().max() <= 1e-5 * max(1.0, float(own.abs().max()))


@pytest.mark.parametrize("prefill", ["waves", "bypass", "double_buffer"])
@pytest.mark.parametrize("pinned_budget", [None, 70_000, 0])
def test_a_padded_batch(prefill: str, pinned_budget: int | None) -> None:
    model, inputs = build("olmoe"), prompt(8, 24)
    resident = live(model, inputs=inputs, capacity="100%")
    options: dict[str, Any] = {"prefill": prefill, "pinned_budget": pinned_budget}
    for capacity, prefetch in ((3, "none"), (10, "next_gate:depth=2,width=4")):
        ids, logits, cache = live(
            model, inputs=inputs, capacity=capacity, prefetch=prefetch, chunk_bytes=1500, **options
        )
        assert torch.equal(ids, resident[0])
        assert torch.equal(logits, resident[1])
        share = cache.report().pinned_share
        assert share == {None: 1.0, 0: 0.0}.get(pinned_budget, share)
        assert pinned_budget != 70_000 or 0 < share < 1


@pytest.mark.parametrize("schedule", ["guard", "fifo"])
@pytest.mark.parametrize("evict", ["lru", "least_stale", "lfu"])
@pytest.mark.parametrize("prefetch", ["none", "prev_token", "next_gate:depth=2,width=6"])
def test_decisions_are_those_of_the_host_and_of_a_simulation(
    evict: str, prefetch: str, schedule: str
) -> None:
    inputs = prompt(1, 12, vocab=2048)
    options: dict[str, Any] = {"evict": evict, "prefetch": prefetch, "schedule": schedule}
    options["capacity"] = 20
    ids, _, cache = live(tiny(), 12, inputs, **options, deterministic=True, log_routing=True)
    run = simulate(cache.trace, **options, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    assert cache.report().misses == run.metrics["misses"]
    with offload(tiny(), link="cpu", **options, deterministic=True, interpreted=True) as host:
        on_host, _ = generate(tiny(), 12, **inputs)
    assert torch.equal(on_host, ids)
    assert host.decision_digest == cache.decision_digest


def test_the_compiled_core() -> None:
    inputs = prompt(2, 12, vocab=2048)
    options: dict[str, Any] = {"evict": "lru", "prefetch": "next_gate", "capacity": 20}
    options |= {"deterministic": True, "log_routing": True, "schedule": "guard"}
    compiled = live(tiny(), 12, inputs, interpreted=False, **options)
    plain = live(tiny(), 12, inputs, **options)
    assert torch.equal(compiled[1], plain[1])
    assert compiled[2].decision_digest == plain[2].decision_digest


def test_stalls_of_a_slow_link() -> None:
    model, inputs = build("olmoe"), prompt(1, 4)
    latency_s = 0.02
    with offload(
        model, link="accelerator", capacity=6, miss="block", throttle=(1e9, latency_s)
    ) as cache:
        with torch.no_grad():
            model(**on_device(**inputs))
        report = cache.report()
    # Nothing is computed before all of a layer's experts have come, one latency after the other;
    # half of that leaves room for a copy that began a moment before it was waited for.
    assert report.misses > 5
    assert report.demand_stall_s >= 0.5 * report.misses * latency_s
    assert report.late_stall_s == 0.0


def test_no_wait_for_the_whole_device_in_the_layer_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("olmoe")
    with offload(model, link="accelerator", capacity=6, interpreted=True):
        monkeypatch.setattr(torch.accelerator, "synchronize", lambda *_: pytest.fail("waited"))
        generate(model, **on_device(**prompt(1, 8)))
        monkeypatch.undo()
