"""Arguments that compiled code reads once and holds.

Calling compiled code from Python unpacks every argument, field by field. For the state of a live
cache, some fifty arrays in nested tuples, that takes ten times as long as serving the event, and it
is the same state each time. So it is unpacked once, and what compiled code makes of it (addresses,
lengths, numbers) is kept in a block of memory; later calls pass the block and what really changes.
The arrays must stay alive and in place meanwhile, and numbers among the held keep their value.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

ir: Any = importlib.import_module("llvmlite.ir")  # neither of them has types
cgutils: Any = importlib.import_module("numba.core.cgutils")


def entry(*arguments: Any) -> Any:
    """Stand for the function that is called: a name to be bound (see specmd.core.specialise)."""


thaw: Any = None  # stands for what `make_thaw` returns


def call_held(memory: Any, *changing: Any) -> Any:
    """Call `entry` with the arguments held in `memory` and those that change."""
    return entry(*thaw(memory), *changing)


def keep(memory: Any, held: Any) -> Any:
    """Write compiled arguments into `memory`, if it is large enough; return how many bytes."""
    return freeze(memory, held)  # type: ignore[call-arg]  # the first is given by numba


@intrinsic
def freeze(_typing: Any, memory: Any, held: Any) -> Any:
    """Store a value as compiled code has it; return its bytes, all that is done if too many."""

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(signature.args[1])
        block = context.make_array(signature.args[0])(context, builder, arguments[0])
        num_bytes = context.get_constant(types.intp, context.get_abi_sizeof(kind))
        there = cgutils.unpack_tuple(builder, block.shape, 1)[0]
        with builder.if_then(builder.icmp_signed(">=", there, num_bytes)):
            place = builder.bitcast(block.data, kind.as_pointer())
            _store(builder, arguments[1], place)
        return num_bytes

    return types.intp(memory, held), lower


def make_thaw(held: Any) -> Any:
    """Return the function of compiled code that reads a value of the numba type `held` back."""

    @intrinsic
    def thaw_held(_typing: Any, memory: Any) -> Any:
        def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = context.get_value_type(signature.return_type)
            block = context.make_array(signature.args[0])(context, builder, arguments[0])
            return _load(builder, kind, builder.bitcast(block.data, kind.as_pointer()))

        return held(memory), lower

    return thaw_held


def _store(builder: Any, value: Any, place: Any) -> None:
    """Store a struct part by part: LLVM is slow with large ones as a whole."""
    for i in range(_parts(value.type)):
        part = cgutils.gep_inbounds(builder, place, 0, i)
        _store(builder, builder.extract_value(value, i), part)
    if not _parts(value.type):
        builder.store(value, place)


def _load(builder: Any, kind: Any, place: Any) -> Any:
    if not _parts(kind):
        return builder.load(place)
    value = ir.Constant(kind, ir.Undefined)
    for i in range(_parts(kind)):
        part = cgutils.gep_inbounds(builder, place, 0, i)
        value = builder.insert_value(value, _load(builder, kind.elements[i], part), i)
    return value


def _parts(kind: Any) -> int:
    return len(kind.elements) if isinstance(kind, ir.Aggregate) else 0


def hold(keep: Callable[..., int], held: tuple[Any, ...]) -> Any:
    """Return the block of memory that holds the arguments, (bytes,)."""
    memory = np.zeros(0, np.uint8)
    num_bytes = keep(memory, held)
    memory = np.zeros(num_bytes, np.uint8)
    keep(memory, held)
    return memory
