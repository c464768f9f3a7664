"""The options of a host tier: spelled like a capacity, part of a run's identity, and said."""

import pytest

import specmd
from specmd.errors import SpecmdError
from specmd.report.table import default_metrics, run_table
from specmd.runs.identity import code, run_id
from specmd.runs.resolve import grid
from specmd.trace import synthetic


@pytest.fixture(scope="module")
def trace():
    return synthetic(num_layers=3, num_experts=8, top_k=2, decode_length=20, expert_bytes=1_000_000)


def one(trace, **options):
    (config,) = grid(trace, capacity=6, **options)
    return config


@pytest.mark.parametrize(
    ("spelled", "slots"),
    [("12", 12), (12, 12), ("50%", 12), ("4/layer", 12), ("12MB", 12), ("900%", 24), (None, None)],
)
def test_it_is_spelled_like_a_capacity(trace, spelled, slots):
    assert one(trace, host_capacity=spelled).host_slots == slots


def test_two_spellings_are_one_run_and_another_policy_is_another(trace):
    assert len(grid(trace, capacity=6, host_capacity=["12", "50%"])) == 1
    ids = {
        run_id(trace, one(trace, **options), bounds=False)
        for options in (
            {}, {"host_evict": "lfu"}, {"host_capacity": 12}, {"host_capacity": "50%"},
            {"host_capacity": 13}, {"host_capacity": 12, "host_evict": "lfu"},
        )
    }  # fmt: skip
    assert len(ids) == 4  # without a tier its policy does not matter
    config = one(trace, host_capacity=12, host_evict="sieve")
    assert "evict sieve" in code(config, bounds=False)["policies"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host_capacity": 0}, "less than one slot"),
        ({"host_capacity": "much"}, "not understood"),
        ({"host_capacity": 5, "host_evict": "belady"}, "host_evict belady: a host tier is told"),
        ({"host_capacity": 5, "host_evict": "static"}, "told nothing but what is asked for"),
        ({"host_capacity": 5, "host_evict": "stalest"}, "did you mean"),
        ({"host_capacity": 5, "profile": "t4"}, "profile t4 knows no disk"),
    ],
)
def test_what_cannot_be_is_one_line(trace, options, said):
    with pytest.raises(SpecmdError, match=said) as caught:
        one(trace, **options)
    assert "\n" not in str(caught.value)


def test_a_run_says_what_its_host_had(trace):
    found = specmd.simulate(trace, capacity=6, host_capacity=12, host_evict="lfu", interpreted=True)
    assert found.metrics["host_hits"] + found.metrics["host_misses"] == found.metrics["misses"]
    assert found.metrics["bytes_disk"] == found.metrics["host_misses"] * 1_000_000
    assert (found.contract["host_slots"], found.contract["host_evict"]) == (12, "lfu")
    assert len(found.host_digest) == 16
    assert found.row()["host_digest"] == found.host_digest
    assert {"host_hit_rate", "disk_bytes_per_token"} <= set(default_metrics([found]))
    table = run_table([found])
    assert "host 12 slots, lfu" in table.title
    plain = specmd.simulate(trace, capacity=6, interpreted=True)
    assert plain.decision_digest == found.decision_digest
    assert plain.bounds.belady == found.bounds.belady
    assert plain.metrics["host_hits"] is None
    assert "host_slots" not in plain.contract
    assert "host_hit_rate" not in default_metrics([plain])


def test_times_name_the_disk_and_add_up(trace):
    asked = {"capacity": 6, "profile": "rtx4090", "interpreted": True, "prefetch": "prev_token"}
    found = specmd.simulate(trace, host_capacity=8, **asked)
    free = specmd.simulate(trace, **asked)
    assert found.metrics["tpot_disk_stall_s"] > 0 == free.metrics["tpot_disk_stall_s"]
    assert 0 < found.metrics["disk_busy_share"] <= 1
    assert free.metrics["disk_busy_share"] is None
    assert found.metrics["tpot_s"] > free.metrics["tpot_s"]
    assert found.bounds.roofline_s > free.bounds.roofline_s
    assert found.metrics["over_roofline"] >= 1
