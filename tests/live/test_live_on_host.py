"""Experts computed in host memory: tokens of the lossless run, decisions of a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_models import FAMILIES, build, generate, offload, prompt, resident, tiny

from specmd import simulate
from specmd.core import state as residency
from specmd.errors import SpecmdError
from specmd.live.commands import FETCH, HOST
from specmd.live.on_host import HostRows
from specmd.models.meta import load_without_experts
from specmd.policy.registry import entries
from specmd.runs.metrics import PART_COLUMN
from specmd.runs.resolve import grid
from specmd.simulation import walk
from specmd.simulation.replay import replay

WAYS: list[dict[str, Any]] = [
    {"miss": "host"},
    {"miss": "host:tokens=2", "prefetch": "next_gate", "schedule": "cancel"},
    {"miss": "host:tokens=99", "prefetch": "prev_token", "capacity": 9},
    {"miss": "host", "evict": "lfu", "scope": "layer", "admission": "bypass", "capacity": 9},
]


def live(model: Any, **options: Any) -> Any:
    given = {"capacity": 5, "interpreted": True, "canary": True, "log_routing": True} | options
    return offload(model, **given)


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tokens_of_the_lossless_run_and_decisions_of_a_simulation(
    family: str, options: dict[str, Any]
) -> None:
    model, inputs, own = build(family), prompt(3, 9), resident(family, rows=3, width=9)
    with live(model, deterministic=True, **options) as cache:
        found = generate(model, **inputs)
        report = cache.report()
    assert torch.equal(own[0], found[0])
    assert torch.equal(own[1], found[1])
    run = simulate(cache.trace, **({"capacity": 5} | options), bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    assert report.host_experts == run.metrics["host_experts"] > 0
    assert cache.commands_by_key[HOST].sum() == report.host_experts
    assert cache.commands_by_key[FETCH].sum() == report.misses - report.host_experts
    assert report.cpu_expert_s > 0
    seconds = cache.step_seconds[:, PART_COLUMN["cpu_expert"]]
    assert seconds.sum() == pytest.approx(report.cpu_expert_s)


def test_what_the_host_computes_moves_no_bytes_and_takes_no_slot() -> None:
    model = build("olmoe")
    with live(model, miss="host:tokens=99") as cache:
        generate(model)
        report = cache.report()
    assert report.misses == report.host_experts == report.accesses
    assert (report.moved_bytes, report.evictions) == (0, 0)
    assert not cache.counters[:, :, residency.TOKEN_HITS].any()


@pytest.mark.parametrize("prefill", ["bypass", "double_buffer"])
def test_other_ways_of_prefilling(prefill: str) -> None:
    model, inputs, own = build("mixtral"), prompt(2, 12), resident("mixtral", rows=2, width=12)
    with live(model, miss="host:tokens=3", prefill=prefill) as cache:
        found = generate(model, **inputs)
        assert torch.equal(own[1], found[1])
        assert cache.report().host_experts > 0


SPLITS = [entry.name for entry in entries("miss") if "rates" in entry.needs]


@pytest.mark.parametrize("rates", [(2.0, 1.0, 0.1, 0.0), (1.0, 4.0, 1.0, 0.0)])
@pytest.mark.parametrize("miss", [*SPLITS, "fiddler"])
def test_misses_shared_out_by_rates(
    miss: str, rates: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs, own = build("olmoe"), prompt(3, 9), resident("olmoe", rows=3, width=9)
    with live(model, miss=miss, rates=rates, deterministic=True) as cache:
        found = generate(model, **inputs)
        log, given = cache.trace, cache.commands_by_key.sum(axis=1)
    assert torch.equal(own[1], found[1])
    monkeypatch.setattr(walk, "rates", lambda *_: np.array(rates))
    run = simulate(log, capacity=5, miss=miss, profile="t4", bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    assert given[HOST] == run.metrics["host_experts"]
    assert given[HOST] > 0 or rates[0] < rates[1]  # the link is the faster one: it may have all
    assert given[FETCH] > 0 or miss == "fiddler"


def test_rates_are_measured_where_none_are_given() -> None:
    model = build("gpt_oss")
    for miss in SPLITS:
        with live(model, miss=miss) as cache:
            generate(model)
            assert (cache.rates[:2] > 0).all()
    with pytest.raises(SpecmdError, match="give 4 numbers"):
        live(model, miss=SPLITS[0], rates=(1.0, 2.0))


def test_compiled_and_started_over() -> None:
    inputs = prompt(1, 12, vocab=2048)
    options = {"capacity": 20, "miss": "host", "prefetch": "next_gate"}
    with live(tiny(), **options, interpreted=False, deterministic=True) as cache:
        own = generate(tiny(), 12, **inputs)
        digest = cache.decision_digest
        run = simulate(cache.trace, **options, bounds=False, interpreted=True)
        assert run.decision_digest == digest
        cache.restart()
        assert cache.report().cpu_expert_s == 0.0
        again = generate(tiny(), 12, **inputs)
        assert cache.decision_digest == digest
    assert torch.equal(own[1], again[1])


TIERS: list[dict[str, Any]] = [
    {"miss": "host", "capacity": 5, "host_capacity": 6},
    {"miss": "host:tokens=9", "capacity": 2, "host_capacity": 1},
    {"miss": "host:tokens=2", "capacity": 4, "host_capacity": 3, "prefetch": "next_gate:depth=2"},
    {"miss": "host", "capacity": 4, "host_capacity": 2, "host_evict": "s3fifo"},
]


@pytest.mark.parametrize("options", TIERS, ids=str)
def test_experts_that_are_read_from_a_disk_to_be_computed(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    build("olmoe").save_pretrained(tmp_path)
    model, own = load_without_experts(tmp_path), resident("olmoe", rows=2, width=9)
    for more in ({"deterministic": True}, {"chunk_bytes": 1500}):
        with live(model, checkpoint=tmp_path, timeout_s=20.0, **options, **more) as cache:
            found = generate(model, **prompt(2, 9))
            assert torch.equal(own[1], found[1])
            report = cache.report()
            assert report.host_experts > 0
            assert report.read_bytes > 0
            if "deterministic" in more:
                (config,) = grid(cache.trace, **options)
                outcome = replay(cache.trace, config, interpreted=True)
                assert cache.decision_digest == outcome.decision_digest
                assert cache.host_digest == outcome.host_digest


def test_a_checkpoint_read_where_it_lies(tmp_path: Path) -> None:
    build("gpt_oss").save_pretrained(tmp_path)
    model = load_without_experts(tmp_path)
    with live(model, checkpoint=tmp_path, capacity="100%"):
        own = generate(model)
    with live(model, checkpoint=tmp_path, miss="host") as cache:
        assert torch.equal(own[1], generate(model)[1])
        assert cache.report().host_experts > 0


@pytest.mark.parametrize("host_capacity", ["100%", 4])
def test_after_an_event_that_was_cut_short(
    tmp_path: Path, host_capacity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("olmoe").save_pretrained(tmp_path)
    model = load_without_experts(tmp_path)
    options = {"miss": "host", "host_capacity": host_capacity, "checkpoint": tmp_path}
    with live(model, deterministic=True, **options) as cache:
        own = generate(model)
        digest = cache.decision_digest
        with monkeypatch.context() as patched:
            patched.setattr(HostRows, "product", _fail)
            with pytest.raises(SpecmdError, match="by intent"):
                generate(model)
        assert torch.equal(own[1], generate(model)[1])
        cache.restart()
        assert torch.equal(own[1], generate(model)[1])
        assert cache.decision_digest == digest


def _fail(*_: Any) -> None:
    raise SpecmdError("by intent")
