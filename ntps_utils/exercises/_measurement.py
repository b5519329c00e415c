"""Checks of the exercises of chapters 4 to 6."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from ntps_utils.exercises._answers import MistakeError, call, compare, exercise, numbers, span_gap


@exercise("4.1")
def _moments(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for n_steps, d in ((2, 3), (5, 2), (7, 4)):
        x = rng.normal(size=(n_steps, d))
        p = np.array([x[: t + 1].sum(0) for t in range(n_steps)])
        A0 = sum(np.outer(p[t], p[t]) for t in range(n_steps - 1))
        A1 = sum(np.outer(p[t], x[t + 1]) for t in range(n_steps - 1))
        given = call(answer, x, of="(x)")
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise MistakeError("The function must return two matrices.")
        whole = p.T @ p
        mistakes = {
            "The last prefix sum is counted, but no token follows it.": whole,
            "This is the second moment of the tokens; prefix sums add them up.": x.T @ x,
            "Sums are wanted, not means over positions.": A0 / (n_steps - 1),
        }
        compare(given[0], A0, "The first matrix", mistakes)
        mistakes = {
            "The second matrix is transposed: the past is on the left.": np.transpose(A1),
            "The prefix sum is paired with its own last token instead of the next one.": p[:-1].T @ x[:-1],
        }
        compare(given[1], A1, "The second matrix", mistakes)
    return "A double loop over positions agrees."


@exercise("4.2")
def _power(answer: Any) -> str:
    mistakes = {
        "That is the growth of a single term p_t p_t^T; sum over t.": 2,
        "That is the growth of p_t.": 1,
        "p_t grows like t, not like t^2.": 5,
    }
    compare(answer, 3, "The power", mistakes)
    return "A text of twice the length counts eightfold."


@exercise("4.3")
def _merged(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for n1, n2 in ((10, 30), (7, 1)):
        one, two = rng.normal(size=(2, 3, 3))
        mistakes = {
            "The machines have read different numbers of texts, so that a plain average is wrong.": (one + two) / 2,
            "These are sums over texts; divide by the number of all texts.": n1 * one + n2 * two,
            "The weights are exchanged.": (n2 * one + n1 * two) / (n1 + n2),
        }
        expected = (n1 * one + n2 * two) / (n1 + n2)
        compare(call(answer, n1, one, n2, two, of="(n1, one, n2, two)"), expected, "The merged moment", mistakes)
    return "So texts can be read in any number of parts."


@exercise("4.4")
def _rank(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for d, r in ((6, 6), (8, 3), (10, 7)):
        x = rng.normal(size=(200, r)) @ rng.normal(size=(r, d))
        for scales in (np.ones(d), np.geomspace(1e-5, 1e5, d)):
            S = (x * scales).T @ (x * scales) / len(x)
            found = numbers(call(answer, S, of="(S)"), (), "The rank")
            if found != r:
                values = np.linalg.eigvalsh(S)
                relative = int((values > d * np.finfo(float).eps * values[-1]).sum())
                reason = f"The rank of a matrix of rank {r} is {found:g}."
                if scales[0] != 1.0:
                    reason = f"After rescaling the features the rank of a matrix of rank {r} is {found:g}. "
                    reason += (
                        "The cut-off is relative to an eigenvalue in feature units: scale to unit diagonal first."
                        if found == relative
                        else "An absolute cut-off depends on the units of the features."
                    )
                raise MistakeError(reason)
    return "It is the same in all units."


@exercise("4.5")
def _mean_tokens(answer: Any) -> str:
    rng = np.random.default_rng(0)
    lengths = np.array([1, 4, 6])
    mask = (np.arange(6) < lengths[:, None]).astype(float)
    hidden = rng.normal(size=(3, 6, 2))
    expected = np.stack([text[:n].mean(0) for text, n in zip(hidden, lengths, strict=True)])
    mistakes = {
        "Padding is counted in the sum and in the number of tokens.": hidden.mean(1),
        "Padding is counted in the number of tokens: divide by the sum of the mask.": (hidden * mask[..., None]).mean(
            1
        ),
        "Padding is counted in the sum.": hidden.sum(1) / lengths[:, None],
    }
    compare(call(answer, hidden, mask, of="(hidden, mask)"), expected, "The mean tokens", mistakes)
    return "They are those of the texts one by one."


@exercise("5.1")
def _coordinates(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for d, c in ((5, 2), (6, 4)):
        labels = rng.permutation(np.arange(120) % c)
        x = rng.normal(size=(120, d)) @ rng.normal(size=(d, d)) + 3.0 * rng.normal(size=(c, d))[labels] + 5.0
        z = numbers(call(answer, x, labels, of="(x, labels)"), (120, c - 1), "The coordinates")
        if np.abs(z.mean(0)).max() > 1e-6:
            raise MistakeError("The coordinates have a mean: subtract that of the features.")
        covariance = z.T @ z / len(z)
        if not np.allclose(np.diag(covariance), 1.0, atol=0.02):
            raise MistakeError("The coordinates do not have unit variance: normalize U^T S U = I.")
        if not np.allclose(covariance, np.eye(c - 1), atol=0.02):
            raise MistakeError("The coordinates are correlated: the directions must be S-orthonormal.")
        targets = np.eye(c)[labels] - np.bincount(labels) / len(labels)
        centered = x - x.mean(0)
        right = centered @ np.linalg.lstsq(centered, targets, rcond=None)[0][:, : c - 1]
        if span_gap(z, right) > 1e-5:
            raise MistakeError("The coordinates are white, but a linear predictor of the classes uses others.")
    return "Their covariance is the identity."


@exercise("5.2")
def _constant(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for d in (3, 6):
        x = rng.normal(size=(80, d)) @ rng.normal(size=(d, d)) + 4.0 * rng.normal(size=d)
        u = numbers(call(answer, x, of="(x)"), (d,), "The direction")
        right = np.linalg.lstsq(x, np.ones(80), rcond=None)[0]
        if span_gap(u[:, None], right[:, None]) < 4e-5:
            continue
        if span_gap(u[:, None], x.mean(0)[:, None]) < 4e-5:
            raise MistakeError("This is the mean feature, whose coordinate varies. Multiply by S^{-1}.")
        raise MistakeError("The coordinate is not as constant as it can be.")
    return "The covariance in place of S gives the same direction, by the formula of Sherman and Morrison."


@exercise("5.3")
def _share(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for scale in (0.5, 2.0):
        z, z_test = rng.normal(size=(60, 2)) + 1.0, rng.normal(size=(40, 2)) + 1.0
        y, y_test = (part @ [1.0, -1.0] + 2.0 + scale * rng.normal(size=len(part)) for part in (z, z_test))

        def error(z: Any, y: Any, fit_z: Any, fit_y: Any, *, intercept: bool = True) -> float:
            ones = [np.ones((len(part), 1)) if intercept else np.empty((len(part), 0)) for part in (fit_z, z)]
            weights = np.linalg.lstsq(np.hstack([fit_z, ones[0]]), fit_y, rcond=None)[0]
            return float(((y - np.hstack([z, ones[1]]) @ weights) ** 2).sum())

        spread = ((y_test - y_test.mean()) ** 2).sum()
        mistakes = {
            "This is the share on the training texts.": 1 - error(z, y, z, y) / ((y - y.mean()) ** 2).sum(),
            "The function is fitted on the test texts.": 1 - error(z_test, y_test, z_test, y_test) / spread,
            "The fit has no intercept.": 1 - error(z_test, y_test, z, y, intercept=False) / spread,
            "This is the share that is not explained.": error(z_test, y_test, z, y) / spread,
        }
        expected = 1 - error(z_test, y_test, z, y) / spread
        compare(call(answer, z, y, z_test, y_test, of="(z, y, z_test, y_test)"), expected, "The share", mistakes)
    return "For labels without any relation it is near zero, or below."


@exercise("6.1")
def _curve(answer: Any) -> str:
    for k, d in ((1, 4), (3, 12), (12, 12)):
        mistakes = {
            "This is the mean length; the score is about squared lengths.": (k / d) ** 0.5,
            "The share falls with d and rises with k.": d / k,
        }
        compare(call(answer, k, d, of="(k, d)"), k / d, "The score", mistakes)
    return "It is the dotted diagonal."


@exercise("6.2")
def _independent(answer: Any) -> str:
    for q, n in ((0.5, 12), (0.7, 15)):
        below = stats.norm.cdf(q * np.sqrt(n - 1))
        mistakes = {
            "The standard deviation of a coefficient is missing: use q times the root of n - 1.": (
                np.log(0.95) / np.log(stats.norm.cdf(q))
            ),
            "This adds probabilities instead of multiplying them; it is 5% divided by that of one coefficient.": (
                0.05 / (1 - below)
            ),
            "The standard deviation is 1 / sqrt(n - 1), not 1 / sqrt(n).": (
                np.log(0.95) / np.log(stats.norm.cdf(q * np.sqrt(n)))
            ),
        }
        expected = np.log(0.95) / np.log(below)
        compare(call(answer, q, n, of="(q, n)"), expected, "The number of settings", mistakes, rtol=1e-4)
    return "Neighboring settings are far from independent."


@exercise("6.3")
def _p_value(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for n_settings, n in ((1, 8), (10, 9)):
        scores, target = rng.normal(size=(n_settings, n)), rng.permutation(n).astype(float)
        orders = np.array([rng.permutation(n) for _ in range(60)])
        observed = np.array([stats.spearmanr(s, target)[0] for s in scores])
        null = np.array([[stats.spearmanr(s, target[o])[0] for s in scores] for o in orders])
        exceed = int((null.max(1) >= observed.max() - 1e-12).sum())
        single = int((null[:, observed.argmax()] >= observed.max() - 1e-12).sum())
        absolute = int((np.abs(null).max(1) >= np.abs(observed).max() - 1e-12).sum())
        mistakes = {
            "The observed order is one of the permutations: add one to both counts.": exceed / 60,
            "The null is that of one setting; take the largest coefficient over all settings.": (1 + single) / 61,
            "The largest coefficient is wanted, not the largest absolute one.": (1 + absolute) / 61,
        }
        value = call(answer, scores, target, orders, of="(scores, target, orders)")
        compare(value, (1 + exceed) / 61, "The p-value", mistakes)
    return "It agrees for a single setting and for a sweep of ten."
