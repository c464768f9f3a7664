"""Hooks that watch a model's forward passes, and what they gather.

Recording must not slow down what it records. So a hook only keeps a reference to a tensor that the
model has made anyway: the ids and weights handed to `experts` (the true choice, never a top-k taken
again: DeepSeek-V3 and PhiMoE choose differently), the gate's logits, and the gate's input where
lookahead scores are wanted. Every hundred or so passes the references are turned into rows at once:
a handful of tensor operations instead of a handful for every layer and step, and one device-to-host
copy. A pass of many tokens (a prefill) is turned at once, layer by layer, so that the activations
of all layers are never alive together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from specmd.errors import SpecmdError
from specmd.models.gates import watch_gates
from specmd.models.lookahead import Lookahead
from specmd.models.moe import MoeModel
from specmd.models.passes import Pass, PassReader

Array = NDArray[Any]
WIDE_TOKENS = 512  # a pass of more tokens gets its lookahead scores at once, and its own rows
PENDING_TOKENS = 512
PENDING_STEPS = 128
PENDING_S = 2.0  # at most this much work is lost when the process is killed


@dataclass
class Step:
    """References gathered in one forward pass; lists run over MoE layers."""

    about: Pass  # of (B, q) tokens
    wide: bool  # more than WIDE_TOKENS tokens
    ids: list[Tensor] = field(default_factory=list)  # (B*q, K)
    weights: list[Tensor] = field(default_factory=list)  # (B*q, K)
    logits: list[Tensor] = field(default_factory=list)  # (B*q, E)
    inputs: list[Tensor] = field(default_factory=list)  # (B*q, H), unless scored at once
    scores: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)  # (B*q, D, E)


class Capture:
    """Hooks on one model; every finished batch of passes goes to `emit` as steps.

    Use `install` and `remove`.

    Attributes:
        reader: reads the model's passes; its `follow` belongs around `generate` meanwhile.

    """

    def __init__(
        self,
        moe: MoeModel,
        lookahead: Lookahead,
        *,
        logits: bool,
        emit: Callable[[list[Step]], None],
    ) -> None:
        self.reader = PassReader(moe.decoder)
        self._moe = moe
        self._lookahead = lookahead
        self._want_logits = logits
        self._emit = emit
        self._handles: list[RemovableHandle] = []
        self._step: Step | None = None
        self._pending: list[Step] = []
        self._pending_tokens = 0
        self._emitted_s = time.monotonic()

    def install(self) -> None:
        """Put the hooks on decoder, gates and experts."""
        decoder = self._moe.decoder
        self._handles = [
            decoder.register_forward_pre_hook(self._begin, with_kwargs=True),
            decoder.register_forward_hook(self._end, always_call=True),
        ]
        for number, layer in enumerate(self._moe.layers):
            hook = self._experts_hook(number)
            handle = layer.experts.register_forward_pre_hook(hook, with_kwargs=True)
            self._handles.append(handle)
        if self._want_logits:
            self._handles += watch_gates(self._moe, self._on_gate)

    def remove(self) -> None:
        """Take every hook off again; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._step = None

    def flush(self) -> None:
        """Hand all finished passes to `emit`."""
        steps, self._pending, self._pending_tokens = self._pending, [], 0
        self._emitted_s = time.monotonic()
        if steps:
            self._emit(steps)

    def _begin(self, _decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._step = None
        about = self.reader.begin(args, kwargs)
        self._step = Step(about, wide=about.tokens > WIDE_TOKENS)

    def _experts_hook(
        self, number: int
    ) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        name = self._moe.layers[number].name
        depth = self._lookahead.depth
        experts = self._moe.num_experts

        def hook(_experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            step = self._step
            if step is None:
                return
            hidden, ids, weights = args if len(args) == 3 else (*args, *kwargs.values())[:3]
            if len(step.ids) != number or ids.dim() != 2 or ids.is_floating_point():
                raise SpecmdError(
                    f"{name}: experts were not called once a pass with (hidden, ids, weights): "
                    f"this architecture cannot be recorded"
                )
            step.ids.append(ids)
            step.weights.append(weights)
            if not depth:
                return
            if step.wide:
                step.scores.append(self._lookahead.scores(number, hidden, experts))
            else:
                step.inputs.append(hidden)

        return hook

    def _on_gate(self, _layer: int, logits: Tensor) -> None:
        if self._step is not None:
            self._step.logits.append(logits)

    def _end(self, _decoder: nn.Module, _args: Any, output: Any) -> None:
        if self.reader.elsewhere:  # this thread was refused
            return
        step, self._step = self._step, None
        self.reader.end(output)
        if step is None or output is None:  # cut in half by an error
            return
        if len(step.ids) != len(self._moe.layers):
            raise SpecmdError(
                f"{len(step.ids)} of {len(self._moe.layers)} MoE layers reached their experts: "
                f"this way of running the model cannot be recorded"
            )
        if step.wide:
            self.flush()
        self._pending.append(step)
        self._pending_tokens += step.about.tokens
        if (
            step.wide
            or self._pending_tokens >= PENDING_TOKENS
            or len(self._pending) >= PENDING_STEPS
            or time.monotonic() - self._emitted_s > PENDING_S
        ):
            self.flush()


def detached_rows(steps: list[list[Tensor]]) -> Tensor:
    """Join per-step lists over layers, each (tokens, X), into one CPU tensor (T, L, X)."""
    layers = len(steps[0])
    flat = [step[layer].detach() for layer in range(layers) for step in steps]
    device = flat[0].device
    joined = torch.cat([part.to(device) for part in flat])
    return joined.reshape(layers, -1, joined.shape[-1]).transpose(0, 1).cpu()
