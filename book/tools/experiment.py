"""Run the declared experiment, run by run, in the declared order.

    python -m book.tools.experiment --data FOLDER

Each finished run is recorded at once; a run that is recorded is not repeated, so that the command
can be interrupted and started again.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.benchmark import made_by
from ntps_utils.evidence.declared import UNTRAINED, Run, planned_runs, run_settings
from ntps_utils.evidence.experiment import n_cores, run_experiment
from ntps_utils.evidence.runs import RecordedRun, chosen_rates, recorded_runs, write_runs
from ntps_utils.models.finetuning import randomly_initialized
from ntps_utils.models.loading import CausalModel, load_model

OUT = Path("ntps_utils/data/recorded/experiment.jsonl")


def main(
    data: Annotated[Path, typer.Option(help="Folder with a folder for each dataset.")],
    kinds: Annotated[str, typer.Option(help="Kinds of runs, separated by commas.")] = "lora,shuffled,paper,scores",
    models: Annotated[str, typer.Option(help="NAME=PATH,... for models that are folders.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Largest number of runs.")] = 1000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "auto",
    out: Annotated[Path, typer.Option(help="File of JSON lines to extend.")] = OUT,
) -> None:
    """Run what is missing."""
    torch.set_num_threads(n_cores())
    paths = dict(part.split("=", 1) for part in models.split(",") if part)
    rates = chosen_rates()
    recorded = recorded_runs(out) if out.is_file() else ()
    done = {one.run for one in recorded}
    missing = [run for run in planned_runs() if run not in done and run.kind in kinds.split(",")]
    loaded: dict[str, CausalModel] = {}
    for i, run in enumerate(missing[:limit], 1):
        typer.echo(f"{i}/{len(missing)} {run}", err=True)
        if run.model not in loaded:
            loaded[run.model] = _load(run.model, paths, device)
        recorded = (*recorded, _record(run, loaded[run.model], data, rates))
        write_runs(recorded, out)
        typer.echo(f"  {recorded[-1].result.seconds / 60:.1f} min", err=True)


def _load(name: str, paths: dict[str, str], device: str) -> CausalModel:
    if name == UNTRAINED:
        return randomly_initialized(_load(name.removesuffix(" (untrained)"), paths, device))
    return replace(load_model(paths.get(name, name), device=device, dtype="float32"), name=name)


def _record(run: Run, model: CausalModel, data: Path, rates: dict[str, float]) -> RecordedRun:
    settings = run_settings(run, rates)
    started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run_experiment(model, *settings.texts(str(data / run.dataset)), settings)
    messages = {str(w.message) for w in caught if w.category.__module__.startswith("ntps_utils")}
    facts: dict[str, Any] = {"settings": asdict(settings), "device": str(model.model.device), "started": started}
    return RecordedRun(
        run,
        replace(result, dataset=run.dataset, warnings=tuple(sorted(messages))),
        provenance(**facts, code=made_by()["code"]),
    )


if __name__ == "__main__":
    typer.run(main)
