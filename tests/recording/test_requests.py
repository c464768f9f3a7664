"""Batches: padding, requests that end early, chunks, several calls, loops without generate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from recorded_families import build
from transformers import LogitsProcessor, LogitsProcessorList

from specmd.errors import SpecmdError
from specmd.models.passes import PassReader, cache_argument
from specmd.recording import Recorder
from specmd.trace import DECODE, PREFILL

CACHE = cache_argument(build("olmoe").model)


class EndAt(LogitsProcessor):
    """Forces `token` in row `row` when the sequence is `length` long, and forbids it elsewhere."""

    def __init__(self, ends: dict[int, int], token: int = 2) -> None:
        self.ends, self.token = ends, token

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.token] = -1e9
        for row, length in self.ends.items():
            if input_ids.shape[1] >= length:
                scores[row] = -1e9
                scores[row, self.token] = 1.0
        return scores


def prompt(rows: int, columns: int, padding: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 96, (rows, columns), generator=torch.Generator().manual_seed(7))
    mask = torch.ones_like(ids)
    for row, pad in enumerate(padding):
        ids[row, :pad], mask[row, :pad] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: Any, inputs: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
    return model.generate(**inputs, **({"do_sample": False, "max_new_tokens": 8} | options))


def test_tokens_after_the_end_of_a_request_are_not_recorded(olmoe: Any) -> None:
    ends = LogitsProcessorList([EndAt({0: 8, 2: 10})])
    with Recorder(olmoe) as recorder:
        text = generate(olmoe, prompt(3, 6, (2, 0, 1)), logits_processor=ends)
    trace = recorder.trace
    decoded = np.bincount(trace.request[trace.phase == DECODE])
    # Row 0 samples its end from the third pass on, so two generated tokens are fed; row 1 runs on.
    assert decoded.tolist() == [2, 7, 4]
    assert trace.prompt_lengths.tolist() == [4, 6, 5]
    assert trace.num_steps == 8
    assert 2 not in trace.token_ids
    assert 1 not in trace.token_ids
    row = trace.token_ids[trace.request == 1]
    np.testing.assert_array_equal(row, text[1, :-1])


@pytest.mark.parametrize("eos", [5, [5, 9]])
def test_end_tokens_given_to_the_call_count(olmoe: Any, eos: Any) -> None:
    ends = LogitsProcessorList([EndAt({0: 8}, token=5)])
    with Recorder(olmoe) as recorder:
        generate(olmoe, prompt(2, 6), logits_processor=ends, eos_token_id=eos)
    assert (recorder.trace.request == 0).sum() == 6 + 2


def test_the_batch_goes_on_with_one_request(olmoe: Any) -> None:
    ends = LogitsProcessorList([EndAt({0: 6, 1: 6})])
    with Recorder(olmoe) as recorder:
        generate(olmoe, prompt(3, 6), logits_processor=ends)
    late = recorder.trace.step > 0
    assert set(recorder.trace.request[late]) == {2}
    assert recorder.trace.num_steps == 8


@pytest.mark.parametrize("chunk", [1, 3, 4, 5, 64])
def test_chunked_prefill_changes_steps_and_nothing_else(olmoe: Any, chunk: int) -> None:
    inputs = prompt(2, 9, (5, 0))
    with Recorder(olmoe, lookahead=0) as whole:
        generate(olmoe, inputs)
    with Recorder(olmoe, lookahead=0) as parts:
        generate(olmoe, inputs, prefill_chunk_size=chunk)
    one, many = whole.trace, parts.trace
    prefill_steps = np.unique(many.step[many.phase == PREFILL])
    assert len(prefill_steps) == -(-9 // chunk)
    assert many.prompt_lengths.tolist() == one.prompt_lengths.tolist() == [4, 9]
    for request in range(2):
        left, right = one.request == request, many.request == request
        np.testing.assert_array_equal(one.expert_ids[left], many.expert_ids[right])
        np.testing.assert_array_equal(one.token_ids[left], many.token_ids[right])
        np.testing.assert_array_equal(one.phase[left], many.phase[right])


def test_each_call_opens_new_requests(olmoe: Any) -> None:
    with Recorder(olmoe) as recorder:
        generate(olmoe, prompt(2, 5), max_new_tokens=3)
        generate(olmoe, prompt(1, 4), max_new_tokens=1)
        generate(olmoe, prompt(1, 1), max_new_tokens=2)
    trace = recorder.trace
    assert trace.prompt_lengths.tolist() == [5, 5, 4, 1]
    assert np.bincount(trace.request).tolist() == [7, 7, 4, 2]
    assert trace.num_steps == 3 + 1 + 2


def test_a_prompt_that_ends_in_the_end_token_is_recorded_whole(olmoe: Any) -> None:
    inputs = prompt(1, 5)
    inputs["input_ids"][0, 2:] = 2
    with Recorder(olmoe) as recorder:
        generate(olmoe, inputs, max_new_tokens=1)
    assert recorder.trace.num_tokens == 5


def test_a_second_turn_on_a_kept_cache_prefills_only_what_is_new(olmoe: Any) -> None:
    inputs = prompt(1, 5)
    with Recorder(olmoe) as recorder:
        first = generate(olmoe, inputs, max_new_tokens=3, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, prompt(1, 4)["input_ids"]], dim=1)
        mask = torch.ones_like(ids)
        again = {"input_ids": ids, "attention_mask": mask}
        generate(olmoe, again, max_new_tokens=3, **{CACHE: first[CACHE]})
    trace = recorder.trace
    assert trace.prompt_lengths.tolist() == [5, 5]  # the last sampled token, then four new ones
    assert (trace.phase == DECODE).sum() == 4


def test_a_static_cache_hides_the_mask_but_not_the_padding(olmoe: Any) -> None:
    with Recorder(olmoe) as recorder:
        generate(
            olmoe,
            prompt(2, 6, (3, 0)),
            max_new_tokens=3,
            cache_implementation="static",
            disable_compile=True,
        )
    assert recorder.trace.prompt_lengths.tolist() == [3, 6]


def test_loops_without_generate(olmoe: Any) -> None:
    with torch.no_grad(), Recorder(olmoe) as recorder:
        cache = None
        ids = prompt(2, 5)["input_ids"]
        for _ in range(3):
            output = olmoe(ids, **{CACHE: cache}, use_cache=True)
            cache, ids = output[CACHE], output.logits[:, -1:].argmax(-1)
        olmoe(prompt(1, 4)["input_ids"])
    trace = recorder.trace
    assert trace.prompt_lengths.tolist() == [5, 5, 4]
    assert trace.phase.tolist() == [PREFILL] * 10 + [DECODE] * 4 + [PREFILL] * 4


def test_inputs_as_embeddings_have_no_token_ids(olmoe: Any) -> None:
    with Recorder(olmoe) as recorder:
        embedded = olmoe.get_input_embeddings()(prompt(1, 5)["input_ids"]).detach()
        olmoe.generate(inputs_embeds=embedded, max_new_tokens=3, do_sample=False)
    assert recorder.trace.token_ids[:5].tolist() == [-1] * 5
    assert recorder.trace.phase.tolist() == [PREFILL] * 5 + [DECODE] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "beam search"),
        ({"prompt_lookup_num_tokens": 3}, "assisted"),
        ({"use_cache": False}, "cache"),
        ({"guidance_scale": 1.5}, "guidance"),
    ],
)
def test_ways_of_decoding_that_cannot_be_recorded_say_so(
    olmoe: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecmdError, match=message), Recorder(olmoe):
        generate(olmoe, prompt(1, 4), **options)


def test_unsorted_choices_come_out_best_first() -> None:
    model = build("deepseek_v3")
    with Recorder(model) as recorder:
        generate(model, prompt(2, 6))
    weights = recorder.trace.weights
    assert (np.diff(weights, axis=-1) <= 0).all()


def test_a_row_goes_on_over_padding_and_ends_that_the_call_switched_off(olmoe: Any) -> None:
    olmoe.generation_config.eos_token_id = None
    for token in (1, 2):  # the padding id, and the end of text of the configuration
        with Recorder(olmoe) as recorder:
            ends = LogitsProcessorList([EndAt({0: 8}, token=token)])
            generate(olmoe, prompt(1, 6), logits_processor=ends, max_new_tokens=10)
        assert recorder.trace.num_tokens == 6 + 9
        assert (recorder.trace.token_ids == token).sum() == 7


def test_bare_loops_of_several_batches_in_turns(olmoe: Any) -> None:
    first, second = prompt(2, 5)["input_ids"], prompt(1, 3)["input_ids"]
    with torch.no_grad(), Recorder(olmoe) as recorder:
        caches = [olmoe(ids, use_cache=True)[CACHE] for ids in (first, second)]
        for rows, cache in zip((2, 1), caches, strict=True):
            olmoe(torch.full((rows, 1), 7), **{CACHE: cache}, use_cache=True)
        with pytest.raises(SpecmdError, match="3 rows continues a batch of 2"):
            olmoe(torch.full((3, 1), 7), **{CACHE: caches[0]}, use_cache=True)
    trace = recorder.trace
    assert trace.request.tolist() == [0] * 5 + [1] * 5 + [2] * 3 + [0, 1, 2]
    assert trace.phase.tolist() == [PREFILL] * 13 + [DECODE] * 3


def test_what_a_pass_may_not_be_is_an_error(olmoe: Any) -> None:
    ids = prompt(2, 5)["input_ids"]
    with torch.no_grad(), Recorder(olmoe):
        with pytest.raises(SpecmdError, match="2-dimensional"):
            olmoe(ids, attention_mask=torch.ones(2, 1, 5, 5, dtype=torch.bool))
        with pytest.raises(SpecmdError, match="type tuple is not known"):
            olmoe.model(ids, **{CACHE: ((ids, ids),)})
        with pytest.raises(SpecmdError, match="packed"):
            olmoe(ids, cu_seq_lens_q=torch.tensor([0, 5]))

        class Asking(LogitsProcessor):
            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                olmoe(input_ids)
                return scores

        with pytest.raises(SpecmdError, match="inside generate"):
            generate(olmoe, prompt(2, 5), logits_processor=[Asking()])
    with pytest.raises(SpecmdError, match="release of transformers"):
        PassReader(torch.nn.Linear(2, 2))
