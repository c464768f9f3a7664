"""Whether a trace holds requests of another: what learns may not have seen what it is judged on.

A cut, batched, composed or renamed copy of a recording has another digest and the same requests. A
request is therefore known by its windows: 32 tokens in a row, each by the set of experts it chose
in every layer, or by its token id. One side notes every eighth window of a request, the other is
searched at every token, so 39 tokens in common are found wherever either was cut; a request of
fewer than 32 tokens is known as a whole. Not noted is what requests share without being the same:
a stretch of a prompt that several of them have (a system prompt), and a loop (fewer than 8 rows
that differ).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specmd.errors import SpecmdError
from specmd.trace.header import PREFILL
from specmd.trace.slicing import select_requests, slice_tokens
from specmd.trace.trace import Trace

WINDOW = 32
STRIDE = 8
DISTINCT = 8

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Seen(NamedTuple):
    """What is remembered of a trace: its digest, and hashes of its requests' windows, ascending."""

    digest: str
    routing: Hashes
    text: Hashes  # empty where there are no token ids


@lru_cache(maxsize=8)
def seen(trace: Trace) -> Seen:
    """Note the requests of a trace; about 8 bytes for 8 tokens."""
    noted = [_noted(trace, rows) for rows in _rows(trace)]
    return Seen(trace.digest, *noted, *[np.zeros(0, np.uint64)] * (2 - len(noted)))


def shared_requests(known: Seen, trace: Trace) -> list[int]:
    """List the requests of a trace that hold a window of what is known."""
    found: set[int] = set()
    for windows, hashes in zip(_searched(trace), (known.routing, known.text), strict=False):
        for window, first in windows if len(hashes) else ():
            found.update(trace.request[first[np.isin(window, hashes)]].tolist())
    return sorted(found)


@lru_cache(maxsize=2)
def _searched(trace: Trace) -> list[list[tuple[Hashes, Places]]]:
    """Hash the windows of a trace: it is searched for more than one policy."""
    return [_windows(rows, *_requests(trace)) for rows in _rows(trace)]


def require_apart(known: Seen, trace: Trace, what: str) -> None:
    """Raise SpecmdError if a trace is, or shares requests with, what `what` was fitted on."""
    remedy = "`specmd split` makes two traces of one"
    if known.digest == trace.digest:
        raise SpecmdError(f"{what} is the trace that is judged: {remedy}")
    if found := shared_requests(known, trace):
        of = f"{len(found)} of the {trace.num_requests} requests"
        raise SpecmdError(f"{what} has {of} of the trace that is judged: {remedy}")


def groups(trace: Trace) -> npt.NDArray[np.int64]:
    """Give each request (R,) a number, the same to those that share a window."""
    group = np.arange(trace.num_requests)
    for rows in _rows(trace):
        for window, first in _windows(rows, *_requests(trace)):
            ok = _telling(trace, rows, window, first)
            order = np.argsort(window[ok], kind="stable")
            hashes, owner = window[ok][order], trace.request[first[ok]][order]
            same = (hashes[1:] == hashes[:-1]) & (owner[1:] != owner[:-1])
            for one, other in set(
                zip(owner[1:][same].tolist(), owner[:-1][same].tolist(), strict=True)
            ):
                group[group == group[one]] = group[other]
    return np.unique(group, return_inverse=True)[1].reshape(-1)


def split(trace: Trace, share: float, seed: int = 0) -> tuple[Trace, Trace]:
    """Divide a recording by its requests: about `share` of them, drawn, and the others.

    Requests that share a window stay together. A recording of one request is cut in time.

    Raises:
        SpecmdError: there is nothing to divide, or nothing is left on one side.

    """
    if not 0 < share < 1:
        raise SpecmdError(f"share {share}: give one between 0 and 1")
    group = groups(trace)
    if group.max() == 0:
        cut = int(trace.step_starts[round(share * trace.num_steps)])
        return slice_tokens(trace, 0, cut), slice_tokens(trace, cut)
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    sizes = np.bincount(group)[order]
    chosen = min(
        max(int(np.searchsorted(np.cumsum(sizes), share * len(group))) + 1, 1), len(order) - 1
    )
    ours = np.isin(group, order[:chosen])
    one, other = (select_requests(trace, np.flatnonzero(each).tolist()) for each in (ours, ~ours))
    return one, other


def _rows(trace: Trace) -> list[Hashes]:
    """Hash each token (T,): by the set it chose in every layer; and, where known, by its id."""
    experts = trace.header.num_experts
    table = _mixed(np.arange(trace.header.num_layers * experts, dtype=np.uint64))
    rows = np.zeros(trace.num_tokens, np.uint64)
    for layer in range(trace.header.num_layers):
        own = np.append(table[layer * experts : (layer + 1) * experts], np.uint64(0))
        rows += own[np.minimum(trace.expert_ids[:, layer], experts)].sum(axis=1, dtype=np.uint64)
    if trace.token_ids is None:
        return [rows]
    return [rows, _mixed(trace.token_ids.astype(np.uint64))]


def _mixed(values: Hashes) -> Hashes:
    """Spread numbers over 64 bits (splitmix64)."""
    z = (values + np.uint64(1)) * _BASE
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _requests(trace: Trace) -> tuple[Places, Places]:
    """Order the tokens (T,) by request, and count those of each request that has any."""
    order = np.argsort(trace.request, kind="stable")
    counts = np.bincount(trace.request, minlength=trace.num_requests)
    return order, counts[counts > 0]


def _windows(rows: Hashes, order: Places, counts: Places) -> list[tuple[Hashes, Places]]:
    """Hash the windows of all requests, and the shorter requests; with the token each begins at."""
    found = []
    left = np.repeat(np.cumsum(counts), counts) - np.arange(len(order))  # tokens from here to end
    begins = np.repeat(np.cumsum(counts) - counts, counts) == np.arange(len(order))
    shorter = [n for n in np.unique(counts).tolist() if DISTINCT <= n < WINDOW]
    for length in (*shorter, WINDOW):
        chosen = left >= WINDOW if length == WINDOW else begins & (left == length)
        at = np.flatnonzero(chosen)
        value = np.full(len(at), length, np.uint64)
        for i in range(length):
            value = value * _BASE + rows[order[at + i]]
        found.append((_mixed(value), order[at]))
    return found


def _noted(trace: Trace, rows: Hashes) -> Hashes:
    """Return the hashes that are kept of a trace: every eighth window of a request."""
    order, counts = _requests(trace)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = []
    for window, first in _windows(rows, order, counts):
        own = place[first] % STRIDE == 0
        found.append(window[own & _telling(trace, rows, window, first)])
    return np.unique(np.concatenate(found))


def _telling(trace: Trace, rows: Hashes, window: Hashes, first: Places) -> npt.NDArray[Any]:
    """Say of windows of one length whether it means something that two requests have them."""
    if not len(window):
        return np.zeros(0, np.bool_)
    order, counts = _requests(trace)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    length = min(WINDOW, int(np.repeat(counts, counts)[place[first[0]]]))
    inside = order[place[first][:, None] + np.arange(length)]
    distinct = 1 + (np.diff(np.sort(rows[inside], axis=1), axis=1) != 0).sum(axis=1)
    prompt = (trace.phase[inside] == PREFILL).all(axis=1)
    owners = np.unique(np.stack([window, trace.request[first].astype(np.uint64)], axis=1), axis=0)
    hashes, shared = np.unique(owners[:, 0], return_counts=True)
    common = shared[np.searchsorted(hashes, window)] > 1
    telling: npt.NDArray[Any] = (distinct >= DISTINCT) & ~(prompt & common)
    return telling
