"""Transferability scores: invariances, noise, few texts, and independent formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.loading import load_model
from ntps_utils.models.transferability import (
    TRANSFERABILITY_SCORES,
    FrozenFeatures,
    _adapter_gradients,
    h_score,
    headroom,
    knn_accuracy,
    linearize,
    linearized_gain,
    logme,
)

FEATURE_SCORES = [headroom, h_score, logme, knn_accuracy]


def random_features(n: int, d: int, c: int, gap: float, seed: int = 0) -> FrozenFeatures:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % c)
    return FrozenFeatures(gap * rng.normal(size=(c, d))[y] + rng.normal(size=(n, d)) + 3.0, y)


@pytest.mark.parametrize("score", FEATURE_SCORES)
@pytest.mark.parametrize(("n", "d", "c"), [(150, 10, 2), (120, 20, 5), (60, 90, 3)])
def test_relabeling_does_not_change_scores(score, n, d, c):
    data = random_features(n, d, c, 0.7)
    relabeled = replace(data, labels=(np.random.default_rng(1).permutation(c) * 3 + 1)[data.labels])
    assert score(relabeled) == pytest.approx(score(data), abs=0.02 if score is headroom else 1e-9)


@pytest.mark.parametrize("score", FEATURE_SCORES)
@pytest.mark.parametrize(("n", "d"), [(150, 10), (60, 90)])
def test_rotation_and_common_scale_do_not_change_scores(score, n, d):
    data = random_features(n, d, 3, 0.7)
    rotation = stats.ortho_group.rvs(d, random_state=0)
    rotated = replace(data, features=data.features @ rotation * 1e-3)
    # The probe behind headroom standardizes features one by one, so headroom is invariant approximately.
    assert score(rotated) == pytest.approx(score(data), abs=0.08 if score is headroom else 1e-5)


@pytest.mark.parametrize(("n", "d"), [(400, 10), (100, 300)])
def test_scores_separate_noise_from_distinct_classes(n, d):
    noise, distinct = random_features(n, d, 2, 0.0), random_features(n, d, 2, 2.0)
    assert headroom(noise) == pytest.approx(0.5, abs=0.15)
    assert headroom(distinct) < 0.05
    # Without shrinkage the H-score of noise would be 1 for 100 texts of 300 features.
    assert h_score(noise) < 0.15
    assert h_score(distinct) > 3 * h_score(noise)
    assert knn_accuracy(noise) == pytest.approx(0.5, abs=0.15)
    assert knn_accuracy(distinct) > 0.95
    assert logme(distinct) > logme(noise) + 0.1


def test_logme_of_noise_is_the_evidence_of_a_constant():
    data = random_features(200, 10, 2, 0.0)
    y = (data.labels == 0).astype(float)
    n, v = 200, 200 * y.var() / 199
    constant = -0.5 * 199 * (1 + np.log(2 * np.pi * v)) / n
    assert constant - 1e-9 <= logme(data) < constant + 0.02


@pytest.mark.parametrize(("n", "d"), [(40, 5), (12, 30)])
def test_logme_is_a_gaussian_density_at_the_best_variances(n, d):
    data = random_features(n, d, 2, 0.4, seed=3)
    centered = data.features - data.features.mean(0)
    # An orthonormal basis of the vectors that sum to zero.
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:]
    gram = basis.T @ centered @ centered.T @ basis
    target = basis.T @ (data.labels == 0).astype(float)

    def negative_log_density(p):
        cov = np.exp(p[0]) * np.eye(n - 1) + np.exp(p[1]) * gram
        return -stats.multivariate_normal(np.zeros(n - 1), cov).logpdf(target)

    minimum = min(
        optimize.minimize(
            negative_log_density, (a, b), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000}
        ).fun
        for a in (-2.0, 0.0)
        for b in (-8.0, -4.0, -1.0)
    )
    assert logme(data) * n == pytest.approx(-minimum, abs=1e-4)


def test_knn_excludes_the_text_itself():
    x = np.repeat(np.arange(20.0)[:, None], 2, axis=1)
    data = FrozenFeatures(x, np.arange(20) % 2)
    # On a line with alternating classes, the nearest neighbors have the other class.
    assert knn_accuracy(data, n_neighbors=1) == 0.0


@pytest.fixture(scope="module")
def lab_features():
    def make(task: str, n: int = 300) -> FrozenFeatures:
        model, data = load_model("lab/XS", dtype="float32"), load_texts(f"lab/{task}").head(n)
        tokens = tokenize(model, data)
        features = extract(model, data, layers="last", features="last", tokens=tokens).features[model.n_layers - 1]
        return FrozenFeatures(features, data.labels, model, tokens.ids)

    return make


def test_adapter_gradients_are_difference_quotients(lab_features):
    data = lab_features("topic", 6)
    model = data.model
    directions = np.random.default_rng(0).normal(size=(2, data.features.shape[1]))
    gradients = _adapter_gradients(data, data.ids, directions, rank=3, sketch=10**6, batch_size=4)
    # The same random matrices, drawn in the same order.
    generator, blocks, step = torch.Generator().manual_seed(0), [], 1e-3
    names = [n for n, m in model.model.named_modules() if n.endswith(("q_proj", "k_proj", "v_proj"))]
    for name in names:
        weight = model.model.get_submodule(name).weight
        a = torch.randn(3, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
        b = torch.randn(weight.shape[0], 3, generator=torch.Generator().manual_seed(len(blocks)))
        blocks.append((weight, a, b))
    theta = torch.cat([b.flatten() for *_, b in blocks]).double()

    def features(sign: float) -> torch.Tensor:
        originals = [w.detach().clone() for w, *_ in blocks]
        with torch.no_grad():
            for w, a, b in blocks:
                w += sign * step * b @ a
            means = []
            for row in data.ids:
                hidden = model.model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0]
                means.append(hidden.mean(0))
            for (w, *_), original in zip(blocks, originals, strict=True):
                w.copy_(original)
        return torch.stack(means).double() @ torch.as_tensor(directions.T)

    quotient = (features(1.0) - features(-1.0)) / (2 * step)
    assert torch.allclose(gradients @ theta, quotient, rtol=2e-2, atol=2e-2 * quotient.abs().max())


@pytest.mark.slow
def test_linearized_gain_is_deterministic_and_removes_its_hooks(lab_features):
    data = lab_features("order", 200)

    def n_hooks() -> int:
        return sum(len(m._forward_hooks) for m in data.model.model.modules())

    before = n_hooks()
    gain = linearized_gain(data)
    assert -0.2 < gain < 1.0
    assert linearized_gain(data) == gain
    assert n_hooks() == before


@pytest.mark.slow
def test_linearized_gain_of_random_labels_is_small(lab_features):
    assert linearized_gain(lab_features("random", 600)) < 0.1


def test_the_linearization_runs_without_dropout_and_restores_the_mode(dropout_model, tiny_data):
    data = load_texts(tiny_data)
    tokens = tokenize(dropout_model, data)
    x = np.random.default_rng(0).normal(size=(len(data), dropout_model.dimension))

    def gain() -> float:
        features = FrozenFeatures(x, data.labels, dropout_model, tokens.ids)
        return linearize(features, rank=2, sketch=4, penalties=(1e-2,)).accuracy

    def gradients() -> torch.Tensor:
        features = FrozenFeatures(x, data.labels, dropout_model, tokens.ids)
        return _adapter_gradients(features, tokens.ids, np.eye(2, 16), 2, 4, 32)

    dropout_model.model.eval()
    expected, expected_gradients = gain(), gradients()
    dropout_model.model.train()
    dropout_model.model.transformer.h[0].eval()  # as for a block that is frozen in training
    flags = [m.training for m in dropout_model.model.modules()]
    assert gain() == expected
    assert torch.equal(gradients(), expected_gradients)
    assert [m.training for m in dropout_model.model.modules()] == flags


def test_every_transferability_score_returns_a_float(lab_features):
    data = lab_features("tense", 60)
    assert {name: type(score(data)) for name, score in TRANSFERABILITY_SCORES.items()} == dict.fromkeys(
        TRANSFERABILITY_SCORES, float
    )


def test_frozen_features_accept_lists():
    data = FrozenFeatures([[0.0], [1.0]], [0, 1])
    assert data.features.dtype == np.float64
    assert data.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("features", "labels", "ids", "message"),
    [
        (np.ones((3, 2)), [0, 1], None, r"features must have shape \(n, d\)"),
        (np.ones((0, 2)), [], None, r"features must have shape \(n, d\)"),
        (np.ones((3, 2)), [0, 0, 0], None, "All 3 texts have the label 0; at least two classes"),
        (np.full((3, 2), np.nan), [0, 1, 0], None, "features must be finite numbers"),
        (np.ones((3, 2)), [0.0, 1.0, 0.0], None, r"labels must be class numbers 0, 1, \.\.\., got .* \(float64\)"),
        (np.ones((3, 2)), [0, -1, 0], None, "labels must be class numbers"),
        (np.ones((3, 2)), [0, 1, 0], [[1], [2]], "one list of tokens for each of 3 texts, got 2"),
        (np.ones((3, 2)), [0, 1, 0], [[1], [], [2]], "A text has no token"),
    ],
)
def test_invalid_frozen_features_are_refused(features, labels, ids, message):
    with pytest.raises(ValueError, match=message):
        FrozenFeatures(features, labels, ids=ids)


def test_the_linearization_needs_a_model_and_enough_texts(lab_features):
    with pytest.raises(ValueError, match="needs the model and the token ids"):
        linearized_gain(random_features(40, 5, 2, 1.0))
    with pytest.raises(ValueError, match="at least 12 texts, got 8"):
        linearized_gain(lab_features("topic", 8))


@pytest.mark.slow
def test_alignment_is_one_for_labels_without_relation(lab_features):
    """Residuals of random labels have nothing to do with the tangent kernel; those of a learnable task do."""
    data = lab_features("topic", 300)
    rng = np.random.default_rng(0)
    aligned = linearize(data).alignment
    unrelated = [linearize(replace(data, labels=rng.permutation(data.labels))).alignment for _ in range(2)]
    assert np.mean(unrelated) == pytest.approx(1.0, abs=0.5)
    assert aligned > 2 * np.mean(unrelated)


@pytest.mark.slow
def test_sketched_kernel_estimates_the_exact_one(lab_features):
    data = lab_features("topic", 40)
    directions = np.random.default_rng(0).normal(size=(1, data.features.shape[1]))
    ids = data.ids[:40]
    exact = _adapter_gradients(data, ids, directions, 8, 10**9, 32)[:, 0]
    r = torch.as_tensor(np.random.default_rng(1).normal(size=40)) + 1.0
    true = float((r @ exact).square().sum())
    errors = []
    for sketch in (4, 32):
        values = []
        for seed in range(8):
            sketched = _adapter_gradients(replace(data, seed=seed), ids, directions, 8, sketch, 32)[:, 0]
            width = data.model.dimension / min(sketch, data.model.dimension)
            values.append(float((r @ sketched).square().sum()) * width)
        errors.append(np.mean(np.abs(np.array(values) / true - 1)))
    assert errors[1] < errors[0]
    assert errors[1] < 0.5
