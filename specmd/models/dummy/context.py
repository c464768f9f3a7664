"""KV caches that mean nothing, of the size that the requests of a step would have.

What a step attends to decides what attention costs; what it says does not. So every step gets a
fresh `DynamicCache` whose layers are views of one buffer of random numbers, made once: memory does
not grow with the steps, and the copy that transformers makes of a layer's cache when it appends to
it (the real price of a `DynamicCache`) is made here, too. What a family keeps (heads, their width,
latents, a sliding window) is not looked up but measured, with one pass of one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from specmd.models.dummy.noise import Noise
from specmd.models.moe import MoeModel
from specmd.models.passes import cache_argument


class Context:
    """Makes the KV caches of one model.

    Args:
        model: the model; its experts are not touched.
        moe: its MoE layers.
        seed: of the cached values.

    Attributes:
        argument: name under which the model takes its cache.
        bytes_per_token: of one token of one request, over all layers, without a sliding window.

    """

    def __init__(self, model: Any, moe: MoeModel, seed: int = 0) -> None:
        self._config, self._seed = model.config, seed
        self.argument = cache_argument(moe.decoder)
        cache = _probe(model, moe)
        self._sizes = [(layer.keys.shape, layer.values.shape) for layer in cache.layers]
        self._dtype = cache.layers[0].keys.dtype
        self._buffer = torch.empty(0, dtype=self._dtype)
        self.bytes_per_token = self._dtype.itemsize * sum(
            keys[1] * keys[3] + values[1] * values[3] for keys, values in self._sizes
        )

    def reserve(self, slots: int, device: torch.device) -> None:
        """Make the buffer for caches of up to `slots` tokens (rows times tokens of a row)."""
        widest = max(keys[1] * keys[3] + values[1] * values[3] for keys, values in self._sizes)
        if len(self._buffer) >= slots * widest and self._buffer.device == device:
            return
        fresh = torch.empty(slots * widest, dtype=self._dtype)
        Noise(self._seed, self._dtype).fill(fresh)
        self._buffer = fresh.to(device)

    def cache(self, rows: int, cached: int) -> Any:
        """Return a `DynamicCache` that holds `cached` tokens of each row."""
        from transformers import DynamicCache

        made: Any = DynamicCache(config=self._config)
        if not cached:
            return made
        for layer, (keys, values) in zip(made.layers, self._sizes, strict=True):
            window = getattr(layer, "sliding_window", None)
            kept = cached if window is None else min(cached, window - 1)
            first, key_view = self._view(0, (rows, keys[1], kept, keys[3]))
            _, value_view = self._view(first, (rows, values[1], kept, values[3]))
            layer.lazy_initialization(key_view, value_view)
            layer.keys, layer.values = key_view, value_view
            if window is not None:
                layer.cumulative_length = cached
        return made

    def _view(self, first: int, shape: tuple[int, int, int, int]) -> tuple[int, Tensor]:
        last = first + shape[0] * shape[1] * shape[2] * shape[3]
        return last, self._buffer[first:last].view(shape)


@torch.no_grad()
def _probe(model: Any, moe: MoeModel) -> Any:
    """Pass one token through the decoder, experts left out, and return its KV cache."""
    device = model.get_input_embeddings().weight.device
    with _silent(moe):
        output: Any = moe.decoder(
            input_ids=torch.zeros((1, 1), dtype=torch.int64, device=device), use_cache=True
        )
    return output[cache_argument(moe.decoder)]


@contextmanager
def _silent(moe: MoeModel) -> Iterator[None]:
    """Let the experts return zeros."""

    def nothing(hidden: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return torch.zeros_like(hidden)

    modules: list[nn.Module] = [layer.experts for layer in moe.layers]
    try:
        for module in modules:
            module.__dict__["forward"] = nothing
        yield
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)
