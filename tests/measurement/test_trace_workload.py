"""What is played: batches, KV caches, bytes; and that it stays within its memory."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_shapes import EXPERTS, LAYERS, TABLES, mixed, offload, shipped, small_shape

from specmd import simulate
from specmd.errors import SpecmdError
from specmd.hardware import memory
from specmd.hardware.shape import load_shape
from specmd.live.stores import store as stores
from specmd.live.stores.pinning import Pinned
from specmd.live.stores.random import RandomStore
from specmd.measurement.batches import batches, in_rows
from specmd.measurement.trace_workload import PlayedStep, TraceWorkload
from specmd.trace import DECODE, PREFILL, Trace, build_trace, slice_layers
from specmd.trace.contexts import step_loads

MOVES = ("demand", "prefetch_useful", "prefetch_wasted")


def of_steps(step: list[int], request: list[int], phase: list[int], **more: Any) -> Trace:
    ids = np.arange(len(step))[:, None, None] % 12 + np.zeros((1, LAYERS, 1), int) + np.arange(4)
    return build_trace(ids, num_experts=EXPERTS, step=step, request=request, phase=phase, **more)


def block(workload: TraceWorkload, **options: Any) -> Any:
    given = {"evict": "lru", "capacity": 24, "store": workload.store(), "deterministic": True}
    given |= {"interpreted": True}
    return offload(workload.model, **{**given, **options}, routing=workload.routing)


# Batches.


def test_a_mixed_step_is_a_rectangle() -> None:
    trace = of_steps(
        [0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [PREFILL, PREFILL, DECODE, *[PREFILL] * 3]
    )
    first, second = batches(trace)
    assert (first.rows, first.columns, first.cached, first.ragged) == (1, 2, 0, False)
    assert (second.rows, second.columns, second.cached, second.ragged) == (2, 3, 2, True)
    assert second.phase == PREFILL
    assert second.place().tolist() == [2, 3, 4, 5]
    assert second.mask().tolist() == [[1, 1, 0, 0, 1], [0, 0, 1, 1, 1]]
    assert second.positions().tolist() == [[0, 1, 2], [0, 1, 2]]


def test_a_prompt_that_was_not_recorded_is_context() -> None:
    trace = of_steps([0, 0, 1], [0, 1, 0], [DECODE] * 3, prompt_lengths=[7, -1])
    first, second = batches(trace)
    assert first.context.tolist() == [7, 0]
    assert second.context.tolist() == [8]
    assert second.positions().tolist() == [[8]]


@pytest.mark.parametrize("interleaved", [False, True])
def test_loads_are_those_of_the_simulator(interleaved: bool) -> None:

    trace = in_rows(mixed(interleaved=interleaved))
    tokens, _, kv, logits = step_loads(trace)
    steps = list(batches(trace))
    assert [b.tokens for b in steps] == tokens.tolist()
    assert [float((b.context + b.new).sum()) for b in steps] == kv.tolist()
    assert [b.rows for b in steps] == logits.tolist()
    assert [b.first for b in steps] == trace.step_starts[:-1].tolist()


def test_order_within_steps() -> None:
    ordered = mixed()
    assert in_rows(ordered) is ordered
    shuffled = mixed(interleaved=True)
    rows = in_rows(shuffled)
    assert (rows.step == shuffled.step).all()
    for batch in batches(rows):
        mine = slice(batch.first, batch.first + batch.tokens)
        before, after = shuffled.request[mine], rows.request[mine]
        assert list(dict.fromkeys(before.tolist())) == batch.requests.tolist()
        for request in batch.requests:
            kept = shuffled.expert_ids[mine][before == request]
            assert (rows.expert_ids[mine][after == request] == kept).all()


# Playing.


@pytest.mark.parametrize("family", TABLES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_no_family_makes_a_nan(family: str, dtype: str) -> None:
    workload = TraceWorkload(mixed(), small_shape(family), dtype=dtype)
    seen: list[bool] = []
    workload.model.lm_head.register_forward_hook(
        lambda _m, _a, logits: seen.append(bool(logits.isfinite().all()))
    )
    with block(workload, canary=True):
        workload.play()
    assert len(seen) == workload.trace.num_steps
    assert all(seen)


@pytest.mark.parametrize("family", TABLES)
def test_neighbours_and_padding_change_nothing(family: str) -> None:
    """Prompts of 5 and 2 tokens in one step, and each alone."""
    alone = of_steps([0] * 5 + [1] * 2, [0] * 5 + [1] * 2, [PREFILL] * 7, token_ids=range(7))
    together = of_steps([0] * 7, [0] * 5 + [1] * 2, [PREFILL] * 7, token_ids=range(7))
    found = []
    for trace in (alone, together):
        workload = TraceWorkload(trace, small_shape(family), dtype="float32")
        logits: list[torch.Tensor] = []
        workload.model.lm_head.register_forward_hook(lambda _m, _a, out, to=logits: to.append(out))
        with block(workload):
            workload.play()
        found.append(torch.cat(logits))
    assert torch.allclose(*found, atol=1e-5)
    assert not torch.allclose(found[0][0], found[0][1], atol=1e-3)


@pytest.mark.parametrize("family", TABLES)
def test_every_step_attends_to_its_context(family: str) -> None:
    trace = shipped("tiny-mixed-b8", 560)
    workload = TraceWorkload(trace, small_shape(family), layers=2)
    made, original = [], workload._context.cache

    def cache(rows: int, cached: int) -> Any:
        made.append(original(rows, cached))
        if cached:
            assert made[-1].get_seq_length() == cached
        return made[-1]

    workload._context.cache = cache  # type: ignore[method-assign]
    with block(workload):
        workload.play()
    for batch, kept in zip(workload.steps, made, strict=True):
        assert kept.get_seq_length() == batch.cached + batch.columns
        assert kept.layers[-1].keys.shape[0] == batch.rows


def test_memory_does_not_grow_over_steps() -> None:
    trace = shipped("tiny-math-b1", 170)
    workload = TraceWorkload(trace, small_shape(), dtype="float32")
    held: list[int] = []

    def measure(step: PlayedStep) -> None:
        if step.phase == PREFILL or step.number % 8:
            return
        gc.collect()
        # By type: to ask some objects of torch for their class is deprecated. What was there before
        # the first step is frozen: to look through it again and again takes most of the time.
        objects = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        tensors = [tensor for tensor in objects if not tensor.is_meta]
        held.append(sum({t.untyped_storage().data_ptr(): t.nbytes for t in tensors}.values()))

    with block(workload) as cache:
        gc.freeze()
        try:
            workload.play(measure)
        finally:
            gc.unfreeze()
        assert cache.report().slot_bytes == (24 + 2) * workload.layouts.largest_bytes
        assert cache.report().store_bytes == LAYERS * EXPERTS * workload.layouts.largest_bytes
    assert len(held) > 3
    assert max(held) - min(held) < 2000


def test_a_trace_can_be_played_again_and_the_model_used_between() -> None:
    workload = TraceWorkload(mixed(), small_shape(), dtype="float32")
    with block(workload, prefetch="next_gate", interpreted=False) as cache:
        workload.play()
        first = cache.decision_digest
        cache.restart()
        workload.play()
        assert cache.decision_digest == first
    with block(workload) as cache:
        workload.model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
        assert cache.report().events == 3 * LAYERS


def test_fewer_tokens_and_layers() -> None:
    workload = TraceWorkload(mixed(), small_shape(), layers=3, tokens=20)
    assert workload.trace.expert_ids.shape == (20, 3, 4)
    assert workload.trace.header.num_layers == 3
    lookahead = workload.trace.lookahead
    assert lookahead is not None
    assert np.isnan(lookahead[:, 1, 1]).all()
    assert np.isfinite(lookahead[:, 1, 0]).all()
    with block(workload, capacity="20%") as cache:
        steps = workload.play()
    assert sum(step.tokens for step in steps) == 20
    assert cache.report().events == 3 * len(steps)


def test_sizes_are_those_of_the_run() -> None:
    shape = small_shape()
    for dtype, size in (("bfloat16", 2), ("float32", 4)):
        workload = TraceWorkload(mixed(), shape, dtype=dtype)
        assert workload.layouts.of_layer[0].expert_bytes == 3 * 32 * 16 * size
        assert workload.trace.header.expert_bytes == workload.layouts.of_layer[0].expert_bytes
        assert workload.kv_bytes == 2 * 32 * size * LAYERS * max(
            b.rows * b.cached for b in workload.steps
        )


@pytest.mark.parametrize("family", TABLES)
def test_sizes_by_layer_are_those_of_the_trace(family: str) -> None:
    """What moves is what the trace says, to the nearest row, and decisions are the simulator's."""
    own = TraceWorkload(mixed(), small_shape(family)).layouts.of_layer[0].expert_bytes
    asked = tuple(own * share // 4 for share in (4, 2, 4, 3, 4, 2, 4, 1))
    header = mixed().header.model_copy(update={"expert_bytes_by_layer": asked})
    workload = TraceWorkload(replace(mixed(), header=header), small_shape(family), layers=6)
    sizes = workload.trace.header.layer_bytes
    assert sizes is not None
    row = own / small_shape(family).expert_intermediate
    assert all(abs(size - want) <= row for size, want in zip(sizes, asked[:6], strict=True))
    options = {"capacity": 24, "prefetch": "next_gate", "schedule": "guard"}
    with block(workload, **options, canary=True) as cache:
        before = cache.report().moved_bytes
        workload.play()
    run = simulate(workload.trace, **options, bounds=False, interpreted=True)
    assert run.decision_digest == cache.decision_digest
    assert [each.slots for each in run.regime.size_classes] == [8, 4, 12]
    moved = sum(run.metrics[f"bytes_{kind}"] for kind in MOVES)
    blobs = [layout.blob_bytes for layout in workload.layouts.of_layer]
    assert (
        moved
        <= cache.report().moved_bytes - before
        <= moved * max(blob / size for blob, size in zip(blobs, sizes, strict=True))
    )
    assert cache.report().store_bytes == EXPERTS * sum(blobs)


def test_a_prefetcher_needs_scores_that_are_deep_enough() -> None:
    for depth, prefetch in ((0, "next_gate"), (1, "next_gate:depth=2")):
        workload = TraceWorkload(mixed(depth=depth), small_shape())
        with block(workload, prefetch=prefetch), pytest.raises(SpecmdError, match="lookahead"):
            workload.play()


# Store and memory.


def test_bytes_are_all_different_and_the_same_again() -> None:
    workload = TraceWorkload(mixed(), small_shape("gpt_oss"))
    store, again = workload.store(), workload.store()
    blobs = [store.blob(key) for key in range(store.num_keys)]
    assert len({blob.numpy().tobytes() for blob in blobs}) == LAYERS * EXPERTS
    for key in (0, 17, 127):
        for name, tensor in workload.layouts.of(key).views(store.blob(key)).items():
            assert tensor.isfinite().all()
            assert 0.01 < tensor.float().std() < 0.03
            assert torch.equal(tensor, workload.layouts.of(key).views(again.blob(key))[name])
    assert store.pinned_bytes == 0 or torch.accelerator.is_available()


def test_pinning_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "locked_size", lambda size: size)
    workload = TraceWorkload(mixed(), small_shape(), layers=3)
    layer_bytes = EXPERTS * workload.layouts.largest_bytes
    pinned = []
    store = RandomStore(
        workload.layouts,
        pinned_budget_bytes=2 * layer_bytes,
        pin=lambda t: pinned.append(t) or Pinned(t, t.numel(), lambda: None),
    )
    assert store.pinned_bytes == 2 * layer_bytes
    assert [store.is_pinned(layer * EXPERTS) for layer in range(3)] == [True, True, False]
    store.close()
    with pytest.raises(SpecmdError, match="closed"):
        store.blob(0)


def test_what_does_not_fit_says_how_many_layers_would(monkeypatch: pytest.MonkeyPatch) -> None:
    olmoe = load_shape("olmoe-1b-7b")
    trace = build_trace(np.arange(8) + np.zeros((3, 16, 1), int), num_experts=64)
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 * 10**9)
    with pytest.raises(SpecmdError, match=r"13\.8 GB in 16 layers.* 8 would fit \(--layers 8\)"):
        TraceWorkload(trace, olmoe)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**9)
    with pytest.raises(SpecmdError, match="not even one layer"):
        TraceWorkload(trace, olmoe)
    workload = TraceWorkload(mixed(), small_shape())
    monkeypatch.setattr(memory, "available_bytes", lambda: 200_000)
    with pytest.raises(SpecmdError, match=r"a store of experts.*--layers 1"):
        workload.store(other_bytes=100_000)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    workload.store()


def test_free_memory_is_known_here() -> None:
    free = memory.available_bytes()
    assert free is None or 10**6 < free < 10**14


@pytest.mark.parametrize(
    ("changes", "layers", "says"),
    [
        ({"experts": 32, "router_parameters": 1024}, None, "trace has 16 experts a layer"),
        ({"top_k": 2}, None, "trace has 4 experts a token, small has 2"),
        ({"layers": 9, "moe_layers": 9}, None, r"play the first 8 or fewer \(--layers\)"),
        ({"layers": 9, "moe_layers": 9}, 9, r"play the first 8 or fewer \(--layers\)"),
        ({"layers": 4, "moe_layers": 4}, None, r"play the first 4 or fewer \(--layers\)"),
        ({}, 9, "small has 1 to 8 MoE layers"),
        ({}, 0, "small has 1 to 8 MoE layers"),
    ],
)
def test_a_trace_of_another_model(changes: dict[str, Any], layers: int | None, says: str) -> None:
    with pytest.raises(SpecmdError, match=says):
        TraceWorkload(mixed(), small_shape(**changes), layers=layers)


def test_slicing_layers() -> None:
    trace = mixed()
    assert slice_layers(trace, LAYERS) is trace
    part = slice_layers(trace, 1)
    assert (part.expert_ids == trace.expert_ids[:, :1]).all()
    assert part.lookahead is not None
    assert np.isnan(part.lookahead).all()
    assert "first 1 of 8 layers" in part.header.notes
    with pytest.raises(SpecmdError, match="the trace has 1 to 8"):
        slice_layers(trace, 9)
