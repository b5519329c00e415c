"""``ntps datasets``: the datasets that have a name, and the division of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ntps_utils.cli import options
from ntps_utils.cli.console import guarded, new_table, out

app = typer.Typer(help="List the datasets that have a name, and divide a file into two.", no_args_is_help=True)


@app.command("list")
def list_datasets() -> None:
    """List the registered datasets (those of the paper) and the tasks of the lab."""
    with guarded():
        from ntps_utils.lab.tasks import TASKS
        from ntps_utils.models._hub import registry

        table = new_table()
        for heading in ("name", "Hub id", "test split", "reason", "license", "source"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "name")
        for name, entry in registry("datasets").items():
            hold_out = entry.get("hold_out")
            test = f"{hold_out['share']:.0%} of train" if hold_out else entry["splits"].get("test", "none")
            hub_id = entry.get("hub", "unknown")
            table.add_row(name, hub_id, test, entry["why"], entry["license"], entry["citation"])
        for name, task in TASKS.items():
            table.add_row(f"lab/{name}", "generated", "test", task.asks, "mit", "")
        out.print(table)


@app.command("split")
def split_file(
    file: Annotated[Path, typer.Argument(help="A file of labeled texts, such as tickets.csv.")],
    folder: Annotated[Path, typer.Argument(help="New folder for train.csv and test.csv.")],
    test_share: Annotated[float, typer.Option(help="Share of the texts to test on.")] = 0.2,
    seed: Annotated[int, options.seed_option("the division")] = 0,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
) -> None:
    """Divide a file into texts to train on and texts to test on.

    Classes keep their shares, and a text that occurs several times stays in one part. The files are JSONL if a text
    could be misread in a CSV file. `ntps benchmark` takes the folder.
    """
    with guarded():
        from ntps_utils.models.datasets import SAVED_AS, load_texts, save_texts, split_texts

        if not file.is_file():
            raise ValueError(f"{file} is no file; give a file of labeled texts.")
        targets = [folder / f"{name}{kind}" for name in ("train", "test") for kind in SAVED_AS]
        if present := [str(path) for path in targets if path.exists()]:
            raise ValueError(f"{present[0]} exists already; give a new folder.")
        parts = split_texts(load_texts(file, text_column=text_column, label_column=label_column), test_share, seed)
        paths = [save_texts(part, folder) for part in parts]
        out.print(f"{len(parts[0])} texts in {paths[0]}, {len(parts[1])} in {paths[1]}", highlight=False, markup=False)
