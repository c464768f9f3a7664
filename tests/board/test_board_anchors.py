"""Profiles fitted to the anchors of a group: met, shared by its rows, dropped where they clash."""

import pytest
from made_up_rows import row

from specmd.board.anchors import fitted_to_anchors, profile_of
from specmd.board.predict import judge

LINK = {"link_bytes_per_s": 1e10, "link_kind": "measured", "link_from": "made up for a test"}


def group(**times):
    rows = {
        "resident": {"capacity": "all", "anchor": "resident"},
        "none": {"capacity": "none", "anchor": "no_cache"},
        "half": {"capacity": "32/layer", "hit_rate": 0.6},
        "most": {"capacity": "48/layer", "hit_rate": 0.8},
    }
    common = {"scope": "layer", "tokens_per_s": None} | LINK
    return [
        row(id=name, seconds_per_token=times.get(name, 1.0), **rows[name], **common)
        for name in rows
    ]


def test_two_anchors_are_met_and_hold_for_the_rest_of_the_group():
    rows = group(resident=0.03, none=0.45)
    resident, none, half, most = judge(rows, rows)
    assert resident.ratio == pytest.approx(1.0, rel=1e-3)
    assert none.ratio == pytest.approx(1.0, rel=1e-3)
    assert 0.03 < most.tpot_s < half.tpot_s < 0.45
    assert half.anchored == "fitted to resident and none."
    assert [each.anchors for each in (resident, none, half, most)] == [2] * 4


def test_no_row_is_fitted_alone():
    # What the rows that are no anchors took changes no simulated time.
    fast, slow = group(resident=0.03, none=0.45), group(resident=0.03, none=0.45, half=9.0)
    assert [each.tpot_s for each in judge(fast, fast)] == [
        each.tpot_s for each in judge(slow, slow)
    ]


def test_of_anchors_that_contradict_each_other_the_first_is_kept_and_it_is_said():
    rows = group(resident=0.5, none=0.05)
    found, says = fitted_to_anchors(rows[:2], rows, None)
    assert found is not None
    assert says.startswith("fitted to resident; with all of them: ")
    assert list(found.met) == ["resident=500ms"]


def test_anchors_that_the_device_cannot_meet_fit_nothing():
    rows = group(resident=1e-6)
    found, says = fitted_to_anchors(rows[:1], rows, None)
    assert found is None
    assert "faster than" in says
    assert profile_of(rows[0], found, rows[:1]).stack is None


def test_a_row_keeps_the_link_that_it_states():
    rows = group(resident=0.03, none=0.45)
    found, _ = fitted_to_anchors(rows[:2], rows, None)
    other = rows[2].model_copy(update={"link_bytes_per_s": 2e10})
    profile = profile_of(other, found, rows[:2])
    assert profile.host_link.bytes_per_s.value == 2e10
    assert profile.stack == found.profile.stack
    assert profile_of(rows[2], found, rows[:2]).host_link == found.profile.host_link
