"""The declared experiment: its plan and settings, and what is recorded of it."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import typer
from scipy.stats import spearmanr
from typer.testing import CliRunner

from book.tools import declared as pages
from book.tools import experiment as tool
from book.tools import power, visible_rise
from ntps_utils.cli.main import app
from ntps_utils.evidence import declared, runs
from ntps_utils.evidence.claims import RISE_IS_VISIBLE, SMALL_RISE
from ntps_utils.evidence.declared import (
    DATASETS,
    FINETUNED_MODELS,
    PILOT_RATES,
    PILOTS,
    SCORED_MODELS,
    Run,
    planned_runs,
    run_order,
    run_settings,
)
from ntps_utils.evidence.experiment import ExperimentConfig, run_experiment
from ntps_utils.evidence.records import load_record
from ntps_utils.evidence.runs import RecordedRun, chosen_rates, recorded_runs, write_runs
from ntps_utils.models.finetuning import PAPER_FINETUNING, FinetuneConfig
from ntps_utils.models.loading import load_model
from ntps_utils.theory.score import NumericalWarning

RATES = dict.fromkeys(FINETUNED_MODELS, 1e-3)


def test_datasets_and_their_order_are_fixed():
    assert len(DATASETS) == 27
    assert not set(PILOTS) & set(DATASETS)
    assert sorted(run_order()) == sorted(DATASETS)
    assert run_order()[:3] == ("logical_fallacy", "semantic_relations", "medical")


def test_every_dataset_is_finetuned_on_by_both_models_before_the_next():
    plan = planned_runs()
    assert len(set(plan)) == len(plan)
    first = [run for run in plan if run.kind == "lora" and run.seed == 0]
    assert [run.dataset for run in first[::2]] == [run.dataset for run in first[1::2]] == list(run_order())
    assert {run.model for run in first[::2]} == {FINETUNED_MODELS[0]}
    assert plan[:30] == tuple(first[:30])
    assert {run.kind for run in plan[30:40]} == {"shuffled"}
    assert plan[40:64] == tuple(first[30:])
    shuffled, seeded = ({run.dataset for run in plan if condition(run)} for condition in (
        lambda run: run.kind == "shuffled", lambda run: run.seed == 1))  # fmt: skip
    assert (shuffled, seeded) == (set(run_order()[:5]), set(run_order()[:10]))
    assert {run.model for run in plan if run.kind == "scores"} == set(SCORED_MODELS)


def test_settings_are_fixed():
    settings = run_settings(Run("lora", FINETUNED_MODELS[0], "rte", seed=1), RATES)
    assert settings.lora.learning_rates == (1e-3,)
    assert settings.lora.early_stopping_patience is None
    assert settings.lora.evaluations() == (8, 15, 30, 75, 150, 225, 300)
    assert (settings.n_train, settings.n_test, settings.max_length, settings.lora.seed) == (2000, 1000, 64, 1)
    assert (settings.controls, settings.test_last_step, settings.shuffle_labels) == (True, True, False)
    shuffled = run_settings(Run("shuffled", FINETUNED_MODELS[0], "rte", seed=1), RATES)
    assert shuffled == replace(settings, shuffle_labels=True)
    paper = run_settings(Run("paper", FINETUNED_MODELS[0], "rte"), {})
    assert paper.lora == PAPER_FINETUNING
    assert run_settings(Run("scores", "prose-S", "rte"), {}).lora is None


def test_runs_without_a_chosen_rate_are_refused():
    with pytest.raises(ValueError, match="No learning rate is chosen for gemma-3-270m, only for: none"):
        run_settings(Run("lora", "gemma-3-270m", "rte"), {})


def test_rates_are_those_of_the_lower_mean_loss_of_complete_pilots(monkeypatch):
    losses = {"gemma-3-270m": (0.5, 0.4, 0.3, 0.6), "smollm2-135m-instruct": (0.1, 0.2, 0.4, 0.2)}
    keys = [(dataset, rate) for dataset in PILOTS for rate in PILOT_RATES]
    pilots = [
        {"model": model, "dataset": dataset, "rate": rate, "best_cross_entropy": loss}
        for model, values in losses.items()
        for (dataset, rate), loss in zip(keys, values, strict=True)
    ]
    monkeypatch.setattr(runs, "load_record", lambda name: {"runs": pilots})
    assert chosen_rates() == {"gemma-3-270m": 1e-3, "smollm2-135m-instruct": 3e-4}
    for pilot in pilots:
        pilot["best_cross_entropy"] = 0.5
    assert set(chosen_rates().values()) == {3e-4}
    del pilots[0]
    assert chosen_rates() == {"smollm2-135m-instruct": 3e-4}


def test_excluded_datasets_are_not_planned(monkeypatch):
    gone = run_order()[1]
    monkeypatch.setattr(declared, "EXCLUDED", (gone,))
    plan = planned_runs()
    assert gone not in {run.dataset for run in plan}
    shuffled = dict.fromkeys(run.dataset for run in plan if run.kind == "shuffled")
    assert tuple(shuffled) == (run_order()[0], *run_order()[2:6])


def test_recorded_runs_are_planned_runs_with_the_declared_settings():
    plan = planned_runs()
    rates = chosen_rates()
    for one in recorded_runs():
        assert one.run in plan
        assert (one.result.model, one.result.dataset) == (one.run.model, one.run.dataset)
        expected = json.loads(json.dumps(run_settings(one.run, rates), default=vars))
        settings = one.provenance["settings"]
        for later in ("score_after", "classifiers"):  # settings that came after the first runs
            if later not in settings:
                del expected[later]
        assert settings == expected
        assert one.provenance["started"] <= one.provenance["date"]
        if (tuned := one.result.finetuning) is not None and one.run.kind == "lora":
            assert [point.step for point in tuned.lora_curve] == [0, 8, 15, 30, 75, 150, 225, 300]


@pytest.mark.slow
def test_runs_are_read_as_they_were_written(tmp_path):
    settings = ExperimentConfig(lora=None, n_train=40, n_test=20, controls=True)
    result = run_experiment(load_model("lab/XS", dtype="float32"), *settings.texts("lab/tense"), settings)
    written = tuple(
        RecordedRun(Run("scores", "lab/XS", "lab/tense", seed), result, {"date": "2026-01-01"}) for seed in range(2)
    )
    write_runs(written, tmp_path / "runs.jsonl")
    assert recorded_runs(tmp_path / "runs.jsonl") == written


@pytest.mark.slow
def test_the_tool_records_each_run_once_and_continues(lab_data, tmp_path, monkeypatch):
    lora = FinetuneConfig(max_steps=2, eval_steps=(1,), r=1, early_stopping_patience=None)
    monkeypatch.setattr(declared, "lora_settings", lambda rate, seed=0: replace(lora, seed=seed))
    plan = (
        Run("lora", "lab/XS", "lab-data"),
        Run("scores", "lab/XS", "lab-data"),
        Run("scores", "lab/S", "lab-data"),
        Run("scores", "lab/XS", "lab-data", 1),
    )
    monkeypatch.setattr(tool, "planned_runs", lambda: plan)
    monkeypatch.setattr(tool, "chosen_rates", lambda: {"lab/XS": 1e-3})
    data, out = tmp_path / "data", tmp_path / "runs.jsonl"
    data.mkdir()
    (data / "lab-data").symlink_to(lab_data)
    command_line = typer.Typer()
    command_line.command()(tool.main)
    command = ["--data", str(data), "--out", str(out), "--device", "cpu"]
    assert CliRunner().invoke(command_line, [*command, "--limit", "1"]).exit_code == 0
    (first,) = recorded_runs(out)
    assert (first.run, first.result.dataset) == (plan[0], "lab-data")
    assert first.provenance["settings"]["lora"]["max_steps"] == 2
    outcome = CliRunner().invoke(command_line, [*command, "--only", "gpt2"])
    assert outcome.exit_code == 2
    assert "gpt2; these kinds of runs have: lab/S, lab/XS." in outcome.output
    assert CliRunner().invoke(command_line, [*command, "--only", "lab/S", "--kinds", "lora"]).exit_code == 2
    outcome = CliRunner().invoke(command_line, [*command, "--only", "lab/XS", "--limit", "1"])
    assert "1/1 scores: lab/XS on lab-data, seed 0" in outcome.output
    assert [one.run for one in recorded_runs(out)] == list(plan[:2])
    outcome = CliRunner().invoke(command_line, [*command, "--workers", "2"])
    assert "2/2 scores: lab/" in outcome.output
    assert {one.run for one in recorded_runs(out)} == set(plan)
    assert recorded_runs(out)[0] == first


def test_what_the_page_says_about_power_is_true():
    rows = {(r["target"], r["n_datasets"], r["rho"]): r for r in load_record("power")["rows"]}
    for target in ("accuracy", "gain"):
        assert rows[target, 15, 0.3]["above_zero"] < 0.3
        assert 0.4 < rows[target, 15, 0.5]["above_zero"] < 0.65
        assert rows[target, 27, 0.3]["refuted_only"] > rows[target, 27, 0.3]["above_zero"]
    for row in rows.values():
        assert row["above_zero"] + row["refuted_only"] + row["neither"] == pytest.approx(1.0)
        assert row["significant"] <= row["above_zero"]
    assert max(row["told_apart"] for row in load_record("power")["controls"]) < 0.5


def test_the_page_says_how_few_the_test_texts_are():
    runs = [one for one in recorded_runs() if one.run.model in FINETUNED_MODELS]
    ratios = [one.result.n_test / one.result.n_features for one in runs]
    text = pages.tables()["few_test_texts"]
    assert f"there are {min(ratios):.1f} to {max(ratios):.1f} test texts for each feature" in text
    shift = max(
        score.ntps - train.ntps
        for one in runs
        for score in one.result.scores
        for train in one.result.scores
        if (score.split, train.split) == ("test", "train")
        and {score.subspace, train.subspace} == {"next_token"}
        and {score.rule, train.rule} == {"half"}
        and not (score.centered or train.centered)
        and score.layer == train.layer == max(other.layer for other in one.result.scores)
    )
    assert f" to {shift:+.2f}." in text


def test_tables_of_the_page_list_all_datasets_and_pilots():
    tables = pages.tables()
    for name in (*DATASETS, *PILOTS):
        assert f"| {name} |" in tables["datasets"]
    assert re.findall(r"^\| \d+ \| (\w+) \|", tables["order"], re.M) == list(run_order())
    assert tables["pilots"].count("(chosen)") == 2 * len(chosen_rates())


def test_the_page_has_what_a_second_seed_changes():
    """Half the squared difference of both seeds is the variance within a run, as in an analysis of variance."""
    tuned = {one.run: one.result.finetuning for one in recorded_runs() if one.run.kind == "lora"}
    twice = [
        name
        for name in run_order()
        if all(Run("lora", model, name, seed) in tuned for model in FINETUNED_MODELS for seed in (0, 1))
    ]
    table = pages.tables()["seeds"]
    for quantity, label in {"gain": "gain over the trained head", "lora_accuracy": "accuracy of LoRA"}.items():
        for model in FINETUNED_MODELS:
            pairs = 100 * np.array(
                [[getattr(tuned[Run("lora", model, name, seed)], quantity) for seed in (0, 1)] for name in twice]
            )
            noise, most = np.sqrt(pairs.var(axis=1, ddof=1).mean()), np.ptp(pairs, axis=1).max()
            start = f"| {label} | {model} | {len(twice)} | {pairs.std(ddof=1):.1f} | {noise:.1f} ("
            end = f") | {most:.1f} | {spearmanr(*pairs.T).statistic:.2f} |"
            (row,) = (line for line in table.splitlines() if line.startswith(f"| {label} | {model} |"))
            assert row.startswith(start)
            assert row.endswith(end)
            low, high = map(float, row.removeprefix(start).removesuffix(end).split(" to "))
            assert low < noise < high
            if quantity == "gain":
                (known,) = (row for row in load_record("results")["reliability"] if row["model"] == model)
                share = (known["error"] ** 2 + (noise / 100) ** 2) / known["sd"] ** 2
                assert re.search(rf"{1 - share:.2f} \(\d\.\d\d to \d\.\d\d\) in {model}", table)


def test_what_the_page_says_about_six_datasets_with_two_seeds_is_true():
    tuned = {one.run: one.result.finetuning for one in recorded_runs() if one.run.kind == "lora"}
    twice = {run.dataset for run in tuned if run.seed == 1}
    assert len(twice) == 6
    gains = {
        name: [tuned[Run("lora", model, name, seed)].gain for model in FINETUNED_MODELS for seed in (0, 1)]
        for name in twice
    }
    squares = {name: np.square(np.array(each) - np.mean(list(gains.values()))).sum() for name, each in gains.items()}
    assert squares["emotion"] > 0.5 * sum(squares.values())  # chapter 9: most of the variance comes from it
    assert min(gains.pop("emotion")) > 0.05
    assert max(max(each) for each in gains.values()) < 0.055
    rho = {row["datasets"]: row["rho"] for row in load_record("results_all")["selections"] if row["target"] == "gain"}
    assert rho["first seed, the same datasets"] > rho["second seed"] + 0.3


def test_the_page_has_what_lora_reaches_with_the_papers_settings():
    table = pages.tables()["paper_settings"]
    made = [one for one in recorded_runs() if one.run.kind == "paper"]
    assert table.count("| the paper's |") == table.count("| declared |") == len(made) > 0
    for one in made:
        assert one.provenance["settings"]["lora"]["optimizer"] == "adafactor"
        tuned = one.result.finetuning  # without validation texts the last step is the one that is kept
        assert f"| the paper's | {tuned.frozen_accuracy:.3f} | {tuned.lora_accuracy:.3f} |" in table


def test_a_planted_rise_does_not_show_on_as_few_texts():
    """The recorded simulation decides whether claim (iv) can be refuted."""
    rows = [row for row in load_record("visible_rise")["rows"] if row["score"] == "ntps"]
    assert {(row["d"], row["n_classes"]) for row in rows} == set(
        product((*visible_rise.DECLARED, visible_rise.CURVE_D), visible_rise.CLASSES)
    )
    rows = [row for row in rows if row["d"] in visible_rise.DECLARED]
    assert all(abs(row["planted"] - visible_rise.RISE) < 0.02 for row in rows)
    assert all(row["measured"] >= SMALL_RISE for row in rows) == RISE_IS_VISIBLE


@pytest.mark.slow
def test_a_planted_rise_shows_on_many_texts():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        found = [visible_rise.planted_rise(16, (17, 12_000), 2, seed, n_large=15_000) for seed in range(3)]
    few, many = (np.mean([measured[n][0] for _, measured in found]) for n in (17, 12_000))
    assert few < 0.02 < 0.06 < many


def test_power_simulations_find_strong_effects_only():
    strong, none = (power.simulate("gain", 27, rho, 20)["above_zero"] for rho in (0.9, 0.0))
    assert (strong, none) == (1.0, pytest.approx(0.0, abs=0.15))
    different, alike = (power.simulate_control(27, rho, 0.3, 20)["told_apart"] for rho in (-0.5, 0.57))
    assert different > 0.9 > 0.4 > alike
    large, small = (power.simulate_rise(mean, 1.0, 500)["both_above_zero"] for mean in (5.0, 0.0))
    assert large > 0.95 > 0.1 > small
    assert power.simulate_rise(0.0, 1e-3, 500)["refuted"] > 0.95
    kept, random = (power.simulate_skip(27, rho, 30)["below_random"] for rho in (0.95, 0.0))
    assert kept > 0.9 > 0.2 > random


@pytest.fixture
def recorded_lab_run(lab_data, tmp_path, monkeypatch):
    """A recorded run of lab/XS on a dataset in ``tmp_path``."""
    lora = FinetuneConfig(max_steps=2, eval_steps=(1,), r=1, early_stopping_patience=None)
    monkeypatch.setattr(declared, "lora_settings", lambda rate, seed=0: replace(lora, seed=seed))
    monkeypatch.setattr(runs, "chosen_rates", lambda: {"lab/XS": 1e-3})
    (tmp_path / "lab-data").symlink_to(lab_data)
    one = runs.make_run(
        Run("lora", "lab/XS", "lab-data"), runs.load_declared_model("lab/XS"), tmp_path, {"lab/XS": 1e-3}
    )
    monkeypatch.setattr(runs, "recorded_runs", lambda: (one,))
    return one


@pytest.mark.slow
def test_a_recorded_run_can_be_repeated(recorded_lab_run, tmp_path, monkeypatch):
    command = ["results", "repeat", "lab/XS", "lab-data", "--data", str(tmp_path), "--device", "cpu"]
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 0, outcome.output
    assert "0 differ by more than their tolerance" in outcome.output
    table = runs.repeat_run("lab/XS", "lab-data", tmp_path, device="cpu")
    assert table["equal"].all()
    assert {"frozen_accuracy", "lora_accuracy", "probe last", "validation loss, step 2"} <= set(table["value"])
    assert not runs.repeat_run("lab/XS", "lab-data", tmp_path, lora=False)["value"].str.contains("lora").any()
    result = recorded_lab_run.result
    wrong = replace(result, finetuning=replace(result.finetuning, lora_accuracy=result.finetuning.lora_accuracy + 0.1))
    monkeypatch.setattr(runs, "recorded_runs", lambda: (replace(recorded_lab_run, result=wrong),))
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 1
    assert "1 differ by more than their tolerance" in outcome.output
    with pytest.raises(ValueError, match="The training texts differ"):
        runs.differences(result, replace(result, texts="other"))
    outcome = CliRunner().invoke(app, [*command[:3], "rte", *command[4:]])
    assert outcome.exit_code == 2
    assert "No run of lab/XS on rte is recorded. Recorded: lab/XS on lab-data." in " ".join(outcome.output.split())


def test_the_untrained_twin_has_the_architecture_and_other_weights(monkeypatch):
    monkeypatch.setattr(runs, "UNTRAINED", "lab/XS (untrained)")
    model, twin = (runs.load_declared_model(name, device="cpu") for name in ("lab/XS", "lab/XS (untrained)"))
    assert (twin.name, twin.dimension, twin.n_layers) == ("lab/XS (untrained)", model.dimension, model.n_layers)
    assert twin.fingerprint != model.fingerprint
