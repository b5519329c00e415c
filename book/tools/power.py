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

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.declared import CLUSTERS, FINETUNED_MODELS, N_FIRST, run_order
from ntps_utils.evidence.statistics import pooled_rank_correlation
from ntps_utils.theory.linear import Array

OUT = Path("ntps_utils/data/recorded/power.json")
RHOS = (0.0, 0.3, 0.5, 0.7)
SHARED = {"accuracy": 0.9, "gain": 0.3}
"""Correlation between models of the unexplained part of the target."""
SHARED_SCORES = 0.8
PRINTED = {"accuracy": 0.58, "gain": 0.70}
"""Sizes of the mean correlations in the paper's figures, without sign."""


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
        pooled_rank_correlation(*draw(rho, SHARED[target], n, rng), clusters=clusters, n_resamples=500, seed=i)
        for i in range(n_simulations)
    ]
    return {
        "target": target,
        "n_datasets": n,
        "rho": rho,
        "mean_rho": float(np.mean([r.rho for r in results])),
        "confirms": float(np.mean([r.low > 0 for r in results])),
        "refutes": float(np.mean([r.high < PRINTED[target] for r in results])),
    }


def main(
    n_simulations: Annotated[int, typer.Option(min=10, help="Simulated experiments for each row.")] = 500,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
) -> None:
    """Simulate all designs."""
    rows = [
        simulate(target, n, rho, n_simulations)
        for target in SHARED
        for n in (N_FIRST, len(run_order()))
        for rho in RHOS
    ]
    facts = provenance(n_simulations=n_simulations, shared=SHARED, shared_scores=SHARED_SCORES, printed=PRINTED)
    write_json(out, {"rows": rows, "provenance": facts})


if __name__ == "__main__":
    typer.run(main)
