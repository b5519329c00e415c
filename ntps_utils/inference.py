"""Honest statistics for a dozen points: rank correlations, their intervals, and selection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ntps_utils.linear import Array


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho with a bootstrap interval and a permutation p-value."""

    rho: float
    low: float
    high: float
    p: float
    """Two-sided, under random pairing; of no use if x was chosen by looking at y."""
    n: int


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation, ties at mid-ranks; NaN if either is constant."""
    x, y = _paired(x, y)
    return _correlation(stats.rankdata(x), stats.rankdata(y))


def rank_correlation(
    x: ArrayLike, y: ArrayLike, *, seed: int, level: float = 0.95, n_resamples: int = 5000
) -> RankCorrelation:
    """Spearman's rho with uncertainty that does not lean on large samples.

    The interval is the percentile bootstrap over pairs (samples in which either side is
    constant are left out); the p-value permutes y.

    Parameters
    ----------
    x, y : (n,) array_like
    seed : int
    level : float
        Coverage aimed at.
    n_resamples : int
        Bootstrap samples, and permutations.
    """
    x, y = _paired(x, y)
    rng = np.random.default_rng(seed)
    n = len(x)
    rows = rng.integers(0, n, size=(n_resamples, n))
    with np.errstate(invalid="ignore"):
        boot = _row_correlations(stats.rankdata(x[rows], axis=1), stats.rankdata(y[rows], axis=1))
    low, high = np.nanquantile(boot, [(1 - level) / 2, (1 + level) / 2])
    rho = spearman(x, y)
    ranks = np.broadcast_to(stats.rankdata(x), (n_resamples, n))
    null = _row_correlations(ranks, rng.permuted(np.tile(stats.rankdata(y), (n_resamples, 1)), axis=1))
    p = (1 + np.sum(np.abs(null) >= abs(rho) - 1e-12)) / (1 + n_resamples)
    return RankCorrelation(rho, float(low), float(high), float(p), n)


def partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> float:
    """Spearman's correlation of x and y with the ranks of a third variable held fixed.

    ``(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2))`` over rank correlations.
    """
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    denominator = np.sqrt((1 - xz**2) * (1 - yz**2))
    return float((xy - xz * yz) / denominator) if denominator > 1e-9 else float("nan")


def leave_one_out(x: ArrayLike, y: ArrayLike) -> Array:
    """Spearman's rho without each point in turn, (n,)."""
    x, y = _paired(x, y)
    return np.array([spearman(np.delete(x, i), np.delete(y, i)) for i in range(len(x))])


def best_of_sweep_null(sweep: ArrayLike, n_permutations: int, seed: int) -> Array:
    """Largest rho over a sweep when the target has nothing to do with it, (n_permutations,).

    Permuting the target keeps the correlation between settings as it is, so this is the
    null distribution that a coefficient reported as the best of the sweep belongs to.

    Parameters
    ----------
    sweep : (settings, n) array_like
        The score of each of n points at each setting.
    n_permutations : int
    seed : int
    """
    sweep = np.asarray(sweep, dtype=float)
    if sweep.ndim != 2:
        raise ValueError(f"A sweep has shape (settings, points), got {sweep.shape}.")
    n = sweep.shape[1]
    ranks = stats.rankdata(sweep, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1)
    ranks = ranks[norms > 0] / norms[norms > 0, None]
    target = np.arange(n) - (n - 1) / 2
    permuted = np.random.default_rng(seed).permuted(np.tile(target, (n_permutations, 1)), axis=1)
    return (permuted / np.linalg.norm(target) @ ranks.T).max(axis=1)


def _paired(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise ValueError(f"Give two series of the same length, at least 3; got shapes {x.shape} and {y.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Correlations need finite numbers; NaN or infinity was given.")
    return x, y


def _correlation(x: Array, y: Array) -> float:
    with np.errstate(invalid="ignore"):
        return float(_row_correlations(x[None], y[None])[0])


def _row_correlations(x: Array, y: Array) -> Array:
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    return np.asarray((x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)))
