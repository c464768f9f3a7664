"""A sweep loses nothing: not to a crash, not to Ctrl-C, not to rubbish, not to another sweep."""

import textwrap
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from specmd.errors import Exit, SpecmdError
from specmd.hardware.profile import shipped
from specmd.runs.resolve import Grid, make_grid
from specmd.runs.run import read_run, read_runs, write_run
from specmd.simulation.simulate import run_config
from specmd.sweep.executor import LocalProcesses, Made, next_task, perform, settle
from specmd.sweep.jobs import BOUNDS_FOLDER, Job, JobTask, Setting, make_tasks
from specmd.sweep.sweep import Tally, _claimed, plan, sweep
from specmd.trace import load, save, synthetic


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A small trace on disk."""
    made = synthetic(num_layers=2, num_experts=5, top_k=2, num_requests=2, decode_length=6)
    return save(made, tmp_path_factory.mktemp("traces") / "small.npz")


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    """The same, whose experts have a size, so that a clock can run."""
    made = synthetic(
        num_layers=2, num_experts=5, top_k=2, num_requests=2, decode_length=6, expert_bytes=1000
    )
    return save(made, tmp_path_factory.mktemp("traces") / "sized.npz")


@pytest.fixture
def plugin(tmp_path, own_registry):
    """Write an eviction policy `mine` in ordinary Python whose `victim` starts with some lines."""

    def write(lines, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(
            textwrap.dedent(
                f'''
                """{name}: the smallest key leaves, if it comes to that."""
                import os
                from pathlib import Path
                from specmd.policy import candidates, policy

                @policy("{name}", source="a test")
                class Mine:
                    @classmethod
                    def create(cls, world):
                        return cls()

                    def victim(self, incoming, pool, cache, event):
                        {lines}
                        return min(candidates(cache, pool), default=None)
                '''
            )
        )
        return path

    return write


GRID = make_grid({"evict": ["lru", "fifo"], "capacity": [4, 6]})


def files(folder):
    return sorted(path.name for path in folder.glob("*.json"))


def without_rubbish(folder):
    """Every file is a run; nothing temporary is left."""
    assert all(path.suffix == ".json" for path in folder.iterdir() if path.is_file())
    return {run.id: run for run in read_runs(folder)}


def test_one_file_a_run_and_nothing_is_run_twice(trace, tmp_path):
    out = tmp_path / "out"
    seen = []
    tally = sweep(
        [trace], GRID, out, workers=2, on_result=lambda run, *count: seen.append((run.id, count))
    )
    assert tally == Tally(done=4)
    jobs = plan([trace], GRID)
    assert files(out) == sorted(f"{job.run_id}.json" for job in jobs)
    assert sorted(name for name, _ in seen) == sorted(job.run_id for job in jobs)
    assert [count for _, count in seen] == [(i, 4) for i in range(1, 5)]
    # The same runs, made here, one after the other.
    whole = load(trace)
    for job in jobs:
        here = run_config(whole, job.config, name="small")
        there = read_run(out / f"{job.run_id}.json")
        assert there.model_dump(exclude={"provenance"}) == here.model_dump(exclude={"provenance"})
    # The workers shared their bounds: one file for all capacities.
    assert len(files(out / BOUNDS_FOLDER)) == 1
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert sweep([trace], GRID, out, on_result=None) == Tally(existing=4)
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*.json")}


def test_a_plan_runs_nothing(trace, tmp_path):
    jobs = plan([trace, trace], GRID)
    assert [(job.config.capacity_slots, job.config.evict) for job in jobs] == [
        (4, "lru"), (4, "fifo"), (6, "lru"), (6, "fifo"),
    ]  # fmt: skip
    assert {job.trace for job in jobs} == {str(trace)}
    assert list(tmp_path.iterdir()) == []


def test_shards_divide_the_plan(trace):
    shards = [plan([trace], GRID, shard=(i, 3)) for i in (1, 2, 3)]
    assert [len(shard) for shard in shards] == [2, 1, 1]
    assert sorted(job.run_id for shard in shards for job in shard) == sorted(
        job.run_id for job in plan([trace], GRID)
    )
    for wrong in ((0, 3), (4, 3)):
        with pytest.raises(SpecmdError, match="shard"):
            plan([trace], GRID, shard=wrong)


def test_bad_input_is_an_error_before_anything_is_written(trace, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(SpecmdError, match="did you mean lru"):
        sweep([trace], Grid(evict=("lruu",)), out)
    with pytest.raises(SpecmdError, match="nowhere"):
        sweep([tmp_path / "nowhere.npz"], GRID, out)
    assert not out.exists()


def test_a_worker_that_dies_takes_nothing_with_it(trace, tmp_path, plugin):
    out = tmp_path / "out"
    killer = plugin("os._exit(9)")
    grid = make_grid({"evict": ["lru", "mine", "fifo"], "capacity": 4})
    tally = sweep([trace], grid, out, bounds=False, workers=2, plugins=[killer])
    assert tally == Tally(done=2, failed=1)
    runs = without_rubbish(out)
    assert len(runs) == 3
    for run in runs.values():
        assert (run.status == "failed") == (run.config.evict == "mine")
        assert ("process died" in run.reason) == (run.config.evict == "mine")
        assert (f"the plug-in {Path(killer).name}" in run.reason) == (run.config.evict == "mine")


def test_a_run_that_dies_once_is_tried_again_alone(trace, tmp_path, plugin):
    mark = tmp_path / "died"
    once = plugin(f"if not Path({str(mark)!r}).exists(): Path({str(mark)!r}).touch(); os._exit(9)")
    grid = make_grid({"evict": ["mine"], "capacity": [4]})
    out = tmp_path / "out"
    assert sweep([trace], grid, out, bounds=False, plugins=[once]) == Tally(done=1)
    assert mark.exists()


def test_failures_are_files_and_are_run_again_on_request(trace, tmp_path, plugin):
    mark = tmp_path / "repaired"
    faulty = plugin(f"if not Path({str(mark)!r}).exists(): raise RuntimeError('not yet')")
    out = tmp_path / "out"
    grid = make_grid({"evict": ["mine", "lru"], "capacity": [4]})

    def go(rerun):
        return sweep([trace], grid, out, bounds=False, plugins=[faulty], rerun=rerun, workers=1)

    assert go("none") == Tally(done=1, failed=1)
    (failed,) = [run for run in read_runs(out) if run.status == "failed"]
    assert failed.reason == f"RuntimeError: not yet ({Path(faulty).name}:14, in victim)"
    assert go("none") == Tally(existing=1, failed=1)
    mark.touch()
    assert go("failed") == Tally(existing=1, done=1)
    assert go("all") == Tally(done=2)
    assert {run.status for run in read_runs(out)} == {"ok"}


def test_an_input_edited_meanwhile_is_a_failure_not_a_mislabelled_result(tmp_path, plugin):
    mine = plugin("pass")  # interpreted: nothing to compile
    changing = tmp_path / "profile.toml"
    shipped_file = shipped("specmd.hardware_profiles")["h200"]
    changing.write_text(shipped_file.read_text())
    sized = save(synthetic(expert_bytes=1000, num_requests=1, decode_length=3), tmp_path / "s.npz")
    grid = make_grid({"evict": "mine", "capacity": [8, 9], "profile": str(changing)})
    out = tmp_path / "out"

    def edit(run, finished, total):
        text = shipped_file.read_text()
        changing.write_text(text.replace("calibrated = false", "calibrated = true"))

    options = {"bounds": False, "workers": 1, "plugins": [mine], "on_result": edit}
    tally = sweep([sized], grid, out, **options)
    assert tally == Tally(done=1, failed=1)
    runs = without_rubbish(out)
    assert len(runs) == 2
    (failed,) = [run for run in runs.values() if run.status == "failed"]
    assert "was edited" in failed.reason


def test_an_unmet_need_is_a_skipped_file(trace, tmp_path):
    grid = make_grid({"prefetch": "next_gate", "capacity": 4})
    assert sweep([trace], grid, tmp_path / "out") == Tally(skipped=1)
    (run,) = read_runs(tmp_path / "out")
    assert run.status == "skipped"
    assert "lookahead" in run.reason
    assert sweep([trace], grid, tmp_path / "out") == Tally(existing=1)


def test_damaged_results_are_made_again(trace, tmp_path):
    rubbish = ("", "{", '{"schema": "specmd.run/1"}', "\0")
    for job, text in zip(plan([trace], GRID, bounds=False), rubbish, strict=True):
        (tmp_path / f"{job.run_id}.json").write_text(text)
    assert sweep([trace], GRID, tmp_path, bounds=False, workers=1) == Tally(done=4)
    assert {run.status for run in without_rubbish(tmp_path).values()} == {"ok"}


def refused(trace, folder, text):
    """What a sweep says to a file that is there already and not its own, and leaves alone."""
    job = plan([trace], GRID, bounds=False)[2]
    path = folder / f"{job.run_id}.json"
    path.write_text(text)
    for rerun in ("none", "failed", "all"):
        with pytest.raises(SpecmdError, match=job.run_id) as error:
            sweep([trace], GRID, folder, bounds=False, rerun=rerun)
        assert path.read_text() == text
        assert files(folder) == [path.name], "nothing was run"
    return str(error.value)


def test_a_result_with_another_id_inside_is_named_and_neither_shown_nor_overwritten(
    trace, tmp_path
):
    other = run_config(load(trace), GRID.expand(load(trace).header)[0], bounds=False)
    assert other.id in refused(trace, tmp_path, other.to_json())


def test_a_result_of_a_newer_schema_is_not_overwritten(trace, tmp_path):
    assert "upgrade" in refused(trace, tmp_path, '{"schema": "specmd.run/9"}')


def test_ctrl_c_keeps_what_is_done_and_the_next_sweep_goes_on(trace, tmp_path):
    out = tmp_path / "out"

    def interrupt(run, finished, total):
        raise KeyboardInterrupt

    tally = sweep([trace], GRID, out, bounds=False, workers=1, on_result=interrupt)
    assert tally == Tally(done=1, interrupted=True)
    kept = len(without_rubbish(out))
    assert 1 <= kept < 4
    assert sweep([trace], GRID, out, bounds=False, workers=1) == Tally(done=4 - kept, existing=kept)


def test_two_sweeps_into_one_folder_damage_nothing(trace, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        both = [
            threads.submit(sweep, [trace], GRID, tmp_path, rerun="all", workers=1) for _ in range(2)
        ]
    assert [each.result() for each in both] == [Tally(done=4), Tally(done=4)]
    runs = without_rubbish(tmp_path)
    assert sorted(runs) == sorted(job.run_id for job in plan([trace], GRID))
    assert {run.status for run in runs.values()} == {"ok"}


def task(*jobs):
    return JobTask(jobs, Setting(Path("out"), None, False, (), ()))


def test_two_workers_do_not_compile_the_same_kernel_at_once(trace):
    lru4, fifo4, lru6, fifo6 = map(task, plan([trace], GRID))
    assert next_task(deque([lru6, fifo4]), set(), [lru4]) is fifo4
    assert next_task(deque([lru6, fifo4]), set(lru4.makes), [lru4]) is lru6
    assert next_task(deque([lru6]), set(), [lru4]) is lru6
    todo = deque([lru4, lru6, fifo6])
    assert next_task(todo, set(), [lru4]) is fifo6
    assert list(todo) == [lru4, lru6]


def test_a_job_knows_its_kernel(trace):
    jobs = plan([trace], make_grid({"evict": ["lfu", "lfu:resident=true"], "capacity": [4]}))
    assert len({job.kernel for job in jobs}) == 1
    assert isinstance(jobs[0], Job)
    assert Path(jobs[0].trace) == trace


def test_two_workers_do_not_make_the_same_bounds_at_once(sized):
    grid = make_grid({"evict": ["lru", "fifo"], "capacity": [4, 6], "profile": "t4"})
    lru4, fifo4, lru6, fifo6 = (
        replace(task(job), setting=replace(task(job).setting, bounds=True))
        for job in plan([sized], grid)
    )
    assert next_task(deque([fifo4, lru6, fifo6]), set(), [lru4]) is fifo6
    assert next_task(deque([fifo4, lru6]), set(lru4.makes | fifo6.makes), []) is fifo4


def test_runs_that_decide_the_same_go_to_one_process(sized):
    grid = make_grid(
        {"evict": ["lru", "fifo"], "capacity": 4, "profile": ["t4", "h200", "rtx4090"],
         "prefetch": ["none", "random"], "engine": ["eager", "graph"]}
    )  # fmt: skip
    jobs = plan([sized], grid)
    tasks = make_tasks(jobs, task().setting, workers=1)
    assert sorted(job.run_id for each in tasks for job in each.jobs) == sorted(
        job.run_id for job in jobs
    )
    assert sorted(len(each.jobs) for each in tasks) == [1] * 12 + [6] * 2
    for each in tasks:
        decided = {(job.config.evict, job.config.prefetch) for job in each.jobs}
        assert len(decided) == 1
    prefetchers = [each.jobs[0].config.prefetch for each in tasks]
    assert sorted(prefetchers) == prefetchers, "a plan of prefetches serves all at once"
    # Where that would leave workers idle, they are decided more than once.
    assert max(len(each.jobs) for each in make_tasks(jobs, task().setting, workers=2)) == 4


def test_what_another_sweep_made_meanwhile_is_taken_as_it_is(trace, tmp_path):
    jobs = plan([trace], GRID, bounds=False)
    todo = JobTask(tuple(jobs[:2]), Setting(tmp_path, None, False, (), ()))
    first, second = todo.perform()
    write_run(first.model_copy(update={"label": "by another"}), tmp_path)
    assert [run.label for run in todo.perform()] == ["by another", second.label]
    again = replace(todo, setting=replace(todo.setting, rerun="all"))
    assert [run.label for run in again.perform()] == [first.label, second.label]


def test_a_second_sweep_starts_at_the_other_end(trace, tmp_path):
    order = {}

    def note(name):
        return lambda run, *count: order.setdefault(name, []).append(run.id)

    ids = [job.run_id for job in plan([trace], GRID)]
    sweep([trace], GRID, tmp_path / "one", workers=1, on_result=note("first"))
    with _claimed(tmp_path / "two") as first:
        assert first
        sweep([trace], GRID, tmp_path / "two", workers=1, on_result=note("second"))
    assert order == {"first": ids, "second": ids[::-1]}


class FullDisk(LocalProcesses):
    """A disk that is full after the first result."""

    def run(self, tasks):
        for number, each in enumerate(tasks):
            yield from settle(each, perform(each) if number == 0 else FULL, deque())


FULL = Made([], "x.json: cannot be written: No space left on device", Exit.NOT_WRITTEN)


def test_a_full_disk_ends_the_sweep_and_keeps_what_is_done(trace, tmp_path):
    with pytest.raises(SpecmdError, match="No space left") as error:
        sweep([trace], GRID, tmp_path, bounds=False, executor=FullDisk(1))
    assert error.value.code is Exit.NOT_WRITTEN
    assert len(without_rubbish(tmp_path)) == 1
    assert sweep([trace], GRID, tmp_path, bounds=False, workers=1) == Tally(done=3, existing=1)


def test_what_cannot_be_written_is_no_failed_run(trace, tmp_path, monkeypatch):
    def full(path, text):
        raise SpecmdError(f"{path}: cannot be written: No space left on device", Exit.NOT_WRITTEN)

    monkeypatch.setattr("specmd.runs.run.write_text", full)
    todo = task(*plan([trace], GRID, bounds=False))
    made = perform(replace(todo, setting=replace(todo.setting, out=tmp_path)))
    assert (made.runs, made.code) == ([], Exit.NOT_WRITTEN)
