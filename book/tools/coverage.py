"""Simulate how often the intervals of the scores contain the true values, and record it.

    python -m book.tools.coverage

Token features follow a noisy recursion plus an offset of the text; labels are drawn from softmax
regression on the mean feature. The true scores are those of a sample of 40,000 texts. For each
ratio of texts to features, problems are drawn from several populations.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.score import SCORES, NumericalWarning, subspaces
from ntps_utils.theory.uncertainty import excess_loss_test, jackknife_interval
from ntps_utils.theory.verification import least_squares_loss

OUT = Path("ntps_utils/data/recorded/coverage.json")
D, N_CLASSES, K_V, N_GROUPS = 24, 3, 12, 10
RATIOS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)


@dataclass(frozen=True, eq=False)
class Population:
    """A distribution of texts and labels.

    Attributes
    ----------
    mix : (d, d) float64
        From independent to mixed features.
    step : (d, d) float64
        Recursion of the tokens.
    weights : (d, c) float64
        Weights of the classes on the mean feature, in units of its standard deviation.
    """

    mix: NDArray[np.float64]
    step: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def draw(cls, seed: int) -> Population:
        """Draw a population at random."""
        rng = np.random.default_rng(seed)
        mix = (
            np.linalg.qr(rng.normal(size=(D, D)))[0]
            * np.geomspace(1.0, 0.1, D)
            @ np.linalg.qr(rng.normal(size=(D, D)))[0]
        )
        step = 0.7 * np.linalg.qr(rng.normal(size=(D, D)))[0] * rng.uniform(0.0, 1.0, D)
        return cls(mix, step, rng.normal(size=(D, N_CLASSES)) * rng.uniform(0.2, 1.0))

    def sample(
        self, n: int, rng: np.random.Generator
    ) -> tuple[list[NDArray[np.float64]], NDArray[np.int64], NDArray[np.float64]]:
        """Draw texts, their labels, and the probabilities of the classes."""
        lengths = rng.integers(4, 13, n)
        z = rng.normal(size=(n, 12, D))
        for t in range(1, 12):
            z[:, t] += z[:, t - 1] @ self.step
        z += 0.5 * rng.normal(size=(n, 1, D)) + 0.3
        used = np.arange(12)[None, :, None] < lengths[:, None, None]
        means = (z * used).sum(1) / lengths[:, None]
        logits = (means - 0.3) @ self.weights
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        labels = (p.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, N_CLASSES - 1)
        x = z @ self.mix
        return [x[i, : lengths[i]] for i in range(n)], labels.astype(np.int64), p


def one_problem(population: Population, truth: dict[str, float], n: int, seed: int) -> dict[str, list[float]]:
    """Estimate and interval of every score for one sample, and whether the interval contains the truth."""
    rng = np.random.default_rng(seed)
    texts, labels, p = population.sample(n, rng)
    while np.bincount(labels, minlength=N_CLASSES).min() < 2:  # every group that is left out leaves each class
        texts, labels, p = population.sample(n, rng)
    targets = np.eye(N_CLASSES)[labels]
    n_groups = min(N_GROUPS, n)
    order = np.argsort(labels, kind="stable")  # groups with similar shares of the classes
    groups = [order[g::n_groups] for g in range(n_groups)]
    parts = [Moments.from_texts([texts[i] for i in group], targets[group]) for group in groups]
    found: dict[str, list[float]] = {}
    for center in (False, True):
        kind = "centered" if center else "uncentered"
        rows = [
            subspaces(reduce(Moments.merge, chosen).layer(0), center=center).row(K_V)
            for chosen in (parts, *(parts[:g] + parts[g + 1 :] for g in range(n_groups)))
        ]
        for name in SCORES:
            estimate, *replicates = (float(getattr(row, name)) for row in rows)
            interval = jackknife_interval(estimate, replicates, low=0.0, high=1.0)
            true = truth[f"{name} {kind}"]
            covered = float(interval.low <= true <= interval.high)
            found[f"{name} {kind}"] = [covered, interval.high - interval.low, estimate - true]
    moments = LayerMoments.from_texts(texts, targets)
    solved = subspaces(moments, center=True)
    try:
        test = excess_loss_test(moments, solved, K_V)
    except ValueError:
        return found
    means = np.stack([text.mean(0) for text in texts])
    x = np.column_stack([np.ones(n), means])
    kept = np.column_stack([np.ones(n), means @ solved.V[:, :K_V]])
    true = least_squares_loss(kept, p, np.eye(K_V + 1), n) - least_squares_loss(x, p, np.eye(D + 1), n)
    found["excess loss"] = [float(test.low <= true <= test.high), test.high - test.low, test.debiased - true]
    return found


def true_scores(population: Population, seed: int) -> dict[str, float]:
    """Scores of a large sample."""
    texts, labels, _ = population.sample(40_000, np.random.default_rng(seed))
    moments = LayerMoments.from_texts(texts, np.eye(N_CLASSES)[labels])
    scores: dict[str, float] = {}
    for center in (False, True):
        row = subspaces(moments, center=center).row(K_V)
        scores |= {f"{name} {'centered' if center else 'uncentered'}": float(getattr(row, name)) for name in SCORES}
    return scores


def main(
    n_problems: Annotated[int, typer.Option(help="Problems for each ratio.")] = 1000,
    n_populations: Annotated[int, typer.Option(help="Populations that they come from.")] = 20,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
) -> None:
    """Simulate coverage for the ratios that the file does not contain, and record it."""
    warnings.simplefilter("ignore", NumericalWarning)
    populations = [Population.draw(seed) for seed in range(n_populations)]
    truths = [true_scores(population, 1000 + seed) for seed, population in enumerate(populations)]
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.is_file() else []
    for ratio in RATIOS:
        if any(row["ratio"] == ratio and row["n"] >= n_problems for row in rows):
            continue
        n = round(ratio * D)
        results: dict[str, list[list[float]]] = {}
        for i in range(n_problems):
            j = i % n_populations
            for name, values in one_problem(populations[j], truths[j], n, 10**6 + i).items():
                results.setdefault(name, []).append(values)
        for name, all_values in results.items():
            covered, width, error = np.array(all_values).T
            rows.append(
                {
                    "ratio": n / D,
                    "quantity": name,
                    "n": len(all_values),
                    "coverage": float(covered.mean()),
                    "width": float(np.median(width)),
                    "bias": float(error.mean()),
                }
            )
            typer.echo(str(rows[-1]), err=True)
        write_json(
            out,
            {
                "rows": rows,
                "level": 0.95,
                "provenance": provenance(d=D, n_classes=N_CLASSES, k_v=K_V, n_groups=N_GROUPS),
            },
        )


if __name__ == "__main__":
    typer.run(main)
