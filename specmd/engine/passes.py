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

from specmd.engine.routing import PassTokens, Routing
from specmd.engine.step_times import StepTimes
from specmd.errors import SpecmdError
from specmd.recorder.capture import Capture, Step
from specmd.recorder.gates import MoeModel
from specmd.recorder.lookahead import Lookahead
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

    def require_pass(self, tokens: int, name: str) -> None:
        """Raise SpecmdError unless a pass of so many tokens is running."""
        if not self.running or len(self.live) != tokens:
            raise SpecmdError(
                f"{name}: experts were called outside a forward pass of the model, or with other "
                "tokens: call the model itself while it is offloaded"
            )

    def _enter(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.times is not None:
            self.times.begin()
        told = None if self._routing is None else self._routing.tokens()
        self._take(self._read(decoder, args, kwargs) if told is None else told)

    def _take(self, tokens: PassTokens) -> None:
        self.live, self.phases = tokens.live, tokens.phase
        self.request, self.token_ids = tokens.request, tokens.token_ids
        self.all_live = bool(self.live.all())
        self.phase = PREFILL if (self.phases[self.live] == PREFILL).any() else DECODE
        self.number += bool(self.live.any())
        self.running = True
        if self.times is not None and not self.live.any():
            self.times.drop()

    def _read(
        self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> PassTokens:
        """Read off the call what its tokens are, as the recorder does."""
        self._begin(decoder, args, kwargs)
        step = self._step
        assert step is not None
        rows, width = step.batch.rows, step.columns
        fed = None if step.token_ids is None else step.token_ids.cpu().numpy()
        mask = None if step.mask is None else step.mask.cpu().numpy().astype(np.bool_)
        first = step.batch.first_request
        ids = np.full((rows, width), -1) if fed is None else fed
        return PassTokens(
            live=step.batch.real_tokens(step.phase, fed, mask, width).reshape(-1),
            request=np.repeat(np.arange(first, first + rows, dtype=np.int32), width),
            phase=np.full(rows * width, step.phase, np.uint8),
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
