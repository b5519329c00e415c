"""Tests and intervals: against nested least squares, explicit information matrices, refits, and simulated coverage."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.score import subspaces
from ntps_utils.theory.synthetic import planted_problem
from ntps_utils.theory.uncertainty import (
    excess_loss_test,
    held_out_loss,
    jackknife_interval,
    softmax_score_test,
)

pytestmark = pytest.mark.filterwarnings("ignore::ntps_utils.theory.score.NumericalWarning")


def features(seed: int, n: int, d: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return [rng.normal(size=(rng.integers(2, 6), d)) @ mix + 0.3 for _ in range(n)]


def with_targets(moments: LayerMoments, means: np.ndarray, targets: np.ndarray) -> LayerMoments:
    """The same features with other targets."""
    n = len(means)
    return replace(moments, C=means.T @ targets / n, Y=targets.T @ targets / n, q=targets.mean(0))


def residual_sum(X: np.ndarray, Y: np.ndarray) -> float:
    X = np.column_stack([np.ones(len(X)), X])
    return float(np.sum((Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]) ** 2))


@given(seed=st.integers(0, 10**6), k=st.integers(1, 5))
def test_f_is_that_of_nested_least_squares(seed, k):
    n, d = 40, 7
    texts = features(seed, n, d)
    means = np.stack([x.mean(0) for x in texts])
    y = np.random.default_rng(seed).normal(size=(n, 1)) + means[:, :1]
    moments = LayerMoments.from_texts(texts, y)
    solved = subspaces(moments, center=True)
    test = excess_loss_test(moments, solved, k)
    whole, part = residual_sum(means, y), residual_sum(means @ solved.V[:, :k], y)
    f = (part - whole) / (d - k) / (whole / (n - 1 - d))
    assert test.f == pytest.approx(f, rel=1e-6)
    assert (test.df, test.df_residual) == pytest.approx((d - k, n - 1 - d))
    assert test.p_value == pytest.approx(stats.f.sf(f, d - k, n - 1 - d), rel=1e-6, abs=1e-12)
    assert test.excess_loss == pytest.approx((part - whole) / n)
    assert test.debiased == pytest.approx((part - whole) / n - (d - k) * whole / (n - 1 - d) / n)
    assert (test.low > 0) == (test.p_value < 0.025)


def test_uncentered_moments_are_a_model_without_intercept():
    n, d, k = 40, 7, 3
    texts = features(0, n, d)
    means = np.stack([x.mean(0) for x in texts])
    y = np.random.default_rng(0).normal(size=(n, 1)) + means[:, :1]
    moments = LayerMoments.from_texts(texts, y)
    solved = subspaces(moments)
    test = excess_loss_test(moments, solved, k)
    sums = [np.sum((y - X @ np.linalg.lstsq(X, y, rcond=None)[0]) ** 2) for X in (means, means @ solved.V[:, :k])]
    assert test.f == pytest.approx((sums[1] - sums[0]) / (d - k) / (sums[0] / (n - d)), rel=1e-6)
    assert test.df_residual == pytest.approx(n - d)


@given(seed=st.integers(0, 10**6))
def test_two_classes_count_as_one_target(seed):
    texts = features(seed, 60, 6)
    labels = np.random.default_rng(seed).integers(0, 2, 60)
    one_hot, sign = (LayerMoments.from_texts(texts, t) for t in (np.eye(2)[labels], labels[:, None] * 1.0))
    tests = [excess_loss_test(m, subspaces(m, center=True), 3) for m in (one_hot, sign)]
    assert (tests[0].f, tests[0].df, tests[0].p_value) == pytest.approx((tests[1].f, tests[1].df, tests[1].p_value))
    assert tests[0].high == pytest.approx(2 * tests[1].high)  # both columns lose the same


@pytest.mark.slow
@pytest.mark.parametrize("n_targets", [1, 3])
@pytest.mark.parametrize("effect", [0.0, 0.4])
def test_interval_covers_the_excess_loss_without_noise(n_targets, effect):
    n, d, k = 80, 10, 4
    texts = features(3, n, d)
    means = np.stack([x.mean(0) for x in texts])
    rng = np.random.default_rng(n_targets)
    weights, mix = effect * rng.normal(size=(d, n_targets)) / 3, rng.normal(size=(n_targets, n_targets))
    bare = LayerMoments.from_texts(texts, rng.normal(size=(n, n_targets)))
    V = subspaces(bare, center=True).V[:, :k]  # V does not depend on the targets
    signal = means @ weights if effect else means @ V @ rng.normal(size=(k, n_targets))
    truth = (residual_sum(means @ V, signal) - residual_sum(means, signal)) / n
    covered, p_values, debiased = [], [], []
    for _ in range(300):
        moments = with_targets(bare, means, signal + rng.normal(size=(n, n_targets)) @ mix)
        test = excess_loss_test(moments, subspaces(moments, center=True), k)
        covered.append(test.low <= truth + 1e-9 and truth <= test.high)
        p_values.append(test.p_value)
        debiased.append(test.debiased)
    # Where nothing is lost, the lower end is zero for 97.5%. For several targets the interval is conservative.
    assert 0.925 <= np.mean(covered) <= (0.99 if n_targets == 1 else 1.0)
    assert np.mean(debiased) == pytest.approx(truth, abs=4 * np.std(debiased) / 300**0.5)
    if effect:
        assert np.mean(np.array(p_values) < 0.05) > 0.3
    else:
        assert abs(np.mean(np.array(p_values) < 0.05) - 0.05) < 0.04
        assert stats.kstest(p_values, "uniform").pvalue > (1e-3 if n_targets == 1 else 1e-6)


def test_excess_loss_test_refuses_what_it_cannot_say():
    moments = planted_problem(0, d=10, n_texts=400).moments()
    with pytest.raises(ValueError, match="without ridge and shrinkage"):
        excess_loss_test(moments, subspaces(moments, center=True, ridge=0.1), 3)
    with pytest.raises(ValueError, match="contains all 10 feature directions"):
        excess_loss_test(moments, subspaces(moments, center=True), 10)
    few = planted_problem(0, d=10, n_texts=9).moments()
    with pytest.raises(ValueError, match="leave no degree of freedom"):
        excess_loss_test(few, subspaces(few, center=True), 3)
    with pytest.raises(ValueError, match="level must be a number in"):
        excess_loss_test(moments, subspaces(moments, center=True), 3, level=95)


@given(seed=st.integers(0, 10**6), n_classes=st.integers(2, 4), k=st.integers(0, 3))
def test_score_statistic_is_that_of_the_information_matrix(seed, n_classes, k):
    n, d = 50, 5
    texts = features(seed, n, d)
    labels = np.arange(n) % n_classes
    moments = LayerMoments.from_texts(texts, np.eye(n_classes)[labels])
    solved = subspaces(moments, center=True)
    test = softmax_score_test(moments, solved, k)
    X = np.stack([x.mean(0) for x in texts])
    X = X - X.mean(0)
    if k:  # what the features add to V
        X = X - X @ (Z := solved.V[:, :k]) @ np.linalg.pinv(X @ Z) @ X
        X = np.linalg.svd(X)[0][:, : d - k]
    q = np.bincount(labels) / n
    # Softmax with intercepts, the last class as reference: gradient and information where all weights are zero.
    gradient = (X.T @ (np.eye(n_classes)[labels] - q)[:, :-1]).ravel(order="F")
    information = np.kron((np.diag(q) - np.outer(q, q))[:-1, :-1], X.T @ X)
    assert test.statistic == pytest.approx(gradient @ np.linalg.solve(information, gradient), rel=1e-6)
    assert test.df == (d - k) * (n_classes - 1)


@pytest.mark.slow
def test_score_test_has_its_level_for_labels_without_information():
    texts = features(0, 200, 8)
    means = np.stack([x.mean(0) for x in texts])
    rng, p_values = np.random.default_rng(0), []
    bare = LayerMoments.from_texts(texts, np.eye(3)[np.arange(200) % 3])
    for _ in range(300):
        moments = with_targets(bare, means, np.eye(3)[rng.permutation(200) % 3])
        p_values.append(softmax_score_test(moments, subspaces(moments, center=True), 4).p_value)
    assert abs(np.mean(np.array(p_values) < 0.05) - 0.05) < 0.04
    problem = planted_problem(0, d=8, n_texts=60)
    real = LayerMoments.from_texts(problem.texts, 2 * problem.targets)
    with pytest.raises(ValueError, match="real-valued"):
        softmax_score_test(real, subspaces(real, center=True))


@given(seed=st.integers(0, 10**6), n_groups=st.integers(2, 6), k=st.integers(1, 6))
def test_held_out_losses_are_those_of_refits(seed, n_groups, k):
    n, d = 60, 6
    texts = features(seed, n, d)
    means = np.stack([x.mean(0) for x in texts])
    y = np.random.default_rng(seed).normal(size=(n, 2)) + means[:, :2]
    group_of = np.arange(n) % n_groups
    parts = [
        Moments.from_texts([texts[i] for i in np.flatnonzero(group_of == g)], y[group_of == g]) for g in range(n_groups)
    ]
    found = held_out_loss(parts, 0, k)
    sums = np.zeros(3)
    for g in range(n_groups):
        test = group_of == g
        V = subspaces(LayerMoments.from_texts([texts[i] for i in np.flatnonzero(~test)], y[~test])).V[:, :k]
        for j, X in enumerate((np.zeros((n, 1)), means, means @ V)):
            design = np.column_stack([np.ones(n), X])
            weights = np.linalg.lstsq(design[~test], y[~test], rcond=None)[0]
            sums[j] += np.sum((y[test] - design[test] @ weights) ** 2)
    # Moments lose as many digits as the covariance matrix of the texts that are fitted has.
    lost = max(np.linalg.cond(np.cov(means[group_of != g].T)) for g in range(n_groups))
    tolerance = 1e-6 + 1e-15 * lost
    assert (found.trace_y, found.loss, found.loss_v) == pytest.approx(sums / n, rel=tolerance)
    assert found.excess_loss == pytest.approx((sums[2] - sums[1]) / n, rel=10 * tolerance, abs=1e-9 + tolerance)


def test_held_out_loss_with_more_features_than_texts():
    problem = planted_problem(0, d=30, n_texts=24)
    parts = [Moments.from_texts(problem.texts[i::4], problem.targets[i::4]) for i in range(4)]
    plain, ridge = held_out_loss(parts, 0, 20), held_out_loss(parts, 0, 20, ridge=10.0)
    assert np.isfinite(plain.loss)
    assert ridge.loss_v < plain.loss_v < np.inf
    with pytest.raises(ValueError, match="at least 2 groups"):
        held_out_loss(parts[:1], 0, 3)


@given(values=st.lists(st.floats(-5, 5), min_size=3, max_size=12))
def test_jackknife_removes_the_bias_of_the_variance(values):
    x = np.array(values)
    interval = jackknife_interval(float(np.var(x)), [np.var(np.delete(x, i)) for i in range(len(x))])
    assert interval.estimate == pytest.approx(np.var(x, ddof=1), abs=1e-9)


@given(values=st.lists(st.floats(-5, 5), min_size=3, max_size=12))
def test_jackknife_of_a_mean_is_the_interval_of_student(values):
    x = np.array(values)
    interval = jackknife_interval(float(x.mean()), [np.delete(x, i).mean() for i in range(len(x))], level=0.9)
    se = x.std(ddof=1) / len(x) ** 0.5
    margin = stats.t.ppf(0.95, len(x) - 1) * se
    assert (interval.se, interval.low, interval.high) == pytest.approx(
        (se, x.mean() - margin, x.mean() + margin), abs=1e-9
    )


def test_jackknife_stays_in_its_range():
    interval = jackknife_interval(0.95, [0.9, 0.99, 0.99], low=0.0, high=1.0)
    assert 0.0 <= interval.low <= interval.estimate <= interval.high == 1.0
    with pytest.raises(ValueError, match="at least 3 groups, got 2"):
        jackknife_interval(0.5, [0.4, 0.5])


def test_integer_replicates_are_numbers():
    assert jackknife_interval(2, [1, 2, 3]) == jackknife_interval(2.0, [1.0, 2.0, 3.0])


def test_jackknife_is_cut_at_its_low_end():
    interval = jackknife_interval(0.05, [0.1, 0.01, 0.01], low=0.0, high=1.0)
    assert interval.low == 0.0 <= interval.estimate <= interval.high <= 1.0


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5])
def test_levels_lie_strictly_between_zero_and_one(level):
    with pytest.raises(ValueError, match=r"^level must be a number in \(0, 1\)"):
        jackknife_interval(0.5, [0.4, 0.5, 0.6], level=level)


def test_settings_of_the_score_test_and_of_held_out_losses_are_named():
    moments = planted_problem(0, d=6, n_texts=60).moments()
    centered = subspaces(moments, center=True)
    with pytest.raises(ValueError, match=r"^k_v must be an integer of at least 0"):
        softmax_score_test(moments, centered, -1)
    with pytest.raises(ValueError, match=r"^The test needs centered moments; use subspaces\(\.\.\., center=True\)\.$"):
        softmax_score_test(moments, subspaces(moments))
    problem = planted_problem(0, d=6, n_texts=60)
    parts = [Moments.from_texts(problem.texts[i::3], problem.targets[i::3]) for i in range(3)]
    with pytest.raises(ValueError, match=r"^k_v must be an integer of at least 1"):
        held_out_loss(parts, 0, 0)
    with pytest.raises(ValueError, match=r"^ridge must be a number of at least 0"):
        held_out_loss(parts, 0, 2, ridge=-1.0)


def test_the_score_test_covers_all_features_by_default_and_counts_present_classes():
    texts = features(0, 60, 5)
    labels = np.arange(60) % 2
    targets = np.eye(3)[labels]  # the third class is absent
    moments = LayerMoments.from_texts(texts, targets)
    solved = subspaces(moments, center=True)
    test = softmax_score_test(moments, solved)
    assert test == softmax_score_test(moments, solved, 0)
    assert test.df == 5
    without = LayerMoments.from_texts(texts, targets[:, :2])
    two = softmax_score_test(without, subspaces(without, center=True))
    assert test.statistic == pytest.approx(two.statistic)
    everything = softmax_score_test(moments, solved, 5)  # V has all features: nothing is left to test
    assert (everything.df, everything.p_value) == (0, 1.0)


def test_the_penalty_of_held_out_losses_is_a_share_of_the_mean_variance():
    """Scaling all features changes no loss, with or without a ridge."""
    problem = planted_problem(0, d=6, n_texts=90)
    found = []
    for scale in (1.0, 100.0):
        texts = [scale * text for text in problem.texts]
        parts = [Moments.from_texts(texts[i::3], problem.targets[i::3]) for i in range(3)]
        found.append([held_out_loss(parts, 0, 2, ridge=ridge) for ridge in (0.0, 0.1, 10.0)])
    for one, other in zip(*found, strict=True):
        assert astuple(one) == pytest.approx(astuple(other), rel=1e-6)
    assert len({round(one.loss, 6) for one in found[0]}) == 3
