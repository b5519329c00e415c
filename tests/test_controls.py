"""Controls: each against an independent formula, and the random one against its draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ntps_utils.theory.controls import (
    CONTROLS,
    control_directions,
    control_scores,
    mean_random_scores,
    random_control,
)
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.score import ControlScores, Subspaces, subspaces
from ntps_utils.theory.synthetic import planted_problem

pytestmark = pytest.mark.filterwarnings("ignore::ntps_utils.theory.score.NumericalWarning")


def all_controls(moments: LayerMoments, solved: Subspaces, k_v: int, n_draws: int) -> tuple[ControlScores, ...]:
    return control_scores(solved, control_directions(moments, solved), k_v, n_draws=n_draws)


def problem(seed: int, d: int = 12, n_texts: int = 300, n_classes: int = 3) -> LayerMoments:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) * rng.uniform(0.2, 3.0, d)
    labels = rng.integers(0, n_classes, n_texts)
    shifts = rng.normal(size=(n_classes, d))
    texts = [(rng.normal(size=(rng.integers(2, 7), d)) + shifts[label]) @ mix + 0.5 for label in labels]
    return LayerMoments.from_texts(texts, labels)


def reference(moments, V, center):
    """The three scores by their definitions, with pseudo-inverses."""
    S, C = (moments.center().S, moments.center().C) if center else (moments.S, moments.C)
    values, vectors = scipy.linalg.eigh(C @ C.T, S)
    order = np.argsort(-values)[: np.linalg.matrix_rank(C, tol=1e-9 * np.abs(C).max())]
    U, beta = vectors[:, order], values[order]
    root = scipy.linalg.sqrtm(S).real
    P = V @ np.linalg.pinv(V)
    Pw = root @ V @ np.linalg.pinv(root @ V)
    overlap = np.sum((Pw @ root @ U) ** 2, axis=0)
    return (
        np.linalg.norm(P @ U) ** 2 / np.linalg.norm(U) ** 2,
        overlap.mean(),
        beta @ overlap / beta.sum(),
    )


@given(seed=st.integers(0, 10**6), k=st.integers(1, 11), center=st.booleans())
def test_controls_are_those_of_their_definitions(seed, k, center):
    moments = problem(seed)
    solved = subspaces(moments, center=center)
    found = {row.control: row for row in all_controls(moments, solved, k, n_draws=2)}
    assert tuple(found) == CONTROLS
    S = moments.center().S if center else moments.S
    symmetric = (moments.A1 + moments.A1.T) / 2
    directions = {
        "pca_s": np.linalg.eigh(S)[1][:, ::-1],
        "pca_a0": np.linalg.eigh(moments.A0)[1][:, ::-1],
        "symmetric": scipy.linalg.eigh(symmetric @ symmetric.T, moments.A0)[1][:, ::-1],
    }
    for name, V in directions.items():
        row = found[name]
        assert row.k_v == k
        assert (row.ntps, row.ntps_metric, row.ntps_task) == pytest.approx(
            reference(moments, V[:, :k], center), abs=1e-6
        )


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100.0), k=st.integers(1, 12))
def test_mean_of_random_scores_is_exact_for_round_prefix_sums(seed, scale, k):
    """If A0 is a multiple of the identity, the span of Z is uniform, and each direction is kept with k / d."""
    moments = replace(problem(seed), A0=scale * np.eye(12))
    assert mean_random_scores(subspaces(moments), [k])[0, 0] == pytest.approx(k / 12, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("k", [3, 20, 37])
def test_mean_of_the_random_control_is_that_of_its_draws(center, k):
    d = 40
    moments = problem(1, d=d, n_texts=600)
    solved = subspaces(moments, center=center)
    row = random_control(solved, k, n_draws=200)
    root = np.linalg.inv(scipy.linalg.sqrtm(moments.A0).real)
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(400):
        Z = scipy.linalg.qr(rng.normal(size=(d, k)), mode="economic")[0]
        other = solved.with_subspace(root @ Z)
        draws.append((other.ntps[-1, -1], other.ntps_metric[-1, -1], other.ntps_task[-1]))
    means, sds = np.mean(draws, axis=0), np.std(draws, axis=0)
    assert row.ntps == pytest.approx(means[0], abs=0.4 * sds[0])
    assert row.ntps_task == pytest.approx(means[2], abs=0.4 * sds[2])
    assert (row.ntps_metric, *mean_random_scores(solved, [k])[0]) == pytest.approx((means[1], *means), abs=0.1 / k**0.5)
    assert (row.ntps_sd, row.ntps_metric_sd, row.ntps_task_sd) == pytest.approx(sds, rel=0.35)


@pytest.mark.slow
def test_error_of_the_mean_falls_with_the_number_of_features():
    errors = []
    for d in (8, 64):
        moments = problem(2, d=d, n_texts=8 * d)
        solved = subspaces(moments)
        mean = mean_random_scores(solved, [d // 2])[0, 0]
        W, rng = solved.whitening_a.from_white, np.random.default_rng(0)
        overlaps = [solved.with_subspace(W @ rng.normal(size=(d, d // 2))).ntps[-1, -1] for _ in range(1500)]
        errors.append(abs(mean - np.mean(overlaps)))
    assert errors[1] < max(0.005, errors[0] / 2)


@pytest.mark.slow
def test_a_random_target_scores_inside_the_range():
    """With a random A1 the autoregressive directions are the random control itself."""
    inside = 0
    for seed in range(60):
        moments = problem(seed, d=16)
        moments = replace(
            moments, A1=np.linalg.cholesky(moments.A0) @ np.random.default_rng(seed).normal(size=(16, 16))
        )
        solved = subspaces(moments)
        low, high = random_control(solved, 8).range()
        inside += low <= solved.ntps[-1, 7] <= high
    assert 52 <= inside <= 60


def test_all_directions_score_one():
    moments = problem(0)
    for row in all_controls(moments, subspaces(moments), 12, n_draws=2):
        assert (row.ntps, row.ntps_metric, row.ntps_task) == pytest.approx((1, 1, 1))


def test_symmetric_control_is_next_token_where_order_does_not_matter():
    """If A1 is symmetric, the control is V itself."""
    moments = problem(3)
    moments = replace(moments, A1=(moments.A1 + moments.A1.T) / 2)
    solved = subspaces(moments)
    found = {row.control: row for row in all_controls(moments, solved, 5, n_draws=2)}
    assert found["symmetric"].ntps == pytest.approx(solved.ntps[-1, 4])


@given(seed=st.integers(0, 10**6))
def test_metric_scores_of_the_random_control_do_not_change_with_the_coordinates(seed):
    moments = problem(seed)
    M = np.random.default_rng(seed).normal(size=(12, 12)) + 3 * np.eye(12)
    moved = replace(
        moments,
        **{name: M @ getattr(moments, name) @ M.T for name in ("A0", "A1", "S")},
        C=M @ moments.C,
        s=M @ moments.s,
    )
    one, two = (mean_random_scores(subspaces(m), [6])[0] for m in (moments, moved))
    lost = max(np.linalg.cond(M @ getattr(moments, name) @ M.T) for name in ("A0", "S"))  # M can be ill-conditioned
    assert two[1:] == pytest.approx(one[1:], abs=1e-6 + 1e-16 * lost)


def test_singular_moments_have_controls():
    moments = planted_problem(0, d=20, n_texts=12).moments()
    solved = subspaces(moments)
    for row in all_controls(moments, solved, 15, n_draws=3):
        assert 0.0 <= row.ntps <= 1.0 + 1e-9
    assert {name: V.shape[0] for name, V in control_directions(moments, solved).items()} == dict.fromkeys(
        ("pca_s", "pca_a0", "symmetric"), 20
    )


def test_ranges_and_settings():
    with pytest.raises(ValueError, match="control 'pca_s' is one subspace"):
        ControlScores("pca_s", 3, 0.1, 0.1, 0.1).range()
    moments = problem(0)
    solved = subspaces(moments)
    with pytest.raises(ValueError, match="k_v must be an integer of at least 1"):
        control_scores(solved, {}, 0)
    with pytest.raises(ValueError, match="n_draws must be an integer of at least 2"):
        random_control(solved, 3, n_draws=1)
    assert random_control(solved, 3, seed=1) == random_control(solved, 3, seed=1)


def test_the_random_control_has_the_stated_draws_and_seed():
    solved = subspaces(problem(0))
    (default,) = control_scores(solved, {}, 3)
    assert default == random_control(solved, 3, n_draws=20, seed=0)
    (chosen,) = control_scores(solved, {}, 3, n_draws=5, seed=7)
    assert chosen == random_control(solved, 3, n_draws=5, seed=7)
    assert len({default, chosen, random_control(solved, 3, n_draws=5, seed=0)}) == 3


def test_the_range_is_cut_at_zero_and_one():
    control = ControlScores("random", 4, 0.5, 0.1, 0.9, 0.1, 0.2, 0.2)
    assert control.range() == pytest.approx((0.304, 0.696))
    assert control.range("ntps_metric") == pytest.approx((0.0, 0.492))
    assert control.range("ntps_task") == pytest.approx((0.508, 1.0))


def test_means_of_several_widths_are_those_of_each():
    solved = subspaces(problem(0))
    together = mean_random_scores(solved, [2, 5])
    assert together.shape == (2, 3)
    for row, k in zip(together, (2, 5), strict=True):
        np.testing.assert_allclose(row, mean_random_scores(solved, [k])[0])
    assert np.all(together[1] > together[0])
