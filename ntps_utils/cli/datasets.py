"""``ntps datasets``: the datasets that have a name."""

from __future__ import annotations

import typer

from ntps_utils.cli.console import guarded, new_table, out

app = typer.Typer(help="List the datasets that have a name.", no_args_is_help=True)


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
