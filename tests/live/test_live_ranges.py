"""NVTX ranges: pushed and popped in pairs where torch has them, nothing where it has not."""

import pytest
import torch

from specmd.live import ranges
from specmd.live.offload import offload
from specmd.models.tiny import load_tiny

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def pushed(monkeypatch):
    """What is pushed and popped, on a machine that seems to have a device."""
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", seen.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: seen.append("pop"))
    ranges.are_taken.cache_clear()
    yield seen
    ranges.are_taken.cache_clear()


def test_a_build_without_nvtx_takes_no_ranges(monkeypatch):
    def refused(*_):
        raise RuntimeError("NVTX functions not installed")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", refused)
    ranges.are_taken.cache_clear()
    with ranges.named("nothing", CUDA):
        assert not ranges.are_taken()
    ranges.are_taken.cache_clear()


def test_ranges_close_when_what_is_in_them_fails(pushed):
    with pytest.raises(ValueError, match="no"), ranges.named("outer", CUDA):
        raise ValueError("no")
    assert pushed == ["specmd", "pop", "outer", "pop"]


def test_a_cache_on_the_cpu_pushes_none(pushed):
    model, tokenizer = load_tiny()
    inputs = tokenizer("def add(a, b):", return_tensors="pt")
    with offload(model, capacity="20%", link="cpu", interpreted=True):
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert pushed == []


def test_layers_experts_and_copies_are_named(pushed, monkeypatch):
    real = ranges.named
    for module in ("layer", "transfers"):
        monkeypatch.setattr(f"specmd.live.{module}.named", lambda name, device: real(name, CUDA))
    model, tokenizer = load_tiny()
    inputs = tokenizer("def add(a, b):", return_tensors="pt")
    with offload(model, capacity="20%", link="cpu", interpreted=True, deterministic=True) as cache:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        report = cache.report()
    names = [name for name in pushed[2:] if name != "pop"]
    assert pushed.count("pop") == len(names) + 1
    assert names.count("specmd layer 0") == 2
    assert sum(name.startswith("specmd L") for name in names) == report.accesses
    assert names.count("specmd copy") >= report.misses
