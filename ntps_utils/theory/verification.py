"""Each statement of the theory checked on data, by a route that does not use it.

The closed forms come from moments; here the same quantities are measured by least
squares on the tokens and texts themselves, or reached by gradient descent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ntps_utils.theory.linear import Array
from ntps_utils.theory.score import Bounds, Subspaces, subspaces
from ntps_utils.theory.synthetic import Problem


def prefix_pairs(problem: Problem) -> tuple[Array, Array]:
    """Prefix sums P_t and next tokens x_{t+1} of all texts, stacked: two (pairs, d) arrays."""
    past = np.vstack([np.cumsum(text, axis=0)[:-1] for text in problem.texts])
    following = np.vstack([text[1:] for text in problem.texts])
    return past, following


def least_squares_loss(inputs: Array, targets: Array, directions: Array, n_texts: int) -> float:
    """Squared error, per text, of the best linear prediction of targets from inputs @ directions."""
    z = inputs @ (directions / np.linalg.norm(directions, axis=0))
    W = np.linalg.lstsq(z, targets, rcond=1e-11)[0]
    return float(np.sum((targets - z @ W) ** 2) / n_texts)


@dataclass(frozen=True)
class ClosedFormCheck:
    """A closed form beside its measurement. Losses are shares of the loss of predicting zero."""

    d: int
    n_texts: int
    rank: int
    k: int
    condition: float
    """kappa of the second moment of the inputs, on its range."""
    closed: float
    """Loss by the closed form."""
    measured: float
    """Loss by least squares through the same directions."""
    random: float
    """Lowest loss by least squares through random encoders of the same width."""
    nearby: float
    """Lowest loss through encoders a thousandth away."""


def check_autoregression(problem: Problem, seed: int, n_tries: int = 5) -> ClosedFormCheck:
    """Chapter 1: the closed form of linear autoregression at a random width."""
    past, following = prefix_pairs(problem)
    solved = subspaces(problem.moments())
    spectrum = np.linalg.svd(past / np.sqrt(len(problem.texts)), compute_uv=False)[: solved.rank_v] ** 2
    return _closed_form_check(
        problem, past, following, solved.V, solved.autoregressive_loss, solved.tr_G, spectrum, seed, n_tries
    )


def check_perception(problem: Problem, seed: int, n_tries: int = 5) -> ClosedFormCheck:
    """Chapter 2: the closed form of linear perception at a random width."""
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
    """Identity and bounds of one problem at one k_v. Losses are shares of tr B."""

    d: int
    n_texts: int
    rank: int
    r: int
    k_v: int
    condition: float
    """kappa(S) on its range."""
    beta_ratio: float
    """beta_1 / beta_r."""
    ntps: float
    ntps_metric: float
    ntps_task: float
    measured: float
    """Excess loss by two least-squares fits on the texts."""
    excess: float
    """Excess loss by the identity."""
    lower: float
    upper: float
    lower_metric: float
    upper_metric: float
    excess_rank_k: float
    """NaN where k_v >= r."""
    lower_rank_k: float
    upper_rank_k: float

    @property
    def violated(self) -> bool:
        """Whether any bound fails by more than rounding (1e-9 of the loss, 1e-11 of tr B)."""
        pairs = [
            (self.lower, self.excess),
            (self.excess, self.upper),
            (self.lower_metric, self.excess),
            (self.excess, self.upper_metric),
            (self.lower_rank_k, self.excess_rank_k),
            (self.excess_rank_k, self.upper_rank_k),
        ]
        return any(small > large * (1 + 1e-9) + 1e-11 for small, large in pairs)


def check_bounds(problem: Problem, seed: int, *, center: bool = False) -> BoundsCheck:
    """Chapter 3: identity and bounds at a random k_v, with the loss measured on the texts."""
    solved = subspaces(problem.moments(), center=center)
    k = int(np.random.default_rng(seed).integers(1, solved.rank_v + 1))
    x, y = problem.means, problem.targets
    if center:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    n = len(problem.texts)
    kept = least_squares_loss(x, y, solved.V[:, :k], n)
    best = least_squares_loss(x, y, solved.whitening.from_white, n)
    spectrum = solved.whitening.spectrum

    def share(bounds: Bounds) -> tuple[float, float]:
        return float(bounds.lower[k - 1]) / solved.trace_b, float(bounds.upper[k - 1]) / solved.trace_b

    lower, upper = share(solved.bounds)
    lower_metric, upper_metric = share(solved.bounds_metric)
    lower_rank_k, upper_rank_k = share(solved.bounds_rank_k)
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
        measured=(kept - best) / solved.trace_b,
        excess=float(solved.excess_loss[k - 1]) / solved.trace_b,
        lower=lower,
        upper=upper,
        lower_metric=lower_metric,
        upper_metric=upper_metric,
        excess_rank_k=float(solved.excess_loss_rank_k[k - 1]) / solved.trace_b,
        lower_rank_k=lower_rank_k,
        upper_rank_k=upper_rank_k,
    )


def descend(inputs: Array, targets: Array, k: int, n_steps: int, seed: int, rate: float = 0.05) -> Array:
    """Losses (n_steps + 1,) of gradient descent on ``|targets - inputs E W|^2`` over E and W.

    Both factors start at small random values; full-batch gradient descent with momentum
    0.9, in float64, on inputs scaled to unit mean square and loss per row.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.as_tensor(inputs / np.sqrt(np.mean(inputs**2)))
    y = torch.as_tensor(targets)
    E = (0.1 * torch.randn(x.shape[1], k, generator=generator, dtype=torch.float64)).requires_grad_()
    W = (0.1 * torch.randn(k, y.shape[1], generator=generator, dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.SGD([E, W], lr=rate, momentum=0.9)
    losses = []
    for _ in range(n_steps):
        loss = (y - x @ E @ W).square().sum() / len(x)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    losses.append(float((y - x @ E @ W).square().sum().detach() / len(x)))
    return np.array(losses)


def with_subspace(solved: Subspaces, V: Array) -> Subspaces:
    """The same problem with another encoder's directions in the place of V."""
    return replace(solved, V=V)
