"""The released score script's recipe, in our own words, with a switch for each of its choices.

Facts about the script (repository Yu-AngCheng/NTPS, commit 0f877f7) are cited in the book
page "Where we differ from the released code". With every switch the other way the value
is :attr:`ntps_utils.theory.score.Subspaces.ntps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

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
"""Every switch of :func:`released_ntps` the other way: this library's score."""


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
    """NTPS as the released script computes it, or with some of its choices undone.

    Parameters
    ----------
    moments : LayerMoments
    share : float
        Fraction of the rank to keep, of V and (filled) of U.
    ascending : bool
        Keep the eigenvectors of the *smallest* eigenvalues.
    fill_u : bool
        Give U a share of the whole rank of S; else all directions that carry label
        information, at most the rank of C.
    single : bool
        Compute in float32.
    absolute_cut : float or None
        Eigenvalues of S and A0 above this count; None for a cut-off relative to the largest.
    round_down : bool
        The number of directions is the integer part, which can be zero.
    pseudo_inverse : bool
        Project with V times its pseudo-inverse; else with an orthonormal basis of V.

    Returns
    -------
    float
        NaN if no direction is left.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must be a fraction in (0, 1], got {share}.")
    dtype = np.float32 if single else np.float64
    d = len(moments.S)

    def inverse_root(M: Array) -> Array:
        values, vectors = np.linalg.eigh(M.astype(dtype))
        eps = np.finfo(dtype).eps
        kept = values > (absolute_cut if absolute_cut is not None else d * eps * values.max())
        return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))

    def directions(M: Array, cross: Array) -> tuple[Array, Array]:
        root = inverse_root(M)
        white = root.T @ cross.astype(dtype)
        values, vectors = np.linalg.eigh(white @ white.T)
        order = slice(None) if ascending else slice(None, None, -1)
        return (root @ vectors)[:, order], values[order]

    def count(rank: int) -> int:
        return int(share * rank) if round_down else max(1, round(share * rank))

    V, _ = directions(moments.A0, moments.A1)
    U, strength = directions(moments.S, moments.C)
    if fill_u:
        U = U[:, : count(U.shape[1])]
    else:
        U = U[:, strength > strength.max() * max(d, moments.C.shape[1]) * np.finfo(dtype).eps]
    V = V[:, : count(V.shape[1])]
    if not U.size or not V.size:
        return float("nan")
    inside: Any = V @ (np.linalg.pinv(V) @ U) if pseudo_inverse else (q := np.linalg.qr(V)[0]) @ (q.T @ U)
    return float(np.linalg.norm(inside) ** 2 / np.linalg.norm(U) ** 2)
