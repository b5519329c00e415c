"""What the declared experiment shows beside its verdicts, on planted runs and against independent formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from book.tools import declared
from book.tools.results import compute
from ntps_utils.evidence.claims import analyzed_runs, finetuned_table, finished_datasets, judge, share_reached, wide
from ntps_utils.evidence.declared import FINETUNED_MODELS, Run, run_order
from ntps_utils.evidence.results import (
    associations,
    gain_agreement,
    gain_reliability,
    landscape,
    levels,
    seed_noise,
    selections,
)
from ntps_utils.evidence.runs import RecordedRun
from tests.test_claims import ENDED, experiment

RUNS = experiment(0.8)
TABLE = finetuned_table(RUNS)


def with_classes(runs: tuple[RecordedRun, ...]) -> tuple[RecordedRun, ...]:
    """Runs whose datasets have different numbers of classes, and headrooms that differ between runs."""
    rng = np.random.default_rng(5)
    return tuple(
        replace(
            one,
            result=replace(
                one.result,
                n_classes=2 + run_order().index(one.run.dataset),
                transferability={"headroom": replace(one.result.transferability["headroom"], value=rng.uniform())},
            ),
        )
        for one in runs
    )


def test_associations_are_mean_rank_correlations_within_models():
    found = associations(TABLE, ["ntps", "ntps_pca_s"], ["accuracy", "gain"], n_resamples=200).set_index(
        ["score", "target"]
    )
    for (score, target), row in found.iterrows():
        each = [stats.spearmanr(part[score], part[target]).statistic for _, part in TABLE.groupby("model", sort=True)]
        assert [row[f"rho_{model}"] for model in FINETUNED_MODELS] == pytest.approx(each)
        assert row["rho"] == pytest.approx(np.mean(each))
        assert row["low"] < row["rho"] < row["high"]
    assert found.loc[("ntps", "accuracy"), "slope_low"] > 0 > found.loc[("ntps", "gain"), "slope_high"]
    constant = associations(TABLE, ["headroom"], ["gain"], n_resamples=50).iloc[0]
    assert np.isnan([constant["rho"], constant["slope"]]).all()


def test_selections_leave_out_what_they_say():
    runs = with_classes(RUNS)
    again = tuple(
        replace(one, run=replace(one.run, seed=1))
        for one in runs
        if one.run.kind == "lora" and one.run.dataset in run_order()[:6]
    )
    found = selections((*runs, *again), n_resamples=100).set_index(["datasets", "target"])
    table = finetuned_table(runs)

    def correlation(part, target):
        return associations(part, ["ntps"], [target], n_resamples=50)["rho"][0]

    left_out = "climate_sentiment"
    assert left_out in run_order()[:20]
    assert found.loc[(f"without {left_out}", "gain"), "rho"] == pytest.approx(
        correlation(table[table["dataset"] != left_out], "gain")
    )
    first = table[table["dataset"].isin(run_order()[:6])]
    for name in ("second seed", "first seed, the same datasets"):  # the same rows
        assert found.loc[(name, "accuracy"), "rho"] == pytest.approx(correlation(first, "accuracy"))
    for name, given in (("number of classes held fixed", "n_classes"), ("headroom held fixed", "headroom")):
        partial = []
        for _, part in table.groupby("model"):
            ranks = part[["ntps", "gain", given]].rank().to_numpy()
            design = np.column_stack([np.ones(len(ranks)), ranks[:, 2]])
            rest = ranks[:, :2] - design @ np.linalg.lstsq(design, ranks[:, :2], rcond=None)[0]
            partial.append(np.corrcoef(rest.T)[0, 1])
        assert found.loc[(name, "gain"), "rho"] == pytest.approx(np.mean(partial))
    assert ("headroom held fixed", "accuracy") not in found.index


def test_the_best_setting_is_compared_with_the_best_on_permuted_targets():
    names, found = landscape(RUNS, "accuracy", n_permutations=300)
    assert len(names) == len(found.rho) == 6  # three scores with and without centering
    own = names.index("ntps, last layer, second moments, half")
    assert found.rho[own] == pytest.approx(associations(TABLE, ["ntps"], ["accuracy"], n_resamples=50)["rho"][0])
    assert found.p_best < 0.05
    assert landscape(experiment(0.0, seed=3), "accuracy", n_permutations=300)[1].p_best > 0.05


def test_the_error_of_the_gain_is_an_upper_limit():
    """Against the variance over resampled test texts with known labels."""
    rng = np.random.default_rng(0)
    n_texts, runs = 400, []
    variances = {model: [] for model in FINETUNED_MODELS}
    for one in RUNS:
        if one.run.kind != "lora":
            continue
        labels = rng.integers(0, 3, n_texts)
        frozen, lora = (
            np.where(rng.random(n_texts) < p, labels, rng.integers(0, 3, n_texts)) for p in rng.uniform(0.4, 0.8, 2)
        )
        change = (lora == labels).astype(float) - (frozen == labels)
        tuned = replace(
            one.result.finetuning,
            frozen_accuracy=float((frozen == labels).mean()),
            lora_accuracy=float((lora == labels).mean()),
            frozen_predictions=tuple(map(int, frozen)),
            lora_predictions=tuple(map(int, lora)),
        )
        runs.append(replace(one, result=replace(one.result, finetuning=tuned)))
        drawn = change[rng.integers(0, n_texts, (500, n_texts))].mean(1)
        variances[one.run.model].append((tuned.gain, drawn.var()))
    found = gain_reliability(runs)
    for model, pairs in variances.items():
        gains, noise = np.array(pairs).T
        assert found.loc[model, "sd"] == pytest.approx(gains.std(ddof=1))
        assert noise.mean() < found.loc[model, "error"] ** 2 < 2.5 * noise.mean()
        assert found.loc[model, "reliability"] < 1 - noise.mean() / gains.var(ddof=1)


def two_seeds(noise: dict[str, float], n: int, rng: np.random.Generator) -> list[pd.DataFrame]:
    """Runs of models with two seeds, with gains that have a standard deviation of 0.1 over datasets."""
    datasets = [f"d{i}" for i in range(n)]
    truth = pd.DataFrame(
        [(m, d, 0.1 * rng.normal()) for m in noise for d in datasets], columns=["model", "dataset", "gain"]
    )
    return [
        truth.assign(gain=truth["gain"] + truth["model"].map(noise) * rng.normal(size=len(truth))) for _ in range(2)
    ]


def test_the_noise_of_the_seed_is_the_standard_deviation_within_runs():
    rng = np.random.default_rng(0)
    first, second = two_seeds({"a": 0.02, "b": 0.05}, 40, rng)
    found = seed_noise(first, second.sample(frac=1, random_state=0), "gain", n_resamples=300)
    for model, part in first.groupby("model"):
        pairs = np.column_stack([part["gain"], second.loc[part.index, "gain"]])
        row = found.loc[model]
        assert row["n"] == 40
        assert row["noise"] == pytest.approx(np.sqrt(pairs.var(axis=1, ddof=1).mean()))  # within groups, as in an ANOVA
        assert row["sd"] == pytest.approx(pairs.std(ddof=1))
        assert row["most"] == pytest.approx(np.ptp(pairs, axis=1).max())
        assert row["rho"] == pytest.approx(stats.spearmanr(*pairs.T).statistic)
    everything = found.loc["all"]
    assert everything["noise"] == pytest.approx(np.sqrt((found.loc[["a", "b"], "noise"] ** 2).mean()))
    assert everything["rho"] == pytest.approx(found.loc[["a", "b"], "rho"].mean())


def test_the_interval_of_the_noise_of_the_seed_covers_its_value():
    rng = np.random.default_rng(1)
    rows = [seed_noise(*two_seeds({"m": 0.03}, 25, rng), "gain", n_resamples=200).loc["m"] for _ in range(100)]
    assert np.mean([row["low"] < 0.03 < row["high"] for row in rows]) > 0.8


def test_runs_of_one_cluster_are_drawn_together_for_the_noise_of_the_seed():
    first, second = two_seeds({"m": 0.03}, 8, np.random.default_rng(2))
    pairs = [
        one.assign(cluster=one["dataset"].map({"d0": "x", "d1": "x"}).fillna(one["dataset"])) for one in (first, second)
    ]
    assert seed_noise(*pairs, "gain").loc["m", "low"] != seed_noise(first, second, "gain").loc["m", "low"]
    for n, has_interval in ((5, True), (4, False)):  # percentiles of fewer are those of single datasets
        few = seed_noise(first[:n], second[:n], "gain").loc["m"]
        assert few["noise"] > 0
        assert np.isfinite([few["low"], few["high"]]).all() == has_interval
    one = seed_noise(*(one.assign(cluster="x") for one in pairs), "gain").loc["m"]
    assert np.isnan([one["low"], one["high"]]).all()


def test_the_noise_of_the_seed_needs_the_same_runs():
    first, second = two_seeds({"a": 0.02, "b": 0.05}, 5, np.random.default_rng(3))
    with pytest.raises(ValueError, match="no dataset in common"):
        seed_noise(first, second.assign(model="c"), "gain")
    complete = [one[one["dataset"] != "d4"] for one in (first, second)]
    for less in (second.iloc[:-1], second.drop(index=4)):  # d4 is missing in one model
        pd.testing.assert_frame_equal(seed_noise(first, less, "gain"), seed_noise(*complete, "gain"))


def test_gains_of_two_models_agree_if_they_are_the_same():
    table = TABLE.assign(gain=TABLE["dataset"].map(run_order().index).astype(float))
    assert gain_agreement(table) == pytest.approx(1.0)
    assert gain_agreement(TABLE) == pytest.approx(stats.spearmanr(*wide(TABLE, "gain")).statistic)


def test_the_share_reached_is_one_for_the_best_half_and_zero_for_random_ones():
    rng = np.random.default_rng(0)
    gain = rng.normal(size=(2, 15))
    assert share_reached(-gain, gain) == pytest.approx(1.0)
    shares = [share_reached(rng.normal(size=gain.shape), gain) for _ in range(4000)]
    assert abs(np.mean(shares)) < 4 * np.std(shares) / np.sqrt(len(shares))
    assert np.isnan(share_reached(gain, np.ones_like(gain)))


def test_levels_are_paired_differences_over_datasets():
    rng = np.random.default_rng(3)
    higher = TABLE.assign(ntps=TABLE["ntps_pca_s"] + 0.1 + rng.normal(scale=0.01, size=len(TABLE)))
    higher = higher.assign(
        r2_subspace=0.5, r2_subspace_pca_s=np.where(higher["model"] == FINETUNED_MODELS[0], 0.4, 0.8)
    )
    found = levels(higher, n_resamples=500).set_index(["score", "control"])
    own = found.loc["ntps", "pca_s"]
    differences = (higher["ntps"] - higher["ntps_pca_s"]).groupby(higher["dataset"]).mean()
    assert own["difference"] == pytest.approx(differences.mean())
    assert own["next_token"] - own["other"] == pytest.approx(own["difference"])
    assert own["share"] == 1.0
    width = 2 * 1.96 * stats.sem(differences)
    assert own["high"] - own["low"] == pytest.approx(width, rel=0.5)
    assert found.loc[("r2_subspace", "pca_s"), ["difference", "share"]].tolist() == pytest.approx([-0.1, 0.5])
    assert ("r2_subspace", "random") not in found.index


@pytest.mark.slow
def test_the_page_shows_every_estimate():
    runs = with_classes(RUNS)
    found = compute(runs, ENDED, n_resamples=100)
    assert found["datasets"] == run_order()[:20]
    text = declared.results(found)
    assert "**Verdicts, from 20 datasets (p-values of both conditions together)**" in text
    for words in (
        "| (vi) | ",
        "share of the attainable gain, NTPS",
        "net NTPS",
        "without climate_sentiment",
        "tr B / tr Y",
        "runs with next-token higher",
        "reliability",
        "regret of random halves (points, mean and 95% range)",
    ):
        assert words in text
    assert not any(word in text for word in ("None", "nan", "inf"))
    assert text.count("\n| gemma-3-270m | ") == 6  # five differences, and the noise of the gain

    first = {**found, "datasets": found["datasets"][:15], "claims": [dict(claim) for claim in found["claims"]]}
    planted = {"value": 0.123, "low": -0.25, "high": 0.5, "p": 0.3}
    first["claims"][0] |= {"verdict": "open", "estimates": {**found["claims"][0]["estimates"], "correlation": planted}}
    both, selected = declared.results_all(first, found).split("\n**NTPS on other selections of all datasets**\n\n")
    few = [{**found["selections"][0], "datasets": "second seed", "n": 3}]
    assert declared.results_all(first, {**found, "selections": few + found["selections"]}).endswith(selected)
    assert selected.count("\n") == 2 + len(found["selections"])
    correlation = declared._estimate("correlation", found["claims"][0]["estimates"]["correlation"])[1]
    assert "| claim | estimate | first 15 datasets | all 20 datasets |" in both
    assert f"| (iii) | *by the rules* | *open* | *{found['claims'][0]['verdict']}* |" in both
    assert f"|  | correlation | 0.12 (-0.25 to 0.50) | {correlation} |" in both
    assert both.count("\n") == 2 + sum(1 + len(claim["estimates"]) for claim in found["claims"])


def test_runs_after_the_end_are_not_analyzed():
    late = tuple(
        replace(one, provenance={"date": "2026-12-30T00:00:00+00:00"}) if one.run.dataset in run_order()[17:] else one
        for one in RUNS
    )
    assert finished_datasets(analyzed_runs(late, ENDED)) == run_order()[:17]
    few = tuple(one for one in RUNS if one.run.dataset in run_order()[:14])
    assert {claim.verdict for claim in judge(few, ENDED, n_resamples=50)} == {"open"}
    without = tuple(one for one in RUNS if one.run != Run("lora", FINETUNED_MODELS[0], run_order()[0]))
    with pytest.raises(ValueError, match="0 datasets are finished"):
        judge(without, ENDED)
