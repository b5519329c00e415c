"""Simulate whether a rise of NTPS shows in as few test texts as the declared experiment has, and record it.

    python -m book.tools.visible_rise

Token features follow a noisy recursion plus an offset of the text. Labels are drawn from softmax regression on the mean
feature, whose weights lie partly in the span of V. A larger part there is a planted rise: the score of a large sample
rises by about 0.1. The same change of the labels is then measured in small samples.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.score import NumericalWarning, subspaces

OUT = Path("ntps_utils/data/recorded/visible_rise.json")
SIZES = ((576, 592), (576, 1000), (640, 592), (640, 1000))
"""Numbers of features and of test texts, as in the recorded runs."""
CLASSES = (2, 20)
RISE = 0.1
LENGTH, N_LARGE, CHUNK = 12, 30_000, 3_000


@dataclass(frozen=True, eq=False)
class Features:
    """A distribution of token features.

    Attributes
    ----------
    mix, step : (d, d) float64
        From independent to mixed features; recursion of the tokens.
    """

    mix: Array
    step: Array

    @classmethod
    def draw(cls, d: int, rng: np.random.Generator) -> Features:
        """Draw a distribution at random; standard deviations of the features span a factor of thirty."""
        one, two, three = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(3))
        return cls(one * np.geomspace(1.0, 1 / 30, d) @ two, 0.7 * three * rng.uniform(0.0, 1.0, d))

    def texts(self, n: int, rng: np.random.Generator) -> Array:
        """Draw texts, (n, tokens, d)."""
        z = rng.normal(size=(n, LENGTH, len(self.step)))
        for t in range(1, LENGTH):
            z[:, t] += z[:, t - 1] @ self.step
        return np.asarray((z + 0.5 * rng.normal(size=(n, 1, len(self.step))) + 0.3) @ self.mix)


def labels(means: Array, weights: Array, noise: Array) -> NDArray[np.int64]:
    """Labels of softmax regression with given Gumbel noise, (n,)."""
    logits = (means - means.mean(0)) @ weights
    return np.argmax(3.0 * logits / logits.std() + noise, axis=1)


def score(moments: LayerMoments, means: Array, y: NDArray[np.int64], n_classes: int) -> float:
    """NTPS of the same texts with other labels, at half of the features."""
    solved = subspaces(with_targets(moments, means, np.eye(n_classes)[y]))
    return float(solved.row(solved.width(solved.d // 2)).ntps)


def with_targets(moments: LayerMoments, means: Array, targets: Array) -> LayerMoments:
    """Moments of the same texts with other targets (n, c)."""
    n = len(targets)
    return replace(moments, C=means.T @ targets / n, Y=targets.T @ targets / n, q=targets.mean(0))


def moments_of(texts: Array) -> LayerMoments:
    """Moments of texts without labels."""
    parts = (texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK))
    return reduce(Moments.merge, (Moments.from_texts(list(part), np.zeros((len(part), 1))) for part in parts)).layer(0)


def planted_rise(
    d: int, sizes: tuple[int, ...], n_classes: int, seed: int, n_large: int = N_LARGE
) -> tuple[float, dict[int, float]]:
    """Plant a rise in one population, and measure it.

    Parameters
    ----------
    d : int
        Number of features.
    sizes : tuple of int
        Numbers of texts of the small samples.
    n_classes, seed, n_large : int
        Number of classes, random seed, texts of the large sample.

    Returns
    -------
    planted : float
        Rise in the large sample.
    measured : dict of int to float
        Rise in each small sample.
    """
    rng = np.random.default_rng(seed)
    features = Features.draw(d, rng)
    large = [features.texts(CHUNK, rng) for _ in range(n_large // CHUNK)]
    means = np.concatenate([part.mean(1) for part in large])
    moments = reduce(Moments.merge, (Moments.from_texts(list(part), np.zeros((len(part), 1))) for part in large)).layer(
        0
    )
    del large
    V = subspaces(with_targets(moments, means, np.ones((len(means), 1)))).V[:, : d // 2]
    Q = np.linalg.qr(V)[0]
    drawn = rng.normal(size=(d, n_classes))
    inside, outside = Q @ (Q.T @ drawn), drawn - Q @ (Q.T @ drawn)
    noise = rng.gumbel(size=(len(means), n_classes))

    def weights(share: float) -> Array:
        return np.sqrt(share) * inside / np.linalg.norm(inside) + np.sqrt(1 - share) * outside / np.linalg.norm(outside)

    def large_score(share: float) -> float:
        return score(moments, means, labels(means, weights(share), noise), n_classes)

    low, high = 0.4, 0.5
    start = large_score(low)
    for _ in range(3):  # until the planted rise is near the wanted one
        found = large_score(high) - start
        high = float(np.clip(low + (high - low) * RISE / max(found, 1e-3), low + 0.01, 0.99))
    planted = large_score(high) - start
    measured = {}
    for n in sizes:
        texts = features.texts(n, rng)
        own, x, g = moments_of(texts), texts.mean(1), rng.gumbel(size=(n, n_classes))
        before, after = (score(own, x, labels(x, weights(share), g), n_classes) for share in (low, high))
        measured[n] = after - before
    return planted, measured


def main(
    n_populations: Annotated[int, typer.Option(min=1, help="Populations for each row.")] = 5,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
) -> None:
    """Simulate all sizes."""
    warnings.simplefilter("ignore", NumericalWarning)
    rows: list[dict[str, Any]] = []
    for d in dict.fromkeys(d for d, _ in SIZES):
        sizes = tuple(n for other, n in SIZES if other == d)
        for n_classes in CLASSES:
            found = [planted_rise(d, sizes, n_classes, seed) for seed in range(n_populations)]
            for n in sizes:
                measured = np.array([one[n] for _, one in found])
                rows.append(
                    {
                        "d": d,
                        "n": n,
                        "n_classes": n_classes,
                        "planted": float(np.mean([planted for planted, _ in found])),
                        "measured": float(measured.mean()),
                        "sd": float(measured.std(ddof=1)) if len(measured) > 1 else None,
                    }
                )
                typer.echo(str(rows[-1]), err=True)
    write_json(out, {"rows": rows, "provenance": provenance(n_populations=n_populations, n_large=N_LARGE, rise=RISE)})


if __name__ == "__main__":
    typer.run(main)
