"""The score as the authors' released script computes it, with a switch for each of its choices.

The script (repository Yu-AngCheng/NTPS, commit 0f877f7) is described in chapter 13 of the
book. This is an independent implementation of the description.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array

OURS: Mapping[str, Any] = MappingProxyType(
    {
        "ascending": False,
        "fill_u": False,
        "single": False,
        "absolute_cut": None,
        "round_down": False,
        "pseudo_inverse": False,
    }
)
"""Values of the switches of :func:`released_ntps` that give this library's score."""


def released_ntps(
    moments: LayerMoments,
    share: float,
    *,
    ascending: bool = True,
    fill_u: bool = True,
    single: bool = True,
    absolute_cut: float | None = 1e-8,
    round_down: bool = True,
    pseudo_inverse: bool = True,
) -> float:
    """Compute NTPS as the released script does, or with some of its choices changed.

    Parameters
    ----------
    moments : LayerMoments
        Moments of one layer.
    share : float
        Fraction of the rank to use, in (0, 1]: of V, and with ``fill_u`` of U.
    ascending : bool
        Use the eigenvectors of the *smallest* eigenvalues. Otherwise those of the largest.
    fill_u : bool
        Take ``share`` of rank(S) directions for U. Otherwise all directions that carry label
        information, at most rank(C).
    single : bool
        Compute in float32. Otherwise in float64.
    absolute_cut : float or None
        Absolute cut-off for eigenvalues of S and A0. None for a cut-off relative to the
        largest eigenvalue.
    round_down : bool
        Truncate the number of directions to an integer, possibly zero. Otherwise round it to
        the nearest integer, at least 1.
    pseudo_inverse : bool
        Project with V times its pseudo-inverse. Otherwise with an orthonormal basis of V.

    Returns
    -------
    float
        Score, or NaN if U or V has no directions.

    Raises
    ------
    ValueError
        If ``share`` is outside (0, 1].

    See Also
    --------
    ntps_utils.theory.score.Subspaces.ntps : The same value with ``**OURS``.

    Examples
    --------
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> moments = planted_problem(0, d=10, n_texts=400).moments().center()  # the labels depend on 2 of 10
    >>> round(released_ntps(moments, 0.2, **OURS), 2), round(released_ntps(moments, 0.2, fill_u=False), 2)
    (0.91, 0.06)
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must be a fraction in (0, 1], got {share}.")
    d = len(moments.S)
    V, U, beta = released_directions(moments, ascending=ascending, single=single, absolute_cut=absolute_cut)

    def count(rank: int) -> int:
        return int(share * rank) if round_down else max(1, round(share * rank))

    if fill_u:
        U = U[:, : count(U.shape[1])]
    else:
        U = U[:, beta > beta.max() * max(d, moments.C.shape[1]) * np.finfo(U.dtype).eps]
    V = V[:, : count(V.shape[1])]
    if not U.size or not V.size:
        return float("nan")
    projection: Any = V @ (np.linalg.pinv(V) @ U) if pseudo_inverse else (Q := np.linalg.qr(V)[0]) @ (Q.T @ U)
    return float(np.linalg.norm(projection) ** 2 / np.linalg.norm(U) ** 2)


def released_directions(
    moments: LayerMoments, *, ascending: bool = True, single: bool = True, absolute_cut: float | None = 1e-8
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Compute all directions of both problems as the released script does.

    Parameters
    ----------
    moments : LayerMoments
        Moments of one layer.
    ascending, single, absolute_cut
        See :func:`released_ntps`.

    Returns
    -------
    V : (d, rank A0) array
        Autoregressive directions, in the order of their eigenvalues.
    U : (d, rank S) array
        Perception directions.
    beta : (rank S,) array
        Eigenvalues of U.

    Examples
    --------
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> V, U, beta = released_directions(planted_problem(0, d=10, n_texts=400).moments())
    >>> V.shape, U.shape, bool(beta[0] < beta[-1])
    ((10, 10), (10, 10), True)
    """
    dtype = np.float32 if single else np.float64

    def inverse_root(M: Array) -> NDArray[Any]:
        values, vectors = np.linalg.eigh(M.astype(dtype))
        eps = np.finfo(dtype).eps
        above_cutoff = values > (absolute_cut if absolute_cut is not None else len(M) * eps * values.max())
        return np.asarray(vectors[:, above_cutoff] / np.sqrt(values[above_cutoff]))

    def directions(M: Array, cross: Array) -> tuple[NDArray[Any], NDArray[Any]]:
        root = inverse_root(M)
        white = root.T @ cross.astype(dtype)
        values, vectors = np.linalg.eigh(white @ white.T)
        order = slice(None) if ascending else slice(None, None, -1)
        return (root @ vectors)[:, order], values[order]

    V, _ = directions(moments.A0, moments.A1)
    return V, *directions(moments.S, moments.C)
