"""Tables of cells: flat, recorded with provenance, listed, compared, and written as Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ntps_utils.cells import SCORES, CellSettings, cell_frame, score_frame
from ntps_utils.files import atomic_path
from ntps_utils.provenance import provenance
from ntps_utils.store import Store

RECORDED = ("lab", "real", "control", "rehearsal")
PRIMARY = "place == 'last' and rule == 'half' and not centred"
"""The setting that every chapter fixes in advance: last layer, half of the features, second moments."""


def cell_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One line a cell: targets, rivals, and the scores at the primary setting.

    Parameters
    ----------
    rows : iterable of dict
        Of :func:`ntps_utils.grid.run_grid`.

    Returns
    -------
    DataFrame
        The columns of :func:`ntps_utils.cells.cell_frame`; ``ntps``, ``ntps_metric`` and
        ``ntps_task`` before and (``_after``) after LoRA; ``explained``, the part of the
        targets' variance that a linear predictor explains on the training texts.
    """
    rows = list(rows)
    table, keys = cell_frame(rows), ["model", "dataset"]
    before = score_frame(rows)
    at = before.query(PRIMARY)[[*keys, *SCORES]]
    explained = before.query("place == 'last' and rule == 'half' and centred")
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


def record(rows: Sequence[dict[str, Any]], prefix: Path, settings: CellSettings, command: str, **facts: Any) -> None:
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
    return pd.read_csv(str(resources.files("ntps_utils.data").joinpath(f"recorded/{name}_{what}.csv")))


def recorded_provenance(name: str) -> dict[str, Any]:
    """Command, settings, versions, machine and date of a recorded table."""
    file = resources.files("ntps_utils.data").joinpath(f"recorded/{name}_cells.json")
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
