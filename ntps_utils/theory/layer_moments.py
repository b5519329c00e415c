"""Moments of one layer: all that the score needs of a labeled dataset, as plain arrays.

For a text with token features x_1 ... x_T (rows, R^d), prefix sums
P_t = x_1 + ... + x_t, mean xbar = P_T / T and target y in R^c, and with E the mean
over texts (theory: notation):

    A0 = E sum_{t<T} P_t P_t^T      A1 = E sum_{t<T} P_t x_{t+1}^T
    S  = E xbar xbar^T              C  = E xbar y^T              Y = E y y^T
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ntps_utils.theory.linear import Array, default_rcond


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """Moments of one layer, as means over texts.

    Attributes
    ----------
    A0, A1, S : (d, d) float64
    C : (d, c) float64
    Y : (c, c) float64
    s : (d,) float64
        E xbar.
    q : (c,) float64
        E y.
    tr_G : float
        ``E sum_{t>=2} |x_t|^2``, the constant of the autoregressive loss.
    cubic : (d,) float64
        ``E |xbar|^2 xbar``, for the shrinkage intensity alone.
    quartic : float
        ``E |xbar|^4``, likewise.
    n_texts, n_tokens : int
    precision : str
        Floating-point type in which batch products were formed.
    centered : bool
        Whether S, C and Y are covariances.
    cancellation : float
        Mean ratio of second moment to variance over the features: how much of the leading
        digits centering has canceled. 1 before it.
    """

    A0: Array
    A1: Array
    S: Array
    C: Array
    Y: Array
    s: Array
    q: Array
    tr_G: float
    cubic: Array
    quartic: float
    n_texts: int
    n_tokens: int
    precision: str = "float64"
    centered: bool = False
    cancellation: float = 1.0

    @property
    def rcond(self) -> float:
        """Relative rounding of these moments, the default eigenvalue cut-off for S."""
        return self.rcond_raw * self.cancellation

    @property
    def rcond_raw(self) -> float:
        """Relative rounding before centering, the default eigenvalue cut-off for A0."""
        return default_rcond(max(self.C.shape), self.precision)

    @property
    def max_rank(self) -> int:
        """Largest rank that S can have with this number of texts."""
        return self.n_texts - self.centered

    def center(self) -> LayerMoments:
        """Replace S, C, Y by covariances: S - s s^T, C - s q^T, Y - q q^T.

        The autoregressive moments are left as they are. A feature whose variance is
        below the rounding of its second moment is constant, and becomes exactly zero.
        """
        if self.centered:
            return self
        S = self.S - np.outer(self.s, self.s)
        C = self.C - np.outer(self.s, self.q)
        variance, second = np.diag(S).copy(), np.diag(self.S)
        constant = variance <= self.rcond * second
        S[constant, :] = 0.0
        S[:, constant] = 0.0
        C[constant, :] = 0.0
        cancellation = float(np.mean(second[~constant] / variance[~constant])) if not constant.all() else 1.0
        Y = self.Y - np.outer(self.q, self.q)
        return replace(self, S=S, C=C, Y=Y, centered=True, cancellation=cancellation)

    def ledoit_wolf(self) -> float:
        """Shrinkage intensity of Ledoit and Wolf (2004) for S, from streamed moments.

        The usual formula needs all features; its sum over texts of ``|xbar|^4`` (about the
        mean, if centered) is additive, so two small extra moments suffice.
        """
        d = len(self.S)
        fourth = self.quartic
        if self.centered:
            mean = self.s
            second = self.S + np.outer(mean, mean)
            fourth += (
                4 * mean @ second @ mean
                + (mean @ mean) ** 2
                + 2 * (mean @ mean) * np.trace(second)
                - 4 * mean @ self.cubic
                - 4 * (mean @ mean) ** 2
            )
        mu = np.trace(self.S) / d
        spread = float(np.sum(self.S**2)) - d * mu**2
        if spread <= 0.0:
            return 1.0
        sampling = (fourth - float(np.sum(self.S**2))) / self.n_texts
        return float(np.clip(sampling / spread, 0.0, 1.0))
