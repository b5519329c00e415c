"""``ntps results``: list, compare and export stored results of benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ntps_utils._utils.files import check_writable
from ntps_utils.cli import options
from ntps_utils.cli.console import guarded, new_table, note, out

if TYPE_CHECKING:
    import pandas as pd

    from ntps_utils.evidence.store import Store

app = typer.Typer(help="List, compare and export stored results of benchmarks.", no_args_is_help=True)

LISTED_COLUMNS = ("key", "model", "dataset", "probe_last", "lora", "gain", "seconds")
DEFAULT_STORE = Path("runs/cells")


@app.command("list")
def list_command(
    store: Annotated[Path, typer.Argument(help="Folder of the stored results.")] = DEFAULT_STORE,
) -> None:
    """List the results in a store."""
    with guarded():
        from ntps_utils.evidence.tables import stored_cells

        cells = stored_cells(_open_store(store))
        if cells.empty:
            raise ValueError(f"The store {store} contains no results.")
        columns = [name for name in LISTED_COLUMNS if name in cells]
        table = new_table()
        for heading in columns:
            table.add_column(heading, overflow="fold")
        for row in cells[columns].sort_values(["model", "dataset"]).itertuples(index=False):
            table.add_row(*map(_cell_text, row))
        out.print(table)
        out.print(f"{len(cells)} cells.")


@app.command("diff")
def diff_command(
    first: Annotated[Path, typer.Argument(help="A store, or a recorded table of cells (CSV).")],
    second: Annotated[Path, typer.Argument(help="A store or table to compare with the first.")],
    tolerance: Annotated[
        float,
        typer.Option(help="Largest absolute difference of equal numbers. For a CSV file the sixth digit is added."),
    ] = 1e-9,
) -> None:
    """Compare two tables of results. The exit status is 1 if they differ."""
    with guarded():
        from ntps_utils.evidence.tables import compare

        one, two = (_read_cells(path) for path in (first, second))
        recorded = ".csv" in (first.suffix, second.suffix)  # numbers of six digits, and names of the command line
        if recorded:
            one, two = _short_names(one), _short_names(two)
        differences = compare(one, two, tolerance, relative=1e-5 if recorded else 0.0)
        for row in differences.itertuples(index=False):
            line = f"{row.model} on {row.dataset}: {row.column}: {row.one} | {row.two}"
            out.print(line, highlight=False, markup=False)
        out.print(f"{len(differences)} differences.")
    if len(differences):
        raise typer.Exit(1)


@app.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    store: options.Store = DEFAULT_STORE,
) -> None:
    """Write all results of a store to one Parquet file."""
    with guarded():
        if file.suffix != ".parquet":
            raise ValueError(f"The name of the file must end in .parquet, got {file}.")
        check_writable(file)
        from ntps_utils.evidence.tables import export

        n_cells = export(_open_store(store), file)
        out.print(f"Wrote {n_cells} cells to {file}.", highlight=False, markup=False)


@app.command("repeat")
def repeat_command(
    model: Annotated[str, typer.Argument(help="Name of the model in the declared experiment.")],
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.")],
    data: Annotated[Path, typer.Option(help="Folder with a folder for each dataset.")],
    lora: Annotated[bool, typer.Option("--lora/--no-lora", help="Finetune too.")] = True,
    path: Annotated[str | None, typer.Option(help="Folder of the model, if it has no registered name.")] = None,
    device: options.Device = "auto",
) -> None:
    """Make a recorded run of the declared experiment again, and compare. The exit status is 1 if it differs."""
    with guarded(models=True):
        import torch

        from ntps_utils.evidence.cost import duration
        from ntps_utils.evidence.declared import Run
        from ntps_utils.evidence.experiment import n_cores
        from ntps_utils.evidence.runs import recorded_runs, repeat_run

        torch.set_num_threads(n_cores())
        for one in recorded_runs():
            if one.run == Run("lora" if lora else "scores", model, dataset):
                note(f"The recorded run took {duration(one.result.seconds)}, beside other work on the same machine.")
        table = repeat_run(model, dataset, data, lora=lora, path=path, device=device)
        shown = new_table()
        for heading in ("value", "recorded", "now", "tolerance"):
            shown.add_column(heading)
        for row in table.sort_values("equal").itertuples(index=False):
            style = "" if row.equal else "bold red"
            shown.add_row(row.value, f"{row.one:.4f}", f"{row.two:.4f}", f"{row.tolerance:g}", style=style)
        out.print(shown)
        n_different = int((~table["equal"]).sum())
        out.print(f"{len(table)} values, {n_different} differ by more than their tolerance.")
    if n_different:
        raise typer.Exit(1)


def _cell_text(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"
    return escape(str(value))


def _short_names(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with the last parts of paths as names, where these tell the cells apart."""
    names = ["model", "dataset"]
    if not set(names) <= set(cells):
        return cells  # refused by the comparison
    short = cells.assign(**{name: cells[name].str.split("/").str[-1] for name in names})
    return cells if short.duplicated(names).any() else short


def _read_cells(path: Path) -> pd.DataFrame:
    import pandas as pd

    from ntps_utils.evidence.tables import stored_cells

    if path.suffix == ".csv" and not path.is_file():
        raise ValueError(f"There is no table {path}. `ntps benchmark --record PREFIX` writes PREFIX_cells.csv.")
    return pd.read_csv(path) if path.suffix == ".csv" else stored_cells(_open_store(path))


def _open_store(folder: Path) -> Store:
    from ntps_utils.evidence.store import Store

    if not folder.is_dir():
        raise ValueError(f"There is no store {folder}. `ntps benchmark` creates one.")
    return Store(folder)
