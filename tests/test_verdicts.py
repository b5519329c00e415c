"""Verdicts of the front page and the README: computed from the chapters and the declared runs."""

from __future__ import annotations

import copy

import pytest

from book.tools import refresh, verdicts
from ntps_utils.evidence.records import load_record
from ntps_utils.evidence.statistics import Estimate
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


def test_real_models_are_open_until_the_runs_end_and_then_judged(monkeypatch):
    if verdicts.RUNS_ENDED is None:
        assert row(GLUED, "(iii)").real == "open"
        assert "its runs are not finished" in verdicts.tables(GLUED)["verdicts"]

    class Claim:
        def __init__(self, name: str, verdict: str) -> None:
            self.name, self.verdict = name, verdict
            self.estimates = dict.fromkeys(verdicts.SHOWN[name], Estimate(0.123, -0.25, 0.5))

    judged = {"(iii)": "held", "(iv)": "partly held", "(v)": "not held", "(vi)": "open"}
    monkeypatch.setattr(verdicts, "RUNS_ENDED", "2026-12-24T00:00:00+00:00")
    monkeypatch.setattr(verdicts, "judge", lambda _: [Claim(*pair) for pair in judged.items()])
    for number, verdict in judged.items():
        assert row(GLUED, number).real == verdict
        assert row(GLUED, number).finding.count(" 0.12 (-0.25 to 0.50)") == (2 if number == "(iv)" else 1)
    assert "its runs are not finished" not in verdicts.tables(GLUED)["verdicts"]


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
    values = changed("09_predicting_the_gain", rule_advice_regret=0.123, rule_never_regret=45.67)
    text = verdicts.advice(values)
    assert "0.12 for what the tool recommends, " in text
    assert "45.67 for never running LoRA. On real texts" in text
    for name, words in (("lora_seconds", " minutes on two cores"), ("seconds", ".)")):
        minutes = sorted(case[name] / 60 for case in load_record("prescreened")["cases"])
        assert f"{minutes[0]:.0f} to {minutes[-1]:.0f}{words}" in text


def test_the_legend_shows_the_verdicts_that_occur():
    assert verdicts.tables(GLUED)["legend"].count("{bdg-") == len(
        {verdict for one in verdicts.verdicts(GLUED) for verdict in (one.lab, one.real)}
    )
