"""Moments against the textbook double loop, and their algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntps_utils.theory.moments import TENSORS, Moments
from ntps_utils.theory.synthetic import Problem, random_problem

seeds = st.integers(0, 2**32 - 1)


def textbook(problem: Problem) -> dict[str, np.ndarray]:
    """Definitions, read literally: a loop over texts, a loop over positions."""
    d, c, n = problem.d, problem.targets.shape[1], len(problem.texts)
    m = {name: np.zeros((d, d)) for name in ("A0", "A1", "S", "G", "last")}
    m |= {"C": np.zeros((d, c)), "Y": np.zeros((c, c)), "s": np.zeros(d), "q": np.zeros(c)}
    tail = 0.0
    for x, y in zip(problem.texts, problem.targets, strict=True):
        for t in range(len(x) - 1):
            P = sum(x[i] for i in range(t + 1))
            m["A0"] += np.outer(P, P) / n
            m["A1"] += np.outer(P, x[t + 1]) / n
            tail += x[t + 1] @ x[t + 1] / n
        for t in range(len(x)):
            m["G"] += np.outer(x[t], x[t]) / n
        total = sum(x)
        m["last"] += np.outer(total, total) / n
        xbar = total / len(x)
        m["S"] += np.outer(xbar, xbar) / n
        m["C"] += np.outer(xbar, y) / n
        m["Y"] += np.outer(y, y) / n
        m["s"] += xbar / n
        m["q"] += y / n
    return m | {"tr_G": np.array(tail)}


@given(seeds)
def test_moments_are_their_definitions(seed):
    problem = random_problem(seed)
    expected = textbook(problem)
    moments = problem.moments()
    for name in ("A0", "A1", "S", "C", "Y", "s", "q", "tr_G"):
        value = getattr(moments, name)
        np.testing.assert_allclose(value, expected[name], atol=1e-12 * (1 + np.abs(expected[name]).max()), rtol=1e-10)


@given(seeds)
def test_telescoping_identity(seed):
    """A1 + A1^T = E P_T P_T^T - G: the symmetric part of next-token prediction knows no word order."""
    problem = random_problem(seed)
    m, A1 = textbook(problem), problem.moments().A1
    np.testing.assert_allclose(A1 + A1.T, m["last"] - m["G"], atol=1e-10 * np.abs(m["last"]).max())


def batch(problem: Problem, rows: list[int], pad: float = 0.0, extra: int = 0):
    """A right-padded batch; what stands in the padding must not matter."""
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


@given(seeds, st.data())
def test_any_batching_order_and_padding_gives_the_same(seed, data):
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


def test_merge_is_the_moments_of_all_texts():
    p = random_problem(3, d=5, n_texts=30)
    first = Moments.from_texts(p.texts[:11], p.targets[:11])
    second = Moments.from_texts(p.texts[11:], p.targets[11:])
    assert_same(first.merge(second), Moments.from_texts(p.texts, p.targets))
    assert first.n_texts == 11  # merge leaves its operands alone


def test_several_layers_are_several_problems():
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


def test_float32_products_agree_to_float32():
    p = random_problem(8, d=8, n_texts=60, condition=3.0, rank=8)
    x, lengths, y = batch(p, list(range(60)))
    exact = p.moments()
    single = Moments.zeros([0], 8, p.targets.shape[1], precision="float32")
    single.update([x], lengths, y)
    assert single.A0.dtype == torch.float64
    np.testing.assert_allclose(single.layer(0).A0, exact.A0, rtol=1e-4, atol=1e-5 * np.abs(exact.A0).max())
    assert single.layer(0).rcond > 1e8 * exact.rcond


def test_texts_of_one_token_count_for_perception_alone():
    x = np.array([[1.0, 2.0]])
    long = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    m = Moments.from_texts([x, long], np.eye(2)).layer(0)
    expected = textbook(Problem((x, long), np.eye(2)))
    np.testing.assert_allclose(m.A0, expected["A0"])
    np.testing.assert_allclose(m.S, expected["S"])
    with pytest.raises(ValueError, match="single token"):
        Moments.from_texts([x, x], np.eye(2)).layer(0)


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


def test_a_constant_feature_vanishes_when_centered():
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


def test_load_refuses_what_is_not_whole(tmp_path):
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
def test_features_that_are_not_finite_are_named_and_nothing_is_added(bad):
    m = Moments.zeros([0, 4], 3, 2)
    x = torch.ones(2, 5, 3, dtype=torch.float64)
    broken = x.clone()
    broken[1, 2, 0] = bad
    with pytest.raises(ValueError, match=r"Layer 4 .* row 12"):
        m.update([x, broken], torch.tensor([5, 4]), torch.eye(2), names=["row 11", "row 12"])
    assert m.n_texts == 0
    assert float(m.A0.abs().sum()) == 0.0
    m.update([x, broken], torch.tensor([5, 2]), torch.eye(2))  # beyond the text's end it does not matter


def test_batches_that_do_not_fit():
    m = Moments.zeros([0], 3, 2)
    x, y, lengths = torch.ones(2, 5, 3), torch.eye(2), torch.tensor([5, 5])
    with pytest.raises(ValueError, match="1 layers"):
        m.update([x, x], lengths, y)
    with pytest.raises(ValueError, match="does not fit"):
        m.update([torch.ones(2, 5, 4)], lengths, y)
    with pytest.raises(ValueError, match="does not fit"):
        m.update([x], lengths, torch.ones(2, 3))
    with pytest.raises(ValueError, match="no token"):
        m.update([x], torch.tensor([5, 0]), y)
    with pytest.raises(ValueError, match="positions"):
        m.update([x], torch.tensor([5, 6]), y)
    with pytest.raises(ValueError, match="target of"):
        m.update([x], lengths, y * float("nan"))


def test_moments_of_different_things_do_not_merge():
    base = Moments.zeros([0], 3, 2, source="a")
    for other in (
        Moments.zeros([0], 3, 2, source="b"),
        Moments.zeros([1], 3, 2, source="a"),
        Moments.zeros([0], 3, 2, source="a", precision="float32"),
        Moments.zeros([0], 4, 2, source="a"),
    ):
        with pytest.raises(ValueError, match="do not merge"):
            base.merge(other)


def test_zeros_and_layer_refuse():
    with pytest.raises(ValueError, match="precision"):
        Moments.zeros([0], 3, 2, precision="float16")
    with pytest.raises(ValueError, match="at least one"):
        Moments.zeros([], 3, 2)
    with pytest.raises(ValueError, match="no text"):
        Moments.zeros([0], 3, 2).layer(0)
    with pytest.raises(ValueError, match="not extracted"):
        Moments.zeros([0], 3, 2).layer(1)
    with pytest.raises(ValueError, match="one row of targets"):
        Moments.from_texts([np.ones((2, 2))], np.eye(2))


def test_layers_stand_beside_each_other():
    """Two layers in one pass are the two put beside each other, in every number."""
    one, two = random_problem(1, d=5, n_texts=9, n_targets=2), random_problem(2, d=5, n_texts=9, n_targets=2)
    lengths = [len(text) for text in one.texts]
    rng = np.random.default_rng(0)
    second = tuple(rng.normal(size=(n, 5)) for n in lengths)
    targets = one.targets
    a = replace(Moments.from_texts(one.texts, targets), layers=(3,))
    b = replace(Moments.from_texts(second, targets), layers=(5,))
    both = a.concat_layers(b)
    assert both.layers == (3, 5)
    assert_same(both.select_layer(3), a, rtol=0)
    assert_same(both.select_layer(5), b, rtol=0)
    assert both.n_texts == a.n_texts
    with pytest.raises(ValueError, match="Only moments of the same texts at different layers"):
        a.concat_layers(a)
    other = replace(Moments.from_texts(two.texts[:4], two.targets[:4]), layers=(5,))
    with pytest.raises(ValueError, match="Only moments of the same texts at different layers"):
        a.concat_layers(other)


def test_shrinkage_is_complete_where_nothing_can_be_told():
    """One text says nothing of a covariance; noise that is alike in all directions needs no other target."""
    rng = np.random.default_rng(0)
    one = Moments.from_texts([rng.normal(size=(3, 4))], np.ones((1, 1))).layer(0)
    assert one.ledoit_wolf() < 1e-12  # about zero |x|^4 = |S|^2, and no sampling error shows
    assert one.center().ledoit_wolf() == 1.0
    noise = [rng.normal(size=(2, 40)) for _ in range(30)]
    assert Moments.from_texts(noise, np.eye(2)[np.arange(30) % 2]).layer(0).ledoit_wolf() > 0.9
