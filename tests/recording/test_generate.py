"""Prompts in, trace out: what `specmd record` calls, on the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specmd.errors import SpecmdError
from specmd.recording import Prompt, load_model, read_prompts, record_model
from specmd.trace import DECODE, load


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_model("tiny")


def test_the_tiny_model_is_what_its_card_says(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    assert type(model).__name__ == "OlmoeForCausalLM"
    assert (model.config.num_hidden_layers, model.config.num_experts) == (8, 16)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (0, 1, 2048)
    text = "def f(x):\n    return {x: 10}  # über\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    from specmd.models.tiny import path

    assert (path() / "model.safetensors").stat().st_size < 10_000_000


def test_the_shipped_prompts_cover_several_domains() -> None:
    prompts = read_prompts()
    assert {prompt.domain for prompt in prompts} == {"code", "docs", "jargon", "math", "prose"}
    assert len(prompts) == 30
    assert {prompt.domain for prompt in read_prompts(domain="math")} == {"math"}


def test_a_recording_in_batches(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    out = tmp_path / "t.npz"
    seen: list[tuple[int, int]] = []
    trace = record_model(
        *tiny,
        read_prompts()[::6],
        max_new_tokens=12,
        batch=2,
        logits="full",
        lookahead=2,
        out=out,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert load(out).digest == trace.digest
    header = trace.header
    assert (header.num_layers, header.num_experts, header.top_k) == (8, 16, 4)
    assert header.model == "specmd-tiny-olmoe"
    assert header.expert_bytes == 3 * 128 * 64 * 4
    assert header.source == "5 prompts (1 code, 1 docs, 1 jargon, 1 math, 1 prose)"
    assert "sampled at temperature 0.8, seed 0" in header.notes
    assert header.complete
    assert trace.num_requests == 5
    assert trace.prompt_lengths.min() > 20
    widest = np.bincount(trace.step[trace.phase == DECODE]).max()
    assert widest == 2


def test_the_seed_decides_and_the_global_generator_is_left_alone(tiny: tuple[Any, Any]) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    texts = ["In the beginning", "import os"]
    digests = [
        record_model(*tiny, texts, max_new_tokens=8, batch=2, seed=seed).digest
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(state, torch.get_rng_state())


def test_chunks_and_cut_prompts(tiny: tuple[Any, Any]) -> None:
    trace = record_model(
        *tiny,
        [Prompt("word " * 60)],
        max_new_tokens=3,
        max_prompt_tokens=20,
        prefill_chunk=8,
        temperature=0,
        header={"license": "CC0-1.0"},
    )
    assert trace.prompt_lengths.tolist() == [20]
    assert trace.num_steps == 3 + 2
    assert "greedy" in trace.header.notes
    assert trace.header.license == "CC0-1.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch 0"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"temperature": -1.0}, "temperature"),
        ({"logits": "some"}, "choose none, top or full"),
    ],
)
def test_impossible_options(tiny: tuple[Any, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecmdError, match=message):
        record_model(*tiny, ["a"], **options)


def test_bad_prompts(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(SpecmdError, match="no prompts"):
        record_model(*tiny, [])
    with pytest.raises(SpecmdError, match="prompt 2 is empty"):
        record_model(*tiny, ["a", {"domain": "x"}])
    with pytest.raises(SpecmdError, match="cannot be read"):
        read_prompts(tmp_path / "missing.jsonl")
    with pytest.raises(SpecmdError, match="known: code, docs"):
        read_prompts(domain="poetry")
    file = tmp_path / "p.jsonl"
    for line in ("{", "[1]", '{"text": 3}', '{"domain": "x"}', '{"text": "a", "domain": 1}', '"a"'):
        file.write_text('{"text": "good"}\n\n' + line + "\n")
        with pytest.raises(SpecmdError, match="line 3: expected"):
            read_prompts(file)
    file.write_text('{"text": "good"}\n')
    assert read_prompts(file) == [Prompt("good")]


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecmdError, match="nowhere: no such folder"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SpecmdError, match=r"model '.*' cannot be loaded: ") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)
