"""Honest statistics for a dozen points: rank correlations, their intervals, and selection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ntps_utils.linear import Array

Index = NDArray[np.intp]


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


@dataclass(frozen=True, eq=False)
class Sweep:
    """Rank correlations of many settings with one target, and what chance gives the best of them.

    Attributes
    ----------
    rho : (settings,) float64
        Spearman's rho, averaged over groups.
    null : (permutations,) float64
        Largest |rho| over the settings, with the target's points permuted.
    """

    rho: Array
    null: Array

    @property
    def p_best(self) -> float:
        """How often chance gives a best |rho| at least as large as the one observed."""
        return float((1 + np.sum(self.null >= np.abs(self.rho).max() - 1e-12)) / (1 + len(self.null)))


def pooled_rank_correlation(
    x: ArrayLike, y: ArrayLike, *, n_resamples: int = 5000, level: float = 0.95, seed: int = 0
) -> RankCorrelation:
    """Spearman's rho within each group, averaged over groups that share their points.

    For scores of several models on the same tasks: models are not independent, so tasks
    are resampled (and permuted) together for all of them.

    Parameters
    ----------
    x, y : (groups, n) array_like
        Column j is the same point, such as a task, in every group.
    n_resamples, level, seed
        See :func:`rank_correlation`.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 2 or x.shape != y.shape or x.shape[1] < 3:
        raise ValueError(f"Give two (groups, n) arrays of one shape, n at least 3; got {x.shape} and {y.shape}.")
    rng, n = np.random.default_rng(seed), x.shape[1]

    def pooled(columns: Index, permuted: Index) -> Array:
        with np.errstate(invalid="ignore"):
            each = [
                _row_correlations(stats.rankdata(a[columns], axis=1), stats.rankdata(b[permuted], axis=1))
                for a, b in zip(x, y, strict=True)
            ]
        return np.mean(each, axis=0)

    whole = np.arange(n)[None]
    rho = float(pooled(whole, whole)[0])
    drawn = rng.integers(0, n, size=(n_resamples, n))
    low, high = np.nanquantile(pooled(drawn, drawn), [(1 - level) / 2, (1 + level) / 2])
    shuffled = rng.permuted(np.tile(np.arange(n), (n_resamples, 1)), axis=1)
    null = pooled(np.broadcast_to(whole, shuffled.shape), shuffled)
    p = (1 + np.sum(np.abs(null) >= abs(rho) - 1e-12)) / (1 + n_resamples)
    return RankCorrelation(rho, float(low), float(high), float(p), n)


def pooled_sweep(sweep: ArrayLike, y: ArrayLike, *, n_permutations: int = 2000, seed: int = 0) -> Sweep:
    """All settings of a sweep against one target, with the permutation null of the best.

    Parameters
    ----------
    sweep : (settings, groups, n) array_like
    y : (groups, n) array_like
        Its points are permuted together in all groups.
    """
    sweep, y = np.asarray(sweep, dtype=float), np.asarray(y, dtype=float)
    if sweep.ndim != 3 or y.shape != sweep.shape[1:]:
        raise ValueError(f"A sweep (settings, groups, n) needs a target (groups, n); got {sweep.shape}, {y.shape}.")

    def unit(values: Array) -> Array:
        ranks = stats.rankdata(values, axis=-1)
        ranks = ranks - ranks.mean(axis=-1, keepdims=True)
        norms = np.linalg.norm(ranks, axis=-1, keepdims=True)
        return np.divide(ranks, norms, out=np.zeros_like(ranks), where=norms > 0)

    x, target = unit(sweep), unit(y)
    n = y.shape[1]
    permuted = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
    rho = np.einsum("sgn,gn->s", x, target) / len(target)
    null = np.einsum("sgn,gpn->sp", x, target[:, permuted]) / len(target)
    return Sweep(rho, np.abs(null).max(axis=0))


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
