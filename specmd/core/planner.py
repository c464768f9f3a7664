"""The planner: a prefetcher asked event by event, ahead of the kernel that issues its proposals."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from specmd.core import prefetch
from specmd.core.binding import Maker, bind_prefetcher
from specmd.core.clearance import is_cleared, named
from specmd.core.event import IntArray, World
from specmd.core.guards import Guard
from specmd.core.interpreted import as_lists, follow
from specmd.core.specialise import Function, is_cheaper_interpreted, specialise, specialise_frozen
from specmd.core.state import Chunk


class Planner:
    """A prefetcher, asked event by event, compiled or interpreted.

    Args:
        world: sizes, seed.
        maker: the prefetcher.
        interpreted: run as Python even what could be compiled.
        accesses: how many there are to come; None: very many.

    """

    def __init__(
        self, world: World, maker: Maker, *, interpreted: bool = False, accesses: int | None = None
    ) -> None:
        self._bindings = bind_prefetcher(maker)
        makers = [maker, *(part for part in (getattr(maker, "inner", None),) if part)]
        self._cls, self._checked = maker.cls, not all(is_cleared(part.cls) for part in makers)
        self._guard = Guard(maker.cls) if self._checked else None
        self.compiled = (
            maker.compiled
            and not interpreted
            and not is_cheaper_interpreted(prefetch.plan, self._bindings, accesses, self._checked)
        )
        self._prefetcher = maker.create(world)
        if maker.compiled and not self.compiled:
            self._prefetcher = as_lists(self._prefetcher)
        self._none = np.zeros(0, np.int64)
        self._space = 4 * world.num_keys

    @property
    def state(self) -> Any:
        """What the prefetcher knows so far."""
        return self._prefetcher

    @cached_property
    def _plan(self) -> Function:
        """What plans a chunk; a live cache binds its own."""
        plan = specialise(prefetch.plan, self._bindings, self.compiled, self._checked)
        return named(plan, self._cls)

    def plan(self, chunk: Chunk, outlook: prefetch.Outlook) -> Chunk:
        """Return the chunk with the prefetcher's proposals for each of its events."""
        events, done = len(chunk.layer), 0
        self._space = max(self._space, 8 * events)
        made, starts = prefetch.make_proposals(self._space), np.zeros(events + 1, np.int64)
        while done < events:
            arguments: Any = (chunk, outlook, self._none, done, starts, made)
            if self.compiled:
                done = self._ask(arguments)
            else:
                listed = as_lists(arguments)
                done = self._ask(listed)
                for array, values in zip((*made, starts), (*listed[-1], listed[-2]), strict=True):
                    array[:] = values
            if done < events:
                self._space *= 2
                wider = prefetch.make_proposals(self._space)
                for array, old in zip(wider, made, strict=True):
                    array[: len(old)] = old
                made = wider
        return chunk._replace(
            prefetch_start=starts,
            prefetch_keys=made.key,
            prefetch_due=made.due,
            prefetch_score=made.score,
        )

    def _ask(self, arguments: Any) -> int:
        """Let the prefetcher run on as far as its room goes; one nobody knows is looked at."""
        ask = partial(self._plan, self._prefetcher, *arguments)
        if self._guard is None:
            return int(ask())
        chunk, *_, starts, made = arguments
        done = int(self._guard.around(chunk, ask))
        self._guard.look_at(made.key, made.due, made.score, starts[: done + 1], chunk)
        return done

    def bind_one(
        self, entry: Function, chunk: Chunk, token_start: IntArray, made: prefetch.Proposals
    ) -> Callable[[Any], None]:
        """Return what plans the one event of a chunk, given what is known of its tokens.

        Args:
            entry: a function of prefetcher, chunk, token starts, proposals and an outlook.
            chunk: of one event; the proposals become its own.
            token_start: (2,) 0 and the tokens of the step.
            made: the proposals.

        """
        if self.compiled:
            state = (self._prefetcher, chunk, token_start, made)
            frozen = specialise_frozen(entry, self._bindings, state, self._checked)
            return named(frozen, self._cls)
        run = specialise(entry, self._bindings, compiled=False)

        (form, renew), proposed = follow(chunk), as_lists(made)

        def plan(scores: Any) -> None:
            renew()
            run(self._prefetcher, form, token_start.tolist(), proposed, scores)
            count = made.count[0] = proposed.count[0]
            for array, values in zip(made[:3], list(proposed)[:3], strict=True):
                array[:count] = values[:count]
            chunk.prefetch_start[1] = count

        return plan
