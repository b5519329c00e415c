"""Checks of the exercises of chapters 11 to 14."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from ntps_utils.exercises._answers import MistakeError, call, compare, exercise


@exercise("11.1")
def _decide(answer: Any) -> str:
    cases = {
        (0.02, 0.10, 0.01): "yes",
        (0.02, 0.10, 0.15): "no",
        (-0.01, 0.05, 0.01): "open",
        (0.01, 0.05, 0.01): "yes",
    }
    for (low, high, threshold), right in cases.items():
        value = call(answer, low, high, threshold, of="(low, high, threshold)")
        if value not in ("yes", "no", "open"):
            raise MistakeError(f"The answer must be 'yes', 'no' or 'open', got {value!r}.")
        if value == right:
            continue
        interval = f"From {low} to {high} with the threshold {threshold}"
        if right == "open":
            raise MistakeError(f"{interval}, both answers are possible: the interval contains the threshold.")
        if value == "open":
            raise MistakeError(f"{interval}, the whole interval lies on one side.")
        raise MistakeError(f"{interval}, the answer is {right!r}: compare the end that is nearer to the threshold.")
    return "The expected gain alone decides nothing."


@exercise("11.2")
def _limit(answer: Any) -> str:
    for headroom, n in ((0.01, 1000), (0.02, 50)):
        error = (headroom * (1 - headroom) / n) ** 0.5
        mistakes = {
            "This is the lower limit.": headroom - 1.645 * error,
            "This is the standard error; add 1.645 of it to the headroom.": error,
            "Divide by n under the root: the standard error falls with the root of n.": headroom
            + 1.645 * (headroom * (1 - headroom)) ** 0.5 / n,
            "A limit on one side takes 1.645 standard errors, not 1.96.": headroom + 1.96 * error,
        }
        value = call(answer, headroom, n, of="(headroom, n)")
        compare(value, headroom + 1.645 * error, "The limit", mistakes, rtol=1e-3)
    return "From 50 texts, a headroom of two points does not exclude a gain of five."


@exercise("11.3")
def _exchange(answer: Any) -> str:
    for rate, minutes in ((2.0, 9.0), (10.0, 90.0)):
        mistakes = {
            "The rate is for an hour: divide the minutes by 60.": rate * minutes,
            "A longer run must bring more, not less.": rate * 60 / minutes,
            "This is what an hour must bring, whatever the run takes.": rate,
        }
        compare(call(answer, rate, minutes, of="(rate, minutes)"), rate * minutes / 60, "The threshold", mistakes)
    return "At two points an hour, a run of nine minutes must bring 0.3 points."


@exercise("12.1")
def _seconds(answer: Any) -> str:
    for tokens, parameters, speed in ((3750 * 283, 7.0e9, 2e14), (1000, 1e8, 1e12)):
        mistakes = {
            "Each weight takes two operations for a token: a product and a sum.": tokens * parameters / speed,
            "A backward pass is not needed here.": 6 * tokens * parameters / speed,
        }
        value = call(answer, tokens, parameters, speed, of="(n_tokens, n_parameters, operations_per_second)")
        compare(value, 2 * tokens * parameters / speed, "The time", mistakes, rtol=0.02, atol=0.0)
    return "For Llama-3-8B on IMDb it is 74 seconds."


@exercise("12.2")
def _passes(answer: Any) -> str:
    for rates, steps, batch, evaluations, validation in ((2, 400, 16, 8, 600), (4, 100, 32, 4, 200)):
        once = 2 * steps * batch + evaluations * validation
        mistakes = {
            "A step costs two forward passes for each text.": rates * (steps * batch + evaluations * validation),
            "Evaluations are repeated for each rate, too.": rates * 2 * steps * batch + evaluations * validation,
            "This is the cost of one learning rate.": once,
        }
        value = call(
            answer, rates, steps, batch, evaluations, validation, of="(n_rates, steps, batch, evaluations, validation)"
        )
        compare(value, rates * once, "The cost", mistakes)
    return "Everything else in a cell stays as it is."


@exercise("12.3")
def _attempts(answer: Any) -> str:
    mistakes = {
        "Only four workers are left, and each attempt costs one.": 12,
        "The first worker is gone already; count the four that are left.": 5,
        "After three attempts one worker is left, on which the other cells can run.": 3,
    }
    compare(answer, 4, "The number of attempts", mistakes)
    return "So a failing cell must be set aside."


@exercise("12.4")
def _name(answer: Any) -> str:
    def name(parts: tuple[str, ...]) -> Any:
        value = call(answer, *parts, of="(model, dataset, settings, code)")
        try:
            hash(value)
        except TypeError:
            raise MistakeError(f"A name must be text or a number, got {type(value).__name__}.") from None
        return value

    parts = [("a", "a-b"), ("c", "b-c"), ("lr=1", "lr=2"), ("f00", "f01")]
    combinations = [(*some,) for some in product(*parts)]
    combinations += [
        ("a-b", "c", "lr=1", "f00"),
        ("a", "b-c", "lr=1", "f00"),
        ("ab", "c", "1", "1"),
        ("a", "bc", "1", "1"),
    ]
    found: dict[Any, tuple[str, ...]] = {}
    for one in dict.fromkeys(combinations):
        value = name(one)
        if value != name(one):
            raise MistakeError("The same combination gets two different names.")
        if value in found:
            part = [i for i in range(4) if found[value][i] != one[i]]
            if len(part) == 1:
                which = ("model", "dataset", "settings", "code")[part[0]]
                raise MistakeError(
                    f"The name does not depend on the {which}: {found[value]} and {one} get the same one."
                )
            raise MistakeError(f"{found[value]} and {one} get the same name: join the parts unambiguously.")
        found[value] = one
    return "Different combinations have different names."


@exercise("13.1")
def _strongest(answer: Any) -> str:
    for f, d in ((0.25, 8), (0.95, 100), (1.0, 10)):
        kept = int(f * d + 1e-9)
        mistakes = {
            "This is the number of directions that are kept.": kept,
            "Numbers begin with 1: with all directions kept the strongest is number 1.": d - kept,
            "Ascending order keeps the weakest; the strongest one is left out first.": 1,
        }
        compare(call(answer, f, d, of="(f, d)"), d - kept + 1, "The number", mistakes)
    return "At a share of 0.95 the best 5% are missing."


@exercise("13.2")
def _factor(answer: Any) -> str:
    mistakes = {
        "That is the factor with a common mean.": 8,
        "That is the factor of a single term; a text of twice the length has twice as many terms, too.": 2,
        "That is the power of T, not the factor.": 2,
    }
    compare(answer, 4, "The factor", mistakes)
    return "Without a common mean the sum grows like T squared."


@exercise("13.3")
def _orders(answer: Any) -> str:
    share = np.array([0.5, 0.3, 0.15, 0.05])
    for k, descending in ((1, True), (1, False), (3, True), (3, False), (4, True), (4, False)):
        expected = share[:k].sum() if descending else share[4 - k :].sum()
        mistakes = {
            "The order is exchanged: descending begins with the strongest.": (
                share[4 - k :].sum() if descending else share[:k].sum()
            ),
            "The score adds the shares up; it is not their mean.": expected / k,
        }
        value = call(answer, share, k, descending, of="(share, k, descending)")
        compare(value, expected, "The score", mistakes)
    return "At the full width both orders give 1."


@exercise("14.1")
def _width(answer: Any) -> str:
    for sd, r in ((0.1, 7), (0.3, 2)):
        mistakes = {
            "A mean of r values has the variance divided by r, and the deviation by its root.": sd / r,
            "Averages vary less than single values.": sd,
            "This is the deviation of the sum.": sd * r**0.5,
        }
        compare(call(answer, sd, r, of="(sd, r)"), sd / r**0.5, "The width", mistakes)
    return "One direction has the widest range."


@exercise("14.2")
def _kept(answer: Any) -> str:
    if isinstance(answer, str) or not isinstance(answer, (set, frozenset, list, tuple)):
        raise MistakeError(f"The answer must be a set of names, got {type(answer).__name__}.")
    given, known = {str(name).lower() for name in answer}, {"topic", "agreement", "order", "author"}
    if unknown := given - known:
        raise MistakeError(f"Unknown names: {', '.join(sorted(unknown))}; choose from {', '.join(sorted(known))}.")
    if lost := given & {"agreement", "order"}:
        raise MistakeError(
            f"{', '.join(sorted(lost))}: the counts of words hint at this at most; the order of the words is needed."
        )
    if missing := {"topic", "author"} - given:
        raise MistakeError(f"{', '.join(sorted(missing))}: this depends on the counts of words alone.")
    return "Both depend on the counts of words alone."


@exercise("14.3")
def _useful(answer: Any) -> str:
    for beta in (np.array([0.5, 0.3, 0.1]), np.array([0.4, 0.4])):
        mistakes = {
            "This is one minus the answer.": beta.mean() / beta.max(),
            "tr B is the sum of the betas, and the bound has r times the largest.": 1 - beta.sum() / beta.max(),
            "The bound (c) has the largest beta, not the smallest.": 1 - beta.mean() / beta.min(),
        }
        compare(call(answer, beta, of="(beta)"), 1 - beta.mean() / beta.max(), "The score", mistakes)
    return "With equal betas every score above 0 helps."


@exercise("14.4")
def _plateau(answer: Any) -> str:
    mistakes = {
        "The residuals are not small, but they are orthogonal to all gradients.": 0.25,
        "The mean product of ab with 1, a and b is zero.": 1.0,
    }
    compare(answer, 0.0, "The drop", mistakes)
    return "Learning begins only after the model has built the product."
