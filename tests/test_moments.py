"""Moments: agreement with their definitions, algebra, validation and files."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntps_utils.theory.layer_moments import LayerMoments, as_targets
from ntps_utils.theory.linear import whiten
from ntps_utils.theory.moments import TENSORS, Accumulator, Moments, check_features
from ntps_utils.theory.synthetic import Problem, random_problem

seeds = st.integers(0, 2**32 - 1)


def moments_by_definition(problem: Problem) -> dict[str, np.ndarray]:
    """Compute the moments by loops over texts and positions."""
    d, c, n = problem.d, problem.targets.shape[1], len(problem.texts)
    m = {name: np.zeros((d, d)) for name in ("A0", "A1", "S", "G", "total")}
    m |= {"C": np.zeros((d, c)), "Y": np.zeros((c, c)), "s": np.zeros(d), "q": np.zeros(c)}
    tr_G = 0.0
    for x, y in zip(problem.texts, problem.targets, strict=True):
        for t in range(len(x) - 1):
            P = sum(x[i] for i in range(t + 1))
            m["A0"] += np.outer(P, P) / n
            m["A1"] += np.outer(P, x[t + 1]) / n
            tr_G += x[t + 1] @ x[t + 1] / n
        for t in range(len(x)):
            m["G"] += np.outer(x[t], x[t]) / n
        total = sum(x)
        m["total"] += np.outer(total, total) / n
        xbar = total / len(x)
        m["S"] += np.outer(xbar, xbar) / n
        m["C"] += np.outer(xbar, y) / n
        m["Y"] += np.outer(y, y) / n
        m["s"] += xbar / n
        m["q"] += y / n
    return m | {"tr_G": np.array(tr_G)}


@given(seeds)
def test_moments_match_their_definitions(seed):
    problem = random_problem(seed)
    expected = moments_by_definition(problem)
    moments = problem.moments()
    for name in ("A0", "A1", "S", "C", "Y", "s", "q", "tr_G"):
        value = getattr(moments, name)
        np.testing.assert_allclose(value, expected[name], atol=1e-12 * (1 + np.abs(expected[name]).max()), rtol=1e-10)


@given(seeds)
def test_telescoping_identity(seed):
    """A1 + A1^T = E P_T P_T^T - G: the symmetric part of A1 does not depend on the order of the vectors."""
    problem = random_problem(seed)
    m, A1 = moments_by_definition(problem), problem.moments().A1
    np.testing.assert_allclose(A1 + A1.T, m["total"] - m["G"], atol=1e-10 * np.abs(m["total"]).max())


def batch(problem: Problem, rows: list[int], pad: float = 0.0, extra: int = 0):
    """A right-padded batch with ``pad`` in the padding and ``extra`` positions after the longest text."""
    lengths = torch.tensor([len(problem.texts[i]) for i in rows])
    x = torch.full((len(rows), int(lengths.max()) + extra, problem.d), pad, dtype=torch.float64)
    for j, i in enumerate(rows):
        x[j, : lengths[j]] = torch.as_tensor(problem.texts[i])
    return x, lengths, torch.as_tensor(problem.targets[rows])


def assert_same(a: Moments, b: Moments, rtol: float = 1e-12):
    assert (a.layers, a.precision, a.source) == (b.layers, b.precision, b.source)
    for name in TENSORS:
        x, y = getattr(a, name).numpy(), getattr(b, name).numpy()
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * (1 + np.abs(x).max()), err_msg=name)


@pytest.mark.slow
@given(seeds, st.data())
def test_batching_order_and_padding_do_not_change_the_moments(seed, data):
    problem = random_problem(seed)
    n = len(problem.texts)
    whole = Moments.from_texts(problem.texts, problem.targets)
    pieces = Moments.zeros([0], problem.d, problem.targets.shape[1])
    order = data.draw(st.permutations(range(n)))
    size = data.draw(st.integers(1, n))
    for start in range(0, n, size):
        pad = data.draw(st.sampled_from([0.0, 7.0, float("nan"), float("inf")]))
        x, lengths, y = batch(problem, order[start : start + size], pad, data.draw(st.integers(0, 3)))
        pieces.update([x], lengths, y)
    assert_same(whole, pieces, 1e-10)


@given(seeds, seeds, seeds)
def test_merge_is_a_commutative_monoid(a, b, c):
    options = {"d": 4, "n_targets": 2}
    x, y, z = (Moments.from_texts(p.texts, p.targets) for p in (random_problem(s, **options) for s in (a, b, c)))
    zero = Moments.zeros([0], 4, 2)
    assert_same(x.merge(y), y.merge(x))
    assert_same(x.merge(y).merge(z), x.merge(y.merge(z)), 1e-10)
    assert_same(x.merge(zero), x)


def test_merge_equals_the_moments_of_all_texts():
    p = random_problem(3, d=5, n_texts=30)
    first = Moments.from_texts(p.texts[:11], p.targets[:11])
    second = Moments.from_texts(p.texts[11:], p.targets[11:])
    assert_same(first.merge(second), Moments.from_texts(p.texts, p.targets))
    assert first.n_texts == 11  # merge does not modify its operands


def test_layers_are_accumulated_independently():
    p = random_problem(5, d=6, n_texts=20)
    x, lengths, y = batch(p, list(range(20)))
    both = Moments.zeros([3, 7], 6, p.targets.shape[1])
    both.update([x, 2 * x], lengths, y)
    one = p.moments()
    assert both.select_layer(7).layers == (7,)
    np.testing.assert_array_equal(both.select_layer(7).layer(7).A0, both.layer(7).A0)
    assert both.select_layer(3).merge(both.select_layer(3)).n_texts == 40
    np.testing.assert_allclose(both.layer(3).A1, one.A1, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(both.layer(7).A1, 4 * one.A1, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(both.layer(7).C, 2 * one.C, rtol=1e-12, atol=1e-12)


def test_float32_products_have_float32_accuracy():
    p = random_problem(8, d=8, n_texts=60, condition=3.0, rank=8)
    x, lengths, y = batch(p, list(range(60)))
    exact = p.moments()
    single = Moments.zeros([0], 8, p.targets.shape[1], precision="float32")
    single.update([x], lengths, y)
    assert single.A0.dtype == torch.float64
    np.testing.assert_allclose(single.layer(0).A0, exact.A0, rtol=1e-4, atol=1e-5 * np.abs(exact.A0).max())
    assert single.layer(0).rcond_raw == np.finfo(np.float32).eps  # 8 eps / d
    assert exact.rcond_raw == 8 * np.finfo(np.float64).eps


def test_float32_products_keep_their_digits_next_to_large_constants():
    """As in language models: large means of a few features, and much larger first tokens."""
    rng = np.random.default_rng(0)
    d, n, n_steps = 8, 200, 12
    x = rng.normal(size=(n, n_steps, d))
    x[:, :, 1:3] += 1e3
    x[:, 0, 2:5] += 1e5
    x = x.astype(np.float32)
    lengths = torch.tensor(rng.integers(1, n_steps + 1, n))
    y = torch.eye(2, dtype=torch.float64)[np.arange(n) % 2]
    exact, single = (Moments.zeros([0], d, 2, precision=precision) for precision in ("float64", "float32"))
    exact.update([torch.as_tensor(x)], lengths, y)
    accumulator = Accumulator(single)
    for start in range(0, n, 50):
        rows = slice(start, start + 50)
        accumulator.add([torch.as_tensor(x[rows])], lengths[rows], y[rows])
    accumulator.flush()
    plain = np.zeros((d, d), dtype=np.float32)
    for text, length in zip(x, lengths, strict=True):
        P = text[: length - 1].cumsum(axis=0)
        plain += P.T @ P
    values, vectors = np.linalg.eigh(exact.A0[0].numpy())
    W = vectors / np.sqrt(values)

    def error(A0):
        return np.linalg.norm(W.T @ (A0 - exact.A0[0].numpy()) @ W, 2)

    assert error(single.A0[0].numpy()) < 1e-5
    assert error(plain) > 1e-3
    for name in ("A1", "S", "C", "s", "tr_G", "cubic", "quartic"):
        one, other = getattr(single, name), getattr(exact, name)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize("deficient", [False, True])
def test_float32_products_determine_the_rank(deficient):
    """Features of a layer norm sum to zero: one direction carries only rounding errors."""
    rng = np.random.default_rng(1)
    d, n, n_steps = 64, 400, 9
    x = rng.normal(size=(n, n_steps, d)) @ np.diag(np.geomspace(1.0, 0.02, d))
    x = x @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 5.0 * rng.normal(size=d)
    if deficient:
        x -= x.mean(-1, keepdims=True)
    x = torch.as_tensor(x, dtype=torch.float32)
    moments = Moments.zeros([0], d, 2, precision="float32")
    accumulator = Accumulator(moments)
    y = torch.eye(2, dtype=torch.float64)[np.arange(n) % 2]
    for rows in torch.arange(n).split(16):
        accumulator.add([x[rows]], torch.full((len(rows),), n_steps), y[rows])
    accumulator.flush()
    one = moments.layer(0)
    assert whiten(one.A0, one.rcond_raw).rank == d - deficient
    assert whiten(one.S, one.rcond).rank == d - deficient
    assert whiten(one.center().S, one.center().rcond).rank == d - deficient


def test_single_token_texts_contribute_to_perception_only():
    single = np.array([[1.0, 2.0]])
    several = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    m = Moments.from_texts([single, several], np.eye(2)).layer(0)
    expected = moments_by_definition(Problem((single, several), np.eye(2)))
    np.testing.assert_allclose(m.A0, expected["A0"])
    np.testing.assert_allclose(m.S, expected["S"])
    with pytest.raises(ValueError, match="single token"):
        Moments.from_texts([single, single], np.eye(2)).layer(0)


@given(seeds)
def test_centering_gives_covariances(seed):
    p = random_problem(seed)
    m = p.moments().center()
    both = np.hstack([p.means, p.targets])
    cov = np.atleast_2d(np.cov(both.T, bias=True))
    scale = 1e-9 * (1 + np.abs(both).max() ** 2)
    np.testing.assert_allclose(m.S, cov[: p.d, : p.d], atol=scale)
    np.testing.assert_allclose(m.C, cov[: p.d, p.d :], atol=scale)
    np.testing.assert_allclose(m.Y, cov[p.d :, p.d :], atol=scale)
    assert m.center() is m


def test_constant_feature_is_zero_after_centering():
    p = random_problem(2, d=4, n_texts=40)
    texts = tuple(np.column_stack([t, np.full(len(t), 1e3)]) for t in p.texts)
    m = Problem(texts, p.targets).moments().center()
    assert np.all(m.S[-1] == 0)
    assert np.all(m.C[-1] == 0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("center", [False, True])
def test_ledoit_wolf_agrees_with_scikit_learn(seed, center):
    from sklearn.covariance import ledoit_wolf_shrinkage

    p = random_problem(seed, d=6)
    m = p.moments().center() if center else p.moments()
    expected = ledoit_wolf_shrinkage(p.means, assume_centered=not center)
    np.testing.assert_allclose(m.ledoit_wolf(), expected, rtol=1e-6, atol=1e-9)


def test_save_and_load(tmp_path):
    p = random_problem(1)
    moments = Moments.from_texts(p.texts, p.targets)
    moments.save(tmp_path / "m.safetensors")
    assert_same(Moments.load(tmp_path / "m.safetensors"), moments, 0.0)
    assert [f.name for f in tmp_path.iterdir()] == ["m.safetensors"]


def test_load_rejects_missing_damaged_and_other_files(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="no moments file"):
        Moments.load(tmp_path / "none")
    p = random_problem(1)
    path = tmp_path / "m.safetensors"
    Moments.from_texts(p.texts, p.targets).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        Moments.load(path)
    save_file({"A0": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="format"):
        Moments.load(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e200])
def test_error_of_non_finite_features_names_layer_and_text_and_adds_nothing(bad):
    m = Moments.zeros([0, 4], 3, 2)
    x = torch.ones(2, 5, 3, dtype=torch.float64)
    broken = x.clone()
    broken[1, 2, 0] = bad
    with pytest.raises(ValueError, match=r"Layer 4 .* row 12"):
        m.update([x, broken], torch.tensor([5, 4]), torch.eye(2), names=["row 11", "row 12"])
    assert m.n_texts == 0
    assert float(m.A0.abs().sum()) == 0.0
    m.update([x, broken], torch.tensor([5, 2]), torch.eye(2))  # here the value is in the padding


def test_update_rejects_mismatched_batches():
    m = Moments.zeros([0], 3, 2)
    x, y, lengths = torch.ones(2, 5, 3), torch.eye(2), torch.tensor([5, 5])
    with pytest.raises(ValueError, match="1 layers, got 2"):
        m.update([x, x], lengths, y)
    with pytest.raises(ValueError, match="do not match"):
        m.update([torch.ones(2, 5, 4)], lengths, y)
    with pytest.raises(ValueError, match="do not match"):
        m.update([x], lengths, torch.ones(2, 3))
    with pytest.raises(ValueError, match="no tokens in text 1 of the batch"):
        m.update([x], torch.tensor([5, 0]), y)
    with pytest.raises(ValueError, match=r"length of text 1 of the batch is 6 tokens, but .* 5 positions"):
        m.update([x], torch.tensor([5, 6]), y)
    with pytest.raises(ValueError, match="target of text 0"):
        m.update([x], lengths, y * float("nan"))
    with pytest.raises(ValueError, match="no texts"):
        m.update([x[:0]], lengths[:0], y[:0])
    two = Moments.zeros([0, 1], 3, 2)
    with pytest.raises(ValueError, match="Layers differ in shape"):
        two.update([x, x[:, :4]], lengths, y)
    assert m.n_texts == two.n_texts == 0


def test_merge_rejects_different_sources_layers_precisions_and_shapes():
    base = Moments.zeros([0], 3, 2, source="a")
    for other in (
        Moments.zeros([0], 3, 2, source="b"),
        Moments.zeros([1], 3, 2, source="a"),
        Moments.zeros([0], 3, 2, source="a", precision="float32"),
        Moments.zeros([0], 4, 2, source="a"),
    ):
        with pytest.raises(ValueError, match="Cannot merge"):
            base.merge(other)


def test_zeros_and_layer_reject_invalid_arguments():
    with pytest.raises(ValueError, match="precision"):
        Moments.zeros([0], 3, 2, precision="float16")
    with pytest.raises(ValueError, match="at least one"):
        Moments.zeros([], 3, 2)
    with pytest.raises(ValueError, match="no texts"):
        Moments.zeros([0], 3, 2).layer(0)
    with pytest.raises(ValueError, match="no moments of layer 1"):
        Moments.zeros([0], 3, 2).layer(1)


def test_concat_layers_keeps_the_moments_of_each_layer():
    problem, other_problem = (random_problem(seed, d=5, n_texts=9, n_targets=2) for seed in (1, 2))
    lengths = [len(text) for text in problem.texts]
    rng = np.random.default_rng(0)
    second = tuple(rng.normal(size=(n, 5)) for n in lengths)
    targets = problem.targets
    a = replace(Moments.from_texts(problem.texts, targets), layers=(3,))
    b = replace(Moments.from_texts(second, targets), layers=(5,))
    both = a.concat_layers(b)
    assert both.layers == (3, 5)
    assert_same(both.select_layer(3), a, rtol=0)
    assert_same(both.select_layer(5), b, rtol=0)
    assert both.n_texts == a.n_texts
    with pytest.raises(ValueError, match=r"both moments contain layers \[3\]"):
        a.concat_layers(a)
    other = replace(Moments.from_texts(other_problem.texts[:4], other_problem.targets[:4]), layers=(5,))
    with pytest.raises(ValueError, match=r"different texts: 9 texts .* and 4 texts"):
        a.concat_layers(other)


def test_ledoit_wolf_intensity_of_single_text_and_of_isotropic_noise():
    """The covariance of a single text is shrunk completely; so is isotropic noise of few texts."""
    rng = np.random.default_rng(0)
    single = Moments.from_texts([rng.normal(size=(3, 4))], np.ones((1, 1))).layer(0)
    assert single.ledoit_wolf() < 1e-12  # without centering |x|^4 = |S|^2, so the estimated sampling error is zero
    assert single.center().ledoit_wolf() == 1.0
    noise = [rng.normal(size=(2, 40)) for _ in range(30)]
    assert Moments.from_texts(noise, np.eye(2)[np.arange(30) % 2]).layer(0).ledoit_wolf() > 0.9


@given(seeds)
def test_layer_moments_of_texts_equal_the_streamed_moments(seed):
    problem = random_problem(seed)
    expected = Moments.from_texts(problem.texts, problem.targets).layer(0)
    result = LayerMoments.from_texts(problem.texts, problem.targets)
    for f in fields(LayerMoments):
        a, b = getattr(result, f.name), getattr(expected, f.name)
        if isinstance(b, str | int):
            assert a == b, f.name
        else:
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * (1 + np.abs(b).max()), err_msg=f.name)


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1, 2],
        np.array([7, -1, 3, 7]),
        np.array([2.0, 0.0, 1.0, 2.0]),
        ["c", "a", "b", "c"],
        ("c", "a", "b", "c"),
        np.array(["c", "a", "b", "c"]),
        pd.Series(["c", "a", "b", "c"]),
        pd.Series(["c", "a", "b", "c"], dtype="category"),
        torch.tensor([2, 0, 1, 2]),
        [np.int64(2), np.int32(0), 1, 2.0],
    ],
    ids=lambda labels: f"{type(labels).__name__} of {type(labels[0]).__name__}",
)
def test_class_labels_equal_one_hot_targets(labels):
    one_hot = np.eye(3)[[2, 0, 1, 2]]
    np.testing.assert_array_equal(as_targets(labels), one_hot)
    texts = random_problem(0, d=3, n_texts=4).texts
    for cls in (Moments, LayerMoments):
        np.testing.assert_array_equal(cls.from_texts(texts, labels).C, cls.from_texts(texts, one_hot).C)


def test_boolean_labels_and_real_targets():
    np.testing.assert_array_equal(as_targets([True, False]), [[0, 1], [1, 0]])
    targets = as_targets(np.array([[1], [3]]))
    assert targets.dtype == np.float64
    np.testing.assert_array_equal(targets, [[1], [3]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0], r"label 0 is 0\.5\. Give a real-valued target as a column of shape \(n, 1\)"),
        ([0, float("nan")], "label 1 is nan"),
        (["a", float("nan")], "label 1 is nan"),
        (["a", None], "label 1 is None"),
        (["a", 1], "all integers or all strings, but label 1 is 1"),
        ([1, "a"], "label 1 is 'a'"),
        (["a", "a"], "at least two classes; all 2 labels are 'a'"),
        ([], r"shape \(0,\)"),
        (np.zeros((2, 2, 2)), r"got shape \(2, 2, 2\)"),
        (np.zeros((2, 0)), r"got shape \(2, 0\)"),
        (3, r"got shape \(\)"),
        ([[1.0], [1.0, 2.0]], "these rows differ in length"),
        ([["a"], ["b"]], "must be real numbers, got dtype <U1"),
    ],
)
def test_invalid_targets_are_rejected(labels, message):
    with pytest.raises(ValueError, match=message):
        as_targets(labels)


OK = np.ones((2, 3))


@pytest.mark.parametrize("cls", [Moments, LayerMoments])
@pytest.mark.parametrize(
    ("texts", "targets", "message"),
    [
        ([], [], "no texts"),
        ([OK, OK, OK], [0, 1], "3 texts, 2 targets"),
        ([OK, OK], [[1.0], [np.nan]], "target of text 1 is NaN or infinite"),
        ([OK, np.ones(3)], [0, 1], r"Text 1 must have shape \(tokens, features\), got shape \(3,\)"),
        ([OK, np.ones((2, 0))], [0, 1], "Text 1 must have shape"),
        ([OK, np.ones((0, 3))], [0, 1], "Text 1 has no tokens"),
        ([OK, np.ones((2, 4))], [0, 1], "Text 1 has 4 features, but text 0 has 3"),
        ([OK, [["a", "b", "c"]]], [0, 1], "Text 1 cannot be converted to a float64 array"),
        ([OK, [[1.0], [1.0, 2.0]]], [0, 1], "Text 1 cannot be converted to a float64 array"),
        ([OK, OK * np.nan], [0, 1], "Text 1 has features that are NaN or infinite"),
        ([OK, OK * -np.inf], [0, 1], "Text 1 has features that are NaN or infinite"),
        ([OK, OK * 1e200], [0, 1], r"(?i)text 1 .*too large to square.*\[overflow: "),
    ],
)
def test_error_names_the_invalid_text(cls, texts, targets, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            cls.from_texts(texts, targets)


def test_layer_moments_need_a_next_token():
    with pytest.raises(ValueError, match="single token"):
        LayerMoments.from_texts([np.ones((1, 3)), np.ones((1, 3))], [0, 1])


def test_products_of_many_features_are_those_of_numpy():
    """A symmetric product of more features than fit into one block; only its upper half is summed."""
    d = 450
    texts = [np.random.default_rng(i).normal(size=(3, d)) for i in range(4)]
    layer = Moments.from_texts(texts, np.eye(2)[[0, 1, 0, 1]]).layer(0)
    prefixes = np.concatenate([np.cumsum(x, axis=0)[:-1] for x in texts])
    following = np.concatenate([x[1:] for x in texts])
    np.testing.assert_allclose(layer.A0, prefixes.T @ prefixes / 4, atol=1e-10)
    np.testing.assert_allclose(layer.A1, prefixes.T @ following / 4, atol=1e-10)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_features_are_refused_from_the_size_on_at_which_a_moment_may_overflow(precision, sign):
    n, n_steps, d = 2, 3, 2
    of_prefixes = (float(torch.finfo(getattr(torch, precision)).max) / (n * n_steps)) ** 0.5 / n_steps
    of_fourth_powers = (float(torch.finfo(torch.float64).max) / n) ** 0.25 / d
    limit = min(of_prefixes, of_fourth_powers)
    lengths, names = torch.tensor([2, 3]), ["first", "second"]
    hidden = torch.ones(n, n_steps, d, dtype=torch.float64)
    hidden[1, 2, 0] = sign * 0.99 * limit
    check_features(hidden, lengths, precision, names, 5)
    hidden[1, 2, 0] = sign * 1.01 * limit
    with pytest.raises(ValueError, match=f"Layer 5 has features on second that are too large to square in {precision}"):
        check_features(hidden, lengths, precision, names, 5)
    hidden[0, 1, 1] = sign * torch.inf  # the worst text is named
    with pytest.raises(ValueError, match=r"on first that are not finite \(infinite\)"):
        check_features(hidden, lengths, precision, names, 5)
    hidden[1, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"not finite"):
        check_features(hidden, lengths, precision, names, 5)
    hidden[:] = 1.0
    hidden[0, 2] = torch.inf  # padding
    check_features(hidden, lengths, precision, names, 5)


def test_moments_just_below_the_limit_are_finite():
    limit = (float(torch.finfo(torch.float64).max) / 4) ** 0.25 / 3
    texts = [0.99 * limit * sign * np.ones((4, 3)) for sign in (1, -1, 1, -1)]
    moments = Moments.from_texts(texts, np.eye(2)[[0, 1, 0, 1]])
    for name in TENSORS:
        assert torch.isfinite(getattr(moments, name).double()).all(), name


def test_a_file_keeps_precision_and_source(tmp_path):
    moments = Moments.zeros([3, 7], 2, 2, precision="float32", source="a model")
    moments.update([torch.ones(2, 3, 2)] * 2, torch.tensor([3, 2]), torch.eye(2))
    moments.save(tmp_path / "m.safetensors")
    again = Moments.load(tmp_path / "m.safetensors")
    assert (again.precision, again.source, again.layers) == ("float32", "a model", (3, 7))


def test_messages_about_moments_say_what_to_do(tmp_path):
    empty = Moments.zeros([0], 2, 2)
    with pytest.raises(ValueError, match=r"^These moments contain no texts\. Add a batch with update first\.$"):
        empty.layer(0)
    with pytest.raises(ValueError, match=r"^The batch contains no texts\.$"):
        empty.update([torch.ones(0, 3, 2)], torch.ones(0, dtype=torch.int64), torch.ones(0, 2))
    with pytest.raises(ValueError, match=r"Expected 2 features, 2 targets, and the same number of texts"):
        empty.update([torch.ones(2, 3, 5)], torch.tensor([3, 3]), torch.eye(2))
    with pytest.raises(ValueError, match=r"Cannot merge moments of different shape: \(layers, features, targets\) = "):
        empty.merge(Moments.zeros([0], 3, 2))
    with pytest.raises(ValueError, match="on text 2 that are too large to square"):
        Moments.from_texts([OK, OK, OK * 1e200, OK], [0, 1, 0, 1])


def test_targets_of_any_type_give_the_same_moments():
    features, lengths = [torch.ones(2, 3, 1)], torch.tensor([3, 2])
    parts = [Moments.zeros([0], 1, 2) for _ in range(2)]
    parts[0].update(features, lengths, torch.eye(2))
    parts[1].update(features, lengths, torch.eye(2, dtype=torch.int64))
    for name in TENSORS:
        assert torch.equal(getattr(parts[0], name), getattr(parts[1], name)), name
