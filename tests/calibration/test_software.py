"""Splitting what software costs into a base and a share of every expert."""

import numpy as np
import pytest

from specmd.calibration.software import split_software


def test_few_and_many_experts_tell_the_two_apart():
    experts = np.array([32.0, 32, 32, 120, 128])
    left = 4e-3 + 2e-4 * experts
    found = split_software(left, experts, alone_s=9.0, taken_s=left + 1e-3)
    assert (found.base_s, found.expert_s) == pytest.approx((4e-3, 2e-4))


def test_alike_steps_take_the_expert_timed_alone():
    experts = np.full(5, 32.0)
    left = 4e-3 + 2e-4 * experts
    found = split_software(left, experts, alone_s=1e-4, taken_s=left)
    assert found.expert_s == 1e-4
    assert found.base_s == pytest.approx(4e-3 + 1e-4 * 32)


def test_wide_steps_that_cost_less_than_narrow_ones_give_no_negative_cost():
    experts = np.array([32.0, 32, 128])
    found = split_software(np.array([5e-3, 5e-3, 1e-3]), experts, 1e-4, np.full(3, 6e-3))
    assert found.expert_s == 0
    assert found.base_s == pytest.approx(5e-3)


def test_a_roofline_above_the_truth_leaves_nothing():
    experts = np.full(3, 32.0)
    found = split_software(np.full(3, -1e-3), experts, alone_s=1e-5, taken_s=np.full(3, 1e-3))
    assert found.base_s == 0
