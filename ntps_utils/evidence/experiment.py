"""One experiment: scores, probes and finetuning of one model on one dataset.

:mod:`ntps_utils.evidence.benchmark` runs an experiment for every model and dataset.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from ntps_utils._utils.validation import check_choice, check_flag, check_integer, check_name, check_number, check_seed
from ntps_utils.evidence.classifiers import (
    ClassifierAccuracy,
    best_columns,
    compare_classifiers,
    probed_layers,
    texts_read,
)
from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import TextDataset, first_texts, has_splits, load_texts
from ntps_utils.models.extraction import Extraction, ExtractionWarning, Tokens, extract, tokenize
from ntps_utils.models.finetuning import CurvePoint, FinetuneConfig, FinetuneWarning, ProjectionError, finetune
from ntps_utils.models.loading import AUTO_FLOAT64_PARAMETERS, CausalModel
from ntps_utils.models.probes import (
    LogisticProbe,
    chance_adjusted,
    linear_probe,
    logistic_probe,
    warn_of_shared_texts,
)
from ntps_utils.models.transferability import TRANSFERABILITY_SCORES, FrozenFeatures
from ntps_utils.theory.controls import control_directions, control_scores
from ntps_utils.theory.score import NumericalWarning, subspaces

PLACES = ("middle", "last")
"""The two layers of an experiment, see :func:`middle_and_last`."""
CENTERINGS = (False, True)
"""Second moments as in the paper, and covariances."""
EXTRACTION_BATCH = 64
"""Texts in a forward pass of an experiment."""
CURVE_QUANTITIES = ("accuracy", "cross_entropy", "gradient_norm")
"""What a row tells about each evaluation of LoRA, in columns such as ``curve_accuracy_30``."""


@dataclass(frozen=True)
class ExperimentConfig:
    """Settings of an experiment.

    Attributes
    ----------
    spectrum : float
        Second rule for the width of V, besides half of the features: as many directions as
        hold this fraction of the autoregressive spectrum, in (0, 1].
    lora : FinetuneConfig or None
        Finetuning of adapters and head. With None, neither this nor ``frozen`` is run.
    frozen : FinetuneConfig
        Training of the head alone; the gain is the accuracy of ``lora`` minus that of ``frozen``.
    n_train, n_test : int, optional
        Number of texts of each split, the first ones; by default all.
    max_length : int, optional
        Tokens after which a text is truncated, if the model accepts as many; by default the
        limit of the model.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type of the weights in the forward passes.
    controls : bool
        Also score the control subspaces of the last layer (:mod:`ntps_utils.theory.controls`), on
        the training and on the test texts, before and after LoRA, and report the test R-squared of
        a linear probe on each subspace.
    test_last_step : bool
        Also classify the test texts after the last step of LoRA, and compute the scores after LoRA
        there, as the released script does, instead of at the chosen checkpoint.
    score_after : bool
        Also compute the scores after LoRA, from new forward passes of all texts.
    classifiers : bool
        Also measure the classifiers without finetuning that prescreening compares LoRA with
        (:mod:`ntps_utils.evidence.classifiers`), so that the results serve as its calibration.
    shuffle_labels : bool
        Finetune on permuted training labels: a control for what finetuning does without a task.
    text_column, label_column : str
        Columns of files, see :func:`ntps_utils.models.datasets.load_texts`.
    seed : int
        Random seed for folds and random projections. The finetuning runs have seeds of their own.

    Raises
    ------
    ValueError
        If a field is out of range, naming the field, its value and what is valid.

    Examples
    --------
    >>> ExperimentConfig(spectrum=95)
    Traceback (most recent call last):
    ...
    ValueError: spectrum must be a number in (0, 1], got 95.
    """

    spectrum: float = 0.95
    lora: FinetuneConfig | None = field(
        default_factory=lambda: FinetuneConfig(
            "lora",
            r=8,
            lora_alpha=16.0,
            learning_rates=(1e-2, 3e-3),
            max_steps=150,
            eval_steps=25,
            early_stopping_patience=3,
        )
    )
    frozen: FinetuneConfig = field(
        default_factory=lambda: FinetuneConfig(
            "frozen", learning_rates=(1e-2, 3e-3), max_steps=150, eval_steps=25, early_stopping_patience=3
        )
    )
    n_train: int | None = None
    n_test: int | None = None
    max_length: int | None = None
    dtype: str = "float32"
    controls: bool = False
    test_last_step: bool = False
    score_after: bool = True
    classifiers: bool = False
    shuffle_labels: bool = False
    text_column: str = "text"
    label_column: str = "label"
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("spectrum", self.spectrum, 0.0, 1.0, open_low=True)
        _check_finetuning("lora", self.lora, "lora", optional=True)
        _check_finetuning("frozen", self.frozen, "frozen")
        check_integer("n_train", self.n_train, 1, optional=True)
        check_integer("n_test", self.n_test, 1, optional=True)
        check_integer("max_length", self.max_length, 2, optional=True)
        check_choice("dtype", self.dtype, ("float32", "float64", "bfloat16", "float16"))
        for name in ("controls", "test_last_step", "score_after", "classifiers", "shuffle_labels"):
            check_flag(name, getattr(self, name))
        for name in ("text_column", "label_column"):
            check_name(name, getattr(self, name))
        check_seed("seed", self.seed)

    def texts(self, dataset: str) -> tuple[TextDataset, TextDataset]:
        """Load the training and test texts that an experiment uses.

        Parameters
        ----------
        dataset : str
            See :func:`ntps_utils.models.datasets.load_texts`.

        Returns
        -------
        train, test : TextDataset

        Raises
        ------
        HubError
            If they cannot be loaded, or the dataset is a single file, which has no texts to test on.

        Examples
        --------
        >>> train, test = ExperimentConfig(n_train=100, n_test=50).texts("lab/topic")
        >>> len(train), len(test)
        (100, 50)
        """
        if not has_splits(dataset):
            raise HubError(
                f"{dataset} is a single table, but an experiment needs texts to train on and others to test on; give a "
                "folder with train.csv and test.csv."
            )
        train, test = (
            load_texts(dataset, split, text_column=self.text_column, label_column=self.label_column)
            for split in ("train", "test")
        )
        return first_texts(train, self.n_train), first_texts(test, self.n_test)


def _check_finetuning(name: str, value: Any, method: str, *, optional: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, FinetuneConfig) or value.method != method:
        none = ", or None" if optional else ""
        raise ValueError(f"{name} must be a FinetuneConfig with the method {method!r}{none}, got {value!r}.")


GPU = ExperimentConfig(
    lora=FinetuneConfig(
        "lora",
        r=32,
        lora_alpha=32.0,
        learning_rates=(3e-4, 1e-4),
        max_steps=400,
        batch_size=16,
        eval_steps=50,
        early_stopping_patience=3,
    ),
    frozen=FinetuneConfig(
        "frozen", learning_rates=(1e-2, 3e-3), max_steps=400, eval_steps=50, early_stopping_patience=3
    ),
    n_train=3000,
    n_test=1500,
    max_length=512,
    dtype="bfloat16",
)
"""Settings for models of billions of parameters: bfloat16, adapters of the paper's rank, 3,000 training texts."""

_LAB_LORA = FinetuneConfig(
    "lora",
    r=8,
    lora_alpha=16.0,
    learning_rates=(3e-3,),
    max_steps=600,
    batch_size=32,
    eval_steps=(15, 30, 60, 150, 300, 450, 600),
    early_stopping_patience=None,
    metric_for_best_model="loss",
)
LAB = ExperimentConfig(
    lora=_LAB_LORA,
    frozen=replace(_LAB_LORA, method="frozen", learning_rates=(1e-2, 3e-3, 1e-3, 3e-4)),
    controls=True,
    test_last_step=True,
)
"""Settings of the recorded table of the lab: long enough for tasks whose loss falls late, and no early stopping."""

PROFILES = {"cpu": ExperimentConfig(), "gpu": GPU, "lab": LAB}


@dataclass(frozen=True)
class ProbeResult:
    """Probes of the text features of one layer.

    Attributes
    ----------
    accuracy, train_accuracy : float
        Accuracy of the logistic probe on the test and the training texts.
    adjusted_accuracy : float
        Chance-adjusted test accuracy, see :func:`ntps_utils.models.probes.chance_adjusted`.
    mse, train_mse : float
        Squared error per text of the linear probe, on the test and the training texts.
    r2 : float or None
        Share of the variance of the test targets that the linear probe explains.
    cross_entropy_skill : float or None
        One minus the cross-entropy of the logistic probe on the test texts, divided by that of the
        class frequencies of the training texts; None if a test text has a class without a training text.
    """

    accuracy: float
    train_accuracy: float
    adjusted_accuracy: float
    mse: float
    train_mse: float
    r2: float | None = None
    cross_entropy_skill: float | None = None


@dataclass(frozen=True)
class ScoreSetting:
    """Scores of one layer with one centering and one width of V.

    Attributes
    ----------
    layer : int
        Index into ``hidden_states``.
    centered : bool
        Covariances instead of second moments.
    rule : {"half", "spectrum"}
        How ``k_v`` was determined: half of the features, or a fraction of the spectrum.
    k_v : int
        Width of V.
    ntps, ntps_metric, ntps_task : float
        Euclidean, metric-matched and task-weighted score.
    trace_b : float
        Loss that a linear predictor on all features explains, tr B.
    excess_loss : float
        Part of it that is lost if only V is kept.
    trace_y : float
        Second moment (or variance) of the targets, tr Y.
    split : {"train", "test"}
        Texts that the moments come from.
    subspace : str
        "next_token", or one of ``ntps_utils.theory.controls.CONTROLS``.
    r2 : float or None
        Share of the variance of the test targets that a linear probe on the subspace explains; None
        if it was not computed.
    """

    layer: int
    centered: bool
    rule: Literal["half", "spectrum"]
    k_v: int
    ntps: float
    ntps_metric: float
    ntps_task: float
    trace_b: float
    excess_loss: float
    trace_y: float
    split: str = "train"
    subspace: str = "next_token"
    r2: float | None = None

    @property
    def explained(self) -> float:
        """Fraction of the targets' second moment (or variance) that the features explain, tr B / tr Y."""
        return self.trace_b / self.trace_y


@dataclass(frozen=True)
class TransferabilityValue:
    """A transferability score, and the seconds that it took."""

    value: float
    seconds: float


@dataclass(frozen=True)
class FinetuneComparison:
    """LoRA against a head on frozen features, both trained by the same loop.

    Attributes
    ----------
    frozen_accuracy, lora_accuracy : float
        Test accuracies.
    lora_adjusted_accuracy : float
        Chance-adjusted test accuracy of LoRA.
    learning_rate : float
        Learning rate that the validation split selected for LoRA.
    n_steps : int
        Training steps of the selected LoRA checkpoint.
    frozen_seconds, lora_seconds : float
        Duration of the two finetuning runs.
    frozen_cross_entropy, lora_cross_entropy : float or None
        On the test texts, in nats.
    last_accuracy, last_cross_entropy : float or None
        Of LoRA after its last step; None if it was not computed.
    base_dtype : str
        Type of the frozen weights during LoRA.
    frozen_curve, lora_curve : tuple of CurvePoint
        Evaluations on the validation split.
    frozen_predictions, lora_predictions : tuple of int
        Predicted class of each test text; empty unless ``test_last_step`` is set.
    """

    frozen_accuracy: float
    lora_accuracy: float
    lora_adjusted_accuracy: float
    learning_rate: float
    n_steps: int
    frozen_seconds: float
    lora_seconds: float
    frozen_cross_entropy: float | None = None
    lora_cross_entropy: float | None = None
    last_accuracy: float | None = None
    last_cross_entropy: float | None = None
    base_dtype: str = "float32"
    frozen_curve: tuple[CurvePoint, ...] = ()
    lora_curve: tuple[CurvePoint, ...] = ()
    frozen_predictions: tuple[int, ...] = ()
    lora_predictions: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create a comparison from dictionaries and lists.

        Parameters
        ----------
        values : mapping
            Fields by name, with curves as lists of dictionaries.

        Returns
        -------
        FinetuneComparison
        """
        curves = {
            name: tuple(CurvePoint(**point) for point in values.get(name, ()))
            for name in ("frozen_curve", "lora_curve")
        }
        predictions = {name: tuple(values.get(name, ())) for name in ("frozen_predictions", "lora_predictions")}
        return cls(**{**values, **curves, **predictions})

    @property
    def gain(self) -> float:
        """Accuracy of LoRA minus that of the head on frozen features."""
        return self.lora_accuracy - self.frozen_accuracy


@dataclass(frozen=True)
class ExperimentResult:
    """Result of one experiment. Accuracies are fractions, losses squared errors per text, times seconds.

    Attributes
    ----------
    model, dataset : str
        Names.
    weights, texts : str
        Fingerprints of the model and of the training texts.
    n_train, n_test : int
        Number of texts that have at least one token.
    n_classes, n_features, n_parameters : int
        Number of classes, of features d, and of parameters of the model.
    majority : float
        Share of the most frequent class in the test texts.
    probes : mapping of str to ProbeResult
        By place, see ``PLACES``.
    scores : tuple of ScoreSetting
        One for each layer, centering and width.
    transferability : mapping of str to TransferabilityValue
        By name, see ``ntps_utils.models.transferability.TRANSFERABILITY_SCORES``; without those that
        the model has no modules for.
    score_seconds : float
        Duration of tokenization, extraction and scoring.
    seconds : float
        Duration of the whole experiment.
    finetuning : FinetuneComparison or None
        None if the settings have no LoRA run.
    scores_after : tuple of ScoreSetting
        Scores after LoRA; empty without a LoRA run, or where the settings leave them out.
    warnings : tuple of str
        Warnings of this library during the experiment.
    classifiers : mapping of str to ClassifierAccuracy
        By name, see :func:`~ntps_utils.evidence.classifiers.best_alternative`; empty where the settings leave them
        out.
    """

    model: str
    dataset: str
    weights: str
    texts: str
    n_train: int
    n_test: int
    n_classes: int
    n_features: int
    n_parameters: int
    majority: float
    probes: Mapping[str, ProbeResult]
    scores: tuple[ScoreSetting, ...]
    transferability: Mapping[str, TransferabilityValue]
    score_seconds: float
    seconds: float
    finetuning: FinetuneComparison | None = None
    scores_after: tuple[ScoreSetting, ...] = ()
    warnings: tuple[str, ...] = ()
    classifiers: Mapping[str, ClassifierAccuracy] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Convert to dictionaries, lists and numbers that JSON can represent.

        Returns
        -------
        dict
            Input of :meth:`from_dict`.
        """
        values: dict[str, Any] = _with_lists(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create a result from the output of :meth:`to_dict`.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        ExperimentResult
        """
        finetuning = values["finetuning"]
        return cls(
            **{
                **values,
                "probes": {name: ProbeResult(**part) for name, part in values["probes"].items()},
                "scores": tuple(ScoreSetting(**part) for part in values["scores"]),
                "transferability": {
                    name: TransferabilityValue(**part) for name, part in values["transferability"].items()
                },
                "finetuning": None if finetuning is None else FinetuneComparison.from_dict(finetuning),
                "scores_after": tuple(ScoreSetting(**part) for part in values["scores_after"]),
                "warnings": tuple(values["warnings"]),
                "classifiers": {
                    name: ClassifierAccuracy(**part) for name, part in values.get("classifiers", {}).items()
                },
            }
        )

    def to_row(self) -> dict[str, Any]:
        """Flatten to one row of a table: everything except scores and warnings.

        Returns
        -------
        dict
            Values by column name. The names are those of the recorded tables.
        """
        row: dict[str, Any] = {
            "model": self.model,
            "dataset": self.dataset,
            "weights": self.weights,
            "texts": self.texts,
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_classes": self.n_classes,
            "n_features": self.n_features,
            "n_parameters": self.n_parameters,
            "majority": self.majority,
            "score_seconds": self.score_seconds,
        }
        for place, probe in self.probes.items():
            row |= {
                f"probe_{place}": probe.accuracy,
                f"probe_train_{place}": probe.train_accuracy,
                f"probe_adjusted_{place}": probe.adjusted_accuracy,
                f"mse_{place}": probe.mse,
                f"mse_train_{place}": probe.train_mse,
            }
            more = {f"r2_{place}": probe.r2, f"cross_entropy_skill_{place}": probe.cross_entropy_skill}
            row |= {name: value for name, value in more.items() if value is not None}
        for name, score in self.transferability.items():
            row |= {f"transfer_{name}": score.value, f"transfer_{name}_seconds": score.seconds}
        if self.classifiers:
            row |= best_columns(self.classifiers, None if self.finetuning is None else self.finetuning.lora_accuracy)
        if (tuned := self.finetuning) is not None:
            row |= {
                "frozen": tuned.frozen_accuracy,
                "lora": tuned.lora_accuracy,
                "gain": tuned.gain,
                "lora_adjusted": tuned.lora_adjusted_accuracy,
                "lora_rate": tuned.learning_rate,
                "lora_steps": tuned.n_steps,
                "lora_seconds": tuned.lora_seconds,
                "frozen_seconds": tuned.frozen_seconds,
            }
            more = {
                "frozen_cross_entropy": tuned.frozen_cross_entropy,
                "lora_cross_entropy": tuned.lora_cross_entropy,
                "last": tuned.last_accuracy,
                "last_cross_entropy": tuned.last_cross_entropy,
            }
            row |= {name: value for name, value in more.items() if value is not None}
            for point in tuned.lora_curve:
                for quantity in CURVE_QUANTITIES:
                    if (value := getattr(point, quantity)) is not None:
                        row[f"curve_{quantity}_{point.step}"] = value
        return row | {"seconds": self.seconds}


def _with_lists(value: Any) -> Any:
    """Convert tuples to lists, as JSON has them, also inside dictionaries."""
    if isinstance(value, dict):
        return {name: _with_lists(one) for name, one in value.items()}
    return [_with_lists(one) for one in value] if isinstance(value, (list, tuple)) else value


def n_threads(n_parameters: int = 0, n_processes: int = 1) -> int:
    """Determine the number of threads of an experiment.

    Parameters
    ----------
    n_parameters : int
        Size of the model.
    n_processes : int
        Number of processes that run experiments at the same time on this machine.

    Returns
    -------
    int
        ``OMP_NUM_THREADS`` if it is set. Otherwise 1 for a model of at most 50 million parameters,
        which gains nothing from more, and an equal share of the cores for a larger one. More
        threads than cores wait for each other, which can make a run ten times slower.

    Examples
    --------
    >>> n_threads(n_processes=2) >= 1
    True
    """
    if "OMP_NUM_THREADS" in os.environ:
        return int(os.environ["OMP_NUM_THREADS"])
    return 1 if n_parameters <= AUTO_FLOAT64_PARAMETERS else max(1, n_cores() // n_processes)


@contextmanager
def limited_threads(n_parameters: int, n_processes: int = 1) -> Iterator[None]:
    """Compute with the threads that suit a model (:func:`n_threads`) within a block.

    Parameters
    ----------
    n_parameters : int
        Size of the model.
    n_processes : int
        Number of processes that run experiments at the same time on this machine.

    Examples
    --------
    >>> with limited_threads(1000):
    ...     threads = torch.get_num_threads()
    >>> threads == n_threads(1000)
    True
    """
    before, threads = torch.get_num_threads(), n_threads(n_parameters, n_processes)
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def n_cores() -> int:
    """Count the CPU cores that this process may use.

    Returns
    -------
    int

    Examples
    --------
    >>> n_cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def middle_and_last(n_layers: int) -> dict[str, int]:
    """Determine the two layers at which a model is scored.

    Parameters
    ----------
    n_layers : int
        Number of hidden states: the embeddings and the output of every block.

    Returns
    -------
    dict of str to int
        Indices into ``hidden_states`` by place, see ``PLACES``.

    Examples
    --------
    >>> middle_and_last(13)
    {'middle': 6, 'last': 12}
    """
    return dict(zip(PLACES, (n_layers // 2, n_layers - 1), strict=True))


def score_extraction(
    extraction: Extraction,
    spectrum: float,
    *,
    layers: tuple[int, ...] | None = None,
    split: str = "train",
    controls: bool = False,
    test: Extraction | None = None,
    labels: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    seed: int = 0,
) -> tuple[ScoreSetting, ...]:
    """Compute all scores of extracted layers, with both centerings and both widths of V.

    Parameters
    ----------
    extraction : Extraction
    spectrum : float
        Fraction of the autoregressive spectrum of the second width, in (0, 1].
    layers : tuple of int, optional
        Layers to score; by default all extracted ones.
    split : {"train", "test"}
        What to note as the origin of the texts.
    controls : bool
        Also score the control subspaces at half of the features of the last layer.
    test : Extraction, optional
        Features of other texts. With it, probes on each subspace are fitted to ``extraction`` and
        tested there, for the last layer with centered moments at half of the features.
    labels : tuple of two arrays, optional
        Class numbers of the texts of ``extraction`` and of ``test``.
    seed : int
        Random seed for the random control.

    Returns
    -------
    tuple of ScoreSetting

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> extraction = extract(load_model("lab/XS"), load_texts("lab/topic").head(50), layers="last")
    >>> [(s.layer, s.centered, s.rule) for s in score_extraction(extraction, 0.95)][:2]
    [(3, False, 'half'), (3, False, 'spectrum')]
    """
    settings = []
    moments = extraction.moments
    last = moments.layers[-1]
    for layer in moments.layers if layers is None else dict.fromkeys(layers):
        for center in CENTERINGS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NumericalWarning)
                solved = subspaces(moments.layer(layer), layer=layer, center=center)
            share = solved.gamma.cumsum() / solved.gamma.sum()
            widths: dict[Literal["half", "spectrum"], int] = {
                "half": solved.width(solved.d // 2),
                "spectrum": int(np.searchsorted(share, spectrum) + 1),
            }
            for rule, k_v in widths.items():
                row = solved.row(k_v)
                own = ScoreSetting(
                    layer=layer,
                    centered=center,
                    rule=rule,
                    k_v=k_v,
                    ntps=row.ntps,
                    ntps_metric=row.ntps_metric,
                    ntps_task=row.ntps_task,
                    trace_b=row.trace_b,
                    excess_loss=row.excess_loss,
                    trace_y=solved.trace_y,
                    split=split,
                )
                primary = controls and layer == last and rule == "half"
                directions = control_directions(moments.layer(layer), solved) if primary else {}
                r2 = {}
                if primary and center and test is not None and labels is not None:
                    pair = extraction.features[layer], test.features[layer]
                    r2 = {
                        name: _subspace_r2(V[:, :k_v], *pair, *labels)
                        for name, V in {"next_token": solved.V, **directions}.items()
                    }
                settings.append(replace(own, r2=r2.get("next_token")))
                if primary:
                    settings += [
                        replace(
                            own,
                            subspace=one.control,
                            k_v=one.k_v,
                            ntps=one.ntps,
                            ntps_metric=one.ntps_metric,
                            ntps_task=one.ntps_task,
                            excess_loss=row.trace_b * (1.0 - one.ntps_task),
                            r2=r2.get(one.control),
                        )
                        for one in control_scores(solved, directions, k_v, seed=seed)
                    ]
    return tuple(settings)


def _subspace_r2(
    V: NDArray[np.float64],
    x: NDArray[np.float64],
    x_test: NDArray[np.float64],
    y: NDArray[np.int64],
    y_test: NDArray[np.int64],
) -> float:
    """Test R-squared of a linear probe on the span of V."""
    Q = np.linalg.qr(V)[0]
    n_classes = int(max(y.max(), y_test.max())) + 1
    return _r2(linear_probe(x @ Q, y, x_test @ Q, y_test, n_classes=n_classes).test_mse, y_test)


def _r2(mse: float, y_test: NDArray[np.int64]) -> float:
    """One minus a squared error per text divided by the variance of one-hot targets."""
    shares = np.bincount(y_test) / len(y_test)
    return float(1.0 - mse / (1.0 - np.sum(shares**2)))


def run_experiment(
    model: CausalModel, train: TextDataset, test: TextDataset, settings: ExperimentConfig
) -> ExperimentResult:
    """Score, probe and finetune a model on a dataset.

    Each text is tokenized once.

    Parameters
    ----------
    model : CausalModel
        It is not changed.
    train, test : TextDataset
        With the same classes.
    settings : ExperimentConfig
        ``n_train``, ``n_test`` and ``dtype`` are not applied here; see
        :meth:`ExperimentConfig.texts` and :func:`ntps_utils.models.loading.load_model`.

    Returns
    -------
    ExperimentResult

    Raises
    ------
    ValueError
        If the texts cannot be extracted, probed or finetuned on; the message says why.

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> settings = ExperimentConfig(lora=None, n_train=40, n_test=20)
    >>> model = load_model("lab/XS", dtype="float32")
    >>> result = run_experiment(model, *settings.texts("lab/tense"), settings)
    >>> result.n_train, len(result.scores), result.finetuning
    (40, 8, None)
    """
    started = time.perf_counter()
    warn_of_shared_texts(train.texts, test.texts)
    max_length = settings.max_length
    if max_length is not None and model.max_length is not None:
        max_length = min(max_length, model.max_length)
    (train, train_tokens), (test, test_tokens) = (_with_tokens(model, part, max_length) for part in (train, test))
    for part in (train, test):
        if len(np.unique(part.labels)) < 2:
            raise ValueError(
                f"All {len(part)} {part.split} texts of {part.name} have one class, so that no accuracy says anything; "
                "give texts of at least two classes."
            )
    places = middle_and_last(model.n_layers)
    more = probed_layers(model.n_layers) if settings.classifiers else ()
    layers = tuple(sorted({*places.values(), *more}))
    extraction, test_extraction = (
        extract(model, part, layers=layers, features=layers, batch_size=EXTRACTION_BATCH, tokens=tokens)
        for part, tokens in ((train, train_tokens), (test, test_tokens))
    )
    y, y_test = train.labels[extraction.row_indices], test.labels[test_extraction.row_indices]
    scores = score_extraction(
        extraction,
        settings.spectrum,
        layers=tuple(places.values()),
        controls=settings.controls,
        test=test_extraction,
        labels=(y, y_test),
        seed=settings.seed,
    )
    score_seconds = time.perf_counter() - started
    if settings.controls:
        scores += score_extraction(
            test_extraction,
            settings.spectrum,
            layers=tuple(places.values()),
            split="test",
            controls=True,
            seed=settings.seed,
        )
    probes = {
        place: _probe(extraction.features[layer], y, test_extraction.features[layer], y_test, train, settings.seed)
        for place, layer in places.items()
    }
    features = FrozenFeatures(
        extraction.features[places["last"]],
        y,
        model,
        [train_tokens.ids[i] for i in extraction.row_indices],
        settings.seed,
        None if settings.lora is None else settings.lora.target_modules,
    )
    transferability = _transferability(features)
    classifiers: dict[str, ClassifierAccuracy] = {}
    if settings.classifiers:
        classifiers = compare_classifiers(
            {layer: extraction.features[layer] for layer in more},
            {layer: test_extraction.features[layer] for layer in more},
            (texts_read(model, train, train_tokens), texts_read(model, test, test_tokens)),
            (y, y_test),
            seed=settings.seed,
        )
    finetuning: FinetuneComparison | None = None
    scores_after: tuple[ScoreSetting, ...] = ()
    if settings.lora is not None:
        last = places["last"]
        finetuning, scores_after = _compare_finetuning(
            model,
            train,
            test,
            train_tokens,
            test_tokens,
            (extraction.features[last], test_extraction.features[last]),
            settings,
        )
    return ExperimentResult(
        model=model.name,
        dataset=train.name,
        weights=model.fingerprint,
        texts=train.fingerprint,
        n_train=len(y),
        n_test=len(y_test),
        n_classes=train.n_classes,
        n_features=model.dimension,
        n_parameters=model.model.num_parameters(),
        majority=float(np.bincount(y_test).max() / len(y_test)),
        probes=probes,
        scores=scores,
        transferability=transferability,
        score_seconds=score_seconds,
        seconds=time.perf_counter() - started,
        finetuning=finetuning,
        scores_after=scores_after,
        classifiers=classifiers,
    )


def run_with_warnings(
    model: CausalModel, train: TextDataset, test: TextDataset, settings: ExperimentConfig
) -> ExperimentResult:
    """Run an experiment, and keep the warnings of this library in its result instead of showing them.

    Parameters
    ----------
    model, train, test, settings
        See :func:`run_experiment`.

    Returns
    -------
    ExperimentResult
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run_experiment(model, train, test, settings)
    messages = {str(w.message) for w in caught if w.category.__module__.startswith("ntps_utils")}
    return replace(result, warnings=tuple(sorted(messages)))


def _with_tokens(model: CausalModel, data: TextDataset, max_length: int | None) -> tuple[TextDataset, Tokens]:
    """The texts that have a token, and their tokens."""
    tokens = tokenize(model, data, max_length)
    rows = [row for row, ids in enumerate(tokens.ids) if ids]
    if rows and len(rows) < len(data):
        warnings.warn(
            f"{len(data) - len(rows)} of {len(data)} texts of {data.name}/{data.split} have no token and are left out.",
            ExtractionWarning,
            stacklevel=3,
        )
        data = data.select(rows)
        tokens = tokenize(model, data, max_length)
    return data, tokens


def _probe(
    x: NDArray[np.float64],
    y: NDArray[np.int64],
    x_test: NDArray[np.float64],
    y_test: NDArray[np.int64],
    train: TextDataset,
    seed: int,
) -> ProbeResult:
    linear = linear_probe(x, y, x_test, y_test, n_classes=train.n_classes)
    logistic = logistic_probe(x, y, x_test, y_test, seed=seed)
    return ProbeResult(
        accuracy=logistic.test_accuracy,
        train_accuracy=logistic.train_accuracy,
        adjusted_accuracy=chance_adjusted(logistic.test_accuracy, y_test),
        mse=linear.test_mse,
        train_mse=linear.train_mse,
        r2=_r2(linear.test_mse, y_test),
        cross_entropy_skill=_cross_entropy_skill(logistic, x, x_test, y, y_test),
    )


def _cross_entropy_skill(
    probe: LogisticProbe,
    x: NDArray[np.float64],
    x_test: NDArray[np.float64],
    y: NDArray[np.int64],
    y_test: NDArray[np.int64],
) -> float | None:
    if not np.isin(y_test, probe.classes).all():
        return None
    scale = x.std(0)
    scale[scale == 0.0] = 1.0
    scores = (x_test - x.mean(0)) / scale @ probe.weights.T + probe.biases
    columns = np.searchsorted(probe.classes, y_test)
    log_p = scores[np.arange(len(scores)), columns] - logsumexp(scores, axis=1)
    prior = np.log(np.bincount(y, minlength=int(y_test.max()) + 1) / len(y))[y_test]
    return float(1.0 - log_p.mean() / prior.mean())


def _transferability(features: FrozenFeatures) -> dict[str, TransferabilityValue]:
    values = {}
    for name, score in TRANSFERABILITY_SCORES.items():
        started = time.perf_counter()
        try:
            value = score(features)
        except ProjectionError as error:
            warnings.warn(f"The score {name!r} is left out: {error}", FinetuneWarning, stacklevel=3)
            continue
        values[name] = TransferabilityValue(value, time.perf_counter() - started)
    return values


def _compare_finetuning(
    model: CausalModel,
    train: TextDataset,
    test: TextDataset,
    train_tokens: Tokens,
    test_tokens: Tokens,
    features: tuple[NDArray[np.float64], NDArray[np.float64]],
    settings: ExperimentConfig,
) -> tuple[FinetuneComparison, tuple[ScoreSetting, ...]]:
    """LoRA against a head on frozen features, and the scores after LoRA."""
    assert settings.lora is not None
    if settings.shuffle_labels:
        order = np.random.default_rng(settings.seed).permutation(len(train))
        train = replace(train, labels=train.labels[order])
    complete = len(features[0]) == len(train) and len(features[1]) == len(test)
    frozen, lora = (
        finetune(
            model,
            train,
            test,
            config,
            train_tokens=train_tokens,
            test_tokens=test_tokens,
            features=features if complete else None,
            test_last_step=settings.test_last_step and config.method == "lora",
        )
        for config in (settings.frozen, settings.lora)
    )
    layers = tuple(dict.fromkeys(middle_and_last(model.n_layers).values()))
    tuned = lora.last_model or lora.model
    after: tuple[ScoreSetting, ...] = ()
    if settings.score_after:
        on_train = extract(tuned, train, layers=layers, batch_size=EXTRACTION_BATCH, tokens=train_tokens)
        after = score_extraction(on_train, settings.spectrum)
    if settings.score_after and settings.controls:
        on_test = extract(tuned, test, layers=layers, batch_size=EXTRACTION_BATCH, tokens=test_tokens)
        after += score_extraction(on_test, settings.spectrum, split="test", controls=True, seed=settings.seed)
    last = lora.last_step
    comparison = FinetuneComparison(
        frozen_accuracy=frozen.accuracy,
        lora_accuracy=lora.accuracy,
        lora_adjusted_accuracy=chance_adjusted(lora.accuracy, test.labels),
        learning_rate=lora.learning_rate,
        n_steps=lora.n_steps,
        frozen_seconds=frozen.seconds,
        lora_seconds=lora.seconds,
        frozen_cross_entropy=frozen.test.cross_entropy,
        lora_cross_entropy=lora.test.cross_entropy,
        last_accuracy=None if last is None else last.accuracy,
        last_cross_entropy=None if last is None else last.cross_entropy,
        base_dtype=lora.base_dtype,
        frozen_curve=frozen.curve,
        lora_curve=lora.curve,
        frozen_predictions=tuple(map(int, frozen.predictions)) if settings.test_last_step else (),
        lora_predictions=tuple(map(int, lora.predictions)) if settings.test_last_step else (),
    )
    return comparison, after


def cell_frame(results: Iterable[ExperimentResult]) -> pd.DataFrame:
    """Tabulate results, one row per cell, without scores and warnings.

    Parameters
    ----------
    results : iterable of ExperimentResult

    Returns
    -------
    DataFrame
        Columns of :meth:`ExperimentResult.to_row`.
    """
    return pd.DataFrame([result.to_row() for result in results])


def score_frame(
    results: Iterable[ExperimentResult], when: Literal["before", "after"] = "before", *, controls: bool = False
) -> pd.DataFrame:
    """Tabulate scores, one row per cell, layer, centering and width.

    Parameters
    ----------
    results : iterable of ExperimentResult
    when : {"before", "after"}
        Scores before or after LoRA.
    controls : bool
        Include the rows of control subspaces and of test texts.

    Returns
    -------
    DataFrame
        ``model``, ``dataset``, ``place`` and the fields of :class:`ScoreSetting`; without ``controls``
        not those that tell controls and splits apart.

    Raises
    ------
    ValueError
        If a result has no scores after LoRA.
    """
    check_choice("when", when, ("before", "after"))
    rows = []
    for result in results:
        scores = result.scores if when == "before" else result.scores_after
        if not scores:
            raise ValueError(
                f"{result.model} on {result.dataset} has no scores after LoRA; run the experiment with LoRA and with "
                "score_after."
            )
        last_layer = max(score.layer for score in scores)
        for score in scores:
            place = "last" if score.layer == last_layer else "middle"
            values = asdict(score)
            if not controls:
                if (values.pop("split"), values.pop("subspace")) != ("train", "next_token"):
                    continue
                values.pop("r2")
            rows.append({"model": result.model, "dataset": result.dataset, "place": place, **values})
    return pd.DataFrame(rows)
