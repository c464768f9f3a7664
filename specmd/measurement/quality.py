"""Quality, measured: what a lossy composition of policies makes of a model's answers.

A text is forced on the model token by token, as if it had said it: the first quarter as a prompt,
then one step a token, through the cache as in any decode, so that what is routed by what is
resident meets what really is resident. At each step the distribution of the next token is set
beside that of the same model, kernels and cache under lossless policies. A text that the model was
trained on flatters, whatever is left out of the model: give another.

Beside that, both continue each prompt greedily, until they differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from specmd.errors import SpecmdError
from specmd.models.generation import Generation
from specmd.models.passes import cache_argument
from specmd.runs.run import Metrics

MOST_POSITIONS = 2048
"""Positions that are compared at most; each keeps a distribution over the vocabulary."""
AT_ONCE = 64
LONGEST = 128
SHORTEST = 8
PROMPT_SHARE = 4


@dataclass(frozen=True)
class Answers:
    """What a model said to some texts: N positions, R texts.

    Attributes:
        log_probs: (N, V) float32 on the host, of the next token.
        targets: (N,) the token that the text goes on with.
        continued: R rows of tokens, as the model went on greedily after the prompts.

    """

    log_probs: Tensor
    targets: Tensor
    continued: list[list[int]]


def answers(model: Any, tokenizer: Any, generation: Generation) -> Answers:
    """Force the texts of a generation's prompts on a model, and let it go on greedily.

    Texts are cut to the shortest of their batch and to LONGEST tokens; whole texts are left out
    once there are MOST_POSITIONS.

    Args:
        model: a transformers causal model, behind a cache or not.
        tokenizer: its tokenizer.
        generation: texts, how many run together, and how far they are continued.

    Raises:
        SpecmdError: no text is long enough.

    """
    device = next(model.parameters()).device
    said: list[Tensor] = []
    targets: list[Tensor] = []
    continued: list[list[int]] = []
    positions = 0
    with torch.no_grad():
        for ids in _batches(tokenizer, generation):
            prompt = max(1, ids.shape[1] // PROMPT_SHARE)
            for step, logits in enumerate(_forced(model, ids.to(device), prompt)):
                said.append(torch.log_softmax(logits.float(), -1).cpu())
                targets.append(ids[:, prompt + step])
            continued += _continued(model, ids[:, :prompt].to(device), generation.max_new_tokens)
            positions += ids.shape[0] * (ids.shape[1] - prompt)
            if positions >= MOST_POSITIONS:
                break
    return Answers(torch.cat(said), torch.cat(targets), continued)


def quality(lossless: Answers, found: Answers) -> Metrics:
    """Set answers beside those of the lossless run.

    `quality_kl` is the mean over positions of KL(lossless || found) in nats, `quality_ppl_ratio`
    the quotient of the perplexities of the text, `quality_top1` the share of positions at which
    the likeliest token is the same, `greedy_match` the mean of the tokens until the first that
    differs, of at most as many as were generated.
    """
    kl = gained = 0.0
    agreed = 0
    parts = (lossless.log_probs, found.log_probs, lossless.targets)
    for own, other, target in zip(*(torch.split(each, AT_ONCE) for each in parts), strict=True):
        mine, its = own.double(), other.double()
        kl += float(kl_div(its, mine, log_target=True, reduction="sum"))
        agreed += int((mine.argmax(-1) == its.argmax(-1)).sum())
        gained += float((mine - its).gather(1, target[:, None]).sum())
    count = len(lossless.targets)
    matched = [
        _same(own, other) for own, other in zip(lossless.continued, found.continued, strict=True)
    ]
    return {
        "quality_kl": max(0.0, kl / count),
        "quality_ppl_ratio": exp(gained / count),
        "quality_top1": agreed / count,
        "greedy_match": sum(matched) / len(matched),
    }


def _batches(tokenizer: Any, generation: Generation) -> Iterator[Tensor]:
    """Tokens (B, T) of the texts, batch after batch; all of a batch are equally long."""
    texts = [tokenizer(each.text)["input_ids"][:LONGEST] for each in generation.prompts]
    texts = [each for each in texts if len(each) >= SHORTEST]
    if not texts:
        raise SpecmdError(f"quality needs texts of {SHORTEST} tokens or more: none is that long")
    for start in range(0, len(texts), generation.batch):
        group = texts[start : start + generation.batch]
        shortest = min(map(len, group))
        yield torch.tensor([each[:shortest] for each in group])


def _forced(model: Any, ids: Tensor, prompt: int) -> Iterator[Tensor]:
    """Logits (B, V) after the prompt and after each token but the last."""
    name = cache_argument(model)
    output = model(ids[:, :prompt], use_cache=True)
    yield output.logits[:, -1]
    for place in range(prompt, ids.shape[1] - 1):
        kept = {name: getattr(output, name)}
        output = model(ids[:, place : place + 1], **kept, use_cache=True)
        yield output.logits[:, -1]


def _continued(model: Any, ids: Tensor, tokens: int) -> list[list[int]]:
    """Rows of tokens that follow greedily."""
    padding = getattr(model.generation_config, "pad_token_id", None)
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0 if padding is None else padding,
    )
    rows: list[list[int]] = found[:, ids.shape[1] :].cpu().tolist()
    return rows


def _same(one: list[int], other: list[int]) -> int:
    """Count the tokens before the first that differs."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
