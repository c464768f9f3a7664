"""The locality of a trace: what decides whether any cache can work on it.

A cache lives from reuse. Four views of it stand beside every result, because a hit rate means
nothing without them: how unevenly experts are used (a static choice would do), how much of a step
returns in the next one (a recency policy would do), how many other keys are touched between two
uses of the same key (the capacity LRU would need), and how much one forward pass touches (the
capacity below which a cyclic scan defeats LRU altogether). A fifth is a warning: models left to
decode greedily fall into loops, and a looping text flatters every cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from specmd.core.interpreted import as_lists
from specmd.core.specialise import is_cheaper_interpreted, specialise
from specmd.core.stacks import count_recency, make_recency
from specmd.trace.header import PREFILL
from specmd.trace.trace import Array, Trace

LOOP_WINDOW_TOKENS = 128
LOOP_OVERLAP = 0.75
"""Requests fall into two groups: free text stays below 0.6, loops lie above 0.8 (bf16 noise and the
loop's first turn keep them from 1). Seen on OLMoE and GPT-OSS, greedy decoding."""
_LOOP_SHORTEST_TOKENS = 32
_CHUNK_CELLS = 1 << 20


class Spread(BaseModel):
    """Mean, median and 95th percentile of a count."""

    model_config = ConfigDict(frozen=True)

    mean: float
    p50: float
    p95: float


class Locality(BaseModel):
    """What `locality` measures; shares are 0..1, sizes are in keys (layer, expert).

    Attributes:
        keys_total: L * E.
        keys_used: distinct keys that occur at all; a cache this large never evicts.
        popularity_entropy: (L,) entropy of the experts' use over log E; 1 is uniform.
        top_tenth_share: (L,) share of uses that go to the most used tenth of the experts.
        previous_step_reuse: share of an event's keys that the previous step used too, overall; None
            where there is one step.
        previous_step_reuse_by_layer: the same for each layer.
        previous_step_reuse_random: the same for experts drawn at random in equal numbers.
        reuse_distance_counts: uses by number of other keys used since the last use of the same key,
            as LRU's stack orders them at the event's start (see `specmd.core.stacks`);
            bin 0 is distance 0, bin i is 2^(i-1)..2^i - 1. With an LRU cache of C slots, a distance
            below C is a hit (no prefetch).
        reuse_first_uses: uses of a key for the first time, which have no distance.
        reuse_accesses: uses looked at: the whole trace, or its beginning where it is longer.
        reuse_complete: whether the whole trace was looked at.
        step_keys: keys of one forward pass, T = sum over layers of |U|; all steps.
        step_keys_decode: the same over steps without prefill tokens, or None.
        step_keys_prefill: the same over steps with prefill tokens, or None.
        event_keys: |U| of one layer of one step; all steps.
        event_keys_decode: the same over steps without prefill tokens, or None.
        event_keys_prefill: the same over steps with prefill tokens, or None.
        looping_requests: share of the requests whose last tokens repeat with a short period, or
            None where none is long enough to say.
        lookahead_recall: (D,) share of the true experts of layer l+d among the K best scores given
            at layer l; empty without lookahead.
        lookahead_renormalised_recall: the same for the re-normalised scores.

    """

    model_config = ConfigDict(frozen=True)

    keys_total: int
    keys_used: int
    popularity_entropy: list[float]
    top_tenth_share: list[float]
    previous_step_reuse: float | None
    previous_step_reuse_by_layer: list[float]
    previous_step_reuse_random: float | None
    reuse_distance_counts: list[int]
    reuse_first_uses: int
    reuse_accesses: int
    reuse_complete: bool
    step_keys: Spread
    step_keys_decode: Spread | None
    step_keys_prefill: Spread | None
    event_keys: Spread
    event_keys_decode: Spread | None
    event_keys_prefill: Spread | None
    looping_requests: float | None
    lookahead_recall: list[float]
    lookahead_renormalised_recall: list[float]


def locality(
    trace: Trace, *, max_reuse_accesses: int = 5_000_000, max_recall_tokens: int = 4096
) -> Locality:
    """Measure the locality of a trace.

    Args:
        trace: the trace.
        max_reuse_accesses: reuse distances are taken over the steps that fit into so many uses.
        max_recall_tokens: lookahead recall is taken over so many tokens, evenly spread.

    """
    layers, experts = trace.header.num_layers, trace.header.num_experts
    counts = _popularity(trace)
    sizes, shared, chance, histogram, first_uses, accesses = _walk(trace, max_reuse_accesses)
    total = np.maximum(sizes[1:].sum(axis=0, dtype=np.int64), 1)  # a layer may not be reached
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy = -(share * logs).sum(axis=1) / (math.log(experts) if experts > 1 else 1.0)
    top = np.sort(share, axis=1)[:, ::-1][:, : math.ceil(experts / 10)].sum(axis=1)
    wide = np.zeros(trace.num_steps, dtype=np.bool_)
    wide[trace.step[trace.phase == PREFILL]] = True
    several = trace.num_steps > 1
    per_step = sizes.sum(axis=1, dtype=np.int64)
    return Locality(
        keys_total=layers * experts,
        keys_used=int((counts > 0).sum()),
        popularity_entropy=entropy.tolist(),
        top_tenth_share=top.tolist(),
        previous_step_reuse=float(shared.sum() / total.sum()) if several else None,
        previous_step_reuse_by_layer=(shared / total).tolist() if several else [],
        previous_step_reuse_random=float(chance / total.sum()) if several else None,
        reuse_distance_counts=histogram,
        reuse_first_uses=first_uses,
        reuse_accesses=accesses,
        reuse_complete=accesses == int(sizes.sum()),
        step_keys=_spread(per_step),
        step_keys_decode=_spread(per_step, ~wide) if not wide.all() else None,
        step_keys_prefill=_spread(per_step, wide) if wide.any() else None,
        event_keys=_spread(sizes),
        event_keys_decode=_spread(sizes, ~wide) if not wide.all() else None,
        event_keys_prefill=_spread(sizes, wide) if wide.any() else None,
        looping_requests=looping_share(trace),
        lookahead_recall=lookahead_recall(trace, trace.lookahead, max_recall_tokens),
        lookahead_renormalised_recall=lookahead_recall(
            trace, trace.lookahead_renormalised, max_recall_tokens
        ),
    )


def looping_share(trace: Trace) -> float | None:
    """Return the share of requests that end in a loop, or None if no request is long enough.

    A request loops if, over its last 128 tokens, at least 75 % of the experts equal those chosen a
    fixed number of tokens earlier, for some period of up to 64 tokens. Requests of fewer than 32
    tokens are not judged.
    """
    order = np.argsort(trace.request, kind="stable")
    ends = np.cumsum(np.bincount(trace.request, minlength=trace.num_requests)).tolist()
    layers, experts = trace.header.num_layers, trace.header.num_experts
    judged = looping = 0
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        rows = order[max(start, stop - LOOP_WINDOW_TOKENS) : stop]
        count = len(rows)
        if count < _LOOP_SHORTEST_TOKENS:
            continue
        used = np.zeros((count, layers, experts + 1), dtype=np.bool_)
        ids = np.minimum(trace.expert_ids[rows].astype(np.int64), experts)
        np.put_along_axis(used, ids, True, axis=2)
        bits = _packed(used[..., :experts].reshape(count, 1, -1))[:, 0]
        chosen = int(np.bitwise_count(bits).sum()) / count
        judged += 1
        looping += any(
            int(np.bitwise_count(bits[period:] & bits[:-period]).sum())
            >= LOOP_OVERLAP * chosen * (count - period)
            for period in range(1, count // 2 + 1)
        )
    return looping / judged if judged else None


def lookahead_recall(trace: Trace, scores: Array | None, max_tokens: int) -> list[float]:
    """Return, for each depth d, the share of layer l+d's true experts among the K best scores."""
    if scores is None:
        return []
    tokens, layers, top_k = trace.expert_ids.shape
    stride = max(1, math.ceil(tokens / max_tokens))
    experts = trace.header.num_experts
    recalls = []
    for ahead in range(1, min(scores.shape[2], layers - 1) + 1):
        ids = trace.expert_ids[::stride, ahead:].astype(np.int64)
        true = np.minimum(ids, experts - 1)
        given = np.asarray(scores[::stride, : layers - ahead, ahead - 1], dtype=np.float32)
        best = np.argpartition(given, experts - top_k, axis=-1)[..., experts - top_k :]
        chosen = np.zeros(given.shape, dtype=np.bool_)
        np.put_along_axis(chosen, best, True, axis=-1)
        right = np.take_along_axis(chosen, true, axis=-1)[ids < experts]
        recalls.append(float(right.mean()) if right.size else 0.0)
    return recalls


def _popularity(trace: Trace) -> NDArray[np.int64]:
    """Return (L, E) how often tokens chose each expert."""
    layers, experts = trace.header.num_layers, trace.header.num_experts
    counts = np.zeros((layers, experts), dtype=np.int64)
    for start in range(0, trace.num_tokens, 1 << 16):
        chunk = trace.expert_ids[start : start + (1 << 16)]
        for layer in range(layers):
            uses = np.bincount(chunk[:, layer].reshape(-1), minlength=experts)
            counts[layer] += uses[:experts]
    return counts


def _walk(
    trace: Trace, max_accesses: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], float, list[int], int, int]:
    """Visit the steps in chunks, as presence masks (steps, L, E).

    Returns |U| of every event (S, L), keys shared with the previous step by layer (L,), the number
    shared by chance, and the reuse distances: histogram, first uses, uses looked at.
    """
    layers, experts = trace.header.num_layers, trace.header.num_experts
    starts = trace.step_starts
    sizes = np.empty((trace.num_steps, layers), dtype=np.int32)
    shared = np.zeros(layers, dtype=np.int64)
    chance = 0.0
    last = _packed(np.zeros((1, layers, experts), dtype=np.bool_))
    distances = ReuseDistances(layers * experts, trace.expert_ids.size)
    open_end = True
    rows = max(1, _CHUNK_CELLS // (layers * experts))
    layer_base = (np.arange(layers) * experts)[:, None]
    for first in range(0, trace.num_steps, rows):
        stop = min(first + rows, trace.num_steps)
        used = np.zeros((stop - first, layers, experts), dtype=np.bool_)
        for start in range(int(starts[first]), int(starts[stop]), 1 << 14):
            part = slice(start, min(start + (1 << 14), int(starts[stop])))
            step_base = (trace.step[part].astype(np.int64) - first) * (layers * experts)
            ids = trace.expert_ids[part]
            places = step_base[:, None, None] + (layer_base + ids)
            used.reshape(-1)[places[ids < experts] if trace.header.ragged else places] = True
        bits = _packed(used)
        sizes[first:stop] = _count(bits)
        joined = np.concatenate((last, bits))
        shared += _count(joined[1:] & joined[:-1]).sum(axis=0)
        before = sizes[first - 1 : stop - 1] if first else sizes[: stop - 1]
        chance += float((before * sizes[max(first, 1) : stop]).sum(dtype=np.int64)) / experts
        last = bits[-1:]
        if open_end:
            room = max_accesses - distances.accesses
            fits = int(np.searchsorted(np.cumsum(sizes[first:stop].sum(axis=1)), room, "right"))
            open_end = fits == stop - first
            keys = np.flatnonzero(used[:fits]) % (layers * experts)
            distances.add(keys, sizes[first : first + fits].reshape(-1))
    return sizes, shared, chance, distances.histogram(), distances.first_uses, distances.accesses


class ReuseDistances:
    """Distances of a stream of events, given in parts; keys are 0..num_keys-1.

    `accesses` are those to be expected: few are counted sooner than the loop is compiled.
    """

    def __init__(self, num_keys: int, accesses: int | None = None) -> None:
        compiled = not is_cheaper_interpreted(count_recency, {}, accesses)
        self._count = specialise(count_recency, {}, compiled)
        self._form: Callable[[Any], Any] = (lambda value: value) if compiled else as_lists
        self._stack = self._form(make_recency(num_keys, 1, num_keys))
        self._found = self._form(np.zeros(num_keys + 1, np.int64))
        self.accesses = 0

    @property
    def first_uses(self) -> int:
        """Uses of a key never seen before."""
        return int(self._found[-1])

    def add(self, keys: NDArray[np.int64], sizes: NDArray[Any]) -> None:
        """Continue with events of so many keys each, ascending within each."""
        start = np.append(0, np.cumsum(sizes, dtype=np.int64))
        rows = np.zeros(len(sizes), np.int64)
        given = self._form((keys.astype(np.uint32), start, rows, np.zeros(1, np.uint32)))
        self._count(self._stack, *given, len(self._found), self._found)
        self.accesses += len(keys)

    def histogram(self) -> list[int]:
        """Return counts by distance: bin 0 is distance 0, bin i is 2^(i-1)..2^i - 1."""
        counts = np.array(self._found[:-1], np.int64)
        bins = [int(counts[0])]
        low = 1
        while low < len(counts):
            bins.append(int(counts[low : 2 * low].sum()))
            low *= 2
        while bins and bins[-1] == 0:
            bins.pop()
        return bins


def _packed(used: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return presence masks (N, L, E) as bits, (N, L, ceil(E / 64)) uint64."""
    steps, layers, experts = used.shape
    octets = np.zeros((steps, layers, -(-experts // 64) * 8), dtype=np.uint8)
    octets[..., : -(-experts // 8)] = np.packbits(used, axis=2)
    return octets.view(np.uint64)


def _count(bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return (N, L) how many bits are set."""
    return np.asarray(np.bitwise_count(bits).sum(axis=2, dtype=np.int64))


def _spread(counts: NDArray[Any], chosen: NDArray[np.bool_] | None = None) -> Spread:
    """Summarise small whole numbers, of the chosen rows; in chunks, for there may be many."""
    seen = np.zeros(int(counts.max()) + 1, dtype=np.int64)
    for first in range(0, len(counts), 1 << 16):
        part = counts[first : first + (1 << 16)]
        if chosen is not None:
            part = part[chosen[first : first + (1 << 16)]]
        seen += np.bincount(part.reshape(-1), minlength=len(seen))
    upto = np.cumsum(seen)

    def percentile(share: float) -> float:
        rank = share * (int(upto[-1]) - 1)
        low, high = (int(np.searchsorted(upto, r, "right")) for r in (int(rank), math.ceil(rank)))
        return low + (high - low) * (rank - int(rank))

    mean = float((seen * np.arange(len(seen))).sum() / upto[-1])
    return Spread(mean=mean, p50=percentile(0.5), p95=percentile(0.95))
