"""Simulate what the declared experiment can see, and record it.

    python -m book.tools.power

Two models are scored on the first n datasets of the declared order. Scores of the two models
correlate by 0.8; the part of the target that the scores do not explain correlates between the models
by 0.9 (accuracies of probes) or 0.3 (gains of LoRA). Scores and targets are normally distributed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy import stats

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.claims import PRINTED_ACCURACY, PRINTED_GAIN, SIGNIFICANT, SMALL_RISE, regret
from ntps_utils.evidence.declared import CLUSTERS, FINETUNED_MODELS, N_FIRST, N_SHUFFLED, run_order
from ntps_utils.evidence.statistics import pooled_rank_correlation, pooled_rank_difference
from ntps_utils.theory.linear import Array

OUT = Path("ntps_utils/data/recorded/power.json")
RHOS = (0.0, 0.3, 0.5, 0.7)
SHARED = {"accuracy": 0.9, "gain": 0.3}
"""Correlation between models of the unexplained part of the target."""
SHARED_SCORES = 0.8
PRINTED = {"accuracy": PRINTED_ACCURACY, "gain": -PRINTED_GAIN}
CONTROLS = ((0.34, 0.6), (0.52, 0.9))
"""Correlation of principal components with the target, and with NTPS, where NTPS has the printed correlation."""
EFFECTS = (1.0, 1.5, 2.0)
"""Mean rise of NTPS, in standard deviations of its differences."""
RISE_SDS = (0.01, 0.02, 0.04)
"""Standard deviations of the differences where NTPS does not rise."""


def draw(rho: float, shared: float, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw scores and targets of every model on n datasets, (models, n) each."""

    def normal(common: float) -> Array:
        own = rng.normal(size=(len(FINETUNED_MODELS), n))
        return np.sqrt(common) * rng.normal(size=n) + np.sqrt(1 - common) * own

    x = normal(SHARED_SCORES)
    return x, rho * x + np.sqrt(1 - rho**2) * normal(shared)


def simulate(target: str, n: int, rho: float, n_simulations: int, seed: int = 0) -> dict[str, Any]:
    """Simulate one design: how often it confirms a correlation, and refutes one of the printed size."""
    rng = np.random.default_rng([seed, n, round(100 * rho)])
    clusters = [CLUSTERS.get(dataset, dataset) for dataset in run_order()[:n]]
    results = [
        pooled_rank_correlation(
            *draw(rho, SHARED[target], n, rng), clusters=clusters, alternative="greater", n_resamples=500, seed=i
        )
        for i in range(n_simulations)
    ]
    above = np.array([found.low > 0 for found in results])
    refuted = np.array([found.high < PRINTED[target] for found in results])
    p = np.array([found.p for found in results])
    return {
        "target": target,
        "n_datasets": n,
        "rho": rho,
        "mean_rho": float(np.mean([found.rho for found in results])),
        "above_zero": float(above.mean()),
        "significant": float((above & (p < SIGNIFICANT / 4)).mean()),  # Holm's first step
        "refuted_only": float((refuted & ~above).mean()),
        "neither": float((~refuted & ~above).mean()),
    }


def simulate_control(n: int, rho_control: float, overlap: float, n_simulations: int, seed: int = 0) -> dict[str, Any]:
    """Simulate how often NTPS is told from a control that correlates less with accuracy."""
    rng = np.random.default_rng([seed, n, 1000 + round(100 * rho_control)])
    clusters = [CLUSTERS.get(dataset, dataset) for dataset in run_order()[:n]]
    n_models = len(FINETUNED_MODELS)
    covariance = np.array(
        [[1, overlap, PRINTED_ACCURACY], [overlap, 1, rho_control], [PRINTED_ACCURACY, rho_control, 1]]
    )
    root = np.linalg.cholesky(covariance)
    found = []
    for i in range(n_simulations):
        common, own = rng.normal(size=(3, n)), rng.normal(size=(n_models, 3, n))
        values = np.einsum("ij,mjn->imn", root, np.sqrt(SHARED_SCORES) * common + np.sqrt(1 - SHARED_SCORES) * own)
        found.append(pooled_rank_difference(*values, clusters=clusters, n_resamples=500, seed=i).low > 0)
    return {"n_datasets": n, "control": rho_control, "overlap": overlap, "told_apart": float(np.mean(found))}


def simulate_rise(mean: float, sd: float, n_simulations: int, seed: int = 0) -> dict[str, Any]:
    """Simulate the differences of rises in both models, with a correlation of 0.8 between them."""
    rng = np.random.default_rng([seed, round(1e6 * mean), round(1e6 * sd)])
    common, own = rng.normal(size=(n_simulations, 1, N_SHUFFLED)), rng.normal(size=(n_simulations, 2, N_SHUFFLED))
    values = mean + sd * (np.sqrt(0.8) * common + np.sqrt(0.2) * own)
    half = stats.t.ppf(0.975, N_SHUFFLED - 1) * values.std(-1, ddof=1) / np.sqrt(N_SHUFFLED)
    low, high = values.mean(-1) - half, values.mean(-1) + half
    return {
        "mean": mean,
        "sd": sd,
        "both_above_zero": float((low > 0).all(1).mean()),
        "refuted": float((high < SMALL_RISE).all(1).mean()),
    }


def simulate_skip(n: int, rho: float, n_simulations: int, seed: int = 0) -> dict[str, Any]:
    """Simulate how often skipping half of the datasets by a score loses less than 97.5% of random halves do."""
    rng = np.random.default_rng([seed, n, 2000 + round(100 * rho)])
    found = []
    for _ in range(n_simulations):
        x, gain = draw(rho, SHARED["gain"], n, rng)
        null = [regret(x[:, rng.permutation(n)], gain) for _ in range(200)]
        found.append(regret(-x, gain) < np.quantile(null, 0.025))  # a high gain goes with a low score
    return {"n_datasets": n, "rho": rho, "below_random": float(np.mean(found))}


def main(
    n_simulations: Annotated[int, typer.Option(min=10, help="Simulated experiments for each row.")] = 500,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
) -> None:
    """Simulate all designs."""
    sizes = (N_FIRST, len(run_order()))
    rows = [simulate(target, n, rho, n_simulations) for target in SHARED for n in sizes for rho in RHOS]
    controls = [simulate_control(n, *control, n_simulations) for n in sizes for control in CONTROLS]
    rises = [simulate_rise(effect, 1.0, 20 * n_simulations) for effect in EFFECTS]
    rises += [simulate_rise(0.0, sd, 20 * n_simulations) for sd in RISE_SDS]
    skips = [simulate_skip(n, rho, n_simulations) for n in sizes for rho in RHOS]
    facts = provenance(n_simulations=n_simulations, shared=SHARED, shared_scores=SHARED_SCORES, printed=PRINTED)
    write_json(out, {"rows": rows, "controls": controls, "rises": rises, "skips": skips, "provenance": facts})


if __name__ == "__main__":
    typer.run(main)
