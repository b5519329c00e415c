"""Decide whether LoRA pays, in steps of growing cost, from recorded finetuning runs.

An :class:`Advisor` is fitted to recorded runs. It asks for the predictors of one step after another, and stops at the
first step that decides. The tool ``ntps prescreen`` and the evaluation on left-out datasets use the same advisor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from ntps_utils._utils.validation import check_number
from ntps_utils.evidence.statistics import Estimate, GainRegressor, left_out_skill
from ntps_utils.theory.linear import Array

Answer = Literal["yes", "no", "open"]

LEVEL = 0.7
"""Nominal coverage of the interval that a decision needs on one side of the threshold: 85% on each side."""


@dataclass(frozen=True)
class Step:
    """A step of the decision: predictors, and what they cost.

    Attributes
    ----------
    name : str
        For reports, such as "frozen model" or "trial of 10%".
    columns : tuple of str
        Predictors, with those of earlier steps that this step uses again.
    cost : float
        Cost of this step and all before it, as a share of a LoRA run.
    """

    name: str
    columns: tuple[str, ...]
    cost: float


@dataclass(frozen=True)
class Advice:
    """An answer, and the step that gave it.

    Attributes
    ----------
    answer : {"yes", "no", "open"}
        Whether the gain exceeds the threshold; "open" if no step within the budget decides.
    step : str
        Name of the step that decided, "headroom", or the last one that was tried.
    cost : float
        Cost up to there, as a share of a LoRA run.
    gain, low, high : float
        Expected gain and its interval, by the last step with a skill. Without one, they are the median and
        the range that holds most of the gains of the calibration.
    has_skill : bool
        Whether a step with a skill gave the expected gain.
    """

    answer: Answer
    step: str
    cost: float
    gain: float
    low: float
    high: float
    has_skill: bool


@dataclass(frozen=True, eq=False)
class _FittedStep:
    step: Step
    regressor: GainRegressor
    skill: Estimate

    @property
    def has_skill(self) -> bool:
        return self.skill.low > 0.0


class Advisor:
    """Decisions from recorded runs.

    Parameters
    ----------
    cells : DataFrame
        One row for each recorded run: ``gain``, ``headroom``, the columns of all steps, and ``group``, the
        datasets that are left out together.
    steps : sequence of Step
        From cheap to expensive.
    level : float
        Nominal coverage of the intervals, in (0, 1).
    seed : int
        Random seed of the intervals of the skills.

    Raises
    ------
    ValueError
        If a column is missing, a value is not finite, or there are fewer than four groups.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> headroom = rng.uniform(0, 0.5, 40)
    >>> cells = pd.DataFrame({"headroom": headroom, "gain": 0.6 * headroom, "group": np.arange(40) // 2})
    >>> advisor = Advisor(cells, [Step("frozen model", ("headroom",), 0.1)])
    >>> [advisor.advise({"headroom": h}.__getitem__, threshold=0.1).answer for h in (0.01, 0.05, 0.4)]
    ['no', 'no', 'yes']
    """

    def __init__(self, cells: pd.DataFrame, steps: Sequence[Step], *, level: float = LEVEL, seed: int = 0) -> None:
        check_number("level", level, 0.0, 1.0, open_low=True, open_high=True)
        needed = {"gain", "headroom", "group", *(column for step in steps for column in step.columns)}
        if missing := sorted(needed - set(cells)):
            raise ValueError(f"The recorded runs lack the columns {', '.join(missing)}.")
        self.level = level
        gains, groups = cells["gain"].to_numpy(float), cells["group"].tolist()
        share = (1.0 - level) / 2
        self.median, self.low, self.high = (float(q) for q in np.quantile(gains, [0.5, share, 1.0 - share]))
        self.steps = []
        for step in steps:
            x = cells[list(step.columns)].to_numpy(float)
            skill = left_out_skill(x, gains, groups, seed=seed)
            self.steps.append(_FittedStep(step, GainRegressor().fit(x, gains, groups), skill))

    def advise(self, value: Callable[[str], float], *, threshold: float, budget: float = 1.0) -> Advice:
        """Decide for one case.

        Parameters
        ----------
        value : callable
            Returns a predictor by its name; it is asked for those of a step only if the steps before it did not decide.
        threshold : float
            Smallest gain that makes LoRA worthwhile.
        budget : float
            Largest cost, as a share of a LoRA run.

        Returns
        -------
        Advice
        """
        check_number("threshold", threshold, 0.0, 1.0)
        check_number("budget", budget, 0.0)
        headroom = value("headroom")
        cost = self.steps[0].step.cost if self.steps else 0.0
        advice = Advice("open", "headroom", cost, self.median, self.low, self.high, False)
        if headroom < threshold:
            gain, low, high = (min(bound, headroom) for bound in (self.median, self.low, self.high))
            return Advice("no", "headroom", cost, gain, low, high, False)
        for fitted in self.steps:
            step = fitted.step
            if step.cost > budget:
                break
            if not fitted.has_skill:
                advice = replace(advice, step=step.name, cost=step.cost)
                continue
            x = np.array([[value(column) for column in step.columns]])
            (low,), (high,) = fitted.regressor.predict_interval(x, self.level)
            gain = float(fitted.regressor.predict(x)[0])
            answer: Answer = "yes" if low >= threshold else "no" if high < threshold else "open"
            advice = Advice(answer, step.name, step.cost, gain, float(low), float(high), True)
            if answer != "open":
                break
        return advice


def advise_left_out(
    cells: pd.DataFrame, steps: Sequence[Step], *, threshold: float, budget: float = 1.0, level: float = LEVEL
) -> pd.DataFrame:
    """Decide for every recorded run, from the runs of other groups.

    Parameters
    ----------
    cells, steps, level
        See :class:`Advisor`.
    threshold, budget
        See :meth:`Advisor.advise`.

    Returns
    -------
    DataFrame
        Fields of :class:`Advice`, ``true_gain``, and ``right``: whether a "yes" or "no" is right.
    """
    rows = []
    for group in dict.fromkeys(cells["group"]):
        advisor = Advisor(cells[cells["group"] != group], steps, level=level)
        for index, cell in cells[cells["group"] == group].iterrows():
            values = cell.to_dict()
            advice = advisor.advise(values.__getitem__, threshold=threshold, budget=budget)
            is_worth = cell["gain"] >= threshold
            rows.append(
                {
                    "cell": index,
                    **vars(advice),
                    "true_gain": cell["gain"],
                    "right": None if advice.answer == "open" else (advice.answer == "yes") == is_worth,
                }
            )
    return pd.DataFrame(rows).set_index("cell").reindex(cells.index)


def regret(gain: Array, run: Array, cost: Array, threshold: float) -> Array:
    """Compute what decisions lose against knowing the gains.

    Parameters
    ----------
    gain : (n,) float64
        True gains.
    run : (n,) bool
        Whether LoRA is run.
    cost : (n,) float64
        What was spent on the decision, as a share of a LoRA run.
    threshold : float
        What a LoRA run costs, in units of gain: the smallest gain that makes it worthwhile.

    Returns
    -------
    (n,) float64
        In units of gain, at least 0.

    Examples
    --------
    >>> regret(np.array([0.1, 0.1, 0.0]), np.array([True, False, True]), np.zeros(3), 0.02).round(2).tolist()
    [0.0, 0.08, 0.02]
    """
    worth = np.asarray(gain, float) - threshold
    reached = np.where(run, worth, 0.0) - np.asarray(cost, float) * threshold
    return np.asarray(np.maximum(worth, 0.0) - reached)
