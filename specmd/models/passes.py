"""What the forward passes of a model are: whose tokens, of which phase, and which of them count.

A forward pass sees a rectangle of tokens (rows x columns). Not all of it is real work: prompts of
unequal length are padded on the left, and a request that has ended keeps its row until the whole
batch ends. Neither is recorded nor given experts, because a serving system would not compute it.
Recorder and live cache read passes here and nowhere else.

Inside `generate` a pass is of the prefill until the stopping criteria have been asked once, and a
row counts until `generate` pads what it samples (see `specmd.models.decoding`). In a bare loop of
forward calls every row of a decode counts: a pass over an empty cache opens new requests, one over
a cache seen before continues its requests, and one column of tokens over a cache that holds some
decodes. What is not recognised is an error.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from specmd.errors import SpecmdError
from specmd.models.decoding import UNKNOWN, GenerateCall, unmasked
from specmd.trace import DECODE, PREFILL

_CACHES = ("cache", "past_key_values")  # in newer and in older releases of transformers


@dataclass(frozen=True)
class Batch:
    """Requests that travel together: row b holds request `first_request + b`."""

    first_request: int
    rows: int


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    Attributes:
        batch: its requests.
        phase: PREFILL or DECODE.
        columns: tokens of each row.
        token_ids: (rows, columns) what is fed in, or None where embeddings are.
        real: (rows, columns) or (rows, 1) which tokens count, where the model is; None: all.

    """

    batch: Batch
    phase: int
    columns: int
    token_ids: Tensor | None
    real: Tensor | None

    @property
    def tokens(self) -> int:
        """Tokens, those that count or not."""
        return self.batch.rows * self.columns


def cache_argument(decoder: nn.Module) -> str:
    """Return what the forward of a decoder calls its KV cache.

    Raises:
        SpecmdError: it takes none of the names that are known.

    """
    names = inspect.signature(decoder.forward).parameters
    found = next((name for name in _CACHES if name in names), None)
    if found is None or not {"input_ids", "attention_mask", "inputs_embeds"} <= set(names):
        raise SpecmdError(f"{type(decoder).__name__} takes ({', '.join(names)}): {UNKNOWN}")
    return found


class PassReader:
    """Reads the forward passes of one decoder, in the thread that runs it.

    `begin` comes before the decoder's forward, `end` after it, `follow` around `generate`.

    Args:
        decoder: the decoder.
        skips: whether tokens that do not count are not computed either. What a KV cache holds of
            them means nothing then, so a later pass over it must mask them or is refused.

    Raises:
        SpecmdError: the decoder's forward has arguments that are not known.

    """

    def __init__(self, decoder: nn.Module, *, skips: bool = False) -> None:
        cache_argument(decoder)
        self._names = tuple(inspect.signature(decoder.forward).parameters)
        self._skips = skips
        self._batches: WeakKeyDictionary[Any, Batch] = WeakKeyDictionary()
        self._holes: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()  # (rows, columns)
        self._call: GenerateCall | None = None
        self._pass: Pass | None = None
        self._cached = 0  # columns in the cache before the pass, or before the `generate`
        self._requests = 0
        self._thread: int | None = None
        self._claiming = threading.Lock()

    @property
    def in_generate(self) -> bool:
        """Whether a `generate` is running."""
        return self._call is not None

    @property
    def elsewhere(self) -> bool:
        """Whether another thread is running the model."""
        return self._thread not in (None, threading.get_ident())

    def restart(self) -> None:
        """Count requests from 0 again, all of them new."""
        self._requests, self._batches = 0, WeakKeyDictionary()

    def claim(self) -> None:
        """Take the model for this thread, until the pass or the `generate` ends.

        Raises:
            SpecmdError: another thread is running it.

        """
        with self._claiming:
            if self.elsewhere:
                raise SpecmdError(
                    "another thread is running this model: while it is recorded or offloaded, a "
                    "model serves one thread at a time, so let the threads take turns"
                )
            self._thread = threading.get_ident()

    def follow(self, model: nn.Module, generate: Callable[..., Any]) -> Callable[..., Any]:
        """Return a `generate` of `model` whose passes are read as its own."""

        @functools.wraps(generate)
        def followed(*args: Any, **kwargs: Any) -> Any:
            self.claim()
            outer, call = self._call, GenerateCall(model, kwargs)  # token healing nests them
            self._call = call
            try:
                with call.heard(active=lambda: self._call is call):
                    return generate(*args, **kwargs)
            finally:
                self._call, self._pass = outer, None
                if call.cache is not None and call.batch is not None:
                    self._skip(call.cache, call.batch.rows, call.cached, call.computed)
                if outer is None:
                    self._thread = None

        return followed

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Pass:
        """Read the arguments of the decoder's forward.

        Raises:
            SpecmdError: they are not those of a pass that is known.

        """
        self.claim()
        given = dict(zip(self._names, args, strict=False)) | dict(kwargs)
        fed = given.get("input_ids")
        shaped = fed if fed is not None else given.get("inputs_embeds")
        if shaped is None:
            raise SpecmdError("the decoder was called without input_ids or inputs_embeds")
        if any(name.startswith("cu_seq_lens") for name in given):
            raise SpecmdError("requests packed into one row cannot be told apart: pad them instead")
        cache = next((given[name] for name in _CACHES if given.get(name) is not None), None)
        if cache is not None and not hasattr(cache, "get_seq_length"):
            raise SpecmdError(f"a KV cache of type {type(cache).__name__} is not known")
        rows, columns = int(shaped.shape[0]), int(shaped.shape[1])
        if self._call is not None:
            batch, phase, real = self._generated(self._call, cache, rows, columns)
        else:
            self._cached = cached = 0 if cache is None else int(cache.get_seq_length())
            batch = (self._batches.get(cache) if cached else None) or self._open(rows)
            phase = DECODE if cached and columns == 1 else PREFILL
            mask = given.get("attention_mask")
            real = None if phase == DECODE else unmasked(mask, columns)
            self._require_masked(cache, cached, mask)
        if rows != batch.rows:
            raise SpecmdError(
                f"a forward pass of {rows} rows continues a batch of {batch.rows}: run each "
                f"batch from its own prefill on"
            )
        if cache is not None:
            self._batches[cache] = batch
        self._pass = Pass(batch, phase, columns, fed, real)
        return self._pass

    def end(self, output: Any) -> None:
        """Note that the decoder has returned, if it did, and which cache it made for the pass."""
        done, self._pass = self._pass, None
        if self._call is not None:
            if done is not None and self._skips:
                self._call.computed.append(_whole(done))
            return
        self._thread = None
        values = output.values() if isinstance(output, Mapping) else output
        if done is None or not isinstance(values, Iterable):
            return
        made = next((value for value in values if hasattr(value, "get_seq_length")), None)
        if made is not None:
            self._batches[made] = done.batch
            if done.real is not None:
                self._skip(made, done.batch.rows, self._cached, [_whole(done)])

    def _open(self, rows: int) -> Batch:
        batch = Batch(self._requests, rows)
        self._requests += rows
        return batch

    def _generated(
        self, call: GenerateCall, cache: Any, rows: int, columns: int
    ) -> tuple[Batch, int, Tensor | None]:
        """Return batch, phase and what counts of a pass inside `generate`."""
        call.require_heard()
        decodes = call.stopped is not None
        if call.batch is None and cache is not None:
            call.batch, call.cache = self._open(rows), cache
            call.cached = int(cache.get_seq_length())
            self._require_masked(cache, call.cached, call.mask)
        elif call.cache is not cache or (columns > 1 if decodes else not call.chunked):
            raise SpecmdError(
                "a forward pass inside generate that is neither its prefill nor one token more of "
                "each row: this way of decoding cannot be recorded or offloaded"
            )
        return call.batch, DECODE if decodes else PREFILL, call.real(columns)

    def _skip(self, cache: Any, rows: int, cached: int, computed: list[Tensor]) -> None:
        """Note which places of a cache, after `cached` columns, hold nothing that was computed."""
        if not self._skips or not computed:
            return
        found = ~torch.cat([each.cpu() for each in computed], dim=1)
        before = self._holes.get(cache, found[:, :0])[:, :cached]
        gap = found.new_zeros(rows, cached - before.shape[1])
        holes = torch.cat([before, gap, found], dim=1)
        if holes.any():
            self._holes[cache] = holes
        else:
            self._holes.pop(cache, None)

    def _require_masked(self, cache: Any, cached: int, mask: Any) -> None:
        """Raise SpecmdError if a pass may attend to what was not computed."""
        holes = self._holes.get(cache) if cached else None
        if holes is None:
            return
        holes = holes[:, :cached]
        known = isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[1] >= holes.shape[1]
        if not known or bool((mask[:, : holes.shape[1]].bool().cpu() & holes).any()):
            raise SpecmdError(
                "this KV cache holds tokens for which no experts were computed: give a "
                "2-dimensional attention_mask that is 0 on padding, and from the end of a row's "
                "text on where other rows went on"
            )


def _whole(done: Pass) -> Tensor:
    """Return (rows, columns) which tokens of a pass counted."""
    shape = (done.batch.rows, done.columns)
    return torch.ones(shape, dtype=torch.bool) if done.real is None else done.real.expand(shape)
