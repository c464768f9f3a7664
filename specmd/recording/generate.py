"""Run prompts through a model in batches and record it: what `specmd record` does.

Sampling, not greedy decoding, is the default: a small model that always takes the likeliest token
soon repeats itself, and a trace of a loop has a locality that no real text has. The seed is fixed,
so two runs on one machine give the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from specmd.models.generation import Generation
from specmd.models.prompts import Prompt, as_prompts
from specmd.recording.recorder import Logits, Recorder
from specmd.trace import Trace


def record_model(
    model: Any,
    tokenizer: Any,
    prompts: Iterable[Prompt | str | Mapping[str, Any]],
    *,
    max_new_tokens: int = 64,
    batch: int = 1,
    logits: Logits = "top",
    lookahead: int = 1,
    out: str | PathLike[str] | None = None,
    temperature: float = 0.8,
    seed: int = 0,
    max_prompt_tokens: int | None = None,
    prefill_chunk: int | None = None,
    header: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Generate from `prompts` and return the trace.

    Args:
        model: a transformers causal MoE model.
        tokenizer: its tokenizer; the end-of-sequence token pads where it has no padding token.
        prompts: texts, see `read_prompts`.
        max_new_tokens: tokens generated for each prompt, fewer where the model ends its text.
        batch: prompts that run together; the last batch may be smaller.
        logits: `none`, `top` or `full`; see `Recorder`.
        lookahead: depth of the lookahead scores, 0 for none.
        out: trace file, written as the recording goes; None keeps it in memory.
        temperature: of sampling; 0 decodes greedily.
        seed: of sampling.
        max_prompt_tokens: cut prompts to this many tokens.
        prefill_chunk: tokens of a prefill chunk, or None for one pass.
        header: fields of the trace's header that override the ones found.
        progress: called with (prompts done, prompts) before the first and after every batch.

    Raises:
        SpecmdError: not a MoE model, no prompts, an impossible number, or an interrupted recording
            in the way. Any other exception, Ctrl-C among them, leaves a truncated trace behind.

    """
    generation = Generation(
        tuple(as_prompts(prompts)),
        max_new_tokens=max_new_tokens,
        batch=batch,
        temperature=temperature,
        seed=seed,
        max_prompt_tokens=max_prompt_tokens,
        prefill_chunk=prefill_chunk,
    )
    fields = {"source": generation.source(), "notes": generation.manner()} | dict(header or {})
    total = len(generation.prompts)
    recorder = Recorder(model, lookahead=lookahead, logits=logits, out=out, header=fields)
    with recorder:
        if progress is not None:
            progress(0, total)
        for number, _tokens in enumerate(generation.batches(model, tokenizer), 1):
            if progress is not None:
                progress(min(number * batch, total), total)
    return recorder.trace


def default_name(model: str | PathLike[str]) -> str:
    """Return the file name under which a recording of `model` is written if none is given."""
    return f"{Path(model).name}.npz"
