"""Markdown tables of the lab's texts, tasks and models, for the page that introduces them."""

from __future__ import annotations

import random

import pandas as pd

from book.tools.declared import table
from ntps_utils import lab
from ntps_utils.evidence.tables import load_learnability, load_recorded

MODEL = "lab/M"
"""The model whose results the page shows."""

PIPE = "\\|"
REACHED = 0.5
"""Share of the way from the most frequent class to the best possible accuracy that counts as reached."""


def tables() -> dict[str, str]:
    """Return the tables by name of their file.

    Returns
    -------
    dict of str to str
    """
    return {"lab_texts": texts(), "lab_tasks": tasks(), "lab_models": models()}


def texts(n: int = 4, seed: int = 0) -> str:
    """Return some documents of the world."""
    rng = random.Random(seed)
    return "\n>\n".join("> " + lab.WORLD.write(rng).text.replace("|", r"\|") for _ in range(n)) + "\n"


def reach() -> pd.DataFrame:
    """Classify the tasks by what reaches them.

    Returns
    -------
    DataFrame
        By task: shares of the way from the most frequent class to the best possible accuracy of the
        probe, LoRA (both of :data:`MODEL`) and full finetuning (of the largest model), and ``reached``.
    """
    cells = load_recorded("lab").query("model == @MODEL").set_index("dataset")
    learned = load_learnability().set_index("task")
    rows = {}
    for name in lab.TASKS:
        cell, best = cells.loc[f"lab/{name}"], lab.split_of(name, "test").bayes_accuracy
        room = best - cell["majority"]
        probe, lora = (
            (cell[column] - cell["majority"]) / room if room > 0.02 else 0.0 for column in ("probe_last", "lora")
        )
        full = learned.loc[name, "share"]
        if room <= 0.02:
            reached = "nothing: there is nothing to learn"
        elif probe >= REACHED:
            reached = "the frozen features show it"
        elif lora >= REACHED:
            reached = "LoRA"
        elif full >= REACHED:
            reached = "full finetuning of the largest model"
        else:
            reached = "nothing that was tried"
        rows[name] = {"probe": probe, "lora": lora, "full": full, "reached": reached, "best": best}
    return pd.DataFrame(rows).T


def tasks() -> str:
    """Return every task with an example, the best possible accuracy, and what reaches it."""
    found = reach()
    rows = []
    for name, task in lab.TASKS.items():
        drawn = lab.split_of(name, "test")
        text, label = drawn.texts[0], task.label_names[int(drawn.labels[0])]
        short = text if len(text) <= 70 else f"{text[:70].rsplit(' ', 1)[0]} ..."
        best = f"{drawn.bayes_accuracy:.2f}"
        rows.append((name, task.asks, f"{short} → *{label}*".replace("|", PIPE), best, found.loc[name, "reached"]))
    return table(("task", "question", "example and its answer", "best possible accuracy", "what reaches it"), rows)


def models() -> str:
    """Return the models with their sizes and losses."""
    rows = []
    for name, run in lab.manifest().items():
        checkpoints = run["checkpoints"]
        last = max(checkpoints, key=int)
        loss = f"{checkpoints[last]['validation_loss']:.2f}"
        rows.append((f"lab/{name}", f"{run['n_parameters']:,}", f"{int(last):,}", loss))
    return table(("model", "parameters", "pretraining steps", "loss, nats per token"), rows)
