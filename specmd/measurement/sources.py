"""Where a workload comes from: a model and prompts, or a trace and a shape; as it is asked for.

A source is small and can be sent to another process, which loads what it names. `header` says what
a grid has to know of the model (layers, experts, size of an expert) without loading its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from specmd.errors import SpecmdError
from specmd.hardware.shape import ModelShape, load_shape, shape_for_model
from specmd.measurement.workload import PromptWorkload, Workload
from specmd.models.files import folder_digest
from specmd.models.generation import Generation
from specmd.models.load import local_folder, model_name
from specmd.runs.declared import COMPOSED, spelled
from specmd.trace import Trace, TraceHeader, compose, load


class Source(Protocol):
    """Makes a workload."""

    def header(self) -> TraceHeader:
        """Return what a grid must know of the model."""
        ...

    def workload(self) -> Workload:
        """Load everything."""
        ...

    @property
    def subject(self) -> str:
        """Return the model or the trace, as it was asked for."""
        ...

    def traces(self) -> list[str]:
        """Return the traces that it names; models stay where they are."""
        ...

    def moved(self, places: Mapping[str, str]) -> Source:
        """Return it with files at other places."""
        ...


@dataclass(frozen=True)
class PromptSource:
    """A model that continues prompts.

    Args:
        model: `tiny`, a folder, or a name on the hub.
        generation: what it generates.
        dtype: of the weights, a name torch knows; by default the checkpoint's.
        from_disk: read experts from the checkpoint as they are needed.

    """

    model: str
    generation: Generation
    dtype: str | None = None
    from_disk: bool = False

    def __post_init__(self) -> None:
        if self.from_disk and not Path(self.model).is_dir():
            raise SpecmdError(f"{self.model}: experts can only be read from a folder on disk")

    def header(self) -> TraceHeader:
        """Build the model on the meta device and count."""
        from specmd.models.facts import model_facts, size_facts
        from specmd.models.load import outline_model
        from specmd.models.moe import find_moe

        model = outline_model(self.model, self.dtype)
        moe = find_moe(model)
        facts = model_facts(model, moe)
        return TraceHeader(
            model=self.name,
            num_layers=len(moe.layers),
            num_experts=moe.num_experts,
            top_k=facts.get("top_k") or 1,
            **size_facts(moe),
        )

    def workload(self) -> Workload:
        """Load model and tokenizer."""
        from specmd.models.load import load_model

        model, tokenizer = load_model(self.model, dtype=self.dtype, without_experts=self.from_disk)
        facts = {
            "dtype": self.dtype,
            "from_disk": self.from_disk,
            "files": folder_digest(local_folder(self.model)),
            "commit": getattr(model.config, "_commit_hash", None),
        }
        return PromptWorkload(model, tokenizer, self.generation, self.name, facts)

    @property
    def subject(self) -> str:
        """Return the model as it was asked for."""
        return self.model

    def traces(self) -> list[str]:
        """Name none: prompts travel with it."""
        return []

    def moved(self, places: Mapping[str, str]) -> PromptSource:
        """Return it as it is."""
        return self

    @property
    def name(self) -> str:
        """What results call the model."""
        return model_name(self.model)


@dataclass(frozen=True)
class TraceSource:
    """A trace that is followed by random weights of a model's true shapes.

    Args:
        trace: path of the trace.
        shape: name or file of the shape; by default that of the trace's model.
        layers: only the first so many MoE layers.
        tokens, prefill_chunk, batch, mixed: how it is composed, as of a simulation.
        dtype: of the weights, a name torch knows; by default the shape's.

    """

    trace: str
    shape: str | None = None
    layers: int | None = None
    tokens: int | None = None
    prefill_chunk: int | None = None
    batch: int | None = None
    mixed: bool = False
    dtype: str | None = None

    def header(self) -> TraceHeader:
        """Return the trace's header as it will be run: layers cut, experts as large as here."""
        import torch

        from specmd.measurement.trace_workload import require_match, with_expert_sizes
        from specmd.models.dummy.model import build_model
        from specmd.models.moe import find_moe

        trace, shape = self._inputs()
        count = require_match(trace, shape, self.layers)
        sizes = trace.header.expert_bytes_by_layer
        with torch.device("meta"):
            outline = build_model(
                shape,
                layers=count,
                dtype=self.dtype,
                device="meta",
                expert_bytes=sizes and sizes[:count],
            )
        header = trace.header.model_copy(update={"num_layers": count})
        return with_expert_sizes(header, find_moe(outline))

    def workload(self) -> Workload:
        """Load the trace and build the model."""
        from specmd.measurement.trace_workload import TraceWorkload
        from specmd.measurement.workload import FollowedTrace

        trace, shape = self._inputs()
        asked = {name: getattr(self, name) for name in COMPOSED}
        played = compose(trace, **asked)
        made = TraceWorkload(played, shape, layers=self.layers, dtype=self.dtype)
        facts = {
            "trace": trace.digest,
            "shape": shape.name,
            "layers": self.layers,
            "dtype": self.dtype,
        }
        name = ", ".join([Path(self.trace).stem, *spelled(asked | {"tokens": None})])
        return FollowedTrace(made, name, facts | asked)

    @property
    def subject(self) -> str:
        """Return the path of the trace."""
        return self.trace

    def traces(self) -> list[str]:
        """Name the trace."""
        return [self.trace]

    def moved(self, places: Mapping[str, str]) -> TraceSource:
        """Return it with trace and shape at other places."""
        shape = self.shape and places.get(self.shape, self.shape)
        return replace(self, trace=places.get(self.trace, self.trace), shape=shape)

    def _inputs(self) -> tuple[Trace, ModelShape]:
        trace = load(self.trace)
        if self.shape is not None:
            return trace, load_shape(self.shape)
        known = shape_for_model(trace.header.model)
        if known is None:
            raise SpecmdError(
                f"{self.trace}: no shape is known for model '{trace.header.model}': name one "
                "(--shape, see `specmd list shapes`)"
            )
        return trace, known
