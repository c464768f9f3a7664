"""The accelerator link on whatever device torch reports; skipped where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from live_models import FAMILIES, build, generate, prompt, tiny, weights_of

from specmd import simulate
from specmd.engine import offload

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.accelerator.is_available(), reason="torch reports no accelerator on this machine"
    ),
]


def on_device(model: Any, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def live(model: Any, tokens: int = 8, rows: int = 1, **options: Any) -> tuple[Any, Any, Any]:
    with offload(model, link="accelerator", interpreted=True, canary=True, **options) as cache:
        ids, logits = generate(model, tokens, **on_device(model, **prompt(rows, 16)))
    return ids.cpu(), logits.cpu(), cache


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_on_the_device(family: str) -> None:
    model = build(family)
    before, own = weights_of(model), generate(model, **prompt(1, 16))
    ids, logits, _ = live(model, capacity="100%")
    assert torch.equal(ids, own[0])
    assert (logits - own[1]).abs().max() <= 1e-4 * max(1.0, float(own[1].abs().max()))
    for options in (
        {"capacity": 3},
        {"capacity": 7, "prefetch": "next_gate", "miss": "block"},
        {"capacity": 9, "prefetch": "prev_token", "chunk_bytes": 700, "pinned_budget": 0},
        {"capacity": 9, "prefill": "double_buffer", "pinned_budget": 30_000},
    ):
        again, same_logits, _ = live(model, **options)
        assert torch.equal(again, ids)
        assert torch.equal(same_logits, logits)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_digest_on_the_device() -> None:
    options: dict[str, Any] = {"evict": "lru", "prefetch": "next_gate", "capacity": 20}
    _, _, cache = live(tiny(), 16, schedule="fifo", **options, deterministic=True, log_routing=True)
    run = simulate(cache.trace, **options, schedule="fifo", bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest


def test_memory_on_the_device_is_slots_plus_dense() -> None:
    model = tiny()
    dense = sum(
        p.numel() * p.element_size() for n, p in model.named_parameters() if ".experts." not in n
    )
    torch.accelerator.synchronize()
    before = torch.accelerator.memory_allocated()
    with offload(model, link="accelerator", capacity=10, interpreted=True) as cache:
        held = torch.accelerator.memory_allocated() - before
        slots = cache.report().slot_bytes
        assert slots + dense <= held <= slots + dense + (1 << 20)
        assert cache.report().pinned_share == 1.0


def test_no_wait_for_the_whole_device_in_the_layer_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("olmoe")
    with offload(model, link="accelerator", capacity=6, interpreted=True):
        monkeypatch.setattr(torch.accelerator, "synchronize", lambda *_: pytest.fail("waited"))
        generate(model, **on_device(model, **prompt(1, 8)))
        monkeypatch.undo()
