"""Least squares without negative solutions."""

import numpy as np
import pytest

from specmd.calibration.fit import fit_nonnegative


@pytest.mark.parametrize("seed", range(5))
def test_no_other_nonnegative_solution_is_better(seed):
    random = np.random.default_rng(seed)
    table, wanted = random.normal(size=(9, 3)), random.normal(size=9)
    found = fit_nonnegative(table, wanted)
    assert (found >= 0).all()
    others = np.vstack([np.abs(random.normal(size=(500, 3))), found + random.uniform(0, 0.01, 3)])
    errors = ((table @ others.T - wanted[:, None]) ** 2).sum(axis=0)
    assert ((table @ found - wanted) ** 2).sum() <= errors.min() + 1e-12


def test_what_a_solution_was_made_from():
    table = np.array([[1.0, 1, 10], [1, 2, 20], [1, 1, 50], [1, 4, 10]])
    assert fit_nonnegative(table, table @ [0.5, 0.0, 2.0]) == pytest.approx([0.5, 0.0, 2.0])


def test_a_column_that_is_needed_is_above_zero():
    table = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    falling = np.array([3.0, 2.0, 1.0])
    assert fit_nonnegative(table, falling)[1] == 0
    assert fit_nonnegative(table, falling, needed=(1,))[1] > 0
