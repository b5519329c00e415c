"""One experiment: its parts, its settings, and the typed result."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from ntps_utils.evidence.classifiers import ClassifierAccuracy, best_alternative, compare_classifiers
from ntps_utils.evidence.experiment import (
    GPU,
    PLACES,
    ExperimentConfig,
    ExperimentResult,
    cell_frame,
    run_experiment,
    score_frame,
)
from ntps_utils.evidence.predictors import PREDICTORS, Case
from ntps_utils.evidence.tables import RECORDED, cell_table, load_recorded, score_table
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract
from ntps_utils.models.finetuning import FinetuneConfig, finetune
from ntps_utils.models.loading import CausalModel, load_model
from ntps_utils.models.probes import chance_adjusted, linear_probe, logistic_probe
from ntps_utils.models.richer_probes import bag_of_words
from ntps_utils.models.scoring import score_model

SHORT = FinetuneConfig(learning_rates=(1e-2,), max_steps=10, eval_steps=5)
SETTINGS = ExperimentConfig(lora=SHORT, frozen=replace(SHORT, method="frozen"), n_train=150, n_test=80)


@pytest.fixture(scope="module")
def model() -> CausalModel:
    return load_model("lab/XS", dtype="float32")


@pytest.fixture(scope="module")
def result(model) -> ExperimentResult:
    return run_experiment(model, *SETTINGS.texts("lab/tense"), SETTINGS)


@pytest.mark.slow
def test_scores_after_lora_can_be_left_out(result, model):
    settings = replace(SETTINGS, score_after=False)
    found = run_experiment(model, *settings.texts("lab/tense"), settings)
    assert found.scores_after == ()
    assert found.scores == result.scores
    assert found.finetuning.lora_accuracy == result.finetuning.lora_accuracy


@pytest.mark.slow
def test_classifiers_without_finetuning_are_those_of_a_prescreening(result, model):
    """They leave the rest of the result as it is, and their columns are what a calibration reads."""
    settings = replace(SETTINGS, classifiers=True)
    train, test = settings.texts("lab/tense")
    found = run_experiment(model, train, test, settings)
    assert found.scores == result.scores
    assert found.finetuning.lora_predictions == result.finetuning.lora_predictions
    case = Case(model, train)
    validated = {name: one.cross_validated for name, one in found.classifiers.items()}
    assert validated == pytest.approx(case.alternatives)
    last = extract(model, train, layers="last", features="last"), extract(model, test, layers="last", features="last")
    x, x_test = (one.features[3] for one in last)
    expected = logistic_probe(x, train.labels, x_test, test.labels).test_accuracy
    assert found.classifiers["layer 3"].test == pytest.approx(expected, abs=0.02)
    words = bag_of_words().fit(train.texts, train.labels).score(test.texts, test.labels)
    assert found.classifiers["words"].test == pytest.approx(words)
    assert ExperimentResult.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    row = found.to_row()
    best, lead = best_alternative(validated)
    assert (row["alternative"], row["lead"]) == (best, lead)
    assert row["advantage"] == pytest.approx(row["lora"] - found.classifiers[best].test)
    for name in ("words", "layers"):
        assert row[name] == pytest.approx(PREDICTORS[name].function(case))
    assert set(row) - set(result.to_row()) == {"alternative", "lead", "advantage", "words", "layers"}
    assert "advantage" not in replace(found, finetuning=None).to_row()


def test_training_texts_that_are_alone_in_their_class_are_left_out():
    rng = np.random.default_rng(0)
    y = np.array([0, 1] * 20 + [2])
    x = {1: rng.normal(size=(41, 3)), 2: y[:, None] + 0.1 * rng.normal(size=(41, 3))}
    texts = [f"class {'abc'[label] * 2}" for label in y]
    found = compare_classifiers(x, x, (texts, texts), (y, y))
    without = {layer: part[:40] for layer, part in x.items()}
    same = compare_classifiers(without, x, (texts[:40], texts), (y[:40], y))
    assert found == same
    assert found["words"] == ClassifierAccuracy(1.0, pytest.approx(40 / 41))


@pytest.mark.slow
def test_scores_match_score_model(result, model):
    train, _ = SETTINGS.texts("lab/tense")
    report = score_model(model, train, layers="2,3", k_v=(16,)).to_frame().set_index("layer")
    half = [score for score in result.scores if score.rule == "half" and not score.centered]
    assert [score.layer for score in half] == [2, 3]
    for score in half:
        for name in ("ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss"):
            assert getattr(score, name) == pytest.approx(report.loc[score.layer, name], rel=1e-6)
        assert score.explained == score.trace_b / score.trace_y
    assert {(s.centered, s.rule) for s in result.scores} == {
        (c, r) for c in (False, True) for r in ("half", "spectrum")
    }
    assert len(result.scores) == len(result.scores_after) == 8


@pytest.mark.slow
def test_probes_and_transferability_match_direct_calls(result, model):
    train, test = SETTINGS.texts("lab/tense")
    assert (len(train), len(test)) == (result.n_train, result.n_test) == (150, 80)
    assert tuple(result.probes) == PLACES
    last = model.n_layers - 1
    a, b = (extract(model, part, layers=(last,), features=(last,)) for part in (train, test))
    logistic = logistic_probe(a.features[last], train.labels, b.features[last], test.labels)
    probe = result.probes["last"]
    assert (probe.accuracy, probe.train_accuracy) == (logistic.test_accuracy, logistic.train_accuracy)
    assert probe.adjusted_accuracy == chance_adjusted(logistic.test_accuracy, test.labels)
    linear = linear_probe(a.features[last], train.labels, b.features[last], test.labels)
    assert (probe.mse, probe.train_mse) == pytest.approx((linear.test_mse, linear.train_mse))
    assert result.transferability["headroom"].value == pytest.approx(1 - logistic.cv_accuracy)
    assert result.weights == model.fingerprint


@pytest.mark.slow
def test_finetuning_matches_direct_calls(result, model):
    train, test = SETTINGS.texts("lab/tense")
    tuned = result.finetuning
    lora, frozen = (finetune(model, train, test, config) for config in (SHORT, SETTINGS.frozen))
    assert (tuned.lora_accuracy, tuned.frozen_accuracy) == (lora.accuracy, frozen.accuracy)
    assert tuned.gain == lora.accuracy - frozen.accuracy
    assert (tuned.learning_rate, tuned.n_steps) == (lora.learning_rate, lora.n_steps)


class CountingTokenizer:
    """A tokenizer that counts its texts."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.texts = tokenizer, Counter[str]()

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.texts.update(texts)
        return self.tokenizer(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.mark.slow
def test_each_text_is_tokenized_once(model):
    settings = replace(SETTINGS, n_train=60, n_test=30)
    train, test = settings.texts("lab/tense")
    tokenizer = CountingTokenizer(model.tokenizer)
    run_experiment(replace(model, tokenizer=tokenizer), train, test, settings)
    assert tokenizer.texts == Counter((*train.texts, *test.texts))


@pytest.mark.slow
def test_results_survive_json(result):
    with_warnings = replace(result, warnings=("a", "b"))
    without_lora = replace(result, finetuning=None, scores_after=())
    for one in (with_warnings, without_lora):
        values = one.to_dict()
        assert json.loads(json.dumps(values)) == values
        assert ExperimentResult.from_dict(values) == one


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_tables_have_the_columns_of_the_recorded_tables(result, name):
    """Tables may have columns that others lack: controls, evaluations, and those that are newer."""
    for table, recorded in (
        (cell_table([result]), load_recorded(name)),
        (score_table([result]), load_recorded(name, "scores")),
    ):
        common = [column for column in table if column in recorded]
        assert common == [column for column in recorded if column in table]
        assert {"ntps", "ntps_metric", "ntps_task"} <= set(common)


@pytest.mark.slow
def test_rows_without_lora_have_no_finetuning_columns(result):
    without_lora = replace(result, finetuning=None, scores_after=())
    names = {"frozen", "lora", "gain", "lora_adjusted", "lora_rate", "lora_steps", "lora_seconds", "frozen_seconds"}
    names |= {"frozen_cross_entropy", "lora_cross_entropy"}
    more = set(result.to_row()) - set(without_lora.to_row())
    curve = {name for name in more if name.startswith("curve_")}
    assert more - curve == names
    assert {f"curve_cross_entropy_{point.step}" for point in result.finetuning.lora_curve} <= curve
    assert list(cell_frame([result]).columns) == list(result.to_row())
    with pytest.raises(ValueError, match="has no scores after LoRA"):
        score_frame([without_lora], "after")
    with pytest.raises(ValueError, match="when must be 'before' or 'after'"):
        score_frame([result], "later")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("spectrum", 95, r"spectrum must be a number in \(0, 1\], got 95"),
        ("spectrum", 0.0, "spectrum must be"),
        ("lora", "lora", "lora must be a FinetuneConfig with the method 'lora', or None, got 'lora'"),
        ("lora", SETTINGS.frozen, "lora must be a FinetuneConfig with the method 'lora'"),
        ("frozen", None, "frozen must be a FinetuneConfig with the method 'frozen', got None"),
        ("frozen", SHORT, "frozen must be a FinetuneConfig"),
        ("n_train", 0, "n_train must be an integer of at least 1, or None, got 0"),
        ("n_train", 10.0, "n_train must be an integer"),
        ("n_test", -5, "n_test must be an integer of at least 1"),
        ("max_length", 1, "max_length must be an integer of at least 2, or None, got 1"),
        ("dtype", "float8", "dtype must be 'float32', 'float64', 'bfloat16' or 'float16', got 'float8'"),
        ("controls", 1, "controls must be True or False, got 1"),
        ("test_last_step", None, "test_last_step must be"),
        ("score_after", 0, "score_after must be"),
        ("classifiers", "all", "classifiers must be True or False, got 'all'"),
        ("shuffle_labels", "yes", "shuffle_labels must be"),
        ("text_column", "", "text_column must be a name, got ''"),
        ("label_column", 3, "label_column must be a name, got 3"),
        ("seed", -1, "seed must be an integer from 0"),
    ],
)
def test_invalid_settings_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **{field: value})


def test_every_field_of_the_settings_is_validated():
    """Each field has a case above, so that a new field cannot be forgotten."""
    (mark,) = (m for m in test_invalid_settings_are_refused.pytestmark if m.name == "parametrize")
    assert {field for field, *_ in mark.args[1]} == {f.name for f in fields(ExperimentConfig)}


def test_profiles_are_valid_settings():
    assert GPU.dtype == "bfloat16"
    assert replace(GPU) == GPU


@pytest.fixture(scope="module")
def controlled() -> ExperimentResult:
    lora = replace(SHORT, eval_steps=(2, 5), early_stopping_patience=None, metric_for_best_model="loss")
    settings = ExperimentConfig(
        lora=lora,
        frozen=replace(lora, method="frozen"),
        n_train=150,
        n_test=90,
        controls=True,
        test_last_step=True,
    )
    return run_experiment(load_model("lab/XS", dtype="float32"), *settings.texts("lab/topic"), settings)


@pytest.mark.slow
def test_controls_are_scored_on_both_splits_before_and_after(controlled):
    table = score_frame([controlled], controls=True)
    plain = score_frame([controlled])
    assert len(plain) == 8
    assert not {"split", "subspace", "r2"} & set(plain)
    primary = table.query("place == 'last' and rule == 'half'")
    expected = {"next_token", "pca_s", "pca_a0", "symmetric", "random"}
    for _, part in primary.groupby(["split", "centered"]):
        assert set(part["subspace"]) == expected
    after = score_frame([controlled], "after", controls=True)
    assert set(after["split"]) == {"train", "test"}
    r2 = primary.query("split == 'train' and centered").set_index("subspace")["r2"]
    assert r2.drop("random").notna().all()
    assert r2.drop("random").max() <= controlled.probes["last"].r2 + 0.2
    assert np.isnan(r2["random"])
    assert ExperimentResult.from_dict(json.loads(json.dumps(controlled.to_dict()))) == controlled


@pytest.mark.slow
def test_curves_and_last_step_are_kept(controlled):
    tuned = controlled.finetuning
    assert [point.step for point in tuned.lora_curve] == [0, 2, 5, 10]
    assert tuned.lora_curve[0].cross_entropy == pytest.approx(tuned.frozen_curve[0].cross_entropy, rel=1e-3)
    assert len(tuned.lora_predictions) == len(tuned.frozen_predictions) == 90
    row = controlled.to_row()
    assert {"last", "lora_cross_entropy", "r2_last", "cross_entropy_skill_last"} <= set(row)


@pytest.mark.slow
def test_probe_skills_are_those_of_scikit_learn(controlled):
    """R-squared and cross-entropy skill from predictions of independent fits."""
    settings = ExperimentConfig(lora=None, n_train=150, n_test=90)
    train, test = settings.texts("lab/topic")
    model = load_model("lab/XS", dtype="float32")
    x, x_test = (
        extract(model, part, layers="last", features="last").features[model.n_layers - 1] for part in (train, test)
    )
    probe = logistic_probe(x, train.labels, x_test, test.labels)
    scaler = StandardScaler().fit(x)
    fitted = LogisticRegression(C=probe.strength, max_iter=5000).fit(scaler.transform(x), train.labels)
    loss = log_loss(test.labels, fitted.predict_proba(scaler.transform(x_test)), labels=fitted.classes_)
    shares = np.bincount(train.labels) / len(train)
    skill = 1 - loss / -np.log(shares[test.labels]).mean()
    assert controlled.probes["last"].cross_entropy_skill == pytest.approx(skill, abs=0.02)
    Y, Y_test = np.eye(train.n_classes)[train.labels], np.eye(train.n_classes)[test.labels]
    r2 = 1 - np.sum((Y_test - LinearRegression().fit(x, Y).predict(x_test)) ** 2) / np.sum(
        (Y_test - Y_test.mean(0)) ** 2
    )
    assert controlled.probes["last"].r2 == pytest.approx(r2, abs=0.02)


@pytest.mark.slow
def test_shuffled_labels_leave_nothing_to_learn():
    settings = ExperimentConfig(
        lora=SHORT, frozen=replace(SHORT, method="frozen"), n_train=150, n_test=90, shuffle_labels=True
    )
    result = run_experiment(load_model("lab/XS", dtype="float32"), *settings.texts("lab/topic"), settings)
    assert result.probes["last"].accuracy > 0.5  # the probe sees the true labels
    assert result.finetuning.lora_accuracy < 0.35


@pytest.mark.parametrize("split", ["train", "test"])
def test_texts_of_one_class_are_refused_before_the_work(split, monkeypatch):
    monkeypatch.setattr("ntps_utils.evidence.experiment.extract", None)
    model = load_model("lab/XS", dtype="float32")
    parts = {name: load_texts("lab/topic", name).head(60) for name in ("train", "test")}
    one = parts[split]
    parts[split] = one.select([i for i, label in enumerate(one.labels) if label == 0])
    with pytest.raises(ValueError, match=rf"All \d+ {split} texts of lab/topic have one class"):
        run_experiment(model, parts["train"], parts["test"], ExperimentConfig(lora=None))
