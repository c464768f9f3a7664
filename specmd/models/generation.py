"""Prompts, and how a model continues them: in batches, sampled or greedy, the same every time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.models.prompts import Prompt


@dataclass(frozen=True)
class Generation:
    """What to generate.

    Args:
        prompts: texts.
        max_new_tokens: tokens generated for each prompt, fewer where the model ends its text.
        batch: prompts that run together; the last batch may be smaller.
        temperature: of sampling; 0 decodes greedily.
        seed: of sampling.
        max_prompt_tokens: cut prompts to this many tokens.
        prefill_chunk: tokens of a prefill chunk, or None for one pass.

    Raises:
        SpecmdError: an impossible number.

    """

    prompts: tuple[Prompt, ...]
    max_new_tokens: int = 64
    batch: int = 1
    temperature: float = 0.8
    seed: int = 0
    max_prompt_tokens: int | None = None
    prefill_chunk: int | None = None

    def __post_init__(self) -> None:
        for label in ("max_new_tokens", "batch"):
            value = getattr(self, label)
            if value < 1:
                raise SpecmdError(f"{label} {value}: give 1 or more")
        if self.temperature < 0:
            raise SpecmdError(f"temperature {self.temperature}: give 0 (greedy) or more")

    def batches(self, model: Any, tokenizer: Any) -> Iterator[Tensor]:
        """Generate batch after batch; yields the tokens (B, prompt + new) of each.

        Draws from torch's global generator, which is left where it was.
        """
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "use_cache": True}
        if self.prefill_chunk is not None:
            options["prefill_chunk_size"] = self.prefill_chunk
        if self.temperature > 0:
            options |= {"do_sample": True, "temperature": self.temperature}
            options |= {"top_k": 0, "top_p": 1.0}
        else:
            options |= {"do_sample": False}
        device = next(model.parameters()).device
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.seed)
            for start in range(0, len(self.prompts), self.batch):
                group = [prompt.text for prompt in self.prompts[start : start + self.batch]]
                inputs = _encode(tokenizer, group, self.max_prompt_tokens)
                ids, mask = (inputs[name].to(device) for name in ("input_ids", "attention_mask"))
                yield model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    pad_token_id=_padding_id(tokenizer),
                    **options,
                )

    def source(self) -> str:
        """Say what the prompts are: `3 prompts (3 prose)`."""
        counts = Counter(prompt.domain or "unnamed" for prompt in self.prompts)
        domains = ", ".join(f"{count} {domain}" for domain, count in sorted(counts.items()))
        return f"{len(self.prompts)} prompts ({domains})"

    def manner(self) -> str:
        """Say how they are continued, in a sentence."""
        how = f"sampled at temperature {self.temperature:g}, seed {self.seed}"
        how = how if self.temperature else "greedy"
        return f"Batch {self.batch}, up to {self.max_new_tokens} new tokens, {how}."

    def facts(self) -> dict[str, Any]:
        """Return what identifies it, as JSON: the settings, and a hash of the texts."""
        hasher = hashlib.blake2b(digest_size=12)
        for prompt in self.prompts:
            hasher.update(prompt.text.encode() + b"\0")
        return {
            "prompts": len(self.prompts),
            "prompts_digest": hasher.hexdigest(),
            "max_new_tokens": self.max_new_tokens,
            "batch": self.batch,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_prompt_tokens": self.max_prompt_tokens,
            "prefill_chunk": self.prefill_chunk,
        }


def _encode(tokenizer: Any, texts: list[str], limit: int | None) -> Any:
    """Token ids and mask (B, P), padded on the left."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    previous, tokenizer.padding_side = tokenizer.padding_side, "left"
    try:
        return tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            truncation=limit is not None,
            max_length=limit,
            return_token_type_ids=False,
        )
    finally:
        tokenizer.padding_side = previous


def _padding_id(tokenizer: Any) -> int:
    found = tokenizer.pad_token_id
    return int(found if found is not None else tokenizer.eos_token_id)
