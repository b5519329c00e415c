"""Can a task of the lab be learned at all? Full finetuning on many texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import joblib
import numpy as np
import torch

from ntps_utils.evidence.store import Store
from ntps_utils.lab.tasks import TASKS, sample
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.finetuning import FinetuneConfig, finetune
from ntps_utils.models.loading import load_model

LEARN = FinetuneConfig("full", learning_rates=(1e-3,), max_steps=1200, eval_steps=50, early_stopping_patience=6)
# For tasks that lie on a plateau for long: no early stop.
LEARN_LONGER = replace(LEARN, max_steps=3000, eval_steps=100, early_stopping_patience=30)


def learn_cell(model: str, task: str, n_train: int, n_test: int, config: FinetuneConfig) -> dict[str, Any]:
    """Finetune every weight of a model on many texts of a lab task: can it be learned at all?

    ``share`` is the accuracy on a scale from the majority class, 0, to the best possible
    reader, 1.
    """
    torch.set_num_threads(1)
    parts = [sample(task, n, seed=100 + i) for i, n in enumerate((n_train, n_test))]
    train, held_out = (
        TextDataset(f"lab/{task}", name, part.texts, part.labels, TASKS[task].label_names)
        for name, part in zip(("train", "test"), parts, strict=True)
    )
    tuned = finetune(load_model(model, dtype="float32"), train, held_out, config)
    test = parts[1]
    majority = float(np.bincount(test.labels).max() / len(test.labels))
    best = test.bayes_accuracy
    return {
        "model": model,
        "task": task,
        "kind": TASKS[task].kind,
        "n_train": n_train,
        "n_test": n_test,
        "majority": majority,
        "best_possible": best,
        "accuracy": tuned.accuracy,
        "share": (tuned.accuracy - majority) / (best - majority) if best > majority + 0.05 else None,
        "n_steps": tuned.n_steps,
        "seconds": round(tuned.seconds, 1),
    }


def run_learning(
    model: str,
    tasks: Sequence[str],
    store: Store,
    *,
    n_train: int = 4000,
    n_test: int = 1000,
    configs: Sequence[FinetuneConfig] = (LEARN, LEARN_LONGER),
    n_jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """:func:`learn_cell` for every task that the store does not hold yet; all rows.

    A task that is not learned half the way with one configuration is tried with the next;
    the row is that of the last one tried.
    """
    weights = load_model(model).fingerprint

    def key(task: str, config: FinetuneConfig) -> dict[str, Any]:
        texts = hashlib.sha256(" ".join(sample(task, 100, seed=100).texts).encode()).hexdigest()[:16]
        facts = {"learn": task, "texts": texts, "weights": weights, "config": asdict(config)}
        return facts | {"n_train": n_train, "n_test": n_test}

    open_tasks, rows = list(tasks), dict[str, dict[str, Any]]()
    for config in configs:
        missing = [task for task in open_tasks if store.get(key(task, config)) is None]
        done = len(tasks) - len(missing)
        jobs = (
            joblib.delayed(_learn_one)(model, task, n_train, n_test, config, store, key(task, config))
            for task in missing
        )
        for _ in joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
            done += 1
            if progress is not None:
                progress(done, len(tasks))
        rows |= {task: row for task in open_tasks if (row := store.get(key(task, config))) is not None}
        open_tasks = [t for t in open_tasks if t in rows and (share := rows[t]["share"]) is not None and share < 0.5]
    return [rows[task] for task in tasks if task in rows]


def _learn_one(
    model: str, task: str, n_train: int, n_test: int, config: FinetuneConfig, store: Store, key: dict[str, Any]
) -> None:
    store.put(key, learn_cell(model, task, n_train, n_test, config))
