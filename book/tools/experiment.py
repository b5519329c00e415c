"""Run the declared experiment, run by run, in the declared order.

    python -m book.tools.experiment --data FOLDER

Each finished run is recorded at once; a run that is recorded is not repeated, so that the command
can be interrupted and started again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ntps_utils.evidence.declared import Run, planned_runs
from ntps_utils.evidence.experiment import n_cores
from ntps_utils.evidence.runs import RecordedRun, chosen_rates, load_declared_model, make_run, recorded_runs, write_runs
from ntps_utils.models.loading import CausalModel

OUT = Path("ntps_utils/data/recorded/experiment.jsonl")

_loaded: dict[str, CausalModel] = {}
"""Models of this process, by name."""


def _run(run: Run, data: Path, path: str | None, device: str, rates: dict[str, float]) -> RecordedRun:
    """Make a run, in a worker or in this process."""
    if run.model not in _loaded:
        _loaded[run.model] = load_declared_model(run.model, path=path, device=device)
    return make_run(run, _loaded[run.model], data, rates)


def _results(tasks: list[tuple[Any, ...]], workers: int) -> Iterator[RecordedRun]:
    """Runs, in the order in which they finish."""
    threads = max(1, n_cores() // workers)
    if workers == 1:
        torch.set_num_threads(threads)
        yield from (_run(*task) for task in tasks)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        try:
            futures = {pool.submit(_run, *task): task[0] for task in tasks}
            for future in as_completed(futures):
                if (error := future.exception()) is None:
                    yield future.result()
                else:
                    typer.echo(f"{futures[future]} failed: {error}", err=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def main(
    data: Annotated[Path, typer.Option(help="Folder with a folder for each dataset.")],
    kinds: Annotated[str, typer.Option(help="Kinds of runs, separated by commas.")] = "lora,shuffled,paper,scores",
    models: Annotated[str, typer.Option(help="NAME=PATH,... for models that are folders.")] = "",
    only: Annotated[str, typer.Option(help="Names of the models to run, separated by commas; by default all.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Largest number of runs.")] = 1000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes; the cores are divided among them.")] = 1,
    out: Annotated[Path, typer.Option(help="File of JSON lines to extend.")] = OUT,
) -> None:
    """Run what is missing."""
    paths = dict(part.split("=", 1) for part in models.split(",") if part)
    recorded = recorded_runs(out) if out.is_file() else ()
    done = {one.run for one in recorded}
    plan = [run for run in planned_runs() if run.kind in kinds.split(",")]
    if only:
        chosen = set(only.split(","))
        if unknown := chosen - {run.model for run in plan}:
            known = ", ".join(sorted({run.model for run in plan}))
            raise typer.BadParameter(f"{', '.join(sorted(unknown))}; these kinds of runs have: {known}.")
        plan = [run for run in plan if run.model in chosen]
    missing = [run for run in plan if run not in done][:limit]
    rates = chosen_rates()
    tasks = [(run, data, paths.get(run.model), device, rates) for run in missing]
    for i, one in enumerate(_results(tasks, workers), 1):
        recorded = (*recorded, one)
        write_runs(recorded, out)
        done.add(one.run)
        typer.echo(f"{i}/{len(missing)} {one.run}: {one.result.seconds / 60:.1f} min", err=True)
    if not done.issuperset(missing):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
