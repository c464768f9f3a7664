"""What the core's questions are bound to: the hooks of a policy and of a link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from specmd.core import hooks
from specmd.core.event import NOBODY, Event, World
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
LINK_HOOKS: tuple[Function, ...] = (
    hooks.settle,
    hooks.promote,
    hooks.withdraw,
    hooks.reclaim,
    hooks.await_landing,
    hooks.fetch,
    hooks.compute_on_host,
    hooks.prefetch,
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
    def frozen(self) -> bool: ...  # noqa: D102 - whether `kept` of its state names all that is ever resident
    def create(self, world: World) -> Any: ...  # noqa: D102 - its state


def bind_link(link: type) -> dict[Function, Function]:
    """Return what the names stand for by which the core calls a link.

    What a link `replaces` is of its own: functions that another link has in their place.
    """
    found = {hook: getattr(link, hook.__name__, hook) for hook in LINK_HOOKS}
    return found | getattr(link, "replaces", {})


def bind_policy(maker: Maker) -> dict[Function, Function]:
    """Return what the names stand for by which the core calls an eviction policy."""
    cls = maker.cls
    found = {hook: getattr(cls, hook.__name__, hook) for hook in POLICY_HOOKS}
    if not hasattr(cls, "on_prefetch"):
        found[hooks.on_prefetch] = found[hooks.on_insert]
    if not hasattr(cls, "victim"):
        found |= {hooks.victim: least_ranked, hooks.rank: cls.rank}
    elif not maker.compiled:
        found[hooks.victim] = _checked
    return found


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
