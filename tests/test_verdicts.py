"""Verdicts of the front page and the README: computed from the chapters and the declared runs."""

from __future__ import annotations

import copy
import math
import re
from collections import defaultdict

import numpy as np
import pytest
import scipy.stats

from book.tools import refresh, verdicts
from ntps_utils.evidence.advice import Advisor, advise_left_out, regret
from ntps_utils.evidence.calibration import load_calibration
from ntps_utils.evidence.claims import analyzed_runs, finetuned_table, judge, rises, share_reached, wide
from ntps_utils.evidence.declared import RUNS_ENDED
from ntps_utils.evidence.records import load_record
from ntps_utils.evidence.runs import recorded_runs
from ntps_utils.evidence.tables import load_paper_coefficients, load_recorded
from tests.conftest import ROOT

GLUED = refresh.glued_values()


def changed(chapter: str, **values: object) -> dict:
    found = copy.deepcopy(GLUED)
    found[chapter].update(values)
    return found


def row(glued: dict, number: str) -> verdicts.Row:
    return next(one for one in verdicts.verdicts(glued) if one.number == number)


def test_every_claim_has_a_verdict_with_a_color():
    rows = verdicts.verdicts(GLUED)
    assert [one.number for one in rows if one.number] == ["(i)", "(ii)", "(iii)", "(iv)", "(v)", "(vi)"]
    for one in rows:
        assert {one.lab, one.real} <= set(verdicts.COLORS)
        assert one.finding.endswith(".")
        assert all(name in GLUED for name in one.chapters)


@pytest.mark.parametrize(
    ("number", "chapter", "values", "expected"),
    [
        ("(i)", "03_score_and_bounds", {"violations": 1}, "not held"),
        ("(ii)", "04_extraction", {"bench_forward": 3.0}, "partly held"),
        ("(iii)", "07_scores_against_probes", {"verdict_accuracy": "held"}, "held"),
        ("(iii)", "07_scores_against_probes", {"verdict_accuracy": "held for another score (x)"}, "not held"),
        ("(iv)", "08_after_lora", {"rise_lab": "held"}, "held"),
        ("(v)", "09_predicting_the_gain", {"skill_lab": "held"}, "held"),
        ("(vi)", "09_predicting_the_gain", {"rule_lab": "held"}, "held"),
    ],
)
def test_verdicts_follow_the_executed_chapters(number, chapter, values, expected):
    assert row(changed(chapter, **values), number).lab == expected


def test_verdicts_on_real_models_are_those_of_the_declared_experiment():
    some = {"value": 0.123, "low": -0.25, "high": 0.5, "p": 0.1}
    nothing = dict.fromkeys(some)
    judged = {"(iii)": "held", "(iv)": "partly held", "(v)": "not held", "(vi)": "open"}
    record = {
        "claims": [
            {"name": name, "verdict": verdict, "estimates": dict.fromkeys(verdicts.SHOWN[name], some)}
            for name, verdict in judged.items()
        ]
    }
    rows = {one.number: one for one in verdicts.verdicts(GLUED, record)}
    for number, verdict in judged.items():
        assert rows[number].real == verdict
        assert rows[number].finding.count(" 0.12 (-0.25 to 0.50)") == (2 if number == "(iv)" else 1)
    record["claims"][1]["estimates"] = dict.fromkeys(verdicts.SHOWN["(iv)"], nothing)
    assert "Real models:" not in {one.number: one for one in verdicts.verdicts(GLUED, record)}["(iv)"].finding


@pytest.mark.parametrize(("name", "n_datasets"), [("results", 15), ("results_all", 27)])
def test_the_recorded_verdicts_follow_from_the_recorded_runs(name, n_datasets):
    found = load_record(name)
    assert (found["ended"] == RUNS_ENDED) == (name == "results")
    assert len(found["datasets"]) == n_datasets
    claims = judge(recorded_runs(), found["ended"])
    assert [claim.verdict for claim in claims] == [claim["verdict"] for claim in found["claims"]]
    for claim, recorded in zip(claims, found["claims"], strict=True):
        assert claim.p_adjusted == pytest.approx(recorded["p_adjusted"], abs=1e-6)
        for name, estimate in claim.estimates.items():
            value = recorded["estimates"][name]["value"]
            assert (math.nan if value is None else value) == pytest.approx(estimate.value, abs=1e-9, nan_ok=True)


def test_badges_have_the_color_of_their_verdict():
    text = verdicts.tables(changed("03_score_and_bounds", violations=2))["verdicts"]
    assert "{bdg-danger}`Not held`" in text.splitlines()[2]
    assert "{bdg-info}`Open`" in text


def test_the_readme_has_the_verdicts_of_the_executed_chapters():
    text = (ROOT / "README.md").read_text()
    assert verdicts.readme(text, GLUED) == text
    other = verdicts.readme(text, changed("03_score_and_bounds", violations=3))
    assert "3 violations" in other
    begin, end = verdicts.marks("verdicts")
    assert other.split(begin)[0] == text.split(begin)[0]
    assert other.split(end)[1] == text.split(end)[1]


def test_the_advice_has_the_regrets_of_the_chapter_and_the_durations_of_the_recorded_reports():
    values = changed("09_predicting_the_gain", rule_advice_regret=0.123, rule_all_never_regret=45.67)
    text = verdicts.answers(values)
    assert re.search(r"regret of the recommendation, in points \| \d\.\d\d \| 0\.12 \|", text)
    assert "| regret of never running LoRA | 45.67 |" in text
    cases = load_record("prescreened")["cases"]
    minutes = sorted(case["lora_seconds"] / 60 for case in cases)
    shares = sorted(case["seconds"] / case["lora_seconds"] for case in cases)
    assert 0.4 < shares[0] < shares[-1] < 0.5  # "nearly half of the time" on the front page
    trials = sorted(case["trial_seconds"] / case["seconds"] for case in cases)
    assert 0.62 < trials[0] < trials[-1] < 0.7  # "two thirds of it", there, too
    assert f"{minutes[0]:.0f} to {minutes[-1]:.0f} minutes that the report estimates" in text
    assert f"took {shares[0]:.0%} to {shares[-1]:.0%} of the" in text


def test_what_the_pages_say_about_the_rules_follows_from_their_regrets():
    """Advice, chapter 9 and chapter 11: best in neither, far from the worst in both; no skill over always "no"."""
    gain = GLUED["09_predicting_the_gain"]
    for start in ("rule", "rule_real", "rule_all"):
        worst = max(gain[f"{start}_yes_regret"], gain[f"{start}_never_regret"])
        assert gain[f"{start}_advice_regret"] < 0.6 * worst
    for start in ("rule", "rule_real", "rule_all"):  # at the median of the recorded gains
        others = [gain[f"{start}_{rule}_regret_median"] for rule in ("room", "alone", "yes")]
        assert gain[f"{start}_advice_regret_median"] < min(others)
    for start in ("rule_real", "rule_all"):
        assert gain[f"{start}_never_regret_median"] < gain[f"{start}_advice_regret_median"]
        assert gain[f"{start}_never_regret"] < gain[f"{start}_advice_regret"] < gain[f"{start}_yes_regret"]
        assert 0.5 < gain[f"{start}_trial_held"] < 0.8  # about the 70% that are asked for
        assert gain[f"{start}_advised_n"] == 0
    assert gain["rule_frozen_regret"] < gain["rule_advice_regret"] < gain["rule_yes_regret"]
    assert gain["rule_real_yes_n"] == 0
    # Fisher's exact test: answers of "no" and open cases do not differ in how often LoRA pays.
    missed, pays = gain["rule_real_missed"], gain["rule_real_pays"]
    answered = round(gain["rule_real_trial_decided"] * gain["rule_real_n"])
    still_open = gain["rule_real_n"] - answered
    table = [[missed, answered - missed], [pays - missed, still_open - (pays - missed)]]
    assert scipy.stats.fisher_exact(table).pvalue > 0.1
    assert 0.5 < gain["rule_trial_held"] < 0.8
    nothing = changed("09_predicting_the_gain", rule_all_yes_n=0.0)
    assert "never *yes*, and recommends against LoRA in every run" in verdicts.advice(nothing)
    for yes, advised in ((1.0, 0.0), (0.0, 1.0)):
        some = changed("09_predicting_the_gain", rule_all_yes_n=yes, rule_all_advised_n=advised)
        assert "never *yes*" not in verdicts.advice(some)


def test_what_the_chapters_say_beside_their_numbers_follows_from_them():
    words, probes, asked = (
        GLUED[name] for name in ("05_subspaces_you_can_see", "07_scores_against_probes", "14_what_readers_asked")
    )
    assert words["random_high"] < 0.1  # two random directions pass the rule, too
    assert probes["size_half_low"] > 0  # the order of tokens raises NTPS a little
    assert probes["declared_pca_low"] < 0 < probes["declared_pca_high"]
    assert probes["every_pca_low"] < 0 < probes["every_pca_high"]
    assert probes["every_rho_low"] > 0
    printed = load_paper_coefficients()["accuracy"].mean()
    assert probes["declared_printed"] < probes["every_rho_high"] < printed
    assert probes["declared_rho_high"] == pytest.approx(printed, abs=0.02)  # "about the mean"
    assert probes["euclid_high"] < probes["declared_printed"] < probes["declared_rho_high"]
    for score in (
        "ntps",
        "ntps_metric",
        "ntps_task",
    ):  # training raises the scores, and next tokens lie below random ones
        assert probes[f"twin_{score}_from"] > 0
    assert probes["twin_ntps_random_to"] < 0.02
    assert probes["twin_ntps_metric_pca_s_from"] > 0  # principal components rise as well
    assert probes["twin_ntps_untrained"] > 0.5
    grid = GLUED["12_the_full_grid"]
    assert grid["types_mean"] > -2 * grid["types_error"]  # rounded weights lose nothing that can be seen
    assert abs(grid["types_start_float32"] - grid["types_start_bfloat16"]) > 0.01
    gap = [
        probes[f"twin_ntps_metric_{part}"] - probes[f"twin_ntps_metric_random_{part}"]
        for part in ("untrained", "trained")
    ]
    assert 0.0 < gap[0] < 0.08 < 0.15 < gap[1]  # "a little" and "clearly"
    assert probes["twin_accuracy_untrained"] < 0.15 < 0.3 < probes["twin_accuracy_trained"]  # "little"
    for part in ("trained", "untrained"):
        assert probes[f"twin_ntps_{part}"] < probes[f"twin_ntps_random_{part}"]
    assert asked["factor_width_sd"] > max(asked["factor_layer_sd"], asked["factor_centering_sd"])
    assert asked["factor_layer_rho"] < min(asked["factor_width_rho"], asked["factor_centering_rho"])


def test_what_chapter_9_says_about_decisions_and_the_papers_cells_follows_from_its_numbers():
    gain = GLUED["09_predicting_the_gain"]
    assert gain["rule_trial_regret"] > gain["rule_frozen_regret"]  # at one point a trial run costs more than it saves
    for threshold in ("3", "5"):
        assert gain[f"rule_trial_regret_{threshold}"] < gain[f"rule_frozen_regret_{threshold}"]
    assert gain["rule_room_regret"] == gain["rule_frozen_regret"]  # no step has a skill there: both are the fallback
    assert gain["rule_trial_right"] == gain["rule_frozen_right"] == 1.0
    assert gain["step_lab_t10_low"] < 0 < gain["step_lab_t25_low"]
    spent = gain["rule_real_advice_regret"] - gain["rule_real_never_regret"]  # the pass over the texts
    assert 0.0 < spent < 0.2
    assert gain["rule_real_frozen_decided"] == gain["rule_real_tenth_decided"] == gain["rule_real_trial_decided"]
    assert gain["rule_all_trial_regret"] > gain["rule_all_frozen_regret"]  # nor does it pay on all real datasets
    assert gain["rule_all_never_regret"] == min(
        v for k, v in gain.items() if re.fullmatch(r"rule_all_[a-z]+_regret", k)
    )
    assert gain["step_real_t25_low"] < 0 < gain["step_all_t25_low"]
    others = [gain[f"step_all_{step}_low"] for step in ("frozen", "gradients", "t2", "t10")]
    assert max(others) < 0 < gain["step_all_t25_corrected"] - 0.025  # the only step, and weak evidence
    assert gain["paper_ntps_regret"] < 0.2 * gain["paper_ntps_chance"]  # a good rule for the paper's own cells
    assert gain["paper_ntps_skill"] < 0.0  # and a bad prediction


def test_the_scale_of_the_last_row_ends_where_the_front_page_says():
    gain = wide(finetuned_table(analyzed_runs(recorded_runs())), "gain")
    assert share_reached(-gain, gain) == pytest.approx(1.0)
    assert -1.2 < share_reached(gain, gain) < -1.0  # "about -1, and slightly below -1 where the number is odd"


def test_what_chapters_say_in_words_about_the_pretrained_models_and_random_directions_is_true():
    words, after, tool = (GLUED[name] for name in ("05_subspaces_you_can_see", "08_after_lora", "11_prescreen"))
    assert words["n_as_random"] == words["n_shown"]  # "as little as two random ones"
    assert 0.0 < after["later_m_smollm2_low"] < 0.005  # the only interval above zero
    table = rises(recorded_runs())
    higher = table[table["rise"] > table["shuffled"]]
    assert (higher["rise"] < 0.0).mean() > 0.5  # "mostly because it falls less"
    assert tool["own_right"] <= tool["own_never"]  # "not better than always no"
    assert load_record("real_models")["models"]["stories260K"]["shares"]["perception"]["held out"] < 0.1


@pytest.mark.parametrize("n_datasets", [5, 9, 12])
def test_declared_results_on_later_datasets_are_those_of_the_tool(n_datasets):
    """The first five datasets were written down before the others were run."""
    first, later = load_calibration("declared"), load_calibration("real").cells
    later = later[~later["dataset"].isin(first.cells["dataset"])]
    later = later[later["dataset"].isin(later["dataset"].unique()[:n_datasets])]
    gains, cells = later["advantage"].to_numpy(), first.cells
    advisors = {g: Advisor(cells[cells["group"] != g], first.steps()) for g in later["group"].unique()}
    lists: dict[str, list[str]] = defaultdict(list)
    for threshold in (0.01, 0.03, 0.05, float(cells["gain"].median())):
        found = advise_left_out(later, advisors, threshold=threshold, trial=0.1)
        decided, pays = (found["answer"] != "open").to_numpy(), gains >= threshold
        assert not (found["answer"] == "yes").any()
        assert not found["recommended"].any()
        shares = {"decided": decided.mean(), "right": 1.0 - pays[decided].mean(), "no": 1.0 - pays.mean()}
        regrets = {
            "advice": regret(gains, found["recommended"], found["recommended_cost"], threshold),
            "answers": regret(gains, found["run"], found["cost"], threshold),
            "yes": regret(gains, np.ones(len(gains), bool), np.zeros(len(gains)), threshold),
            "never": regret(gains, np.zeros(len(gains), bool), np.zeros(len(gains)), threshold),
        }
        for name, value in shares.items():
            lists[name].append(f"{value:.0%}")
        for name, values in regrets.items():
            lists[name].append(f"{100 * values.mean():.2f}")
    declared = (ROOT / "book" / "declared.md").read_text()
    if n_datasets == 5:  # at five points the tool of that day decided fewer cases
        assert lists["right"] == lists["no"] == ["100%"] * 4  # "all rightly", "right in all ten"
        assert set(lists["never"]) == {"0.00"}
        del lists["decided"], lists["right"], lists["no"], lists["never"]
    for texts in lists.values():
        assert f"{', '.join(texts[:3])} and {texts[3]}" in declared
    held = int(((found["low"] <= gains) & (gains <= found["high"])).sum())
    inside, pay = {5: (7, 0), 9: (13, 1), 12: (17, 3)}[n_datasets]
    assert (held, int((gains >= 0.01).sum())) == (inside, pay)
    assert ("Seven of the ten gains lay" if n_datasets == 5 else f"Of the {len(gains)} gains, {held} lay") in declared


def test_what_chapters_say_in_words_about_settings_and_tasks_is_true():
    probes, gain = GLUED["07_scores_against_probes"], GLUED["09_predicting_the_gain"]
    assert abs(probes["metric_raw_rho"] - probes["metric_rho"]) < 0.05  # "nearly the same coefficient"
    assert probes["taskw_raw_rho"] < 0.0 < probes["taskw_rho"]  # "one of the other sign"
    assert probes["read_all"] < 0.0  # "it overfits"
    assert gain["rule_alone_regret"] == pytest.approx(gain["rule_trial_regret"])  # "are the same, too"
    frozen = load_calibration("declared").steps()[0].cost
    # "its regret is that of always no and the pass over the texts"
    assert gain["later_advice_regret_3"] == pytest.approx(gain["later_never_regret_3"] + 3.0 * frozen)
    assert gain["later_tool_decided_5"] >= gain["later_tool_decided_3"]
    lab = load_recorded("lab").set_index(["model", "dataset"])
    row = lab.loc["lab/M", "lab/paraphrase"]
    assert 0.48 < row["lora_adjusted"] < 0.5  # "just misses one half"


def test_the_legend_shows_the_verdicts_that_occur():
    assert verdicts.tables(GLUED)["legend"].count("{bdg-") == len(
        {verdict for one in verdicts.verdicts(GLUED) for verdict in (one.lab, one.real)}
    )
