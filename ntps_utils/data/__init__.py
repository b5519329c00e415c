"""Declarative entries and cited facts that ship with the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pandas as pd

TARGETS = ("mse", "accuracy", "gain")
"""What the paper correlates NTPS with: Figure 2 (two panels) and Figure 3."""


def load_reported() -> pd.DataFrame:
    """The 96 cells (8 models x 12 datasets) behind Figures 2 and 3 of arXiv:2505.17169.

    Transcribed from the numbers released with the paper (repository Yu-AngCheng/NTPS,
    commit 0f877f7). Accuracies are shares of one.

    Returns
    -------
    DataFrame
        ``model``, ``dataset``; ``ntps_vs_mse``, ``ntps_vs_accuracy``, ``ntps_vs_gain``: the
        NTPS that the paper sets against each target, each at a layer and k of its own;
        ``probe_train_mse``, ``probe_train_accuracy``: on the data the probe was fitted on;
        ``lora_test_accuracy``, ``probe_test_accuracy``: held out; and, computed here,
        ``gain = lora_test_accuracy - probe_test_accuracy``,
        ``headroom = 1 - probe_test_accuracy``.
    """
    cells = pd.read_csv(str(resources.files("ntps_utils.data").joinpath("reported_cells.csv")))
    cells["gain"] = cells["lora_test_accuracy"] - cells["probe_test_accuracy"]
    cells["headroom"] = 1.0 - cells["probe_test_accuracy"]
    return cells


def load_printed_coefficients() -> pd.DataFrame:
    """The 24 Spearman coefficients printed in those figures: index model, columns ``TARGETS``."""
    printed = pd.read_csv(str(resources.files("ntps_utils.data").joinpath("reported_coefficients.csv")))
    printed.columns = pd.Index(["model", *TARGETS])
    return printed.set_index("model")


def as_plotted(cells: pd.DataFrame, target: str) -> tuple[pd.Series, pd.Series]:
    """NTPS and the quantity that the paper correlates it with: accuracy, *minus* MSE, *minus* gain.

    Raises
    ------
    ValueError
        If the target is not one of ``TARGETS``.
    """
    match target:
        case "mse":
            return cells["ntps_vs_mse"], -cells["probe_train_mse"]
        case "accuracy":
            return cells["ntps_vs_accuracy"], cells["probe_train_accuracy"]
        case "gain":
            return cells["ntps_vs_gain"], -cells["gain"]
    raise ValueError(f"There is no target {target!r}; choose one of {', '.join(TARGETS)}.")


def tie_orders(values: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Ranks with ties broken by position, and by position from the end."""
    return values.rank(method="first"), values[::-1].rank(method="first")[::-1]


def load_learnability() -> pd.DataFrame:
    """How well full finetuning of lab/L learns each task of the lab, as recorded by ``ntps lab learn``.

    Returns
    -------
    DataFrame
        ``task``, ``kind``, ``majority`` and ``best_possible`` (accuracies of the commonest
        class and of the best possible reader), ``accuracy``, ``share`` (of the way from one
        to the other; missing for the control), ``n_train``, ``n_test``, ``n_steps``, ``seconds``.
    """
    return pd.read_csv(str(resources.files("ntps_utils.data").joinpath("recorded/lab_learnability.csv")))


def load_text_sizes() -> pd.DataFrame:
    """Sizes of copies of eleven of the paper's datasets under the GPU profile, at four characters a token.

    ``intent_classification`` is CLINC150, which stands in for it; of ``bias_identification``
    no source is known. ``imdb`` was copied in part.

    Returns
    -------
    DataFrame
        Index ``dataset``; the fields of :class:`ntps_utils.cost.TextSize`.
    """
    return pd.read_csv(str(resources.files("ntps_utils.data").joinpath("text_sizes.csv")), index_col="dataset")


def load_bench() -> dict[str, Any]:
    """What ``make bench`` measured, as recorded: ``extraction`` by shape, ``scores``, ``provenance``."""
    return dict(json.loads(resources.files("ntps_utils.data").joinpath("recorded/bench_cpu.json").read_text("utf-8")))
