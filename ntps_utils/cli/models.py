"""``ntps models``: the models that have a name."""

from __future__ import annotations

import typer

from ntps_utils.cli.console import guarded, new_table, out

app = typer.Typer(help="List the models that have a name.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """List the registered models (those of the paper) and the models of the lab."""
    with guarded():
        from ntps_utils.lab.ladder import manifest
        from ntps_utils.models._hub import registry

        table = new_table()
        for heading in ("name", "parameters", "Hub id", "license", "requires"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "name")
        for name, entry in registry("models").items():
            requires = "--trust-remote-code" if entry.get("remote_code") else ""
            table.add_row(name, entry["parameters"], entry["hub"], entry["license"], requires)
        for name, run in manifest().items():
            table.add_row(f"lab/{name}", f"{run['n_parameters']:,}", "shipped", "mit", "")
        out.print(table)
