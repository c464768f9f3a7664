"""Folders of made-up runs that differ in what a test says."""

from __future__ import annotations

from made_up_runs import make_run

from specmd.runs.run import Measurement, Repeated, write_run


def folder(path, runs):
    """Write runs into a folder; returns it."""
    path.mkdir(parents=True, exist_ok=True)
    for run in runs:
        write_run(run, path)
    return path


def grid(slower=1.0, commit="a" * 40, policies=("lru", "lfu"), slots=(51, 102), **options):
    """Runs of a policy and capacity each, by a commit; `slower` multiplies their times."""
    return [
        edited(make_run(evict, each, 500 - each + 10 * place, **options), slower, commit)
        for each in slots
        for place, evict in enumerate(policies)
    ]


def edited(run, slower=1.0, commit="a" * 40, **changes):
    """Return a run whose times are multiplied, made by a commit; a change of its file's name."""
    times = {
        name: value * slower
        for name, value in run.metrics.items()
        if name.endswith("_s") and value is not None
    }
    changes = {
        "metrics": run.metrics | times,
        "provenance": {"commit": commit, "dirty": False, "packages": {"numpy": "2.0"}},
        "contract": {"scope": run.config.scope, "seed": run.config.seed},
        **changes,
    }
    return run.model_copy(update=changes)


def measured(values, device="one", link="cpu", metrics=None, digests=("d",), **options):
    """A run measured in as many repetitions as there are times of a decode step."""
    middle = sorted(values)[len(values) // 2]
    run = make_run(bounds=False, **options)
    spread = Repeated(
        values=list(values),
        mean=sum(values) / len(values),
        median=middle,
        stdev=0.0,
        low=min(values),
        high=max(values),
    )
    measurement = Measurement(
        device=device,
        link=link,
        chunk_bytes=1,
        compute_threads=1,
        warmup_runs=0,
        repetitions=len(values),
        spread={"tpot_s": spread} if len(values) > 1 else {},
        decision_digests=list(digests),
        moved_bytes=0,
        store_bytes=0,
        pinned_share=0,
        slot_bytes=0,
        dense_bytes=0,
    )
    return run.model_copy(
        update={
            "source": "measured",
            "label": f"measured ({device})",
            "measurement": measurement,
            "metrics": run.metrics | {"tpot_s": middle} | (metrics or {}),
        }
    )
