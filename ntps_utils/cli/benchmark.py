"""``ntps benchmark``: evaluate every model on every dataset."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ntps_utils._utils.files import check_writable
from ntps_utils._utils.validation import check_choice, check_integer, check_number
from ntps_utils.cli import options
from ntps_utils.cli.console import err, guarded, new_table, note, out

if TYPE_CHECKING:
    from ntps_utils.evidence.benchmark import Failure
    from ntps_utils.evidence.cost import Cost
    from ntps_utils.evidence.experiment import ExperimentConfig, ExperimentResult
    from ntps_utils.evidence.store import Store

Watch = Callable[[Mapping[tuple[str, str], str]], None]

PAPER_NAMES = "paper"
"""Stands for all names that the library knows from the paper."""

MARKS = {
    "waiting": "[dim]·[/dim]",
    "running": "[yellow]>[/yellow]",
    "done": "[green]✓[/green]",
    "failed": "[red]×[/red]",
}
N_WARNINGS = 5
"""Number of warnings to print."""


def parse_names(text: str, option: str, paper: Collection[str] = ()) -> dict[str, str]:
    """Parse names from the command line.

    Parameters
    ----------
    text : str
        Names separated by commas. ALIAS=PLACE gives an alias to a name or folder.
    option : str
        Name of the option, for error messages.
    paper : collection of str
        Names that ``paper`` stands for; each can still be given a place of its own.

    Returns
    -------
    dict of str to str
        Names or folders by alias.

    Raises
    ------
    ValueError
        If there is no name, or an alias occurs twice.

    Examples
    --------
    >>> parse_names("lab/S,mine=runs/model", "--models")
    {'lab/S': 'lab/S', 'mine': 'runs/model'}
    """
    places: dict[str, str] = {}
    parts = [text] if text and Path(text).exists() else [part for p in text.split(",") if (part := p.strip())]
    for part in parts:
        alias, _, place = (part, "", "") if Path(part).exists() else part.partition("=")
        if alias != PAPER_NAMES and alias in places:
            raise ValueError(f"{option} contains {alias!r} twice; give each name once.")
        if alias != PAPER_NAMES:
            places[alias] = place or alias
    if PAPER_NAMES in parts:
        places = {name: places.get(name, name) for name in (*paper, *places)}
    if not places:
        raise ValueError(f"{option} needs at least one name.")
    return places


def benchmark_command(
    models: Annotated[
        str,
        typer.Option(
            help="Names, Hub ids or folders, separated by commas. ALIAS=PLACE gives an alias; paper stands for the "
            "paper's 8 models."
        ),
    ],
    datasets: Annotated[
        str,
        typer.Option(
            help="Names, Hub ids or folders with train and test splits, in the same form; paper stands for the "
            "paper's 12 datasets."
        ),
    ],
    store: options.Store = Path("runs/cells"),
    profile: Annotated[
        str,
        typer.Option(
            help="cpu; gpu: bfloat16, adapters of rank 32, at most 3000 training and 1500 test texts; declared: at "
            "most 2000 training and 1000 test texts of at most 64 tokens, 300 steps of 16 texts at one learning rate, "
            "and the classifiers without finetuning that ntps prescreen compares with; "
            "lab: 600 steps of 32 texts, as in the recorded runs of the lab."
        ),
    ] = "cpu",
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="local, or the address of a Dask scheduler such as dask://host:8786.", show_default="this process"
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Number of worker processes of a local scheduler.")] = 1,
    retries: Annotated[int, typer.Option(help="Number of times that Dask repeats a cell after an error.")] = 2,
    n_train: Annotated[
        int | None, typer.Option(help="Use only the first N training texts.", show_default="set by the profile")
    ] = None,
    n_test: Annotated[
        int | None, typer.Option(help="Use only the first N test texts.", show_default="set by the profile")
    ] = None,
    max_length: Annotated[int | None, options.max_length_option("set by the profile")] = None,
    lora: Annotated[bool, typer.Option("--lora/--no-lora", help="Also finetune, or only score and probe.")] = True,
    seed: Annotated[int, options.seed_option("folds, random projections, batches, heads and adapters")] = 0,
    target_modules: options.TargetModules = None,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    trust_remote_code: options.TrustRemoteCode = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the missing cells and their estimated cost, and run nothing.")
    ] = False,
    flops: Annotated[
        float | None,
        typer.Option(help="For --dry-run: operations per second of the device.", show_default="measured here"),
    ] = None,
    record_prefix: Annotated[
        Path | None, typer.Option("--record", help="Write the tables PREFIX_cells.csv and PREFIX_scores.csv.")
    ] = None,
) -> None:
    """Evaluate every model on every dataset: scores, probes, transferability, and LoRA against frozen features.

    Each finished cell is stored at once, and the same command continues an interrupted run. The exit status is 1
    if a cell failed.
    """
    failures: Sequence[Failure] = ()
    with guarded("interrupted; finished cells are stored. Run the same command again to continue.", models=True):
        from ntps_utils.evidence.benchmark import run_benchmark
        from ntps_utils.evidence.store import Store
        from ntps_utils.models._hub import registry
        from ntps_utils.models.loading import paper_models

        model_places = parse_names(models, "--models", paper_models())
        dataset_places = parse_names(datasets, "--datasets", registry("datasets"))
        check_integer("--jobs", jobs, 1)
        check_integer("--retries", retries, 0)
        if flops is not None:
            check_number("--flops", flops, 0.0, open_low=True)
        settings = replace(
            _settings(profile, n_train, n_test, max_length, lora, seed),
            text_column=text_column,
            label_column=label_column,
        )
        if target_modules is not None and settings.lora is not None:
            lora_settings = replace(settings.lora, target_modules=options.module_names(target_modules))
            settings = replace(settings, lora=lora_settings)
        if record_prefix is not None:
            check_writable(record_prefix)
        if dry_run:
            _print_plan(model_places, dataset_places, settings, Store(store), jobs, flops, trust_remote_code)
            return
        with _progress(model_places, dataset_places) as watch:
            benchmark = run_benchmark(
                list(model_places.values()),
                list(dataset_places.values()),
                settings,
                Store(store),
                scheduler=scheduler,
                n_workers=jobs,
                gpu=profile == "gpu",
                retries=retries,
                trust_remote_code=trust_remote_code,
                watch=watch,
            )
        aliases = {(model_places[m], dataset_places[d]): (m, d) for m in model_places for d in dataset_places}
        results = [
            replace(benchmark.rows[cell], model=model, dataset=dataset)
            for cell, (model, dataset) in aliases.items()
            if cell in benchmark.rows
        ]
        if record_prefix is not None and results:  # before printing, which a closed pipe ends
            from ntps_utils.evidence._wording import options as given_options
            from ntps_utils.evidence.tables import record

            command = (
                f"ntps benchmark --profile {profile} --models {','.join(model_places)} "
                f"--datasets {','.join(dataset_places)}"
            )
            given = {
                "no-lora": not lora or None,
                "n-train": n_train,
                "n-test": n_test,
                "max-length": max_length,
                "seed": seed or None,
                "target-modules": target_modules,
                "text-column": None if text_column == "text" else text_column,
                "label-column": None if label_column == "label" else label_column,
            }
            command += given_options(given, given)
            record(results, record_prefix, settings, command, weights={r.model: r.weights for r in results})
            err.print(f"Wrote tables and provenance to {record_prefix}_*.", highlight=False, markup=False)
        _print_results(results, lora)
        _print_warnings(results)
        failures = [
            replace(failure, model=model, dataset=dataset)
            for failure in benchmark.failures
            for model, dataset in [aliases[failure.model, failure.dataset]]
        ]
        _print_failures(failures, len(aliases), store)
    if failures:
        raise typer.Exit(1)


def _settings(
    profile: str, n_train: int | None, n_test: int | None, max_length: int | None, lora: bool, seed: int
) -> ExperimentConfig:
    from ntps_utils.evidence.declared import FINETUNED_MODELS, PILOTS, Run, run_settings
    from ntps_utils.evidence.experiment import PROFILES
    from ntps_utils.evidence.runs import chosen_rates

    declared = run_settings(Run("lora", FINETUNED_MODELS[0], PILOTS[0]), chosen_rates())
    profiles = PROFILES | {"declared": replace(declared, classifiers=True)}
    check_choice("--profile", profile, profiles)
    start = profiles[profile]
    assert start.lora is not None
    return replace(
        start,
        n_train=start.n_train if n_train is None else n_train,
        n_test=start.n_test if n_test is None else n_test,
        max_length=start.max_length if max_length is None else max_length,
        lora=replace(start.lora, seed=seed) if lora else None,
        frozen=replace(start.frozen, seed=seed),
        seed=seed,
    )


@contextmanager
def _progress(models: Mapping[str, str], datasets: Mapping[str, str]) -> Iterator[Watch]:
    """Show the states of the cells on the error stream: a live table in a terminal, otherwise one line per cell."""
    started, printed = time.monotonic(), dict[tuple[str, str], str]()

    def table(states: Mapping[tuple[str, str], str]) -> Table:
        counts = {state: sum(s == state for s in states.values()) for state in MARKS}
        summary = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        grid = new_table(padding=(0, 1), caption=f"{summary} · {minutes}:{seconds:02d}", caption_justify="left")
        grid.add_column()
        for name in models:
            grid.add_column(escape(name), justify="center", overflow="fold")
        for name, dataset in datasets.items():
            marks = [MARKS[states[model, dataset]] if (model, dataset) in states else "" for model in models.values()]
            grid.add_row(escape(name), *marks)
        return grid

    if err.is_terminal:
        with Live(table({}), console=err, auto_refresh=False) as live:
            yield lambda states: live.update(table(states), refresh=True)
        return

    names = {(m, d): f"{alias} on {dataset}" for alias, m in models.items() for dataset, d in datasets.items()}

    def print_changes(states: Mapping[tuple[str, str], str]) -> None:
        n = sum(state in ("done", "failed") for state in states.values())
        if not printed and n:
            err.print(f"{n} of {len(states)} cells are already in the store.", highlight=False)
        for cell, state in states.items():
            if printed and state in ("done", "failed") and printed[cell] != state:
                err.print(f"{n}/{len(states)} {names[cell]}: {state}", highlight=False, markup=False, soft_wrap=True)
        printed.update(states)

    yield print_changes


def _print_results(results: Sequence[ExperimentResult], lora: bool) -> None:
    compared = lora and any(result.classifiers for result in results)
    tuned = ["frozen", "lora", "gain", *(["advantage"] if compared else []), "lora_steps"] if lora else []
    without = ["alternative"] if compared else ["probe_last", "probe_middle"]
    columns = ["model", "dataset", "n_test", *without, *tuned, "seconds"]
    table = new_table()
    for heading in columns:
        table.add_column(heading, justify="left" if heading in ("model", "dataset", "alternative") else "right")
    for result in results:
        row = result.to_row()
        if row.get("alternative") == "layers":
            row["alternative"] = "several layers"
        table.add_row(*(f"{v:.3f}" if isinstance(v := row[c], float) else escape(str(v)) for c in columns))
    out.print(table)
    if compared:
        out.print(
            "On test texts: gain is lora minus frozen, a head on the last layer; advantage is lora minus the "
            "alternative, the best classifier without finetuning by cross-validation.",
            highlight=False,
        )
    if lora and any(result.finetuning is not None and not result.finetuning.n_steps for result in results):
        out.print(
            "lora_steps is the training step with the lowest validation loss. 0 means that no later step was better.",
            highlight=False,
        )


def _print_warnings(results: Sequence[ExperimentResult]) -> None:
    """Print the most frequent warnings, each once."""
    counts = Counter(message for result in results for message in result.warnings).most_common()
    for message, n in counts[:N_WARNINGS]:
        note(f"{message} ({n} cells)")
    if len(counts) > N_WARNINGS:
        note(f"There are {len(counts) - N_WARNINGS} other warnings; the stored results contain them.")


def _print_failures(failures: Sequence[Failure], n_cells: int, store: Path) -> None:
    for failure in failures:
        text = escape(f"{failure.model} on {failure.dataset}: {failure.error}")
        err.print(f"[red]failed:[/red] {text}", soft_wrap=True, highlight=False)
    if failures:
        n = f"{len(failures)} of {n_cells} cells failed" if len(failures) > 1 else "One cell failed"
        err.print(
            f"{n}. The tracebacks are in {store}/failed. When the cause is mended, run the same command again; "
            "finished cells are kept.",
            highlight=False,
            markup=False,
        )


def _print_plan(
    models: Mapping[str, str],
    datasets: Mapping[str, str],
    settings: ExperimentConfig,
    store: Store,
    jobs: int,
    flops: float | None,
    trust_remote_code: bool,
) -> None:
    """Print the missing cells and their estimated cost, model by model."""
    from ntps_utils.evidence import cost
    from ntps_utils.evidence.benchmark import plan_benchmark

    plan = plan_benchmark(
        list(models.values()), list(datasets.values()), settings, store, trust_remote_code=trust_remote_code
    )
    texts = {name: cost.text_size(*parts, settings.max_length) for name, parts in plan.texts.items()}
    table = new_table()
    for heading in ("model", "parameters", "missing cells", "operations", "time", "device memory"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    all_costs: list[Cost] = []
    for alias, model in models.items():
        size = cost.model_size(model, trust_remote_code=trust_remote_code)
        missing = [cell for cell in plan.missing if cell.model == model]
        speed = cost.measure_speed(size, settings, flops=flops)
        costs = [cost.cell_cost(size, texts[cell.dataset], settings, speed) for cell in missing]
        all_costs += costs
        n = f"{len(missing)} of {len(datasets)}"
        table.add_row(escape(alias), f"{size.n_parameters:,}", n, *_cost_columns(costs))
    table.add_section()
    n = f"{len(plan.missing)} of {len(plan.cells)}"
    table.add_row("all" if jobs == 1 else f"all, {jobs} at a time", "", n, *_cost_columns(all_costs, jobs))
    out.print(table)
    speed_source = "measured on this machine" if flops is None else f"{flops:.3g} operations per second, as given"
    out.print(f"Speed: {speed_source}. The LoRA estimate assumes no early stopping. Nothing was run.", highlight=False)


def _cost_columns(costs: Sequence[Cost], n_workers: int = 1) -> list[str]:
    from ntps_utils.evidence.cost import total

    if not costs:
        return ["", "", ""]
    cost = total(costs, n_workers)
    return [f"{cost.flops:.2g}", cost.duration, f"{cost.memory / 2**30:.2g} GiB"]
