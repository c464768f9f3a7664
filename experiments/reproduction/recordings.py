"""The recordings that the questions are asked of, made ready in a folder that git ignores.

Recordings of real models by others are imported where they are; nothing is committed of them. A
`bare` recording is one without its prompts: the same tokens decoded as if nothing came before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from specmd.trace import DECODE, Trace, import_trace, load, save
from specmd.trace.composition import interleave
from specmd.trace.slicing import renumbered, select_requests, slice_tokens

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "results" / "experiments" / "traces"
OTHERS = Path(os.environ.get("SPECMD_TRACES", ROOT.parent / "shared" / "traces"))
"""Folder of recordings by others."""


class Recording(NamedTuple):
    """A file that others made, or the project did, and how it is read."""

    file: Path
    read: Callable[[Path], Trace]
    others: bool


def _foreign(**how: Any) -> Callable[[Path], Trace]:
    return lambda path: import_trace(path, **how)


def without_prompts(trace: Trace) -> Trace:
    """Return the decoded tokens alone, in the order and the steps they had."""
    rows = np.flatnonzero(trace.phase == DECODE)
    return renumbered(trace, rows, trace.step, "no prompts")


def _bare(read: Callable[[Path], Trace]) -> Callable[[Path], Trace]:
    return lambda path: without_prompts(read(path))


def _odd(read: Callable[[Path], Trace]) -> Callable[[Path], Trace]:
    """Of the requests that nothing was tuned on: the odd ones."""
    return lambda path: select_requests(read(path), slice(1, None, 2))


def _batched(read: Callable[[Path], Trace], batch: int) -> Callable[[Path], Trace]:
    """So many requests in flight: what `--batch` makes of a trace, as a recording of its own."""
    return lambda path: interleave(slice_tokens(read(path), 0, 10_000), batch)


_OLMOE = (
    OTHERS / "olmoe_1b_7b_decode.npz",
    _foreign(num_experts=64, model="olmoe-1b-7b", expert_bytes=12_582_912),
)
_GPTOSS = (
    OTHERS / "gptoss_20b_decode.npz",
    _foreign(num_experts=32, model="gpt-oss-20b", expert_bytes=13_236_480, license="Apache-2.0"),
)
_FLAME = (
    OTHERS / "flame_moe_290m_batch64.npz",
    _foreign(num_experts=64, phase="decode", expert_bytes=1_900_000),
)
_QWEN = OTHERS / "bigmoe" / "qwen3_30b_a3b.route.csv", _foreign(num_experts=128)
_LARGE = OTHERS / "bigmoe" / "gptoss_120b.route.csv", _foreign(num_experts=128)
_TINY = ROOT / "traces" / "tiny-mixed-b8-long.npz"

RECORDINGS: dict[str, Recording] = {
    "olmoe": Recording(*_OLMOE, others=True),
    "olmoe_odd": Recording(_OLMOE[0], _odd(_OLMOE[1]), others=True),
    "olmoe_odd_b4": Recording(_OLMOE[0], _batched(_odd(_OLMOE[1]), 4), others=True),
    "olmoe_odd_b16": Recording(_OLMOE[0], _batched(_odd(_OLMOE[1]), 16), others=True),
    "gptoss_20b": Recording(*_GPTOSS, others=True),
    "gptoss_20b_b4": Recording(_GPTOSS[0], _batched(_GPTOSS[1], 4), others=True),
    "gptoss_20b_b16": Recording(_GPTOSS[0], _batched(_GPTOSS[1], 16), others=True),
    "qwen3_30b": Recording(*_QWEN, others=True),
    "gptoss_120b": Recording(*_LARGE, others=True),
    "qwen3_30b_bare": Recording(_QWEN[0], _bare(_QWEN[1]), others=True),
    "gptoss_120b_bare": Recording(_LARGE[0], _bare(_LARGE[1]), others=True),
    "olmoe_warp": Recording(
        OTHERS / "warp" / "olmoe_299.jsonl",
        _foreign(num_experts=64, model="olmoe-1b-7b", expert_bytes=12_582_912),
        others=True,
    ),
    "flame_290m": Recording(*_FLAME, others=True),
    "flame_290m_b4": Recording(_FLAME[0], _batched(_FLAME[1], 4), others=True),
    "flame_290m_b16": Recording(_FLAME[0], _batched(_FLAME[1], 16), others=True),
    "switch_base_32": Recording(
        OTHERS / "switch_base_32_logits.npz",
        _foreign(num_experts=32, expert_bytes=9_437_184),
        others=True,
    ),
    "tiny_bare": Recording(_TINY, _bare(load), others=False),
}


def make_ready(name: str) -> Path | None:
    """Return a recording as a trace, made if need be; None where its file is not here."""
    source = RECORDINGS[name]
    ready = CACHE / f"{name}.npz"
    if ready.is_file():
        return ready
    if not source.file.is_file():
        return None
    ready.parent.mkdir(parents=True, exist_ok=True)
    save(source.read(source.file), ready)
    return ready
