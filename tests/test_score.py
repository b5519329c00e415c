"""Scores, losses and bounds: the statements of the theory as property tests, and the reports."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import whiten
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.report import ScoreReport, score_layer
from ntps_utils.theory.score import NumericalWarning, _generalized_eigenvalues, resolve_width, subspaces
from ntps_utils.theory.synthetic import Problem, exact_problem, planted_problem, random_problem

pytestmark = pytest.mark.filterwarnings("ignore::ntps_utils.theory.score.NumericalWarning")
seeds = st.integers(0, 2**32 - 1)
centers = st.booleans()


def loss(problem: Problem, V: np.ndarray, center: bool = False) -> float:
    """Mean squared error of the least-squares prediction from the features V^T xbar."""
    x, y = problem.means, problem.targets
    if center:
        x, y = x - x.mean(0), y - y.mean(0)
    z = x @ (V / np.linalg.norm(V, axis=0))
    W = np.linalg.lstsq(z, y, rcond=1e-11)[0]
    return float(np.sum((y - z @ W) ** 2) / len(y))


def solve(problem: Problem, **options):
    return subspaces(problem.moments(), **options)


def draw_width(solved, data) -> int:
    return data.draw(st.integers(1, solved.rank_v))


@given(seeds, centers, st.data())
def test_excess_loss_identity(seed, center, data):
    """Statements (a) and (b): L(V) - L* = sum beta_i (1 - |P~ u~_i|^2) = tr B (1 - ntps_task), and L* = tr Y - tr B."""
    problem = random_problem(seed)
    solved = solve(problem, center=center)
    k = draw_width(solved, data)
    best = loss(problem, np.eye(problem.d), center)
    tolerance = 1e-7 * solved.trace_y
    assert abs(solved.best_loss - best) < tolerance
    assert abs(solved.excess_loss[k - 1] - (loss(problem, solved.V[:, :k], center) - best)) < tolerance
    assert abs(solved.excess_loss[k - 1] - solved.trace_b * (1 - solved.ntps_task[k - 1])) < tolerance


@given(seeds, centers)
def test_bounds_hold(seed, center):
    """Statements (c), (d) and (e) hold for every k_v, up to rounding error."""
    solved = solve(random_problem(seed), center=center)
    eps = 1e-9
    tiny = 1e-12 * solved.trace_b
    for bounds in (solved.bounds, solved.bounds_metric):
        assert np.all(bounds.lower <= solved.excess_loss * (1 + eps) + tiny)
        assert np.all(solved.excess_loss <= bounds.upper * (1 + eps) + tiny)
        assert np.all(bounds.looseness >= 1 - eps)
    k = slice(0, min(solved.r - 1, solved.rank_v))
    assert np.all(solved.bounds_rank_k.lower[k] <= solved.excess_loss_rank_k[k] * (1 + 1e-7) + 1e-9 * solved.trace_b)
    assert np.all(solved.excess_loss_rank_k[k] <= solved.bounds_rank_k.upper[k] * (1 + 1e-7) + 1e-9 * solved.trace_b)
    assert np.all(np.isnan(solved.excess_loss_rank_k[k.stop :]))
    assert np.all(np.isnan(solved.bounds_rank_k.upper[k.stop :]))


@given(seeds, centers)
def test_metric_bound_is_never_looser_than_the_euclidean_bound(seed, center):
    solved = solve(random_problem(seed), center=center)
    assert np.all(solved.bounds_metric.looseness <= solved.bounds.looseness * (1 + 1e-6))


def test_bounds_are_identities_if_S_is_isotropic_and_all_beta_are_equal():
    solved = solve(exact_problem(0, condition=1.0, beta_ratio=1.0))
    for bounds in (solved.bounds, solved.bounds_metric):
        np.testing.assert_allclose(bounds.lower, solved.excess_loss, atol=1e-9)
        np.testing.assert_allclose(bounds.upper, solved.excess_loss, atol=1e-9)


@given(seeds, st.floats(0, 6), st.floats(0, 4))
def test_looseness_is_the_product_of_the_condition_number_and_the_beta_ratio(seed, log_condition, log_ratio):
    condition, ratio = 10**log_condition, 10**log_ratio
    solved = solve(exact_problem(seed, condition=condition, beta_ratio=ratio))
    np.testing.assert_allclose(solved.bounds_metric.looseness, ratio, rtol=1e-6)
    np.testing.assert_allclose(solved.bounds.looseness, condition * ratio, rtol=1e-5)


@given(seeds, centers)
def test_scores_of_all_widths_equal_separate_projections(seed, center):
    solved = solve(random_problem(seed), center=center)
    left, values, right = np.linalg.svd(solved.whitening.to_white, full_matrices=False)
    root = right.T * values @ right  # the symmetric square root of S
    for k_u in {1, solved.r}:
        U = solved.U[:, :k_u]
        for k_v in {1, (solved.rank_v + 1) // 2, solved.rank_v}:
            V = solved.V[:, :k_v] / np.linalg.norm(solved.V[:, :k_v], axis=0)
            Q = scipy.linalg.orth(V, rcond=1e-9)
            if Q.shape[1] == k_v:
                expected = np.linalg.norm(Q.T @ U) ** 2 / np.linalg.norm(U) ** 2
                assert abs(solved.ntps[k_u - 1, k_v - 1] - expected) < 1e-6
            white = root @ V
            Q = scipy.linalg.orth(white / np.linalg.norm(white, axis=0), rcond=1e-8)
            if Q.shape[1] == k_v and np.linalg.cond(root @ U) < 1e8:
                Z = root @ U  # orthonormal, for U^T S U = I
                expected = np.linalg.norm(Q.T @ Z) ** 2 / k_u
                assert abs(solved.ntps_metric[k_u - 1, k_v - 1] - expected) < 1e-4


@given(seeds, centers)
def test_scores_are_in_the_unit_interval_and_increase_with_k_v(seed, center):
    solved = solve(random_problem(seed), center=center)
    for grid in (solved.ntps, solved.ntps_metric, solved.ntps_task[None]):
        assert grid.min() >= -1e-12
        assert grid.max() <= 1 + 1e-9
        assert np.all(np.diff(grid, axis=1) >= -1e-12)
    assert np.all(np.diff(solved.excess_loss) <= 1e-12)
    assert np.all(solved.excess_loss >= 0)


def well_posed(seed: int, **options) -> Problem:
    return random_problem(seed, d=5, n_texts=60, rank=5, condition=5.0, offset=1.0, **options)


@given(seeds)
def test_metric_scores_of_a_given_subspace_are_invariant_under_linear_maps(seed):
    """V is mapped with the features, by M^-T."""
    rng = np.random.default_rng(seed)
    problem = well_posed(seed)
    base = solve(problem)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    M = rotation @ np.diag(np.geomspace(1, 20, 5)) @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    transformed = replace(solve(problem.transform(M)), V=np.linalg.solve(M.T, base.V))
    np.testing.assert_allclose(transformed.beta, base.beta, rtol=1e-6)
    np.testing.assert_allclose(transformed.ntps_metric[-1], base.ntps_metric[-1], atol=1e-7)
    np.testing.assert_allclose(transformed.ntps_task, base.ntps_task, atol=1e-7)
    np.testing.assert_allclose(transformed.excess_loss, base.excess_loss, atol=1e-7 * base.trace_b)


@given(seeds)
def test_scores_are_invariant_under_rotation_and_scaling(seed):
    problem = well_posed(seed)
    base = solve(problem)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]
    separated = np.flatnonzero(base.gamma[:-1] > 1.01 * base.gamma[1:])  # widths at which span V is well determined
    for M in (rotation, 3.0 * rotation):
        transformed = solve(problem.transform(M))
        for k in [*separated, base.rank_v - 1]:
            for name in ("ntps", "ntps_metric"):
                np.testing.assert_allclose(getattr(transformed, name)[-1, k], getattr(base, name)[-1, k], atol=1e-6)
            np.testing.assert_allclose(transformed.excess_loss[k], base.excess_loss[k], atol=1e-6 * base.trace_b)


def test_autoregressive_directions_depend_on_the_units_of_the_features():
    """The next-token error is measured in feature units, so rescaling features changes the order of V."""
    problem = well_posed(0)
    M = np.diag([1.0, 5.0, 25.0, 125.0, 625.0])
    transformed, base = solve(problem.transform(M)), solve(problem)
    assert np.abs(transformed.ntps_task - base.ntps_task).max() > 0.05
    np.testing.assert_allclose(transformed.ntps_task[-1], 1.0, atol=1e-9)


def test_euclidean_score_is_not_invariant_under_anisotropic_scaling():
    problem = well_posed(0)
    M = np.diag([1.0, 5.0, 25.0, 125.0, 625.0])
    assert np.abs(solve(problem.transform(M)).ntps[-1] - solve(problem).ntps[-1]).max() > 0.05


@given(seeds)
def test_scores_do_not_change_if_classes_are_permuted_or_texts_duplicated(seed):
    problem = well_posed(seed, n_targets=3)
    base = solve(problem)
    permuted = solve(Problem(problem.texts, problem.targets[:, [2, 0, 1]]))
    twice = solve(Problem(problem.texts * 2, np.vstack([problem.targets] * 2)))
    for other in (permuted, twice):
        np.testing.assert_allclose(other.ntps[-1], base.ntps[-1], atol=1e-7)
        np.testing.assert_allclose(other.excess_loss, base.excess_loss, atol=1e-7 * base.trace_b)


@given(seeds, st.floats(0.01, 1.0))
def test_excess_loss_identity_with_a_ridge(seed, ridge):
    """With a ridge, the excess loss is that of features with added noise."""
    problem = well_posed(seed)
    solved = solve(problem, ridge=ridge)
    m = problem.moments()
    S = m.S + ridge * np.trace(m.S) / 5 * np.eye(5)

    def loss_with(V):
        return np.trace(m.Y) - np.trace(np.linalg.solve(V.T @ S @ V, V.T @ m.C @ m.C.T @ V))

    for k in (1, 3):
        expected = loss_with(solved.V[:, :k]) - loss_with(np.eye(5))
        assert abs(solved.excess_loss[k - 1] - expected) < 1e-8 * solved.trace_y
    assert solved.trace_b <= solve(problem).trace_b + 1e-12


def test_shrinkage_regularizes_fewer_texts_than_features():
    problem = random_problem(4, d=16, n_texts=8, rank=16, n_targets=2)
    with pytest.warns(NumericalWarning, match="8 texts for 16 features"):
        raw = solve(problem)
    assert raw.rank == 8
    assert raw.best_loss < 1e-9  # eight texts are interpolated
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shrunk = solve(problem, shrinkage="ledoit-wolf")
    assert shrunk.rank == 16
    assert 0 < shrunk.shrinkage <= 1
    assert shrunk.best_loss > 0.01


def test_truncated_spectrum_warns():
    problem = random_problem(6, d=8, n_texts=50, rank=5)
    with pytest.warns(NumericalWarning, match=r"rank 5 \(S\) and 5 \(A0\) of 8"):
        assert solve(problem).rank_v == 5


def test_number_of_perception_directions_is_the_rank_of_the_targets():
    problem = well_posed(1, n_targets=3)
    assert solve(problem).U.shape[1] == min(3, solve(problem).r)
    labels = Problem(problem.texts, np.eye(3)[np.arange(60) % 3])
    assert solve(labels).r == 3
    assert solve(labels, center=True).r == 2


@given(seeds, st.integers(2, 10), st.data())
def test_centering_does_not_add_directions_of_rounding_error(seed, d, data):
    """Features of rank q, far from the origin: S has rank q, and C a rank of at most classes - 1."""
    q = data.draw(st.integers(1, d))
    offset = data.draw(st.floats(0, 1000))
    problem = random_problem(seed, d=d, n_texts=8 * d, rank=q, condition=10.0, offset=offset)
    solved = solve(problem, center=True)
    assert solved.rank == q
    if set(np.unique(problem.targets)) == {0.0, 1.0}:
        present = np.count_nonzero(problem.targets.sum(0))
        assert solved.r <= min(q, present - 1)
    assert solved.beta[0] / solved.beta[-1] < 1e12


def test_rank_of_a_small_problem_is_not_overestimated():
    """LAPACK's default driver for eigenvectors gives this problem a rank of 3."""
    solved = solve(random_problem(1, d=3, n_texts=24, rank=2, condition=10.0, offset=0.0), center=True)
    assert solved.rank == 2


def test_score_detects_planted_directions():
    solved = solve(planted_problem(0), center=True)
    assert solved.r == 2
    assert solved.ntps[-1, 0] < 0.6
    assert solved.ntps[-1, 1] > 0.95
    assert solved.ntps_metric[-1, 1] > 0.98
    assert solved.gamma[1] > 30 * solved.gamma[2]


def test_ascending_order_does_not_detect_planted_directions():
    ascending = solve(planted_problem(0), center=True, order="ascending")
    assert ascending.ntps[-1, ascending.rank_v // 2] < 0.5
    assert np.all(np.diff(ascending.gamma) >= 0)
    assert np.all(np.diff(ascending.beta) >= 0)
    filled = solve(planted_problem(0), center=True, order="ascending", fill_u=True)
    assert filled.U.shape == (40, 40)
    assert filled.r == 2
    np.testing.assert_allclose(filled.bounds.upper, ascending.bounds.upper, rtol=1e-8)
    np.testing.assert_allclose(filled.excess_loss, ascending.excess_loss, atol=1e-9)


@given(seeds, st.sampled_from(["descending", "ascending"]))
def test_bounds_hold_in_both_orders(seed, order):
    solved = solve(random_problem(seed), order=order)
    tiny = 1e-12 * solved.trace_b
    for b in (solved.bounds, solved.bounds_metric):
        assert np.all(b.lower <= solved.excess_loss * (1 + 1e-9) + tiny)
        assert np.all(solved.excess_loss <= b.upper * (1 + 1e-9) + tiny)


@given(seeds)
def test_autoregressive_loss_equals_least_squares(seed):
    problem = random_problem(seed)
    solved = solve(problem)
    past = np.vstack([np.cumsum(t, 0)[:-1] for t in problem.texts])
    following = np.vstack([t[1:] for t in problem.texts])
    for k in {1, solved.rank_v}:
        z = past @ (solved.V[:, :k] / np.linalg.norm(solved.V[:, :k], axis=0))
        W = np.linalg.lstsq(z, following, rcond=1e-11)[0]
        expected = np.sum((following - z @ W) ** 2) / len(problem.texts)
        assert abs(solved.autoregressive_loss[k - 1] - expected) < 1e-7 * solved.tr_G


@pytest.mark.parametrize(
    ("k", "expected"), [(1, 1), (30, 20), (0.5, 10), (1.0, 20), (0.001, 1), (0.26, 5), (np.int64(4), 4)]
)
@pytest.mark.filterwarnings("ignore")
def test_resolve_width(k, expected):
    assert resolve_width(k, 20, 32) == expected


def test_resolve_width_warns_above_the_rank():
    with pytest.warns(NumericalWarning, match="exceeds the rank 20"):
        resolve_width(21, 20, 32)


@pytest.mark.parametrize("k", [0, -1, 33, 0.0, 1.5, -0.1, float("nan"), True, "0.5", None])
def test_resolve_width_rejects_invalid_widths(k):
    with pytest.raises(ValueError, match=r"k_v|fraction"):
        resolve_width(k, 20, 32)


def test_a_width_of_zero_is_told_the_smallest_one():
    with pytest.raises(ValueError, match=r"k_v must be at least 1, or a fraction in \(0, 1\], got 0"):
        resolve_width(0, 20, 32)


def moments_of_groups(problem: Problem, n: int) -> list[Moments]:
    return [Moments.from_texts(problem.texts[i::n], problem.targets[i::n]) for i in range(n)]


def test_scores_do_not_depend_on_the_groups():
    problem = well_posed(3, n_targets=2)
    rows, grid = score_layer([Moments.from_texts(problem.texts, problem.targets)], 0, [1, 0.5, 3])
    rows_of_groups, _ = score_layer(moments_of_groups(problem, 10), 0, [1, 0.5, 3])
    assert grid.ntps.shape == grid.ntps_metric.shape == (len(grid.beta), len(grid.gamma))
    assert [grid.ntps[-1, row.k_v - 1] for row in rows] == [row.ntps for row in rows]
    assert [grid.excess_loss[row.k_v - 1] for row in rows] == [row.excess_loss for row in rows]
    assert [row.k_v for row in rows] == [1, 2, 3]
    for a, b in zip(rows, rows_of_groups, strict=True):
        assert abs(a.ntps - b.ntps) < 1e-9
        assert a.ntps_se is None
        assert b.ntps_se > 0


def test_equal_widths_give_one_row():
    problem = well_posed(3)
    assert len(score_layer(moments_of_groups(problem, 1), 0, [2, 0.4, 2])[0]) == 1


@pytest.mark.slow
def test_jackknife_error_approximates_the_spread_over_samples():
    """The reference is the standard deviation of the score over independent samples."""
    options = {"d": 6, "n_classes": 2, "n_texts": 300}
    scores, errors = [], []
    for seed in range(30):
        p = planted_problem(seed, **options)
        (row,), _ = score_layer(moments_of_groups(p, 10), 0, [2], center=True)
        scores.append(row.excess_loss / row.trace_b)
        errors.append(row.excess_loss_se / row.trace_b)
    assert 0.5 < np.mean(errors) / np.std(scores) < 2.0


def test_report_survives_json():
    problem = well_posed(3, n_targets=3)
    rows, grid = score_layer(moments_of_groups(problem, 5), 0, [1, 2])
    report = ScoreReport(tuple(rows), {"model": "none"}, (grid,))
    assert ScoreReport.from_json(report.to_json()) == report
    data = json.loads(report.to_json())
    fields = {
        "layer", "k_v", "rank", "ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss",
        "lower_bound", "upper_bound", "lower_bound_metric", "upper_bound_metric",
    }  # fmt: skip
    assert fields <= set(data["rows"][0])
    assert list(report.to_frame()["k_v"]) == [1, 2]
    assert "ntps_task" in str(report)
    assert [row.k_v for row in report] == [1, 2]
    assert report.grid(0) is grid
    with pytest.raises(ValueError, match=r"no grid for layer 3; this report has grids for layers \[0\]"):
        report.grid(3)


@pytest.mark.parametrize(
    ("provenance", "n_rows", "first_line"),
    [
        ({"model": "lab/M", "dataset": "lab/topic"}, 2, "ScoreReport: lab/M on lab/topic, 2 rows"),
        ({"dataset": "lab/topic", "seed": 0}, 1, "ScoreReport: lab/topic, 1 row"),
        ({}, 1, "ScoreReport: 1 row"),
    ],
)
def test_repr_of_a_report_names_model_and_dataset(provenance, n_rows, first_line):
    solved = solve(well_posed(3))
    report = ScoreReport(tuple(solved.row(k + 1) for k in range(n_rows)), provenance)
    assert repr(report) == f"{first_line}\n{report}"


def test_targets_without_information_are_rejected():
    problem = well_posed(0)
    with pytest.raises(ValueError, match="no linear information"):
        solve(Problem(problem.texts, np.ones((60, 1))), center=True)


def test_fields_of_a_row_equal_the_entries_of_the_subspaces():
    problem = random_problem(12, d=6, n_texts=60, n_targets=4, rank=6, condition=3.0)
    solved = subspaces(problem.moments(), layer=4, center=True, shrinkage=0.1)
    assert (solved.layer, solved.n_texts, solved.centered, solved.shrinkage) == (4, 60, True, 0.1)
    for k in range(1, solved.rank_v + 1):
        row = solved.row(k)
        assert (row.layer, row.k_v, row.shrinkage) == (4, k, 0.1)
        assert (row.k_u, row.rank, row.rank_v) == (solved.U.shape[1], solved.rank, solved.rank_v)
        assert row.best_loss == solved.trace_y - solved.trace_b
        for name in ("ntps_task", "excess_loss"):
            assert getattr(row, name) == pytest.approx(getattr(solved, name)[k - 1], abs=1e-12)
        for kind, bounds in (("", solved.bounds), ("_metric", solved.bounds_metric)):
            assert getattr(row, f"lower_bound{kind}") == bounds.lower[k - 1]
            assert getattr(row, f"upper_bound{kind}") == bounds.upper[k - 1]
        expected = solved.excess_loss_rank_k[k - 1]
        assert row.excess_loss_rank_k is None if np.isnan(expected) else row.excess_loss_rank_k == expected
        for end in ("lower", "upper"):
            value, expected = getattr(row, f"{end}_bound_rank_k"), getattr(solved.bounds_rank_k, end)[k - 1]
            assert value is None if np.isnan(expected) else value == expected
    assert not np.isnan(solved.excess_loss_rank_k[0])


def test_rcond_applies_to_both_problems():
    problem = random_problem(3, d=8, n_texts=80, rank=8, condition=100.0)
    moments = problem.moments()
    for rcond in (1e-12, 0.05, 0.5):
        solved = subspaces(moments, rcond=rcond)
        assert solved.rank == whiten(moments.S, rcond).rank
        assert solved.rank_v <= whiten(moments.A0, rcond).rank
    assert subspaces(moments, rcond=0.5).rank_v < subspaces(moments, rcond=1e-12).rank_v


def test_ranks_do_not_exceed_the_number_of_texts_and_prefixes():
    """Texts of two tokens have one prefix each."""
    rng = np.random.default_rng(0)
    texts = tuple(rng.normal(size=(2, 12)) for _ in range(5))
    problem = Problem(texts, np.eye(2)[np.arange(5) % 2])
    solved = subspaces(problem.moments(), rcond=0.0)
    assert (solved.rank, solved.rank_v) <= (5, 5)


def test_as_many_texts_as_features_do_not_warn():
    problem = random_problem(0, d=6, n_texts=6, rank=6, condition=2.0)
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        subspaces(problem.moments())
    assert not any("few-texts" in str(w.message) for w in records)


def test_standard_errors_need_three_groups():
    problem = random_problem(2, d=4, n_texts=60, rank=4, condition=2.0)
    (two,), _ = score_layer(moments_of_groups(problem, 2), 0, [2], center=True)
    (three,), _ = score_layer(moments_of_groups(problem, 3), 0, [2], center=True)
    assert two.ntps_se is None
    assert three.ntps_se > 0
    pairs = [[p for j, p in enumerate(moments_of_groups(problem, 3)) if j != i] for i in range(3)]
    replicates = [score_layer(pair, 0, [2], center=True)[0][0].ntps for pair in pairs]
    assert three.ntps_se == pytest.approx(np.sqrt(2 * np.var(replicates)))


def test_rows_and_warnings_name_the_layer():
    problem = random_problem(2, d=4, n_texts=3, rank=3)
    moments = replace(Moments.from_texts(problem.texts, problem.targets), layers=(7,))
    with pytest.warns(NumericalWarning, match="Layer 7: 3 texts for 4 features"):
        (row,), _ = score_layer([moments], 7, [1])
    assert row.layer == 7


def planted_subspaces(beta, d: int):
    """A problem with S = I whose perception directions are the first axes."""
    r = len(beta)
    C = np.zeros((d, r))
    C[range(r), range(r)] = np.sqrt(beta)
    moments = LayerMoments(
        A0=np.eye(d),
        A1=np.eye(d),
        S=np.eye(d),
        C=C,
        Y=np.eye(r) * (1 + max(beta)),
        s=np.zeros(d),
        q=np.zeros(r),
        tr_G=float(d),
        cubic=np.zeros(d),
        quartic=float(d),
        n_texts=100,
        n_tokens=1000,
    )
    return subspaces(moments)


@given(
    beta=st.lists(st.floats(0.1, 5.0), min_size=2, max_size=4, unique=True),
    data=st.data(),
)
def test_angle_bounds_are_attained(beta, data):
    """Aligned with the perception directions, one order of the angles gives the lower bound, the reverse the upper."""
    beta = sorted(beta, reverse=True)
    r = len(beta)
    angles = sorted(data.draw(st.lists(st.floats(0.01, 1.5), min_size=r, max_size=r)))
    solved = planted_subspaces(beta, 2 * r)
    for order in (angles, angles[::-1]):
        V = np.zeros((2 * r, r))
        for i, angle in enumerate(order):
            V[i, i], V[r + i, i] = np.cos(angle), np.sin(angle)
        other = solved.with_subspace(V)
        bounds = other.sharp_bounds(r)
        excess = other.excess_loss[-1]
        assert excess == pytest.approx(bounds.lower_angles if order is angles else bounds.upper_angles)
        assert excess == pytest.approx(np.sum(np.array(beta) * np.sin(order) ** 2))


@pytest.mark.parametrize("seed", range(20))
def test_restricted_bounds_are_exact_for_one_direction(seed):
    """With one target, distances to V in both metrics have one ratio, whatever the condition of S is."""
    problem = random_problem(seed, d=8, n_texts=100, n_targets=1, rank=8, condition=100.0)
    solved = subspaces(LayerMoments.from_texts(problem.texts, problem.targets[:, :1]))
    bounds = solved.sharp_bounds(3)
    assert bounds.lower_restricted == pytest.approx(solved.excess_loss[2], rel=1e-6)
    assert bounds.upper_restricted == pytest.approx(solved.excess_loss[2], rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_restricted_ratios_are_those_of_s_on_the_span_of_both(seed):
    """The ratios lie between the extreme eigenvalues of S on span(U, V), which lie between those of S."""
    problem = random_problem(seed, d=10, n_texts=200, n_targets=3, rank=10, condition=30.0)
    moments = problem.moments()
    solved = subspaces(moments)
    k = 3
    Q = np.linalg.qr(np.column_stack([solved.U, solved.V[:, :k]]))[0]
    inner = np.linalg.eigvalsh(Q.T @ moments.S @ Q)
    whole = np.linalg.eigvalsh(moments.S)
    bounds = solved.sharp_bounds(k)
    missed = np.sum(solved.U**2) * (1 - solved.ntps[-1, k - 1])
    low = bounds.lower_restricted / (solved.beta[-1] * missed)
    high = bounds.upper_restricted / (solved.beta[0] * missed)
    assert whole[0] * (1 - 1e-9) <= inner[0] <= low * (1 + 1e-9)
    assert high <= inner[-1] * (1 + 1e-9) <= whole[-1] * (1 + 1e-8)


def test_sharp_bounds_of_all_directions_are_zero():
    solved = subspaces(random_problem(0, d=6, n_texts=60, rank=6).moments())
    bounds = solved.sharp_bounds(solved.rank_v)
    assert (bounds.upper_angles, bounds.upper_restricted) == pytest.approx((0, 0), abs=1e-9)
    assert bounds.lower_rank_k is None


@given(seeds, st.data())
def test_equal_width_euclidean_bounds_hold_and_follow_their_formula(seed, data):
    """(beta_k - beta_{k+1}) s_min D_k <= excess over the best of width k <= (beta_1 - beta_d) s_max D_k.

    D_k sums the squared distances of the k leading perception directions from V, and s_min, s_max are the extreme
    eigenvalues of S.
    """
    problem = random_problem(seed, d=6, n_texts=90, n_targets=4, rank=6, condition=20.0)
    moments = problem.moments()
    solved = subspaces(moments)
    k = data.draw(st.integers(1, solved.r - 1))
    bounds = solved.sharp_bounds(k)
    basis = np.linalg.qr(solved.V[:, :k])[0]
    away = solved.U[:, :k] - basis @ (basis.T @ solved.U[:, :k])
    s = np.linalg.eigvalsh(moments.S)
    beta = np.append(solved.beta, np.zeros(max(0, 6 - len(solved.beta))))
    lower = (beta[k - 1] - beta[k]) * s[0] * np.sum(away**2)
    upper = (beta[0] - beta[5]) * s[-1] * np.sum(away**2)
    assert bounds.lower_rank_k == pytest.approx(lower, rel=1e-6, abs=1e-12)
    assert bounds.upper_rank_k == pytest.approx(upper, rel=1e-6, abs=1e-12)
    excess = solved.excess_loss_rank_k[k - 1]
    assert bounds.lower_rank_k <= excess * (1 + 1e-7) + 1e-9
    assert excess <= bounds.upper_rank_k * (1 + 1e-7) + 1e-9


def test_the_smallest_beta_counts_if_every_direction_informs():
    """With as many targets as features, the last beta is above zero and lowers the equal-width upper bound."""
    problem = random_problem(3, d=4, n_texts=80, n_targets=4, rank=4, condition=5.0)
    white = problem.means @ np.linalg.inv(np.linalg.cholesky(problem.moments().S)).T
    moments = LayerMoments.from_texts(problem.texts, white * np.array([1.0, 0.9, 0.7, 0.5]))
    solved = subspaces(moments)
    assert solved.r == solved.rank == 4
    bounds = solved.sharp_bounds(2)
    basis = np.linalg.qr(solved.V[:, :2])[0]
    away = solved.U[:, :2] - basis @ (basis.T @ solved.U[:, :2])
    s = np.linalg.eigvalsh(moments.S)
    assert solved.beta[3] > 0.01 * solved.beta[0]
    assert bounds.upper_rank_k == pytest.approx((solved.beta[0] - solved.beta[3]) * s[-1] * np.sum(away**2))
    assert bounds.lower_rank_k == pytest.approx((solved.beta[1] - solved.beta[2]) * s[0] * np.sum(away**2))


def test_rows_have_the_sharp_bounds_of_their_width():
    solved = subspaces(random_problem(1, d=8, n_texts=100, n_targets=5, rank=8).moments())
    for k in (1, 2):
        row, bounds = solved.row(k), solved.sharp_bounds(k)
        for name, expected in {
            "bound_angles": (bounds.lower_angles, bounds.upper_angles),
            "bound_restricted": (bounds.lower_restricted, bounds.upper_restricted),
            "bound_rank_k_euclidean": (bounds.lower_rank_k, bounds.upper_rank_k),
        }.items():
            assert (getattr(row, f"lower_{name}"), getattr(row, f"upper_{name}")) == expected
            assert expected[1] > expected[0] >= 0.0


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_generalized_eigenvalues_are_those_on_the_range(scale):
    found = _generalized_eigenvalues(scale * np.diag([2.0, 3.0]), scale * np.diag([1.0, 4.0]))
    assert found == pytest.approx([0.75, 2.0])
    on_range = _generalized_eigenvalues(scale * np.diag([2.0, 3.0]), scale * np.diag([1.0, 1e-17]))
    assert on_range == pytest.approx([2.0])
    assert _generalized_eigenvalues(np.eye(2), np.zeros((2, 2))).tolist() == [0.0]
    assert _generalized_eigenvalues(np.diag([-1e-18, 0.5]), np.eye(2)).tolist() == [0.0, 0.5]


def test_a_width_may_be_the_whole_rank_and_a_given_subspace_has_no_eigenvalues():
    assert resolve_width(5, 5, 8) == 5
    solved = subspaces(random_problem(0, d=6, n_texts=60, rank=6).moments())
    assert solved.with_subspace(np.eye(6)[:, :2]).gamma.tolist() == [0.0, 0.0]
