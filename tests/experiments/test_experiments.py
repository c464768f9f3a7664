"""Experiments: texts, tables and findings are those of the committed numbers."""

import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import reproduce  # noqa: E402
from reproduction.numbers import changes, read, rows_of  # noqa: E402
from reproduction.questions import FOLDER, Numbers, questions, read_question  # noqa: E402
from reproduction.texts import parts_of, render  # noqa: E402

from specmd.errors import SpecmdError  # noqa: E402
from specmd.runs.resolve import make_grid  # noqa: E402
from specmd.simulation.simulate import try_config  # noqa: E402
from specmd.sweep.experiment import read_experiment  # noqa: E402
from specmd.trace import DECODE, load  # noqa: E402


def test_there_are_questions():
    assert len(questions()) == 13


@pytest.mark.parametrize("name", questions())
def test_a_text_is_that_of_its_numbers(name):
    halves = reproduce.halves_of(name)
    assert set(halves) == {"own", "others"}
    text = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    parts = parts_of(read_question(name), halves)
    for part in ("findings", "tables", "made"):
        assert f"<!-- {part} -->" in text
    assert render(text, parts) == text, f"python experiments/reproduce.py --texts {name}"
    assert ("<!-- figure -->" in text) == (FOLDER / name / "figure.png").is_file()


@pytest.mark.parametrize("name", questions())
def test_every_finding_holds(name):
    import pandas as pd

    rows = pd.concat([rows for rows, _ in reproduce.halves_of(name).values()], ignore_index=True)
    found = read_question(name).findings(Numbers(rows))
    assert found
    assert [each.text for each in found if not each.holds] == []


@pytest.mark.parametrize("name", questions())
def test_the_numbers_are_of_the_runs_that_the_files_ask_for(name):
    for half in ("own", "others"):
        path = FOLDER / name / f"{half}.toml"
        assert read_experiment(path).traces
        asked = tomllib.loads(path.read_text(encoding="utf-8"))
        rows, made = read(FOLDER / name / f"{half}.csv")
        assert set(made["traces"]) == {Path(trace).stem for trace in asked["traces"]}
        for option, values in asked["grid"].items():
            if option in rows:
                listed = values if isinstance(values, list) else [values]
                names = {Path(each).stem if option == "profile" else each for each in listed}
                found = Numbers(rows).each(option)
                spelled = {sorted_spelling(each) for each in found}
                # Without a prefetch there is nothing to schedule, and all orders are one.
                names |= {"fifo"} if option == "schedule" else set()
                assert spelled == {sorted_spelling(each) for each in names}, (half, option)


def sorted_spelling(value):
    """Spell a policy's parameters in one order, without the defaults that these files name."""
    name, _, given = str(value).partition(":")
    kept = sorted(each for each in given.split(",") if each not in ("", "depth=1"))
    return ":".join([name, ",".join(kept)]) if kept else name


def test_the_index_is_that_of_the_numbers():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert render(text, {"index": reproduce.index_text()}) == text


def test_one_question_asked_again_of_our_own_traces_has_the_same_answers():
    config = FOLDER / "atomicity" / "own.toml"
    grid = make_grid(tomllib.loads(config.read_text(encoding="utf-8"))["grid"])
    before, _ = read(FOLDER / "atomicity" / "own.csv")
    found = []
    for path in read_experiment(config).traces:
        trace = load(path)
        for each in grid.expand(trace):
            if each.evict in ("lru", "least_stale"):
                run = try_config(trace, each, name=path.stem, bounds=False)
                found.append(run.model_dump(mode="json"))
    question = read_question("atomicity")
    after = rows_of(found, question.metrics, question.options)
    kept = before[before["evict"].isin(["lru", "least_stale"])].reset_index(drop=True)
    assert len(after) == 24
    assert changes(kept, after, read_question("atomicity").metrics) == []
    keys = ["trace", "evict", "capacity", "sequential"]
    digests = [dict(zip(map(tuple, r[keys].astype(str).to_numpy()), r["digest"], strict=True))
               for r in (kept, after)]  # fmt: skip
    assert digests[0] == digests[1]


def test_a_number_that_moved_is_named():
    before, _ = read(FOLDER / "atomicity" / "own.csv")
    after = before.copy()
    after.loc[3, "hit_rate"] = 0.123
    (line,) = changes(before, after, ("hit_rate", "misses", "collision_rate"))
    assert line.endswith("-> 0.123")
    assert before.loc[3, "evict"] in line


def test_a_finding_that_turned_false_is_said_in_the_text():
    halves = reproduce.halves_of("atomicity")
    rows, made = halves["others"]
    rows = rows.assign(hit_rate=0.5)
    parts = parts_of(read_question("atomicity"), {**halves, "others": (rows, made)})
    assert "BUT NO LONGER TRUE" in parts["findings"]


def test_numbers_that_are_not_one_are_refused():
    numbers = Numbers(read(FOLDER / "atomicity" / "own.csv")[0])
    with pytest.raises(SpecmdError, match="rows, 1 is asked for"):
        numbers.value("hit_rate", evict="lru")
    with pytest.raises(SpecmdError, match="no column evcit"):
        numbers.where(evcit="lru")


def test_where_recordings_are_missing_the_numbers_stay(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "atomicity"
    folder.mkdir()
    (folder / "others.toml").write_text('traces = ["nowhere.npz"]\nout = "out"\n')
    (folder / "others.csv").write_text("as it was")
    monkeypatch.setattr(reproduce, "FOLDER", tmp_path)
    reproduce.answer("atomicity", "others")
    assert "nowhere not here, numbers stay as they are" in capsys.readouterr().out
    assert (folder / "others.csv").read_text() == "as it was"


def test_recordings_without_their_prompts(monkeypatch, tmp_path):
    from reproduction import recordings

    monkeypatch.setattr(recordings, "CACHE", tmp_path)
    whole = load(ROOT / "traces" / "tiny-mixed-b8-long.npz")
    bare = load(recordings.make_ready("tiny_bare"))
    decoded = whole.phase == DECODE
    assert (bare.expert_ids == whole.expert_ids[decoded]).all()
    assert (bare.phase == DECODE).all()
    missing = recordings.Recording(tmp_path / "none.csv", load, others=True)
    monkeypatch.setitem(recordings.RECORDINGS, "gone", missing)
    assert recordings.make_ready("gone") is None
