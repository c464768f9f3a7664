"""Files of what was learned beforehand: safetensors, with a header in JSON that says what it is.

The file holds the weights, and beside them hashes of the requests it was trained on
(`specmd.trace.overlap`), so that no run is judged on them. Written by `specmd train`, read by
policies through `load_weights`, without torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

import specmd
from specmd.core.event import World
from specmd.errors import SpecmdError
from specmd.files import replacing

ModelFile = Annotated[str, "file of weights"]
"""Type of a policy's parameter that names such a file; a run is known by what is in the file."""

Tensors = dict[str, npt.NDArray[Any]]
SEEN = "seen."  # of the tensors that are no weights


class ModelHeader(BaseModel):
    """What a file of weights says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    num_layers: int
    num_experts: int
    top_k: int
    training: str  # digest of the training trace
    training_tokens: int
    labels: Literal["true", "shuffled"]
    seed: int
    epochs: int
    loss: list[float]  # of the last epochs
    held_out_loss: float | None
    settings: dict[str, float]
    content: str  # digest of the tensors
    specmd: str = specmd.__version__


def save_weights(path: Path, header: Mapping[str, Any], tensors: Tensors) -> ModelHeader:
    """Write a file, whole or not at all; equal input gives equal bytes.

    `header` has the fields of `ModelHeader` but `content` and `specmd`. Raises SpecmdError.
    """
    from safetensors.numpy import save

    said = ModelHeader(**header, content=_digest(tensors))
    with replacing(path) as file:
        file.write(save(tensors, {"specmd": said.model_dump_json()}))
    return said


def load_model(path: str | Path) -> tuple[ModelHeader, Tensors]:
    """Read a file of weights.

    Raises SpecmdError: it is not there, is none that `specmd train` wrote, or is damaged.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError:
        raise SpecmdError(
            f"{path}: needs safetensors: pip install 'specmd-bench[record]'"
        ) from None
    try:
        data = Path(path).read_bytes()
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        said = json.loads(data[8 : 8 + length])["__metadata__"]["specmd"]
        header = ModelHeader.model_validate_json(said)
    except OSError as error:
        raise SpecmdError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, ValidationError):
        raise SpecmdError(
            f"{path}: is damaged, or no file that `specmd train` wrote: train it again"
        ) from None
    if _digest(tensors) != header.content:
        raise SpecmdError(f"{path}: the weights were edited or damaged: train it again")
    return header, tensors


def load_weights(path: str, kind: str, world: World) -> Tensors:
    """Read the weights of a policy, as float64: of its kind and its world's model, all finite.

    Raises SpecmdError: as `load_model`, or it is of another kind or model.
    """
    header, tensors = load_model(path)
    if header.kind != kind:
        raise SpecmdError(f"{path}: holds {header.kind} weights, not {kind}: name another file")
    theirs = header.num_layers, header.num_experts
    if theirs != (world.num_layers, world.num_experts):
        raise SpecmdError(
            f"{path}: was trained on a model of {theirs[0]} layers of {theirs[1]} experts, not "
            f"{world.num_layers} of {world.num_experts}"
        )
    found = {k: v.astype(np.float64) for k, v in tensors.items() if not k.startswith(SEEN)}
    if not all(np.isfinite(each).all() for each in found.values()):
        raise SpecmdError(f"{path}: holds weights that are no numbers: train it again")
    return found


def count_weights(tensors: Tensors) -> int:
    """Count the weights of a file, of all layers."""
    return sum(each.size for name, each in tensors.items() if not name.startswith(SEEN))


def file_content(path: str) -> str:
    """Hash the bytes of a file; empty where it cannot be read, which its reader will say."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=12).hexdigest()
    except OSError:
        return ""


def _digest(tensors: Tensors) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
