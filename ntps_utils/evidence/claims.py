"""Judge the claims of the paper by the rules of the declared experiment.

The rules stand on the page "The experiment, declared". Every verdict in the book comes from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from ntps_utils.evidence.declared import (
    CLUSTERS,
    FINETUNED_MODELS,
    MAX_STEPS,
    N_FIRST,
    N_SHUFFLED,
    RUNS_ENDED,
    Run,
    order,
    run_order,
)
from ntps_utils.evidence.experiment import ExperimentResult, ScoreSetting
from ntps_utils.evidence.runs import RecordedRun
from ntps_utils.evidence.statistics import (
    Estimate,
    RankCorrelation,
    cluster_counts,
    cluster_skill,
    left_out_medians,
    pooled_rank_correlation,
    pooled_rank_difference,
    predict_left_out,
)
from ntps_utils.evidence.trials import trial_values
from ntps_utils.theory.controls import CONTROLS
from ntps_utils.theory.linear import Array

Verdict = Literal["held", "partly held", "not held", "open"]

PRINTED_ACCURACY, PRINTED_GAIN = 0.58, -0.70
"""Mean correlations in the paper's Figures 2 and 3. Figure 2 has two: 0.58 with minus the squared error of probes,
and 0.67 with their accuracy; the rule takes the smaller one."""
PRINTED = {"(iii)": PRINTED_ACCURACY, "(v)": PRINTED_GAIN}
"""The same, by claim."""
SMALL_RISE, SMALL_SKILL, NEAR_HEADROOM = 0.02, 0.05, 0.005
"""Sizes of the declared rules: a rise of NTPS, a skill, and regret above that of headroom in accuracy."""
SIGNIFICANT = 0.025
"""Level of the one-sided p-values, after Holm's correction."""
N_RESAMPLES, SEED = 5000, 0
"""Bootstrap resamples, and permutations, of the verdicts."""


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
        What counts against the claim, such as that an effect of the printed size is excluded.
    p : float
        One-sided p-value of all conditions; ``p_adjusted`` is corrected for the number of claims by
        Holm's method.
    p_adjusted : float
        See ``p``.
    decided : bool
        False if there are too few datasets for any verdict but "open".
    """

    name: str
    statement: str
    estimates: Mapping[str, Estimate]
    confirmed: tuple[bool, ...]
    refuted: bool
    p: float
    p_adjusted: float = float("nan")
    decided: bool = True

    @property
    def verdict(self) -> Verdict:
        """What the declared rules say."""
        if not self.decided:
            return "open"
        if all(self.confirmed) and self.p_adjusted < SIGNIFICANT:
            return "held"
        if self.confirmed[0]:
            return "partly held"
        return "not held" if self.refuted else "open"

    @property
    def remark(self) -> str:
        """What the verdict does not say: a size that is excluded, or controls that do as well; may be empty."""
        parts = []
        if self.name in PRINTED:
            found, printed = self.estimates["correlation"], PRINTED[self.name]
            excluded = found.high < printed if printed > 0 else found.low > printed
            if self.verdict == "not held":
                sign = "positive" if printed > 0 else "negative"
                parts.append(
                    f"This excludes a {sign} correlation as strong as the printed {printed:.2f}; it does not show that "
                    "there is none."
                )
            elif self.confirmed[0] and excluded:
                parts.append(
                    f"The correlation is {'above' if printed > 0 else 'below'} zero, and smaller than printed."
                )
        elif self.name == "(vi)" and self.verdict == "not held":
            parts.append("A score without any relation to the gain gets this verdict about every second time.")
        controls = [one for name, one in self.estimates.items() if name.startswith(("more than", "less regret than"))]
        if self.verdict == "held" and any(one.low <= 0.0 for one in controls):
            parts.append(
                "The same score of directions without next tokens does not do clearly worse, so that this is no "
                "evidence about next-token prediction."
            )
        return " ".join(parts)


def analyzed_runs(runs: Iterable[RecordedRun], ended: str | None = RUNS_ENDED) -> tuple[RecordedRun, ...]:
    """Select the runs that the verdicts are computed from.

    Parameters
    ----------
    runs : iterable of RecordedRun
    ended : str, optional
        When the computing time was used up; by default the time in the plan.

    Returns
    -------
    tuple of RecordedRun
        Those that were recorded by then.

    Raises
    ------
    ValueError
        If the runs have not ended.

    Examples
    --------
    >>> analyzed_runs((), "2026-12-24T18:00:00+00:00")
    ()
    """
    if ended is None:
        raise ValueError("The runs have not ended: RUNS_ENDED is not set, so that nothing is analyzed yet.")
    end = datetime.fromisoformat(ended)
    return tuple(one for one in runs if datetime.fromisoformat(one.provenance["date"]) <= end)


def finished_datasets(runs: Iterable[RecordedRun]) -> tuple[str, ...]:
    """List the datasets that both finetuned models have finished, up to the first that they have not.

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
    return tuple(takewhile(lambda name: all(Run("lora", model, name) in done for model in FINETUNED_MODELS), order()))


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


def finetuned_table(runs: Iterable[RecordedRun], *, seed: int = 0) -> pd.DataFrame:
    """Tabulate what the claims are about: one row per finetuned model and finished dataset.

    Parameters
    ----------
    runs : iterable of RecordedRun
    seed : int
        Seed of the runs; the verdicts are about the first.

    Returns
    -------
    DataFrame
        ``model``, ``dataset``, ``cluster``, ``n_classes``; ``ntps``, ``ntps_metric``, ``ntps_task`` (the first with
        second moments, the others with covariances), the same followed by ``_pca_s`` and so on for the
        controls, and by ``_net``; ``explained``, the share tr B / tr Y of the variance of the labels that the
        features explain; ``r2_subspace``, the share of the variance of the test targets that a linear probe on the
        directions explains, for controls as well (not the random ones); ``accuracy`` (chance-adjusted, of the
        probe), ``r2``, ``cross_entropy_skill``; ``headroom``; test accuracies ``frozen`` (of the head) and ``lora``;
        ``gain`` (their difference), ``gain_errors`` (share of the
        errors) and ``gain_cross_entropy`` (nats); trial runs under the names of
        :func:`~ntps_utils.evidence.trials.trial_values`.
    """
    runs = tuple(runs)
    finished = finished_datasets(runs)
    return pd.DataFrame(
        [
            _row(one.result)
            for one in runs
            if one.run.kind == "lora"
            and one.run.seed == seed
            and one.run.dataset in finished
            and one.run.model in FINETUNED_MODELS
        ]
    )


def scored_table(runs: Iterable[RecordedRun]) -> pd.DataFrame:
    """Tabulate scores, controls and probes of runs of any kind.

    Parameters
    ----------
    runs : iterable of RecordedRun

    Returns
    -------
    DataFrame
        One row for each run, with those columns of :func:`finetuned_table` that need no finetuning.
    """
    return pd.DataFrame([_scored(one.result) for one in runs])


def _scored(result: ExperimentResult) -> dict[str, object]:
    row: dict[str, object] = {
        "model": result.model,
        "dataset": result.dataset,
        "cluster": CLUSTERS.get(result.dataset, result.dataset),
        "n_classes": result.n_classes,
    }
    for name, centered in (("ntps", False), ("ntps_metric", True), ("ntps_task", True)):
        row[name] = getattr(setting_of(result.scores, centered=centered), name)
        for control in CONTROLS:
            row[f"{name}_{control}"] = getattr(setting_of(result.scores, centered=centered, subspace=control), name)
        row[f"{name}_net"] = row[name] - row[f"{name}_random"]  # type: ignore[operator]
    row["explained"] = setting_of(result.scores, centered=True).explained
    for subspace in ("next_token", *CONTROLS):
        if (r2 := setting_of(result.scores, centered=True, subspace=subspace).r2) is not None:
            row["r2_subspace" if subspace == "next_token" else f"r2_subspace_{subspace}"] = r2
    probe = result.probes["last"]
    return row | {
        "accuracy": probe.adjusted_accuracy,
        "r2": probe.r2,
        "cross_entropy_skill": probe.cross_entropy_skill,
        "headroom": result.transferability["headroom"].value,
    }


def _row(result: ExperimentResult) -> dict[str, object]:
    tuned = result.finetuning
    assert tuned is not None
    assert tuned.frozen_cross_entropy is not None
    assert tuned.lora_cross_entropy is not None
    return _scored(result) | {
        "frozen": tuned.frozen_accuracy,
        "lora": tuned.lora_accuracy,
        "gain": tuned.gain,
        "gain_errors": tuned.gain / max(1.0 - tuned.frozen_accuracy, 1e-3),
        "gain_cross_entropy": tuned.frozen_cross_entropy - tuned.lora_cross_entropy,
        **trial_values(tuned.lora_curve, MAX_STEPS),
    }


def datasets_of(table: pd.DataFrame) -> list[str]:
    """List the datasets of a table, in the declared order.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`finetuned_table`.

    Returns
    -------
    list of str
    """
    return [name for name in run_order() if name in set(table["dataset"])]


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

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    values = table.pivot(index="model", columns="dataset", values=column)
    array = values.loc[list(FINETUNED_MODELS), datasets_of(table)].to_numpy(dtype=float)
    if not np.isfinite(array).all():
        raise ValueError(f"{column} is missing or not finite in some cells.")
    return array


def judge(
    runs: Iterable[RecordedRun],
    ended: str | None = RUNS_ENDED,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> tuple[Claim, ...]:
    """Judge the claims (iii) to (vi) by the declared rules.

    Parameters
    ----------
    runs : iterable of RecordedRun
    ended : str, optional
        When the computing time was used up; by default the time in the plan.
    n_resamples : int
        Number of bootstrap resamples, and of permutations.
    seed : int
        Random seed for both.

    Returns
    -------
    tuple of Claim
        All of them open if fewer datasets are finished than the plan asks for.

    Raises
    ------
    ValueError
        If the runs have not ended, or fewer than three datasets are finished.

    Examples
    --------
    >>> judge((), None)
    Traceback (most recent call last):
    ...
    ValueError: The runs have not ended: RUNS_ENDED is not set, so that nothing is analyzed yet.
    """
    runs = analyzed_runs(runs, ended)
    n_finished = len(finished_datasets(runs))
    if n_finished < 3:
        raise ValueError(f"{n_finished} datasets are finished; a correlation needs at least 3.")
    table = finetuned_table(runs)
    claims = (
        _accuracy_claim(table, n_resamples, seed),
        _rise_claim(runs),
        _gain_claim(table, n_resamples, seed),
        _skip_claim(table, n_resamples, seed),
    )
    adjusted = _holm([claim.p for claim in claims])
    return tuple(
        replace(claim, p_adjusted=p, decided=n_finished >= N_FIRST) for claim, p in zip(claims, adjusted, strict=True)
    )


def _holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method."""
    order = np.argsort(p_values)
    steps = [(len(p_values) - i) * p_values[j] for i, j in enumerate(order)]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]


def clusters_of(table: pd.DataFrame) -> list[str]:
    """List the clusters of the datasets of a table, in the order of :func:`wide`.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`finetuned_table`.

    Returns
    -------
    list of str
    """
    return [CLUSTERS.get(name, name) for name in datasets_of(table)]


CONTROL_COLUMNS = {
    "ntps_random": "random next tokens",
    "ntps_symmetric": "the symmetric half",
    "ntps_pca_a0": "principal components of A0",
    "ntps_pca_s": "principal components",
}
"""Scores of other subspaces that NTPS is compared with; the last one decides claim (iii)."""


def _accuracy_claim(table: pd.DataFrame, n_resamples: int, seed: int) -> Claim:
    x, y = (wide(table, name) for name in ("ntps", "accuracy"))
    options: dict[str, Any] = {"clusters": clusters_of(table), "n_resamples": n_resamples, "seed": seed}
    found = pooled_rank_correlation(x, y, alternative="greater", **options)
    controls = {
        f"more than {label}": pooled_rank_difference(x, wide(table, name), y, **options)
        for name, label in CONTROL_COLUMNS.items()
    }
    difference = controls["more than principal components"]
    return Claim(
        "(iii)",
        "NTPS follows the accuracy of probes.",
        {"correlation": _estimate(found), **controls},
        (found.low > 0.0, difference.low > 0.0),
        found.high < PRINTED_ACCURACY,
        max(found.p, difference.p),
    )


def _estimate(found: RankCorrelation) -> Estimate:
    return Estimate(found.rho, found.low, found.high, found.p)


def rises(runs: Iterable[RecordedRun], score: Literal["ntps", "ntps_metric", "ntps_task"] = "ntps") -> pd.DataFrame:
    """Tabulate by how much a score rises after LoRA on test texts, with true and with shuffled labels.

    Parameters
    ----------
    runs : iterable of RecordedRun
    score : {"ntps", "ntps_metric", "ntps_task"}
        NTPS, on which claim (iv) rests, comes from second moments, the others from covariances.

    Returns
    -------
    DataFrame
        ``model``, ``dataset``, ``rise`` and ``shuffled``; one row for each model and dataset with both runs.

    Raises
    ------
    ValueError
        If two runs to compare have other weights, texts or a frozen model in another type of numbers, or a
        score is not finite.
    """
    first = {one.run: one for one in runs if one.run.kind in ("lora", "shuffled") and one.run.seed == 0}
    rows = []
    for run, one in first.items():
        other = first.get(Run("shuffled", run.model, run.dataset))
        if run.kind != "lora" or other is None:
            continue
        facts = [
            (r.weights, r.texts, None if r.finetuning is None else r.finetuning.base_dtype)
            for r in (one.result, other.result)
        ]
        if facts[0] != facts[1]:
            raise ValueError(f"{run} and its run with shuffled labels have other weights, texts or types: {facts}.")
        rows.append((run.model, run.dataset, score_rise(one, score), score_rise(other, score)))
    return pd.DataFrame(rows, columns=["model", "dataset", "rise", "shuffled"])


def score_rise(one: RecordedRun, score: Literal["ntps", "ntps_metric", "ntps_task"]) -> float:
    """Compute by how much a score on the test texts is higher after LoRA, at the last layer and half of the directions.

    Parameters
    ----------
    one : RecordedRun
        A run with scores after LoRA.
    score : {"ntps", "ntps_metric", "ntps_task"}
        The first from second moments, the others from covariances.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the run has no such scores, or one is not finite.
    """
    after, before = (
        float(getattr(setting_of(scores, centered=score != "ntps", split="test"), score))
        for scores in (one.result.scores_after, one.result.scores)
    )
    if not math.isfinite(after - before):
        raise ValueError(f"{one.run}: {score} on the test texts is not finite.")
    return after - before


RISE_IS_VISIBLE = False
"""Whether a simulation shows a rise of 0.1, by ``SMALL_RISE`` or more, in as few test texts as these. It does not
(``load_record("visible_rise")``), so that claim (iv) cannot be refuted."""


def _rise_claim(runs: Sequence[RecordedRun]) -> Claim:
    table = rises(runs)
    declared = order()[:N_SHUFFLED]
    estimates = {}
    for model in FINETUNED_MODELS:
        part = table[(table["model"] == model) & table["dataset"].isin(declared)]
        if len(part) < len(declared):  # runs are missing: the claim stays open
            estimates[model] = Estimate(float("nan"), float("-inf"), float("inf"), 1.0)
            continue
        differences = (part["rise"] - part["shuffled"]).to_numpy(dtype=float)
        p = stats.ttest_1samp(differences, 0.0, alternative="greater").pvalue
        low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
        estimates[model] = Estimate(float(differences.mean()), float(low), float(high), float(p))
    complete = all(math.isfinite(one.value) for one in estimates.values())
    rises_in = [one.low > 0.0 for one in estimates.values()]
    return Claim(
        "(iv)",
        "NTPS rises after LoRA, more than under shuffled labels.",
        estimates,
        (complete and any(rises_in), complete and all(rises_in)),
        complete and RISE_IS_VISIBLE and all(one.high < SMALL_RISE for one in estimates.values()),
        max(one.p for one in estimates.values()),  # both models must rise
    )


def _gain_claim(table: pd.DataFrame, n_resamples: int, seed: int) -> Claim:
    x, gain = wide(table, "ntps"), wide(table, "gain")
    options: dict[str, Any] = {"clusters": clusters_of(table), "n_resamples": n_resamples, "seed": seed}
    found = pooled_rank_correlation(x, gain, alternative="less", **options)
    controls = {
        f"more than {label}": pooled_rank_difference(-x, -wide(table, name), gain, **options)
        for name, label in CONTROL_COLUMNS.items()
    }
    skill, baseline = (
        added_skill(table, ["headroom", "ntps"], baseline, n_resamples=n_resamples, seed=seed)
        for baseline in (["headroom"], None)
    )
    return Claim(
        "(v)",
        "NTPS predicts the gain from LoRA: the lower the score, the larger the gain.",
        {
            "correlation": _estimate(found),
            "skill added to headroom": skill,
            "skill against the median gain": baseline,
            **controls,
        },
        (found.high < 0.0, skill.low > 0.0 and baseline.value > 0.0),
        found.low > PRINTED_GAIN and skill.high < SMALL_SKILL,
        max(found.p, skill.p),
    )


def added_skill(
    table: pd.DataFrame,
    predictors: Sequence[str],
    baseline: Sequence[str] | None,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> Estimate:
    """Estimate by what share some predictors lower the error of gains on left-out clusters, within models.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`finetuned_table`.
    predictors : sequence of str
        Columns to predict the gain from, by ridge regression in each model.
    baseline : sequence of str, optional
        Columns of the regression to compare with; by default the median gain of the other clusters.
    n_resamples, seed : int
        Bootstrap resamples of clusters, and their random seed. Errors are resampled, not refitted.

    Returns
    -------
    Estimate
        ``1 - error / error of the baseline``, of mean absolute errors over both models.
    """
    errors, baseline_errors = (_left_out_errors(table, columns) for columns in (predictors, baseline))
    clusters = table["cluster"].to_list()
    return cluster_skill(errors, baseline_errors, clusters, n_resamples=n_resamples, seed=seed)


def _left_out_errors(table: pd.DataFrame, columns: Sequence[str] | None) -> pd.Series:
    """Absolute error of the gain of each row, predicted from the other clusters of the same model."""
    errors = pd.Series(0.0, index=table.index)
    for _, part in table.groupby("model"):
        gain = part["gain"].to_numpy(dtype=float)
        if columns is not None:
            predicted = predict_left_out(part[list(columns)].to_numpy(dtype=float), gain, part["cluster"].to_list())
        else:
            predicted = left_out_medians(gain, part["cluster"].to_list())
        errors[part.index] = np.abs(predicted - gain)
    return errors


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
    reached, attainable = _kept_gains(score, gain)
    return attainable - reached


def share_reached(score: Array, gain: Array) -> float:
    """Compute how much of the attainable gain is reached by skipping the half with the highest score.

    Parameters
    ----------
    score, gain : (models, datasets) array

    Returns
    -------
    float
        Mean gain of the kept half above that of all datasets, as a share of what the half with the largest
        gains has above it: 1 for the best choice, 0 for a random one on average; NaN if all gains are equal.

    Examples
    --------
    >>> round(share_reached(np.array([[0.1, 0.2, 0.8, 0.9]]), np.array([[0.3, 0.1, 0.2, 0.0]])), 3)
    0.5
    """
    reached, attainable = _kept_gains(score, gain)
    mean = float(gain.mean())
    return (reached - mean) / (attainable - mean) if attainable > mean else math.nan


def _kept_gains(score: Array, gain: Array) -> tuple[float, float]:
    """Mean gain of the half with the lowest score, and of the half with the largest gains."""
    n_kept = gain.shape[1] - gain.shape[1] // 2
    kept = np.argsort(score, axis=1, kind="stable")[:, :n_kept]
    reached = np.take_along_axis(gain, kept, 1).mean()
    attainable = np.sort(gain, axis=1)[:, gain.shape[1] - n_kept :].mean()
    return float(reached), float(attainable)


SKIP_RIVALS = {
    "headroom": "headroom",
    "trial_accuracy_10": "a trial run of 10%",
    "trial_accuracy_25": "a trial run of 25%",
}
"""Columns that tell where to skip LoRA as well: the lower the value, the more likely it is skipped."""


def _skip_claim(table: pd.DataFrame, n_resamples: int, seed: int) -> Claim:
    score, gain, headroom = (wide(table, name) for name in ("ntps", "gain", "headroom"))
    rng = np.random.default_rng(seed)
    null = np.array([regret(score[:, rng.permutation(score.shape[1])], gain) for _ in range(n_resamples)])
    own, rival = regret(score, gain), regret(-headroom, gain)
    low, high = np.quantile(null, [0.025, 0.975])
    clusters = clusters_of(table)

    def resampled(statistic: Callable[..., float], *arrays: Array) -> Estimate:
        return _resampled(statistic, arrays, clusters, n_resamples, seed)

    rivals = {label: -wide(table, column) for column, label in SKIP_RIVALS.items() if column in table}
    shares = {"NTPS": score, **rivals}
    return Claim(
        "(vi)",
        "NTPS tells on which datasets LoRA can be skipped.",
        {
            "regret": Estimate(own),
            "regret of random halves": Estimate(float(null.mean()), float(low), float(high)),
            **{f"regret of {label}": Estimate(regret(values, gain)) for label, values in rivals.items()},
            **{
                f"share of the attainable gain, {label}": resampled(share_reached, values, gain)
                for label, values in shares.items()
            },
            **{
                f"less regret than {label}": resampled(
                    lambda own, other, gain: regret(other, gain) - regret(own, gain), score, wide(table, name), gain
                )
                for name, label in CONTROL_COLUMNS.items()
            },
        },
        (own < low, own <= rival + NEAR_HEADROOM),
        own >= float(null.mean()),
        float((1 + np.sum(null <= own + 1e-12)) / (1 + n_resamples)),
    )


def _resampled(
    statistic: Callable[..., float], arrays: Sequence[Array], clusters: Sequence[str], n_resamples: int, seed: int
) -> Estimate:
    """A statistic of arrays (models, datasets), with an interval from resampled clusters of datasets."""
    counts = cluster_counts(clusters, len(clusters), n_resamples, np.random.default_rng(seed)).astype(int)
    columns = np.arange(len(clusters))
    drawn = (np.repeat(columns, row) for row in counts)
    return Estimate.from_resamples(
        statistic(*arrays), [statistic(*(values[:, chosen] for values in arrays)) for chosen in drawn]
    )
