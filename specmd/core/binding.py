"""What the core's questions are bound to: the hooks of a policy and of a link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from specmd.core import execution, hooks, masses
from specmd.core.clearance import is_cleared
from specmd.core.event import NOBODY, Event, World
from specmd.core.guards import guarded_answer, guarded_rank, guarded_route, guarded_victim
from specmd.core.order import scores
from specmd.core.order.scan import least_ranked
from specmd.core.specialise import Function
from specmd.core.state import READY, Core, evictable

POLICY_HOOKS: tuple[Function, ...] = (
    hooks.on_event,
    hooks.on_use,
    hooks.on_insert,
    hooks.on_prefetch,
    hooks.on_evict,
    hooks.victim,
)
# What a policy without hooks of its own is bound to: one that ranks, and one that keeps `scores`.
OF_RANKS: dict[Function, Function] = {hooks.victim: least_ranked}
OF_SCORES: dict[Function, Function] = {
    hooks.victim: scores.least_scored,
    hooks.on_insert: scores.enter,
    hooks.on_evict: scores.part,
}
ROUTE_HOOKS: tuple[Function, ...] = (hooks.route,)
MISS_HOOKS: tuple[Function, ...] = (hooks.prepare, hooks.answer)
GATE_HOOKS: tuple[Function, ...] = (
    hooks.observe,
    hooks.admits,
    hooks.admits_ahead,
    hooks.outweighs,
)
LINK_HOOKS: tuple[Function, ...] = (
    hooks.settle,
    hooks.promote,
    hooks.withdraw,
    hooks.reclaim,
    hooks.await_landing,
    hooks.fetch,
    hooks.compute_on_host,
    hooks.defer,
    hooks.prefetch,
    hooks.in_time,
    hooks.execute,
    hooks.conclude,
)


class Maker(Protocol):
    """A policy that has been chosen (see `specmd.policy.Choice`)."""

    @property
    def cls(self) -> Any: ...  # noqa: D102 - its class
    @property
    def compiled(self) -> bool: ...  # noqa: D102 - whether its class is in the compiled form
    @property
    def pins(self) -> bool: ...  # noqa: D102 - whether `kept` of its state names what is ever resident
    @property
    def frozen(self) -> bool: ...  # noqa: D102 - whether nothing else ever is
    @property
    def renormalises(self) -> bool: ...  # noqa: D102 - whether a token's weights are scaled up where it leaves experts out
    def create(self, world: World) -> Any: ...  # noqa: D102 - its state


@dataclass(frozen=True)
class Executing:
    """The policies that say what is executed of the router's choice, and where.

    Attributes:
        router: of routing; None: the true choice.
        misser: of misses; None: all are fetched.
        tokens: of the widest step.
        has_rows: whether they are told of the tokens.
        low_share: bytes of a low-bit copy over those of the expert.
        rule_renormalises: see `specmd.core.execution.make_execution`.
        world_of: makes the world each of them may know.

    """

    router: Maker | None
    misser: Maker | None
    tokens: int
    has_rows: bool
    low_share: float
    rule_renormalises: bool
    world_of: Callable[[Any], World]

    @property
    def makers(self) -> list[Maker]:
        """Those of the two that there are."""
        return [each for each in (self.router, self.misser) if each is not None]

    @property
    def bindings(self) -> dict[Function, Function]:
        """What the names stand for by which the core asks what is executed."""
        found: dict[Function, Function] = {
            getattr(hooks, each.__name__): each
            for each in (
                execution.reroute,
                execution.rerouted,
                execution.answer_misses,
                masses.close,
                masses.moved_bytes,
            )
        }
        for maker, asked in ((self.router, ROUTE_HOOKS), (self.misser, MISS_HOOKS)):
            for hook in asked if maker is not None else ():
                found[hook] = getattr(maker.cls, hook.__name__, hook)  # type: ignore[union-attr]
        if self.router is not None and not is_cleared(self.router.cls):
            found |= {hooks.own_route: found[hooks.route], hooks.route: guarded_route}
        if self.misser is not None and not is_cleared(self.misser.cls):
            found |= {hooks.own_answer: found[hooks.answer], hooks.answer: guarded_answer}
        return found

    def make(self, world: World) -> execution.Execution:
        """Build the state of both."""
        router, misser = (
            () if maker is None else maker.create(self.world_of(maker))
            for maker in (self.router, self.misser)
        )
        return execution.make_execution(
            world,
            router,
            misser,
            tokens=self.tokens,
            has_rows=self.has_rows,
            low_share=self.low_share,
            rule_renormalises=self.rule_renormalises,
            renormalises=self.misser is not None and self.misser.renormalises,
        )


def bind_link(link: type) -> dict[Function, Function]:
    """Return what the names stand for by which the core calls a link.

    What a link `replaces` is of its own: functions that another link has in their place.
    """
    found = {hook: getattr(link, hook.__name__, hook) for hook in LINK_HOOKS}
    return found | getattr(link, "replaces", {})


def bind_policy(maker: Maker) -> dict[Function, Function]:
    """Return what the names stand for by which the core calls an eviction policy."""
    cls = maker.cls
    usual = OF_SCORES if _keeps_scores(cls) else OF_RANKS
    found = {hook: getattr(cls, hook.__name__, usual.get(hook, hook)) for hook in POLICY_HOOKS}
    if not hasattr(cls, "on_prefetch"):
        found[hooks.on_prefetch] = found[hooks.on_insert]
    if hasattr(cls, "rank"):
        found[hooks.rank] = cls.rank
    if hasattr(cls, "victim") and not maker.compiled:
        found[hooks.victim] = _checked
    if not is_cleared(cls) and not (hasattr(cls, "victim") and not maker.compiled):
        found |= {hooks.own_victim: found[hooks.victim], hooks.victim: guarded_victim}
        if not hasattr(cls, "victim"):
            found |= {hooks.own_rank: cls.rank, hooks.rank: guarded_rank}
    return found


def _keeps_scores(cls: type) -> bool:
    """Tell whether a policy has a field `scores: Scores`."""
    kept = getattr(cls, "__annotations__", {}).get("scores")
    return getattr(kept, "__forward_arg__", kept) in ("Scores", scores.Scores)


def bind_gate(maker: Maker) -> dict[Function, Function]:
    """Return what the names stand for by which the core calls an admission policy."""
    return {hook: getattr(maker.cls, hook.__name__, hook) for hook in GATE_HOOKS}


def bind_prefetcher(maker: Maker) -> dict[Function, Function]:
    """Return what the names stand for by which a prefetcher is asked, and what it is made of."""
    inner = getattr(maker, "inner", None)
    own: dict[Function, Function] = {hooks.predict: maker.cls.predict}
    return own if inner is None else own | {hooks.ask: inner.cls.predict}


def candidates(core: Core, pool: int) -> Iterator[int]:
    """Iterate over the keys of a pool that may leave now, by falling key.

    The first of equals is then the one that the tie rule evicts. For policies in plain Python.
    """
    return (key for key in range(len(core.state) - 1, -1, -1) if may_leave(core, pool, key))


def may_leave(core: Core, pool: int, key: int) -> bool:
    """Tell whether a key is resident in a pool and may leave it now."""
    if core.hold[key] or core.state[key] != READY or core.pool[key] != pool:
        return False
    return core.guard[0] < 0 or bool(evictable(core, key))


def _checked(policy: Any, incoming: int, pool: int, core: Core, event: Event) -> int:
    """Ask a policy in plain Python, and look at what it says."""
    key = policy.victim(incoming, pool, core, event)
    if key is None or key == NOBODY:
        return _NOBODY
    if not isinstance(key, int) or not 0 <= key < len(core.state) or not may_leave(core, pool, key):
        raise ValueError(f"{type(policy).__name__}.victim returned {key!r}, not a candidate")
    return key


_NOBODY = int(NOBODY)
