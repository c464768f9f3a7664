"""What a policy says of itself: the decorator that its file carries, and what is asked of it."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from specmd.policy.faults import misspelt
from specmd.policy.needs import Name

Axis = Literal["evict", "prefetch", "schedule", "miss", "route", "allocate", "admission"]
Computes = Literal["", "gates", "weights"]
AXES: tuple[Axis, ...] = typing.get_args(Axis)
C = TypeVar("C", bound=type)

# What is asked of a policy; a method whose name is nearly one of these is a mistake.
HOOKS = {
    "evict": ("on_event", "on_use", "on_insert", "on_prefetch", "on_evict", "rank", "victim"),
    "prefetch": ("predict",),
    "route": ("route",),
    "miss": ("prepare", "answer"),
    "admission": ("observe", "admits", "admits_ahead", "outweighs"),
}
AT_THE_END = ("metrics", "finished")
"""What a policy of any axis may answer after a run, see `specmd.runs.policy_metrics`."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a policy says of itself."""

    axis: Axis
    name: str
    source: str
    needs: tuple[str, ...] = ()
    compiled: bool = False
    ahead: str = ""
    bypass: bool | str = False
    remembers: bool | str = False
    pins: bool = False
    frozen: bool = False
    lossy: bool = False
    bits: str = ""
    blocks: bool = False
    renormalises: bool = False
    computes: Computes = ""
    of: str = ""
    simulated_only: bool = False


def policy(
    name: str,
    *,
    axis: Axis = "evict",
    source: str,
    needs: Iterable[Name] = (),
    compiled: bool = False,
    ahead: str = "",
    bypass: bool | str = False,
    remembers: bool | str = False,
    pins: bool = False,
    frozen: bool = False,
    lossy: bool = False,
    bits: str = "",
    blocks: bool = False,
    renormalises: bool = False,
    computes: Computes = "",
    of: str = "",
    simulated_only: bool = False,
) -> Callable[[C], C]:
    """Declare a class as a policy.

    Args:
        name: by which it is chosen.
        axis: what it decides.
        source: where the rule comes from.
        needs: what it must be told beyond the event.
        compiled: the class is a NamedTuple of arrays and numbers, its hooks in the subset of Python
            that numba compiles. Any other class may do what it likes, and is interpreted.
        ahead: the parameter of `create` that says how many layers ahead it looks.
        bypass: whether it asks for bypass admission, or the parameter of `create` that does so if
            it is true.
        remembers: whether its history of a key outlives the key's eviction, so that it profits from
            more memory than the slots; "parameter=value" where it does for that value only.
        pins: its attribute `kept` names keys that are resident from the start and for ever; where
            nothing else may leave, its `victim` names no key.
        frozen: it pins, and nothing else ever enters: misses pass the cache by, prefetches find no
            slot.
        lossy: it changes what the model computes.
        bits: the parameter of `create` that says of how many bits its low-bit copies are.
        blocks: a layer computes nothing before all that has room is there.
        renormalises: a token's weights are scaled up where some of its experts are left out.
        computes: what a prefetcher computes in each layer that it looks ahead from, which a timed
            run charges there: "gates" of as many coming layers as it looks ahead, "weights" of its
            own, which its class method `weights` of the parameters counts. A table costs nothing.
        of: the parameter of `create` that names another policy of the axis, which it is made of:
            `create` is given its state, `ask` asks it, and its needs are the other's.
        simulated_only: it decides by a clock that a live cache does not have.

    """
    said = Declaration(**{**locals(), "needs": tuple(needs)})

    def declare(cls: C) -> C:
        cls.__specmd__ = said  # type: ignore[attr-defined]
        return cls

    return declare


def flaw(said: Declaration, cls: type) -> str:
    """Say what a class cannot be a policy for; nothing if it can."""
    if not callable(getattr(cls, "create", None)):
        return " has no `create`"
    known = HOOKS.get(said.axis, ())
    if odd := misspelt(cls, (*known, *AT_THE_END) if known else ()):
        return f": {odd}"
    if said.axis == "admission" and {*said.needs} - {"training"}:
        return ": an admission policy sees the bare event; of the needs it may have `training`"
    if said.compiled and not (issubclass(cls, tuple) and hasattr(cls, "_fields")):
        return " says compiled=True: make its class a NamedTuple of arrays and numbers"
    if said.axis == "evict" and not (hasattr(cls, "victim") or hasattr(cls, "rank")):
        return " has neither `victim` nor `rank`"
    return ""
