"""Moments of one layer as plain arrays: everything that the score needs from a labeled dataset.

For a text with token features x_1 ... x_T in R^d, prefix sums p_t = x_1 + ... + x_t, mean
xbar = p_T / T and target y in R^c, and with E the mean over texts, the moments are

    A0 = E sum_{t<T} p_t p_t^T      A1 = E sum_{t<T} p_t x_{t+1}^T
    S  = E xbar xbar^T              C  = E xbar y^T              Y = E y y^T
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from ntps_utils._utils.diagnostics import with_reference
from ntps_utils._utils.validation import check_classes
from ntps_utils.theory.linear import Array, default_rcond


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """Moments of one layer, as means over texts.

    Attributes
    ----------
    A0, A1, S : (d, d) float64
        Second moments of the prefix sums, of prefix sums with next tokens, and of the means.
    C : (d, c) float64
        Cross moment of means and targets.
    Y : (c, c) float64
        Second moment of the targets.
    s : (d,) float64
        ``E xbar``.
    q : (c,) float64
        ``E y``.
    tr_G : float
        ``E sum_{t>=2} |x_t|^2``, the constant of the autoregressive loss.
    cubic : (d,) float64
        ``E |xbar|^2 xbar``. Only :meth:`ledoit_wolf` uses it.
    quartic : float
        ``E |xbar|^4``. Only :meth:`ledoit_wolf` uses it.
    n_texts : int
        Number of texts.
    n_tokens : int
        Number of tokens, without padding.
    precision : str
        Floating-point type in which the products were computed.
    centered : bool
        Whether S, C and Y are covariances.
    cancellation : float
        Mean ratio of second moment to variance over the features: the factor by which
        centering increases relative rounding error. It is 1 before centering.

    Examples
    --------
    >>> import numpy as np
    >>> texts = [np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]])]
    >>> moments = LayerMoments.from_texts(texts, ["spam", "mail"])
    >>> moments.S
    array([[0.625, 0.125],
           [0.125, 0.125]])
    >>> moments.n_texts, moments.n_tokens
    (2, 5)
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

    @classmethod
    def from_texts(cls, texts: Sequence[ArrayLike], targets: ArrayLike | Sequence[Any]) -> LayerMoments:
        """Compute the moments of token features that are given text by text.

        Parameters
        ----------
        texts : sequence of n arrays (T_i, d)
            Token features of each text, without padding.
        targets : (n,) class labels or (n, c) numbers
            See :func:`as_targets`.

        Returns
        -------
        LayerMoments
            Moments in float64.

        Raises
        ------
        ValueError
            If a text has the wrong shape, no tokens, or features that are NaN, infinite or
            too large to square (the error names the text); if texts and targets differ in
            number; or if every text has a single token.

        See Also
        --------
        ntps_utils.theory.moments.Moments : Streaming moments of several layers, in torch.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> texts = [rng.normal(size=(length, 4)) for length in (3, 5, 2)]
        >>> moments = LayerMoments.from_texts(texts, [0, 1, 0])
        >>> moments.C.shape
        (4, 2)
        """
        arrays, y = check_texts(texts, targets)
        n, d = len(arrays), arrays[0].shape[1]
        A0, A1, tr_G = np.zeros((d, d)), np.zeros((d, d)), 0.0
        means = np.empty((n, d))
        with np.errstate(over="ignore", invalid="ignore"):
            for i, x in enumerate(arrays):
                P = x.cumsum(axis=0)
                past, following = P[:-1], x[1:]
                A0 += past.T @ past
                A1 += past.T @ following
                tr_G += float(np.sum(following**2))
                means[i] = P[-1] / len(x)
            square = np.sum(means**2, axis=1)
            quartic = float(np.mean(square**2))
        # No entry of a moment exceeds what its diagonal allows (Cauchy-Schwarz), so these totals reveal an overflow.
        if not np.isfinite([np.trace(A0), tr_G, quartic]).all():
            largest = [float(np.abs(x).max()) for x in arrays]
            i = int(np.argmax(largest))
            message = (
                f"Text {i} has features that are too large to square in float64 (largest magnitude "
                f"{largest[i]:.3g}). Scale the features down."
            )
            raise ValueError(with_reference("overflow", message))
        n_tokens = sum(len(x) for x in arrays)
        if n_tokens == n:
            raise ValueError(SINGLE_TOKENS)
        return cls(
            A0=A0 / n,
            A1=A1 / n,
            S=means.T @ means / n,
            C=means.T @ y / n,
            Y=y.T @ y / n,
            s=means.mean(axis=0),
            q=y.mean(axis=0),
            tr_G=tr_G / n,
            cubic=square @ means / n,
            quartic=quartic,
            n_texts=n,
            n_tokens=n_tokens,
        )

    @property
    def rcond(self) -> float:
        """Relative rounding error of these moments, the default eigenvalue cut-off for S.

        Centering multiplies the error of float64 sums by ``cancellation``. Products in float32 are
        those of shifted features, whose errors centering does not increase.
        """
        exact = default_rcond(max(self.C.shape)) * self.cancellation
        return exact if self.precision == "float64" else max(exact, self.rcond_raw)

    @property
    def rcond_raw(self) -> float:
        """Relative rounding error before centering, the default eigenvalue cut-off for A0.

        In coordinates with unit diagonal, products of shifted features in float32 have errors of
        about ``eps``, whatever the largest eigenvalue is, which is at most d.
        """
        if self.precision == "float64":
            return default_rcond(max(self.C.shape))
        return 8.0 * float(np.finfo(self.precision).eps) / len(self.S)

    @property
    def max_rank(self) -> int:
        """Largest rank that S can have with this number of texts."""
        return self.n_texts - self.centered

    def center(self) -> LayerMoments:
        """Replace S, C and Y by covariances: S - s s^T, C - s q^T, Y - q q^T.

        The autoregressive moments do not change. A feature whose variance is below the
        rounding error of its second moment is constant; its rows and columns of S and C are
        set to zero.

        Returns
        -------
        LayerMoments
            Centered moments, or this object if it is centered already.

        Examples
        --------
        >>> import numpy as np
        >>> texts = [np.array([[1.0], [3.0]]), np.array([[4.0], [4.0]])]  # the means are 2 and 4
        >>> LayerMoments.from_texts(texts, [0, 1]).center().S
        array([[1.]])
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
        """Estimate the optimal shrinkage intensity for S from streamed moments.

        Returns
        -------
        float
            Intensity in [0, 1] for :func:`ntps_utils.theory.linear.shrink`.

        Notes
        -----
        The usual formula needs all features. Its sum of ``|xbar|^4`` over texts (about the
        mean, if centered) is additive, so the moments ``cubic`` and ``quartic`` suffice.

        References
        ----------
        O. Ledoit and M. Wolf (2004), A well-conditioned estimator for large-dimensional
        covariance matrices, Journal of Multivariate Analysis 88(2).

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> few = [rng.normal(size=(2, 20)) for _ in range(10)]
        >>> many = [rng.normal(size=(2, 20)) * np.arange(1, 21) for _ in range(1000)]
        >>> [round(LayerMoments.from_texts(x, [0, 1] * (len(x) // 2)).ledoit_wolf(), 2) for x in (few, many)]
        [0.98, 0.03]
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


SINGLE_TOKENS = (
    "Every text has a single token, so there is no next token to predict. Give texts of at least two tokens."
)


def as_targets(y: ArrayLike | Sequence[Any]) -> Array:
    """Return targets as a matrix: one-hot for class labels, unchanged for an (n, c) array.

    Class labels are encoded by the classes that occur in ``y``. If texts are processed in
    parts whose moments will be merged, encode the labels of all texts once, before the split.

    Parameters
    ----------
    y : (n,) class labels or (n, c) numbers
        Labels are integers or strings. A real-valued target is a column of shape (n, 1).

    Returns
    -------
    (n, c) float64
        For labels, column j is the indicator of the j-th class in sorted order.

    Raises
    ------
    ValueError
        If ``y`` is empty, has another shape, mixes integers and strings, is a
        one-dimensional array of real numbers, or contains fewer than two classes.

    Examples
    --------
    >>> as_targets(["spam", "mail", "spam"])
    array([[0., 1.],
           [1., 0.],
           [0., 1.]])
    >>> as_targets([[0.5], [2.0]])
    array([[0.5],
           [2. ]])
    >>> as_targets([0.5, 2.0])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: Class labels must be all integers or all strings, but label 0 is 0.5. Give a real-valued target as a ...
    """
    try:
        array = np.asarray(y)
    except ValueError:
        raise ValueError(
            "Give class labels of shape (n,) or targets of shape (n, c); these rows differ in length."
        ) from None
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"Give class labels of shape (n,) or targets of shape (n, c), got shape {array.shape}.")
    if array.ndim == 2:
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"Targets of shape (n, c) must be real numbers, got dtype {array.dtype}. Give class labels in one "
                "dimension, as shape (n,)."
            )
        return array.astype(np.float64)

    # Not the elements of `array`: NumPy turns the missing value of ["a", nan] into a string.
    labels = [label.item() if hasattr(label, "item") else label for label in cast(Iterable[Any], y)]
    is_valid = _is_string if isinstance(labels[0], str) else _is_integer
    for i, label in enumerate(labels):
        if not is_valid(label):
            raise ValueError(
                f"Class labels must be all integers or all strings, but label {i} is {label!r}. "
                "Give a real-valued target as a column of shape (n, 1)."
            )
    columns = {label: j for j, label in enumerate(sorted(set(labels)))}
    if len(columns) < 2:
        raise ValueError(f"Give labels of at least two classes; all {len(labels)} labels are {labels[0]!r}.")
    return one_hot([columns[label] for label in labels], len(columns))


def one_hot(classes: ArrayLike, n_classes: int) -> Array:
    """Indicators of classes.

    Parameters
    ----------
    classes : (n,) array_like of int
        Class of each text, 0 ... ``n_classes`` - 1.
    n_classes : int

    Returns
    -------
    (n, n_classes) float64

    Raises
    ------
    ValueError
        If the indicators would take too much memory.

    Examples
    --------
    >>> one_hot([1, 0], 3)
    array([[0., 1., 0.],
           [1., 0., 0.]])
    """
    index = np.asarray(classes, dtype=np.intp)
    check_classes(n_classes, len(index), n_classes)
    indicators = np.zeros((len(index), n_classes))
    indicators[np.arange(len(index)), index] = 1.0
    return indicators


def check_texts(texts: Sequence[ArrayLike], targets: ArrayLike | Sequence[Any]) -> tuple[list[Array], Array]:
    """Validate token features and targets of texts, and convert them to float64.

    Parameters
    ----------
    texts : sequence of n arrays (T_i, d)
        Token features of each text, without padding.
    targets : (n,) class labels or (n, c) numbers
        See :func:`as_targets`.

    Returns
    -------
    list of (T_i, d) float64
        Token features.
    (n, c) float64
        Targets.

    Raises
    ------
    ValueError
        If texts and targets differ in number, or a text or its target is not valid; the
        error names the text.

    Examples
    --------
    >>> check_texts([[[1.0, 2.0]], [[1.0, 2.0, 3.0]]], [0, 1])
    Traceback (most recent call last):
    ...
    ValueError: Text 1 has 3 features, but text 0 has 2. All texts need the same number.
    """
    if len(texts) == 0:
        raise ValueError("There are no texts. Give at least one.")
    y = as_targets(targets)
    if len(texts) != len(y):
        raise ValueError(
            f"Give one class label or row of targets for each text; got {len(texts)} texts, {len(y)} targets."
        )
    invalid = np.flatnonzero(~np.isfinite(y).all(axis=1))
    if invalid.size:
        raise ValueError(f"The target of text {invalid[0]} is NaN or infinite.")
    arrays: list[Array] = []
    for i, text in enumerate(texts):
        try:
            x = np.asarray(text, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Text {i} cannot be converted to a float64 array: {error}.") from error
        if x.ndim != 2 or x.shape[1] == 0:
            raise ValueError(f"Text {i} must have shape (tokens, features), got shape {x.shape}.")
        if len(x) == 0:
            raise ValueError(f"Text {i} has no tokens. Remove empty texts.")
        if arrays and x.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"Text {i} has {x.shape[1]} features, but text 0 has {arrays[0].shape[1]}. "
                "All texts need the same number."
            )
        if not np.isfinite(x).all():
            raise ValueError(f"Text {i} has features that are NaN or infinite.")
        arrays.append(x)
    return arrays, y


def _is_integer(label: object) -> bool:
    return isinstance(label, int) or (isinstance(label, float) and label.is_integer())


def _is_string(label: object) -> bool:
    return isinstance(label, str)
