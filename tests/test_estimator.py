"""Scores of arrays and of batches of hidden states."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.loading import load_model
from ntps_utils.models.scoring import score_model
from ntps_utils.theory.estimator import NTPS, as_widths, score
from ntps_utils.theory.layer_moments import as_targets, one_hot
from ntps_utils.theory.score import NumericalWarning, subspaces
from ntps_utils.theory.synthetic import Problem, random_problem

FIELDS = ("ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss", "lower_bound", "upper_bound")


def assert_same_rows(one, two, rtol=1e-9):
    assert len(one.rows) == len(two.rows)
    for a, b in zip(one, two, strict=True):
        assert (a.layer, a.k_v, a.k_u) == (b.layer, b.k_v, b.k_u)
        np.testing.assert_allclose([getattr(a, f) for f in FIELDS], [getattr(b, f) for f in FIELDS], rtol, 1e-12)


@given(seed=st.integers(0, 10**6), n=st.integers(20, 60), d=st.integers(2, 6), c=st.integers(1, 4))
def test_score_equals_the_closed_form_from_moments(seed, n, d, c):
    """The oracle solves the problem from moments that numpy computed text by text."""
    problem = random_problem(seed, n_texts=n, d=d, n_targets=c, rank=d, condition=10.0)
    row = subspaces(problem.moments()).row(1)
    report = score(problem.texts, problem.targets, k_v=1)
    np.testing.assert_allclose([getattr(report.rows[0], f) for f in FIELDS], [getattr(row, f) for f in FIELDS], 1e-7)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    return [rng.normal(size=(int(rng.integers(1, 8)), 5)) + 0.5 * np.eye(5)[label] for label in y], y


def padded(X, side="right", fill=np.nan):
    """An (n, T, d) array and its attention mask."""
    n_steps = max(map(len, X))
    array, mask = np.full((len(X), n_steps, X[0].shape[1]), fill), np.zeros((len(X), n_steps), dtype=int)
    for i, text in enumerate(X):
        rows = slice(0, len(text)) if side == "right" else slice(n_steps - len(text), n_steps)
        array[i, rows], mask[i, rows] = text, 1
    return array, mask


def test_every_form_of_the_same_data_gives_the_same_scores(texts):
    X, y = texts
    reference = score(X, y, k_v=[0.5, 5])
    names = np.array(["negative", "neutral", "positive"])[y]
    lengths = [len(text) for text in X]
    array, mask = padded(X)
    forms = {
        "class names": score(X, names, k_v=[0.5, 5]),
        "one-hot targets": score(X, np.eye(3)[y], k_v=[0.5, 5]),
        "lists": score([torch.as_tensor(text) for text in X], y.tolist(), k_v=[0.5, 5]),
        "padded array": score(array, y, lengths=lengths, k_v=[0.5, 5]),
        "padded tensor": score(torch.as_tensor(array), torch.as_tensor(y), lengths=lengths, k_v=[0.5, 5]),
    }
    for side in ("left", "right"):
        array, mask = padded(X, side)
        metric = NTPS(k_v=[0.5, 5])
        metric.update(torch.as_tensor(array), torch.as_tensor(mask), torch.as_tensor(y))
        forms[f"attention mask, padding on the {side}"] = metric.compute()
    metric = NTPS(k_v=[0.5, 5])
    for start in range(0, 90, 7):
        metric.update(X[start : start + 7], labels=y[start : start + 7])
    forms["text by text, in batches"] = metric.compute()
    for report in forms.values():
        assert_same_rows(report, reference)


def test_scalar_and_sequence_widths_are_accepted(texts):
    X, y = texts
    assert [row.k_v for row in score(X, y, k_v=2)] == [2]
    assert [row.k_v for row in score(X, y, k_v=(1, 0.6))] == [1, 3]
    assert as_widths(np.float64(0.5)) == (0.5,)


def test_several_layers_of_hidden_states(texts):
    X, y = texts
    array, mask = padded(X)
    states = [torch.as_tensor(array * factor + shift) for factor, shift in ((1, 0), (2, 1), (0.5, -1))]
    metric = NTPS(layers=[0, -1], k_v=2)
    metric.update(states, mask, y)
    assert [row.layer for row in metric.compute()] == [0, 2]
    every = NTPS(k_v=2)
    every.update(torch.stack(states), mask, y)
    rows = every.compute().rows
    assert [row.layer for row in rows] == [0, 1, 2]
    assert_same_rows(type(metric.compute())(rows=(rows[0], rows[2])), metric.compute())
    single = NTPS(layers=7, k_v=2)  # the features of one layer, labeled 7
    single.update(states[0], mask, y)
    assert [row.layer for row in single.compute()] == [7]


def test_merged_metrics_equal_one_metric_and_do_not_change(texts):
    X, y = texts
    parts = []
    for start, stop in ((0, 30), (30, 61), (61, 90)):
        metric = NTPS(k_v=[0.5])
        metric.update(X[start:stop], labels=y[start:stop])
        parts.append(metric)
    merged = NTPS(k_v=[0.5])
    merged.merge_state(parts)
    assert_same_rows(merged.compute(), score(X, y))
    merged.update(X[:10], labels=y[:10])
    assert [part.n_texts for part in parts] == [30, 31, 29]
    assert merged.n_texts == 100
    parts[0].merge_state(parts[1])
    assert parts[0].n_texts == 61
    merged.reset()
    assert merged.n_texts == 0
    merged.update(X, labels=y)
    assert_same_rows(merged.compute(), score(X, y))


def test_classes_may_appear_in_any_batch(texts):
    X, y = texts
    order = np.argsort(y, kind="stable")
    growing, fixed = NTPS(), NTPS(n_classes=3)
    for metric in (growing, fixed):
        for start in range(0, 90, 30):  # one class in each batch
            rows = order[start : start + 30]
            metric.update([X[i] for i in rows], labels=y[rows])
    assert_same_rows(growing.compute(), fixed.compute())
    assert_same_rows(growing.compute(), score([X[i] for i in order], y[order]))
    late, early = NTPS(), NTPS()
    late.update([X[i] for i in order[60:]], labels=y[order[60:]])
    early.update([X[i] for i in order[:60]], labels=y[order[:60]])
    early.merge_state(late)
    assert_same_rows(early.compute(), growing.compute())


def test_jackknife_standard_errors_do_not_depend_on_the_batches(texts):
    X, y = texts
    reference = score(X, y, jackknife=5, seed=3)
    assert reference.rows[0].ntps_se > 0
    metric = NTPS(jackknife=5, seed=3)
    for start in range(0, 90, 11):
        metric.update(X[start : start + 11], labels=y[start : start + 11])
    assert metric.compute().rows[0].ntps_se == pytest.approx(reference.rows[0].ntps_se, rel=1e-9)
    assert score(X, y, jackknife=5, seed=4).rows[0].ntps_se != pytest.approx(reference.rows[0].ntps_se, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_hidden_states_with_gradients_are_accepted(texts, dtype):
    X, y = texts
    array, mask = padded(X, fill=0.0)
    states = torch.as_tensor(array).to(dtype).requires_grad_()
    metric = NTPS(precision="float32")
    metric.update(states, mask, y)
    assert metric.compute().rows[0].ntps == pytest.approx(score(X, y).rows[0].ntps, abs=0.05)
    assert metric.moments.precision == "float32"
    assert not metric.moments.S.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_hidden_states_on_a_gpu(texts):
    X, y = texts
    array, mask = padded(X, fill=0.0)
    metric = NTPS(precision="float64")
    metric.update(torch.as_tensor(array).cuda(), torch.as_tensor(mask).cuda(), torch.as_tensor(y).cuda())
    assert_same_rows(metric.compute(), score(X, y))


def test_texts_without_a_token_are_excluded_with_a_warning(texts):
    X, y = texts
    array, mask = padded(X)
    mask[[4, 9]] = 0
    metric = NTPS()
    with pytest.warns(NumericalWarning, match="2 texts have no token and were excluded"):
        metric.update(array, mask, y)
    rest = np.delete(np.arange(90), [4, 9])
    assert_same_rows(metric.compute(), score([X[i] for i in rest], y[rest]))


def test_real_valued_targets():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 4, 3))
    y = X.mean(1) @ np.array([[1.0], [2.0], [0.0]]) + 0.1 * rng.normal(size=(60, 1))
    row = score(X, y, k_v=3).rows[0]
    assert row.trace_b == pytest.approx(np.mean(y**2) - row.best_loss)
    metric = NTPS(k_v=3)
    metric.update(X, labels=y)
    assert_same_rows(metric.compute(), score(X, y, k_v=3))


def test_the_metric_agrees_with_scoring_a_model():
    """Hidden states of a transformers model with its own attention mask, against score_model."""
    lm, data = load_model("lab/XS"), load_texts("lab/topic").head(120)
    reference = score_model(lm, data, layers=[0, -1], k_v=[0.5])
    metric = NTPS(layers=[0, -1])
    ids = tokenize(lm, data).ids
    for start in range(0, 120, 32):
        batch = lm.tokenizer.pad({"input_ids": ids[start : start + 32]}, return_tensors="pt")
        with torch.no_grad():
            output = lm.model(**batch, output_hidden_states=True)
        metric.update(output.hidden_states, batch["attention_mask"], data.labels[start : start + 32])
    assert_same_rows(metric.compute(), reference, rtol=1e-6)


def test_a_warning_of_several_layers_is_issued_once():
    rng = np.random.default_rng(0)
    metric = NTPS(k_v=2)
    metric.update([rng.normal(size=(10, 3, 20)) for _ in range(4)], labels=np.arange(10) % 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metric.compute()
    (message,) = (str(w.message) for w in caught)
    assert "few-texts" in message
    assert message.endswith("(The same in 3 other layers.)")


def test_a_batch_with_an_error_is_not_added(texts):
    X, y = texts
    for jackknife in (0, 4):
        metric = NTPS(jackknife=jackknife)
        metric.update(X, labels=y)
        before = metric.compute()
        broken = [text.copy() for text in X[:8]]
        broken[-1][0, 0] = np.inf
        with pytest.raises(ValueError, match="infinite"):
            metric.update(broken, labels=y[:8])
        assert metric.n_texts == 90
        assert_same_rows(metric.compute(), before)


ADDITIVE = torch.tensor([[0.0, 0.0, -torch.inf]] * 4, dtype=torch.float64)


KINDS = {
    "class numbers": np.arange(8) % 2,
    "real-valued targets": np.linspace(0, 1, 8)[:, None],
    "one-hot": np.eye(2)[np.arange(8) % 2],
    "three targets": np.eye(3)[np.arange(8) % 3],
}


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        ("class numbers", "real-valued targets", "are class numbers, and those of this one are real-valued targets"),
        ("real-valued targets", "class numbers", "are real-valued targets, and those of this one are class numbers"),
        ("class numbers", "one-hot", "are class numbers, and those of this one are real-valued targets"),
        ("one-hot", "class numbers", "are real-valued targets, and those of this one are class numbers"),
        ("real-valued targets", "one-hot", "The targets have 2 columns, but the earlier batches have 1"),
        ("three targets", "one-hot", "The targets have 2 columns, but the earlier batches have 3"),
    ],
)
def test_batches_have_the_same_kind_of_labels(one, two, message, merge):
    X = np.random.default_rng(0).normal(size=(8, 3, 2))
    first, second = NTPS(), NTPS()
    first.update(X, labels=KINDS[one])
    second.update(X, labels=KINDS[two])
    with pytest.raises(ValueError, match=message):
        first.merge_state(second) if merge else first.update(X, labels=KINDS[two])
    assert first.n_texts == 8
    first.reset()
    first.update(X, labels=KINDS[two])
    assert first.n_texts == 8


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_class_numbers_may_form_a_column(texts, dtype):
    X, y = texts[0], (texts[1] % 2).astype(dtype)
    metric = NTPS()
    for start in range(0, 90, 30):
        metric.update(X[start : start + 30], labels=y[start : start + 30, None])
    reference = score(X, y.astype(int))
    assert_same_rows(metric.compute(), reference)
    assert_same_rows(score(X, y[:, None]), reference)
    assert_same_rows(score(X, y[:, None].tolist()), reference)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, bool])
def test_masks_of_every_type_are_read(texts, dtype):
    X, y = texts
    array, mask = padded(X)
    metric = NTPS()
    metric.update(array, mask.astype(dtype), y)
    assert_same_rows(metric.compute(), score(X, y))


TAKES_MEMORY = r"40,000 classes need an array of shape \(.*\), which takes 1[23]\.\d GB of memory; at most 4 GB"


def test_targets_that_take_too_much_memory_are_refused():
    X = np.zeros((2, 3, 2))
    with pytest.raises(ValueError, match=TAKES_MEMORY):
        NTPS().update(X, labels=[0, 39_999])
    with pytest.raises(ValueError, match=TAKES_MEMORY):
        NTPS().update(X, labels=np.zeros((2, 40_000)))
    with pytest.raises(ValueError, match=TAKES_MEMORY):
        as_targets(np.arange(40_000))
    with pytest.raises(ValueError, match=r"15,000 classes need .*\(5, 15000, 15000\), which takes 9\.0 GB"):
        NTPS(jackknife=5).update(X, labels=[0, 14_999])
    data = TextDataset("many", "all", load_texts("lab/topic").texts[:2], [0, 39_999], [str(i) for i in range(40_000)])
    with pytest.raises(ValueError, match=TAKES_MEMORY):
        extract(load_model("lab/XS"), data)


def test_many_classes_of_few_texts_take_little_memory():
    rows = one_hot([0, 39_999], 40_000)  # the indicators of all classes would take 12.8 GB
    assert rows.shape == (2, 40_000)
    assert (rows[0, 0], rows[1, -1], rows.sum()) == (1, 1, 2)


def bad_batch(**changes):
    given = {"hidden_states": np.zeros((4, 3, 2)), "attention_mask": None, "labels": [0, 1, 0, 1]} | changes
    NTPS(n_classes=given.pop("n_classes", None)).update(**given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bad_batch(labels=None), "update needs labels"),
        (lambda: bad_batch(labels=[0, 1]), r"4 texts need labels of shape \(4,\) or \(4, c\); got shape \(2,\)"),
        (lambda: bad_batch(labels=["a", "b", "a", "b"]), "encode class names as numbers"),
        (lambda: bad_batch(labels=[0.5, 1, 0, 1]), r"give real-valued targets as \(n, 1\)"),
        (lambda: bad_batch(labels=[-1, 1, 0, 1]), "class numbers 0, 1, ...; got -1"),
        (lambda: bad_batch(attention_mask=np.ones((4, 2))), r"attention_mask has shape \(4, 2\).*needs \(4, 3\)"),
        (
            lambda: bad_batch(attention_mask=ADDITIVE),
            r"1 for a token and 0 for padding; got the value -inf\. An additive",
        ),
        (lambda: bad_batch(attention_mask=ADDITIVE.nan_to_num()), r"got the value -1.7.*converted by \(mask == 0\)"),
        (lambda: bad_batch(attention_mask=torch.zeros(4, 3)), r"0\.0 everywhere.*converted by \(mask == 0\)"),
        (lambda: bad_batch(attention_mask=torch.full((4, 3), torch.nan)), "got the value nan"),
        (lambda: bad_batch(attention_mask=[[1, 2, 2]] * 4), "got the value 2"),
        (lambda: bad_batch(attention_mask=[[-1, 1, 1]] * 4), "got the value -1"),
        (lambda: bad_batch(attention_mask=np.zeros((4, 1, 3, 3))), r"shape \(4, 1, 3, 3\)"),
        (lambda: bad_batch(labels=[[-1], [1], [0], [1]]), "class numbers 0, 1, ...; got -1"),
        (lambda: bad_batch(labels=np.eye(4), n_classes=3), "targets have 4 columns, but n_classes is 3"),
        (lambda: bad_batch(hidden_states=np.zeros((4, 2))), r"got an array of shape \(4, 2\)"),
        (lambda: bad_batch(hidden_states=5), "got int"),
        (lambda: bad_batch(hidden_states=[np.zeros((4, 3, 2)), np.zeros((5, 3, 2))]), "Layers differ in shape"),
        (lambda: bad_batch(hidden_states=[np.zeros((3, 2))] * 4, attention_mask=np.ones((4, 3))), "text by text"),
        (lambda: NTPS(layers=9).update([np.zeros((4, 3, 2))] * 2, None, [0, 1, 0, 1]), "There is no layer 9"),
        (lambda: NTPS(layers=[]).update(np.zeros((4, 3, 2)), None, [0, 1, 0, 1]), "No layer is given"),
        (lambda: NTPS(n_classes=2).update(np.zeros((2, 3, 2)), None, [0, 2]), "labels go up to 2, but n_classes is 2"),
        (lambda: NTPS().compute(), "No text was added"),
        (lambda: NTPS(k_v=0), "at least 1"),
        (lambda: NTPS(k_v=1.5), "not a fraction"),
        (lambda: NTPS(k_v=[]), "empty sequence"),
        (lambda: NTPS(k_v="half"), "k_v must be an integer or a fraction"),
        (lambda: NTPS(jackknife=2), "at least 3 groups, got 2"),
        (lambda: NTPS(order="up"), "order must be 'descending' or 'ascending', got 'up'"),
        (lambda: NTPS(precision="float16"), "precision must be"),
        (lambda: NTPS(center=1), "center must be True or False, got 1"),
        (lambda: NTPS(ridge=-1), "ridge must be"),
        (lambda: NTPS(shrinkage=2), "shrinkage"),
        (lambda: NTPS(seed=-1), "seed must be"),
        (lambda: NTPS(n_classes=0), "n_classes must be"),
        (lambda: score([], []), "X must be a sequence"),
        (lambda: score([np.zeros(3)], [0]), r"X must be a sequence of \(T_i, d\) arrays"),
        (lambda: score([np.ones((2, 3)), np.ones((2, 4))], [0, 1]), r"number of features: \[3, 4\]"),
        (lambda: score([np.ones((2, 3))], [0, 1]), "1 texts need as many labels; got 2"),
        (lambda: score(np.ones((2, 3, 4)), [0, 1], lengths=[3]), "lengths must hold one integer for each of the 2"),
        (lambda: score([np.ones((2, 3))] * 2, [0, 1], lengths=[2, 2]), "lengths belong to a padded"),
        (lambda: NTPS(jackknife=3).merge_state(with_texts(jackknife=4)), "3 and 4 jackknife groups"),
        (lambda: with_texts().merge_state(with_texts(layers=3)), "layers"),
    ],
)
@pytest.mark.filterwarnings("ignore::ntps_utils.theory.score.NumericalWarning")
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


SETTINGS = {
    "center": True, "ridge": 0.1, "shrinkage": 0.2, "order": "ascending", "jackknife": 4, "controls": False, "seed": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_reaches_the_scores_and_the_provenance(texts, name):
    """``score``, ``NTPS`` and the closed form agree with each setting changed alone."""
    X, y = texts
    options = {name: SETTINGS[name]} | ({"jackknife": 4} if name == "seed" else {})
    report, metric = score(X, y, k_v=2, **options), NTPS(k_v=2, **options)
    metric.update(*padded(X), y)
    assert_same_rows(report, metric.compute())
    theory = {key: value for key, value in options.items() if key not in ("jackknife", "controls", "seed")}
    problem = Problem(tuple(X), np.eye(3)[y])
    row = subspaces(problem.moments(), **theory).row(2)
    np.testing.assert_allclose([getattr(report.rows[0], f) for f in FIELDS], [getattr(row, f) for f in FIELDS], 1e-7)
    defaults = {
        "center": False, "ridge": 0.0, "shrinkage": 0.0, "order": "descending", "jackknife": 0, "controls": True,
        "seed": 0,
    }  # fmt: skip
    expected = defaults | options | {
        "k_v": [2], "layers": [0], "n_texts": 90, "n_tokens": sum(map(len, X)), "n_classes": 3, "n_features": 5,
        "precision": "float64",
    }  # fmt: skip
    for one in (report, metric.compute()):
        assert {key: one.provenance[key] for key in expected} == expected
        assert bool(one.rows[0].controls) == expected["controls"]
        assert [grid.layer for grid in one.grids] == [0]
    if name == "seed":
        assert report.rows[0].ntps_se != score(X, y, k_v=2, jackknife=4).rows[0].ntps_se
        assert (
            score(X, y, k_v=2, jackknife=4).rows[0].ntps_se == score(X, y, k_v=2, jackknife=4, seed=0).rows[0].ntps_se
        )


@pytest.mark.parametrize("first", [2, 3])
def test_metrics_with_different_numbers_of_classes_merge(texts, first):
    X, y = texts
    few, all_three = NTPS(k_v=2), NTPS(k_v=2)
    rows = np.flatnonzero(y < 2)
    few.update([X[i] for i in rows], None, y[rows])
    all_three.update(X, None, y)
    one, two = (few, all_three) if first == 2 else (all_three, few)
    one.merge_state(two)
    expected = score([*(X[i] for i in rows), *X], [*y[rows], *y], k_v=2)
    assert_same_rows(one.compute(), expected, rtol=1e-7)


def test_messages_describe_what_was_given():
    with pytest.raises(ValueError, match=r"Each text needs the features of its tokens\.$"):
        score([np.zeros(3)], [0])
    mixed = [np.zeros((4, 3, 2)), np.zeros((3, 2))]
    with pytest.raises(ValueError, match="must be a sequence") as error:
        NTPS().update(mixed, None, [0, 1, 0, 1])
    assert str(error.value) == (
        "hidden_states must be a sequence of (n, T, d) arrays, one (n, T, d) array, or a sequence of (T_i, d) arrays; "
        "got a sequence with shapes (3, 2), (4, 3, 2)."
    )


def with_texts(**settings) -> NTPS:
    metric = NTPS(**settings)
    metric.update(np.random.default_rng(0).normal(size=(8, 3, 2)), None, np.arange(8) % 2)
    return metric


def test_a_change_in_the_number_of_layers_is_named():
    metric = NTPS()
    metric.update([np.ones((4, 3, 2))] * 2, None, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="Earlier batches had 2 hidden states, this one has 3"):
        metric.update([np.ones((4, 3, 2))] * 3, None, [0, 1, 0, 1])


def test_representations_are_short(texts):
    X, y = texts
    metric = NTPS(layers=-1)
    metric.update(X, labels=y)
    assert repr(metric) == "NTPS(layers=-1, k_v=[0.5], n_texts=90)"
    assert "ntps" in repr(score(X, y))


@pytest.mark.parametrize("jackknife", [0, 3])
@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, r"not finite \(NaN\)"), (-np.inf, r"not finite \(infinite\)"), (1e200, "too large")]
)
def test_errors_name_the_text_and_what_is_wrong(value, what, jackknife):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(150, 5, 4)), np.arange(150) % 2
    X[130, 2, 1] = value
    with pytest.raises(ValueError, match=f"features on text 130 that are {what}"):
        score(X, y, jackknife=jackknife)
    metric = NTPS(jackknife=jackknife)
    metric.update(X[:100], None, y[:100])
    lengths = np.ones((50, 5), int)
    lengths[7] = 0  # a text without tokens does not move the others
    with (
        pytest.warns(NumericalWarning, match="have no token"),
        pytest.raises(ValueError, match=f"features on text 30 of the batch that are {what}"),
    ):
        metric.update(X[100:], lengths, y[100:])
    assert metric.n_texts == 100


@pytest.mark.parametrize("jackknife", [0, 3])
def test_a_target_that_is_not_finite_adds_nothing(jackknife):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 5, 4)), rng.normal(size=(20, 2))
    metric = NTPS(jackknife=jackknife)
    metric.update(X, None, y)
    y[13, 1] = np.nan
    with pytest.raises(ValueError, match="target of text 13 of the batch is NaN or infinite"):
        metric.update(X, None, y)
    assert metric.n_texts == 20


@pytest.mark.parametrize("labels", [[0] * 30, [2] * 30, np.ones((30, 1)), np.full((30, 2), [0.5, -3.0])])
@pytest.mark.parametrize("options", [{}, {"n_classes": 5}, {"center": True}, {"jackknife": 3}])
def test_one_class_is_refused(labels, options):
    if np.ndim(labels) == 2 and "n_classes" in options:
        pytest.skip("the number of classes is for class numbers")
    X = np.random.default_rng(0).normal(size=(30, 5, 4))
    metric = NTPS(controls=False, **options)
    metric.update(X, None, labels)
    with pytest.raises(ValueError, match=r"All 30 texts have the same class or target; .* at least two classes"):
        metric.compute()
    if np.ndim(labels) == 2:
        with pytest.raises(ValueError, match="All 30 texts have the same class or target"):
            score(X, labels)
    metric.update(X, None, [1] * 30 if np.ndim(labels) == 1 else np.zeros(np.shape(labels)))
    assert len(metric.compute().rows) == 1
