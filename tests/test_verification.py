"""The chapters' checks detect what they are meant to detect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ntps_utils.theory.score import subspaces
from ntps_utils.theory.synthetic import circle_problem, exact_problem, planted_problem, random_problem
from ntps_utils.theory.verification import (
    check_autoregression,
    check_bounds,
    check_perception,
    descend,
    prefix_pairs,
    with_subspace,
)

pytestmark = pytest.mark.filterwarnings("ignore::ntps_utils.theory.score.NumericalWarning")


@pytest.mark.parametrize("seed", range(40))
def test_statements_hold_on_random_problems(seed):
    problem = random_problem(seed)
    for check in (check_autoregression(problem, seed), check_perception(problem, seed)):
        assert abs(check.closed - check.measured) < 1e-7
        assert min(check.random, check.nearby) >= check.measured - 1e-9
    record = check_bounds(problem, seed, center=seed % 2 == 1)
    assert not record.violated
    assert abs(record.measured - record.excess) < 1e-7


def test_a_wrong_bound_counts_as_violated():
    record = next(r for s in range(50) if (r := check_bounds(random_problem(s), s)).excess > 0.1)
    assert replace(record, upper=0.9 * record.excess).violated
    assert replace(record, lower_metric=1.1 * record.excess).violated


def test_gradient_descent_reaches_the_closed_form():
    problem = random_problem(3, d=6, n_texts=150, condition=2.0, rank=6, offset=0.0)
    past, following = prefix_pairs(problem)
    solved = subspaces(problem.moments())
    losses = descend(past, following, 2, 1500, seed=0) * len(past) / len(problem.texts)
    assert abs(losses[-1] - solved.autoregressive_loss[1]) < 1e-9 * solved.tr_G
    assert losses[0] > losses[-1]


def test_with_subspace_keeps_the_task():
    solved = subspaces(random_problem(1, d=5, n_texts=50, rank=5).moments())
    everything = with_subspace(solved, np.eye(5))
    assert everything.trace_b == solved.trace_b
    np.testing.assert_allclose(everything.ntps_task[-1], 1.0)


def test_problems_are_what_they_say():
    solved = subspaces(exact_problem(2, condition=100.0, beta_ratio=9.0).moments())
    np.testing.assert_allclose(solved.beta[0] / solved.beta[-1], 9.0, rtol=1e-9)
    spectrum = solved.whitening.spectrum
    np.testing.assert_allclose(spectrum[0] / spectrum[-1], 100.0, rtol=1e-9)
    A1 = circle_problem(0).moments().A1
    assert np.abs(A1 - A1.T).max() > 0.3
    assert planted_problem(0, n_classes=4, n_texts=50).targets.shape == (50, 4)
    same = [random_problem(7).texts[0] for _ in range(2)]
    np.testing.assert_array_equal(*same)
