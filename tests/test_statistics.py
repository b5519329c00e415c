"""Statistics against scipy, pandas and brute force."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ntps_utils.evidence.statistics import (
    fit_gain,
    kendall,
    kendall_correlation,
    leave_one_out,
    max_statistic_null,
    max_statistic_test,
    mean_interval,
    partial_spearman,
    pooled_partial_spearman,
    pooled_rank_correlation,
    predict_held_out,
    rank_correlation,
    skip_decision,
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
    fast = max_statistic_null(sweep, 2000, seed=0)
    slow = []
    for _ in range(400):
        y = rng.permutation(7)
        slow.append(max(stats.spearmanr(row, y).statistic for row in sweep))
    np.testing.assert_allclose(np.quantile(fast, [0.25, 0.5, 0.75]), np.quantile(slow, [0.25, 0.5, 0.75]), atol=0.08)
    one = max_statistic_null(np.tile(sweep[:1], (20, 1)), 2000, seed=0)
    assert abs(one.mean()) < 0.05  # twenty copies of one setting are one setting
    assert fast.mean() > 0.4


def test_refusals():
    with pytest.raises(ValueError, match="same length"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        spearman([1, 2, 3], [1, 2, float("nan")])
    with pytest.raises(ValueError, match="settings, points"):
        max_statistic_null([1.0, 2.0], 10, seed=0)


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
    p_values = [
        max_statistic_test(rng.normal(size=(20, 2, 14)), y, n_permutations=200, seed=i).p_best for i in range(60)
    ]
    assert abs(np.mean(p_values) - 0.5) < 0.13
    sweep[7] = y + 0.1 * rng.normal(size=y.shape)
    found = max_statistic_test(sweep, y)
    assert found.rho.argmax() == 7
    assert found.rho[7] == pytest.approx(np.mean([spearman(a, b) for a, b in zip(sweep[7], y, strict=True)]))
    assert found.p_best < 0.01
    with pytest.raises(ValueError, match="needs a target"):
        max_statistic_test(sweep, y[:, :3])


# -- Kendall -----------------------------------------------------------------------


@given(seeds, st.integers(4, 30))
def test_kendall_is_scipys(seed, n):
    x, y, _ = draw(seed, n)
    np.testing.assert_allclose(kendall(x, y), stats.kendalltau(x, y).statistic, atol=1e-12)


def test_kendall_has_an_interval_and_a_permutation_p():
    x, y, _ = draw(3)
    r = kendall_correlation(x, y, seed=0, n_resamples=20000)
    assert r.low < r.rho < r.high
    assert kendall_correlation(x, x, seed=0).rho == 1.0
    z = np.random.default_rng(8).permutation(12).astype(float)
    p = kendall_correlation(np.arange(12.0), z, seed=0, n_resamples=20000).p
    assert p == pytest.approx(stats.kendalltau(np.arange(12.0), z, method="exact").pvalue, abs=0.015)


def test_pooled_partial_is_the_mean_over_groups():
    rows = [draw(seed) for seed in range(3)]
    x, y, z = (np.array(column) for column in zip(*rows, strict=True))
    assert pooled_partial_spearman(x, y, z) == pytest.approx(np.mean([partial_spearman(*row) for row in rows]))


# -- predicting gains ----------------------------------------------------------------


def cells(seed: int, n_groups: int = 12, per_group: int = 3, slope: float = 0.1):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    x = rng.normal(size=(n_groups, 2))[groups] + 0.1 * rng.normal(size=(len(groups), 2))
    y = slope * x[:, 0] + 0.03 * rng.normal(size=n_groups)[groups] + 0.01 * rng.normal(size=len(groups))
    return x, y, groups


def test_jackknife_plus_by_hand():
    x, y, groups = cells(0, n_groups=5, per_group=2)
    model = fit_gain(np.empty((10, 0)), y, groups)
    middle, low, high = model.predict(np.empty((1, 0)), level=0.8)
    means = np.array([y[groups != g].mean() for g in groups])
    errors = np.abs(y - means)
    assert middle[0] == pytest.approx(y.mean())
    # ceil(0.8 * 11) = 9: the ninth of ten from below, and from above.
    assert high[0] == pytest.approx(np.sort(means + errors)[8])
    assert low[0] == pytest.approx(np.sort(means - errors)[1])


def test_intervals_cover_new_groups_as_often_as_they_say():
    inside, widths = [], []
    for seed in range(120):
        x, y, groups = cells(seed, n_groups=13)
        model = fit_gain(x[groups < 12], y[groups < 12], groups[groups < 12])
        _, low, high = model.predict(x[groups == 12][:1], level=0.8)
        inside.append(low[0] <= y[groups == 12][0] <= high[0])
        widths.append(high[0] - low[0])
    assert 0.7 <= np.mean(inside) <= 0.93
    assert np.mean(widths) < 0.2


def test_a_predictor_has_skill_and_noise_has_none():
    x, y, groups = cells(1, n_groups=15)
    good = predict_held_out(x, y, groups)
    assert good.skill > 0.4
    assert good.skill_low > 0
    assert 0.6 <= good.coverage <= 1.0
    noise = predict_held_out(np.random.default_rng(0).normal(size=x.shape), y, groups)
    assert noise.skill_low <= 0.0
    floor = predict_held_out(np.empty((len(y), 0)), y, groups)
    assert floor.skill == pytest.approx(0.0, abs=1e-12)


def test_held_out_predictions_never_saw_their_group():
    x, y, groups = cells(2)
    one = predict_held_out(x, y, groups)
    moved = y.copy()
    moved[groups == 3] += 100.0
    two = predict_held_out(x, moved, groups)
    np.testing.assert_allclose(one.predicted[groups == 3], two.predicted[groups == 3])
    np.testing.assert_allclose(one.high[groups == 3], two.high[groups == 3])


def test_few_models_can_be_held_out_with_intervals_over_datasets():
    x, y, groups = cells(4)
    models = np.tile(np.arange(3), 12)
    out = predict_held_out(x, y, models, inner=groups.tolist())
    assert np.isfinite(out.predicted).all()
    with pytest.raises(ValueError, match="at least four groups, got 2"):
        predict_held_out(x, y, models)


def test_distance_is_the_share_of_rows_nearer_to_the_middle():
    x, y, groups = cells(5)
    model = fit_gain(x, y, groups)
    far, near = model.distance([[50.0, -50.0], x.mean(0)])
    assert far == 1.0
    assert near == 0.0


def test_regret_of_skipping():
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
        (lambda: fit_gain(np.ones(4), np.ones(4), range(4)), r"shape \(rows, predictors\)"),
        (lambda: fit_gain(np.ones((4, 1)), np.ones(3), range(4)), "alike in number"),
        (lambda: fit_gain(np.full((4, 1), np.nan), np.ones(4), range(4)), "finite"),
        (lambda: skip_decision([True], [0.1, 0.2], [1.0, 2.0]), "one length"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_interval_of_a_mean_against_scipy():
    values = np.random.default_rng(0).normal(0.3, 1.0, size=40)
    mean, low, high = mean_interval(values, seed=0, n_resamples=20000)
    ours = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=1)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(ours.confidence_interval), abs=0.02)
    with pytest.raises(ValueError, match="at least three finite"):
        mean_interval([1.0, np.nan, 2.0], seed=0)


def test_noise_is_rarely_called_skill():
    """Predictors that have nothing to do with the gain: the interval of the skill starts above zero 1 time in 40."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(11), 3)
        x = rng.normal(size=(11, 4))[groups] + 0.3 * rng.normal(size=(33, 4))
        y = rng.exponential(size=11)[groups] + 0.2 * rng.normal(size=33)
        found.append(predict_held_out(x, y, groups.tolist(), n_resamples=500).skill_low > 0)
    assert np.mean(found) <= 0.15


# -- to the last digit, by loops over the same random numbers ------------------------


def quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    ordered = sorted(v for v in values if not np.isnan(v))
    return tuple(float(np.interp(q * (len(ordered) - 1), range(len(ordered)), ordered))
                 for q in (0.5 - level / 2, 0.5 + level / 2))  # fmt: skip


def one_rho(x, y) -> float:
    return np.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else stats.spearmanr(x, y).statistic


@pytest.mark.parametrize(("seed", "n", "level"), [(0, 7, 0.95), (3, 12, 0.8), (5, 4, 0.5)])
def test_interval_and_p_value_are_their_definitions(seed, n, level):
    x, y, _ = draw(seed, n)
    found = rank_correlation(x, y, seed=seed, level=level, n_resamples=150)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, n, size=(150, n))
    boot = np.array([one_rho(x[row], y[row]) for row in rows])
    shuffled = rng.permuted(np.tile(y, (150, 1)), axis=1)
    null = np.array([one_rho(x, row) for row in shuffled])
    rho = one_rho(x, y)
    assert found.n == n
    assert (found.rho, found.low, found.high) == pytest.approx((rho, *quantiles(boot, level)), abs=1e-9)
    assert found.p == pytest.approx((1 + sum(abs(v) >= abs(rho) - 1e-9 for v in null)) / 151, abs=1e-12)


@pytest.mark.parametrize(("seed", "n", "level"), [(0, 3, 0.95), (2, 9, 0.7)])
def test_pooled_interval_and_p_value_are_their_definitions(seed, n, level):
    x, y = (np.stack(rows) for rows in zip(*(draw(seed + i, n)[:2] for i in range(3)), strict=True))
    found = pooled_rank_correlation(x, y, n_resamples=120, level=level, seed=seed)
    rng = np.random.default_rng(seed)

    def pooled(columns, permuted) -> float:
        return float(np.mean([one_rho(a[columns], b[permuted]) for a, b in zip(x, y, strict=True)]))

    whole = np.arange(n)
    boot = np.array([pooled(row, row) for row in rng.integers(0, n, size=(120, n))])
    null = [pooled(whole, row) for row in rng.permuted(np.tile(whole, (120, 1)), axis=1)]
    rho = pooled(whole, whole)
    assert found.n == n
    assert (found.rho, found.low, found.high) == pytest.approx((rho, *quantiles(boot, level)), abs=1e-9)
    assert found.p == pytest.approx((1 + sum(abs(v) >= abs(rho) - 1e-9 for v in null)) / 121, abs=1e-12)


def test_the_interval_of_a_mean_is_its_definition():
    values = [3, 1, 4, 1, 5]  # whole numbers are numbers
    mean, low, high = mean_interval(values, seed=4, level=0.9, n_resamples=99)
    drawn = np.random.default_rng(4).choice(np.array(values, float), size=(99, 5))
    assert mean == pytest.approx(2.8)
    assert (low, high) == pytest.approx(quantiles(np.array([np.mean(row) for row in drawn]), 0.9))
    assert mean_interval([1.0, 2.0, 4.0], seed=0)[0] == pytest.approx(7 / 3)  # three are enough
    for wrong in ([1.0, 2.0], [[1.0, 2.0, 3.0]], [1.0, 2.0, np.nan]):
        with pytest.raises(ValueError, match="Give at least three finite values"):
            mean_interval(wrong, seed=0)


def test_seeds_decide_everything_random():
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


def test_a_constant_setting_of_a_sweep_counts_for_nothing():
    x, y, _ = draw(0)
    with_constant = max_statistic_null([x, np.ones(12)], 40, 0)
    np.testing.assert_allclose(with_constant, max_statistic_null([x], 40, 0), atol=1e-12)
    sweep = max_statistic_test([[x], [np.ones(12)]], [y], n_permutations=40)
    assert sweep.rho[1] == 0.0
    assert sweep.rho[0] == pytest.approx(one_rho(x, y))


def test_lists_of_whole_numbers_are_numbers():
    decision = skip_decision([True, False, True], [1, 2, 3], [0, 0, 0])
    assert astuple(decision) == pytest.approx((2, 4 / 3, 4 / 3, 1.0, 0.0))
    for skip, gain in (([], []), ([True], [1, 2])):
        with pytest.raises(ValueError, match="Give three series of one length"):
            skip_decision(skip, gain, gain)
