"""Controls: the scores of subspaces that are not made by next-token prediction.

A score compares the perception directions U with the autoregressive ones, V. It says something
about next-token prediction only if other subspaces of the same width score lower:

    pca_s       leading principal components of S, the directions of largest variance of the text features
    pca_a0      leading principal components of A0, those of the prefix sums
    symmetric   V of the symmetric part of A1, which does not depend on the order of the feature vectors
    random      A0^{-1/2} Z with Z random and orthonormal: the construction of V without its target

The first k columns of V are A0^{-1/2} Z with orthonormal Z, whatever A1 is. So ``random`` changes
the target only, and the **net score** is the score minus the mean score of ``random``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ntps_utils._utils.validation import check_integer
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array, encoder, left_singular_vectors, orthonormal_basis, product
from ntps_utils.theory.score import ControlScores, Subspaces

CONTROLS = ("pca_s", "pca_a0", "symmetric", "random")
"""Names of the controls."""


def control_scores(
    solved: Subspaces, directions: Mapping[str, Array], k_v: int, *, n_draws: int = 20, seed: int = 0
) -> tuple[ControlScores, ...]:
    """Compute the scores of every control at one width.

    Parameters
    ----------
    solved : Subspaces
        Result of :func:`ntps_utils.theory.score.subspaces`, in ascending or descending order of U.
    directions : mapping of str to (d, m) float64
        Result of :func:`control_directions`, which is the same for all widths.
    k_v : int
        Width of the subspaces. A control of smaller rank has as many directions as it can.
    n_draws : int
        Number of random subspaces, at least 2.
    seed : int
        Random seed for them.

    Returns
    -------
    tuple of ControlScores
        Those of ``directions``, and "random".

    Raises
    ------
    ValueError
        If ``k_v`` or ``n_draws`` is too small.

    Examples
    --------
    >>> from ntps_utils.theory.score import subspaces
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> moments = planted_problem(0, d=10, n_texts=400).moments()
    >>> solved = subspaces(moments, center=True)
    >>> directions = control_directions(moments, solved)
    >>> [(c.control, round(c.ntps_task, 1)) for c in control_scores(solved, directions, 5)]
    [('pca_s', 1.0), ('pca_a0', 1.0), ('symmetric', 1.0), ('random', 0.6)]
    """
    check_integer("k_v", k_v, 1)
    rows = []
    for name, V in directions.items():
        k = min(k_v, V.shape[1])
        rows.append(ControlScores(name, k, *_scores(solved, V, k)))
    return (*rows, random_control(solved, k_v, n_draws=n_draws, seed=seed))


def control_directions(moments: LayerMoments, solved: Subspaces) -> dict[str, Array]:
    """Compute the directions of the controls that are not random.

    Parameters
    ----------
    moments : LayerMoments
        The moments that ``solved`` comes from, not centered.
    solved : Subspaces
        Result of :func:`ntps_utils.theory.score.subspaces`.

    Returns
    -------
    dict of str to (d, m) float64
        By name; the first k columns span the control of width k.

    Examples
    --------
    >>> from ntps_utils.theory.score import subspaces
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> moments = planted_problem(0, d=10, n_texts=400).moments()
    >>> {name: V.shape for name, V in control_directions(moments, subspaces(moments)).items()}
    {'pca_s': (10, 10), 'pca_a0': (10, 10), 'symmetric': (10, 10)}
    """
    white_a = solved.whitening_a
    symmetric = encoder(white_a, (moments.A1 + moments.A1.T) / 2, rtol=moments.rcond_raw)
    return {
        "pca_s": _principal_components(solved.whitening.to_white),
        "pca_a0": _principal_components(white_a.to_white),
        "symmetric": symmetric.vectors,
    }


def random_control(solved: Subspaces, k_v: int, *, n_draws: int = 20, seed: int = 0) -> ControlScores:
    """Estimate mean and standard deviation of the scores of ``A0^{-1/2} Z`` over random orthonormal Z.

    Parameters
    ----------
    solved, k_v, n_draws, seed
        See :func:`control_scores`.

    Returns
    -------
    ControlScores
        The mean has a standard error of ``sd / sqrt(n_draws)``.

    Raises
    ------
    ValueError
        If ``k_v`` or ``n_draws`` is too small.

    See Also
    --------
    mean_random_scores : The means without draws, for many features.

    Examples
    --------
    >>> from ntps_utils.theory.score import subspaces
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> solved = subspaces(planted_problem(0, d=10, n_texts=400).moments())
    >>> round(random_control(solved, 10).ntps, 6)  # all directions
    1.0
    """
    check_integer("k_v", k_v, 1)
    check_integer("n_draws", n_draws, 2)
    W = solved.whitening_a.from_white
    white = product(solved.whitening.to_white, W)
    k = min(k_v, W.shape[1])
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n_draws):
        Z = rng.standard_normal((W.shape[1], k))  # its span has the distribution of that of an orthonormal Z
        metric = _overlap(product(white, Z), solved.white_U)
        euclidean = np.sum(_overlap(product(W, Z), solved.U)) / np.sum(solved.U**2)
        draws.append((euclidean, metric.mean(), solved.beta @ metric / solved.trace_b))
    means, sds = np.mean(draws, axis=0), np.std(draws, axis=0, ddof=1)
    return ControlScores("random", k, *map(float, means), *map(float, sds))


def mean_random_scores(solved: Subspaces, k_v: Sequence[int]) -> Array:
    r"""Compute the mean scores of ``A0^{-1/2} Z`` over random orthonormal Z for many features, without draws.

    Parameters
    ----------
    solved : Subspaces
    k_v : sequence of int
        Widths.

    Returns
    -------
    (len(k_v), 3) float64
        Means of ``ntps``, ``ntps_metric`` and ``ntps_task``.

    Notes
    -----
    The span of :math:`W Z` with :math:`W W^\top = A_0^{-1}` is that of a Gaussian sketch of
    :math:`A_0^{-1}`. The mean of its projector tends, as the number of features and k grow, to

    .. math:: \mathrm{E} P \approx \gamma A_0^{-1} (I + \gamma A_0^{-1})^{-1}
              \quad\text{with}\quad \operatorname{tr} \mathrm{E} P = k,

    from which the means follow; in white coordinates of S the same holds for
    :math:`S^{1/2} A_0^{-1} S^{1/2}`. It is exact where :math:`A_0` is a multiple of the identity.
    The directions of small variance of the prefix sums are kept first, and perception directions
    that point there score high against any target.

    References
    ----------
    M. Derezinski, F. Liang, Z. Liao and M. Mahoney (2020), Precise expressions for random
    projections: low-rank approximation and randomized Newton, NeurIPS 33.

    Examples
    --------
    >>> from ntps_utils.theory.score import subspaces
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> solved = subspaces(planted_problem(0, d=10, n_texts=400).moments())
    >>> bool(np.abs(mean_random_scores(solved, [5])[0, 0] - random_control(solved, 5).ntps) < 0.1)
    True
    """
    W = solved.whitening_a.from_white
    euclidean = _mean_overlaps(W, solved.U, k_v).sum(1) / np.sum(solved.U**2)
    metric = _mean_overlaps(product(solved.whitening.to_white, W), solved.white_U, k_v)
    return np.column_stack([euclidean, metric.mean(1), metric @ solved.beta / solved.trace_b])


def _scores(solved: Subspaces, V: Array, k: int) -> tuple[float, float, float]:
    other = solved.with_subspace(V[:, :k])
    return float(other.ntps[-1, -1]), float(other.ntps_metric[-1, -1]), float(other.ntps_task[-1])


def _principal_components(to_white: Array) -> Array:
    """Eigenvectors of M = F F^T by descending eigenvalue, from F^T."""
    return left_singular_vectors(to_white.T)[0]


def _overlap(V: Array, U: Array) -> NDArray[np.float64]:
    """Squared length of the projection of each column of U on the span of V."""
    return np.asarray(np.sum(product(U.T, orthonormal_basis(V)) ** 2, axis=1), dtype=np.float64)


def _mean_overlaps(W: Array, U: Array, widths: Sequence[int]) -> NDArray[np.float64]:
    """Mean of :func:`_overlap` for V = W Z over Gaussian Z of each width, see :func:`mean_random_scores`."""
    left, values = left_singular_vectors(W)
    values = values[values > values[0] * len(values) * np.finfo(np.float64).eps]
    squares, squared = values**2, product(left[:, : len(values)].T, U) ** 2
    shares = np.ones((len(widths), len(squares)))
    for row, k in zip(shares, widths, strict=True):
        if k < len(squares):
            row[:] = 1.0 / (1.0 + np.exp(-_log_gamma(squares, k)) / squares)
    return shares @ squared


def _log_gamma(squares: Array, k: int) -> float:
    """Logarithm of gamma with ``sum(gamma s / (1 + gamma s)) = k``."""
    middle = -np.log(squares)

    def missing(log_gamma: float) -> float:
        return float(np.sum(1.0 / (1.0 + np.exp(middle - log_gamma)))) - k

    # At the ends, all terms are below k / n or above it.
    ends = np.log(k / (len(squares) - k)) + np.array([middle.min() - 1.0, middle.max() + 1.0])
    return float(brentq(missing, *ends, xtol=1e-12))
