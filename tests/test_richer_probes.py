"""Probes of tokens, of several layers and of words, on problems whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.loading import load_model
from ntps_utils.models.probes import logistic_probe
from ntps_utils.models.richer_probes import (
    TokenFeatures,
    _AttentionProblem,
    bag_of_words,
    bag_of_words_accuracy,
    compare_attention,
    multi_layer_accuracy,
    token_features,
)

N, T, D = 240, 12, 16


def planted(kind: str, seed: int = 0) -> TokenFeatures:
    """Random tokens, with the class in nothing, the mean of all tokens, the value beside a key, or an early layer."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(N) % 2)
    tokens = rng.normal(size=(N, T, D))
    lengths = rng.integers(6, T + 1, N)
    mask = np.arange(T) < lengths[:, None]
    signs = 2.0 * labels - 1.0
    if kind == "mean":
        tokens[:, :, 0] += signs[:, None]
    if kind == "one token":
        # Each text has one token with the key, whose value tells the class; the values of the others are random.
        place = rng.integers(0, lengths)
        tokens[:, :, 0] = rng.choice([-1.0, 1.0], (N, T))
        tokens[:, :, 1] = 0.0
        tokens[np.arange(N), place, 0], tokens[np.arange(N), place, 1] = signs, 3.0
    return TokenFeatures(torch.tensor(tokens, dtype=torch.float32), torch.tensor(mask), labels)


def test_attention_finds_what_one_token_shows():
    found = compare_attention(planted("one token"))
    assert found.mean_accuracy < 0.75
    assert found.accuracy > 0.95
    assert found.cross_entropy < found.mean_cross_entropy - 0.3


@pytest.mark.parametrize("kind", ["none", "mean"])
def test_attention_gains_nothing_where_the_mean_shows_all_there_is(kind):
    gains = [(c := compare_attention(planted(kind, seed), seed=seed)).accuracy - c.mean_accuracy for seed in range(2)]
    assert abs(np.mean(gains)) < 0.03


def test_mean_pooling_is_the_logistic_probe():
    features = planted("mean")
    pooled = np.stack([row[m].mean(0).double().numpy() for row, m in zip(features.tokens, features.mask, strict=True)])
    rows, test = np.arange(0, 160), np.arange(160, N)
    problem, start = _AttentionProblem.of(features, pooled, features.labels, rows, 0)
    probe = logistic_probe(pooled[rows], features.labels[rows], pooled[test], features.labels[test])
    n_correct, loss = problem.evaluate(start, test)
    assert n_correct / len(test) == pytest.approx(probe.test_accuracy)
    x = (pooled[test] - pooled[rows].mean(0)) / pooled[rows].std(0)
    scores = x @ probe.weights.T + probe.biases
    log_p = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    assert loss == pytest.approx(-log_p[np.arange(len(test)), features.labels[test]].sum(), rel=1e-4)


def test_padding_does_not_count():
    features = planted("one token")
    noisy = features.tokens.clone()
    noisy[~features.mask] = 1e3
    changed = TokenFeatures(noisy, features.mask, features.labels)
    assert compare_attention(changed) == compare_attention(features)


def test_several_layers_show_what_the_last_does_not():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N) % 2)
    layers = list(rng.normal(size=(3, N, D)))
    assert multi_layer_accuracy(layers, labels) < 0.6
    layers[0][:, 3] += 3.0 * (2.0 * labels - 1.0)
    assert logistic_probe(layers[-1], labels, layers[-1], labels).cv_accuracy < 0.6
    assert multi_layer_accuracy(layers, labels) > 0.95


def test_words_show_what_features_do_not():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(120) % 3)
    filler = ["river", "stone", "cloud", "grass", "light"]
    words = np.array(["good", "bad", "plain"])[labels]
    texts = [f"{' '.join(rng.choice(filler, 5))} {word}" for word in words]
    assert bag_of_words_accuracy(texts, labels) > 0.95
    assert bag_of_words_accuracy(texts, rng.permutation(labels)) < 0.5


def test_texts_without_words_are_read_by_characters():
    texts, labels = ["a ! 1", "? b 2"] * 10, np.array([0, 1] * 10)
    assert bag_of_words_accuracy(texts, labels) == 1.0
    assert bag_of_words().fit(texts, labels).predict(["! 3 !"]).tolist() == [0]
    with pytest.raises(ValueError, match="empty vocabulary"):
        bag_of_words_accuracy([""] * 20, labels)


def test_a_bag_of_words_does_not_see_their_order():
    classifier = bag_of_words().fit(["good film", "bad film"] * 10, [0, 1] * 10)
    assert classifier.score(["a good one", "a bad one"], [0, 1]) == 1.0
    assert classifier.predict(["good bad"]) == classifier.predict(["bad good"])


def test_label_noise_limits_every_probe():
    """With a fifth of the labels flipped, none is more accurate than the share of correct ones, within error."""
    features = planted("one token")
    flipped = np.random.default_rng(1).random(N) < 0.2
    noisy = TokenFeatures(features.tokens, features.mask, features.labels ^ flipped)
    assert 0.65 < compare_attention(noisy).accuracy < 0.8 + 3 * (0.16 / N) ** 0.5


def test_token_features_are_those_of_the_extraction():
    model = load_model("lab/XS")
    data = load_texts("lab/topic").head(40)
    ids = tokenize(model, data).ids
    seen: list[int] = []
    found = token_features(model, ids, data.labels, progress=seen.append)
    assert sum(seen) == 40
    expected = extract(model, data, features="all").features
    last = model.n_layers - 1
    assert found.mask.sum(1).tolist() == [len(row) for row in ids]
    for row, mask, mean in zip(found.tokens, found.mask, expected[last], strict=True):
        assert np.allclose(row[mask].mean(0), mean, atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        ([[1], []], [0, 1], "has no token"),
        ([], [], "there are no texts"),
        ([[1]], [0, 1], "one list of tokens for each of 2 texts, got 1"),
    ],
)
def test_unusable_texts_are_refused(ids, labels, message):
    with pytest.raises(ValueError, match=message):
        token_features(load_model("lab/XS"), ids, np.array(labels, dtype=int))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 0, 1]])
def test_classes_that_cannot_be_divided_are_refused(labels):
    with pytest.raises(ValueError, match="at least two classes, and two texts of each"):
        bag_of_words_accuracy(["a b", "c d", "e f", "g h"], np.array(labels))
