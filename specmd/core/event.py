"""The one immutable thing a policy is told: the event, and the world it happens in.

An event is one MoE layer of one step. Everything a policy may know rides on it, so that adding
knowledge never adds a method. Its arrays are shared by all events of a run; `start` and `stop`
delimit this event's part. Knowledge a policy did not declare as a need is an empty array.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

# Element types are not told to the type checker: in a kernel an element is a number like any other,
# and interpreted it comes from a list.
IntArray: TypeAlias = npt.NDArray[Any]  # int64
FloatArray: TypeAlias = npt.NDArray[Any]  # float64
KeyArray: TypeAlias = npt.NDArray[Any]  # uint32, so that compiled indexing needs no sign check

PREFILL = 0
DECODE = 1
NEVER = 1 << 62
NOBODY: Any = np.uint32(0xFFFFFFFF)  # no key, no slot; the type of a key in compiled code


class World(NamedTuple):
    """What is fixed for a run: sizes, the pools, and what the policy's needs brought along."""

    num_layers: int
    num_experts: int
    top_k: int
    pools: int
    capacity: IntArray  # (pools,) slots
    seed: int
    popularity: FloatArray  # (keys,) uses a step in the training trace; empty unless needed

    @property
    def num_keys(self) -> int:
        """Number of keys, `layer * num_experts + expert`."""
        return self.num_layers * self.num_experts

    @property
    def keys_per_pool(self) -> int:
        """Keys that may enter one pool; pool p holds the keys from `p * keys_per_pool` on."""
        return self.num_keys // self.pools

    def pool_of_keys(self) -> KeyArray:
        """Pool of every key, shape (keys,)."""
        return _pool_of_keys(self.num_keys, self.pools)


@lru_cache(maxsize=8)
def _pool_of_keys(num_keys: int, pools: int) -> KeyArray:
    """One array for all who ask: kernels read it often, and it should be in cache once."""
    pool = (np.arange(num_keys) // (num_keys // pools)).astype(np.uint16)
    pool.setflags(write=False)
    return pool


class Event(NamedTuple):
    """One MoE layer of one step. `keys[start:stop]` is the demanded set U, ascending."""

    clock: int  # events so far, from 1; what policies stamp with
    step: int
    layer: int
    phase: int  # PREFILL or DECODE
    start: int
    stop: int
    keys: KeyArray  # key ids
    tokens: KeyArray  # tokens of the step that chose the key
    gates: FloatArray  # summed router weight of the key; empty if the trace has none
    num_layers: int
    num_experts: int
    next_use: IntArray  # (keys,) clock of the next use after this event; empty unless needed
