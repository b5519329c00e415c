"""Tables of cells: flat, recorded with provenance, listed, compared, and written as Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ntps_utils._utils.files import atomic_path, data_file
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.experiment import SCORES, ExperimentConfig, cell_frame, score_frame
from ntps_utils.evidence.store import Store

RECORDED = ("lab", "real", "control", "rehearsal")
PRIMARY = "place == 'last' and rule == 'half' and not centered"
"""The setting that every chapter fixes in advance: last layer, half of the features, second moments."""


def cell_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One line a cell: targets, rivals, and the scores at the primary setting.

    Parameters
    ----------
    rows : iterable of dict
        Of :func:`ntps_utils.evidence.benchmark.run_benchmark`.

    Returns
    -------
    DataFrame
        The columns of :func:`ntps_utils.evidence.experiment.cell_frame`; ``ntps``, ``ntps_metric`` and
        ``ntps_task`` before and (``_after``) after LoRA; ``explained``, the part of the
        targets' variance that a linear predictor explains on the training texts.
    """
    rows = list(rows)
    table, keys = cell_frame(rows), ["model", "dataset"]
    before = score_frame(rows)
    at = before.query(PRIMARY)[[*keys, *SCORES]]
    explained = before.query("place == 'last' and rule == 'half' and centered")
    explained = explained.assign(explained=explained["trace_b"] / explained["trace_y"])[[*keys, "explained"]]
    table = table.merge(at, on=keys).merge(explained, on=keys)
    if all("scores_after" in row for row in rows):
        after = score_frame(rows, "after").query(PRIMARY)[[*keys, *SCORES]]
        table = table.merge(after.rename(columns={name: f"{name}_after" for name in SCORES}), on=keys)
    return table


def score_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Every score of every cell at every setting, before and after LoRA."""
    rows = list(rows)
    parts = [score_frame(rows).assign(when="before")]
    if all("scores_after" in row for row in rows):
        parts.append(score_frame(rows, "after").assign(when="after"))
    return pd.concat(parts, ignore_index=True)


def record(
    rows: Sequence[dict[str, Any]], prefix: Path, settings: ExperimentConfig, command: str, **facts: Any
) -> None:
    """Write ``PREFIX_cells.csv``, ``PREFIX_scores.csv`` and, with where they came from, ``PREFIX_cells.json``."""
    for name, table in (("cells", cell_table(rows)), ("scores", score_table(rows))):
        with atomic_path(prefix.with_name(f"{prefix.name}_{name}.csv")) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    made = provenance(command=command, settings=asdict(settings), **facts)
    with atomic_path(prefix.with_name(f"{prefix.name}_cells.json")) as temporary:
        temporary.write_text(json.dumps(made, indent=1) + "\n", "utf-8")


def load_recorded(name: str, what: str = "cells") -> pd.DataFrame:
    """A table of cells that ships with the library.

    Parameters
    ----------
    name : {"lab", "real", "control", "rehearsal"}
        Models and tasks of the made world; small real models on real datasets; lab/S along
        its pretraining, and pretrained on shuffled documents; or the lab's models and tasks
        under the names of the paper's.
    what : {"cells", "scores"}
        :func:`cell_table` or :func:`score_table`.
    """
    if name not in RECORDED or what not in ("cells", "scores"):
        raise ValueError(f"There are recorded cells and scores of {' and '.join(RECORDED)}, not {what} of {name!r}.")
    return pd.read_csv(data_file(f"recorded/{name}_{what}.csv"))


def recorded_provenance(name: str) -> dict[str, Any]:
    """Command, settings, versions, machine and date of a recorded table."""
    file = data_file(f"recorded/{name}_cells.json")
    return dict(json.loads(file.read_text("utf-8")))


def recorded_on(names: Iterable[str]) -> str:
    """On what day each recorded table was made, in words for the foot of a page."""
    return " · ".join(f"{name}: {recorded_provenance(name)['date'][:10]}" for name in names)


def stored_cells(store: Store) -> pd.DataFrame:
    """One line for each cell of a store, with the name of its file in ``key``."""
    lines = [
        {"key": store.key(settings), **cell_frame([row]).iloc[0].to_dict()}
        for settings, row in store
        if "scores" in row
    ]
    return pd.DataFrame(lines)


def export(store: Store, file: Path) -> int:
    """Write every cell of a store to one Parquet file; nested scores stay nested. The number of rows."""
    rows = [{"key": store.key(settings), **row, "settings": json.dumps(settings)} for settings, row in store]
    if not rows:
        raise ValueError(f"{store.folder} holds no results.")
    with atomic_path(file) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
    return len(rows)


def compare(one: pd.DataFrame, two: pd.DataFrame, tolerance: float = 1e-9) -> pd.DataFrame:
    """Cells that only one table has, and numbers in which they differ.

    Parameters
    ----------
    one, two : DataFrame
        Of :func:`stored_cells` or :func:`cell_table`. Times are left out.
    tolerance : float
        Absolute; two numbers nearer than this are equal.

    Returns
    -------
    DataFrame
        ``model``, ``dataset``, ``column``, ``one``, ``two``; one line a difference.
    """
    lines: list[dict[str, Any]] = []
    indexed = []
    for name, table in (("one", one), ("two", two)):
        lacking = [column for column in ("model", "dataset") if column not in table.columns]
        if lacking:
            raise ValueError(f"Table {name} has no column {lacking[0]!r}: it is no table of cells, or empty.")
        twice = table.duplicated(["model", "dataset"])
        if twice.any():
            again = table.loc[twice, ["model", "dataset"]].iloc[0]
            raise ValueError(
                f"Table {name} has several rows of {again['model']} on {again['dataset']}, of other settings or code; "
                "keep one."
            )
        indexed.append(table.set_index(["model", "dataset"]))
    a, b = indexed
    for cell in sorted(set(a.index) | set(b.index)):
        start = {"model": cell[0], "dataset": cell[1]}
        if cell not in a.index or cell not in b.index:
            lines.append(start | {"column": "(row)", "one": cell in a.index, "two": cell in b.index})
            continue
        for column in (c for c in a.columns if c in b.columns and c != "key" and not c.endswith("seconds")):
            x, y = a.loc[cell, column], b.loc[cell, column]
            if isinstance(x, (float, int, np.number)) and isinstance(y, (float, int, np.number)):
                same = abs(float(x) - float(y)) <= tolerance or (np.isnan(x) and np.isnan(y))
            else:
                same = x == y
            if not same:
                lines.append(start | {"column": column, "one": x, "two": y})
    return pd.DataFrame(lines, columns=["model", "dataset", "column", "one", "two"])


# -- facts cited from the paper and measured for the book

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
    cells = pd.read_csv(data_file("reported_cells.csv"))
    cells["gain"] = cells["lora_test_accuracy"] - cells["probe_test_accuracy"]
    cells["headroom"] = 1.0 - cells["probe_test_accuracy"]
    return cells


def load_printed_coefficients() -> pd.DataFrame:
    """The 24 Spearman coefficients printed in those figures: index model, columns ``TARGETS``."""
    printed = pd.read_csv(data_file("reported_coefficients.csv"))
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
    return pd.read_csv(data_file("recorded/lab_learnability.csv"))


def load_text_sizes() -> pd.DataFrame:
    """Sizes of copies of eleven of the paper's datasets under the GPU profile, at four characters a token.

    ``intent_classification`` is CLINC150, which stands in for it; of ``bias_identification``
    no source is known. ``imdb`` was copied in part.

    Returns
    -------
    DataFrame
        Index ``dataset``; the fields of :class:`ntps_utils.evidence.cost.TextSize`.
    """
    return pd.read_csv(data_file("text_sizes.csv"), index_col="dataset")


def load_bench() -> dict[str, Any]:
    """What ``make bench`` measured, as recorded: ``extraction`` by shape, ``scores``, ``provenance``."""
    return dict(json.loads(data_file("recorded/bench_cpu.json").read_text("utf-8")))
