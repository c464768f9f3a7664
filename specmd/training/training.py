"""`specmd train`: from a trace to a file of weights, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from specmd.errors import SpecmdError, unknown
from specmd.policy.weights import SEEN, ModelHeader, save_weights
from specmd.trace import Trace
from specmd.trace.overlap import seen, split
from specmd.training.coming import fit_mlp
from specmd.training.fitting import Fitted
from specmd.training.next_use import fit_cecar, fit_linear

FEWEST = 16  # steps


class Kind(NamedTuple):
    """How the weights of a policy are fitted, and in how many passes over the samples."""

    fit: Callable[..., Fitted]
    epochs: int


KINDS: dict[str, Kind] = {
    "learned_linear": Kind(fit_linear, 1),
    "learned_cecar": Kind(fit_cecar, 4),
    "learned_mlp": Kind(fit_mlp, 8),
}
"""By the name of the policy that reads the weights."""


def train(
    kind: str,
    trace: Trace,
    out: Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
    hold_out: float = 0.1,
    shuffled: bool = False,
) -> ModelHeader:
    """Fit one kind of weights to a trace and write them; equal arguments give equal bytes.

    Args:
        kind: one of `KINDS`.
        trace: what is learned from.
        out: the file to write.
        seed: of what is drawn.
        epochs: passes over the samples; None for the kind's own.
        hold_out: share of the requests that is not learned from, but the loss on it said.
        shuffled: learn labels that were put in another order: the control.

    Raises:
        SpecmdError: an unknown kind, or a trace too short to learn from.

    """
    if kind not in KINDS:
        raise unknown("kind of weights", kind, KINDS)
    chosen = KINDS[kind]
    kept, held = (trace, None) if hold_out == 0 else split(trace, 1 - hold_out, seed)
    if kept.num_steps < FEWEST:
        raise SpecmdError(f"{kept.num_steps} steps are too few to learn from: give {FEWEST}")
    epochs = epochs or chosen.epochs
    fitted = chosen.fit(kept, held, seed=seed, epochs=epochs, shuffled=shuffled)
    header, known = trace.header, seen(trace)
    return save_weights(
        out,
        {
            "kind": kind,
            **{name: getattr(header, name) for name in ("num_layers", "num_experts", "top_k")},
            "training": trace.digest,
            "training_tokens": kept.num_tokens,
            "labels": "shuffled" if shuffled else "true",
            "seed": seed,
            "epochs": epochs,
            "loss": [round(each, 6) for each in fitted.loss],
            "held_out_loss": fitted.held_out_loss,
            "settings": fitted.settings,
        },
        fitted.tensors | {f"{SEEN}routing": known.routing, f"{SEEN}text": known.text},
    )
