"""Rank correlations, bootstrap intervals and selection-aware permutation tests for small samples.

Also the regression of the LoRA gain on quantities that are known before finetuning, and its
evaluation on groups of rows that were left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ntps_utils._utils.validation import check_choice, check_integer, check_number
from ntps_utils.theory.linear import Array

Index = NDArray[np.intp]
Alternative = Literal["two-sided", "greater", "less"]
ALPHAS = tuple(np.logspace(-1, 4, 11).tolist())
"""Ridge penalties that regressions of the gain select from."""


@dataclass(frozen=True)
class RankCorrelation:
    """A rank correlation with a bootstrap interval and a permutation p-value.

    Attributes
    ----------
    rho : float
        Spearman's rho or Kendall's tau-b.
    low, high : float
        Ends of the bootstrap interval.
    p : float
        Two-sided p-value under random pairing. It is not valid if x was selected by its
        correlation with y; see :func:`max_statistic_test` for that case.
    n : int
        Number of points.
    """

    rho: float
    low: float
    high: float
    p: float
    n: int


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Compute Spearman's rank correlation, with ties at mid-ranks.

    Parameters
    ----------
    x, y : (n,) array_like
        At least three finite values each.

    Returns
    -------
    float
        Correlation in [-1, 1]; NaN if x or y is constant.

    Raises
    ------
    ValueError
        If the lengths differ, there are fewer than three values, or one is not finite.

    Examples
    --------
    >>> round(spearman([1, 2, 3, 4], [2, 1, 4, 3]), 3)
    0.6
    """
    x, y = _paired(x, y)
    return _correlation(stats.rankdata(x), stats.rankdata(y))


def rank_correlation(
    x: ArrayLike, y: ArrayLike, *, seed: int, level: float = 0.95, n_resamples: int = 5000
) -> RankCorrelation:
    """Compute Spearman's rho with uncertainty that does not rely on large samples.

    The interval is the percentile bootstrap over pairs, without the resamples in which x or
    y is constant. The p-value is ``(1 + count) / (1 + n_resamples)``, where ``count`` is the
    number of permutations of y whose absolute correlation is at least the observed one.

    Parameters
    ----------
    x, y : (n,) array_like
        At least three finite values each.
    seed : int
        Random seed for the resamples and permutations.
    level : float
        Nominal coverage of the interval, in (0, 1).
    n_resamples : int
        Number of bootstrap resamples, and of permutations.

    Returns
    -------
    RankCorrelation

    Examples
    --------
    >>> r = rank_correlation([1, 2, 3, 4, 5, 6], [1, 3, 2, 4, 6, 5], seed=0)
    >>> round(r.rho, 3), round(r.p, 2), r.n
    (0.886, 0.03, 6)
    """
    return _with_uncertainty(x, y, _row_spearman, seed, level, n_resamples)


def mean_interval(
    values: ArrayLike, *, seed: int, level: float = 0.95, n_resamples: int = 5000
) -> tuple[float, float, float]:
    """Compute the mean of a few values, and the ends of its percentile bootstrap interval.

    Parameters
    ----------
    values : (n,) array_like
        At least three finite values.
    seed : int
        Random seed for the resamples.
    level : float
        Nominal coverage of the interval, in (0, 1).
    n_resamples : int
        Number of bootstrap resamples.

    Returns
    -------
    mean, low, high : float

    Raises
    ------
    ValueError
        If there are fewer than three values, or one is not finite.

    Examples
    --------
    >>> [round(value, 2) for value in mean_interval([0.1, 0.2, 0.4, 0.5], seed=0)]
    [0.3, 0.15, 0.45]
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 3 or not np.isfinite(values).all():
        raise ValueError(
            f"Give at least three finite values in one dimension; got an array of shape {values.shape}"
            f"{'' if np.isfinite(values).all() else ' with NaN or infinity'}."
        )
    result = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=n_resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(values.mean()), float(low), float(high)


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Compute Kendall's tau-b: concordant minus discordant pairs, corrected for ties.

    Parameters
    ----------
    x, y : (n,) array_like
        At least three finite values each.

    Returns
    -------
    float
        Correlation in [-1, 1]; NaN if x or y is constant.

    Examples
    --------
    >>> round(kendall([1, 2, 3, 4], [2, 1, 4, 3]), 3)
    0.333
    """
    x, y = _paired(x, y)
    return float(_row_kendall(x[None], y[None])[0])


def kendall_correlation(
    x: ArrayLike, y: ArrayLike, *, seed: int, level: float = 0.95, n_resamples: int = 5000
) -> RankCorrelation:
    """Compute Kendall's tau-b with a bootstrap interval and a permutation p-value.

    A pair of points that a resample contains twice counts as a tie.

    Parameters
    ----------
    x, y, seed, level, n_resamples
        See :func:`rank_correlation`.

    Returns
    -------
    RankCorrelation
        ``rho`` is tau-b.
    """
    return _with_uncertainty(x, y, _row_kendall, seed, level, n_resamples)


def partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> float:
    """Compute the partial rank correlation of x and y, controlling for a third variable.

    Parameters
    ----------
    x, y, given : (n,) array_like
        At least three finite values each; ``given`` is the variable that is controlled for.

    Returns
    -------
    float
        ``(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2))`` over rank correlations; NaN
        if ``given`` determines the ranks of x or y.

    Examples
    --------
    >>> round(partial_spearman([1, 2, 3, 4], [2, 1, 4, 3], [1, 3, 2, 4]), 3)
    1.0
    """
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    denominator = np.sqrt((1 - xz**2) * (1 - yz**2))
    return float((xy - xz * yz) / denominator) if denominator > 1e-9 else float("nan")


def leave_one_out(x: ArrayLike, y: ArrayLike) -> Array:
    """Compute Spearman's rho without each point in turn.

    Parameters
    ----------
    x, y : (n,) array_like
        At least four finite values each.

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> leave_one_out([1, 2, 3, 9], [1, 2, 3, 0]).round(2).tolist()
    [-0.5, -0.5, -0.5, 1.0]
    """
    x, y = _paired(x, y)
    return np.array([spearman(np.delete(x, i), np.delete(y, i)) for i in range(len(x))])


def max_statistic_null(sweep: ArrayLike, n_permutations: int, seed: int) -> Array:
    """Sample the largest rho over a sweep when the target is unrelated to the scores.

    Permuting the target preserves the correlation between settings, so this is the null
    distribution of a coefficient that is reported as the best of the sweep.

    Parameters
    ----------
    sweep : (settings, n) array_like
        Score of each of n points at each setting. A setting with constant scores is ignored.
    n_permutations : int
        Number of permutations of the target.
    seed : int
        Random seed for the permutations.

    Returns
    -------
    (n_permutations,) float64

    Raises
    ------
    ValueError
        If ``sweep`` does not have two dimensions.

    Examples
    --------
    >>> max_statistic_null([[1, 2, 3, 4], [2, 1, 4, 3]], 3, seed=0).round(2).tolist()
    [0.4, -0.6, 0.0]
    """
    sweep = np.asarray(sweep, dtype=float)
    if sweep.ndim != 2:
        raise ValueError(f"A sweep must have shape (settings, points), got {sweep.shape}.")
    n = sweep.shape[1]
    ranks = stats.rankdata(sweep, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1)
    ranks = ranks[norms > 0] / norms[norms > 0, None]
    target = np.arange(n) - (n - 1) / 2
    permuted = np.random.default_rng(seed).permuted(np.tile(target, (n_permutations, 1)), axis=1)
    return (permuted / np.linalg.norm(target) @ ranks.T).max(axis=1)


@dataclass(frozen=True, eq=False)
class MaxStatisticTest:
    """Rank correlations of many settings with one target, and the null distribution of the best.

    Attributes
    ----------
    rho : (settings,) float64
        Spearman's rho, averaged over groups.
    null : (permutations,) float64
        Largest absolute rho over the settings after each permutation of the target.
    """

    rho: Array
    null: Array

    @property
    def p_best(self) -> float:
        """P-value of the largest absolute rho, adjusted for the choice among all settings."""
        return float((1 + np.sum(self.null >= np.abs(self.rho).max() - 1e-12)) / (1 + len(self.null)))


def pooled_rank_correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    alternative: Alternative = "two-sided",
    n_resamples: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> RankCorrelation:
    """Average Spearman's rho over groups that share their points.

    For scores of several models on the same tasks: models are not independent, so tasks are
    resampled and permuted together for all models.

    Parameters
    ----------
    x, y : (groups, n) array_like
        Column j is the same point, such as a task, in every group; at least three points.
    clusters : (n,) array_like, optional
        Label of the cluster of each point. Clusters are resampled as a whole, for example datasets
        with a common source; by default every point is a cluster.
    alternative : {"two-sided", "greater", "less"}
        What counts as extreme in the p-value: a large absolute correlation, a large one, or a small one.
        Permutations exchange single points, also those of one cluster.
    n_resamples, level, seed
        See :func:`rank_correlation`.

    Returns
    -------
    RankCorrelation
        ``n`` is the number of points in a group. Where values are constant in a group, the
        correlation is NaN and its p-value 1.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than three points or clusters.

    Examples
    --------
    >>> x, y = [[1, 2, 3, 4], [2, 1, 3, 4]], [[1, 2, 4, 3], [1, 2, 3, 4]]
    >>> round(pooled_rank_correlation(x, y).rho, 3)
    0.8
    """
    check_choice("alternative", alternative, get_args(Alternative))
    x, y = _same_groups(x, y)
    rng, n = np.random.default_rng(seed), x.shape[1]
    rho = float(_pooled_spearman(x, y, np.ones((1, n)))[0])
    resampled = _pooled_spearman(x, y, cluster_counts(clusters, n, n_resamples, rng))
    interval = Estimate.from_resamples(rho, resampled, level)
    permutations = rng.permuted(np.tile(np.arange(n), (n_resamples, 1)), axis=1)
    with np.errstate(invalid="ignore"):
        null = np.mean(
            [
                _row_correlations(stats.rankdata(a)[None], stats.rankdata(b)[permutations])
                for a, b in zip(x, y, strict=True)
            ],
            axis=0,
        )
    return RankCorrelation(rho, interval.low, interval.high, _permutation_p(rho, null, alternative), n)


@dataclass(frozen=True)
class Estimate:
    """An estimate with an interval.

    Attributes
    ----------
    value : float
    low, high : float
        Ends of the interval; NaN where there is none.
    p : float
        One-sided p-value against values of zero and below; NaN where there is none.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    @classmethod
    def from_resamples(cls, value: float, resamples: ArrayLike, level: float = 0.95) -> Self:
        """Create an estimate with a percentile interval and the p-value that belongs to it.

        Parameters
        ----------
        value : float
        resamples : (n,) array_like
            The same quantity in bootstrap resamples; undefined ones are NaN and left out.
        level : float
            Nominal coverage of the interval, in (0, 1).

        Returns
        -------
        Estimate
            Without an interval and with a p-value of 1 if no resample is defined.

        Examples
        --------
        >>> Estimate.from_resamples(2.0, [1.0, 2.0, 3.0]).p
        0.25
        """
        defined = np.asarray(resamples, dtype=float)
        defined = defined[np.isfinite(defined)]
        if not len(defined):
            return cls(value, p=1.0)
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
        return cls(value, float(low), float(high), float((1 + np.sum(defined <= 0.0)) / (1 + len(defined))))


def pooled_rank_difference(
    x: ArrayLike,
    other: ArrayLike,
    y: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    n_resamples: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate by how much x is more correlated with y than another quantity is, over groups.

    Parameters
    ----------
    x, other, y : (groups, n) array_like
        See :func:`pooled_rank_correlation`.
    clusters, n_resamples, level, seed
        See :func:`pooled_rank_correlation`. The resamples are the same for both correlations.

    Returns
    -------
    Estimate
        Mean Spearman's rho of x and y minus that of ``other`` and y. Its p-value is that of a
        difference above zero.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than three points or clusters.

    Examples
    --------
    >>> y = [[1, 2, 3, 4, 5, 6]]
    >>> round(pooled_rank_difference([[1, 2, 3, 4, 6, 5]], [[6, 2, 1, 3, 5, 4]], y).value, 3)
    0.914
    """
    x, y = _same_groups(x, y)
    other, _ = _same_groups(other, y)
    n = x.shape[1]
    counts = np.vstack([np.ones((1, n)), cluster_counts(clusters, n, n_resamples, np.random.default_rng(seed))])
    differences = _pooled_spearman(x, y, counts) - _pooled_spearman(other, y, counts)
    return Estimate.from_resamples(float(differences[0]), differences[1:], level)


def _same_groups(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 2 or x.shape != y.shape or x.shape[1] < 3:
        raise ValueError(
            f"x and y must be arrays of the same shape (groups, n) with n at least 3; got {x.shape} and {y.shape}."
        )
    return x, y


def cluster_counts(clusters: ArrayLike | None, n: int, n_resamples: int, rng: np.random.Generator) -> Array:
    """Resample clusters of points with replacement.

    Parameters
    ----------
    clusters : (n,) array_like, optional
        Label of each point; by default every point is a cluster of its own.
    n, n_resamples : int
        Number of points, and of resamples.
    rng : Generator

    Returns
    -------
    (n_resamples, n) float64
        How often each point occurs in each resample.

    Raises
    ------
    ValueError
        If there are fewer than three clusters, or not a label for each point.

    Examples
    --------
    >>> counts = cluster_counts(["a", "a", "b", "c"], 4, 100, np.random.default_rng(0))
    >>> bool((counts[:, 0] == counts[:, 1]).all())
    True
    """
    labels = np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    n_clusters = int(labels.max()) + 1
    if len(labels) != n or n_clusters < 3:
        raise ValueError(f"clusters must have a label for each of {n} points, and at least three different ones.")
    drawn = rng.integers(0, n_clusters, size=(n_resamples, n_clusters))
    counts = np.zeros((n_resamples, n_clusters))
    np.add.at(counts, (np.arange(n_resamples)[:, None], drawn), 1.0)
    return counts[:, labels]


def _pooled_spearman(x: Array, y: Array, counts: Array) -> Array:
    """Mean over groups of Spearman's rho of samples that contain each point ``counts`` times, (samples,)."""
    return np.asarray(np.mean([_weighted_spearman(a, b, counts) for a, b in zip(x, y, strict=True)], axis=0))


def _weighted_spearman(x: Array, y: Array, counts: Array) -> Array:
    n = counts.sum(1, keepdims=True)

    def ranks(values: Array) -> Array:
        """Mid-ranks in each sample, centered."""
        below = (values[:, None] > values) + 0.5 * (values[:, None] == values)
        ranked = counts @ below.T
        return np.asarray(ranked - np.sum(counts * ranked, 1, keepdims=True) / n)

    a, b = ranks(x), ranks(y)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sum(counts * a * b, 1) / np.sqrt(np.sum(counts * a**2, 1) * np.sum(counts * b**2, 1)))


def max_statistic_test(
    sweep: ArrayLike, y: ArrayLike, *, n_permutations: int = 2000, seed: int = 0
) -> MaxStatisticTest:
    """Correlate all settings of a sweep with one target, and sample the null distribution of the best.

    Parameters
    ----------
    sweep : (settings, groups, n) array_like
        Scores. A setting with constant scores has the correlation 0.
    y : (groups, n) array_like
        Target; its points are permuted together in all groups.
    n_permutations : int
        Number of permutations of the target.
    seed : int
        Random seed for the permutations.

    Returns
    -------
    MaxStatisticTest

    Raises
    ------
    ValueError
        If the shapes of ``sweep`` and ``y`` do not match.

    Examples
    --------
    >>> sweep = [[[1, 2, 3, 4, 5]], [[5, 1, 3, 2, 4]]]
    >>> test = max_statistic_test(sweep, [[1, 2, 3, 5, 4]], n_permutations=500)
    >>> test.rho.round(2).tolist(), test.p_best < 0.3
    ([0.9, -0.3], True)
    """
    sweep, y = np.asarray(sweep, dtype=float), np.asarray(y, dtype=float)
    if sweep.ndim != 3 or y.shape != sweep.shape[1:]:
        raise ValueError(
            f"sweep must have shape (settings, groups, n) and y shape (groups, n); got {sweep.shape} and {y.shape}."
        )

    def unit(values: Array) -> Array:
        ranks = stats.rankdata(values, axis=-1)
        ranks = ranks - ranks.mean(axis=-1, keepdims=True)
        norms = np.linalg.norm(ranks, axis=-1, keepdims=True)
        return np.divide(ranks, norms, out=np.zeros_like(ranks), where=norms > 0)

    x, target = unit(sweep), unit(y)
    n = y.shape[1]
    permutations = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
    rho = np.einsum("sgn,gn->s", x, target) / len(target)
    null = np.einsum("sgn,gpn->sp", x, target[:, permutations]) / len(target)
    return MaxStatisticTest(rho, np.abs(null).max(axis=0))


def pooled_partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> float:
    """Average :func:`partial_spearman` over groups.

    Parameters
    ----------
    x, y, given : (groups, n) array_like

    Returns
    -------
    float
    """
    rows = zip(np.asarray(x), np.asarray(y), np.asarray(given), strict=True)
    return float(np.mean([partial_spearman(*row) for row in rows]))


# -- prediction of gains -----------------------------------------------------------


class GainRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Ridge regression of the gain on a few predictors, with intervals from left-out groups.

    Predictors are standardized, and leave-one-out cross-validation selects the penalty. One
    more regression is fitted without each group of rows; their errors give the intervals.

    Parameters
    ----------
    alphas : sequence of float
        Ridge penalties to select from; a large one is close to predicting the mean.

    Attributes
    ----------
    coef_ : (p,) float64
        Slopes of the regression on all rows, in units of the predictors.
    intercept_ : float
        Its intercept.
    alpha_ : float
        Its penalty.
    group_coefs_ : (groups, p) float64
        Slopes of the regressions that are fitted without one group each.
    group_intercepts_ : (groups,) float64
        Their intercepts.
    group_indices_ : (n,) int
        Index of the regression that did not see the row.
    left_out_ : (n,) float64
        Prediction of that regression.
    residuals_ : (n,) float64
        Absolute error of that regression.
    mean_, scale_ : (p,) float64
        Mean and standard deviation of the predictors; the scale of a constant one is 1.
    distances_ : (n,) float64
        Distance of each row from the mean, in standard deviations averaged over predictors.
    n_features_in_ : int
        Number of predictors p.

    References
    ----------
    R. F. Barber, E. J. Candes, A. Ramdas and R. J. Tibshirani (2021). Predictive inference
    with the jackknife+. Annals of Statistics 49(1).

    Examples
    --------
    >>> X = np.arange(10.0)[:, None]
    >>> y, groups = 0.1 * X[:, 0], np.repeat(["a", "b", "c", "d", "e"], 2)
    >>> model = GainRegressor().fit(X, y, groups)
    >>> model.predict([[4.5]]).round(3).tolist()
    [0.45]
    >>> low, high = model.predict_interval([[4.5]], level=0.8)
    >>> bool(low[0] < 0.45 < high[0])
    True
    """

    def __init__(self, alphas: Sequence[float] = ALPHAS) -> None:
        self.alphas = alphas

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike) -> Self:
        """Fit the regression on all rows, and once more without each group.

        Parameters
        ----------
        X : (n, p) array_like
            Predictors; with p = 0 the prediction is the mean gain.
        y : (n,) array_like
            Gains.
        groups : (n,) array_like
            Rows that belong together, such as all models on one dataset; at least four groups.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the shapes do not match, a value is not finite, a penalty is not positive, or there are fewer than
            four groups.
        """
        x, y, groups = _predictors(X), np.asarray(y, dtype=float), np.asarray(groups)
        alphas = np.asarray(self.alphas, dtype=float)
        if y.shape != (len(x),) or groups.shape != (len(x),):
            raise ValueError(
                f"X, y and groups must have the same number of rows; got the shapes {x.shape}, {y.shape} and "
                f"{groups.shape}."
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("Predictors and gains must be finite; NaN or infinity was given.")
        if not (alphas.size and (alphas > 0.0).all()):
            raise ValueError(f"alphas must be positive numbers, got {self.alphas}.")
        names, self.group_indices_ = np.unique(groups, return_inverse=True)
        if len(names) < 4:
            raise ValueError(f"Intervals from left-out groups need at least four groups, got {len(names)}.")
        self.n_features_in_ = x.shape[1]
        self.coef_, self.intercept_, self.alpha_ = _ridge(x, y, alphas)
        rest = [self.group_indices_ != i for i in range(len(names))]
        slopes, intercepts, _ = zip(*(_ridge(x[rows], y[rows], alphas) for rows in rest), strict=True)
        self.group_coefs_, self.group_intercepts_ = np.stack(slopes), np.array(intercepts)
        own = self.group_indices_
        self.left_out_ = (x * self.group_coefs_[own]).sum(1) + self.group_intercepts_[own]
        self.residuals_ = np.abs(y - self.left_out_)
        self.mean_, self.scale_ = x.mean(0), _spread(x)
        self.distances_ = self._distances(x)
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Predict the gain.

        Parameters
        ----------
        X : (m, p) array_like

        Returns
        -------
        (m,) float64
        """
        return np.asarray(self._rows(X) @ self.coef_ + self.intercept_)

    def predict_interval(self, X: ArrayLike, level: float = 0.8) -> tuple[Array, Array]:
        """Compute jackknife+ intervals of the gain.

        The jackknife+ of Barber et al. (2021) with groups in place of rows: the interval covers
        the gain of a new group about as often as ``level`` says if groups are exchangeable,
        whether or not the regression is a good model.

        Parameters
        ----------
        X : (m, p) array_like
        level : float
            Nominal coverage, in (0, 1).

        Returns
        -------
        low, high : (m,) float64
        """
        x = self._rows(X)
        check_number("level", level, 0.0, 1.0, open_low=True, open_high=True)
        predictions = (self.group_coefs_ @ x.T + self.group_intercepts_[:, None])[self.group_indices_]
        # The k-th smallest of n values with k = ceil(level (n + 1)), and the k-th largest.
        n = len(self.residuals_)
        k = min(n, int(np.ceil(level * (n + 1))))
        high = np.sort(predictions + self.residuals_[:, None], axis=0)[k - 1]
        low = np.sort(predictions - self.residuals_[:, None], axis=0)[n - k]
        return low, high

    def distance(self, X: ArrayLike) -> Array:
        """Compute how far rows lie from the fitted rows.

        Parameters
        ----------
        X : (m, p) array_like

        Returns
        -------
        (m,) float64
            Share of the fitted rows that lie nearer to their mean, 0 to 1: near 1 a row is
            unlike the fitted ones.
        """
        return np.array([np.mean(self.distances_ < distance) for distance in self._distances(self._rows(X))])

    def _rows(self, X: ArrayLike) -> Array:
        """Predictors of new rows, as many as were fitted."""
        check_is_fitted(self)
        x = _predictors(X)
        if x.shape[1] != self.n_features_in_:
            raise ValueError(f"Predictors must have {self.n_features_in_} columns, as in fit, got {x.shape[1]}.")
        return x

    def _distances(self, x: Array) -> Array:
        return np.sqrt((((x - self.mean_) / self.scale_) ** 2).sum(1) / max(1, x.shape[1]))


def _ridge(x: Array, y: Array, alphas: ArrayLike = ALPHAS) -> tuple[Array, float, float]:
    """Slopes, intercept and penalty of a ridge regression on standardized predictors.

    The penalty with the smallest leave-one-out error is taken. The errors are those of the fit, divided by one minus
    the leverage of the row, so that nothing is fitted again. The same as a scaler and RidgeCV of scikit-learn, which
    take more than twenty times longer on so few rows.
    """
    alphas = np.asarray(alphas, dtype=float)
    center, spread = x.mean(0), _spread(x)
    u, s, vt = np.linalg.svd((x - center) / spread, full_matrices=False)
    target = u.T @ (y - y.mean())
    penalized = s**2 + alphas[:, None]
    shrinkage = s**2 / penalized
    residuals = y - y.mean() - (shrinkage * target) @ u.T
    leverages = 1.0 / len(y) + shrinkage @ (u**2).T
    best = int(np.argmin(((residuals / (1.0 - leverages)) ** 2).sum(1)))
    slopes = (s / penalized[best] * target) @ vt / spread
    return slopes, float(y.mean() - slopes @ center), float(alphas[best])


def _spread(x: Array) -> Array:
    """Standard deviation of each predictor, 1 for a constant one."""
    return np.where(np.ptp(x, axis=0) > 0, x.std(0), 1.0)


def _predictors(x: ArrayLike) -> Array:
    x = np.asarray(x, dtype=float)
    if x.ndim != 2:
        raise ValueError(f"Predictors must have shape (rows, predictors), got {x.shape}.")
    return x


@dataclass(frozen=True)
class HeldOutPerformance:
    """Accuracy of predictions of gains for groups that were left out.

    Attributes
    ----------
    mean_error : float
        Mean absolute error.
    skill : float
        ``1 - error / baseline error`` of mean absolute errors, where the baseline predicts the median
        of the other groups; at zero or below the predictors are of no use.
    skill_low, skill_high : float
        95% interval of the skill, from resampling groups.
    coverage : float
        Share of gains inside their interval.
    width : float
        Mean width of the intervals.
    """

    mean_error: float
    skill: float
    skill_low: float
    skill_high: float
    coverage: float
    width: float


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of gains for groups that were left out.

    Attributes
    ----------
    predicted, low, high : (n,) float64
        Prediction and interval of each row, from the other groups.
    gain : (n,) float64
        Observed gains.
    performance : HeldOutPerformance
        How the two compare.
    """

    predicted: Array
    low: Array
    high: Array
    gain: Array
    performance: HeldOutPerformance


def predict_left_out(x: ArrayLike, y: ArrayLike, groups: Sequence[Any]) -> Array:
    """Predict the gains of every group by the regression of the other groups, without intervals.

    Parameters
    ----------
    x, y, groups
        See :func:`predict_held_out`, whose predictions these are.

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> predict_left_out(np.arange(6.0)[:, None], np.arange(6.0), [1, 1, 2, 2, 3, 3]).round().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    x, y, group_of = _predictors(x), np.asarray(y, dtype=float), np.asarray(groups)
    predicted = np.empty(len(y))
    for name in np.unique(group_of):
        own = group_of == name
        slopes, intercept, _ = _ridge(x[~own], y[~own])
        predicted[own] = x[own] @ slopes + intercept
    return predicted


def skill_by_size(
    x: ArrayLike, y: ArrayLike, groups: Sequence[Any], sizes: Sequence[int], *, n_draws: int = 20, seed: int = 0
) -> dict[int, float]:
    """Compute the skill on a left-out group from fewer of the other groups, chosen at random.

    Parameters
    ----------
    x, y, groups
        See :func:`predict_left_out`.
    sizes : sequence of int
        Numbers of groups to fit to, each at least 2 and smaller than the number of groups.
    n_draws : int
        Random choices for each left-out group and size.
    seed : int
        Random seed for them.

    Returns
    -------
    dict of int to float
        ``1 - error / baseline error`` of mean absolute errors by size; the baseline is the median of the same groups.

    Raises
    ------
    ValueError
        If a size is out of range.

    Examples
    --------
    >>> x, groups = np.arange(12.0)[:, None], np.repeat(range(6), 2)
    >>> [round(skill, 1) for skill in skill_by_size(x, x[:, 0], groups, (2, 5)).values()]
    [1.0, 1.0]
    """
    x, y, group_of = _predictors(x), np.asarray(y, dtype=float), np.asarray(groups)
    names, rng = np.unique(group_of), np.random.default_rng(seed)
    found = {}
    for size in sizes:
        check_integer("a size", size, 2)
        if size >= len(names):
            raise ValueError(f"A size must be smaller than the number of groups, {len(names)}, got {size}.")
        error = baseline = 0.0
        for name in names:
            own, others = group_of == name, names[names != name]
            for _ in range(n_draws if size < len(others) else 1):
                rest = np.isin(group_of, rng.choice(others, size, replace=False))
                weight = 1.0 / (n_draws if size < len(others) else 1)
                slopes, intercept, _ = _ridge(x[rest], y[rest])
                error += weight * np.abs(x[own] @ slopes + intercept - y[own]).sum()
                baseline += weight * np.abs(np.median(y[rest]) - y[own]).sum()
        found[size] = float(1.0 - error / baseline)
    return found


def left_out_medians(y: ArrayLike, groups: Sequence[Any]) -> Array:
    """Predict the gains of every group by the median of the other groups.

    The median has the smallest absolute error of all constants, so that it is the baseline for absolute errors.

    Parameters
    ----------
    y : (n,) array_like
        Gains.
    groups : sequence of n
        Rows that are left out together.

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> left_out_medians([1.0, 2.0, 3.0, 10.0], ["a", "b", "c", "c"]).tolist()
    [3.0, 3.0, 1.5, 1.5]
    """
    y, (names, group_of) = np.asarray(y, dtype=float), np.unique(np.asarray(groups), return_inverse=True)
    return np.array([np.median(y[group_of != g]) for g in range(len(names))])[group_of]


def cluster_skill(
    errors: ArrayLike, baseline_errors: ArrayLike, groups: Sequence[Any], *, n_resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Compare absolute errors with those of a baseline; the interval comes from resampling groups.

    Parameters
    ----------
    errors, baseline_errors : (n,) array_like
        Absolute errors of the same rows. They are resampled, and nothing is fitted anew.
    groups : sequence of n
        Rows that are resampled together.
    n_resamples, seed : int
        Number of bootstrap resamples of groups, and their random seed.

    Returns
    -------
    Estimate
        One minus the ratio of the sums of errors.

    Examples
    --------
    >>> cluster_skill([1.0, 1.0, 2.0], [2.0, 4.0, 2.0], ["a", "b", "c"]).value
    0.5
    """
    group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.array([np.bincount(group_of, weights=np.asarray(e, float)) for e in (errors, baseline_errors)])
    drawn = np.random.default_rng(seed).integers(0, sums.shape[1], size=(n_resamples, sums.shape[1]))
    return Estimate.from_resamples(float(_skill(*sums)), _skill(sums[0, drawn], sums[1, drawn]))


def predict_held_out(
    x: ArrayLike,
    y: ArrayLike,
    groups: Sequence[Any],
    *,
    level: float = 0.8,
    inner: Sequence[Any] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> HeldOut:
    """Predict the gains of every group from the other groups, and compare with their median.

    Parameters
    ----------
    x : (n, p) array_like
        Predictors; with p = 0 the prediction is the mean gain.
    y : (n,) array_like
        Gains.
    groups : sequence of n
        Rows that are left out together, such as all models on one dataset; at least five.
    level : float
        Nominal coverage of the intervals, in (0, 1).
    inner : sequence of n, optional
        Groups that the intervals come from, by default ``groups``. With models left out,
        intervals may still come from leaving out datasets.
    n_resamples : int
        Number of bootstrap resamples of groups, for the interval of the skill.
    seed : int
        Random seed for these resamples.

    Returns
    -------
    HeldOut

    Raises
    ------
    ValueError
        See :meth:`GainRegressor.fit`.

    Examples
    --------
    >>> x = np.arange(18.0)[:, None]
    >>> result = predict_held_out(x, 0.1 * x[:, 0], np.repeat(range(6), 3))
    >>> result.predicted.shape, result.performance.skill > 0.9
    ((18,), True)
    """
    x, y = _predictors(x), np.asarray(y, dtype=float)
    group_of = np.asarray(groups)
    inner_groups = group_of if inner is None else np.asarray(inner)
    predicted, low, high = (np.empty(len(y)) for _ in range(3))
    for name in np.unique(group_of):
        own = group_of == name
        model = GainRegressor().fit(x[~own], y[~own], inner_groups[~own])
        predicted[own] = model.predict(x[own])
        low[own], high[own] = model.predict_interval(x[own], level)
    errors = np.abs(predicted - y)
    skill = cluster_skill(errors, np.abs(left_out_medians(y, groups) - y), groups, n_resamples=n_resamples, seed=seed)
    performance = HeldOutPerformance(
        mean_error=float(errors.mean()),
        skill=skill.value,
        skill_low=skill.low,
        skill_high=skill.high,
        coverage=float(np.mean((low <= y) & (y <= high))),
        width=float(np.mean(high - low)),
    )
    return HeldOut(predicted, low, high, y, performance)


def _skill(errors: Array, baseline_errors: Array, axis: int = -1) -> Array:
    return 1.0 - errors.sum(axis) / np.maximum(baseline_errors.sum(axis), 1e-300)


@dataclass(frozen=True)
class Decision:
    """Accuracy lost and training time saved by not running some finetuning runs.

    Attributes
    ----------
    n_skipped : int
        Number of runs that were skipped.
    accuracy_lost : float
        Gain forgone, averaged over all runs; a skipped run with a negative gain lowers it.
    lost_by_chance : float
        The same if as many runs were skipped at random.
    lost_at_best : float
        The same if the runs with the smallest gains were skipped.
    share_saved : float
        Share of the training time that is saved.
    """

    n_skipped: int
    accuracy_lost: float
    lost_by_chance: float
    lost_at_best: float
    share_saved: float


def skip_decision(skip: ArrayLike, gain: ArrayLike, seconds: ArrayLike) -> Decision:
    """Evaluate a rule that skips finetuning runs: accuracy lost, and training time saved.

    Parameters
    ----------
    skip : (n,) array_like of bool
        Whether each run is skipped.
    gain : (n,) array_like
        Gain of each run.
    seconds : (n,) array_like
        Duration of each run.

    Returns
    -------
    Decision

    Raises
    ------
    ValueError
        If the lengths differ, or there is no run.

    Examples
    --------
    >>> skip_decision([True, False], gain=[0.0, 0.2], seconds=[30, 30])
    Decision(n_skipped=1, accuracy_lost=0.0, lost_by_chance=0.05, lost_at_best=0.0, share_saved=0.5)
    """
    skip, gain, seconds = np.asarray(skip, dtype=bool), np.asarray(gain, dtype=float), np.asarray(seconds, dtype=float)
    if not skip.shape == gain.shape == seconds.shape or skip.ndim != 1 or not len(skip):
        raise ValueError(
            f"skip, gain and seconds must have the same length, at least 1; got the shapes {skip.shape}, {gain.shape} "
            f"and {seconds.shape}."
        )
    n, k = len(skip), int(skip.sum())
    return Decision(
        k,
        float(gain[skip].sum() / n),
        float(gain.mean() * k / n),
        float(np.sort(gain)[:k].sum() / n),
        float(seconds[skip].sum() / max(float(seconds.sum()), 1e-300)),
    )


def _paired(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise ValueError(
            f"x and y must be one-dimensional, of the same length, at least 3; got the shapes {x.shape} and {y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x and y must be finite; NaN or infinity was given.")
    return x, y


def _correlation(x: Array, y: Array) -> float:
    with np.errstate(invalid="ignore"):
        return float(_row_correlations(x[None], y[None])[0])


def _row_correlations(x: Array, y: Array) -> Array:
    """Pearson correlation of each row of x with the same row of y."""
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    return np.asarray((x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)))


def _with_uncertainty(
    x: ArrayLike, y: ArrayLike, row_statistic: Callable[[Array, Array], Array], seed: int, level: float, n: int
) -> RankCorrelation:
    """A rank correlation, given as a function of (samples, points) arrays, with its interval and p-value.

    ``scipy.stats`` has no equivalent: its bootstrap returns NaN for the interval as soon as one
    resample is constant, and its permutation test becomes exact, with another p-value, for few
    points.
    """
    x, y = _paired(x, y)
    rng = np.random.default_rng(seed)
    resamples = rng.integers(0, len(x), size=(n, len(x)))
    with np.errstate(invalid="ignore"):
        value = float(row_statistic(x[None], y[None])[0])
        bootstrap = row_statistic(x[resamples], y[resamples])
    low, high = np.nanquantile(bootstrap, [(1 - level) / 2, (1 + level) / 2])
    permuted = rng.permuted(np.tile(y, (n, 1)), axis=1)
    null = row_statistic(np.broadcast_to(x, permuted.shape), permuted)
    return RankCorrelation(value, float(low), float(high), _permutation_p(value, null), len(x))


def _permutation_p(value: float, null: Array, alternative: Alternative = "two-sided") -> float:
    """Share of permutations at least as extreme, with the observed order as one of them; 1 for an undefined value."""
    if not np.isfinite(value):
        return 1.0
    extremeness = {"two-sided": np.abs, "greater": np.positive, "less": np.negative}[alternative]
    return float((1 + np.sum(extremeness(null) >= extremeness(value) - 1e-12)) / (1 + len(null)))


def _row_spearman(x: Array, y: Array) -> Array:
    return _row_correlations(stats.rankdata(x, axis=1), stats.rankdata(y, axis=1))


def _row_kendall(x: Array, y: Array) -> Array:
    """Tau-b of each row; every pair of points is compared."""
    i, j = np.triu_indices(x.shape[1], 1)
    a, b = np.sign(x[:, i] - x[:, j]), np.sign(y[:, i] - y[:, j])
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1)))
