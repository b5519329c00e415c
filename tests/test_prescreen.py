"""Prescreening: predictions from other datasets, trial runs, verdicts, interruptions and reports."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
import shlex
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from book.tools import real_cases
from ntps_utils.cli.main import app
from ntps_utils.evidence import prescreen as module
from ntps_utils.evidence._wording import about_gain, about_lora, classifier, command, headline, without_finetuning
from ntps_utils.evidence.advice import (
    Advice,
    Advisor,
    Recommendation,
    Step,
    advise_left_out,
    headroom_limit,
    left_out_advisors,
)
from ntps_utils.evidence.calibration import load_calibration
from ntps_utils.evidence.classifiers import best_alternative, texts_read
from ntps_utils.evidence.cost import finetuning_cost
from ntps_utils.evidence.experiment import ExperimentConfig, limited_threads, n_threads
from ntps_utils.evidence.predictors import PREDICTORS, Case, Predictor
from ntps_utils.evidence.prescreen import compare, parse_trial, prescreen
from ntps_utils.evidence.trials import trial_cost, trial_values
from ntps_utils.lab import checkpoint
from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.extraction import tokenize
from ntps_utils.models.finetuning import FinetuneConfig, finetune
from ntps_utils.models.loading import load_model
from tests.test_experiment import CountingTokenizer

ROOT = Path(__file__).resolve().parents[1]
runner = CliRunner()

LORA = FinetuneConfig(
    r=2,
    learning_rates=(1e-2,),
    max_steps=40,
    batch_size=8,
    eval_steps=(1, 2, 4, 10),
    early_stopping_patience=None,
    metric_for_best_model="loss",
)
STEPS = (0, 1, 2, 4, 10, 40)


def recorded(folder: Path, cause: str, seed: int = 0) -> Path:
    """Simulated runs of ten datasets and three models; gains follow the headroom, the trial run, or nothing.

    The longer a trial run, the less noise it has.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for d in range(10):
        base = np.linspace(0.02, 0.9, 10)[d]
        for m in range(3):
            headroom = base + 0.02 * m
            gain = {"headroom": 0.8 * base, "trial": rng.uniform(0.0, 0.3), "nothing": rng.choice([0.0, 0.3])}[cause]
            gain += 0.005 * rng.normal()
            signal = gain if cause == "trial" else rng.uniform(0, 0.3)
            row = {
                "model": f"m{m}",
                "dataset": f"d{d}",
                "texts": f"t{d}",
                "gain": gain,
                "transfer_headroom": headroom if cause == "headroom" else rng.uniform(0.02, 0.98),
                "ntps": rng.uniform(0, 1),
                "explained": rng.uniform(0, 1),
                "n_train": 260,
                "n_features": 32,
                "n_parameters": 50_000,
                "n_classes": 2,
            }
            for i, step in enumerate(STEPS):
                row[f"curve_cross_entropy_{step}"] = 1.0 - (i * (signal + 0.1 * rng.normal() / 3**i) if i else 0.0)
                row[f"curve_accuracy_{step}"] = 0.5 + 0.01 * rng.normal()
            rows.append(row)
    file = folder / f"{cause}_cells.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    settings = asdict(ExperimentConfig(lora=LORA))
    file.with_suffix(".json").write_text(json.dumps({"settings": settings}))
    return file


WITH_LEAD = (
    "test_lora_is_compared_with_the_best_classifier_without_finetuning",
    "test_words_that_show_more_than_the_features_are_named",
)


@pytest.fixture(autouse=True)
def without_lead(request, monkeypatch):
    """The last layer counts as the best classifier: the simulated runs of other tests know no better one."""
    if request.node.name not in WITH_LEAD:
        monkeypatch.setattr(
            module, "best_alternative", lambda accuracy: ([name for name in accuracy if "layer " in name][-1], 0.0)
        )


@pytest.fixture(scope="module")
def case():
    return load_model("lab/XS", dtype="float32"), load_texts("lab/tense").head(260)


@pytest.mark.slow
def test_predictions_come_from_the_other_datasets(case, tmp_path):
    model, data = case
    file = recorded(tmp_path, "headroom")
    p = prescreen(model, data, calibration=file, leave_out=["d3"])
    assert p.calibration.left_out == ("d3",)
    assert (p.calibration.n_runs, p.calibration.n_datasets) == (27, 9)
    calibration = load_calibration(file)
    rest = calibration.cells[calibration.cells["dataset"] != "d3"]
    expected = Advisor(rest, calibration.steps(260)).advise(
        lambda name: {"n_texts": 260.0, "lead": p.lead, **p.predictors}[name], threshold=0.01
    )
    assert (p.verdict, p.gain, p.gain_low, p.gain_high) == (
        expected.answer,
        pytest.approx(expected.gain),
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
    assert p.interval == "calibrated"
    assert p.gain_low <= p.gain <= p.gain_high
    assert p.predictors["headroom"] == pytest.approx(PREDICTORS["headroom"].function(Case(model, data)))
    assert p.layers[str(model.n_layers - 1)] == pytest.approx(p.probe_accuracy)


@pytest.mark.slow
def test_the_tool_decides_as_its_evaluation_on_left_out_datasets(case, tmp_path, monkeypatch):
    """Each recorded run is given to the tool in place of measured values, with its dataset left out."""
    model, data = case
    file = recorded(tmp_path, "trial", seed=2)
    calibration = load_calibration(file)
    advisors = left_out_advisors(calibration.cells, calibration.steps(260))
    found = advise_left_out(calibration.cells, advisors, threshold=0.1, trial=0.1)
    assert set(found["answer"]) >= {"yes", "no"}
    assert found["step"].nunique() > 1
    values: dict[str, float] = {}

    def given(self: Any, name: str) -> float:
        if name in PREDICTORS:
            self._kept.values[name] = values.get(name, math.nan)
        return values.get(name, math.nan)

    monkeypatch.setattr(module._Values, "__call__", given)
    for index in (0, 7, 14, 22, 29):
        row = calibration.cells.loc[index]
        values = {**row.to_dict(), "n_texts": 260.0}
        p = prescreen(model, data, calibration=file, leave_out=[row["dataset"]], threshold=0.1, trial="10%")
        expected = found.loc[index]
        assert (p.verdict, p.step) == (expected["answer"], expected["step"])
        assert (p.gain, p.gain_low, p.gain_high) == pytest.approx((expected["gain"], expected["low"], expected["high"]))


@pytest.mark.slow
def test_the_trial_run_is_the_beginning_of_the_whole_run(case, tmp_path):
    model, data = case
    file = recorded(tmp_path, "trial")
    p = prescreen(model, data, calibration=file, trial="25%", threshold=0.1)
    test = load_texts("lab/tense", "test").head(50)
    whole = finetune(model, data, test, LORA)
    n = len(p.trial)
    assert [point.step for point in p.trial] == [0, 1, 2, 4, 10][:n]
    assert n > 1
    for one, two in zip(p.trial, whole.curve, strict=False):
        assert one.cross_entropy == pytest.approx(two.cross_entropy, abs=1e-5)
    assert p.step.startswith("trial run of")
    for name, value in trial_values(whole.curve[:n], 40).items():
        assert p.predictors[name] == pytest.approx(value, abs=1e-5)
    short = prescreen(model, data, calibration=file, trial=0.05, threshold=0.1)
    assert short.trial[-1].step <= 2
    none = prescreen(model, data, calibration=file, threshold=0.1)
    assert none.trial == ()
    command = prescreen("lab/XS", "lab/tense", max_texts=260, calibration=file, threshold=0.1).command
    assert command.startswith("ntps prescreen lab/XS lab/tense --trial ")
    assert command.endswith(f"% --calibration {file} --threshold 10 --max-texts 260")


@pytest.mark.slow
def test_a_trial_run_ends_where_it_decides(case, tmp_path):
    p = prescreen(*case, calibration=recorded(tmp_path, "trial"), trial="25%", threshold=0.05)
    assert p.verdict != "open"
    assert "On the recorded runs" not in p.recommendations[-1]  # explains open cases
    shares = {"trial run of 2.5%": 1, "trial run of 5%": 2, "trial run of 10%": 4, "trial run of 25%": 10}
    assert p.trial[-1].step == shares[p.step]


@pytest.mark.slow
def test_a_budget_in_time_shortens_the_trial_run(case, tmp_path):
    file = recorded(tmp_path, "trial")
    assert prescreen(*case, calibration=file, trial="0.000001s", threshold=0.1).trial == ()
    assert prescreen(*case, calibration=file, trial="1h", threshold=0.1).trial


@pytest.mark.slow
def test_each_text_is_tokenized_once_without_a_trial_run(case, tmp_path):
    model, data = case
    tokenizer = CountingTokenizer(model.tokenizer)
    prescreen(replace(model, tokenizer=tokenizer), data, calibration=recorded(tmp_path, "headroom"))
    assert tokenizer.texts == Counter(data.texts)


@pytest.mark.slow
def test_loaded_objects_give_the_same_prediction(case, tmp_path):
    model, data = case
    file = recorded(tmp_path, "headroom")
    texts = pd.DataFrame({"text": data.texts, "label": data.labels})
    p = prescreen((model.model, model.tokenizer), texts, calibration=file)
    assert p.gain == prescreen(model, data, calibration=file).gain


@pytest.mark.slow
def test_runs_of_the_same_dataset_are_excluded_by_name_and_by_content(case, tmp_path):
    model, data = case
    cells = pd.read_csv(recorded(tmp_path, "headroom"))
    cells.loc[cells["dataset"] == "d1", "texts"] = data.fingerprint
    cells["dataset"] = cells["dataset"].replace("d2", data.name)
    cells["group"] = cells["dataset"].replace("d5", "d1")  # related to a dataset that is left out
    cells.to_csv(tmp_path / "d.csv", index=False)
    p = prescreen(model, data, calibration=tmp_path / "d.csv")
    assert p.calibration.left_out == ("d1", "d5", data.name)


@pytest.mark.slow
def test_without_skill_the_answer_is_open_and_names_the_spread(case, tmp_path):
    file = recorded(tmp_path, "nothing", seed=1)
    p = prescreen(*case, calibration=file)
    assert (p.verdict, p.interval, p.columns) == ("open", "spread", ())
    assert "only the spread of the recorded gains is known" in p.reason
    quantiles = pd.read_csv(file)["gain"].quantile([0.5, 0.15, 0.85]).tolist()
    runs, limit = p.calibration, headroom_limit(p.predictors["headroom"], 260)
    assert (runs.gain, runs.gain_low, runs.gain_high) == pytest.approx(quantiles)
    assert (p.gain, p.gain_low, p.gain_high) == pytest.approx(
        [min(q, end) for q, end in zip(quantiles, (p.predictors["headroom"],) * 2 + (limit,), strict=True)]
    )
    assert all(step.low <= 0 for step in p.calibration.steps if step.name == "frozen model")
    assert p.summary.startswith("In the recorded runs, LoRA was better than a probe of the last layer by ")
    assert p.headline == "Open: nothing that was measured predicts the gain."
    assert p.recommendations[-1].startswith("Run LoRA. The run alone takes about ")


@pytest.mark.slow
def test_a_small_headroom_decides_without_recorded_runs(case, tmp_path):
    p = prescreen(*case, calibration=recorded(tmp_path, "nothing"), threshold=0.98)
    assert (p.verdict, p.step) == ("no", "headroom")
    assert "at most" in p.reason
    assert p.command.startswith("Stop here")


@pytest.mark.slow
def test_an_exchange_rate_is_a_threshold(case, tmp_path):
    file = recorded(tmp_path, "headroom")
    for trial in (0.0, 0.25):
        p = prescreen(*case, calibration=file, worth=0.5, trial=trial)
        assert p.threshold == pytest.approx(0.5 * p.lora_seconds / 3600)
    with pytest.raises(ValueError, match="threshold and worth were both given"):
        prescreen(*case, calibration=file, worth=0.5, threshold=0.1)


@pytest.mark.slow
def test_an_interrupted_prescreening_goes_on_where_it_was(case, tmp_path, monkeypatch):
    model, data = case
    file, kept = recorded(tmp_path, "trial"), tmp_path / "kept.json"
    expected = prescreen(model, data, calibration=file, trial="10%", threshold=0.1)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "trial_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prescreen(model, data, calibration=file, trial="10%", threshold=0.1, resume=kept)
    (values,) = (one["values"] for one in json.loads(kept.read_text())["cases"].values())
    assert {"text_seconds", "headroom"} <= set(values)
    assert len(list(tmp_path.glob("*.pass"))) == 1
    n_forward = 0

    def count(*_: object, **__: object) -> None:
        nonlocal n_forward
        n_forward += 1

    changed = {name: Predictor(p.label, p.source, count) for name, p in PREDICTORS.items() if name in values}
    monkeypatch.setattr(module, "PREDICTORS", {**PREDICTORS, **changed})
    monkeypatch.setattr(Case, "_measure", count)
    p = prescreen(model, data, calibration=file, trial="10%", threshold=0.1, resume=kept)
    assert n_forward == 0  # what had been measured was not measured again
    assert p.alternatives == expected.alternatives
    assert (p.verdict, p.gain, p.step) == (expected.verdict, pytest.approx(expected.gain), expected.step)
    again = prescreen(model, data, calibration=file, trial="10%", threshold=0.1, resume=kept)
    assert again.trial == p.trial  # with the seconds of the first time
    monkeypatch.undo()
    other = prescreen(model, data.head(250), calibration=file, threshold=0.1, resume=kept)
    assert other.n_texts == 250
    cases = json.loads(kept.read_text())["cases"]
    assert len(cases) == 2  # the other settings have not replaced what was measured
    assert values.items() <= next(iter(cases.values()))["values"].items()
    assert list(tmp_path.glob("*.pass")) == []
    kept.write_text("{}")
    with pytest.raises(ValueError, match=r"kept\.json does not hold measurements of a prescreening"):
        prescreen(model, data, calibration=file, resume=kept)


@pytest.mark.slow
def test_a_trial_run_that_cannot_predict_is_neither_made_nor_recommended(case, tmp_path):
    file = recorded(tmp_path, "nothing", seed=1)
    p = prescreen(*case, calibration=file, trial="10%")
    assert p.trial == ()
    assert any("no trial run of up to 10% of the steps predicts the gain" in note for note in p.notes)
    assert "--trial" not in prescreen("lab/XS", "lab/tense", max_texts=150, calibration=file).command
    hurried = prescreen(*case, calibration=recorded(tmp_path, "trial"), trial="0.000001s", threshold=0.1)
    assert any("the shortest one takes longer than the given time" in note for note in hurried.notes)


@pytest.mark.slow
def test_words_that_show_more_than_the_features_are_named(tmp_path):
    model = load_model("lab/XS", dtype="float32")
    data = load_texts("lab/author").head(300)
    p = prescreen(model, data, calibration=recorded(tmp_path, "nothing", seed=1))
    accuracy = 1 - p.predictors["headroom"] + p.predictors["words"]
    assert p.predictors["words"] > 0.02
    assert p.recommendations[0].startswith(f"Without finetuning, take a bag of words: accuracy {accuracy:.3f}, ")
    assert "bag_of_words()" in p.recommendations[0]


def run_command(command: str) -> None:
    """Run every part of a printed command, as a user who pastes it would; `ntps benchmark` is only planned."""
    for part in command.split(" && "):
        name, *arguments = shlex.split(part)
        assert name == "ntps"
        result = runner.invoke(app, [*arguments, *(["--dry-run"] if arguments[0] == "benchmark" else [])])
        assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["nothing", "trial"])
def test_the_printed_command_runs_and_has_all_options(tmp_path, monkeypatch, cause):
    monkeypatch.chdir(tmp_path)
    data = load_texts("lab/tense").head(280)
    file = tmp_path / "my tickets.csv"
    pd.DataFrame({"subject": data.texts, "category": data.labels}).to_csv(file, index=False)
    calibration = recorded(tmp_path, cause, seed=1)
    p = prescreen(
        "lab/XS", "my tickets.csv", calibration=calibration, leave_out=["d1"], threshold=0.1, max_texts=270,
        max_length=24, batch_size=32, dtype="float32", seed=3, text_column="subject", label_column="category",
        target_modules=["q_proj", "v_proj"],
    )  # fmt: skip
    if cause == "trial":
        assert p.command.startswith("ntps prescreen lab/XS 'my tickets.csv' --trial ")
        assert f"--calibration {calibration} --leave-out d1 --threshold 10 --max-texts 270 --max-length 24" in p.command
        assert "--batch-size 32 --dtype float32 --seed 3 --text-column subject --label-column category" in p.command
    else:
        split, benchmark = p.command.split(" && ")
        columns = "--text-column subject --label-column category"
        assert split == f"ntps datasets split 'my tickets.csv' 'my tickets-split' --test-share 0.2 {columns}"
        assert benchmark == (
            "ntps benchmark --profile lab --models lab/XS --datasets 'my tickets-split' --n-train 270 "
            "--max-length 24 --seed 3 --target-modules q_proj,v_proj"
        )
    run_command(p.command)


def test_the_calibration_on_own_runs_is_that_of_the_declared_settings(tmp_path):
    """The table for chapter 11 holds a few of the recorded runs, and none that shares texts with the case."""
    own = load_calibration(real_cases.record_own("rotten_tomatoes", tmp_path / "mine"))
    real = load_calibration("real")
    datasets = own.cells["dataset"].tolist()
    assert len(datasets) == len(set(datasets)) == real_cases.N_OWN
    assert not {"rotten_tomatoes", "sst2"} & set(datasets)
    assert (own.lora, own.max_length) == (real.lora, real.max_length)
    recorded = real.cells[real.cells["model"] == real_cases.MODEL].set_index("dataset").loc[datasets]
    assert own.cells["gain"].tolist() == pytest.approx(recorded["gain"].tolist(), rel=1e-5, abs=1e-9)
    assert [step.name for step in own.steps()][-1] == "trial run of 25%"


def test_costs_are_those_of_the_recorded_number_of_texts():
    real = load_calibration("real")
    n_texts = int(real.cells["n_texts"].median())
    assert n_texts > 1700
    assert real.steps() == real.steps(n_texts)
    assert real.steps()[0].cost > real.steps(1000)[0].cost


RUN = Recommendation("run", 0.0, {}, "answer")


def test_the_recommended_run_reads_as_much_of_the_texts_as_the_prescreening():
    def of(longest: int, **given: object) -> str:
        return command(RUN, "some/model", "data/mine", given, longest)

    assert of(64) == "ntps benchmark --profile declared --models some/model --datasets data/mine"
    assert of(300).endswith(" --max-length 300")
    assert of(200, **{"max-length": 200}).endswith(" --max-length 200")
    assert "max-length" not in command(RUN, "lab/XS", "data/mine", {}, 300)  # its profile cuts nothing


def test_an_expected_gain_that_is_cut_is_named():
    def of(gain: float, columns: tuple[str, ...]) -> list[str]:
        return list(
            about_gain(Advice("yes", "frozen model", columns, 0.1, gain, 0.0, 0.3, 0.25), "a bag of words", 0.75)
        )

    (note,) = of(0.25, ("headroom",))
    assert "It is cut at 25.0 points, the share of the texts that a bag of words gets wrong;" in note
    assert of(0.2, ("headroom",)) == of(0.25, ()) == []


def test_headlines_name_the_best_classifier_without_finetuning():
    def of(answer: str, columns: tuple[str, ...] = ("headroom",), step: str = "frozen model") -> str:
        return headline(Advice(answer, step, columns, 0.1, 0.05, 0.0, 0.1, 0.3), "a bag of words")

    assert of("yes") == "LoRA probably pays, compared with a bag of words."
    assert of("no") == "LoRA probably does not pay: use a bag of words."
    assert of("no", (), "headroom") == "LoRA does not pay: use a bag of words."
    assert of("open") == "Open: the expected gain is too uncertain for a decision."
    assert of("open", ()) == "Open: nothing that was measured predicts the gain."


@pytest.mark.slow
def test_few_texts_are_said_to_be_few(tmp_path):
    data = load_texts("lab/tense").head(60)
    p = prescreen("lab/XS", data, calibration=recorded(tmp_path, "nothing", seed=1), trial="25%")
    assert p.recommendations[-1].startswith("Label more texts: 60 ")
    assert p.command.startswith("Label more texts")
    assert any("12 validation texts are too few to judge it; give at least 250 texts" in note for note in p.notes)
    rare = replace(data, labels=np.where(np.arange(60) < 4, 1, 0), label_names=("usual", "rare"))
    notes = prescreen("lab/XS", rare, calibration=recorded(tmp_path, "nothing", seed=1)).notes
    assert "Fewer than 10 texts in 1 of 2 classes: rare." in notes
    some = prescreen(
        "lab/XS", load_texts("lab/tense").head(90), calibration=recorded(tmp_path, "nothing"), max_texts=60
    )
    assert some.recommendations[-1].startswith("Use more texts: 60 ")
    assert some.command == "Run the same command with a larger --max-texts: the dataset has 30 more texts."


def test_a_few_texts_never_decide_by_the_lead():
    """Of 30 texts that a bag of words classifies best, one is 3 points of accuracy."""
    words = [f"{('good', 'bad')[i % 2]} {('film', 'book', 'song')[i % 3]}" for i in range(30)]
    p = prescreen("lab/XS", (words, [i % 2 for i in range(30)]))
    assert p.verdict == "open"
    assert p.command.startswith("Label more texts")


def test_an_open_case_that_follows_its_expected_gain_says_so():
    def of(todo, reason):
        recommended = Recommendation(todo, 0.0, {"run": 0.1, "stop": 0.2}, reason)
        return about_lora(recommended, 60.0, 900, 100, n_more=0)

    for todo, start in (
        ("stop", "Do not run LoRA: the expected gain is below"),
        ("run", "Run LoRA: the expected gain is at least"),
    ):
        assert of(todo, "gain").startswith(start)
        assert "On the recorded runs" in of(todo, "rule")
        assert "On the recorded runs" not in of(todo, "answer")


@pytest.mark.parametrize(
    ("action", "share", "made", "named"),
    [("run", 0.0, 0.25, "25%"), ("run", 0.0, 0.1, "10%"), ("trial", 0.1, 0.0, "10%"), ("run", 0.0, 0.0, None)],
)
def test_the_reason_names_the_trial_run_that_was_made_or_is_recommended(action, share, made, named):
    regrets = {"run": 0.01, "stop": 0.02, "trial run of 10%": 0.005, "trial run of 25%": 0.03}
    text = about_lora(Recommendation(action, share, regrets, "rule"), 60.0, 900, 100, n_more=0, made=made)
    costs = {"10%": "0.5", "25%": "3.0"}
    for length, cost in costs.items():
        assert (f"If a trial run of {length} decides, it is {cost}," in text) == (length == named)


@pytest.mark.parametrize(
    ("reason", "dataset", "expected"),
    [
        ("answer", "data/new", "Stop here."),
        (
            "rule",
            "data/new",
            "Stop here. To measure the gain all the same: ntps benchmark --profile declared --models some/model "
            "--datasets data/new --max-length 90",
        ),
        ("rule", (["a text"], [0]), "Stop here."),
    ],
)
def test_an_open_case_that_is_not_run_has_the_command_that_measures_it(reason, dataset, expected):
    assert command(Recommendation("stop", 0.0, {}, reason), "some/model", dataset, {}, longest=90) == expected


def test_lora_is_not_recommended_where_the_best_classifier_hardly_errs(tmp_path):
    """No error in 120 texts leaves up to 2.5% of errors on others: the answer is open, the advice is not to run."""
    texts = [f"{('good', 'bad')[i % 2]} film {i}" for i in range(120)]
    file = recorded(tmp_path, "nothing")
    p = prescreen("lab/XS", (texts, [i % 2 for i in range(120)]), calibration=file, threshold=0.01)
    assert p.verdict == "open"
    assert p.recommendations[-1] == (
        "Do not run LoRA: the best classifier gets fewer texts wrong than the threshold asks for. 120 texts do not "
        "exclude that it gets more wrong on others."
    )
    assert p.command == "Stop here."


SEVERAL = "a probe of layers 1 and 2 at once"


@pytest.mark.parametrize(
    ("accuracy", "name", "lead", "words"),
    [
        ({"layer 1": 0.6, "layer 2": 0.5, "layers": 0.6, "words": 0.4}, "layer 1", 0.1, "a probe of layer 1"),
        ({"layer 1": 0.6, "layer 2": 0.5, "layers": 0.7, "words": 0.4}, "layers", 0.2, SEVERAL),
        ({"layer 1": 0.6, "layer 2": 0.5, "layers": 0.6, "words": 0.8}, "words", 0.3, "a bag of words"),
        ({"layer 1": 0.5, "layer 2": 0.5, "layers": 0.5, "words": 0.5}, "layer 2", 0.0, "a probe of the last layer"),
    ],
)  # fmt: skip
def test_the_best_classifier_without_finetuning_is_named(accuracy, name, lead, words):
    best, found = best_alternative(accuracy)
    assert (best, found) == (name, pytest.approx(lead))
    assert classifier(best, (1, 2)) == words
    advice = without_finetuning(words, best, accuracy[best], found)
    assert advice.startswith(f"Without finetuning, take {words}: accuracy {accuracy[best]:.3f}")
    assert ("a probe of the last layer has 0.500" in advice) == (lead > 0)


@pytest.mark.slow
def test_lora_is_compared_with_the_best_classifier_without_finetuning(case, tmp_path):
    """The labels are which word occurs: a bag of words shows it, whatever the model shows."""
    model, data = case
    file = recorded(tmp_path, "headroom")
    words = [set(text.split()) for text in data.texts]
    word = min(set.union(*words), key=lambda one: abs(sum(one in text for text in words) - len(words) / 2))
    labels = np.array([word in text for text in words], int)
    p = prescreen(model, replace(data, labels=labels), calibration=file)
    assert p.alternatives["layer 3"] == pytest.approx(p.probe_accuracy)
    assert p.alternatives["words"] == pytest.approx(p.probe_accuracy + p.predictors["words"])
    assert p.alternative == max(p.alternatives, key=lambda name: p.alternatives[name])
    assert p.lead == pytest.approx(p.alternatives[p.alternative] - p.probe_accuracy)
    assert p.best in p.headline + p.summary
    assert p.best in p.recommendations[0]
    assert p.gain <= 1.0 - p.alternatives[p.alternative] + 1e-9
    assert "Settings of LoRA" in p.to_html()


@pytest.mark.slow
def test_repeated_texts_and_a_frequent_class_are_in_the_report(case, tmp_path):
    model, data = case
    file = recorded(tmp_path, "headroom")
    labels = (np.arange(len(data)) % 20 == 0).astype(int)
    texts = tuple(data.texts[i // 2] for i in range(len(data)))
    notes = " ".join(prescreen(model, replace(data, texts=texts, labels=labels), calibration=file).notes)
    assert "95% of the texts have one class" in notes
    assert "50% of the texts repeat others" in notes


@pytest.mark.slow
def test_the_duration_of_lora_follows_from_the_trial_run(case, tmp_path):
    kept = tmp_path / "kept.json"
    p = prescreen(*case, calibration=recorded(tmp_path, "trial"), trial="25%", threshold=0.1, resume=kept)
    (one,) = json.loads(kept.read_text())["cases"].values()
    seconds = one["values"]["trial_seconds"]
    share = p.trial[-1].step / LORA.max_steps
    parts = trial_cost(LORA, share, 260) / finetuning_cost(LORA, 260, 0)
    assert p.lora_seconds == pytest.approx(seconds / parts)
    assert seconds > 0.0


def test_one_thread_is_used_for_small_models():
    before = torch.get_num_threads()
    with limited_threads(1000):
        assert torch.get_num_threads() == n_threads(1000)
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_sizes_outside_the_recorded_runs_are_named(case, tmp_path):
    cells = pd.read_csv(recorded(tmp_path, "headroom"))
    cells["n_parameters"] = 7_000_000_000
    cells.to_csv(tmp_path / "large.csv", index=False)
    p = prescreen(*case, calibration=tmp_path / "large.csv")
    assert any("parameters of the model, the recorded runs 7,000,000,000" in note for note in p.notes)
    assert not any("classes" in note for note in p.notes)


@pytest.mark.slow
def test_longer_texts_and_lower_precision_than_recorded_are_named(case, tmp_path):
    model, data = case
    file = recorded(tmp_path, "headroom")
    facts = json.loads(file.with_suffix(".json").read_text())
    facts["settings"]["max_length"] = 4
    file.with_suffix(".json").write_text(json.dumps(facts))
    p = prescreen(model, data, calibration=file)
    assert any("were cut after 4. --max-length 4 does the same" in note for note in p.notes)
    assert not any("cut after" in note for note in prescreen(model, data, calibration=file, max_length=4).notes)
    low = replace(model, model=copy.deepcopy(model.model).to(torch.bfloat16))
    assert any("computed in bfloat16" in note for note in prescreen(low, data, calibration=file).notes)


@pytest.mark.slow
def test_the_report_escapes_text_from_the_data(case, tmp_path):
    model, data = case
    evil = TextDataset("<script>alert(1)</script>", "train", data.texts, data.labels, data.label_names)
    p = prescreen(model, evil, calibration=recorded(tmp_path, "trial"), trial="25%", threshold=0.1)
    page = p.to_html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("https://", "http://").split("</style>")[1].replace("http-equiv", "")
    assert "trial run, up to step" in page
    values = json.loads(p.to_json())
    assert (values["format"], values["verdict"]) == (4, p.verdict)
    assert set(values) == {"format", *(name for name in asdict(p))}


@pytest.mark.slow
def test_the_command_prints_and_writes_the_report(tmp_path):
    file = recorded(tmp_path, "trial")
    result = runner.invoke(
        app,
        ["prescreen", "lab/XS", "lab/tense", "--calibration", str(file), "--max-texts", "260", "--leave-out", "d0",
         "--trial", "10%", "--threshold", "10", "--json", str(tmp_path / "p.json"), "--html", str(tmp_path / "p.html")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    assert "without d0" in output
    assert "Expected gain over " in output
    assert "Do: " in output
    assert "Next: " in output
    assert "--verbose prints all that was measured" in output
    assert "H-score" not in output
    values = json.loads((tmp_path / "p.json").read_text())
    verbose = runner.invoke(
        app,
        ["prescreen", "lab/XS", "lab/tense", "--calibration", str(file), "--max-texts", "260", "--threshold", "0.03",
         "--verbose"],
    )  # fmt: skip
    output = " ".join(verbose.output.split())
    assert "--threshold 0.03 means 0.03 points of accuracy. For 3 points write --threshold 3." in output
    assert "H-score" in output
    assert "Skill is the share of the median's error that a step saves" in output
    values = json.loads((tmp_path / "p.json").read_text())
    assert values["calibration"]["n_datasets"] == 9
    assert values["threshold"] == 0.1
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_several_models_or_datasets_are_compared_in_one_table(tmp_path):
    file = recorded(tmp_path, "headroom")
    result = runner.invoke(
        app,
        ["prescreen", "lab/XS", "lab/tense", "--compare-dataset", "lab/topic", "--compare-model", "lab/S",
         "--calibration", str(file), "--max-texts", "120", "--json", str(tmp_path / "p.json")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    reports = json.loads((tmp_path / "p.json").read_text())
    assert {(r["model"], r["dataset"]) for r in reports} == {
        (m, d) for m in ("lab/XS", "lab/S") for d in ("lab/tense", "lab/topic")
    }
    data = [load_texts(f"lab/{name}").head(120) for name in ("tense", "topic")]
    table = compare(prescreen("lab/XS", one, calibration=file) for one in data)
    assert table["gain"].is_monotonic_decreasing
    assert np.allclose(table["points_per_hour"], 100 * table["gain"] / (table["lora_minutes"] / 60))


def test_several_calibrations_are_used_together(tmp_path):
    one, two = recorded(tmp_path, "headroom"), recorded(tmp_path, "trial")
    both = load_calibration(f"{one},{two}")
    assert len(both.cells) == 60
    assert both.lora == LORA
    mixed = load_calibration(f"lab,{one}")
    assert len(mixed.cells) == 94
    assert {"headroom", "ntps"} <= set(mixed.cells)


def test_costs_are_shares_of_the_lora_run(tmp_path):
    steps = load_calibration(recorded(tmp_path, "trial")).steps(200)
    assert [step.name for step in steps] == ["frozen model", *(f"trial run of {s}%" for s in ("2.5", "5", "10", "25"))]
    costs = [step.cost for step in steps if step.share]
    assert costs == sorted(costs)
    assert all(0 < cost < 1 for cost in costs)
    assert isinstance(steps[0], Step)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10%", (0.1, math.inf)), (0.05, (0.05, math.inf)), ("90s", (0.25, 90.0)), ("1h", (0.25, 3600.0)),
     (0, (0.0, math.inf)), ("2.5%", (0.025, math.inf))],
)  # fmt: skip
def test_budgets_of_trial_runs_are_read(text, expected):
    assert parse_trial(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration", "mars"], "Unknown calibration 'mars'"),
        (["--calibration", "real,declared"], "have 30 finetuning runs in common, which would count twice"),
        (["--leave-out", "nothing"], "no dataset 'nothing'"),
        (["--threshold", "-3"], "--threshold must be a number in [0, 100), got -3"),
        (["--worth", "-1"], "--worth must be a number"),
        (["--threshold", "1", "--worth", "1"], "threshold and worth were both given"),
        (
            ["--trial", "soon"],
            "--trial must be a share of the steps such as '10%', at most 25%, or a time such as '5min', got 'soon'",
        ),
        (["--trial", "40%"], "such as '10%', at most 25%, or a time such as '5min', got '40%'"),
        (["--json", "/nowhere/x.json"], "Cannot write"),
        (["--compare-model", "lab/S", "--html", "x.html"], "--html is for one model and one dataset"),
        (["--compare-dataset", "lab/tennse"], "The lab has no task 'tennse'. Did you mean tense?"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message):
    result = runner.invoke(app, ["prescreen", "lab/XS", "lab/tense", *arguments])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_runs_of_ones_own_are_compared_with_the_better_of_two_probes(tmp_path):
    file = recorded(tmp_path, "headroom")
    cells = load_calibration(file).cells
    assert cells["lead"].eq(0.0).all()
    assert cells["advantage"].equals(cells["gain"].rename("advantage"))
    table = pd.read_csv(file).assign(probe_last=0.5, lora=0.7)
    table["probe_middle"] = np.where(table["model"] == "m0", 0.6, 0.4)
    table.to_csv(file, index=False)
    cells = load_calibration(file).cells
    is_better = cells["model"] == "m0"
    assert cells["lead"].to_numpy() == pytest.approx(np.where(is_better, 0.1, 0.0))
    assert cells["advantage"].to_numpy() == pytest.approx(np.where(is_better, 0.1, 0.2))


def test_runs_of_ones_own_with_classifiers_are_compared_with_the_best_of_them(tmp_path):
    """As `ntps benchmark --profile declared --record` writes them."""
    file = recorded(tmp_path, "headroom")
    table = pd.read_csv(file)
    table = table.assign(probe_last=0.5, probe_middle=0.9, lora=0.7, alternative="words", lead=0.07, words=0.07)
    table["advantage"] = table["gain"] - 0.1
    table.to_csv(file, index=False)
    calibration = load_calibration(file)
    assert calibration.cells["lead"].eq(0.07).all()
    assert calibration.cells["advantage"].to_numpy() == pytest.approx(table["gain"] - 0.1)
    assert any("words" in columns for step in calibration.steps() for columns in step.choices)


def test_a_calibration_without_gains_is_refused(tmp_path):
    pd.DataFrame({"model": ["a"], "dataset": ["b"]}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match="lacks the columns texts, gain"):
        load_calibration(tmp_path / "x.csv")


@pytest.mark.slow
def test_the_lines_of_the_chapter_train_keep_and_apply_each_classifier(tmp_path, monkeypatch):
    """In their order, on a small model: bag of words, probe, new texts, adapter, and the adapter on texts."""
    chapter = (ROOT / "notebooks" / "11_prescreen.py").read_text()
    lines = chapter.split("# ## The best classifier without finetuning")[1].split("# ## The cost")[0]
    blocks = [re.sub("^# ?", "", one.split("# ```")[0], flags=re.M) for one in lines.split("# ```python\n")[1:]]
    assert len(blocks) == 5
    for split, n in {"train": 120, "test": 50}.items():
        data = load_texts("lab/tense", split).head(n)
        file = tmp_path / "data" / "reviews" / f"{split}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"text": data.texts, "label": [data.label_names[i] for i in data.labels]}).to_csv(file)
    monkeypatch.chdir(tmp_path)
    smaller = {
        "path/to/model": str(checkpoint("XS")),
        "(8,)": "(1, 2)",
        "256": "64",
        "where is my parcel?": "the pill injected the singer",
        "thank you, it works": "a bell rang",
        "(1e-3, 3e-4, 1e-4)": "(1e-2, 1e-3), max_steps=20, eval_steps=10",
    }
    names: dict[str, Any] = {}
    for block in blocks:
        for old, new in smaller.items():
            block = block.replace(old, new)
        exec(block, names)
    new, model = names["new"], load_model("lab/XS")
    assert len(names["words"].predict(texts_read(model, new, tokenize(model, new, 64)))) == len(new)
    assert pickle.loads(Path("probe.pickle").read_bytes()).predict(names["x_new"]).shape == (len(new),)
    labels = names["logits"].argmax(1).numpy()
    assert (labels == names["test"].labels).mean() == names["result"].accuracy > 0.6
