"""What the declared experiment shows beside its verdicts: other scores, targets, seeds and selections of datasets.

Nothing here decides. The rules are in :mod:`ntps_utils.evidence.claims`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ntps_utils.evidence.claims import (
    CONTROL_COLUMNS,
    N_RESAMPLES,
    SEED,
    clusters_of,
    datasets_of,
    finetuned_table,
    finished_datasets,
    wide,
)
from ntps_utils.evidence.declared import FINETUNED_MODELS
from ntps_utils.evidence.hierarchical import hierarchical_slope
from ntps_utils.evidence.runs import RecordedRun
from ntps_utils.evidence.statistics import (
    Estimate,
    MaxStatisticTest,
    cluster_counts,
    max_statistic_test,
    pooled_partial_spearman,
    pooled_rank_correlation,
    spearman,
)
from ntps_utils.theory.controls import CONTROLS
from ntps_utils.theory.score import SCORES

SCORE_LABELS = {
    "ntps": "NTPS",
    "ntps_metric": "metric-matched",
    "ntps_task": "task-weighted",
    "ntps_net": "net NTPS",
    "ntps_metric_net": "net metric-matched",
    "ntps_task_net": "net task-weighted",
    **{column: f"NTPS of {label}" for column, label in CONTROL_COLUMNS.items()},
    "explained": "tr B / tr Y",
    "headroom": "headroom",
}
"""Columns of :func:`~ntps_utils.evidence.claims.finetuned_table` that are correlated with targets, and their names."""

TARGET_LABELS = {
    "accuracy": "probe accuracy",
    "r2": "variance explained",
    "cross_entropy_skill": "cross-entropy explained",
    "gain": "gain",
    "gain_errors": "gain in errors",
    "gain_cross_entropy": "gain in cross-entropy",
}
"""Targets, and their names. The first three are probes', the others LoRA's."""

WITHOUT = ("sst2", "climate_sentiment")
"""Datasets without which the two claims about correlations are shown too. Scores of the first had been seen before the
plan was written."""


MIN_CLUSTERS = 5
"""Smallest number of clusters of datasets that are resampled for an interval of what the seed changes."""


def associations(
    table: pd.DataFrame,
    scores: Iterable[str] = SCORE_LABELS,
    targets: Iterable[str] = TARGET_LABELS,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Correlate scores with targets within models.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`~ntps_utils.evidence.claims.finetuned_table`.
    scores, targets : iterable of str
        Columns of the table.
    n_resamples, seed : int
        Bootstrap resamples of clusters, and permutations; random seed.

    Returns
    -------
    DataFrame
        A row for each score and target: ``score``, ``target``, ``n`` datasets; ``rho``, ``low``, ``high`` and the
        two-sided ``p`` of the mean rank correlation; ``rho_MODEL`` of each model; and ``slope``, ``slope_low``,
        ``slope_high`` of the hierarchical regression (:func:`~ntps_utils.evidence.hierarchical.hierarchical_slope`).
        NaN where a column is constant.
    """
    clusters = clusters_of(table)
    rows = []
    for score in scores:
        for target in targets:
            x, y = wide(table, score), wide(table, target)
            found = pooled_rank_correlation(x, y, clusters=clusters, n_resamples=n_resamples, seed=seed)
            try:
                slope = hierarchical_slope(x, y)
                slopes = {"slope": slope.mean, "slope_low": slope.low, "slope_high": slope.high}
            except ValueError:  # a constant column
                slopes = dict.fromkeys(("slope", "slope_low", "slope_high"), float("nan"))
            each = {f"rho_{m}": spearman(a, b) for m, a, b in zip(FINETUNED_MODELS, x, y, strict=True)}
            facts = {"rho": found.rho, "low": found.low, "high": found.high, "p": found.p}
            rows.append({"score": score, "target": target, "n": found.n, **facts, **each, **slopes})
    return pd.DataFrame(rows)


def selections(runs: Iterable[RecordedRun], *, n_resamples: int = N_RESAMPLES, seed: int = SEED) -> pd.DataFrame:
    """Repeat the correlations of claims (iii) and (v) on other selections of datasets and seeds.

    Parameters
    ----------
    runs : iterable of RecordedRun
    n_resamples, seed : int
        See :func:`associations`.

    Returns
    -------
    DataFrame
        ``datasets`` (a description), ``target``, ``n``, ``rho``, ``low``, ``high``. Partial correlations have no
        interval.
    """
    runs = tuple(runs)
    table = finetuned_table(runs)
    tables = {"all": table}
    tables |= {f"without {name}": table[table["dataset"] != name] for name in WITHOUT if name in set(table["dataset"])}
    second = finetuned_table(runs, seed=1)
    if not second.empty:
        both = [name for name, part in second.groupby("dataset") if len(part) == len(FINETUNED_MODELS)]
        tables["second seed"] = second[second["dataset"].isin(both)]
        tables["first seed, the same datasets"] = table[table["dataset"].isin(both)]
    rows = []
    for name, part in tables.items():
        if part["dataset"].nunique() >= 3:
            found = associations(part, ["ntps"], ["accuracy", "gain"], n_resamples=n_resamples, seed=seed)
            rows.append(found[["target", "n", "rho", "low", "high"]].assign(datasets=name))
    fixed = {"number of classes held fixed": np.log(wide(table, "n_classes"))}
    fixed["headroom held fixed"] = wide(table, "headroom")
    for name, given in fixed.items():
        for target in ("accuracy", "gain"):
            if (name, target) != ("headroom held fixed", "accuracy"):  # headroom is the probe's own error
                rho = pooled_partial_spearman(wide(table, "ntps"), wide(table, target), given)
                row = {"datasets": name, "target": target, "n": table["dataset"].nunique(), "rho": rho}
                rows.append(pd.DataFrame([row]))
    columns = ["datasets", "target", "n", "rho", "low", "high"]
    return pd.concat(rows, ignore_index=True)[columns]


def landscape(
    runs: Iterable[RecordedRun], target: str, *, n_permutations: int = N_RESAMPLES, seed: int = SEED
) -> tuple[tuple[str, ...], MaxStatisticTest]:
    """Correlate every recorded setting of the scores with a target, against the best setting of permuted targets.

    Parameters
    ----------
    runs : iterable of RecordedRun
    target : str
        Key of ``TARGET_LABELS``.
    n_permutations, seed : int

    Returns
    -------
    settings : tuple of str
        Score, layer, centering and width of V.
    MaxStatisticTest
    """
    runs = tuple(runs)
    table = finetuned_table(runs)
    datasets = datasets_of(table)
    results = {
        (one.run.model, one.run.dataset): one.result for one in runs if one.run.kind == "lora" and one.run.seed == 0
    }

    def settings(model: str, dataset: str) -> dict[str, float]:
        scores = [s for s in results[model, dataset].scores if (s.split, s.subspace) == ("train", "next_token")]
        last = max(s.layer for s in scores)
        return {
            f"{name}, {'last' if s.layer == last else 'middle'} layer, "
            f"{'centered' if s.centered else 'second moments'}, {s.rule}": getattr(s, name)
            for s in scores
            for name in SCORES
        }

    values = {model: [settings(model, dataset) for dataset in datasets] for model in FINETUNED_MODELS}
    names = tuple(values[FINETUNED_MODELS[0]][0])
    sweep = [[[one[name] for one in values[model]] for model in FINETUNED_MODELS] for name in names]
    return names, max_statistic_test(sweep, wide(table, target), n_permutations=n_permutations, seed=seed)


def levels(table: pd.DataFrame, *, n_resamples: int = N_RESAMPLES, seed: int = SEED) -> pd.DataFrame:
    """Compare the sizes of scores: next-token directions against other directions of the same width.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`~ntps_utils.evidence.claims.finetuned_table`.
    n_resamples, seed : int
        Bootstrap resamples of clusters, and their random seed.

    Returns
    -------
    DataFrame
        A row for each score and control, and for ``r2_subspace`` where it was recorded: ``score``, ``control``;
        ``next_token`` and ``other``, means over models and datasets; ``difference`` with ``low`` and ``high``; and
        ``share`` of the runs in which next-token directions score higher.
    """
    counts = cluster_counts(clusters_of(table), table["dataset"].nunique(), n_resamples, np.random.default_rng(seed))
    rows = []
    pairs = [(score, control) for score in (*SCORES, "r2_subspace") for control in CONTROLS]
    for score, control in pairs:
        if f"{score}_{control}" in table:
            own, other = wide(table, score), wide(table, f"{score}_{control}")
            by_dataset = (own - other).mean(axis=0)
            found = Estimate.from_resamples(by_dataset.mean(), counts @ by_dataset / counts.sum(axis=1))
            rows.append(
                {"score": score, "control": control, "next_token": own.mean(), "other": other.mean()}
                | {"difference": found.value, "low": found.low, "high": found.high, "share": np.mean(own > other)}
            )
    return pd.DataFrame(rows)


def gain_reliability(runs: Iterable[RecordedRun]) -> pd.DataFrame:
    """Bound how much of the variance of gains over datasets is more than noise of the test texts.

    Parameters
    ----------
    runs : iterable of RecordedRun

    Returns
    -------
    DataFrame
        By model: ``sd``, standard deviation of the gains over datasets; ``error``, an upper limit of the standard error
        of a gain from its test texts (root mean square); and ``reliability``, one minus the ratio of their squares, at
        least 0.

    Notes
    -----
    The gain is the mean over test texts of a difference that is -1, 0 or 1, and not 0 only where the two predictions
    differ. So its variance is at most the share of texts with different predictions minus the squared gain, divided
    by the number of texts. Noise from random seeds comes on top.
    """
    runs = tuple(runs)
    finished = finished_datasets(runs)
    rows = []
    for one in runs:
        tuned = one.result.finetuning
        if (one.run.kind, one.run.seed) != ("lora", 0) or one.run.dataset not in finished or tuned is None:
            continue
        frozen, lora = np.array(tuned.frozen_predictions), np.array(tuned.lora_predictions)
        variance = max(0.0, float(np.mean(frozen != lora)) - tuned.gain**2) / len(lora)
        rows.append({"model": one.run.model, "gain": tuned.gain, "variance": variance})
    by_model = pd.DataFrame(rows).groupby("model")
    spread, noise = by_model["gain"].var(), by_model["variance"].mean()
    return pd.DataFrame(
        {"sd": np.sqrt(spread), "error": np.sqrt(noise), "reliability": (1.0 - noise / spread).clip(lower=0.0)}
    )


def seed_noise(
    first: pd.DataFrame, second: pd.DataFrame, column: str, *, n_resamples: int = N_RESAMPLES, seed: int = SEED
) -> pd.DataFrame:
    """Estimate how much of a result of runs is due to their random seed.

    Parameters
    ----------
    first, second : DataFrame
        Runs with two seeds: ``model``, ``dataset``, the column, and ``cluster`` where datasets are not independent.
        Only datasets that every model has with both seeds are used.
    column : str
        The result, such as "gain".
    n_resamples, seed : int
        Bootstrap resamples of clusters of datasets, and their random seed.

    Returns
    -------
    DataFrame
        A row for each model, and one for "all": ``n`` datasets; ``sd``, the standard deviation of the results of
        both seeds; ``noise``, the standard deviation between seeds, with the interval ``low``, ``high``, NaN with
        fewer than five clusters (percentiles of so few are those of single datasets); ``most``, the largest difference;
        ``rho``, the rank correlation of both seeds, of "all" the mean over models.

    Raises
    ------
    ValueError
        If there is no such dataset.

    Notes
    -----
    With two results of equal variance each, half the mean squared difference estimates the variance between seeds.

    Examples
    --------
    >>> one = pd.DataFrame({"model": "m", "dataset": list("abc"), "gain": [0.0, 0.1, 0.2]})
    >>> float(seed_noise(one, one.assign(gain=one["gain"] + 0.02), "gain").loc["m", "noise"].round(4))
    0.0141
    """
    both = first.merge(second, on=["model", "dataset"], suffixes=("", "_second"))
    wide_both = both.pivot(index="dataset", columns="model", values=[column, f"{column}_second"]).dropna()
    if wide_both.empty:
        raise ValueError("The two tables have no dataset in common that every model has with both seeds.")
    models = list(both["model"].unique())
    clusters = both.drop_duplicates("dataset").set_index("dataset").loc[wide_both.index]
    labels = clusters.get("cluster", clusters.index)
    counts = None
    if labels.nunique() >= MIN_CLUSTERS:
        counts = cluster_counts(labels, len(labels), n_resamples, np.random.default_rng(seed))
    rows = {}
    for name, members in {**{model: [model] for model in models}, "all": models}.items():
        one, two = (wide_both[c][members].to_numpy(float) for c in (column, f"{column}_second"))
        squares = ((two - one) ** 2).mean(axis=1) / 2.0
        noise = Estimate(float(np.sqrt(squares.mean())))
        if counts is not None:
            noise = Estimate.from_resamples(noise.value, np.sqrt(counts @ squares / counts.sum(axis=1)))
        rows[name] = {
            "n": len(squares),
            "sd": np.std([one, two], ddof=1),
            **{"noise": noise.value, "low": noise.low, "high": noise.high},
            "most": np.abs(two - one).max(),
            "rho": np.mean([spearman(a, b) for a, b in zip(one.T, two.T, strict=True)]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def gain_agreement(table: pd.DataFrame) -> float:
    """Compute the rank correlation between the gains of the two models over datasets.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`~ntps_utils.evidence.claims.finetuned_table`.

    Returns
    -------
    float
    """
    one, two = wide(table, "gain")
    return spearman(one, two)
