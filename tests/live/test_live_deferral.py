"""Experts put off to the next layer, live: as a plain model adds them, and what may fail."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_models import FAMILIES, build, generate, offload, prompt
from test_live_emulated import emulated  # noqa: F401 - a fixture

from specmd import simulate
from specmd.core.state import DEFERRED, HOST_EXPERTS, READY
from specmd.errors import SpecmdError
from specmd.live import deferral
from specmd.live.commands import DEFER, FETCH, HOST
from specmd.live.experts import matrix_product, normed
from specmd.live.layer import Engine
from specmd.measurement.quality import answers, quality
from specmd.models.generation import Generation
from specmd.models.layout import expert_tensors
from specmd.models.meta import load_without_experts
from specmd.models.moe import find_moe
from specmd.models.prompts import Prompt
from specmd.runs.metrics import PART_COLUMN
from specmd.runs.resolve import grid
from specmd.simulation.replay import replay

TOP_K = 3
WAYS: list[dict[str, Any]] = [
    {"miss": "deferral", "capacity": 9},
    {"miss": "deferral:deferred=1", "capacity": 12, "prefetch": "next_gate", "schedule": "cancel"},
    {"miss": "deferral", "capacity": 5, "prefill": "double_buffer"},
]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def live(model: Any, **options: Any) -> Any:
    given = {"capacity": 9, "interpreted": True, "canary": True, "log_routing": True} | options
    return offload(model, **({"miss": "deferral"} | given))


class Plain:
    """A model's own experts in plain torch; in decode what is not `there` and light comes later."""

    def __init__(self, model: Any, there: set[int], deferred: int, rows: int) -> None:
        self.moe, self.there, self.rows = find_moe(model), there, rows
        self.at_once = max(1, TOP_K - deferred)
        self.owed: Any = 0.0
        self.added = 0
        for number, layer in enumerate(self.moe.layers):
            layer.experts.forward = self.layer(number, layer.experts)

    def layer(self, number: int, experts: Any) -> Any:
        weights_of = expert_tensors(experts)
        last = number == len(self.moe.layers) - 1

        def forward(hidden: Any, ids: Any, weights: Any) -> Any:
            order = weights.argsort(dim=-1, descending=True, stable=True)
            heavy = ids.gather(-1, order[:, : self.at_once]).unique().tolist()
            owed, total = torch.zeros_like(hidden), torch.zeros_like(hidden)
            for expert in ids.unique().tolist():
                tokens, places = (ids == expert).nonzero(as_tuple=True)
                own = {name: tensor[expert] for name, tensor in weights_of.items()}
                product = normed(experts, matrix_product(experts, own, hidden[tokens]))
                away = number * self.moe.num_experts + expert not in self.there
                decodes = len(hidden) == self.rows
                later = decodes and away and expert not in heavy and not last
                self.added += later
                sum_of = owed if later else total
                sum_of.index_add_(0, tokens, product * weights[tokens, places].unsqueeze(-1))
            total, self.owed = total + (self.owed if number else 0.0), owed
            return total

        return forward


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("deferred", [1, 2])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_plain_model_that_adds_them_one_layer_later(
    family: str, deferred: int, rows: int
) -> None:
    model, ids = build(family), torch.randint(3, 96, (rows, 9), generator=seeded(rows))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    asked = {"miss": f"deferral:deferred={deferred}", "capacity": 9}
    with live(model, **asked) as cache:
        tokens, logits = generate(model, **inputs)
        there = set(np.flatnonzero(np.asarray(cache._decisions.core.state) == READY).tolist())
        counted = int(cache.counters[..., DEFERRED].sum())
    lossless = generate(model, **inputs)[1]
    plain = Plain(model, there, deferred, rows)  # nothing enters or leaves but in the prefill
    own = generate(model, **inputs)
    assert plain.added == counted > 0
    assert torch.equal(tokens, own[0])
    assert (logits - own[1]).abs().max() <= 1e-4 * max(1.0, float(own[1].abs().max()))
    assert (logits - lossless).abs().max() > 1e-2  # and it matters


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_decisions_of_a_simulation_in_every_family(family: str, options: dict[str, Any]) -> None:
    model, inputs = build(family), prompt(3, 9)
    with live(model, deterministic=True, **options) as cache:
        found = generate(model, **inputs)
        report = cache.report()
        seconds = cache.step_seconds[:, PART_COLUMN["cpu_expert"]]
    given, counted = cache.commands_by_key.sum(axis=1), cache.counters.sum(axis=(0, 1))
    assert given[DEFER] == counted[DEFERRED] > 0
    assert given[HOST] + given[DEFER] == counted[HOST_EXPERTS] == report.host_experts
    assert seconds.sum() == pytest.approx(report.cpu_expert_s)
    assert report.cpu_expert_s > 0
    if "prefill" not in options:
        run = simulate(cache.trace, **options, bounds=False, interpreted=True)
        assert cache.decision_digest == run.decision_digest
        assert given[DEFER] == run.metrics["deferred"]
        assert given[FETCH] == run.metrics["misses"] - run.metrics["host_experts"]
    with live(model, **options, chunk_bytes=700) as again:  # whatever thread is the faster
        if "prefetch" not in options:
            assert torch.equal(generate(model, **inputs)[1], found[1])
            assert again.decision_digest == cache.decision_digest


def test_the_device_goes_on_while_the_host_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host is not done with a layer's before the device has begun the next layer."""
    begun, waited = threading.Condition(), []
    layers, queued = [0], []
    serve, product = Engine._serve, deferral.matrix_product
    put_off = deferral.Deferral.put_off

    def serving(self: Any, *given: Any) -> Any:
        with begun:
            layers[0] += 1
            begun.notify_all()
        return serve(self, *given)

    def queueing(self: Any, *given: Any) -> None:
        queued.append(layers[0])
        put_off(self, *given)

    def late(*given: Any) -> Any:
        own = queued.pop(0)
        with begun:
            waited.append(begun.wait_for(lambda: layers[0] > own, timeout=20))
        return product(*given)

    monkeypatch.setattr(Engine, "_serve", serving)
    model = build("olmoe")
    with live(model, miss="deferral:deferred=1") as cache:
        own = generate(model)
        cache.restart()
        monkeypatch.setattr(deferral.Deferral, "put_off", queueing)
        monkeypatch.setattr(deferral, "matrix_product", late)
        assert torch.equal(generate(model)[1], own[1])
    assert len(waited) > 5
    assert all(waited)


TIERS: list[dict[str, Any]] = [
    {"capacity": 6, "host_capacity": 6},
    {"capacity": 4, "host_capacity": 1},
    {"capacity": 4, "host_capacity": 2, "host_evict": "s3fifo", "prefetch": "next_gate"},
]


@pytest.mark.parametrize("options", TIERS, ids=str)
def test_experts_that_are_read_from_a_disk_for_the_next_layer(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    build("olmoe").save_pretrained(tmp_path)
    model = load_without_experts(tmp_path)
    found = []
    for more in ({"deterministic": True}, {"deterministic": True, "chunk_bytes": 1500}, {}):
        with live(model, checkpoint=tmp_path, timeout_s=20.0, **options, **more) as cache:
            found.append(generate(model, **prompt(2, 9))[1])
            assert cache.counters[..., DEFERRED].sum() > 0
            assert cache.report().read_bytes > 0
            if more:
                (config,) = grid(cache.trace, miss="deferral", **options)
                outcome = replay(cache.trace, config, interpreted=True)
                assert cache.decision_digest == outcome.decision_digest
                assert cache.host_digest == outcome.host_digest
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2]) or "prefetch" in options


@pytest.mark.parametrize("host_capacity", [None, 4])
def test_after_an_event_that_was_cut_short(
    tmp_path: Path, host_capacity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("olmoe").save_pretrained(tmp_path)
    model = load_without_experts(tmp_path)
    options = {} if host_capacity is None else {"host_capacity": host_capacity}
    with live(model, deterministic=True, checkpoint=tmp_path, **options) as cache:
        own = generate(model)
        digest = cache.decision_digest
        breaks = (
            (deferral, "matrix_product", _fail),  # on the host's thread
            (Engine, "_executed", _after(Engine._executed, 4)),  # with something put off
        )
        for place, name, broken in breaks:
            with monkeypatch.context() as patched:
                patched.setattr(place, name, broken)
                with pytest.raises(SpecmdError, match="by intent"):
                    generate(model)
            assert torch.equal(own[1][0], generate(model)[1][0])
            cache.restart()
            assert torch.equal(own[1], generate(model)[1])
            assert cache.decision_digest == digest


def _fail(*_: Any) -> None:
    raise SpecmdError("by intent")


def _after(does: Any, times: int) -> Any:
    left = [times]

    def failing(*given: Any) -> Any:
        left[0] -= 1
        return does(*given) if left[0] else _fail()

    return failing


@pytest.mark.parametrize("pinned_budget", [None, 0])
def test_on_an_emulated_accelerator(emulated: None, pinned_budget: int | None) -> None:  # noqa: F811
    model, inputs = build("gpt_oss"), prompt(2, 12)
    options: dict[str, Any] = {"capacity": 9, "miss": "deferral", "deterministic": True}
    with live(model, **options) as cache:
        own = generate(model, **inputs)
        digest = cache.decision_digest
    with live(model, link="accelerator", pinned_budget=pinned_budget, **options) as cache:
        assert torch.equal(generate(model, **inputs)[1], own[1])
    assert cache.decision_digest == digest
    assert cache.report().cpu_expert_s > 0


class Letters:
    """A tokenizer: one token a character."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(each) % 90 for each in text]}


def test_quality_falls_with_what_is_put_off() -> None:
    generation = Generation((Prompt("a text of some length, forced on it"),), max_new_tokens=5)
    found = []
    for options in ({"capacity": "100%"}, {"miss": "deferral:deferred=1"}, {"miss": "deferral"}):
        model = build("olmoe")
        with live(model, **options):
            found.append(answers(model, Letters(), generation))
    least, most = (quality(found[0], each)["quality_kl"] for each in found[1:])
    assert math.isfinite(most)
    assert 0 < least < most
