"""The options that commands share: those of runs, and those of all runs together.

Options of runs (`specmd.runs.declared`) become lists here: what takes one value in a run takes
several in a grid. `takes_options` appends them to the signature of a command, which then receives
them as one `Options`. What was not given is left out, so that a configuration file can have its say
first.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from specmd.cli import completion
from specmd.runs.declared import OPTIONS, Option

AGAIN = "  [repeatable]"
TRACES = typer.Argument(
    metavar="TRACE",
    help="Trace files, or hf://datasets/OWNER/NAME/file.npz on the hub.",
    autocompletion=completion.traces,
)
Several = list[str] | None

_NAMED = inspect.Parameter.KEYWORD_ONLY
_COMPLETED = {
    "profile": completion.profiles,
    "shape": completion.shapes,
    "host_evict": completion.policies("evict"),
}

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
    """What was asked for: options of the runs, what belongs to all of them, and where results go.

    `run` holds those options of `specmd.runs.declared` that were given, by name.
    """

    run: Mapping[str, Any]
    training: Annotated[
        Path | None,
        typer.Option(
            metavar="TRACE",
            help="Trace that policies fitted beforehand are fitted on.",
            autocompletion=completion.traces,
        ),
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
    rank: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Order the rows of a table by a metric, best first.",
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
            help=f"Write the runs, too: .txt, .md, .csv, .json, .jsonl or .parquet.{AGAIN}",
        ),
    ] = None
    figures: Annotated[
        list[Path] | None,
        typer.Option("--figure", metavar="FILE", help=f"Draw the runs: .png, .svg or .pdf.{AGAIN}"),
    ] = None
    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", help="Explain marks, contract and profile below tables."),
    ] = False


Command = Callable[..., int]
OUTPUT = ("metric", "rank", "form", "exports", "figures", "verbose")
"""Options that say what becomes of runs, however they came about."""


def takes_options(*, live: bool = False, only: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Append the shared options to a command; it gets them as its `options`.

    Those of runs are all appended, or those of live runs (`live`), or only some of the others are.
    """

    def append(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        first, *rest = (each.replace(kind=_NAMED) for each in own if each.name != "options")
        of_run = {
            name: inspect.Parameter(name, _NAMED, default=default, annotation=annotation)
            for name, option in OPTIONS.items()
            if (option.live or not live) and not only
            for default, annotation in [_spell_out(option)]
        }
        hints = typing.get_type_hints(Options, include_extras=True)
        of_all = {
            each.name: inspect.Parameter(
                each.name, _NAMED, default=each.default, annotation=hints[each.name]
            )
            for each in fields(Options)
            if (each.name in only if only else each.name != "run")
        }

        @wraps(command)
        def wrapper(**given: Any) -> int:
            asked = {name: value for name in of_run if (value := given.pop(name))}
            shared = {name: given.pop(name) for name in of_all}
            return command(**given, options=Options(asked, **shared))

        merged = [first, *of_run.values(), *of_all.values(), *rest]
        wrapper.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
        return wrapper

    return append


def _spell_out(option: Option) -> tuple[Any, Any]:
    """Default and annotation of a run's option on the command line: a flag, or a list."""
    names = (f"--{option.name.replace('_', '-')}", *filter(None, [option.short]))
    text = (option.help[0].upper() + option.help[1:]).replace("; None: ", "; default ")
    if option.kind is bool:
        return False, Annotated[bool, typer.Option(*names, help=f"{text}.")]
    choices = "|".join(map(str, typing.get_args(option.kind)))
    default = "" if option.default is None else f"; default {option.default}"
    whole = int in (option.kind, *typing.get_args(option.kind))
    complete = _COMPLETED.get(option.name) or (completion.among(choices) if choices else None)
    if option.axis:
        complete = completion.policies(option.name)
    said = typer.Option(
        *names,
        metavar="POLICY" if option.axis else option.metavar or choices,
        help=f"{text}{default}.{AGAIN}",
        autocompletion=complete,
    )
    return None, Annotated[list[int] | None if whole else list[str] | None, said]
