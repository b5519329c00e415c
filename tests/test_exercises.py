"""Checks of the exercises: solutions pass; typical mistakes are named; crashes and wrong types are explained."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.linalg
from scipy import stats

from book.tools import refresh as book
from ntps_utils.evidence.statistics import spearman
from ntps_utils.exercises import check
from ntps_utils.exercises._answers import CHECKS


def canonical(A0, A1, G_next):
    return scipy.linalg.eigh(A1 @ np.linalg.solve(G_next, A1.T), A0)[1][:, ::-1]


def in_feature_units(A0, A1, _):
    return scipy.linalg.eigh(A1 @ A1.T, A0)[1][:, ::-1]


def in_logits(A0, A1, E):
    return scipy.linalg.eigh(A1 @ E.T @ E @ A1.T, A0)[1][:, ::-1]


def gap(x, labels):
    return x[labels == 1].mean(0) - x[labels == 0].mean(0)


def fisher(x, labels):
    return np.linalg.solve(np.cov(x.T), gap(x, labels))


def within(x, labels):
    return sum(np.cov(x[labels == j].T) for j in (0, 1))


def fisher_within(x, labels):
    return -3.0 * np.linalg.solve(within(x, labels), gap(x, labels))


def white_fisher(x, labels, covariance):
    values, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(values) @ vectors.T @ gap(x, labels)


def tighter(ntps_metric, beta):
    missing = len(beta) * (1 - ntps_metric)
    return np.interp(missing, range(len(beta) + 1), np.r_[0, beta.cumsum()])


def moments_of(x):
    p = x.cumsum(axis=0)[:-1]
    return p.T @ p, p.T @ x[1:]


def relative_rank(S):
    values = np.linalg.eigvalsh(S)
    return int((values > len(S) * np.finfo(float).eps * values[-1]).sum())


def scaled_rank(S):
    scale = 1 / np.sqrt(np.diag(S))
    return relative_rank(scale[:, None] * S * scale)


def white_coordinates(x, labels):
    x = x - x.mean(0)
    y = np.eye(labels.max() + 1)[labels]
    C = x.T @ (y - y.mean(0)) / len(x)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    white = vectors / np.sqrt(values) @ vectors.T
    left, sizes, _ = np.linalg.svd(white @ C, full_matrices=False)
    return x @ white @ left[:, sizes > 1e-9 * sizes[0]]


def share(z, y, z_test, y_test):
    weights = np.linalg.lstsq(np.c_[z, np.ones(len(z))], y, rcond=None)[0]
    error = y_test - np.c_[z_test, np.ones(len(z_test))] @ weights
    return 1 - error @ error / ((y_test - y_test.mean()) ** 2).sum()


def best_p(scores, target, orders):
    def best(y):
        return max(spearman(setting, y) for setting in scores)

    exceed = sum(best(target[order]) >= best(target) - 1e-12 for order in orders)
    return (1 + exceed) / (1 + len(orders))


ANSWERS = {
    "1.1": (
        lambda A0, A1, G_next: np.trace(G_next) - np.trace(A1.T @ np.linalg.solve(A0, A1)),
        {
            "wrong way round": lambda A0, A1, G_next: np.trace(G_next) - np.trace(A1 @ np.linalg.solve(A0, A1.T)),
            "subtract it from tr G'": lambda A0, A1, G_next: np.trace(A1.T @ np.linalg.solve(A0, A1)),
            "missing a factor": lambda A0, A1, G_next: np.trace(G_next) - np.trace(np.linalg.solve(A0, A1)),
            "The loss is 0, and should be": lambda A0, A1, G_next: 0.0,
        },
    ),
    "1.2": (
        canonical,
        {
            "loss in feature units": in_feature_units,
            "whose second moment is G'": lambda A0, A1, G_next: canonical(A0, A1, A0),
            "The order is reversed": lambda A0, A1, G_next: canonical(A0, A1, G_next)[:, ::-1],
            "must have the shape (5, 5), got (5,)": lambda A0, A1, G_next: canonical(A0, A1, G_next)[:, 0],
        },
    ),
    "1.3": (
        lambda PP, G: (PP - G) / 2,
        {"twice A_1": lambda PP, G: PP - G, "G is missing": lambda PP, G: PP / 2},
    ),
    "1.4": (
        0.0,
        {
            "The norm is not 1.": 1.0,
            "all run forward": 1.5217,
            "norm of 400 texts": 0.0744,
            "The answer is a number": lambda: 0.0,
        },
    ),
    "2.1": (
        fisher,
        {
            "This is the difference of the class means": gap,
            "not centered": lambda x, labels: np.linalg.solve(x.T @ x, gap(x, labels)),
            "This is ũ": lambda x, labels: white_fisher(x, labels, np.cov(x.T)),
            "by S^{-1/2} once more": lambda x, labels: white_fisher(x, labels, within(x, labels)),
            "S times the difference": lambda x, labels: np.cov(x.T) @ gap(x, labels),
            "sum of the class means": lambda x, labels: x[labels == 1].mean(0) + x[labels == 0].mean(0),
            "their difference tells": lambda x, labels: np.linalg.solve(
                np.cov(x.T), x[labels == 1].mean(0) + x[labels == 0].mean(0)
            ),
            "is zero": lambda x, labels: np.zeros(x.shape[1]),
            "must have the shape": lambda x, labels: fisher(x, labels)[None],
            "not proportional": lambda x, labels: x[0],
        },
    ),
    "2.2": (
        lambda U, M: np.linalg.inv(M).T @ U,
        {
            "moves texts": lambda U, M: M @ U,
            "without its transpose": lambda U, M: np.linalg.inv(M) @ U,
            "without its inverse": lambda U, M: M.T @ U,
        },
    ),
    "2.3": (
        254,
        {
            "counts all directions": 256,
            "255 holds for centered": 255,
            "18 is the number": 18,
            "20 is the number": 20,
            "are the first ones": 2,
            "need not be taken out again": 236,
            "not the eighteen": 238,
            "The dimension is not 100.": 100,
        },
    ),
    "2.4": (
        lambda d, N: 0.5 + 0.5 * d / (N - 1),
        {
            "half of it is real": lambda d, N: d / (N - 1),
            "real half is missing": lambda d, N: 0.5 * d / (N - 1),
            "half that is noise only": lambda d, N: 0.5 + d / (N - 1),
            "limit of many texts": lambda d, N: 0.5,
            "The share for d = 10 and N = 50 is 1, and should be": lambda d, N: 1.0,
        },
    ),
    "2.5": (
        lambda m: 0.5 * m**2 / (1 + m**2),
        {
            "This is the share": lambda m: m**2 / (1 + m**2),
            "inverse of S": lambda m: 0.5 * m**2,
            "1/2 is the limit for a long mean; for a mean of length 0.5": lambda m: 0.5,
            "has to be squared": lambda m: 0.5 * m / (1 + m),
            "tr B for a mean of length 0.5 is 0.3, and should be 0.1": lambda m: 0.3,
        },
    ),
    "3.1": (
        lambda beta, lam: (beta.min() * len(beta), beta.max() * len(beta)),
        {
            "still in the constants": lambda beta, lam: (lam * beta.min() * 3, lam * beta.max() * 3),
            "r is missing": lambda beta, lam: (beta.min(), beta.max()),
            "comes first": lambda beta, lam: (3 * beta.max(), 3 * beta.min()),
        },
    ),
    "3.2": (
        lambda k_v, d: k_v / d,
        {"The score is 1": lambda k_v, d: 1.0, "The score is 0.0625": lambda k, d: (k / d) ** 2},
    ),
    "3.3": (
        lambda k, d: k / d,
        {"This is the cosine": lambda k, d: (k / d) ** 0.5, "share that is lost": lambda k, d: 1 - k / d},
    ),
    "3.4": (
        in_logits,
        {
            "loss in feature units": in_feature_units,
            "E multiplies the error": lambda A0, A1, E: canonical(A0, A1, E.T @ E),
            "reversed": lambda A0, A1, E: in_logits(A0, A1, E)[:, ::-1],
        },
    ),
    "3.5": (
        tighter,
        {
            "bound (c)": lambda s, beta: beta.max() * len(beta) * (1 - s),
            "Weights above one": lambda s, beta: beta.sum() * (1 - s),
        },
    ),
    "3.6": (
        ((0.6, 1.8), (0.8, 1.6)),
        {"that is the upper end": ((0.6, 1.8), (1.6, 0.8)), "sum of the squared sines": ((0.3, 0.9), (0.8, 1.6))},
    ),
    "3.7": (
        lambda kappa: kappa,
        {"what remains is the condition": lambda kappa: 1.0, "not of their roots": lambda kappa: kappa**0.5},
    ),
    "4.1": (
        moments_of,
        {
            "no token follows it": lambda x: (x.cumsum(0).T @ x.cumsum(0), moments_of(x)[1]),
            "second moment of the tokens": lambda x: (x.T @ x, moments_of(x)[1]),
            "The second matrix is transposed": lambda x: (moments_of(x)[0], moments_of(x)[1].T),
            "its own last token": lambda x: (moments_of(x)[0], x.cumsum(0)[:-1].T @ x[:-1]),
            "must return two matrices": lambda x: moments_of(x)[0],
        },
    ),
    "4.2": (3, {"growth of a single term": 2, "growth of p_t.": 1}),
    "4.3": (
        lambda n1, one, n2, two: (n1 * one + n2 * two) / (n1 + n2),
        {
            "plain average is wrong": lambda n1, one, n2, two: (one + two) / 2,
            "These are sums": lambda n1, one, n2, two: n1 * one + n2 * two,
            "weights are exchanged": lambda n1, one, n2, two: (n2 * one + n1 * two) / (n1 + n2),
        },
    ),
    "4.4": (
        scaled_rank,
        {
            "scale to unit diagonal first": lambda S: relative_rank(S),
            "An absolute cut-off": lambda S: int((np.linalg.eigvalsh(S) > 1e-8).sum()),
            "of a matrix of rank 6 is 5": lambda S: scaled_rank(S) - 1,
        },
    ),
    "4.5": (
        lambda hidden, mask: (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True),
        {
            "in the sum and in the number": lambda hidden, mask: hidden.mean(1),
            "divide by the sum of the mask": lambda hidden, mask: (hidden * mask[..., None]).mean(1),
            "Padding is counted in the sum.": lambda hidden, mask: hidden.sum(1) / mask.sum(1, keepdims=True),
        },
    ),
    "5.1": (
        white_coordinates,
        {
            "have a mean": lambda x, labels: white_coordinates(x, labels) + 1.0,
            "unit variance": lambda x, labels: 2.0 * white_coordinates(x, labels),
            "uses others": lambda x, labels: white_coordinates(x, labels[::-1]),
            "must have the shape": lambda x, labels: x,
        },
    ),
    "5.2": (
        lambda x: np.linalg.solve(x.T @ x, x.mean(0)),
        {
            "This is the mean feature": lambda x: x.mean(0),
            "not as constant": lambda x: x[0],
        },
    ),
    "5.3": (
        share,
        {
            "on the training texts": lambda z, y, z_test, y_test: share(z, y, z, y),
            "fitted on the test texts": lambda z, y, z_test, y_test: share(z_test, y_test, z_test, y_test),
            "not explained": lambda z, y, z_test, y_test: 1 - share(z, y, z_test, y_test),
        },
    ),
    "6.1": (lambda k, d: k / d, {"mean length": lambda k, d: (k / d) ** 0.5, "falls with d": lambda k, d: d / k}),
    "6.2": (
        lambda q, n: np.log(0.95) / stats.norm.logcdf(q * np.sqrt(n - 1)),
        {
            "standard deviation of a coefficient is missing": lambda q, n: np.log(0.95) / stats.norm.logcdf(q),
            "adds probabilities": lambda q, n: 0.05 / stats.norm.sf(q * np.sqrt(n - 1)),
        },
    ),
    "6.3": (
        best_p,
        {
            "one of the permutations": lambda s, t, orders: (
                (best_p(s, t, orders) * (1 + len(orders)) - 1) / len(orders)
            ),
            "The p-value is": lambda s, t, orders: 0.5,
        },
    ),
    "3.8": (0.167, {"loss that remains": 0.166, "V keeps 200": 0.334, "not zero": 0.0}),
    "7.1": (
        lambda strength, n_values: strength + (1 - strength) / n_values,
        {
            "own list, too": lambda strength, n_values: strength,
            "each of the n lists alike": lambda strength, n_values: strength + (1 - strength) / (n_values - 1),
        },
    ),
    "7.2": (
        lambda a, b: a * b,
        {
            "is uncorrelated": lambda a, b: a + b,
            "not all of it": lambda a, b: a * b + a,
            "must have the shape": lambda a, b: np.c_[a, b],
        },
    ),
    "7.3": (
        lambda accuracy, majority: (accuracy - majority) / (1 - majority),
        {
            "Divide by what can be gained": lambda accuracy, majority: accuracy - majority,
            "not have the value 1": lambda accuracy, majority: (accuracy - majority) / majority,
            "This is a ratio": lambda accuracy, majority: accuracy / majority,
        },
    ),
    "7.4": (
        lambda accuracy, n: np.sqrt(accuracy * (1 - accuracy) / n),
        {
            "take the root": lambda accuracy, n: accuracy * (1 - accuracy) / n,
            "of one text": lambda accuracy, n: np.sqrt(accuracy * (1 - accuracy)),
        },
    ),
    "8.1": (
        lambda v: 1 / np.sqrt(v),
        {"falls with the variance": lambda v: np.sqrt(v), "squared length": lambda v: 1 / v},
    ),
    "8.2": (
        lambda before, after, rows: np.quantile((after - before)[rows].mean(1), [0.025, 0.975]),
        {
            "has 90%": lambda before, after, rows: np.quantile((after - before)[rows].mean(1), [0.05, 0.95]),
            "spread of single tasks": lambda before, after, rows: np.quantile(after - before, [0.025, 0.975]),
            "must have the shape (2,)": lambda before, after, rows: (after - before)[rows].mean(1).std(),
        },
    ),
    "8.3": (
        lambda before, after, shuffled_before, shuffled_after: (after - before) - (shuffled_after - shuffled_before),
        {
            "whole rise": lambda before, after, shuffled_before, shuffled_after: after - before,
            "start of its own": lambda before, after, shuffled_before, shuffled_after: after - shuffled_after,
        },
    ),
    "9.1": (
        lambda rho: 1 - np.sqrt(1 - rho**2),
        {"share of the variance": lambda rho: rho**2, "error that is left": lambda rho: np.sqrt(1 - rho**2)},
    ),
    "9.2": (
        lambda gains, datasets: np.array([gains[datasets != d].mean() for d in datasets]),
        {
            "other cells of its dataset are not": lambda gains, datasets: (gains.sum() - gains) / (len(gains) - 1),
            "Nothing is left out": lambda gains, datasets: np.full(len(gains), gains.mean()),
        },
    ),
    "9.3": (
        lambda n, level: min(n, int(np.ceil(level * (n + 1)))),
        {
            "at most n": lambda n, level: (
                int(np.ceil(level * (n + 1))) if n < 6 else min(n, int(np.ceil(level * (n + 1))))
            ),
            "Round up": lambda n, level: min(n, int(level * (n + 1))),
        },
    ),
    "10.1": (0.707, {"covariance divided by the variance": 0.5, "same sign": -0.70710678, "not independent": 0.0}),
    "10.2": (
        lambda share: (1 - share) / 2,
        {"is wrong where": lambda share: share / 2, "right half of the time": lambda share: 1 - share},
    ),
    "10.3": (
        lambda x, y: stats.kendalltau(x, y)[0],
        {
            "share of concordant pairs": lambda x, y: (1 + stats.kendalltau(x, y)[0]) / 2,
            "This is Spearman": lambda x, y: stats.spearmanr(x, y)[0],
        },
    ),
    "11.1": (
        lambda low, high, threshold: "yes" if low >= threshold else "no" if high < threshold else "open",
        {
            "contains the threshold": lambda low, high, threshold: "yes" if (low + high) / 2 >= threshold else "no",
            "on one side": lambda low, high, threshold: "open",
            "must be 'yes', 'no' or 'open'": lambda low, high, threshold: low >= threshold,
            "the answer is 'yes'": lambda low, high, threshold: "no" if low >= threshold else "yes",
        },
    ),
    "11.2": (
        lambda headroom, n: headroom + 1.645 * np.sqrt(headroom * (1 - headroom) / n),
        {
            "lower limit": lambda headroom, n: headroom - 1.645 * np.sqrt(headroom * (1 - headroom) / n),
            "This is the standard error": lambda headroom, n: np.sqrt(headroom * (1 - headroom) / n),
            "not 1.96": lambda headroom, n: headroom + 1.96 * np.sqrt(headroom * (1 - headroom) / n),
        },
    ),
    "11.3": (
        lambda rate, minutes: rate * minutes / 60,
        {
            "divide the minutes by 60": lambda rate, minutes: rate * minutes,
            "must bring more": lambda rate, minutes: rate * 60 / minutes,
        },
    ),
    "12.1": (
        lambda n_tokens, n_parameters, operations_per_second: 2 * n_tokens * n_parameters / operations_per_second,
        {
            "two operations for a token": lambda n_tokens, n_parameters, speed: n_tokens * n_parameters / speed,
            "backward pass is not needed": lambda n_tokens, n_parameters, speed: 6 * n_tokens * n_parameters / speed,
        },
    ),
    "12.2": (
        lambda n_rates, steps, batch, evaluations, validation: n_rates * (2 * steps * batch + evaluations * validation),
        {
            "two forward passes": lambda n_rates, s, b, e, v: n_rates * (s * b + e * v),
            "repeated for each rate": lambda n_rates, s, b, e, v: n_rates * 2 * s * b + e * v,
            "one learning rate": lambda n_rates, s, b, e, v: 2 * s * b + e * v,
        },
    ),
    "12.3": (4, {"Only four workers": 12, "gone already": 5, "one worker is left": 3}),
    "12.4": (
        lambda model, dataset, settings, code: repr((model, dataset, settings, code)),
        {
            "unambiguously": lambda model, dataset, settings, code: "-".join((model, dataset, settings, code)),
            "does not depend on the code": lambda model, dataset, settings, code: repr((model, dataset, settings)),
            "must be text or a number": lambda model, dataset, settings, code: [model, dataset, settings, code],
            "two different names": lambda model, dataset, settings, code: np.random.default_rng().random(),
        },
    ),
    "13.1": (
        lambda f, d: d - int(f * d + 1e-9) + 1,
        {
            "directions that are kept": lambda f, d: int(f * d + 1e-9),
            "begin with 1": lambda f, d: d - int(f * d + 1e-9),
            "keeps the weakest": lambda f, d: 1,
        },
    ),
    "13.2": (4, {"with a common mean": 8, "of a single term": 2}),
    "13.3": (
        lambda share, k, descending: share[:k].sum() if descending else share[len(share) - k :].sum(),
        {
            "exchanged": lambda share, k, descending: share[len(share) - k :].sum() if descending else share[:k].sum(),
            "not their mean": lambda share, k, descending: (
                share[:k].mean() if descending else share[len(share) - k :].mean()
            ),
        },
    ),
    "14.1": (
        lambda sd, r: sd / np.sqrt(r),
        {"divided by r": lambda sd, r: sd / r, "Averages vary less": lambda sd, r: sd},
    ),
    "14.2": (
        {"topic", "author"},
        {
            "order of the words is needed": {"topic", "author", "order"},
            "counts of words alone": {"topic"},
            "Unknown names: style": {"topic", "style"},
        },
    ),
    "14.3": (
        lambda beta: 1 - beta.mean() / beta.max(),
        {
            "one minus the answer": lambda beta: beta.mean() / beta.max(),
            "not the smallest": lambda beta: 1 - beta.mean() / beta.min(),
        },
    ),
    "14.4": (0.0, {"not small": 0.25, "mean product": 1.0}),
}
"""For each exercise the solution, and wrong answers by a part of the message that they get."""


@pytest.mark.parametrize("number", ANSWERS)
def test_solutions_are_accepted(number):
    outcome = check(number, ANSWERS[number][0])
    assert outcome, repr(outcome)
    assert repr(outcome).startswith(f"Exercise {number}: correct.")
    assert outcome.message  # a remark on what follows


def test_other_correct_forms_are_accepted():
    assert check("2.1", fisher_within)
    assert check("2.4", lambda d, N: 0.5 + 0.5 * d / N)
    assert check("5.2", lambda x: np.linalg.solve(np.cov(x.T), x.mean(0)))
    assert check("3.8", 200 * 0.5 / 600)


@pytest.mark.parametrize(("number", "part"), [(n, part) for n, (_, wrong) in ANSWERS.items() for part in wrong])
def test_mistakes_are_named(number, part):
    outcome = check(number, ANSWERS[number][1][part])
    assert not outcome
    assert part in outcome.message, repr(outcome)


@pytest.mark.parametrize("number", ANSWERS)
def test_at_least_two_mistakes_of_each_exercise_are_tested(number):
    assert len(ANSWERS[number][1]) >= 2


@pytest.mark.parametrize("number", [n for n, (solution, _) in ANSWERS.items() if callable(solution)])
def test_functions_that_fail_are_explained(number):
    names = list(inspect.signature(ANSWERS[number][0]).parameters)

    def broken(*_):
        return [][1]

    def nothing(*_):
        return None

    def infinite(*arguments):
        return np.full_like(np.asarray(ANSWERS[number][0](*arguments), dtype=float), np.nan)

    message = check(number, broken).message
    assert message.startswith("The function raised IndexError in its line ")
    assert str(broken.__code__.co_firstlineno + 1) in message
    assert check(number, nothing).message == "The function returned nothing; is `return` missing?"
    assert not check(number, infinite)
    assert "must be a function of (" in check(number, 3.0).message
    assert "The function must accept (" in check(number, lambda: 0.0).message
    assert len(names) >= 1


@pytest.mark.parametrize("number", [n for n, (one, _) in ANSWERS.items() if not callable(one) and n != "14.2"])
def test_values_of_other_types_are_explained(number):
    assert "must be numeric" in check(number, "many").message
    assert "must be numeric, got None" in check(number, None).message
    assert "shape" in check(number, [[1.0, 2.0, 3.0]]).message


@pytest.mark.parametrize("number", [n for n, (one, _) in ANSWERS.items() if not callable(one) and n != "14.2"])
def test_numbers_do_not_get_the_solution_as_an_answer(number):
    """A student can repeat a check, and would read off what it says."""
    solution = np.asarray(ANSWERS[number][0], dtype=float)
    outcome = check(number, np.full_like(solution, 12345.0).tolist())
    assert "should be" not in outcome.message
    assert solution.ndim > 0 or outcome.message.endswith("is not 12345.")


@pytest.mark.parametrize("number", ANSWERS)
def test_a_starter_without_an_answer_is_recognized(number):
    assert (
        repr(check(number, ...)) == f"Exercise {number}: not correct. There is no answer yet: replace the three dots."
    )


def test_arguments_cannot_be_changed_by_an_answer():
    def careless(U, M):
        M[:] = np.linalg.inv(M).T
        U[:] = M @ U
        return U

    assert check("2.2", careless)


def test_unknown_exercises_are_errors():
    with pytest.raises(ValueError, match=r"no check of an exercise '9.9'; there are checks of 1.1, 1.2"):
        check("9.9", 0)


def test_every_exercise_with_a_check_names_it_and_the_reverse():
    """A chapter calls the check that its exercise has."""
    named = set()
    for source in book.chapters():
        text = source.read_text("utf-8")
        named |= {line.split('check("')[1].split('"')[0] for line in text.splitlines() if 'check("' in line}
    assert named == set(CHECKS)
    assert set(ANSWERS) == set(CHECKS)
