"""Events that pass the cache by, and prefetches of what passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from live_models import FAMILIES, SIZES, generate, offload, prompt


@pytest.fixture(scope="module")
def one_layer() -> Any:
    """A model whose only MoE layer is followed, in the next step, by itself."""
    torch.manual_seed(0)
    sizes = SIZES | FAMILIES["olmoe"][1] | {"num_hidden_layers": 1}
    return transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**sizes)).eval()


@pytest.mark.parametrize("prefill", ["bypass", "double_buffer"])
@pytest.mark.parametrize(
    ("prefetch", "interpreted"),
    [
        ("prev_token", True),
        ("prev_token", False),
        ("random:width=3", True),
        ("random:depth=2,width=8", True),
    ],
)
def test_a_key_that_passes_by_may_be_proposed_by_its_own_event(
    one_layer: Any, prefill: str, prefetch: str, interpreted: bool
) -> None:
    """It is there already: the proposal is redundant, and nothing is copied twice."""
    inputs = prompt(2, 12)
    with offload(one_layer, capacity="100%", interpreted=True):
        expected = generate(one_layer, 6, **inputs)
    with offload(
        one_layer,
        capacity=4,
        prefill=prefill,
        prefetch=prefetch,
        interpreted=interpreted,
        canary=True,
        timeout_s=10.0,
    ) as cache:
        found = generate(one_layer, 6, **inputs)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    report = cache.report()
    copies = report.misses + report.prefetches_issued - report.prefetches_cancelled
    assert report.moved_bytes <= copies * cache._layouts.largest_bytes
