"""Prescreening: predictors, predictions from other datasets, verdicts and reports."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ntps_utils.cli.main import app
from ntps_utils.evidence.experiment import ExperimentConfig, run_experiment
from ntps_utils.evidence.prescreen import PREDICTORS, Calibration, judge, load_calibration, prescreen
from ntps_utils.evidence.statistics import GainRegressor, HeldOutPerformance
from ntps_utils.evidence.tables import cell_table
from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.loading import load_model
from tests.test_experiment import CountingTokenizer

runner = CliRunner()


def calibration(path: Path, informative: bool, seed: int = 0) -> Path:
    """Simulated cells of ten datasets and three models; gains depend on the headroom, or on nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for d in range(10):
        base = rng.uniform(0.05, 0.5)
        for m in range(3):
            values = {c: rng.uniform(0, 1) for c in PREDICTORS}
            values["transfer_headroom"] = base + 0.02 * m
            gain = (0.8 * base if informative else rng.choice([0.0, 0.4])) + 0.01 * rng.normal()
            rows.append({"model": f"m{m}", "dataset": f"d{d}", "texts": f"t{d}", "gain": gain, **values})
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def case():
    return load_model("lab/XS", dtype="float32"), load_texts("lab/tense").head(200)


@pytest.mark.slow
def test_predictors_match_those_of_an_experiment(case):
    model, data = case
    settings = ExperimentConfig(lora=None, n_train=200, n_test=50)
    row = cell_table([run_experiment(model, *settings.texts("lab/tense"), settings)]).iloc[0]
    p = prescreen(model, data, calibration="lab")
    for column in PREDICTORS:
        assert p.predictors[column] == pytest.approx(row[column], rel=1e-5), column
    assert p.probe_accuracy == pytest.approx(1 - row["transfer_headroom"])


@pytest.mark.slow
def test_predictions_come_from_the_other_datasets(case, tmp_path):
    model, data = case
    file = calibration(tmp_path / "c.csv", informative=True)
    cells = pd.read_csv(file)
    p = prescreen(model, data, calibration=file, leave_out=["d3"])
    assert p.calibration.left_out == ("d3",)
    assert p.calibration.n_cells == 27
    rest = cells[cells["dataset"] != "d3"]
    regressor = GainRegressor().fit(rest[list(PREDICTORS)], rest["gain"], rest["dataset"])
    x = [[p.predictors[c] for c in PREDICTORS]]
    headroom = p.predictors["transfer_headroom"]
    expected = [min(v[0], headroom) for v in (regressor.predict(x), *regressor.predict_interval(x, 0.8))]
    assert (p.gain, p.gain_low, p.gain_high) == pytest.approx(expected)
    assert p.gain_low <= p.gain <= p.gain_high <= headroom
    assert p.calibration.predicts


@pytest.mark.slow
def test_each_text_is_tokenized_once(case, tmp_path):
    model, data = case
    tokenizer = CountingTokenizer(model.tokenizer)
    prescreen(replace(model, tokenizer=tokenizer), data, calibration=calibration(tmp_path / "c.csv", informative=True))
    assert tokenizer.texts == Counter(data.texts)


@pytest.mark.slow
def test_loaded_objects_give_the_same_prediction(case, tmp_path):
    model, data = case
    file = calibration(tmp_path / "c.csv", informative=True)
    texts = pd.DataFrame({"text": data.texts, "label": data.labels})
    p = prescreen((model.model, model.tokenizer), texts, calibration=file)
    assert p.gain == prescreen(model, data, calibration=file).gain


@pytest.mark.slow
def test_cells_of_the_same_dataset_are_excluded_by_name_and_by_content(case, tmp_path):
    model, data = case
    cells = pd.read_csv(calibration(tmp_path / "c.csv", informative=True))
    cells.loc[cells["dataset"] == "d1", "texts"] = data.fingerprint
    cells["dataset"] = cells["dataset"].replace("d2", data.name)
    cells.to_csv(tmp_path / "d.csv", index=False)
    p = prescreen(model, data, calibration=tmp_path / "d.csv")
    assert p.calibration.left_out == ("d1", data.name)


@pytest.mark.slow
def test_uninformative_predictors_are_reported(case, tmp_path):
    p = prescreen(*case, calibration=calibration(tmp_path / "c.csv", informative=False, seed=1))
    assert not p.calibration.predicts
    assert p.verdict == "unknown"
    assert any("are not reliably better than the mean gain" in reason for reason in p.reasons)


PERFORMANCE = HeldOutPerformance(mean_error=0.02, skill=0.5, skill_low=0.3, skill_high=0.6, coverage=0.8, width=0.1)
FACTS = Calibration("x", n_cells=30, n_datasets=10, left_out=(), mean_gain=0.1, performance=PERFORMANCE)


@pytest.mark.parametrize(
    ("gain", "low", "high", "headroom", "skill_low", "expected"),
    [
        (0.1, 0.05, 0.2, 0.4, 0.3, "yes"),
        (0.0, -0.02, 0.005, 0.4, 0.3, "no"),
        (0.05, -0.02, 0.1, 0.4, 0.3, "open"),
        (0.05, -0.02, 0.1, 0.4, -0.1, "unknown"),
        (0.004, 0.0, 0.004, 0.004, -0.1, "no"),
    ],
)
def test_verdicts(gain, low, high, headroom, skill_low, expected):
    facts = replace(FACTS, performance=replace(PERFORMANCE, skill_low=skill_low))
    verdict, reasons = judge(gain, low, high, 0.01, headroom, 0.5, facts)
    assert verdict == expected
    assert reasons
    far = judge(gain, low, high, 0.01, headroom, 0.99, facts)[1]
    assert any("outside" in r for r in far) == (headroom >= 0.01)


@pytest.mark.slow
def test_the_report_escapes_text_from_the_data(case, tmp_path):
    model, data = case
    evil = TextDataset("<script>alert(1)</script>", "train", data.texts, data.labels, data.label_names)
    p = prescreen(model, evil, calibration=calibration(tmp_path / "c.csv", informative=True))
    page = p.to_html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("https://", "http://").split("</style>")[1].replace("http-equiv", "")
    assert json.loads(p.to_json())["verdict"] == p.verdict


@pytest.mark.slow
def test_the_command_prints_and_writes_the_report(tmp_path):
    file = calibration(tmp_path / "c.csv", informative=True)
    result = runner.invoke(
        app,
        ["prescreen", "lab/XS", "lab/tense", "--calibration", str(file), "--max-texts", "150", "--leave-out", "d0",
         "--json", str(tmp_path / "p.json"), "--html", str(tmp_path / "p.html")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "without d0" in result.output
    assert json.loads((tmp_path / "p.json").read_text())["calibration"]["n_datasets"] == 9
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration", "mars"], "Unknown calibration 'mars'"),
        (["--leave-out", "nothing"], "no dataset 'nothing'"),
        (["--threshold", "-3"], "--threshold must be a number in [0, 100), got -3"),
        (["--json", "/nowhere/x.json"], "Cannot write"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message):
    result = runner.invoke(app, ["prescreen", "lab/XS", "lab/tense", *arguments])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_a_calibration_without_gains_is_refused(tmp_path):
    pd.DataFrame({"model": ["a"], "dataset": ["b"]}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match="lacks the columns texts, gain"):
        load_calibration(tmp_path / "x.csv")
