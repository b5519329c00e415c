"""Full finetuning on many texts of the lab's tasks: can a task be learned at all?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
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
LEARN_LONGER = replace(LEARN, max_steps=3000, eval_steps=100, early_stopping_patience=30)
"""No early stopping, for tasks whose accuracy stays at chance for many steps."""


@dataclass(frozen=True)
class LearnabilityResult:
    """Result of full finetuning on one task of the lab.

    Attributes
    ----------
    model, task : str
        Names.
    kind : str
        Kind of the task, see :class:`ntps_utils.lab.tasks.Task`.
    n_train, n_test : int
        Number of training and test texts.
    majority, best_possible : float
        Accuracy of the most frequent class and of the best possible classifier on the test texts.
    accuracy : float
        Test accuracy.
    share : float or None
        Position of the accuracy between ``majority`` (0) and ``best_possible`` (1); None if
        these two are nearly equal.
    n_steps : int
        Training steps of the selected checkpoint.
    seconds : float
        Duration.
    """

    model: str
    task: str
    kind: str
    n_train: int
    n_test: int
    majority: float
    best_possible: float
    accuracy: float
    share: float | None
    n_steps: int
    seconds: float


def learn_task(model: str, task: str, n_train: int, n_test: int, config: FinetuneConfig) -> LearnabilityResult:
    """Finetune all weights of a model on many texts of a task of the lab.

    Parameters
    ----------
    model : str
        See :func:`ntps_utils.models.loading.load_model`.
    task : str
        Name of the task, such as "topic".
    n_train, n_test : int
        Number of training and test texts.
    config : FinetuneConfig

    Returns
    -------
    LearnabilityResult
    """
    torch.set_num_threads(1)
    samples = [sample(task, n, seed=100 + i) for i, n in enumerate((n_train, n_test))]
    train, test = (
        TextDataset(f"lab/{task}", split, drawn.texts, drawn.labels, TASKS[task].label_names)
        for split, drawn in zip(("train", "test"), samples, strict=True)
    )
    tuned = finetune(load_model(model, dtype="float32"), train, test, config)
    majority = float(np.bincount(test.labels).max() / len(test))
    best = samples[1].bayes_accuracy
    return LearnabilityResult(
        model=model,
        task=task,
        kind=TASKS[task].kind,
        n_train=n_train,
        n_test=n_test,
        majority=majority,
        best_possible=best,
        accuracy=tuned.accuracy,
        share=(tuned.accuracy - majority) / (best - majority) if best > majority + 0.05 else None,
        n_steps=tuned.n_steps,
        seconds=round(tuned.seconds, 1),
    )


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
) -> list[LearnabilityResult]:
    """Run :func:`learn_task` for every task without a result in the store.

    A task with a share below one half is repeated with the next configuration; its result is
    that of the last one.

    Parameters
    ----------
    model, n_train, n_test
        See :func:`learn_task`.
    tasks : sequence of str
        Names of tasks.
    store : Store
        Each result is stored as soon as its run has finished.
    configs : sequence of FinetuneConfig
        Configurations in the order in which they are tried.
    n_jobs : int
        Number of processes.
    progress : callable, optional
        Called with the number of finished tasks and their total, for each configuration.

    Returns
    -------
    list of LearnabilityResult
        In the order of ``tasks``.
    """
    weights = load_model(model).fingerprint

    def key(task: str, config: FinetuneConfig) -> dict[str, Any]:
        texts = hashlib.sha256(" ".join(sample(task, 100, seed=100).texts).encode()).hexdigest()[:16]
        facts = {"learn": task, "texts": texts, "weights": weights, "config": asdict(config)}
        return facts | {"n_train": n_train, "n_test": n_test}

    open_tasks, results = list(tasks), dict[str, LearnabilityResult]()
    for config in configs:
        missing = [task for task in open_tasks if store.get(key(task, config)) is None]
        n_done = len(tasks) - len(missing)
        jobs = (
            joblib.delayed(_learn_and_store)(model, task, n_train, n_test, config, store, key(task, config))
            for task in missing
        )
        for _ in joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
            n_done += 1
            if progress is not None:
                progress(n_done, len(tasks))
        for task in open_tasks:
            if (values := store.get(key(task, config))) is not None:
                results[task] = LearnabilityResult(**values)
        open_tasks = [t for t in open_tasks if t in results and (share := results[t].share) is not None and share < 0.5]
    return [results[task] for task in tasks if task in results]


def _learn_and_store(
    model: str, task: str, n_train: int, n_test: int, config: FinetuneConfig, store: Store, key: dict[str, Any]
) -> None:
    store.put(key, asdict(learn_task(model, task, n_train, n_test, config)))
