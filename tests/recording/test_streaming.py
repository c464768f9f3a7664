"""Recordings on disk: equal to those in memory, whole or marked truncated after any end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specmd.errors import SpecmdError
from specmd.recording import Recorder, recover
from specmd.recording.columns import FileColumns, resume
from specmd.trace import load

ENDLESS = """
import sys, torch
sys.path[:0] = sys.argv[2:]
import specmd.recording.capture as capture
from recorded_families import build
from specmd.recording import Recorder
torch.set_num_threads(1)
capture.PENDING_STEPS = 4
model = build("olmoe")
with Recorder(model, logits="full", out=sys.argv[1]):
    print("ready", flush=True)
    while True:
        ids = torch.arange(3, 11)[None]
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=40)
"""


def run(model: Any, new: int = 12) -> None:
    ids = torch.arange(3, 19).reshape(2, 8)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False)


def test_a_file_equals_memory_and_leaves_no_folder(
    olmoe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recorder(olmoe, lookahead=2, logits="full") as memory:
        run(olmoe)
    monkeypatch.setattr("specmd.recording.capture.PENDING_STEPS", 3)
    out = tmp_path / "deeper" / "t.npz"
    with Recorder(olmoe, lookahead=2, logits="full", out=out) as file:
        run(olmoe)
        assert (out.parent / "t.npz.partial" / "rows").stat().st_size >= 3 * 8
    for trace in (file.trace, load(out, verify=True)):
        assert trace.header.complete
        np.testing.assert_array_equal(trace.expert_ids, memory.trace.expert_ids)
        np.testing.assert_array_equal(trace.step, memory.trace.step)
        np.testing.assert_allclose(trace.lookahead, memory.trace.lookahead, rtol=2e-3, atol=1e-3)
    assert [path.name for path in out.parent.iterdir()] == ["t.npz"]


def test_an_interrupt_writes_a_truncated_file(olmoe: Any, tmp_path: Path) -> None:
    out = tmp_path / "t.npz"

    def session() -> None:
        with Recorder(olmoe, out=out):
            run(olmoe, new=3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session()
    trace = load(out)
    assert not trace.header.complete
    assert trace.num_steps == 3
    assert not (tmp_path / "t.npz.partial").exists()


def test_nothing_recorded_leaves_nothing_behind(olmoe: Any, tmp_path: Path) -> None:
    with Recorder(olmoe, out=tmp_path / "t.npz"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_recording_is_rescued_and_marked(tmp_path: Path) -> None:
    out = tmp_path / "t.npz"
    here = Path(__file__).parent
    command = [sys.executable, "-c", ENDLESS, str(out), str(here), str(here.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        rows = tmp_path / "t.npz.partial" / "rows"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (rows.exists() and rows.stat().st_size > 160):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert not out.exists()
    trace = recover(out)
    assert not trace.header.complete
    assert "Interrupted after" in trace.header.notes
    assert trace.num_tokens >= 8 + 4
    assert trace.logits.shape == (trace.num_tokens, 4, 8)
    assert load(out, verify=True).digest == trace.digest
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]
    with pytest.raises(SpecmdError, match="no interrupted recording"):
        recover(out)


def columns(folder: Path, rows: int) -> FileColumns:
    made = FileColumns(folder, {"model": "m"})
    for _ in range(rows):
        made.append({"step": np.zeros(2, np.int32), "expert_ids": np.ones((2, 3, 4), np.uint8)})
    return made


def test_rows_that_were_not_counted_do_not_exist(tmp_path: Path) -> None:
    made = columns(tmp_path / "t.npz.partial", 3)
    made._close()
    with (tmp_path / "t.npz.partial" / "expert_ids").open("ab") as file:
        file.write(b"torn")
    with (tmp_path / "t.npz.partial" / "rows").open("ab") as file:
        file.write(b"\x08\x00\x00")  # the count itself was cut
    facts, arrays = resume(made.folder)
    assert facts == {"model": "m"}
    assert {name: array.shape for name, array in arrays.items()} == {
        "step": (6,),
        "expert_ids": (6, 3, 4),
    }


def test_an_interrupted_recording_is_not_overwritten(olmoe: Any, tmp_path: Path) -> None:
    columns(tmp_path / "t.npz.partial", 1)._close()
    with pytest.raises(SpecmdError, match=r"interrupted recording: rescue it with .*t\.npz'"):
        Recorder(olmoe, out=tmp_path / "t.npz").__enter__()
    assert not any(module._forward_pre_hooks for module in olmoe.modules())


def test_folders_that_cannot_be_rescued_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "t.npz.partial"
    folder.mkdir()
    with pytest.raises(SpecmdError, match="not a recording that can be rescued"):
        recover(tmp_path / "t.npz")
    FileColumns.delete(folder)
    columns(folder, 1)._close()
    (folder / "rows").write_bytes(b"")
    with pytest.raises(SpecmdError, match="before the first token"):
        recover(folder)


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    made = columns(tmp_path / "t.npz.partial", 1)
    made._files["step"].close()
    made._files["step"] = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    with pytest.raises(SpecmdError, match="cannot be written after 2 tokens: No space left"):
        made.append({"step": np.zeros(2, np.int32), "expert_ids": np.ones((2, 3, 4), np.uint8)})
    with pytest.raises(SpecmdError, match="after 2 tokens"):
        made.append({"step": np.zeros(2, np.int32), "expert_ids": np.ones((2, 3, 4), np.uint8)})
    assert resume(made.folder)[1]["step"].shape == (2,)
    made.discard()
