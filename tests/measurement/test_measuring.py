"""A measured run: its identities, its record, and what ties it to a simulation.

All runs are of LRU: a live kernel takes seconds, and tests/live has every policy.
"""

import json

import numpy as np
import pytest

import specmd
from specmd.errors import SpecmdError
from specmd.measurement import LiveSettings
from specmd.measurement.identity import measured_id
from specmd.report.table import run_table
from specmd.report.text import plain
from specmd.runs.metrics import PARTS
from specmd.runs.resolve import grid
from specmd.runs.run import parse_run
from specmd.runs.timeline import TRACKS, Timeline


@pytest.fixture(scope="module")
def twice(measured):
    return measured(bounds=True, repetitions=2)


def test_parts_add_up_to_ttft_tpot_and_the_total(twice):
    metrics = twice.run.metrics
    for short in ("ttft", "tpot", "total"):
        parts = sum(metrics[f"{short}_{part}_s"] for part in PARTS)
        assert parts == pytest.approx(metrics[f"{short}_s"])
        assert metrics[f"{short}_s"] > 0
    assert metrics["accesses"] == metrics["hits"] + metrics["late_hits"] + metrics["misses"]
    steps = twice.trace.num_steps
    assert steps == 2 * 5  # a prefill and four decode steps, twice
    assert metrics["total_s"] == pytest.approx(2 * metrics["ttft_s"] + 8 * metrics["tpot_s"])


def test_the_record_says_measured_and_on_what(twice):
    run, measurement = twice.run, twice.run.measurement
    assert run.source == "measured"
    assert run.label.startswith(f"measured ({measurement.device}, cpu link")
    assert measurement.spread["tpot_s"].values[0] != measurement.spread["tpot_s"].values[1]
    assert len(measurement.spread["tpot_s"].values) == 2
    assert run.metrics["tpot_s"] in measurement.spread["tpot_s"].values
    assert measurement.slot_bytes == (51 + 2) * 98_304
    assert measurement.store_bytes == 128 * 98_304
    assert measurement.moved_bytes == run.metrics["misses"] * 98_304
    assert measurement.pinned_share == 0
    assert run.bounds.belady.misses <= run.metrics["misses"]
    assert parse_run(run.to_json(), "here") == run
    assert "measured (" in plain(run_table([run]))


@pytest.mark.parametrize("prefetch", ["none", "next_gate"])
def test_a_deterministic_run_decides_as_its_simulation(measured, prefetch):
    found = measured(prefetch=prefetch, schedule="guard", deterministic=True, repetitions=2)
    assert found.run.measurement.decision_digests == [found.run.decision_digest]
    simulated = specmd.simulate(
        found.trace, "lru", 51, prefetch=prefetch, schedule="guard", bounds=False
    )
    assert simulated.decision_digest == found.run.decision_digest
    counted = ("hits", "misses", "prefetch_issued", "prefetch_wasted", "evictions")
    assert {n: simulated.metrics[n] for n in counted} == {n: found.run.metrics[n] for n in counted}


@pytest.mark.parametrize("prefetch", ["none", "next_gate"])
def test_details_are_of_the_requests_and_experts_that_were_run(measured, prefetch):
    found = measured(prefetch=prefetch, schedule="guard", deterministic=True)
    details, metrics = found.run.details, found.run.metrics
    assert details.asked.sum() == metrics["accesses"]
    assert details.missed.sum() == metrics["misses"]
    assert details.late.sum() == metrics["late_hits"]
    issued = metrics["prefetch_issued"] - metrics["prefetch_cancelled"]
    assert details.prefetched.sum() == issued
    assert details.missed.sum(axis=1).tolist() == found.run.per_layer["misses"]
    assert details.request_ttft_s.mean() == pytest.approx(metrics["ttft_s"])
    assert details.request_decode_steps.tolist() == [4, 4]


def test_text_and_routing_do_not_depend_on_the_cache(measured, workload):
    small = measured(capacity=4)
    text = workload.texts
    large = measured(capacity="100%", prefetch="next_gate")
    assert workload.texts == text
    assert len(text) == 2
    np.testing.assert_array_equal(small.trace.expert_ids, large.trace.expert_ids)


def test_a_timeline_has_every_layer_and_expert(measured, tmp_path):
    timeline = Timeline()
    found = measured(timeline=timeline, warmup_runs=1)
    timeline.write(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["tid"] for event in spans} == set(TRACKS.values())
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in spans)
    layers = [event for event in spans if event["name"].startswith("layer ")]
    assert len(layers) == found.trace.num_steps * 8  # of the last play only
    experts = [event for event in spans if event["cat"] == "compute" and " E" in event["name"]]
    assert len(experts) == found.run.metrics["accesses"]
    moved = [event for event in spans if event["cat"] == "link"]
    assert len(moved) == found.run.metrics["misses"]


def test_measured_once_is_a_warning(measured):
    assert any("measured once" in text for text in measured().run.warnings)


@pytest.mark.parametrize(
    "option", [{"reset": "request"}, {"sequential": True}, {"warmup": 3}], ids=str
)
def test_what_only_a_simulation_can_do_is_refused(measured, option):
    with pytest.raises(SpecmdError, match="live run"):
        measured(**option)


def test_the_identity_is_that_of_the_inputs(workload, header):
    (lru,), (lfu,) = (grid(header, evict=name) for name in ("lru", "lfu"))

    def name(config=lru, **settings):
        live = LiveSettings(**settings)
        return measured_id(workload, config, live, training=None, bounds=True)

    assert name() == name()
    assert len({name(), name(lfu), name(deterministic=True), name(throttle=(1e9, 0.0))}) == 4


def test_a_lossy_run_has_its_masses_and_its_quality(measured):
    # The policies of tests/live/test_live_lossy.py: their kernel takes a quarter of a minute.
    changed = {"route": "max_rank", "miss": "drop_priority_cascade"}
    asked = {"evict": "lru", "capacity": "25%"} | changed
    found = measured(quality=True, deterministic=True, **asked)
    metrics = found.run.metrics
    again = specmd.simulate(found.trace, **asked, bounds=False, interpreted=True)
    assert found.run.decision_digest == again.decision_digest
    kinds = ("kept_mass", "dropped_mass", "lowbit_mass", "substituted_mass")
    for name in (*kinds, "true_hit_rate", "dropped", "changed_rows"):
        assert metrics[name] == pytest.approx(again.metrics[name])
    assert metrics["dropped_mass"] > 0
    assert metrics["quality_kl"] > 0
    assert metrics["quality_top1"] < 1
    assert 0 <= metrics["greedy_match"] <= 5
    assert again.metrics["quality_kl"] is None
