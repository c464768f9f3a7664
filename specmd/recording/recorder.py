"""Record the routing of a model while it runs: `with specmd.record(model) as recorder: ...`.

Inside the block the model is used as always (`generate`, or plain forward calls); afterwards
`recorder.trace` holds which experts every token chose. On the way out, by whatever way, every
hook is gone and `generate` is the model's own again. If the block is left by an exception (Ctrl-C
is one) the trace so far is kept and marked `complete: false`. With `out=` rows go to disk as they
are made; if the process is killed outright, `recover` makes a trace, marked the same way, of what
was there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from weakref import WeakSet

import numpy as np
from torch import nn

from specmd.errors import SpecmdError
from specmd.models.facts import model_facts, size_facts
from specmd.models.lookahead import Lookahead
from specmd.models.moe import find_moe
from specmd.recording.capture import Capture, Step
from specmd.recording.columns import FileColumns, MemoryColumns, partial_folder, resume
from specmd.recording.rows import RowMaker
from specmd.trace import PREFILL, Trace, TraceHeader, load, save
from specmd.trace.checks import check_trace
from specmd.trace.trace import Array

Logits = Literal["none", "top", "full"]
_RECORDED: WeakSet[nn.Module] = WeakSet()


class Recorder:
    """A recording in progress, then its trace. Made by `specmd.record`.

    Args:
        model: a transformers 5 MoE model, or its decoder.
        lookahead: depth D of the lookahead scores; 0 for none.
        logits: `none` records expert ids alone, `top` also the gate weights of the chosen experts,
            `full` also the router logits of all experts.
        out: trace file to write; without it the recording stays in memory.
        header: further fields of the trace's header (`model`, `source`, `license`, `notes`).

    Raises:
        SpecmdError: the model has no MoE layers, or an argument is wrong.

    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lookahead: int = 1,
        logits: Logits = "top",
        out: str | PathLike[str] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> None:
        if logits not in ("none", "top", "full"):
            raise SpecmdError(f"logits '{logits}': choose none, top or full")
        if lookahead < 0:
            raise SpecmdError(f"lookahead {lookahead}: give a depth of 0 or more layers")
        self._model = model
        self._moe = find_moe(model)
        self._out = None if out is None else Path(out)
        self._header = self._facts() | dict(header or {})
        self._trace: Trace | None = None
        ahead = Lookahead(self._moe.layers, lookahead)
        self._maker = RowMaker(self._moe.num_experts, ahead, weights=logits != "none")
        self._capture = Capture(self._moe, ahead, logits=logits == "full", emit=self._emit)
        self._columns: MemoryColumns | FileColumns | None = None
        self._entered = False
        self._shadowed: Any = None  # a `generate` that another tool put on the instance before us

    @property
    def trace(self) -> Trace:
        """The recorded trace, once the block has been left.

        Raises:
            SpecmdError: the block is still open, or no token went through the model.

        """
        if self._trace is None:
            if self._columns is not None:
                raise SpecmdError("the recording is still running: leave its with-block first")
            raise SpecmdError("nothing was recorded: run the model inside the with-block")
        return self._trace

    def __enter__(self) -> Self:
        if self._moe.decoder in _RECORDED:
            raise SpecmdError("this model is being recorded already: leave that with-block first")
        if self._entered:
            raise SpecmdError("a recorder records once: make another with specmd.record(model)")
        if self._out is None:
            self._columns = MemoryColumns()
        else:
            self._columns = FileColumns(partial_folder(self._out), self._header)
        self._entered = True
        _RECORDED.add(self._moe.decoder)
        self._capture.install()
        self._wrap_generate()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._capture.remove()
        self._model.__dict__.pop("generate", None)
        if self._shadowed is not None:
            self._model.__dict__["generate"] = self._shadowed
        _RECORDED.discard(self._moe.decoder)
        columns = self._columns
        assert columns is not None
        try:
            self._capture.flush()
        except SpecmdError:
            if kind is None:
                raise
        finally:
            self._columns = None
        if columns.rows:
            self._trace = _finish(self._header, columns.arrays(), self._out, complete=kind is None)
        columns.discard()

    def _wrap_generate(self) -> None:
        """Shadow `generate` on the instance, to read its passes; undone on exit."""
        original = getattr(self._model, "generate", None)
        if original is None:
            return
        self._shadowed = self._model.__dict__.get("generate")
        self._model.__dict__["generate"] = self._capture.reader.follow(self._model, original)

    def _emit(self, steps: list[Step]) -> None:
        rows = self._maker.rows(steps)
        if rows is not None and self._columns is not None:
            self._columns.append(rows)

    def _facts(self) -> dict[str, Any]:
        from specmd import __version__

        library = getattr(sys.modules.get("transformers"), "__version__", "of unknown version")

        config = getattr(self._model, "config", None)
        name = getattr(config, "_name_or_path", "") or type(self._model).__name__
        return {
            "model": Path(name).name,
            **size_facts(self._moe),
            "shape": model_facts(self._model, self._moe),
            "recorder": f"specmd {__version__}, transformers {library}",
            "kind": "recorded",
        }


def recover(out: str | PathLike[str], *, write: bool = True) -> Trace:
    """Make a trace, marked `complete: false`, of a recording that was killed.

    Args:
        out: the trace file that was to be written, or its folder ending in `.partial`.
        write: write the trace file and delete the folder; else only return the trace.

    Raises:
        SpecmdError: there is no such recording, or it holds no token.

    """
    given = Path(out)
    target = given.with_suffix("") if given.suffix == ".partial" else given
    folder = partial_folder(target)
    if not folder.is_dir():
        raise SpecmdError(f"{folder}: no interrupted recording there")
    facts, arrays = resume(folder)
    trace = _finish(facts, arrays, target if write else None, complete=False)
    if write:
        FileColumns.delete(folder)
    return trace


def _finish(
    header: Mapping[str, Any], arrays: dict[str, Array], out: Path | None, *, complete: bool
) -> Trace:
    """Build the trace of `arrays`, number its requests without gaps, and write it if asked."""
    known, request = np.unique(arrays["request"], return_inverse=True)
    in_prompt = request[arrays["phase"] == PREFILL]
    prompt_lengths = np.bincount(in_prompt, minlength=len(known)).astype(np.int32)
    ids = arrays["expert_ids"]
    num_experts = header["shape"]["experts"]
    notes = str(header.get("notes", ""))
    if not complete:
        notes = f"{notes} Interrupted after {len(ids):,} tokens.".strip()
    fields = dict(header) | {"notes": notes, "complete": complete}
    sizes = {"num_layers": ids.shape[1], "num_experts": num_experts, "top_k": ids.shape[2]}
    trace = Trace(
        header=TraceHeader(**sizes, **fields),
        **(arrays | {"request": request.astype(np.int32), "prompt_lengths": prompt_lengths}),
    )
    if out is None:
        check_trace(trace)
        return trace
    return load(save(trace, out))
