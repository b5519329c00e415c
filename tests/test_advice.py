"""Decisions in steps: planted causes, honest answers without skill, cost, and regret."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ntps_utils.evidence.advice import LEVEL, Advice, Advisor, Step, headroom_limit, left_out_advisors, regret
from ntps_utils.evidence.advice import advise_left_out as decide_left_out
from ntps_utils.evidence.calibration import load_calibration

STEPS = (
    Step("frozen model", (("headroom",), ("headroom", "score")), 0.1),
    Step("trial run of 10%", (("headroom", "trial"),), 0.2, "trial", 0.1),
)


def cells(kind: str, n_datasets: int = 12, seed: int = 0) -> pd.DataFrame:
    """Two models on each dataset; the gain follows the score, the trial, or nothing."""
    rng = np.random.default_rng(seed)
    datasets = np.arange(n_datasets).repeat(2)
    n = len(datasets)
    gain = np.clip(rng.normal(0.08, 0.05, n_datasets)[datasets] + rng.normal(0, 0.01, n), 0.0, 0.3)
    noise = rng.normal(size=(3, n))
    signal = gain / 0.05
    return pd.DataFrame(
        {
            "gain": gain,
            "headroom": np.clip(gain + rng.uniform(0.1, 0.3, n), 0.0, 1.0),
            "score": (signal if kind == "score" else 0.0) + 0.1 * noise[0],
            "trial": (signal if kind in ("score", "trial") else 0.0) + 0.1 * noise[1],
            "n_texts": 2000,
            "group": datasets,
            "lead": 0.0,
            "advantage": gain,
            "trial_end_10": 1.0,
        }
    )


def advise_left_out(table: pd.DataFrame, steps: tuple[Step, ...], **options: float) -> pd.DataFrame:
    return decide_left_out(table, left_out_advisors(table, steps), **options)


def test_the_first_step_with_skill_decides():
    found = advise_left_out(cells("score"), STEPS, threshold=0.08, trial=0.1)
    decided = found[found["answer"] != "open"]
    assert len(decided) > 0.6 * len(found)  # some gains are too near the threshold
    assert decided["right"].astype(bool).mean() > 0.95
    assert (found["step"] == "frozen model").mean() > 0.6
    assert (found["has_skill"] | found["outside"].map(bool)).all()


def test_a_trial_decides_where_the_frozen_model_does_not():
    table = cells("trial")
    cheap = advise_left_out(table, STEPS, threshold=0.08)
    found = advise_left_out(table, STEPS, threshold=0.08, trial=0.1)
    assert (cheap["answer"] != "open").mean() < 0.4
    assert (cheap["cost"] <= 0.1).all()
    assert (found["cost"] <= 0.3 + 1e-9).all()
    decided = found[found["answer"] != "open"]
    assert len(decided) > 0.7 * len(found)
    assert decided["right"].astype(bool).mean() > 0.9
    assert (decided["step"] == "trial run of 10%").mean() > 0.7


def test_a_trial_run_alone_is_paid_for_once():
    table = cells("trial")
    found = advise_left_out(table, STEPS[1:], threshold=0.08, trial=0.1)
    assert (found["cost"] == 0.2).all()
    without = Advisor(table, STEPS[1:])
    both = Advisor(table, STEPS)
    assert without.regrets(0.08)["stop"] == pytest.approx(both.regrets(0.08)["stop"] - 0.1 * 0.08)  # no features


@pytest.mark.slow
def test_without_any_relation_the_answer_is_open():
    answers, skills, inside = [], [], []
    for seed in range(4):
        table = cells("nothing", seed=seed).assign(headroom=0.5)
        found = advise_left_out(table, STEPS, threshold=float(table["gain"].median()))
        answers += found["answer"].tolist()
        skills += found["has_skill"].tolist()
        inside += ((found["low"] <= found["true_gain"]) & (found["true_gain"] <= found["high"])).tolist()
    assert answers.count("open") > 0.9 * len(answers)
    assert np.mean(skills) < 0.4  # by chance: a dozen groups, and the regression is not refitted in resamples
    assert 0.5 < np.mean(inside) < 0.9  # nominally 70%


def test_no_gain_exceeds_the_headroom():
    advisor = Advisor(cells("nothing"), STEPS)
    asked: list[str] = []

    def value(name: str) -> float:
        asked.append(name)
        return {"headroom": 0.01, "lead": 0.0, "n_texts": 2000.0}[name]

    advice = advisor.advise(value, threshold=0.02)
    assert (advice.answer, advice.step) == ("no", "headroom")
    assert max(advice.gain, advice.high) <= headroom_limit(0.01, 2000.0)
    assert set(asked) == {"headroom", "lead", "n_texts"}
    few = advisor.advise({"headroom": 0.01, "lead": 0.0, "n_texts": 50.0, "score": 0.0}.__getitem__, threshold=0.02)
    assert few.answer == "open"  # 50 texts do not exclude a headroom of two points


def test_predictors_of_later_steps_are_not_computed_in_vain():
    table = cells("score")
    advisor = Advisor(table, STEPS)
    asked: list[str] = []
    row = table.loc[table["gain"].idxmax()]
    advice = advisor.advise(lambda name: (asked.append(name), float(row[name]))[1], threshold=0.02)
    assert (advice.answer, advice.step) == ("yes", "frozen model")
    assert "trial" not in asked


def test_decisions_hold_for_the_left_out_group_only_by_the_others():
    """Changing the gains of a dataset does not change the advice for it."""
    table = cells("score")
    changed = table.copy()
    changed.loc[changed["group"] == 3, ["gain", "advantage"]] = 0.9
    one, two = (advise_left_out(part, STEPS, threshold=0.08) for part in (table, changed))
    own = table["group"] == 3
    assert one.loc[own, "gain"].tolist() == two.loc[own, "gain"].tolist()
    assert one.loc[own, "answer"].tolist() == two.loc[own, "answer"].tolist()


def test_a_prediction_does_not_exceed_the_limit_of_the_headroom():
    table = cells("score").assign(headroom=0.5)
    advisor = Advisor(table, (Step("frozen model", (("score",),), 0.1),))
    best = table.loc[table["gain"].idxmax()]
    values = {"score": best["score"], "n_texts": 1000.0, "headroom": best["gain"] / 2, "lead": 0.0}
    advice = advisor.advise(values.__getitem__, threshold=0.01)
    limit = headroom_limit(best["gain"] / 2, 1000.0)
    assert advice.has_skill
    assert (advice.gain, advice.high) == (best["gain"] / 2, limit)
    assert advice.low <= advice.gain


def test_the_best_set_of_predictors_is_chosen():
    advisor = Advisor(cells("score"), STEPS)
    assert advisor.steps[0].columns == ("headroom", "score")
    noise = Advisor(cells("trial"), (Step("frozen model", (("headroom", "score"), ("headroom", "trial")), 0.1),))
    assert noise.steps[0].columns == ("headroom", "trial")


def test_a_case_outside_the_recorded_runs_is_flagged_and_not_predicted():
    table = cells("score")
    advisor = Advisor(table, STEPS)
    sizes = {"headroom": 0.3, "lead": 0.0, "n_texts": 2000.0}
    inside = sizes | {"score": float(table["score"].median()), "trial": 1.0, "trial_end_10": 1.0}
    assert advisor.advise(inside.__getitem__, threshold=0.01).outside == ()
    far = advisor.advise({**inside, "score": 50.0}.__getitem__, threshold=0.01)
    assert far.outside == ("score",)
    assert far.answer == "open"
    assert far.gain == pytest.approx(table["gain"].median())
    later = advisor.advise({**inside, "score": 50.0}.__getitem__, threshold=0.01, trial=0.1)
    assert later.step == "trial run of 10%"


def test_a_predictor_that_cannot_be_had_is_left_out():
    table = cells("score")
    row = table.loc[table["gain"].idxmax()].to_dict() | {"score": float("nan")}
    advice = Advisor(table, STEPS).advise(row.__getitem__, threshold=0.02, trial=0.1)
    assert advice.step == "trial run of 10%"
    assert advice.outside == ()


def test_open_cases_are_run_by_their_expected_gain():
    table = cells("nothing", seed=1)
    for threshold in (0.01, 0.3):
        found = advise_left_out(table, STEPS, threshold=threshold)
        for index, row in found[found["answer"] == "open"].iterrows():
            others = table.loc[table["group"] != table.loc[index, "group"], "gain"]
            expected = row["gain"] if row["has_skill"] else others.mean()
            assert row["run"] == (expected >= threshold)
        decided = found[found["answer"] != "open"]
        assert (decided["run"] == (decided["answer"] == "yes")).all()


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="lack the columns score, trial"):
        Advisor(cells("score").drop(columns=["score", "trial"]), STEPS)


def test_regret_is_zero_for_the_best_decisions_and_counts_cost():
    gain = np.array([0.1, 0.03, 0.0, 0.2])
    best = gain >= 0.05
    assert regret(gain, best, np.zeros(4), 0.05).tolist() == [0.0] * 4
    assert regret(gain, ~best, np.zeros(4), 0.05) == pytest.approx([0.05, 0.02, 0.05, 0.15])
    assert regret(gain, best, np.full(4, 0.1), 0.05) == pytest.approx([0.005] * 4)
    assert regret([-0.2], [True], 0.0, 0.05) == pytest.approx([0.05])  # the classifier without LoRA is kept
    assert regret([-0.2], [False], 0.0, 0.05) == pytest.approx([0.0])
    rng = np.random.default_rng(0)
    for _ in range(50):
        run = rng.random(4) < 0.5
        assert (regret(gain, run, rng.uniform(size=4), 0.05) >= 0).all()


def test_regrets_of_simple_rules_match_decisions_case_by_case():
    """Compared with a loop over the recorded runs, each predicted by a regression without its group."""
    table = cells("trial")
    steps = (STEPS[0], Step("trial run of 10%", (("trial",),), 0.2, "trial", 0.1))
    advisor, threshold = Advisor(table, steps), 0.08
    found = advisor.regrets(threshold)
    assert list(found)[:2] == ["stop", "run"]
    assert "trial run of 10%" in found
    lost: dict[str, list[float]] = {"stop": [], "run": [], "trial run of 10%": []}
    for _, row in table.iterrows():
        rest = table[table["group"] != row["group"]]
        x = np.column_stack([np.ones(len(rest)), rest["trial"]])
        weights = np.linalg.lstsq(x, rest["gain"].to_numpy(), rcond=None)[0]
        expected = weights @ [1.0, row["trial"]]
        possible = headroom_limit(row["headroom"], row["n_texts"]) >= threshold
        best = max(row["gain"] - threshold, 0.0)
        for name, run, cost in (
            ("stop", False, 0.1),
            ("run", possible, 0.1),
            ("trial run of 10%", possible and expected >= threshold, 0.1 + 0.2 * possible),
        ):
            lost[name].append(best - (row["gain"] - threshold if run else 0.0) + cost * threshold)
    for name, values in lost.items():
        assert found[name] == pytest.approx(np.mean(values), abs=2e-3)  # the penalty of the ridge regression


def test_open_cases_follow_the_rule_that_loses_least_on_the_recorded_runs(monkeypatch):
    advisor = Advisor(cells("trial"), STEPS)
    names = ("stop", "run", "frozen model", "trial run of 10%")

    def action(answer: str, gain: float, best: str, *, has_skill: bool = True, made: float = 0.0) -> tuple[str, float]:
        losses = dict.fromkeys(names, 0.02) | {"stop": 0.03, best: 0.01}
        monkeypatch.setattr(advisor, "regrets", lambda threshold: losses)
        columns = ("headroom",) if has_skill else ()
        advice = Advice(answer, "frozen model", columns, 0.1, gain, gain - 0.1, gain + 0.1, 0.3)
        todo = advisor.recommend(advice, threshold=0.05, made=made)
        by_gain = has_skill and todo.action != "trial" and best not in names[:2]
        assert todo.reason == ("answer" if answer != "open" else "gain" if by_gain else "rule")
        few = advisor.recommend(replace(advice, errors=0.04), threshold=0.05, made=made)
        assert few.action == (todo.action if answer != "open" else "stop")
        assert few.reason == ("answer" if answer != "open" else "errors")
        return todo.action, todo.share

    assert action("yes", 0.2, "run") == ("run", 0.0)
    assert action("no", 0.0, "run") == ("stop", 0.0)
    assert action("open", 0.02, "run") == ("run", 0.0)
    assert action("open", 0.08, "stop") == ("stop", 0.0)
    assert action("open", 0.02, "frozen model") == ("stop", 0.0)
    assert action("open", 0.08, "frozen model") == ("run", 0.0)
    assert action("open", 0.02, "trial run of 10%") == ("trial", 0.1)
    assert action("open", 0.02, "trial run of 10%", made=0.25) == ("stop", 0.0)
    assert action("open", 0.02, "trial run of 10%", has_skill=False, made=0.25) == ("run", 0.0)


@pytest.mark.parametrize("kind", ["score", "trial", "nothing"])
def test_recommendations_lose_about_as_little_as_the_best_rule(kind):
    table, threshold = cells(kind, n_datasets=20), 0.08
    found = advise_left_out(table, STEPS, threshold=threshold, trial=0.1)
    lost = regret(table["gain"], found["recommended"], found["recommended_cost"], threshold).mean()
    assert lost < min(Advisor(table, STEPS).regrets(threshold).values()) + 0.006
    always, never = (regret(table["gain"], np.full(len(table), run), 0.0, threshold).mean() for run in (True, False))
    assert lost < max(always, never)


LEADS = cells("score").assign(lead=0.07)
LEADS = LEADS.assign(advantage=LEADS["gain"] - LEADS["lead"])


def test_decisions_are_about_the_gain_over_the_best_classifier_without_finetuning():
    """A lead shifts gain, interval and headroom: it is the same as a threshold that is larger by the lead."""
    table, threshold = cells("score").assign(headroom=0.9), 0.02
    advisor = Advisor(table, STEPS)
    for _, row in table.iterrows():
        one = advisor.advise((row.to_dict() | {"lead": 0.05}).__getitem__, threshold=threshold)
        two = advisor.advise(row.__getitem__, threshold=threshold + 0.05)
        assert one.answer == two.answer
        assert (one.gain, one.low, one.high) == pytest.approx((two.gain - 0.05, two.low - 0.05, two.high - 0.05))


@pytest.mark.parametrize(("n_errors", "n"), [(0, 10), (0, 300), (3, 100), (40, 2000), (9, 9)])
def test_the_limit_of_the_headroom_is_that_of_a_binomial_test(n_errors, n):
    exact = stats.binomtest(n_errors, n).proportion_ci(0.9, "exact").high  # 90% on two sides is 95% on one
    assert headroom_limit(n_errors / n, n) == pytest.approx(exact)


def test_intervals_hold_for_the_gain_over_the_best_classifier():
    """The measured lead has an error, which an interval of the gain over the last layer does not contain."""
    inside, too_short = [], []
    for seed in range(3):
        table = cells("score", n_datasets=25, seed=seed).assign(headroom=0.9)
        measured = 0.05 + np.random.default_rng(seed).normal(0, 0.02, len(table))
        table = table.assign(lead=measured, advantage=table["gain"] - 0.05)
        found = advise_left_out(table, STEPS[:1], threshold=0.01)
        assert found["has_skill"].mean() > 0.9
        inside += ((found["low"] <= table["advantage"]) & (table["advantage"] <= found["high"])).tolist()
        exact = advise_left_out(table.assign(lead=0.0, advantage=table["gain"]), STEPS[:1], threshold=0.01)
        low, high = exact["low"] - table["lead"], exact["high"] - table["lead"]
        too_short += ((low <= table["advantage"]) & (table["advantage"] <= high)).tolist()
    assert 0.6 < np.mean(inside) < 0.85  # nominally 70%
    assert np.mean(too_short) < 0.5


def test_a_verdict_is_right_if_lora_beats_the_best_classifier_on_the_test_texts():
    found = advise_left_out(LEADS, STEPS, threshold=0.01)
    decided = found[found["answer"] != "open"]
    assert set(decided["answer"]) == {"yes", "no"}
    assert (decided["right"] == ((decided["answer"] == "yes") == (LEADS.loc[decided.index, "advantage"] >= 0.01))).all()
    assert decided["right"].astype(bool).mean() > 0.9
    last_layer_only = advise_left_out(LEADS.assign(lead=0.0, advantage=LEADS["gain"]), STEPS, threshold=0.01)
    assert (last_layer_only["answer"] == "yes").mean() > 0.8  # compared with a poor baseline, LoRA seems to pay


def test_a_lead_above_most_recorded_gains_decides_without_a_skill():
    advisor = Advisor(cells("nothing"), STEPS[:1])
    values = {"headroom": 0.5, "n_texts": 2000.0, "score": float("nan")}
    answers = {
        lead: advisor.advise((values | {"lead": lead}).__getitem__, threshold=0.01).answer
        for lead in (0.0, advisor.high - 0.011, advisor.high)
    }
    assert list(answers.values()) == ["open", "open", "no"]
    large = advisor.advise((values | {"lead": 0.0}).__getitem__, threshold=advisor.high + 0.01)
    assert large.answer == "open"  # a threshold above most gains is not about the case


@pytest.mark.parametrize("name", ["lab", "real"])
def test_what_does_not_pay_pays_even_less_at_a_higher_threshold(name):
    recorded = load_calibration(name)
    advisor, n_decided = Advisor(recorded.cells, recorded.steps()), 0
    for cell in recorded.cells.to_dict("records"):
        answers = [advisor.advise(cell.__getitem__, threshold=points / 100).answer for points in range(0, 30)]
        if "no" in answers:
            assert set(answers[answers.index("no") :]) == {"no"}
            n_decided += 1
    assert n_decided > len(recorded.cells) / 2


def test_a_trial_run_whose_loss_rises_gives_no_yes():
    table = cells("trial")
    advisor = Advisor(table, STEPS)
    row = table.loc[table["gain"].idxmax()].to_dict()
    assert advisor.advise(row.__getitem__, threshold=0.02, trial=0.1).answer == "yes"
    risen = row | {"trial_end_10": -0.01}
    assert advisor.advise(risen.__getitem__, threshold=0.02, trial=0.1).answer == "open"


def test_never_running_is_recommended_where_the_best_classifier_is_rarely_beaten():
    table = cells("nothing").assign(lead=0.1)
    table = table.assign(advantage=table["gain"] - 0.1)
    advisor = Advisor(table, STEPS)
    lost = advisor.regrets(0.02)
    assert lost["stop"] == min(lost.values())
    advice = advisor.advise(table.loc[table["gain"].idxmax()].__getitem__, threshold=0.02)
    todo = advisor.recommend(advice, threshold=0.02)
    assert (todo.action, todo.share, todo.regrets) == ("stop", 0.0, lost)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trial", "answers"),
    [("declared", 0.25, {"no", "open"}), ("real", 0.0, {"no", "open"}), ("real", 0.25, {"no", "open", "yes"})],
)
def test_answers_on_the_pretrained_models_are_those_that_the_pages_say(name, trial, answers):
    real = load_calibration(name)
    advisors = left_out_advisors(real.cells, real.steps())
    assert set(decide_left_out(real.cells, advisors, threshold=0.01, trial=trial)["answer"]) == answers


def test_another_level_gives_what_a_new_advisor_of_this_level_gives():
    """A figure of several levels does not fit the steps again."""
    rng = np.random.default_rng(3)
    headroom = rng.uniform(0.0, 0.5, 40)
    table = pd.DataFrame({"headroom": headroom, "advantage": 0.5 * headroom + rng.normal(0, 0.03, 40)})
    table = table.assign(lead=0.0, n_texts=999, group=np.arange(40) // 2)
    steps = [Step("frozen model", (("headroom",),), 0.1)]
    first, wide = Advisor(table, steps), Advisor(table, steps, level=0.9)
    case = {"headroom": 0.3, "lead": 0.01, "n_texts": 999}
    moved = first.at_level(0.9)
    assert moved.advise(case.__getitem__, threshold=0.1) == wide.advise(case.__getitem__, threshold=0.1)
    assert (moved.level, moved.low, moved.high) == (wide.level, wide.low, wide.high)
    assert first.level == LEVEL  # it has not changed
    with pytest.raises(ValueError, match="level must be"):
        first.at_level(1.0)
