"""Bayesian regression of a target on a score, over datasets and models, by integration on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.linalg import block_diag
from scipy.optimize import brentq
from scipy.special import logsumexp

from ntps_utils.theory.linear import Array

SLOPE_SD, SLOPES_SD, ERROR_SD = 0.5, 0.25, 1.0
"""Standard deviation of the slope, and scales of half-normal priors: of the slopes of single models
around it, and of the effects of datasets and of single cells."""

N_GRID = 15


@dataclass(frozen=True)
class Slope:
    """Posterior distribution of the common slope.

    Attributes
    ----------
    mean, sd : float
    low, high : float
        Central credible interval.
    positive : float
        Probability that the slope is above zero.
    """

    mean: float
    sd: float
    low: float
    high: float
    positive: float


def hierarchical_slope(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Slope:
    r"""Estimate the common slope of several models that share datasets.

    Parameters
    ----------
    x, y : (models, n) array_like
        Score and target; column j is the same dataset in every model. They are standardized within
        each model.
    level : float
        Probability of the interval, in (0, 1).

    Returns
    -------
    Slope

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than three datasets, or a model has constant values.

    Notes
    -----
    For model m and dataset j

    .. math:: y_{mj} = (b + b_m)\, x_{mj} + u_j + e_{mj},

    with :math:`b \sim N(0, 0.5^2)`, :math:`b_m \sim N(0, \tau^2)`, :math:`u_j \sim N(0, \sigma_u^2)` and
    :math:`e_{mj} \sim N(0, \sigma_e^2)`; half-normal priors with the scales 0.25, 1 and 1 for the three
    standard deviations. Given these, everything is normal and b is integrated in closed form; the
    standard deviations are integrated over a grid of quantiles of their priors.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(2, 30))
    >>> slope = hierarchical_slope(x, 0.8 * x + 0.3 * rng.normal(size=(2, 30)))
    >>> slope.low > 0.2, slope.positive > 0.99
    (True, True)
    """
    x, y = _standardized(x), _standardized(y)
    if x.shape != y.shape:
        raise ValueError(f"x and y must have the same shape, got {x.shape} and {y.shape}.")
    probabilities = (np.arange(N_GRID) + 0.5) / N_GRID
    grid = stats.halfnorm.ppf(probabilities)  # equally probable under a half-normal prior of scale 1
    tau, sigma_u, sigma_e = (axis.ravel() for axis in np.meshgrid(SLOPES_SD * grid, ERROR_SD * grid, ERROR_SD * grid))
    log_weights, means, variances = conditional_slopes(x, y, tau, sigma_u, sigma_e)
    weights = np.exp(np.array(log_weights) - logsumexp(log_weights))
    sds = np.sqrt(variances)
    mean = float(weights @ means)

    def below(value: float) -> float:
        return float(weights @ stats.norm.cdf(value, means, sds))

    ends = [brentq(lambda value, p=p: below(value) - p, -10.0, 10.0) for p in ((1 - level) / 2, (1 + level) / 2)]
    sd = float(np.sqrt(weights @ (sds**2 + (means - mean) ** 2)))
    return Slope(mean, sd, float(ends[0]), float(ends[1]), 1.0 - below(0.0))


def conditional_slopes(
    x: Array, y: Array, tau: ArrayLike, sigma_u: ArrayLike, sigma_e: ArrayLike
) -> tuple[Array, Array, Array]:
    """Compute the marginal likelihood, and mean and variance of the slope, for given standard deviations.

    Parameters
    ----------
    x, y : (models, n) float64
    tau, sigma_u, sigma_e : (g,) array_like
        See :func:`hierarchical_slope`; the last is above zero.

    Returns
    -------
    log_likelihood : (g,) float64
        Logarithm of the density of y.
    mean, variance : (g,) float64
        Of the normal posterior of the slope b.
    """
    n_models, n = x.shape
    # Covariance of y without the common slope: datasets are shared by models, slopes by the datasets of a model.
    shared = np.kron(np.ones((n_models, n_models)), np.eye(n))
    slopes = block_diag(*(np.outer(row, row) for row in x))
    tau, sigma_u, sigma_e = (np.asarray(part, dtype=float)[:, None, None] for part in (tau, sigma_u, sigma_e))
    root = np.linalg.cholesky(sigma_u**2 * shared + sigma_e**2 * np.eye(n_models * n) + tau**2 * slopes)
    solved = np.linalg.solve(root, np.column_stack([x.ravel(), y.ravel()])[None])
    a, b = solved[:, :, 0], solved[:, :, 1]
    precision = 1.0 / SLOPE_SD**2 + np.sum(a**2, 1)
    mean = np.sum(a * b, 1) / precision
    log_likelihood = (
        -0.5 * (np.sum(b**2, 1) - precision * mean**2)
        - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
        - 0.5 * np.log(precision * SLOPE_SD**2)
        - 0.5 * n_models * n * np.log(2 * np.pi)
    )
    return log_likelihood, mean, 1.0 / precision


def _standardized(values: ArrayLike) -> Array:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[1] < 3:
        raise ValueError(f"Give arrays of the shape (models, n) with n at least 3, got {values.shape}.")
    if not np.isfinite(values).all() or (np.ptp(values, axis=1) == 0).any():
        raise ValueError("Values must be finite, and not constant within a model.")
    return np.asarray((values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True))
