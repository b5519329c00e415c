"""Markdown tables of the lab's texts, tasks and models, for the page that introduces them."""

from __future__ import annotations

import random

import pandas as pd

from book.tools.declared import table
from ntps_utils import lab
from ntps_utils.evidence.tables import load_learnability, load_recorded

MODEL = "lab/M"
"""The model whose results the page shows."""

REACHED = 0.5
"""Share of the way from the most frequent class to the best possible accuracy that counts as reached."""

PIPE = r"\|"  # in a cell of a table


def tables() -> dict[str, str]:
    """Return the tables by name of their file.

    Returns
    -------
    dict of str to str
    """
    return {"lab_texts": texts(), "lab_tasks": tasks(), "lab_models": models()}


def texts(n: int = 4, seed: int = 0) -> str:
    """Return some documents of the world with their topics, and the names of all topics."""
    rng = random.Random(seed)
    documents = [lab.WORLD.write(rng) for _ in range(n)]
    lines = [f"> {one.text.replace('|', PIPE)} (*{one.values['topic']}*)" for one in documents]
    topics = ", ".join(documents[0].factors["topic"].words["noun"])
    return "\n>\n".join(lines) + f"\n\nThe topic is in parentheses; the topics are {topics}.\n"


def tasks() -> str:
    """Return every task with an example, the best possible accuracy, and what reaches it."""
    cells = load_recorded("lab").query("model == @MODEL").set_index("dataset")
    learned = load_learnability().set_index("task")["share"]
    rows = []
    for name, task in lab.TASKS.items():
        drawn = lab.split_of(name, "test")
        best, text, label = drawn.bayes_accuracy, drawn.texts[0], task.label_names[int(drawn.labels[0])]
        short = text if len(text) <= 70 else f"{text[:70].rsplit(' ', 1)[0]} ..."
        reached = _reached(cells.loc[f"lab/{name}"], best, float(learned[name]))
        example = f"{short} → *{label}*".replace("|", PIPE)
        rows.append((name, task.kind, task.asks, example, f"{best:.2f}", reached))
    columns = ("task", "kind", "question", "example and its answer", "best possible accuracy", "what reaches it")
    return table(columns, rows)


def _reached(cell: pd.Series, best: float, full: float) -> str:
    """What gets far enough from the most frequent class to the best possible accuracy."""
    room = best - cell["majority"]
    if room <= 0.02:
        return "nothing: there is nothing to learn"
    shares = {
        "the frozen features show it": (cell["probe_last"] - cell["majority"]) / room,
        "LoRA": (cell["lora"] - cell["majority"]) / room,
        "full finetuning of the largest model": full,
    }
    return next((name for name, share in shares.items() if share >= REACHED), "nothing that was tried")


def models() -> str:
    """Return the models with their sizes and losses."""
    rows = []
    for name, run in lab.manifest().items():
        checkpoints = run["checkpoints"]
        last = max(checkpoints, key=int)
        loss = f"{checkpoints[last]['validation_loss']:.3f}"
        rows.append((f"lab/{name}", f"{run['n_parameters']:,}", f"{int(last):,}", loss))
    return table(("model", "parameters", "pretraining steps", "loss, nats per token"), rows)
