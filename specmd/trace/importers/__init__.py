"""Traces from other programs' files.

`import_trace` recognises the form, reads it, and checks everything that a cache simulator will
later take for granted. What a foreign file does not say (the number of experts, the size of one,
the model) is asked for, because a guess would show up as a wrong result far from here.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from specmd.errors import SpecmdError, unknown
from specmd.trace.header import MAX_EXPERTS
from specmd.trace.trace import Trace

KINDS = ("topk-npz", "jsonl", "csv")
PHASES = ("decode", "prefill")
_BY_SUFFIX = {
    ".npz": "topk-npz",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}


def import_trace(
    src: str | PathLike[str],
    kind: str | None = None,
    *,
    num_experts: int,
    expert_bytes: int | None = None,
    model: str | None = None,
    phase: str = "decode",
    shape: dict[str, Any] | None = None,
    license: str = "",
    notes: str = "",
) -> Trace:
    """Read a foreign recording of expert choices.

    Args:
        src: the file.
        kind: ``topk-npz``, ``jsonl`` or ``csv``; by default told from the file's suffix. The forms
            are described in `import_npz`, `import_jsonl` and `import_csv`.
        num_experts: experts E of a layer.
        expert_bytes: size of one expert in bytes, if known.
        model: the model's name, if known.
        phase: ``decode`` (every token is a step) or ``prefill`` (every request is one step), where
            the file itself does not say.
        shape: facts of the model's shape for the header.
        license: terms of the recording for the header.
        notes: anything else for the header.

    Returns:
        A checked trace of kind ``imported``.

    Raises:
        SpecmdError: one line naming the file and what is wrong with it.

    """
    path = Path(src)
    kind = kind or _BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise SpecmdError(f"{path}: cannot tell the format by its name; give --kind")
    if kind not in KINDS:
        raise unknown("import kind", kind, KINDS)
    if phase not in PHASES:
        raise unknown("phase", phase, PHASES)
    if not 1 <= num_experts <= MAX_EXPERTS:
        raise SpecmdError(f"--experts {num_experts}: give a number from 1 to {MAX_EXPERTS}")
    if expert_bytes is not None and expert_bytes < 1:
        raise SpecmdError(f"--expert-bytes {expert_bytes}: give a positive number of bytes")
    header: dict[str, Any] = {
        "model": model or "unknown",
        "expert_bytes": expert_bytes,
        "shape": shape,
        "recorder": f"specmd import --kind {kind}",
        "source": path.name,
        "license": license,
        "kind": "imported",
        "notes": notes,
    }
    if kind == "topk-npz":
        from specmd.trace.importers.top_k_npz import read_topk_npz

        return read_topk_npz(path, num_experts=num_experts, phase=phase, header=header)
    if kind == "jsonl":
        from specmd.trace.importers.json_rows import read_jsonl

        return read_jsonl(path, num_experts=num_experts, phase=phase, header=header)
    from specmd.trace.importers.csv_rows import read_csv

    return read_csv(path, num_experts=num_experts, phase=phase, header=header)
