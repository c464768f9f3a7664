"""Traces from what vLLM and SGLang answer when asked for the experts of every token.

vLLM (``--enable-return-routed-experts``): a response, a list of them, or one a line, with
``routed_experts`` in each of its ``choices`` (or ``outputs``, or itself), and, in some versions,
``prompt_routed_experts`` beside them. Each is a nested list (tokens, layers, k) or a base64 npy
file. Without ``prompt_routed_experts``, the rows begin with those of the prompt.

SGLang (``return_routed_experts``): ``meta_info`` or ``sgl_ext`` hold ``routed_experts``, base64 of
int32 (tokens, layers, k) flattened: k is asked for (``--top-k``), and tokens come from the counts
that the response holds.

The prompt is one step, each further token one; a response of several choices computes its prompt
once. Layers without experts, which vLLM fills with one id, are left out. An ``.npy`` file holds the
array alone: ``--prompt-tokens`` says how many rows are the prompt's.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.importers.source import Source
from specmd.trace.importers.table import Ints
from specmd.trace.trace import Array, Trace, build_trace

_HEADER_2 = np.lib.format.read_array_header_2_0
KEYS = ("routed_experts", "prompt_routed_experts")


class _Part(NamedTuple):
    """Some tokens of one request."""

    request: int
    phase: int
    ids: Array


def read_responses(source: Source) -> Trace:
    """Build a trace from responses; see the module.

    Raises SpecmdError naming what is wrong.
    """
    found = source.document
    if found is None:
        responses: list[Any] = [each for _, some in source.objects(dict) for each in some]
    else:
        responses = found if isinstance(found, list) else [found]
    parts: list[_Part] = []
    prompts: list[int] = []
    for number, response in enumerate(responses, 1):
        if not isinstance(response, dict):
            raise SpecmdError(f"response {number} is not a JSON object")
        try:
            parts += _parts(source, response, prompts)
        except SpecmdError as error:
            raise SpecmdError(f"response {number}: {error}") from error
    return _joined(source, parts, prompts)


def read_npy(source: Source) -> Trace:
    """Build a trace from one array of ids (tokens, layers, k), as vLLM returns it."""
    ids = _array(source.data)
    prompt = source.prompt_tokens
    if prompt is None:
        prompt = len(ids) if source.phase == "prefill" else 0
    return _joined(source, list(_cut(0, ids, prompt)), [prompt or -1])


def _parts(source: Source, response: dict[str, Any], prompts: list[int]) -> list[_Part]:
    choices = response.get("choices") or response.get("outputs") or [response]
    if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
        raise SpecmdError("'choices' is not a list of objects")
    shared = response.get("prompt_routed_experts")
    parts: list[_Part] = []
    for choice in choices:
        request = len(prompts)
        inner = next(
            (each for key in ("meta_info", "sgl_ext") if isinstance(each := choice.get(key), dict)),
            choice,
        )
        given = inner.get("routed_experts")
        before = choice.get("prompt_routed_experts") if choice is not response else None
        before = shared if before is None else before
        if given is None and before is None:
            raise SpecmdError("no routed_experts: was the server started to return them?")
        counts = _counts(response, choice)
        ids = None if given is None else _ids(source, given, counts)
        if before is not None:
            prompt = _ids(source, before, (None, None))
            prompts.append(len(prompt))
            if not parts or before is not shared:
                parts.append(_Part(request, PREFILL, prompt))
            if ids is not None:
                parts += _cut(request, ids, 0)
            continue
        known = source.prompt_tokens if source.prompt_tokens is not None else counts[0]
        assert ids is not None
        if known is None:
            raise SpecmdError(
                "neither prompt_routed_experts, prompt_token_ids nor usage say how many rows are "
                "the prompt's: give --prompt-tokens"
            )
        prompts.append(known)
        if parts:  # the prompt has been computed for the choice before
            parts += _cut(request, ids[known:], 0)
        else:
            parts += _cut(request, ids, known)
    return parts


def _counts(response: dict[str, Any], choice: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return how many tokens the prompt and the answer have, as far as they say."""
    said: list[int | None] = []
    for ids, name in (("prompt_token_ids", "prompt_tokens"), ("token_ids", "completion_tokens")):
        listed = [choice.get(ids), response.get(ids)]
        values: list[Any] = [len(each) for each in listed if isinstance(each, list)]
        values += [
            each.get(name)
            for place in (choice, response)
            for each in (place.get("meta_info"), place.get("usage"))
            if isinstance(each, dict)
        ]
        value = next((each for each in values if each is not None), None)
        if value is not None and (type(value) is not int or not 0 <= value < 1 << 31):
            raise SpecmdError(f"{name} {str(value)[:40]!r} is not a number of tokens")
        said.append(value)
    return said[0], said[1]


def _ids(source: Source, given: Any, counts: tuple[int | None, int | None]) -> Array:
    if isinstance(given, str):
        try:
            data = base64.b64decode(given, validate=True)
        except ValueError as error:
            raise SpecmdError(f"routed_experts is not base64 ({error})") from None
        if data.startswith(b"\x93NUMPY"):
            return _array(data)
        return _flat(source, data, counts)
    if not isinstance(given, list):
        raise SpecmdError("routed_experts is neither a list nor base64 text")
    try:
        ids = np.array(given)
    except (ValueError, OverflowError):
        raise SpecmdError("routed_experts is not a rectangle of integers") from None
    if given and (ids.dtype.kind not in "iu" or ids.ndim != 3):
        raise SpecmdError("routed_experts is not a rectangle (tokens, layers, k) of integers")
    return ids


def _flat(source: Source, data: bytes, counts: tuple[int | None, int | None]) -> Array:
    if source.top_k is None:
        raise SpecmdError("routed_experts is a flat array, which does not say k: give --top-k")
    if None in counts:
        raise SpecmdError("no counts of prompt_tokens and completion_tokens beside routed_experts")
    tokens = sum(count or 0 for count in counts) - 1
    size = len(data) // 4
    if len(data) % 4 or tokens < 1 or size == 0 or size % (tokens * source.top_k):
        raise SpecmdError(
            f"{size} ids are not of {tokens} tokens (prompt and answer but the last) with "
            f"{source.top_k} experts in each layer"
        )
    return np.frombuffer(data, "<i4").reshape(tokens, -1, source.top_k)


def _array(data: bytes) -> Array:
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a header of Python 2, or what looks like one
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else _HEADER_2
            shape, fortran, dtype = read(stream)
        if dtype.kind not in "iu" or dtype.itemsize * math.prod(shape) != len(data) - stream.tell():
            raise ValueError(f"it declares {dtype} {shape}, but holds {len(data):,} bytes")
        flat = np.frombuffer(data, dtype, offset=stream.tell())
        ids: Array = flat.reshape(shape, order="F" if fortran else "C")
    except Exception as error:  # numpy evaluates the header, and raises what that raises
        raise SpecmdError(f"not a readable npy array ({str(error).splitlines()[0]})") from None
    if ids.ndim != 3:
        raise SpecmdError(f"the array has shape {ids.shape}, not (tokens, layers, k)")
    return ids


def _cut(request: int, ids: Array, prompt: int) -> Iterator[_Part]:
    if prompt > len(ids):
        raise SpecmdError(f"{prompt} prompt tokens, but there are {len(ids)} rows")
    if prompt:
        yield _Part(request, PREFILL, ids[:prompt])
    if len(ids) > prompt:
        yield _Part(request, DECODE, ids[prompt:])


def _joined(source: Source, parts: list[_Part], prompts: list[int]) -> Trace:
    parts = [part for part in parts if len(part.ids)]
    if not parts:
        raise SpecmdError("no rows: no token was routed")
    if len({part.ids.shape[1:] for part in parts}) > 1:
        raise SpecmdError("layers or k differ between parts of the file")
    ids = np.concatenate([part.ids.astype(np.int64) for part in parts])
    lengths = [len(part.ids) for part in parts]
    phase = np.repeat([part.phase for part in parts], lengths)
    request = np.repeat([part.request for part in parts], lengths)
    begins: Ints = np.repeat(np.cumsum(lengths) - lengths, lengths)
    new = (phase == DECODE) | (np.arange(len(ids)) == begins)
    kept = np.ones(ids.shape[1], np.bool_)
    if ids.shape[2] > 1:
        kept = (ids != ids[:, :, :1]).any(axis=(0, 2))
    header = dict(source.header)
    if kept.any() and not kept.all():
        left = ", ".join(map(str, np.flatnonzero(~kept).tolist()))
        header["notes"] = "; ".join(filter(None, (header["notes"], f"no experts in layers {left}")))
        ids = ids[:, kept]
    present, request = np.unique(request, return_inverse=True)
    return build_trace(
        ids,
        num_experts=source.experts(),
        step=np.cumsum(new) - 1,
        request=request,
        phase=phase,
        prompt_lengths=np.array(prompts)[present],
        header=header,
    )
