"""Decisions: the residency core of the simulator, asked event by event.

Nothing is decided here. An event that has just been routed becomes a chunk of one event; the
prefetcher proposes keys for it exactly as it does over a trace; `specmd.core.serve.serve`, bound to
the policy and to the link `Commands`, serves it and leaves its commands behind. The decision
digest and the counters are therefore those a simulation of the same routing would give.

Compiled code is given the state once, and an event is then one call with its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.core import serve as residency
from specmd.core.event import NOBODY, World
from specmd.core.kernel import as_lists, bind_hooks, bind_predict, is_compiled
from specmd.core.prefetch import Proposals
from specmd.core.specialise import specialise, specialise_held
from specmd.errors import SpecmdError
from specmd.live.commands import PENDING, Commands
from specmd.live.one_event import plan_event, serve_event
from specmd.policy.registry import Choice
from specmd.policy.schedule import Schedule

NOWHERE = int(NOBODY)


class Decisions:
    """Core, policy, prefetcher and command link of one live cache.

    Args:
        world: sizes, pools, seed.
        evict: eviction policy.
        prefetch: prefetcher.
        schedule: guard and cancellation.
        admission: `residency.FORCED`, `BYPASS`.
        bypass_wide: keep events wider than the cache out of it (no simulation does).
        interpreted: run the core as Python even where it could be compiled.

    Raises:
        SpecmdError: a policy needs to know the future, which a live run does not.

    """

    def __init__(
        self,
        world: World,
        evict: Choice,
        prefetch: Choice,
        schedule: Schedule,
        *,
        admission: int = residency.FORCED,
        bypass_wide: bool = False,
        interpreted: bool = False,
    ) -> None:
        for choice in (evict, prefetch):
            if "future" in choice.entry.needs:
                raise SpecmdError(
                    f"{choice.spelled} needs to know the future, which a live run does not: "
                    "record a trace and simulate it"
                )
            if "training" in choice.entry.needs and not len(world.popularity):
                raise SpecmdError(f"{choice.spelled} needs a training trace: give training=trace")
        self.world, self.evict, self.prefetch, self.schedule = world, evict, prefetch, schedule
        self.admission = admission
        self.bypass_wide = bypass_wide
        self.passes_by = False  # the present event does not enter the cache
        self.compiled = not interpreted and is_compiled(evict.entry.cls)
        self._plan_compiled = not interpreted and is_compiled(prefetch.entry.cls)
        self.predicts = hasattr(prefetch.entry.cls, "predict")
        self.needs = {*evict.entry.needs, *prefetch.entry.needs}
        self.depth = int(prefetch.values.get("depth", 0)) if "lookahead" in self.needs else 0
        self._prefetcher: Any = prefetch.create(world)
        keys = world.num_keys
        self._proposals = Proposals(
            np.zeros(keys, np.uint32), np.zeros(keys, np.int64), np.zeros(keys), np.zeros(2, int)
        )
        self._token_start = np.zeros(2, np.int64)
        none = np.zeros(0, np.int64)
        self._chunk = residency.Chunk(
            first_clock=0,
            step=np.zeros(1, np.uint32),
            layer=np.zeros(1, np.uint32),
            phase=np.zeros(1, np.uint32),
            start=np.zeros(2, np.int64),
            keys=np.zeros(keys, np.uint32),
            tokens=np.ones(keys, np.uint32),
            gates=np.zeros(keys if "weights" in self.needs else 0),
            next_use=none,
            prefetch_start=np.zeros(2, np.int64) if self.predicts else none,
            prefetch_keys=self._proposals.key if self.predicts else np.zeros(0, np.uint32),
            prefetch_due=self._proposals.due if self.predicts else none,
            prefetch_score=self._proposals.score if self.predicts else np.zeros(0),
        )
        self._no_scores = np.zeros((0, 0, 0, 0), np.float32)
        self._scores = self._no_scores
        self._clock = 0
        self._plan: Callable[[int, npt.NDArray[np.float32]], None] | None = None
        self._serve: dict[int, Callable[[int], int]] = {}  # by admission
        self.core: Any = None
        self.reset()

    def reset(self) -> None:
        """Empty the cache; counters, digest and what was ever fetched are kept."""
        old = self.core
        core: Any = residency.create_core(self.world, self.admission, self.schedule.guard)
        link: Any = Commands.create(self.world.num_keys, cancels=self.schedule.cancel)
        policy: Any = self.evict.create(self.world)
        if not self.compiled:
            core, link, policy = as_lists(core), as_lists(link), as_lists(policy)
        if old is not None:
            for key, mark in enumerate(old.mark):
                core.mark[key] = mark & residency.FETCHED_EVER
            core = core._replace(counters=old.counters, digest=old.digest)
        self.core, self.link, self.policy = core, link, policy
        self._plan, self._serve = None, {}

    def _bind_serve(self, admission: int) -> Callable[[int], int]:
        """Return a function that serves the present event, given its clock."""
        world, core = self.world, self.core._replace(admission=admission)
        hooks = bind_hooks(self.evict.entry.cls, Commands)
        sizes = world.num_layers, world.num_experts
        if self.compiled:
            state = (core, self.policy, self.link, self._chunk, *sizes)
            return specialise_held(serve_event, hooks, state)
        run = specialise(serve_event, hooks, compiled=False)

        def serve(clock: int) -> int:
            event = as_lists(self._used_part())
            return int(run(core, self.policy, self.link, event, *sizes, clock))

        return serve

    def _bind_plan(self) -> Callable[[int, npt.NDArray[np.float32]], None]:
        """Return a function that asks the prefetcher, given the event's clock and scores."""
        world, chunk, made = self.world, self._chunk, self._proposals
        hooks = bind_predict(self.prefetch.entry.cls)
        sizes = world.num_layers, world.num_experts
        if self._plan_compiled:
            state = (self._prefetcher, chunk, self._token_start, made, *sizes)
            return specialise_held(plan_event, hooks, state)
        run = specialise(plan_event, hooks, compiled=False)

        def plan(clock: int, scores: npt.NDArray[np.float32]) -> None:
            listed = as_lists((chunk, self._token_start, made))
            run(self._prefetcher, *listed, *sizes, clock, scores)
            for array, values in zip(made, listed[2], strict=True):
                array[:] = values
            chunk.prefetch_start[1] = made.count[0]

        return plan

    def _used_part(self) -> residency.Chunk:
        """Return the chunk without what is left of wider events."""
        chunk = self._chunk
        keys = int(chunk.start[1])
        proposals = int(chunk.prefetch_start[1]) if self.predicts else 0
        return chunk._replace(
            keys=chunk.keys[:keys],
            tokens=chunk.tokens[:keys],
            gates=chunk.gates[:keys],
            prefetch_keys=chunk.prefetch_keys[:proposals],
            prefetch_due=chunk.prefetch_due[:proposals],
            prefetch_score=chunk.prefetch_score[:proposals],
        )

    def restart(self) -> None:
        """Forget everything: cache, counts, digest, and what policies have seen."""
        self._prefetcher = self.prefetch.create(self.world)
        self._scores = self._no_scores
        self.core = None
        self.reset()

    def propose(
        self,
        step: int,
        layer: int,
        phase: int,
        keys: npt.NDArray[np.int64],
        tokens: npt.NDArray[np.int64],
        gates: npt.NDArray[np.float64] | None,
        live_tokens: int,
        scores: npt.NDArray[np.float32] | None,
    ) -> None:
        """Set the event, and let the prefetcher see it.

        Args:
            step: number of the forward pass.
            layer: MoE layer.
            phase: PREFILL or DECODE.
            keys: (|U|,) demanded keys, ascending.
            tokens: (|U|,) tokens that chose each key.
            gates: (|U|,) summed router weight of each key, or None.
            live_tokens: T, tokens of the pass.
            scores: (T, depth, experts) lookahead scores seen from this layer, or None.

        """
        count = len(keys)
        pool = layer if self.world.pools > 1 else 0
        self.passes_by = self.bypass_wide and count > int(self.world.capacity[pool])
        self._clock = 1 + step * self.world.num_layers + layer
        chunk = self._chunk
        chunk.step[0], chunk.layer[0], chunk.phase[0] = step, layer, phase
        chunk.start[1] = count
        chunk.keys[:count] = keys
        chunk.tokens[:count] = tokens
        if len(chunk.gates) and gates is not None:
            chunk.gates[:count] = gates
        if not self.predicts:
            return
        if scores is not None:
            self._show(layer, scores)
        self._token_start[1] = live_tokens
        if self._plan is None:
            self._plan = self._bind_plan()
        self._plan(self._clock, self._scores)

    def _show(self, layer: int, scores: npt.NDArray[np.float32]) -> None:
        """Put scores where a prefetcher looks for them: (T, layers, depth, experts)."""
        tokens, depth, experts = scores.shape
        shape = (tokens, self.world.num_layers, depth, experts)
        if self._scores.shape != shape:
            self._scores = np.zeros(shape, np.float32)
        self._scores[:, layer] = scores

    def decide(self) -> list[tuple[int, int]]:
        """Serve the event; return its commands, each (command, key), in order."""
        admission = residency.NEVER_ADMIT if self.passes_by else self.admission
        serve = self._serve.get(admission)
        if serve is None:
            serve = self._serve[admission] = self._bind_serve(admission)
        written = serve(self._clock)
        if not written:
            return []
        commands, keys = self.link.command[:written], self.link.key[:written]
        return [(int(command), int(key)) for command, key in zip(commands, keys, strict=True)]

    def pending(self) -> Iterator[int]:
        """Keys of the prefetches that the core holds to be under way."""
        return (int(self.link.pending[i]) for i in range(self.link.count[PENDING]))

    def slot_of(self, key: int) -> int | None:
        """Slot of a key after the event, None if it has none."""
        slot = int(self.core.slot[key])
        return None if slot == NOWHERE else slot

    @property
    def counters(self) -> npt.NDArray[np.int64]:
        """Counters (2 phases, layers, NUM_COUNTERS), see `specmd.core.serve`."""
        shape = (2, self.world.num_layers, residency.NUM_COUNTERS)
        return np.array(self.core.counters, np.int64).reshape(shape)

    @property
    def digest(self) -> str:
        """Hash of all decisions so far, comparable with that of a simulation."""
        return "".join(f"{int(lane):08x}" for lane in self.core.digest)
