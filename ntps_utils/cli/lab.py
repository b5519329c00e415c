"""``ntps lab``: list the tasks and models of the lab, pretrain models, and verify the shipped ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntps_utils._utils.files import atomic_path, check_writable, write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.cli import options
from ntps_utils.cli.console import bar, err, guarded, new_table, out

if TYPE_CHECKING:
    from ntps_utils.lab.pretrain import Source
    from ntps_utils.lab.recipe import Progress

app = typer.Typer(
    help="List the tasks and models of the lab, pretrain models, and verify the shipped ones.", no_args_is_help=True
)


@app.command("tasks")
def list_tasks(
    examples: Annotated[int, typer.Option(min=0, help="Number of example texts per task.")] = 1,
    seed: Annotated[int, options.seed_option("the texts")] = 0,
) -> None:
    """List the tasks with an example and the best possible accuracy on 500 drawn texts."""
    with guarded():
        from ntps_utils.lab.tasks import TASKS, sample

        table = new_table()
        for heading in ("task", "classes", "best", "example"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "task")
        for name, task in TASKS.items():
            texts = sample(task, max(500, examples), seed=seed)
            lines = "\n".join(
                f"{text} → {task.label_names[label]}"
                for text, label in list(zip(texts.texts, texts.labels, strict=True))[:examples]
            )
            table.add_row(f"lab/{name}", str(len(task.label_names)), f"{texts.bayes_accuracy:.2f}", lines)
        out.print(table)


@app.command("models")
def list_models() -> None:
    """List the models and their checkpoints, and compare the weights with the hashes in the manifest."""
    with guarded():
        from ntps_utils.lab.ladder import hashes_agree, manifest

        table = new_table()
        for heading in ("model", "parameters", "checkpoint", "validation loss", "hash"):
            table.add_column(heading)
        agree = hashes_agree()
        for name, run in manifest().items():
            for step, facts in run["checkpoints"].items():
                good = "agrees" if agree[f"{name}/step-{step}"] else "[red]differs[/red]"
                table.add_row(
                    f"lab/{name}@{step}", f"{run['n_parameters']:,}", step, f"{facts['validation_loss']:.4f}", good
                )
        out.print(table)
        if not all(agree.values()):
            raise ValueError("Some weights do not match the hashes in the manifest. Reinstall ntps-utils.")


@app.command("pretrain")
def pretrain_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Sizes to pretrain: XS, S, M or L.", show_default="all")
    ] = None,
    folder: Annotated[
        Path, typer.Option("--out", help="Folder of the runs. The run of each size is a folder in it.")
    ] = Path("runs/lab"),
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pretrain on this UTF-8 text file (plain or .gz) instead of the lab's documents. "
            "Repeat for several files."
        ),
    ] = None,
    n_tokens: Annotated[
        int, typer.Option("--vocabulary", help="Number of tokens of the BPE tokenizer, for --corpus.")
    ] = 4096,
    context: Annotated[
        int | None, typer.Option(help="Number of tokens of a training window, for --corpus.", show_default="128")
    ] = None,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Shuffle the words of each of the lab's documents.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Number of training steps.", show_default="as in the recipe")
    ] = None,
    seed: Annotated[int, options.seed_option("initial weights and batches")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of CPU threads. Small models gain little from more than one, and rounding depends on it.",
        ),
    ] = 1,
) -> None:
    """Pretrain models by the lab's recipes. An interrupted run continues from its last save."""
    interrupted = "interrupted. Run the same command again to continue from the last save."
    with guarded(interrupted, models=True), _torch_threads(threads):
        from ntps_utils.lab.ladder import MODELS, steps_of, write_manifest
        from ntps_utils.lab.pretrain import WorldSource, corpus_source, initial_model, pretrain, world_tokenizer
        from ntps_utils.lab.recipe import CONTEXT, LADDER
        from ntps_utils.lab.world import WORLD

        chosen = names or list(MODELS)
        for name in chosen:
            steps_of(name)  # raises for an unknown name before the training starts
        source: Source
        if corpus and shuffled:
            raise ValueError("--shuffled cannot be used with --corpus. Shuffle the words of the corpus beforehand.")
        if corpus:
            err.print("Training the tokenizer and encoding the corpus ...")
            source = corpus_source(corpus, n_tokens=n_tokens, context=CONTEXT if context is None else context)
            tokenizer = source.tokenizer
        else:
            tokenizer = world_tokenizer()
            source = WorldSource(WORLD, tokenizer, shuffled)
        for name in chosen:
            recipe = replace(LADDER[name], seed=seed)
            recipe = recipe if steps is None else recipe.shortened(steps)
            n_parameters = sum(p.numel() for p in initial_model(recipe, tokenizer).parameters())
            err.print(f"{name}: {n_parameters:,} parameters, pretrained on {source.name}")
            _follow(name, pretrain(recipe, source, tokenizer, folder / name, device=device), recipe.n_steps)
            err.print(f"Wrote {folder / name}.", highlight=False, markup=False, soft_wrap=True)
        if not (corpus or shuffled) and set(MODELS) <= {p.name for p in folder.iterdir()} and steps is None:
            write_manifest(folder)


@app.command("verify")
def verify_command(
    name: Annotated[str, typer.Argument(help="Size of the model: XS, S, M or L.")] = "XS",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Save the new model in this folder.", show_default="not saved")
    ] = None,
) -> None:
    """Pretrain a model of the lab again and compare it with the shipped one. XS takes a few minutes."""
    with (
        guarded("interrupted.", models=True),
        _torch_threads(1),  # as for the shipped models
        tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place,
    ):
        from ntps_utils.lab.ladder import hashes_agree, remake, steps_of, verify
        from ntps_utils.lab.recipe import LADDER

        steps_of(name)
        if not all(hashes_agree().values()):
            raise ValueError("Some shipped weights do not match the hashes in the manifest; see `ntps lab models`.")
        _follow(name, remake(name, Path(place)), LADDER[name].n_steps)
        results = verify(name, Path(place))
        for r in results:
            out.print(
                f"lab/{name}@{r.step}: loss {r.shipped_loss:.4f} (shipped), {r.new_loss:.4f} (new); the weights "
                + ("are identical." if r.identical else f"differ by at most {r.largest_difference:.2g}."),
                highlight=False,
            )
        if not all(r.agrees for r in results):
            raise ValueError("The new model differs from the shipped one: the losses differ by 0.02 nats or more.")


@app.command("learn")
def learn_command(
    model: Annotated[str, typer.Argument(help="Model to finetune.")] = "lab/L",
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", help="Task to learn. Repeat for several tasks.", show_default="all"),
    ] = None,
    csv: Annotated[Path, typer.Option("--csv", help="CSV file to write.")] = Path("runs/lab_learnability.csv"),
    n_jobs: Annotated[int, typer.Option("--jobs", help="Number of processes, each with one thread.")] = 2,
) -> None:
    """Measure how well each task can be learned: finetune all weights of a model on 4,000 texts."""
    with guarded("interrupted. Run the same command again to continue with the next task.", models=True):
        import pandas as pd

        from ntps_utils.evidence.learnability import LEARN, LEARN_LONGER, run_learning
        from ntps_utils.evidence.store import Store
        from ntps_utils.lab.tasks import TASKS, find_task

        names = [find_task(task).name for task in tasks or TASKS]
        check_writable(csv)
        with bar() as progress:
            shown = progress.add_task("finetuning", total=len(names))
            rows = run_learning(
                model,
                names,
                Store(csv.parent / "learn"),
                n_jobs=n_jobs,
                progress=lambda done, total: progress.update(shown, completed=done, total=total),
            )
        with atomic_path(csv) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")
        facts = provenance(command=f"ntps lab learn {model}", settings=asdict(LEARN), longer=asdict(LEARN_LONGER))
        write_json(csv.with_suffix(".json"), facts)
        out.print(pd.DataFrame(rows)[["task", "majority", "best_possible", "accuracy", "share"]].round(3).to_string())


@contextmanager
def _torch_threads(n_threads: int) -> Iterator[None]:
    """Let torch use this number of CPU threads within the block."""
    import torch

    previous = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def _follow(name: str, run: Iterator[Progress], total: int) -> None:
    with bar() as progress:
        task = progress.add_task(name, total=total)
        for step in run:
            progress.update(task, completed=step.step, description=f"{name}, loss {step.loss:.3f}")
