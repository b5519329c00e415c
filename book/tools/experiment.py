"""Run the declared experiment, run by run, in the declared order.

    python -m book.tools.experiment --data FOLDER

Each finished run is recorded at once; a run that is recorded is not repeated, so that the command
can be interrupted and started again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from ntps_utils.evidence.declared import planned_runs
from ntps_utils.evidence.experiment import n_cores
from ntps_utils.evidence.runs import chosen_rates, load_declared_model, make_run, recorded_runs, write_runs
from ntps_utils.models.loading import CausalModel

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
            loaded[run.model] = load_declared_model(run.model, path=paths.get(run.model), device=device)
        recorded = (*recorded, make_run(run, loaded[run.model], data, rates))
        write_runs(recorded, out)
        typer.echo(f"  {recorded[-1].result.seconds / 60:.1f} min", err=True)


if __name__ == "__main__":
    typer.run(main)
