"""A routing trace in memory: which experts each token chose, and when.

Arrays run over tokens in execution order. Tokens with the same ``step`` went through the model in
one forward pass: the prefill of a request, or one decode step of all requests in flight. What a
cache sees in a layer of a step is the *union* of its tokens' experts, which is why steps, and not
tokens, are the clock of every simulation.

Letters used throughout: T tokens, L layers, K experts per token and layer, E experts per layer,
R requests, D lookahead depth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, MAX_EXPERTS, PREFILL, TraceHeader

Array = NDArray[Any]

REQUIRED = ("expert_ids", "step", "request", "phase")
OPTIONAL = (
    "weights",
    "token_ids",
    "prompt_lengths",
    "logits",
    "lookahead",
    "lookahead_renormalised",
    "draft_ids",
)
CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class Trace:
    """A routing trace. Treat its arrays as read-only: they may be shared or mapped from a file.

    Attributes:
        header: what the trace is of.
        expert_ids: (T, L, K) uint8, or uint16 where E > 256; chosen experts, best first. Where the
            header says ragged, a row may end in the largest value of the type, which is no expert
            (and E = 256 needs uint16): the token chose fewer there, or none: it did not reach the
            layer.
        step: (T,) int32, from 0, never falling, without gaps; one value per forward pass.
        request: (T,) int32, each of 0..R-1 at least once.
        phase: (T,) uint8, ``PREFILL`` or ``DECODE``.
        weights: (T, L, K) float16 or float32 gate weights, finite and not negative, or None.
        token_ids: (T,) int32 vocabulary ids of the tokens fed in, or None.
        prompt_lengths: (R,) int32 prompt tokens of each request, -1 unknown, or None. Known even
            where the prefill itself was not recorded.
        logits: (T, L, E) float16 router logits, or None.
        lookahead: (T, L, D, E) float16, or None. Entry [t, l, d-1] holds the scores that the gate
            of layer l+d gives on layer l's gate input; NaN where l+d >= L.
        lookahead_renormalised: the same, the input re-normalised with layer l+d's norm first.
        draft_ids: (T, L, K') int16, or None. What a draft model, run before the token's step began,
            says the token will choose: best first, distinct, -1 where it says no more.
        file: where it was loaded from, "" if it was made otherwise.

    """

    header: TraceHeader
    expert_ids: Array
    step: NDArray[np.int32]
    request: NDArray[np.int32]
    phase: NDArray[np.uint8]
    weights: Array | None = None
    token_ids: NDArray[np.int32] | None = None
    prompt_lengths: NDArray[np.int32] | None = None
    logits: Array | None = None
    lookahead: Array | None = None
    lookahead_renormalised: Array | None = None
    draft_ids: NDArray[np.int16] | None = None
    file: str = field(default="", init=False)  # not carried over by dataclasses.replace

    @property
    def chosen(self) -> NDArray[np.bool_] | None:
        """(T, L, K) where a ragged trace has experts; None if everywhere."""
        return self.expert_ids < self.header.num_experts if self.header.ragged else None

    @property
    def num_tokens(self) -> int:
        """Tokens T in the trace."""
        return int(self.expert_ids.shape[0])

    @property
    def num_steps(self) -> int:
        """Forward passes in the trace."""
        return int(self.step[-1]) + 1 if self.step.size else 0

    @cached_property
    def num_requests(self) -> int:
        """Requests R in the trace."""
        if self.prompt_lengths is not None:
            return int(self.prompt_lengths.shape[0])
        return int(self.request.max()) + 1 if self.request.size else 0

    @cached_property
    def step_starts(self) -> NDArray[np.int64]:
        """Return the (num_steps + 1,) int64 first token of every step, then T."""
        edges = np.flatnonzero(np.diff(self.step)) + 1
        return np.concatenate(([0], edges, [self.num_tokens])).astype(np.int64)

    @property
    def idle_steps(self) -> NDArray[np.int64]:
        """Steps but the first, before which no request is in flight: all have ended or not begun.

        A request is in flight from its first step to its last, also while another's prompt runs.
        """
        lengths = np.diff(self.step_starts)
        step = np.repeat(np.arange(len(lengths)), lengths)
        first = np.full(self.num_requests, len(lengths), np.int64)
        last = np.full(self.num_requests, -1, np.int64)
        np.minimum.at(first, self.request, step)
        np.maximum.at(last, self.request, step)
        begun = np.cumsum(np.bincount(first, minlength=len(lengths))[: len(lengths)])
        ended = np.cumsum(np.bincount(last + 1, minlength=len(lengths))[: len(lengths)])
        in_flight = np.concatenate(([0], begun[:-1])) - ended
        return np.flatnonzero(in_flight == 0)[1:]

    @cached_property
    def digest(self) -> str:
        """Hash of what the arrays say (not of the header's texts), as 32 hexadecimal digits.

        Computed on first use, about 1 GB/s, and compared with what the file said it is: whoever
        relies on a digest relies on the content it was made of.

        Raises:
            SpecmdError: the arrays of the file were edited after it was written.

        """
        found = content_digest(self)
        if self.file and self.header.digest not in ("", found):
            raise SpecmdError(
                f"{self.file}: the content does not match its digest: it was edited; fetch, "
                "record or import it again"
            )
        return found

    def arrays(self) -> dict[str, Array]:
        """Return the arrays that are present, by name, in the order of the file."""
        found = {name: getattr(self, name) for name in REQUIRED + OPTIONAL}
        return {name: array for name, array in found.items() if array is not None}


def byte_chunks(array: Array) -> Iterator[memoryview]:
    """Yield the bytes of `array` in C order, little-endian, about 16 MiB at a time."""
    rows = max(1, CHUNK_BYTES // max(1, array.nbytes // max(1, array.shape[0])))
    little = array.dtype.newbyteorder("<")
    for start in range(0, array.shape[0], rows):
        chunk = np.ascontiguousarray(array[start : start + rows], dtype=little)
        yield chunk.reshape(-1).view(np.uint8).data


def content_digest(trace: Trace) -> str:
    """Return blake2b (32 hexadecimal digits) over E and every array's name, dtype, shape, bytes."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"specmd.trace experts={trace.header.num_experts}\n".encode())
    for name, array in trace.arrays().items():
        kind = array.dtype.newbyteorder("<").str
        digest.update(f"{name} {kind} {array.shape}\n".encode())
        for chunk in byte_chunks(array):
            digest.update(chunk)
    return digest.hexdigest()


def build_trace(
    expert_ids: ArrayLike,
    *,
    num_experts: int,
    step: ArrayLike | None = None,
    request: ArrayLike | None = None,
    phase: ArrayLike | int = DECODE,
    weights: ArrayLike | None = None,
    token_ids: ArrayLike | None = None,
    prompt_lengths: ArrayLike | None = None,
    logits: ArrayLike | None = None,
    lookahead: ArrayLike | None = None,
    lookahead_renormalised: ArrayLike | None = None,
    draft_ids: ArrayLike | None = None,
    ragged: bool = False,
    header: Mapping[str, Any] | None = None,
) -> Trace:
    """Build a checked trace from arrays of any integer or float type.

    Args:
        expert_ids: (T, L, K) integers, or (T, L) for top-1 routing.
        num_experts: experts E of a layer.
        step: (T,); by default every token is a step of its own.
        request: (T,); by default all tokens belong to request 0.
        phase: (T,) or one value for all tokens.
        weights: (T, L, K) or (T, L) floats; anything but float16 becomes float32.
        token_ids: (T,) integers.
        prompt_lengths: (R,) integers, -1 unknown.
        logits: (T, L, E) floats, stored as float16.
        lookahead: (T, L, D, E) floats, stored as float16.
        lookahead_renormalised: the same.
        draft_ids: (T, L, K') integers, -1 for none.
        ragged: an id of -1 is no expert; all of them come last in their rows.
        header: further fields of `TraceHeader` (model, expert_bytes, source, ...).

    Raises:
        SpecmdError: the arrays do not make a valid trace.

    """
    from specmd.trace.checks import check_trace, require_range

    ids = np.asarray(expert_ids)
    if ids.ndim == 2:
        ids = ids[:, :, None]
    if ids.ndim != 3 or ids.dtype.kind not in "iu" or 0 in ids.shape:
        raise SpecmdError(
            f"expert ids must be integers of shape (tokens, layers, k), none of them 0; "
            f"got {ids.dtype} {ids.shape}"
        )
    if not 1 <= num_experts <= MAX_EXPERTS:
        raise SpecmdError(f"{num_experts} experts a layer: give a number from 1 to {MAX_EXPERTS}")
    none = ids == -1 if ragged else np.zeros((), np.bool_)
    ragged = bool(none.any())
    dtype = id_dtype(num_experts, ragged)
    if ragged:
        require_range(np.where(none, 0, ids), num_experts)
        ids = np.where(none, no_expert(dtype), ids)
    else:
        require_range(ids, num_experts)
    tokens, layers, top_k = ids.shape
    facts = {
        "num_layers": layers,
        "num_experts": num_experts,
        "top_k": top_k,
        "ragged": ragged,
    }
    phases = np.broadcast_to(_integers("phase", phase), (tokens,))
    if int(phases.min()) < PREFILL or int(phases.max()) > DECODE:
        raise SpecmdError("a phase is neither 0 (prefill) nor 1 (decode)")

    def ints(name: str, values: ArrayLike | None) -> NDArray[np.int32] | None:
        return None if values is None else _integers(name, values)

    def halves(values: ArrayLike | None) -> Array | None:
        return None if values is None else _floats(values, np.float16)

    gate = None if weights is None else np.asarray(weights)
    if gate is not None:
        gate = gate.reshape(gate.shape + (1,) * (3 - gate.ndim))
        gate = gate if gate.dtype == np.float16 else _floats(gate, np.float32)
    try:
        described = TraceHeader(**{**(header or {}), **facts})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecmdError(f"trace header, {where}: {first['msg']}") from error
    trace = Trace(
        header=described,
        expert_ids=ids.astype(dtype, copy=False),
        step=_integers("step", np.arange(tokens) if step is None else step),
        request=_integers("request", np.zeros(tokens, np.int32) if request is None else request),
        phase=phases.astype(np.uint8),
        weights=gate,
        token_ids=ints("token_ids", token_ids),
        prompt_lengths=ints("prompt_lengths", prompt_lengths),
        logits=halves(logits),
        lookahead=halves(lookahead),
        lookahead_renormalised=halves(lookahead_renormalised),
        draft_ids=None if draft_ids is None else _integers("draft_ids", draft_ids, np.int16),
    )
    check_trace(trace)
    return trace


def id_dtype(num_experts: int, ragged: bool = False) -> type[np.uint8] | type[np.uint16]:
    """Return the type expert ids are stored in: one byte up to 256 values, else two."""
    return np.uint8 if num_experts + ragged <= 256 else np.uint16


def no_expert(dtype: Any) -> int:
    """Return the id that stands for no expert in a ragged trace."""
    return int(np.iinfo(dtype).max)


def _integers(name: str, values: ArrayLike, kind: Any = np.int32) -> NDArray[Any]:
    given = np.asarray(values)
    limit = np.iinfo(kind)
    if given.dtype.kind not in "iu":
        raise SpecmdError(f"{name} must be integers, not {given.dtype}")
    if given.size and (given.min() < limit.min or given.max() > limit.max):
        raise SpecmdError(f"{name} must fit into {limit.bits} bits")
    return given.astype(kind, copy=False)


def _floats(values: ArrayLike, dtype: type[np.float16] | type[np.float32]) -> Array:
    given = np.asarray(values)
    if given.dtype.kind not in "iuf":
        raise SpecmdError(f"weights and scores must be numbers, not {given.dtype}")
    with np.errstate(over="ignore"):  # infinite weights are refused by the checks
        return given.astype(dtype, copy=False)
