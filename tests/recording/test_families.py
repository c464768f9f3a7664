"""Every family, recorded against what the model itself says, in fp32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from recorded_families import FAMILIES, build

from specmd.models.moe import find_moe
from specmd.recording import Recorder
from specmd.trace import DECODE, PREFILL, Trace


def padded_batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 96, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for row, padding in enumerate((4, 0, 2)):
        ids[row, :padding], mask[row, :padding] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def said(output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Logits, weights, ids of a gate; some releases return them the other way round."""
    return output if output[0].is_floating_point() else output[::-1]


class Witness:
    """Independent hooks for a plain forward pass: gate outputs, gate inputs, residuals."""

    def __init__(self, model: Any) -> None:
        self.moe = find_moe(model)
        self.gates: list[tuple[torch.Tensor, ...]] = []
        self.residuals: list[torch.Tensor] = []
        self.handles = []
        for layer in self.moe.layers:
            self.handles.append(
                layer.gate.register_forward_hook(
                    lambda _m, a, out: self.gates.append((a[0], *said(out)))
                )
            )
            self.handles.append(
                layer.norm.register_forward_pre_hook(lambda _m, a: self.residuals.append(a[0]))
            )

    def run(self, model: Any, ids: torch.Tensor, **options: Any) -> Any:
        with torch.no_grad():
            output = model(ids, **options)
        for handle in self.handles:
            handle.remove()
        return output


def recorded(model: Any, **options: Any) -> Trace:
    with Recorder(model, lookahead=2, logits="full") as recorder:
        model.generate(**padded_batch(), max_new_tokens=6, do_sample=False, **options)
    return recorder.trace


def tokens_of(trace: Trace, request: int) -> np.ndarray:
    return np.flatnonzero(trace.request == request)


def test_generation_equals_a_full_forward_of_each_request(family: str) -> None:
    model = build(family)
    trace = recorded(model)
    assert trace.header.num_layers == FAMILIES[family][2]
    assert trace.prompt_lengths.tolist() == [5, 9, 7]
    assert set(np.diff(trace.request)[np.diff(trace.step) == 0]) <= {0, 1}
    for request in range(3):
        rows = tokens_of(trace, request)
        witness = Witness(model)
        witness.run(model, torch.tensor(trace.token_ids[rows])[None].long(), use_cache=False)
        for layer, (_, logits, weights, ids) in enumerate(witness.gates):
            order = weights.argsort(dim=-1, descending=True, stable=True)
            expected = ids.gather(-1, order).numpy()
            np.testing.assert_array_equal(trace.expert_ids[rows, layer], expected)
            close = {"rtol": 2e-3, "atol": 2e-4}
            np.testing.assert_allclose(trace.logits[rows, layer], logits.numpy(), **close)
            np.testing.assert_allclose(
                trace.weights[rows, layer], weights.gather(-1, order).numpy(), **close
            )


@pytest.mark.parametrize("name", [f for f, about in sorted(FAMILIES.items()) if about[3]])
def test_logits_are_bitwise_those_of_output_router_logits(name: str) -> None:
    model = build(name)
    ids = padded_batch()["input_ids"][1:2]
    with torch.no_grad(), Recorder(model, logits="full") as recorder:
        output = model(ids, output_router_logits=True)
    if output.router_logits is None:
        pytest.skip("this release does not return them, though asked to")
    told = [layer for layer in output.router_logits if layer is not None]
    expected = torch.stack([layer.reshape(ids.numel(), -1) for layer in told], dim=1)
    assert (recorder.trace.phase == PREFILL).all()
    np.testing.assert_array_equal(recorder.trace.logits, expected.to(torch.float16).numpy())


def test_lookahead_is_the_later_gate_on_this_input_and_on_this_residual(family: str) -> None:
    model = build(family)
    ids = padded_batch()["input_ids"][1:2]
    with torch.no_grad(), Recorder(model, lookahead=2) as recorder:
        model(ids)
    trace = recorder.trace
    witness = Witness(model)
    witness.run(model, ids)
    layers = witness.moe.layers
    close = {"rtol": 4e-3, "atol": 4e-3}
    for layer in range(len(layers)):
        for distance in (1, 2):
            if layer + distance >= len(layers):
                if distance <= trace.lookahead.shape[2]:
                    assert np.isnan(trace.lookahead[:, layer, distance - 1]).all()
                    assert np.isnan(trace.lookahead_renormalised[:, layer, distance - 1]).all()
                continue
            later = layers[layer + distance]
            with torch.no_grad():
                raw = said(later.gate(witness.gates[layer][0]))[0]
                residual = later.norm(witness.residuals[layer])
                renormalised = said(later.gate(residual.reshape(ids.numel(), -1)))[0]
            np.testing.assert_allclose(trace.lookahead[:, layer, distance - 1], raw, **close)
            np.testing.assert_allclose(
                trace.lookahead_renormalised[:, layer, distance - 1], renormalised, **close
            )


def test_header_tells_shared_experts_and_dense_layers() -> None:
    shape = recorded(build("deepseek_v3")).header.shape
    assert shape["layers"] == 4
    assert shape["moe_layer_indices"] == [1, 2, 3]
    assert (shape["shared_experts"], shape["shared_intermediate"]) == (1, 32)
    assert shape["dense_intermediate"] == 48
    shape = recorded(build("qwen2_moe")).header.shape
    assert shape["moe_layer_indices"] == [1, 3]
    assert (shape["hidden"], shape["expert_intermediate"]) == (32, 16)


def test_expert_bytes_count_biases_and_the_transposed_layout() -> None:
    header = recorded(build("gpt_oss")).header
    assert header.expert_bytes == 4 * (3 * 32 * 16 + 2 * 16 + 32)
    assert (header.shape["hidden"], header.shape["expert_intermediate"]) == (32, 16)


def test_wide_prefills_score_the_same_as_narrow_ones(
    olmoe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = recorded(olmoe)
    monkeypatch.setattr("specmd.recording.capture.WIDE_TOKENS", 4)
    wide = recorded(olmoe)
    np.testing.assert_array_equal(narrow.expert_ids, wide.expert_ids)
    np.testing.assert_allclose(narrow.lookahead, wide.lookahead, rtol=2e-3, atol=1e-3)
    assert (wide.phase == DECODE).sum() == (narrow.phase == DECODE).sum()
