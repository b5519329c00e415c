"""Will LoRA pay? A model and a dataset in; scores, rivals, a predicted gain and a verdict out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from ntps_utils._utils.files import asset_text
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.experiment import SCORES, ExperimentConfig, middle_and_last, score_extraction
from ntps_utils.evidence.statistics import HeldOut, fit_gain, predict_held_out
from ntps_utils.evidence.tables import load_recorded
from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.loading import CausalModel, load_model
from ntps_utils.models.probes import warn_of_shared_texts
from ntps_utils.models.transferability import TRANSFERABILITY_SCORES, FrozenFeatures

PREDICTORS = (*SCORES, "explained", *(f"transfer_{name}" for name in TRANSFERABILITY_SCORES))
"""What the gain is predicted from, all of it computed before any finetuning."""

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
LEVEL = 0.8
CALIBRATIONS = ("lab", "real")


@dataclass(frozen=True)
class Calibration:
    """What the recorded cells allow one to say of a new case.

    Attributes
    ----------
    name : str
    n_cells, n_datasets : int
        Used; rows of the dataset at hand are left out.
    left_out : tuple of str
        Datasets that were left out because they are the one at hand, or on demand.
    mean_gain : float
    mean_error : float
        Mean absolute error of predictions for datasets left out one at a time.
    skill, skill_low, skill_high : float
        ``1 - error / error of the mean``, with its 95% interval.
    coverage, width : float
        Of the 80% intervals of those datasets.
    """

    name: str
    n_cells: int
    n_datasets: int
    left_out: tuple[str, ...]
    mean_gain: float
    mean_error: float
    skill: float
    skill_low: float
    skill_high: float
    coverage: float
    width: float

    @property
    def predicts(self) -> bool:
        """Whether predictors beat the mean beyond doubt."""
        return self.skill_low > 0.0


@dataclass(frozen=True)
class PrescreenReport:
    """Everything that is known before finetuning, and what follows from it.

    Accuracies and gains are fractions of one; times are seconds.

    Attributes
    ----------
    model, dataset : str
    n_texts, n_classes, n_features : int
    majority : float
        Share of the commonest class.
    probe_accuracy : float
        Cross-validated, of a logistic probe on the frozen features.
    predictors : dict of str to float
        By column name, see ``LABELS``.
    percentiles : dict of str to float
        Share of the calibration's cells with a lower value, 0 to 1.
    gain, gain_low, gain_high : float
        Predicted gain of LoRA over the probe, with its interval at ``level``; the ends do
        not exceed what the probe leaves.
    level : float
    distance : float
        Share of the calibration's cells that lie nearer to its middle: near 1 the case is
        unlike anything there.
    calibration : Calibration
    seconds : float
        Spent on all of this.
    lora_seconds : float
        Estimate for the LoRA run, on the same machine.
    threshold : float
        Gain from which LoRA is worth while.
    verdict : {"yes", "no", "open", "unknown"}
    reasons : tuple of str
        The verdict in plain words.
    provenance : dict
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
        """All fields as JSON."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    def to_html(self) -> str:
        """A page that stands alone: no script, no network; every text in it is escaped."""
        template = asset_text("prescreen.html.j2")
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        environment.filters["points"] = lambda value: f"{100 * value:+.1f}"
        environment.filters["duration"] = duration
        return environment.from_string(template).render(p=self, labels=LABELS, headline=HEADLINES[self.verdict])


HEADLINES = {
    "yes": "LoRA is likely to pay.",
    "no": "LoRA is unlikely to pay.",
    "open": "Too close to call.",
    "unknown": "The calibration cannot tell.",
}


def duration(seconds: float) -> str:
    """A time in words: "12 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def load_calibration(name: str | Path) -> pd.DataFrame:
    """Cells that predictions are calibrated on.

    Parameters
    ----------
    name : str or path
        "lab" or "real", which ship with the library, or a CSV file that
        ``ntps grid --record`` wrote.

    Raises
    ------
    ValueError
        If there is no such table, or it lacks columns.
    """
    if str(name) in CALIBRATIONS:
        cells = load_recorded(str(name))
    elif Path(name).is_file():
        cells = pd.read_csv(name)
    else:
        raise ValueError(
            f"There is no calibration {str(name)!r}: give {' or '.join(CALIBRATIONS)}, or a CSV file of cells that "
            "`ntps grid --record` wrote."
        )
    missing = [c for c in ("model", "dataset", "texts", "gain", *PREDICTORS) if c not in cells]
    if missing:
        raise ValueError(f"The calibration {name} lacks the columns {', '.join(missing)}; measure it with LoRA.")
    return cells


def calibrate(cells: pd.DataFrame, predictors: Sequence[str] = PREDICTORS, *, seed: int = 0) -> HeldOut:
    """How well gains are predicted for datasets left out one at a time.

    See :func:`~ntps_utils.evidence.statistics.predict_held_out`.
    """
    return predict_held_out(
        cells[list(predictors)].to_numpy(float),
        cells["gain"].to_numpy(),
        cells["dataset"].tolist(),
        seed=seed,
        level=LEVEL,
    )


def prescreen(
    model: str | Path | CausalModel,
    dataset: str | Path | TextDataset,
    *,
    calibration: str | Path = "auto",
    leave_out: Sequence[str] = (),
    threshold: float = 0.01,
    max_texts: int | None = 2000,
    max_length: int | None = None,
    batch_size: int = 16,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    text_column: str = "text",
    label_column: str = "label",
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> PrescreenReport:
    """Measure a case before finetuning, and predict the gain of LoRA from recorded cells.

    Parameters
    ----------
    model, dataset, device, dtype, text_column, label_column, trust_remote_code
        See :func:`ntps_utils.models.loading.load_model` and :func:`~ntps_utils.models.datasets.load_texts`; the
        training split is used.
    calibration : str or path
        See :func:`load_calibration`; "auto" takes "lab" for the lab's models, else "real".
    leave_out : sequence of str
        Datasets of the calibration to leave out, beside the one at hand.
    threshold : float
        Gain in accuracy from which LoRA is worth while.
    max_texts : int, optional
        Use the first texts only.
    max_length, batch_size
        See :func:`ntps_utils.models.extraction.extract`.
    seed : int
        Of folds and random projections.
    progress : callable, optional
        Called with what is being done, how much is done, and of how much.

    Raises
    ------
    ValueError
        If model, data or calibration cannot be used; the message says why.
    """
    started = time.perf_counter()
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold must be a gain in accuracy in [0, 1), such as 0.01; got {threshold}.")
    name = str(calibration)
    if name == "auto":
        name = "lab" if str(getattr(model, "name", model)).startswith("lab/") else "real"
    cells = load_calibration(name)
    unknown = sorted(set(leave_out) - set(cells["dataset"]))
    if unknown:
        known = ", ".join(sorted(set(cells["dataset"])))
        raise ValueError(f"The calibration {name} has no dataset {unknown[0]!r} to leave out; it has {known}.")
    data = (
        dataset
        if isinstance(dataset, TextDataset)
        else load_texts(dataset, "train", text_column=text_column, label_column=label_column)
    )
    data = data if max_texts is None else data.head(min(max_texts, len(data)))
    if len(np.unique(data.labels)) < 2:
        raise ValueError(f"All {len(data)} texts of {data.name} have one label; at least two classes are needed.")
    if np.sum(np.bincount(data.labels) >= 2) < 2:
        raise ValueError(
            f"{data.name} has {len(data)} texts of {len(np.unique(data.labels))} classes; a probe needs two classes "
            "with two texts each at the least, and a useful one dozens."
        )
    warn_of_shared_texts(data.texts)
    lm = (
        model
        if isinstance(model, CausalModel)
        else load_model(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    )
    steps = ["reading texts", *TRANSFERABILITY_SCORES, "calibration"]

    def said(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(what, done, total)

    read = 0

    def texts_read(n: int) -> None:
        nonlocal read
        read += n
        said(steps[0], read, len(data))

    last = middle_and_last(lm.n_layers)["last"]
    pass_started = time.perf_counter()
    at = extract(
        lm, data, layers=(last,), features=(last,), batch_size=batch_size, max_length=max_length, progress=texts_read
    )
    pass_seconds = time.perf_counter() - pass_started
    labels = data.labels[at.row_indices]
    settings = ExperimentConfig()
    rows = {(r["centered"], r["rule"]): r for r in score_extraction(at, settings.spectrum)}
    primary, centered = rows[False, "half"], rows[True, "half"]
    predictors = {score: float(primary[score]) for score in SCORES}
    predictors["explained"] = float(centered["trace_b"] / centered["trace_y"])
    ids = tokenize(lm, data, max_length).ids
    case = FrozenFeatures(np.asarray(at.features[last], float), labels, lm, [ids[i] for i in at.row_indices], seed)
    for i, (rival, function) in enumerate(TRANSFERABILITY_SCORES.items(), 1):
        said(LABELS[f"transfer_{rival}"], i, len(TRANSFERABILITY_SCORES))
        predictors[f"transfer_{rival}"] = function(case)

    fingerprints = {data.fingerprint}
    same = (cells["dataset"] == data.name) | cells["texts"].isin(fingerprints) | cells["dataset"].isin(leave_out)
    left_out = tuple(sorted(set(cells.loc[same, "dataset"])))
    used = cells[~same]
    held = calibrate(used, seed=seed)
    facts = Calibration(
        name=name,
        n_cells=len(used),
        n_datasets=used["dataset"].nunique(),
        left_out=left_out,
        mean_gain=float(used["gain"].mean()),
        mean_error=held.mean_error,
        skill=held.skill,
        skill_low=held.skill_low,
        skill_high=held.skill_high,
        coverage=held.coverage,
        width=held.width,
    )
    fitted = fit_gain(used[list(PREDICTORS)].to_numpy(float), used["gain"].to_numpy(), used["dataset"].tolist())
    x = np.array([[predictors[column] for column in PREDICTORS]])
    gain, low, high = (float(v[0]) for v in fitted.predict(x, LEVEL))
    room = predictors["transfer_headroom"]
    gain, low, high = (min(value, room) for value in (gain, low, high))
    distance = float(fitted.distance(x)[0])
    verdict, reasons = judge(gain, low, high, threshold, room, distance, facts)
    # A step of LoRA costs about three forward passes of its texts: one forward, two backward through frozen weights.
    assert settings.lora is not None
    n_seen = settings.lora.max_steps * settings.lora.batch_size * len(settings.lora.learning_rates)
    return PrescreenReport(
        model=lm.name,
        dataset=data.name,
        n_texts=len(labels),
        n_classes=len(np.unique(labels)),
        n_features=lm.dimension,
        majority=float(np.bincount(labels).max() / len(labels)),
        probe_accuracy=1.0 - room,
        predictors=predictors,
        percentiles={column: float((used[column] < value).mean()) for column, value in predictors.items()},
        gain=gain,
        gain_low=low,
        gain_high=high,
        level=LEVEL,
        distance=distance,
        calibration=facts,
        seconds=time.perf_counter() - started,
        lora_seconds=3.0 * n_seen * pass_seconds / len(data),
        threshold=threshold,
        verdict=verdict,
        reasons=reasons,
        provenance=provenance(
            model=lm.name,
            model_fingerprint=lm.fingerprint,
            dataset=data.name,
            dataset_fingerprint=data.fingerprint,
            max_texts=max_texts,
            max_length=at.max_length,
            n_truncated=at.n_truncated,
            seed=seed,
            device=str(lm.model.device),
            dtype=str(lm.model.dtype).removeprefix("torch."),
        ),
    )


def judge(
    gain: float, low: float, high: float, threshold: float, headroom: float, distance: float, facts: Calibration
) -> tuple[str, tuple[str, ...]]:
    """Verdict and reasons, from the prediction and from how far it can be trusted."""

    def points(value: float) -> str:
        return f"{100 * value:.1f}"

    reasons = []
    if headroom < threshold:
        reasons.append(
            f"The probe leaves {points(headroom)} points of accuracy, less than the {points(threshold)} that would be "
            "worth while. No finetuning can gain more than that."
        )
        return "no", tuple(reasons)
    span = f"{points(low)} to {points(high)} points (80% interval)"
    if not facts.predicts:
        reasons.append(
            f"Nothing that was computed here predicts the gain of LoRA on datasets that the calibration has not seen "
            f"better than the mean gain does: its error is {100 * (1 - facts.skill):.0f}% of the mean's "
            f"(95% interval {100 * (1 - facts.skill_high):.0f}% to {100 * (1 - facts.skill_low):.0f}%)."
        )
        reasons.append(f"Take {span} as the range that gains fall into, and not as a forecast for this case.")
    else:
        reasons.append(
            f"On datasets that the calibration had not seen, predictions were off by {points(facts.mean_error)} points "
            f"on average, {100 * facts.skill:.0f}% less than the mean gain is."
        )
        reasons.append(f"Expected gain: {points(gain)} points, {span}.")
    reasons.append(f"The probe leaves {points(headroom)} points of accuracy to gain.")
    if distance >= 0.95:
        reasons.append(
            "This case lies at the edge of the calibration or outside it "
            f"({100 * distance:.0f}% of its cells are nearer to its middle), so the interval may be too narrow."
        )
    if low > threshold:
        verdict = "yes"
    elif high < threshold:
        verdict = "no"
    else:
        verdict = "open" if facts.predicts else "unknown"
    return verdict, tuple(reasons)
