"""Simulate how many texts it takes to see that a score has risen, and record it.

    python -m book.tools.visible_rise

Token features follow a noisy recursion plus an offset of the text. Labels are drawn from softmax regression on the mean
feature, whose weights lie partly in the span of V. A larger part there is a planted rise: NTPS of a large sample rises
by about 0.1. The same change of the labels is then measured in smaller samples, with all scores.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
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
DECLARED = {576: (592, 1000), 640: (592, 1000)}
"""Numbers of test texts by number of features, as in the runs of the declared experiment."""
CURVE_D = 96
"""Features of the simulated curve, as many as those of lab/M."""
CURVE = {CURVE_D: tuple(CURVE_D * ratio for ratio in (1, 2, 5, 10, 20, 50, 100))}
CLASSES = (2, 20)
RISE = 0.1
LENGTH, N_LARGE, CHUNK = 12, 30_000, 3_000
CENTERED = {"ntps": False, "ntps_metric": True, "ntps_task": True}
"""Scores, and whether they come from covariances."""


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


def scores(moments: LayerMoments, means: Array, y: NDArray[np.int64], n_classes: int) -> Array:
    """Scores of the same texts with other labels, at half of the features, in the order of ``CENTERED``."""
    other = with_targets(moments, means, np.eye(n_classes)[y])
    rows = {}
    for center in (False, True):
        solved = subspaces(other, center=center)
        rows[center] = solved.row(solved.width(solved.d // 2))
    return np.array([getattr(rows[center], name) for name, center in CENTERED.items()])


def with_targets(moments: LayerMoments, means: Array, targets: Array) -> LayerMoments:
    """Moments of the same texts with other targets (n, c)."""
    n = len(targets)
    return replace(moments, C=means.T @ targets / n, Y=targets.T @ targets / n, q=targets.mean(0))


def moments_of(parts: Iterable[Array]) -> LayerMoments:
    """Moments of texts without labels, given in parts (n, tokens, d)."""
    return reduce(Moments.merge, (Moments.from_texts(list(part), np.zeros((len(part), 1))) for part in parts)).layer(0)


def planted_rise(
    d: int, sizes: tuple[int, ...], n_classes: int, seed: int, n_large: int = N_LARGE
) -> tuple[Array, dict[int, Array]]:
    """Plant a rise of NTPS in one population, and measure it.

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
    planted : (scores,) float64
        Rise of each score in the large sample.
    measured : dict of int to (scores,) float64
        The same in each small sample.
    """
    rng = np.random.default_rng(seed)
    features = Features.draw(d, rng)
    large = [features.texts(CHUNK, rng) for _ in range(n_large // CHUNK)]
    means = np.concatenate([part.mean(1) for part in large])
    moments = moments_of(large)
    del large
    V = subspaces(with_targets(moments, means, np.ones((len(means), 1)))).V[:, : d // 2]
    Q = np.linalg.qr(V)[0]
    drawn = rng.normal(size=(d, n_classes))
    inside, outside = Q @ (Q.T @ drawn), drawn - Q @ (Q.T @ drawn)
    noise = rng.gumbel(size=(len(means), n_classes))

    def weights(share: float) -> Array:
        return np.sqrt(share) * inside / np.linalg.norm(inside) + np.sqrt(1 - share) * outside / np.linalg.norm(outside)

    def large_scores(share: float) -> Array:
        return scores(moments, means, labels(means, weights(share), noise), n_classes)

    low, high = 0.4, 0.5
    start = large_scores(low)
    for _ in range(3):  # until the planted rise is near the wanted one
        found = (large_scores(high) - start)[0]
        high = float(np.clip(low + (high - low) * RISE / max(found, 1e-3), low + 0.01, 0.99))
    planted = large_scores(high) - start
    measured = {}
    for n in sizes:
        texts = features.texts(n, rng)
        own, x, g = moments_of([texts]), texts.mean(1), rng.gumbel(size=(n, n_classes))
        before, after = (scores(own, x, labels(x, weights(share), g), n_classes) for share in (low, high))
        measured[n] = after - before
    return planted, measured


def main(
    n_populations: Annotated[int, typer.Option(min=2, help="Populations for each row of the declared sizes.")] = 3,
    n_curve: Annotated[int, typer.Option(min=2, help="Populations for each row of the curve.")] = 12,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
) -> None:
    """Simulate the sizes that the file does not contain, and record them."""
    warnings.simplefilter("ignore", NumericalWarning)
    rows: list[dict[str, Any]] = json.loads(out.read_text("utf-8"))["rows"] if out.is_file() else []
    done = {(row["d"], row["n_classes"]) for row in rows}
    for d, sizes in (CURVE | DECLARED).items():
        for n_classes in CLASSES:
            if (d, n_classes) in done:
                continue
            seeds = range(n_curve if d == CURVE_D else n_populations)
            found = [planted_rise(d, sizes, n_classes, seed) for seed in seeds]
            planted = np.mean([one for one, _ in found], axis=0)
            for n in sizes:
                measured = np.array([one[n] for _, one in found])
                mean, sd = measured.mean(0), measured.std(0, ddof=1)
                for i, name in enumerate(CENTERED):
                    row = {"d": d, "n": n, "n_classes": n_classes, "n_populations": len(found), "score": name}
                    facts = {"planted": planted[i], "measured": mean[i], "sd": sd[i]}
                    rows.append(row | {key: float(value) for key, value in facts.items()})
                    typer.echo(str(rows[-1]), err=True)
            write_json(out, {"rows": rows, "provenance": provenance(n_large=N_LARGE, length=LENGTH, rise=RISE)})


if __name__ == "__main__":
    typer.run(main)
