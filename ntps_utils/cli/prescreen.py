"""``ntps prescreen``: predict the gain from LoRA before finetuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ntps_utils._utils.validation import check_number
from ntps_utils.cli import options
from ntps_utils.cli.console import guarded, new_table, out, output_files, progress_callback, save

if TYPE_CHECKING:
    from ntps_utils.evidence.prescreen import PrescreenReport


def prescreen_command(
    model: options.Model,
    dataset: options.Dataset,
    calibration: Annotated[
        str,
        typer.Option(
            help="lab or real, which ship with the library, or a CSV file written by `ntps benchmark --record`.",
            show_default="lab for models of the lab, otherwise real",
        ),
    ] = "auto",
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Exclude a dataset from the calibration. Repeat for several datasets.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Smallest gain that makes LoRA worthwhile, in percentage points of accuracy.")
    ] = 1.0,
    max_texts: Annotated[int, typer.Option(help="Use only the first N rows.")] = 2000,
    max_length: options.MaxLength = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    seed: Annotated[int, options.seed_option("cross-validation folds and random projections")] = 0,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    target_modules: options.TargetModules = None,
    trust_remote_code: options.TrustRemoteCode = False,
    json_file: options.JsonFile = None,
    html_file: options.HtmlFile = None,
) -> None:
    """Predict how much accuracy LoRA would gain on a dataset, before finetuning.

    Computes scores, transferability baselines and a linear probe on the
    features of the pretrained model, and compares them with recorded finetuning
    runs on other datasets. The answer includes how certain the prediction is,
    and whether any predictor is better than the mean gain.
    """
    with guarded(models=True), output_files(json_file, html_file):
        check_number("--threshold", threshold, 0.0, 100.0, open_high=True)
        from ntps_utils.evidence.prescreen import prescreen

        with progress_callback() as progress:
            result = prescreen(
                model,
                dataset,
                calibration=calibration,
                leave_out=leave_out or (),
                threshold=threshold / 100,
                max_texts=max_texts,
                max_length=max_length,
                batch_size=batch_size,
                device=device,
                dtype=dtype,
                seed=seed,
                text_column=text_column,
                label_column=label_column,
                target_modules=options.module_names(target_modules),
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
        if json_file is not None:  # before printing, which a closed pipe ends
            save(json_file, result.to_json())
        if html_file is not None:
            save(html_file, result.to_html())
        print_prescreen(result)


def print_prescreen(result: PrescreenReport) -> None:
    """Print the predictors, the verdict with its reasons, and the calibration."""
    from ntps_utils.evidence.prescreen import HEADLINES, LABELS, duration

    table = new_table(f"{result.model} on {result.dataset}", show_header=False)
    table.add_row("probe accuracy, cross-validated", f"{result.probe_accuracy:.3f}")
    table.add_row("most frequent class", f"{result.majority:.3f}")
    for name, value in result.predictors.items():
        table.add_row(LABELS[name], f"{value:.3f}")
    out.print(table)
    out.print(f"[bold]{HEADLINES[result.verdict]}[/bold]")
    for reason in result.reasons:
        out.print(reason, highlight=False, markup=False)
    facts = result.calibration
    without = f", without {', '.join(facts.left_out)}" if facts.left_out else ""
    out.print(
        f"Calibration: {facts.name}, {facts.n_cells} finetuning runs on {facts.n_datasets} datasets{without}. "
        f"The prescreening took {duration(result.seconds)}. The LoRA run would take about "
        f"{duration(result.lora_seconds)} on this machine.",
        highlight=False,
        markup=False,
    )
