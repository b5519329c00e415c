"""Predict the gain of LoRA before finetuning, from scores of the frozen model and recorded finetuning runs."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from ntps_utils._utils.files import asset_text
from ntps_utils._utils.provenance import provenance
from ntps_utils._utils.validation import check_integer, check_number
from ntps_utils.evidence.cost import duration as duration
from ntps_utils.evidence.cost import finetuning_cost
from ntps_utils.evidence.experiment import ExperimentConfig, middle_and_last, score_extraction
from ntps_utils.evidence.statistics import GainRegressor, HeldOut, HeldOutPerformance, predict_held_out
from ntps_utils.evidence.tables import load_recorded
from ntps_utils.models.datasets import TextDataset, as_dataset, first_texts
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.finetuning import FinetuneWarning, ProjectionError
from ntps_utils.models.loading import CausalModel, as_model
from ntps_utils.models.probes import warn_of_shared_texts
from ntps_utils.models.transferability import TRANSFERABILITY_SCORES, FrozenFeatures
from ntps_utils.theory.score import SCORES

PREDICTORS = (*SCORES, "explained", *(f"transfer_{name}" for name in TRANSFERABILITY_SCORES))
"""Columns that the gain is predicted from; all of them are computed before finetuning."""

LABELS = {
    "ntps": "NTPS (Euclidean)",
    "ntps_metric": "NTPS, metric-matched",
    "ntps_task": "NTPS, task-weighted",
    "explained": "tr B / tr Y, centered",
    "transfer_headroom": "headroom of the probe",
    "transfer_h_score": "H-score, shrunk",
    "transfer_logme": "LogME",
    "transfer_knn": "k-NN accuracy",
    "transfer_linearized": "linearized gain",
}
"""Names of the predictors for tables and figures."""

LEVEL = 0.8
"""Nominal coverage of the intervals of the gain."""

MIN_DATASETS = 5
"""Datasets that a calibration needs: one is left out in turn, and intervals come from the others."""

CALIBRATIONS = ("lab", "real")
"""Recorded tables that can serve as calibration."""


@dataclass(frozen=True)
class Calibration:
    """Recorded finetuning runs that a prediction is based on, and how well they predict each other.

    Attributes
    ----------
    name : str
        Name or file of the table.
    n_cells, n_datasets : int
        Number of runs and of datasets that were used.
    left_out : tuple of str
        Datasets that were excluded: the dataset to predict, and those in ``leave_out``.
    mean_gain : float
        Mean gain of these runs.
    performance : HeldOutPerformance
        Accuracy of predictions for datasets that were left out one at a time.
    """

    name: str
    n_cells: int
    n_datasets: int
    left_out: tuple[str, ...]
    mean_gain: float
    performance: HeldOutPerformance

    @property
    def predicts(self) -> bool:
        """Whether the predictors are significantly better than the mean gain."""
        return self.performance.skill_low > 0.0


@dataclass(frozen=True)
class PrescreenReport:
    """The predicted gain of LoRA, what it is based on, and a verdict.

    Accuracies and gains are fractions, durations are in seconds.

    Attributes
    ----------
    model, dataset : str
        Names.
    n_texts, n_classes, n_features : int
        Number of texts and classes, and of features d.
    majority : float
        Share of the most frequent class.
    probe_accuracy : float
        Cross-validated accuracy of a logistic probe on the frozen features.
    predictors : dict of str to float
        Values of the predictors by column name, see ``LABELS``.
    percentiles : dict of str to float
        Share of the calibration's cells with a lower value, 0 to 1.
    gain, gain_low, gain_high : float
        Predicted gain of LoRA over the probe, and its interval; none of them exceeds the
        headroom of the probe.
    level : float
        Nominal coverage of the interval.
    distance : float
        Share of the calibration's cells that are nearer to its mean than this case; near 1,
        the case is unlike the calibration.
    calibration : Calibration
        Recorded finetuning runs that the prediction is based on.
    seconds : float
        Duration of the prescreening.
    lora_seconds : float
        Estimated duration of the LoRA run on the same machine, without early stopping.
    threshold : float
        Smallest gain that makes LoRA worthwhile.
    verdict : {"yes", "no", "open", "unknown"}
        See ``HEADLINES``.
    reasons : tuple of str
        Sentences that explain the verdict.
    provenance : dict
        Settings, versions and date.
    """

    model: str
    dataset: str
    n_texts: int
    n_classes: int
    n_features: int
    majority: float
    probe_accuracy: float
    predictors: dict[str, float]
    percentiles: dict[str, float]
    gain: float
    gain_low: float
    gain_high: float
    level: float
    distance: float
    calibration: Calibration
    seconds: float
    lora_seconds: float
    threshold: float
    verdict: str
    reasons: tuple[str, ...]
    provenance: Mapping[str, Any]

    def to_json(self) -> str:
        """Convert all fields to JSON.

        Returns
        -------
        str
        """
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    def to_html(self) -> str:
        """Render a page that needs no script and no network; all text in it is escaped.

        Returns
        -------
        str
        """
        template = asset_text("prescreen.html.j2")
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        environment.filters["points"] = lambda value: f"{100 * value:+.1f}"
        environment.filters["duration"] = duration
        return environment.from_string(template).render(p=self, labels=LABELS, headline=HEADLINES[self.verdict])


HEADLINES = {
    "yes": "LoRA is likely to be worthwhile.",
    "no": "LoRA is unlikely to be worthwhile.",
    "open": "The interval contains the threshold.",
    "unknown": "The calibration does not predict the gain.",
}
"""Headline of each verdict."""


def load_calibration(name: str | Path) -> pd.DataFrame:
    """Load recorded finetuning runs to calibrate predictions on.

    Parameters
    ----------
    name : str or Path
        "lab" or "real", which ship with the library, or a CSV file written by
        ``ntps benchmark --record``.

    Returns
    -------
    DataFrame
        One row per cell, see :func:`ntps_utils.evidence.tables.cell_table`.

    Raises
    ------
    ValueError
        If there is no such table, or it lacks columns.

    Examples
    --------
    >>> load_calibration("lab")["gain"].between(-1, 1).all()
    np.True_
    """
    if str(name) in CALIBRATIONS:
        cells = load_recorded(str(name))
    elif Path(name).is_file():
        cells = pd.read_csv(name)
    else:
        raise ValueError(
            f"Unknown calibration {str(name)!r}; give {' or '.join(CALIBRATIONS)}, or a CSV file written by "
            "`ntps benchmark --record`."
        )
    missing = [c for c in ("model", "dataset", "texts", "gain", *PREDICTORS) if c not in cells]
    if missing:
        raise ValueError(
            f"The calibration {name} lacks the columns {', '.join(missing)}; record it with LoRA, by "
            "`ntps benchmark --record`."
        )
    return cells


def calibrate(cells: pd.DataFrame, predictors: Sequence[str] = PREDICTORS, *, seed: int = 0) -> HeldOut:
    """Predict the gains of each dataset of a calibration from the other datasets.

    Parameters
    ----------
    cells : DataFrame
        Table as returned by :func:`load_calibration`.
    predictors : sequence of str
        Columns to predict the gain from.
    seed : int
        Random seed for the interval of the skill.

    Returns
    -------
    HeldOut
        See :func:`ntps_utils.evidence.statistics.predict_held_out`.
    """
    return predict_held_out(
        cells[list(predictors)].to_numpy(float),
        cells["gain"].to_numpy(),
        cells["dataset"].tolist(),
        seed=seed,
        level=LEVEL,
    )


def prescreen(
    model: str | Path | CausalModel | tuple[Any, Any],
    dataset: str | Path | TextDataset | Any,
    *,
    calibration: str | Path = "auto",
    leave_out: Sequence[str] = (),
    threshold: float = 0.01,
    max_texts: int | None = 2000,
    max_length: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    text_column: str = "text",
    label_column: str = "label",
    target_modules: Sequence[str] | None = None,
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> PrescreenReport:
    """Predict the gain of LoRA from scores of the frozen model and recorded finetuning runs.

    Each text is tokenized once.

    Parameters
    ----------
    model : str, Path, CausalModel, or pair of transformers model and tokenizer
        See :func:`ntps_utils.models.loading.as_model`.
    dataset : str, Path, TextDataset, pair (texts, labels), DataFrame, or datasets.Dataset
        See :func:`ntps_utils.models.datasets.as_dataset`; the training split is used.
    device, dtype, text_column, label_column, trust_remote_code
        See these two functions.
    calibration : str or Path
        See :func:`load_calibration`; "auto" means "lab" for models of the lab, otherwise "real".
    leave_out : sequence of str
        Datasets of the calibration to exclude, besides ``dataset``.
    threshold : float
        Smallest gain in accuracy that makes LoRA worthwhile, in [0, 1).
    max_texts : int, optional
        Number of texts to use, the first ones; None uses all.
    max_length, batch_size
        See :func:`ntps_utils.models.extraction.extract`.
    seed : int
        Random seed for folds and random projections.
    target_modules : sequence of str, optional
        Modules that LoRA would adapt, by the last part of their names; by default the query, key
        and value projections. For models whose projections have other names.
    progress : callable, optional
        Called with the name of the step, the number of finished parts and their total.

    Returns
    -------
    PrescreenReport

    Raises
    ------
    ValueError
        If the model, the texts or the calibration cannot be used; the message says why.
    """
    started = time.perf_counter()
    check_number("threshold", threshold, 0.0, 1.0, open_high=True)
    check_integer("max_texts", max_texts, 1, optional=True)
    check_integer("seed", seed, 0)
    name = str(calibration)
    if name == "auto":
        model_name = getattr(model, "name", model)
        name = "lab" if isinstance(model_name, str) and model_name.startswith("lab/") else "real"
    cells = load_calibration(name)
    unknown = sorted(set(leave_out) - set(cells["dataset"]))
    if unknown:
        known = ", ".join(sorted(set(cells["dataset"])))
        raise ValueError(
            f"The calibration {name} has no dataset {unknown[0]!r}, so it cannot be left out; its datasets are {known}."
        )
    data = as_dataset(dataset, "train", text_column=text_column, label_column=label_column)
    data = first_texts(data, max_texts)
    if len(np.unique(data.labels)) < 2:
        raise ValueError(f"All {len(data)} texts of {data.name} have one label; at least two classes are needed.")
    if np.sum(np.bincount(data.labels) >= 2) < 2:
        raise ValueError(
            f"{data.name} has {len(data)} texts of {len(np.unique(data.labels))} classes, but a probe needs at least "
            "two classes with two texts each; give more texts."
        )
    warn_of_shared_texts(data.texts)
    same = (cells["dataset"] == data.name) | (cells["texts"] == data.fingerprint) | cells["dataset"].isin(leave_out)
    used = cells[~same]
    if (n_datasets := used["dataset"].nunique()) < MIN_DATASETS:
        raise ValueError(
            f"The calibration {name} has too few datasets: {n_datasets}, besides those that are left out. At least "
            f"{MIN_DATASETS} are needed."
        )
    lm = as_model(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)

    def report(step: str, done: int, total: int) -> None:
        if progress is not None:
            progress(step, done, total)

    n_extracted = 0

    def report_texts(n: int) -> None:
        nonlocal n_extracted
        n_extracted += n
        report("reading texts", n_extracted, len(data))

    last = middle_and_last(lm.n_layers)["last"]
    tokens = tokenize(lm, data, max_length)
    pass_started = time.perf_counter()
    extraction = extract(
        lm, data, layers=(last,), features=(last,), batch_size=batch_size, tokens=tokens, progress=report_texts
    )
    pass_seconds = time.perf_counter() - pass_started
    labels = data.labels[extraction.row_indices]
    settings = ExperimentConfig()
    scores = {(s.centered, s.rule): s for s in score_extraction(extraction, settings.spectrum)}
    predictors = {name: float(getattr(scores[False, "half"], name)) for name in SCORES}
    predictors["explained"] = scores[True, "half"].explained
    features = FrozenFeatures(
        np.asarray(extraction.features[last], float),
        labels,
        lm,
        [tokens.ids[i] for i in extraction.row_indices],
        seed,
        None if target_modules is None else tuple(target_modules),
    )
    for i, (score, function) in enumerate(TRANSFERABILITY_SCORES.items(), 1):
        report(LABELS[f"transfer_{score}"], i, len(TRANSFERABILITY_SCORES))
        try:
            predictors[f"transfer_{score}"] = function(features)
        except ProjectionError as error:
            warnings.warn(f"The {LABELS[f'transfer_{score}']} is left out: {error}", FinetuneWarning, stacklevel=2)
    available = [column for column in PREDICTORS if column in predictors]

    left_out = tuple(sorted(set(cells.loc[same, "dataset"])))
    facts = Calibration(
        name=name,
        n_cells=len(used),
        n_datasets=n_datasets,
        left_out=left_out,
        mean_gain=float(used["gain"].mean()),
        performance=calibrate(used, available, seed=seed).performance,
    )
    regressor = GainRegressor().fit(used[available].to_numpy(float), used["gain"], used["dataset"])
    x = np.array([[predictors[column] for column in available]])
    headroom = predictors["transfer_headroom"]
    interval = regressor.predict_interval(x, LEVEL)
    gain, low, high = (min(float(value[0]), headroom) for value in (regressor.predict(x), *interval))
    distance = float(regressor.distance(x)[0])
    verdict, reasons = judge(gain, low, high, threshold, headroom, distance, facts)
    if len(labels) < lm.dimension:
        reasons = (
            *reasons,
            f"{len(labels)} texts are fewer than the {lm.dimension} features of the model, so that a linear predictor "
            "fits any labels, and the predictors that depend on it are at their limits. Give more texts than features.",
        )
        verdict = verdict if headroom < threshold else "unknown"
    assert settings.lora is not None
    return PrescreenReport(
        model=lm.name,
        dataset=data.name,
        n_texts=len(labels),
        n_classes=len(np.unique(labels)),
        n_features=lm.dimension,
        majority=float(np.bincount(labels).max() / len(labels)),
        probe_accuracy=1.0 - headroom,
        predictors=predictors,
        percentiles={column: float((used[column] < value).mean()) for column, value in predictors.items()},
        gain=gain,
        gain_low=low,
        gain_high=high,
        level=LEVEL,
        distance=distance,
        calibration=facts,
        seconds=time.perf_counter() - started,
        lora_seconds=finetuning_cost(settings.lora, len(data), 0) * pass_seconds / len(data),
        threshold=threshold,
        verdict=verdict,
        reasons=reasons,
        provenance=provenance(
            model=lm.name,
            model_fingerprint=lm.fingerprint,
            model_origin=lm.origin,
            dataset=data.name,
            dataset_fingerprint=data.fingerprint,
            max_texts=max_texts,
            max_length=extraction.max_length,
            n_truncated=extraction.n_truncated,
            seed=seed,
            device=str(lm.model.device),
            dtype=str(lm.model.dtype).removeprefix("torch."),
        ),
    )


def judge(
    gain: float, low: float, high: float, threshold: float, headroom: float, distance: float, facts: Calibration
) -> tuple[str, tuple[str, ...]]:
    """Derive a verdict from a prediction, its interval, and the accuracy of the calibration.

    Parameters
    ----------
    gain, low, high : float
        Predicted gain and its interval.
    threshold : float
        Smallest gain that makes LoRA worthwhile.
    headroom : float
        Error of the probe, an upper bound of the gain.
    distance : float
        Distance of the case from the calibration, 0 to 1.
    facts : Calibration

    Returns
    -------
    verdict : {"yes", "no", "open", "unknown"}
    reasons : tuple of str
        Sentences that explain it.
    """

    def points(value: float) -> str:
        return f"{100 * value:.1f}"

    reasons = []
    if headroom < threshold:
        reasons.append(
            f"The probe is wrong on {points(headroom)}% of the texts, so no finetuning can gain more than "
            f"{points(headroom)} points of accuracy, which is less than the threshold of {points(threshold)}."
        )
        return "no", tuple(reasons)
    interval = f"{points(low)} to {points(high)} points (80% interval)"
    performance = facts.performance
    if not facts.predicts:
        reasons.append(
            "On datasets that were left out of the calibration, these predictors are not reliably better than the "
            f"mean gain: their error is {100 * (1 - performance.skill):.0f}% of its error (95% interval "
            f"{100 * (1 - performance.skill_high):.0f}% to {100 * (1 - performance.skill_low):.0f}%)."
        )
        reasons.append(f"Read {interval} as the usual range of gains, not as a forecast for this case.")
    else:
        reasons.append(
            "On datasets that were left out of the calibration, the predictions have a mean error of "
            f"{points(performance.mean_error)} points, {100 * performance.skill:.0f}% less than the mean gain has."
        )
        reasons.append(f"The expected gain is {points(gain)} points, {interval}.")
    reasons.append(f"The headroom of the probe is {points(headroom)} points of accuracy.")
    if distance >= 0.95:
        reasons.append(
            f"This case is at the edge of the calibration or outside it: {100 * distance:.0f}% of its cells are nearer "
            "to its mean. The interval may be too narrow."
        )
    if not facts.predicts:
        verdict = "unknown"
    elif low > threshold:
        verdict = "yes"
    elif high < threshold:
        verdict = "no"
    else:
        verdict = "open"
    return verdict, tuple(reasons)
