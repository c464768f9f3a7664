"""Capacities that say what a device holds altogether, of a live cache."""

import pytest
import torch
from live_models import FAMILIES, build

import specmd
from specmd.errors import SpecmdError
from specmd.live import room
from specmd.models.facts import kv_bytes_per_token, layer_bytes
from specmd.models.moe import find_moe


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_as_large_as_those_of_a_forward_pass(family):
    model = build(family)
    tokens = 7
    with torch.no_grad():
        cache = model(torch.arange(2, 2 + tokens)[None], use_cache=True).past_key_values
    held = sum(
        tensor.numel() * tensor.element_size()
        for layer in cache.layers
        for tensor in (layer.keys, layer.values)
    )
    if family == "deepseek_v2":  # what is cached of latent attention differs between releases
        assert kv_bytes_per_token(model) * tokens >= held
    else:
        assert kv_bytes_per_token(model) * tokens == held


def test_a_total_leaves_its_rest_for_slots():
    model = build("olmoe")
    moe = find_moe(model)
    size = layer_bytes(moe)[0]
    every = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    other = every - 3 * 8 * size
    beside = other + 2 * size + 50 * kv_bytes_per_token(model)
    for slots in (1, 5, 24):
        for rest in (0, size - 1):
            cache = specmd.offload(
                model, capacity=f"{beside + slots * size + rest}B total", context=50
            )
            assert cache.capacity_slots == slots
    assert specmd.offload(model, capacity="1GB total", context=50).capacity_slots == 24
    longer = f"{beside + 5 * size}B total"
    assert specmd.offload(model, capacity=longer, context=60).capacity_slots == 4
    with pytest.raises(SpecmdError, match="less than one expert"):
        specmd.offload(model, capacity=f"{beside + size - 1}B total", context=50)


def test_free_is_what_the_machine_says(monkeypatch):
    model = build("olmoe")
    size = layer_bytes(find_moe(model))[0]
    free = 10 * size + 2 * size + 50 * kv_bytes_per_token(model)
    monkeypatch.setattr(room, "available_bytes", lambda: round(free / 0.95) + 1)
    cache = specmd.offload(model, capacity="free", context=50)
    assert cache.capacity_slots == 10
    monkeypatch.setattr(room, "available_bytes", lambda: None)
    with pytest.raises(SpecmdError, match="8GB total"):
        specmd.offload(model, capacity="free", context=50)
    with pytest.raises(SpecmdError, match="give context"):
        specmd.offload(model, capacity="free")
