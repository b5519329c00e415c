"""Honest statistics for a dozen points: rank correlations, their intervals, and selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ntps_utils.theory.linear import Array

Index = NDArray[np.intp]


@dataclass(frozen=True)
class RankCorrelation:
    """A rank correlation (Spearman's rho or Kendall's tau-b) with a bootstrap interval and a permutation p-value."""

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
    return _with_uncertainty(x, y, _row_spearman, seed, level, n_resamples)


def mean_interval(
    values: ArrayLike, *, seed: int, level: float = 0.95, n_resamples: int = 5000
) -> tuple[float, float, float]:
    """Mean of a few values, and the ends of its percentile bootstrap interval.

    Raises
    ------
    ValueError
        If there are fewer than three values, or one is not finite.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 3 or not np.isfinite(values).all():
        raise ValueError(f"Give at least three finite values in one series, got shape {values.shape}.")
    drawn = np.random.default_rng(seed).choice(values, size=(n_resamples, len(values))).mean(1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b: pairs in the same order less pairs in the opposite one, ties allowed for."""
    x, y = _paired(x, y)
    return float(_row_kendall(x[None], y[None])[0])


def kendall_correlation(
    x: ArrayLike, y: ArrayLike, *, seed: int, level: float = 0.95, n_resamples: int = 5000
) -> RankCorrelation:
    """Kendall's tau-b with uncertainty; see :func:`rank_correlation`.

    ``rho`` of the result is tau-b. Resampled pairs that coincide count as ties.
    """
    return _with_uncertainty(x, y, _row_kendall, seed, level, n_resamples)


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


def max_statistic_null(sweep: ArrayLike, n_permutations: int, seed: int) -> Array:
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
class MaxStatisticTest:
    """Rank correlations of many settings with one target, and what chance gives the best of them.

    Attributes
    ----------
    rho : (settings,) float64
        Spearman's rho, averaged over groups.
    null : (permutations,) float64
        Largest absolute rho over the settings, with the target's points permuted.
    """

    rho: Array
    null: Array

    @property
    def p_best(self) -> float:
        """How often chance gives a best absolute rho at least as large as the one observed."""
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


def max_statistic_test(
    sweep: ArrayLike, y: ArrayLike, *, n_permutations: int = 2000, seed: int = 0
) -> MaxStatisticTest:
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
    return MaxStatisticTest(rho, np.abs(null).max(axis=0))


def pooled_partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> float:
    """:func:`partial_spearman` within each group, averaged; arrays (groups, n)."""
    rows = zip(np.asarray(x), np.asarray(y), np.asarray(given), strict=True)
    return float(np.mean([partial_spearman(*row) for row in rows]))


@dataclass(frozen=True, eq=False)
class GainModel:
    """Ridge regression of the gain on a few predictors, with intervals from whole groups left out.

    Attributes
    ----------
    estimators : tuple of scikit-learn pipelines
        One with each group left out.
    full : scikit-learn pipeline
        Of all rows.
    residuals : (n,) float64
        Absolute error of each row under the estimator that left its group out.
    group_of : (n,) int
        Index into ``estimators``.
    center, spread : (p,) float64
        Means and deviations of the predictors.
    spreads : (n,) float64
        Distance of each row from the mean, in deviations averaged over predictors.
    """

    estimators: tuple[Any, ...]
    full: Any
    residuals: Array
    group_of: Index
    center: Array
    spread: Array
    spreads: Array

    def predict(self, x: ArrayLike, level: float = 0.8) -> tuple[Array, Array, Array]:
        """Gain expected, and the ends of an interval, each (m,).

        The interval is the jackknife+ of Barber et al. (2021) with groups in the place of
        rows: it covers a new group's gain about as often as ``level`` says if groups are
        alike, whatever the shape of the truth.
        """
        x = _rows(x)
        each = np.stack([one.predict(x) for one in self.estimators])[self.group_of]
        # The k-th smallest of n values with k = ceil(level (n + 1)), and its mirror image.
        n = len(self.residuals)
        k = min(n, int(np.ceil(level * (n + 1))))
        high = np.sort(each + self.residuals[:, None], axis=0)[k - 1]
        low = np.sort(each - self.residuals[:, None], axis=0)[n - k]
        return np.asarray(self.full.predict(x)), low, high

    def distance(self, x: ArrayLike) -> Array:
        """How far rows lie outside the calibration: share of its rows that lie nearer to its mean, (m,)."""
        return np.array([np.mean(self.spreads < away) for away in _away(_rows(x), self.center, self.spread)])


def fit_gain(x: ArrayLike, y: ArrayLike, groups: Sequence[Any]) -> GainModel:
    """Fit the gain on predictors, and once more without each group.

    Parameters
    ----------
    x : (n, p) array_like
        Predictors; with p = 0 the model is the mean.
    y : (n,) array_like
        Gains, as fractions or points.
    groups : sequence of n
        Rows that belong together, such as all models on one dataset; at least four groups.

    Raises
    ------
    ValueError
        If shapes do not fit, numbers are not finite, or groups are fewer than four.
    """
    x, y = _rows(x), np.asarray(y, dtype=float)
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(x) != len(y) or len(group_of) != len(y):
        raise ValueError(f"Predictors, gains and groups must be alike in number: {len(x)}, {len(y)}, {len(group_of)}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Predictors and gains must be finite numbers.")
    if len(names) < 4:
        raise ValueError(f"Intervals from left-out groups need at least four groups, got {len(names)}.")
    estimators = tuple(_ridge(x[group_of != g], y[group_of != g]) for g in range(len(names)))
    out = np.empty(len(y))
    for g, one in enumerate(estimators):
        out[group_of == g] = one.predict(x[group_of == g])
    center, spread = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1.0)
    away = _away(x, center, spread)
    return GainModel(estimators, _ridge(x, y), np.abs(y - out), group_of, center, spread, away)


def _away(x: Array, center: Array, spread: Array) -> Array:
    """Distance of rows from the center, in deviations averaged over predictors; 0 without predictors."""
    return np.sqrt((((x - center) / spread) ** 2).sum(1) / max(1, x.shape[1]))


def _rows(x: ArrayLike) -> Array:
    x = np.asarray(x, dtype=float)
    if x.ndim != 2:
        raise ValueError(f"Predictors have shape (rows, predictors), got {x.shape}.")
    return x


def _ridge(x: Array, y: Array) -> Any:
    if x.shape[1] == 0:
        return DummyRegressor(strategy="mean").fit(x, y)
    # Leave-one-out chooses the penalty in closed form; a large one is the mean predictor.
    return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 4, 11))).fit(x, y)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of gains for groups that the predictor has not seen.

    Attributes
    ----------
    predicted, low, high, gain : (n,) float64
    mean_error : float
        Mean absolute error.
    skill : float
        ``1 - error / error of the mean predictor``; zero or less means that nothing was predicted.
    skill_low, skill_high : float
        95% interval from resampling groups.
    coverage : float
        Share of gains inside their interval.
    width : float
        Mean width of the intervals.
    """

    predicted: Array
    low: Array
    high: Array
    gain: Array
    mean_error: float
    skill: float
    skill_low: float
    skill_high: float
    coverage: float
    width: float


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
    """Predict every group's gains from the others, with intervals, and compare with their mean.

    Parameters
    ----------
    x, y, groups
        See :func:`fit_gain`; at least five groups.
    level : float
        Of the intervals.
    inner : sequence of n, optional
        Groups that intervals come from, where they are not ``groups``: with a model held
        out, intervals may still come from leaving datasets out.
    n_resamples, seed
        Of the interval of the skill.
    """
    x, y = _rows(x), np.asarray(y, dtype=float)
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    inside = np.asarray(groups if inner is None else inner)
    predicted, low, high, floor = (np.empty(len(y)) for _ in range(4))
    for g in range(len(names)):
        rest, held = group_of != g, group_of == g
        model = fit_gain(x[rest], y[rest], inside[rest].tolist())
        predicted[held], low[held], high[held] = model.predict(x[held], level)
        floor[held] = y[rest].mean()
    errors, floors = np.abs(predicted - y), np.abs(floor - y)
    sums = np.array([[errors[group_of == g].sum(), floors[group_of == g].sum()] for g in range(len(names))])
    drawn = np.random.default_rng(seed).integers(0, len(names), size=(n_resamples, len(names)))
    boot = sums[drawn].sum(1)
    skills = 1.0 - boot[:, 0] / np.maximum(boot[:, 1], 1e-300)
    skill_low, skill_high = np.quantile(skills, [0.025, 0.975])
    return HeldOut(
        predicted,
        low,
        high,
        y,
        float(errors.mean()),
        float(1.0 - errors.sum() / max(floors.sum(), 1e-300)),
        float(skill_low),
        float(skill_high),
        float(np.mean((low <= y) & (y <= high))),
        float(np.mean(high - low)),
    )


@dataclass(frozen=True)
class Decision:
    """What skipping some finetuning runs would have cost and saved.

    Attributes
    ----------
    n_skipped : int
    accuracy_lost : float
        Gain forgone, mean over all rows (a negative gain skipped counts as won).
    lost_by_chance : float
        The same if as many rows were skipped at random.
    lost_at_best : float
        The same if the rows of least gain were skipped.
    share_saved : float
        Share of the training time.
    """

    n_skipped: int
    accuracy_lost: float
    lost_by_chance: float
    lost_at_best: float
    share_saved: float


def skip_decision(skip: ArrayLike, gain: ArrayLike, seconds: ArrayLike) -> Decision:
    """Regret of a rule that skips finetuning: accuracy lost, and training time saved.

    Parameters
    ----------
    skip : (n,) array_like of bool
    gain, seconds : (n,) array_like
        Of each row's finetuning run.
    """
    skip, gain, seconds = np.asarray(skip, dtype=bool), np.asarray(gain, dtype=float), np.asarray(seconds, dtype=float)
    if not skip.shape == gain.shape == seconds.shape or skip.ndim != 1 or not len(skip):
        raise ValueError(f"Give three series of one length, got shapes {skip.shape}, {gain.shape}, {seconds.shape}.")
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


def _with_uncertainty(
    x: ArrayLike, y: ArrayLike, rows_of: Callable[[Array, Array], Array], seed: int, level: float, n_resamples: int
) -> RankCorrelation:
    """A rank correlation, given as a function of (samples, n) arrays, with its interval and p-value."""
    x, y = _paired(x, y)
    rng, n = np.random.default_rng(seed), len(x)
    drawn = rng.integers(0, n, size=(n_resamples, n))
    with np.errstate(invalid="ignore"):
        value = float(rows_of(x[None], y[None])[0])
        boot = rows_of(x[drawn], y[drawn])
    low, high = np.nanquantile(boot, [(1 - level) / 2, (1 + level) / 2])
    shuffled = rng.permuted(np.tile(y, (n_resamples, 1)), axis=1)
    null = rows_of(np.broadcast_to(x, shuffled.shape), shuffled)
    p = (1 + np.sum(np.abs(null) >= abs(value) - 1e-12)) / (1 + n_resamples)
    return RankCorrelation(value, float(low), float(high), float(p), n)


def _row_spearman(x: Array, y: Array) -> Array:
    return _row_correlations(stats.rankdata(x, axis=1), stats.rankdata(y, axis=1))


def _row_kendall(x: Array, y: Array) -> Array:
    """Tau-b of each row; every pair of points is compared."""
    i, j = np.triu_indices(x.shape[1], 1)
    a, b = np.sign(x[:, i] - x[:, j]), np.sign(y[:, i] - y[:, j])
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1)))
