"""``ntps prescreen``: will LoRA pay?"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntps_utils._utils.validation import check_number
from ntps_utils.cli import options
from ntps_utils.cli.console import EXPECTED, guarded, new_table, note, out, output_files, progress_callback, save

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ntps_utils.evidence.prescreen import PrescreenReport


SMALL_THRESHOLD = 0.1
"""Percentage points below which a threshold is probably meant as a fraction."""


def prescreen_command(
    model: options.Model,
    dataset: options.Dataset,
    calibration: Annotated[
        str,
        typer.Option(
            help="Recorded runs: lab, real or declared, which ship with the library, or a CSV file written by "
            "`ntps benchmark --record`; several, separated by commas, are used together.",
            show_default="lab for models of the lab, otherwise real",
        ),
    ] = "auto",
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Exclude a dataset from the calibration. Repeat for several datasets.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Smallest gain over the best classifier without finetuning that makes LoRA worthwhile, in points of "
            "accuracy.",
            show_default="1",
        ),
    ] = None,
    worth: Annotated[
        float | None,
        typer.Option(help="In place of --threshold: the points of accuracy that an hour of computing must bring."),
    ] = None,
    trial: Annotated[
        str,
        typer.Option(
            help="Longest trial run that may be made: a share of the steps, at most 25%, or a time such as 20min. It "
            "is made only if trial runs of its length predict gains in the calibration: in lab and real, those of 25% "
            "do."
        ),
    ] = "0%",
    compare_model: Annotated[
        list[str] | None, typer.Option(help="Another model to compare with. Repeat for several models.")
    ] = None,
    compare_dataset: Annotated[
        list[str] | None, typer.Option(help="Another dataset to compare with. Repeat for several datasets.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Keep what is measured in this file, and use what it holds from an interrupted run."),
    ] = None,
    max_texts: Annotated[int, typer.Option(help="Use only the first N rows.")] = 2000,
    max_length: options.MaxLength = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    base_model: options.BaseModel = None,
    seed: Annotated[int, options.seed_option("cross-validation folds and random projections")] = 0,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    target_modules: options.TargetModules = None,
    trust_remote_code: options.TrustRemoteCode = False,
    json_file: options.JsonFile = None,
    html_file: options.HtmlFile = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also print all that was measured, and the steps of the decision.")
    ] = False,
) -> None:
    """Say whether LoRA will pay on a dataset: what to do, expected gain, cost, and a verdict.

    Three steps, of which the first that decides ends the prescreening: what the best classifier without finetuning
    gets wrong; predictors from the frozen model, if they predict the gains of other datasets in recorded finetuning
    runs; and a trial run, if --trial allows one. If no step predicts, the verdict is "no" where this classifier is so
    much better than a probe of the last layer that most recorded gains would not make up for it, otherwise "open".

    LoRA is compared with the best classifier without finetuning: a linear probe of the last layer, of another
    layer or of several layers at once, or a bag of words.
    """
    kept = "nothing was written" if resume is None else f"what was measured is in {resume}; run the same command again"
    inputs = (model, dataset, calibration, *(compare_model or ()), *(compare_dataset or ()))
    with (
        guarded(f"interrupted; {kept}.", models=True),
        output_files(json_file, html_file, state=resume, inputs=inputs),
    ):
        if threshold is not None:
            check_number("--threshold", threshold, 0.0, 100.0, open_high=True)
            if 0.0 < threshold < SMALL_THRESHOLD:
                note(
                    f"--threshold {threshold:g} means {threshold:g} points of accuracy. For {100 * threshold:g} points "
                    f"write --threshold {100 * threshold:g}."
                )
        if worth is not None:
            check_number("--worth", worth, 0.0)
        cases = list(product([model, *(compare_model or ())], [dataset, *(compare_dataset or ())]))
        if len(cases) > 1 and html_file is not None:
            raise ValueError("--html is for one model and one dataset; leave out --compare-model and "
                             "--compare-dataset.")  # fmt: skip
        from ntps_utils.evidence.prescreen import parse_trial, prescreen
        from ntps_utils.models.datasets import as_dataset

        try:
            parse_trial(trial)
        except ValueError as error:
            raise ValueError(f"--{error}") from None
        for name in [dataset, *compare_dataset] if compare_dataset else ():
            # A wrong name ends the command before the first case.
            as_dataset(name, "train", text_column=text_column, label_column=label_column)
        reports: list[PrescreenReport] = []
        errors: list[str] = []
        for one_model, one_dataset in cases:
            with progress_callback() as progress, _kept_apart(errors if len(cases) > 1 else None, one_model):
                reports.append(
                    prescreen(
                        one_model,
                        one_dataset,
                        calibration=calibration,
                        leave_out=leave_out or (),
                        threshold=None if threshold is None else threshold / 100,
                        worth=None if worth is None else worth / 100,
                        trial=trial,
                        resume=resume,
                        max_texts=max_texts,
                        max_length=max_length,
                        batch_size=batch_size,
                        device=device,
                        dtype=dtype,
                        base_model=base_model if one_model == model else None,
                        seed=seed,
                        text_column=text_column,
                        label_column=label_column,
                        target_modules=options.module_names(target_modules),
                        trust_remote_code=trust_remote_code,
                        progress=progress,
                    )
                )
        if json_file is not None:  # before printing, which a closed pipe ends
            found = [report.to_json() for report in reports]
            save(json_file, found[0] if len(cases) == 1 else "[\n" + ",\n".join(found) + "\n]")
        if len(cases) > 1:
            print_comparison(reports)
            if errors:
                raise ValueError(" ".join(dict.fromkeys(errors)))
            return
        if html_file is not None:
            save(html_file, reports[0].to_html())
        print_prescreen(reports[0], verbose=verbose)


@contextmanager
def _kept_apart(errors: list[str] | None, model: str) -> Iterator[None]:
    """Collect an error of one case, so that the results of the others are not lost; None lets it through."""
    try:
        yield
    except EXPECTED as error:
        if errors is None:
            raise
        errors.append(f"{model}: {error}")


def print_comparison(reports: Sequence[PrescreenReport]) -> None:
    """Print one row for each case, the largest expected gain first."""
    if not reports:
        return
    from ntps_utils.evidence.prescreen import compare

    table = new_table()
    for heading in ("model", "dataset", "verdict", "best without", "gain", "interval", "LoRA", "points an hour"):
        table.add_column(heading, justify="left" if heading in ("model", "dataset", "verdict") else "right")
    for row in compare(reports).to_dict("records"):
        low, high = (f"{100 * row[name]:+.1f}" for name in ("gain_low", "gain_high"))
        gain = f"{100 * row['gain']:+.1f}" if row["interval"] == "calibrated" else "unknown"
        table.add_row(
            row["model"],
            row["dataset"],
            row["verdict"],
            f"{row['alternative_accuracy']:.3f}",
            gain,
            f"{low} to {high}",
            f"{row['lora_minutes']:.1f} min",
            f"{row['points_per_hour']:.1f}" if row["interval"] == "calibrated" else "",
        )
    out.print(table)


def print_prescreen(result: PrescreenReport, *, verbose: bool = False) -> None:
    """Print the verdict, what to do, and what limits the answer; with ``verbose`` all that was measured."""
    from ntps_utils.evidence.calibration import LABELS
    from ntps_utils.evidence.cost import duration

    def line(text: str) -> None:
        out.print(text, highlight=False, markup=False)

    out.print(f"[bold]{result.headline}[/bold]", highlight=False)
    line(result.summary)
    line(result.reason)
    for text in result.recommendations:
        line(f"Do: {text}")
    line(f"Next: {result.command}")
    for text in result.notes:
        line(f"Note: {text}")
    table = new_table(f"{result.model} on {result.dataset}", show_header=False)
    best = max(result.layers, key=lambda layer: result.layers[layer])
    table.add_row("accuracy of a probe of the last layer, cross-validated", f"{result.probe_accuracy:.3f}")
    table.add_row(f"of a probe of the best layer ({best} of {', '.join(result.layers)})", f"{result.layers[best]:.3f}")
    table.add_row("of a probe of these layers at once", f"{result.alternatives['layers']:.3f}")
    table.add_row("of a bag of words", f"{result.alternatives['words']:.3f}")
    table.add_row("share of the most frequent class", f"{result.majority:.3f}")
    out.print(table)
    facts = result.calibration
    if verbose:
        measured = new_table("What was measured, and its position among the recorded runs", show_header=False)
        for name, value in result.predictors.items():
            known = f"above {result.percentiles[name]:.0%}" if name in result.percentiles else "not recorded"
            measured.add_row(LABELS[name], f"{value:.3f}", known)
        out.print(measured)
        skills = new_table(f"Recorded runs: {facts.name}")
        for heading in ("step", "predictors", "skill on left-out datasets", "cost", "here"):
            skills.add_column(heading, justify="left" if heading in ("step", "predictors", "here") else "right")
        for step in facts.steps:
            skill = f"{step.skill:.2f} ({step.low:.2f} to {step.high:.2f})"
            columns = ", ".join(LABELS[c] for c in step.columns)
            skills.add_row(step.name, columns, skill, f"{100 * step.cost:.0f}%", step.use)
        out.print(skills)
        line("Skill is the share of the median's error that a step saves; a step without skill does not predict.")
    without = f", without {', '.join(facts.left_out)}" if facts.left_out else ""
    low, high = facts.n_parameters
    more = "" if verbose else " --verbose prints all that was measured."
    line(
        f"Based on {facts.n_runs} finetuning runs of {facts.name} on {facts.n_datasets} datasets{without}; models of "
        f"{low:,} to {high:,} parameters. The prescreening took {duration(result.seconds)}, LoRA would take about "
        f"{duration(result.lora_seconds)} here.{more}"
    )
