"""A file to import: its kind of bytes, its text, and where in it something is wrong."""

from __future__ import annotations

import gc
import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress, islice
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.importers.table import Ints

PHASES = {"prefill": PREFILL, "decode": DECODE}
_NOT_JSON = (msgspec.MsgspecError, RecursionError)
_BLOCK = 1 << 16
Integer = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]


@dataclass
class Source:
    """What is known of a file before it is read, and what the user says of it.

    Attributes:
        path: the file.
        phase: ``decode`` or ``prefill``, where the file does not say.
        num_experts: experts of a layer, or None: the file says.
        top_k: experts a token, for forms of flat arrays that do not say.
        prompt_tokens: of a request, for forms that do not say.
        header: further fields of the trace's header; a reader may add what the file says.

    """

    path: Path
    phase: str = "decode"
    num_experts: int | None = None
    top_k: int | None = None
    prompt_tokens: int | None = None
    header: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def magic(self) -> bytes:
        """The first eight bytes."""
        with self.path.open("rb") as file:
            return file.read(8)

    @cached_property
    def data(self) -> bytes:
        """The whole file."""
        return self.path.read_bytes()

    @cached_property
    def text(self) -> str:
        """The whole file as UTF-8, its lines ended by line feeds."""
        return _decoded(self.data)

    @cached_property
    def lines(self) -> tuple[Ints, list[str]]:
        """Numbers of the lines that are not blank, and these lines."""
        return _kept(1, self.text.split("\n"))

    def opening(self) -> Iterator[tuple[int, str]]:
        """Yield numbers and content of the lines that are not blank, reading no more than asked."""
        number = 1
        for block in self._blocks():
            every = _decoded(block).removesuffix("\n").split("\n")
            numbers, lines = _kept(number, every)
            number += len(every)
            yield from zip(numbers.tolist(), lines, strict=True)

    @cached_property
    def heads(self) -> list[str]:
        """The first two lines that are not blank, if there are so many."""
        return [line for _, line in islice(self.opening(), 2)]

    @property
    def head(self) -> str:
        """The first line that is not blank; empty where there is none."""
        return self.heads[0] if self.heads else ""

    def objects(self, kind: Any, sure: Any = None) -> Iterator[tuple[Ints, list[Any]]]:
        """Yield some JSON lines after others, an object a line, as their numbers and as `kind`.

        As `sure` where they can be, which is `kind` with types that need no further check. They
        come by so many as a processor's cache holds: all at once take twice as long.
        """
        decoders = [msgspec.json.Decoder(each).decode for each in (sure, kind) if each]
        number = 1
        for block in self._blocks():
            every: list[Any] = block.removesuffix(b"\n").split(b"\n")
            numbers = np.arange(number, number + len(every))
            number += len(every)
            plain = b"\r" not in block and block.isascii()
            if not plain or not all(every) or any(map(bytes.isspace, every)):
                texts = _decoded(block).removesuffix("\n").split("\n")
                number += len(texts) - len(every)
                numbers, every = _kept(int(numbers[0]), texts)
            found = None
            for decode in decoders:
                try:
                    found = list(map(decode, every))
                    break
                except _NOT_JSON:
                    pass
            if found is None:  # as Python writes it: with NaN, which JSON has not
                pairs = zip(numbers.tolist(), every, strict=True)
                found = [_object(at, line, kind) for at, line in pairs]
            if found:
                yield numbers, found

    def _blocks(self) -> Iterator[bytes]:
        """Yield the file in pieces that end with a line."""
        with self.path.open("rb") as file:
            if file.read(len(BOM_UTF8)) != BOM_UTF8:
                file.seek(0)
            while block := file.read(_BLOCK):
                yield block + file.readline()

    @cached_property
    def first(self) -> dict[str, Any]:
        """The first line as a JSON object, or the whole file; empty where neither is one."""
        found = _loaded(self.head) if len(self.heads) > 1 else None
        found = self.document if found is None else found
        found = found[0] if isinstance(found, list) and found else found
        return found if isinstance(found, dict) else {}

    @cached_property
    def document(self) -> Any:
        """The whole file as one JSON value; None where it is not one."""
        return _loaded(self.text)

    def described(self, model: Any, sizes: Sequence[int] | None = None) -> dict[str, Any]:
        """Return the header, with what the file says where the user says nothing."""
        header = dict(self.header)
        if model and header["model"] == "unknown":
            header["model"] = model
        if sizes and header["expert_bytes"] is None:
            header["expert_bytes"] = round(sum(sizes) / len(sizes))
            header["expert_bytes_by_layer"] = tuple(sizes) if len(set(sizes)) > 1 else None
        return header

    def experts(self, told: int | None = None) -> int:
        """Return the number of experts, from the user or from the file (`told`).

        Raises SpecmdError if neither says, or if they differ.
        """
        if told is None and self.num_experts is None:
            raise SpecmdError("the file does not say how many experts a layer has: give --experts")
        if told is not None and self.num_experts not in (None, told):
            raise SpecmdError(f"the file says {told} experts a layer, not {self.num_experts}")
        return told if told is not None else int(self.num_experts or 0)


def model_of(path: str) -> str:
    """Return the name of a model from that of its file."""
    return re.split(r"[/\\]", path)[-1].removesuffix(".gguf")


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecmdError("not a text file in UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _kept(number: int, lines: list[str]) -> tuple[Ints, list[str]]:
    """Return the lines that are not blank, and their numbers, that of the first being `number`."""
    numbers = np.arange(number, number + len(lines))
    if all(lines) and not any(map(str.isspace, lines)):
        return numbers, lines
    kept = [line != "" and not line.isspace() for line in lines]
    return numbers[kept], list(compress(lines, kept))


def _object(number: int, line: str | bytes, kind: Any) -> Any:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SpecmdError(f"line {number}: not valid JSON ({error})") from None
    if type(found) is not dict:
        raise SpecmdError(f"line {number}: a JSON object is needed, not a {type(found).__name__}")
    try:
        return msgspec.convert(found, kind)
    except _NOT_JSON as error:
        raise SpecmdError(f"line {number}: {error}") from None


def _loaded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except _NOT_JSON:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make every error that is raised inside name the file."""
    # Millions of small lists are made, and none of them in cycles: the collector only slows it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    except SpecmdError as error:
        raise SpecmdError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except MemoryError:
        raise SpecmdError(f"{path}: does not fit into memory") from None
    except OSError as error:
        raise SpecmdError(f"{path}: cannot be read: {error.strerror or error}") from error
    finally:
        if collecting:
            gc.enable()


def integers(name: str, values: list[Any], lines: Ints) -> Ints:
    """Return values of a JSON field as (N,) integers; `lines` (N,) name what is none."""
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError:
            pass
    limit = 1 << 31
    for value, line in zip(values, lines.tolist(), strict=True):
        if type(value) is not int or abs(value) >= limit:
            wrong(line, name, value)
    return np.array(values, np.int64)


def reals(values: list[Any], lines: Ints) -> NDArray[np.float64]:
    """Return weights of JSON as (N,) floats; `lines` (N,) name what is none."""
    if not set(map(type, values)) <= {float, int}:
        at = next(i for i, value in enumerate(values) if type(value) not in (float, int))
        raise SpecmdError(f"line {lines[at]}: weight {str(values[at])[:40]!r} is not a number")
    try:
        return np.array(values, np.float64)
    except OverflowError:
        raise SpecmdError("a weight is too large") from None


def wrong(line: int, name: str, value: Any) -> NoReturn:
    """Refuse a value that is no integer."""
    raise SpecmdError(f"line {line}: {name} {str(value)[:40]!r} is not a 32-bit integer")


def phase_codes(values: list[Any], lines: Ints) -> Ints:
    """Return (N,) PREFILL or DECODE from their names or numbers."""
    names = {**PHASES, "0": PREFILL, "1": DECODE}
    if set(map(type, values)) <= {str} or set(map(type, values)) <= {int}:
        codes = {value: names.get(str(value).strip().lower()) for value in set(values)}
        if None not in codes.values():
            return np.array(list(map(codes.get, values)), np.int64)
    for value, line in zip(values, lines.tolist(), strict=True):
        if str(value).strip().lower() not in names:
            text = str(value)[:40]
            raise SpecmdError(f"line {line}: phase {text!r}: write prefill or decode")
    return np.array([names[str(value).strip().lower()] for value in values], np.int64)
