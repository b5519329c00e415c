"""``ntps score``: score a model on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntps_utils.cli import options
from ntps_utils.cli.console import guarded, new_table, note, out, output_files, progress_callback, save

if TYPE_CHECKING:
    from ntps_utils.theory.report import ScoreReport
    from ntps_utils.theory.score import Shrinkage

HEADINGS = {
    "ntps": "NTPS",
    "ntps_metric": "metric",
    "ntps_task": "task",
    "trace_b": "tr B",
    "excess_loss": "excess",
}
"""Heading of each column of scores, by field of a row."""

CONTROL_HEADINGS = {"pca_s": "PCA S", "pca_a0": "PCA A0", "symmetric": "symmetric"}
"""Heading of each control that is one subspace."""


def parse_widths(values: list[str]) -> list[int | float]:
    """Parse widths: an integer is a number of directions, a decimal number a fraction of the rank.

    Parameters
    ----------
    values : list of str
        Each with one width, or several separated by commas.

    Returns
    -------
    list of int or float

    Raises
    ------
    ValueError
        If a width is neither an integer of at least 1 nor a fraction in (0, 1].

    Examples
    --------
    >>> parse_widths(["16", "0.25,0.5"])
    [16, 0.25, 0.5]
    """
    widths: list[int | float] = []
    for part in ",".join(values).split(","):
        text = part.strip()
        try:
            width: int | float = float(text) if "." in text or "e" in text.lower() else int(text)
        except ValueError:
            raise ValueError(f"--k-v must be integers or fractions such as 16 or 0.5, got {text!r}.") from None
        if isinstance(width, float) and not 0.0 < width <= 1.0:
            raise ValueError(
                f"--k-v {text} is not a fraction in (0, 1]. Write an integer without a decimal point "
                "for a number of directions."
            )
        if isinstance(width, int) and width < 1:
            raise ValueError(f"--k-v {text} is below 1. Give at least one direction.")
        widths.append(width)
    return widths


def parse_shrinkage(text: str) -> Shrinkage:
    """Parse a shrinkage intensity: a number, or "ledoit-wolf".

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> parse_shrinkage("0.1")
    0.1
    """
    if text == "ledoit-wolf":
        return "ledoit-wolf"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--shrinkage must be a number in [0, 1] or ledoit-wolf, got {text!r}.") from None


def score_command(
    model: options.Model,
    dataset: options.Dataset,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "train",
    max_texts: Annotated[int | None, typer.Option(help="Use only the first N rows.", show_default="all")] = None,
    max_length: options.MaxLength = None,
    bos: Annotated[
        bool | None,
        typer.Option(
            "--bos/--no-bos",
            help="Start every text with a beginning-of-sequence token, or add no special tokens.",
            show_default="as the tokenizer does",
        ),
    ] = None,
    layers: Annotated[
        str,
        typer.Option(help="all, last, or indices such as 0,2,-1. Index 0 is the embeddings and -1 the last layer."),
    ] = "all",
    k_v: Annotated[
        list[str] | None,
        typer.Option(
            "--k-v",
            help="Number of autoregressive directions: integers, or fractions of the rank. "
            "Repeat the option, or separate values by commas.",
            show_default="0.5",
        ),
    ] = None,
    center: Annotated[
        bool, typer.Option("--center/--no-center", help="Use covariances instead of the paper's second moments.")
    ] = False,
    centre: Annotated[bool | None, typer.Option("--centre/--no-centre", hidden=True)] = None,
    ridge: Annotated[
        float, typer.Option(help="Ridge added to S, as a fraction of the mean of its diagonal entries.")
    ] = 0.0,
    shrinkage: Annotated[str, typer.Option(help="Shrinkage of S: a number in [0, 1], or ledoit-wolf.")] = "0",
    order: Annotated[
        str, typer.Option(help="Order of eigenvectors: descending, or ascending as in the released script.")
    ] = "descending",
    batch_size: options.BatchSize = 64,
    stream: Annotated[
        bool,
        typer.Option(help="Keep the features of one layer in memory at a time, or those of all layers."),
    ] = True,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Save the state of the extraction to this file, and continue from it after an interruption."),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    base_model: options.BaseModel = None,
    seed: Annotated[int, options.seed_option("the groups of --jackknife")] = 0,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    trust_remote_code: options.TrustRemoteCode = False,
    jackknife: Annotated[
        int,
        typer.Option(
            help="Number of random groups of texts for standard errors, such as 10; 0 for no standard errors."
        ),
    ] = 0,
    controls: Annotated[
        bool, typer.Option(help="Score control subspaces too, and print the score minus that with random next tokens.")
    ] = True,
    json_file: options.JsonFile = None,
) -> None:
    """Score how well a model's next-token subspace supports the labels of a dataset.

    Prints one row per layer and width k_v: the paper's score (NTPS), the
    metric-matched and the task-weighted score, the loss that the features can
    explain (tr B), and the excess loss of a linear predictor that uses only the
    next-token subspace, with a 95% interval. A second table scores control subspaces.
    """
    with guarded(models=True), output_files(json_file, state=checkpoint, inputs=(model, dataset)):
        if centre is not None:
            note("--centre and --no-centre are now --center and --no-center.")
            center = centre
        widths = parse_widths(k_v or ["0.5"])
        intensity = parse_shrinkage(shrinkage)
        from ntps_utils.models.scoring import score_model

        with progress_callback() as progress:
            report = score_model(
                model,
                dataset,
                split=split,
                max_texts=max_texts,
                max_length=max_length,
                bos=bos,
                layers=layers,
                k_v=widths,
                center=center,
                ridge=ridge,
                shrinkage=intensity,
                order=order,  # type: ignore[arg-type]  # checked there
                jackknife=jackknife,
                controls=controls,
                batch_size=batch_size,
                stream=stream,
                checkpoint=checkpoint,
                device=device,
                dtype=dtype,
                base_model=base_model,
                seed=seed,
                text_column=text_column,
                label_column=label_column,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
        if json_file is not None:  # before printing, which a closed pipe ends
            save(json_file, report.to_json())
        print_report(report)


def print_report(report: ScoreReport) -> None:
    """Print a table of the scores, with their standard errors if there are any, and of the controls."""
    facts = report.provenance
    table = new_table(f"{facts['model']} on {facts['dataset']}", padding=(0, 0, 0, 1))
    for heading in ["layer", "k_v", *HEADINGS.values(), "without noise"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report:
        cells = [str(row.layer), str(row.k_v)]
        for name in HEADINGS:
            error = getattr(row, f"{name}_se", None)
            cells.append(f"{getattr(row, name):.4f}" if error is None else f"{getattr(row, name):.3f}±{error:.3f}")
        known = row.excess_loss_low is not None and row.excess_loss_high is not None
        cells.append(f"{row.excess_loss_low:.4f}–{row.excess_loss_high:.4f}" if known else "none")
        table.add_row(*cells)
    out.print(table)
    if facts["controls"]:
        print_controls(report)
    if facts["model_origin"]:
        out.print(f"Model: {facts['model_origin']}.", highlight=False, markup=False)
    out.print(
        f"{facts['n_texts']} texts, {facts['n_tokens']} tokens, {facts['n_classes']} classes, "
        f"{'centered' if facts['center'] else 'uncentered'} moments, {facts['seconds']:.1f} s. The excess loss is "
        "the loss added by predicting from the k_v next-token directions alone; the last column is a 95% interval for "
        f"its value without noise, which can lie below it. {_about_intervals(report)}",
        highlight=False,
    )


def _about_intervals(report: ScoreReport) -> str:
    """Say which quantities have no interval, and why."""
    from ntps_utils.theory.uncertainty import MIN_TEXTS_PER_FEATURE

    facts = report.provenance
    sentences = []
    if any(row.excess_loss_low is None for row in report):
        why = "S is regularized" if facts["ridge"] or facts["shrinkage"] else "too few texts, or V has all directions"
        sentences.append(f"An excess loss without an interval: {why}.")
    ratio = facts["n_texts"] / facts["n_features"]
    if facts["jackknife"]:
        sentences.append("± is one standard error over texts.")
    if ratio < MIN_TEXTS_PER_FEATURE:
        sentences.append(
            f"The scores have no intervals: with {ratio:.1f} texts for each feature these would be wrong; "
            f"{MIN_TEXTS_PER_FEATURE} are needed."
        )
    elif facts["jackknife"]:
        sentences.append("Intervals of the scores are in the JSON file.")
    else:
        sentences.append("For intervals of the scores, add --jackknife 10.")
    return " ".join(sentences)


def print_controls(report: ScoreReport) -> None:
    """Print the NTPS of other subspaces of the same width."""
    table = new_table("NTPS of other subspaces of the same width", padding=(0, 0, 0, 1))
    for heading in ["layer", "k_v", "next-token", "random", "net", *CONTROL_HEADINGS.values()]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report:
        low, high = row.control("random").range()
        others = [f"{row.control(name).ntps:.3f}" for name in CONTROL_HEADINGS]
        cells = [f"{row.ntps:.3f}", f"{low:.3f}–{high:.3f}", f"{row.net():+.3f}", *others]
        table.add_row(str(row.layer), str(row.k_v), *cells)
    out.print(table)
    out.print(
        "random: 95% range for next-token directions with random next tokens; net: NTPS minus their mean. Where NTPS "
        "lies in this range, it is no sign that next-token prediction matters for the task, however high it is. PCA: "
        "directions of largest variance. symmetric: from the half of A1 that ignores the order of the feature vectors.",
        highlight=False,
    )
