"""Plans of prefetchers, kept: what one proposes depends on no cache, so runs share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from specmd.core.event import World
from specmd.core.kernel import Planner
from specmd.core.prefetch import Outlook
from specmd.core.state import Chunk

if TYPE_CHECKING:
    from specmd.trace import Trace

MOST_BYTES = 1 << 28
"""A plan that takes more memory than that is made anew by each run."""
KEPT = 2
"""Plans of a trace that are kept."""

PLANNED = ("prefetch_start", "prefetch_keys", "prefetch_due", "prefetch_score")
"""Columns of a chunk that a planner fills."""

Plan = dict[tuple[int, int], dict[str, Any]]
_END = (-1, -1)  # place of the state that the prefetcher was left in
_kept: WeakKeyDictionary[Trace, dict[tuple[Any, ...], Plan]] = WeakKeyDictionary()


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

    """

    def __init__(self, trace: Trace, key: tuple[Any, ...]) -> None:
        self._of_trace, self._key = _kept.setdefault(trace, {}), key
        self._known = self._of_trace.get(key)
        self._planner: Planner | None = None
        self._made: Plan | None = {}
        self._bytes = 0

    @property
    def known(self) -> bool:
        """Whether the plan is there, and nothing will be asked of a planner."""
        return self._known is not None

    def begin(self, world: World, make: Callable[[World], Planner]) -> None:
        """Make the planner, told of a world."""
        watched = Watched(*world)
        self._planner = make(watched)
        if not watched.is_shared:
            self._made = None

    def plan(self, chunk: Chunk, look: Callable[[], Outlook], steps: tuple[int, int]) -> Chunk:
        """Return the chunk of some steps with the proposals for its events."""
        if self._known is not None:
            return chunk._replace(**self._known[steps])
        assert self._planner is not None
        planned = self._planner.plan(chunk, look())
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
            return self._known[_END]["state"]
        return None if self._planner is None else self._planner.state

    def conclude(self) -> None:
        """Keep the plan: the trace has been walked to its end."""
        if self._known is None and self._made is not None and self._planner is not None:
            self._made[_END] = {"state": self._planner.state}
            self._of_trace[self._key] = self._made
            while len(self._of_trace) > KEPT:
                del self._of_trace[next(iter(self._of_trace))]
