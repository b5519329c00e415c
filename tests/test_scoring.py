"""Scores of models on datasets, against an independent float64 computation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits

from ntps_utils.models.datasets import as_dataset, load_texts
from ntps_utils.models.loading import load_model
from ntps_utils.models.scoring import score_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def token_features(folder, texts, layers, max_length):
    """Hidden states of each text, one text at a time, by layer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    features = {layer: [] for layer in layers}
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")["input_ids"]
            hidden = model(ids, output_hidden_states=True).hidden_states
            for layer in layers:
                features[layer].append(hidden[layer][0].numpy())
    return features


def independent_scores(features, labels, n_classes, k, center=False):
    """Scores by their definitions: a loop over texts, generalized eigenvectors, orthonormal bases."""
    d = features[0].shape[1]
    A0, A1 = np.zeros((d, d)), np.zeros((d, d))
    for x in features:
        P = np.cumsum(x, axis=0)
        A0 += P[:-1].T @ P[:-1]
        A1 += P[:-1].T @ x[1:]
    X, Y = np.array([x.mean(0) for x in features]), np.eye(n_classes)[labels]
    if center:
        X, Y = X - X.mean(0), Y - Y.mean(0)
    n = len(X)
    S, C = X.T @ X / n, X.T @ Y / n
    V = scipy.linalg.eigh(A1 @ A1.T, A0)[1][:, ::-1][:, :k]
    r = np.linalg.matrix_rank(C, tol=1e-9 * np.linalg.norm(C, 2))
    beta, U = scipy.linalg.eigh(C @ C.T, S)
    beta, U = beta[::-1][:r], U[:, ::-1][:, :r]
    Q = scipy.linalg.orth(V / np.linalg.norm(V, axis=0))
    R = np.linalg.cholesky(S)
    Z = scipy.linalg.orth(R.T @ V / np.linalg.norm(R.T @ V, axis=0))
    cosines = np.sum((Z.T @ (R.T @ U)) ** 2, axis=0)
    ntps, metric = np.sum((Q.T @ U) ** 2) / np.sum(U**2), cosines.mean()
    spectrum, size = np.linalg.eigvalsh(S), np.sum(U**2)
    return {
        "ntps": ntps,
        "ntps_metric": metric,
        "ntps_task": beta @ cosines / beta.sum(),
        "trace_b": beta.sum(),
        "excess_loss": beta @ (1 - cosines),
        "lower_bound": beta[-1] * spectrum[0] * size * (1 - ntps),
        "upper_bound": beta[0] * spectrum[-1] * size * (1 - ntps),
        "lower_bound_metric": beta[-1] * r * (1 - metric),
        "upper_bound_metric": beta[0] * r * (1 - metric),
    }


def assert_close(report, expected_by_layer, rtol):
    for row in report:
        for name, value in expected_by_layer[row.layer].items():
            assert abs(getattr(row, name) - value) <= rtol * abs(value), (row.layer, name, getattr(row, name), value)


@pytest.mark.parametrize("center", [False, True])
def test_scores_of_a_tiny_model_agree_with_an_independent_computation(tiny_model, tiny_data, center):
    data = load_texts(tiny_data)
    report = score_model(tiny_model, tiny_data, k_v=[8], center=center, device="cpu")
    assert [row.layer for row in report] == [0, 1, 2]
    features = token_features(tiny_model, data.texts, range(3), 32)
    expected = {layer: independent_scores(x, data.labels, 3, 8, center) for layer, x in features.items()}
    assert_close(report, expected, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sst2", "climate_sentiment", "sms_spam"])
def test_scores_of_a_real_model_agree_with_an_independent_computation(shared, name):
    folder = shared / "models" / "stories260K"
    data = load_texts(shared / "data" / name).head(120)
    report = score_model(folder, data, layers="0,5", k_v=[0.25], max_length=100, device="cpu")
    features = token_features(folder, data.texts, (0, 5), 100)
    expected = {layer: independent_scores(x, data.labels, data.n_classes, 16) for layer, x in features.items()}
    assert_close(report, expected, 1e-6)


@pytest.mark.slow
def test_every_real_dataset_can_be_scored(shared):
    model = load_model(shared / "models" / "stories260K", device="cpu", dtype="float32")
    for folder in sorted((shared / "data").iterdir()):
        if not (folder / "train.csv").is_file():
            continue
        report = score_model(model, folder, max_texts=100, max_length=32, layers="last", batch_size=64)
        (row,) = report.rows
        assert 0 <= row.ntps <= 1, folder.name
        assert row.lower_bound * (1 - 1e-9) <= row.excess_loss <= row.upper_bound * (1 + 1e-9), folder.name


def test_provenance_and_progress(tiny_model, tiny_data):
    steps = []
    report = score_model(
        tiny_model, tiny_data, max_texts=60, jackknife=5, seed=4, progress=lambda *step: steps.append(step)
    )
    facts = report.provenance
    assert facts["n_texts"] == 60
    assert facts["seed"] == 4
    assert len(facts["model_fingerprint"]) == len(facts["dataset_fingerprint"]) == 16
    assert facts["versions"]["torch"]
    assert steps[-1] == ("scoring layers", 3, 3)
    assert ("reading texts", 60, 60) in steps
    assert all(row.ntps_se > 0 for row in report)
    assert report.grid(1).ntps.shape == (3, report.rows[1].rank_v)
    again = score_model(tiny_model, tiny_data, max_texts=60, jackknife=5, seed=4)
    assert again.rows == report.rows


def test_invalid_settings_are_refused_before_the_extraction(tiny_model, tiny_data, tmp_path):
    for options, message in (
        ({"k_v": [17]}, "outside 1 ... 16"),
        ({"k_v": [0.0]}, "fraction"),
        ({"layers": "7"}, "no layer 7"),
        ({"order": "up"}, "order must be"),
        ({"jackknife": 2}, "at least 3 groups"),
        ({"max_texts": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            score_model(tiny_model, tiny_data, **options)
    path = tmp_path / "one.csv"
    path.write_text("text,label\n" + "w1 w2,1\n" * 10)
    with pytest.raises(ValueError, match="at least two classes"):
        score_model(tiny_model, path)


COLUMNS = ["ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss"]


@pytest.fixture(scope="module")
def lab_scores():
    """Function that scores lab/S on 150 texts."""
    data = load_texts("lab/tense").head(150)

    def scores(dtype: str, n_threads: int = 1, batch_size: int = 64) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        try:
            with threadpool_limits(n_threads):
                report = score_model("lab/S", data, k_v=[0.25, 0.5], dtype=dtype, batch_size=batch_size)
        finally:
            torch.set_num_threads(before)
        return report.to_frame()[COLUMNS].to_numpy()

    return scores


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-4)])
def test_scores_do_not_depend_on_threads_and_batches(lab_scores, dtype, tolerance):
    """The tolerances are those that the book states."""
    reference = lab_scores(dtype)
    for n_threads, batch_size in ((2, 64), (1, 7), (1, 1)):
        np.testing.assert_allclose(lab_scores(dtype, n_threads, batch_size), reference, atol=tolerance)


@pytest.mark.slow
def test_scores_in_single_precision_are_those_in_double_precision(lab_scores):
    np.testing.assert_allclose(lab_scores("float32"), lab_scores("float64"), atol=1e-4)


@pytest.mark.parametrize("jackknife", [0, 3])
def test_one_class_is_refused_after_texts_without_tokens(tiny_model, jackknife):
    data = as_dataset((["w1 w2", "", "w3 w4", "w5 w1", ""], ["a", "b", "a", "a", "c"]))
    with pytest.raises(ValueError, match="All 3 texts of texts/train that have a token have the label 'a'"):
        score_model(tiny_model, data, bos=False, jackknife=jackknife)
    mixed = as_dataset((["w1 w2 w3", "", "w3 w4 w6", "w5 w1 w2"] * 5, ["a", "b", "a", "c"] * 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = score_model(tiny_model, mixed, bos=False, layers="last", controls=False)
    assert report.provenance["n_classes"] == 2
