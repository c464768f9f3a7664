"""Which tokens of the present forward pass count, and which pass this is.

Padding and requests that have ended keep their place in the batch, but a serving system would not
compute them, and a trace does not contain them. So the engine demands no expert for them either: it
reads the passes with the recorder's own reader. Passes in which no token counts are not numbered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.utils.hooks import RemovableHandle

from specmd.live.routing import PassTokens, Routing
from specmd.live.timing import StepTimes
from specmd.models.moe import MoeModel
from specmd.models.passes import Pass, PassReader
from specmd.trace import DECODE, PREFILL


class Passes:
    """Follows the forward passes of one model.

    Args:
        moe: its MoE layers.
        model: the whole model, whose return ends a pass; the decoder itself if None.
        routing: tells what the tokens of a pass are where it knows better than the call, or None.

    Attributes:
        times: of every numbered pass, or None.
        number: of the present pass among those with a token that counts, from 0.
        live: (tokens,) which tokens of the pass count.
        all_live: whether all of them do.
        phase: PREFILL or DECODE; PREFILL if any token that counts is of a prefill.
        phases: (tokens,) phase of each token.
        request: (tokens,) request of each token.
        token_ids: (tokens,) what was fed in, -1 where unknown.

    """

    def __init__(
        self, moe: MoeModel, model: nn.Module | None = None, routing: Routing | None = None
    ) -> None:
        self._decoder, self._routing = moe.decoder, routing
        self._model = model or moe.decoder
        self._reader = PassReader(moe.decoder, skips=True)
        self._handles: list[RemovableHandle] = []
        self.times: StepTimes | None = None
        self.number = -1
        self.phase = 0
        self.live: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.phases: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.request: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self.token_ids: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self.all_live = True
        self.running = False
        self._alike: tuple[Any, ...] = ()  # batch, phase and width of the last pass,
        self._columns = (self.request, self.phases)  # and what all such passes have

    def install(self) -> None:
        """Put the hooks on the decoder."""
        self._handles = [
            self._decoder.register_forward_pre_hook(self._enter, with_kwargs=True),
            self._decoder.register_forward_hook(self._leave, always_call=True),
            self._model.register_forward_hook(self._return, always_call=True),
        ]

    def remove(self) -> None:
        """Take the hooks off again; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def follow(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """Return a `generate` of the model whose passes are read as its own."""
        followed = self._reader.follow(self._model, generate)

        @functools.wraps(generate)
        def timed(*args: Any, **kwargs: Any) -> Any:
            try:
                return followed(*args, **kwargs)
            finally:
                if self.times is not None and not self._reader.in_generate:
                    self.times.end()

        return timed

    def restart(self) -> None:
        """Count passes and requests from 0 again."""
        self.number = -1
        self._reader.restart()
        if self.times is not None:
            self.times.restart()

    def is_pass_of(self, tokens: int) -> bool:
        """Whether a pass of so many tokens is running."""
        return self.running and len(self.live) == tokens

    def _enter(self, _decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._reader.claim()
        if self.times is not None:
            self.times.begin()
        told = None if self._routing is None else self._routing.tokens()
        self._take(self._read(self._reader.begin(args, kwargs)) if told is None else told)

    def _take(self, tokens: PassTokens) -> None:
        self.live, self.phases = tokens.live, tokens.phase
        self.request, self.token_ids = tokens.request, tokens.token_ids
        count = int(np.count_nonzero(self.live))
        self.all_live = count == len(self.live)
        phases = self.phases if self.all_live else self.phases[self.live]
        self.phase = DECODE if np.count_nonzero(phases) == count else PREFILL  # which is 0
        self.number += count > 0
        self.running = True
        if self.times is not None and not count:
            self.times.drop()

    def _read(self, about: Pass) -> PassTokens:
        rows, columns = about.batch.rows, about.columns
        alike = (about.batch, about.phase, columns)
        if self._alike != alike:
            self._alike = alike
            requests = np.arange(rows, dtype=np.int32) + about.batch.first_request
            phases = np.full(rows * columns, about.phase, np.uint8)
            self._columns = (np.repeat(requests, columns), phases)
        size, real, fed = about.tokens, about.real, about.token_ids
        all_real = None if real is None else real.expand(rows, columns).reshape(-1).cpu().numpy()
        ids = np.full(size, -1) if fed is None else fed.reshape(-1).cpu().numpy()
        return PassTokens(
            live=np.ones(size, np.bool_) if all_real is None else all_real,
            request=self._columns[0],
            phase=self._columns[1],
            token_ids=ids.astype(np.int32),
        )

    def _leave(self, _decoder: nn.Module, _args: Any, output: Any) -> None:
        if not self._reader.elsewhere:  # else this thread was refused
            self.running = False
            self._reader.end(output)

    def _return(self, _model: nn.Module, _args: Any, _output: Any) -> None:
        if self.times is None or self._reader.elsewhere:
            return
        self.times.leave()
        if not self._reader.in_generate:
            self.times.end()
