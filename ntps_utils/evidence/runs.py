"""Make and load the runs of the declared experiment (:mod:`ntps_utils.evidence.declared`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ntps_utils._utils.files import data_file, write_text
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.benchmark import made_by
from ntps_utils.evidence.declared import FINETUNED_MODELS, PILOT_RATES, PILOTS, UNTRAINED, Run, run_settings
from ntps_utils.evidence.experiment import ExperimentResult, run_experiment, run_with_warnings
from ntps_utils.evidence.records import load_record
from ntps_utils.models.finetuning import randomly_initialized
from ntps_utils.models.loading import CausalModel, load_model
from ntps_utils.theory.score import SCORES

TOLERANCES = {"ntps": 1e-3, "accuracy": 0.01, "finetuned accuracy": 0.03, "cross-entropy": 0.05}
"""Largest differences that count as equal when a run is repeated on another machine.

Forward passes in float32 differ in the last digits; finetuning amplifies these differences.
"""


def chosen_rates() -> dict[str, float]:
    """Choose the learning rate of each finetuned model from the recorded pilots.

    Returns
    -------
    dict of str to float
        Of the two rates, the one whose lowest validation cross-entropy is lower, as a mean over the
        pilot datasets; the lower rate in a tie. A model whose pilots are not complete is left out.

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
            chosen[model] = min(PILOT_RATES, key=lambda rate: (sum(found[dataset, rate] for dataset in PILOTS), rate))
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


def load_declared_model(name: str, *, path: str | None = None, device: str = "auto") -> CausalModel:
    """Load a model of the declared experiment in float32, under its name there.

    Parameters
    ----------
    name : str
        Name in the plan.
    path : str, optional
        Where the weights are, for models that :func:`~ntps_utils.models.loading.load_model` does
        not know by name.
    device : str
        "auto", "cpu" or "cuda".

    Returns
    -------
    CausalModel
    """
    if name == UNTRAINED:
        return randomly_initialized(load_declared_model(name.removesuffix(" (untrained)"), path=path, device=device))
    return replace(load_model(path or name, device=device, dtype="float32"), name=name)


def make_run(run: Run, model: CausalModel, folder: Path, rates: Mapping[str, float]) -> RecordedRun:
    """Make a run of the declared experiment.

    Parameters
    ----------
    run : Run
    model : CausalModel
        See :func:`load_declared_model`.
    folder : Path
        Folder with a folder for each dataset.
    rates : mapping of str to float
        See :func:`chosen_rates`.

    Returns
    -------
    RecordedRun
    """
    settings = run_settings(run, rates)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    result = run_with_warnings(model, *settings.texts(str(folder / run.dataset)), settings)
    facts: dict[str, Any] = {"settings": asdict(settings), "device": str(model.model.device), "started": started}
    return RecordedRun(
        run,
        replace(result, dataset=run.dataset),
        provenance(**facts, code=made_by()["code"]),
    )


def repeat_run(
    model: str, dataset: str, folder: Path, *, lora: bool = True, path: str | None = None, device: str = "auto"
) -> pd.DataFrame:
    """Make a recorded run again, and compare it with the record.

    Parameters
    ----------
    model, dataset : str
        Names in the plan.
    folder : Path
        Folder with a folder for each dataset.
    lora : bool
        Finetune too, if the recorded run does.
    path, device
        See :func:`load_declared_model`.

    Returns
    -------
    DataFrame
        See :func:`differences`.

    Raises
    ------
    ValueError
        If no such run is recorded, or weights or texts are others.
    """
    runs = {one.run: one for one in recorded_runs()}
    recorded = runs.get(Run("lora", model, dataset)) or runs.get(Run("scores", model, dataset))
    if recorded is None:
        known = ", ".join(sorted({f"{run.model} on {run.dataset}" for run in runs})) or "none"
        raise ValueError(f"No run of {model} on {dataset} is recorded. Recorded: {known}.")
    settings = run_settings(recorded.run, chosen_rates())
    if not lora:
        settings = replace(settings, lora=None)
    loaded = load_declared_model(model, path=path, device=device)
    return differences(recorded.result, run_experiment(loaded, *settings.texts(str(folder / dataset)), settings))


def differences(one: ExperimentResult, two: ExperimentResult) -> pd.DataFrame:
    """Compare two results of a run.

    Parameters
    ----------
    one, two : ExperimentResult
        If only one of them has finetuning, that is not compared.

    Returns
    -------
    DataFrame
        ``value``, ``one``, ``two``, ``tolerance`` (of ``TOLERANCES``) and ``equal``.

    Raises
    ------
    ValueError
        If weights or texts differ, so that the results cannot be equal.
    """
    for what, a, b in (("weights", one.weights, two.weights), ("training texts", one.texts, two.texts)):
        if a != b:
            raise ValueError(f"The {what} differ (fingerprints {a} and {b}), so that results cannot be compared.")
    rows: list[tuple[str, float, float, str]] = []
    for before, after in zip(one.scores, two.scores, strict=True):
        name = f"{before.subspace}, layer {before.layer}, {before.rule}, {before.split}"
        name += f", {'centered' if before.centered else 'uncentered'}"
        rows += [(f"{score} {name}", getattr(before, score), getattr(after, score), "ntps") for score in SCORES]
    for place, probe in one.probes.items():
        rows.append((f"probe {place}", probe.accuracy, two.probes[place].accuracy, "accuracy"))
    if one.finetuning is not None and two.finetuning is not None:
        for name in ("frozen_accuracy", "lora_accuracy"):
            rows.append((name, getattr(one.finetuning, name), getattr(two.finetuning, name), "finetuned accuracy"))
        for p, q in zip(one.finetuning.lora_curve, two.finetuning.lora_curve, strict=True):
            rows.append((f"validation loss, step {p.step}", p.cross_entropy, q.cross_entropy, "cross-entropy"))  # type: ignore[arg-type]
    table = pd.DataFrame(rows, columns=["value", "one", "two", "kind"])
    table["tolerance"] = table.pop("kind").map(TOLERANCES)
    table["equal"] = (table["one"] - table["two"]).abs() <= table["tolerance"]
    return table
