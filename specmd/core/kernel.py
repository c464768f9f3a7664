"""The kernel: the core bound to a policy, a prefetcher and a link, compiled or interpreted inside.

A policy that declares itself compiled (a NamedTuple of arrays and numbers) runs at native speed.
Any other, with whatever Python objects it likes, is interpreted: the same core then runs over
Python lists, which Python indexes several times faster than arrays. Callers never ask which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.core import serve
from specmd.core.binding import (
    Executing,
    Maker,
    bind_gate,
    bind_link,
    bind_policy,
)
from specmd.core.clearance import is_cleared, named
from specmd.core.event import IntArray, KeyArray, World
from specmd.core.execution import NUM_MASSES
from specmd.core.guards import Guard
from specmd.core.interpreted import as_lists, follow
from specmd.core.specialise import Function, is_cheaper_interpreted, specialise, specialise_frozen
from specmd.core.staging import bind_staging, make_staging, without_staging
from specmd.core.state import (
    EMPTY,
    FETCHED_EVER,
    FORCED,
    FROZEN,
    NEVER_ADMIT,
    NUM_COUNTERS,
    PREFETCH_ISSUED,
    PREFETCH_WASTED,
    PREFETCHED,
    READY,
    USED,
    Chunk,
    Core,
    create_core,
    preload,
    spelled,
)
from specmd.core.tier import bind_tier, emptied, make_tier, tier_counters


class Kernel:
    """One cache: the state of the core, of its eviction policy and of its link.

    Args:
        world: sizes, pools, seed.
        evict: the eviction policy.
        link: what brings the keys; a NamedTuple of arrays where the kernel may be compiled.
        admission: FORCED, GATED, BYPASS or NEVER_ADMIT.
        guarded: whether prefetches are kept from evicting nearer ones.
        budget: prefetches a step at most, or 0.
        staging: slots for prefetches alone, see `specmd.core.staging`, or 0.
        execution: policies of routing and misses, where what they do is not to fetch all.
        resident: start with every key there.
        sequential: serve access by access.
        interpreted: run as Python even what could be compiled.
        accesses: how many are to be served: so few may cost less than compiling. None: very many.
        future: (keys,) clock of each key's first use, where the policy knows the future.
        gate: world and admission policy, None where the admission says it all.
        behind: world, policy and admission of the tier behind the link, or None.
        also: further functions to put in the place of others of the core, interpreted.

    """

    def __init__(
        self,
        world: World,
        evict: Maker,
        link: Any,
        *,
        admission: int = FORCED,
        guarded: bool = False,
        budget: int = 0,
        staging: int = 0,
        execution: Executing | None = None,
        resident: bool = False,
        sequential: bool = False,
        interpreted: bool = False,
        accesses: int | None = None,
        future: IntArray | None = None,
        gate: tuple[World, Maker] | None = None,
        behind: tuple[World, Maker, int] | None = None,
        also: Mapping[Function, Function] | None = None,
    ) -> None:
        self.world, self._evict, self._resident = world, evict, resident
        self._behind, self._gate = behind, gate
        self._bindings = {**bind_policy(evict), **bind_link(type(link))}
        makers = [evict]
        self._execution = execution
        if execution is not None:
            self._bindings |= execution.bindings
            makers += execution.makers
        if gate is not None:
            self._bindings |= bind_gate(gate[1])
            makers.append(gate[1])
        self._ahead = budget, staging
        if staging:
            self._bindings |= bind_staging()
        self._bindings |= also or {}
        if behind is not None:
            link = link._replace(tier=make_tier(*behind))
            self._bindings |= bind_tier(behind[1])
            makers.append(behind[1])
        self._entry = entry = serve.run_sequential if sequential else serve.run
        self._checked = not all(is_cleared(maker.cls) for maker in makers)
        self._guard = None if is_cleared(evict.cls) else Guard(evict.cls)
        self.compiled = (
            all(maker.compiled for maker in makers)
            and not interpreted
            and not is_cheaper_interpreted(entry, self._bindings, accesses, self._checked)
        )
        self._pins = evict.pins and admission != NEVER_ADMIT and not resident
        frozen = evict.frozen and self._pins
        self._settings = FROZEN if frozen else admission, guarded
        self.link = self._form(link)
        self.future = self._form(np.zeros(0, np.int64) if future is None else future.copy())
        self.core, self.policy = self._fresh()

    @cached_property
    def _run(self) -> Function:
        """What serves a chunk; a live cache, which binds its own, does not ask for it."""
        run = specialise(self._entry, self._bindings, self.compiled, self._checked)
        return named(run, self._evict.cls)

    def _form(self, value: Any) -> Any:
        return value if self.compiled else as_lists(value)

    def _fresh(self) -> tuple[Core, Any]:
        made = () if self._execution is None else self._execution.make(self.world)
        core = create_core(self.world, *self._settings, made)
        if self._gate is not None:
            world, maker = self._gate
            core = core._replace(gate=maker.create(world))
        (budget, staging), world = self._ahead, self.world
        core = core._replace(budget=budget)
        if staging:
            core = core._replace(staging=make_staging(world, staging))
            world = without_staging(world, staging)
        if self._resident:
            core.state[:] = READY
            core.mark[:] = FETCHED_EVER | USED
        policy = self._evict.create(world)
        if self._pins:
            preload(core, policy.kept)
        return self._form(core), self._form(policy)

    def run(self, chunk: Chunk) -> None:
        """Serve the events of a chunk in order."""
        formed = self._form(chunk)
        run = partial(self._run, self.core, self.policy, self.link, self.future, formed)
        run() if self._guard is None else self._guard.around(formed, run)

    def retell(self, execution: Executing) -> None:
        """Give the rows of tokens other sizes or another rule; what is known stays.

        What `bind_one` returned is to be bound again.
        """
        self._execution = execution
        old, new = self.core.execution, self._form(execution.make(self.world))
        kept = {"router": old.router, "misser": old.misser, "low": old.low, "mass": old.mass}
        self.core = self.core._replace(execution=new._replace(**kept))

    def bind_one(self, entry: Function, chunk: Chunk) -> Callable[[], int]:
        """Return what serves the one event of a chunk, whose arrays are filled anew each time.

        Args:
            entry: a function of core, policy, link, future and chunk (see `specmd.live.core`).
            chunk: its arrays stay where they are.

        """
        if self.compiled:
            state = (self.core, self.policy, self.link, self.future, chunk)
            run = specialise_frozen(entry, self._bindings, state, self._checked)
            return named(run, self._evict.cls)
        run = specialise(entry, self._bindings, compiled=False)
        form, renew = follow(chunk)

        def serve_one() -> int:
            renew()
            return int(run(self.core, self.policy, self.link, self.future, form))

        return serve_one

    def conclude(self) -> None:
        """Begin the transfers that are still queued: no event follows, or none before a reset."""
        if self._guard is not None:
            self._guard.conclude(self.core, self.policy, self.world.capacity)
        if self._behind is not None:
            none, nobody = np.zeros(0, np.int64), np.zeros(0, np.uint32)
            self.run(self._chunk(nobody, none, events=0))

    def empty(self) -> None:
        """Empty the cache, and the policy's memory; counts, digest, what was ever fetched stay.

        The tier is emptied with it.
        """
        self.conclude()
        self.write_off()
        old, (core, self.policy) = self.core, self._fresh()
        self.link.drain()
        for key, mark in enumerate(old.mark):
            core.mark[key] |= mark & FETCHED_EVER
        if self._execution is not None:
            core = core._replace(execution=core.execution._replace(mass=old.execution.mass))
        self.core = core._replace(counters=old.counters, digest=old.digest)
        if self._behind is not None:
            fresh = self._form(make_tier(*self._behind))
            self.link = self.link._replace(tier=emptied(self.link.tier, fresh))

    def fill(self, keys: KeyArray, next_use: IntArray) -> None:
        """Demand keys in one wide event that counts nowhere and takes no time."""
        chunk = self._chunk(keys, next_use)
        core, link = self.core, deepcopy(self.link)
        counted, hashed = list(core.counters), list(core.digest)
        self._run(core, self.policy, link, self.future, self._form(chunk))
        core.counters[:], core.digest[:] = counted, hashed

    def _chunk(self, keys: KeyArray, next_use: IntArray, events: int = 1) -> Chunk:
        """Make a chunk of one wide event, or of none."""
        none, facts = np.zeros(0, np.int64), np.zeros(events, np.uint32)
        return Chunk(
            clock=np.zeros(1, np.int64),
            step=facts,
            layer=facts,
            phase=facts,
            start=np.array([0, len(keys)]),
            keys=keys,
            tokens=np.ones(len(keys), np.uint32),
            gates=np.zeros(0),
            next_use=next_use,
            prefetch_start=none,
            prefetch_keys=np.zeros(0, np.uint32),
            prefetch_due=none,
            prefetch_score=np.zeros(0),
            num_layers=self.world.num_layers,
            num_experts=self.world.num_experts,
        )

    def forget_counts(self) -> None:
        """Count from zero; prefetches still unused count as issued."""
        unused = int(self.unused_prefetches().sum())
        for i in range(len(self.core.counters)):
            self.core.counters[i] = 0
        self.core.counters[self._decode_row + PREFETCH_ISSUED] = unused
        if self._execution is not None:
            self.core.execution.mass[:] = [0.0] * len(self.core.execution.mass)
        if self._behind is not None:
            self.link.tier.core.counters[:] = [0] * len(self.link.tier.core.counters)

    def write_off(self) -> None:
        """Count the prefetches that ended unused, in the decode rows of their layers."""
        for layer, unused in enumerate(self.unused_prefetches().tolist()):
            row = self._decode_row + layer * NUM_COUNTERS
            self.core.counters[row + PREFETCH_WASTED] += unused

    def unused_prefetches(self) -> npt.NDArray[np.int64]:
        """Count the keys of each layer, (layers,), prefetched and not used in their stay."""
        state, mark = np.asarray(self.core.state), np.asarray(self.core.mark)
        unused = (state != EMPTY) & (mark & (USED | PREFETCHED) == PREFETCHED)
        return np.asarray(unused.reshape(self.world.num_layers, -1).sum(axis=1))

    @property
    def _decode_row(self) -> int:
        return self.world.num_layers * NUM_COUNTERS

    @property
    def kept(self) -> list[int]:
        """Keys that are resident from the start and for ever."""
        return [int(key) for key in self.policy.kept] if self._pins else []

    @property
    def counters(self) -> npt.NDArray[np.int64]:
        """Counters (2 phases, layers, NUM_COUNTERS), see `specmd.core.state`."""
        shape = (2, self.world.num_layers, NUM_COUNTERS)
        return np.array(self.core.counters, np.int64).reshape(shape)

    @property
    def masses(self) -> npt.NDArray[np.float64] | None:
        """Masses (2 phases, layers, NUM_MASSES), see `specmd.core.execution`; None if not told."""
        if self._execution is None or not self._execution.has_rows:
            return None
        shape = (2, self.world.num_layers, NUM_MASSES)
        return np.array(self.core.execution.mass, np.float64).reshape(shape)

    @property
    def final_counters(self) -> npt.NDArray[np.int64]:
        """Counters as of a run that ends now: prefetches not used so far count as wasted."""
        counters = self.counters
        counters[1, :, PREFETCH_WASTED] += self.unused_prefetches()
        return counters

    @property
    def digest(self) -> str:
        """Hash of all decisions so far, the same in every engine."""
        return spelled(self.core)

    @property
    def tier_counters(self) -> npt.NDArray[np.int64] | None:
        """Counters of the tier behind the link, of the same shape; None without one."""
        return tier_counters(self.link.tier) if self._behind is not None else None

    @property
    def tier_digest(self) -> str:
        """Hash of the tier's decisions so far; empty without one."""
        return spelled(self.link.tier.core) if self._behind is not None else ""
