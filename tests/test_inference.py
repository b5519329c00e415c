"""Statistics against scipy, pandas and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ntps_utils.inference import (
    best_of_sweep_null,
    leave_one_out,
    partial_spearman,
    pooled_rank_correlation,
    pooled_sweep,
    rank_correlation,
    spearman,
)

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    return z + rng.normal(size=n), np.round(z + rng.normal(size=n), 1), z


@given(seeds, st.integers(4, 30))
def test_spearman_is_scipys(seed, n):
    x, y, _ = draw(seed, n)
    np.testing.assert_allclose(spearman(x, y), stats.spearmanr(x, y).statistic, atol=1e-12)


@given(seeds)
def test_partial_correlation_is_that_of_residuals_of_ranks(seed):
    x, y, z = (stats.rankdata(v) for v in draw(seed))

    def residual(v):
        return v - np.polyval(np.polyfit(z, v, 1), z)

    expected = np.corrcoef(residual(x), residual(y))[0, 1]
    np.testing.assert_allclose(partial_spearman(x, y, z), expected, atol=1e-9)


def test_permutation_p_value_is_exact_for_few_points():
    x, y = np.arange(5.0), np.array([1.0, 0.0, 2.0, 4.0, 3.0])
    from itertools import permutations

    rho = spearman(x, y)
    exact = np.mean([abs(spearman(x, np.array(p))) >= abs(rho) - 1e-12 for p in permutations(y)])
    assert abs(rank_correlation(x, y, seed=0, n_resamples=20_000).p - exact) < 0.02


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(0)
    p = [rank_correlation(*rng.normal(size=(2, 12)), seed=i, n_resamples=400).p for i in range(400)]
    assert abs(np.mean(np.array(p) < 0.1) - 0.1) < 0.05


def test_intervals_cover():
    """The percentile bootstrap at n = 12 is known to be somewhat short; it must still cover most of the time."""
    rng = np.random.default_rng(1)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's rho of a normal pair with correlation 0.6
    covered = 0
    for i in range(300):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 12).T
        r = rank_correlation(x, y, seed=i, n_resamples=400)
        covered += r.low <= truth <= r.high
        assert r.low <= r.high
    assert covered / 300 > 0.85


def test_leave_one_out():
    x, y, _ = draw(3)
    values = leave_one_out(x, y)
    assert len(values) == 12
    np.testing.assert_allclose(values[4], stats.spearmanr(np.delete(x, 4), np.delete(y, 4)).statistic)


def test_best_of_sweep_null_by_brute_force():
    rng = np.random.default_rng(2)
    sweep = rng.normal(size=(20, 7))
    fast = best_of_sweep_null(sweep, 2000, seed=0)
    slow = []
    for _ in range(400):
        y = rng.permutation(7)
        slow.append(max(stats.spearmanr(row, y).statistic for row in sweep))
    np.testing.assert_allclose(np.quantile(fast, [0.25, 0.5, 0.75]), np.quantile(slow, [0.25, 0.5, 0.75]), atol=0.08)
    one = best_of_sweep_null(np.tile(sweep[:1], (20, 1)), 2000, seed=0)
    assert abs(one.mean()) < 0.05  # twenty copies of one setting are one setting
    assert fast.mean() > 0.4


def test_refusals():
    with pytest.raises(ValueError, match="same length"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        spearman([1, 2, 3], [1, 2, float("nan")])
    with pytest.raises(ValueError, match="settings, points"):
        best_of_sweep_null([1.0, 2.0], 10, seed=0)


def test_pooled_correlation_of_one_group_is_the_plain_one():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    pooled = pooled_rank_correlation(x[None], y[None], seed=1)
    assert pooled.rho == pytest.approx(spearman(x, y))
    plain = rank_correlation(x, y, seed=1)
    assert pooled.p == pytest.approx(plain.p, abs=0.03)


def test_pooled_correlation_averages_and_keeps_points_together():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 3, 15))
    pooled = pooled_rank_correlation(x, y)
    assert pooled.rho == pytest.approx(np.mean([spearman(a, b) for a, b in zip(x, y, strict=True)]))
    # Three copies of one group are no more evidence than one.
    once, thrice = (pooled_rank_correlation(np.tile(x[0], (n, 1)), np.tile(y[0], (n, 1))) for n in (1, 3))
    assert (once.low, once.high, once.p) == pytest.approx((thrice.low, thrice.high, thrice.p))
    with pytest.raises(ValueError, match="of one shape"):
        pooled_rank_correlation(x, y[:2])


def test_pooled_intervals_cover_and_p_values_are_uniform_under_no_relation():
    rng = np.random.default_rng(2)
    results = [pooled_rank_correlation(*rng.normal(size=(2, 2, 15)), n_resamples=200, seed=i) for i in range(200)]
    assert np.mean([r.low <= 0 <= r.high for r in results]) > 0.9
    assert abs(np.mean([r.p for r in results]) - 0.5) < 0.08


def test_pooled_sweep_finds_the_planted_setting_and_chance_in_noise():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(2, 14))
    sweep = rng.normal(size=(20, 2, 14))
    p_values = [pooled_sweep(rng.normal(size=(20, 2, 14)), y, n_permutations=200, seed=i).p_best for i in range(60)]
    assert abs(np.mean(p_values) - 0.5) < 0.13
    sweep[7] = y + 0.1 * rng.normal(size=y.shape)
    found = pooled_sweep(sweep, y)
    assert found.rho.argmax() == 7
    assert found.rho[7] == pytest.approx(np.mean([spearman(a, b) for a, b in zip(sweep[7], y, strict=True)]))
    assert found.p_best < 0.01
    with pytest.raises(ValueError, match="needs a target"):
        pooled_sweep(sweep, y[:, :3])
