"""Weights for policies that need them, of no training: for tests of what policies do with them."""

from pathlib import Path

import numpy as np

from specmd.policy.weights import save_weights


def write_weights(path, kind, header, seed=0, tensors=None, training="another trace"):
    """Write weights for the model of a header, drawn from a seed or given; return the path."""
    none = np.zeros(0, np.uint64)
    found = TENSORS[kind](np.random.default_rng(seed), header) if tensors is None else tensors
    save_weights(
        Path(path),
        {
            "kind": kind,
            **{name: getattr(header, name) for name in ("num_layers", "num_experts", "top_k")},
            "training": training,
            "training_tokens": 0,
            "labels": "true",
            "seed": seed,
            "epochs": 1,
            "loss": [0.0],
            "held_out_loss": None,
            "settings": {},
        },
        found | {"seen.routing": none, "seen.text": none},
    )
    return str(path)


def linear(rng, header):
    # Near what is learned: age and distance push out, uses keep.
    usual = np.array([0.01, 0.05, -0.3, -0.4, -0.2, -0.8, -1.0, 0.2])
    return {"weight": usual * rng.uniform(0.5, 1.5, 8)}


def cecar(rng, header):
    sizes = ((32, 2), (32, 32), (1, 32))
    return {
        f"{name}.{i}.{part}": rng.normal(0, 1 / np.sqrt(size[1]), shape).astype(np.float32)
        for name in ("short", "long")
        for i, size in enumerate(sizes)
        for part, shape in (("weight", size), ("bias", size[:1]))
    }


TENSORS = {"learned_linear": linear, "learned_cecar": cecar}
