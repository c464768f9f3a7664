"""Copies of few bits: exact where they can be, as near as their scale, as small as they say."""

from __future__ import annotations

import pytest
import torch
from live_models import FAMILIES, build

from specmd.errors import SpecmdError
from specmd.live.stores.low_bit import LowBitStore
from specmd.live.stores.store import HostStore
from specmd.models.layout import Layouts, place, read_layouts
from specmd.models.low_bit import GROUP, dequantise, low_bit_layouts, quantise
from specmd.models.moe import find_moe


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_is_within_half_a_step_of_its_own(bits: int, dtype: torch.dtype) -> None:
    weights = torch.randn(24, 40, generator=torch.Generator().manual_seed(3)).to(dtype)
    weights[2] = 0
    codes, scales = quantise(weights, bits)
    assert codes.dtype == torch.uint8
    assert codes.numel() == weights.numel() * bits // 8
    back = dequantise(codes, scales, bits, torch.float32).view(weights.shape)
    steps = scales.float().repeat_interleave(GROUP, 1).view(weights.shape)
    assert ((back - weights.float()).abs() <= 0.51 * steps).all()
    assert (back[2] == 0).all() or (steps[2] > 0).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_multiples_of_a_scale_come_back_as_they_were(bits: int) -> None:
    most = (1 << (bits - 1)) - 1
    generator = torch.Generator().manual_seed(5)
    numbers = torch.randint(-most, most + 1, (3, GROUP), generator=generator).float()
    numbers[:, 0] = most
    weights = numbers * torch.tensor([[0.5], [0.25], [2.0]])
    assert torch.equal(dequantise(*quantise(weights, bits), bits, torch.float32), weights)


def test_no_weights_too_small_or_too_large_for_a_scale() -> None:
    weights = torch.tensor([[1e-12] * GROUP, [6e4] * GROUP])
    back = dequantise(*quantise(weights, 4), 4, torch.float32)
    assert back.isfinite().all()
    assert back[0].abs().max() < 1e-4
    assert torch.allclose(back[1], weights[1], rtol=1e-3)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("bits", [4, 8])
def test_experts_of_every_family(family: str, bits: int) -> None:
    moe = find_moe(build(family))
    layouts = read_layouts(moe)
    store = HostStore(layouts, pinned_budget_bytes=0)
    for layer in moe.layers:
        store.take_layer(layer.experts)
    low = low_bit_layouts(layouts, bits)
    copies = LowBitStore(store, low, 0)
    for key in range(layouts.num_keys):
        number = key // layouts.experts
        whole = layouts.of(key).views(store.whole(key))
        copied = low[number].unpack(low[number].packed.views(copies.whole(key)))
        assert list(copied) == list(whole)
        for name, tensor in whole.items():
            assert copied[name].shape == tensor.shape
            assert copied[name].dtype == tensor.dtype
            if tensor.dim() == 1:
                assert torch.equal(copied[name], tensor)
            else:
                far = float((copied[name] - tensor).abs().max() / tensor.abs().max())
                assert 0 < far < (0.08 if bits == 4 else 0.005)
    matrices = [p for p in layouts.of_layer[0].pieces if len(p.shape) > 1]
    weights = sum(p.num_bytes // p.dtype.itemsize for p in matrices)
    rest = layouts.of_layer[0].expert_bytes - sum(p.num_bytes for p in matrices)
    expected = weights * (bits + 16 / GROUP) / 8 + rest
    assert low[0].packed.expert_bytes == expected


def test_experts_of_few_bits_have_no_smaller_copies() -> None:
    layout = place([("down_proj", (64, 64), torch.uint8)])
    with pytest.raises(SpecmdError, match="as large as the experts"):
        low_bit_layouts(Layouts((layout,), 2), 4)
