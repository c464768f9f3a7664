"""The embedded model: a small OLMoE with trained routing, and prompts to record it with.

Real code of the real class on any laptop: 8 layers of 16 experts, top-4, 8 MB. Its text is poor;
its routing has the traits that matter to a cache (skewed popularity, reuse between neighbouring
tokens, predictability one layer ahead). The card in README.md of this folder gives sources,
licences and figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specmd.errors import SpecmdError

FOLDER = Path(__file__).resolve().parent
PROMPTS = FOLDER / "prompts.jsonl"
MODEL_NAME = "specmd-tiny-olmoe"


def path() -> Path:
    """Folder of the model, as `from_pretrained` of transformers takes it."""
    return FOLDER


def load_tiny(dtype: str = "float32") -> tuple[Any, Any]:
    """Load `(model, tokenizer)`, in evaluation mode on the CPU.

    Args:
        dtype: `float32` (the default: exact on every CPU) or `bfloat16`, as stored.

    Raises:
        SpecmdError: transformers is not installed, or the files of the model are missing.

    """
    try:
        import torch
        from transformers import AutoTokenizer, OlmoeForCausalLM
        from transformers.utils import logging
    except ImportError:
        raise SpecmdError(
            "the tiny model needs transformers: pip install 'specmd-bench[record]'"
        ) from None
    if not (FOLDER / "model.safetensors").is_file():
        raise SpecmdError(f"{FOLDER}: model.safetensors is missing: install the package again")
    bars: Any = logging
    had_bar = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()  # 8 MB load in a blink
    try:
        model: Any = OlmoeForCausalLM.from_pretrained(FOLDER, dtype=getattr(torch, dtype))
    finally:
        if had_bar:
            bars.enable_progress_bar()
    model.config._name_or_path = MODEL_NAME
    return model.eval(), AutoTokenizer.from_pretrained(FOLDER, padding_side="left")
