"""A plug-in that nobody has checked is looked at while it runs: who leaves, ranks, what it writes.

What the conformance suite finds out beforehand must not become a wrong number where nobody asked
it: a broken rule ends the run, and its reason names the file. What has passed the suite is cleared
(see `specmd.core.clearance`) and runs without.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from specmd.core.clearance import foreign_files
from specmd.core.event import NOBODY, Event
from specmd.core.hooks import own_answer, own_rank, own_route, own_victim
from specmd.core.interpreted import Open, open_form
from specmd.core.order.heap import Heap
from specmd.core.rows import DEFER, FETCH, NO_EXPERT, REPLACED, Rows, is_ready, pairs
from specmd.core.state import EMPTY, LOADING, READY, Chunk, Core, evictable

TOLD = ("keys", "tokens", "gates", "start")
"""Columns of a chunk that a policy is shown and may not write to."""


class Fault(Exception):  # noqa: N818 - what was seen, in words
    """A plug-in broke a rule of the core."""


def guarded_victim(policy: Any, incoming: int, pool: int, core: Any, event: Event) -> Any:
    """Ask for a victim, and look whether it may leave."""
    key = own_victim(policy, incoming, pool, core, event)
    if key != NOBODY:
        if key < 0 or key >= len(core.state):
            raise Fault("victim returned what is not a key")
        if core.pool[key] != pool or core.state[key] != READY or not evictable(core, key):
            raise Fault("victim returned a key that is not resident, or may not leave now")
    return key


def guarded_rank(policy: Any, key: int, event: Event) -> Any:
    """Ask for a rank, and look whether it is a number."""
    value = own_rank(policy, key, event)
    if value != value:
        raise Fault("rank returned NaN")
    return value


def guarded_route(router: Any, event: Event, rows: Rows, core: Any) -> None:
    """Let a policy choose what is executed, and look whether those are experts, each once."""
    own_route(router, event, rows, core)
    for pair in range(pairs(rows)):
        expert = rows.ids[pair]
        if expert != NO_EXPERT:
            if expert < 0 or expert >= rows.experts:
                raise Fault("route chose what is not an expert")
            for other in range(pair // rows.top_k * rows.top_k, pair):
                if rows.ids[other] == expert:
                    raise Fault("route chose an expert twice for a token")
        if rows.weights[pair] != rows.weights[pair]:
            raise Fault("route gave a weight of NaN")


def guarded_answer(misser: Any, key: int, event: Event, rows: Rows, core: Any) -> int:
    """Ask about a missing key, and look at the answer and at what stands in."""
    said = own_answer(misser, key, event, rows, core)
    if said < FETCH or said > DEFER:
        raise Fault("answer returned none of FETCH, HOST, LOWBIT, DROP and DEFER")
    for pair in range(pairs(rows) if len(rows.ids) > 0 else 0):
        if rows.fate[pair] == REPLACED:
            expert = rows.stand_in[pair]
            if expert < 0 or expert >= rows.experts or not is_ready(core, event, expert):
                raise Fault("answer let an expert stand in that is not ready")
    return said


class Guard:
    """Looks at the arrays that a plug-in is shown, before and after it is asked."""

    def __init__(self, cls: type) -> None:
        files = foreign_files(cls)
        self._who = cls.__name__
        self._file = f" ({Path(files[0]).name})" if files else ""

    def around(self, chunk: Any, run: Callable[[], Any]) -> Any:
        """Run something that is shown a chunk, which must be the same afterwards."""
        before = [np.array(getattr(chunk, name)) for name in TOLD]
        done = run()
        for name, old in zip(TOLD, before, strict=True):
            if not np.array_equal(old, getattr(chunk, name), equal_nan=name == "gates"):
                raise Fault(f"{self._who} wrote to the {name} of an event{self._file}")
        return done

    def conclude(self, core: Core, policy: Any, capacity: Any) -> None:
        """Look at the core and at the policy's heaps between two events."""
        state, pool = np.asarray(core.state), np.asarray(core.pool)
        held = np.asarray(core.hold) != (state == LOADING)
        if held.any():
            raise Fault(f"{self._who} left key {held.argmax()} held between events{self._file}")
        counts = np.bincount(pool[state != EMPTY], minlength=len(capacity))
        if (counts > capacity).any():
            raise Fault(f"{self._who} left more keys resident than there are slots{self._file}")
        parts: Any = policy if isinstance(policy, tuple | Open) else ()
        for part in parts:
            if isinstance(part, Heap | open_form(Heap)):
                for first, count in zip(
                    range(0, 1 << 62, int(part.span)), part.count, strict=False
                ):
                    if np.isnan(np.asarray(part.rank[first : first + count], np.float64)).any():
                        raise Fault(f"{self._who} put NaN into a heap as a rank{self._file}")

    def look_at(self, key: Any, due: Any, score: Any, starts: Any, chunk: Chunk) -> None:
        """Look at the proposals of a prefetcher: keys, each due later than its event, with a score.

        Args:
            key: keys proposed, as `due` and `score` (proposals,).
            due: clocks.
            score: scores.
            starts: (events + 1,) where each event's begin.
            chunk: the events.

        """
        stop = int(starts[-1])
        keys, dues = np.asarray(key[:stop], np.int64), np.asarray(due[:stop], np.int64)
        wrong = (keys < 0) | (keys >= chunk.num_layers * chunk.num_experts)
        if wrong.any():
            found = keys[wrong.argmax()]
            raise Fault(f"{self._who} proposed {found}, which is not a key{self._file}")
        clocks = np.repeat(np.arange(len(starts) - 1), np.diff(np.asarray(starts)))
        if (dues <= clocks + int(chunk.clock[0])).any():
            raise Fault(f"{self._who} proposed a key for an event that is past{self._file}")
        if np.isnan(np.asarray(score[:stop], np.float64)).any():
            raise Fault(f"{self._who} proposed a key with no score{self._file}")
