"""The declared experiment: models, datasets, their order, and the settings of every run.

No cell of it has been analyzed yet. The pilots choose the learning rate of each model, and nothing
else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntps_utils.evidence.experiment import ExperimentConfig
from ntps_utils.models.finetuning import FinetuneConfig

FINETUNED_MODELS = ("gemma-3-270m", "smollm2-135m-instruct")
"""Models that are finetuned."""

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

ORDER_SEED = 20251125
N_TRAIN, N_TEST, MAX_LENGTH = 2000, 1000, 64
MAX_STEPS = 300
EVALUATIONS = (8, 15, 30, 75, 150, 225, 300)
"""Training steps that are evaluated, besides step 0: trial runs of these lengths can be read off."""
PILOT_RATES = (1e-3, 3e-4)
"""Learning rates that the pilots compare."""


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


def experiment_settings(rate: float, seed: int = 0) -> ExperimentConfig:
    """Return the settings of a cell with LoRA.

    Parameters
    ----------
    rate : float
        Learning rate of the model, chosen on the pilots.
    seed : int
        Random seed of the finetuning runs.

    Returns
    -------
    ExperimentConfig

    Examples
    --------
    >>> experiment_settings(1e-3).n_train
    2000
    """
    return ExperimentConfig(
        lora=lora_settings(rate, seed),
        frozen=frozen_settings(seed),
        n_train=N_TRAIN,
        n_test=N_TEST,
        max_length=MAX_LENGTH,
        controls=True,
        test_last_step=True,
        seed=seed,
    )
