"""The hierarchical regression: closed forms against densities, calibration, and errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ntps_utils.evidence.hierarchical import SLOPE_SD, conditional_slopes, hierarchical_slope


def draw(seed: int, b: float, n: int = 12, tau: float = 0.1, sigma_u: float = 0.5, sigma_e: float = 0.6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, n))
    slopes = b + tau * rng.normal(size=(2, 1))
    return x, slopes * x + sigma_u * rng.normal(size=n) + sigma_e * rng.normal(size=(2, n))


@pytest.mark.parametrize("seed", [0, 1])
def test_likelihood_and_posterior_are_those_of_the_joint_normal_distribution(seed):
    """By integrating the density of y given b over the prior of b numerically."""
    x, y = draw(seed, 0.4, n=4)
    tau, sigma_u, sigma_e = 0.2, 0.5, 0.7
    covariance = np.zeros((8, 8))
    for i in range(8):
        for j in range(8):
            (m, a), (k, c) = divmod(i, 4), divmod(j, 4)
            covariance[i, j] = sigma_u**2 * (a == c) + sigma_e**2 * (i == j) + tau**2 * (m == k) * x[m, a] * x[k, c]
    values = np.linspace(-4, 4, 4001)
    density = np.array(
        [stats.multivariate_normal.pdf(y.ravel(), b * x.ravel(), covariance) for b in values]
    ) * stats.norm.pdf(values, 0, SLOPE_SD)
    total = np.trapezoid(density, values)
    mean = np.trapezoid(density * values, values) / total
    variance = np.trapezoid(density * (values - mean) ** 2, values) / total
    log_likelihood, found, found_variance = (v[0] for v in conditional_slopes(x, y, [tau], [sigma_u], [sigma_e]))
    assert (log_likelihood, found, found_variance) == pytest.approx((np.log(total), mean, variance), rel=1e-6)


def test_one_model_without_effects_is_ridge_regression():
    x, y = draw(0, 0.4)
    x, y = x[:1], y[:1]
    _, (mean,), (variance,) = conditional_slopes(x, y, [0.0], [0.0], [0.5])
    ridge = 0.5**2 / SLOPE_SD**2
    assert mean == pytest.approx(float(x[0] @ y[0] / (x[0] @ x[0] + ridge)))
    assert variance == pytest.approx(0.5**2 / float(x[0] @ x[0] + ridge))


@pytest.mark.slow
def test_intervals_are_calibrated():
    """Slopes from the prior lie in 80% intervals about 80% of the time, although y is standardized."""
    inside = []
    for seed in range(40):
        b = float(np.random.default_rng(seed).normal(0, 0.4))
        x, y = draw(seed + 1000, b)
        scale = y.std(1).mean() / x.std(1).mean()
        slope = hierarchical_slope(x, y, level=0.8)
        inside.append(slope.low <= b / scale <= slope.high)
    assert 0.6 <= np.mean(inside) <= 0.95


def test_no_relation_gives_an_interval_around_zero_and_the_sign_turns_with_the_target():
    x, y = draw(3, 0.0)
    slope, turned = hierarchical_slope(x, y), hierarchical_slope(x, -y)
    assert slope.low < 0 < slope.high
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-slope.mean, -slope.high, -slope.low), abs=1e-6)
    assert turned.positive == pytest.approx(1 - slope.positive)


def test_invalid_arrays_are_refused():
    x, y = draw(0, 0.0)
    with pytest.raises(ValueError, match="same shape"):
        hierarchical_slope(x, y[:, 1:])
    with pytest.raises(ValueError, match="not constant within a model"):
        hierarchical_slope(x, np.ones_like(y))
    with pytest.raises(ValueError, match="n at least 3"):
        hierarchical_slope(x[:, :2], y[:, :2])
