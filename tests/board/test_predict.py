"""Rows simulated: links as stated, reasons instead of numbers, ratios, medians."""

from dataclasses import replace

import pytest
from made_up_rows import row

from specmd.board.machine import shape_of, stated_profile
from specmd.board.predict import Verdict, judge
from specmd.board.summary import FEWER, TWO, hit_rate_gap, kind_of, medians, worst
from specmd.hardware.profile import load_profile


def test_a_row_is_simulated_beside_what_was_measured():
    (verdict,) = judge([row()], [row()])
    assert verdict.reason == ""
    assert verdict.tpot_s is not None
    assert verdict.tpot_s > 0
    assert verdict.ratio == pytest.approx(verdict.tpot_s / 0.1)
    assert verdict.error == pytest.approx(verdict.ratio - 1)
    assert verdict.label == "assumed"


def test_without_a_cache_a_token_waits_longest_and_resident_least():
    rows = [row(id=f"made-up-{c[0]}", capacity=c) for c in ("all", "48/layer", "none")]
    times = [verdict.tpot_s for verdict in judge(rows, rows)]
    assert times == sorted(times)
    assert len(set(times)) == 3
    assert [verdict.hit_rate is None for verdict in judge(rows, rows)] == [True, False, True]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cannot": "it is a secret"}, "it is a secret"),
        ({"capacity": None}, "how many experts are kept is not published"),
        ({"device": None}, "no hardware profile of this machine"),
        ({"shape": None}, "no shape of a model is shipped"),
        ({"batch": 4}, "a batch of 4"),
        ({"policy": "lrru"}, "unknown"),
        ({"tier": "ssd"}, "profile t4 has none"),
        ({"device": "t5"}, "unknown hardware profile"),
        ({"capacity": "many"}, "capacity 'many' is not understood"),
    ],
)
def test_a_row_that_cannot_be_simulated_says_why(changes, says):
    (verdict,) = judge([row(**changes)], [row(**changes)])
    assert says in verdict.reason
    assert (verdict.tpot_s, verdict.ratio, verdict.error) == (None, None, None)


def test_the_link_is_the_row_s_and_says_whose_figure_it_is():
    stated = row(link_bytes_per_s=3e9, link_kind="assumed", link_from="somebody's guess")
    link = stated_profile(stated).host_link
    assert link.bytes_per_s.value == 3e9
    assert link.bytes_per_s.source == "assumption: made-up: somebody's guess"
    faster = row(link_bytes_per_s=9e12, link_kind="measured", link_from="a wild claim")
    assert stated_profile(faster).host_link.theoretical_bytes_per_s.value == 9e12


def test_where_experts_come_from_an_ssd_it_is_the_link():
    profile, plain = stated_profile(row(tier="ssd", device="rtx5090")), load_profile("rtx5090")
    assert plain.ssd is not None
    assert profile.host_link.bytes_per_s == plain.ssd.bytes_per_s
    assert profile.host_link.latency_s == plain.ssd.latency_s
    assert stated_profile(row(device="rtx5090")) == plain


def test_several_devices_share_each_matrix():
    one, two = row(dense_bits=8.0), row(dense_bits=8.0, devices=2)
    assert shape_of(two).dense_weight_bits * 2 == shape_of(one).dense_weight_bits == 8.0
    assert stated_profile(two).flops_per_s.value == 2 * stated_profile(one).flops_per_s.value


def verdict(tpot_s: float, anchors: int = 0, **changes) -> Verdict:
    return Verdict(row(**changes), anchors, tpot_s=tpot_s)


def test_medians_leave_anchors_out_and_keep_the_classes_apart():
    found = [
        verdict(0.11, 2),
        verdict(0.13, 2),
        verdict(0.50, 2, anchor="other"),
        verdict(0.05, 1),
        replace(verdict(0.1), tpot_s=None, reason="none"),
    ]
    two, fewer = medians(found)
    assert (two.title, two.rows, fewer.title, fewer.rows) == (TWO, 2, FEWER, 1)
    assert two.error == pytest.approx(0.2)
    assert two.largest == pytest.approx(0.3)
    assert two.within == 0.5
    assert fewer.error == pytest.approx(0.5)
    assert [kind_of(each) for each in found[:2]] == [TWO, TWO]


def test_the_furthest_off_come_first_whichever_way():
    found = [verdict(0.11), verdict(0.4), verdict(0.01), verdict(0.9, anchor="other")]
    assert [each.ratio for each in worst(found, 2)] == [pytest.approx(0.1), pytest.approx(4.0)]


def test_gaps_of_hit_rates_are_taken_by_kind_of_routing():
    near = replace(verdict(0.1, hit_rate=0.5), label="trace", hit_rate=0.504)
    far = replace(verdict(0.1, hit_rate=0.5), label="fitted", hit_rate=0.6)
    assert hit_rate_gap([near, far], "trace") == (1, pytest.approx(0.004))
    assert hit_rate_gap([near, far], "recorded") is None
