"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def seed_option(purpose: str) -> Any:
    """Make an option for the random seed of ``purpose``."""
    return typer.Option(help=f"Random seed for {purpose}.")


def max_length_option(default: str) -> Any:
    """Make an option for the length of texts; ``default`` describes its default value."""
    return typer.Option(help="Truncate texts to this number of tokens.", show_default=default)


Model = Annotated[
    str,
    typer.Argument(
        help="A registered name (see `ntps models list`), a Hub id, a local folder of a model or of a peft adapter, "
        "a .gguf file, or a model of the lab: lab/XS, S, M or L."
    ),
]
Dataset = Annotated[
    str,
    typer.Argument(
        help="A registered name, a Hub id, a local folder with one file for each split (such as train.csv), "
        "a CSV, Parquet or JSONL file, or a task of the lab such as lab/topic."
    ),
]
MaxLength = Annotated[int | None, max_length_option("the model's limit")]
BatchSize = Annotated[int, typer.Option(help="Number of texts in a forward pass.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Dtype = Annotated[
    str,
    typer.Option(
        help="auto, float64, float32, bfloat16 or float16. auto means float64 for small models on a CPU, "
        "and otherwise the dtype of the checkpoint."
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(help="Base model of MODEL, if that is a peft adapter.", show_default="the one that it names"),
]
TextColumn = Annotated[str, typer.Option(help="Name of the column of texts; several, separated by commas, are joined.")]
LabelColumn = Annotated[str, typer.Option(help="Name of the column of labels in a file.")]
TargetModules = Annotated[
    str | None,
    typer.Option(
        help="Modules that LoRA adapts, by the last part of their names, separated by commas.",
        show_default="query, key and value projections",
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code from the model's repository.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Also write the results to this JSON file; - is the standard output.")
]
HtmlFile = Annotated[Path | None, typer.Option("--html", help="Also write a report to this HTML file.")]
Store = Annotated[Path, typer.Option(help="Folder of the stored results.")]


def module_names(value: str | None) -> tuple[str, ...] | None:
    """Split the value of ``--target-modules``.

    Parameters
    ----------
    value : str, optional

    Returns
    -------
    tuple of str or None

    Examples
    --------
    >>> module_names("q_proj, v_proj")
    ('q_proj', 'v_proj')
    """
    return None if value is None else tuple(part.strip() for part in value.split(","))
