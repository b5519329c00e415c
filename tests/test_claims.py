"""Claims are judged by the declared rules: planted effects are found, and absent ones are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ntps_utils.evidence import claims, declared
from ntps_utils.evidence.claims import (
    PRINTED_ACCURACY,
    PRINTED_GAIN,
    Claim,
    added_skill,
    finetuned_table,
    finished_datasets,
    judge,
    regret,
    rises,
    scored_table,
    setting_of,
    wide,
)
from ntps_utils.evidence.declared import FINETUNED_MODELS, Run, run_order
from ntps_utils.evidence.experiment import (
    ExperimentResult,
    FinetuneComparison,
    ProbeResult,
    ScoreSetting,
    TransferabilityValue,
)
from ntps_utils.evidence.runs import RecordedRun
from ntps_utils.evidence.statistics import Estimate, spearman
from ntps_utils.evidence.tables import load_paper_coefficients

ENDED = "2026-12-24T00:00:00+00:00"
SUBSPACES = ("next_token", "pca_s", "pca_a0", "symmetric", "random")


def scores(values: dict[str, float], split: str) -> list[ScoreSetting]:
    return [
        ScoreSetting(3, centered, "half", 4, value, value, value, 1.0, 0.1, 2.0, split, name)
        for name, value in values.items()
        for centered in (False, True)
    ]


def recorded(run: Run, ntps: float, pca: float, accuracy: float, gain: float, rise: float) -> RecordedRun:
    before = dict.fromkeys(SUBSPACES, pca) | {"next_token": ntps}
    probe = ProbeResult(accuracy, accuracy, accuracy, 0.1, 0.1, accuracy, accuracy)
    result = ExperimentResult(
        run.model, run.dataset, "w", "t", 100, 50, 2, 8, 10, 0.5,
        probes={"middle": probe, "last": probe},
        scores=(*scores(before, "train"), *scores(before, "test")),
        transferability={"headroom": TransferabilityValue(0.3, 0.0)},
        score_seconds=1.0,
        seconds=2.0,
        finetuning=FinetuneComparison(
            0.5, 0.5 + gain, 0.5, 1e-3, 300, 1.0, 1.0, 0.7, 0.7 - gain,
            frozen_predictions=(0,) * 50, lora_predictions=(0, 1) * 25,
        ),
        scores_after=tuple(scores({"next_token": ntps + rise}, "test")),
    )  # fmt: skip
    return RecordedRun(run, result, {"date": "2026-12-01T00:00:00+00:00"})


def experiment(effect: float, n: int = 20, seed: int = 0, rise: float = 0.1) -> tuple[RecordedRun, ...]:
    """Runs in which NTPS explains accuracy and gain by a share ``effect`` of their standard deviation."""
    rng = np.random.default_rng(seed)
    runs = []
    for i, dataset in enumerate(run_order()[:n]):
        common = rng.normal()
        for model in FINETUNED_MODELS:
            x = common + 0.3 * rng.normal()
            y, z = (effect * x + np.sqrt(1 - effect**2) * rng.normal() for _ in range(2))
            values = (0.5 + 0.05 * x, 0.5 + 0.05 * rng.normal(), 0.5 + 0.1 * y, 0.1 - 0.02 * z)
            runs.append(recorded(Run("lora", model, dataset), *values, rise + 0.003 * rng.normal()))
            if i < 5:
                runs.append(recorded(Run("shuffled", model, dataset), *values, 0.003 * rng.normal()))
    return tuple(runs)


@pytest.fixture(scope="module")
def strong() -> tuple[RecordedRun, ...]:
    return experiment(0.97)


@pytest.mark.slow
def test_planted_effects_are_found(strong):
    found = {claim.name: claim for claim in judge(strong, ENDED, n_resamples=1000)}
    assert {name: claim.verdict for name, claim in found.items()} == dict.fromkeys(
        ("(iii)", "(iv)", "(v)", "(vi)"), "held"
    )
    assert found["(v)"].estimates["correlation"].value < -0.7


@pytest.mark.slow
def test_absent_effects_are_not_found():
    verdicts = {claim.name: claim.verdict for claim in judge(experiment(0.0, n=27, rise=0.0), ENDED, n_resamples=1000)}
    assert "held" not in verdicts.values()
    assert verdicts["(iv)"] == "open"
    assert verdicts["(vi)"] in ("not held", "open")


@pytest.mark.slow
def test_estimates_are_those_of_their_definitions(strong):
    table = finetuned_table(strong)
    by_model = [part for _, part in table.groupby("model")]
    (iii, iv, v, vi) = judge(strong, ENDED, n_resamples=200)
    assert iii.estimates["correlation"].value == pytest.approx(
        np.mean([spearman(part["ntps"], part["accuracy"]) for part in by_model])
    )
    assert iii.estimates["more than principal components"].value == pytest.approx(
        np.mean([spearman(p["ntps"], p["accuracy"]) - spearman(p["ntps_pca_s"], p["accuracy"]) for p in by_model])
    )
    for name, label in claims.CONTROL_COLUMNS.items():
        assert v.estimates[f"more than {label}"].value == pytest.approx(
            np.mean([spearman(p[name], p["gain"]) - spearman(p["ntps"], p["gain"]) for p in by_model])
        )
    changes = rises(strong)
    assert len(changes) == 10
    for model, part in changes.groupby("model"):
        paired = stats.ttest_rel(part["rise"], part["shuffled"])
        interval = paired.confidence_interval(0.95)
        assert (iv.estimates[model].low, iv.estimates[model].high) == pytest.approx((interval.low, interval.high))
    assert v.estimates["correlation"].value == pytest.approx(
        np.mean([spearman(part["ntps"], part["gain"]) for part in by_model])
    )
    kept = [part.nsmallest(10, "ntps")["gain"].mean() for part in by_model]
    best = [part.nlargest(10, "gain")["gain"].mean() for part in by_model]
    assert vi.estimates["regret"].value == pytest.approx(np.mean(best) - np.mean(kept))


@pytest.mark.slow
def test_adjusted_p_values_are_those_of_holm(strong):
    found = judge(strong, ENDED, n_resamples=200)
    expected = multipletests([claim.p for claim in found], method="holm")[1]
    assert [claim.p_adjusted for claim in found] == pytest.approx(expected)
    p_values = np.random.default_rng(0).uniform(0, 0.1, 7)
    assert claims._holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize(
    ("confirmed", "refuted", "p", "verdict"),
    [
        ((True, True), False, 0.01, "held"),
        ((True, True), False, 0.2, "partly held"),
        ((True, False), True, 0.01, "partly held"),
        ((False, True), True, 0.01, "not held"),
        ((False, True), False, 0.01, "open"),
        ((False, False), True, 0.01, "not held"),
        ((False, False), False, 0.01, "open"),
    ],
)
def test_verdicts_follow_the_declared_rules(confirmed, refuted, p, verdict):
    assert Claim("(x)", "", {}, confirmed, refuted, p, p).verdict == verdict


def test_nothing_is_analyzed_before_the_runs_have_ended(strong):
    with pytest.raises(ValueError, match="The runs have not ended: RUNS_ENDED is not set"):
        judge(strong, None)
    with pytest.raises(ValueError, match="0 datasets are finished; a correlation needs at least 3"):
        judge(strong, "2026-11-30T00:00:00+00:00")
    without = tuple(one for one in strong if one.run.kind == "lora")
    found = {claim.name: claim for claim in judge(without, ENDED, n_resamples=50)}
    assert (found["(iv)"].verdict, found["(iv)"].p) == ("open", 1.0)
    assert found["(iii)"].verdict != "open"
    one_model = tuple(one for one in strong if (one.run.kind, one.run.model) != ("shuffled", FINETUNED_MODELS[1]))
    claim = claims._rise_claim(one_model)
    assert claim.estimates[FINETUNED_MODELS[0]].low > 0
    assert (claim.verdict, claim.p, claim.confirmed) == ("open", 1.0, (False, False))


def test_remarks_say_what_a_verdict_does_not():
    small, large = Estimate(0.2, 0.1, 0.3), Estimate(0.6, 0.4, 0.8)
    control = {"more than principal components": Estimate(0.1, -0.1, 0.3)}

    def claim(name: str, correlation: Estimate, confirmed: tuple[bool, ...], refuted: bool, p: float = 0.001) -> Claim:
        return Claim(name, "x", {"correlation": correlation, **control}, confirmed, refuted, p, p)

    assert claim("(iii)", Estimate(0.1, -0.2, 0.3), (False, False), True).remark == (
        "This excludes a positive correlation as strong as the printed 0.58; it does not show that there is none."
    )
    assert (
        claim("(iii)", small, (True, False), True).remark == "The correlation is above zero, and smaller than printed."
    )
    assert claim("(v)", Estimate(-0.2, -0.3, -0.1), (True, False), True).remark.startswith("The correlation is below")
    assert claim("(iii)", large, (True, False), False).remark == ""
    assert claim("(iii)", large, (True, True), False).remark.startswith("The same score of directions without next tok")
    assert "every second time" in claim("(vi)", small, (False, False), True).remark
    assert claim("(vi)", small, (False, False), False).remark == ""


def test_a_rise_cannot_be_refuted_before_it_is_known_to_be_visible(monkeypatch):
    runs = experiment(0.0, rise=0.0)
    assert claims._rise_claim(runs).verdict == "open"
    monkeypatch.setattr(claims, "RISE_IS_VISIBLE", True)
    assert claims._rise_claim(runs).verdict == "not held"
    assert not claims._rise_claim(experiment(0.0, rise=0.1)).refuted


def test_runs_that_differ_in_more_than_their_labels_are_not_compared(strong):
    (first, *rest) = strong
    other = replace(first, result=replace(first.result, weights="other"))
    with pytest.raises(ValueError, match="have other weights, texts or types"):
        rises((other, *rest))
    nothing = replace(first, result=replace(first.result, scores_after=tuple(scores({"next_token": np.nan}, "test"))))
    with pytest.raises(ValueError, match="ntps on the test texts is not finite"):
        rises((nothing, *rest))


def test_rises_of_other_scores_come_from_covariances(strong):
    (first, *rest) = strong
    changed = tuple(
        replace(score, ntps_metric=score.ntps_metric + (0.25 if score.centered else 0.5))
        if score.subspace == "next_token"
        else score
        for score in first.result.scores_after
    )
    other = replace(first, result=replace(first.result, scores_after=changed))
    before, after = (rises(runs, "ntps_metric").iloc[0] for runs in (strong, (other, *rest)))
    assert after["rise"] - before["rise"] == pytest.approx(0.25)
    assert rises((other, *rest)).equals(rises(strong))


def test_a_model_that_is_not_planned_enters_no_table(strong):
    more = tuple(replace(one, run=replace(one.run, model="another")) for one in strong)
    assert finetuned_table((*strong, *more)).equals(finetuned_table(strong))


def test_only_an_unbroken_start_of_the_order_is_analyzed(strong, monkeypatch):
    gap = tuple(one for one in strong if one.run != Run("lora", FINETUNED_MODELS[1], run_order()[4]))
    assert finished_datasets(gap) == run_order()[:4]
    monkeypatch.setattr(declared, "EXCLUDED", (run_order()[4],))
    assert finished_datasets(gap) == (*run_order()[:4], *run_order()[5:20])
    assert set(finetuned_table(gap)["dataset"]) == {*run_order()[:4], *run_order()[5:20]}


@pytest.mark.slow
def test_constant_and_missing_scores_give_no_correlation():
    runs = experiment(0.9, n=16)
    flat = tuple(
        replace(
            one,
            result=replace(
                one.result,
                scores=tuple(replace(s, ntps=0.5) for s in one.result.scores),
                scores_after=one.result.scores,
            ),
        )
        for one in runs
    )
    iii, _, _, _ = judge(flat, ENDED, n_resamples=50)
    assert (iii.p, iii.verdict) == (1.0, "open")
    table = finetuned_table(runs)
    with pytest.raises(ValueError, match="gain is missing or not finite"):
        wide(table.assign(gain=table["gain"].where(table["dataset"] != run_order()[2])), "gain")


def test_printed_sizes_are_those_of_the_paper():
    means = load_paper_coefficients().mean()
    assert min(means["mse"], means["accuracy"]) == pytest.approx(PRINTED_ACCURACY, abs=0.005)
    assert means["accuracy"] == pytest.approx(0.67, abs=0.005)  # the other one that the page names
    assert -means["gain"] == pytest.approx(PRINTED_GAIN, abs=0.005)


def test_scores_are_selected_by_setting(strong):
    values = strong[0].result.scores
    found = setting_of(values, centered=True, split="test", subspace="pca_s")
    assert (found.centered, found.split, found.subspace) == (True, "test", "pca_s")
    with pytest.raises(ValueError, match="There are 2 scores of pca_s on test texts"):
        setting_of((*values, found), centered=True, split="test", subspace="pca_s")


def test_wide_tables_are_in_the_declared_order(strong):
    table = finetuned_table(strong).sample(frac=1, random_state=0)
    values = wide(table, "gain")
    row = table[(table["model"] == FINETUNED_MODELS[1]) & (table["dataset"] == run_order()[3])]
    assert values[1, 3] == row["gain"].item()


def gains(seed: int, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=40) + shift * np.repeat([0, 1], 20)
    columns = {"a": gain, "b": rng.normal(size=40), "c": 0.0, "label": np.repeat([0.0, 1.0], 20)}
    return pd.DataFrame(
        {"gain": gain, "cluster": np.tile(np.arange(20), 2), "model": np.repeat(list(FINETUNED_MODELS), 20), **columns}
    )


def test_added_skill_of_the_gain_itself_is_large_and_of_noise_is_not():
    table = gains(1)
    skill = added_skill(table, ["c", "a"], ["c"], n_resamples=200)
    assert skill.low > 0.8
    assert skill.p < 0.01
    skill = added_skill(table, ["c", "b"], ["c"], n_resamples=200)
    assert skill.low < 0.0
    assert skill.p > 0.05


def test_a_predictor_that_tells_models_apart_has_no_skill():
    """Gains differ between models, but the predictor is constant within each of them."""
    skill = added_skill(gains(2, shift=3.0), ["c", "label"], ["c"], n_resamples=200)
    assert skill.value == pytest.approx(0.0, abs=1e-9)


def test_the_floor_is_the_median_of_the_other_clusters():
    table = gains(3)
    expected = [
        abs(row.gain - table[(table["model"] == row.model) & (table["cluster"] != row.cluster)]["gain"].median())
        for row in table.itertuples()
    ]
    skill = added_skill(table, ["a"], None, n_resamples=50)
    found = claims._left_out_errors(table, ["a"])
    assert skill.value == pytest.approx(1 - found.sum() / np.sum(expected))


def test_regret_is_zero_for_the_gain_and_largest_for_its_opposite():
    gain = np.random.default_rng(0).normal(size=(2, 9))
    assert regret(-gain, gain) == pytest.approx(0.0)
    worst = [np.sort(row)[-5:].mean() - np.sort(row)[:5].mean() for row in gain]
    assert regret(gain, gain) == pytest.approx(np.mean(worst))


def test_scores_of_runs_without_finetuning_stand_in_the_same_columns(strong):
    runs = [one for one in strong if one.run.kind == "lora"]
    without = [replace(one, result=replace(one.result, finetuning=None)) for one in runs]
    table = scored_table(without)
    assert table.equals(scored_table(runs))
    tuned = finetuned_table(strong).set_index(["model", "dataset"])
    table = table.set_index(["model", "dataset"]).loc[tuned.index]
    assert set(tuned) - set(table) >= {"gain", "frozen", "gain_errors"}
    assert table.equals(tuned[list(table)])


def test_a_row_has_net_scores_and_gains_in_three_units(strong):
    one = next(r for r in strong if r.run.kind == "lora")
    (row,) = finetuned_table(strong)[
        lambda t: (t["model"] == one.run.model) & (t["dataset"] == one.run.dataset)
    ].to_dict("records")
    assert row["ntps_net"] == pytest.approx(row["ntps"] - row["ntps_random"])
    assert row["gain_errors"] == pytest.approx(row["gain"] / 0.5)
    assert row["gain_cross_entropy"] == pytest.approx(row["gain"])
    assert replace(one.result.finetuning).gain == row["gain"]
