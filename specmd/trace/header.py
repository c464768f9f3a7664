"""The words of a trace file: its JSON header, its version, its phases.

A trace says which experts a Mixture-of-Experts model chose, token by token and layer by layer. The
header holds what the arrays cannot say: which model, how large an expert is, who recorded it, under
which licence, and whether the recording was cut short. It is JSON, so that a person can read it,
and carries a schema name and a version, so that a program can refuse what it does not understand.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "specmd.trace"
VERSION = 2
"""Of a trace with `draft_ids`; one without is of version 1, which every program reads."""

PREFILL = 0
"""Phase of a token that belongs to the prompt: its step may hold many tokens of one request."""
DECODE = 1
"""Phase of a generated token: one token of each request in flight per step."""

MAX_EXPERTS = 65_536
"""Expert ids are stored in one byte up to 256 experts a layer, in two bytes above."""

Kind = Literal["recorded", "imported", "synthetic"]


class TraceHeader(BaseModel):
    """What a trace is of; frozen, and stored as JSON inside the trace file.

    Attributes:
        schema_name: always ``specmd.trace`` (spelled ``schema`` in JSON).
        version: version of the schema; a file of a newer version is refused.
        model: name of the model, for example ``OLMoE-1B-7B-0924``.
        num_layers: Mixture-of-Experts layers L in the trace (dense layers are not counted).
        num_experts: routed experts E in a layer.
        top_k: experts K chosen by a token in a layer.
        expert_bytes: size of one expert's weights in bytes (the mean where layers differ), or None
            if not known.
        expert_bytes_by_layer: (num_layers,) the sizes where layers differ, else None.
        ragged: whether some rows have fewer than K experts: see `Trace.expert_ids`.
        shape: facts of the model's shape (hidden size, expert intermediate size, shared experts,
            dense layers, dtype, ...), or None.
        recorder: the program that made the trace.
        source: what was recorded or imported: a prompt set, a file name.
        license: the terms of the trace, as an SPDX name where there is one.
        kind: ``recorded`` from a model, ``imported`` from another format, or ``synthetic``.
        digest: hash of the content (see ``Trace.digest``); filled in by ``save``.
        complete: False if the recording or the import stopped early.
        notes: anything else a reader must know.

    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_name: Literal["specmd.trace"] = Field(default="specmd.trace", alias="schema")
    version: int = Field(default=1, ge=1, le=VERSION)
    model: str = "unknown"
    num_layers: int = Field(ge=1)
    num_experts: int = Field(ge=1, le=MAX_EXPERTS)
    top_k: int = Field(ge=1)
    expert_bytes: int | None = Field(default=None, ge=1)
    expert_bytes_by_layer: tuple[int, ...] | None = None
    ragged: bool = False
    shape: dict[str, Any] | None = None
    recorder: str = ""
    source: str = ""
    license: str = ""
    kind: Kind = "recorded"
    digest: str = ""
    complete: bool = True
    notes: str = ""

    @property
    def layer_bytes(self) -> tuple[int, ...] | None:
        """Bytes of one expert of each layer, (num_layers,); None if not known."""
        if self.expert_bytes_by_layer is not None:
            return self.expert_bytes_by_layer
        return None if self.expert_bytes is None else (self.expert_bytes,) * self.num_layers

    def to_json(self) -> str:
        """Return the header as JSON text, keys in declaration order."""
        unused = {n for n in ("expert_bytes_by_layer", "ragged") if not getattr(self, n)}
        return self.model_dump_json(by_alias=True, indent=1, exclude=unused)
