"""Loading models by what a user calls them: `tiny`, a folder, or a name on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from specmd.errors import SpecmdError

TINY_NAMES = ("tiny", "builtin")


def load_model(
    name: str | PathLike[str], *, dtype: str | None = None, without_experts: bool = False
) -> tuple[Any, Any]:
    """Load `(model, tokenizer)` onto the host.

    Args:
        name: `tiny` for the shipped model, else a folder or a hub name.
        dtype: of the weights, a name torch knows; by default the checkpoint's, fp32 for `tiny`.
        without_experts: leave the routed experts on `meta`, to be read from disk as needed.

    Raises:
        SpecmdError: transformers is not installed, or nothing loadable is found under the name.

    """
    _require_transformers()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kind = _dtype(dtype)
    if str(name) in TINY_NAMES:
        from specmd.models.tiny import load_tiny

        return load_tiny(dtype or "float32")
    refuse_missing(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        if without_experts:
            from specmd.models.meta import load_without_experts

            return load_without_experts(name), tokenizer
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=kind or "auto")
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpecmdError(f"model '{name}' cannot be loaded: {reason}") from None
    return model.eval(), tokenizer


def outline_model(name: str | PathLike[str], dtype: str | None = None) -> Any:
    """Build a model on the meta device, all of its sizes and none of its weights.

    Raises:
        SpecmdError: as `load_model`.

    """
    _require_transformers()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    place: Any = name
    kind = _dtype(dtype)
    if str(name) in TINY_NAMES:
        from specmd.models.tiny import path

        place, kind = path(), kind or torch.float32
    refuse_missing(place)
    try:
        config: Any = AutoConfig.from_pretrained(place)
        with torch.device("meta"):
            auto: Any = AutoModelForCausalLM
            return auto.from_config(config, dtype=kind or config.dtype or torch.float32)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpecmdError(f"model '{name}' cannot be loaded: {reason}") from None


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads inside; None leaves them as they are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def local_folder(name: str | PathLike[str]) -> Path | None:
    """Return the folder a model is loaded from, None for one that the hub's cache holds."""
    if str(name) in TINY_NAMES:
        from specmd.models.tiny import path

        return path()
    return Path(name) if Path(name).is_dir() else None


def model_name(name: str | PathLike[str]) -> str:
    """Return what results and traces call the model."""
    if str(name) in TINY_NAMES:
        from specmd.models.tiny import MODEL_NAME

        return MODEL_NAME
    return Path(name).name


def refuse_missing(model: str | PathLike[str]) -> None:
    """Raise SpecmdError for what can only be a folder and is not there, without asking the hub."""
    text, path = str(model), Path(model)
    looks_like_a_path = path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1
    if looks_like_a_path and not path.is_dir():
        raise SpecmdError(
            f"{model}: no such folder: give a folder with a model, a hub name or tiny"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise SpecmdError(
            f"{model}: no config.json there: give a folder that save_pretrained wrote"
        )


def quiet_hub(*, bars: bool) -> None:
    """Keep retries of the hub off stderr, and progress bars unless `bars`."""
    import logging

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if bars:
        return
    try:
        from transformers.utils import logging as transformers_logging
    except ImportError:
        return  # load_model says how to install it
    disable: Any = transformers_logging.disable_progress_bar
    disable()


def _require_transformers() -> None:
    try:
        import transformers
    except ImportError:
        raise SpecmdError(
            "running a model needs transformers: pip install 'specmd-bench[record]'"
        ) from None
    del transformers


def _dtype(name: str | None) -> Any:
    import torch

    if name is None:
        return None
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise SpecmdError(f"dtype '{name}': choose float32, bfloat16 or float16")
    return kind
