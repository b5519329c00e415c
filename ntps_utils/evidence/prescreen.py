"""Will LoRA pay? Expected gain and verdict for a model and a dataset, from recorded finetuning runs."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
import re
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
import pandas as pd
import torch

from ntps_utils._utils.files import asset_text, write_json
from ntps_utils._utils.provenance import provenance, without_numpy
from ntps_utils._utils.validation import check_integer, check_number, check_seed
from ntps_utils.evidence._wording import (
    MIN_TEXTS,
    MIN_VALIDATION,
    about_gain,
    about_lora,
    about_texts,
    classifier,
    command,
    differences,
    headline,
    outside,
    points,
    reason,
    why_no_trial,
    without_finetuning,
)
from ntps_utils.evidence.advice import Advice, Advisor, Answer, FittedStep, Step
from ntps_utils.evidence.calibration import (
    LABELS,
    MIN_DATASETS,
    Calibration,
    load_calibration,
)
from ntps_utils.evidence.classifiers import best_alternative
from ntps_utils.evidence.cost import duration as duration
from ntps_utils.evidence.cost import finetuning_cost
from ntps_utils.evidence.experiment import limited_threads
from ntps_utils.evidence.predictors import PREDICTORS, Case
from ntps_utils.evidence.trials import TRIALS, trial_cost, trial_share, trial_step, trial_values
from ntps_utils.models._tables import describe_text_column
from ntps_utils.models.datasets import TextDataset, as_dataset, first_texts, warn_of_empty_texts
from ntps_utils.models.extraction import batch_overhead, hidden_states, length_batches
from ntps_utils.models.finetuning import (
    CurvePoint,
    FinetuneConfig,
    ProjectionError,
    projection_modules,
    training_dtype,
    trial_run,
)
from ntps_utils.models.loading import CausalModel, as_model, evaluation_mode
from ntps_utils.models.probes import warn_of_shared_texts

DEFAULT_THRESHOLD = 0.01
"""Smallest gain in accuracy that makes LoRA worthwhile, if the user names none."""

N_TIMED = 64
"""Texts that the duration of a forward pass is measured on."""


@dataclass(frozen=True)
class StepSkill:
    """How well a step predicts the gains of datasets that were left out of the recorded runs.

    Attributes
    ----------
    name : str
    columns : tuple of str
        Its predictors.
    skill, low, high : float
        Share of the error of the median gain that it saves, and its 95% interval.
    cost : float
        Share of a LoRA run.
    use : {"decided", "predicted", "measured", "no skill", "not made"}
        What it did for this case: gave the verdict; gave the expected gain, without a verdict; was measured, but
        another step predicts, or a predictor lies outside the recorded runs; was left out because it has no
        skill; or was not needed or not allowed.
    """

    name: str
    columns: tuple[str, ...]
    skill: float
    low: float
    high: float
    cost: float
    use: Literal["decided", "predicted", "measured", "no skill", "not made"]

    @classmethod
    def of(cls, fitted: FittedStep, advice: Advice, measured: Collection[str]) -> StepSkill:
        """Summarize a fitted step and its use for a case."""
        skill, is_last = fitted.skill, fitted.step.name == advice.step
        made = set(fitted.columns) <= set(measured)
        use: Literal["decided", "predicted", "measured", "no skill", "not made"]
        use = "no skill" if not fitted.has_skill else "measured" if made else "not made"
        if is_last:
            use = "predicted" if advice.answer == "open" else "decided"
        return cls(fitted.step.name, fitted.columns, skill.value, skill.low, skill.high, fitted.step.cost, use)


@dataclass(frozen=True)
class CalibrationFacts:
    """The recorded finetuning runs that an answer is based on.

    Attributes
    ----------
    name : str
        Name or file of the table.
    n_runs, n_datasets : int
        Number of runs and of datasets that were used.
    models : tuple of str
    n_parameters : tuple of int
        Smallest and largest number of parameters of these models.
    left_out : tuple of str
        Datasets that were excluded: the dataset at hand, and those in ``leave_out``.
    gain, gain_low, gain_high : float
        Median gain, and the range that holds the share ``level`` of the gains.
    steps : tuple of StepSkill
    """

    name: str
    n_runs: int
    n_datasets: int
    models: tuple[str, ...]
    n_parameters: tuple[int, int]
    left_out: tuple[str, ...]
    gain: float
    gain_low: float
    gain_high: float
    steps: tuple[StepSkill, ...]


@dataclass(frozen=True)
class PrescreenReport:
    """Expected gain of LoRA, a verdict, and what both are based on.

    Accuracies and gains are fractions, durations are in seconds.

    Attributes
    ----------
    verdict : {"yes", "no", "open"}
        Whether the gain exceeds the threshold.
    headline, reason : str
        The verdict in words, and one sentence that explains it.
    recommendations : tuple of str
        What to do without finetuning, and about LoRA.
    gain, gain_low, gain_high : float
        Expected gain in accuracy over the best classifier without finetuning, and its interval.
    interval : {"calibrated", "spread"}
        "calibrated" if a step with a skill gave them. "spread" for the median of the recorded gains and the range of
        most of them, minus ``lead``: they say nothing else about this case. Expected gain and lower end are cut at
        what the best classifier gets wrong, the upper end at the 95% limit of this share.
    level : float
        Nominal coverage of the interval.
    threshold : float
        Smallest gain that makes LoRA worthwhile.
    step : str
        Step that gave the expected gain, see :class:`~ntps_utils.evidence.advice.Advice`.
    columns : tuple of str
        Predictors of that step.
    notes : tuple of str
        Sentences on what limits the answer.
    command : str
        The command that does what the last recommendation says, with the options of this call that it has too, or
        what to do if there is none.
    model, dataset : str
        Names.
    n_texts, n_classes, n_features, n_parameters : int
        Number of texts, classes, features d, and parameters.
    majority : float
        Share of the most frequent class.
    probe_accuracy : float
        Cross-validated accuracy of a logistic probe of the last layer.
    alternative : str
        The best classifier without finetuning, see :func:`~ntps_utils.evidence.classifiers.best_alternative`.
    alternatives : dict of str to float
        Cross-validated accuracies of all such classifiers.
    lead : float
        What the best one has over the probe of the last layer.
    layers : dict of str to float
        The same for several layers, by index.
    predictors : dict of str to float
        What was measured, see ``LABELS``.
    percentiles : dict of str to float
        Share of the recorded runs with a lower value, 0 to 1, where it was recorded.
    trial : tuple of CurvePoint
        Evaluations of the trial run; empty without one.
    calibration : CalibrationFacts
    seconds : float
        Duration of the prescreening.
    lora_seconds : float
        Duration of the LoRA run on this machine, estimated from the trial run if one was made, otherwise from
        forward passes.
    trial_share, trial_seconds : float
        Share of the steps of the recommended trial run, of the one that was made, or a tenth; and its duration, which
        is estimated if it was not made.
    provenance : dict
        Settings, versions and date.
    """

    verdict: Answer
    headline: str
    reason: str
    recommendations: tuple[str, ...]
    gain: float
    gain_low: float
    gain_high: float
    interval: Literal["calibrated", "spread"]
    level: float
    threshold: float
    step: str
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    command: str
    model: str
    dataset: str
    n_texts: int
    n_classes: int
    n_features: int
    n_parameters: int
    majority: float
    probe_accuracy: float
    alternative: str
    alternatives: dict[str, float]
    lead: float
    layers: dict[str, float]
    predictors: dict[str, float]
    percentiles: dict[str, float]
    trial: tuple[CurvePoint, ...]
    calibration: CalibrationFacts
    seconds: float
    lora_seconds: float
    trial_share: float
    trial_seconds: float
    provenance: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """Expected gain with its interval against the cost and the threshold, in a few sentences."""
        level, threshold = f"{100 * self.level:.0f}%", points(self.threshold)
        cost = f"LoRA takes about {duration(self.lora_seconds)} here and is worthwhile from {threshold} points on."
        if self.interval == "calibrated":
            ends = f"{points(self.gain_low)} to {points(self.gain_high)}"
            return (
                f"Expected gain over {self.best}: {points(self.gain)} points of accuracy ({level} interval: {ends}). "
                f"{cost}"
            )
        runs = self.calibration
        more = f" is {points(self.lead)} points better than a probe of the last layer, and" if self.lead > 0.0 else ""
        return (
            f"In the recorded runs, LoRA was better than a probe of the last layer by {points(runs.gain)} points of "
            f"accuracy in the median, and in {level} of them by {points(runs.gain_low)} to {points(runs.gain_high)}. "
            f"Here {self.best}{more} gets {points(1.0 - self.alternatives[self.alternative])}% of the texts wrong; a "
            f"gain can hardly be larger. {cost}"
        )

    @property
    def best(self) -> str:
        """The best classifier without finetuning, in words."""
        return self.named(self.alternative)

    def named(self, alternative: str) -> str:
        """Describe a classifier without finetuning.

        Parameters
        ----------
        alternative : str
            A key of ``alternatives``.

        Returns
        -------
        str
        """
        return classifier(alternative, [int(layer) for layer in self.layers])

    def to_json(self) -> str:
        """Convert all fields to JSON.

        Returns
        -------
        str
        """
        return json.dumps({"format": 4, **asdict(self)}, indent=1, allow_nan=False)

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
        return environment.from_string(template).render(p=self, labels=LABELS)


class Measurements:
    """What was measured for a case, kept in a file so that an interrupted prescreening can go on.

    Parameters
    ----------
    key : str
        Identifies model, texts and settings. The file keeps what was measured for other keys, too.
    file : Path, optional
        Without one, nothing is kept.

    Attributes
    ----------
    values : dict of str to float
        Predictors by name; ``text_seconds``, the mean duration of a forward pass of one text; and
        ``trial_seconds``, that of the trial run.
    accuracies : dict of str to float
        Accuracies of classifiers without finetuning, see :class:`.predictors.Case`.
    trial : list of CurvePoint
        Evaluations of the trial run.

    Raises
    ------
    ValueError
        If the file has other contents.
    """

    def __init__(self, key: str, file: Path | None) -> None:
        self._key, self._file = key, file
        self.values: dict[str, float] = {}
        self.accuracies: dict[str, float] = {}
        self.trial: list[CurvePoint] = []
        self._cases: dict[str, Any] = {}
        if file is None or not file.is_file():
            return
        try:
            self._cases = dict(json.loads(file.read_text("utf-8"))["cases"])
            if (own := self._cases.get(key)) is not None:
                self.values, self.trial = dict(own["values"]), [CurvePoint(**point) for point in own["trial"]]
                self.accuracies = dict(own.get("accuracies", {}))  # older files have none
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{file} does not hold measurements of a prescreening; name another file to resume from."
            ) from error

    @property
    def checkpoint(self) -> Path | None:
        """File of the pass over the texts."""
        return None if self._file is None else self._file.with_name(f"{self._file.name}.{self._key}.pass")

    def keep(self) -> None:
        """Write the measurements to the file."""
        if self._file is not None:
            points = [asdict(point) for point in self.trial]
            self._cases[self._key] = {"values": self.values, "accuracies": self.accuracies, "trial": points}
            write_json(self._file, {"cases": self._cases})

    def finish(self) -> None:
        """Remove the file of the pass, which only an interrupted prescreening needs."""
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)


class _Values:
    """Predictors of a case by name; each is measured when it is first asked for."""

    def __init__(
        self, case: Case, lora: FinetuneConfig, kept: Measurements, report: Callable[[str, int, int], None]
    ) -> None:
        self._case, self._lora, self._kept, self._report = case, lora, kept, report
        self._points: Iterator[CurvePoint] | None = None

    def __call__(self, name: str) -> float:
        if name == "n_texts":
            return float(len(self._case.features))
        if name == "lead":
            return best_alternative(self._case.alternatives)[1]
        if name.startswith("trial_"):
            return self._trial(name)
        if name not in self._kept.values:
            self._report(LABELS[name], 0, 1)
            self._kept.values[name] = float(PREDICTORS[name].function(self._case))
            self._kept.keep()
            self._report(LABELS[name], 1, 1)
        return self._kept.values[name]

    def _trial(self, name: str) -> float:
        """Make a trial run until the predictor is known."""
        while name not in (values := trial_values(self._kept.trial, self._lora.max_steps)):
            started = time.perf_counter()
            if self._points is None:  # a run cannot be continued in another process
                self._kept.trial.clear()
                self._kept.values["trial_seconds"] = 0.0
                self._points = self._start()
            self._kept.trial.append(next(self._points))
            self._kept.values["trial_seconds"] += time.perf_counter() - started
            self._kept.keep()
        return values[name]

    def _start(self) -> Iterator[CurvePoint]:
        data, rows, features = self._case.data, self._case.extraction.row_indices, self._case.features
        self._report("trial run", 0, trial_step(TRIALS[-1], self._lora.max_steps))
        used = replace(data, texts=tuple(data.texts[i] for i in rows), labels=features.labels)
        n_steps = 0

        def count(n: int) -> None:
            nonlocal n_steps
            n_steps += n
            self._report("trial run", n_steps, trial_step(TRIALS[-1], self._lora.max_steps))

        return trial_run(
            self._case.model,
            used,
            self._lora,
            max_length=self._case.max_length,
            features=features.features,
            progress=count,
        )


def parse_trial(text: str | float) -> tuple[float, float]:
    """Read the budget of a trial run.

    Parameters
    ----------
    text : str or float
        A share of the steps such as "10%" or 0.1, or a duration such as "90s", "5min" or "1h".

    Returns
    -------
    share : float
        Largest share of the steps.
    seconds : float
        Largest duration; infinite if a share was given.

    Raises
    ------
    ValueError
        If it is neither, or a share above 25%, the longest trial run that recorded runs tell about.

    Examples
    --------
    >>> parse_trial("10%"), parse_trial("5min")
    ((0.1, inf), (0.25, 300.0))
    """
    units = {"%": 0.01, "s": 1.0, "min": 60.0, "h": 3600.0}
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%|s|min|h|)\s*", str(text))
    value = float(match[1]) * units.get(match[2], 1.0) if match else math.nan
    is_share = match is not None and match[2] in ("", "%")
    if not math.isfinite(value) or (is_share and value > TRIALS[-1]):
        raise ValueError(
            f"trial must be a share of the steps such as '10%', at most {100 * TRIALS[-1]:g}%, or a time such as "
            f"'5min', got {text!r}."
        )
    return (value, math.inf) if is_share else (TRIALS[-1], value)


def prescreen(
    model: str | Path | CausalModel | tuple[Any, Any],
    dataset: str | Path | TextDataset | Any,
    *,
    calibration: str | Path = "auto",
    leave_out: Sequence[str] = (),
    threshold: float | None = None,
    worth: float | None = None,
    trial: str | float = 0.0,
    resume: str | Path | None = None,
    max_texts: int | None = 2000,
    max_length: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "auto",
    base_model: str | Path | None = None,
    seed: int = 0,
    text_column: str = "text",
    label_column: str = "label",
    target_modules: Sequence[str] | None = None,
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> PrescreenReport:
    """Say whether LoRA will pay: expected gain, interval, cost, and a verdict.

    Three steps follow each other, and the first that decides ends the prescreening: the headroom of a probe;
    predictors from the frozen model, as far as they predict the gains of left-out datasets among the recorded
    runs; and a trial run, if ``trial`` allows one. Without a step that predicts, the verdict is "open".

    Parameters
    ----------
    model : str, Path, CausalModel, or pair of transformers model and tokenizer
        See :func:`ntps_utils.models.loading.as_model`.
    dataset : str, Path, TextDataset, pair (texts, labels), DataFrame, or datasets.Dataset
        See :func:`ntps_utils.models.datasets.as_dataset`; the training split is used.
    device, dtype, base_model, text_column, label_column, trust_remote_code
        See these two functions.
    calibration : str or Path
        See :func:`ntps_utils.evidence.calibration.load_calibration`; "auto" means "lab" for models of the lab,
        otherwise "real".
    leave_out : sequence of str
        Datasets of the calibration to exclude, besides ``dataset``.
    threshold : float, optional
        Smallest gain in accuracy over the best classifier without finetuning that makes LoRA worthwhile, in [0, 1);
        by default 0.01.
    worth : float, optional
        In place of ``threshold``: the gain in accuracy that an hour of computing must bring.
    trial : str or float
        Longest trial run, as a share of the steps such as "10%", at most 25%, or a duration such as "5min". 0
        makes none. It helps only with a calibration that holds trial runs.
    resume : path, optional
        File for what is measured. If it exists and holds measurements of the same case, they are used. One file can
        hold several cases.
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
        If the model, the texts, the calibration or an option cannot be used; the message says why.

    Examples
    --------
    >>> report = prescreen("lab/XS", "lab/topic", max_texts=200, threshold=0.5)
    >>> report.verdict, report.step
    ('no', 'headroom')
    """
    options = {
        "calibration": calibration,
        "leave-out": tuple(leave_out),
        "threshold": None if threshold is None else f"{100 * threshold:g}",
        "worth": None if worth is None else f"{100 * worth:g}",
        "max-texts": max_texts,
        "max-length": max_length,
        "batch-size": batch_size,
        "device": device,
        "dtype": dtype,
        "base-model": base_model,
        "seed": seed,
        "text-column": text_column,
        "label-column": label_column,
        "target-modules": None if target_modules is None else ",".join(target_modules),
        "trust-remote-code": trust_remote_code,
        "resume": resume,
    }
    options = {name: without_numpy(value) for name, value in options.items()}
    started = time.perf_counter()
    if threshold is not None and worth is not None:
        raise ValueError("threshold and worth were both given; give one of them.")
    if threshold is not None:
        check_number("threshold", threshold, 0.0, 1.0, open_high=True)
    if worth is not None:
        check_number("worth", worth, 0.0)
    share, budget = parse_trial(trial)
    check_integer("max_texts", max_texts, 1, optional=True)
    check_seed("seed", seed)
    name = str(calibration)
    if name == "auto":
        model_name = getattr(model, "name", model)
        name = "lab" if isinstance(model_name, str) and model_name.startswith("lab/") else "real"
    recorded = load_calibration(name)
    data = as_dataset(dataset, "train", text_column=text_column, label_column=label_column)
    n_given = len(data)
    data = first_texts(data, max_texts)
    _check_classes(data)
    with warnings.catch_warnings(record=True) as shared:
        warnings.simplefilter("always")
        warn_of_empty_texts(data)
        warn_of_shared_texts(data.texts)
    used, left_out = _other_runs(recorded, data, leave_out)
    lm = as_model(model, device=device, dtype=dtype, base_model=base_model, trust_remote_code=trust_remote_code)
    modules = None if target_modules is None else tuple(target_modules)
    if modules is not None:
        projection_modules(lm.model, modules)  # refuses unknown names before the texts are read
    lora = replace(recorded.lora, target_modules=modules)
    settings = [lm.fingerprint, data.fingerprint, max_length, seed, modules, repr(lora)]
    kept = Measurements(
        hashlib.sha256(repr(settings).encode()).hexdigest()[:16], None if resume is None else Path(resume)
    )

    def report(step: str, done: int, total: int) -> None:
        if progress is not None:
            progress(step, done, total)

    case = Case(
        lm,
        data,
        max_length=max_length,
        batch_size=batch_size,
        seed=seed,
        target_modules=modules,
        checkpoint=kept.checkpoint,
        accuracies=kept.accuracies,
        progress=report,
    )
    with limited_threads(lm.model.num_parameters()):
        n_texts, labels = len(case.features), case.features.labels
        if "text_seconds" not in kept.values:
            kept.values["text_seconds"] = _text_seconds(case, training_dtype(lm, lora))
            kept.keep()
        second = kept.values["text_seconds"]
        lora_seconds = finetuning_cost(lora, n_texts, 0) * second
        least = DEFAULT_THRESHOLD if threshold is None else float(threshold)
        if worth is not None:
            least = min(1.0, float(worth) * lora_seconds / 3600)
        asked = share
        while share and trial_cost(lora, share, n_texts) * second > budget:
            share = max((shorter for shorter in TRIALS if shorter < share), default=0.0)
        steps, notes = _usable_steps(used, lm, n_texts, modules)
        advisor = Advisor(used.cells, steps, seed=seed)
        values = _Values(case, lora, kept, report)
        for i, one in enumerate(case.classifiers):
            report("accuracies without finetuning", i, len(case.classifiers))
            case.accuracy(one)
            kept.keep()
        report("accuracies without finetuning", len(case.classifiers), len(case.classifiers))
        for predictor, entry in PREDICTORS.items():
            if entry.source == "features":
                values(predictor)
        advice = advisor.advise(values, threshold=least, trial=share)
    if n_texts < MIN_TEXTS and advice.step != "headroom":  # a few texts decide which classifier is the best
        advice = replace(advice, answer="open")
    kept.finish()
    measured = {**{k: v for k, v in kept.values.items() if k in PREDICTORS}, **trial_values(kept.trial, lora.max_steps)}
    made = trial_share(kept.trial[-1].step, lora.max_steps) if kept.trial else 0.0
    if made:
        parts = trial_cost(lora, made, n_texts) / finetuning_cost(lora, n_texts, 0)
        lora_seconds = kept.values["trial_seconds"] / parts
    counts = np.bincount(labels, minlength=data.n_classes)
    layers = {str(layer): accuracy for layer, accuracy in case.layer_accuracy.items()}
    alternative, lead = best_alternative(case.alternatives)
    best, accuracy = classifier(alternative, case.layers), case.alternatives[alternative]
    sizes = {
        "n_parameters": lm.model.num_parameters(),
        "n_features": lm.dimension,
        "n_texts": n_texts,
        "n_classes": len(np.unique(labels)),
    }
    notes += [str(one.message) for one in shared]
    notes += about_texts(data, counts, 1.0 - measured["headroom"], 0 if not made else round(lora.validation * n_texts))
    notes += outside(sizes | {"texts_per_feature": n_texts / lm.dimension}, used.cells, advice.outside)
    longest = max(map(len, case.tokens.ids))
    notes += differences(used, lm, longest)
    notes += about_gain(advice, best, accuracy)
    if asked and not made and advice.answer == "open":
        notes.append(why_no_trial(advisor, share, n_texts, lora))
    recommended = advisor.recommend(advice, threshold=least, made=made)
    if advice.answer == "open" and n_texts < MIN_TEXTS:
        recommended = replace(recommended, action="label", share=0.0, reason="texts")
    n_more = n_given - len(data)
    shown_share = recommended.share or made or 0.1
    is_made = made > 0.0 and shown_share == made
    return PrescreenReport(
        verdict=advice.answer,
        headline=headline(advice, best),
        reason=reason(advice, least, accuracy, n_texts, best, lead, advisor.level),
        recommendations=(
            without_finetuning(best, alternative, accuracy, lead),
            about_lora(recommended, lora_seconds, n_texts, max(MIN_TEXTS, lm.dimension), n_more=n_more, made=made),
        ),
        gain=advice.gain,
        gain_low=advice.low,
        gain_high=advice.high,
        interval="calibrated" if advice.has_skill else "spread",
        level=advisor.level,
        threshold=least,
        step=advice.step,
        columns=advice.columns,
        notes=tuple(notes),
        command=command(recommended, model, dataset, _changed(options), longest, n_more),
        model=lm.name,
        dataset=data.name,
        majority=float(counts.max() / n_texts),
        probe_accuracy=1.0 - measured["headroom"],
        alternative=alternative,
        alternatives=case.alternatives,
        lead=lead,
        layers=layers,
        predictors=measured,
        percentiles={c: float((used.cells[c] < v).mean()) for c, v in measured.items() if c in used.cells},
        trial=tuple(kept.trial),
        calibration=CalibrationFacts(
            name=name,
            n_runs=len(used.cells),
            n_datasets=used.cells["dataset"].nunique(),
            models=tuple(sorted(set(used.cells["model"]))),
            n_parameters=(int(used.cells["n_parameters"].min()), int(used.cells["n_parameters"].max())),
            left_out=left_out,
            gain=advisor.median,
            gain_low=advisor.low,
            gain_high=advisor.high,
            steps=tuple(StepSkill.of(fitted, advice, measured) for fitted in advisor.steps),
        ),
        seconds=time.perf_counter() - started,
        lora_seconds=lora_seconds,
        trial_share=shown_share,
        trial_seconds=kept.values["trial_seconds"] if is_made else trial_cost(lora, shown_share, n_texts) * second,
        provenance=provenance(
            model=lm.name,
            model_fingerprint=lm.fingerprint,
            model_origin=lm.origin,
            dataset=data.name,
            dataset_fingerprint=data.fingerprint,
            text_column=describe_text_column(text_column),
            label_column=label_column,
            max_texts=max_texts,
            max_length=case.extraction.max_length,
            n_truncated=case.extraction.n_truncated,
            seed=seed,
            device=str(lm.model.device),
            dtype=str(lm.model.dtype).removeprefix("torch."),
            lora=asdict(lora),
        ),
        **sizes,
    )


def _other_runs(
    recorded: Calibration, data: TextDataset, leave_out: Sequence[str]
) -> tuple[Calibration, tuple[str, ...]]:
    """The recorded runs on other datasets, and the names of those that were left out."""
    cells = recorded.cells
    if unknown := sorted(set(leave_out) - set(cells["dataset"])):
        known = ", ".join(sorted(set(cells["dataset"])))
        raise ValueError(
            f"The calibration {recorded.name} has no dataset {unknown[0]!r}, so it cannot be left out; its datasets "
            f"are {known}."
        )
    same = (cells["dataset"] == data.name) | (cells["texts"] == data.fingerprint) | cells["dataset"].isin(leave_out)
    same |= cells["group"].isin(set(cells.loc[same, "group"]))
    used = recorded.without(same)
    if (n_datasets := used.cells["group"].nunique()) < MIN_DATASETS:
        raise ValueError(
            f"The calibration {recorded.name} has too few datasets: {n_datasets}, besides those that are left out. At "
            f"least {MIN_DATASETS} are needed."
        )
    return used, tuple(sorted(set(cells.loc[same, "dataset"])))


def _usable_steps(
    used: Calibration, model: CausalModel, n_texts: int, modules: tuple[str, ...] | None
) -> tuple[tuple[Step, ...], list[str]]:
    """The steps that model and texts allow, and sentences on those that they do not."""
    steps, notes = used.steps(n_texts), []
    if n_texts < model.dimension:
        notes.append(
            f"{n_texts} texts are fewer than the {model.dimension} features of the model, so that a linear predictor "
            "fits any labels. Predictors of the frozen model are not used; give more texts than features."
        )
        steps = tuple(step for step in steps if step.source == "trial")
    if used.lora.validation * n_texts < MIN_VALIDATION:
        steps = tuple(step for step in steps if step.source != "trial")
    try:
        projection_modules(model.model, modules)
    except ProjectionError as error:
        notes.append(f"Neither gradients nor a trial run: {error}")
        return tuple(step for step in steps if step.source in ("features", "tokens")), notes
    return steps, notes


def _check_classes(data: TextDataset) -> None:
    if len(np.unique(data.labels)) < 2:
        raise ValueError(f"All {len(data)} texts of {data.name} have one label; at least two classes are needed.")
    if np.sum(np.bincount(data.labels) >= 2) < 2:
        raise ValueError(
            f"{data.name} has {len(data)} texts of {len(np.unique(data.labels))} classes, but a probe needs at least "
            "two classes with two texts each; give more texts."
        )


def _text_seconds(case: Case, dtype: torch.dtype) -> float:
    """Shortest of three mean durations of a forward pass of one text, with the type of numbers of the LoRA run."""
    ids = [text for text in case.tokens.ids if text]
    ids = sorted(ids, key=len)[:: max(1, len(ids) // N_TIMED)]
    durations, model = [], case.model
    if dtype != model.model.dtype:
        model = replace(model, model=copy.deepcopy(model.model).to(dtype))
    with evaluation_mode(model.model), torch.inference_mode():
        for _ in range(3):
            started = time.perf_counter()
            for batch in length_batches(ids, range(len(ids)), case.batch_size, overhead=batch_overhead(model)):
                float(hidden_states(model, [ids[i] for i in batch])[-1].sum())  # waits for the device
            durations.append(time.perf_counter() - started)
    return min(durations) / len(ids)


def _changed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the command line whose values are not the defaults of :func:`prescreen`."""
    defaults = {p.name.replace("_", "-"): p.default for p in inspect.signature(prescreen).parameters.values()}
    return {name: value for name, value in options.items() if value != defaults[name]}


def compare(reports: Iterable[PrescreenReport]) -> pd.DataFrame:
    """Tabulate several reports, the largest expected gain first.

    Parameters
    ----------
    reports : iterable of PrescreenReport

    Returns
    -------
    DataFrame
        ``model``, ``dataset``, ``verdict``, ``alternative`` and ``alternative_accuracy`` (the best classifier without
        finetuning), ``gain``, ``gain_low``, ``gain_high``, ``interval``, ``lora_minutes``, and ``points_per_hour``,
        the expected gain divided by the duration of LoRA. The gains of two models are over different classifiers.

    Examples
    --------
    >>> reports = [prescreen("lab/XS", name, max_texts=150) for name in ("lab/topic", "lab/tense")]
    >>> compare(reports).shape
    (2, 11)
    """
    rows = [
        {
            "model": one.model,
            "dataset": one.dataset,
            "verdict": one.verdict,
            "alternative": one.alternative,
            "alternative_accuracy": one.alternatives[one.alternative],
            "gain": one.gain,
            "gain_low": one.gain_low,
            "gain_high": one.gain_high,
            "interval": one.interval,
            "lora_minutes": one.lora_seconds / 60,
            "points_per_hour": 100 * one.gain / (one.lora_seconds / 3600),
        }
        for one in reports
    ]
    return pd.DataFrame(rows).sort_values("gain", ascending=False, ignore_index=True, kind="stable")
