"""Facts about the features of each layer, and the recorded facts about real models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ntps_utils.evidence.records import load_record
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import hidden_states, tokenize
from ntps_utils.models.features import layer_facts
from ntps_utils.models.fetch import fetched_file
from ntps_utils.models.loading import load_model, paragraph_loss
from ntps_utils.models.projection import explained_variance
from ntps_utils.models.scoring import score_model


@pytest.fixture(scope="module")
def model():
    return load_model("lab/XS", device="cpu")


@pytest.fixture(scope="module")
def data():
    return load_texts("lab/topic").head(120)


@pytest.fixture(scope="module")
def facts(model, data):
    return layer_facts(model, data, batch_size=16)


@pytest.mark.slow
def test_facts_equal_their_definitions(model, data, facts):
    ids = tokenize(model, data).ids
    for layer in range(model.n_layers):
        with torch.inference_mode():
            texts = [hidden_states(model, [row])[layer][0].numpy() for row in ids]
        first = np.sqrt(np.mean([np.sum(x[0] ** 2) for x in texts]))
        others = np.sqrt(np.mean(np.concatenate([np.sum(x[1:] ** 2, 1) for x in texts])))
        tokens = np.concatenate(texts)
        means = np.array([x.mean(0) for x in texts])
        variances = np.linalg.eigvalsh(np.cov(means.T, bias=True))
        row = facts.iloc[layer]
        assert row["first_token"] == pytest.approx(first / others)
        assert row["largest"] == pytest.approx((tokens**2).sum(0).max() / (tokens**2).sum())
        assert row["mean_share"] == pytest.approx(np.sum(means.mean(0) ** 2) / np.mean(np.sum(means**2, 1)))
        assert row["effective_rank"] == pytest.approx(variances.sum() ** 2 / (variances**2).sum())


def test_scores_are_those_of_the_model(model, data, facts):
    report = score_model(model, data, k_v=model.dimension // 2)
    for name in ("ntps", "ntps_metric", "ntps_task"):
        np.testing.assert_allclose(facts[name], [getattr(row, name) for row in report], rtol=1e-6)


def test_shifted_products_change_scores_least(facts):
    assert facts["shifted"].max() < 1e-4
    assert facts["shifted"].max() <= facts["cut"].max()
    assert (facts["cut_rank"] <= 32).all()


def test_held_out_share_is_lower_than_the_share_of_the_same_texts():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(100, 60)), np.arange(100) % 2
    test, test_labels = rng.normal(size=(400, 60)), np.arange(400) % 2
    assert explained_variance(x, labels) > 0.4
    assert explained_variance(x, labels, test, test_labels) < 0.0
    weights = np.zeros(60)
    weights[0] = 1.0
    signal = x + 5.0 * np.outer(labels, weights), test + 5.0 * np.outer(test_labels, weights)
    share = explained_variance(signal[0][:, :1], labels, signal[1][:, :1], test_labels)
    assert share == pytest.approx(explained_variance(signal[1][:, :1], test_labels), abs=0.02)


def test_recorded_real_models_are_complete():
    recorded = load_record("real_models")
    assert "provenance" in recorded
    for name, facts in recorded["models"].items():
        layers = facts["layers"]
        assert {len(column) for column in layers.values()} == {len(layers["layer"])}
        assert max(layers["shifted"]) < 2e-5, name
        assert facts["n_texts"] > facts["dimension"]
        assert 1.0 < facts["paragraph_loss"] < 6.0
        assert all(len(row["point"]) == 2 for row in facts["words"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_real_model_has_the_recorded_loss(name):
    if not fetched_file(name).is_file():
        pytest.skip(f"{name} is not here: ntps models fetch {name}")
    facts = load_record("real_models")["models"][name]
    model = load_model(name, dtype="float32")
    assert model.fingerprint == facts["fingerprint"]
    assert paragraph_loss(model) == pytest.approx(facts["paragraph_loss"], abs=0.01)
