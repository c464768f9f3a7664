"""Routing for a published row: its very trace, another recording, or one fitted to its hit rates.

Times follow from misses, so what matters of a routing is how often it misses at the capacities that
were measured. Where no recording is at hand, one is made up that has the published hit rates: the
LRU stack model (`specmd.trace.stack_model`), its weights constant but for a fall by 1 / place
between two capacities that were measured, and adjusted until the group's policy, replayed, hits as
often as was published. The times of rows take no part in it. Where no hit rate of a group is
published, those of another group serve that it names, of the same model or the nearest; and where
there is none, a popularity law is assumed. Both are labelled so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specmd.board.rows import Row
from specmd.errors import SpecmdError
from specmd.hardware.shape import load_shape
from specmd.runs.counters import tally
from specmd.runs.options import RunConfig
from specmd.runs.resolve import grid
from specmd.simulation.replay import replay
from specmd.trace import Trace, load, synthetic
from specmd.trace.header import DECODE
from specmd.trace.importers import import_trace
from specmd.trace.stack_model import stack_routed

Label = Literal["trace", "recorded", "fitted", "assumed"]
Floats = NDArray[np.float64]
ROUNDS = 8
FIT_TOKENS = 256
MOST_TOKENS = 512
TOKENS = 256  # where the source does not say
SEED = 20261125
ZIPF, REUSE = 0.4, 0.2
"""Assumed where nothing is published: popularity nearly even, a fifth of the experts kept."""


class Target(NamedTuple):
    """A published hit rate, and the cache that had it."""

    capacity: str
    scope: Literal["global", "layer"]
    policy: str
    hit_rate: float


class Sizes(NamedTuple):
    """What a made-up trace needs to know of a model."""

    layers: int
    experts: int
    top_k: int
    expert_bytes: int


@dataclass(frozen=True)
class Routing:
    """A trace to simulate a row on, and what kind of trace it is, in a word and in words."""

    trace: Trace
    label: Label
    says: str


@dataclass(frozen=True)
class Fit:
    """Weights of places, (experts,), and how far hit rates then are off, target by target."""

    weights: tuple[float, ...]
    residuals: tuple[float, ...]

    @property
    def worst(self) -> float:
        """Largest distance of a hit rate, simulated less published, as a share."""
        return max(self.residuals, key=abs, default=0.0)


def routing_for(row: Row, rows: Sequence[Row], traces: Path | None) -> Routing:
    """Find the nearest trace of a row among the recordings of a folder, or make one up.

    `rows` are all that may be fitted to: of the row's group those of its workload that have hit
    rates, else those of the group it is `like`.
    Raises SpecmdError for a row without shape or size.
    """
    sizes = sizes_of(row)
    recordings: tuple[tuple[Label, str | None], ...] = (
        ("trace", row.trace),
        ("recorded", row.recording),
    )
    for label, name in recordings:
        if name is not None and traces is not None and (traces / name).is_file():
            found = _recording(traces / name, row.shape)
            if found.header.top_k == sizes.top_k:
                return Routing(_sized(found, row), label, name)
    nearest: tuple[tuple[Label, str | None, str], ...] = (
        ("fitted", row.group, row.workload),
        ("assumed", row.group, ""),
        ("assumed", row.like, ""),
    )
    for label, group, workload in nearest:
        members = [each for each in rows if (each.group, each.workload) == (group, workload)]
        if targets := targets_of(members):
            fit = fitted(sizes_of(members[0]), targets)
            off = f"at most {100 * abs(fit.worst):.1f} points off"
            rates = "a hit rate" if len(targets) == 1 else f"{len(targets)} hit rates"
            says = f"{rates} of {group}{workload and f', {workload}'}, {off}"
            return Routing(_stack_routed(sizes, fit.weights, *_lengths(row)), label, says)
    says = f"no hit rate of the model is published: zipf {ZIPF:g}, {100 * REUSE:g} % kept"
    return Routing(_popular(sizes, *_lengths(row)), "assumed", says)


def sizes_of(row: Row) -> Sizes:
    """Return the sizes of a row's model; SpecmdError where shape or bytes are not known."""
    if row.shape is None:
        raise SpecmdError(f"no shape of {row.model} is shipped")
    if row.expert_bytes is None:
        raise SpecmdError("the size of an expert is not published")
    shape = load_shape(row.shape)
    top_k = row.experts_per_token or shape.top_k
    return Sizes(shape.moe_layers, shape.experts, top_k, row.expert_bytes)


def targets_of(rows: Sequence[Row]) -> tuple[Target, ...]:
    """Gather the published hit rates of decoding; where a cache has several, their mean."""
    found: dict[tuple[str, Literal["global", "layer"], str], list[float]] = {}
    for row in rows:
        if row.capacity is None or row.capacity in ("all", "none") or not row.hit_rate:
            continue
        if row.hit_of == "decode" and row.prefetch == "none" and row.shape and row.expert_bytes:
            found.setdefault((row.capacity, row.scope, row.policy), []).append(row.hit_rate)
    return tuple(Target(*cache, float(np.mean(rates))) for cache, rates in found.items())


@lru_cache(maxsize=64)
def fitted(sizes: Sizes, targets: tuple[Target, ...]) -> Fit:
    """Fit the weights of places to hit rates; the same arguments give the same fit.

    Places fall into bands that end where a measured capacity does, counted a layer. The weight of a
    band is multiplied by what it should yield over what it does, round by round.
    """
    probe = _popular(sizes, FIT_TOKENS, 0, 0)
    configs = [_config(probe, target) for target in targets]
    depths = np.array([config.capacity_slots / sizes.layers for config in configs])
    in_order = np.argsort(depths, kind="stable")
    published = np.array([target.hit_rate for target in targets])[in_order]
    ends = np.clip(np.round(depths[in_order]).astype(int), 1, sizes.experts - 1)
    band = np.searchsorted(ends, np.arange(sizes.experts), side="right")
    wanted = np.maximum(np.diff(published, prepend=0.0, append=1.0), 1e-4)
    place = 1.0 / np.arange(1, sizes.experts + 1)
    heights = wanted / np.maximum(np.bincount(band, weights=place, minlength=len(wanted)), 1e-9)
    best: Fit | None = None
    for _ in range(ROUNDS):
        weights = tuple((heights[band] * place).tolist())
        trace = _stack_routed(sizes, weights, FIT_TOKENS, 0, 0)
        found = np.array([decode_hit_rate(trace, configs[i]) for i in in_order])
        residuals = np.empty(len(targets))
        residuals[in_order] = found - published
        fit = Fit(weights, tuple(residuals.tolist()))
        best = fit if best is None or abs(fit.worst) < abs(best.worst) else best
        yielded = np.maximum(np.diff(found, prepend=0.0, append=1.0), 1e-4)
        heights = heights * np.clip(wanted / yielded, 0.2, 5.0)
    assert best is not None
    return best


def decode_hit_rate(trace: Trace, config: RunConfig) -> float:
    """Hit rate of decoding, by replay."""
    counters = replay(trace, config).counters
    return float(tally(counters[DECODE], None)["hit_rate"] or 0.0)


def _config(trace: Trace, target: Target) -> RunConfig:
    (config,) = grid(trace, evict=target.policy, capacity=target.capacity, scope=target.scope)
    return config


def _lengths(row: Row) -> tuple[int, int, int]:
    """Tokens decoded, tokens of the prompt where TTFT is told, depth of lookahead."""
    prompt = (row.prompt_tokens or 0) if row.ttft_s is not None else 0
    return min(row.tokens or TOKENS, MOST_TOKENS), prompt, 0 if row.prefetch == "none" else 1


@lru_cache(maxsize=16)
def _stack_routed(
    sizes: Sizes, weights: tuple[float, ...], tokens: int, prompt: int, ahead: int
) -> Trace:
    """Route by weights of places, stretched where they are those of a model with other experts."""
    given = np.array(weights)
    share = (np.arange(sizes.experts) + 0.5) / sizes.experts
    places = given[(share * len(given)).astype(int)]
    return stack_routed(
        places,
        num_layers=sizes.layers,
        top_k=sizes.top_k,
        decode_length=tokens,
        prompt_length=prompt,
        lookahead_depth=ahead,
        expert_bytes=sizes.expert_bytes,
        seed=SEED,
    )


@lru_cache(maxsize=16)
def _popular(sizes: Sizes, tokens: int, prompt: int, ahead: int) -> Trace:
    return synthetic(
        num_layers=sizes.layers,
        num_experts=sizes.experts,
        top_k=sizes.top_k,
        num_requests=1,
        prompt_length=prompt,
        decode_length=tokens,
        zipf=ZIPF,
        reuse=REUSE,
        lookahead_depth=ahead,
        expert_bytes=sizes.expert_bytes,
        model="made up",
        seed=SEED,
    )


@lru_cache(maxsize=8)
def _recording(path: Path, shape: str | None) -> Trace:
    """Read a recording in any form; foreign ones are told what the row's shape knows."""
    try:
        return load(path)
    except SpecmdError:
        known = load_shape(shape) if shape else None
        return import_trace(
            path,
            num_experts=known.experts if known else None,
            model=known.name if known else None,
        )


def _sized(trace: Trace, row: Row) -> Trace:
    """Say how large an expert is, unless the recording does."""
    if trace.header.expert_bytes is not None and row.trace is not None:
        return trace
    header = trace.header.model_copy(update={"expert_bytes": row.expert_bytes})
    return replace(trace, header=header)
