"""Numerical checks of each statement of the theory, independent of the moments.

The closed forms use moments. Here the same quantities are measured by least squares on the
tokens and texts, or reached by gradient descent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ntps_utils.theory.linear import Array
from ntps_utils.theory.score import Bounds, subspaces
from ntps_utils.theory.synthetic import Problem


def prefix_pairs(problem: Problem) -> tuple[Array, Array]:
    """Stack the prefix sums p_t and the next tokens x_{t+1} of all texts.

    Parameters
    ----------
    problem : Problem
        Token features of the texts.

    Returns
    -------
    past : (pairs, d) float64
        Prefix sums.
    following : (pairs, d) float64
        Next tokens.

    Examples
    --------
    >>> import numpy as np
    >>> past, following = prefix_pairs(Problem((np.array([[1.0], [2.0], [4.0]]),), np.ones((1, 1))))
    >>> past.ravel(), following.ravel()
    (array([1., 3.]), array([2., 4.]))
    """
    past = np.vstack([np.cumsum(text, axis=0)[:-1] for text in problem.texts])
    following = np.vstack([text[1:] for text in problem.texts])
    return past, following


def least_squares_loss(inputs: Array, targets: Array, directions: Array, n_texts: int) -> float:
    """Compute the squared error of the best linear prediction from ``inputs @ directions``.

    Parameters
    ----------
    inputs : (rows, d) float64
        Prefix sums or mean features.
    targets : (rows, m) float64
        Targets of the prediction.
    directions : (d, k) float64
        Columns of the encoder.
    n_texts : int
        Number of texts, by which the squared error is divided.

    Returns
    -------
    float
        Squared error per text.

    Examples
    --------
    >>> import numpy as np
    >>> least_squares_loss(np.eye(2), np.array([[3.0], [4.0]]), np.array([[1.0], [0.0]]), 2)
    8.0
    """
    z = inputs @ (directions / np.linalg.norm(directions, axis=0))
    W = np.linalg.lstsq(z, targets, rcond=1e-11)[0]
    return float(np.sum((targets - z @ W) ** 2) / n_texts)


@dataclass(frozen=True)
class ClosedFormCheck:
    """Comparison of a closed-form loss with its measurement.

    Losses are relative to the loss of predicting zero.

    Attributes
    ----------
    d, n_texts : int
        Number of features and of texts.
    rank : int
        Rank of the second moment of the inputs.
    k : int
        Width of the encoder.
    condition : float
        Condition number of the second moment of the inputs, on its range.
    closed : float
        Loss by the closed form.
    measured : float
        Loss by least squares through the same directions.
    random : float
        Lowest loss by least squares through random encoders of the same width.
    nearby : float
        Lowest loss by least squares through small perturbations of the optimal encoder.
    """

    d: int
    n_texts: int
    rank: int
    k: int
    condition: float
    closed: float
    measured: float
    random: float
    nearby: float


def check_autoregression(problem: Problem, seed: int, n_tries: int = 5) -> ClosedFormCheck:
    """Check the closed form of linear autoregression at a random width (book, chapter 1).

    Parameters
    ----------
    problem : Problem
        Token features and targets.
    seed : int
        Random seed for the width and for the competing encoders.
    n_tries : int
        Number of random encoders and of perturbed encoders.

    Returns
    -------
    ClosedFormCheck
        Losses of the closed form, of its measurement, and of the competing encoders.

    Examples
    --------
    >>> from ntps_utils.theory.synthetic import random_problem
    >>> check = check_autoregression(random_problem(0, d=4, n_texts=50, rank=4), seed=0)
    >>> abs(check.closed - check.measured) < 1e-9, min(check.random, check.nearby) >= check.measured - 1e-9
    (True, True)
    """
    past, following = prefix_pairs(problem)
    solved = subspaces(problem.moments())
    spectrum = np.linalg.svd(past / np.sqrt(len(problem.texts)), compute_uv=False)[: solved.rank_v] ** 2
    return _closed_form_check(
        problem, past, following, solved.V, solved.autoregressive_loss, solved.tr_G, spectrum, seed, n_tries
    )


def check_perception(problem: Problem, seed: int, n_tries: int = 5) -> ClosedFormCheck:
    """Check the closed form of linear perception at a random width (book, chapter 2).

    Parameters
    ----------
    problem : Problem
        Token features and targets.
    seed : int
        Random seed for the width and for the competing encoders.
    n_tries : int
        Number of random encoders and of perturbed encoders.

    Returns
    -------
    ClosedFormCheck
        Losses of the closed form, of its measurement, and of the competing encoders.

    Examples
    --------
    >>> from ntps_utils.theory.synthetic import random_problem
    >>> check = check_perception(random_problem(0, d=4, n_texts=50, rank=4), seed=0)
    >>> abs(check.closed - check.measured) < 1e-9, min(check.random, check.nearby) >= check.measured - 1e-9
    (True, True)
    """
    solved = subspaces(problem.moments())
    losses = solved.trace_y - solved.beta.cumsum()
    spectrum = solved.whitening.spectrum
    return _closed_form_check(
        problem, problem.means, problem.targets, solved.U, losses, solved.trace_y, spectrum, seed, n_tries
    )


def _closed_form_check(
    problem: Problem,
    inputs: Array,
    targets: Array,
    vectors: Array,
    losses: Array,
    constant: float,
    spectrum: Array,
    seed: int,
    n_tries: int,
) -> ClosedFormCheck:
    rng = np.random.default_rng(seed)
    n = len(problem.texts)
    k = int(rng.integers(1, vectors.shape[1] + 1))
    best = vectors[:, :k] / np.linalg.norm(vectors[:, :k], axis=0)

    def loss(directions: Array) -> float:
        return least_squares_loss(inputs, targets, directions, n) / constant

    return ClosedFormCheck(
        d=problem.d,
        n_texts=n,
        rank=len(spectrum),
        k=k,
        condition=float(spectrum[0] / spectrum[-1]),
        closed=float(losses[k - 1]) / constant,
        measured=loss(best),
        random=min(loss(rng.normal(size=best.shape)) for _ in range(n_tries)),
        nearby=min(loss(best + 1e-3 * rng.normal(size=best.shape)) for _ in range(n_tries)),
    )


@dataclass(frozen=True)
class BoundsCheck:
    """Comparison of the excess loss with the identity and the bounds, at one k_v.

    Losses and bounds are relative to tr B.

    Attributes
    ----------
    d, n_texts : int
        Number of features and of texts.
    rank : int
        Effective rank of S.
    r : int
        Number of perception directions.
    k_v : int
        Number of autoregressive directions.
    condition : float
        Condition number of S on its range.
    beta_ratio : float
        ``beta_1 / beta_r``.
    ntps, ntps_metric, ntps_task : float
        Scores.
    measured : float
        Excess loss by two least-squares fits on the texts.
    excess : float
        Excess loss by the identity.
    lower, upper : float
        Bounds on the excess loss by ``ntps``.
    lower_metric, upper_metric : float
        Bounds on the excess loss by ``ntps_metric``.
    excess_rank_k : float
        Loss above that of the best encoder of width k_v; NaN if k_v >= r.
    lower_rank_k, upper_rank_k : float
        Bounds on ``excess_rank_k``; NaN if k_v >= r.
    lower_angles, upper_angles, lower_restricted, upper_restricted : float
        Bounds from the angles between U and V, see :class:`ntps_utils.theory.score.SharpBounds`.
    lower_euclidean_k, upper_euclidean_k : float
        Bounds on ``excess_rank_k`` by the Euclidean score; NaN if k_v >= r.
    """

    d: int
    n_texts: int
    rank: int
    r: int
    k_v: int
    condition: float
    beta_ratio: float
    ntps: float
    ntps_metric: float
    ntps_task: float
    measured: float
    excess: float
    lower: float
    upper: float
    lower_metric: float
    upper_metric: float
    excess_rank_k: float
    lower_rank_k: float
    upper_rank_k: float
    lower_angles: float
    upper_angles: float
    lower_restricted: float
    upper_restricted: float
    lower_euclidean_k: float
    upper_euclidean_k: float

    @property
    def violated(self) -> bool:
        """Whether a bound is violated by more than rounding error (1e-9 of the loss plus 1e-11 of tr B)."""
        pairs = [
            (self.lower, self.excess),
            (self.excess, self.upper),
            (self.lower_metric, self.excess),
            (self.excess, self.upper_metric),
            (self.lower_rank_k, self.excess_rank_k),
            (self.excess_rank_k, self.upper_rank_k),
            (self.lower_angles, self.excess),
            (self.excess, self.upper_angles),
            (self.lower_restricted, self.excess),
            (self.excess, self.upper_restricted),
            (self.lower_euclidean_k, self.excess_rank_k),
            (self.excess_rank_k, self.upper_euclidean_k),
            # The bounds from angles are the sharper ones of the same form.
            (self.lower_metric, self.lower_angles),
            (self.upper_angles, self.upper_metric),
            (self.lower, self.lower_restricted),
            (self.upper_restricted, self.upper),
        ]
        return any(small > large * (1 + 1e-9) + 1e-11 for small, large in pairs)


def check_bounds(problem: Problem, seed: int, *, center: bool = False) -> BoundsCheck:
    """Check the identity and the bounds at a random k_v, with the loss measured on the texts (book, chapter 3).

    Parameters
    ----------
    problem : Problem
        Token features and targets.
    seed : int
        Random seed for k_v.
    center : bool
        Use covariances instead of second moments.

    Returns
    -------
    BoundsCheck
        Scores, losses and bounds.

    Examples
    --------
    >>> from ntps_utils.theory.synthetic import random_problem
    >>> check = check_bounds(random_problem(0, d=4, n_texts=50, rank=4), seed=0)
    >>> check.violated, abs(check.measured - check.excess) < 1e-9
    (False, True)
    """
    solved = subspaces(problem.moments(), center=center)
    k = int(np.random.default_rng(seed).integers(1, solved.rank_v + 1))
    x, y = problem.means, problem.targets
    if center:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    n = len(problem.texts)
    with_v = least_squares_loss(x, y, solved.V[:, :k], n)
    best = least_squares_loss(x, y, solved.whitening.from_white, n)
    spectrum = solved.whitening.spectrum

    def share(bounds: Bounds) -> tuple[float, float]:
        return float(bounds.lower[k - 1]) / solved.trace_b, float(bounds.upper[k - 1]) / solved.trace_b

    lower, upper = share(solved.bounds)
    lower_metric, upper_metric = share(solved.bounds_metric)
    lower_rank_k, upper_rank_k = share(solved.bounds_rank_k)
    sharp = {
        name: np.nan if value is None else value / solved.trace_b
        for name, value in asdict(solved.sharp_bounds(k)).items()
    }
    return BoundsCheck(
        d=problem.d,
        n_texts=n,
        rank=solved.rank,
        r=solved.r,
        k_v=k,
        condition=float(spectrum[0] / spectrum[-1]),
        beta_ratio=float(solved.beta[0] / solved.beta[-1]),
        ntps=float(solved.ntps[-1, k - 1]),
        ntps_metric=float(solved.ntps_metric[-1, k - 1]),
        ntps_task=float(solved.ntps_task[k - 1]),
        measured=(with_v - best) / solved.trace_b,
        excess=float(solved.excess_loss[k - 1]) / solved.trace_b,
        lower=lower,
        upper=upper,
        lower_metric=lower_metric,
        upper_metric=upper_metric,
        excess_rank_k=float(solved.excess_loss_rank_k[k - 1]) / solved.trace_b,
        lower_rank_k=lower_rank_k,
        upper_rank_k=upper_rank_k,
        lower_angles=sharp["lower_angles"],
        upper_angles=sharp["upper_angles"],
        lower_restricted=sharp["lower_restricted"],
        upper_restricted=sharp["upper_restricted"],
        lower_euclidean_k=sharp["lower_rank_k"],
        upper_euclidean_k=sharp["upper_rank_k"],
    )


def descend(inputs: Array, targets: Array, k: int, n_steps: int, seed: int, rate: float = 0.05) -> Array:
    """Minimize ``|targets - inputs E W|^2`` over E and W by gradient descent.

    Full-batch gradient descent with momentum 0.9 from small random factors. The inputs are
    scaled to unit mean square, and the loss is divided by the number of rows.

    Parameters
    ----------
    inputs : (rows, d) float64
        Prefix sums or mean features.
    targets : (rows, m) float64
        Targets of the prediction.
    k : int
        Width of the encoder E (d, k).
    n_steps : int
        Number of gradient steps.
    seed : int
        Random seed for the initial E and W.
    rate : float
        Learning rate.

    Returns
    -------
    (n_steps + 1,) float64
        Loss before the first step and after each step.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> losses = descend(x, x[:, :2], k=2, n_steps=500, seed=0)  # width 2 suffices
    >>> bool(losses[0] > 1.5), bool(losses[-1] < 1e-9)
    (True, True)
    """
    rng = np.random.default_rng(seed)
    x = inputs / np.sqrt(np.mean(inputs**2))
    n = len(x)
    E = 0.1 * rng.normal(size=(x.shape[1], k))
    W = 0.1 * rng.normal(size=(k, targets.shape[1]))
    velocity_E, velocity_W = np.zeros_like(E), np.zeros_like(W)
    losses = np.empty(n_steps + 1)
    for step in range(n_steps + 1):
        z = x @ E
        residual = z @ W - targets
        losses[step] = np.sum(residual**2) / n
        velocity_E = 0.9 * velocity_E + x.T @ (residual @ W.T) * (2 / n)
        velocity_W = 0.9 * velocity_W + z.T @ residual * (2 / n)
        E = E - rate * velocity_E
        W = W - rate * velocity_W
    return losses
