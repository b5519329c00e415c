"""Checks of the exercises of chapters 1 to 3."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import scipy.linalg

from ntps_utils.exercises._answers import MistakeError, call, compare, exercise, numbers, span_gap
from ntps_utils.theory.score import subspaces
from ntps_utils.theory.synthetic import Problem, circle_problem, random_problem


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
        compare(call(answer, m["A0"], m["A1"], m["G1"], of="(A0, A1, G_next)"), expected, "The loss", mistakes)
    return "It is the error of least squares on the tokens."


def _compare_directions(given: Any, m: dict[str, Any], metric: Any, other: str) -> None:
    """Compare directions with those of the loss that measures the error of the prediction in a metric."""
    d, k = len(m["A0"]), 2
    found = numbers(given, (d, d), "The matrix with the directions as columns")
    right, plain = (
        scipy.linalg.eigh(m["A1"] @ weights @ m["A1"].T, m["A0"])[1][:, ::-1] for weights in (metric, np.eye(d))
    )
    if span_gap(found[:, :k], right[:, -k:]) < 1e-6:
        raise MistakeError("The order is reversed: the first column must belong to the largest eigenvalue.")
    if span_gap(found[:, :k], plain[:, :k]) < 1e-6:
        raise MistakeError(
            "These are the directions of the loss in feature units, which do not move with the features."
        )
    if span_gap(found[:, :k], right[:, :k]) > 1e-5:
        raise MistakeError(other)


@exercise("1.2")
def _units(answer: Any) -> str:
    other = "These are not the directions of the loss in the metric of the predicted tokens, whose second moment is G'."
    for seed in range(4):
        m = _moments(seed)
        given = call(answer, m["A0"], m["A1"], m["G1"], of="(A0, A1, G_next)")
        _compare_directions(given, m, np.linalg.inv(m["G1"]), other)
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
    circle = circle_problem(0)
    turned = [text[::-1] if i % 2 else text for i, text in enumerate(circle.texts)]
    forward, both = (
        np.linalg.norm(A1 - A1.T) / 2
        for A1 in (Problem(tuple(texts), circle.targets).moments().A1 for texts in (circle.texts, turned))
    )
    mistakes = {
        "This is the norm of texts that all run forward.": forward,
        f"This is the norm of {len(turned)} texts. Which value does it approach with more of them?": both,
    }
    compare(answer, 0.0, "The norm", mistakes, rtol=0.02)
    return "Each text and its reverse have opposite antisymmetric parts."


@exercise("2.1")
def _fisher(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for d in (3, 6):
        labels = rng.permutation(np.arange(60) % 2)
        x = rng.normal(size=(60, d)) @ rng.normal(size=(d, d)) + np.outer(labels, rng.normal(size=d))
        u = numbers(call(answer, x, labels, of="(x, labels)"), (d,), "The direction")
        one, two = (x[labels == j].mean(0) for j in (0, 1))
        gap, centered = two - one, x - x.mean(0)
        within = x - np.stack([one, two])[labels]
        S, S_within, S_raw = (part.T @ part / len(x) for part in (centered, within, x))
        mistakes = [
            ("This is the difference of the class means; multiply it by the inverse covariance.", gap),
            ("The second moments are not centered: subtract the mean of all texts first.", np.linalg.solve(S_raw, gap)),
            ("This is S times the difference of the class means; multiply by the inverse of S.", S @ gap),
            ("This has the sum of the class means; their difference tells the classes apart.", one + two),
            (
                "This has the sum of the class means; their difference tells the classes apart.",
                np.linalg.solve(S, one + two),
            ),
        ]
        for covariance in (S, S_within):
            values, vectors = np.linalg.eigh(covariance)
            white = vectors / np.sqrt(values) @ vectors.T @ gap
            mistakes.append(("This is ũ, in white coordinates; multiply by S^{-1/2} once more.", white))
        if not u.any():
            raise MistakeError("The direction is zero, so that it predicts nothing.")
        for message, wrong in mistakes:
            if span_gap(u[:, None], wrong[:, None]) < 4e-5:
                raise MistakeError(message)
        if span_gap(u[:, None], np.linalg.solve(S, gap)[:, None]) > 4e-5:
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
def _free(answer: Any) -> str:
    mistakes = {
        "256 counts all directions; two of them carry the labels.": 256,
        "255 holds for centered moments, where r = 1; here r = 2.": 255,
        "18 is the number of directions that are kept, not that of the space they lie in.": 18,
        "20 is the number of directions that are kept; the last eighteen lie in a larger space.": 20,
        "The two directions that carry the labels are the first ones; the last eighteen lie outside of their span.": 2,
        "The last eighteen need not be taken out again: they lie in the space that is asked for.": 236,
        "Take out the directions that carry the labels, not the eighteen whose space is asked for.": 238,
    }
    compare(answer, 254, "The dimension", mistakes)
    return "Which of these directions a solver picks says nothing about the task."


@exercise("2.4")
def _optimism(answer: Any) -> str:
    for d, n in ((10, 50), (32, 64), (100, 1000)):
        share = d / (n - 1)
        mistakes = {
            "The whole variance is treated as noise; half of it is real and always explained.": share,
            "The real half is missing.": 0.5 * share,
            "The optimism applies to the half that is noise only.": 0.5 + share,
            f"1/2 is the limit of many texts; with {n} texts a part of the noise seems explained, too.": 0.5,
        }
        value = call(answer, d, n, of="(d, N)")
        compare(value, 0.5 + 0.5 * share, f"The share for d = {d} and N = {n}", mistakes, rtol=0.025)
    return "With twice as many texts as features, three quarters seem to be explained."


@exercise("2.5")
def _coin(answer: Any) -> str:
    for length in (0.5, 2.0, 10.0):
        square = length**2
        mistakes = {
            "This is the share of |q|^2; multiply it by |q|^2 = 1/2.": square / (1 + square),
            "The inverse of S = I + s s^T is missing: s^T S^{-1} s = |s|^2 / (1 + |s|^2).": 0.5 * square,
            f"1/2 is the limit for a long mean; for a mean of length {length:g} tr B is less.": 0.5,
            "The length has to be squared: s^T S^{-1} s = |s|^2 / (1 + |s|^2).": 0.5 * length / (1 + length),
        }
        value = call(answer, length, of="(length)")
        compare(value, 0.5 * square / (1 + square), f"tr B for a mean of length {length:g}", mistakes)
    return "For a long mean it is nearly 1/2, although the labels are noise."


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
    other = "These are not the directions of the loss in logits: E multiplies the error of the prediction."
    for seed in range(4):
        m = _moments(seed)
        E = np.random.default_rng(seed).normal(size=(9, len(m["A0"])))
        given = call(answer, m["A0"], m["A1"], E, of="(A0, A1, E)")
        _compare_directions(given, m, E.T @ E, other)
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
