"""Synthetic problems: token features and targets without a model, for tests and theory chapters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array


@dataclass(frozen=True, eq=False)
class Problem:
    """Token features and targets of n texts.

    Attributes
    ----------
    texts : tuple of n (T_i, d) float64 arrays
        Token features of each text.
    targets : (n, c) float64
        One-hot classes or real-valued targets.
    """

    texts: tuple[Array, ...]
    targets: Array

    @property
    def d(self) -> int:
        """Number of features."""
        return self.texts[0].shape[1]

    @property
    def means(self) -> Array:
        """Mean of the token features of each text, (n, d)."""
        return np.stack([text.mean(axis=0) for text in self.texts])

    def moments(self) -> LayerMoments:
        """Compute the moments of this problem.

        Returns
        -------
        LayerMoments
            Moments in float64.
        """
        return LayerMoments.from_texts(self.texts, self.targets)

    def transform(self, M: Array) -> Problem:
        """Apply the linear map x -> M x to the features.

        Parameters
        ----------
        M : (d', d) float64
            Matrix of the map.

        Returns
        -------
        Problem
            Problem with the new features and the same targets.
        """
        return Problem(tuple(text @ M.T for text in self.texts), self.targets)


def random_problem(
    seed: int,
    *,
    d: int | None = None,
    n_texts: int | None = None,
    n_targets: int | None = None,
    rank: int | None = None,
    condition: float | None = None,
    offset: float | None = None,
) -> Problem:
    """Draw a random problem, including every size that is not given.

    The tokens follow a noisy linear recursion on their own past, so that the next token is
    partly predictable. The targets depend on the mean feature of the text and on noise;
    with probability one half they are classes (one-hot), otherwise real-valued.

    Parameters
    ----------
    seed : int
        Random seed for the whole problem.
    d : int, optional
        Number of features; drawn from 2 to 16.
    n_texts : int, optional
        Number of texts; drawn from d / 2 (at least 4) to 10 d.
    n_targets : int, optional
        Number of targets; drawn from 1 to 6 (classes: 2 to 6).
    rank : int, optional
        Dimension of the span of the features; drawn below d in one of four problems.
    condition : float, optional
        Ratio of the largest to the smallest scale of the feature directions; drawn from 1 to
        300 (log-uniform). kappa(S) is about its square.
    offset : float, optional
        Size of a constant added to all features, relative to their scale; drawn from 0 to 3.

    Returns
    -------
    Problem
        Token features and targets.

    Examples
    --------
    >>> problem = random_problem(0, d=5, n_texts=30, n_targets=2)
    >>> len(problem.texts), problem.d, problem.targets.shape
    (30, 5, (30, 2))
    """
    rng = np.random.default_rng(seed)
    drawn_d = int(rng.integers(2, 17))
    d = drawn_d if d is None else d
    drawn_n = int(rng.integers(max(4, d // 2), 10 * d))
    n = drawn_n if n_texts is None else n_texts
    classes = bool(rng.random() < 0.5)
    drawn_c = int(rng.integers(2 if classes else 1, 7))
    c = drawn_c if n_targets is None else n_targets
    drawn_rank = int(rng.integers(1, d + 1)) if rng.random() < 0.25 else d
    rank = drawn_rank if rank is None else rank
    drawn_condition = float(10 ** rng.uniform(0, 2.5))
    condition = drawn_condition if condition is None else condition
    drawn_offset = float(rng.uniform(0, 3) * (rng.random() < 0.7))
    offset = drawn_offset if offset is None else offset

    scales = np.geomspace(1.0, condition, d)
    scales[rank:] = 0.0
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0] * scales
    recursion = rng.normal(size=(d, d)) / np.sqrt(d) * rng.uniform(0, 0.9)
    center = offset * rng.normal(size=d)
    texts = []
    for length in rng.integers(2, 9, size=n):
        z = rng.normal(size=(length, d)) + center
        for t in range(1, length):
            z[t] += recursion @ z[:t].mean(axis=0)
        texts.append(z @ basis.T)
    means = np.stack([text.mean(axis=0) for text in texts])
    signal = means / (means.std(axis=0) + 1e-12) @ rng.normal(size=(d, c)) / np.sqrt(d)
    noisy = signal + rng.uniform(0.1, 3.0) * rng.normal(size=(n, c))
    if not (classes and c > 1):
        return Problem(tuple(texts), noisy)
    labels = noisy.argmax(axis=1)
    labels[0] = (labels[-1] + 1) % c  # at least two classes occur
    return Problem(tuple(texts), np.eye(c)[labels])


def planted_problem(seed: int, *, d: int = 40, n_texts: int = 4000, n_steps: int = 12, n_classes: int = 3) -> Problem:
    """Draw a problem whose labels depend on exactly the directions that predict the next token.

    The first ``n_classes - 1`` features are constant along a text, up to a little noise. The
    other features are independent noise at every token, with scales from 1 to 3. The label is
    the corner of a regular simplex that is nearest to the constant features. A random rotation
    is applied to all features. On centered moments a correct score is close to 1 from
    ``k_v = n_classes - 1`` on.

    Parameters
    ----------
    seed : int
        Random seed for the whole problem.
    d : int
        Number of features.
    n_texts : int
        Number of texts.
    n_steps : int
        Number of tokens of each text.
    n_classes : int
        Number of classes.

    Returns
    -------
    Problem
        Token features and one-hot targets.

    Examples
    --------
    >>> planted_problem(0, n_texts=50).targets.shape
    (50, 3)
    """
    rng = np.random.default_rng(seed)
    n_constant = n_classes - 1
    # Corners of a regular simplex: the standard basis, projected on the plane that contains it. Helmert's basis
    # of this plane is the same on every machine; that of a singular value decomposition is not.
    corners = scipy.linalg.helmert(n_classes).T
    constant = rng.normal(size=(n_texts, n_constant))
    labels = (constant @ corners.T).argmax(axis=1)
    x = rng.normal(size=(n_texts, n_steps, d))
    x[..., :n_constant] = constant[:, None, :] + 0.1 * x[..., :n_constant]
    x[..., n_constant:] *= rng.permutation(np.linspace(1.0, 3.0, d - n_constant))
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return Problem(tuple(x @ rotation.T), np.eye(n_classes)[labels])


def exact_problem(seed: int, *, condition: float, beta_ratio: float, d: int = 8, r: int = 3) -> Problem:
    """Draw a problem with given condition number of S and given ratio of eigenvalues of B.

    Orthonormal scores are scaled and rotated to give the mean features of the texts; the
    targets are linear in the scores. The tokens of a text scatter around its mean feature and
    average to it exactly.

    Parameters
    ----------
    seed : int
        Random seed for the whole problem.
    condition : float
        Condition number kappa(S).
    beta_ratio : float
        Ratio ``beta_1 / beta_r``.
    d : int
        Number of features.
    r : int
        Number of targets and perception directions.

    Returns
    -------
    Problem
        Token features and real-valued targets of 4 d texts.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(np.linalg.cond(exact_problem(0, condition=100.0, beta_ratio=4.0).moments().S)))
    100
    """
    rng = np.random.default_rng(seed)
    n = 4 * d
    scores = np.linalg.qr(rng.normal(size=(n, d)))[0] * np.sqrt(n)
    weights = np.linalg.qr(rng.normal(size=(d, r)))[0] * np.geomspace(1, beta_ratio**-0.5, r)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    features = scores * np.geomspace(1, condition**-0.5, d) @ rotation
    scatter = rng.normal(size=(n, 3, d)) * features.std(axis=0)
    tokens = features[:, None] + scatter - scatter.mean(axis=1, keepdims=True)
    return Problem(tuple(tokens), scores @ weights)


def circle_problem(seed: int, *, n_texts: int = 400, d: int = 12, n_steps: int = 6) -> Problem:
    """Draw texts that step through a cycle of d one-hot tokens from a random start.

    Parameters
    ----------
    seed : int
        Random seed for the whole problem.
    n_texts : int
        Number of texts.
    d : int
        Number of tokens in the cycle.
    n_steps : int
        Number of tokens of each text.

    Returns
    -------
    Problem
        One-hot token features and one random target.

    Examples
    --------
    >>> text = circle_problem(0, d=4, n_steps=3).texts[0]
    >>> text.argmax(axis=1)
    array([3, 0, 1])
    """
    rng = np.random.default_rng(seed)
    tokens = (rng.integers(0, d, n_texts)[:, None] + np.arange(n_steps)) % d
    return Problem(tuple(np.eye(d)[row] for row in tokens), rng.normal(size=(n_texts, 1)))
