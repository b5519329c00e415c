"""``ntps grid`` and ``ntps results``: tables of cells from the command line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ntps_utils._utils.files import check_writable
from ntps_utils.cli.console import err, guarded, out
from ntps_utils.models.datasets import registered_datasets
from ntps_utils.models.loading import registered_models

if TYPE_CHECKING:
    from ntps_utils.evidence.benchmark import Failure
    from ntps_utils.evidence.cost import Cost
    from ntps_utils.evidence.experiment import ExperimentConfig
    from ntps_utils.evidence.store import Store

Watch = Callable[[Mapping[tuple[str, str], str]], None]

results_app = typer.Typer(
    help="Look at stored cells: list them, compare two stores, write Parquet.", no_args_is_help=True
)


PAPER_NAMES = "paper"
"""Stands for all names that the library knows from the paper."""

MARKS = {
    "waiting": "[dim]·[/dim]",
    "running": "[yellow]>[/yellow]",
    "done": "[green]✓[/green]",
    "failed": "[red]×[/red]",
}


def parse_names(text: str, option: str, paper: Collection[str] = ()) -> dict[str, str]:
    """Names from the command line, alias to place: ``lab/S,mine=runs/model`` has two.

    ``paper`` stands for the names given there; one of them may get a place of its own beside it.

    Raises
    ------
    ValueError
        If there is none, or one name stands for two places.
    """
    found: dict[str, str] = {}
    parts = [part for p in text.split(",") if (part := p.strip())]
    for part in parts:
        alias, _, place = part.partition("=")
        if alias != PAPER_NAMES and alias in found:
            raise ValueError(f"{option} has {alias!r} twice.")
        if alias != PAPER_NAMES:
            found[alias] = place or alias
    if PAPER_NAMES in parts:
        found = {name: found.get(name, name) for name in (*paper, *found)}
    if not found:
        raise ValueError(f"{option} needs at least one name.")
    return found


def grid_command(
    models: Annotated[
        str,
        typer.Option(
            help="Names, Hub ids or folders, with commas between; ALIAS=PLACE gives one a name; paper stands for its 8."
        ),
    ],
    datasets: Annotated[
        str, typer.Option(help="Names, Hub ids or folders with train and test splits, likewise; paper for its 12.")
    ],
    store: Annotated[Path, typer.Option(help="Finished cells are kept here.")] = Path("runs/cells"),
    profile: Annotated[
        str, typer.Option(help="cpu, or gpu: bfloat16, adapters of rank 32, at most 3000 and 1500 texts.")
    ] = "cpu",
    scheduler: Annotated[
        str | None,
        typer.Option(help="local, or the address of a Dask scheduler, dask://host:8786.", show_default="this process"),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes of a local scheduler.")] = 1,
    retries: Annotated[int, typer.Option(help="Times that Dask tries a cell again.")] = 2,
    n_train: Annotated[
        int | None, typer.Option(help="Training texts, the first ones.", show_default="the profile's")
    ] = None,
    n_test: Annotated[int | None, typer.Option(help="Test texts.", show_default="the profile's")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Cut texts after this many tokens.", show_default="the profile's")
    ] = None,
    lora: Annotated[bool, typer.Option("--lora/--no-lora", help="Finetune too, or score and probe only.")] = True,
    seed: Annotated[int, typer.Option(help="Of folds, batches, heads and adapters.")] = 0,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that a model's repository brings.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is left to do and what it will cost, and leave.")
    ] = False,
    flops: Annotated[
        float | None,
        typer.Option(help="For --dry-run: operations a second of a device.", show_default="measured here"),
    ] = None,
    record_prefix: Annotated[
        Path | None, typer.Option("--record", help="Write the tables PREFIX_cells.csv and PREFIX_scores.csv.")
    ] = None,
) -> None:
    """Measure every model on every dataset: scores, probes, rivals, LoRA and its frozen-head baseline.

    A finished cell is in the store at once; run the same command again to go on. Status 1 if a cell failed.
    """
    failures: tuple[Failure, ...] = ()
    with guarded("interrupted; finished cells are kept, run the same command again to go on."):
        from ntps_utils.evidence.benchmark import run_benchmark
        from ntps_utils.evidence.store import Store

        chosen = parse_names(models, "--models", registered_models())
        texts = parse_names(datasets, "--datasets", registered_datasets())
        settings = _settings(profile, n_train, n_test, max_length, lora, seed)
        if jobs < 1 or retries < 0:
            raise ValueError(f"--jobs is at least 1 and --retries at least 0, got {jobs} and {retries}.")
        if record_prefix is not None:
            check_writable(record_prefix)
        if dry_run:
            _show_plan(chosen, texts, settings, Store(store), jobs, flops, trust_remote_code)
            return
        with _progress(chosen, texts) as watch:
            grid = run_benchmark(
                list(chosen.values()),
                list(texts.values()),
                settings,
                Store(store),
                scheduler=scheduler,
                n_workers=jobs,
                gpu=profile == "gpu",
                retries=retries,
                trust_remote_code=trust_remote_code,
                watch=watch,
            )
        failures = grid.failures
        pairs = [(model, dataset) for model in chosen for dataset in texts]
        found = [(m, d, grid.rows.get((chosen[m], texts[d]))) for m, d in pairs]
        rows = [row | {"model": m, "dataset": d} for m, d, row in found if row is not None]
        _show_rows(rows, lora)
        if record_prefix is not None and rows:
            from ntps_utils.evidence.tables import record

            command = f"ntps grid --models {','.join(chosen)} --datasets {','.join(texts)}"
            prints = {row["model"]: row["weights"] for row in rows}
            record(rows, record_prefix, settings, command, weights=prints)
            err.print(f"Tables and provenance are beside {record_prefix}.", highlight=False, markup=False)
        warned = Counter(text for row in rows for text in row["warnings"]).most_common()
        for text, times in warned[:5]:
            err.print(f"[yellow]note:[/yellow] {escape(text)} ({times} cells)", soft_wrap=True, highlight=False)
        if len(warned) > 5:
            err.print(f"[yellow]note:[/yellow] and {len(warned) - 5} other warnings; rows hold them.", highlight=False)
        names = {(chosen[m], texts[d]): (m, d) for m, d in pairs}
        for failure in failures:
            m, d = names[failure.model, failure.dataset]
            err.print(f"[red]failed:[/red] {escape(f'{m} on {d}: {failure.error}')}", soft_wrap=True, highlight=False)
        if failures:
            n = f"{len(failures)} of {len(pairs)} cells failed" if len(failures) > 1 else "One cell failed"
            err.print(
                f"{n}; run the same command again to try again. Tracebacks: {store}/failed.",
                highlight=False,
                markup=False,
            )
    if failures:
        raise typer.Exit(1)


def _settings(
    profile: str, n_train: int | None, n_test: int | None, max_length: int | None, lora: bool, seed: int
) -> ExperimentConfig:
    from ntps_utils.evidence.experiment import PROFILES

    if profile not in PROFILES:
        raise ValueError(f"--profile is {' or '.join(PROFILES)}, not {profile!r}.")
    start = PROFILES[profile]
    assert start.lora is not None
    return replace(
        start,
        n_train=start.n_train if n_train is None else n_train,
        n_test=start.n_test if n_test is None else n_test,
        max_length=start.max_length if max_length is None else max_length,
        lora=replace(start.lora, seed=seed) if lora else None,
        frozen=replace(start.frozen, seed=seed),
        seed=seed,
    )


@contextmanager
def _progress(models: Mapping[str, str], datasets: Mapping[str, str]) -> Iterator[Watch]:
    """The grid on the error stream: a table that changes in a terminal, a line for each cell elsewhere."""
    started, shown = time.monotonic(), dict[tuple[str, str], str]()

    def table(states: Mapping[tuple[str, str], str]) -> Table:
        counts = {state: sum(s == state for s in states.values()) for state in MARKS}
        said = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        drawn = Table(
            box=box.SIMPLE_HEAD, show_edge=False, caption=f"{said} · {minutes}:{seconds:02d}", caption_justify="left"
        )
        drawn.add_column()
        for name in models:
            drawn.add_column(escape(name), justify="center", overflow="fold")
        for name, dataset in datasets.items():
            marks = [MARKS[states[model, dataset]] if (model, dataset) in states else "" for model in models.values()]
            drawn.add_row(escape(name), *marks)
        return drawn

    if err.is_terminal:
        with Live(table({}), console=err, auto_refresh=False) as live:
            yield lambda states: live.update(table(states), refresh=True)
        return

    names = {(m, d): f"{alias} on {dataset}" for alias, m in models.items() for dataset, d in datasets.items()}

    def tell(states: Mapping[tuple[str, str], str]) -> None:
        n = sum(state in ("done", "failed") for state in states.values())
        if not shown and n:
            err.print(f"{n} of {len(states)} cells are there already.", highlight=False)
        for cell, state in states.items():
            if shown and state in ("done", "failed") and shown[cell] != state:
                err.print(f"{n}/{len(states)} {names[cell]}: {state}", highlight=False, markup=False, soft_wrap=True)
        shown.update(states)

    yield tell


def _show_rows(rows: Sequence[Mapping[str, Any]], lora: bool) -> None:
    columns = ["model", "dataset", "probe_last", *(["frozen", "lora", "gain"] if lora else []), "seconds"]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in columns:
        table.add_column(heading, justify="left" if heading in ("model", "dataset") else "right")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v := row[c], float) else escape(str(v)) for c in columns))
    out.print(table)


def _show_plan(
    models: Mapping[str, str],
    datasets: Mapping[str, str],
    settings: ExperimentConfig,
    store: Store,
    jobs: int,
    flops: float | None,
    trust_remote_code: bool,
) -> None:
    """What is left of a grid, model by model, and what it will take."""
    from ntps_utils.evidence import cost
    from ntps_utils.evidence.benchmark import plan_benchmark

    plan = plan_benchmark(
        list(models.values()), list(datasets.values()), settings, store, trust_remote_code=trust_remote_code
    )
    texts = {name: cost.text_size(*parts, settings.max_length) for name, parts in plan.texts.items()}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("model", "parameters", "cells left", "operations", "time", "device memory"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    everything: list[cost.Cost] = []
    for alias, model in models.items():
        size = cost.model_size(model, trust_remote_code=trust_remote_code)
        left = [cell for cell in plan.missing if cell.model == model]
        speed = cost.measure_speed(size, settings, flops=flops)
        costs = [cost.cell_cost(size, texts[cell.dataset], settings, speed) for cell in left]
        everything += costs
        table.add_row(escape(alias), f"{size.n_parameters:,}", f"{len(left)} of {len(datasets)}", *_said(costs))
    table.add_section()
    n = f"{len(plan.missing)} of {len(plan.cells)}"
    table.add_row("all" if jobs == 1 else f"all, {jobs} at once", "", n, *_said(everything, jobs))
    out.print(table)
    given = "measured here" if flops is None else f"{flops:.3g} a second as given"
    out.print(f"Operations: {given}. LoRA is reckoned without an early stop. Nothing was run.", highlight=False)


def _said(costs: Sequence[Cost], n_workers: int = 1) -> list[str]:
    from ntps_utils.evidence.cost import total

    if not costs:
        return ["", "", ""]
    whole = total(costs, n_workers)
    return [f"{whole.flops:.2g}", whole.duration, f"{whole.memory / 2**30:.2g} GiB"]


@results_app.command("list")
def list_command(
    store: Annotated[Path, typer.Argument(help="Folder of a store.")] = Path("runs/cells"),
) -> None:
    """List the cells of a store."""
    with guarded():
        from ntps_utils.evidence.tables import stored_cells

        cells = stored_cells(_store(store))
        if cells.empty:
            raise ValueError(f"{store} holds no results.")
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        columns = [c for c in ("key", "model", "dataset", "probe_last", "lora", "gain", "seconds") if c in cells]
        for heading in columns:
            table.add_column(heading, overflow="fold")
        for row in cells[columns].sort_values(["model", "dataset"]).itertuples(index=False):
            table.add_row(*(("" if v != v else f"{v:.3f}") if isinstance(v, float) else escape(str(v)) for v in row))
        out.print(table)
        out.print(f"{len(cells)} cells.")


@results_app.command("diff")
def diff_command(
    one: Annotated[Path, typer.Argument(help="A store, or a recorded table of cells (CSV).")],
    two: Annotated[Path, typer.Argument(help="Another.")],
    tolerance: Annotated[float, typer.Option(help="Numbers nearer than this are equal.")] = 1e-9,
) -> None:
    """Compare two tables of cells; status 1 if they differ."""
    with guarded():
        import pandas as pd

        from ntps_utils.evidence.tables import compare, stored_cells

        a, b = (pd.read_csv(path) if path.suffix == ".csv" else stored_cells(_store(path)) for path in (one, two))
        found = compare(a, b, tolerance)
        for line in found.itertuples(index=False):
            said = f"{line.model} on {line.dataset}: {line.column}: {line.one} | {line.two}"
            out.print(said, highlight=False, markup=False)
        out.print(f"{len(found)} differences.")
        different = len(found) > 0
    if different:
        raise typer.Exit(1)


@results_app.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    store: Annotated[Path, typer.Option(help="Folder of a store.")] = Path("runs/cells"),
) -> None:
    """Write every cell of a store to one Parquet file."""
    with guarded():
        from ntps_utils.evidence.tables import export

        if file.suffix != ".parquet":
            raise ValueError(f"Name a file that ends in .parquet, not {file}.")
        check_writable(file)
        out.print(f"{export(_store(store), file)} cells are in {file}.", highlight=False, markup=False)


def _store(folder: Path) -> Store:
    from ntps_utils.evidence.store import Store

    if not folder.is_dir():
        raise ValueError(f"There is no store {folder}; ntps grid makes one.")
    return Store(folder)
