r"""How sure the scores are: a test and intervals for the excess loss, and intervals by the jackknife.

The moments of N texts have two uncertainties. The labels are noisy, which the analysis of
variance describes (:func:`excess_loss_test`), and the texts are a sample, which the jackknife
over groups of texts describes (:func:`jackknife_interval`). :func:`held_out_excess_loss`
measures the excess loss on texts that the encoders have not seen.

In white coordinates of the centered S, with :math:`\tilde P` the projector on V, the residual
covariance of the targets is :math:`E = Y - C^\top S^{-1} C`, and the part of the targets that only
the features outside V explain is :math:`H = C^\top S^{-1/2} (I - \tilde P) S^{-1/2} C`. The excess
loss is tr H, so it is the numerator of a test of nested linear models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from ntps_utils._utils.validation import check_integer, check_number
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array, encoder, orthonormal_basis, product, whiten
from ntps_utils.theory.score import Subspaces

if TYPE_CHECKING:
    from ntps_utils.theory.moments import Moments


MIN_TEXTS_PER_FEATURE = 50
"""With fewer texts, jackknife intervals of scores contain the true score too rarely (book, chapter 3)."""


@dataclass(frozen=True)
class ExcessLossTest:
    """Test that V loses nothing, and an interval for the excess loss.

    Attributes
    ----------
    k_v : int
        Width of V.
    excess_loss : float
        Excess loss on these texts. Noise alone gives it a positive mean.
    debiased : float
        Excess loss minus the mean that noise contributes; it can be negative.
    low, high : float
        Confidence interval for the excess loss without noise.
    level : float
        Level of the interval.
    f, df, df_residual : float
        F statistic and its degrees of freedom.
    p_value : float
        Probability of an F at least as large if V loses nothing.
    """

    k_v: int
    excess_loss: float
    debiased: float
    low: float
    high: float
    level: float
    f: float
    df: float
    df_residual: float
    p_value: float


def excess_loss_test(moments: LayerMoments, solved: Subspaces, k_v: int, *, level: float = 0.95) -> ExcessLossTest:
    r"""Test whether a linear predictor from V loses anything, given the features.

    Parameters
    ----------
    moments : LayerMoments
        Moments of the layer.
    solved : Subspaces
        Result of :func:`ntps_utils.theory.score.subspaces` without ridge or shrinkage.
    k_v : int
        Width of V.
    level : float
        Level of the interval, in (0, 1).

    Returns
    -------
    ExcessLossTest

    Raises
    ------
    ValueError
        If S is regularized, V has no direction less than the features, or the texts are too few:
        their number must exceed the rank of S, and with centered moments the rank plus one.

    Notes
    -----
    With :math:`\rho` the rank of S, k the dimension of V in its metric, and N texts,

    .. math:: F = \frac{\Delta / (\rho - k)}{L^* / (N - 1 - \rho)}.

    Without centering the predictor has no intercept, and N takes the place of :math:`N - 1`.
    For one target (two classes) and normal errors F has the F distribution with :math:`\rho - k`
    and :math:`N - 1 - \rho` degrees of freedom if V loses nothing. If :math:`\Delta_0` is the excess
    loss without noise, :math:`N \Delta / \sigma^2` has a noncentral chi-square distribution with
    noncentrality :math:`N \Delta_0 / \sigma^2`. The interval inverts it, averaged over the values of
    :math:`\sigma^2` that fit its estimate.
    For several targets both degrees of freedom are multiplied by
    :math:`(\operatorname{tr} E)^2 / \operatorname{tr} E^2`, which matches the variance of a trace
    (Satterthwaite's approximation; the interval is then conservative where much is lost). The debiased value is
    :math:`\Delta - (\rho - k) L^* / (N - 1 - \rho)`. All of it is for the given features: V counts
    as fixed.

    References
    ----------
    F. E. Satterthwaite (1946), An approximate distribution of estimates of variance components,
    Biometrics Bulletin 2(6). T. W. Anderson (2003), An introduction to multivariate statistical
    analysis, chapter 8.

    Examples
    --------
    >>> from ntps_utils.theory.score import subspaces
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> moments = planted_problem(0, d=10, n_texts=400).moments()
    >>> test = excess_loss_test(moments, subspaces(moments, center=True), 5)
    >>> bool(test.low <= max(test.debiased, 0.0) <= test.high)
    True
    """
    check_integer("k_v", k_v, 1)
    check_number("level", level, 0.0, 1.0, open_low=True, open_high=True)
    if solved.regularized:
        raise ValueError("The test needs the least-squares loss; use subspaces without ridge and shrinkage.")
    n, rank = solved.n_texts, solved.rank
    residual = n - solved.centered - rank
    if residual < 1:
        raise ValueError(
            f"{n} texts for features of rank {rank} leave no degree of freedom for the noise; "
            f"give more than {rank + solved.centered} texts."
        )
    k = min(k_v, solved.rank_v)
    outside = rank - solved.metric_basis(k).shape[1]
    if outside < 1:
        raise ValueError(f"V of width {k} contains all {rank} feature directions, so nothing can be lost.")
    moments = moments.center() if solved.centered else moments
    explained = product(solved.whitening.from_white.T, moments.C)
    E = moments.Y - explained.T @ explained
    trace, square = float(np.trace(E)), float(np.sum(E**2))
    delta = float(solved.excess_loss[k - 1])
    # N delta and N L* are sums of chi-square variables with the weights of the eigenvalues of sigma^2 = N E / residual.
    effective = trace**2 / square
    noise = trace / residual  # mean of delta for each direction outside V, if V loses nothing
    df, df_residual = outside * effective, residual * effective
    f = delta / outside / noise
    scale = noise / effective  # delta is this much times a noncentral chi-square variable with df degrees of freedom
    ends = ((1 + level) / 2, (1 - level) / 2)
    low, high = (scale * _noncentrality(delta / scale, df, df_residual, p) for p in ends)
    return ExcessLossTest(
        k_v=k,
        excess_loss=delta,
        debiased=delta - outside * noise,
        low=low,
        high=high,
        level=level,
        f=f,
        df=df,
        df_residual=df_residual,
        p_value=float(stats.f.sf(f, df, df_residual)),
    )


def _noncentrality(chi_square: float, df: float, df_noise: float, p: float) -> float:
    """Noncentrality, in units of the estimated noise, at which ``chi_square`` is the quantile p; 0 if there is none."""
    # Given the data, the true variance of the noise is the estimated one divided by these values.
    ratios = stats.chi2.ppf((np.arange(100) + 0.5) / 100, df_noise) / df_noise

    def excess(noncentrality: float) -> float:
        if noncentrality == 0.0:
            return float(stats.f.cdf(chi_square / df, df, df_noise)) - p
        return float(np.mean(stats.ncx2.cdf(chi_square * ratios, df, noncentrality * ratios))) - p

    if excess(0.0) <= 0.0:
        return 0.0
    high = max(1.0, chi_square)
    while excess(high) > 0.0:
        high *= 2.0
    return float(brentq(excess, 0.0, high, xtol=1e-9 * high))


@dataclass(frozen=True)
class ScoreTest:
    """Score test of softmax regression.

    Attributes
    ----------
    statistic : float
        Rao's score statistic.
    df : int
        Degrees of freedom of its chi-square distribution.
    p_value : float
        Probability of a statistic at least as large without any effect.
    """

    statistic: float
    df: int
    p_value: float


def softmax_score_test(moments: LayerMoments, solved: Subspaces, k_v: int = 0) -> ScoreTest:
    r"""Test in cross-entropy whether the features outside V inform about the classes.

    Parameters
    ----------
    moments : LayerMoments
        Moments of a dataset with one-hot classes.
    solved : Subspaces
        Result of :func:`ntps_utils.theory.score.subspaces` with ``center=True``, without ridge or
        shrinkage.
    k_v : int
        Width of V. With 0 all features are tested.

    Returns
    -------
    ScoreTest

    Raises
    ------
    ValueError
        If the moments were not centered, or the targets are not classes.

    Notes
    -----
    In softmax regression with intercepts, at the point where no feature has a weight, the gradient
    of the log likelihood is :math:`N C` and the information :math:`N S \otimes (\operatorname{diag} q - q q^\top)`
    with q the shares of the classes. Rao's statistic is therefore

    .. math:: N \operatorname{tr}(C^\top S^{-1} C \operatorname{diag}(q)^{-1}),

    a trace of B with targets weighted by their rarity, with :math:`\rho (c - 1)` degrees of
    freedom. For the features outside V, it is the part of this trace outside V; this is exact
    where the labels do not depend on V either, and otherwise conservative.

    References
    ----------
    C. R. Rao (1948), Large sample tests of statistical hypotheses concerning several parameters,
    Mathematical Proceedings of the Cambridge Philosophical Society 44(1).

    Examples
    --------
    >>> from ntps_utils.theory.score import subspaces
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> moments = planted_problem(0, d=10, n_texts=400).moments()
    >>> softmax_score_test(moments, subspaces(moments, center=True)).df  # 10 features, 3 classes
    20
    """
    check_integer("k_v", k_v, 0)
    if not solved.centered:
        raise ValueError("The test needs centered moments; use subspaces(..., center=True).")
    shares = moments.q
    if not np.allclose(shares.sum(), 1.0) or shares.min() < 0.0:
        raise ValueError("The test needs one-hot classes; these targets are real-valued.")
    present = shares > 0
    explained = product(solved.whitening.from_white.T, moments.center().C[:, present]) / np.sqrt(shares[present])
    rank = solved.rank
    if k_v:
        basis = solved.metric_basis(min(k_v, solved.rank_v))
        explained = explained - product(basis, product(basis.T, explained))
        rank -= basis.shape[1]
    statistic = solved.n_texts * float(np.sum(explained**2))
    df = rank * (int(present.sum()) - 1)
    return ScoreTest(statistic, df, float(stats.chi2.sf(statistic, df)) if df else 1.0)


@dataclass(frozen=True)
class JackknifeInterval:
    """Estimate and interval from groups of texts.

    Attributes
    ----------
    estimate : float
        Estimate without its bias of first order in 1/N.
    se : float
        Standard error.
    low, high : float
        Confidence interval.
    """

    estimate: float
    se: float
    low: float
    high: float


def jackknife_interval(
    estimate: float, replicates: ArrayLike, *, level: float = 0.95, low: float = -math.inf, high: float = math.inf
) -> JackknifeInterval:
    r"""Compute an interval from estimates that each leave out one group of texts.

    Parameters
    ----------
    estimate : float
        Estimate from all texts.
    replicates : (groups,) array_like
        Estimates without each group; at least 3.
    level : float
        Level of the interval, in (0, 1).
    low, high : float
        Range of possible values, to which the interval is limited.

    Returns
    -------
    JackknifeInterval

    Raises
    ------
    ValueError
        If there are fewer than 3 replicates.

    Notes
    -----
    With G groups and :math:`\bar t` the mean of the replicates, the estimate is
    :math:`G t - (G - 1) \bar t`, the squared standard error
    :math:`\frac{G - 1}{G} \sum_g (t_g - \bar t)^2`, and the interval uses Student's t with
    :math:`G - 1` degrees of freedom.

    References
    ----------
    B. Efron and C. Stein (1981), The jackknife estimate of variance, The Annals of Statistics 9(3).

    Examples
    --------
    >>> interval = jackknife_interval(0.5, [0.4, 0.5, 0.6])
    >>> round(interval.estimate, 3), round(interval.se, 3)
    (0.5, 0.115)
    """
    check_number("level", level, 0.0, 1.0, open_low=True, open_high=True)
    t = np.asarray(replicates, dtype=np.float64)
    n = len(t)
    if n < 3:
        raise ValueError(f"A jackknife needs at least 3 groups, got {n}.")
    corrected = float(n * estimate - (n - 1) * t.mean())
    se = float(np.sqrt((n - 1) * np.var(t)))
    margin = float(stats.t.ppf((1 + level) / 2, n - 1)) * se
    ends = np.clip([corrected, corrected - margin, corrected + margin], low, high)
    return JackknifeInterval(float(ends[0]), se, float(ends[1]), float(ends[2]))


@dataclass(frozen=True)
class HeldOutLoss:
    """Squared errors of linear predictors on texts that they were not fitted to, per text.

    Attributes
    ----------
    trace_y : float
        Loss of predicting the mean of the other texts.
    loss : float
        Loss of the predictor from all features.
    loss_v : float
        Loss of the predictor from V, whose directions come from the other texts too.
    """

    trace_y: float
    loss: float
    loss_v: float

    @property
    def excess_loss(self) -> float:
        """Loss that V adds; negative where V protects from overfitting."""
        return self.loss_v - self.loss

    @property
    def explained(self) -> float:
        """Held-out R-squared of all features; negative if they predict worse than the mean."""
        return 1.0 - self.loss / self.trace_y

    @property
    def explained_v(self) -> float:
        """Held-out R-squared of V."""
        return 1.0 - self.loss_v / self.trace_y


def held_out_loss(parts: Sequence[Moments], layer: int, k_v: int, *, ridge: float = 0.0) -> HeldOutLoss:
    r"""Compute losses by cross-fitting over groups of texts, from their moments alone.

    Parameters
    ----------
    parts : sequence of Moments
        Moments of disjoint random groups of texts, at least 2.
    layer : int
        Index into ``hidden_states``.
    k_v : int
        Width of V.
    ridge : float
        Ridge of both predictors, as a fraction of the mean diagonal entry of S. Where the texts are
        hardly more than the features, least squares without a ridge overfits.

    Returns
    -------
    HeldOutLoss

    Raises
    ------
    ValueError
        If there are fewer than 2 groups.

    Notes
    -----
    For weights W fitted to the other groups, with means s and q there, the loss on a group with
    second moments S', C', Y' about these means is
    :math:`\operatorname{tr}(Y' - 2 W^\top C' + W^\top S' W)`: no feature of a text is needed.

    Examples
    --------
    >>> from ntps_utils.theory.moments import Moments
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> problem = planted_problem(0, d=10, n_texts=400)
    >>> groups = [Moments.from_texts(problem.texts[i::5], problem.targets[i::5]) for i in range(5)]
    >>> loss = held_out_loss(groups, 0, 5)
    >>> bool(loss.explained > loss.explained_v - 0.05)
    True
    """
    check_integer("k_v", k_v, 1)
    check_number("ridge", ridge, 0.0)
    if len(parts) < 2:
        raise ValueError(f"Held-out losses need at least 2 groups of texts, got {len(parts)}.")
    selected = [part.select_layer(layer) for part in parts]
    n = sum(part.n_texts for part in selected)
    sums = np.zeros(3)
    for i, part in enumerate(selected):
        rest = selected[:i] + selected[i + 1 :]
        whole = rest[0]
        for other in rest[1:]:
            whole = whole.merge(other)
        sums += part.n_texts / n * _group_losses(whole.layer(layer), part.layer(layer), k_v, ridge)
    return HeldOutLoss(*map(float, sums))


def _group_losses(train: LayerMoments, test: LayerMoments, k_v: int, ridge: float) -> Array:
    s, q = train.s, train.q
    S_test = test.S - np.outer(test.s, s) - np.outer(s, test.s) + np.outer(s, s)
    C_test = test.C - np.outer(s, test.q) - np.outer(test.s, q) + np.outer(s, q)
    trace = float(np.trace(test.Y)) - 2 * float(test.q @ q) + float(q @ q)
    raw, centered = train, train.center()
    S, penalty = centered.S, ridge * float(np.trace(centered.S)) / len(centered.S)
    V = encoder(whiten(raw.A0, raw.rcond_raw), raw.A1, rtol=raw.rcond_raw).vectors
    basis = orthonormal_basis(V[:, : min(k_v, V.shape[1])])
    losses = [trace]
    for Q in (np.eye(len(S)), basis):
        inner = product(Q.T, product(S, Q)) + penalty * np.eye(Q.shape[1])
        white = whiten(inner, centered.rcond, train.max_rank - 1 if not penalty else None)
        W = product(Q, product(white.from_white, product(white.from_white.T, product(Q.T, centered.C))))
        losses.append(trace - 2 * float(np.sum(W * C_test)) + float(np.sum(W * product(S_test, W))))
    return np.array(losses)
