"""Next Token Perception Score, its metric-matched relatives, and bounds on the excess loss.

Notation as in the book: U holds the perception directions (S-orthonormal, with
eigenvalues beta_1 >= ... >= beta_r > 0 of the whitened task matrix B), V the
autoregressive directions, both nested by eigenvalue. For an encoder that keeps the
span of the first k_v columns of V, with P the orthogonal projector on that span and
P~ its counterpart in white coordinates of S,

    ntps         ||P U||_F^2 / ||U||_F^2             the paper's score
    ntps_metric  (1/r) sum_i ||P~ u~_i||^2            the same in the metric of the loss
    ntps_task    tr(P~ B) / tr B                      directions weighted by what they explain
    excess loss  L(V) - L* = tr((I - P~) B)           exactly
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, reduce
from typing import Any, Literal

import numpy as np
import pandas as pd
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
    shrink,
    whiten,
)
from ntps_utils.theory.moments import Moments

Width = int | float
Shrinkage = float | Literal["ledoit-wolf"]

# Targets whose correlation differs from one by less than this count as one target.
RCOND_TARGETS = 1e-10


class NumericalWarning(UserWarning):
    """A number is defined, but rests on few texts or on a truncated spectrum."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """Lower and upper bounds on a loss, for each k_v: two (n,) arrays and their constants.

    ``lower = lower_constant * (1 - score)`` and likewise above; ``looseness`` is the
    ratio of the two constants, infinite where the lower one is zero.
    """

    lower: Array
    upper: Array
    lower_constant: Array
    upper_constant: Array

    @property
    def looseness(self) -> Array:
        """upper_constant / lower_constant, at least 1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.lower_constant > 0, self.upper_constant / self.lower_constant, np.inf)


@dataclass(frozen=True, eq=False)
class Subspaces:
    """The two encoders of one layer in common coordinates; every score follows from them.

    Attributes
    ----------
    U : (d, r) float64
        Perception directions, ``U^T S U = I``, by the order asked for.
    beta : (r,) float64
        Their eigenvalues: loss removed by each.
    V : (d, m) float64
        Autoregressive directions, ``V^T A0 V = I``, by the order asked for.
    gamma : (m,) float64
        Their eigenvalues.
    white_U : (rank S, r) float64
        U in white coordinates of S, orthonormal columns.
    whitening : Whitening
        Of S (after ridge or shrinkage).
    r : int
        Numerical rank of C. U has more columns only in the mirror of the released script.
    trace_y : float
        tr Y, the loss of predicting zero (or the mean, if centered).
    tr_G : float
        Constant of the autoregressive loss.
    layer, n_texts : int
    centered : bool
    shrinkage : float
        Intensity that was applied to S.
    """

    U: Array
    beta: Array
    V: Array
    gamma: Array
    white_U: Array
    whitening: Whitening
    r: int
    trace_y: float
    tr_G: float
    layer: int
    n_texts: int
    centered: bool
    shrinkage: float

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
        """tr B = sum of beta: the loss that the best linear encoder removes."""
        return float(self.beta.sum())

    @property
    def best_loss(self) -> float:
        """L*, the loss of the best linear predictor from all features."""
        return self.trace_y - self.trace_b

    # -- overlaps: entry (i, j) is what the j-th direction of V adds for the i-th of U ---

    @cached_property
    def _euclidean(self) -> NestedBasis:
        return nested_basis(self.V)

    @cached_property
    def _metric(self) -> NestedBasis:
        return nested_basis(self.whitening.to_white @ self.V)

    @cached_property
    def _metric_overlap(self) -> Array:
        return (self.white_U.T @ self._metric.Q) ** 2

    @cached_property
    def ntps(self) -> Array:
        """The paper's score for every (k_u, k_v), shape (columns of U, m).

        One QR of V and one product: nested spans turn all projections into cumulative
        sums. Entry [i, j] is NTPS with k_u = i + 1 and k_v = j + 1.
        """
        overlap = (self.U.T @ self._euclidean.Q) ** 2
        captured = _leading(overlap, self._euclidean.counts).cumsum(0)
        return captured / np.sum(self.U**2, axis=0).cumsum()[:, None]

    @cached_property
    def ntps_metric(self) -> Array:
        """Metric-matched score for every (k_u, k_v): mean squared cosine in white coordinates."""
        captured = _leading(self._metric_overlap, self._metric.counts).cumsum(0)
        return captured / np.arange(1, len(captured) + 1)[:, None]

    @cached_property
    def ntps_task(self) -> Array:
        """Task-weighted score for every k_v, (m,): the share of tr B that V keeps."""
        return self.beta @ _leading(self._metric_overlap, self._metric.counts) / self.trace_b

    # -- losses and bounds -------------------------------------------------------

    @cached_property
    def excess_loss(self) -> Array:
        """L(V) - L* for every k_v, (m,), summed from what is left out: exact also near zero."""
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
        """The paper's two-sided bound by the Euclidean score (theory 4d), for every k_v.

        ``beta_r lambda_min(S) ||U||^2 (1 - NTPS) <= excess <= beta_1 lambda_max(S) ||U||^2 (1 - NTPS)``
        over the r informative directions, read on the range of S where S is singular.
        """
        chosen = self._informative()
        U, beta, basis = self.U[:, chosen], self.beta[chosen], self._euclidean
        if not self.whitening.is_full:
            R = self.whitening.range_basis
            U, basis = R.T @ U, nested_basis(R.T @ self.V)
        distance = _trailing((U.T @ basis.Q) ** 2, basis.counts).sum(0)
        spectrum = self.whitening.spectrum
        size = np.sum(U**2)
        return _bounds(beta[-1] * spectrum[-1] * size, beta[0] * spectrum[0] * size, distance / size)

    @cached_property
    def bounds_metric(self) -> Bounds:
        """The bound by the metric-matched score (theory 4c): no lambda(S) is left."""
        chosen = self._informative()
        beta = self.beta[chosen]
        missed = _trailing(self._metric_overlap[chosen], self._metric.counts).mean(0)
        return _bounds(beta[-1] * self.r, beta[0] * self.r, missed)

    @cached_property
    def excess_loss_rank_k(self) -> Array:
        """Loss above the best encoder of the same width k_v (theory 4e), (m,); NaN where k_v >= r."""
        removed = _padded_cumsum(np.sort(self.beta)[::-1][: self.r], self.rank_v)
        kept = self.trace_b * self.ntps_task
        return np.where(self._widths < self.r, np.maximum(removed - kept, 0.0), np.nan)

    @cached_property
    def bounds_rank_k(self) -> Bounds:
        """Bounds on :attr:`excess_loss_rank_k` by the metric-matched score of k_u = k_v; NaN where k_v >= r."""
        chosen = self._informative()
        beta = self.beta[chosen]
        k = self._widths
        valid = k < self.r
        i = k[valid] - 1
        missed = np.full(len(k), np.nan)
        # k_u = dim V: the columns of V may be dependent in the metric of S, so count dimensions.
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

    def width(self, k_v: Width) -> int:
        """Turn an integer, or a fraction of :attr:`rank_v`, into a number of directions.

        Raises
        ------
        ValueError
            If the integer lies outside 1 ... d, or the fraction outside (0, 1].
        """
        return resolve_width(k_v, self.rank_v, self.d)

    def row(self, k_v: Width) -> ScoreRow:
        """All scores and bounds at one k_v, with k_u = all columns of U."""
        k = self.width(k_v)
        i = k - 1
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
    layer : int
        A label for the result.
    center : bool
        Use covariances for S, C and Y. The paper's score does not (the default here):
        its constant feature direction then counts as one perception direction.
    ridge : float
        Isotropic noise added to S, as a fraction of its mean diagonal entry.
    shrinkage : float or "ledoit-wolf"
        Intensity of the shrinkage of S towards a multiple of the identity. All
        identities and bounds then speak of the loss with that S. Shrinkage lowers the
        largest variances, so tr B can then exceed tr Y; a ridge cannot do that.
    rcond : float, optional
        Relative eigenvalue cut-off for S and A0; by default
        ``max(d, c) * eps`` of the precision of the moments, for a centered S times the mean
        ratio of second moment to variance, by which centering magnifies rounding.
    order : {"descending", "ascending"}
        Of the eigenvalues in U and V. "ascending" mirrors the released script, whose
        solvers return the smallest first; the theory asks for "descending".
    fill_u : bool
        Give U all rank(S) columns instead of rank(C), again to mirror that script.
        The columns added carry no label information and are not identifiable.

    Warns
    -----
    NumericalWarning
        When there are fewer texts than features, or a spectrum was truncated.
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
        raise ValueError(f"Layer {layer}: all texts have the same features; there is nothing to tell them apart by.")

    white_S = whiten(S, cut, None if regularized else moments.max_rank)
    white_A = whiten(moments.A0, cut_a, moments.n_tokens - moments.n_texts)
    # C = E xbar y^T cannot have a larger rank than Y = E y y^T, whose rank is well determined.
    rank_y = whiten(moments.Y, RCOND_TARGETS).rank if np.any(moments.Y) else 0
    perception = encoder(white_S, moments.C, rtol=moments.rcond, max_rank=rank_y, fill=fill_u, order=order)
    autoregression = encoder(white_A, moments.A1, rtol=moments.rcond_raw, order=order)

    if moments.n_texts < d and not regularized:
        said = (
            f"Layer {layer}: {moments.n_texts} texts for {d} features. S is singular and every score is "
            "optimistic; use more texts, or shrinkage='ledoit-wolf'."
        )
        _warn(with_reference("few-texts", said))
    elif white_S.rank < d or white_A.rank < d:
        said = (
            f"Layer {layer}: spectrum truncated to rank {white_S.rank} (S) and {white_A.rank} (A0) of {d} features; "
            f"directions below the relative cut-off {cut:.1e} are left out."
        )
        _warn(with_reference("rank-cut", said))
    return Subspaces(
        U=perception.vectors,
        beta=perception.eigenvalues,
        V=autoregression.vectors,
        gamma=autoregression.eigenvalues,
        white_U=perception.white,
        whitening=white_S,
        r=perception.n_informative,
        trace_y=float(np.trace(moments.Y)),
        tr_G=moments.tr_G,
        layer=layer,
        n_texts=moments.n_texts,
        centered=moments.centered,
        shrinkage=intensity,
    )


def resolve_width(k_v: Width, rank: int, d: int) -> int:
    """Number of directions that an integer, or a fraction of the rank, stands for.

    A fraction is rounded to the nearest integer, at least 1. An integer above the rank
    but not above d is lowered to the rank with a :class:`NumericalWarning`.

    Raises
    ------
    ValueError
        If the integer lies outside 1 ... d, or the fraction outside (0, 1].
    """
    if isinstance(k_v, bool) or not isinstance(k_v, (int, float, np.integer, np.floating)):
        raise ValueError(f"k_v must be an integer or a fraction, got {k_v!r}.")
    if isinstance(k_v, (int, np.integer)):
        if not 1 <= k_v <= d:
            raise ValueError(f"k_v = {k_v} is outside 1 ... {d}, the number of features of this model.")
        if k_v > rank:
            _warn(f"k_v = {k_v} exceeds the rank {rank} of the autoregressive problem; using {rank}.")
        return min(int(k_v), rank)
    if not 0.0 < k_v <= 1.0:
        raise ValueError(f"k_v = {k_v} is not a fraction in (0, 1]; write an integer for a number of directions.")
    return max(1, round(float(k_v) * rank))


@dataclass(frozen=True)
class ScoreRow:
    """Scores of one layer at one k_v. Loss units are squared error of the targets, per text."""

    layer: int
    """Index into hidden_states; 0 = embeddings."""
    k_v: int
    """Autoregressive directions kept."""
    k_u: int
    """Perception directions compared with: the rank of C."""
    rank: int
    """Effective rank of S."""
    rank_v: int
    """Number of autoregressive directions in all."""
    ntps: float
    ntps_metric: float
    ntps_task: float
    trace_b: float
    """Loss that the best linear predictor removes."""
    best_loss: float
    """L*, the loss that it leaves."""
    excess_loss: float
    """Loss lost by keeping V alone, L(V) - L*."""
    lower_bound: float
    """Of the excess loss, by ntps."""
    upper_bound: float
    lower_bound_metric: float
    """Of the excess loss, by ntps_metric."""
    upper_bound_metric: float
    excess_loss_rank_k: float | None
    """Loss above the best encoder of width k_v; none where k_v >= rank of C."""
    lower_bound_rank_k: float | None
    upper_bound_rank_k: float | None
    shrinkage: float
    """Shrinkage intensity of S."""
    ntps_se: float | None = None
    """Standard error over texts by jackknife, where asked for; likewise below."""
    ntps_metric_se: float | None = None
    ntps_task_se: float | None = None
    excess_loss_se: float | None = None


@dataclass(frozen=True, eq=False)
class ScoreGrid:
    """Every score of one layer, for every width; entry [k_u - 1, k_v - 1] or [k_v - 1].

    Attributes
    ----------
    layer : int
    ntps, ntps_metric : (columns of U, m) float64
    ntps_task, excess_loss : (m,) float64
    beta : (columns of U,) float64
    gamma : (m,) float64
    """

    layer: int
    ntps: Array
    ntps_metric: Array
    ntps_task: Array
    excess_loss: Array
    beta: Array
    gamma: Array


@dataclass(frozen=True)
class ScoreReport:
    """Scores of a model on a dataset, and where they come from.

    Attributes
    ----------
    rows : tuple of ScoreRow
        One for each (layer, k_v) asked for.
    provenance : dict
        Settings, versions, fingerprints of weights and texts, date.
    grids : tuple of ScoreGrid
        One for each layer, over all widths. They are not written to JSON.
    """

    rows: tuple[ScoreRow, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    grids: tuple[ScoreGrid, ...] = field(default=(), repr=False, compare=False)

    def grid(self, layer: int) -> ScoreGrid:
        """The grid of one layer.

        Raises
        ------
        ValueError
            If the report holds none for that layer.
        """
        for grid in self.grids:
            if grid.layer == layer:
                return grid
        there = [grid.layer for grid in self.grids]
        raise ValueError(f"There is no grid for layer {layer}; this report has grids for layers {there}.")

    def __iter__(self) -> Iterator[ScoreRow]:
        return iter(self.rows)

    def __str__(self) -> str:
        shown = ["layer", "k_v", "ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss"]
        return self.to_frame()[shown].to_string(index=False, float_format=lambda x: f"{x:.4f}")

    def to_frame(self) -> pd.DataFrame:
        """One row for each (layer, k_v), one column for each field of :class:`ScoreRow`."""
        return pd.DataFrame([asdict(row) for row in self.rows], columns=[f.name for f in fields(ScoreRow)])

    def to_json(self) -> str:
        """``{"rows": [...], "provenance": {...}}``; numbers at full precision, never NaN."""
        return json.dumps({"rows": [asdict(row) for row in self.rows], "provenance": self.provenance}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> ScoreReport:
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        return cls(tuple(ScoreRow(**row) for row in data["rows"]), data["provenance"])


def score_layer(
    parts: Sequence[Moments], layer: int, k_v: Sequence[Width] = (0.5,), **options: Any
) -> tuple[list[ScoreRow], ScoreGrid]:
    """Rows of one layer for several k_v, and its grid over all of them.

    Parameters
    ----------
    parts : sequence of Moments
        Of disjoint, exchangeable groups of texts. With three groups or more, each score
        gets a delete-one-group jackknife standard error.
    layer : int
        Index into ``hidden_states``.
    k_v : sequence of int or float
        See :func:`resolve_width`; two that resolve to the same number give one row.
    **options
        As for :func:`subspaces`.
    """
    parts = [part.select_layer(layer) for part in parts]  # merge what is scored, not every layer for each of them
    total = reduce(Moments.merge, parts)
    solved = subspaces(total.layer(layer), layer=layer, **options)
    rows = [solved.row(k) for k in dict.fromkeys(solved.width(k) for k in k_v)]
    grid = ScoreGrid(**{f.name: getattr(solved, f.name) for f in fields(ScoreGrid)})
    if len(parts) < 3:
        return rows, grid
    names = ("ntps", "ntps_metric", "ntps_task", "excess_loss")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)  # said once, of the whole
        left_out = [
            subspaces(reduce(Moments.merge, [*parts[:i], *parts[i + 1 :]]).layer(layer), layer=layer, **options)
            for i in range(len(parts))
        ]
        replicates = [[solved.row(row.k_v) for solved in left_out] for row in rows]
    errors = [
        {f"{name}_se": _jackknife_se([getattr(r, name) for r in group]) for name in names} for group in replicates
    ]
    return [replace(row, **error) for row, error in zip(rows, errors, strict=True)], grid  # type: ignore[arg-type]


def _jackknife_se(replicates: Sequence[float]) -> float:
    """Standard error from delete-one-group estimates (Efron and Stein 1981)."""
    n = len(replicates)
    return float(np.sqrt((n - 1) * np.var(replicates)))


def _warn(message: str) -> None:
    warnings.warn(message, NumericalWarning, stacklevel=3)


def _or_none(x: float) -> float | None:
    return None if np.isnan(x) else float(x)


def _leading(overlap: Array, counts: NDArray[np.intp]) -> Array:
    """Sum over the first counts[k] columns for k = 1 ... n: (rows, n)."""
    sums = np.concatenate([np.zeros((len(overlap), 1)), overlap.cumsum(1)], axis=1)
    return sums[:, counts[1:]]


def _trailing(overlap: Array, counts: NDArray[np.intp]) -> Array:
    """Sum over all columns but the first counts[k], k = 1 ... n, added up from the small end."""
    sums = np.concatenate([overlap[:, ::-1].cumsum(1)[:, ::-1], np.zeros((len(overlap), 1))], axis=1)
    return sums[:, counts[1:]]


def _padded_cumsum(x: Array, n: int) -> Array:
    return np.concatenate([x, np.zeros(max(0, n - len(x)))])[:n].cumsum()


def _bounds(lower_constant: Array | float, upper_constant: Array | float, missed: Array) -> Bounds:
    lower, upper = np.broadcast_to(lower_constant, missed.shape), np.broadcast_to(upper_constant, missed.shape)
    return Bounds(lower * missed, upper * missed, lower, upper)
