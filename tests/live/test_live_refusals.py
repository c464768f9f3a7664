"""What an offloaded model cannot do is refused in a sentence, and the model works on afterwards."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from live_models import build, generate, offload, prompt

from specmd import simulate
from specmd.errors import SpecmdError
from specmd.models.passes import cache_argument
from specmd.recording import Recorder


@pytest.fixture
def model() -> Any:
    return build("olmoe")


def live(model: Any, **options: Any) -> Any:
    return offload(model, **({"capacity": 6, "interpreted": True} | options))


def test_gradients_are_refused_and_passes_that_could_have_them_are_not(model: Any) -> None:
    own = model(**prompt()).logits.detach()
    with live(model):
        logits = model(**prompt()).logits
        torch.testing.assert_close(logits.detach(), own)
        with pytest.raises(SpecmdError, match="offloaded experts have no gradients"):
            logits.sum().backward()
    model(**prompt()).logits.sum().backward()
    assert model.model.layers[0].mlp.experts.down_proj.grad is not None


def test_state_dicts_are_refused_inside_and_whole_outside(model: Any, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with live(model):
        for attempt in (
            model.state_dict,
            model.model.layers[1].mlp.state_dict,
            lambda: model.save_pretrained(tmp_path / "saved"),
            lambda: model.load_state_dict(before),
        ):
            with pytest.raises(SpecmdError, match="leave the offload block"):
                attempt()
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    model.load_state_dict(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"guidance_scale": 2.0}, "guidance"), ({"num_beams": 2}, "beam"), ({"use_cache": False}, "")],
)
def test_decoding_in_which_rows_are_not_requests(
    model: Any, options: dict[str, Any], message: str
) -> None:
    own = generate(model)
    with live(model):
        with pytest.raises(SpecmdError, match=f"{message}.*cannot be recorded or offloaded"):
            model.generate(**prompt(), max_new_tokens=3, pad_token_id=1, **options)
        assert torch.equal(generate(model)[0], own[0])


def test_a_prefetcher_deeper_than_the_model_fails_as_it_does_simulated(model: Any) -> None:
    with Recorder(model, lookahead=9) as recorder:
        generate(model)
    with pytest.raises(
        SpecmdError, match="next_gate:depth=3; there are none, or they reach less far"
    ):
        simulate(recorder.trace, prefetch="next_gate:depth=3", capacity=6, bounds=False)
    with pytest.raises(
        SpecmdError, match="next_gate:depth=3; there are none, or they reach less far"
    ):
        live(model, prefetch="next_gate:depth=3")
    with live(model, prefetch="next_gate:depth=2"):
        generate(model)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_second_thread_is_told_so_and_the_first_goes_on(model: Any, recorded: bool) -> None:
    own, errors = generate(model), []

    def intrude() -> None:
        for attempt in (lambda: generate(model), lambda: model(**prompt())):
            try:
                attempt()
            except SpecmdError as error:
                errors.append(str(error))

    def once(*_: Any) -> None:
        if not errors:
            thread = threading.Thread(target=intrude)
            thread.start()
            thread.join()

    with Recorder(model) if recorded else live(model):
        handle = model.model.layers[1].self_attn.register_forward_hook(once)
        assert torch.equal(generate(model)[0], own[0])
        handle.remove()
        thread = threading.Thread(target=lambda: errors.append(str(generate(model)[0].tolist())))
        thread.start()  # in its turn it may
        thread.join()
    assert len(errors) == 3
    assert all("another thread is running this model" in error for error in errors[:2])
    assert errors[2] == str(own[0].tolist())


def test_a_cache_with_tokens_that_were_not_computed_must_mask_them(model: Any) -> None:
    """Transformers would attend to them; nothing was computed there but the dense layers."""
    name, inputs = cache_argument(model.model), prompt(2, 6)
    token = torch.full((2, 1), 5)
    whole = torch.cat([inputs["attention_mask"], torch.ones(2, 1).long()], dim=1)
    with torch.no_grad(), live(model):
        kept = model(**inputs, use_cache=True)[name]
        with pytest.raises(SpecmdError, match="no experts were computed"):
            model(token, **{name: kept}, use_cache=True)
        model(token, attention_mask=whole, **{name: kept}, use_cache=True)
        with pytest.raises(SpecmdError, match="no experts were computed"):
            model.generate(
                torch.full((2, 9), 5), max_new_tokens=2, pad_token_id=1, **{name: kept},
                attention_mask=torch.ones(2, 9).long(),
            )  # fmt: skip
