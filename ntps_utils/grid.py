"""``ntps grid`` and ``ntps results``: tables of cells from the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from ntps_utils.console import bar, err, guarded, out

if TYPE_CHECKING:
    from ntps_utils.store import Store

results_app = typer.Typer(
    help="Look at stored cells: list them, compare two stores, write Parquet.", no_args_is_help=True
)


def parse_names(text: str, option: str) -> dict[str, str]:
    """Names from the command line, alias to place: ``lab/S,mine=runs/model`` has two.

    Raises
    ------
    ValueError
        If there is none, or one name stands for two places.
    """
    found: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        alias, _, place = part.partition("=")
        if alias in found:
            raise ValueError(f"{option} has {alias!r} twice.")
        found[alias] = place or alias
    if not found:
        raise ValueError(f"{option} needs at least one name.")
    return found


def grid_command(
    models: Annotated[
        str, typer.Option(help="Names, Hub ids or folders, with commas between; ALIAS=PLACE gives one a name.")
    ],
    datasets: Annotated[str, typer.Option(help="Names, Hub ids or folders with train and test splits, likewise.")],
    store: Annotated[Path, typer.Option(help="Finished cells are kept here.")] = Path("runs/cells"),
    n_train: Annotated[int | None, typer.Option(help="Training texts, the first ones.", show_default="all")] = None,
    n_test: Annotated[int | None, typer.Option(help="Test texts.", show_default="all")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Cut texts after this many tokens.", show_default="the model's limit")
    ] = None,
    lora: Annotated[bool, typer.Option("--lora/--no-lora", help="Finetune too, or score and probe only.")] = True,
    seed: Annotated[int, typer.Option(help="Of folds, batches, heads and adapters.")] = 0,
    n_jobs: Annotated[int, typer.Option("--jobs", help="Processes of one thread each.")] = 1,
    record_prefix: Annotated[
        Path | None, typer.Option("--record", help="Write the tables PREFIX_cells.csv and PREFIX_scores.csv.")
    ] = None,
) -> None:
    """Measure every model on every dataset: scores, probes, rivals, LoRA and its frozen-head baseline.

    A finished cell is in the store at once; run the same command again to go on.
    """
    with guarded("interrupted; finished cells are kept, run the same command again to go on."):
        from ntps_utils.cells import CellSettings, run_cells
        from ntps_utils.results import record
        from ntps_utils.store import Store

        chosen, texts = parse_names(models, "--models"), parse_names(datasets, "--datasets")
        settings = CellSettings(n_train=n_train, n_test=n_test, max_length=max_length, seed=seed)
        if lora:
            assert settings.lora is not None
            settings = replace(
                settings, lora=replace(settings.lora, seed=seed), frozen=replace(settings.frozen, seed=seed)
            )
        else:
            settings = replace(settings, lora=None)
        with bar() as progress:
            shown = progress.add_task("cells", total=len(chosen) * len(texts))
            rows = run_cells(
                list(chosen.values()),
                list(texts.values()),
                settings,
                Store(store),
                n_jobs=n_jobs,
                progress=lambda done, total: progress.update(shown, completed=done, total=total),
            )
        names = [(model, dataset) for model in chosen for dataset in texts]
        rows = [row | {"model": m, "dataset": d} for row, (m, d) in zip(rows, names, strict=True)]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        columns = ["model", "dataset", "probe_last", *(["frozen", "lora", "gain"] if lora else []), "seconds"]
        for heading in columns:
            table.add_column(heading, justify="left" if heading in ("model", "dataset") else "right")
        for row in rows:
            table.add_row(*(f"{v:.3f}" if isinstance(v := row[c], float) else str(v) for c in columns))
        out.print(table)
        if record_prefix is not None:
            command = f"ntps grid --models {','.join(chosen)} --datasets {','.join(texts)}"
            prints = {m: row["weights"] for (m, _), row in zip(names, rows, strict=True)}
            record(rows, record_prefix, settings, command, weights=prints)
            err.print(f"Tables and provenance are beside {record_prefix}.", highlight=False)


@results_app.command("list")
def list_command(
    store: Annotated[Path, typer.Argument(help="Folder of a store.")] = Path("runs/cells"),
) -> None:
    """List the cells of a store."""
    with guarded():
        from ntps_utils.results import stored_cells

        cells = stored_cells(_store(store))
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        columns = [c for c in ("key", "model", "dataset", "probe_last", "lora", "gain", "seconds") if c in cells]
        for heading in columns:
            table.add_column(heading, overflow="fold")
        for row in cells[columns].sort_values(["model", "dataset"]).itertuples(index=False):
            table.add_row(*(("" if v != v else f"{v:.3f}") if isinstance(v, float) else str(v) for v in row))
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

        from ntps_utils.results import compare, stored_cells

        a, b = (pd.read_csv(path) if path.suffix == ".csv" else stored_cells(_store(path)) for path in (one, two))
        found = compare(a, b, tolerance)
        for line in found.itertuples(index=False):
            out.print(f"{line.model} on {line.dataset}: {line.column}: {line.one} | {line.two}", highlight=False)
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
        from ntps_utils.results import export

        if file.suffix != ".parquet":
            raise ValueError(f"Name a file that ends in .parquet, not {file}.")
        out.print(f"{export(_store(store), file)} cells are in {file}.", highlight=False)


def _store(folder: Path) -> Store:
    from ntps_utils.store import Store

    if not folder.is_dir():
        raise ValueError(f"There is no store {folder}; ntps grid makes one.")
    return Store(folder)
