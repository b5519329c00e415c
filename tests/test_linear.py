"""Whitening, reduced-rank regression and nested bases, each against an independent formula."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ntps_utils.theory import linear
from ntps_utils.theory.linear import add_ridge, default_rcond, encoder, nested_basis, shrink, whiten


@pytest.fixture(autouse=True, params=["PyTorch", "NumPy"])
def library(request, monkeypatch):
    """Library of the decompositions; every theorem holds with each."""
    if request.param == "NumPy":
        monkeypatch.setattr(linear, "_torch", lambda: None)


seeds = st.integers(0, 2**32 - 1)


def random_psd(rng: np.random.Generator, d: int, rank: int, condition: float) -> np.ndarray:
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0][:, :rank] * np.geomspace(1, condition, rank) ** 0.5
    return basis @ basis.T


@given(seeds, st.integers(1, 20), st.floats(0, 8), st.data())
def test_whitening_inverts_on_the_range_and_reports_the_rank(seed, d, log_condition, data):
    rank = data.draw(st.integers(1, d))
    rng = np.random.default_rng(seed)
    M = random_psd(rng, d, rank, 10**log_condition)
    w = whiten(M, 1e-11)
    assert w.rank == rank
    np.testing.assert_allclose(w.from_white.T @ M @ w.from_white, np.eye(rank), atol=1e-6)
    np.testing.assert_allclose(w.to_white @ w.from_white, np.eye(rank), atol=1e-6)
    np.testing.assert_allclose(w.to_white.T @ w.to_white, M, atol=1e-9 * np.abs(M).max())
    np.testing.assert_allclose(w.spectrum, np.linalg.eigvalsh(M)[::-1][:rank], rtol=1e-5)
    basis = w.range_basis
    np.testing.assert_allclose(basis @ basis.T @ M, M, atol=1e-6 * np.abs(M).max())


def test_high_variance_feature_does_not_reduce_the_rank():
    # Unscaled eigenvalues span a factor of 1e18, which exceeds the relative precision of float64.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 8)) * np.array([1e9, 1, 1, 1, 1, 1, 1, 1])
    M = x.T @ x / len(x)
    assert np.linalg.matrix_rank(M, hermitian=True) < 8
    w = whiten(M)
    assert w.rank == 8
    np.testing.assert_allclose(w.from_white.T @ M @ w.from_white, np.eye(8), atol=1e-9)


def test_zero_features_are_excluded():
    M = np.diag([2.0, 0.0, 3.0])
    w = whiten(M)
    assert w.rank == 2
    assert not w.is_full
    assert np.all(w.from_white[1] == 0)


def test_max_rank_limits_the_rank():
    assert whiten(np.eye(5), max_rank=3).rank == 3
    assert whiten(np.eye(5), max_rank=9).rank == 5


@pytest.mark.parametrize(
    ("M", "message"),
    [
        (np.zeros((2, 3)), "square"),
        (np.zeros((2, 2)), "non-zero"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "finite"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (np.array([[1.0, 0.0], [0.0, -1.0]]), "semi-definite"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "semi-definite"),
    ],
)
def test_whiten_rejects_invalid_matrices(M, message):
    with pytest.raises(ValueError, match=message):
        whiten(M)


def test_whiten_rejects_rcond_outside_the_unit_interval():
    with pytest.raises(ValueError, match="rcond"):
        whiten(np.eye(2), 1.5)


@given(seeds, st.integers(2, 12), st.integers(1, 15))
def test_encoder_solves_the_generalized_eigenproblem(seed, d, c):
    rng = np.random.default_rng(seed)
    M = random_psd(rng, d, d, 1e3)
    T = rng.normal(size=(d, c))
    e = encoder(whiten(M), T)
    n = min(d, c)
    assert e.n_informative == e.vectors.shape[1] == n
    expected = scipy.linalg.eigh(T @ T.T, M, eigvals_only=True)[::-1][:n]
    np.testing.assert_allclose(e.eigenvalues, expected, rtol=1e-8, atol=1e-9 * expected[0])
    np.testing.assert_allclose(e.vectors.T @ M @ e.vectors, np.eye(n), atol=1e-8)
    np.testing.assert_allclose(
        T @ T.T @ e.vectors, M @ e.vectors * e.eigenvalues, atol=1e-7 * expected[0] * np.abs(M).max()
    )
    np.testing.assert_allclose(e.whitening.to_white @ e.vectors, e.white, atol=1e-8)


@given(seeds, st.integers(3, 10), st.integers(2, 6), st.data())
def test_no_encoder_of_the_same_width_does_better(seed, d, c, data):
    rng = np.random.default_rng(seed)
    M, T = random_psd(rng, d, d, 100), rng.normal(size=(d, c))
    k = data.draw(st.integers(1, min(d, c)))

    L = np.linalg.cholesky(M)
    target = np.linalg.solve(L, T)

    def removed(E: np.ndarray) -> float:
        """tr (E^T M E)^-1 E^T T T^T E, computed without squaring the condition number of E."""
        return float(np.sum((np.linalg.qr(L.T @ E)[0].T @ target) ** 2))

    best = encoder(whiten(M), T).vectors[:, :k]
    for _ in range(20):
        assert removed(rng.normal(size=(d, k))) <= removed(best) * (1 + 1e-7)
        nearby = best + 1e-3 * rng.normal(size=(d, k))
        assert removed(nearby) <= removed(best) * (1 + 1e-7)


@given(seeds, st.integers(2, 8))
def test_encoder_order_and_fill(seed, d):
    rng = np.random.default_rng(seed)
    M, T = random_psd(rng, d, d, 10), rng.normal(size=(d, 1))
    w = whiten(M)
    descending, ascending = encoder(w, T, fill=True), encoder(w, T, fill=True, order="ascending")
    assert descending.vectors.shape == (d, d)
    assert descending.n_informative == 1
    assert np.all(descending.eigenvalues[1:] == 0)
    np.testing.assert_allclose(ascending.vectors, descending.vectors[:, ::-1])
    np.testing.assert_allclose(ascending.eigenvalues, descending.eigenvalues[::-1])


def test_encoder_detects_the_rank_of_centered_targets():
    # Centered one-hot targets of c classes have rank c - 1; rounding error must not add a direction.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 30)) @ np.diag(np.geomspace(1, 1e4, 30))
    y = np.eye(4)[rng.integers(0, 4, 200)]
    y -= y.mean(0)
    assert encoder(whiten(x.T @ x / 200), x.T @ y / 200).n_informative == 3


def test_encoder_rejects_invalid_input():
    w = whiten(np.eye(3))
    with pytest.raises(ValueError, match="shape"):
        encoder(w, np.ones((2, 1)))
    with pytest.raises(ValueError, match="no linear information"):
        encoder(w, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="order"):
        encoder(w, np.ones((3, 1)), order="up")


@given(seeds, st.integers(1, 10), st.integers(1, 14), st.data())
def test_nested_basis_spans_every_leading_block(seed, d, n, data):
    rng = np.random.default_rng(seed)
    M = rng.normal(size=(d, n)) * np.geomspace(1, 1e-3, n)
    for j in data.draw(st.lists(st.integers(1, n - 1), max_size=3)) if n > 1 else []:
        M[:, j] = M[:, :j] @ rng.normal(size=j)  # make the column dependent
    basis = nested_basis(M, 1e-9)
    np.testing.assert_allclose(basis.Q.T @ basis.Q, np.eye(d), atol=1e-10)
    for k in range(n + 1):
        rank = basis.counts[k]
        leading = M[:, :k] / np.maximum(np.linalg.norm(M[:, :k], axis=0), 1e-300)
        assert rank == (np.linalg.matrix_rank(leading, tol=1e-8) if k else 0)
        Q = basis.Q[:, :rank]
        np.testing.assert_allclose(Q @ (Q.T @ leading), leading, atol=1e-7)


def test_nested_basis_of_zero_columns():
    basis = nested_basis(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert basis.counts.tolist() == [0, 0, 1, 1]


@given(seeds, st.integers(1, 8), st.floats(0, 1))
def test_shrinkage_and_ridge_formulas(seed, d, a):
    M = random_psd(np.random.default_rng(seed), d, d, 10)
    np.testing.assert_allclose(np.trace(shrink(M, a)), np.trace(M))
    np.testing.assert_allclose(shrink(M, 1.0), np.trace(M) / d * np.eye(d), atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(add_ridge(M, a)), np.linalg.eigvalsh(M) + a * np.trace(M) / d)


def test_shrinkage_and_ridge_reject_invalid_values():
    with pytest.raises(ValueError, match="intensity"):
        shrink(np.eye(2), 1.2)
    with pytest.raises(ValueError, match="ridge"):
        add_ridge(np.eye(2), -1)
    with pytest.raises(ValueError, match="ridge"):
        add_ridge(np.eye(2), float("nan"))


def test_default_rcond():
    assert default_rcond(100) == 100 * 2.0**-52
    assert default_rcond(100, "float32") == 100 * 2.0**-23


@given(seeds, st.integers(1, 12), st.floats(0, 6))
def test_amplification_is_the_norm_of_from_white(seed, d, log_condition):
    """The norm refers to unit-diagonal coordinates, where it is 1 / sqrt(smallest eigenvalue)."""
    M = random_psd(np.random.default_rng(seed), d, d, 10.0**log_condition)
    whitening = whiten(M)
    scaled = whitening.from_white * whitening.scale[:, None]
    assert whitening.amplification == pytest.approx(np.linalg.norm(scaled, 2), rel=1e-6)


def test_whiten_accepts_integers_and_does_not_modify_its_input():
    M = np.array([[2, 1], [1, 2]])
    before = M.copy()
    assert whiten(M).rank == 2
    np.testing.assert_allclose(whiten(M).from_white.T @ M @ whiten(M).from_white, np.eye(2), atol=1e-12)
    assert (before == M).all()
    assert whiten(M, 0.0).rank == 2


@given(seeds, st.integers(2, 10), st.integers(1, 4))
def test_zero_feature_does_not_change_the_encoder(seed, d, m):
    rng = np.random.default_rng(seed)
    M, T = random_psd(rng, d, d, 10.0), rng.normal(size=(d, m))
    reference = encoder(whiten(M), T)
    padded = encoder(whiten(np.pad(M, (1, 0))), np.pad(T, ((1, 0), (0, 0))))
    assert padded.n_informative == reference.n_informative
    np.testing.assert_allclose(padded.eigenvalues, reference.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(padded.vectors[0], 0, atol=1e-12)


@given(seeds, st.integers(2, 10), st.data())
def test_directions_of_a_singular_problem_lie_in_its_range(seed, d, data):
    """The vectors have no component outside the range of M."""
    rank = data.draw(st.integers(1, d - 1))
    rng = np.random.default_rng(seed)
    M = random_psd(rng, d, rank, 10.0) * np.outer(*[np.geomspace(1, 5, d)] * 2)
    T = M @ rng.normal(size=(d, 2))
    result = encoder(whiten(M, 1e-10), T)
    outside = scipy.linalg.null_space(M, rcond=1e-9)
    assert outside.shape[1] == d - rank
    np.testing.assert_allclose(outside.T @ result.vectors, 0, atol=1e-6 * np.abs(result.vectors).max())


@pytest.mark.parametrize("small", [1e-3, 1e-5])
def test_rtol_decides_which_directions_are_informative(small):
    """The singular value must exceed rtol |W| |T|, with W and T in unit-diagonal coordinates."""
    M = np.array([[4.0, 3.2], [3.2, 4.0]])  # eigenvalues in unit-diagonal coordinates: 1.8 and 0.2
    whitening = whiten(M)
    assert whitening.amplification == pytest.approx(0.2**-0.5)
    T = whitening.to_white.T @ np.diag([1.0, small])
    threshold = small / (whitening.amplification * np.linalg.norm(T / 2))
    for rtol, n in ((0.99 * threshold, 2), (1.01 * threshold, 1), (None, 2)):
        assert encoder(whitening, T, rtol=rtol).n_informative == n


@pytest.mark.parametrize("d", [2, 3, 5, 8, 16])
def test_zero_eigenvalues_are_below_the_cut_off(d):
    """LAPACK's default driver fails this test at d = 3."""
    rng = np.random.default_rng(d)
    for _ in range(1000):
        rank = int(rng.integers(1, d))
        x = rng.normal(size=(8 * d, rank)) @ (rng.normal(size=(rank, d)) * np.geomspace(1, 10, rank)[:, None])
        assert whiten(x.T @ x / len(x)).rank <= rank
