"""The accelerator link on whatever device torch reports: memory, pinning, copies, restoring."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from accelerator import here, live, marks, on_device
from live_models import build, generate, prompt, tiny, weights_of

from specmd.live import offload
from specmd.live.links.accelerator import AcceleratorLink
from specmd.live.links.link import COMPUTE, COPY
from specmd.live.slots import CANARY, Slots
from specmd.live.stores import pinning
from specmd.live.transfers import Mover
from specmd.models.layout import Layout, Layouts

pytestmark = marks
MARGIN = 1 << 20


def allocated() -> int:
    """Bytes allocated on the device; skips where the device does not count them."""
    gc.collect()
    torch.accelerator.synchronize()
    try:
        return int(torch.accelerator.memory_allocated())
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"this device does not count its memory: {error}")


def test_memory_is_slots_plus_dense_and_does_not_grow() -> None:
    model, inputs = tiny(), prompt(1, 16, vocab=2048)
    dense = sum(
        p.numel() * p.element_size() for n, p in model.named_parameters() if ".experts." not in n
    )
    before = allocated()
    with offload(model, link="accelerator", capacity=10, prefetch="next_gate") as cache:
        held = allocated() - before
        slots = cache.report().slot_bytes
        assert slots + dense <= held <= slots + dense + MARGIN
        assert cache.report().pinned_share == 1.0
        generate(model, 4, **on_device(**inputs))
        after_some = allocated()
        generate(model, 24, **on_device(**inputs))
        assert allocated() <= after_some + MARGIN // 16
    assert cache.report().slot_bytes == slots  # the cache can still be asked
    assert allocated() <= before + MARGIN // 16  # and holds no memory


def test_a_block_that_fails_gives_everything_back() -> None:
    model = build("olmoe")
    own, before = weights_of(model), allocated()

    def fail() -> None:
        with offload(model, link="accelerator", capacity=12, prefetch="random:width=8"):
            generate(model, 4, **on_device(**prompt(1, 9)))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert allocated() <= before + MARGIN // 16
    for name, parameter in model.named_parameters():
        assert parameter.device.type == "cpu"
        assert torch.equal(parameter, own[name])


def test_a_model_that_was_on_the_device_comes_back_to_it() -> None:
    model, inputs = build("qwen3_moe"), prompt(2, 16)
    expected = live(model, inputs=inputs, capacity=5)[0]
    own = weights_of(model)
    model.to(here())
    objects = {name: id(p) for name, p in model.named_parameters()}
    held = allocated()
    with offload(model, link="accelerator", capacity=5):
        assert allocated() < held
        ids, _ = generate(model, **on_device(**inputs))
    assert torch.equal(ids.cpu(), expected)
    for name, parameter in model.named_parameters():
        assert parameter.device == here(), name
        assert id(parameter) == objects[name], name
        assert torch.equal(parameter.cpu(), own[name])
    assert all(buffer.device == here() for buffer in model.buffers())


def test_objects_stay_and_devices_return() -> None:
    model = build("olmoe")
    model.lm_head.weight.mark = "kept"
    objects = {name: (id(p), p.device, p.requires_grad) for name, p in model.named_parameters()}
    live(model, 2, capacity=5)
    for name, p in model.named_parameters():
        assert (id(p), p.device, p.requires_grad) == objects[name]
    assert model.lm_head.weight.mark == "kept"
    assert torch.equal(generate(model)[0], generate(build("olmoe"))[0])


def test_a_failed_pin_makes_the_rest_pageable(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("olmoe")
    expected = live(model, capacity=5)
    calls: list[int] = []

    def once(original: Any) -> Any:
        def pin(*args: Any) -> Any:
            calls.append(1)
            if len(calls) > 1:
                raise RuntimeError("out of pinned memory\nand more")
            return original(*args)

        return pin

    monkeypatch.setattr(torch.Tensor, "pin_memory", once(torch.Tensor.pin_memory))
    monkeypatch.setattr(pinning, "_register", once(pinning._register))
    ids, logits, cache = live(model, capacity=5, chunk_bytes=1000)
    assert len(calls) > 2  # one refusal for the experts, then the staging buffers
    assert torch.equal(ids, expected[0])
    assert torch.equal(logits, expected[1])
    report = cache.report()
    assert 0 < report.pinned_share < 1
    assert report.pin_failure == "out of pinned memory"


def make_link(blob_bytes: int, **options: Any) -> tuple[AcceleratorLink, Slots]:
    layouts = Layouts((Layout((), blob_bytes, blob_bytes),), 2)
    slots = Slots(layouts, [2], 1, here(), canary=False)
    return AcceleratorLink(slots, 100, **options), slots


def test_copies_marks_and_ticks() -> None:
    link, slots = make_link(256)
    blob = torch.arange(256, dtype=torch.uint8)
    pinned = blob.pin_memory()
    assert pinned.is_pinned()
    before = link.tick(COPY)
    link.blank(1)
    link.copy(0, pinned[:100], 0, 100, True)
    link.copy(0, pinned[100:], 100, 256, True)
    for start in (0, 100, 200):  # the ring has two buffers, each filled again once it is free
        stop = min(start + 100, 256)
        link.copy(2, blob[start:stop], start, stop, False)
    after = link.tick(COPY)
    link.order(COMPUTE, link.record(COPY))
    assert torch.equal(slots.blobs[0].cpu(), blob)
    assert torch.equal(slots.blobs[2].cpu(), blob)
    assert (slots.blobs[1].cpu() == CANARY).all()
    mark = link.record(COMPUTE)
    link.synchronise(mark, 10.0)
    assert link.reached(mark)
    if before is not None:
        link.synchronise(after, 10.0)
        assert link.elapsed_s(before, after) >= 0.0
    assert link._copies != torch.accelerator.current_stream()
    link.close()


def test_kernels_wait_for_copies_and_copies_for_kernels() -> None:
    link, slots = make_link(1 << 22)
    blobs = [torch.full((1 << 22,), value, dtype=torch.uint8).pin_memory() for value in (1, 2)]
    sums = []
    for turn in range(20):
        link.copy(0, blobs[turn % 2], 0, 1 << 22, True)
        link.order(COMPUTE, link.record(COPY))
        sums.append(slots.blobs[0].sum(dtype=torch.int64))
        link.order(COPY, link.record(COMPUTE))
    assert [int(total) >> 22 for total in sums] == [1, 2] * 10


def test_what_is_under_way_at_the_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Any] = []
    closed: list[bool] = []
    copy, close = AcceleratorLink.copy, AcceleratorLink.close

    def noting_copy(self: AcceleratorLink, *args: Any) -> None:
        copy(self, *args)
        copies.append(self.record(COPY))

    def looking_close(self: AcceleratorLink) -> None:
        closed.append(all(self.reached(mark) for mark in copies))
        close(self)

    monkeypatch.setattr(AcceleratorLink, "copy", noting_copy)
    monkeypatch.setattr(AcceleratorLink, "close", looking_close)
    model = build("olmoe")
    with offload(model, link="accelerator", capacity=12, prefetch="random:width=12") as cache:
        generate(model, 3, **on_device(**prompt(1, 9)))
    assert copies
    assert closed[0]
    assert isinstance(cache._mover, Mover)
    cache._mover.stop()  # a second time does nothing
