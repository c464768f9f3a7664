"""A cluster makes the runs of a local sweep, whoever of it dies meanwhile."""

import json
import os
import signal
from pathlib import Path

import pytest

from specmd.errors import Exit, SpecmdError
from specmd.hardware.profile import shipped
from specmd.measurement.jobs import carry_out
from specmd.measurement.planning import plan_live
from specmd.runs.resolve import make_grid
from specmd.runs.run import read_runs
from specmd.sweep.experiment import Experiment
from specmd.sweep.sweep import Tally, plan, sweep
from specmd.trace import load, save, synthetic

distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
if os.name != "posix":
    pytest.skip("needs signals", allow_module_level=True)

from specmd.sweep.cluster import DaskCluster, _client  # noqa: E402 - there is dask from here on

PLUGIN = """
'''mine: the smallest key leaves; it may kill who asks.'''
import os
import signal
import signal
from pathlib import Path
from specmd.policy import candidates, policy

@policy("mine", source="a test")
class Mine:
    @classmethod
    def create(cls, world):
        return cls()

    def victim(self, incoming, pool, cache, event):
        {lines}
        return min(candidates(cache, pool), default=None)
"""
DIES = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def cluster():
    """The address of a scheduler with three workers, each a process."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=50,
            resources={"SMALL": 1},
        ) as made,
    ):
        yield made


@pytest.fixture
def trace(tmp_path):
    made = synthetic(
        num_layers=2, num_experts=5, top_k=2, num_requests=2, decode_length=6, expert_bytes=1000
    )
    return save(made, tmp_path / "small.npz")


@pytest.fixture
def plugin(tmp_path, own_registry):
    def write(lines):
        folder = tmp_path / "plugins"
        folder.mkdir()
        (folder / "mine.py").write_text(PLUGIN.format(lines=lines))
        return folder / "mine.py"

    return write


def results(folder):
    """What every run of a folder says of itself, provenance apart."""
    found = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    for run in found.values():
        del run["provenance"]
    return found


def test_the_runs_are_those_of_a_local_sweep_and_a_lost_worker_costs_nothing(
    trace, tmp_path, plugin, cluster
):
    """Trace, profile and plug-in are shipped; a worker kills itself in the middle of a run."""
    mark = tmp_path / "died"
    once = f"if not Path({str(mark)!r}).exists(): Path({str(mark)!r}).write_text(__file__); {DIES}"
    mine = plugin(once)
    profile = tmp_path / "own.toml"
    profile.write_text(shipped("specmd.hardware_profiles")["h200"].read_text())
    grid = make_grid(
        {"evict": ["lru", "mine", "fifo"], "capacity": [4, 6], "profile": ["t4", str(profile)]}
    )
    options = {"plugins": [mine], "training": trace}
    before = set(cluster.scheduler.workers)
    there = tmp_path / "there"
    done = sweep([trace], grid, there, **options, executor=DaskCluster(cluster.scheduler_address))
    assert done == Tally(done=12)
    assert mark.read_text() != str(mine), "it was shipped"
    assert set(cluster.scheduler.workers) != before, "one was lost and another came"
    here = tmp_path / "here"
    assert sweep([trace], grid, here, **options, workers=2) == Tally(done=12)
    assert results(there) == results(here)
    assert sorted(results(there)) == sorted(
        f"{job.run_id}.json" for job in plan([trace], grid, training=trace)
    )
    assert all(path.suffix == ".json" for path in there.iterdir() if path.is_file())
    left = [name for name in cluster.scheduler.worker_plugins if name.startswith("specmd")]
    assert left == []


def test_a_run_that_kills_every_worker_fails_alone(trace, tmp_path, plugin, cluster):
    grid = make_grid({"evict": ["lru", "mine", "fifo"], "capacity": 4})
    executor = DaskCluster(cluster.scheduler_address)
    tally = sweep(
        [trace], grid, tmp_path / "out", bounds=False, plugins=[plugin(DIES)], executor=executor
    )
    assert tally == Tally(done=2, failed=1)
    (failed,) = [run for run in read_runs(tmp_path / "out") if run.status == "failed"]
    assert failed.config.evict == "mine"
    assert "process died" in failed.reason
    assert "the plug-in mine.py" in failed.reason


def test_a_cluster_of_this_machine_is_made_and_gone(trace, tmp_path):
    grid = make_grid({"evict": ["lru", "fifo"], "capacity": [4, 6]})
    tally = sweep([trace], grid, tmp_path / "there", executor=DaskCluster(None, workers=2))
    assert tally == Tally(done=4)
    assert sweep([trace], grid, tmp_path / "here", workers=1) == Tally(done=4)
    assert results(tmp_path / "there") == results(tmp_path / "here")


def test_a_full_disk_ends_the_sweep_and_keeps_what_is_done(trace, tmp_path, cluster, monkeypatch):
    from specmd.sweep import cluster as module

    def full_after_one(task, files):
        if list(Path(tmp_path / "out").glob("*.json")):
            raise SpecmdError("x.json: cannot be written: No space left", Exit.NOT_WRITTEN)
        write(task, files)

    write = module._write
    monkeypatch.setattr(module, "_write", full_after_one)
    grid = make_grid({"evict": ["lru", "fifo"], "capacity": [4, 6]})
    executor = DaskCluster(cluster.scheduler_address)
    with pytest.raises(SpecmdError, match="No space") as error:
        sweep([trace], grid, tmp_path / "out", bounds=False, executor=executor)
    assert error.value.code is Exit.NOT_WRITTEN
    monkeypatch.setattr(module, "_write", write)
    done = len(list(Path(tmp_path / "out").glob("*.json")))
    assert done >= 1
    tally = sweep([trace], grid, tmp_path / "out", bounds=False, executor=executor)
    assert tally == Tally(done=4 - done, existing=done)


def test_a_scheduler_that_is_not_there_is_one_line(trace, tmp_path, monkeypatch):
    monkeypatch.setattr("specmd.sweep.cluster.WAITING_FOR_S", 0.5)
    grid = make_grid({"evict": "lru", "capacity": 4})
    for address in ("tcp://127.0.0.1:1", "nonsense://x", str(tmp_path / "none.json")):
        with pytest.raises(SpecmdError, match="no dask scheduler answers"):
            sweep([trace], grid, tmp_path / "out", executor=DaskCluster(address))


def live_jobs(out, **live):
    settings = {"max_new_tokens": 2, "domain": "code", "warmup_runs": 0, "repetitions": 1}
    found = Experiment.model_validate(
        {
            "models": ["tiny"],
            "grid": {"evict": "lru", "capacity": "40%"},
            "bounds": False,
            "live": settings | {"deterministic": True, "link": "cpu"} | live,
        }
    )
    return plan_live(found, found.grid, out=out)


def test_a_live_run_has_a_fresh_process_on_a_worker_that_offers_what_it_asks(tmp_path, cluster):
    executor = DaskCluster(cluster.scheduler_address)
    there = live_jobs(tmp_path / "there", resources={"SMALL": 1})
    assert carry_out(there, "none", executor=executor) == Tally(done=1)
    (run,) = read_runs(tmp_path / "there")
    assert load(tmp_path / "there" / f"{run.id}.npz").digest == run.trace.digest
    assert carry_out(there, "none", executor=executor) == Tally(existing=1)
    here = live_jobs(tmp_path / "here")
    assert carry_out(here, "none") == Tally(done=1)
    (local,) = read_runs(tmp_path / "here")
    assert (run.id, run.decision_digest) == (local.id, local.decision_digest)


def test_what_no_worker_offers_is_one_line(tmp_path, cluster):
    jobs = live_jobs(tmp_path, resources={"H100": 1})
    with pytest.raises(SpecmdError, match=r"none of \d workers offers H100=1"):
        carry_out(jobs, "none", executor=DaskCluster(cluster.scheduler_address))


def test_ctrl_c_is_for_the_process_that_asked():
    with _client(None, 1) as client:
        found = client.run(signal.getsignal, signal.SIGINT)
    assert set(found.values()) == {signal.SIG_IGN}
