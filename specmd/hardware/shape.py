"""Model shapes: the sizes that decide what an expert cache moves and what a step costs.

A decoder layer has a dense part, read by every step whatever the router says (attention, router,
norms, shared experts), and E routed experts of which a token uses `top_k`. An expert is two or
three matrices: `gate`, `up` and `down` of hidden x intermediate, which is `3 * hidden *
intermediate` parameters, or two without gating. OLMoE's 3 * 2048 * 1024 in bf16 makes 12,582,912
bytes; there are 16 x 64 of them, 93 % of the model. The KV cache adds `kv_bytes_per_token` a layer
for each token of context, which grouped queries and DeepSeek's latent attention make small.

Layers without experts (DeepSeek's first, every other one of Switch) also cost time in each step.
They are charged evenly to the MoE layers, so that the sum over a step is exact.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from specmd.errors import SpecmdError, unknown
from specmd.hardware.profile import explain, parse_toml, read_content, shipped

SCHEMA = 1
_PACKAGE = "specmd.models.shapes"


class TransformersModel(BaseModel):
    """How to build a model of a shape with transformers.

    The names that all families share (`hidden_size`, `num_attention_heads`, ...) are not repeated.

    Attributes:
        model_type: the family, as in `config.json`.
        sizes: names in its configuration, and the fields of the shape that they stand for.
        config: what the shape does not say.
        unset: names that are None.

    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    model_type: str = Field(min_length=1)
    sizes: dict[str, str] = {}
    config: dict[str, Any] = {}
    unset: tuple[str, ...] = Field(default=(), strict=False)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


class ModelShape(BaseModel):
    """Sizes of one Mixture-of-Experts model; parameters are counts, sizes are bytes.

    Per-layer parameter counts are those of one layer. `kv_bytes_per_token` is that of one layer.
    `qk_head_dim` and `v_head_dim` differ only in latent attention. `expert_bytes` is what one
    transfer moves, in the dtype the checkpoint ships: `expert_weight_bits` for the matrices and 16
    bits for the biases. `transformers` is None where no model of the shape can be built.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    title: str
    aliases: tuple[str, ...] = Field(default=(), strict=False)
    notes: str = ""
    sources: tuple[str, ...] = Field(min_length=1, strict=False)

    layers: int = Field(gt=0)
    moe_layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    experts: int = Field(gt=0)
    top_k: int = Field(gt=0)
    expert_intermediate: int = Field(gt=0)
    expert_matrices: Literal[2, 3] = 3
    expert_bias_parameters: int = Field(default=0, ge=0)
    expert_weight_bits: float = Field(gt=0, le=32)
    dense_weight_bits: float = Field(default=16, gt=0, le=32)
    shared_experts: int = Field(default=0, ge=0)
    shared_intermediate: int = Field(default=0, ge=0)
    dense_intermediate: int = Field(default=0, ge=0)
    dense_matrices: Literal[2, 3] = 3
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    qk_head_dim: int = Field(gt=0)
    v_head_dim: int = Field(gt=0)
    kv_bytes_per_token: int = Field(gt=0)
    attention_parameters: int = Field(gt=0)
    router_parameters: int = Field(gt=0)
    norm_parameters: int = Field(ge=0)
    vocab: int = Field(gt=0)
    tied_embeddings: bool = False
    expert_bytes: int = Field(gt=0)
    published_parameters: float = Field(gt=0)
    published_source: str = Field(min_length=10)
    transformers: TransformersModel | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ModelShape:
        if self.moe_layers > self.layers:
            raise ValueError("moe_layers is larger than layers")
        if self.top_k > self.experts:
            raise ValueError("top_k is larger than experts")
        if (self.shared_experts == 0) != (self.shared_intermediate == 0):
            raise ValueError("shared_experts and shared_intermediate go together")
        if self.dense_layers and not self.dense_intermediate:
            raise ValueError("layers without experts need dense_intermediate")
        named = self.transformers.sizes.values() if self.transformers else ()
        if strange := [name for name in named if name not in type(self).model_fields]:
            raise ValueError(f"transformers.sizes: there is no size '{strange[0]}'")
        weights = self.expert_matrix_parameters * self.expert_weight_bits / 8
        computed = weights + self.expert_bias_parameters * 2
        if abs(computed - self.expert_bytes) >= 1:
            raise ValueError(f"expert_bytes is {self.expert_bytes}, the sizes give {computed:.0f}")
        return self

    @property
    def dense_layers(self) -> int:
        """Layers with a plain feed-forward block instead of experts."""
        return self.layers - self.moe_layers

    @property
    def expert_matrix_parameters(self) -> int:
        """Parameters of one routed expert's matrices, without biases."""
        return self.expert_matrices * self.hidden * self.expert_intermediate

    @property
    def expert_parameters(self) -> int:
        """Parameters of one routed expert."""
        return self.expert_matrix_parameters + self.expert_bias_parameters

    @property
    def shared_parameters(self) -> int:
        """Parameters of all shared experts of one MoE layer."""
        return self.expert_matrices * self.hidden * self.shared_intermediate * self.shared_experts

    @property
    def dense_block_parameters(self) -> int:
        """Parameters of the feed-forward block of a layer without experts."""
        return self.dense_matrices * self.hidden * self.dense_intermediate

    @property
    def dense_parameters(self) -> float:
        """Parameters every step reads per MoE layer, with its share of the layers without experts.

        Attention, norms, router and shared experts.
        """
        share = self.layers / self.moe_layers
        both = (self.attention_parameters + self.norm_parameters) * share
        blocks = self.dense_block_parameters * self.dense_layers / self.moe_layers
        return both + blocks + self.router_parameters + self.shared_parameters

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding."""
        return self.vocab * self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters read to turn the last hidden state into logits (shared if tied)."""
        return self.vocab * self.hidden

    @property
    def total_parameters(self) -> float:
        """Parameters of the whole model."""
        per_layer = self.dense_parameters + self.experts * self.expert_parameters
        head = 0 if self.tied_embeddings else self.head_parameters
        return self.moe_layers * per_layer + self.embedding_parameters + head

    @property
    def active_parameters(self) -> float:
        """Parameters one token uses, embeddings included."""
        unused = self.moe_layers * (self.experts - self.top_k) * self.expert_parameters
        return self.total_parameters - unused


def read_shape(path: Path) -> ModelShape:
    """Read and validate one shape file; `SpecmdError` naming the file if it is wrong."""
    return _shape(path, read_content(path, "model shape"))


@lru_cache(maxsize=128)
def _shape(path: Path, content: bytes) -> ModelShape:
    data = parse_toml(content, path, "model shape")
    try:
        return ModelShape.model_validate(data)
    except ValidationError as error:
        raise SpecmdError(explain(path, "model shape", error, SCHEMA, data.get("schema"))) from None


def list_shapes() -> list[str]:
    """Names of the shipped shapes, sorted."""
    return list(shipped(_PACKAGE))


def load_shape(name_or_path: str | Path) -> ModelShape:
    """Load a shipped shape by name or model alias, or any file whose name ends in `.toml`.

    Raises `SpecmdError` for an unknown name (with the closest ones) or an invalid file.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml"):
        return read_shape(Path(text))
    shape = shape_for_model(text)
    if shape is None:
        raise unknown("model shape", text, list_shapes())
    return shape


def shape_for_model(model_name: str | None) -> ModelShape | None:
    """Return the shipped shape of a model, by shape name or alias, or None if there is none.

    Case and the organisation before the slash do not matter: `allenai/OLMoE-1B-7B-0924` and
    `olmoe-1b-7b-0924` are the same model.
    """
    if not model_name:
        return None
    return _by_alias().get(_normal(model_name))


def _normal(model_name: str) -> str:
    return model_name.strip().rstrip("/").rsplit("/", 1)[-1].lower().replace("_", "-")


@cache
def _by_alias() -> dict[str, ModelShape]:
    found: dict[str, ModelShape] = {}
    for path in shipped(_PACKAGE).values():
        shape = read_shape(path)
        for alias in (shape.name, *shape.aliases):
            found[_normal(alias)] = shape
    return found
