"""How many policies there are to choose among, axis by axis: what a complete benchmark needs."""

import pytest

from specmd.policy.registry import AXES, BUILT_IN, entries

GOALS = {
    ("evict",): 36,
    ("prefetch",): 16,
    ("schedule", "admission"): 8,
    ("miss",): 10,
    ("route",): 7,
    ("allocate",): 6,
}


@pytest.mark.parametrize(("axes", "least"), GOALS.items(), ids=lambda each: str(each))
def test_there_are_enough_to_choose_among(axes, least):
    found = [each for axis in axes for each in entries(axis) if each.origin == BUILT_IN]
    assert len(found) >= least


def test_every_axis_is_counted():
    assert {axis for axes in GOALS for axis in axes} == set(AXES)


def test_every_policy_says_where_its_rule_is_from_and_what_it_is():
    for entry in entries():
        row = entry.row()
        assert row["source"].strip(), entry.name
        assert row["summary"].strip().endswith((".", "?", "!")), entry.name
