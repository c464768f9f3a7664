"""Experts read from their checkpoint, mapped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from live_models import FAMILIES, build, generate, offload, tiny

from specmd.errors import SpecmdError
from specmd.models.files import CheckpointFiles
from specmd.models.meta import load_without_experts
from specmd.models.tiny import path


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_from_their_checkpoints(family: str, tmp_path: Path) -> None:
    model = build(family)
    model.save_pretrained(tmp_path)
    with offload(model, capacity=5, interpreted=True):
        expected = generate(model)
    hollow = load_without_experts(tmp_path)
    with offload(hollow, capacity=5, interpreted=True, checkpoint=tmp_path, canary=True) as cache:
        found = generate(hollow)
    assert torch.equal(expected[0], found[0])
    assert torch.equal(expected[1], found[1])
    assert cache.report().pinned_share == 0.0
    assert any(p.is_meta for p in hollow.parameters())


def test_a_full_model_gets_its_values_back(tmp_path: Path) -> None:
    model = build("olmoe")
    own = generate(model)
    model.save_pretrained(tmp_path)
    with offload(model, capacity=5, interpreted=True, checkpoint=tmp_path):
        generate(model)
    assert torch.equal(generate(model)[1], own[1])


def test_the_shipped_checkpoint_is_of_another_type() -> None:
    with pytest.raises(SpecmdError, match="load the model with dtype='bfloat16'"):
        offload(tiny(), checkpoint=path()).__enter__()
    assert generate(tiny(), 2)[0].shape[0] == 1


def test_experts_without_values_need_a_checkpoint(tmp_path: Path) -> None:
    build("olmoe").save_pretrained(tmp_path)
    hollow = load_without_experts(tmp_path)
    with pytest.raises(SpecmdError, match="checkpoint=folder"):
        offload(hollow, capacity=5).__enter__()


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(SpecmdError, match=r"no \.safetensors"):
        CheckpointFiles(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 30)
    with pytest.raises(SpecmdError, match="not a readable safetensors"):
        CheckpointFiles(tmp_path)
    other = tmp_path / "other"
    build("qwen3_moe").save_pretrained(other)
    (other / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(SpecmdError, match=r"own checkpoint|another size"):
        offload(build("gpt_oss"), checkpoint=tmp_path).__enter__()
