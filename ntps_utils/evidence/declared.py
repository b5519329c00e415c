"""The declared experiment: its runs, their order and settings.

The plan is fixed before the first analyzed run. The pilots choose the learning rate of each
finetuned model, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ntps_utils.evidence.experiment import ExperimentConfig
from ntps_utils.models.finetuning import PAPER_FINETUNING, FinetuneConfig

Kind = Literal["lora", "shuffled", "scores", "paper"]

FINETUNED_MODELS = ("gemma-3-270m", "smollm2-135m-instruct")
"""Models that are finetuned."""

UNTRAINED = "smollm2-135m-instruct (untrained)"
"""The twin of a finetuned model with random weights."""

SCORED_MODELS = ("stories260K", "prose-S", "prose-M", UNTRAINED)
"""Models that are scored and probed only."""

PILOTS = ("customer_reviews", "csabstruct")
"""Datasets on which learning rates are chosen; they enter no analysis."""

DATASETS = (
    "atis",
    "banking77",
    "cefr",
    "clickbait",
    "climate_sentiment",
    "commonsense_qa",
    "counterfactual",
    "emotion",
    "financial_phrasebank",
    "imdb",
    "intent_clinc150",
    "liar",
    "logical_fallacy",
    "media_bias",
    "medical",
    "mpqa",
    "mrpc",
    "rotten_tomatoes",
    "rte",
    "semantic_relations",
    "sms_spam",
    "sst2",
    "stackoverflow_topics",
    "tweet_emoji",
    "tweet_irony",
    "tweet_offensive",
    "tweet_stance",
)
"""Analyzed datasets, by name."""

CLUSTERS = {"rotten_tomatoes": "movie sentences", "sst2": "movie sentences"} | {
    name: "TweetEval" for name in DATASETS if name.startswith("tweet_")
}
"""Clusters of datasets with overlapping texts or from one benchmark; every other dataset is one of its own."""

EXCLUDED: tuple[str, ...] = ()
"""Datasets that failed twice in one model; they are left out of the order, for both models."""

RUNS_ENDED: str | None = "2026-11-29T02:12:54+00:00"
"""When the computing time was used up, such as "2026-12-24T18:00:00+00:00"; set once. The verdicts are computed from
the runs that were recorded by then."""

ORDER_SEED = 20251125
N_TRAIN, N_TEST, MAX_LENGTH = 2000, 1000, 64
MAX_STEPS = 300
EVALUATIONS = (8, 15, 30, 75, 150, 225, 300)
"""Training steps that are evaluated, besides step 0: trial runs of these lengths can be read off."""
PILOT_RATES = (1e-3, 3e-4)
"""Learning rates that the pilots compare."""
N_FIRST, N_SEEDED, N_SHUFFLED, N_PAPER = 15, 10, 5, 2
"""Datasets, from the start of the order, that the verdicts need at least, and that are finetuned on with a
second seed, with shuffled labels, and with the settings of the paper's script."""


@dataclass(frozen=True)
class Run:
    """A planned run.

    Attributes
    ----------
    kind : {"lora", "shuffled", "scores", "paper"}
        LoRA and a frozen head, besides scores, controls and probes; the same with permuted training
        labels; scores, controls and probes only; LoRA with the settings of the paper's script.
    model, dataset : str
        Names.
    seed : int
        Random seed of finetuning and folds.
    """

    kind: Kind
    model: str
    dataset: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.kind}: {self.model} on {self.dataset}, seed {self.seed}"


def run_order() -> tuple[str, ...]:
    """Return the analyzed datasets in the order of the LoRA runs, a seeded shuffle.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> sorted(run_order()) == sorted(DATASETS)
    True
    """
    return tuple(str(name) for name in np.random.default_rng(ORDER_SEED).permutation(np.array(DATASETS)))


def order() -> tuple[str, ...]:
    """Return the analyzed datasets in the order of the LoRA runs, without those that failed twice.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> order() == tuple(name for name in run_order() if name not in EXCLUDED)
    True
    """
    return tuple(name for name in run_order() if name not in EXCLUDED)


def lora_settings(rate: float, seed: int = 0) -> FinetuneConfig:
    """Return the settings of a LoRA run.

    Parameters
    ----------
    rate : float
        Learning rate of the model, chosen on the pilots.
    seed : int
        Random seed for split, batches and adapters.

    Returns
    -------
    FinetuneConfig
        Rank 8 on queries, keys and values; 300 steps of 16 texts without early stopping; the best
        evaluation by validation cross-entropy is the result.

    Examples
    --------
    >>> lora_settings(1e-3).evaluations()
    (8, 15, 30, 75, 150, 225, 300)
    """
    return FinetuneConfig(
        "lora",
        r=8,
        lora_alpha=16.0,
        learning_rates=(rate,),
        max_steps=MAX_STEPS,
        batch_size=16,
        eval_steps=EVALUATIONS,
        early_stopping_patience=None,
        metric_for_best_model="loss",
        validation=0.2,
        seed=seed,
    )


def frozen_settings(seed: int = 0) -> FinetuneConfig:
    """Return the settings of the head on frozen features: the same loop, with a choice of learning rates.

    Parameters
    ----------
    seed : int
        Random seed for split and batches.

    Returns
    -------
    FinetuneConfig

    Examples
    --------
    >>> frozen_settings().max_steps == lora_settings(1e-3).max_steps
    True
    """
    return replace(lora_settings(1e-3, seed), method="frozen", learning_rates=(1e-2, 3e-3, 1e-3, 3e-4))


def planned_runs() -> tuple[Run, ...]:
    """List all runs in their order.

    Returns
    -------
    tuple of Run
        LoRA on the first 15 datasets; shuffled labels on five of them; LoRA on the other datasets; a second
        seed on ten; the paper's settings on two. Both models of a dataset run before the next dataset.
        The runs without finetuning come last, because they can be run at any time. Excluded datasets
        are left out.

    Examples
    --------
    >>> [str(run) for run in planned_runs()[:2]]  # doctest: +NORMALIZE_WHITESPACE
    ['lora: gemma-3-270m on logical_fallacy, seed 0', 'lora: smollm2-135m-instruct on logical_fallacy, seed 0']
    """
    ordered = order()
    blocks: list[tuple[Kind, tuple[str, ...], tuple[str, ...], int]] = [
        ("lora", FINETUNED_MODELS, ordered[:N_FIRST], 0),
        ("shuffled", FINETUNED_MODELS, ordered[:N_SHUFFLED], 0),
        ("lora", FINETUNED_MODELS, ordered[N_FIRST:], 0),
        ("lora", FINETUNED_MODELS, ordered[:N_SEEDED], 1),
        ("paper", FINETUNED_MODELS[:1], ordered[:N_PAPER], 0),
        ("scores", SCORED_MODELS, ordered, 0),
    ]
    return tuple(
        Run(kind, model, dataset, seed)
        for kind, models, datasets, seed in blocks
        for dataset in datasets
        for model in models
    )


def run_settings(run: Run, rates: Mapping[str, float]) -> ExperimentConfig:
    """Return the settings of a planned run.

    Parameters
    ----------
    run : Run
    rates : mapping of str to float
        Learning rates by model, see :func:`ntps_utils.evidence.runs.chosen_rates`.

    Returns
    -------
    ExperimentConfig

    Raises
    ------
    ValueError
        If the run finetunes a model whose learning rate is not chosen.

    Examples
    --------
    >>> run_settings(Run("scores", "stories260K", "rte"), {}).lora is None
    True
    """
    common = ExperimentConfig(
        lora=None, n_train=N_TRAIN, n_test=N_TEST, max_length=MAX_LENGTH, controls=True, seed=run.seed
    )
    if run.kind == "scores":
        return common
    frozen = frozen_settings(run.seed)
    if run.kind == "paper":
        return replace(common, lora=replace(PAPER_FINETUNING, seed=run.seed), frozen=frozen, test_last_step=True)
    if run.model not in rates:
        raise ValueError(
            f"No learning rate is chosen for {run.model}, only for: {', '.join(rates) or 'none'}. Run its pilots: "
            "python -m book.tools.pilots."
        )
    return replace(
        common,
        lora=lora_settings(rates[run.model], run.seed),
        frozen=frozen,
        test_last_step=True,
        score_after=run.dataset in order()[:N_SHUFFLED],
        shuffle_labels=run.kind == "shuffled",
    )
