"""Predictors of the gain: planted causes, independent values, cost, and degenerate data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from book.tools import alternatives
from book.tools import predictors as tool
from ntps_utils._utils.files import data_file
from ntps_utils.evidence import calibration
from ntps_utils.evidence.calibration import load_calibration
from ntps_utils.evidence.classifiers import best_alternative
from ntps_utils.evidence.experiment import ExperimentConfig, run_experiment
from ntps_utils.evidence.predictors import PREDICTORS, Case
from ntps_utils.models.datasets import TextDataset, as_dataset, load_texts
from ntps_utils.models.extraction import Tokens, extract
from ntps_utils.models.loading import CausalModel, load_model
from ntps_utils.models.probes import logistic_probe
from ntps_utils.models.richer_probes import TokenFeatures, bag_of_words
from ntps_utils.models.transferability import FrozenFeatures

N = 180


@pytest.fixture(scope="module")
def model() -> CausalModel:
    return load_model("lab/XS", device="cpu", dtype="float32")


def case_of(model: CausalModel, data: TextDataset, **parts: object) -> Case:
    """A case with some of its parts given instead of computed."""
    case = Case(model, data)
    case.__dict__.update(parts)
    return case


def values(case: Case, *names: str) -> list[float]:
    return [PREDICTORS[name].function(case) for name in names]


def test_words_count_where_features_do_not_show_them(model):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N) % 2)
    filler = ["river", "stone", "cloud", "grass", "light"]
    texts = [f"{' '.join(rng.choice(filler, 5))} {('good', 'bad')[y]}" for y in labels]
    tokens = Tokens([[1]] * N, 0, None, "")  # nothing is cut

    def words(features: np.ndarray) -> float:
        last = {model.n_layers - 1: features}
        extraction = type("Rows", (), {"row_indices": np.arange(N), "features": last})()
        frozen = FrozenFeatures(features, labels)
        case = case_of(model, as_dataset((texts, labels)), features=frozen, extraction=extraction, tokens=tokens)
        return values(case, "words")[0]

    blind = rng.normal(size=(N, 8))
    assert words(blind) > 0.3
    assert words(blind + 6.0 * labels[:, None]) < 0.02


def test_a_bag_of_words_reads_as_much_of_a_text_as_the_model(model):
    """The words that show the class stand at the end of the texts."""
    labels = np.arange(60) % 2
    texts = ["the cat sees the dog . " * 2 + ["the bird sleeps .", "the horse eats ."][label] for label in labels]
    data = as_dataset((texts, labels))
    whole, cut = Case(model, data), Case(model, data, max_length=8)
    assert whole.accuracy("words") == 1.0
    assert cut.accuracy("words") == pytest.approx(0.5, abs=0.05)
    test = alternatives.measure(model, data, data, 8)["words"]
    assert test == {"cv": cut.accuracy("words"), "test": 0.5}
    assert alternatives.measure(model, data, data, None)["words"]["test"] == 1.0


def test_attention_and_layers_count_where_the_mean_token_hides_the_class(model):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N) % 2)
    signs, tokens = 2.0 * labels - 1.0, rng.normal(size=(N, 10, 8))
    tokens[:, :, 0], tokens[:, :, 1] = rng.choice([-1.0, 1.0], (N, 10)), 0.0
    place = rng.integers(0, 10, N)
    tokens[np.arange(N), place, 0], tokens[np.arange(N), place, 1] = signs, 3.0
    parts = TokenFeatures(torch.tensor(tokens, dtype=torch.float32), torch.ones(N, 10, dtype=torch.bool), labels)
    mean = FrozenFeatures(tokens.mean(1), labels)
    early = rng.normal(size=(N, 8))
    early[:, 0] += 3.0 * signs
    layers = Case(model, load_texts("lab/topic").head(N)).layers
    features = dict.fromkeys(layers, mean.features) | {layers[0]: early}
    case = case_of(
        model,
        load_texts("lab/topic").head(N),
        token_features=parts,
        features=mean,
        common=mean,
        extraction=type("Layers", (), {"features": features})(),
    )
    attention, loss, several = values(case, "attention", "attention_loss", "layers")
    assert attention > 0.2
    assert loss > 0.3
    assert several > 0.2


@pytest.mark.slow
def test_shuffled_labels_show_nothing(model):
    data = load_texts("lab/topic").head(200)
    shuffled = replace(data, labels=np.random.default_rng(0).permutation(data.labels))
    case = Case(model, shuffled)
    majority = np.bincount(shuffled.labels).max() / len(data)
    headroom, *gains, alignment = values(
        case, "headroom", "words", "attention", "layers", "linearized", "linearized_loss", "alignment"
    )
    assert headroom > 1 - majority - 0.1
    assert np.abs(gains).max() < 0.12
    assert abs(alignment) < 0.5


def test_values_are_those_of_an_experiment(model):
    """The calibration records experiments, and the tool computes cases: they must agree."""
    settings = ExperimentConfig(lora=None, n_train=150, n_test=50, controls=True)
    train, test = settings.texts("lab/tense")
    result = run_experiment(model, train, test, settings)
    case = Case(model, train)
    for name, score in result.transferability.items():
        assert PREDICTORS[name].function(case) == pytest.approx(score.value, abs=1e-9), name
    found = {
        (s.subspace, s.centered): s
        for s in result.scores
        if s.layer == model.n_layers - 1 and s.rule == "half" and s.split == "train"
    }
    own, random, pca = (found[name, False].ntps for name in ("next_token", "random", "pca_s"))
    expected = [own, own - random, pca, found["next_token", True].ntps_metric, found["next_token", True].ntps_task]
    assert values(case, "ntps", "net_ntps", "pca", "ntps_metric", "ntps_task") == pytest.approx(expected, abs=1e-9)


def test_every_predictor_is_finite_with_fewer_texts_than_features(model):
    data = load_texts("lab/topic").head(model.dimension - 8)
    case = Case(model, data)
    for name, predictor in PREDICTORS.items():
        assert np.isfinite(predictor.function(case)), name


def test_a_class_of_one_text_is_left_out_of_cross_validation(model):
    data = load_texts("lab/topic").head(60)
    labels = data.labels.copy()
    labels[0] = data.n_classes
    case = Case(model, TextDataset("x", "train", data.texts, labels, (*data.label_names, "rare")))
    assert len(case.features) == 60
    assert len(case.common) == 60 - np.sum(np.bincount(labels) == 1)
    assert np.isfinite(values(case, "headroom", "words", "attention", "layers")).all()


def test_accuracy_by_layer_is_that_of_a_probe_of_each_layer(model):
    data = load_texts("lab/topic").head(150)
    case = Case(model, data)
    features = extract(model, data, features="all").features
    assert list(case.layer_accuracy) == list(case.layers)
    assert case.layers[-1] == model.n_layers - 1
    for layer, accuracy in case.layer_accuracy.items():
        x = features[layer]
        assert accuracy == pytest.approx(logistic_probe(x, data.labels, x, data.labels).cv_accuracy, abs=0.01)


def test_passes_are_those_that_are_made(model, monkeypatch):
    """A predictor costs the texts that go through the model, forwards and backwards, relative to the texts."""
    data = load_texts("lab/topic").head(48)
    n_texts = {"forward": 0}
    handle = model.backbone.register_forward_pre_hook(
        lambda _m, _a, named: n_texts.update(forward=n_texts["forward"] + len(named["input_ids"])), with_kwargs=True
    )
    try:
        for name, forward in (("headroom", 1), ("attention", 2), ("linearized", 2)):
            case = Case(model, data)
            case.extraction.features  # noqa: B018  # the first extraction also checks the model
            n_texts["forward"] = 0
            case = Case(model, data)
            PREDICTORS[name].function(case)
            assert n_texts["forward"] == forward * len(data), name
    finally:
        handle.remove()
    assert PREDICTORS["linearized"].passes(48) == 1 + 1 + 3


@pytest.mark.slow
def test_the_tool_records_each_case_once_and_continues(lab_data, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "PILOTS", ())
    monkeypatch.setattr(tool, "order", lambda: ("one", "two"))
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(lab_data)
    command_line, out = typer.Typer(), tmp_path / "out.jsonl"
    command_line.command()(tool.main)
    command = ["--data", str(tmp_path), "--models", "lab/XS", "--out", str(out), "--device", "cpu"]
    assert CliRunner().invoke(command_line, [*command, "--limit", "1"]).exit_code == 0
    first = out.read_text()
    outcome = CliRunner().invoke(command_line, command)
    assert "lab/XS on one" not in outcome.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert out.read_text().startswith(first)
    assert [row["dataset"] for row in rows] == ["one", "two"]
    assert rows[0]["predictors"] == rows[1]["predictors"]
    assert rows[0]["predictors"].keys() == rows[0]["seconds"].keys() == PREDICTORS.keys()


@pytest.mark.slow
def test_the_predictors_of_the_lab_join_its_calibration(tmp_path, monkeypatch):
    command_line, out = typer.Typer(), tmp_path / "out.jsonl"
    command_line.command()(tool.main)
    monkeypatch.setattr(tool, "TASKS", ("tense",))
    rows = []
    for sources in ("features", "features,gradients"):
        options = ["--out", str(out), "--device", "cpu", "--limit", "1", "--sources", sources]
        outcome = CliRunner().invoke(command_line, options)
        assert outcome.exit_code == 0, outcome.output
        rows += map(json.loads, out.read_text().splitlines())
    first, row = rows
    assert "alignment" in row["predictors"]
    assert "attention" not in row["predictors"]
    assert first["predictors"].items() <= row["predictors"].items()
    assert first["seconds"].items() <= row["seconds"].items()
    recorded = load_calibration("lab").cells.set_index(["model", "dataset"]).loc[(row["model"], row["dataset"])]
    assert recorded["texts"] == row["texts"]
    for name in ("headroom", "ntps", "h_score", "knn"):
        assert recorded[name] == pytest.approx(row["predictors"][name], abs=0.02)


def test_predictors_that_are_not_known_for_every_run_are_left_out(tmp_path, monkeypatch):
    cells = load_calibration("lab").cells
    rows = [
        {"model": m, "dataset": d, "predictors": {"alignment": 0.1, "headroom": 9.0, "words": 9.0}}
        for m, d in zip(cells["model"], cells["dataset"], strict=True)
    ]
    file = tmp_path / "lab_predictors.jsonl"
    real = calibration.data_file
    monkeypatch.setattr(calibration, "data_file", lambda name: file if "predictors" in name else real(name))
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = load_calibration("lab").cells
    assert found["alignment"].eq(0.1).all()
    for column in ("headroom", "words"):  # these come from the runs, and from the classifiers without finetuning
        assert found[column].equals(cells[column])
    assert found.columns.is_unique
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows[:-1]))
    assert "alignment" not in load_calibration("lab").cells


@pytest.mark.slow
def test_the_recorded_alternatives_can_be_measured_again(tmp_path):
    """The tool, the classes that a prescreening uses, and probes fitted here to features of the extraction agree."""
    command_line = typer.Typer()
    command_line.command()(alternatives.main)
    out = tmp_path / "rows.jsonl"
    outcome = CliRunner().invoke(command_line, ["--limit", "1", "--out", str(out), "--device", "cpu"])
    assert outcome.exit_code == 0, outcome.output
    (row,) = map(json.loads, out.read_text().splitlines())
    recorded = [json.loads(line) for line in data_file("recorded/alternatives.jsonl").read_text("utf-8").splitlines()]
    (same,) = (one for one in recorded if (one["model"], one["dataset"]) == (row["model"], row["dataset"]))
    assert (same["weights"], same["texts"]) == (row["weights"], row["texts"])
    model = load_model(row["model"], dtype="float32")
    train, test = (load_texts(row["dataset"], split) for split in ("train", "test"))
    case = Case(model, train)
    assert set(row["accuracy"]) == set(case.alternatives)
    for name, accuracy in row["accuracy"].items():
        assert same["accuracy"][name]["test"] == pytest.approx(accuracy["test"], abs=0.01)
        assert case.alternatives[name] == pytest.approx(accuracy["cv"], abs=0.01)
    layer = case.layers[0]
    x, x_test = (extract(model, part, layers=(layer,), features=(layer,)).features[layer] for part in (train, test))
    probe = logistic_probe(x, train.labels, x_test, test.labels)
    assert probe.test_accuracy == pytest.approx(row["accuracy"][f"layer {layer}"]["test"], abs=0.01)
    words = bag_of_words().fit(train.texts, train.labels).score(test.texts, test.labels)
    assert words == pytest.approx(row["accuracy"]["words"]["test"])


@pytest.mark.parametrize("name", ["lab", "real", "declared"])
def test_leads_and_advantages_belong_to_the_recorded_runs(name):
    lines = data_file("recorded/alternatives.jsonl").read_text("utf-8").splitlines()
    known = {(row["model"], row["dataset"]): row for row in map(json.loads, lines)}
    cells = load_calibration(name).cells
    for cell in cells.to_dict("records"):
        row = known[cell["model"], cell["dataset"]]
        assert (row["weights"], row["texts"]) == (cell["weights"], cell["texts"])
        assert (row["n_texts"], row["n_test"]) == (cell["n_texts"], cell["n_test"])
        validated = {key: value["cv"] for key, value in row["accuracy"].items()}
        best, lead = best_alternative(validated)
        assert (cell["alternative"], cell["lead"]) == (best, lead)
        assert cell["advantage"] == pytest.approx(cell["lora"] - row["accuracy"][best]["test"])
        last = validated[[key for key in validated if key.startswith("layer ")][-1]]
        assert 1.0 - last == pytest.approx(cell["headroom"], abs=0.02)
        for predictor in ("words", "layers"):
            assert cell[predictor] == pytest.approx(validated[predictor] - last)
    assert cells["lead"].min() >= 0.0


def test_progress_counts_all_texts(model):
    seen: list[tuple[str, int, int]] = []
    case = Case(model, load_texts("lab/topic").head(40), progress=lambda *a: seen.append(a))
    values(case, "attention")
    assert seen[-1] == ("reading tokens", 40, 40)
    assert ("reading texts", 40, 40) in seen
