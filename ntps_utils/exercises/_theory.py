"""Checks of the exercises of chapters 1 to 3."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import scipy.linalg

from ntps_utils.exercises._answers import MistakeError, call, compare, exercise, numbers, span_gap
from ntps_utils.theory.score import subspaces
from ntps_utils.theory.synthetic import random_problem


def _moments(seed: int, d: int = 5) -> dict[str, Any]:
    """Moments of a random problem of full rank, with G as the sum over all tokens and G1 without first tokens."""
    problem = random_problem(seed, d=d, n_texts=40, rank=d, condition=4.0)
    texts = problem.texts
    prefixes = [text.cumsum(0) for text in texts]
    return {
        "texts": texts,
        "A0": np.mean([p[:-1].T @ p[:-1] for p in prefixes], axis=0),
        "A1": np.mean([p[:-1].T @ x[1:] for p, x in zip(prefixes, texts, strict=True)], axis=0),
        "G": np.mean([x.T @ x for x in texts], axis=0),
        "G1": np.mean([x[1:].T @ x[1:] for x in texts], axis=0),
        "problem": problem,
    }


@exercise("1.1")
def _full_loss(answer: Any) -> str:
    for seed in range(4):
        m = _moments(seed, d=3 + seed)
        past = np.concatenate([text.cumsum(0)[:-1] for text in m["texts"]])
        future = np.concatenate([text[1:] for text in m["texts"]])
        weights = np.linalg.lstsq(past, future, rcond=None)[0]
        expected = ((future - past @ weights) ** 2).sum() / len(m["texts"])
        solved, turned = (np.linalg.solve(m["A0"], a) for a in (m["A1"], m["A1"].T))
        mistakes = {
            "The product has A_1 and its transpose the wrong way round: the past is on the left of A_1.": (
                np.trace(m["G1"]) - np.trace(m["A1"] @ turned)
            ),
            "This is what the prediction removes from the loss; subtract it from tr G'.": np.trace(m["A1"].T @ solved),
            "The trace is missing a factor A_1: the loss is quadratic in it.": np.trace(m["G1"]) - np.trace(solved),
        }
        compare(call(answer, m["A0"], m["A1"], m["G1"], of="(A0, A1, G)"), expected, "The loss", mistakes)
    return "It is the error of least squares on the tokens."


def _invariant(answer: Any, diagonal: bool) -> None:
    rng = np.random.default_rng(0)
    for seed in range(4):
        m = _moments(seed)
        d = len(m["G"])
        M = np.diag(rng.uniform(0.2, 5.0, d)) if diagonal else rng.normal(size=(d, d)) + 2.0 * np.eye(d)
        old = [m[name] for name in ("A0", "A1", "G1")]
        before, after = (
            numbers(call(answer, *given, of="(A0, A1, G)"), (d, d), "The matrix with the directions as columns")
            for given in (old, [M @ x @ M.T for x in old])
        )
        k = 2
        if span_gap(np.linalg.solve(M.T, before)[:, :k], after[:, :k]) > 1e-5:
            raise MistakeError(
                "After a change of features x -> M x, the first directions do not span M^{-T} times the old ones. "
                "Measure the error of the prediction in a metric that changes along with the features."
            )
        usual = scipy.linalg.eigh(m["A1"] @ np.linalg.solve(m["G1"], m["A1"].T), m["A0"])[1][:, ::-1]
        if span_gap(before[:, :k], usual[:, -k:]) < 1e-6:
            raise MistakeError("The order is reversed: the first column must belong to the largest eigenvalue.")
        if span_gap(before[:, :k], usual[:, :k]) > 1e-5:
            raise MistakeError(
                "The directions move along with the features, but they are not those of the loss in the metric of G."
            )


@exercise("1.2")
def _units(answer: Any) -> str:
    _invariant(answer, diagonal=True)
    return "In this metric the problem is a canonical correlation analysis of past and next token."


@exercise("1.3")
def _exchangeable(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for d in (2, 4):
        tokens = rng.normal(size=(4, d))
        orders = [tokens[list(order)] for order in permutations(range(4))]
        A1 = np.mean([x.cumsum(0)[:-1].T @ x[1:] for x in orders], axis=0)
        total, G = np.outer(tokens.sum(0), tokens.sum(0)), tokens.T @ tokens
        mistakes = {
            "This is A_1 + A_1^T; for a symmetric A_1 it is twice A_1.": total - G,
            "G is missing: the sum of a text contains every token paired with itself.": total / 2,
        }
        compare(call(answer, total, G, of="(PP, G)"), A1, "A_1", mistakes)
    return "Of the texts, only their sums and their tokens count."


@exercise("1.4")
def _circle(answer: Any) -> str:
    if callable(answer):
        raise MistakeError("The answer is a number: the norm of the antisymmetric part in the limit of many texts.")
    compare(answer, 0.0, "The norm")
    return "Each text and its reverse have opposite antisymmetric parts."


@exercise("2.1")
def _fisher(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for d in (3, 6):
        labels = rng.permutation(np.arange(60) % 2)
        x = rng.normal(size=(60, d)) @ rng.normal(size=(d, d)) + np.outer(labels, rng.normal(size=d))
        u = numbers(call(answer, x, labels, of="(x, labels)"), (d,), "The direction")
        gap = x[labels == 1].mean(0) - x[labels == 0].mean(0)
        centered = x - x.mean(0)
        right = np.linalg.solve(centered.T @ centered, gap)
        if span_gap(u[:, None], gap[:, None]) < 4e-5:
            raise MistakeError("This is the difference of the class means; multiply it by the inverse covariance.")
        if span_gap(u[:, None], np.linalg.solve(x.T @ x, gap)[:, None]) < 4e-5:
            raise MistakeError("The second moments are not centered: subtract the mean of all texts first.")
        if span_gap(u[:, None], right[:, None]) > 4e-5:
            raise MistakeError("The direction is not proportional to S^{-1} (m_1 - m_0).")
    return "The covariance within classes gives the same direction."


@exercise("2.2")
def _moved(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for d in (2, 5):
        U, M = rng.normal(size=(d, 2)), rng.normal(size=(d, d)) + 2.0 * np.eye(d)
        mistakes = {
            "This is M U, which moves texts; directions move with the inverse transpose.": M @ U,
            "This is the inverse without its transpose.": np.linalg.solve(M, U),
            "This is the transpose without its inverse.": M.T @ U,
        }
        compare(call(answer, U, M, of="(U, M)"), np.linalg.solve(M.T, U), "The new U", mistakes)
    return "So U^T x does not change."


@exercise("2.3")
def _free(answer: Any) -> str | None:
    mistakes = {
        "256 counts all directions; two of them carry the labels.": 256,
        "255 holds for centered moments, where r = 1; here r = 2.": 255,
        "18 is the number of directions that are kept, not that of the space they lie in.": 18,
    }
    compare(answer, 254, "The dimension", mistakes)
    return None


@exercise("2.4")
def _optimism(answer: Any) -> str:
    for d, n in ((10, 50), (32, 64), (100, 1000)):
        share = d / (n - 1)
        mistakes = {
            "The whole variance is treated as noise; half of it is real and always explained.": share,
            "The real half is missing.": 0.5 * share,
            "The optimism applies to the half that is noise only.": 0.5 + share,
        }
        compare(call(answer, d, n, of="(d, N)"), 0.5 + 0.5 * share, "The share", mistakes, rtol=0.025)
    return "With twice as many texts as features, three quarters seem to be explained."


@exercise("2.5")
def _coin(answer: Any) -> str:
    for size in (0.5, 2.0, 10.0):
        square = size**2
        mistakes = {
            "This is the share of |q|^2; multiply it by |q|^2 = 1/2.": square / (1 + square),
            "The inverse of S = I + m m^T is missing: m^T S^{-1} m = |m|^2 / (1 + |m|^2).": 0.5 * square,
        }
        compare(call(answer, size, of="(length)"), 0.5 * square / (1 + square), "tr B", mistakes)
    return "For a large mean it is nearly 1/2, although the labels are noise."


@exercise("3.1")
def _equal(answer: Any) -> str:
    for seed, lam in ((0, 0.3), (1, 7.0)):
        beta = np.sort(np.random.default_rng(seed).uniform(0.1, 1.0, 3))[::-1]
        mistakes = {
            "The eigenvalue of S is still in the constants; |U|_F^2 = r / lambda cancels it.": (
                3 * lam * beta[-1],
                3 * lam * beta[0],
            ),
            "The number of directions r is missing.": (beta[-1], beta[0]),
            "The lower constant has the smallest beta, and comes first.": (3 * beta[0], 3 * beta[-1]),
        }
        expected = (3 * beta[-1], 3 * beta[0])
        compare(call(answer, beta, lam, of="(beta, lam)"), expected, "The pair of constants", mistakes)
    return "They are those of (c)."


@exercise("3.2")
def _many_classes(answer: Any) -> str:
    for k, d in ((1, 4), (3, 10), (10, 10)):
        basis = np.linalg.qr(np.random.default_rng(k).normal(size=(d, d)))[0]
        V = np.random.default_rng(d).normal(size=(d, k))
        Q = np.linalg.qr(V)[0]
        compare(call(answer, k, d, of="(k_v, d)"), np.square(Q.T @ basis).sum(0).mean(), "The score")
    return "Whatever the task."


@exercise("3.3")
def _chance(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for k, d in ((1, 8), (4, 8), (6, 8)):
        u = np.eye(d)[0]
        draws = [np.square(np.linalg.qr(rng.normal(size=(d, k)))[0].T @ u).sum() for _ in range(4000)]
        mistakes = {
            "This is the cosine; the score averages squared cosines.": (k / d) ** 0.5,
            "This is the share that is lost.": 1 - k / d,
        }
        value = call(answer, k, d, of="(k, d)")
        compare(value, k / d, "The expected score", mistakes)
        compare(value, np.mean(draws), "The expected score", rtol=0.05)
    return "A simulation with 4,000 random subspaces agrees."


@exercise("3.4")
def _metric(answer: Any) -> str:
    _invariant(answer, diagonal=False)
    return "This V moves along with every invertible change of features."


@exercise("3.5")
def _tighter(answer: Any) -> str:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        r = 3 + seed
        beta = np.sort(rng.uniform(0.05, 1.0, r))[::-1]
        for score in (0.1, 0.5, 0.9):
            missing = r * (1 - score)
            whole = int(missing)
            expected = beta[:whole].sum() + (missing - whole) * (beta[whole] if whole < r else 0.0)
            mistakes = {
                "This is the bound (c): it puts all of the missing weight on the largest beta.": beta[0] * missing,
                "Weights above one are impossible: at most one unit of missing weight lies on each direction.": (
                    beta.sum() * (1 - score)
                ),
            }
            compare(call(answer, score, beta, of="(ntps_metric, beta)"), expected, "The bound", mistakes)
    for seed in range(20):  # it must hold for scores of real subspaces
        problem = random_problem(seed, d=6, n_texts=60, rank=6, condition=4.0)
        solved = subspaces(problem.moments(), center=True)
        row = solved.row(3)
        bound = float(numbers(call(answer, row.ntps_metric, solved.beta, of="(ntps_metric, beta)"), (), "The bound"))
        if row.excess_loss > bound * (1 + 1e-6) + 1e-9:
            raise MistakeError(
                f"A random problem has an excess loss of {row.excess_loss:.4g} above the bound {bound:.4g}."
            )
    return "It also holds for 20 random problems."


@exercise("3.6")
def _angles(answer: Any) -> str:
    mistakes = {
        "The second pair pairs the largest beta with the largest sine for the lower end; that is the upper end.": (
            (0.6, 1.8),
            (1.6, 0.8),
        ),
        "(c) needs r (1 - NTPS_S) = 0.1 + 0.5, the sum of the squared sines.": ((0.3, 0.9), (0.8, 1.6)),
    }
    compare(answer, ((0.6, 1.8), (0.8, 1.6)), "The two pairs", mistakes)
    return "With all angles the bounds lie closer."


@exercise("3.7")
def _one_direction(answer: Any) -> str:
    for kappa in (1.0, 10.0, 1e4):
        mistakes = {
            "With r = 1 the ratio of the betas is 1; what remains is the condition number.": 1.0,
            "The condition number is already a ratio of eigenvalues, not of their roots.": kappa**0.5,
        }
        compare(call(answer, kappa, of="(kappa)"), kappa, "The ratio", mistakes)
    return "For (c), (f) and (g) it is 1."


@exercise("3.8")
def _noise(answer: Any) -> str:
    mistakes = {
        "This is the loss that remains; the excess loss belongs to the 200 directions outside V.": 0.166,
        "All 400 features explain this much; V keeps 200 of them.": 400 * 0.5 / 599,
        "Noise is explained in the sample, so that the expected excess loss is not zero.": 0.0,
    }
    compare(answer, 200 * 0.5 / 599, "The excess loss", mistakes, rtol=0.004)
    return "An excess loss of 0.17 is what labels without any relation to the features give."
