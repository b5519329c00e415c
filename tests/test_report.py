"""Reports of scores: their fields come from the tests and controls of the same layer, and JSON keeps them."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, fields

import numpy as np
import pytest

from ntps_utils.theory.controls import control_directions, control_scores
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.report import ScoreReport, score_layer
from ntps_utils.theory.score import SCORES, NumericalWarning, ScoreRow, subspaces
from ntps_utils.theory.synthetic import planted_problem
from ntps_utils.theory.uncertainty import MIN_TEXTS_PER_FEATURE, excess_loss_test

D = 4
WIDTHS = (1, 2)


def groups(n_texts: int, n_groups: int) -> list[Moments]:
    problem = planted_problem(1, d=D, n_texts=n_texts)
    return [Moments.from_texts(problem.texts[i::n_groups], problem.targets[i::n_groups]) for i in range(n_groups)]


@pytest.fixture(scope="module")
def layer():
    """Moments of 120 texts in four groups, the solution of all, and the report's rows with controls."""
    parts = groups(120, 4)
    total = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3]).layer(0)
    rows, grid = score_layer(parts, 0, WIDTHS, controls=True, center=True)
    return parts, total, subspaces(total, center=True), rows, grid


def test_the_noise_of_the_excess_loss_is_that_of_the_f_test_at_the_same_width(layer):
    _, total, solved, rows, _ = layer
    for row in rows:
        test = excess_loss_test(total, solved, row.k_v)
        found = (row.excess_loss_debiased, row.excess_loss_low, row.excess_loss_high, row.excess_loss_p)
        assert found == pytest.approx((test.debiased, test.low, test.high, test.p_value))
    assert rows[0].excess_loss_debiased != pytest.approx(rows[1].excess_loss_debiased)


def test_controls_are_those_of_the_same_width_and_are_scored_on_demand(layer):
    parts, total, solved, rows, _ = layer
    directions = control_directions(total, solved)
    for row in rows:
        expected = control_scores(solved, directions, row.k_v)
        assert [asdict(one) for one in row.controls] == [asdict(one) for one in expected]
    without, _ = score_layer(parts, 0, WIDTHS, center=True)
    assert [row.controls for row in without] == [(), ()]


def test_standard_errors_are_those_of_the_jackknife_and_intervals_need_many_texts(layer):
    parts, _, _, rows, _ = layer
    assert MIN_TEXTS_PER_FEATURE * D > 120
    for row in rows:
        without = [score_layer(parts[:i] + parts[i + 1 :], 0, [row.k_v], center=True)[0][0] for i in range(4)]
        for name in (*SCORES, "excess_loss"):
            values = np.array([getattr(one, name) for one in without])
            error = np.sqrt(3 / 4 * np.sum((values - values.mean()) ** 2))
            assert getattr(row, f"{name}_se") == pytest.approx(error, rel=1e-6, abs=1e-12)
        assert all(getattr(row, f"{name}_{end}") is None for name in SCORES for end in ("low", "high"))


def test_intervals_begin_at_exactly_the_least_number_of_texts_and_stay_in_the_unit_interval():
    enough = MIN_TEXTS_PER_FEATURE * D
    for n_texts, has in ((enough - 4, False), (enough, True)):
        (row, *_), _ = score_layer(groups(n_texts, 4), 0, [1, D], center=True)
        for name in SCORES:
            low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
            assert (low is not None, high is not None) == (has, has)
            if has:
                assert 0.0 <= low < getattr(row, name) < high <= 1.0


def test_intervals_are_cut_at_the_ends_of_the_unit_interval():
    problem = planted_problem(1, d=D, n_texts=MIN_TEXTS_PER_FEATURE * D)
    coin = np.random.default_rng(1).permutation(problem.targets)
    for targets, k_v, end in ((problem.targets, 2, "high"), (coin, 1, "low")):
        parts = [Moments.from_texts(problem.texts[i::3], targets[i::3]) for i in range(3)]
        (row,), _ = score_layer(parts, 0, [k_v], center=True)
        assert getattr(row, f"ntps_{end}") == {"low": 0.0, "high": 1.0}[end]
        assert 0.0 <= row.ntps_low < row.ntps < row.ntps_high <= 1.0


def test_groups_that_lack_rank_do_not_warn_once_more():
    """The solution of all texts warns, those without one group do not repeat it."""
    parts = groups(6, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        score_layer(parts, 0, [1], center=True, rcond=0.2)
    assert len([one for one in caught if issubclass(one.category, NumericalWarning)]) <= 1


def test_the_table_has_the_net_score_the_controls_and_the_range_of_random_subspaces(layer):
    *_, rows, _ = layer
    table = ScoreReport(tuple(rows)).to_frame()
    for position, row in enumerate(rows):
        for score in SCORES:
            assert table[f"{score}_net"][position] == row.net(score)
            for one in row.controls:
                assert table[f"{score}_{one.control}"][position] == getattr(one, score)
            low, high = row.control("random").range(score)
            assert (table[f"{score}_random_low"][position], table[f"{score}_random_high"][position]) == (low, high)
    assert "controls" not in table
    empty = ScoreReport(()).to_frame()
    assert list(empty) == [one.name for one in fields(ScoreRow) if one.name != "controls"]


def test_json_keeps_controls_and_reads_rows_without_them(layer):
    *_, rows, _ = layer
    report = ScoreReport(tuple(rows), {"dataset": "planted"})
    again = ScoreReport.from_json(report.to_json())
    assert again == report
    assert [one.control for one in again.rows[0].controls] == [one.control for one in rows[0].controls]
    data = json.loads(report.to_json())
    for row in data["rows"]:
        del row["controls"]
    assert [row.controls for row in ScoreReport.from_json(json.dumps(data)).rows] == [(), ()]
    assert report.to_json().splitlines()[1] == '  "rows": ['


def test_the_text_has_four_decimals_and_no_index(layer):
    *_, rows, _ = layer
    head, first, _ = str(ScoreReport(tuple(rows))).splitlines()
    assert head.split() == ["layer", "k_v", "ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss"]
    assert first.split()[:3] == ["0", "1", f"{rows[0].ntps:.4f}"]
    assert len(first.split()) == len(head.split())


def test_the_net_score_is_the_difference_to_random_next_tokens(layer):
    *_, rows, _ = layer
    for row in rows:
        random = row.control("random")
        assert row.net() == row.ntps - random.ntps
        assert row.net("ntps_metric") == row.ntps_metric - random.ntps_metric
    with pytest.raises(
        ValueError, match=r"^There is no control 'pca'; this row has the controls \['pca_s', 'pca_a0', "
    ):
        rows[0].control("pca")
