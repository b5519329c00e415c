"""Probes against independent formulas, and their warnings and errors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from ntps_utils.models.probes import STRENGTHS, ProbeWarning, chance_adjusted, linear_probe, logistic_probe


def blobs(n: int, c: int, d: int, gap: float, seed: int, centers_seed: int = 0):
    """Gaussian classes around random centers; ``gap`` is the standard deviation of the centers."""
    rng = np.random.default_rng(seed)
    centers = gap * np.random.default_rng(centers_seed).normal(size=(c, d))
    y = np.arange(n) % c
    return centers[y] + rng.normal(size=(n, d)), y


@pytest.mark.parametrize(("c", "d", "seed"), [(2, 3, 0), (5, 10, 1), (3, 40, 2)])
def test_linear_probe_is_ordinary_least_squares(c, d, seed):
    x, y = blobs(200, c, d, 0.5, seed)
    x_test, y_test = blobs(90, c, d, 0.5, seed + 1)
    probe = linear_probe(x, y, x_test, y_test)
    targets = np.eye(c)
    oracle = LinearRegression().fit(x, targets[y])
    for name, features, labels in (("train", x, y), ("test", x_test, y_test)):
        predicted = oracle.predict(features)
        assert getattr(probe, f"{name}_mse") == pytest.approx(((predicted - targets[labels]) ** 2).sum(1).mean())
        assert getattr(probe, f"{name}_accuracy") == np.mean(predicted.argmax(1) == labels)


def test_linear_probe_warns_of_fewer_texts_than_features():
    x, y = blobs(20, 2, 50, 0.0, 0)
    with pytest.warns(ProbeWarning, match="20 texts for 50 features"):
        probe = linear_probe(x, y, x + 1, y)
    assert probe.train_mse < 1e-20


@pytest.mark.parametrize("c", [2, 4])
def test_logistic_probe_separates_classes_and_is_at_chance_on_noise(c):
    x, y = blobs(300, c, 8, 3.0, 0)
    x_test, y_test = blobs(300, c, 8, 3.0, 1)
    probe = logistic_probe(x, y, x_test, y_test)
    assert probe.test_accuracy > 0.97
    # The predictions follow from the weights.
    z = (x_test - x.mean(0)) / x.std(0)
    assert np.array_equal(probe.classes[(z @ probe.weights.T + probe.biases).argmax(1)], probe.predictions)
    rng = np.random.default_rng(0)
    noise = logistic_probe(rng.normal(size=(300, 8)), y, rng.normal(size=(300, 8)), y_test)
    assert abs(noise.test_accuracy - 1 / c) < 0.12


@pytest.mark.parametrize("c", [2, 4])
def test_a_kept_probe_classifies_as_it_did(c):
    rng = np.random.default_rng(c)
    y, y_test = rng.integers(c, size=300), rng.integers(c, size=100)
    centers = rng.normal(size=(c, 6))
    x, x_test = (3.0 + 5.0 * (centers[one] + 0.5 * rng.normal(size=(len(one), 6))) for one in (y, y_test))
    x[:, 0] = x_test[:, 0] = 7.0  # a constant feature
    probe = logistic_probe(x, y + 1, x_test, y_test + 1)  # class 0 has no text
    again = pickle.loads(pickle.dumps(probe))
    assert again.predict(x_test).tolist() == probe.predictions.tolist()
    assert np.mean(again.predict(x) == y + 1) == probe.train_accuracy
    with pytest.raises(ValueError, match=r"must have the shape \(n, 6\), .* got \(100, 5\)"):
        probe.predict(x_test[:, 1:])
    with pytest.raises(ValueError, match="must be finite numbers"):
        probe.predict(np.full((1, 6), np.nan))


def test_logistic_probe_is_invariant_to_scale_and_shift():
    x, y = blobs(200, 3, 5, 0.7, 0)
    x_test, y_test = blobs(200, 3, 5, 0.7, 1)
    scale = 10.0 ** np.arange(-3, 2)
    plain = logistic_probe(x, y, x_test, y_test)
    scaled = logistic_probe(x * scale + 7, y, x_test * scale + 7, y_test)
    assert plain.strength == scaled.strength
    assert np.mean(plain.predictions == scaled.predictions) > 0.99


def test_logistic_probe_warns_of_leaks_and_new_classes():
    x, y = blobs(200, 2, 4, 3.0, 0)
    with pytest.warns(ProbeWarning, match="far below one half"):
        logistic_probe(x, y, x, 1 - y)
    with pytest.warns(ProbeWarning, match=r"test texts only, by number: \[2\]\."):
        logistic_probe(x, y, x[:3], np.array([0, 1, 2]))


def test_class_of_one_text_disables_cross_validation():
    x, y = blobs(50, 2, 4, 3.0, 0)
    y[0] = 2
    probe = logistic_probe(x, y, x, y)
    assert probe.test_accuracy > 0.9
    assert np.isnan(probe.cv_accuracy)
    assert probe.strength == STRENGTHS[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"train_labels": np.zeros(9, int)}, r"train: .* labels shape \(n,\)"),
        (lambda a: a | {"train_labels": np.zeros(10, int)}, "All 10 training texts have the label 0"),
        (lambda a: a | {"test_labels": -np.ones(10, int)}, "class numbers"),
        (lambda a: a | {"train_labels": np.linspace(0, 1, 10)}, "class numbers"),
        (lambda a: a | {"test": np.full((10, 3), np.nan)}, "finite"),
        (lambda a: a | {"test": np.ones((10, 4))}, "train has 3, test 4"),
    ],
)
def test_invalid_arguments_are_refused(change, message):
    y = np.arange(10) % 2
    valid = {"train": np.eye(10, 3), "train_labels": y, "test": np.eye(10, 3), "test_labels": y}
    with pytest.raises(ValueError, match=message):
        logistic_probe(**change(valid))


def test_linear_probe_refuses_fewer_classes_than_labels():
    with pytest.raises(ValueError, match="n_classes must be an integer of at least 3, got 2"):
        linear_probe(np.eye(4, 3), [0, 1, 2, 0], np.eye(4, 3), [0, 1, 2, 0], n_classes=2)


def test_chance_adjusted_accuracy():
    assert chance_adjusted(0.5, [0, 1]) == 0
    assert chance_adjusted(1.0, [0, 0, 1]) == 1
    assert chance_adjusted(0.9, [0] * 9 + [1]) == pytest.approx(0)
    assert chance_adjusted(0.0, [0, 1]) == -1
    assert np.isnan(chance_adjusted(1.0, [1, 1]))
