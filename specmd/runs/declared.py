"""The options of a run, each declared once: type, default, help, and where it applies.

Everything that takes them derives from here: the configuration of a run (`specmd.runs.options`),
grids (`specmd.runs.resolve`), the options of `specmd simulate`, `sweep` and `run`, and the
arguments and documentation of `specmd.simulate` and `specmd.offload`. A new option is one entry
here, and the code that acts upon it. Nothing heavy is imported: `specmd --help` reads this, too.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar

Scope = Literal["global", "layer"]
Reset = Literal["none", "request"]
R = TypeVar("R")

COMPOSED = ("tokens", "prefill_chunk", "batch", "mixed")
"""Options that say what is made of a trace before it is run (`specmd.trace.compose`)."""

_PLACE = "**options: spelled out here."


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its type and default.

    Attributes:
        help: one line for the command line and for Python; the default is added to it.
        metavar: how its value is called on the command line; choices speak for themselves.
        short: its letter on the command line.
        axis: it names a policy.
        live: a live cache has it, too; a simulation has all.
        minimum: of a number.
        name: filled in, like `kind` (the type of one value) and `default`.

    """

    help: str
    metavar: str = ""
    short: str = ""
    axis: bool = False
    live: bool = False
    minimum: int | None = None
    name: str = ""
    kind: Any = None
    default: Any = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic check the minimum; the rest is not its business."""
        if self.minimum is None:
            return handler(source)
        from pydantic import Field

        return handler.generate_schema(Annotated[source, Field(ge=self.minimum)])


class RunOptions:
    """The options of a run in the order of their documentation."""

    evict: Annotated[
        str, Option("eviction, as name or name:key=value,...", short="-e", axis=True, live=True)
    ] = "lru"
    capacity: Annotated[
        str,
        Option(
            "slots 51, 16/layer, a share 5%, bytes 0.6GB, what '8GB total' leaves for slots, or "
            "all that is free",
            "SIZE",
            "-c",
            live=True,
        ),
    ] = "5%"
    prefetch: Annotated[str, Option("what to fetch ahead", short="-p", axis=True, live=True)] = (
        "none"
    )
    schedule: Annotated[
        str, Option("order, guard and cancelling of prefetches", axis=True, live=True)
    ] = "fifo"
    miss: Annotated[
        str, Option("what a layer with misses does meanwhile", axis=True, live=True)
    ] = "overlap"
    route: Annotated[str, Option("whether routing may change", axis=True, live=True)] = "none"
    allocate: Annotated[
        str, Option("slots of each layer under scope layer", axis=True, live=True)
    ] = "uniform"
    scope: Annotated[Scope, Option("one pool, or a quota a layer", live=True)] = "global"
    admission: Annotated[
        str, Option("whether a missed expert enters the cache", axis=True, live=True)
    ] = "forced"
    reset: Annotated[Reset, Option("when the cache is emptied")] = "none"
    sequential: Annotated[
        bool, Option("replay access by access, as classic simulators do: a cross-check")
    ] = False
    warmup: Annotated[int, Option("steps excluded from the counters", "STEPS", minimum=0)] = 0
    tokens: Annotated[
        int | None, Option("only the first N tokens of the trace", "N", minimum=1)
    ] = None
    prefill_chunk: Annotated[
        int | None, Option("most tokens of a prefill step; None: as recorded", "N", minimum=1)
    ] = None
    batch: Annotated[
        int | None,
        Option("recorded requests in flight together; None: as recorded", "B", minimum=1),
    ] = None
    mixed: Annotated[
        bool, Option("with batch: prefill chunks ride along with the decodes of others")
    ] = False
    seed: Annotated[int, Option("seed of policies that draw", "N", live=True)] = 0
    host_capacity: Annotated[
        str | None,
        Option("experts kept in host memory, the others on disk; None: all", "SIZE", live=True),
    ] = None
    host_evict: Annotated[
        str, Option("eviction of that cache in host memory", "POLICY", live=True)
    ] = "lru"
    profile: Annotated[
        str | None, Option("hardware profile, or a .toml file; without one, no clock", "NAME")
    ] = None
    context: Annotated[
        int | None,
        Option(
            "tokens whose keys and values the device holds; None: most of the trace",
            "TOKENS",
            live=True,
            minimum=1,
        ),
    ] = None
    engine: Annotated[
        str | None,
        Option(
            "whose software is assumed: eager, grouped or graph; None: grouped, or "
            "that of a calibrated profile",
            "KIND",
        ),
    ] = None
    shape: Annotated[
        str | None, Option("model shape, or a .toml file; None: of the trace's model", "NAME")
    ] = None


def spelled(given: Mapping[str, Any]) -> list[str]:
    """Say of some options what is not their default: `batch 8`, `mixed`."""
    return [
        " ".join([name.replace("_", " "), *([] if value is True else [str(value)])])
        for name, value in given.items()
        if value != OPTIONS[name].default
    ]


def _read() -> dict[str, Option]:
    found = {}
    for name, hint in typing.get_type_hints(RunOptions, include_extras=True).items():
        kind, said = typing.get_args(hint)
        found[name] = replace(said, name=name, kind=kind, default=getattr(RunOptions, name))
    return found


OPTIONS: dict[str, Option] = _read()
"""Every option by its name, in order of declaration."""


def takes_options(*, live: bool = False) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Spell `**options` of a function out: in its signature and in its docstring.

    The options follow its first argument; eviction and capacity may be given by place. The
    function is called with all of them, given or default. In its docstring they take the place of
    the line about `**options`.
    """
    chosen = [option for option in OPTIONS.values() if option.live or not live]

    def spell_out(function: Callable[..., R]) -> Callable[..., R]:
        first, *own, _ = inspect.signature(function).parameters.values()
        spelled = [
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY
                if place >= 2
                else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=option.default,
                annotation=option.kind,
            )
            for place, option in enumerate(chosen)
        ]
        rest = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        signature = inspect.signature(function).replace(parameters=[first, *spelled, *rest])

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return function(**bound.arguments)

        called.__signature__ = signature  # type: ignore[attr-defined]
        lines = "\n        ".join(f"{option.name}: {option.help}." for option in chosen)
        called.__doc__ = (function.__doc__ or "").replace(_PLACE, lines, 1)
        return called

    return spell_out
