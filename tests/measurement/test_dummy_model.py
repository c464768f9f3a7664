"""Models built from shapes alone: the sizes of the real ones, harmless weights."""

from __future__ import annotations

import pytest
import torch
from small_shapes import LAYERS, TABLES, small_shape

from specmd.errors import SpecmdError
from specmd.hardware.shape import list_shapes, load_shape
from specmd.models.dummy import build_model, can_build
from specmd.models.dummy.model import default_dtype
from specmd.models.layout import expert_tensors, read_layouts
from specmd.models.moe import find_moe

BUILT = [name for name in list_shapes() if can_build(load_shape(name))]


def test_the_shapes_that_can_be_built() -> None:
    # The others' models are none that transformers builds by sizes alone: they are simulated only.
    simulated = {
        "deepseek-v4-flash", "gemma-4-26b-a4b", "kimi-linear-48b-a3b", "qwen3.6-35b-a3b",
        "switch-base-32",
    }  # fmt: skip
    assert set(BUILT) == set(list_shapes()) - simulated


@pytest.mark.parametrize("name", BUILT)
def test_a_built_model_is_as_large_as_its_shape_says(name: str) -> None:
    shape = load_shape(name)
    model = build_model(shape, dtype="bfloat16", device="meta")
    moe = find_moe(model)
    assert len(moe.layers) == shape.moe_layers
    assert moe.num_decoder_layers == shape.layers
    final_norm = shape.hidden
    assert sum(p.numel() for p in model.parameters()) == shape.total_parameters + final_norm
    expert_bytes = read_layouts(moe).of_layer[0].expert_bytes
    assert expert_bytes == shape.expert_parameters * 2  # bf16, whatever the checkpoint ships
    if shape.expert_weight_bits == 16:
        assert expert_bytes == shape.expert_bytes


@pytest.mark.parametrize("name", BUILT)
def test_fewer_layers(name: str) -> None:
    shape = load_shape(name)
    moe = find_moe(build_model(shape, layers=2, device="meta"))
    assert len(moe.layers) == 2
    assert moe.num_decoder_layers == 2 + shape.dense_layers


@pytest.mark.parametrize("family", TABLES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dense_weights_are_there_and_experts_are_not(family: str, dtype: str) -> None:
    model = build_model(small_shape(family), layers=3, dtype=dtype, seed=1)
    routed = {id(t) for layer in find_moe(model).layers
              for t in expert_tensors(layer.experts).values()}  # fmt: skip
    assert len(routed) >= 2 * 3
    for name, parameter in model.named_parameters():
        assert parameter.is_meta == (id(parameter) in routed), name
        router = name.endswith("gate.weight")  # which some releases keep in float32
        assert parameter.dtype in {getattr(torch, dtype), torch.float32 if router else None}
        if not parameter.is_meta:
            assert parameter.isfinite().all()
            assert (parameter != 0).float().mean() > 0.99
    assert not any(buffer.is_meta for buffer in model.buffers())


def test_the_same_seed_makes_the_same_weights() -> None:
    first, same, other = (build_model(small_shape(), layers=2, seed=s) for s in (1, 1, 2))
    mine, its, others = (m.lm_head.weight for m in (first, same, other))
    assert torch.equal(mine, its)
    assert not torch.equal(mine, others)
    assert not torch.equal(mine, first.get_input_embeddings().weight)


def test_what_cannot_be_built() -> None:
    with pytest.raises(SpecmdError, match=r"switch-base-32.*of these: .*olmoe-1b-7b"):
        build_model(load_shape("switch-base-32"), device="meta")
    with pytest.raises(SpecmdError, match=f"9 layers: small has 1 to {LAYERS} MoE layers"):
        build_model(small_shape(), layers=9, device="meta")
    assert default_dtype(load_shape("gpt-oss-20b")) == "bfloat16"
    assert default_dtype(small_shape(expert_weight_bits=32, expert_bytes=6144)) == "float32"
    with pytest.raises(SpecmdError, match="unknown dtype 'bf16'"):
        build_model(small_shape(), dtype="bf16", device="meta")


def test_a_table_that_makes_another_model() -> None:
    table = TABLES["olmoe"] | {"sizes": {"num_experts": "experts"}}
    with pytest.raises(SpecmdError, match="expert_intermediate is 2048, not 16"):
        build_model(small_shape(transformers=table), device="meta")
    with pytest.raises(ValueError, match="there is no size 'specialists'"):
        small_shape(transformers=TABLES["olmoe"] | {"sizes": {"num_experts": "specialists"}})
    with pytest.raises(SpecmdError, match="olmow"):
        build_model(small_shape(transformers={"model_type": "olmow"}), device="meta")
    with pytest.raises(SpecmdError, match="attention and norm parameters is 4224, not 4225"):
        build_model(small_shape(attention_parameters=4161), device="meta")
