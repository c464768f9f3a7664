"""Quality: answers of one model beside those of another, against a plain reckoning."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_models import OLMOE, SIZES, build_random

from specmd.errors import SpecmdError
from specmd.live import offload
from specmd.measurement.quality import PROMPT_SHARE, Answers, answers, quality
from specmd.models.generation import Generation
from specmd.models.prompts import Prompt


class Letters:
    """A tokenizer: one token a character."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(each) % 90 for each in text]}


TEXTS = ("a first text of some length, forced", "another text, which is longer than the first")


def generation(*texts: str, batch: int = 1) -> Generation:
    return Generation(tuple(map(Prompt, texts)), max_new_tokens=5, batch=batch)


def model(seed: int = 0) -> Any:
    return build_random("Olmoe", SIZES | OLMOE, seed)


def test_a_model_beside_itself_behind_a_cache() -> None:
    found = []
    for capacity in ("100%", 4):
        there = model()
        with offload(there, capacity=capacity, link="cpu", interpreted=True):
            found.append(answers(there, Letters(), generation(*TEXTS, batch=2)))
    assert quality(*found) == {
        "quality_kl": 0.0,
        "quality_ppl_ratio": 1.0,
        "quality_top1": 1.0,
        "greedy_match": 5.0,
    }


def test_another_model_against_whole_passes() -> None:
    one, other = model(0), model(1)
    found = quality(*(answers(each, Letters(), generation(*TEXTS)) for each in (one, other)))
    kls, nlls, agreed = [], [], []
    for text in TEXTS:
        ids = torch.tensor([Letters()(text)["input_ids"]])
        first = ids.shape[1] // PROMPT_SHARE - 1
        with torch.no_grad():
            p, q = (
                torch.log_softmax(each(ids).logits[0, first:-1].double(), -1)
                for each in (one, other)
            )
        target = ids[0, first + 1 :]
        kls += (p.exp() * (p - q)).sum(-1).tolist()
        nlls += (p - q)[torch.arange(len(target)), target].tolist()
        agreed += (p.argmax(-1) == q.argmax(-1)).tolist()
    assert found["quality_kl"] == pytest.approx(sum(kls) / len(kls), rel=1e-4)
    assert found["quality_kl"] > 0.01
    ratio = math.exp(sum(nlls) / len(nlls))
    assert found["quality_ppl_ratio"] == pytest.approx(ratio, rel=1e-4)
    assert found["quality_top1"] == sum(agreed) / len(agreed)


def test_greedy_match_is_the_mean_of_the_tokens_before_the_first_that_differs() -> None:
    flat = torch.full((1, 2), math.log(0.5))
    one = Answers(flat, torch.zeros(1, dtype=torch.int64), [[1, 2, 3], [4, 5, 6]])
    other = Answers(flat, torch.zeros(1, dtype=torch.int64), [[1, 2, 3], [4, 7, 6]])
    assert quality(one, other)["greedy_match"] == 2.0


def test_texts_that_are_too_short() -> None:
    with pytest.raises(SpecmdError, match="none is that long"):
        answers(model(), Letters(), generation("short"))
