"""Checks of the exercises of chapters 7 to 10."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from ntps_utils.exercises._answers import MistakeError, call, compare, exercise, numbers


@exercise("7.1")
def _best_possible(answer: Any) -> str:
    for strength, n in ((0.8, 2), (0.7, 8), (0.0, 4)):
        mistakes = {
            "The other draws can fall into the own list, too.": strength,
            "The other draws fall into each of the n lists alike: into the own one with probability 1 / n.": (
                strength + (1 - strength) / max(n - 1, 1)
            ),
        }
        expected = strength + (1 - strength) / n
        compare(call(answer, strength, n, of="(strength, n_values)"), expected, "The accuracy", mistakes)
    return "For weather it is 0.9."


@exercise("7.2")
def _feature(answer: Any) -> str:
    a, b = np.array([1.0, 1.0, -1.0, -1.0]).repeat(5), np.array([1.0, -1.0, 1.0, -1.0]).repeat(5)
    f = numbers(call(answer, a, b, of="(a, b)"), (20,), "The feature")
    label = (a != b).astype(float)
    design = np.c_[f, np.ones(20)]
    error = label - design @ np.linalg.lstsq(design, label, rcond=None)[0]
    explained = 1 - error @ error / (20 * label.var())
    if explained < 1e-9:
        raise MistakeError("This feature is uncorrelated with the label, as every sum of the two signs is.")
    if explained < 1 - 1e-9:
        raise MistakeError(f"A linear probe of this feature explains {explained:.0%} of the label, not all of it.")
    return "A linear probe of it explains all of the label."


@exercise("7.3")
def _adjusted(answer: Any) -> str:
    for accuracy, majority in ((0.60, 0.15), (0.75, 0.50), (0.4, 0.5)):
        mistakes = {
            "Divide by what can be gained at most, 1 - m.": accuracy - majority,
            "Perfect predictions would not have the value 1: divide by 1 - m.": (accuracy - majority) / majority,
            "This is a ratio; always naming the most frequent class would have the value 1.": accuracy / majority,
        }
        expected = (accuracy - majority) / (1 - majority)
        compare(
            call(answer, accuracy, majority, of="(accuracy, majority)"), expected, "The adjusted accuracy", mistakes
        )
    return "The two tasks have 0.53 and 0.50."


@exercise("7.4")
def _standard_error(answer: Any) -> str:
    for a, n in ((0.9, 500), (0.6, 100)):
        mistakes = {
            "This is the variance; take the root.": a * (1 - a) / n,
            "This is the standard deviation of one text; divide by the root of n.": (a * (1 - a)) ** 0.5,
            "This is the largest standard error, at an accuracy of one half.": 0.5 / n**0.5,
        }
        expected = (a * (1 - a) / n) ** 0.5
        compare(call(answer, a, n, of="(accuracy, n)"), expected, "The standard error", mistakes)
    return "It is 1.3 points for an accuracy of 0.9 on 500 texts."


@exercise("8.1")
def _length(answer: Any) -> str:
    for v in (0.25, 4.0):
        mistakes = {
            "The length falls with the variance: the column is divided by the standard deviation.": v**0.5,
            "This is the squared length.": 1 / v,
        }
        compare(call(answer, v, of="(v)"), v**-0.5, "The length", mistakes)
    return "So useful directions count less in the Euclidean score."


@exercise("8.2")
def _interval(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for n in (8, 15):
        before, shift = rng.normal(size=n), 0.3 * rng.normal(size=n) + 0.2
        after, rows = before + shift, rng.integers(0, n, (400, n))
        means = shift[rows].mean(1)
        other = after[rows].mean(1) - before[rng.integers(0, n, (400, n))].mean(1)
        mistakes = {
            "The interval has 90%: leave 2.5% on each side.": np.quantile(means, [0.05, 0.95]),
            "This is the spread of single tasks; take the mean of each resample.": np.quantile(shift, [0.025, 0.975]),
            "Before and after are resampled apart; the comparison is paired.": np.quantile(other, [0.025, 0.975]),
        }
        value = call(answer, before, after, rows, of="(before, after, rows)")
        compare(value, np.quantile(means, [0.025, 0.975]), "The interval", mistakes)
    return "It is that of the mean change of new tasks of this kind."


@exercise("8.3")
def _net_rise(answer: Any) -> str:
    before, after, shuffled_before, shuffled_after = 0.4, 0.55, 0.42, 0.46
    mistakes = {
        "This is the whole rise, without the control.": after - before,
        "The control has a start of its own, which may differ: subtract its rise.": after - shuffled_after,
        "The control is added instead of subtracted.": (after - before) + (shuffled_after - shuffled_before),
    }
    value = call(
        answer, before, after, shuffled_before, shuffled_after, of="(before, after, shuffled_before, shuffled_after)"
    )
    compare(value, (after - before) - (shuffled_after - shuffled_before), "The rise", mistakes)
    return "It is a difference of differences."


@exercise("9.1")
def _saved(answer: Any) -> str:
    for rho in (0.5, -0.8, 0.0):
        mistakes = {
            "This is the share of the variance; the error is a root.": rho**2,
            "This is the share of the error that is left.": (1 - rho**2) ** 0.5,
            "A correlation is not a share of the error.": abs(rho),
        }
        compare(call(answer, rho, of="(rho)"), 1 - (1 - rho**2) ** 0.5, "The share", mistakes)
    return "A correlation of 0.5 saves 13%."


@exercise("9.2")
def _left_out_means(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for n in (6, 9):
        gains, datasets = rng.normal(size=n), np.array(["a", "b", "c"])[rng.permutation(np.arange(n) % 3)]
        expected = np.array([gains[datasets != d].mean() for d in datasets])
        mistakes = {
            "The cell itself is left out, but other cells of its dataset are not.": (gains.sum() - gains) / (n - 1),
            "Nothing is left out.": np.full(n, gains.mean()),
            "This is the mean of the same dataset, without which it should be.": np.array(
                [gains[datasets == d].mean() for d in datasets]
            ),
        }
        compare(call(answer, gains, datasets, of="(gains, datasets)"), expected, "The predictions", mistakes)
    return "Cells of one dataset get the same prediction."


@exercise("9.3")
def _order_statistic(answer: Any) -> str:
    for n, level in ((33, 0.8), (3, 0.8), (9, 0.8), (40, 0.9)):
        right = min(n, math.ceil(level * (n + 1)))
        mistakes = {
            "There are only n values: k is at most n.": math.ceil(level * (n + 1)),
            "Round up, so that the interval holds at least as often as its level says.": int(level * (n + 1)),
            "The new value takes one of n + 1 ranks: use n + 1 in place of n.": math.ceil(level * n),
        }
        compare(call(answer, n, level, of="(n, level)"), right, "k", mistakes)
    return "From nine cells on, an 80% interval does not use the largest residual."


@exercise("10.1")
def _coupled(answer: Any) -> str:
    mistakes = {
        "This is the covariance divided by the variance of the gain; divide by both standard deviations.": 0.5,
        "The accuracy before enters both with the same sign: less of it means more of both.": -(0.5**0.5),
        "The accuracy before is in both, so that they are not independent.": 0.0,
    }
    compare(answer, 0.5**0.5, "The correlation", mistakes, rtol=0.01)
    return "Nothing but the shared accuracy makes it."


@exercise("10.2")
def _twins(answer: Any) -> str:
    for share in (0.7, 0.2):
        mistakes = {
            "The classifier is wrong where it has seen the twin; right answers come from guesses.": share / 2,
            "Without the twin it guesses, and is right half of the time.": 1 - share,
            "The twin has the opposite answer.": share + (1 - share) / 2,
        }
        compare(call(answer, share, of="(share)"), (1 - share) / 2, "The accuracy", mistakes)
    return "At 70% it is 0.15, far below chance."


@exercise("10.3")
def _kendall(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for n in (6, 12):
        x, y = rng.normal(size=(2, n))
        tau = stats.kendalltau(x, y)[0]
        mistakes = {
            "This is the share of concordant pairs; subtract that of discordant ones.": (1 + tau) / 2,
            "This is Spearman's coefficient.": stats.spearmanr(x, y)[0],
            "Each pair counts twice, or pairs of a point with itself are counted.": tau * (n - 1) / n,
        }
        compare(call(answer, x, y, of="(x, y)"), tau, "The coefficient", mistakes)
    return "scipy.stats.kendalltau agrees."
