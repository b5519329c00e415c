"""Rivals: noise, rotation, scaling, relabeling, few texts; and evidence against a Gaussian density."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from ntps_utils.models import transferability as rivals
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.loading import load_model
from ntps_utils.models.transferability import (
    TRANSFERABILITY_SCORES,
    FrozenFeatures,
    h_score,
    headroom,
    knn_accuracy,
    linearized_gain,
    logme,
)

FEATURE_RIVALS = [headroom, h_score, logme, knn_accuracy]


def case_of(n: int, d: int, c: int, gap: float, seed: int = 0) -> FrozenFeatures:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % c)
    return FrozenFeatures(gap * rng.normal(size=(c, d))[y] + rng.normal(size=(n, d)) + 3.0, y)


@pytest.mark.parametrize("rival", FEATURE_RIVALS)
@pytest.mark.parametrize(("n", "d", "c"), [(150, 10, 2), (120, 20, 5), (60, 90, 3)])
def test_relabeling_changes_nothing(rival, n, d, c):
    case = case_of(n, d, c, 0.7)
    mapped = replace(case, labels=(np.random.default_rng(1).permutation(c) * 3 + 1)[case.labels])
    assert rival(mapped) == pytest.approx(rival(case), abs=0.02 if rival is headroom else 1e-9)


@pytest.mark.parametrize("rival", FEATURE_RIVALS)
@pytest.mark.parametrize(("n", "d"), [(150, 10), (60, 90)])
def test_rotation_and_scale(rival, n, d):
    case = case_of(n, d, 3, 0.7)
    rotation = stats.ortho_group.rvs(d, random_state=0)
    turned = replace(case, features=case.features @ rotation * 1e-3)
    # A probe standardizes features one by one: not exactly invariant, as its docstring says.
    assert rival(turned) == pytest.approx(rival(case), abs=0.08 if rival is headroom else 1e-5)


@pytest.mark.parametrize(("n", "d"), [(400, 10), (100, 300)])
def test_noise_scores_low_and_separated_classes_high(n, d):
    noise, clear = case_of(n, d, 2, 0.0), case_of(n, d, 2, 2.0)
    assert headroom(noise) == pytest.approx(0.5, abs=0.15)
    assert headroom(clear) < 0.05
    # Without shrinkage the second would be 1 on noise.
    assert h_score(noise) < 0.15
    assert h_score(clear) > 3 * h_score(noise)
    assert knn_accuracy(noise) == pytest.approx(0.5, abs=0.15)
    assert knn_accuracy(clear) > 0.95
    assert logme(clear) > logme(noise) + 0.1


def test_evidence_of_noise_is_that_of_a_constant():
    case = case_of(200, 10, 2, 0.0)
    y = (case.labels == 0).astype(float)
    n, v = 200, 200 * y.var() / 199
    constant = -0.5 * 199 * (1 + np.log(2 * np.pi * v)) / n
    assert constant - 1e-9 <= logme(case) < constant + 0.02


@pytest.mark.parametrize(("n", "d"), [(40, 5), (12, 30)])
def test_logme_is_a_gaussian_density_at_its_best_variances(n, d):
    case = case_of(n, d, 2, 0.4, seed=3)
    centered = case.features - case.features.mean(0)
    # An orthonormal basis of the vectors that sum to zero.
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:]
    gram = basis.T @ centered @ centered.T @ basis
    target = basis.T @ (case.labels == 0).astype(float)

    def minus(p):
        cov = np.exp(p[0]) * np.eye(n - 1) + np.exp(p[1]) * gram
        return -stats.multivariate_normal(np.zeros(n - 1), cov).logpdf(target)

    best = min(
        optimize.minimize(
            minus, (a, b), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000}
        ).fun
        for a in (-2.0, 0.0)
        for b in (-8.0, -4.0, -1.0)
    )
    assert logme(case) * n == pytest.approx(-best, abs=1e-4)


def test_knn_leaves_the_text_itself_out():
    x = np.repeat(np.arange(20.0)[:, None], 2, axis=1)
    case = FrozenFeatures(x, np.arange(20) % 2)
    # On a line with alternating classes, nearest neighbors are of the other class.
    assert knn_accuracy(case, n_neighbors=1) == 0.0


@pytest.fixture(scope="module")
def lab_case():
    def make(task: str, n: int = 300) -> FrozenFeatures:
        model, data = load_model("lab/XS", dtype="float32"), load_texts(f"lab/{task}").head(n)
        at = extract(model, data, layers=(model.n_layers - 1,), features=(model.n_layers - 1,))
        ids = tokenize(model, data).ids
        return FrozenFeatures(
            at.features[model.n_layers - 1], data.labels[at.row_indices], model, [ids[i] for i in at.row_indices]
        )

    return make


def test_adapter_gradients_are_those_of_autograd(lab_case):
    """Against a difference quotient: put theta into the weights and look at the features."""
    case = lab_case("topic", 6)
    model = case.model
    direction = np.random.default_rng(0).normal(size=(2, case.features.shape[1]))
    ours = rivals._adapter_gradients(model, case.ids, direction, 3, 10**6, 4, 0)
    # The same random matrices, drawn in the same order.
    generator, blocks, step = torch.Generator().manual_seed(0), [], 1e-3
    names = [n for n, m in model.model.named_modules() if n.endswith(("q_proj", "k_proj", "v_proj"))]
    for name in names:
        weight = model.model.get_submodule(name).weight
        low = torch.randn(3, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
        b = torch.randn(weight.shape[0], 3, generator=torch.Generator().manual_seed(len(blocks)))
        blocks.append((weight, low, b))
    theta = torch.cat([b.flatten() for *_, b in blocks]).double()

    def features(sign: float) -> torch.Tensor:
        saved = [w.detach().clone() for w, *_ in blocks]
        with torch.no_grad():
            for w, low, b in blocks:
                w += sign * step * b @ low
            pooled = []
            for row in case.ids:
                hidden = model.model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0]
                pooled.append(hidden.mean(0))
            for (w, *_), old in zip(blocks, saved, strict=True):
                w.copy_(old)
        return torch.stack(pooled).double() @ torch.as_tensor(direction.T)

    quotient = (features(1.0) - features(-1.0)) / (2 * step)
    assert torch.allclose(ours @ theta, quotient, rtol=2e-2, atol=2e-2 * quotient.abs().max())


def test_linearized_gain_sees_what_lora_can_learn_and_nothing_in_a_coin(lab_case):
    assert linearized_gain(lab_case("random", 600)) < 0.1
    order = linearized_gain(lab_case("order", 600))
    assert -0.2 < order < 1.0
    case = lab_case("order")

    def hooks() -> int:
        return sum(len(m._forward_hooks) for m in case.model.model.modules())

    before = hooks()
    assert linearized_gain(case) == linearized_gain(case)  # deterministic
    assert hooks() == before


def test_every_rival_takes_a_case(lab_case):
    case = lab_case("tense", 60)
    assert {name: type(rival(case)) for name, rival in TRANSFERABILITY_SCORES.items()} == dict.fromkeys(
        TRANSFERABILITY_SCORES, float
    )


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((3, 2)), np.array([0, 1]), r"shape \(n, d\)"),
        (np.ones((3, 2)), np.zeros(3, int), "at least two classes"),
        (np.full((3, 2), np.nan), np.array([0, 1, 0]), "finite"),
    ],
)
def test_bad_cases_say_what_is_wrong(features, labels, message):
    with pytest.raises(ValueError, match=message):
        FrozenFeatures(features, labels)


def test_linearized_gain_without_a_model_says_so():
    with pytest.raises(ValueError, match="needs the model"):
        linearized_gain(case_of(40, 5, 2, 1.0))
