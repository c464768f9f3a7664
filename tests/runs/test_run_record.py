"""Run files: whole or not there, read back equal, refused by name when they are not ours."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import specmd
from specmd.errors import SpecmdError
from specmd.runs.identity import provenance, source_digest, without_paths
from specmd.runs.metrics import METRICS
from specmd.runs.run import (
    SCHEMA,
    Run,
    frame,
    parse_run,
    read_run,
    read_runs,
    write_run,
    write_text,
)
from specmd.trace import synthetic


@pytest.fixture(scope="module")
def run():
    trace = synthetic(
        num_layers=2, num_experts=4, top_k=2, num_requests=2, prompt_length=3, expert_bytes=1000
    )
    return specmd.simulate(trace, capacity=4, profile="rtx4090", interpreted=True)


def test_a_run_survives_its_file(run, tmp_path):
    path = write_run(run, tmp_path / "new" / "folder")
    assert path.name == f"{run.id}.json"
    assert read_run(path) == run
    assert read_runs(path.parent) == [run]


def test_the_json_has_the_fields_other_tools_rely_on(run):
    fields = json.loads(run.to_json())
    assert fields["schema"] == SCHEMA == "specmd.run/1"
    assert fields["source"] == "simulated"
    assert fields["label"] == "simulated (rtx4090)"
    assert fields["status"] == "ok"
    for name in ("evict", "prefetch", "capacity_slots", "scope", "admission", "profile", "shape"):
        assert name in fields["config"]
    assert set(fields["metrics"]) == set(METRICS)
    assert isinstance(fields["metrics"]["accesses"], int)
    assert set(fields["per_phase"]) == {"prefill", "decode"}
    assert all(len(values) == 2 for values in fields["per_layer"].values())
    for name in ("regime", "locality", "bounds", "contract", "provenance", "trace"):
        assert fields[name]
    assert fields["decision_digest"]
    assert isinstance(fields["warnings"], list)


def test_no_number_in_a_file_is_nan(run):
    with pytest.raises(ValueError, match="finite"):
        Run.model_validate(run.model_dump(by_alias=True) | {"metrics": {"hit_rate": math.nan}})
    broken = run.model_copy(update={"metrics": {"hit_rate": math.inf}})
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "broken"),
        (lambda text: "", "broken"),
        (lambda text: "[1, 2]", "not a run file"),
        (lambda text: "{}", "not a run file"),
        (lambda text: "[" * 200_000, "broken"),
        (lambda text: text.replace("specmd.run/1", "specmd.run/2"), "upgrade"),
        (lambda text: text.replace("specmd.run/1", "specmd.trace"), "not a run file"),
        (lambda text: text.replace('"status": "ok"', '"status": "fine"'), "status"),
        (lambda text: text.replace('"accesses": ', '"accesses": NaN, "was": ', 1), "NaN"),
        (
            lambda text: text.replace('"capacity_slots": 4', '"capacity_slots": -4'),
            "capacity_slots",
        ),
        (lambda text: text.replace('"seed": 0', '"sead": 0', 1), "config"),
    ],
)
def test_a_file_that_is_not_a_run_is_refused_by_name(run, tmp_path, change, words):
    path = tmp_path / "run.json"
    text = run.to_json()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(SpecmdError, match=words) as error:
        read_run(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(SpecmdError, match=r"run\.json"):
        read_run(path)


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(SpecmdError, match="nowhere"):
        read_run(tmp_path / "nowhere.json")
    with pytest.raises(SpecmdError, match="nowhere"):
        read_runs(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_text(path, "old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SpecmdError, match="No space left"):
        write_text(path, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
    assert path.read_text() == "old"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecmdError, match="cannot be written"):
        write_text(tmp_path / "file" / "run.json", "x")


def test_a_frame_has_one_row_a_run_and_a_column_a_metric(run):
    skipped = run.model_copy(
        update={"status": "skipped", "metrics": {}, "bounds": None, "regime": None}
    )
    table = frame([run, skipped])
    assert len(table) == 2
    assert set(METRICS) <= set(table.columns)
    assert table.loc[0, "evict"] == "lru"
    assert table.loc[0, "misses"] == run.metrics["misses"]
    assert table.loc[0, "belady_misses"] == run.bounds.belady.misses
    assert table.loc[0, "regret_misses"] == run.bounds.regret_misses
    assert table.loc[0, "working_set_mean"] == run.regime.working_set_mean
    assert table["status"].tolist() == ["ok", "skipped"]
    assert table["misses"].isna().tolist() == [False, True]


def test_no_runs_make_an_empty_frame():
    assert frame([]).empty


def test_provenance_names_code_machine_and_inputs_but_no_place(run, monkeypatch, tmp_path):
    home = tmp_path / "somebody"
    monkeypatch.setattr(
        sys, "argv", [str(home / "bin" / "specmd"), "sweep", f"--out={home}/x", "-c", "5%"]
    )
    found = provenance(run.config, run.trace.digest)
    assert found["argv"] == ["specmd", "sweep", "--out=x", "-c", "5%"]
    assert found["trace_digest"] == run.trace.digest
    assert found["specmd"] == specmd.__version__
    assert found["source_digest"] == source_digest()
    assert {"python", "platform", "packages", "commit", "dirty", "seed", "run_schema"} <= set(found)
    assert "somebody" not in json.dumps(found)
    assert str(Path(specmd.__file__).parent) not in run.to_json()


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("/home/me/traces/x.npz", "x.npz"),
        ("~/x.npz", "x.npz"),
        ("--out=/tmp/results", "--out=results"),
        ("traces/x.npz", "traces/x.npz"),
        ("least_stale:order=cycle", "least_stale:order=cycle"),
        ("16/layer", "16/layer"),
        ("5%", "5%"),
        ("", ""),
    ],
)
def test_arguments_lose_their_absolute_paths(argument, kept):
    assert without_paths(argument) == kept


def test_reading_a_run_does_not_import_the_simulator(run, tmp_path):
    path = write_run(run, tmp_path)
    code = (
        "import sys, specmd; from specmd.runs.run import read_run; "
        f"read_run({str(path)!r}); "
        "print([m for m in ('torch', 'pandas', 'numba', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_parse_run_names_where_the_text_came_from():
    with pytest.raises(SpecmdError, match="standard input"):
        parse_run("nonsense", "standard input")
