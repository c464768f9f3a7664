"""The one immutable thing a policy is told: the event, and the world it happens in.

An event is one MoE layer of one step. Everything a policy may know rides on it, so that adding
knowledge never adds a method. Its arrays are shared by all events of a run; `start` and `stop`
delimit this event's part. Knowledge a policy did not declare as a need is an empty array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

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


# Entries of `World.rates`: seconds of an expert's transfer, of computing it on the host for one
# token and for each token more, and of computing it on the device.
LINK_S, HOST_S, HOST_TOKEN_S, DEVICE_S = range(4)
NO_RATES: FloatArray = np.zeros(0)


class Sizes(Protocol):
    """What a world takes from the header of a trace."""

    @property
    def num_layers(self) -> int: ...  # noqa: D102 - MoE layers
    @property
    def num_experts(self) -> int: ...  # noqa: D102 - of a layer
    @property
    def top_k(self) -> int: ...  # noqa: D102 - experts a token chooses in a layer


class Training(NamedTuple):
    """The routing of a training trace, for policies that are fitted beforehand: T tokens."""

    expert_ids: IntArray  # (T, layers, top_k), -1 where a token chose fewer
    weights: FloatArray  # (T, layers, top_k), or (0, 0, 0)
    logits: npt.NDArray[np.float32]  # (T, layers, experts), or (0, 0, 0)
    lookahead: npt.NDArray[np.float32]  # (T, layers, depth, experts), or (0, 0, 0, 0)
    step: IntArray  # (T,)
    request: IntArray  # (T,)
    phase: IntArray  # (T,)


class World(NamedTuple):
    """What is fixed for a run: sizes, the pools, and what a policy's needs brought along."""

    num_layers: int
    num_experts: int
    top_k: int
    capacity: IntArray  # (pools,) slots
    pool: KeyArray  # (keys,) pool of each key
    seed: int
    popularity: FloatArray  # (keys,) uses a step in the training trace; empty unless needed
    training: Training | None = None  # the training trace; None unless needed
    rates: FloatArray = NO_RATES  # (RATES,) seconds an expert takes; empty unless needed

    @classmethod
    def of(
        cls,
        sizes: Sizes,
        capacity: Sequence[int],
        of_layer: Sequence[int] | None = None,
        *,
        seed: int = 0,
        popularity: FloatArray | None = None,
        training: Training | None = None,
        rates: FloatArray = NO_RATES,
    ) -> World:
        """Build the world of a model's sizes and the slots of each pool.

        `of_layer` names the pool of each layer; without it, one pool holds all keys, and as many as
        there are layers hold a layer's keys each. A pool is cut to the keys that may enter it.
        """
        layers, pools = sizes.num_layers, len(capacity)
        if of_layer is None:
            of_layer = range(layers) if pools > 1 else (0,) * layers
        pool = np.repeat(np.asarray(of_layer, np.uint32), sizes.num_experts)
        return cls(
            sizes.num_layers,
            sizes.num_experts,
            sizes.top_k,
            np.minimum(np.asarray(capacity, np.int64), np.bincount(pool, minlength=pools)),
            pool,
            seed & 0x7FFFFFFF,
            np.zeros(0) if popularity is None else np.asarray(popularity, np.float64),
            training,
            rates,
        )

    @property
    def num_keys(self) -> int:
        """Number of keys, `layer * num_experts + expert`."""
        return self.num_layers * self.num_experts

    @property
    def pools(self) -> int:
        """Number of pools."""
        return len(self.capacity)

    @property
    def is_by_layer(self) -> bool:
        """Whether every layer is a pool of its own."""
        return self.pools == self.num_layers

    @property
    def pool_span(self) -> int:
        """Keys that may enter the largest pool: the room a table by pool gives to each."""
        return int(np.bincount(self.pool).max())


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
    gates: FloatArray  # summed router weight of the key; empty unless needed
    num_layers: int
    num_experts: int
    next_use: IntArray  # (keys,) clock of the next use after this event; empty unless needed


def cycles_by_age(num_layers: int, most: int) -> IntArray:
    """Count the cycles, of all layers, begun since an event: (most * layers + 1,) by its age."""
    found: IntArray = -(-np.arange(most * num_layers + 1) // num_layers)
    return found


def event_at(chunk: Any, index: int, future: IntArray) -> Event:
    """Build an event of a chunk (`specmd.core.state.Chunk`)."""
    return Event(
        chunk.clock[0] + index,
        chunk.step[index],
        chunk.layer[index],
        chunk.phase[index],
        chunk.start[index],
        chunk.start[index + 1],
        chunk.keys,
        chunk.tokens,
        chunk.gates,
        chunk.num_layers,
        chunk.num_experts,
        future,
    )


def event_of(event: Event, start: int, stop: int, keys: Any, tokens: Any, gates: Any) -> Event:
    """Build the event that has other keys in the place of an event's own."""
    return Event(
        event.clock,
        event.step,
        event.layer,
        event.phase,
        start,
        stop,
        keys,
        tokens,
        gates,
        event.num_layers,
        event.num_experts,
        event.next_use,
    )


def access_at(chunk: Any, index: int, i: int, future: IntArray) -> Event:
    """Build the event that one access of a chunk is by itself, in sequential replay."""
    event = event_at(chunk, index, future)
    return Event(
        chunk.clock[0] + i,
        event.step,
        event.layer,
        event.phase,
        i,
        i + 1,
        event.keys,
        event.tokens,
        event.gates,
        event.num_layers,
        event.num_experts,
        event.next_use,
    )
