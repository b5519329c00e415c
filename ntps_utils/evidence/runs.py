"""The recorded runs of the declared experiment (:mod:`ntps_utils.evidence.declared`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ntps_utils._utils.files import data_file, write_text
from ntps_utils.evidence.declared import FINETUNED_MODELS, PILOT_RATES, PILOTS, Run
from ntps_utils.evidence.experiment import ExperimentResult
from ntps_utils.evidence.records import load_record


def chosen_rates() -> dict[str, float]:
    """Choose the learning rate of each finetuned model from the recorded pilots.

    Returns
    -------
    dict of str to float
        Of the two rates, the one whose lowest validation cross-entropy is lower, as a mean over the
        pilot datasets. A model whose pilots are not complete is left out.

    Examples
    --------
    >>> set(chosen_rates().values()) <= set(PILOT_RATES)
    True
    """
    runs = load_record("pilots")["runs"]
    chosen = {}
    for model in FINETUNED_MODELS:
        found = {(run["dataset"], run["rate"]): run["best_cross_entropy"] for run in runs if run["model"] == model}
        if len(found) == len(PILOTS) * len(PILOT_RATES):
            chosen[model] = min(PILOT_RATES, key=lambda rate: sum(found[dataset, rate] for dataset in PILOTS))
    return chosen


@dataclass(frozen=True)
class RecordedRun:
    """A run, its result, and what produced it.

    Attributes
    ----------
    run : Run
    result : ExperimentResult
    provenance : mapping
        Settings, versions, machine, hash of the code, dates of start and end.
    """

    run: Run
    result: ExperimentResult
    provenance: Mapping[str, Any]


def recorded_runs(file: Path | None = None) -> tuple[RecordedRun, ...]:
    """Load the runs that are recorded.

    Parameters
    ----------
    file : Path, optional
        File of :func:`write_runs`; by default the one that ships with the library.

    Returns
    -------
    tuple of RecordedRun
        In the order in which they ran.

    Examples
    --------
    >>> len({recorded.run for recorded in recorded_runs()}) == len(recorded_runs())
    True
    """
    path = data_file("recorded/experiment.jsonl") if file is None else file
    return tuple(
        RecordedRun(Run(**record["run"]), ExperimentResult.from_dict(record["result"]), record["provenance"])
        for record in map(json.loads, path.read_text("utf-8").splitlines())
    )


def write_runs(runs: tuple[RecordedRun, ...], file: Path) -> None:
    """Write runs as JSON lines, one line for each; the file is complete or unchanged.

    Parameters
    ----------
    runs : tuple of RecordedRun
    file : Path
    """
    records = (
        {"run": asdict(one.run), "provenance": dict(one.provenance), "result": one.result.to_dict()} for one in runs
    )
    write_text(file, "".join(f"{json.dumps(record, allow_nan=False)}\n" for record in records))
