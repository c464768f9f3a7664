"""Curves: hits of LRU and of Belady at every capacity, from one walk over a trace.

Exact, and of the same rules as a replay at each capacity: event-atomic or sequential, either scope,
with warm-up and resets (see `specmd.core.stacks` for why one walk can know). No decision is logged,
so there is no digest, and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from specmd.core.event import NEVER, KeyArray, World
from specmd.core.interpreted import as_lists
from specmd.core.specialise import is_cheaper_interpreted, specialise
from specmd.core.stacks import (
    count_foresight,
    count_recency,
    make_foresight,
    make_recency,
    place_first,
)
from specmd.core.state import Chunk
from specmd.runs.options import RunConfig
from specmd.runs.pools import pools_of
from specmd.simulation.events import EventStream

if TYPE_CHECKING:
    from specmd.trace import Trace, TraceHeader

Rule = Literal["lru", "belady", "belady:bypass=true"]
Start = Literal["cache", "seen", "any"]


@dataclass(frozen=True)
class Curve:
    """Accesses by the depth at which they were found in their pool's stack.

    A pool of C slots hits those found at depths below C.
    """

    found: npt.NDArray[np.int64]  # (2 phases, layers, depths)
    first_uses: int  # keys that had not been demanded before, since the last reset
    accesses: int
    pool: KeyArray  # (layers,)
    span: int  # keys of the largest pool

    def hits(self, slots: Sequence[int]) -> npt.NDArray[np.int64]:
        """Count the hits of pools of so many slots, (2 phases, layers)."""
        if min(self.span, max(slots)) > self.found.shape[2]:
            raise ValueError(f"the curve was cut at {self.found.shape[2]} slots")
        below = np.arange(self.found.shape[2]) < np.array(slots)[self.pool, None]
        return np.asarray((self.found * below).sum(axis=2))

    def by_pool(self) -> list[list[int]]:
        """Count the accesses of each pool by depth."""
        whole = self.found.sum(axis=0)
        pools = range(int(self.pool.max()) + 1)
        return [whole[self.pool == pool].sum(axis=0).tolist() for pool in pools]

    def all_hits(self, header: TraceHeader, config: RunConfig) -> npt.NDArray[np.int64]:
        """Count the hits of a cache of 0, 1, 2, ... slots, divided among its pools."""
        below = [np.append(0, np.cumsum(row)) for row in self.by_pool()]
        slots = (
            pools_of(header, config, total).slots
            for total in range(header.num_layers * header.num_experts + 1)
        )
        return np.array([sum(map(np.take, below, each)) for each in slots], np.int64)


def curve(
    trace: Trace,
    config: RunConfig,
    rule: Rule,
    *,
    depth: int | None = None,
    start: Start = "cache",
    interpreted: bool = False,
) -> Curve:
    """Count the hits of a rule at every capacity, under the trace rules of a configuration.

    Args:
        trace: the trace, already cut to `config.tokens`.
        config: its scope, sequential, reset and warmup are what counts.
        rule: LRU, Belady, or Belady that may refuse to admit.
        depth: the most slots of a pool that will be asked for; by default all of its keys.
        start: what Belady is given, see `specmd.simulation.replay.replay`.
        interpreted: run as Python.

    """
    return _Walk(trace, config, rule, depth, start, interpreted).run()


class _Walk:
    """One walk over a trace."""

    def __init__(
        self,
        trace: Trace,
        config: RunConfig,
        rule: Rule,
        depth: int | None,
        start: Start,
        interpreted: bool,
    ) -> None:
        self.config, self.rule, self.start = config, rule, start
        self.layers = trace.header.num_layers
        even = config.model_copy(
            update={"allocate": "uniform"}
        )  # who serves a layer is what counts
        self.world = World.of(trace.header, *pools_of(trace.header, even))
        self.pool = self.world.pool[:: trace.header.num_experts]
        span = self.world.pool_span
        self.depth = span if depth is None or rule == "lru" else min(depth, span)
        self.events = EventStream(trace, sequential=config.sequential, future=rule != "lru")
        entry = count_recency if rule == "lru" else count_foresight
        cheap = interpreted or is_cheaper_interpreted(entry, {}, trace.expert_ids.size)
        self.count = specialise(entry, {}, compiled=not cheap)
        self.form: Any = as_lists if cheap else lambda value: value
        self.seen = np.zeros(self.world.num_keys, np.bool_)

    def run(self) -> Curve:
        events, warmup = self.events, self.config.warmup
        resets = events.resets() if self.config.reset == "request" else set()
        cuts = sorted({0, events.num_steps, *resets, warmup})
        events.split(cuts[1:-1])
        columns = self.depth + (1 if self.rule == "lru" else 2)
        stack: Any = None
        found: Any = None
        for first, last in pairwise(cuts):
            empty = first == 0 or first in resets
            if empty:
                stack = self._empty(stack)
            if self.start == "any" if empty else self.start == "seen" and first == warmup:
                self._fill(stack, first)
            if first in (0, warmup):
                found = self.form(np.zeros(2 * self.layers * columns, np.int64))
            for low, high in events.stretches(first, last):
                self._walk(stack, events.chunk(low, high), columns, found)
        counts = np.array(found, np.int64).reshape(2, self.layers, columns)
        first_uses = int(counts[..., -1].sum())
        found = counts[..., : self.depth]
        return Curve(found, first_uses, int(counts.sum()), self.pool, self.world.pool_span)

    def _walk(self, stack: Any, chunk: Chunk, columns: int, found: Any) -> None:
        start = chunk.start
        row = chunk.phase.astype(np.int64) * self.layers + chunk.layer
        if self.config.sequential:
            row = np.repeat(row, np.diff(start))
            start = np.arange(start[-1] + 1)
        stop = int(start[-1])
        known = () if self.rule == "lru" else (chunk.next_use[:stop], int(chunk.clock[0]))
        given = self.form((chunk.keys[:stop], *known, start, row))
        self.count(stack, *given, self.form(np.tile(self.pool, 2)), columns, found)

    def _empty(self, before: Any) -> Any:
        if self.rule == "lru":
            return self.form(
                make_recency(self.world.num_keys, self.world.pools, self.world.pool_span)
            )
        if before is not None:
            self.seen |= np.asarray(before.seen) != 0
        bypass = self.rule != "belady"
        return self.form(make_foresight(self.world.num_keys, self.world.pools, self.depth, bypass))

    def _fill(self, stack: Any, step: int) -> None:
        """Give Belady the keys that are used again soonest: of those seen so far, or of all."""
        wanted = self.events.upcoming(step).copy()
        if self.start == "seen":
            wanted[~(self.seen | (np.asarray(stack.seen) != 0))] = NEVER
        place_first(stack, self.world.pool, wanted)
