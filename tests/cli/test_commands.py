"""What the commands print and write."""

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from specmd.policy.registry import AXES, entries, forget
from specmd.trace import load, save, slice_tokens, synthetic
from specmd.trace.importers import FORMS

ROOT = Path(__file__).resolve().parents[2]
RUN_KEYS = {
    "schema", "id", "source", "config", "metrics", "regime", "bounds", "decision_digest",
    "warnings", "provenance",
}  # fmt: skip
CONFIG_KEYS = {"evict", "prefetch", "capacity_slots", "scope", "admission", "reset", "seed"}
METRIC_KEYS = {
    "accesses", "hits", "late_hits", "misses", "compulsory_misses", "collision_misses",
    "capacity_misses", "evictions", "hit_rate", "ttft_s", "tpot_s",
}  # fmt: skip


def test_list_policies_rows(specmd):
    rows = json.loads(specmd("list", "policies", "--format", "json").out)
    for row in rows:
        assert {"axis", "name", "summary", "needs", "parameters", "source", "origin"} <= set(row)
        assert {"lossless", "remembers", "compiled"} <= set(row)
        assert all({"type", "default"} == set(each) for each in row["parameters"].values())
        assert row["summary"].rstrip(".") != ""
        assert row["axis"] in AXES
        assert row["source"]
    assert {("evict", "lru"), ("prefetch", "none"), ("schedule", "fifo")} <= {
        (row["axis"], row["name"]) for row in rows
    }
    assert "least_stale" in specmd("list", "policies").out


def test_list_policies_can_be_narrowed(specmd, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        '"""Two."""\nfrom specmd.policy import policy\n'
        'class One:\n    """The first rule."""\n    @classmethod\n'
        "    def create(cls): return cls()\n"
        '@policy("kept", axis="allocate", source="a")\n'
        'class Kept(One):\n    """The second rule."""\n'
        '@policy("bent", axis="allocate", source="b", lossy=True)\n'
        'class Bent(One):\n    """The third rule."""\n'
    )
    asked = ("list", "policies", "--plugin", mine, "--axis", "allocate", "--format", "json")
    try:
        every, lossless = (
            {row["name"]: row for row in json.loads(specmd(*asked, *more).out)}
            for more in ((), ("--lossless",))
        )
        text = specmd("list", "policies", "--axis", "allocate").out
    finally:
        forget([each for each in entries("allocate") if each.origin == str(mine)])
    assert {row["axis"] for row in every.values()} == {"allocate"}
    assert set(every) - set(lossless) == {"bent"}
    assert every["kept"]["summary"] == "The second rule."
    assert "lossy; from " in text
    assert text.startswith(f"allocate ({len(every)})\n")


def test_a_list_of_something_else_has_no_axis(specmd):
    assert "policies" in specmd("list", "profiles", "--axis", "evict").err
    done = specmd("list", "policies", "--axis", "evictt")
    assert (done.code, "did you mean evict?" in done.err) == (2, True)


def test_list_policies_is_readable_at_80_columns(specmd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = specmd("list", "policies").out.splitlines()
    assert max(map(len, lines)) <= 80 + len("\x1b[2m\x1b[0m")
    rule = next(line for line in lines if line.startswith("lru "))
    assert "LRU: the key touched longest ago leaves first." in rule


def test_import_help_lists_the_forms(specmd):
    text = specmd("import", "--help").out
    for form in ("expert_ids (T, L, K)", "decode_ids (S, B, L, K)", "layer,expert[,weight]"):
        assert form in text
    assert '{"layer": 0, "experts": [3, 1]' in text
    assert all(form.kind in text for form in FORMS)


def test_export_writes_what_import_reads(specmd, trace_file, tmp_path):
    out, back = tmp_path / "rows.csv", tmp_path / "back.npz"
    assert specmd("export", trace_file, out).code == 0
    header = load(trace_file).header
    done = specmd("import", out, back, "--experts", header.num_experts)
    assert done.code == 0
    assert (load(back).expert_ids == load(trace_file).expert_ids).all()
    done = specmd("export", trace_file, out, "--format", "xml")
    assert done.code == 2


@pytest.mark.parametrize("form", ["csv", "jsonl", "llama-cpp"])
def test_sizes_by_layer_survive_export_and_import(specmd, trace_file, tmp_path, form):
    made = load(trace_file)
    sizes = (300,) + (2_654_208,) * (made.header.num_layers - 1)
    update = {"expert_bytes": 200, "expert_bytes_by_layer": sizes}
    path = save(replace(made, header=made.header.model_copy(update=update)), tmp_path / "t.npz")
    told = specmd("export", path, tmp_path / "out", "--format", form).err
    _, _, options = told.partition(" TRACE ")
    assert (options == "") == (form == "jsonl")
    back = tmp_path / "back.npz"
    assert specmd("import", tmp_path / "out", back, *options.split()).code == 0
    assert load(back).header.expert_bytes_by_layer == sizes
    assert load(back).header.num_experts == made.header.num_experts
    assert (load(back).expert_ids == made.expert_ids).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ("2.7MBx", "write 2.7MBx8"),
        ("2.7MBx0", "write 2.7MBx8"),
        ("many", "'many' is not understood as a size"),
        ("0", "--expert-bytes 0: give a positive number"),
        ("1MBx99", "expert_bytes_by_layer needs"),
        ("1MB,", "'' is not understood as a size"),
    ],
)
def test_wrong_sizes_of_experts(specmd, tmp_path, sizes, expected):
    (tmp_path / "t.csv").write_text("layer,expert\n0,1\n1,1\n")
    done = specmd(
        *("import", tmp_path / "t.csv", tmp_path / "t.npz"),
        *("--experts", "4", "--expert-bytes", sizes),
    )
    assert done.code == 2
    assert expected in done.err


def test_results_are_shown_again_without_their_command(specmd, trace_file, tmp_path):
    out, grid = tmp_path / "out", ("-e", "lru", "-e", "lfu", "-c", "10%", "-c", "20%")
    swept = specmd("sweep", trace_file, *grid, "--jobs", "1", "--out", out)
    assert swept.code == 0
    shown = specmd("show", out)
    assert shown.code == 0
    assert sorted(shown.out.splitlines()) == sorted(swept.out.splitlines())
    rows = json.loads(specmd("show", out, "--format", "json").out)
    assert {row["id"] for row in rows} == {path.stem for path in out.glob("*.json")}
    one = next(out.glob("*.json"))
    assert len(json.loads(specmd("show", one, one, "--format", "json").out)) == 1
    figure = tmp_path / "figure.svg"
    assert specmd("show", out, "--figure", figure, "--metric", "misses").code == 0
    assert figure.stat().st_size > 1000


def test_a_folder_without_runs_is_an_error(specmd, tmp_path):
    done = specmd("show", tmp_path)
    assert done.code == 2
    assert "holds no runs" in done.err


@pytest.mark.parametrize("kind", ["profiles", "shapes", "metrics"])
@pytest.mark.parametrize("form", ["table", "md", "csv", "json", "jsonl"])
def test_lists_in_every_format(specmd, kind, form):
    done = specmd("list", kind, "--format", form)
    assert done.code == 0
    assert done.err == ""
    assert len(done.out.splitlines()) > 5
    if form == "json":
        assert all("name" in row for row in json.loads(done.out))
    if form == "csv":
        assert "name" in next(csv.reader(io.StringIO(done.out)))


def test_list_traces_names_damaged_ones(specmd, trace_file, tmp_path):
    (tmp_path / "good.npz").write_bytes(trace_file.read_bytes())
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    rows = json.loads(specmd("list", "traces", tmp_path, "--format", "json").out)
    assert [Path(row["path"]).name for row in rows] == ["bad.npz", "good.npz"]
    assert "error" in rows[0]
    assert rows[1]["tokens"] == 72


def test_inspect_says_header_locality_and_regime(specmd, trace_file):
    record = json.loads(specmd("inspect", trace_file, "--format", "json").out)
    assert record["header"]["kind"] == "synthetic"
    assert record["regime"]["lru_never_hits_up_to_slots"] == 8 * 4 - 4
    assert record["locality"]["keys_total"] == 128
    text = specmd("inspect", trace_file).out
    for word in ("Header", "Locality", "Regime", "warning: synthetic"):
        assert word in text
    assert "**Locality**" in specmd("inspect", trace_file, "--format", "md").out


def test_inspect_says_what_a_trace_can_answer(specmd, trace_file, tmp_path):
    record = json.loads(specmd("inspect", trace_file, "--format", "json").out)["answers"]
    assert (record["ttft"], record["whole_prompts"], record["largest_batch"]) == ("recorded", 3, 3)
    assert record["skipped"]["evict static"] == "a training trace"
    text = specmd("inspect", trace_file).out
    assert "yes: 3 whole prompts" in text
    bare = replace(load(trace_file), weights=None, lookahead=None)
    lacking = save(slice_tokens(bare, 8, 20), tmp_path / "t.npz")
    record = json.loads(specmd("inspect", lacking, "--format", "json").out)["answers"]
    assert record["skipped"]["prefetch prev_token"] == "router weights"
    text = specmd("inspect", lacking).out
    assert "an estimate: prompts are not recorded, but how long they are" in text
    assert re.search(r"prefetch prev_token[^()]*\(need router weights\)", text)


def test_batches_and_chunks_are_axes_of_a_grid(specmd, tmp_path):
    trace = synthetic(prompt_length=6, num_requests=4, decode_length=5, expert_bytes=1000)
    file = save(trace, tmp_path / "t.npz")
    grid = ("--batch", 1, "--batch", 4, "--prefill-chunk", 3, "--mixed", "-c", "25%")
    runs = json.loads(specmd("simulate", file, *grid, "--format", "json").out)
    assert [(run["config"]["batch"], run["config"]["mixed"]) for run in runs] == [
        (1, False),
        (4, True),
    ]
    assert runs[0]["trace"]["steps"] == 4 * (2 + 5)
    table = specmd("simulate", file, *grid).out
    assert "prefill chunk 3" in table
    assert "batch 4 · mixed" in table
    assert "batch 1|4 mixed" in table
    wide = specmd("simulate", file, "--batch", 64)
    assert wide.code == 1
    assert "batch 64: the trace has 4 requests" in wide.err
    alone = specmd("simulate", file, "--mixed")
    assert (alone.code, "give batch, too" in alone.err) == (2, True)


def test_inspect_draws_the_curves_that_runs_at_each_capacity_give(specmd, trace_file, tmp_path):
    picture = tmp_path / "curve.svg"
    options = ("--curve", "--figure", picture, "--format", "json")
    rates = json.loads(specmd("inspect", trace_file, *options).out)["hit_rate_by_slots"]
    assert picture.read_bytes().startswith(b"<?xml")
    policies = ("lru", "belady", "belady:bypass=true")
    runs = specmd(
        "simulate", trace_file, *(x for p in policies for x in ("--evict", p)),
        "--capacity", "25%", "--no-bounds", "--format", "json",
    ).out  # fmt: skip
    for run in json.loads(runs):
        slots = run["config"]["capacity_slots"]
        assert rates[run["config"]["evict"]][slots] == run["metrics"]["hit_rate"]
    assert "Hit rate by capacity" in specmd("inspect", trace_file, "--curve").out
    assert "Hit rate by capacity" not in specmd("inspect", trace_file).out


def test_import_round(specmd, tmp_path):
    source = tmp_path / "route.csv"
    source.write_text(
        "token,layer,expert\n"
        + "".join(f"{t},{x},{(t + x) % 4}\n" for t in range(6) for x in (0, 1))
    )
    target = tmp_path / "route.npz"
    done = specmd("import", source, target, "--experts", 4, "--expert-bytes", 1000)
    assert done.code == 0, done.err
    assert done.out == ""
    assert "6 tokens" in done.err
    assert specmd("validate", "trace", target).code == 0
    run = json.loads(specmd("simulate", target, "-c", "4kB", "--format", "json").out)[0]
    assert run["config"]["capacity_slots"] == 4


def test_import_takes_the_expert_size_from_the_model(specmd, tmp_path):
    source = tmp_path / "route.csv"
    source.write_text("token,layer,expert\n0,0,1\n")
    target = tmp_path / "route.npz"
    done = specmd("import", source, target, "--experts", 64, "--model", "OLMoE-1B-7B-0924")
    assert "12,582,912" in done.err
    assert json.loads(specmd("inspect", target, "--format", "json").out)["header"]["expert_bytes"]


def test_simulate_json_has_the_promised_keys(specmd, trace_file):
    done = specmd(
        "simulate", trace_file, "-e", "lru", "-e", "fifo", "-c", "25%", "-c", "2/layer",
        "--format", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.err == ""
    runs = json.loads(done.out)
    assert len(runs) == 4
    for run in runs:
        assert set(run) >= RUN_KEYS
        assert set(run["config"]) >= CONFIG_KEYS
        assert set(run["metrics"]) >= METRIC_KEYS
        metrics = run["metrics"]
        assert metrics["accesses"] == metrics["hits"] + metrics["late_hits"] + metrics["misses"]
        assert run["source"] == "simulated"
    assert {run["config"]["capacity_slots"] for run in runs} == {32, 16}


def test_formats_agree_and_exports_follow_their_suffix(specmd, trace_file, tmp_path):
    names = ("runs.json", "runs.jsonl", "runs.csv", "runs.md", "deep/runs.txt", "runs.svg")
    exports = [part for name in names[:-1] for part in ("--export", tmp_path / name)]
    done = specmd("simulate", trace_file, "-c", "25%", *exports, "--figure", tmp_path / names[-1])
    assert done.code == 0, done.err
    assert (tmp_path / "deep/runs.txt").read_text() == done.out
    run = json.loads((tmp_path / "runs.json").read_text())[0]
    assert json.loads((tmp_path / "runs.jsonl").read_text()) == run
    (row,) = csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text()))
    assert int(row["misses"]) == run["metrics"]["misses"]
    assert (
        "| lru \\* |" in (tmp_path / "runs.md").read_text()
        or "| lru * |" in (tmp_path / "runs.md").read_text()
    )
    assert (tmp_path / "runs.svg").read_text().startswith("<?xml")


def test_a_file_that_cannot_be_written_costs_neither_the_table_nor_the_other_files(
    specmd, trace_file, tmp_path
):
    (tmp_path / "taken.json").mkdir()
    (tmp_path / "taken.svg").mkdir()
    done = specmd(
        "simulate", trace_file, "-c", "25%", "--no-bounds",
        *("--export", tmp_path / "taken.json", "--export", tmp_path / "runs.csv"),
        *("--figure", tmp_path / "taken.svg", "--figure", tmp_path / "runs.svg"),
    )  # fmt: skip
    assert done.code == 5
    assert "lru" in done.out
    assert "taken.json" in done.err
    assert done.err.count("\n") == 1
    assert (tmp_path / "runs.csv").is_file()
    assert (tmp_path / "runs.svg").is_file()


def test_an_edited_trace_is_refused_by_whatever_relies_on_it(specmd, trace_file, tmp_path):
    import numpy as np

    edited = tmp_path / "edited.npz"
    with np.load(trace_file) as whole:
        arrays = dict(whole)
    arrays["expert_ids"] = arrays["expert_ids"][:, :, ::-1]
    np.savez(edited, **arrays)
    for asked in (
        ("simulate", edited),
        ("simulate", trace_file, "--training", edited),
        ("sweep", edited, "--out", tmp_path / "out"),
        ("validate", "trace", edited),
        ("inspect", edited),
    ):
        done = specmd(*asked)
        assert done.code == 2
        assert "edited.npz: the content does not match its digest" in done.err
    (row,) = json.loads(specmd("list", "traces", tmp_path, "--format", "json").out)
    assert "does not match" in row["error"]


def test_ctrl_c_prints_what_is_finished(specmd, trace_file, monkeypatch):
    from specmd.simulation import simulate

    through = simulate.try_config

    def interrupted(trace, config, **more):
        if config.evict == "fifo":
            raise KeyboardInterrupt
        return through(trace, config, **more)

    monkeypatch.setattr(simulate, "try_config", interrupted)
    asked = ("simulate", trace_file, "-c", "25%", "--no-bounds")
    done = specmd(*asked, "-e", "lru", "-e", "fifo", "-e", "lfu")
    assert done.code == 130
    assert "lru" in done.out
    assert done.err == "specmd: interrupted after 1 of 3 runs\n"
    nothing = specmd(*asked, "-e", "fifo")
    assert (nothing.code, nothing.out) == (130, "")


def test_a_policy_whose_need_is_not_met_is_a_row(specmd, trace_file, tmp_path):
    done = specmd("simulate", trace_file, "-e", "static", "-e", "lru", "-c", "25%")
    assert done.code == 0
    assert "skipped: needs" in done.out
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    assert specmd("split", trace_file, one, other).code == 0
    asked = ("simulate", one, "-e", "static", "-c", "25%", "--no-bounds", "--training")
    assert "skipped" not in specmd(*asked, other).out
    same = specmd(*asked, one)
    assert same.code == 1
    assert "the training trace is the trace that is judged: `specmd split`" in same.err


def test_metric_chooses_the_columns(specmd, trace_file):
    done = specmd("simulate", trace_file, "-c", "25%", "--metric", "evictions", "--no-bounds")
    assert "evictions" in done.out
    assert "collision" not in done.out


def test_times_are_labelled(specmd, trace_file):
    done = specmd("simulate", trace_file, "-c", "25%", "--profile", "t4", "--no-bounds")
    assert "simulated (t4)" in done.out
    assert "TPOT" in done.out


def test_a_plugin_by_file(specmd, trace_file, tmp_path):
    (tmp_path / "mine.py").write_text(
        '"""Mine: the largest key stays."""\n'
        "from specmd.policy.registry import policy\n\n\n"
        '@policy("mine", source="a test")\n'
        "class Mine:\n"
        "    @classmethod\n"
        "    def create(cls, world):\n"
        "        return cls()\n\n"
        "    def rank(self, key, event):\n"
        "        return float(key)\n"
    )
    done = specmd(
        "simulate", trace_file, "--plugin", tmp_path, "-e", "mine", "-c", "25%", "--no-bounds"
    )
    assert done.code == 0, done.err
    assert "mine" in done.out


def test_sweep_writes_resumes_and_exports(specmd, trace_file, tmp_path):
    out = tmp_path / "out"
    asked = (
        "sweep",
        trace_file,
        "-e",
        "lru",
        "-e",
        "fifo",
        "-c",
        "25%",
        "--no-bounds",
        "--jobs",
        1,
    )
    planned = specmd(*asked, "--dry-run", "--format", "json")
    assert planned.code == 0
    assert "2 runs" in planned.err
    assert not out.exists()
    ids = {row["id"] for row in json.loads(planned.out)}
    first = specmd(*asked, "--out", out, "--format", "json")
    assert first.code == 0, first.err
    assert {run["id"] for run in json.loads(first.out)} == ids
    assert ids <= {path.stem for path in out.glob("*.json")}
    again = specmd(*asked, "--out", out, "--format", "json")
    assert "2 existing" in again.err
    assert json.loads(again.out) == json.loads(first.out)


def test_sweep_from_a_file_with_options_on_top(specmd, trace_file, tmp_path):
    config = tmp_path / "experiment.toml"
    config.write_text(
        f'traces = ["{trace_file.name}"]\nout = "results"\n'
        '[grid]\nevict = ["lru", "fifo"]\ncapacity = ["25%", 16]\n'
    )
    (tmp_path / trace_file.name).write_bytes(trace_file.read_bytes())
    assert "4 runs" in specmd("validate", "config", config).out
    planned = specmd("sweep", "--config", config, "-e", "lfu", "--dry-run", "--format", "json")
    rows = json.loads(planned.out)
    assert [(row["evict"], row["capacity_slots"]) for row in rows] == [("lfu", 32), ("lfu", 16)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("traces = [", "not valid TOML"),
        ("bogus = 1", "bogus"),
        ("[grid]\nevict = []", "evict"),
        ("[grid]\nscope = ['galaxy']", "scope"),
        ("[grid]\nevikt = ['lru']", "evikt"),
    ],
)
def test_a_wrong_experiment_names_file_and_field(specmd, tmp_path, text, said):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    done = specmd("validate", "config", path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "wrong.toml" in done.err
    assert said in done.err


def test_schemas_are_json(specmd):
    for kind in ("trace", "profile", "config"):
        assert json.loads(specmd("validate", kind, "--schema").out)["properties"]


def test_validate_profile(specmd):
    done = specmd("validate", "profile", ROOT / "hardware_profiles" / "t4.toml")
    assert done.code == 0
    assert "t4" in done.out
    assert "warning" in done.err


def test_completion_offers_policies_parameters_and_profiles():
    from specmd.cli import completion

    evict = completion.policies("evict")
    assert "least_stale" in evict("least")
    assert evict("least_stale:or") == ["least_stale:order="]
    assert evict("nothing:") == []
    assert "rtx4090" in completion.profiles("rtx")
    assert completion.shapes("olmoe") == ["olmoe-1b-7b"]
    assert "hit_rate" in completion.metrics("hit")


def test_parquet_holds_the_rows_of_the_frame(specmd, trace_file, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    file = tmp_path / "runs.parquet"
    done = specmd("simulate", trace_file, "-e", "lru", "-e", "lfu", "-c", "25%", "--export", file)
    assert done.code == 0
    found = pandas.read_parquet(file)
    assert list(found["evict"]) == ["lfu", "lru"]
    assert found["misses"].dtype == "int64"
    assert found["hit_rate"].between(0, 1).all()
    assert [path.name for path in tmp_path.iterdir()] == ["runs.parquet"]


def test_parquet_without_pyarrow_is_refused_before_anything_runs(specmd, trace_file, monkeypatch):
    monkeypatch.setattr("specmd.cli.output.find_spec", lambda name: None)
    done = specmd("simulate", trace_file, "-c", "25%", "--export", "runs.parquet")
    assert (done.code, done.out) == (2, "")
    assert "specmd-bench[parquet]" in done.err


def test_exports_of_the_same_runs_are_equal_whatever_made_them(specmd, trace_file, tmp_path):
    grid = (trace_file, "-c", "25%", "-c", "10%", "--no-bounds", "--out", tmp_path / "out")
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv", "a.jsonl", "c.jsonl")]
    first, second, third, whole, again = files
    specmd("sweep", *grid, "-e", "lru", "-e", "lfu", "--export", first, "--export", whole)
    specmd("sweep", *grid, "-e", "lfu", "-e", "lru", "--export", second)
    specmd("show", tmp_path / "out", "--export", third, "--export", again)
    assert first.read_text() == second.read_text() == third.read_text()
    assert len(first.read_text().splitlines()) == 5
    assert whole.read_text() == again.read_text()


def test_a_sweep_says_what_a_cluster_needs(specmd, trace_file, tmp_path, monkeypatch):
    asked = ("sweep", trace_file, "-c", "16", "--out", tmp_path / "out")
    assert "go together" in specmd(*asked, "--executor", "dask").err
    assert "go together" in specmd(*asked, "--scheduler", "tcp://127.0.0.1:1").err
    assert "write NAME=AMOUNT" in specmd(*asked, "--resource", "GPU=many").err
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "specmd.sweep.cluster", raising=False)
    monkeypatch.delitem(sys.modules, "specmd.sweep.worker", raising=False)
    done = specmd(*asked, "--executor", "dask-local")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "pip install 'specmd-bench[dask]'" in done.err


def test_a_dry_run_counts_live_runs_and_says_how_long(specmd, trace_file, tmp_path):
    config = tmp_path / "experiment.toml"
    config.write_text(
        f'traces = ["{trace_file}"]\nmodels = ["tiny"]\n'
        '[[grid]]\nevict = ["lru", "fifo"]\ncapacity = "25%"\n'
        '[[grid]]\nevict = ["lfu"]\ncapacity = 16\n[[exclude]]\nevict = "fifo"\n'
    )
    done = specmd("sweep", "--config", config, "--dry-run", "--format", "json")
    assert [row["evict"] for row in json.loads(done.out)] == ["lru", "lfu", "lru", "lfu"]
    assert "2 runs and 2 live runs, none of them started" in done.err
    assert "a matter of seconds" in done.err
    assert "2 runs, 2 live runs" in specmd("validate", "config", config).out


def test_a_sweep_says_when_there_is_nothing_to_do(specmd, trace_file, tmp_path):
    asked = ("sweep", trace_file, "-c", "25%", "--no-bounds", "--out", tmp_path / "out")
    assert specmd(*asked).code == 0
    assert "all of them have a result" in specmd(*asked, "--dry-run").err
    empty = specmd(*asked, "--shard", "2/2")
    assert (empty.code, empty.out) == (0, "")
    assert json.loads(specmd(*asked, "--shard", "2/2", "--format", "json").out) == []
    config = tmp_path / "experiment.toml"
    config.write_text('[[exclude]]\nevict = "lru"\n')
    excluded = specmd(*asked, "--config", config)
    assert excluded.code == 2
    assert "[[exclude]] matches all" in excluded.err
