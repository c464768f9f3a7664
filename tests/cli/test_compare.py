"""`specmd compare` as it is used: tables, formats, exit codes, and the recipe for CI."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_pairs import folder, grid, measured
from made_up_runs import make_run

from specmd.trace import load, save, slice_tokens

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folders(tmp_path):
    one = folder(tmp_path / "one", grid(profile="t4"))
    return one, folder(tmp_path / "two", grid(1.1, "b" * 40, profile="t4"))


def test_a_run_against_itself_says_that_nothing_changed(specmd, folders):
    one, _ = folders
    done = specmd("compare", one, one, "--fail-on", "tpot:0%")
    assert (done.code, done.err) == (0, "")
    assert "nothing changed: " in done.out
    assert " lru " not in done.out
    file = next(one.glob("*.json"))
    assert "nothing changed: " in specmd("compare", file, file).out
    assert json.loads(specmd("compare", one, one, "--format", "json").out) == []


def test_changed_rows_and_all_rows(specmd, folders):
    done = specmd("compare", *folders)
    assert done.code == 0
    assert "TPOT (ms), lower is better · 4 of 4 changed: 4 worse" in done.out
    assert "+10.0" in done.out
    assert "worse, exact" in done.out
    assert "hit rate (%)" not in done.out
    assert "4 pairs of simulated runs" in done.out
    assert f"commit {'a' * 9} → {'b' * 9}" in done.out
    full = specmd("compare", *folders, "--all").out
    assert "hit rate (%), higher is better · 0 of 4 changed" in full
    assert "same" in full


def test_past_a_threshold_it_exits_with_3_and_says_which(specmd, folders):
    done = specmd("compare", *folders, "--fail-on", "tpot:5%", "--fail-on", "tpot:20%")
    assert done.code == 3
    lines = done.err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("specmd: past tpot:5%: ") for line in lines)
    assert re.search(r"lru.*slots 51.*: tpot_s [0-9.]+ ms in .*one, [0-9.]+ ms in .*two", done.err)
    assert "worse, exact, past 5%" in done.out
    assert specmd("compare", *folders[::-1], "--fail-on", "tpot:5%").code == 0  # it got better
    assert specmd("compare", *folders, "--fail-on", "hit_rate:0pp").code == 0


def test_records(specmd, folders, tmp_path):
    out = tmp_path / "out.csv"
    done = specmd("compare", *folders, "--metric", "tpot", "--format", "json", "--export", out)
    rows = json.loads(done.out)
    assert len(rows) == 4
    first = rows[0]
    assert (first["metric"], first["unit"], first["basis"]) == ("tpot_s", "s", "exact")
    assert first["relative"] == pytest.approx(0.1)
    assert first["difference"] == pytest.approx(first["new"] - first["old"])
    assert (first["direction"], first["old_source"]) == ("worse", "simulated")
    assert "4 pairs" in done.err  # what is said below a table does not go into data
    table = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["policy"] for row in table] == [row["policy"] for row in rows]
    assert specmd("compare", *folders, "--format", "md").out.startswith("**")
    lines = specmd("compare", *folders, "--format", "jsonl", "--metric", "tpot").out.splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_by_profile_says_where_the_winner_changes(specmd, tmp_path):
    runs = []
    for profile in ("t4", "h100_sxm"):
        for slots, evict, seconds in (
            (51, "lru", 2.0), (51, "lfu", 1.0),
            (102, "lru", 1.0 if profile == "t4" else 2.0),
            (102, "lfu", 1.5 if profile == "t4" else 1.6),
        ):  # fmt: skip
            run = make_run(evict, slots, profile=profile)
            runs.append(run.model_copy(update={"metrics": run.metrics | {"tpot_s": seconds}}))
    results = folder(tmp_path / "runs", runs)
    done = specmd("compare", results, "--by", "profile", "--metric", "tpot")
    assert done.code == 0
    assert "changes with profile at 1 of 2 capacities: 102 slots" in done.out
    assert re.search(r"^102 +lfu by 25.0% +lru by 50.0% +-1.00$", done.out, re.MULTILINE)
    rows = json.loads(
        specmd("compare", results, "--by", "profile", "--format", "json", "--metric", "tpot").out
    )
    winners = [row for row in rows if "winners" in row]
    assert [row["one_winner"] for row in winners] == [True, False]
    assert winners[1]["winners"] == {"h100_sxm": ["lfu"], "t4": ["lru"]}
    ranks = {
        row["policy"]: row["rank t4"]
        for row in rows
        if row.get("capacity_slots") == 102 and "policy" in row
    }
    assert ranks == {"lru": 1, "lfu": 2}
    flat = specmd("compare", results, "--by", "profile", "--format", "csv", "--metric", "tpot").out
    assert "winners" not in flat.splitlines()[0]


def test_two_machines(specmd, tmp_path):
    one = folder(tmp_path / "one", [measured([0.010, 0.0101, 0.0102], device="A")])
    two = folder(
        tmp_path / "two", [measured([0.0052, 0.0051, 0.005], device="B", link="accelerator")]
    )
    done = specmd("compare", one, two)
    assert "1 pair of measured runs" in done.out
    assert "device A → B" in done.out
    assert "link cpu → accelerator" in done.out
    assert "better, 6 repetitions" in done.out
    done = specmd("compare", one, two, "--by", "device")
    assert re.search(r"policy +A +B", done.out)


def test_refusals_are_one_line(specmd, folders, tmp_path):
    one, two = folders
    for argv in (
        (one,),
        (one, tmp_path / "nothing"),
        (one, two, "--by", "nonsense"),
        (one, two, "--fail-on", "tpot"),
        (one, two, "--fail-on", "host_hit_rate:1pp"),
        (one, two, "--metric", "tpott"),
        (one, two, "--export", "x.unknown"),
    ):
        done = specmd("compare", *argv)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), argv
        assert done.err.startswith("specmd: error: ")


def commands_of(page):
    """Return the commands of the workflow in a page, step by step, in order."""
    workflow = re.search(r"<!-- workflow -->\n```yaml\n(.*?)^```$", page, re.M | re.S)[1]
    steps = []
    for match in re.finditer(r"^( +)(?:- )?run: (\|?)(.*)\n((?:\1 {2,}.*\n|\n)*)", workflow, re.M):
        text = match[4] if match[2] else match[3]
        steps.append("\n".join(line.strip(" ") for line in text.splitlines()))
    return steps


POLICY = '''
"""A rule that is edited."""

from specmd.policy import policy


@policy("mine", source="a test")
class Mine:
    @classmethod
    def create(cls, world):
        return cls()

    def __init__(self):
        self.used = {}

    def on_use(self, key, pool, event):
        self.used[key] = event.clock

    def on_insert(self, key, pool, event):
        self.used[key] = event.clock

    def rank(self, key, event):
        return self.used[key]
'''


@pytest.mark.parametrize(
    ("edit", "code"), [("return -self.used[key]", 3), ("return self.used[key] * 1", 0)]
)
def test_the_recipe_for_ci(tmp_path, edit, code):
    """The commands of docs/ci.md, on a repository of one policy with two commits."""
    work = tmp_path / "repository"
    (work / "policies").mkdir(parents=True)
    (work / "traces").mkdir()
    prose = load(ROOT / "traces" / "tiny-prose-b1.npz")
    save(slice_tokens(prose, 0, 150), work / "traces" / "prose.npz")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b", "BASE": "HEAD~1",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }  # fmt: skip

    def sh(text):
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", text],
            cwd=work, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def commit(text):
        (work / "policies" / "mine.py").write_text(text, encoding="utf-8")
        done = sh("git add policies traces && git commit -qm x")
        assert done.returncode == 0, done.stderr

    assert sh("git init -q").returncode == 0
    commit(POLICY)
    commit(POLICY.replace("return self.used[key]", edit))
    install, *steps = commands_of((ROOT / "docs" / "ci.md").read_text("utf-8"))
    assert install == "pip install specmd-bench"
    assert len(steps) == 3
    codes = []
    for step in steps:
        done = sh(step)
        codes.append(done.returncode)
        said = done.stdout + done.stderr
        if "specmd compare" in step:
            assert ("past tpot:2%: mine" in said) == (code == 3), said
            assert ("nothing changed" in said) == (code == 0), said
    assert codes == [0, code, 0], said
    summary = (tmp_path / "summary.md").read_text("utf-8")
    assert "results/old → results/new" in summary
    assert "8 pairs of simulated runs" in summary
