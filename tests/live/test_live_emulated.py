"""The accelerator link itself, on an emulated device whose streams work at once, on the host."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from live_models import build, generate, prompt, weights_of

from specmd.live import cache as live_cache
from specmd.live import offload
from specmd.live.links.accelerator import AcceleratorLink


class EmulatedEvent:
    """Reached on its sixth query: nobody may rely on the first, nor skip a wait because of it."""

    def __init__(self, device: torch.device, *, enable_timing: bool = False) -> None:
        self.recorded: Any = None
        self.queries = 0
        self.timed, self.recorded_s = enable_timing, 0.0

    def record(self, stream: EmulatedStream) -> None:
        self.recorded, self.recorded_s, self.queries = stream, time.perf_counter(), 0

    def elapsed_time(self, other: EmulatedEvent) -> float:
        assert self.timed
        assert other.timed
        return (other.recorded_s - self.recorded_s) * 1e3

    def query(self) -> bool:
        assert self.recorded is not None, "an event is asked for before it is recorded"
        self.queries += 1
        return self.queries > 5


class EmulatedStream:
    waits = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_event(self, event: EmulatedEvent) -> None:
        assert event.recorded is not None, "an event is waited for before it is recorded"
        EmulatedStream.waits += 1

    def synchronize(self) -> None:
        """Everything was done when it was given."""

    def __enter__(self) -> EmulatedStream:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    compute = EmulatedStream(cpu)
    monkeypatch.setattr(torch, "Stream", EmulatedStream)
    monkeypatch.setattr(torch, "Event", EmulatedEvent)
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda *_: compute)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda *_: None)
    monkeypatch.setattr(live_cache, "find_device", lambda *_: (cpu, "accelerator"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)
    EmulatedStream.waits = 0


@pytest.mark.parametrize("pinned_budget", [None, 0, 70_000])
def test_logits_and_restoring(emulated: None, pinned_budget: int | None) -> None:
    model, inputs = build("gpt_oss"), prompt(2, 12)
    before = weights_of(model)
    with offload(model, capacity="100%", interpreted=True):
        resident = generate(model, **inputs)
    with offload(
        model,
        prefetch="next_gate",
        capacity=5,
        chunk_bytes=1500,
        pinned_budget=pinned_budget,
        interpreted=True,
        canary=True,
    ) as cache:
        assert isinstance(cache._mover.link, AcceleratorLink)
        live = generate(model, **inputs)
    assert torch.equal(resident[0], live[0])
    assert torch.equal(resident[1], live[1])
    assert EmulatedStream.waits > 100
    assert cache.report().demand_stall_s > 0
    share = cache.report().pinned_share
    assert share == {None: 1.0, 0: 0.0}.get(pinned_budget, share)
    assert pinned_budget != 70_000 or 0 < share < 1
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_experts_computed_on_the_host(emulated: None) -> None:
    model, inputs = build("gpt_oss"), prompt(2, 12)
    with offload(model, capacity="100%", interpreted=True):
        resident = generate(model, **inputs)
    with offload(model, capacity=5, miss="host", interpreted=True, canary=True) as cache:
        live = generate(model, **inputs)
        report = cache.report()
    assert torch.equal(resident[1], live[1])
    assert report.host_experts > 0
    assert report.cpu_expert_s > 0


def test_a_disk_behind_pinned_host_slots(emulated: None, tmp_path: Path) -> None:
    model, inputs = build("gpt_oss"), prompt(2, 12)
    model.save_pretrained(tmp_path)
    with offload(model, capacity="100%", interpreted=True):
        resident = generate(model, **inputs)
    options = {"prefetch": "next_gate", "capacity": 5, "chunk_bytes": 1500, "canary": True}
    with offload(model, checkpoint=tmp_path, host_capacity=6, interpreted=True, **options) as cache:
        found = generate(model, **inputs)
        report = cache.report()
    assert torch.equal(resident[1], found[1])
    assert report.pinned_share == 1.0
    assert report.read_bytes > 0
