"""Statistics against scipy, scikit-learn, and definitions written as loops."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ntps_utils.evidence.statistics import (
    ALPHAS,
    Estimate,
    GainRegressor,
    kendall,
    kendall_correlation,
    leave_one_out,
    left_out_medians,
    max_statistic_null,
    max_statistic_test,
    mean_interval,
    partial_spearman,
    pooled_partial_spearman,
    pooled_rank_correlation,
    pooled_rank_difference,
    predict_held_out,
    predict_left_out,
    rank_correlation,
    skill_by_size,
    skip_decision,
    spearman,
)

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    return z + rng.normal(size=n), np.round(z + rng.normal(size=n), 1), z


@given(seeds, st.integers(4, 30))
def test_spearman_matches_scipy(seed, n):
    x, y, _ = draw(seed, n)
    np.testing.assert_allclose(spearman(x, y), stats.spearmanr(x, y).statistic, atol=1e-12)


@given(seeds)
def test_partial_correlation_matches_correlation_of_rank_residuals(seed):
    x, y, z = (stats.rankdata(v) for v in draw(seed))

    def residual(v):
        return v - np.polyval(np.polyfit(z, v, 1), z)

    expected = np.corrcoef(residual(x), residual(y))[0, 1]
    np.testing.assert_allclose(partial_spearman(x, y, z), expected, atol=1e-9)


def test_permutation_p_value_approximates_the_exact_one():
    x, y = np.arange(5.0), np.array([1.0, 0.0, 2.0, 4.0, 3.0])
    from itertools import permutations

    rho = spearman(x, y)
    exact = np.mean([abs(spearman(x, np.array(p))) >= abs(rho) - 1e-12 for p in permutations(y)])
    assert abs(rank_correlation(x, y, seed=0, n_resamples=20_000).p - exact) < 0.02


@pytest.mark.slow
def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(0)
    p = [rank_correlation(*rng.normal(size=(2, 12)), seed=i, n_resamples=400).p for i in range(400)]
    assert abs(np.mean(np.array(p) < 0.1) - 0.1) < 0.05


@pytest.mark.slow
def test_intervals_cover():
    """The percentile bootstrap of 12 points covers less often than its nominal level, but at least 85% of the time."""
    rng = np.random.default_rng(1)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's rho of a normal pair with correlation 0.6
    covered = 0
    for i in range(300):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 12).T
        r = rank_correlation(x, y, seed=i, n_resamples=400)
        covered += r.low <= truth <= r.high
        assert r.low <= r.high
    assert covered / 300 > 0.85


def test_leave_one_out_matches_deletion():
    x, y, _ = draw(3)
    values = leave_one_out(x, y)
    assert len(values) == 12
    np.testing.assert_allclose(values[4], stats.spearmanr(np.delete(x, 4), np.delete(y, 4)).statistic)


@pytest.mark.slow
def test_null_of_the_best_setting_matches_brute_force():
    rng = np.random.default_rng(2)
    sweep = rng.normal(size=(20, 7))
    fast = max_statistic_null(sweep, 2000, seed=0)
    slow = []
    for _ in range(400):
        y = rng.permutation(7)
        slow.append(stats.spearmanr(np.vstack([sweep, y]), axis=1).statistic[-1, :-1].max())
    np.testing.assert_allclose(np.quantile(fast, [0.25, 0.5, 0.75]), np.quantile(slow, [0.25, 0.5, 0.75]), atol=0.08)
    one = max_statistic_null(np.tile(sweep[:1], (20, 1)), 2000, seed=0)
    assert abs(one.mean()) < 0.05  # twenty copies of a setting count as one setting
    assert fast.mean() > 0.4


def test_invalid_input_of_correlations_raises():
    with pytest.raises(ValueError, match="same length"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        spearman([1, 2, 3], [1, 2, float("nan")])
    with pytest.raises(ValueError, match=r"shape \(settings, points\)"):
        max_statistic_null([1.0, 2.0], 10, seed=0)


def test_pooled_correlation_of_one_group_matches_rank_correlation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    pooled = pooled_rank_correlation(x[None], y[None], seed=1)
    assert pooled.rho == pytest.approx(spearman(x, y))
    plain = rank_correlation(x, y, seed=1)
    assert pooled.p == pytest.approx(plain.p, abs=0.03)


def test_pooled_correlation_averages_groups_and_resamples_points_jointly():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 3, 15))
    pooled = pooled_rank_correlation(x, y)
    assert pooled.rho == pytest.approx(np.mean([spearman(a, b) for a, b in zip(x, y, strict=True)]))
    # Three copies of a group give the same interval and p-value as one.
    once, thrice = (pooled_rank_correlation(np.tile(x[0], (n, 1)), np.tile(y[0], (n, 1))) for n in (1, 3))
    assert (once.low, once.high, once.p) == pytest.approx((thrice.low, thrice.high, thrice.p))
    with pytest.raises(ValueError, match="of the same shape"):
        pooled_rank_correlation(x, y[:2])


def test_one_sided_p_values_of_pooled_correlations_are_those_of_scipy():
    x, y = np.random.default_rng(5).normal(size=(2, 1, 12))
    upper, lower = (pooled_rank_correlation(x, y, alternative=side, n_resamples=4000).p for side in ("greater", "less"))
    assert upper + lower == pytest.approx(1.0, abs=0.02)

    def statistic(a):
        return stats.spearmanr(a, y[0]).statistic

    test = stats.permutation_test(
        (x[0],),
        statistic,
        permutation_type="pairings",
        n_resamples=4000,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    assert upper == pytest.approx(test.pvalue, abs=0.03)
    with pytest.raises(ValueError, match="alternative must be 'two-sided', 'greater' or 'less', got 'upper'"):
        pooled_rank_correlation(x, y, alternative="upper")


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_an_undefined_correlation_has_the_p_value_one(alternative):
    x, y = np.random.default_rng(0).normal(size=(2, 2, 9))
    x[1] = 0.5
    result = pooled_rank_correlation(x, y, alternative=alternative, n_resamples=50)
    assert np.isnan(result.rho)
    assert result.p == 1.0


def test_estimates_without_a_defined_resample_have_no_interval():
    estimate = Estimate.from_resamples(0.3, [np.nan, np.nan])
    assert (np.isnan(estimate.low), estimate.p) == (True, 1.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_clusters_are_resampled_as_a_whole(seed):
    rng = np.random.default_rng(seed)
    x, other, y = rng.integers(0, 6, size=(3, 2, 9)).astype(float)  # with ties
    clusters = np.array(["a", "b", "a", "c", "d", "e", "e", "e", "f"])
    members = [np.flatnonzero(clusters == name) for name in np.unique(clusters)]
    draws = np.random.default_rng(seed).integers(0, len(members), size=(150, len(members)))
    rows = [np.concatenate([members[i] for i in draw]) for draw in draws]

    def pooled(a, columns) -> float:
        with np.errstate(invalid="ignore"):
            return float(np.mean([one_rho(u[columns], v[columns]) for u, v in zip(a, y, strict=True)]))

    options = {"clusters": clusters, "n_resamples": 150, "seed": seed}
    result = pooled_rank_correlation(x, y, **options)
    boot = np.array([pooled(x, row) for row in rows])
    assert (result.low, result.high) == pytest.approx(np.nanquantile(boot, [0.025, 0.975]), abs=1e-9)
    difference = pooled_rank_difference(x, other, y, **options)
    boot = np.array([pooled(x, row) - pooled(other, row) for row in rows])
    assert difference.value == pytest.approx(pooled(x, np.arange(9)) - pooled(other, np.arange(9)))
    assert difference.p == pytest.approx((1 + np.sum(boot <= 1e-12)) / (1 + np.isfinite(boot).sum()), abs=0.01)
    assert (difference.low, difference.high) == pytest.approx(np.nanquantile(boot, [0.025, 0.975]), abs=1e-9)
    with pytest.raises(ValueError, match="at least three different ones"):
        pooled_rank_correlation(x, y, clusters=["a"] * 9)


@pytest.mark.slow
def test_pooled_intervals_cover_and_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(2)
    results = [pooled_rank_correlation(*rng.normal(size=(2, 2, 15)), n_resamples=200, seed=i) for i in range(200)]
    assert np.mean([r.low <= 0 <= r.high for r in results]) > 0.9
    assert abs(np.mean([r.p for r in results]) - 0.5) < 0.08


def test_max_statistic_test_detects_a_related_setting_and_is_calibrated_on_noise():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(2, 14))
    sweep = rng.normal(size=(20, 2, 14))
    p_values = [
        max_statistic_test(rng.normal(size=(20, 2, 14)), y, n_permutations=200, seed=i).p_best for i in range(60)
    ]
    assert abs(np.mean(p_values) - 0.5) < 0.13
    sweep[7] = y + 0.1 * rng.normal(size=y.shape)
    test = max_statistic_test(sweep, y)
    assert test.rho.argmax() == 7
    assert test.rho[7] == pytest.approx(np.mean([spearman(a, b) for a, b in zip(sweep[7], y, strict=True)]))
    assert test.p_best < 0.01
    with pytest.raises(ValueError, match=r"y shape \(groups, n\)"):
        max_statistic_test(sweep, y[:, :3])


# -- Kendall -----------------------------------------------------------------------


@given(seeds, st.integers(4, 30))
def test_kendall_matches_scipy(seed, n):
    x, y, _ = draw(seed, n)
    np.testing.assert_allclose(kendall(x, y), stats.kendalltau(x, y).statistic, atol=1e-12)


def test_kendall_correlation_has_an_interval_and_a_permutation_p_value():
    x, y, _ = draw(3)
    r = kendall_correlation(x, y, seed=0, n_resamples=20000)
    assert r.low < r.rho < r.high
    assert kendall_correlation(x, x, seed=0).rho == 1.0
    z = np.random.default_rng(8).permutation(12).astype(float)
    p = kendall_correlation(np.arange(12.0), z, seed=0, n_resamples=20000).p
    assert p == pytest.approx(stats.kendalltau(np.arange(12.0), z, method="exact").pvalue, abs=0.015)


def test_pooled_partial_correlation_is_the_mean_over_groups():
    rows = [draw(seed) for seed in range(3)]
    x, y, z = (np.array(column) for column in zip(*rows, strict=True))
    assert pooled_partial_spearman(x, y, z) == pytest.approx(np.mean([partial_spearman(*row) for row in rows]))


# -- prediction of gains ----------------------------------------------------------------


def cells(seed: int, n_groups: int = 12, per_group: int = 3, slope: float = 0.1):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    x = rng.normal(size=(n_groups, 2))[groups] + 0.1 * rng.normal(size=(len(groups), 2))
    y = slope * x[:, 0] + 0.03 * rng.normal(size=n_groups)[groups] + 0.01 * rng.normal(size=len(groups))
    return x, y, groups


def fitted() -> GainRegressor:
    return GainRegressor().fit(*cells(0, n_groups=5))


def test_jackknife_plus_interval_matches_its_definition():
    x, y, groups = cells(0, n_groups=5, per_group=2)
    model = GainRegressor().fit(np.empty((10, 0)), y, groups)
    prediction = model.predict(np.empty((1, 0)))
    low, high = model.predict_interval(np.empty((1, 0)), level=0.8)
    means = np.array([y[groups != g].mean() for g in groups])
    errors = np.abs(y - means)
    assert prediction[0] == pytest.approx(y.mean())
    # ceil(0.8 * 11) = 9: the ninth smallest and the ninth largest of ten.
    assert high[0] == pytest.approx(np.sort(means + errors)[8])
    assert low[0] == pytest.approx(np.sort(means - errors)[1])


@pytest.mark.slow
def test_gain_intervals_cover_new_groups_at_their_nominal_level():
    inside, widths = [], []
    for seed in range(120):
        x, y, groups = cells(seed, n_groups=13)
        model = GainRegressor().fit(x[groups < 12], y[groups < 12], groups[groups < 12])
        low, high = model.predict_interval(x[groups == 12][:1], level=0.8)
        inside.append(low[0] <= y[groups == 12][0] <= high[0])
        widths.append(high[0] - low[0])
    assert 0.7 <= np.mean(inside) <= 0.93
    assert np.mean(widths) < 0.2


@pytest.mark.slow
def test_informative_predictors_have_skill_and_noise_has_none():
    x, y, groups = cells(1, n_groups=15)
    good = predict_held_out(x, y, groups).performance
    assert good.skill > 0.4
    assert good.skill_low > 0
    assert 0.6 <= good.coverage <= 1.0
    noise = predict_held_out(np.random.default_rng(0).normal(size=x.shape), y, groups)
    assert noise.performance.skill_low <= 0.0
    without_predictors = predict_held_out(np.empty((len(y), 0)), y, groups)
    assert without_predictors.performance.skill < 0.05  # their mean is no better than the median


def test_the_baseline_is_the_median_of_the_other_groups():
    """Against the formulas, by loops."""
    x, y, groups = cells(3, n_groups=6)
    y = np.exp(3 * y)  # skewed, so that mean and median differ
    medians = [np.median([y[j] for j in range(len(y)) if groups[j] != groups[i]]) for i in range(len(y))]
    assert left_out_medians(y, groups) == pytest.approx(medians)
    out = predict_held_out(x, y, groups, n_resamples=50)
    expected = 1 - np.abs(out.predicted - y).sum() / np.abs(np.array(medians) - y).sum()
    assert out.performance.skill == pytest.approx(expected)


def test_skill_grows_with_the_number_of_groups_and_ends_at_that_of_all():
    x, y, groups = cells(1, n_groups=15)
    found = skill_by_size(x, y, groups, (2, 5, 14), n_draws=10)
    assert found[2] < found[5] < found[14]
    assert found[14] == pytest.approx(predict_held_out(x, y, groups, n_resamples=9).performance.skill)
    with pytest.raises(ValueError, match="must be smaller than the number of groups, 15, got 15"):
        skill_by_size(x, y, groups, (15,))


@pytest.mark.slow
def test_held_out_predictions_do_not_depend_on_their_group():
    x, y, groups = cells(2)
    one = predict_held_out(x, y, groups)
    moved = y.copy()
    moved[groups == 3] += 100.0
    two = predict_held_out(x, moved, groups)
    np.testing.assert_allclose(one.predicted[groups == 3], two.predicted[groups == 3])
    np.testing.assert_allclose(one.high[groups == 3], two.high[groups == 3])


def test_models_can_be_left_out_with_intervals_over_datasets():
    x, y, groups = cells(4)
    models = np.tile(np.arange(3), 12)
    out = predict_held_out(x, y, models, inner=groups.tolist())
    assert np.isfinite(out.predicted).all()
    with pytest.raises(ValueError, match="at least four groups, got 2"):
        predict_held_out(x, y, models)


def test_distance_is_the_share_of_rows_nearer_to_the_mean():
    x, y, groups = cells(5)
    model = GainRegressor().fit(x, y, groups)
    far, near = model.distance([[50.0, -50.0], x.mean(0)])
    assert far == 1.0
    assert near == 0.0


def test_skip_decision_matches_its_definition():
    gain, seconds = np.array([0.3, -0.1, 0.0, 0.2]), np.array([1.0, 2.0, 3.0, 4.0])
    d = skip_decision([False, True, True, False], gain, seconds)
    assert (d.n_skipped, d.accuracy_lost, d.lost_by_chance) == (2, pytest.approx(-0.025), pytest.approx(0.05))
    assert d.lost_at_best == pytest.approx(-0.025)
    assert d.share_saved == pytest.approx(0.5)
    nothing = skip_decision([False] * 4, gain, seconds)
    assert (nothing.accuracy_lost, nothing.share_saved) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GainRegressor().fit(np.ones(4), np.ones(4), range(4)), r"shape \(rows, predictors\), got \(4,\)"),
        (lambda: GainRegressor().fit(np.ones((4, 1)), np.ones(3), range(4)), "same number of rows"),
        (lambda: GainRegressor().fit(np.ones((4, 1)), np.ones(4), range(3)), "same number of rows"),
        (lambda: GainRegressor().fit(np.full((4, 1), np.nan), np.ones(4), range(4)), "finite"),
        (lambda: GainRegressor((0.0, 1.0)).fit(np.ones((4, 1)), np.ones(4), range(4)), r"positive numbers, got \(0.0"),
        (lambda: fitted().predict(np.ones((2, 3))), "must have 2 columns, as in fit, got 3"),
        (lambda: fitted().predict_interval(np.ones((1, 2)), level=80), r"level must be a number in \(0, 1\), got 80"),
        (lambda: skip_decision([True], [0.1, 0.2], [1.0, 2.0]), "the same length"),
    ],
)
def test_invalid_input_of_gain_predictions_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("correlation", [rank_correlation, kendall_correlation])
def test_interval_and_p_value_match_scipy_where_scipy_defines_them(correlation):
    """For 12 points without ties, no resample is constant and the permutation test is not exact."""
    x, y, z = draw(6)
    y = y + 1e-3 * z
    statistic = {rank_correlation: spearman, kendall_correlation: kendall}[correlation]
    result = correlation(x, y, seed=2, n_resamples=300)
    options = {"n_resamples": 300, "rng": np.random.default_rng(2)}
    interval = stats.bootstrap((x, y), statistic, paired=True, vectorized=False, method="percentile", **options)
    assert (result.low, result.high) == pytest.approx(tuple(interval.confidence_interval))
    test = stats.permutation_test(
        (x,), lambda a: abs(statistic(a, y)), permutation_type="pairings", alternative="greater", **options
    )
    assert result.p == pytest.approx(test.pvalue, abs=0.08)


def test_gain_regressor_follows_the_conventions_of_scikit_learn():
    x, y, groups = cells(6)
    model = GainRegressor(alphas=(0.1, 10.0))
    with pytest.raises(NotFittedError):
        model.predict(x)
    assert clone(model).get_params() == {"alphas": (0.1, 10.0)}
    assert model.fit(x, y, groups) is model
    assert model.score(x, y) == pytest.approx(r2_score(y, model.predict(x)))
    assert model.alpha_ in (0.1, 10.0)
    assert (model.group_coefs_.shape, model.n_features_in_) == ((12, 2), 2)


def ridge_of_scikit_learn(x, y):
    if x.shape[1] == 0:
        return DummyRegressor(strategy="mean").fit(x, y)
    return make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS)).fit(x, y)


@given(seeds, st.integers(8, 30), st.integers(1, 12), st.booleans())
def test_regressions_of_the_gain_are_those_of_scikit_learn(seed, n, p, constant):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * 10.0 ** rng.uniform(-3, 3, p) + rng.normal(size=p)
    x[:, 0] = 0.3 if constant else x[:, 0]
    y = rng.normal() + x @ rng.normal(size=p) / np.linalg.norm(x) + 0.1 * rng.normal(size=n)
    new = rng.normal(size=(3, p))
    model, oracle = GainRegressor().fit(x, y, np.arange(n)), ridge_of_scikit_learn(x, y)
    assert model.alpha_ == oracle[-1].alpha_
    assert model.predict(new) == pytest.approx(oracle.predict(new), rel=1e-7)


@pytest.mark.parametrize("p", [0, 1, 3])
def test_intervals_are_those_of_the_regressions_without_each_group(p):
    rng = np.random.default_rng(p)
    x, y, groups = rng.normal(size=(24, p)) * 10.0 ** rng.uniform(-3, 3, p), rng.normal(size=24), np.arange(24) // 3
    new, level = rng.normal(size=(5, p)), 0.7
    model = GainRegressor().fit(x, y, groups)
    without = [ridge_of_scikit_learn(x[groups != group], y[groups != group]) for group in groups]
    every = np.stack([one.predict(new) for one in without])
    own = [one.predict(row[None])[0] for one, row in zip(without, x, strict=True)]
    assert predict_left_out(x, y, groups) == pytest.approx(np.array(own))
    assert model.left_out_ == pytest.approx(np.array(own))
    errors, k = np.abs(y - own)[:, None], int(np.ceil(level * 25))
    low, high = model.predict_interval(new, level)
    assert high == pytest.approx(np.sort(every + errors, axis=0)[k - 1])
    assert low == pytest.approx(np.sort(every - errors, axis=0)[24 - k])


@pytest.mark.slow
def test_skill_interval_of_noise_rarely_excludes_zero():
    """Predictors that are unrelated to the gain; seven groups keep the number of regressions small."""
    significant = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(7), 3)
        x = rng.normal(size=(7, 4))[groups] + 0.3 * rng.normal(size=(21, 4))
        y = rng.exponential(size=7)[groups] + 0.2 * rng.normal(size=21)
        significant.append(predict_held_out(x, y, groups, n_resamples=500).performance.skill_low > 0)
    assert np.mean(significant) <= 0.15


# -- to the last digit, by loops over the same random numbers ------------------------


def quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    ordered = sorted(v for v in values if not np.isnan(v))
    return tuple(float(np.interp(q * (len(ordered) - 1), range(len(ordered)), ordered))
                 for q in (0.5 - level / 2, 0.5 + level / 2))  # fmt: skip


def one_rho(x, y) -> float:
    return np.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else stats.spearmanr(x, y).statistic


@pytest.mark.parametrize(("seed", "n", "level"), [(0, 7, 0.95), (3, 12, 0.8), (5, 4, 0.5)])
def test_interval_and_p_value_match_their_definitions(seed, n, level):
    x, y, _ = draw(seed, n)
    result = rank_correlation(x, y, seed=seed, level=level, n_resamples=150)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, n, size=(150, n))
    boot = np.array([one_rho(x[row], y[row]) for row in rows])
    shuffled = rng.permuted(np.tile(y, (150, 1)), axis=1)
    null = np.array([one_rho(x, row) for row in shuffled])
    rho = one_rho(x, y)
    assert result.n == n
    assert (result.rho, result.low, result.high) == pytest.approx((rho, *quantiles(boot, level)), abs=1e-9)
    assert result.p == pytest.approx((1 + sum(abs(v) >= abs(rho) - 1e-9 for v in null)) / 151, abs=1e-12)


@pytest.mark.parametrize(("seed", "n", "level"), [(0, 3, 0.95), (2, 9, 0.7)])
def test_pooled_interval_and_p_value_match_their_definitions(seed, n, level):
    x, y = (np.stack(rows) for rows in zip(*(draw(seed + i, n)[:2] for i in range(3)), strict=True))
    result = pooled_rank_correlation(x, y, n_resamples=120, level=level, seed=seed)
    rng = np.random.default_rng(seed)

    def pooled(columns, permuted) -> float:
        return float(np.mean([one_rho(a[columns], b[permuted]) for a, b in zip(x, y, strict=True)]))

    whole = np.arange(n)
    boot = np.array([pooled(row, row) for row in rng.integers(0, n, size=(120, n))])
    null = [pooled(whole, row) for row in rng.permuted(np.tile(whole, (120, 1)), axis=1)]
    rho = pooled(whole, whole)
    assert result.n == n
    assert (result.rho, result.low, result.high) == pytest.approx((rho, *quantiles(boot, level)), abs=1e-9)
    assert result.p == pytest.approx((1 + sum(abs(v) >= abs(rho) - 1e-9 for v in null)) / 121, abs=1e-12)


def test_interval_of_a_mean_matches_its_definition():
    values = [3, 1, 4, 1, 5]  # integers are valid
    mean, low, high = mean_interval(values, seed=4, level=0.9, n_resamples=99)
    drawn = np.random.default_rng(4).choice(np.array(values, float), size=(99, 5))
    assert mean == pytest.approx(2.8)
    assert (low, high) == pytest.approx(quantiles(np.array([np.mean(row) for row in drawn]), 0.9))
    assert mean_interval([1.0, 2.0, 4.0], seed=0)[0] == pytest.approx(7 / 3)  # the smallest valid number of values
    for invalid in ([1.0, 2.0], [[1.0, 2.0, 3.0]], [1.0, 2.0, np.nan]):
        with pytest.raises(ValueError, match="Give at least three finite values"):
            mean_interval(invalid, seed=0)


def test_seeds_determine_all_random_results():
    x, y, z = draw(0)
    for make in (
        lambda seed: rank_correlation(x, y, seed=seed, n_resamples=50),
        lambda seed: kendall_correlation(x, y, seed=seed, n_resamples=50),
        lambda seed: pooled_rank_correlation([x, z], [y, y], seed=seed, n_resamples=50),
        lambda seed: mean_interval(x, seed=seed, n_resamples=50),
        lambda seed: tuple(max_statistic_null([x, z], 50, seed)),
        lambda seed: tuple(max_statistic_test([[x], [z]], [y], n_permutations=50, seed=seed).null),
    ):
        assert make(1) == make(1)
        assert make(1) != make(2)


def test_constant_settings_of_a_sweep_are_ignored():
    x, y, _ = draw(0)
    with_constant = max_statistic_null([x, np.ones(12)], 40, 0)
    np.testing.assert_allclose(with_constant, max_statistic_null([x], 40, 0), atol=1e-12)
    sweep = max_statistic_test([[x], [np.ones(12)]], [y], n_permutations=40)
    assert sweep.rho[1] == 0.0
    assert sweep.rho[0] == pytest.approx(one_rho(x, y))


def test_skip_decision_accepts_lists_of_integers():
    decision = skip_decision([True, False, True], [1, 2, 3], [0, 0, 0])
    assert astuple(decision) == pytest.approx((2, 4 / 3, 4 / 3, 1.0, 0.0))
    for skip, gain in (([], []), ([True], [1, 2])):
        with pytest.raises(ValueError, match="must have the same length"):
            skip_decision(skip, gain, gain)


def test_left_out_predictions_are_those_with_intervals():
    rng = np.random.default_rng(0)
    x, y, groups = rng.normal(size=(24, 2)), rng.normal(size=24), np.repeat(np.arange(8), 3)
    assert predict_left_out(x, y, groups) == pytest.approx(predict_held_out(x, y, groups, n_resamples=9).predicted)
