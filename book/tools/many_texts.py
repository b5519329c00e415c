"""Score the lab's models on many more texts than chapter 7 does, and record it.

    python -m book.tools.many_texts

A row that is recorded is not computed again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ntps_utils import lab
from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import extract
from ntps_utils.models.loading import CausalModel, load_model
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.score import subspaces

OUT = Path("ntps_utils/data/recorded/many_texts.json")
MODELS = ("XS", "S", "M", "L")
SIZES = (1_000, 10_000)
"""Numbers of texts; the smaller sample is the beginning of the larger one."""
SEED = 7_000
"""Random seed of the texts, which no split of a task has."""
BATCH = 128


def scores(moments: LayerMoments) -> dict[str, float]:
    """The scores at the primary setting of chapter 7, and the share of the variance that all features explain."""
    raw, centered = (subspaces(moments, center=center) for center in (False, True))
    paper, row = (solved.row(solved.width(solved.d // 2)) for solved in (raw, centered))
    return {
        "ntps": paper.ntps,
        "ntps_metric": row.ntps_metric,
        "ntps_task": row.ntps_task,
        "explained": row.trace_b / centered.trace_y,
    }


def rows_of(model: CausalModel, task: str, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """Score a model on samples of a task.

    Parameters
    ----------
    model : CausalModel
    task : str
        Name of a task of the lab.
    sizes : tuple of int
        Numbers of texts, increasing.

    Returns
    -------
    list of dict
        One for each size.
    """
    drawn = lab.sample(task, sizes[-1], seed=SEED)
    data = TextDataset(f"lab/{task}", "many", drawn.texts, drawn.labels, lab.TASKS[task].label_names)
    last = model.n_layers - 1
    rows, moments, start = [], None, 0
    for n in sizes:
        part = extract(model, data.select(range(start, n)), layers="last", batch_size=BATCH).moments
        moments = part if moments is None else moments.merge(part)
        start = n
        values = scores(moments.layer(last))
        rows.append({"model": model.name, "dataset": data.name, "n": n, "n_features": model.dimension, **values})
    return rows


def main(out: Annotated[Path, typer.Option(help="JSON file to extend.")] = OUT) -> None:
    """Score what is missing."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = json.loads(out.read_text("utf-8"))["rows"] if out.is_file() else []
    done = {(row["model"], row["dataset"]) for row in rows}
    for name in MODELS:
        model = load_model(f"lab/{name}", dtype="float32")
        for task in lab.TASKS:
            if (model.name, f"lab/{task}") not in done:
                rows += rows_of(model, task)
                write_json(out, {"rows": rows, "provenance": provenance(seed=SEED)})
                typer.echo(f"{model.name} on {task}", err=True)


if __name__ == "__main__":
    typer.run(main)
