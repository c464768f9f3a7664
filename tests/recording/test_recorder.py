"""The context manager: what is kept, what it leaves behind, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded_families import SIZES, build
from torch import nn

from specmd.errors import SpecmdError
from specmd.recording import Recorder


def run(model: Any, new: int = 4, **options: Any) -> torch.Tensor:
    ids = torch.arange(3, 11)[None]
    mask = torch.ones_like(ids)
    return model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False, **options
    )


def untouched(model: nn.Module) -> bool:
    hooks = [
        hooks
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
    ]
    return not any(hooks) and "generate" not in model.__dict__


def test_the_model_is_its_own_again_and_said_the_same(olmoe: Any) -> None:
    before = run(olmoe)
    state = {name: tensor.clone() for name, tensor in olmoe.state_dict().items()}
    with Recorder(olmoe, lookahead=2, logits="full") as recorder:
        during = run(olmoe)
        assert not untouched(olmoe)
    assert untouched(olmoe)
    assert torch.equal(before, during)
    assert all(torch.equal(state[name], tensor) for name, tensor in olmoe.state_dict().items())
    assert recorder.trace.num_tokens == 8 + 3
    assert recorder.trace.header.complete


class Stop(nn.Module):
    """Raises after some calls; put in front of a layer's attention."""

    def __init__(self, error: type[BaseException], calls: int) -> None:
        super().__init__()
        self.error, self.calls = error, calls

    def __call__(self, *_: Any) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise self.error("stop")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_every_exit_path_takes_the_hooks_off_and_keeps_whole_steps(
    olmoe: Any, error: type[BaseException]
) -> None:
    stop = Stop(error, calls=3)  # prefill and two decode steps pass, the third is cut in half
    handle = olmoe.model.layers[2].self_attn.register_forward_pre_hook(stop)
    recorder = Recorder(olmoe)
    with pytest.raises(error, match="stop"), recorder:
        run(olmoe)
    handle.remove()
    assert untouched(olmoe)
    assert recorder.trace.num_tokens == 8 + 2
    assert recorder.trace.num_steps == 3
    assert not recorder.trace.header.complete
    assert "Interrupted after 10 tokens" in recorder.trace.header.notes
    with Recorder(olmoe) as again:
        run(olmoe)
    assert again.trace.header.complete


def test_a_failed_call_inside_the_block_does_not_disturb_the_next(olmoe: Any) -> None:
    with Recorder(olmoe) as recorder:
        handle = olmoe.model.layers[1].self_attn.register_forward_pre_hook(Stop(ValueError, 2))
        with pytest.raises(ValueError, match="stop"):
            run(olmoe)
        handle.remove()
        run(olmoe)
    assert recorder.trace.num_requests == 2
    assert recorder.trace.num_tokens == (8 + 1) + (8 + 3)


def test_none_top_and_full(olmoe: Any) -> None:
    for logits, weights, full in (
        ("none", False, False),
        ("top", True, False),
        ("full", True, True),
    ):
        with Recorder(olmoe, logits=logits, lookahead=0) as recorder:
            run(olmoe)
        trace = recorder.trace
        assert (trace.weights is not None, trace.logits is not None) == (weights, full)
        assert trace.lookahead is None
    with pytest.raises(SpecmdError, match="choose none, top or full"):
        Recorder(olmoe, logits="all")
    with pytest.raises(SpecmdError, match="lookahead -1"):
        Recorder(olmoe, lookahead=-1)


def test_lookahead_deeper_than_the_model_is_cut(olmoe: Any) -> None:
    with Recorder(olmoe, lookahead=9) as recorder:
        run(olmoe)
    assert recorder.trace.lookahead.shape[2] == 3


def test_two_models_at_once_and_one_model_once(olmoe: Any) -> None:
    other = build("mixtral", seed=3)
    with Recorder(olmoe) as one, Recorder(other) as two:
        run(olmoe)
        run(other, new=2)
        with pytest.raises(SpecmdError, match="recorded already"), Recorder(olmoe):
            pass
        run(olmoe, new=1)
    assert one.trace.num_requests == 2
    assert two.trace.num_tokens == 8 + 1
    assert untouched(olmoe)
    assert untouched(other)


def test_a_model_without_experts_is_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    dense = LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=16))
    with pytest.raises(SpecmdError, match="LlamaForCausalLM has no Mixture-of-Experts layer"):
        Recorder(dense)
    with pytest.raises(SpecmdError, match="no Mixture-of-Experts layer"):
        Recorder(nn.Linear(2, 2))


def test_a_trace_needs_a_finished_recording(olmoe: Any) -> None:
    recorder = Recorder(olmoe)
    with recorder, pytest.raises(SpecmdError, match="still running"):
        _ = recorder.trace
    with pytest.raises(SpecmdError, match="nothing was recorded"):
        _ = recorder.trace


def test_the_decoder_alone_can_be_recorded(olmoe: Any) -> None:
    with torch.no_grad(), Recorder(olmoe.model) as recorder:
        olmoe.model(input_ids=torch.arange(3, 9)[None])
    assert recorder.trace.num_tokens == 6
