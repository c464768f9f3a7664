"""`specmd run`, `calibrate`, `simulate --validate`: from prompts to simulated beside measured."""

import json

import pytest

from specmd import simulate
from specmd.hardware.profile import read_profile
from specmd.runs.run import read_run
from specmd.trace import load, slice_layers


@pytest.fixture
def run(specmd, tmp_path):
    """Play two short prompts once behind a cache; later arguments win."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"text": "def add(a, b):"}\n{"text": "It was a dark night"}\n')

    def call(*argv):
        return specmd(
            "run", "--prompts", path, "--max-new-tokens", 3, "--warmup-runs", 0,
            "--repetitions", 1, "--link", "cpu", "-c", "40%", "--no-bounds", *argv,
        )  # fmt: skip

    return call


def test_json_of_a_measured_run(run):
    done = run("tiny", "-e", "lru", "--format", "json")
    assert done.code == 0, done.err
    (record,) = json.loads(done.out)
    assert record["source"] == "measured"
    assert record["label"].startswith("measured (")
    assert record["metrics"]["tpot_s"] > 0
    assert record["config"]["shape"] == "specmd-tiny-olmoe"
    assert record["measurement"]["workload"]["prompts"] == 2


def test_results_are_kept_with_their_traces_and_validated(run, specmd, tmp_path):
    out = tmp_path / "runs"
    options = ("--deterministic", "--out", out, "--format", "json")
    first = run(*options)
    assert first.code == 0, first.err
    assert f"{out}: 1 runs" in first.err
    (file,) = out.glob("*.json")
    written = read_run(file)
    assert load(file.with_suffix(".npz")).digest == written.trace.digest
    again = run(*options)
    assert json.loads(again.out) == json.loads(first.out)  # times, too: it was not run again
    assert json.loads(run(*options, "--rerun").out) != json.loads(first.out)
    checked = specmd("simulate", "--validate", out, "--profile", "t4")
    assert checked.code == 0, checked.err
    assert "the same decisions" in checked.out
    assert "1 of 1 decide as their replay" in checked.out
    path = next(iter(out.glob("*.json")))
    broken = path.read_text().replace(written.decision_digest, "0" * 16)
    path.write_text(broken)
    checked = specmd("simulate", "--validate", out, "--profile", "t4")
    assert checked.code == 1
    assert "decides otherwise" in checked.err


def test_predicted_beside_measured(run, specmd, tmp_path):
    out = tmp_path / "runs"
    assert run("--throttle", "0.5GB/s,20us", "--out", out).code == 0
    picture = tmp_path / "pairs.svg"
    table = specmd("simulate", "--validate", out, "--profile", "t4", "--figure", picture)
    assert table.code == 0, table.err
    assert picture.read_text().startswith("<?xml")
    assert "simulated (t4) beside measured" in table.out
    assert "cpu link at 0.5 GB/s" in table.out
    assert "TPOT: median error" in table.out
    assert "not calibrated" in table.out
    found = specmd("simulate", "--validate", out, "--profile", "t4", "--format", "json")
    (row,) = json.loads(found.out)
    expected = row["tpot_s_predicted"] / row["tpot_s_measured"] - 1
    assert row["tpot_s_error"] == pytest.approx(expected)


def test_a_grid_runs_in_processes_of_its_own_and_failures_are_rows(run, tmp_path):
    """The second policy needs to know the future, which is no reason to lose the first run."""
    done = run("-e", "lru", "-e", "belady", "--out", tmp_path / "runs", "--format", "json")
    assert done.code == 1
    good, bad = json.loads(done.out)
    assert good["status"] == "ok"
    assert bad["status"] == "failed"
    assert "future" in bad["reason"]
    assert len(list((tmp_path / "runs").glob("*.json"))) == 1
    assert done.err.count("\n") == 2


def test_a_timeline(run, tmp_path):
    path = tmp_path / "t.json"
    assert run("--timeline", path).code == 0
    assert {event["ph"] for event in json.loads(path.read_text())} == {"M", "X"}


def test_following_a_trace(run, specmd, tmp_path):
    done = run(
        "--trace", "traces/tiny-prose-b1.npz", "--layers", 2, "--tokens", 60, "--deterministic",
        "--dtype", "float32", "--out", tmp_path / "runs", "--format", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (record,) = json.loads(done.out)
    assert record["trace"]["num_layers"] == 2
    assert record["trace"]["expert_bytes"] == 98_304
    checked = specmd("simulate", "--validate", tmp_path / "runs", "--profile", "t4")
    assert "the same decisions" in checked.out


def test_following_a_trace_in_batches_of_chunks(run, specmd, tmp_path):
    done = run(
        "--trace", "traces/tiny-prose-b1.npz", "--layers", 2, "--batch", 3, "--prefill-chunk", 40,
        "--mixed", "--deterministic", "--dtype", "float32", "--out", tmp_path, "--format", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (record,) = json.loads(done.out)
    assert record["trace"]["name"] == "tiny-prose-b1, prefill chunk 40, batch 3, mixed"
    whole = slice_layers(load("traces/tiny-prose-b1.npz"), 2)
    asked = {"capacity": record["config"]["capacity_slots"], "bounds": False}
    predicted = simulate(whole, prefill_chunk=40, batch=3, mixed=True, **asked)
    assert record["decision_digest"] == predicted.decision_digest
    assert record["trace"]["steps"] == predicted.trace.steps
    checked = specmd("simulate", "--validate", tmp_path, "--profile", "t4")
    assert "the same decisions" in checked.out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("tiny", "--trace", "x.npz"), "not both"),
        (("--mixed",), "--mixed goes with --trace"),
        (("--shape", "olmoe-1b-7b"), "--shape goes with --trace"),
        (("./no-such-model",), "no such folder"),
        (("-e", "lru", "-e", "lfu", "--timeline", "t.json"), "--timeline is of one run"),
        (("--throttle", "fast"), "fast"),
        (("--pinned-budget", "lots"), "8GB"),
        (("-e", "stalest"), "did you mean"),
        (("-c", "0"), "less than one slot"),
        (("--device", "cuda:7", "--link", "accelerator"), "accelerator"),
        (("--experts", "disk"), "folder on disk"),
        (("--host-capacity", "9"), "--experts disk"),
        (("-e", "belady"), "future"),
        (("--dtype", "int8"), "float32"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value)[:24],
)
def test_what_cannot_be_is_one_line(run, argv, said):
    done = run(*argv)
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert said in done.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "name a trace"),
        (("--validate", "nowhere.json"), "--profile"),
        (("--validate", "nowhere.json", "--profile", "t4"), "nowhere.json"),
        (("--validate", "x", "--profile", "t4", "-e", "lru"), "leave --evict out"),
        (("t.npz", "--validate", "x", "--profile", "t4"), "leave TRACE out"),
    ],
    ids=str,
)
def test_a_validation_that_cannot_be(specmd, argv, said):
    done = specmd("simulate", *argv)
    assert done.code == 2, done.err
    assert said in done.err


@pytest.fixture
def quick(monkeypatch):
    """Less of every measurement of a calibration, one short prompt, one round, and a verdict."""
    from specmd.calibration import calibrating, check, kernels
    from specmd.calibration import link as link_module
    from specmd.models import prompts

    monkeypatch.setattr(kernels, "_SPAN_S", 0.005)
    monkeypatch.setattr(link_module, "_BUDGET_S", 0.05)
    monkeypatch.setattr(calibrating, "TOKENS", (1, 64))
    monkeypatch.setattr(calibrating, "ROUNDS", 1)
    monkeypatch.setattr(calibrating, "MOST_ROUNDS", 1)
    monkeypatch.setattr(calibrating, "_PAUSE_S", 0.0)
    read, short = prompts.read_prompts, prompts.as_prompts(["def add(a, b):"])
    monkeypatch.setattr(prompts, "read_prompts", lambda *given: read(*given) if given else short)

    def says(reason):
        monkeypatch.setattr(check, "_reason", lambda *_: reason)

    return says


def test_a_calibration_is_written_and_said(specmd, tmp_path, quick):
    quick("")
    path = tmp_path / "here.toml"
    done = specmd("calibrate", "--link", "cpu", "--name", "here", "--out", path)
    assert done.code == 0, done.err
    assert done.out == ""
    assert read_profile(path).calibrated
    assert "GB/s" in done.err
    assert "us a copy waited for" in done.err
    assert "half resident paced" in done.err
    shown = specmd("simulate", "traces/tiny-prose-b1.npz", "--profile", path, "--no-bounds")
    assert "simulated (here)" in shown.out
    assert "calibrat" not in shown.out


def test_a_calibration_that_fails_its_check_is_written_by_force_only(run, specmd, tmp_path, quick):
    quick("the machine is too busy")
    path = tmp_path / "here.toml"
    done = specmd("calibrate", "--link", "cpu", "--name", "here", "--out", path)
    assert done.code == 1
    assert f"{path} is not written: the machine is too busy" in done.err.splitlines()[-1]
    assert not path.exists()
    done = specmd("calibrate", "--link", "cpu", "--name", "here", "--out", path, "--force")
    assert done.code == 0, done.err
    said = "profile 'here' failed its calibration: the machine is too busy"
    assert said in done.err
    out = tmp_path / "runs"
    assert run("--out", out).code == 0
    shown = specmd("simulate", "--validate", out, "--profile", path).out
    assert said in shown
    assert "1 of 1 runs are on a host link that is not paced" in shown


def test_a_calibration_that_cannot_be(specmd):
    assert "a profile is a .toml file" in specmd("calibrate", "--out", "x.json").err
    assert "--layers goes with --trace" in specmd("calibrate", "--layers", 2).err
