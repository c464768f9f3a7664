"""`specmd board`: a made-up row on a bundled trace, in every format."""

import csv
import io
import json
from pathlib import Path

import pytest

from specmd.__main__ import main

TRACES = Path(__file__).resolve().parents[2] / "traces"
ROWS = """
schema = 1

[[group]]
id = "tiny"
engine = "a made-up engine"
source = "https://example.org/board"
read = "nothing: it is made up"
date = 2026-11-25
model = "the embedded model"
shape = "specmd-tiny-olmoe"
expert_bytes = 6144
expert_bytes_from = "made up"
machine = "a T4"
device = "t4"
tier = "ram"
kernels = "eager"
trace = "tiny-code-b1.npz"

[[group.row]]
id = "tiny-half"
capacity = "8/layer"
scope = "layer"
seconds_per_token = 0.001
hit_rate = 0.5

[[group.row]]
id = "tiny-secret"
tokens_per_s = 7.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(ROWS)
    return tmp_path


def board(folder: Path, *more: str) -> int:
    return main(["board", "--published", str(folder), "--traces", str(TRACES), *more])


def test_every_row_is_printed_with_a_ratio_or_a_reason(folder, capsys):
    assert board(folder) == 0
    out = capsys.readouterr().out
    assert "tiny-half" in out
    assert "not simulated: how many experts are kept is not published" in out
    assert "2 rows, 1 simulated" in out
    assert "TPOT, fewer anchors: median error" in out
    assert "https://example.org/board" in out


def test_programs_get_the_numbers(folder, capsys):
    assert board(folder, "--format", "json") == 0
    half, secret = json.loads(capsys.readouterr().out)
    assert half["routing"] == "trace"
    assert half["routing_from"] == "tiny-code-b1.npz"
    assert half["ratio"] == pytest.approx(half["simulated_tpot_s"] / 0.001)
    assert secret["ratio"] is None
    assert secret["measured_tpot_s"] == pytest.approx(1 / 7)
    assert secret["not_simulated"]
    assert board(folder, "--format", "csv") == 0
    first, *_ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(first["ratio"]) == pytest.approx(half["ratio"])


def test_rows_are_chosen_by_name(folder, capsys):
    assert board(folder, "--row", "*-secret", "--format", "md") == 0
    out = capsys.readouterr().out
    assert "tiny-secret" in out
    assert "tiny-half" not in out
    assert board(folder, "--row", "nobody") == 2
    assert "no published row or group matches 'nobody'" in capsys.readouterr().err


def test_a_wrong_file_is_named(folder, capsys):
    (folder / "tiny.toml").write_text(ROWS.replace("engine", "motor"))
    assert board(folder) == 2
    assert "tiny.toml" in capsys.readouterr().err


def test_a_folder_of_recordings_that_is_not_there_is_named(folder, capsys):
    assert board(folder, "--traces", str(folder / "away")) == 2
    assert "away: no such folder" in capsys.readouterr().err
