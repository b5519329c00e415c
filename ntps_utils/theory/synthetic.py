"""Random and planted linear problems: token features and targets without a model.

The theory chapters and the property tests draw from here, so that both speak of the
same problems.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array
from ntps_utils.theory.moments import Moments


@dataclass(frozen=True, eq=False)
class Problem:
    """Token features and targets of a few texts.

    Attributes
    ----------
    texts : tuple of (T_i, d) float64 arrays
    targets : (n, c) float64
    """

    texts: tuple[Array, ...]
    targets: Array

    @property
    def d(self) -> int:
        """Number of features."""
        return self.texts[0].shape[1]

    @property
    def means(self) -> Array:
        """Mean token feature of each text, (n, d)."""
        return np.stack([text.mean(axis=0) for text in self.texts])

    def moments(self) -> LayerMoments:
        """Moments of this problem, as of a single layer."""
        return Moments.from_texts(self.texts, self.targets).layer(0)

    def transform(self, M: Array) -> Problem:
        """The same problem after the change of features x -> M x."""
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
    """A random problem; whatever is not given is drawn at random too.

    Tokens follow a noisy linear recursion on their own past, so that there is something
    for autoregression to find. Targets are half the time classes (one-hot), half the
    time real; they depend on the text's mean feature and on noise.

    Parameters
    ----------
    seed : int
    d : int, optional
        Features, 2 to 16.
    n_texts : int, optional
        From half as many as features to ten times as many.
    n_targets : int, optional
        Columns of the targets, 1 to 6 (2 to 6 classes).
    rank : int, optional
        Dimension of the span of the features; drawn below d one time in four.
    condition : float, optional
        Ratio of the largest to the smallest scale of the feature directions, 1 to 300
        (log-uniform); kappa(S) is about its square.
    offset : float, optional
        Size of a constant added to all features, 0 to 3 times their scale.
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
    """Labels that depend on exactly the directions that help to predict the next token.

    Each text draws a value for the first ``n_classes - 1`` features and keeps it, with a
    little noise, at every token; the other features are fresh noise at every token, with
    scales from 1 to 3. The label is the corner of a regular simplex that the kept values
    lie closest to. A random rotation hides the coordinates. On centered moments a sound
    score comes close to 1 at k_v = ``n_classes - 1`` already.
    """
    rng = np.random.default_rng(seed)
    kept = n_classes - 1
    # Corners of a regular simplex: the identity, seen from within the plane that holds it.
    corners = np.linalg.svd(np.eye(n_classes) - 1.0 / n_classes)[0][:, :kept]
    latent = rng.normal(size=(n_texts, kept))
    labels = (latent @ corners.T).argmax(axis=1)
    x = rng.normal(size=(n_texts, n_steps, d))
    x[..., :kept] = latent[:, None, :] + 0.1 * x[..., :kept]
    x[..., kept:] *= rng.permutation(np.linspace(1.0, 3.0, d - kept))
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return Problem(tuple(x @ rotation.T), np.eye(n_classes)[labels])


def exact_problem(seed: int, *, condition: float, beta_ratio: float, d: int = 8, r: int = 3) -> Problem:
    """A problem whose kappa(S) and beta_1 / beta_r are what is asked for, exactly.

    Orthonormal scores are scaled and rotated into features; the targets are linear in
    them. Tokens scatter around each text's mean feature without moving it.
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
    """Texts that walk round a circle of d one-hot tokens, one step at a time, from a random start."""
    rng = np.random.default_rng(seed)
    walks = (rng.integers(0, d, n_texts)[:, None] + np.arange(n_steps)) % d
    return Problem(tuple(np.eye(d)[walk] for walk in walks), rng.normal(size=(n_texts, 1)))
