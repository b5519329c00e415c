"""Closed forms of the two linear problems: whitening and reduced-rank regression.

Both encoders of the paper minimize a loss of the same form,

    tr K - tr[(E^T M E)^{-1} E^T T T^T E]        over E (d x k),

where ``M`` is the second moment of the inputs and ``T`` the cross moment of inputs and
targets. The minimizer is spanned by the k leading generalized eigenvectors of
``(T T^T, M)``. :func:`encoder` returns all of them at once, in nested order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Order = Literal["descending", "ascending"]


@dataclass(frozen=True, eq=False)
class Whitening:
    """Change of coordinates in which a positive semi-definite matrix M is the identity.

    Attributes
    ----------
    to_white : (rank, d) float64
        ``F^T`` with ``M = F F^T``. It maps a direction u to white coordinates, where
        ``|F^T u|^2 = u^T M u``.
    from_white : (d, rank) float64
        ``W`` with ``W^T M W = I`` and ``F^T W = I``. It maps white coordinates to directions.
    scale : (d,) float64
        Square root of the diagonal of M: the units in which the eigenproblem was solved.
    amplification : float
        Spectral norm of W in those units: the largest factor by which whitening multiplies
        the rounding error of a moment.
    """

    to_white: Array
    from_white: Array
    scale: Array
    amplification: float

    @property
    def rank(self) -> int:
        """Effective rank of M, the number of eigenvalues above the cut-off."""
        return self.to_white.shape[0]

    @property
    def dimension(self) -> int:
        """Number d of rows and columns of M."""
        return self.to_white.shape[1]

    @property
    def is_full(self) -> bool:
        """Whether M has full effective rank."""
        return self.rank == self.dimension

    @cached_property
    def range_basis(self) -> Array:
        """Orthonormal basis (d, rank) of the range of M."""
        return orthonormal_basis(self.to_white.T)

    @cached_property
    def spectrum(self) -> Array:
        """Non-zero eigenvalues of M in its original units, (rank,), descending."""
        return left_singular_vectors(self.to_white)[1] ** 2


@cache
def _torch() -> ModuleType | None:
    """Import PyTorch if it is installed: its decompositions are faster than SciPy's on x86 processors.

    Large products are made there too: after a product in NumPy, idle threads of its BLAS wait in a loop and
    slow down PyTorch. This module needs no PyTorch to be imported, and uses NumPy where there is none.
    """
    try:
        import torch
    except ImportError:
        return None
    return torch


def _tensor(torch: ModuleType, x: Array) -> Any:
    """Copy a matrix to PyTorch, which aligns it in memory: a result does not depend on the address of x."""
    copy = torch.empty(x.shape, dtype=torch.float64)
    copy.numpy()[...] = x
    return copy


def product(A: Array, B: Array) -> Array:
    """Multiply two matrices where their decompositions are made: in PyTorch, or in NumPy without it.

    Parameters
    ----------
    A : (m, n) float64
    B : (n, k) float64

    Returns
    -------
    (m, k) float64

    Examples
    --------
    >>> product(np.eye(2), np.array([[1.0], [2.0]]))
    array([[1.],
           [2.]])
    """
    torch = _torch()
    if torch is None:
        return A @ B
    return np.asarray((_tensor(torch, A) @ _tensor(torch, B)).numpy())


def _decompose(name: str, M: Array, **options: Any) -> tuple[Array, ...]:
    """Call a decomposition of ``torch.linalg``, or the one of the same name in ``numpy.linalg`` without PyTorch."""
    torch = _torch()
    if torch is None:
        return tuple(getattr(np.linalg, name)(M, **options))
    return tuple(part.numpy() for part in getattr(torch.linalg, name)(_tensor(torch, M), **options))


def orthonormal_basis(M: Array) -> Array:
    """Compute an orthonormal basis of the span of linearly independent columns.

    Parameters
    ----------
    M : (d, n) float64

    Returns
    -------
    (d, min(d, n)) float64

    Examples
    --------
    >>> np.abs(orthonormal_basis(np.array([[3.0], [4.0]])))
    array([[0.6],
           [0.8]])
    """
    return _decompose("qr", M)[0]


def left_singular_vectors(M: Array, *, full: bool = False) -> tuple[Array, Array]:
    """Compute the left singular vectors of a matrix and its singular values.

    Parameters
    ----------
    M : (d, n) float64
    full : bool
        Also return the directions outside the span of M.

    Returns
    -------
    vectors : (d, min(d, n)) float64
        (d, d) if ``full``.
    values : (min(d, n),) float64
        In descending order.

    Examples
    --------
    >>> vectors, values = left_singular_vectors(np.array([[3.0], [4.0]]))
    >>> np.abs(vectors[:, 0]), values
    (array([0.6, 0.8]), array([5.]))
    """
    vectors, values, _ = _decompose("svd", M, full_matrices=full)
    return vectors, values


def default_rcond(n: int, precision: str = "float64") -> float:
    """Return the relative eigenvalue cut-off below which an eigenvalue is only rounding error.

    Parameters
    ----------
    n : int
        Larger side of the matrix.
    precision : str
        Floating-point type in which the entries of the matrix were accumulated.

    Returns
    -------
    float
        ``n`` times the machine epsilon of ``precision``.

    Examples
    --------
    >>> default_rcond(768) / default_rcond(768, "float32") == 2.0**-29
    True
    """
    return n * float(np.finfo(precision).eps)


def whiten(M: Array, rcond: float | None = None, max_rank: int | None = None) -> Whitening:
    """Whiten a symmetric positive semi-definite matrix on its range.

    Parameters
    ----------
    M : (d, d) float64
        Second-moment matrix.
    rcond : float, optional
        Relative eigenvalue cut-off in [0, 1): eigenvalues up to ``rcond`` times the largest
        one count as zero. By default ``d * eps(float64)``, see :func:`default_rcond`.
    max_rank : int, optional
        Known upper bound on the rank; a mean over n texts, for example, has rank n at most.

    Returns
    -------
    Whitening
        Maps to and from white coordinates, with the effective rank.

    Raises
    ------
    ValueError
        If M is not square, not symmetric, not finite, indefinite, or zero, or if ``rcond``
        is outside [0, 1).

    Notes
    -----
    The eigenproblem is solved in coordinates scaled to unit diagonal, and the result is
    mapped back. A few features of huge variance (massive activations) therefore do not push
    the other directions below the cut-off.

    Examples
    --------
    >>> import numpy as np
    >>> M = np.array([[4.0, 2.0], [2.0, 3.0]])
    >>> whitening = whiten(M)
    >>> whitening.rank
    2
    >>> np.allclose(whitening.from_white.T @ M @ whitening.from_white, np.eye(2))
    True
    """
    M = np.asarray(M, dtype=np.float64)
    if M.ndim != 2 or M.shape[0] != M.shape[1]:
        raise ValueError(f"whiten needs a square matrix, got shape {M.shape}.")
    if not np.isfinite(M).all():
        raise ValueError("whiten needs finite entries; the matrix contains NaN or infinity.")
    magnitude = float(np.abs(M).max(initial=0.0))
    if magnitude == 0.0:
        raise ValueError("whiten needs a non-zero matrix; all entries are zero.")
    if float(np.abs(M - M.T).max()) > 1e-6 * magnitude:
        raise ValueError("whiten needs a symmetric matrix; M and M^T differ by more than 1e-6 of the largest entry.")
    rcond = default_rcond(len(M)) if rcond is None else rcond
    if not 0.0 <= rcond < 1.0:
        raise ValueError(f"rcond must be in [0, 1), got {rcond}.")

    diagonal = np.diag(M)
    if diagonal.min() < -rcond * diagonal.max():
        raise ValueError("whiten needs a positive semi-definite matrix; a diagonal entry is negative.")
    nonzero = diagonal > np.finfo(np.float64).tiny
    scale = np.zeros_like(diagonal)
    scale[nonzero] = np.sqrt(diagonal[nonzero])
    inverse = np.zeros_like(diagonal)
    inverse[nonzero] = 1.0 / scale[nonzero]

    scaled = M * inverse[:, None] * inverse[None, :]
    # LAPACK's driver evr returns zero eigenvalues of small matrices as up to 16 eps; evd, which is called here, 2.
    values, vectors = _decompose("eigh", (scaled + scaled.T) / 2)
    if values[0] < -max(rcond, 1e-6) * values[-1]:
        raise ValueError(
            f"whiten needs a positive semi-definite matrix; its smallest scaled eigenvalue is {values[0]:.3g}."
        )
    above_cutoff = values > rcond * values[-1]
    if max_rank is not None:
        above_cutoff[: max(0, len(values) - max_rank)] = False
    root = np.sqrt(values[above_cutoff])
    vectors = vectors[:, above_cutoff]
    return Whitening(
        to_white=(vectors * root).T * scale[None, :],
        from_white=vectors / root * inverse[:, None],
        scale=scale,
        amplification=float(1.0 / root.min()),
    )


@dataclass(frozen=True, eq=False)
class Encoder:
    """Optimal linear encoders of one problem, for every width k at once.

    Attributes
    ----------
    vectors : (d, n) float64
        Generalized eigenvectors of ``(T T^T, M)``, normalized to ``E^T M E = I``. In
        descending order, the first k columns span an optimal encoder of width k. If M is
        singular, the vectors are the shortest representatives, in the range of M.
    white : (rank M, n) float64
        The same vectors in white coordinates of M; the columns are orthonormal.
    eigenvalues : (n,) float64
        Loss that each direction removes, in the order of the columns.
    n_informative : int
        Number of non-zero eigenvalues: the numerical rank of T on the range of M.
    whitening : Whitening
        Whitening of M.
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
    """Solve a reduced-rank regression for every width (book, chapters 1 and 2).

    Parameters
    ----------
    whitening : Whitening
        Whitening of the (d, d) second moment M of the inputs.
    T : (d, m) float64
        Cross moment of inputs and targets.
    rtol : float, optional
        Relative rounding error of the entries of T, from which the tolerance for zero
        eigenvalues follows. By default that of float64, see :func:`default_rcond`.
    max_rank : int, optional
        Known upper bound on the rank of T, for example the number of classes.
    fill : bool
        Also return the directions with zero eigenvalue. They carry no information about the
        targets and are not identifiable; only the released script uses them.
    order : {"descending", "ascending"}
        Order of the eigenvalues. The theory needs "descending".

    Returns
    -------
    Encoder
        Directions and the loss that each of them removes.

    Raises
    ------
    ValueError
        If the shape of T does not match M, or T is zero on the range of M, so that no
        linear prediction is possible.

    Notes
    -----
    The directions are the left singular vectors of ``W^T T`` (W: ``whitening.from_white``),
    mapped by W, and the eigenvalues are the squared singular values. This avoids the d x d
    eigenproblem of ``T T^T`` and does not square its condition number.

    References
    ----------
    A. J. Izenman (1975), Reduced-rank regression for the multivariate linear model, Journal
    of Multivariate Analysis 5(2).

    Examples
    --------
    >>> import numpy as np
    >>> result = encoder(whiten(np.eye(3)), np.diag([1.0, 3.0, 2.0]))
    >>> result.eigenvalues.round(6)
    array([9., 4., 1.])
    >>> np.abs(result.vectors[:, 0]).round(6)
    array([0., 1., 0.])
    """
    T = np.asarray(T, dtype=np.float64)
    if T.ndim != 2 or T.shape[0] != whitening.dimension:
        raise ValueError(f"T must have shape ({whitening.dimension}, targets), got {T.shape}.")
    if order not in ("descending", "ascending"):
        raise ValueError(f"order must be 'descending' or 'ascending', got {order!r}.")

    W = whitening.from_white
    left, values = left_singular_vectors(product(W.T, T), full=fill)
    # Whitening multiplies the rounding error of T by the norm of W, both in unit-diagonal coordinates.
    rtol = default_rcond(max(T.shape)) if rtol is None else rtol
    scale = whitening.scale[:, None]
    scaled_T = np.divide(T, scale, out=np.zeros_like(T), where=scale > 0)
    noise = rtol * whitening.amplification * float(np.sqrt(np.sum(scaled_T**2)))
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
    vectors = product(W, white)
    if not whitening.is_full:
        basis = whitening.range_basis
        vectors = product(basis, product(basis.T, vectors))
    return Encoder(vectors, white, eigenvalues, n_informative, whitening)


@dataclass(frozen=True, eq=False)
class NestedBasis:
    """Orthonormal basis adapted to the spans of the leading columns of a matrix.

    Attributes
    ----------
    Q : (d, d) float64
        Orthogonal matrix. Its first ``counts[k]`` columns span the first k columns of the
        matrix.
    counts : (n + 1,) int
        Dimension of the span of the first k columns, for k = 0 ... n.
    """

    Q: Array
    counts: NDArray[np.intp]


def nested_basis(M: Array, rtol: float = 1e-12) -> NestedBasis:
    """Compute an orthonormal basis for every span of leading columns, also of dependent ones.

    A column counts as dependent if its distance to the span of the preceding columns is at
    most ``rtol`` times its length, or no larger than the rounding error of the longest
    column. An ordinary QR factorization would return an arbitrary direction in its place.

    Parameters
    ----------
    M : (d, n) float64
        Matrix whose columns define the nested spans.
    rtol : float
        Relative tolerance for dependent columns.

    Returns
    -------
    NestedBasis
        Basis and dimension of each span.

    Examples
    --------
    >>> import numpy as np
    >>> M = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])  # the second column depends on the first
    >>> nested_basis(M).counts
    array([0, 1, 1, 2])
    """
    d, n = M.shape
    lengths = np.linalg.norm(M, axis=0)
    tolerance = np.maximum(rtol * lengths, default_rcond(max(M.shape)) * lengths.max(initial=0.0))
    columns = np.arange(n)
    while True:
        Q, R = _decompose("qr", M[:, columns], mode="complete")
        distances = np.abs(R.diagonal())
        dependent = np.flatnonzero(distances <= tolerance[columns[: len(distances)]])
        if len(dependent) == 0:
            break
        columns = np.delete(columns, dependent[0])
    independent = columns[:d]
    counts = np.searchsorted(independent, np.arange(n + 1), side="left")
    return NestedBasis(Q, counts)


def shrink(M: Array, intensity: float) -> Array:
    """Shrink a matrix towards the multiple of the identity that has the same trace.

    Parameters
    ----------
    M : (d, d) float64
        Second-moment matrix.
    intensity : float
        Weight of the identity, in [0, 1].

    Returns
    -------
    (d, d) float64
        ``(1 - intensity) M + intensity (tr M / d) I``.

    Raises
    ------
    ValueError
        If ``intensity`` is outside [0, 1].

    See Also
    --------
    ntps_utils.theory.layer_moments.LayerMoments.ledoit_wolf : Intensity estimated from the data.

    Examples
    --------
    >>> import numpy as np
    >>> shrink(np.diag([1.0, 3.0]), 0.5)
    array([[1.5, 0. ],
           [0. , 2.5]])
    """
    if not 0.0 <= intensity <= 1.0:
        raise ValueError(f"The shrinkage intensity must be in [0, 1], got {intensity}.")
    return (1.0 - intensity) * M + intensity * np.trace(M) / len(M) * np.eye(len(M))


def add_ridge(M: Array, ridge: float) -> Array:
    """Add a multiple of the mean diagonal entry to the diagonal.

    This has the same effect as adding independent noise of that variance to every feature.

    Parameters
    ----------
    M : (d, d) float64
        Second-moment matrix.
    ridge : float
        Noise variance as a fraction of the mean diagonal entry, at least 0.

    Returns
    -------
    (d, d) float64
        ``M + ridge (tr M / d) I``.

    Raises
    ------
    ValueError
        If ``ridge`` is negative or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> add_ridge(np.diag([1.0, 3.0]), 0.1)
    array([[1.2, 0. ],
           [0. , 3.2]])
    """
    if not ridge >= 0.0:
        raise ValueError(f"ridge must be non-negative, got {ridge}.")
    return M + ridge * np.trace(M) / len(M) * np.eye(len(M))
