"""Weights for policies that need them, drawn and not learned."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from specmd.policy.registry import choose
from specmd.policy.weights import save_weights

FILES = TemporaryDirectory(prefix="specmd-tests-")


def with_weights(axis, spelled, header):
    """Spell a policy with a file of weights for a model, where it needs one and names none."""
    choice = choose(axis, spelled)
    if "model" not in choice.needs or choice.values["model"]:
        return spelled
    sizes = header.num_layers, header.num_experts, header.top_k
    return spelled + (",model=" if ":" in spelled else ":model=") + drawn(choice.entry.name, *sizes)


@cache
def drawn(kind, layers, experts, top_k):
    path = Path(FILES.name) / f"{kind}-{layers}-{experts}-{top_k}.safetensors"
    rng = np.random.default_rng(layers * 1000 + experts)
    return write_weights(path, kind, (layers, experts, top_k), TENSORS[kind](rng, layers, experts))


def write_weights(path, kind, sizes, tensors, training="another trace", seen=()):
    """Write a file of weights; return its path as text."""
    hashes = np.sort(np.array(seen, np.uint64))
    header = {
        "kind": kind,
        **dict(zip(("num_layers", "num_experts", "top_k"), sizes, strict=True)),
        **{"training": training, "training_tokens": 0, "labels": "true", "seed": 0, "epochs": 1},
        **{"loss": [0.0], "held_out_loss": None, "settings": {}},
    }
    none = np.zeros(0, np.uint64)
    save_weights(Path(path), header, tensors | {"seen.routing": hashes, "seen.text": none})
    return str(path)


def linear(rng, layers, experts):
    # Near what is learned: age and distance push out, uses keep.
    usual = np.array([0.01, 0.05, -0.3, -0.4, -0.2, -0.8, -1.0, 0.2])
    return {"weight": usual * rng.uniform(0.5, 1.5, 8)}


def cecar(rng, layers, experts):
    sizes = ((32, 2), (32, 32), (1, 32))
    return {
        f"{name}.{i}.{part}": rng.normal(0, size[1] ** -0.5, shape)
        for name in ("short", "long")
        for i, size in enumerate(sizes)
        for part, shape in (("weight", size), ("bias", size[:1]))
    }


def mlp(rng, layers, experts):
    return {
        "first": rng.normal(size=(layers, 1 + 3 * experts, 5)),
        "second": rng.normal(size=(layers, 1 + 5, 2 * experts)),
    }


TENSORS = {"learned_linear": linear, "learned_cecar": cecar, "learned_mlp": mlp}


def others(trace):
    """Other requests of the same model: to be trained on, for the trace itself is judged."""
    last = trace.header.num_experts - 1
    ids = np.where(trace.expert_ids <= last, last - trace.expert_ids, trace.expert_ids)
    header = trace.header.model_copy(update={"digest": ""})
    return replace(
        trace, header=header, expert_ids=ids.astype(trace.expert_ids.dtype), token_ids=None
    )
