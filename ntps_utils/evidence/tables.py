"""Tables of results: build, record, load, compare and export them; numbers cited from the paper."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ntps_utils._utils.files import atomic_path, data_file, write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils._utils.validation import check_choice
from ntps_utils.evidence.experiment import ExperimentConfig, ExperimentResult, cell_frame, score_frame
from ntps_utils.evidence.store import Store

RECORDED = ("lab", "lab_seed1", "real", "control", "rehearsal")
"""Names of the tables that ship with the library, see :func:`load_recorded`."""

CELL = ["model", "dataset"]
"""The columns that identify a cell: a pair of a model and a dataset."""

PRIMARY = "place == 'last' and rule == 'half' and not centered"
"""The setting that is fixed in advance for the paper's score: last layer, half of the features, second moments.

A query for :func:`score_table`: ``scores.query(PRIMARY)``.
"""

PRIMARY_CENTERED = "place == 'last' and rule == 'half' and centered"
"""The same with covariances, for the metric-matched and the task-weighted score."""


def cell_table(results: Iterable[ExperimentResult]) -> pd.DataFrame:
    """Tabulate results, one row per cell, with the scores at the primary setting.

    Parameters
    ----------
    results : iterable of ExperimentResult

    Returns
    -------
    DataFrame
        The columns of :meth:`~ntps_utils.evidence.experiment.ExperimentResult.to_row`; ``ntps`` from second
        moments, ``ntps_metric`` and ``ntps_task`` from covariances, before and (``_after``) after LoRA, with
        ``_test`` from test texts, and with the name of a control such as ``_pca_s`` for its subspace;
        ``explained``, the fraction of the targets' variance that a linear predictor explains on the training texts.
    """
    results = list(results)
    table = cell_frame(results).merge(_primary_scores(score_frame(results, controls=True)), on=CELL)
    if all(result.scores_after for result in results):
        after = _primary_scores(score_frame(results, "after", controls=True)).drop(columns="explained")
        table = table.merge(after.rename(columns=lambda name: name if name in CELL else f"{name}_after"), on=CELL)
    return table


def _primary_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores at the primary setting, one row per cell."""
    last = scores.query("place == 'last' and rule == 'half'")
    columns = {}
    for (split, subspace, centered), rows in last.groupby(["split", "subspace", "centered"]):
        end = "" if split == "train" else "_test"
        if subspace != "next_token":
            end = f"_{subspace}{end}"
        rows = rows.set_index(CELL)
        if not centered:
            columns[f"ntps{end}"] = rows["ntps"]
        else:
            columns |= {f"{name}{end}": rows[name] for name in ("ntps_metric", "ntps_task")}
        if centered and not end:
            columns["explained"] = rows["trace_b"] / rows["trace_y"]
    return pd.DataFrame(columns).reset_index()


def score_table(results: Iterable[ExperimentResult]) -> pd.DataFrame:
    """Tabulate the scores of all cells at all settings, before and after LoRA.

    Parameters
    ----------
    results : iterable of ExperimentResult

    Returns
    -------
    DataFrame
        The columns of :func:`~ntps_utils.evidence.experiment.score_frame`, and ``when``:
        "before" or "after" LoRA.
    """
    results = list(results)
    parts = [score_frame(results).assign(when="before")]
    if all(result.scores_after for result in results):
        parts.append(score_frame(results, "after").assign(when="after"))
    return pd.concat(parts, ignore_index=True)


def record(
    results: Sequence[ExperimentResult], prefix: Path, settings: ExperimentConfig, command: str, **facts: Any
) -> None:
    """Write ``PREFIX_cells.csv``, ``PREFIX_scores.csv`` and the provenance of both, ``PREFIX_cells.json``.

    Parameters
    ----------
    results : sequence of ExperimentResult
    prefix : Path
        Folder and beginning of the names of the files.
    settings : ExperimentConfig
        Settings of the results.
    command : str
        Command that produced the results.
    **facts : object
        Further values for the provenance.
    """
    for name, table in (("cells", cell_table(results)), ("scores", score_table(results))):
        with atomic_path(prefix.with_name(f"{prefix.name}_{name}.csv")) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    write_json(
        prefix.with_name(f"{prefix.name}_cells.json"),
        provenance(command=command, settings=asdict(settings), **facts),
    )


def load_recorded(name: str, what: Literal["cells", "scores"] = "cells") -> pd.DataFrame:
    """Load a table that ships with the library.

    Parameters
    ----------
    name : {"lab", "lab_seed1", "real", "control", "rehearsal"}
        The lab's models on its tasks, with two random seeds; small models on real texts; a model that is untrained and
        one that was pretrained on shuffled documents; and the paper's grid, with models and tasks
        of the lab in place of the paper's.
    what : {"cells", "scores"}
        :func:`cell_table` or :func:`score_table`.

    Returns
    -------
    DataFrame

    Raises
    ------
    ValueError
        If there is no such table.

    Examples
    --------
    >>> len(load_recorded("lab")), len(load_recorded("lab", "scores").query(PRIMARY))
    (64, 128)
    """
    check_choice("the name of a recorded table", name, RECORDED)
    check_choice("what", what, ("cells", "scores"))
    return pd.read_csv(data_file(f"recorded/{name}_{what}.csv"))


def recorded_provenance(name: str) -> dict[str, Any]:
    """Load command, settings, versions, machine and date of a recorded table.

    Parameters
    ----------
    name : str
        See :func:`load_recorded`.

    Returns
    -------
    dict

    Examples
    --------
    >>> recorded_provenance("lab")["settings"]["spectrum"]
    0.95
    """
    check_choice("the name of a recorded table", name, RECORDED)
    return dict(json.loads(data_file(f"recorded/{name}_cells.json").read_text("utf-8")))


def recorded_on(names: Iterable[str]) -> str:
    """Format the days on which tables were recorded, for the foot of a page.

    Parameters
    ----------
    names : iterable of str
        See :func:`load_recorded`.

    Returns
    -------
    str
        Such as "lab: 2026-01-31 · real: 2026-02-01".
    """
    return " · ".join(f"{name}: {recorded_provenance(name)['date'][:10]}" for name in names)


def stored_results(store: Store) -> dict[str, ExperimentResult]:
    """Load the results of all cells in a store.

    Parameters
    ----------
    store : Store
        Results of another kind in it are ignored.

    Returns
    -------
    dict of str to ExperimentResult
        By the key of their file.
    """
    return {store.key(settings): ExperimentResult.from_dict(values) for settings, values in store if "scores" in values}


def stored_cells(store: Store) -> pd.DataFrame:
    """Tabulate the cells in a store.

    Parameters
    ----------
    store : Store

    Returns
    -------
    DataFrame
        ``key``, the name of the file, and the columns of
        :meth:`~ntps_utils.evidence.experiment.ExperimentResult.to_row`; one row per cell.
    """
    return pd.DataFrame([{"key": key, **result.to_row()} for key, result in stored_results(store).items()])


def export(store: Store, file: Path) -> int:
    """Write all cells of a store to one Parquet file.

    Parameters
    ----------
    store : Store
    file : Path
        File to write, with the columns of :func:`stored_cells`, the nested columns ``scores``,
        ``scores_after`` and ``warnings``, and ``settings`` as JSON.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    ValueError
        If the store contains no cell.
    """
    settings_of = {store.key(settings): settings for settings, _ in store}
    rows = []
    for key, result in stored_results(store).items():
        values = result.to_dict()
        nested = {name: values[name] for name in ("scores", "scores_after", "warnings")}
        rows.append({"key": key, **result.to_row(), **nested, "settings": json.dumps(settings_of[key])})
    if not rows:
        raise ValueError(f"The store {store.folder} contains no results.")
    with atomic_path(file) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
    return len(rows)


def compare(one: pd.DataFrame, two: pd.DataFrame, tolerance: float = 1e-9, *, relative: float = 0.0) -> pd.DataFrame:
    """Find the cells that only one of two tables has, and the values in which the tables differ.

    Durations and keys are not compared, nor are columns that only one table has.

    Parameters
    ----------
    one, two : DataFrame
        Tables as returned by :func:`stored_cells` or :func:`cell_table`.
    tolerance : float
        Largest absolute difference of two numbers that count as equal.
    relative : float
        The same relative to the second number, added to ``tolerance``; 1e-5 for recorded tables, whose numbers have
        six digits.

    Returns
    -------
    DataFrame
        ``model``, ``dataset``, ``column``, ``one``, ``two``; one row per difference. A cell that
        only one table has is a difference in the column "(row)".

    Raises
    ------
    ValueError
        If a table has no column ``model`` or ``dataset``, or several rows for one cell.

    Examples
    --------
    >>> one = pd.DataFrame({"model": ["m", "m"], "dataset": ["a", "b"], "gain": [0.1, 0.2]})
    >>> compare(one, one.assign(gain=[0.1, 0.3]))
      model dataset column  one  two
    0     m       b   gain  0.2  0.3
    """
    for name, table in (("one", one), ("two", two)):
        missing = [column for column in CELL if column not in table.columns]
        if missing:
            raise ValueError(f"Table {name} has no column {missing[0]!r}: it is empty, or not a table of results.")
        repeated = table[table.duplicated(CELL)]
        if len(repeated):
            if "layer" in table.columns:
                raise ValueError(f"Table {name} has scores, several for each cell; give the table of cells.")
            model, dataset = repeated.iloc[0][CELL]
            raise ValueError(
                f"Table {name} has several rows for {model} on {dataset}, from different settings or versions; "
                "keep one of them."
            )
    columns = [c for c in one.columns if c in two.columns and c not in (*CELL, "key") and not c.endswith("seconds")]
    merged = one[[*CELL, *columns]].merge(
        two[[*CELL, *columns]], "outer", CELL, suffixes=("_one", "_two"), indicator=True
    )
    single = merged[merged["_merge"] != "both"]
    both = merged[merged["_merge"] == "both"]
    parts = [
        single[CELL].assign(column="(row)", one=single["_merge"] == "left_only", two=single["_merge"] == "right_only")
    ]
    for column in columns:
        a, b = both[f"{column}_one"], both[f"{column}_two"]
        if pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b):
            equal = np.isclose(a.astype(float), b.astype(float), rtol=relative, atol=tolerance, equal_nan=True)
        else:
            equal = ((a == b) | (a.isna() & b.isna())).to_numpy()
        parts.append(both.loc[~equal, CELL].assign(column=column, one=a[~equal], two=b[~equal]))
    differences = pd.concat([part.astype(object) for part in parts])
    return differences.sort_values(CELL, kind="stable", ignore_index=True)


# -- numbers cited from the paper, and measurements that ship with the library -------

TARGETS = ("mse", "accuracy", "gain")
"""What the paper correlates NTPS with: Figure 2 (two panels) and Figure 3."""


def load_paper_cells() -> pd.DataFrame:
    """Load the 96 cells (8 models x 12 datasets) behind Figures 2 and 3 of arXiv:2505.17169.

    Transcribed from the numbers released with the paper (repository Yu-AngCheng/NTPS,
    commit 0f877f7). Accuracies are fractions.

    Returns
    -------
    DataFrame
        ``model``, ``dataset``; ``ntps_vs_mse``, ``ntps_vs_accuracy``, ``ntps_vs_gain``: the
        NTPS that the paper compares with each target, each at its own layer and k;
        ``probe_train_mse``, ``probe_train_accuracy``: on the training data of the probe;
        ``lora_test_accuracy``, ``probe_test_accuracy``: on test data; and, computed here,
        ``gain = lora_test_accuracy - probe_test_accuracy``,
        ``headroom = 1 - probe_test_accuracy``.

    References
    ----------
    Y. Cheng, H. Hu, Z. Huang and R. Balestriero (2025). arXiv:2505.17169.

    Examples
    --------
    >>> load_paper_cells().groupby("model").size().unique().tolist()
    [12]
    """
    cells = pd.read_csv(data_file("reported_cells.csv"))
    cells["gain"] = cells["lora_test_accuracy"] - cells["probe_test_accuracy"]
    cells["headroom"] = 1.0 - cells["probe_test_accuracy"]
    return cells


def load_paper_coefficients() -> pd.DataFrame:
    """Load the 24 Spearman coefficients printed in Figures 2 and 3 of the paper.

    Returns
    -------
    DataFrame
        Index ``model``, columns ``TARGETS``.

    Examples
    --------
    >>> load_paper_coefficients().shape
    (8, 3)
    """
    printed = pd.read_csv(data_file("reported_coefficients.csv"))
    printed.columns = pd.Index(["model", *TARGETS])
    return printed.set_index("model")


def as_plotted(cells: pd.DataFrame, target: str) -> tuple[pd.Series, pd.Series]:
    """Select NTPS and the quantity that the paper correlates it with.

    Parameters
    ----------
    cells : DataFrame
        Table as returned by :func:`load_paper_cells`.
    target : {"mse", "accuracy", "gain"}

    Returns
    -------
    ntps, quantity : Series
        The quantity is the accuracy, *minus* the MSE, or *minus* the gain.

    Raises
    ------
    ValueError
        If the target is not one of ``TARGETS``.
    """
    check_choice("target", target, TARGETS)
    match target:
        case "mse":
            return cells["ntps_vs_mse"], -cells["probe_train_mse"]
        case "accuracy":
            return cells["ntps_vs_accuracy"], cells["probe_train_accuracy"]
    return cells["ntps_vs_gain"], -cells["gain"]


def tie_orders(values: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Rank values with ties broken by position, in both directions.

    Parameters
    ----------
    values : Series

    Returns
    -------
    forward, backward : Series
        Ranks from 1; of two equal values the first, or the last, has the lower rank.

    Examples
    --------
    >>> [ranks.tolist() for ranks in tie_orders(pd.Series([5, 3, 5]))]
    [[2.0, 1.0, 3.0], [3.0, 1.0, 2.0]]
    """
    return values.rank(method="first"), values[::-1].rank(method="first")[::-1]


def load_learnability() -> pd.DataFrame:
    """Load how well full finetuning of lab/L learns each task of the lab, as ``ntps lab learn`` recorded it.

    Returns
    -------
    DataFrame
        ``task``, ``kind``; ``majority`` and ``best_possible``: accuracies of the most frequent
        class and of the best possible classifier; ``accuracy``; ``share``: position of the
        accuracy between these two, 0 to 1 (missing for the control); ``n_train``, ``n_test``,
        ``n_steps``, ``seconds``.
    """
    return pd.read_csv(data_file("recorded/lab_learnability.csv"))


def load_text_sizes() -> pd.DataFrame:
    """Load the sizes of eleven of the paper's datasets under the GPU profile, at four characters per token.

    ``intent_classification`` is CLINC150, a replacement; the source of ``bias_identification``
    is not known. The copy of ``imdb`` is incomplete.

    Returns
    -------
    DataFrame
        Index ``dataset``; columns are the fields of :class:`ntps_utils.evidence.cost.TextSize`.

    Examples
    --------
    >>> int(load_text_sizes().loc["sst2", "n_classes"])
    2
    """
    return pd.read_csv(data_file("text_sizes.csv"), index_col="dataset")
