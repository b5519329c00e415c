"""``ntps lab``: look at the world, pretrain its models or models of real text, verify them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.table import Table

from ntps_utils._utils.files import atomic_path, check_writable
from ntps_utils._utils.provenance import provenance
from ntps_utils.cli.console import bar, err, guarded, out
from ntps_utils.lab.ladder import MODELS, hashes_agree, manifest, remake, steps_of, verify, write_manifest
from ntps_utils.lab.recipe import CONTEXT, LADDER, Progress
from ntps_utils.lab.tasks import TASKS, find_task, sample
from ntps_utils.lab.world import WORLD

app = typer.Typer(help="The offline world: its tasks and the models pretrained in it.", no_args_is_help=True)


@app.command("tasks")
def list_tasks(
    examples: Annotated[int, typer.Option(help="Texts to show of each task.")] = 1,
    seed: Annotated[int, typer.Option(help="Of these texts.")] = 0,
) -> None:
    """List the tasks with an example and the best possible accuracy."""
    with guarded():
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for heading in ("task", "classes", "best", "example"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "task")
        for name, task in TASKS.items():
            drawn = sample(task, max(500, examples), seed=seed)
            shown = "\n".join(
                f"{text} → {task.label_names[label]}"
                for text, label in list(zip(drawn.texts, drawn.labels, strict=True))[:examples]
            )
            table.add_row(f"lab/{name}", str(len(task.label_names)), f"{drawn.bayes_accuracy:.2f}", shown)
        out.print(table)


@app.command("models")
def list_models() -> None:
    """List the models, their checkpoints, and whether the weights are those of the manifest."""
    with guarded():
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
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
            raise ValueError("Some weights are not those of the manifest; install the library anew.")


@app.command("pretrain")
def pretrain_command(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Sizes to train: {', '.join(MODELS)}.", show_default="all")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="A run's folder is NAME in here.")] = Path("runs/lab"),
    corpus: Annotated[
        list[Path] | None,
        typer.Option(help="Train on these UTF-8 text files (plain or .gz) instead of the world. Repeat for more."),
    ] = None,
    n_tokens: Annotated[int, typer.Option("--vocabulary", help="Tokens of the BPE tokenizer of a corpus.")] = 4096,
    context: Annotated[int, typer.Option(help="Tokens of a training window of a corpus.")] = CONTEXT,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Put the words of each of the world's documents in random order.")
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Train for this long instead.", show_default="the recipe's")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    threads: Annotated[
        int, typer.Option(help="Of the CPU. Small models gain little from more; rounding depends on it.")
    ] = 1,
) -> None:
    """Pretrain models of the ladder. An interrupted run goes on where its last save was."""
    with guarded("interrupted; run the same command again to go on from the last save."):
        torch.set_num_threads(threads)
        chosen = names or list(MODELS)
        for name in chosen:
            steps_of(name)  # refuse an unknown name before the long work
        from ntps_utils.lab.pretrain import Source, WorldSource, corpus_source, initial_model, pretrain, world_tokenizer

        source: Source
        if corpus and shuffled:
            raise ValueError("--shuffled is for the made world; shuffle the lines of a corpus beforehand.")
        if corpus:
            err.print("Training the tokenizer and encoding the corpus ...")
            source = corpus_source(corpus, n_tokens=n_tokens, context=context)
            tokenizer = source.tokenizer
        else:
            tokenizer = world_tokenizer()
            source = WorldSource(WORLD, tokenizer, shuffled)
        for name in chosen:
            recipe = replace(LADDER[name], seed=seed)
            recipe = recipe if steps is None else recipe.shortened(steps)
            n_parameters = sum(p.numel() for p in initial_model(recipe, tokenizer).parameters())
            err.print(f"{name}: {n_parameters:,} parameters on {source.name}")
            _follow(name, pretrain(recipe, source, tokenizer, folder / name, device=device), recipe.n_steps)
            err.print(f"{name} is in {folder / name}.", highlight=False)
        if not (corpus or shuffled) and set(MODELS) <= {p.name for p in folder.iterdir()} and steps is None:
            write_manifest(folder)


@app.command("verify")
def verify_command(
    name: Annotated[str, typer.Argument(help=f"Which model to make anew: {', '.join(MODELS)}.")] = "XS",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Keep the new model here.", show_default="nowhere")
    ] = None,
) -> None:
    """Make a model of the ladder anew and compare it with the shipped one. XS takes some minutes."""
    with guarded("interrupted."), tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        steps_of(name)
        if not all(hashes_agree().values()):
            raise ValueError("Some shipped weights are not those of the manifest; see `ntps lab models`.")
        torch.set_num_threads(1)  # as the shipped ones were made
        _follow(name, remake(name, Path(place)), LADDER[name].n_steps)
        results = verify(name, Path(place))
        for r in results:
            out.print(
                f"lab/{name}@{r.step}: loss {r.shipped_loss:.4f} shipped, {r.new_loss:.4f} now; weights "
                + ("identical." if r.identical else f"differ by at most {r.largest_difference:.2g}."),
                highlight=False,
            )
        if not all(r.agrees for r in results):
            raise ValueError("The new model is not the shipped one: the losses differ by 0.02 nats or more.")


@app.command("learn")
def learn_command(
    model: Annotated[str, typer.Argument(help="Which model to finetune.")] = "lab/L",
    tasks: Annotated[list[str] | None, typer.Option("--task", help="Repeat for more.", show_default="all")] = None,
    csv: Annotated[Path, typer.Option("--csv", help="Write the table here.")] = Path("runs/lab_learnability.csv"),
    n_jobs: Annotated[int, typer.Option("--jobs", help="Processes of one thread each.")] = 2,
) -> None:
    """Show that each task can be learned: finetune every weight of a model on 4,000 texts."""
    with guarded("interrupted; run the same command again to go on with the next task."):
        import pandas as pd

        from ntps_utils.evidence.learnability import LEARN, LEARN_LONGER, run_learning
        from ntps_utils.evidence.store import Store

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
        made = provenance(command=f"ntps lab learn {model}", settings=asdict(LEARN), longer=asdict(LEARN_LONGER))
        with atomic_path(csv.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(made, indent=1) + "\n", "utf-8")
        out.print(pd.DataFrame(rows)[["task", "majority", "best_possible", "accuracy", "share"]].round(3).to_string())


def _follow(name: str, run: Iterator[Progress], total: int) -> None:
    with bar() as progress:
        task = progress.add_task(name, total=total)
        for at in run:
            progress.update(task, completed=at.step, description=f"{name}, loss {at.loss:.3f}")
