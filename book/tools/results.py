"""Compute what the declared experiment shows, once its runs have ended, and record it.

    python -m book.tools.results

The verdicts are computed from the same runs, whenever the book is built. The same estimates from all datasets, which
decide nothing, are recorded by

    python -m book.tools.results --ended 2026-12-01T00:00:00+00:00 --out ntps_utils/data/recorded/results_all.json
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.claims import N_RESAMPLES, analyzed_runs, finetuned_table, finished_datasets, judge, rises
from ntps_utils.evidence.declared import RUNS_ENDED
from ntps_utils.evidence.results import associations, gain_agreement, gain_reliability, landscape, levels, selections
from ntps_utils.evidence.runs import RecordedRun, recorded_runs

OUT = Path("ntps_utils/data/recorded/results.json")


def compute(
    runs: tuple[RecordedRun, ...], ended: str | None = RUNS_ENDED, n_resamples: int = N_RESAMPLES
) -> dict[str, Any]:
    """Compute all estimates.

    Parameters
    ----------
    runs : tuple of RecordedRun
    ended : str, optional
        When the computing time was used up; by default the time in the plan.
    n_resamples : int
        Bootstrap resamples, and permutations.

    Returns
    -------
    dict
        Claims, associations, selections, landscapes, rises and the reliability of the gain.
    """
    claims = judge(runs, ended, n_resamples=n_resamples)
    runs = analyzed_runs(runs, ended)
    table = finetuned_table(runs)
    swept = {}
    for target in ("accuracy", "gain"):
        settings, test = landscape(runs, target, n_permutations=n_resamples)
        best = int(abs(test.rho).argmax())
        swept[target] = {
            "n_settings": len(settings),
            "best": settings[best],
            "rho": float(test.rho[best]),
            "edge": float(pd.Series(test.null).quantile(0.95)),
            "p": test.p_best,
        }
    return {
        "ended": ended,
        "datasets": finished_datasets(runs),
        "claims": [
            {
                "name": claim.name,
                "verdict": claim.verdict,
                "remark": claim.remark,
                "p": claim.p,
                "p_adjusted": claim.p_adjusted,
                "estimates": {name: _plain(asdict(estimate)) for name, estimate in claim.estimates.items()},
            }
            for claim in claims
        ],
        "associations": _records(associations(table, n_resamples=n_resamples)),
        "levels": _records(levels(table, n_resamples=n_resamples)),
        "selections": _records(selections(runs, n_resamples=n_resamples)),
        "landscape": swept,
        "rises": _records(rises(runs)),
        "reliability": _records(gain_reliability(runs).reset_index()),
        "agreement": gain_agreement(table),
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_plain(row) for row in table.to_dict("records")]


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A row for JSON, which has no NaN and no infinity."""
    return {
        str(name): None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def main(
    ended: Annotated[str | None, typer.Option(help="Take runs recorded by this time (ISO 8601).")] = RUNS_ENDED,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
) -> None:
    """Compute and record all estimates."""
    write_json(out, {**compute(recorded_runs(), ended), "provenance": provenance(n_resamples=N_RESAMPLES)})


if __name__ == "__main__":
    typer.run(main)
