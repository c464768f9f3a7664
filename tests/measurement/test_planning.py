"""Live runs of an experiment: which they are, and that their failures are results until asked."""

from dataclasses import dataclass, field

import pytest

from specmd.errors import SpecmdError
from specmd.measurement.jobs import carry_out
from specmd.measurement.planning import plan_live
from specmd.runs.run import read_runs
from specmd.sweep.executor import DIED
from specmd.sweep.experiment import Experiment
from specmd.sweep.sweep import Tally
from specmd.trace import save, synthetic


def planned(out=None, **fields):
    found = Experiment.model_validate(fields)
    return plan_live(found, found.grid, out=out)


def test_models_take_the_live_options_and_the_workload_its_own():
    jobs = planned(
        models=["tiny"],
        grid={
            "evict": ["lru", "lfu"], "capacity": ["20%", "40%"], "profile": ["t4", "h200"],
            "batch": [1, 2], "seed": [0, 1],
        },
        exclude={"evict": "lfu", "capacity": "40%"},
        live={"throttle": ["none", "2GB/s"], "repetitions": 5},
    )  # fmt: skip
    assert len(jobs) == 3 * 2 * 2 * 2, "policies and capacities, batches, seeds, links"
    assert {job.config.profile for job in jobs} == {None}
    assert {(job.source.generation.batch, job.source.generation.seed) for job in jobs} == {
        (1, 0), (1, 1), (2, 0), (2, 1),
    }  # fmt: skip
    assert all(job.config.seed == job.source.generation.seed for job in jobs)
    assert {job.settings.repetitions for job in jobs} == {5}
    assert {job.settings.throttle for job in jobs} == {None, (2e9, 0.0)}


def test_each_run_goes_once_to_each_kind_of_worker():
    tags = [{"H100": 1}, {"T4": 1}]
    jobs = planned(models=["tiny"], live={"resources": tags})
    assert [job.resources for job in jobs] == tags
    assert len({job.failure_id for job in jobs}) == 2


def test_a_followed_trace_is_composed_as_the_grid_says(tmp_path):
    made = synthetic(num_layers=16, num_experts=64, top_k=8, num_requests=3, decode_length=2)
    path = save(made, tmp_path / "t.npz")
    with pytest.raises(SpecmdError, match="no shape is known"):
        planned(follow=[path])
    jobs = planned(
        follow=[path],
        grid={"shape": "olmoe-1b-7b", "batch": [1, 3], "capacity": ["5%"], "evict": ["lru", "lfu"]},
        live={"layers": 2},
    )
    assert [(job.source.batch, job.config.evict) for job in jobs] == [
        (1, "lru"), (1, "lfu"), (3, "lru"), (3, "lfu"),
    ]  # fmt: skip
    assert {job.config.capacity_slots for job in jobs} == {6}, "5 % of two layers"
    assert {job.source.subject for job in jobs} == {str(path)}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"grid": {"warmup": 3}}, "a live run has no warmup=3"),
        ({"grid": {"tokens": 3}}, "tokens goes with a trace"),
        ({"grid": {"host_capacity": "50%"}}, "needs a disk"),
        ({"live": {"throttle": "fast"}}, "fast"),
    ],
)
def test_what_no_live_run_can_be_is_refused_before_one_starts(fields, said):
    with pytest.raises(SpecmdError, match=said):
        planned(models=["tiny"], **fields)


@dataclass
class Deadly:
    """Every process of it dies."""

    seen: list = field(default_factory=list)

    def run(self, tasks):
        self.seen.append(len(tasks))
        for task in tasks:
            yield task.failed(DIED)


def test_failures_are_files_and_are_run_again_on_request(tmp_path):
    jobs = planned(tmp_path, models=["tiny"], grid={"evict": ["lru", "lfu"]})
    deadly = Deadly()
    assert carry_out(jobs, "none", executor=deadly) == Tally(failed=2)
    assert {run.status for run in read_runs(tmp_path)} == {"failed"}
    assert {run.id for run in read_runs(tmp_path)} == {job.failure_id for job in jobs}
    assert carry_out(jobs, "none", executor=deadly) == Tally(failed=2)
    assert carry_out(jobs, "failed", executor=deadly) == Tally(failed=2)
    assert deadly.seen == [2, 0, 2]
