"""Layers whose experts differ in bytes: slots in size classes, and all bytes the true ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learned_files import others
from live_models import build_mixed, generate, offload, prompt, weights_of

from specmd import simulate
from specmd.core.state import (
    CAPACITY_MISSES,
    COMPULSORY_MISSES,
    LATE_HITS,
    PREFETCH_HITS,
    PREFETCH_WASTED,
)
from specmd.live.stores import store as stores
from specmd.live.stores.pinning import Pinned
from specmd.models.layout import read_layouts
from specmd.models.moe import find_moe
from specmd.recording import Recorder
from specmd.runs.counters import tally

TEXT = prompt(2, 12)
WIDE, NARROW = 3 * 16 * 32 * 4, 3 * 5 * 32 * 4  # bytes of an expert
SIZES = (WIDE, NARROW, WIDE, NARROW)
BLOBS = np.array((WIDE, 2048, WIDE, 2048))  # a narrow one is padded
AHEAD = {"prefetch": "next_gate:depth=2,width=4", "schedule": "guard"}
MISSES = range(COMPULSORY_MISSES, CAPACITY_MISSES + 1)
MOVES = (*MISSES, PREFETCH_HITS, LATE_HITS, PREFETCH_WASTED)


@pytest.fixture(scope="module")
def mixed() -> Any:
    """Shared: every test must leave it as it was."""
    return build_mixed()


@pytest.fixture(scope="module")
def recorded(mixed: Any) -> Any:
    with Recorder(mixed, lookahead=2) as recorder:
        generate(mixed, 10, **TEXT)
    return recorder.trace


def test_the_header_has_the_sizes_of_all_layers(recorded: Any) -> None:
    assert recorded.header.expert_bytes_by_layer == SIZES
    assert recorded.header.expert_bytes == (WIDE + NARROW) / 2
    assert recorded.header.shape["expert_bytes_by_layer"] == list(SIZES)


CASES = [
    ({"evict": "lru", "capacity": 12}, (6, 6)),
    ({"evict": "lru", "capacity": 11} | AHEAD, (6, 5)),
    ({"evict": "lru", "capacity": 3} | AHEAD, (2, 1)),  # waves, far wider than a class
    ({"evict": "lru", "capacity": 1}, (1, 0)),  # no slot for the wide ones
    ({"evict": "arc", "capacity": 1}, (1, 0)),
    ({"evict": "least_stale", "capacity": "50%"} | AHEAD, (8, 8)),
    ({"evict": "lru", "capacity": 14, "scope": "layer"} | AHEAD, (4, 4, 3, 3)),
    ({"evict": "lfu", "capacity": "40KB"} | AHEAD, (5, 4)),
    ({"evict": "static", "capacity": 12, "admission": "bypass"}, (6, 6)),
]
# A kernel takes seconds to compile: compiled is LRU, at all sizes of slots and pools.
WAYS = [(*case, True) for case in CASES]
WAYS += [(*case, False) for case in CASES if case[0]["evict"] == "lru"]


@pytest.mark.parametrize(("options", "slots", "interpreted"), WAYS)
def test_decisions_and_bytes_are_those_of_the_simulation(
    mixed: Any, recorded: Any, options: Any, slots: tuple[int, ...], interpreted: bool
) -> None:
    known = {"training": others(recorded)}
    how = {"deterministic": True, "log_routing": True, "canary": True, "interpreted": interpreted}
    with offload(mixed, **options, **known, **how) as cache:
        before = cache.report().moved_bytes
        generate(mixed, 10, **TEXT)
    report, trace = cache.report(), cache.trace
    assert trace.header.expert_bytes_by_layer == SIZES
    run = simulate(trace, **options, **known, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    rows = cache.final_counters.sum(axis=0)
    counted = tally(rows, trace.header.layer_bytes, trace.num_tokens)
    assert counted == {name: run.metrics[name] for name in counted}
    assert report.moved_bytes - before == rows[:, MOVES].sum(axis=1) @ BLOBS
    assert tuple(cache._world.capacity) == slots
    sizes = SIZES if len(slots) == 4 else (NARROW, WIDE)
    assert run.regime.slots_bytes == np.array(slots) @ sizes
    blobs = BLOBS if len(slots) == 4 else BLOBS[[1, 0]]
    assert report.slot_bytes == np.array(slots) @ blobs + 2 * WIDE  # with staging


@pytest.mark.parametrize(
    "options",
    [
        {"capacity": 3},
        {"capacity": 9, "prefetch": "prev_token", "chunk_bytes": 700},
        {"capacity": "2/layer", "scope": "layer", "prefetch": "next_gate"},
        {"capacity": 12, "prefill": "bypass"},
        {"capacity": 12, "prefill": "double_buffer", "prefetch": "next_gate"},
        {"capacity": 12, "throttle": (40e6, 50e-6), "miss": "block"} | AHEAD,
    ],
)
@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
def test_logits_are_those_of_the_resident_model(family: str, options: dict[str, Any]) -> None:
    model = build_mixed(family)
    before, own = weights_of(model), generate(model, **TEXT)
    with offload(model, capacity="100%", interpreted=True):
        resident = generate(model, **TEXT)
    assert torch.equal(resident[0], own[0])
    assert (resident[1] - own[1]).abs().max() <= 1e-5 * max(1.0, float(own[1].abs().max()))
    with offload(model, **options, interpreted=True, canary=True) as cache:
        ids, logits = generate(model, **TEXT)
    assert cache.report().misses > 0
    assert torch.equal(ids, resident[0])
    assert torch.equal(logits, resident[1])
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize(("width", "pools"), [(16, 2), (32, 1)])
def test_types_differ_by_layer(width: int, pools: int) -> None:
    """Of half the size, and, twice as wide, of the same: then one pool holds both layouts."""
    model = build_mixed(width=width, dtype=torch.bfloat16)
    own = generate(model, **TEXT)
    with offload(model, capacity="100%", interpreted=True) as cache:
        resident = generate(model, **TEXT)
    assert cache._world.pools == pools
    assert torch.equal(resident[0], own[0])
    assert (resident[1] - own[1]).abs().max() <= 0.02 * float(own[1].abs().max())
    options = {"capacity": 6, "prefetch": "next_gate", "schedule": "fifo"}
    with offload(
        model, **options, deterministic=True, log_routing=True, canary=True, interpreted=True
    ) as cache:
        ids, logits = generate(model, **TEXT)
    assert torch.equal(ids, resident[0])
    assert torch.equal(logits, resident[1])
    run = simulate(cache.trace, **options, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest


def test_experts_from_their_checkpoint(mixed: Any, tmp_path: Path) -> None:
    mixed.save_pretrained(tmp_path)
    with offload(mixed, capacity=7, interpreted=True):
        expected = generate(mixed)
    with offload(mixed, capacity=7, interpreted=True, checkpoint=tmp_path, canary=True) as cache:
        found = generate(mixed)
    assert torch.equal(expected[1], found[1])
    assert cache.report().store_bytes == 8 * BLOBS.sum()


def test_what_is_pinned_is_counted_in_true_bytes(
    mixed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "locked_size", lambda size: size)
    pin = partial(Pinned, locked_bytes=1, release=lambda: None)
    layouts = read_layouts(find_moe(mixed))
    store = stores.HostStore(layouts, pinned_budget_bytes=8 * (WIDE + 2048) + 1, pin=pin)
    for layer in find_moe(mixed).layers:
        store.take_layer(layer.experts)
    assert [store.is_pinned(8 * layer) for layer in range(4)] == [True] * 4
    assert store.pinned_bytes == 8 * BLOBS.sum()
    for key in (0, 9, 31):
        own = dict(find_moe(mixed).layers[key // 8].experts.named_parameters())
        for name, tensor in layouts.of(key).views(store.blob(key)).items():
            assert torch.equal(tensor, own[name][key % 8])
