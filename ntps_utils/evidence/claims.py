"""Judge the claims of the paper by the rules of the declared experiment.

The rules stand on the page "The experiment, declared". Every verdict in the book comes from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from ntps_utils.evidence.declared import CLUSTERS, FINETUNED_MODELS, N_FIRST, Run, run_order
from ntps_utils.evidence.experiment import ExperimentResult, ScoreSetting
from ntps_utils.evidence.runs import RecordedRun
from ntps_utils.evidence.statistics import (
    Estimate,
    pooled_rank_correlation,
    pooled_rank_difference,
    predict_left_out,
)
from ntps_utils.theory.linear import Array

Verdict = Literal["held", "partly held", "not held", "open"]

PRINTED_ACCURACY, PRINTED_GAIN = 0.58, -0.70
"""Mean correlations in the paper's Figures 2 (accuracy) and 3 (gain)."""
SMALL_RISE, SMALL_SKILL, NEAR_HEADROOM = 0.02, 0.05, 0.005
"""Sizes of the declared rules: a rise of NTPS, a skill, and regret above that of headroom in accuracy."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and what the experiment says about it.

    Attributes
    ----------
    name : str
        Number in the paper's list, such as "(iii)".
    statement : str
        One sentence.
    estimates : mapping of str to Estimate
        What was measured, with intervals; NaN where there is none.
    confirmed : tuple of bool
        The conditions of its confirmation, in the declared order, without the p-value.
    refuted : bool
        Whether an effect of the printed size is refuted.
    p : float
        P-value; ``p_adjusted`` is corrected for the number of claims by Holm's method.
    p_adjusted : float
        See ``p``.
    """

    name: str
    statement: str
    estimates: Mapping[str, Estimate]
    confirmed: tuple[bool, ...]
    refuted: bool
    p: float
    p_adjusted: float = float("nan")

    @property
    def verdict(self) -> Verdict:
        """What the declared rules say."""
        if all(self.confirmed) and self.p_adjusted < SIGNIFICANT:
            return "held"
        if self.confirmed[0]:
            return "partly held"
        return "not held" if self.refuted and not any(self.confirmed) else "open"


def finished_datasets(runs: Iterable[RecordedRun]) -> tuple[str, ...]:
    """List the datasets that both finetuned models have finished, in the declared order.

    Parameters
    ----------
    runs : iterable of RecordedRun

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> finished_datasets(())
    ()
    """
    done = {one.run for one in runs}
    return tuple(name for name in run_order() if all(Run("lora", model, name) in done for model in FINETUNED_MODELS))


def setting_of(
    scores: Sequence[ScoreSetting], *, centered: bool, split: str = "train", subspace: str = "next_token"
) -> ScoreSetting:
    """Return the scores of the last layer at half of the features.

    Parameters
    ----------
    scores : sequence of ScoreSetting
    centered : bool
    split, subspace : str
        See :class:`~ntps_utils.evidence.experiment.ScoreSetting`.

    Returns
    -------
    ScoreSetting

    Raises
    ------
    ValueError
        If there is not exactly one.
    """
    last = max(score.layer for score in scores)
    found = [
        score
        for score in scores
        if (score.layer, score.rule, score.centered, score.split, score.subspace)
        == (last, "half", centered, split, subspace)
    ]
    if len(found) != 1:
        raise ValueError(f"There are {len(found)} scores of {subspace} on {split} texts, centered = {centered}.")
    return found[0]


def finetuned_table(runs: Iterable[RecordedRun]) -> pd.DataFrame:
    """Tabulate what the claims are about: one row per finetuned model and finished dataset.

    Parameters
    ----------
    runs : iterable of RecordedRun

    Returns
    -------
    DataFrame
        ``model``, ``dataset``, ``cluster``; ``ntps``, ``ntps_metric``, ``ntps_task`` (the first with second
        moments, the others with covariances), the same followed by ``_pca_s`` and so on for the
        controls, and by ``_net``; ``accuracy`` (chance-adjusted, of the probe), ``r2``,
        ``cross_entropy_skill``; ``headroom``; ``gain`` (fraction), ``gain_errors`` (share of the errors) and
        ``gain_cross_entropy`` (nats).
    """
    runs = tuple(runs)
    finished = finished_datasets(runs)
    return pd.DataFrame(
        [
            _row(one.result)
            for one in runs
            if one.run.kind == "lora" and one.run.seed == 0 and one.run.dataset in finished
        ]
    )


def _row(result: ExperimentResult) -> dict[str, object]:
    row: dict[str, object] = {
        "model": result.model,
        "dataset": result.dataset,
        "cluster": CLUSTERS.get(result.dataset, result.dataset),
    }
    for name, centered in (("ntps", False), ("ntps_metric", True), ("ntps_task", True)):
        for subspace in ("next_token", "pca_s", "pca_a0", "symmetric", "random"):
            suffix = "" if subspace == "next_token" else f"_{subspace}"
            row[f"{name}{suffix}"] = getattr(setting_of(result.scores, centered=centered, subspace=subspace), name)
        row[f"{name}_net"] = row[name] - row[f"{name}_random"]  # type: ignore[operator]
    probe, tuned = result.probes["last"], result.finetuning
    assert tuned is not None
    assert tuned.frozen_cross_entropy is not None
    assert tuned.lora_cross_entropy is not None
    return row | {
        "accuracy": probe.adjusted_accuracy,
        "r2": probe.r2,
        "cross_entropy_skill": probe.cross_entropy_skill,
        "headroom": result.transferability["headroom"].value,
        "frozen": tuned.frozen_accuracy,
        "gain": tuned.gain,
        "gain_errors": tuned.gain / max(1.0 - tuned.frozen_accuracy, 1e-3),
        "gain_cross_entropy": tuned.frozen_cross_entropy - tuned.lora_cross_entropy,
    }


def wide(table: pd.DataFrame, column: str) -> Array:
    """Arrange a column as (models, datasets), in the declared orders.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`finetuned_table`.
    column : str

    Returns
    -------
    (models, datasets) float64
    """
    datasets = [name for name in run_order() if name in set(table["dataset"])]
    values = table.pivot(index="model", columns="dataset", values=column)
    return values.loc[list(FINETUNED_MODELS), datasets].to_numpy(dtype=float)


def judge(runs: Iterable[RecordedRun], *, n_resamples: int = 5000, seed: int = 0) -> tuple[Claim, ...]:
    """Judge the claims (iii) to (vi) by the declared rules.

    Parameters
    ----------
    runs : iterable of RecordedRun
    n_resamples : int
        Number of bootstrap resamples, and of permutations.
    seed : int
        Random seed for both.

    Returns
    -------
    tuple of Claim

    Raises
    ------
    ValueError
        If fewer datasets are finished than declared.

    Examples
    --------
    >>> judge(())
    Traceback (most recent call last):
    ...
    ValueError: 0 datasets are finished; the declared analysis needs at least 15.
    """
    runs = tuple(runs)
    n = len(finished_datasets(runs))
    if n < N_FIRST:
        raise ValueError(f"{n} datasets are finished; the declared analysis needs at least {N_FIRST}.")
    table = finetuned_table(runs)
    claims = (
        _accuracy_claim(table, n_resamples, seed),
        _rise_claim(runs),
        _gain_claim(table, n_resamples, seed),
        _skip_claim(table, n_resamples, seed),
    )
    adjusted = _holm([claim.p for claim in claims])
    return tuple(replace(claim, p_adjusted=p) for claim, p in zip(claims, adjusted, strict=True))


def _holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method."""
    order = np.argsort(p_values)
    steps = [(len(p_values) - i) * p_values[j] for i, j in enumerate(order)]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]


def _clusters(table: pd.DataFrame) -> list[str]:
    return [CLUSTERS.get(name, name) for name in run_order() if name in set(table["dataset"])]


def _accuracy_claim(table: pd.DataFrame, n_resamples: int, seed: int) -> Claim:
    x, y, other = (wide(table, name) for name in ("ntps", "accuracy", "ntps_pca_s"))
    clusters = _clusters(table)
    found = pooled_rank_correlation(x, y, clusters=clusters, n_resamples=n_resamples, seed=seed)
    difference = pooled_rank_difference(x, other, y, clusters=clusters, n_resamples=n_resamples, seed=seed)
    return Claim(
        "(iii)",
        "NTPS follows the accuracy of probes.",
        {"correlation": Estimate(found.rho, found.low, found.high), "more than principal components": difference},
        (found.low > 0.0, difference.low > 0.0),
        found.high < PRINTED_ACCURACY,
        found.p,
    )


def rises(runs: Iterable[RecordedRun]) -> pd.DataFrame:
    """Tabulate by how much NTPS rises after LoRA on test texts, with true and with shuffled labels.

    Parameters
    ----------
    runs : iterable of RecordedRun

    Returns
    -------
    DataFrame
        ``model``, ``dataset``, ``rise`` and ``shuffled``; one row for each model and dataset with both runs.
    """
    change = {
        one.run: setting_of(one.result.scores_after, centered=False, split="test").ntps
        - setting_of(one.result.scores, centered=False, split="test").ntps
        for one in runs
        if one.run.kind in ("lora", "shuffled") and one.run.seed == 0
    }
    rows = [
        (run.model, run.dataset, rise, change[Run("shuffled", run.model, run.dataset)])
        for run, rise in change.items()
        if run.kind == "lora" and Run("shuffled", run.model, run.dataset) in change
    ]
    return pd.DataFrame(rows, columns=["model", "dataset", "rise", "shuffled"])


def _rise_claim(runs: Sequence[RecordedRun]) -> Claim:
    table = rises(runs)
    estimates, p_values = {}, []
    for model in FINETUNED_MODELS:
        part = table[table["model"] == model]
        differences = (part["rise"] - part["shuffled"]).to_numpy(dtype=float)
        if len(differences) < 3:
            raise ValueError(
                f"{model} has shuffled labels on {len(differences)} finished datasets; the rise needs at least 3."
            )
        test = stats.ttest_1samp(differences, 0.0)
        low, high = test.confidence_interval(0.95)
        estimates[model] = Estimate(float(differences.mean()), float(low), float(high))
        p_values.append(float(test.pvalue))
    return Claim(
        "(iv)",
        "NTPS rises after LoRA, more than under shuffled labels.",
        estimates,
        (any(one.low > 0.0 for one in estimates.values()), all(one.low > 0.0 for one in estimates.values())),
        all(one.high < SMALL_RISE for one in estimates.values()),
        max(p_values),  # both models must rise
    )


def _gain_claim(table: pd.DataFrame, n_resamples: int, seed: int) -> Claim:
    clusters = _clusters(table)
    found = pooled_rank_correlation(
        wide(table, "ntps"), wide(table, "gain"), clusters=clusters, n_resamples=n_resamples, seed=seed
    )
    skill = added_skill(table, ["headroom", "ntps"], ["headroom"], n_resamples=n_resamples, seed=seed)
    return Claim(
        "(v)",
        "NTPS predicts the gain from LoRA: the lower the score, the larger the gain.",
        {"correlation": Estimate(found.rho, found.low, found.high), "skill added to headroom": skill},
        (found.high < 0.0, skill.low > 0.0),
        found.low > PRINTED_GAIN and skill.high < SMALL_SKILL,
        found.p,
    )


def added_skill(
    table: pd.DataFrame, predictors: Sequence[str], floor: Sequence[str], *, n_resamples: int = 5000, seed: int = 0
) -> Estimate:
    """Estimate by what share some predictors lower the error of gains on left-out clusters.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`finetuned_table`.
    predictors, floor : sequence of str
        Columns of the two sets of predictors.
    n_resamples, seed : int
        Bootstrap resamples of clusters, and their random seed.

    Returns
    -------
    Estimate
        ``1 - error / error of floor``, of mean absolute errors.
    """
    gain, groups = table["gain"].to_numpy(dtype=float), table["cluster"].to_list()
    errors = [
        np.abs(predict_left_out(table[list(names)].to_numpy(dtype=float), gain, groups) - gain)
        for names in (predictors, floor)
    ]
    sums = np.array([pd.Series(values).groupby(table["cluster"].to_numpy()).sum() for values in errors])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, sums.shape[1], size=(n_resamples, sums.shape[1]))
    skill = 1.0 - sums[0, drawn].sum(1) / sums[1, drawn].sum(1)
    low, high = np.quantile(skill, [0.025, 0.975])
    return Estimate(float(1.0 - sums[0].sum() / sums[1].sum()), float(low), float(high))


def regret(score: Array, gain: Array) -> float:
    """Compute the regret of skipping LoRA on the half of the datasets with the highest score.

    Parameters
    ----------
    score, gain : (models, datasets) array

    Returns
    -------
    float
        Mean gain of the half with the largest gains, minus that of the half that is kept; averaged over
        models. With an odd number of datasets the larger part is kept.

    Examples
    --------
    >>> round(regret(np.array([[0.1, 0.2, 0.8, 0.9]]), np.array([[0.3, 0.1, 0.2, 0.0]])), 3)
    0.05
    """
    n_kept = gain.shape[1] - gain.shape[1] // 2
    kept = np.argsort(score, axis=1, kind="stable")[:, :n_kept]
    reached = np.take_along_axis(gain, kept, 1).mean()
    attainable = np.sort(gain, axis=1)[:, gain.shape[1] - n_kept :].mean()
    return float(attainable - reached)


def _skip_claim(table: pd.DataFrame, n_resamples: int, seed: int) -> Claim:
    score, gain, headroom = (wide(table, name) for name in ("ntps", "gain", "headroom"))
    rng = np.random.default_rng(seed)
    null = np.array([regret(score[:, rng.permutation(score.shape[1])], gain) for _ in range(n_resamples)])
    own, rival = regret(score, gain), regret(-headroom, gain)
    low, high = np.quantile(null, [0.025, 0.975])
    return Claim(
        "(vi)",
        "NTPS tells on which datasets LoRA can be skipped.",
        {
            "regret": Estimate(own, np.nan, np.nan),
            "regret of random halves": Estimate(float(null.mean()), float(low), float(high)),
            "regret of headroom": Estimate(rival, np.nan, np.nan),
        },
        (own < low, own <= rival + NEAR_HEADROOM),
        bool(low <= own <= high),
        float((1 + np.sum(null <= own + 1e-12)) / (1 + n_resamples)),
    )
