"""`specmd recommend`: one screen, commands that run as printed, and errors of one line."""

import csv
import io
import json
import shlex

import pytest

from specmd.policy.registry import entries
from specmd.trace import load, save, slice_tokens

FEW = {"lru", "slru", "belady", "none", "prev_token", "oracle", "fifo", "overlap", "uniform"}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Some decoding of the embedded model, and few policies."""
    from pathlib import Path

    from specmd.advice import space

    monkeypatch.setattr(space, "entries", lambda: [e for e in entries() if e.name in FEW])
    trace = Path(__file__).resolve().parents[2] / "traces" / "tiny-docs-b1.npz"
    return save(slice_tokens(load(trace), 80, 160), tmp_path / "small.npz")


def test_one_screen_whose_commands_run(specmd, small):
    profiles = ["--profile", "rtx4090", "--profile", "t4", "--profile", "h100_sxm"]
    said = specmd("recommend", small, "--memory", "8MB", *profiles, "--jobs", 1)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert len(lines) <= 40
    commands = [line.strip() for line in lines if line.startswith("  specmd ")]
    assert all(len(line) <= 80 for line in lines if line.strip() not in commands)
    assert "rung 1 of 3" in said.err
    assert "skipped: evict belady, prefetch oracle (knows the future)" in said.out
    simulate = [shlex.split(line)[1:] for line in commands if "simulate" in line]
    assert simulate
    for argv in simulate:
        again = specmd(*argv, "--format", "json", "--no-bounds")
        assert again.code == 0, again.err
        shown = json.loads(again.out)[0]["metrics"]["tpot_s"] * 1e3
        assert f"{shown:.3g}" in said.out
    live = next(shlex.split(line)[1:] for line in commands if line.startswith("specmd run"))
    brief = ("--tokens", 2, "--repetitions", 1, "--warmup-runs", 0, "--no-bounds")
    again = specmd(*live, *brief)
    assert again.code == 0, again.err


def test_programs_get_the_same(specmd, small, tmp_path):
    asked = ("recommend", small, "--memory", "8MB", "--profile", "t4", "--jobs", 1)
    picture, table = tmp_path / "curve.svg", tmp_path / "answer.md"
    said = specmd(*asked, "--format", "json", "--plot", picture, "--export", table)
    assert said.code == 0, said.err
    (record,) = json.loads(said.out)
    assert record["profile"] == "t4"
    assert record["tpot_s"] > record["more"]["all experts resident"] > 0
    assert record["commands"][0].startswith("specmd simulate")
    assert "roofline" in picture.read_text()
    assert "**What would buy more" in table.read_text()
    (row,) = csv.DictReader(io.StringIO(specmd(*asked, "--format", "csv").out))
    assert float(row["tpot_s"]) == record["tpot_s"]


def test_what_fits_needs_no_cache(specmd, small):
    said = specmd("recommend", small, "--memory", "1GB", "--profile", "t4", "--jobs", 1)
    assert said.code == 0, said.err
    assert "Every expert fits: no cache is needed" in said.out
    asked = ("recommend", small, "--memory", "1GB", "--profile", "t4", "--jobs", 1)
    lost = specmd(*asked, "--export", small / "no" / "folder.md")
    assert (lost.code, lost.out) == (5, said.out)  # what cannot be written costs no answer


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--memory", "1MB", "--profile", "t4"], "less than one expert"),
        (["--memory", "lots", "--profile", "t4"], "not understood"),
        (["--memory", "99GB", "--profile", "t4"], "has 17.2 GB"),
        (["--memory", "8MB", "--profile", "t40"], "did you mean t4"),
        (["--memory", "8MB", "--profile", "t4", "--plot", "curve.doc"], "cannot draw"),
        (["--memory", "8MB", "--profile", "t4", "--batch", "99"], "batch 99"),
        (["--memory", "free", "--profile", "t4", "--plot", "a.png"], "give --memory in bytes"),
        (["--memory", "8MB"], "profile"),
        (["--memory", "8MB", "--profile", "t4", "--throttle", "2GB/s"], "are of --live"),
    ],
)
def test_errors_are_one_line(specmd, small, argv, said):
    found = specmd("recommend", small, *argv, "--jobs", 1)
    assert found.code == 2
    assert said in found.err
    assert "Traceback" not in found.err
    assert found.out == ""
