"""Recorded finetuning runs that predictions of the gain are calibrated on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from ntps_utils._utils.files import data_file
from ntps_utils.evidence.advice import Source, Step
from ntps_utils.evidence.claims import analyzed_runs, finished_datasets
from ntps_utils.evidence.classifiers import best_columns, recorded_classifiers
from ntps_utils.evidence.cost import finetuning_cost
from ntps_utils.evidence.declared import CLUSTERS, MAX_LENGTH, lora_settings
from ntps_utils.evidence.experiment import PROFILES
from ntps_utils.evidence.predictors import PREDICTORS
from ntps_utils.evidence.runs import RecordedRun, chosen_rates, recorded_runs
from ntps_utils.evidence.tables import cell_table, load_recorded
from ntps_utils.evidence.trials import TRIALS, trial_column, trial_cost, trial_name, trial_values
from ntps_utils.models.finetuning import CurvePoint, FinetuneConfig

LABELS = {name: predictor.label for name, predictor in PREDICTORS.items()} | {
    f"trial_{kind}_{100 * share:g}": f"{label} in a {trial_name(share)}"
    for share in TRIALS
    for kind, label in (
        ("loss", "largest fall of the loss"),
        ("accuracy", "largest rise of the accuracy"),
        ("end", "fall of the loss at the end"),
    )
}
"""Names of the predictors for tables and figures."""

SHIPPED = ("lab", "real", "declared")
"""Calibrations that ship with the library: the lab; the declared experiment on all datasets; and on the first ones,
from which its verdicts are computed."""

MIN_DATASETS = 5
"""Datasets that a calibration needs: one is left out in turn, and intervals come from the others."""

_RENAMED = {f"transfer_{name}": name for name in ("headroom", "h_score", "logme", "knn", "linearized")} | {
    "ntps_pca_s": "pca",
    "n_train": "n_texts",
}

_NEEDED = ("model", "dataset", "texts", "gain", "headroom", "n_texts", "n_features", "n_parameters")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Recorded finetuning runs.

    Attributes
    ----------
    name : str
        Names of the tables, separated by commas.
    cells : DataFrame
        One row for each run: ``model``, ``dataset``, ``group`` (datasets that are left out together), ``gain``,
        ``lead`` and ``advantage`` (see :class:`~ntps_utils.evidence.advice.Advisor`), sizes, the predictors that were
        recorded, under their names in :data:`~ntps_utils.evidence.predictors.PREDICTORS`, and those of trial runs
        (:func:`~ntps_utils.evidence.trials.trial_values`). In tables of ``ntps benchmark --record`` that
        hold no classifiers without finetuning (:class:`~ntps_utils.evidence.experiment.ExperimentConfig`), the better
        one of the probes of the middle and the last layer stands for the best of them; without these, the lead is 0
        and the advantage is the gain.
    lora : FinetuneConfig
        Settings of the runs.
    max_length : int or None
        Tokens after which their texts were cut.
    """

    name: str
    cells: pd.DataFrame
    lora: FinetuneConfig
    max_length: int | None = None

    def without(self, rows: pd.Series) -> Calibration:
        """Leave out runs.

        Parameters
        ----------
        rows : Series of bool
            Rows of ``cells``.

        Returns
        -------
        Calibration
        """
        return replace(self, cells=self.cells[~rows].reset_index(drop=True))

    def steps(self, n_texts: int | None = None) -> tuple[Step, ...]:
        """Return the steps of a decision, as far as their predictors were recorded.

        Parameters
        ----------
        n_texts : int, optional
            Number of labeled texts, which determines the costs; by default the median of the recorded runs.

        Returns
        -------
        tuple of Step
            From cheap to expensive; trial runs last.

        Examples
        --------
        >>> [step.name for step in load_calibration("lab").steps()][0]
        'frozen model'
        """
        n_texts = int(self.cells["n_texts"].median()) if n_texts is None else n_texts
        found = []
        whole = finetuning_cost(self.lora, n_texts, 0)
        for name, source, candidates in STEPS:
            choices = tuple(choice for choice in candidates if set(choice) <= set(self.cells))
            if choices:
                passes = max(PREDICTORS[column].passes(n_texts) for choice in choices for column in choice)
                cost = (passes if source == "features" else passes - 1.0) * n_texts / whole
                found.append(Step(name, choices, cost, source))
        for share in TRIALS:
            loss, accuracy = (trial_column(kind, share) for kind in ("loss", "accuracy"))
            if {loss, accuracy} <= set(self.cells):
                choices = ((loss,), (accuracy,), (loss, accuracy), (loss, accuracy, "headroom"))
                cost = trial_cost(self.lora, share, n_texts) / whole
                found.append(Step(trial_name(share), choices, cost, "trial", share))
        return tuple(found)


STEPS: tuple[tuple[str, Source, tuple[tuple[str, ...], ...]], ...] = (
    (
        "frozen model",
        "features",
        (
            ("headroom",),
            ("headroom", "words"),
            ("headroom", "layers"),
            ("headroom", "explained"),
            ("headroom", "knn"),
            ("headroom", "ntps"),
        ),
    ),
    ("every token", "tokens", (("headroom", "attention"), ("headroom", "attention_loss"))),
    (
        "gradients",
        "gradients",
        (("headroom", "linearized_loss"), ("headroom", "alignment"), ("headroom", "linearized")),
    ),
)
"""Steps without training: name, what they need, and sets of predictors, of which the calibration chooses one."""


def load_calibration(name: str | Path) -> Calibration:
    """Load recorded finetuning runs to calibrate predictions on.

    Parameters
    ----------
    name : str or Path
        "lab", "real" or "declared", which ship with the library, a CSV file written by ``ntps benchmark --record``,
        or several of these, separated by commas. "real" holds the declared experiment on all datasets, "declared" only
        those that its verdicts are computed from.

    Returns
    -------
    Calibration
        With several tables, the columns that all have, and the settings of the last.

    Raises
    ------
    ValueError
        If there is no such table, it lacks columns, or two tables have a run in common.

    Examples
    --------
    >>> load_calibration("lab").cells["gain"].between(-1, 1).all()
    np.True_
    """
    names = [str(name)] if Path(name).is_file() else str(name).split(",")
    parts = [_load(part.strip()) for part in names]
    common = reduce(lambda one, two: [c for c in one if c in two], (list(part.cells) for part in parts))
    cells = pd.concat([part.cells[common] for part in parts], ignore_index=True)
    same = ["model", "dataset", "gain", "headroom"]  # many gains are exactly zero
    if len(parts) > 1 and (n_twice := int(cells.duplicated(same).sum())):
        raise ValueError(
            f"The calibrations {', '.join(names)} have {n_twice} finetuning runs in common, which would count twice; "
            "name only one of them ('real' contains 'declared')."
        )
    return Calibration(",".join(names), cells, parts[-1].lora, parts[-1].max_length)


def _load(name: str) -> Calibration:
    if name in ("real", "declared"):
        runs = recorded_runs() if name == "real" else analyzed_runs(recorded_runs())
        return Calibration(name, _declared_cells(runs), lora_settings(max(chosen_rates().values())), MAX_LENGTH)
    if name == "lab":
        cells = _with_predictors(_with_alternatives(load_recorded(name)), "lab_predictors")
        return Calibration(name, _normalized(cells, name), *_settings_of(data_file("recorded/lab_cells.json")))
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"Unknown calibration {name!r}; give {', '.join(SHIPPED)}, or a CSV file written by "
            "`ntps benchmark --record`."
        )
    return Calibration(name, _normalized(pd.read_csv(path), name), *_settings_of(path.with_suffix(".json")))


def _declared_cells(runs: Sequence[RecordedRun]) -> pd.DataFrame:
    """LoRA runs on the datasets that both models have finished, with the predictors that were computed apart."""
    datasets = set(finished_datasets(runs))
    used = (one for one in runs if one.run.kind == "lora" and one.run.seed == 0 and one.run.dataset in datasets)
    cells = _with_predictors(_with_alternatives(cell_table(one.result for one in used)), "predictors")
    cells = cells.assign(group=[CLUSTERS.get(dataset, dataset) for dataset in cells["dataset"]])
    return _normalized(cells, "real")


def _with_predictors(cells: pd.DataFrame, name: str) -> pd.DataFrame:
    """A table of runs with the predictors that were computed apart, as far as they are known for every run."""
    lines = data_file(f"recorded/{name}.jsonl").read_text("utf-8").splitlines()
    rows = [{"model": row["model"], "dataset": row["dataset"], **row["predictors"]} for row in map(json.loads, lines)]
    if not rows:
        return cells
    more = pd.DataFrame(rows)
    keep = [c for c in more if c not in cells and c not in _RENAMED.values() and c not in ("model", "dataset")]
    return cells.merge(more[["model", "dataset", *keep]], on=["model", "dataset"], how="left").dropna(axis=1)


def _with_alternatives(cells: pd.DataFrame) -> pd.DataFrame:
    """A table of runs with the best classifier without finetuning: its name, lead, and the advantage of LoRA."""
    known = recorded_classifiers()
    cases = zip(cells["model"], cells["dataset"], cells["lora"], strict=True)
    rows = [best_columns(known[model, dataset], lora) for model, dataset, lora in cases]
    return cells.join(pd.DataFrame(rows, index=cells.index))


def _normalized(cells: pd.DataFrame, name: str) -> pd.DataFrame:
    """A recorded table under the names of the predictors, with the predictors of trial runs."""
    cells = cells.rename(columns=_RENAMED)
    if missing := [column for column in _NEEDED if column not in cells]:
        raise ValueError(
            f"The calibration {name} lacks the columns {', '.join(missing)}; record it with LoRA, by "
            "`ntps benchmark --record`."
        )
    more = pd.DataFrame([_recorded_trials(row) for row in cells.to_dict("records")], index=cells.index).dropna(axis=1)
    if "ntps_random" in cells and "net_ntps" not in cells:
        more["net_ntps"] = cells["ntps"] - cells["ntps_random"]
    if "group" not in cells:
        more["group"] = cells["dataset"]
    if "lead" not in cells:
        more = more.join(_against_probes(cells))
    return pd.concat([cells, more], axis=1).copy()  # in one block


def _against_probes(cells: pd.DataFrame) -> pd.DataFrame:
    """Lead and advantage of a table without classifiers, by the accuracy of two probes on test texts."""
    if not {"lora", "probe_last", "probe_middle"} <= set(cells):
        return pd.DataFrame({"lead": 0.0, "advantage": cells["gain"]})
    best = cells[["probe_last", "probe_middle"]].max(axis=1)
    return pd.DataFrame({"lead": best - cells["probe_last"], "advantage": cells["lora"] - best})


def _recorded_trials(row: Mapping[Any, Any]) -> dict[str, float]:
    """Predictors of trial runs from the columns of a recorded row."""
    steps = sorted(int(str(column).rpartition("_")[2]) for column in row if str(column).startswith("curve_accuracy_"))
    curve = [
        CurvePoint(step, row[f"curve_accuracy_{step}"], row[f"curve_cross_entropy_{step}"], None, None, 0.0)
        for step in steps
    ]
    return trial_values(curve, steps[-1]) if steps else {}


def _settings_of(file: Path) -> tuple[FinetuneConfig, int | None]:
    """LoRA and length of texts of recorded runs; those of ``ntps benchmark`` if their record is missing or older."""
    settings = json.loads(file.read_text("utf-8"))["settings"] if file.is_file() else {}
    values = settings.get("lora") or {}
    if values and set(values) <= {field.name for field in fields(FinetuneConfig)}:
        tuples: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return FinetuneConfig(**tuples), settings.get("max_length")
    default = PROFILES["cpu"].lora
    assert default is not None
    return default, settings.get("max_length")
