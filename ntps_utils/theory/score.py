"""Next Token Perception Score, its variants in the metric of the loss, and bounds on the excess loss.

These are the formulas, for moments. To score features, use :mod:`ntps_utils.theory.estimator`.

U holds the perception directions: S-orthonormal, with eigenvalues beta_1 >= ... >= beta_r > 0
of the whitened task matrix B. V holds the autoregressive directions. Both are nested by
eigenvalue. An encoder of width k_v uses the span of the first k_v columns of V. With P the
orthogonal projector on that span, P~ the projector on its image in white coordinates of S,
and u~_i the i-th column of U in these coordinates,

    ntps         ||P U||_F^2 / ||U||_F^2             the paper's score
    ntps_metric  (1/r) sum_i ||P~ u~_i||^2            the same in the metric of the loss
    ntps_task    tr(P~ B) / tr B                      weighted by the loss that each direction explains
    excess loss  L(V) - L* = tr((I - P~) B)           exact

References
----------
Cheng, Hu, Huang and Balestriero (2025), Next Token Perception Score: Analytical Assessment of
your LLM Perception Skills, arXiv:2505.17169.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ntps_utils._utils.diagnostics import with_reference
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import (
    Array,
    NestedBasis,
    Order,
    Whitening,
    add_ridge,
    encoder,
    nested_basis,
    product,
    shrink,
    whiten,
)

Width = int | float
Shrinkage = float | Literal["ledoit-wolf"]

SCORES = ("ntps", "ntps_metric", "ntps_task")
"""Names of the scores: Euclidean, metric-matched and task-weighted."""

# Relative cut-off for the rank of Y: targets whose correlation is closer to one count as one target.
RCOND_TARGETS = 1e-10


class NumericalWarning(UserWarning):
    """A result is defined, but unreliable: too few texts, or a truncated spectrum."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """Lower and upper bounds on a loss, for every k_v.

    Attributes
    ----------
    lower, upper : (m,) float64
        Bounds: each is its constant times ``1 - score``.
    lower_constant, upper_constant : (m,) float64
        Constants of the bounds.
    """

    lower: Array
    upper: Array
    lower_constant: Array
    upper_constant: Array

    @property
    def looseness(self) -> Array:
        """Ratio of the upper to the lower constant, (m,), at least 1; infinite if the lower constant is zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.lower_constant > 0, self.upper_constant / self.lower_constant, np.inf)


@dataclass(frozen=True)
class SharpBounds:
    """Bounds on the excess loss at one width, from the angles between U and V.

    Attributes
    ----------
    lower_angles, upper_angles : float
        From the eigenvalues beta of U and the squared sines s of the principal angles between U
        and V in white coordinates: the sum of ``beta_i s_i`` is smallest if the largest beta meets
        the smallest sine, and largest if it meets the largest one (von Neumann). Both are attained.
    lower_restricted, upper_restricted : float
        By the Euclidean score, as :attr:`Subspaces.bounds`, with the smallest and the largest ratio
        of squared distances to V in both metrics over the span of U in place of the smallest and
        the largest eigenvalue of S.
    lower_rank_k, upper_rank_k : float or None
        Bounds on :attr:`Subspaces.excess_loss_rank_k` by the Euclidean score with k_u = k_v; None
        where k_v is at least r.

    References
    ----------
    J. von Neumann (1937), Some matrix inequalities and metrization of matric space. A. W. Marshall,
    I. Olkin and B. C. Arnold (2011), Inequalities: theory of majorization, chapter 9.
    """

    lower_angles: float
    upper_angles: float
    lower_restricted: float
    upper_restricted: float
    lower_rank_k: float | None
    upper_rank_k: float | None


@dataclass(frozen=True, eq=False)
class Subspaces:
    """Perception and autoregressive encoders of one layer, from which every score follows.

    Attributes
    ----------
    U : (d, r) float64
        Perception directions, ``U^T S U = I``, in the requested order.
    beta : (r,) float64
        Eigenvalues of U: the loss that each direction removes.
    V : (d, m) float64
        Autoregressive directions, ``V^T A0 V = I``, in the requested order.
    gamma : (m,) float64
        Eigenvalues of V.
    white_U : (rank S, r) float64
        U in white coordinates of S; the columns are orthonormal.
    whitening : Whitening
        Whitening of S, after ridge or shrinkage.
    whitening_a : Whitening
        Whitening of A0.
    r : int
        Numerical rank of C. With ``fill_u``, U has more than r columns.
    trace_y : float
        tr Y: the loss of predicting zero (or the mean, if centered).
    tr_G : float
        Constant of the autoregressive loss.
    layer : int
        Index of the layer.
    n_texts : int
        Number of texts.
    centered : bool
        Whether S, C and Y are covariances.
    shrinkage : float
        Shrinkage intensity applied to S.
    regularized : bool
        Whether S has a ridge or was shrunk.
    """

    U: Array
    beta: Array
    V: Array
    gamma: Array
    white_U: Array
    whitening: Whitening
    whitening_a: Whitening
    r: int
    trace_y: float
    tr_G: float
    layer: int
    n_texts: int
    centered: bool
    shrinkage: float
    regularized: bool

    # -- sizes -----------------------------------------------------------------

    @property
    def d(self) -> int:
        """Number of features."""
        return self.whitening.dimension

    @property
    def rank(self) -> int:
        """Effective rank of S."""
        return self.whitening.rank

    @property
    def rank_v(self) -> int:
        """Number of autoregressive directions."""
        return self.V.shape[1]

    @property
    def trace_b(self) -> float:
        """tr B, the loss that the best linear predictor removes (the sum of beta)."""
        return float(self.beta.sum())

    @property
    def best_loss(self) -> float:
        """L*, the loss of the best linear predictor from all features."""
        return self.trace_y - self.trace_b

    # -- overlaps: entry (i, j) is the contribution of the j-th direction of V to the i-th of U ---

    @cached_property
    def _euclidean(self) -> NestedBasis:
        return nested_basis(self.V)

    @cached_property
    def _metric(self) -> NestedBasis:
        return nested_basis(product(self.whitening.to_white, self.V))

    @cached_property
    def _metric_overlap(self) -> Array:
        return product(self.white_U.T, self._metric.Q) ** 2

    def metric_basis(self, k_v: int) -> Array:
        """Compute an orthonormal basis of V in white coordinates of S.

        Parameters
        ----------
        k_v : int
            Width of V, from 1 to :attr:`rank_v`.

        Returns
        -------
        (rank, m) float64
            With m the dimension of V in the metric of S, at most ``k_v``.
        """
        return self._metric.Q[:, : self._metric.counts[k_v]]

    @cached_property
    def ntps(self) -> Array:
        """The paper's score for every (k_u, k_v), shape (columns of U, m).

        Entry [i, j] is the score with k_u = i + 1 and k_v = j + 1. The spans are nested, so
        one QR factorization of V, one product and cumulative sums give all entries.
        """
        overlap = product(self.U.T, self._euclidean.Q) ** 2
        captured = _leading(overlap, self._euclidean.counts).cumsum(0)
        return captured / np.sum(self.U**2, axis=0).cumsum()[:, None]

    @cached_property
    def ntps_metric(self) -> Array:
        """Metric-matched score for every (k_u, k_v), the mean squared cosine in white coordinates."""
        captured = _leading(self._metric_overlap, self._metric.counts).cumsum(0)
        return captured / np.arange(1, len(captured) + 1)[:, None]

    @cached_property
    def ntps_task(self) -> Array:
        """Task-weighted score for every k_v, (m,), the share of tr B that V retains."""
        return self.beta @ _leading(self._metric_overlap, self._metric.counts) / self.trace_b

    # -- losses and bounds -------------------------------------------------------

    @cached_property
    def excess_loss(self) -> Array:
        """Excess loss L(V) - L* for every k_v, (m,).

        The sum runs over the directions outside V, so that small values are accurate too.
        """
        return self.beta @ _trailing(self._metric_overlap, self._metric.counts)

    @property
    def autoregressive_loss(self) -> Array:
        """Loss of the best next-token predictor through the first k_v directions, (m,)."""
        return self.tr_G - self.gamma.cumsum()

    def _informative(self) -> NDArray[np.intp]:
        """Indices of the r directions of U with a non-zero eigenvalue."""
        return np.argsort(-self.beta, kind="stable")[: self.r]

    @cached_property
    def bounds(self) -> Bounds:
        """Two-sided bound on the excess loss by the Euclidean score (book, chapter 3, statement d).

        ``beta_r lambda_min(S) ||U||^2 (1 - NTPS) <= excess <= beta_1 lambda_max(S) ||U||^2 (1 - NTPS)``
        over the r informative directions. If S is singular, all terms refer to its range.
        """
        beta, spectrum = self.beta[self._informative()], self.whitening.spectrum
        U, basis = self._on_range
        distance = _trailing(product(U.T, basis.Q) ** 2, basis.counts).sum(0)
        size = np.sum(U**2)
        return _bounds(beta[-1] * spectrum[-1] * size, beta[0] * spectrum[0] * size, distance / size)

    @cached_property
    def _on_range(self) -> tuple[Array, NestedBasis]:
        """The r informative directions of U, and a basis of V, in orthonormal coordinates of the range of S."""
        U = self.U[:, self._informative()]
        if self.whitening.is_full:
            return U, self._euclidean
        R = self.whitening.range_basis
        return product(R.T, U), nested_basis(product(R.T, self.V))

    def sharp_bounds(self, k_v: int) -> SharpBounds:
        """Compute bounds on the excess loss from the angles between U and V (book, chapter 3).

        Parameters
        ----------
        k_v : int
            Width of V, from 1 to :attr:`rank_v`.

        Returns
        -------
        SharpBounds
        """
        chosen = self._informative()
        beta, size = self.beta[chosen], len(chosen)
        U, basis = self._on_range
        # What V misses of each direction of U: Gram matrices of the remainders, in both metrics.
        outside = product(self.white_U[:, chosen].T, self._metric.Q[:, self._metric.counts[k_v] :])
        missed = outside @ outside.T
        outside = product(U.T, basis.Q[:, basis.counts[k_v] :])
        distances = outside @ outside.T
        sines = np.clip(np.linalg.eigvalsh(missed), 0.0, 1.0)  # ascending
        ratios = _generalized_eigenvalues(missed, distances)
        total = float(np.trace(distances))
        rank_k_lower, rank_k_upper = None, None
        if k_v < size:
            spectrum = self.whitening.spectrum
            smallest = 0.0 if self.r < self.rank else float(beta[-1])
            euclidean = float(np.trace(distances[:k_v, :k_v]))
            rank_k_lower = float((beta[k_v - 1] - beta[k_v]) * spectrum[-1] * euclidean)
            rank_k_upper = float((beta[0] - smallest) * spectrum[0] * euclidean)
        return SharpBounds(
            lower_angles=float(beta @ sines),
            upper_angles=float(beta @ sines[::-1]),
            lower_restricted=float(beta[-1] * ratios[0] * total),
            upper_restricted=float(beta[0] * ratios[-1] * total),
            lower_rank_k=rank_k_lower,
            upper_rank_k=rank_k_upper,
        )

    @cached_property
    def bounds_metric(self) -> Bounds:
        """Two-sided bound on the excess loss by the metric-matched score (book, chapter 3, statement c).

        ``beta_r r (1 - ntps_metric) <= excess <= beta_1 r (1 - ntps_metric)``
        """
        chosen = self._informative()
        beta = self.beta[chosen]
        missed = _trailing(self._metric_overlap[chosen], self._metric.counts).mean(0)
        return _bounds(beta[-1] * self.r, beta[0] * self.r, missed)

    @cached_property
    def excess_loss_rank_k(self) -> Array:
        """Loss above that of the best encoder of width k_v, (m,); NaN where k_v >= r (book, chapter 3, statement e)."""
        removed = _padded_cumsum(np.sort(self.beta)[::-1][: self.r], self.rank_v)
        removed_by_v = self.trace_b * self.ntps_task
        return np.where(self._widths < self.r, np.maximum(removed - removed_by_v, 0.0), np.nan)

    @cached_property
    def bounds_rank_k(self) -> Bounds:
        """Bounds on :attr:`excess_loss_rank_k` by the metric-matched score with k_u = k_v; NaN where k_v >= r."""
        chosen = self._informative()
        beta = self.beta[chosen]
        k = self._widths
        valid = k < self.r
        i = k[valid] - 1
        missed = np.full(len(k), np.nan)
        # The columns of V may be dependent in the metric of S, so the counts are dimensions, not columns.
        if valid.any():
            missed[valid] = _trailing(self._metric_overlap[chosen], self._metric.counts).cumsum(0)[i, i] / k[valid]
        smallest = 0.0 if self.r < self.rank else float(beta[-1])
        lower, upper = np.full(len(k), np.nan), np.full(len(k), np.nan)
        lower[valid] = (beta[i] - beta[i + 1]) * k[valid]
        upper[valid] = (beta[0] - smallest) * k[valid]
        return _bounds(lower, upper, missed)

    @property
    def _widths(self) -> NDArray[np.intp]:
        return np.arange(1, self.rank_v + 1)

    # -- rows --------------------------------------------------------------------

    def with_subspace(self, V: Array) -> Subspaces:
        """Replace the autoregressive directions, and so score other subspaces on the same task.

        Parameters
        ----------
        V : (d, m) float64
            Directions of another encoder; the first k columns span the one of width k.

        Returns
        -------
        Subspaces
            The task and U do not change. ``gamma`` is zero, because it belonged to the replaced directions.

        Examples
        --------
        >>> from ntps_utils.theory.synthetic import random_problem
        >>> solved = subspaces(random_problem(1, d=5, n_texts=50, rank=5).moments())
        >>> float(solved.with_subspace(np.eye(5)).ntps_task[-1].round(6))  # all directions
        1.0
        """
        return replace(self, V=V, gamma=np.zeros(V.shape[1]))

    def width(self, k_v: Width) -> int:
        """Convert an integer, or a fraction of :attr:`rank_v`, to a number of directions.

        Parameters
        ----------
        k_v : int or float
            See :func:`resolve_width`.

        Returns
        -------
        int
            Number of autoregressive directions, from 1 to :attr:`rank_v`.

        Raises
        ------
        ValueError
            If an integer is outside 1 ... d, or a fraction outside (0, 1].
        """
        return resolve_width(k_v, self.rank_v, self.d)

    def row(self, k_v: Width) -> ScoreRow:
        """Return all scores and bounds at one k_v, with all columns of U.

        Parameters
        ----------
        k_v : int or float
            See :func:`resolve_width`.

        Returns
        -------
        ScoreRow
            Scores, losses and bounds.

        Raises
        ------
        ValueError
            If ``k_v`` is not valid, see :func:`resolve_width`.
        """
        k = self.width(k_v)
        i = k - 1
        sharp = self.sharp_bounds(k)
        return ScoreRow(
            layer=self.layer,
            k_v=k,
            k_u=self.U.shape[1],
            rank=self.rank,
            rank_v=self.rank_v,
            ntps=float(self.ntps[-1, i]),
            ntps_metric=float(self.ntps_metric[-1, i]),
            ntps_task=float(self.ntps_task[i]),
            trace_b=self.trace_b,
            best_loss=self.best_loss,
            excess_loss=float(self.excess_loss[i]),
            lower_bound=float(self.bounds.lower[i]),
            upper_bound=float(self.bounds.upper[i]),
            lower_bound_metric=float(self.bounds_metric.lower[i]),
            upper_bound_metric=float(self.bounds_metric.upper[i]),
            excess_loss_rank_k=_or_none(self.excess_loss_rank_k[i]),
            lower_bound_rank_k=_or_none(self.bounds_rank_k.lower[i]),
            upper_bound_rank_k=_or_none(self.bounds_rank_k.upper[i]),
            shrinkage=self.shrinkage,
            lower_bound_angles=sharp.lower_angles,
            upper_bound_angles=sharp.upper_angles,
            lower_bound_restricted=sharp.lower_restricted,
            upper_bound_restricted=sharp.upper_restricted,
            lower_bound_rank_k_euclidean=sharp.lower_rank_k,
            upper_bound_rank_k_euclidean=sharp.upper_rank_k,
        )


def subspaces(
    moments: LayerMoments,
    *,
    layer: int = 0,
    center: bool = False,
    ridge: float = 0.0,
    shrinkage: Shrinkage = 0.0,
    rcond: float | None = None,
    order: Order = "descending",
    fill_u: bool = False,
) -> Subspaces:
    """Solve both linear problems of one layer.

    Parameters
    ----------
    moments : LayerMoments
        Moments of the layer.
    layer : int
        Index of the layer, for the result and for messages.
    center : bool
        Use covariances for S, C and Y. By default, as in the paper, second moments are used,
        and the constant feature direction counts as one perception direction.
    ridge : float
        Variance of isotropic noise added to S, as a fraction of its mean diagonal entry.
    shrinkage : float or "ledoit-wolf"
        Intensity of the shrinkage of S towards a multiple of the identity. All identities
        and bounds then refer to the loss with that S. Shrinkage reduces the largest
        variances, so that tr B can exceed tr Y; a ridge cannot cause that.
    rcond : float, optional
        Relative eigenvalue cut-off for S and A0. By default the rounding error of the moments:
        :attr:`ntps_utils.theory.layer_moments.LayerMoments.rcond` for S, and ``rcond_raw`` for A0.
    order : {"descending", "ascending"}
        Order of the eigenvalues of U and V. The theory needs "descending"; "ascending"
        reproduces the released script, whose solvers return the smallest eigenvalue first.
    fill_u : bool
        Give U rank(S) columns instead of rank(C), as the released script does. The
        additional columns carry no label information and are not identifiable.

    Returns
    -------
    Subspaces
        Directions and eigenvalues, with all scores and bounds as properties.

    Raises
    ------
    ValueError
        If all features or the cross moment with the targets are zero, or a setting is not valid.

    Warns
    -----
    NumericalWarning
        If there are fewer texts than features, or a spectrum was truncated.

    Examples
    --------
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> problem = planted_problem(0, d=10, n_texts=400)  # the labels depend on two directions
    >>> solved = subspaces(problem.moments(), center=True)
    >>> solved.ntps[-1, :3].round(2)  # at k_v = 1, 2, 3
    array([0.45, 0.91, 0.91])
    """
    if center:
        moments = moments.center()
    intensity = moments.ledoit_wolf() if shrinkage == "ledoit-wolf" else float(shrinkage)
    S = shrink(moments.S, intensity) if intensity else moments.S
    S = add_ridge(S, ridge) if ridge else S
    regularized = bool(intensity or ridge)
    cut = moments.rcond if rcond is None else rcond
    cut_a = moments.rcond_raw if rcond is None else rcond
    d = len(S)
    if not np.any(S):
        raise ValueError(
            f"Layer {layer}: all texts have the same mean features, so there are no perception directions. "
            "Check the features."
        )

    white_S = whiten(S, cut, None if regularized else moments.max_rank)
    white_A = whiten(moments.A0, cut_a, moments.n_tokens - moments.n_texts)
    # C = E xbar y^T cannot have a larger rank than Y = E y y^T, whose rank is well determined.
    rank_y = whiten(moments.Y, RCOND_TARGETS).rank if np.any(moments.Y) else 0
    perception = encoder(white_S, moments.C, rtol=moments.rcond, max_rank=rank_y, fill=fill_u, order=order)
    autoregression = encoder(white_A, moments.A1, rtol=moments.rcond_raw, order=order)

    if moments.n_texts < d and not regularized:
        message = (
            f"Layer {layer}: {moments.n_texts} texts for {d} features. S is singular and all scores are optimistic; "
            "use more texts, or shrink S (shrinkage='ledoit-wolf', --shrinkage ledoit-wolf)."
        )
        _warn(with_reference("few-texts", message))
    elif white_S.rank < d or white_A.rank < d:
        message = (
            f"Layer {layer}: spectrum truncated to rank {white_S.rank} (S) and {white_A.rank} (A0) of {d} features. "
            f"Directions below the relative cut-off {cut:.1e} are excluded; if the rank is lower than expected, "
            "compute the features in a wider floating-point type."
        )
        _warn(with_reference("rank-cut", message))
    return Subspaces(
        U=perception.vectors,
        beta=perception.eigenvalues,
        V=autoregression.vectors,
        gamma=autoregression.eigenvalues,
        white_U=perception.white,
        whitening=white_S,
        whitening_a=white_A,
        r=perception.n_informative,
        trace_y=float(np.trace(moments.Y)),
        tr_G=moments.tr_G,
        layer=layer,
        n_texts=moments.n_texts,
        centered=moments.centered,
        shrinkage=intensity,
        regularized=regularized,
    )


def resolve_width(k_v: Width, rank: int, d: int) -> int:
    """Convert an integer, or a fraction of the rank, to a number of directions.

    Parameters
    ----------
    k_v : int or float
        Number of directions (int), or fraction of the rank in (0, 1] (float), which is
        rounded to the nearest integer, at least 1.
    rank : int
        Number of autoregressive directions.
    d : int
        Number of features.

    Returns
    -------
    int
        Number of directions, from 1 to ``rank``.

    Raises
    ------
    ValueError
        If an integer is outside 1 ... d, or a fraction outside (0, 1].

    Warns
    -----
    NumericalWarning
        If an integer exceeds the rank; the rank is used then.

    Examples
    --------
    >>> resolve_width(8, rank=20, d=32), resolve_width(0.5, rank=20, d=32)
    (8, 10)
    """
    if isinstance(k_v, bool) or not isinstance(k_v, (int, float, np.integer, np.floating)):
        raise ValueError(f"k_v must be an integer or a fraction in (0, 1], got {k_v!r}.")
    if isinstance(k_v, (int, np.integer)):
        if k_v < 1:
            raise ValueError(f"k_v must be at least 1, or a fraction in (0, 1], got {k_v}.")
        if k_v > d:
            raise ValueError(f"k_v = {k_v} is outside 1 ... {d}; it cannot exceed the number of features.")
        if k_v > rank:
            _warn(f"k_v = {k_v} exceeds the rank {rank} of the autoregressive problem; k_v = {rank} is used.")
        return min(int(k_v), rank)
    if not 0.0 < k_v <= 1.0:
        raise ValueError(f"k_v = {k_v} is not a fraction in (0, 1]; use an integer for a number of directions.")
    return max(1, round(float(k_v) * rank))


@dataclass(frozen=True)
class ControlScores:
    """Scores of a control subspace, see :mod:`ntps_utils.theory.controls`.

    Attributes
    ----------
    control : str
        One of ``ntps_utils.theory.controls.CONTROLS``.
    k_v : int
        Width of the subspace.
    ntps, ntps_metric, ntps_task : float
        Its scores; for "random" their means over random subspaces.
    ntps_sd, ntps_metric_sd, ntps_task_sd : float or None
        Standard deviations over random subspaces; None for the other controls.
    """

    control: str
    k_v: int
    ntps: float
    ntps_metric: float
    ntps_task: float
    ntps_sd: float | None = None
    ntps_metric_sd: float | None = None
    ntps_task_sd: float | None = None

    def range(self, score: str = "ntps") -> tuple[float, float]:
        """Return the interval that 95% of the random subspaces score in, for normally distributed scores.

        Parameters
        ----------
        score : {"ntps", "ntps_metric", "ntps_task"}

        Returns
        -------
        low, high : float

        Raises
        ------
        ValueError
            If the control is not random.

        Examples
        --------
        >>> ControlScores("random", 4, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1).range()
        (0.304, 0.696)
        """
        sd = getattr(self, f"{score}_sd")
        if sd is None:
            raise ValueError(f"The control {self.control!r} is one subspace and has no range; 'random' has one.")
        mean = getattr(self, score)
        return max(0.0, mean - 1.96 * sd), min(1.0, mean + 1.96 * sd)


@dataclass(frozen=True)
class ScoreRow:
    """Scores, losses and bounds of one layer at one k_v.

    Losses are squared errors of the targets, per text.

    Attributes
    ----------
    layer : int
        Index into ``hidden_states``; 0 is the embeddings.
    k_v : int
        Number of autoregressive directions of the encoder.
    k_u : int
        Number of perception directions: the rank of C.
    rank : int
        Effective rank of S.
    rank_v : int
        Number of all autoregressive directions.
    ntps : float
        The paper's score.
    ntps_metric : float
        Score in the metric of the loss.
    ntps_task : float
        Share of ``trace_b`` that the encoder retains.
    trace_b : float
        tr B: the loss that the best linear predictor removes.
    best_loss : float
        L*: the loss of the best linear predictor.
    excess_loss : float
        L(V) - L*: the additional loss with the encoder.
    lower_bound, upper_bound : float
        Bounds on the excess loss by ``ntps``.
    lower_bound_metric, upper_bound_metric : float
        Bounds on the excess loss by ``ntps_metric``.
    excess_loss_rank_k : float or None
        Loss above that of the best encoder of width k_v; None if k_v is at least the rank of C.
    lower_bound_rank_k, upper_bound_rank_k : float or None
        Bounds on ``excess_loss_rank_k``.
    shrinkage : float
        Shrinkage intensity of S.
    lower_bound_angles, upper_bound_angles, lower_bound_restricted, upper_bound_restricted : float
        Bounds on the excess loss from the angles between U and V, see :class:`SharpBounds`.
    lower_bound_rank_k_euclidean, upper_bound_rank_k_euclidean : float or None
        Bounds on ``excess_loss_rank_k`` by the Euclidean score with k_u = k_v.
    excess_loss_debiased, excess_loss_low, excess_loss_high, excess_loss_p : float or None
        Excess loss without the mean contribution of noise, its 95% confidence interval, and the p
        value of the test that V loses nothing, see
        :func:`ntps_utils.theory.uncertainty.excess_loss_test`; None where the texts are too few.
    ntps_se, ntps_metric_se, ntps_task_se, excess_loss_se : float or None
        Jackknife standard errors over texts; None if they were not computed.
    ntps_low, ntps_high, ntps_metric_low, ntps_metric_high, ntps_task_low, ntps_task_high : float or None
        95% confidence intervals from the jackknife, see
        :func:`ntps_utils.theory.uncertainty.jackknife_interval`; None with fewer than 50 texts for each feature.
    controls : tuple of ControlScores
        Scores of the control subspaces, see :mod:`ntps_utils.theory.controls`; empty if they were
        not computed.
    """

    layer: int
    k_v: int
    k_u: int
    rank: int
    rank_v: int
    ntps: float
    ntps_metric: float
    ntps_task: float
    trace_b: float
    best_loss: float
    excess_loss: float
    lower_bound: float
    upper_bound: float
    lower_bound_metric: float
    upper_bound_metric: float
    excess_loss_rank_k: float | None
    lower_bound_rank_k: float | None
    upper_bound_rank_k: float | None
    shrinkage: float
    lower_bound_angles: float
    upper_bound_angles: float
    lower_bound_restricted: float
    upper_bound_restricted: float
    lower_bound_rank_k_euclidean: float | None
    upper_bound_rank_k_euclidean: float | None
    excess_loss_debiased: float | None = None
    excess_loss_low: float | None = None
    excess_loss_high: float | None = None
    excess_loss_p: float | None = None
    ntps_se: float | None = None
    ntps_metric_se: float | None = None
    ntps_task_se: float | None = None
    excess_loss_se: float | None = None
    ntps_low: float | None = None
    ntps_high: float | None = None
    ntps_metric_low: float | None = None
    ntps_metric_high: float | None = None
    ntps_task_low: float | None = None
    ntps_task_high: float | None = None
    controls: tuple[ControlScores, ...] = ()

    def control(self, name: str) -> ControlScores:
        """Return the scores of a control.

        Parameters
        ----------
        name : str
            One of ``ntps_utils.theory.controls.CONTROLS``.

        Returns
        -------
        ControlScores

        Raises
        ------
        ValueError
            If the row has no such control.
        """
        for one in self.controls:
            if one.control == name:
                return one
        names = [one.control for one in self.controls]
        raise ValueError(f"There is no control {name!r}; this row has the controls {names}.")

    def net(self, score: str = "ntps") -> float:
        """Return a score minus its mean over random subspaces that share the construction of V.

        Parameters
        ----------
        score : {"ntps", "ntps_metric", "ntps_task"}

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If the controls were not computed.
        """
        return float(getattr(self, score) - getattr(self.control("random"), score))


def _warn(message: str) -> None:
    warnings.warn(message, NumericalWarning, stacklevel=3)


def _generalized_eigenvalues(A: Array, B: Array) -> Array:
    """Eigenvalues of A in the metric of B, ascending, for positive semi-definite matrices, on the range of B."""
    values, vectors = np.linalg.eigh(B)
    kept = values > len(B) * np.finfo(np.float64).eps * values[-1]
    if not kept.any() or values[-1] <= 0.0:
        return np.zeros(1)
    W = vectors[:, kept] / np.sqrt(values[kept])
    return np.clip(np.linalg.eigvalsh(W.T @ A @ W), 0.0, None)


def _or_none(x: float) -> float | None:
    return None if np.isnan(x) else float(x)


def _leading(overlap: Array, counts: NDArray[np.intp]) -> Array:
    """Sum the first counts[k] columns, for k = 1 ... n: (rows, n)."""
    sums = np.concatenate([np.zeros((len(overlap), 1)), overlap.cumsum(1)], axis=1)
    return sums[:, counts[1:]]


def _trailing(overlap: Array, counts: NDArray[np.intp]) -> Array:
    """Sum all columns after the first counts[k], for k = 1 ... n, from the last column on: (rows, n)."""
    sums = np.concatenate([overlap[:, ::-1].cumsum(1)[:, ::-1], np.zeros((len(overlap), 1))], axis=1)
    return sums[:, counts[1:]]


def _padded_cumsum(x: Array, n: int) -> Array:
    return np.concatenate([x, np.zeros(max(0, n - len(x)))])[:n].cumsum()


def _bounds(lower_constant: Array | float, upper_constant: Array | float, missed: Array) -> Bounds:
    lower, upper = np.broadcast_to(lower_constant, missed.shape), np.broadcast_to(upper_constant, missed.shape)
    return Bounds(lower * missed, upper * missed, lower, upper)
