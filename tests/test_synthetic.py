"""Random problems cover the documented ranges, and problems with known properties have them."""

from __future__ import annotations

import numpy as np
import pytest

from ntps_utils.theory.score import subspaces
from ntps_utils.theory.synthetic import circle_problem, exact_problem, planted_problem, random_problem


@pytest.fixture(scope="module")
def drawn():
    return [random_problem(seed) for seed in range(400)]


def is_one_hot(targets) -> bool:
    return bool(np.isin(targets, (0.0, 1.0)).all() and (targets.sum(axis=1) == 1.0).all())


def test_random_problems_have_every_documented_size(drawn):
    sizes = [(one.d, len(one.texts), one.targets.shape[1], is_one_hot(one.targets)) for one in drawn]
    assert {d for d, *_ in sizes} == set(range(2, 17))
    assert all(max(4, d // 2) <= n < 10 * d for d, n, *_ in sizes)
    assert min(n for _, n, *_ in sizes) == 4
    assert max(n / d for d, n, *_ in sizes) > 9.5
    classes = [c for *_, c, one_hot in sizes if one_hot]
    real = [c for *_, c, one_hot in sizes if not one_hot]
    assert set(classes) == set(range(2, 7))
    assert set(real) == set(range(1, 7))
    assert 0.4 < len(classes) / len(sizes) < 0.6
    assert {len(text) for one in drawn for text in one.texts} == set(range(2, 9))


def test_a_class_problem_has_two_classes_or_more(drawn):
    for one in drawn:
        if is_one_hot(one.targets):
            assert np.count_nonzero(one.targets.sum(axis=0)) >= 2


def test_one_in_four_random_problems_lacks_directions(drawn):
    """Rank of the token features: the draw of a rank below d, which can also give d itself."""
    ranks = [(np.linalg.matrix_rank(np.concatenate(one.texts)), one.d) for one in drawn]
    assert 0.15 < np.mean([rank < d for rank, d in ranks]) < 0.3
    assert min(rank for rank, _ in ranks) == 1


def test_random_problems_have_every_condition_and_offset():
    conditions, offsets = [], []
    for seed in range(300):
        tokens = np.concatenate(random_problem(seed, d=6, n_texts=60, rank=6).texts)
        values = np.linalg.eigvalsh(np.cov(tokens.T))
        conditions.append(np.sqrt(values[-1] / values[0]))
        tokens = np.concatenate(random_problem(seed, d=6, n_texts=60, rank=6, condition=1.0).texts)
        offsets.append(np.linalg.norm(tokens.mean(axis=0)) / np.sqrt(np.cov(tokens.T).trace()))
    # The recursion changes variances by a factor of a few; 300 is the largest ratio that is drawn.
    assert np.quantile(conditions, 0.02) < 4.0
    assert 150.0 < max(conditions) < 900.0
    assert 0.25 < np.mean(np.array(offsets) < 0.25) < 0.55  # three in ten without an offset, and small ones
    assert 2.0 < max(offsets) < 8.0


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_given_sizes_are_used(offset):
    one = random_problem(5, d=4, n_texts=300, n_targets=3, rank=2, condition=1.0, offset=offset)
    assert (one.d, len(one.texts), one.targets.shape[1]) == (4, 300, 3)
    tokens = np.concatenate(one.texts)
    assert np.linalg.matrix_rank(tokens) == 2
    size = np.linalg.norm(tokens.mean(axis=0)) / np.sqrt(np.cov(tokens.T).trace())
    assert size < 0.2 if offset == 0.0 else size > 1.0
    again = random_problem(5, d=4, n_texts=300, n_targets=3, rank=2, condition=1.0, offset=offset)
    assert all(np.array_equal(a, b) for a, b in zip(one.texts, again.texts, strict=True))
    assert np.array_equal(one.targets, again.targets)


def test_the_next_token_and_the_targets_are_partly_predictable():
    """Means over problems: a part, and not all, of the next token and of the targets follows from the features."""
    shares, explained = [], []
    for seed in range(60):
        one = random_problem(seed, d=5, n_texts=400, n_targets=1, rank=5, condition=1.0, offset=0.0)
        before = np.concatenate([np.cumsum(t, axis=0)[:-1] / np.arange(1, len(t))[:, None] for t in one.texts])
        after = np.concatenate([text[1:] for text in one.texts])
        rest = after - before @ np.linalg.lstsq(before, after, rcond=None)[0]
        shares.append(1.0 - (rest**2).sum() / (after**2).sum())
        means = np.stack([text.mean(axis=0) for text in one.texts])
        rest = one.targets - means @ np.linalg.lstsq(means, one.targets, rcond=None)[0]
        explained.append(1.0 - (rest**2).sum() / (one.targets**2).sum())
    assert 0.02 < np.mean(shares) < 0.5
    assert 0.1 < np.mean(explained) < 0.7
    assert max(explained) > 0.9  # noise of a tenth of the signal occurs
    assert min(explained) < 0.15  # and noise of three times the signal


@pytest.mark.parametrize(("condition", "ratio"), [(1.0, 1.0), (100.0, 9.0), (1e4, 25.0)])
def test_exact_problems_have_the_given_condition_and_eigenvalues(condition, ratio):
    one = exact_problem(3, condition=condition, beta_ratio=ratio, d=6, r=3)
    moments = one.moments()
    assert np.linalg.cond(moments.S) == pytest.approx(condition, rel=1e-6)
    solved = subspaces(moments)
    np.testing.assert_allclose(solved.beta[:3], np.geomspace(1.0, 1.0 / ratio, 3), rtol=1e-6)
    assert solved.beta.sum() == pytest.approx(np.geomspace(1.0, 1.0 / ratio, 3).sum(), rel=1e-6)
    means = np.stack([text.mean(axis=0) for text in one.texts])
    spread = np.stack([text - text.mean(axis=0) for text in one.texts]).std(axis=(0, 1))
    assert ((spread / means.std(axis=0) > 0.4) & (spread / means.std(axis=0) < 1.5)).all()


def test_texts_on_the_circle_step_to_the_neighbor():
    one = circle_problem(7)
    assert (one.d, len(one.texts), {len(text) for text in one.texts}) == (12, 400, {6})
    tokens = np.array([text.argmax(axis=1) for text in one.texts])
    assert all((text.sum(axis=1) == 1.0).all() for text in one.texts)
    assert (np.diff(tokens, axis=1) % 12 == 1).all()
    assert set(tokens[:, 0]) == set(range(12))
    again = circle_problem(7)
    assert np.array_equal(tokens, [text.argmax(axis=1) for text in again.texts])
    assert np.array_equal(one.targets, again.targets)


def test_labels_of_a_planted_problem_are_the_nearest_corners_of_a_simplex():
    one = planted_problem(2, d=6, n_texts=300, n_steps=400, n_classes=3)
    solved = subspaces(one.moments(), center=True)
    constant = np.stack([text.mean(axis=0) for text in one.texts]) @ solved.V[:, :2]
    labels = one.targets.argmax(axis=1)
    corners = np.stack([constant[labels == label].mean(axis=0) for label in range(3)])
    sides = [np.linalg.norm(corners[i] - corners[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert max(sides) < 1.25 * min(sides)  # up to the sample
    assert np.bincount(labels).min() > 70
    nearest = ((constant[:, None] - corners) ** 2).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest == labels) > 0.93
