"""The ``ntps`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

import ntps_utils
from ntps_utils._utils.files import atomic_path, check_writable
from ntps_utils.cli.benchmark import grid_command, results_app
from ntps_utils.cli.console import bar, err, guarded, out
from ntps_utils.cli.lab import app as lab_app
from ntps_utils.lab.ladder import manifest
from ntps_utils.lab.tasks import TASKS
from ntps_utils.models.datasets import registered_datasets
from ntps_utils.models.loading import registered_models
from ntps_utils.models.scoring import score_model
from ntps_utils.theory.score import ScoreReport, Shrinkage

app = typer.Typer(
    help="Next Token Perception Score: does next-token prediction learn what your task needs?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lab_app, name="lab")
app.add_typer(results_app, name="results")
app.command("grid")(grid_command)


def _version(show: bool) -> None:
    if show:
        out.print(ntps_utils.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Next Token Perception Score: does next-token prediction learn what your task needs?"""


def parse_widths(values: list[str]) -> list[int | float]:
    """Widths from the command line: integers count directions, decimals are fractions of the rank.

    Raises
    ------
    ValueError
        If a part is neither.
    """
    widths: list[int | float] = []
    for part in ",".join(values).split(","):
        text = part.strip()
        try:
            width: int | float = float(text) if "." in text or "e" in text.lower() else int(text)
        except ValueError:
            raise ValueError(f"--k-v takes integers or fractions such as 16 or 0.5; got {text!r}.") from None
        if isinstance(width, float) and not 0.0 < width <= 1.0:
            raise ValueError(f"--k-v {text} is not a fraction in (0, 1]; write an integer for a number of directions.")
        if isinstance(width, int) and width < 1:
            raise ValueError(f"--k-v {text} is below 1; at least one direction must be kept.")
        widths.append(width)
    return widths


def parse_shrinkage(text: str) -> Shrinkage:
    """A number in [0, 1], or "ledoit-wolf".

    Raises
    ------
    ValueError
        If it is neither.
    """
    if text == "ledoit-wolf":
        return "ledoit-wolf"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--shrinkage takes a number in [0, 1] or ledoit-wolf; got {text!r}.") from None


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="A Hub id, a local folder, or lab/XS, S, M or L.")],
    dataset: Annotated[
        str,
        typer.Argument(
            help="A registered name, a Hub id, a local folder with train.csv or the like, "
            "a CSV, Parquet or JSONL file, or a task of the lab such as lab/topic."
        ),
    ],
    split: Annotated[str, typer.Option(help="Which split of the dataset.")] = "train",
    max_texts: Annotated[int | None, typer.Option(help="Use the first N rows only.", show_default="all")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Cut texts after this many tokens.", show_default="the model's limit")
    ] = None,
    bos: Annotated[
        bool | None,
        typer.Option(
            "--bos/--no-bos",
            help="Put a beginning-of-sequence token before every text, or no special token at all.",
            show_default="the tokenizer's habit",
        ),
    ] = None,
    layers: Annotated[
        str, typer.Option(help="all, last, or indices such as 0,2,-1 (0 = embeddings, -1 = last).")
    ] = "all",
    k_v: Annotated[
        list[str] | None,
        typer.Option(
            "--k-v",
            help="Autoregressive directions to keep: integers, or fractions of their number. "
            "Repeat, or separate by commas.",
            show_default="0.5",
        ),
    ] = None,
    center: Annotated[
        bool, typer.Option("--center/--no-center", help="Covariances instead of the paper's second moments.")
    ] = False,
    ridge: Annotated[float, typer.Option(help="Noise added to S, as a fraction of its mean diagonal entry.")] = 0.0,
    shrinkage: Annotated[str, typer.Option(help="Shrinkage of S: a number in [0, 1], or ledoit-wolf.")] = "0",
    order: Annotated[
        str, typer.Option(help="Order of eigenvectors: descending, or ascending to mirror the released script.")
    ] = "descending",
    batch_size: Annotated[int, typer.Option(help="Texts in a forward pass.")] = 16,
    stream: Annotated[
        bool, typer.Option("--stream", help="Keep one layer's features in memory at a time, for deep models.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Keep the state of the pass here; a run that was interrupted goes on from it."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            help="auto, float64, float32, bfloat16 or float16; auto is float64 for small models on a CPU, "
            "else the checkpoint's own."
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the groups of --jackknife, the one thing random here.")] = 0,
    text_column: Annotated[str, typer.Option(help="Column of the texts in a file.")] = "text",
    label_column: Annotated[str, typer.Option(help="Column of the labels in a file.")] = "label",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    jackknife: Annotated[
        int, typer.Option(help="Random groups of texts for standard errors (10 is a good number); 0 for none.")
    ] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write rows and provenance here.")] = None,
) -> None:
    """Score how far a model's next-token subspace serves the labels of a dataset.

    One row for each layer and width k_v, with the paper's score (ntps), the
    metric-matched (ntps_metric) and task-weighted (ntps_task) scores, the loss that the
    features can explain (trace_b), and what keeping only the next-token subspace costs
    (excess_loss) with its bounds.
    """
    with guarded():
        widths = parse_widths(k_v or ["0.5"])
        intensity = parse_shrinkage(shrinkage)
        if json_file is not None:
            check_writable(json_file, make_folders=False)
        with bar() as shown:
            task = shown.add_task("loading", total=None)

            def progress(step: str, done: int, total: int) -> None:
                shown.update(task, description=step, completed=done, total=total)

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
                batch_size=batch_size,
                stream=stream,
                checkpoint=checkpoint,
                device=device,
                dtype=dtype,
                seed=seed,
                text_column=text_column,
                label_column=label_column,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
        print_report(report)
        if json_file is not None:
            with atomic_path(json_file) as temporary:
                temporary.write_text(report.to_json() + "\n", encoding="utf-8")
            err.print(f"Rows and provenance are in {json_file}.", highlight=False, markup=False)


@app.command("prescreen")
def prescreen_command(
    model: Annotated[str, typer.Argument(help="A Hub id, a local folder, or lab/XS, S, M or L.")],
    dataset: Annotated[
        str, typer.Argument(help="A registered name, a Hub id, a folder, a file, or a task of the lab.")
    ],
    calibration: Annotated[
        str,
        typer.Option(
            help="lab or real, which ship with the library, or a CSV file of `ntps grid --record`.",
            show_default="lab for the lab's models, else real",
        ),
    ] = "auto",
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A dataset of the calibration to leave out. Repeat for more.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Gain in points of accuracy from which LoRA is worth while.")] = 1.0,
    max_texts: Annotated[int, typer.Option(help="Use the first N rows only.")] = 2000,
    max_length: Annotated[
        int | None, typer.Option(help="Cut texts after this many tokens.", show_default="the model's limit")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Texts in a forward pass.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float64, float32, bfloat16 or float16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of folds and random projections.")] = 0,
    text_column: Annotated[str, typer.Option(help="Column of the texts in a file.")] = "text",
    label_column: Annotated[str, typer.Option(help="Column of the labels in a file.")] = "label",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all of it here.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Also write a report here.")] = None,
) -> None:
    """Predict what LoRA would gain on a dataset, before any finetuning.

    Scores, rivals and a probe are measured on the frozen features; recorded finetuning
    runs on other datasets say what gain to expect, how sure that is, and whether anything
    predicts it at all.
    """
    with guarded():
        for file in filter(None, (json_file, html_file)):
            check_writable(file, make_folders=False)
        from ntps_utils.evidence.prescreen import HEADLINES, LABELS, duration, prescreen

        with bar() as shown:
            task = shown.add_task("loading", total=None)
            p = prescreen(
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
                trust_remote_code=trust_remote_code,
                progress=lambda what, done, total: shown.update(task, description=what, completed=done, total=total),
            )
        table = Table(
            title=escape(f"{p.model} on {p.dataset}"),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            show_edge=False,
            show_header=False,
            padding=(0, 1, 0, 0),
        )
        table.add_row("probe accuracy, cross-validated", f"{p.probe_accuracy:.3f}")
        table.add_row("commonest class", f"{p.majority:.3f}")
        for name, value in p.predictors.items():
            table.add_row(LABELS[name], f"{value:.3f}")
        out.print(table)
        out.print(f"[bold]{HEADLINES[p.verdict]}[/bold]")
        for reason in p.reasons:
            out.print(reason, highlight=False, markup=False)
        facts = p.calibration
        without = f", without {', '.join(facts.left_out)}" if facts.left_out else ""
        out.print(
            f"Calibration: {facts.name}, {facts.n_cells} finetuning runs on {facts.n_datasets} datasets{without}. "
            f"This took {duration(p.seconds)}; the LoRA run would take about {duration(p.lora_seconds)} here.",
            highlight=False,
            markup=False,
        )
        for target, text in ((json_file, p.to_json), (html_file, p.to_html)):
            if target is not None:
                with atomic_path(target) as temporary:
                    temporary.write_text(text() + "\n", encoding="utf-8")
                err.print(f"Written: {target}", highlight=False, markup=False)


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(help="models or datasets.")],
) -> None:
    """List what is registered by name: the paper's models and datasets, and the lab's."""
    with guarded():
        if what not in ("models", "datasets"):
            raise ValueError(f"There is a list of models and one of datasets, not of {what!r}.")
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        if what == "models":
            for heading in ("name", "parameters", "Hub id", "license", "needs"):
                table.add_column(heading, overflow="fold", no_wrap=heading == "name")
            for name, entry in registered_models().items():
                needs = "--trust-remote-code" if entry.get("remote_code") else ""
                table.add_row(name, entry["parameters"], entry["hub"], entry["license"], needs)
            for name, run in manifest().items():
                table.add_row(f"lab/{name}", f"{run['n_parameters']:,}", "shipped", "mit", "")
        else:
            for heading in ("name", "Hub id", "test split", "why", "license", "source"):
                table.add_column(heading, overflow="fold", no_wrap=heading == "name")
            for name, entry in registered_datasets().items():
                held = entry.get("hold_out")
                test = f"{held['share']:.0%} of train" if held else entry["splits"].get("test", "none")
                table.add_row(
                    name, entry.get("hub", "unknown"), test, entry["why"], entry["license"], entry["citation"]
                )
            for name, task in TASKS.items():
                table.add_row(f"lab/{name}", "made here", "test", task.asks, "mit", "")
        out.print(table)


SHOWN = {
    "ntps": "NTPS",
    "ntps_metric": "metric",
    "ntps_task": "task",
    "trace_b": "tr B",
    "excess_loss": "excess",
}


def print_report(report: ScoreReport) -> None:
    """A table of the scores, with standard errors where there are any."""
    facts = report.provenance
    with_errors = bool(facts["jackknife"])
    table = Table(
        title=escape(f"{facts['model']} on {facts['dataset']}"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 0, 0, 1),
        show_edge=False,
    )
    # Standard errors and bounds do not fit in 80 columns together; the JSON file holds both.
    bounds = [] if with_errors else ["by NTPS", "by metric"]
    for heading in ["layer", "k_v", *SHOWN.values(), *bounds]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report:
        cells = [str(row.layer), str(row.k_v)]
        for name in SHOWN:
            error = getattr(row, f"{name}_se", None)
            cells.append(f"{getattr(row, name):.4f}" if error is None else f"{getattr(row, name):.3f} ± {error:.3f}")
        if not with_errors:
            cells.append(f"{row.lower_bound:.1g}–{row.upper_bound:.2g}")
            cells.append(f"{row.lower_bound_metric:.2g}–{row.upper_bound_metric:.2g}")
        table.add_row(*cells)
    ending = "± is one standard error over texts" if with_errors else "the last two columns are the bounds on it"
    out.print(table)
    out.print(
        f"{facts['n_texts']} texts, {facts['n_tokens']} tokens, {facts['n_classes']} classes, "
        f"{'centered' if facts['center'] else 'uncentered'} moments, {facts['seconds']:.1f} s. The excess loss is "
        f"what keeping only k_v next-token directions costs; {ending}.",
        highlight=False,
    )
