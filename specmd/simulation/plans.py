"""Plans of prefetchers, kept: what one proposes depends on no cache, so runs share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from specmd.core.event import World
from specmd.core.planner import Planner
from specmd.core.prefetch import Outlook
from specmd.core.state import Chunk
from specmd.runs.foresight import Foreseen, Foresight

if TYPE_CHECKING:
    from specmd.trace import Trace

MOST_BYTES = 1 << 28
"""A plan that takes more memory than that is made anew by each run."""
KEPT = 2
"""Plans of a trace that are kept."""

PLANNED = ("prefetch_start", "prefetch_keys", "prefetch_due", "prefetch_score")
"""Columns of a chunk that a planner fills."""


class Plan(NamedTuple):
    """Proposals by stretch of steps, how good they are, and what the prefetcher knew at the end."""

    chunks: dict[tuple[int, int], dict[str, Any]]
    foreseen: Foreseen
    state: Any


_kept: WeakKeyDictionary[Trace, dict[tuple[Any, ...], Plan]] = WeakKeyDictionary()


def foreseen(trace: Trace, needs: Iterable[str], tokens: slice, **where: Any) -> Outlook:
    """Return what a prefetcher of these needs may know of some tokens; `where` is the rest of it.

    Scores are float32, ids int64 with -1 for none.
    """

    def floats(name: str, array: Any) -> Any:
        if name not in needs:
            return np.zeros((0, 0, 0, 0)[: 3 if name == "logits" else 4], np.float32)
        return np.ascontiguousarray(array[tokens], dtype=np.float32)

    def ids(name: str, array: Any, most: int) -> Any:
        if name not in needs:
            return np.zeros((0, 0, 0), np.int64)
        found = np.array(array[tokens], np.int64)
        found[found >= most] = -1
        return found

    experts = trace.header.num_experts
    return Outlook(
        index=0,
        lookahead=floats("lookahead", trace.lookahead),
        renormalised=floats("renormalised", trace.lookahead_renormalised),
        logits=floats("logits", trace.logits),
        draft=ids("draft", trace.draft_ids, experts),
        ids=np.sort(ids("choices", trace.expert_ids, experts)),
        request=trace.request[tokens if "choices" in needs else slice(0)].astype(np.int64),
        **where,
    )


class Watched(World):
    """A world that knows whether its reader looked at how large the cache is."""

    def __getattribute__(self, name: str) -> Any:
        if name not in _OF_MODEL:
            object.__setattr__(self, "read", True)
        return super().__getattribute__(name)

    def __getitem__(self, index: Any) -> Any:
        object.__setattr__(self, "read", True)
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Any]:
        object.__setattr__(self, "read", True)
        return super().__iter__()

    @property
    def is_shared(self) -> bool:
        """Whether what was made of it serves every cache."""
        return "read" not in vars(self)


_OF_MODEL = {
    *("num_layers", "num_experts", "num_keys", "top_k", "seed", "popularity", "training"),
    *(*dir(object), "__dict__", "is_shared"),
}


class Plans:
    """The plan of one prefetcher over a trace: known from a run before, or made on the way.

    Args:
        trace: what is planned for.
        key: names the prefetcher, all it knows, and where the trace is cut into stretches.
        warmup: steps that do not count.

    """

    def __init__(self, trace: Trace, key: tuple[Any, ...], *, warmup: int = 0) -> None:
        self._warmup = warmup
        self._of_trace, self._key = _kept.setdefault(trace, {}), key
        self._known = self._of_trace.get(key)
        self._planner: Planner | None = None
        self._made: dict[tuple[int, int], dict[str, Any]] | None = {}
        self._bytes = 0
        self._foresight: Foresight | None = None

    @property
    def known(self) -> bool:
        """Whether the plan is there, and nothing will be asked of a planner."""
        return self._known is not None

    def begin(self, world: World, make: Callable[[World], Planner]) -> None:
        """Make the planner, told of a world."""
        watched = Watched(*world)
        self._planner = make(watched)
        self._foresight = Foresight(world.num_keys)
        if not watched.is_shared:
            self._made = None

    def plan(self, chunk: Chunk, look: Callable[[], Outlook], steps: tuple[int, int]) -> Chunk:
        """Return the chunk of some steps with the proposals for its events."""
        if self._known is not None:
            return chunk._replace(**self._known.chunks[steps])
        assert self._planner is not None
        assert self._foresight is not None
        planned = self._planner.plan(chunk, look())
        self._foresight.note(planned, counts=steps[0] >= self._warmup)
        count = int(planned.prefetch_start[-1])
        if self._made is not None:
            found = {name: getattr(planned, name) for name in PLANNED}
            found = {n: a if n == PLANNED[0] else a[:count].copy() for n, a in found.items()}
            self._made[steps] = found
            self._bytes += sum(array.nbytes for array in found.values())
            if self._bytes > MOST_BYTES:
                self._made = None
        return planned

    @property
    def state(self) -> Any:
        """What the prefetcher knew at the end."""
        if self._known is not None:
            return self._known.state
        return None if self._planner is None else self._planner.state

    @property
    def foreseen(self) -> Foreseen:
        """How good the proposals are that were planned so far."""
        if self._known is not None:
            return self._known.foreseen
        return Foreseen() if self._foresight is None else self._foresight.found

    def conclude(self) -> None:
        """Keep the plan: the trace has been walked to its end."""
        if self._known is None and self._made is not None and self._planner is not None:
            self._of_trace[self._key] = Plan(self._made, self.foreseen, self._planner.state)
            while len(self._of_trace) > KEPT:
                del self._of_trace[next(iter(self._of_trace))]
