"""The options that simulate and sweep share, declared once.

Each is a list: what takes one value in a run takes several in a grid. `takes_options` appends them
to the signature of a command, which then receives them as one `Options`. None stands for "not
given", so that a configuration file can have its say first.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from specmd.cli import completion

AGAIN = "  [repeatable]"
Several = list[str] | None

# What the commands that run a model share, each to be given its own default.
ModelName = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help="tiny (the embedded model), a folder, or a name on the hub."
    ),
]
PromptFile = Annotated[str, typer.Option(metavar="FILE", help="Prompts as JSON Lines, or builtin.")]
Domain = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only the prompts of this domain.")
]
Layers = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="With --trace: only the first N MoE layers."),
]
Dtype = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of the weights: float32, bfloat16, float16."),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of slots and dense weights, as torch names it."),
]
LinkKind = Annotated[
    Literal["auto", "cpu", "accelerator"],
    typer.Option(help="cpu keeps all in host memory, accelerator copies to the device."),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Torch threads that compute.")
]


@dataclass(frozen=True)
class Options:
    """The grid, what belongs to all its runs, and where the results go."""

    evict: Annotated[
        Several,
        typer.Option(
            "--evict",
            "-e",
            metavar="POLICY",
            help=f"Eviction, name or name:key=value,...; default lru.{AGAIN}",
            autocompletion=completion.policies("evict"),
        ),
    ] = None
    capacity: Annotated[
        Several,
        typer.Option(
            "--capacity",
            "-c",
            metavar="SIZE",
            help=f"Slots 51, 16/layer, a share 5%, or bytes 0.6GB; default 5%.{AGAIN}",
        ),
    ] = None
    prefetch: Annotated[
        Several,
        typer.Option(
            "--prefetch",
            "-p",
            metavar="POLICY",
            help=f"What to fetch ahead; default none.{AGAIN}",
            autocompletion=completion.policies("prefetch"),
        ),
    ] = None
    schedule: Annotated[
        Several,
        typer.Option(
            metavar="POLICY",
            help=f"Order of prefetches on the link; default fifo.{AGAIN}",
            autocompletion=completion.policies("schedule"),
        ),
    ] = None
    miss: Annotated[
        Several,
        typer.Option(
            metavar="POLICY",
            help=f"What a miss does: overlap (default), block, ...{AGAIN}",
            autocompletion=completion.policies("miss"),
        ),
    ] = None
    route: Annotated[
        Several,
        typer.Option(
            metavar="POLICY",
            help=f"Whether routing may change; default none.{AGAIN}",
            autocompletion=completion.policies("route"),
        ),
    ] = None
    allocate: Annotated[
        Several,
        typer.Option(
            metavar="POLICY",
            help=f"Slots of each layer under --scope layer; default uniform.{AGAIN}",
            autocompletion=completion.policies("allocate"),
        ),
    ] = None
    profile: Annotated[
        Several,
        typer.Option(
            metavar="NAME",
            help=f"Hardware profile, or a .toml file; without one there is no clock.{AGAIN}",
            autocompletion=completion.profiles,
        ),
    ] = None
    shape: Annotated[
        Several,
        typer.Option(
            metavar="NAME",
            help=f"Model shape, or a .toml file; by default that of the trace's model.{AGAIN}",
            autocompletion=completion.shapes,
        ),
    ] = None
    scope: Annotated[
        Several,
        typer.Option(
            metavar="global|layer", help=f"One pool, or a quota a layer; default global.{AGAIN}"
        ),
    ] = None
    admission: Annotated[
        Several,
        typer.Option(
            metavar="forced|bypass",
            help=f"Whether a policy may refuse a missed expert; default forced.{AGAIN}",
        ),
    ] = None
    reset: Annotated[
        Several,
        typer.Option(
            metavar="none|request", help=f"When the cache is emptied; default none.{AGAIN}"
        ),
    ] = None
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential", help="Replay access by access, as classic simulators do: a cross-check."
        ),
    ] = False
    warmup: Annotated[
        list[int] | None,
        typer.Option(metavar="STEPS", help=f"Steps excluded from the counters.{AGAIN}"),
    ] = None
    tokens: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help=f"Only the first N tokens of the trace.{AGAIN}"),
    ] = None
    seed: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help=f"Seed of policies that draw; default 0.{AGAIN}"),
    ] = None
    training: Annotated[
        Path | None,
        typer.Option(metavar="TRACE", help="Trace that policies fitted beforehand are fitted on."),
    ] = None
    no_bounds: Annotated[
        bool,
        typer.Option("--no-bounds", help="Leave Belady and the other bounds out (faster)."),
    ] = False
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help=f"Python file or folder with more policies.{AGAIN}"),
    ] = None
    metric: Annotated[
        Several,
        typer.Option(
            metavar="NAME",
            help=f"Columns of the table (see `specmd list metrics`).{AGAIN}",
            autocompletion=completion.metrics,
        ),
    ] = None
    form: Annotated[
        Literal["table", "md", "csv", "json", "jsonl"],
        typer.Option("--format", help="What to print on stdout."),
    ] = "table"
    exports: Annotated[
        list[Path] | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help=f"Write the runs, too: .txt, .md, .csv, .json or .jsonl.{AGAIN}",
        ),
    ] = None
    figures: Annotated[
        list[Path] | None,
        typer.Option("--figure", metavar="FILE", help=f"Draw the runs: .png, .svg or .pdf.{AGAIN}"),
    ] = None


Command = Callable[..., int]
OUTPUT = ("metric", "form", "exports", "figures")
"""Options that say what becomes of runs, however they came about."""


def takes_options(
    *, without: Sequence[str] = (), only: Sequence[str] = ()
) -> Callable[[Command], Command]:
    """Append shared options to a command, but for some or only some; it gets them as `options`."""

    def append(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        hints = typing.get_type_hints(Options, include_extras=True)
        taken = [each for each in fields(Options) if each.name not in without]
        taken = [each for each in taken if not only or each.name in only]
        shared = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=each.default,
                annotation=hints[each.name],
            )
            for each in taken
        ]
        kept = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in own.parameters.values()
            if parameter.name != "options"
        ]

        @wraps(command)
        def wrapper(**given: Any) -> int:
            options = Options(**{each.name: given.pop(each.name) for each in taken})
            return command(**given, options=options)

        merged = kept[:1] + shared + kept[1:]
        wrapper.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
        return wrapper

    return append
