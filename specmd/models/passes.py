"""Which request a row of a batch belongs to, whether its token counts, and in which phase.

A forward pass sees a rectangle of tokens (rows x columns). Not all of it is real work:

* prompts of unequal length are padded on the left, and the attention mask says where;
* a request that has ended keeps its row until the whole batch ends, fed with padding.

Neither is recorded, because a serving system would not compute them. A pass belongs to the
prefill while it consumes prompt columns (one pass, or several chunks), and to the decode
afterwards. Inside `generate` the prompt's width is known from the call; in a bare loop of forward
calls, a pass without cached tokens opens new requests, and one of one column over a cache decodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.trace import DECODE, PREFILL

_SPECULATIVE = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")


@dataclass
class Batch:
    """The requests that travel together through one `generate` call or one loop.

    Attributes:
        first_request: number of the request in row 0; row b is `first_request + b`.
        rows: requests in the batch.
        prompt_columns: prompt columns still to prefill, or None outside `generate`.
        seen: columns already in the cache.
        stop_ids: token ids that, fed to a decode step, mean that the row has ended.
        finished: (rows,) which rows have ended.

    """

    first_request: int
    rows: int
    prompt_columns: int | None
    seen: int
    stop_ids: NDArray[np.int64]
    finished: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.finished = np.zeros(self.rows, dtype=np.bool_)

    def advance(self, columns: int) -> int:
        """Return the phase of the next pass, of `columns` tokens a row, and count it."""
        before, self.seen = self.seen, self.seen + columns
        if self.prompt_columns is None:
            return DECODE if columns == 1 and before else PREFILL
        if self.prompt_columns <= 0:
            return DECODE
        self.prompt_columns -= columns
        return PREFILL

    def real_tokens(
        self,
        phase: int,
        tokens: NDArray[np.int64] | None,
        mask: NDArray[np.bool_] | None,
        width: int,
    ) -> NDArray[np.bool_]:
        """Return (rows, width) which tokens of a pass count; ended rows are remembered."""
        real = np.ones((self.rows, width), dtype=np.bool_) if mask is None else mask
        if phase == PREFILL or tokens is None:
            return real
        if not self.stop_ids.size:
            return real
        self.finished |= (tokens[:, :, None] == self.stop_ids).any(axis=(1, 2))
        return real & ~self.finished[:, None]


@dataclass(frozen=True)
class GenerateCall:
    """What a call of `generate` says about the requests to come.

    Attributes:
        columns: width of the prompts, padding included, or None where it cannot be known.
        stop_ids: end-of-sequence ids, and the padding id that follows them.
        mask: the (rows, columns) attention mask passed in, or None.

    """

    columns: int | None
    stop_ids: NDArray[np.int64]
    mask: Tensor | None


def read_call(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> GenerateCall:
    """Read the arguments of `model.generate(*args, **kwargs)`.

    Raises:
        SpecmdError: a way of decoding in which rows are not requests (beams, draft models), or in
            which every step computes the whole prefix again (no cache).

    """
    given = args[1] if len(args) > 1 else kwargs.get("generation_config")
    defaults = getattr(model, "generation_config", None)

    def option(name: str) -> Any:
        for source in (kwargs.get(name), getattr(given, name, None), getattr(defaults, name, None)):
            if source is not None:
                return source
        return None

    if (option("num_beams") or 1) > 1:
        raise SpecmdError("beam search cannot be recorded: call generate with num_beams=1")
    if any(option(name) is not None for name in _SPECULATIVE):
        raise SpecmdError("assisted decoding cannot be recorded: call generate without a draft")
    if option("use_cache") is False:
        raise SpecmdError("generation without a cache cannot be recorded: set use_cache=True")
    inputs = args[0] if args else kwargs.get("inputs")
    for name in ("input_ids", "inputs_embeds"):
        inputs = kwargs.get(name) if inputs is None else inputs
    stops = _as_ids(option("eos_token_id"))
    if stops:
        stops += _as_ids(option("pad_token_id"))
    mask = kwargs.get("attention_mask")
    columns = None if inputs is None else int(inputs.shape[1])
    return GenerateCall(columns, np.asarray(stops, dtype=np.int64), mask)


def _as_ids(value: Any) -> list[int]:
    if value is None:
        return []
    if isinstance(value, Tensor):
        value = value.tolist()
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
