"""A trace played through a model of its shape: the workload of a trace-driven live run.

    workload = TraceWorkload(trace, load_shape("olmoe-1b-7b"), layers=4, tokens=64)
    with specmd.offload(workload.model, store=workload.store(), routing=workload.routing) as cache:
        steps = workload.play()

Every step of the trace is one forward pass. What it decides is what a simulation of
`workload.trace` decides; what it takes is what moving these bytes and multiplying these matrices
takes on this machine. Where the trace says that layers' experts differ in bytes, they do so here: a
layer's experts are as wide as their bytes allow in the type that is computed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.hardware.memory import require_memory
from specmd.hardware.shape import ModelShape
from specmd.live.stores.random import RandomFile, RandomStore
from specmd.measurement.batches import StepBatch, batches, in_rows
from specmd.measurement.trace_routing import ForcedRouting
from specmd.models.dummy.context import Context
from specmd.models.dummy.model import build_model, default_dtype, dense_parameters
from specmd.models.facts import size_facts
from specmd.models.layout import Layouts, read_layouts
from specmd.models.moe import MoeModel, find_moe
from specmd.trace import Trace, TraceHeader, slice_layers, slice_tokens


@dataclass(frozen=True)
class PlayedStep:
    """One step that was played.

    Attributes:
        number: of the step, from 0.
        phase: PREFILL if any of its tokens is, else DECODE.
        tokens: new tokens, padding left out.
        requests: requests they belong to.
        seconds: from the call of the model to its next tokens being known on the host.

    """

    number: int
    phase: int
    tokens: int
    requests: int
    seconds: float


class TraceWorkload:
    """A model of a shape, and the routing of a trace for it.

    Args:
        trace: what is played.
        shape: of the model that it was recorded from.
        layers: only the first so many MoE layers; None is all of them.
        tokens: only the first so many tokens.
        dtype: of all weights: bfloat16, float16 or float32; None is that of the checkpoint, or
            bfloat16 where that is narrower.
        seed: of all random weights.

    Raises:
        SpecmdError: the trace is not of such a model, no such model can be built, or it does not
            fit into memory.

    Attributes:
        trace: what is played: the first tokens and layers, rows put together by request, an expert
            as large as it is here. A simulation of it decides as the live run does.
        model: on the host, its experts empty.
        layouts: of the experts.
        routing: to be given to `offload`.
        steps: the batches that are played.

    """

    def __init__(
        self,
        trace: Trace,
        shape: ModelShape,
        *,
        layers: int | None = None,
        tokens: int | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        count = require_match(trace, shape, layers)
        dtype = dtype or default_dtype(shape)
        sizes = trace.header.expert_bytes_by_layer
        sizes = sizes and sizes[:count]
        hollow = build_model(shape, layers=count, dtype=dtype, device="meta", expert_bytes=sizes)
        moe = find_moe(hollow)
        self.layouts: Layouts = read_layouts(moe)
        kind = next(iter(hollow.parameters())).dtype
        require_memory(
            [shape.experts * layout.blob_bytes for layout in self.layouts.of_layer],
            dense_parameters(hollow) * kind.itemsize,
            f"{shape.name} in {dtype}",
        )
        if tokens is not None and tokens < trace.num_tokens:
            trace = slice_tokens(trace, 0, tokens)
        played = in_rows(slice_layers(trace, count))
        self.trace = replace(played, header=with_expert_sizes(played.header, moe))
        self.steps: tuple[StepBatch, ...] = tuple(batches(self.trace))
        self.routing = ForcedRouting(self.trace)
        self.model: Any = build_model(
            shape, layers=count, dtype=dtype, seed=seed, expert_bytes=sizes
        )
        self._context = Context(self.model, find_moe(self.model), seed)
        self._shape, self._seed = shape, seed
        self._token_ids = self._fed()

    @property
    def kv_bytes(self) -> int:
        """Bytes of the largest KV cache of any step, padding included."""
        return int(self._context.bytes_per_token * self._kv_slots())

    def store(self, pinned_budget_bytes: int | None = None, other_bytes: int = 0) -> RandomStore:
        """Make the experts' bytes; an offload takes them with it when it ends.

        Args:
            pinned_budget_bytes: how much may be pinned; by default all where torch reports an
                accelerator, and nothing where it does not.
            other_bytes: of host memory that must be left, for the slots of the cpu link.

        Raises:
            SpecmdError: they do not fit into memory.

        """
        if pinned_budget_bytes is None and not torch.accelerator.is_available():
            pinned_budget_bytes = 0
        return RandomStore(
            self.layouts,
            pinned_budget_bytes=pinned_budget_bytes,
            other_bytes=other_bytes,
            seed=self._seed,
        )

    def file(self, folder: Path) -> RandomFile:
        """Write the experts' bytes to a file in a folder; it goes when the offload ends."""
        return RandomFile(folder, self.layouts, seed=self._seed)

    @torch.no_grad()
    def play(self, each: Callable[[PlayedStep], None] | None = None) -> list[PlayedStep]:
        """Run every step once through the model, which must be offloaded with this routing.

        Args:
            each: is called after every step.

        """
        device = self.model.get_input_embeddings().weight.device
        self._context.reserve(self._kv_slots(), device)
        played: list[PlayedStep] = []
        try:
            for batch in self.steps:
                step = self._step(batch, device)
                played.append(step)
                if each is not None:
                    each(step)
        finally:
            self.routing.hide()
        return played

    def _step(self, batch: StepBatch, device: torch.device) -> PlayedStep:
        inputs = self._inputs(batch, device)
        self.routing.show(batch, device)
        began_s = time.perf_counter()
        logits: Tensor = self.model(**inputs, use_cache=True, logits_to_keep=1).logits
        logits[:, -1].argmax(-1).cpu()  # what a server waits for
        took_s = time.perf_counter() - began_s
        return PlayedStep(batch.number, batch.phase, batch.tokens, batch.rows, took_s)

    def _inputs(self, batch: StepBatch, device: torch.device) -> dict[str, Any]:
        flat = np.zeros(batch.rows * batch.columns, np.int64)
        flat[batch.place()] = self._token_ids[batch.first : batch.first + batch.tokens]
        given = {
            "input_ids": flat.reshape(batch.rows, batch.columns),
            "position_ids": batch.positions(),
        }
        if batch.ragged:
            given["attention_mask"] = batch.mask()
        inputs: dict[str, Any] = {n: torch.from_numpy(a).to(device) for n, a in given.items()}
        inputs[self._context.argument] = self._context.cache(batch.rows, batch.cached)
        return inputs

    def _kv_slots(self) -> int:
        return max(batch.rows * batch.cached for batch in self.steps)

    def _fed(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Token ids (T,): those of the trace where the vocabulary has them, else random ones."""
        made = np.random.default_rng(self._seed).integers(
            0, self._shape.vocab, len(self.trace.step)
        )
        known = self.trace.token_ids
        if known is None:
            return made
        return np.where((known >= 0) & (known < self._shape.vocab), known, made)


def with_expert_sizes(header: TraceHeader, moe: MoeModel) -> TraceHeader:
    """Let a header say how large the experts of a model are."""
    sizes = size_facts(moe)
    by_layer = sizes["expert_bytes_by_layer"]
    sizes["expert_bytes_by_layer"] = by_layer and tuple(by_layer)
    return header.model_copy(update=sizes)


def require_match(trace: Trace, shape: ModelShape, layers: int | None) -> int:
    """Return how many layers are played; raise SpecmdError if trace and shape do not match."""
    header = trace.header
    for name, mine, its in (
        ("experts a layer", header.num_experts, shape.experts),
        ("experts a token", header.top_k, shape.top_k),
    ):
        if mine != its:
            raise SpecmdError(
                f"the trace has {mine} {name}, {shape.name} has {its}: give the shape of the model "
                "that the trace is of"
            )
    count = shape.moe_layers if layers is None else layers
    if not 1 <= count <= shape.moe_layers:
        raise SpecmdError(f"{count} layers: {shape.name} has 1 to {shape.moe_layers} MoE layers")
    if count > header.num_layers or (layers is None and header.num_layers != shape.moe_layers):
        raise SpecmdError(
            f"the trace has {header.num_layers} layers, {shape.name} has {shape.moe_layers}: play "
            f"the first {min(header.num_layers, shape.moe_layers)} or fewer (--layers)"
        )
    return count
