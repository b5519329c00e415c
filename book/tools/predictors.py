"""Compute the predictors of the gain for the models and datasets of the declared experiment, or of the lab.

    python -m book.tools.predictors --data FOLDER
    python -m book.tools.predictors

Each finished case is recorded at once, in the declared order. A predictor that is recorded is not computed again;
``--sources features`` leaves out those that need more than one pass over the texts, and a later call adds them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ntps_utils import lab
from ntps_utils._utils.files import write_text
from ntps_utils._utils.provenance import provenance
from ntps_utils._utils.validation import check_choice
from ntps_utils.evidence.benchmark import made_by
from ntps_utils.evidence.declared import FINETUNED_MODELS, MAX_LENGTH, N_TRAIN, PILOTS, order
from ntps_utils.evidence.experiment import limited_threads
from ntps_utils.evidence.predictors import PREDICTORS, Case, Source
from ntps_utils.evidence.runs import load_declared_model
from ntps_utils.lab.tasks import TASKS
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.loading import CausalModel, load_model

RECORDED = Path("ntps_utils/data/recorded")


def main(
    data: Annotated[
        Path | None, typer.Option(help="Folder with a folder for each dataset.", show_default="the tasks of the lab")
    ] = None,
    models: Annotated[str, typer.Option(help="Names of the models for --data, separated by commas.")] = ",".join(
        FINETUNED_MODELS
    ),
    sources: Annotated[
        str, typer.Option(help="What the predictors may need: features, tokens, gradients, separated by commas.")
    ] = "features,tokens,gradients",
    limit: Annotated[int, typer.Option(min=1, help="Largest number of cases.")] = 1000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="File of JSON lines to extend.", show_default="the recorded one")
    ] = None,
) -> None:
    """Compute what is missing."""
    out = out or RECORDED / ("lab_predictors.jsonl" if data is None else "predictors.jsonl")
    lines = out.read_text("utf-8").splitlines() if out.is_file() else []
    rows: dict[tuple[str, str], dict[str, Any]] = {
        (row["model"], row["dataset"]): row for row in map(json.loads, lines)
    }
    for source in sources.split(","):
        check_choice("--sources", source, get_args(Source))
    wanted = [name for name, entry in PREDICTORS.items() if entry.source in sources.split(",")]
    datasets = None if data is None else (*order(), *PILOTS)
    cases, loaded = load_cases(datasets, models.split(","), device)

    def missing(case: tuple[str, str]) -> list[str]:
        recorded = rows[case]["predictors"] if case in rows else {}
        return [predictor for predictor in wanted if predictor not in recorded]

    for name, dataset in [case for case in cases if missing(case)][:limit]:
        typer.echo(f"{name} on {dataset}", err=True)
        model = loaded[name]
        if data is None:
            texts, max_length = load_texts(dataset, "train"), None
        else:
            texts = load_texts(str(data / dataset), "train").head(N_TRAIN)
            max_length = min(MAX_LENGTH, model.max_length or MAX_LENGTH)
        case, values, seconds = Case(model, texts, max_length=max_length), {}, {}
        with limited_threads(model.model.num_parameters()):
            for predictor in missing((name, dataset)):
                started = time.perf_counter()
                values[predictor] = PREDICTORS[predictor].function(case)
                seconds[predictor] = time.perf_counter() - started  # what others have computed costs nothing
        recorded = rows.get((name, dataset), {"predictors": {}, "seconds": {}})
        rows[name, dataset] = {
            "model": name,
            "dataset": dataset,
            "weights": model.fingerprint,
            "texts": texts.fingerprint,
            "n_texts": len(texts),
            "predictors": recorded["predictors"] | values,
            "seconds": recorded["seconds"] | seconds,
            "provenance": provenance(device=str(model.model.device), code=made_by()["code"]),
        }
        write_text(out, "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows.values()))
        typer.echo(f"  {sum(seconds.values()):.0f} s", err=True)


def load_cases(
    datasets: Sequence[str] | None, models: Sequence[str], device: str
) -> tuple[list[tuple[str, str]], dict[str, CausalModel]]:
    """Pairs of a model and a dataset, dataset by dataset, and the models; without datasets, all of the lab."""
    if datasets is None:
        models = [f"lab/{size}" for size in lab.MODELS]
        datasets = [f"lab/{task}" for task in TASKS]
        loaded = {name: load_model(name, device=device, dtype="float32") for name in models}
    else:
        loaded = {name: load_declared_model(name, device=device) for name in models}
    return [(model, dataset) for dataset in datasets for model in models], loaded


if __name__ == "__main__":
    typer.run(main)
