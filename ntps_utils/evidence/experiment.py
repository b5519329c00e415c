"""Cells: one model on one dataset, measured by scores, probes and finetuning.

The settings are fixed before any cell is run; :mod:`ntps_utils.evidence.benchmark` runs tables of cells.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.extraction import Extraction, extract, tokenize
from ntps_utils.models.finetuning import FinetuneConfig, finetune
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.probes import chance_adjusted, linear_probe, logistic_probe, warn_of_shared_texts
from ntps_utils.models.transferability import TRANSFERABILITY_SCORES, FrozenFeatures
from ntps_utils.theory.score import NumericalWarning, subspaces

SCORES = ("ntps", "ntps_metric", "ntps_task")


@dataclass(frozen=True)
class ExperimentConfig:
    """What is measured in every cell. Declared in the chapter on scores and probes.

    Attributes
    ----------
    spectrum : float
        Second rule for the width of V, beside half of the features: as many directions
        as hold this fraction of the autoregressive spectrum.
    lora, frozen : FinetuneConfig
        Adapters and head, and the head alone; their difference is the gain. Without
        ``lora`` neither is run.
    n_train, n_test : int, optional
        Texts of each split, the first ones; by default all.
    max_length : int, optional
        Tokens after which a text is cut, unless the model takes fewer; by default what it takes.
    dtype : str
        Of the forward passes.
    seed : int
        Of folds, batches, heads and adapters.
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
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("n_train", self.n_train, 1),
            ("n_test", self.n_test, 1),
            ("max_length", self.max_length, 2),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, or left out; got {value}.")
        if not 0.0 < self.spectrum <= 1.0:
            raise ValueError(f"spectrum must be a fraction in (0, 1], got {self.spectrum}.")

    def texts(self, dataset: str) -> tuple[TextDataset, TextDataset]:
        """The training and test texts of a dataset that a cell uses."""
        train, test = (
            part if n is None else part.head(n)
            for n, part in ((self.n_train, load_texts(dataset, "train")), (self.n_test, load_texts(dataset, "test")))
        )
        return train, test


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
"""For models of billions of parameters: bfloat16, adapters of the paper's rank, 3,000 training texts."""

PROFILES = {"cpu": ExperimentConfig(), "gpu": GPU}


def n_threads() -> int:
    """Threads that a cell may use: ``OMP_NUM_THREADS``, or one, since small models gain nothing from more."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def middle_and_last(n_layers: int) -> dict[str, int]:
    """The two layers that every cell is scored at, as indices into ``hidden_states``."""
    return {"middle": n_layers // 2, "last": n_layers - 1}


def score_extraction(extraction: Extraction, spectrum: float) -> list[dict[str, Any]]:
    """Every score at each layer extracted, centered and not, for both widths of V."""
    rows = []
    moments = extraction.moments
    for layer in moments.layers:
        for center in (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NumericalWarning)
                solved = subspaces(moments.layer(layer), layer=layer, center=center)
            share = solved.gamma.cumsum() / solved.gamma.sum()
            widths = {
                "half": solved.width(solved.d // 2),
                "spectrum": int(np.searchsorted(share, spectrum) + 1),
            }
            for rule, k_v in widths.items():
                row = solved.row(k_v)
                rows.append(
                    {
                        "layer": layer,
                        "centered": center,
                        "rule": rule,
                        "k_v": k_v,
                        **{name: getattr(row, name) for name in SCORES},
                        "trace_b": row.trace_b,
                        "excess_loss": row.excess_loss,
                        "trace_y": solved.trace_y,
                    }
                )
    return rows


def run_experiment(
    model: CausalModel, train: TextDataset, test: TextDataset, settings: ExperimentConfig
) -> dict[str, Any]:
    """Scores, probes, LoRA and its frozen-head baseline, and scores after LoRA, of one cell.

    Returns
    -------
    dict
        Plain values: accuracies are fractions, losses squared errors per text, times
        seconds. ``scores`` and ``scores_after`` are lists with one entry for each layer,
        centering and width.
    """
    started = time.perf_counter()
    warn_of_shared_texts(train.texts, test.texts)
    max_length = settings.max_length
    if max_length is not None and model.max_length is not None:
        max_length = min(max_length, model.max_length)
    layers = middle_and_last(model.n_layers)
    wanted = tuple(dict.fromkeys(layers.values()))
    at_train, at_test = (
        extract(model, part, layers=wanted, features=wanted, batch_size=64, max_length=max_length)
        for part in (train, test)
    )
    scores = score_extraction(at_train, settings.spectrum)
    score_seconds = time.perf_counter() - started
    y, y_test = train.labels[at_train.row_indices], test.labels[at_test.row_indices]
    row: dict[str, Any] = {
        "model": model.name,
        "dataset": train.name,
        "weights": model.fingerprint,
        "texts": train.fingerprint,
        "n_train": len(y),
        "n_test": len(y_test),
        "n_classes": train.n_classes,
        "n_features": model.dimension,
        "n_parameters": model.model.num_parameters(),
        "majority": float(np.bincount(y_test).max() / len(y_test)),
        "score_seconds": score_seconds,
    }
    for name, layer in layers.items():
        x, x_test = at_train.features[layer], at_test.features[layer]
        linear = linear_probe(x, y, x_test, y_test, n_classes=train.n_classes)
        logistic = logistic_probe(x, y, x_test, y_test, seed=settings.seed)
        row |= {
            f"probe_{name}": logistic.test_accuracy,
            f"probe_train_{name}": logistic.train_accuracy,
            f"probe_adjusted_{name}": chance_adjusted(logistic.test_accuracy, y_test),
            f"mse_{name}": linear.test_mse,
            f"mse_train_{name}": linear.train_mse,
        }
    row["scores"] = scores
    ids = tokenize(model, train, max_length).ids
    case = FrozenFeatures(
        at_train.features[layers["last"]], y, model, [ids[i] for i in at_train.row_indices], settings.seed
    )
    for name, rival in TRANSFERABILITY_SCORES.items():
        before = time.perf_counter()
        row[f"transfer_{name}"] = rival(case)
        row[f"transfer_{name}_seconds"] = time.perf_counter() - before
    if settings.lora is None:
        return row | {"seconds": time.perf_counter() - started}
    frozen = finetune(model, train, test, settings.frozen, max_length=max_length)
    lora = finetune(model, train, test, settings.lora, max_length=max_length)
    after = extract(lora.model, train, layers=wanted, batch_size=64, max_length=max_length)
    return row | {
        "frozen": frozen.accuracy,
        "lora": lora.accuracy,
        "gain": lora.accuracy - frozen.accuracy,
        "lora_adjusted": chance_adjusted(lora.accuracy, y_test),
        "lora_rate": lora.learning_rate,
        "lora_steps": lora.n_steps,
        "lora_seconds": lora.seconds,
        "frozen_seconds": frozen.seconds,
        "seconds": time.perf_counter() - started,
        "scores_after": score_extraction(after, settings.spectrum),
    }


def cell_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One line a cell: everything but the scores and the warnings."""
    left_out = ("scores", "scores_after", "warnings")
    return pd.DataFrame([{name: value for name, value in row.items() if name not in left_out} for row in rows])


def score_frame(rows: Iterable[dict[str, Any]], when: str = "before") -> pd.DataFrame:
    """One line for each cell, layer, centering and rule.

    Parameters
    ----------
    rows : iterable of dict
        Of :func:`ntps_utils.evidence.benchmark.run_benchmark`.
    when : {"before", "after"}
        LoRA.
    """
    field_name = {"before": "scores", "after": "scores_after"}[when]
    lines = []
    for row in rows:
        last = max(score["layer"] for score in row[field_name])
        for score in row[field_name]:
            place = "last" if score["layer"] == last else "middle"
            lines.append({"model": row["model"], "dataset": row["dataset"], "place": place, **score})
    return pd.DataFrame(lines)
