"""Closed forms of the two linear problems: whitening and reduced-rank regression.

Both of the paper's encoders minimize a loss of one shape,

    tr K - tr[(E^T M E)^{-1} E^T T T^T E]        over E (d x k),

with ``M`` a second moment of the inputs and ``T`` their moment with the targets.
The minimizer is spanned by the k leading generalized eigenvectors of
``(T T^T, M)``; :func:`encoder` returns all of them at once, in nested order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]
Order = Literal["descending", "ascending"]


@dataclass(frozen=True, eq=False)
class Whitening:
    """Coordinates in which a positive semi-definite matrix M is the identity.

    Attributes
    ----------
    to_white : (rank, d) float64
        ``F^T`` with ``M = F F^T``: takes a direction u to white coordinates, where
        ``|F^T u|^2 = u^T M u``.
    from_white : (d, rank) float64
        ``W`` with ``W^T M W = I``: takes white coordinates back. ``F^T W = I``.
    scale : (d,) float64
        Square root of the diagonal of M: the units in which the problem was solved.
    amplification : float
        Norm of W in those units: how much rounding in a moment can grow in white coordinates.
    """

    to_white: Array
    from_white: Array
    scale: Array
    amplification: float

    @property
    def rank(self) -> int:
        """Effective rank of M: eigenvalues above the cut-off."""
        return self.to_white.shape[0]

    @property
    def dimension(self) -> int:
        """Side d of M."""
        return self.to_white.shape[1]

    @property
    def is_full(self) -> bool:
        """Whether M has full effective rank."""
        return self.rank == self.dimension

    @cached_property
    def range_basis(self) -> Array:
        """Orthonormal basis (d, rank) of the range of M."""
        return scipy.linalg.qr(self.to_white.T, mode="economic")[0]

    @cached_property
    def spectrum(self) -> Array:
        """Non-zero eigenvalues of M itself, (rank,), descending."""
        return np.asarray(np.linalg.svd(self.to_white, compute_uv=False) ** 2, dtype=np.float64)


def default_rcond(n: int, precision: str = "float64") -> float:
    """Relative cut-off below which an eigenvalue is indistinguishable from rounding.

    ``n`` is the larger side of the matrix; ``precision`` names the floating-point
    type in which its entries were accumulated.
    """
    return n * float(np.finfo(precision).eps)


def whiten(M: Array, rcond: float | None = None, max_rank: int | None = None) -> Whitening:
    """Whiten a symmetric positive semi-definite matrix on its range.

    The eigenproblem is solved in coordinates scaled to unit diagonal, so that a few
    dimensions of huge variance (massive activations) cannot push the others below
    the cut-off, and mapped back.

    Parameters
    ----------
    M : (d, d) float64
    rcond : float, optional
        Keep eigenvalues above ``rcond`` times the largest one; by default
        ``d * eps(float64)``, see :func:`default_rcond`.
    max_rank : int, optional
        A bound on the rank known from theory (a mean over n texts has rank n at most).

    Raises
    ------
    ValueError
        If M is not square, not symmetric, not finite, indefinite, or zero.
    """
    M = np.asarray(M, dtype=np.float64)
    if M.ndim != 2 or M.shape[0] != M.shape[1]:
        raise ValueError(f"whiten needs a square matrix, got shape {M.shape}.")
    if not np.isfinite(M).all():
        raise ValueError("whiten needs finite entries; the matrix holds NaN or infinity.")
    magnitude = float(np.abs(M).max(initial=0.0))
    if magnitude == 0.0:
        raise ValueError("whiten needs a non-zero matrix; all features are zero.")
    if float(np.abs(M - M.T).max()) > 1e-6 * magnitude:
        raise ValueError("whiten needs a symmetric matrix; M and M^T differ by more than 1e-6 of its largest entry.")
    rcond = default_rcond(len(M)) if rcond is None else rcond
    if not 0.0 <= rcond < 1.0:
        raise ValueError(f"rcond must lie in [0, 1), got {rcond}.")

    diagonal = np.diag(M)
    if diagonal.min() < -rcond * diagonal.max():
        raise ValueError("whiten needs a positive semi-definite matrix; a diagonal entry is negative.")
    alive = diagonal > np.finfo(np.float64).tiny
    scale = np.zeros_like(diagonal)
    scale[alive] = np.sqrt(diagonal[alive])
    inverse = np.zeros_like(diagonal)
    inverse[alive] = 1.0 / scale[alive]

    scaled = M * inverse[:, None] * inverse[None, :]
    # LAPACK's default for eigenvectors, evr, leaves zero eigenvalues of tiny matrices at up to 16 eps; evd at 2.
    values, vectors = scipy.linalg.eigh((scaled + scaled.T) / 2, overwrite_a=True, driver="evd")
    if values[0] < -max(rcond, 1e-6) * values[-1]:
        raise ValueError(
            f"whiten needs a positive semi-definite matrix; its smallest scaled eigenvalue is {values[0]:.3g}."
        )
    keep = values > rcond * values[-1]
    if max_rank is not None:
        keep[: max(0, len(values) - max_rank)] = False
    root = np.sqrt(values[keep])
    vectors = vectors[:, keep]
    return Whitening(
        to_white=(vectors * root).T * scale[None, :],
        from_white=vectors / root * inverse[:, None],
        scale=scale,
        amplification=float(1.0 / root.min()),
    )


@dataclass(frozen=True, eq=False)
class Encoder:
    """All optimal linear encoders of one problem, for every width k at once.

    Attributes
    ----------
    vectors : (d, n) float64
        Generalized eigenvectors of ``(T T^T, M)``, normalized to ``E^T M E = I``. The
        first k columns span an optimal encoder of width k (in descending order).
        Where M is singular they lie in its range, the shortest representatives.
    white : (rank M, n) float64
        The same vectors in white coordinates of M: orthonormal columns.
    eigenvalues : (n,) float64
        Loss that each direction removes, in the order of the columns.
    n_informative : int
        Number of non-zero eigenvalues, the numerical rank of T on the range of M.
    whitening : Whitening
        Of M.
    """

    vectors: Array
    white: Array
    eigenvalues: Array
    n_informative: int
    whitening: Whitening


def encoder(
    whitening: Whitening,
    T: Array,
    *,
    rtol: float | None = None,
    max_rank: int | None = None,
    fill: bool = False,
    order: Order = "descending",
) -> Encoder:
    """Solve a reduced-rank regression for every width (theory: chapters 1 and 2).

    Parameters
    ----------
    whitening : Whitening
        Of the d x d second moment M of the inputs.
    T : (d, m) float64
        Moment of inputs with targets.
    rtol : float, optional
        Relative rounding of the entries of T, which decides what counts as a zero
        eigenvalue; by default that of float64, see :func:`default_rcond`.
    max_rank : int, optional
        A bound on the rank of T known from theory (for example the number of classes).
    fill : bool
        Also return the directions with zero eigenvalue. They carry no information
        about the targets and are not identifiable; only the mirror of the released
        script wants them.
    order : {"descending", "ascending"}
        Of the eigenvalues. The theory asks for descending.

    Raises
    ------
    ValueError
        If T does not fit M, or is zero on the range of M (nothing can be predicted).
    """
    T = np.asarray(T, dtype=np.float64)
    if T.ndim != 2 or T.shape[0] != whitening.dimension:
        raise ValueError(f"T must have shape ({whitening.dimension}, targets), got {T.shape}.")
    if order not in ("descending", "ascending"):
        raise ValueError(f"order must be 'descending' or 'ascending', got {order!r}.")

    W = whitening.from_white
    whitened = W.T @ T
    # No d x d eigenproblem for a d x c matrix: one thin SVD, or a full one to fill.
    left, values, _ = scipy.linalg.svd(whitened, full_matrices=fill)
    # Rounding of T reaches the whitened matrix multiplied by the norm of W, both in unit-diagonal coordinates.
    rtol = default_rcond(max(T.shape)) if rtol is None else rtol
    scale = whitening.scale[:, None]
    in_units = np.divide(T, scale, out=np.zeros_like(T), where=scale > 0)
    noise = rtol * whitening.amplification * np.linalg.norm(in_units)
    n_informative = int((values > noise).sum())
    if max_rank is not None:
        n_informative = min(n_informative, max_rank)
    if n_informative == 0:
        raise ValueError(
            "The features carry no linear information about the targets: their cross moment is zero. "
            "Give at least two classes, or targets that vary."
        )

    n = left.shape[1] if fill else n_informative
    eigenvalues = np.zeros(n)
    eigenvalues[:n_informative] = values[:n_informative] ** 2
    white = left[:, :n]
    if order == "ascending":
        white, eigenvalues = white[:, ::-1], eigenvalues[::-1]
    vectors = W @ white
    if not whitening.is_full:
        basis = whitening.range_basis
        vectors = basis @ (basis.T @ vectors)
    return Encoder(vectors, white, eigenvalues, n_informative, whitening)


@dataclass(frozen=True, eq=False)
class NestedBasis:
    """Orthonormal basis adapted to the spans of the leading columns of a matrix.

    Attributes
    ----------
    Q : (d, d) float64
        Orthogonal. The first ``counts[k]`` columns span the first k columns of the matrix.
    counts : (n + 1,) int
        Dimension of the span of the first k columns, k = 0 ... n.
    """

    Q: Array
    counts: NDArray[np.intp]


def nested_basis(M: Array, rtol: float = 1e-12) -> NestedBasis:
    """QR factorization that knows which columns add a dimension.

    A column closer than ``rtol`` times its length to the span of those before it, or
    short enough to be rounding of the longest one, is taken as dependent. Plain QR would
    put an arbitrary direction in its place.

    Parameters
    ----------
    M : (d, n) float64
    rtol : float
    """
    d, n = M.shape
    lengths = np.linalg.norm(M, axis=0)
    tolerance = np.maximum(rtol * lengths, default_rcond(max(M.shape)) * lengths.max(initial=0.0))
    columns = np.arange(n)
    while True:
        Q, R = scipy.linalg.qr(M[:, columns])
        distances = np.abs(np.diag(R))
        dependent = np.flatnonzero(distances <= tolerance[columns[: len(distances)]])
        if len(dependent) == 0:
            break
        columns = np.delete(columns, dependent[0])
    independent = columns[:d]
    counts = np.searchsorted(independent, np.arange(n + 1), side="left")
    return NestedBasis(Q, counts)


def shrink(M: Array, intensity: float) -> Array:
    """Shrink towards a multiple of the identity of the same trace.

    ``(1 - intensity) M + intensity (tr M / d) I``, with intensity in [0, 1]; see
    :meth:`ntps_utils.theory.moments.LayerMoments.ledoit_wolf` for the data-driven choice.
    """
    if not 0.0 <= intensity <= 1.0:
        raise ValueError(f"The shrinkage intensity must lie in [0, 1], got {intensity}.")
    return (1.0 - intensity) * M + intensity * np.trace(M) / len(M) * np.eye(len(M))


def add_ridge(M: Array, ridge: float) -> Array:
    """Add ``ridge`` times the mean diagonal entry to the diagonal.

    The same as adding independent noise of that variance to every feature.
    """
    if not ridge >= 0.0:
        raise ValueError(f"ridge must be non-negative, got {ridge}.")
    return M + ridge * np.trace(M) / len(M) * np.eye(len(M))
