"""Word features, and coordinates in perception and autoregressive directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract
from ntps_utils.models.loading import load_model
from ntps_utils.models.projection import (
    autoregressive_coordinates,
    explained_variance,
    perception_coordinates,
    word_features,
)
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.score import subspaces


@pytest.fixture(scope="module")
def model():
    return load_model("lab/XS")


@pytest.fixture(scope="module")
def data():
    return load_texts("lab/topic").head(60)


def test_word_features_are_means_over_occurrences(model, data):
    words = word_features(model, data, 2)
    sums: dict[str, list[np.ndarray]] = {}
    with torch.inference_mode():
        for text in data.texts:
            ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
            states = model.model(ids, output_hidden_states=True).hidden_states[2][0].numpy()
            for token, state in zip(model.tokenizer.convert_ids_to_tokens(ids[0]), states, strict=True):
                sums.setdefault(token, []).append(state)
    assert set(words.words) == set(sums)
    for word, count, features in zip(words.words, words.counts, words.features, strict=True):
        assert count == len(sums[word])
        np.testing.assert_allclose(features, np.mean(sums[word], axis=0), atol=1e-10)


def test_word_features_exclude_dropout(dropout_model, tiny_data):
    data = load_texts(tiny_data)
    flags = [m.training for m in dropout_model.model.modules()]
    in_training = word_features(dropout_model, data, -1).features
    assert [m.training for m in dropout_model.model.modules()] == flags
    dropout_model.model.eval()
    np.testing.assert_array_equal(in_training, word_features(dropout_model, data, -1).features)


def test_perception_coordinates_have_unit_second_moments(model, data):
    extraction = extract(model, data, layers=2, features=2)
    solved = subspaces(extraction.moments.layer(2), layer=2)
    x = perception_coordinates(solved, extraction.features[2], 3)
    np.testing.assert_allclose(x.T @ x / len(x), np.eye(3), atol=1e-8)


def test_autoregressive_coordinates_of_prefix_sums_have_unit_second_moments():
    texts = list(np.random.default_rng(0).normal(size=(60, 5, 4)) + 1.0)
    solved = subspaces(Moments.from_texts(texts, np.arange(60) % 2).layer(0))
    x = autoregressive_coordinates(solved, np.concatenate([text.cumsum(0)[:-1] for text in texts]), 3)
    np.testing.assert_allclose(x.T @ x / len(texts), np.eye(3), atol=1e-8)


def test_explained_variance_is_the_coefficient_of_determination():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 3)), np.arange(80) % 4
    targets = np.eye(4)[y]
    fitted = LinearRegression().fit(x, targets).predict(x)
    expected = 1 - ((targets - fitted) ** 2).sum() / ((targets - targets.mean(0)) ** 2).sum()
    assert explained_variance(x, y) == pytest.approx(expected)
    assert explained_variance(np.eye(4)[y][:, :3], y) == pytest.approx(1.0)
