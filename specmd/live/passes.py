"""Which tokens of the present forward pass count, and which pass this is.

Padding on the left and requests that have ended keep their place in the batch, but a serving system
would not compute them, and a trace does not contain them. So the engine demands no expert for
them either: it knows them exactly as the recorder does, because this is the recorder's own hook on
the decoder. Passes in which no token counts are not numbered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from specmd.live.routing import PassTokens, Routing
from specmd.live.timing import StepTimes
from specmd.models.lookahead import Lookahead
from specmd.models.moe import MoeModel
from specmd.models.passes import Batch
from specmd.recording.capture import Capture, Step
from specmd.trace import DECODE, PREFILL


class Passes(Capture):
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
        super().__init__(moe, Lookahead(moe.layers, 0), logits=False, emit=_keep_nothing)
        self._decoder, self._routing = moe.decoder, routing
        self._model = model or moe.decoder
        self.times: StepTimes | None = None
        self.number = -1
        self.phase = 0
        self.live: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.phases: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.request: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self.token_ids: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self.all_live = True
        self.running = False
        self._read_last: Batch | None = None  # the batch and kind of the last pass,
        self._read_kind = (0, 0)
        self._columns = (self.request, self.phases)  # and what all such passes have alike

    def install(self) -> None:
        """Put the hooks on the decoder."""
        self._handles = [
            self._decoder.register_forward_pre_hook(self._enter, with_kwargs=True),
            self._decoder.register_forward_hook(self._leave, always_call=True),
            self._model.register_forward_hook(self._return, always_call=True),
        ]

    def restart(self) -> None:
        """Count passes and requests from 0 again."""
        self.number, self._requests = -1, 0
        self.close_call()
        if self.times is not None:
            self.times.restart()

    def close_call(self) -> None:
        """Leave a `generate`, by whatever way."""
        super().close_call()
        if self.times is not None:
            self.times.end()

    def is_pass_of(self, tokens: int) -> bool:
        """Whether a pass of so many tokens is running."""
        return self.running and len(self.live) == tokens

    def _enter(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.times is not None:
            self.times.begin()
        told = None if self._routing is None else self._routing.tokens()
        self._take(self._read(decoder, args, kwargs) if told is None else told)

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

    def _read(
        self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> PassTokens:
        """Read off the call what its tokens are, as the recorder does."""
        self._begin(decoder, args, kwargs)
        step = self._step
        assert step is not None
        batch, width = step.batch, step.columns
        rows, kind = batch.rows, (step.phase, width)
        if self._read_last is not batch or self._read_kind != kind:
            self._read_last, self._read_kind = batch, kind
            requests = np.arange(rows, dtype=np.int32) + batch.first_request
            self._columns = (
                np.repeat(requests, width),
                np.full(rows * width, step.phase, np.uint8),
            )
        fed = None if step.token_ids is None else step.token_ids.cpu().numpy()
        mask = None if step.mask is None else step.mask.cpu().numpy().astype(np.bool_)
        ids = np.full((rows, width), -1) if fed is None else fed
        return PassTokens(
            live=batch.real_tokens(step.phase, fed, mask, width).reshape(-1),
            request=self._columns[0],
            phase=self._columns[1],
            token_ids=ids.reshape(-1).astype(np.int32),
        )

    def _leave(self, _decoder: nn.Module, _args: Any, _output: Any) -> None:
        self.running = False
        self._step = None

    def _return(self, _model: nn.Module, _args: Any, _output: Any) -> None:
        if self.times is None:
            return
        self.times.leave()
        if self._call is None:
            self.times.end()


def _keep_nothing(_steps: list[Step]) -> None:
    """Take the recorder's finished passes, of which there are none here."""
