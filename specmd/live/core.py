"""The residency core of the simulator, asked event by event: arrivals in, commands out.

Nothing is decided here. An event that has just been routed becomes a chunk of one event; the
prefetcher proposes keys for it exactly as it does over a trace; `specmd.core.serve`, bound to the
policy and to the link `Commands`, serves it and leaves its commands behind. The decision digest and
the counters are therefore those a simulation of the same routing would give.

An event is decided in two halves, so that demand copies start before the prefetcher is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.core.binding import Executing
from specmd.core.event import NOBODY, IntArray, World, event_at
from specmd.core.execution import EXECUTED, STAND_INS
from specmd.core.hooks import predict, reroute, rerouted, settle
from specmd.core.kernel import Kernel
from specmd.core.planner import Planner
from specmd.core.prefetch import Outlook, Proposals, make_proposals, rank_proposals
from specmd.core.serve import complete, demand
from specmd.core.staging import as_told
from specmd.core.state import NEVER_ADMIT, NO_CHOICES, Choices, Chunk, Core
from specmd.errors import SpecmdError
from specmd.live.commands import PENDING, WRITTEN, Commands
from specmd.live.executed import TrueRows
from specmd.policy.admission import admitting
from specmd.policy.needs import Offer, unmet
from specmd.policy.registry import Choice, choose
from specmd.policy.schedule import Schedule
from specmd.runs.foresight import Foresight
from specmd.runs.policy_metrics import Published, publish
from specmd.simulation.executing import rule_of

NOWHERE = int(NOBODY)
FIRST_TOKENS = 16  # room for the rows of so many; it doubles when a wider pass comes


def demand_event(core: Core, policy: Any, link: Commands, future: IntArray, chunk: Chunk) -> int:
    """Serve the demand of the one event of a chunk; return how many commands have been written.

    Without a prefetcher that is all of it.
    """
    true = event_at(chunk, 0, future)
    settle(link, core, true)
    event = reroute(core, chunk, 0, true)
    demand(core, policy, link, event)
    if len(chunk.prefetch_start) == 0:
        complete(core, policy, link, chunk, 0, event)
    return int(link.count[WRITTEN])


def complete_event(core: Core, policy: Any, link: Commands, future: IntArray, chunk: Chunk) -> int:
    """Serve the rest, once the prefetcher has proposed; return how many commands there are now."""
    event = rerouted(core, event_at(chunk, 0, future))
    complete(core, policy, link, chunk, 0, event)
    return int(link.count[WRITTEN])


def plan_event(
    prefetcher: Any, chunk: Chunk, token_start: IntArray, proposals: Proposals, seen: Any
) -> None:
    """Let a prefetcher see the one event of a chunk, and make its proposals the chunk's.

    `seen` is an `Outlook` of which only what is of tokens counts.
    """
    none = chunk.next_use
    event = event_at(chunk, 0, none)
    outlook = Outlook(
        0,
        none,
        chunk.keys,
        token_start,
        event.step,
        seen.lookahead,
        seen.renormalised,
        seen.logits,
        seen.draft,
        seen.ids,
        seen.request,
    )
    proposals.count[0] = 0
    proposals.count[1] = 0
    predict(prefetcher, event, outlook, proposals)
    rank_proposals(proposals)
    chunk.prefetch_start[1] = proposals.count[0]


class Decisions:
    """Core, policy, prefetcher and command link of one live cache.

    Args:
        world: sizes, pools, seed.
        evict: eviction policy.
        prefetch: prefetcher.
        schedule: guard and cancellation.
        admission: chosen policy of that axis; None: forced.
        bypass_wide: keep events wider than the cache out of it (no simulation does).
        route: policy of routing, or None for the true choice.
        miss: policy of misses, or None for fetching all.
        low_share: bytes of a copy of few bits over those of the expert.
        interpreted: run the core as Python even where it could be compiled.

    Raises:
        SpecmdError: a policy needs what a live run does not know.

    """

    def __init__(
        self,
        world: World,
        evict: Choice,
        prefetch: Choice,
        schedule: Schedule,
        *,
        admission: Choice | None = None,
        bypass_wide: bool = False,
        route: Choice | None = None,
        miss: Choice | None = None,
        low_share: float = 1.0,
        interpreted: bool = False,
    ) -> None:
        learnt = world.training
        offer = Offer(
            future=False,
            training=bool(len(world.popularity)),
            lookahead=world.num_layers - 1,
            renormalised=world.num_layers - 1,
            logits=True,
            rates=bool(len(world.rates)),
            residuals=learnt.lookahead.shape[2] if learnt is not None and learnt.logits.size else 0,
        )
        self.admission, self._gate = admitting(admission or choose("admission", "forced"), evict)
        router, misser = (
            each if each is not None and each.executes else None for each in (route, miss)
        )
        changing = [each for each in (self._gate, router, misser) if each is not None]
        for choice in (evict, prefetch, *changing):
            if reason := unmet(choice, offer):
                raise SpecmdError(reason)
        self.world, self.evict, self.prefetch, self.schedule = world, evict, prefetch, schedule
        self.bypass_wide = bypass_wide
        self._room = world.capacity[world.pool[:: world.num_experts]].tolist()  # slots of a layer
        self.passes_by = False  # the present event does not enter the cache
        self.interpreted = interpreted
        self.predicts = hasattr(prefetch.cls, "predict")
        self.needs = {*evict.needs, *prefetch.needs}
        self.depth = prefetch.ahead if {"lookahead", "renormalised"} & self.needs else 0
        self.wants_logits = any("logits" in c.needs for c in (evict, prefetch, *changing))
        self.reads_logits = self.wants_logits or router is not None  # whose rule they tell
        self.tells_rows = router is not None or (misser is not None and misser.entry.lossy)
        self._executing = None
        if router is not None or misser is not None:
            self._executing = Executing(
                router=router,
                misser=misser,
                tokens=FIRST_TOKENS,
                has_rows=self.tells_rows,
                low_share=low_share,
                rule_renormalises=True,
                world_of=lambda _: world,
            )
        self._knows_rule = router is None
        keys = world.num_keys
        self._made = make_proposals(keys)
        self._token_start = np.zeros(2, np.int64)
        none = np.zeros(0, np.int64)
        self._chunk = Chunk(
            clock=np.zeros(1, np.int64),
            step=np.zeros(1, np.uint32),
            layer=np.zeros(1, np.uint32),
            phase=np.zeros(1, np.uint32),
            start=np.zeros(2, np.int64),
            keys=np.zeros(keys, np.uint32),
            tokens=np.ones(keys, np.uint32),
            gates=np.zeros(keys if "weights" in self.needs else 0),
            next_use=none,
            prefetch_start=np.zeros(2, np.int64) if self.predicts else none,
            prefetch_keys=self._made.key if self.predicts else np.zeros(0, np.uint32),
            prefetch_due=self._made.due if self.predicts else none,
            prefetch_score=self._made.score if self.predicts else np.zeros(0),
            num_layers=world.num_layers,
            num_experts=world.num_experts,
            choices=self._choices(FIRST_TOKENS) if self.tells_rows else NO_CHOICES,
        )
        nothing = np.zeros((0, 0, 0, 0), np.float32)
        self._seen = Outlook(0, none, self._chunk.keys, self._token_start, 0, nothing)
        self._written = 0
        self.restart()

    def restart(self) -> None:
        """Forget everything: cache, counts, digest, and what policies have seen."""
        link = Commands.create(self.world.num_keys, cancels=self.schedule.cancel)
        self.kernel = Kernel(
            self.world,
            self.evict,
            link,
            admission=self.admission,
            gate=None if self._gate is None else (self.world, self._gate),
            guarded=self.schedule.guard,
            **dict[str, Any](budget=self.schedule.budget, staging=self.schedule.staging),
            execution=self._executing,
            interpreted=self.interpreted,
        )
        self.foresight = Foresight(self.world.num_keys)
        self._plan: Callable[[Any], None] | None = None
        if self.predicts:
            self._planner = Planner(self.world, self.prefetch, interpreted=self.interpreted)
            seen = self._seen_by(self.prefetch)
            self._plan = self._planner.bind_one(plan_event, seen, self._token_start, self._made)
        self._admission = int(self.kernel.core.admission[0])
        self._bind()

    def reset(self) -> None:
        """Empty the cache; counters, digest and what was ever fetched are kept."""
        self.kernel.empty()
        self._bind()

    def _bind(self) -> None:
        seen = self._seen_by(self.evict)
        self._demand = self.kernel.bind_one(demand_event, seen)
        self._complete = self.kernel.bind_one(complete_event, seen)

    def _seen_by(self, choice: Choice) -> Chunk:
        return self._chunk if "weights" in choice.needs else self._chunk._replace(gates=np.zeros(0))

    def _choices(self, tokens: int) -> Choices:
        pairs, experts = tokens * self.world.top_k, self.world.num_experts
        return Choices(
            np.zeros(2, np.int64),
            np.zeros(pairs, np.int64),
            np.zeros(pairs),
            np.zeros(tokens * experts if self.reads_logits else 0),
            1,
        )

    def _retell(self, **changes: Any) -> None:
        assert self._executing is not None
        self._executing = replace(self._executing, **changes)
        self._chunk = self._chunk._replace(choices=self._choices(self._executing.tokens))
        self.kernel.retell(self._executing)
        self._bind()

    def tell(self, rows: TrueRows, logits: npt.NDArray[np.float32] | None) -> None:
        """Tell the tokens of the event that `begin` has set, where `tells_rows`.

        Args:
            rows: of the T tokens that count.
            logits: (T, E) of the router, if wanted.

        Raises:
            SpecmdError: routing may change, and the router's weights follow no rule that is known.

        """
        assert self._executing is not None
        if not self._knows_rule:
            rule = True if logits is None else rule_of(logits, rows.ids, rows.weights)
            self._knows_rule = True
            if rule != self._executing.rule_renormalises:
                self._retell(rule_renormalises=rule)
        tokens = len(rows.ids)
        if tokens > self._executing.tokens:
            self._retell(tokens=max(tokens, 2 * self._executing.tokens))
        told = self._chunk.choices
        told.token_start[1] = tokens
        told.ids[: rows.ids.size] = rows.ids.ravel()
        told.weights[: rows.ids.size] = rows.weights.ravel()
        if logits is not None and len(told.logits):
            told.logits[: logits.size] = logits.ravel()

    def served(self, keys: list[int]) -> list[int]:
        """Keys that are computed in the event, its true ones being `keys`; once it is decided."""
        if not self.tells_rows:
            return keys
        found = self.core.execution
        count = int(found.count[EXECUTED] + found.count[STAND_INS])
        return [int(found.keys[i]) for i in range(count) if found.loads[i] > 0]

    def executed(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Experts (T, K) and weights (T, K) of the event's tokens, once it is complete."""
        rows, k = self.core.execution.rows, self.world.top_k
        pairs = int(rows.tokens[0]) * k
        ids, weights = np.array(rows.ids[:pairs], np.int64), np.array(rows.weights[:pairs])
        return ids.reshape(-1, k), weights.reshape(-1, k)

    @property
    def core(self) -> Core:
        """State of the cache."""
        return self.kernel.core

    @property
    def link(self) -> Commands:
        """The commands of the present event, and the prefetches under way."""
        link: Commands = self.kernel.link
        return link

    def begin(
        self,
        step: int,
        layer: int,
        phase: int,
        keys: npt.NDArray[np.int64],
        tokens: npt.NDArray[np.int64],
        gates: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Set the event.

        Args:
            step: number of the forward pass.
            layer: MoE layer.
            phase: PREFILL or DECODE.
            keys: (|U|,) demanded keys, ascending.
            tokens: (|U|,) tokens that chose each key.
            gates: (|U|,) summed router weight of each key, or None.

        """
        count = len(keys)
        self.passes_by = self.bypass_wide and count > self._room[layer]
        chunk = self._chunk
        chunk.clock[0] = 1 + step * self.world.num_layers + layer
        chunk.step[0], chunk.layer[0], chunk.phase[0] = step, layer, phase
        chunk.start[1] = count
        chunk.keys[:count] = keys
        chunk.tokens[:count] = tokens
        if len(chunk.gates) and gates is not None:
            chunk.gates[:count] = gates

    @property
    def moment(self) -> tuple[int, int]:
        """Step and phase of the event."""
        return int(self._chunk.step[0]), int(self._chunk.phase[0])

    def look_ahead(self, live_tokens: int, **known: npt.NDArray[Any]) -> None:
        """Let the prefetcher see the event.

        Args:
            live_tokens: T, tokens of the pass.
            **known: by field of `Outlook`, what it needs to know of these tokens in this layer, (T,
                ...); `request` is that of the pass, (T,).

        """
        if self._plan is None:
            return
        for name, rows in known.items():
            self._show(name, int(self._chunk.layer[0]), rows)
        self._token_start[1] = live_tokens
        self._plan(self._seen)
        self.foresight.keep(self._chunk)

    def _show(self, name: str, layer: int, rows: npt.NDArray[Any]) -> None:
        """Put what is known of the tokens where a prefetcher looks for it: (T, layers, ...)."""
        held: Any = getattr(self._seen, name)
        if name == "request":
            self._seen = self._seen._replace(request=rows.astype(np.int64))
            return
        if (len(held), *held.shape[2:]) != rows.shape:
            held = np.zeros((len(rows), self.world.num_layers, *rows.shape[1:]), held.dtype)
            self._seen = self._seen._replace(**{name: held})
        held[:, layer] = rows

    def demand(self) -> list[tuple[int, int]]:
        """Decide the event's demand; return the commands, each (command, key), in order."""
        self._written = 0
        self.core.admission[0] = NEVER_ADMIT if self.passes_by else self._admission
        return self._decide(self._demand)

    def complete(self) -> list[tuple[int, int]]:
        """Decide the prefetches proposed by `look_ahead`, end the event, return the commands."""
        return self._decide(self._complete) if self.predicts else []

    def _decide(self, serve: Callable[[], int]) -> list[tuple[int, int]]:
        first, self._written = self._written, serve()
        link, part = self.link, slice(first, self._written)
        return [(int(c), int(k)) for c, k in zip(link.command[part], link.key[part], strict=True)]

    def published(self) -> Published:
        """Ask the policies what they publish, and whether their books add up."""
        kernel, names = self.kernel, (self.evict.entry.name, self.prefetch.entry.name)
        found = publish("evict", names[0], kernel.policy, as_told(kernel.core))
        return found | (publish("prefetch", names[1], self._planner.state) if self.predicts else {})

    def pending(self) -> Iterator[int]:
        """Keys of the prefetches that the core holds to be under way."""
        return (int(self.link.pending[i]) for i in range(self.link.count[PENDING]))

    @property
    def kept(self) -> list[int]:
        """Keys that are resident from the start and for ever."""
        return self.kernel.kept

    def slot_of(self, key: int) -> int | None:
        """Slot of a key after the event, None if it has none."""
        slot = int(self.core.slot[key])
        return None if slot == NOWHERE else slot
