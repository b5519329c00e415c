"""Decide whether LoRA pays, in steps of growing cost, from recorded finetuning runs.

An :class:`Advisor` is fitted to recorded runs. It asks for the predictors of one step after another, and stops at the
first step that decides. The tool ``ntps prescreen`` and the evaluation on left-out datasets use the same advisor.

A decision needs the gain over the best classifier without finetuning. Its *lead* over the probe of the last layer is
measured before LoRA, by cross-validation. Steps predict what LoRA has over that probe, and the lead is subtracted. In
a recorded run this is the gain over the best classifier on test texts plus the lead, so that intervals contain the
error of the lead too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ntps_utils._utils.validation import check_number
from ntps_utils.evidence.statistics import Estimate, GainRegressor, cluster_skill, left_out_medians
from ntps_utils.evidence.trials import trial_column
from ntps_utils.theory.linear import Array

Answer = Literal["yes", "no", "open"]
Action = Literal["run", "stop", "trial", "label"]
Source = Literal["features", "tokens", "gradients", "trial"]
"""What predictors need: text features, every token, gradients, or a trial run."""

LEVEL = 0.7
"""Nominal coverage of the interval that a decision needs on one side of the threshold: 85% on each side."""

MARGIN = 0.1
"""How far a predictor may lie outside the range of the recorded runs, as a share of that range."""

HEADROOM_LEVEL = 0.95
"""Level of the upper limit of the headroom, on one side."""


@dataclass(frozen=True)
class Step:
    """A step of the decision: sets of predictors to choose from, and what they cost.

    Attributes
    ----------
    name : str
        For reports, such as "frozen model" or "trial run of 10%".
    choices : tuple of tuple of str
        Sets of predictors. The set with the smallest error on left-out groups of the recorded runs is used.
    cost : float
        Cost of the step, as a share of a LoRA run, without what other sources need. A step from
        features includes the pass over the texts; a longer trial run includes a shorter one.
    source : {"features", "tokens", "gradients", "trial"}
        What the predictors need.
    share : float
        Length of the trial run, as a share of the steps; 0 without one.
    """

    name: str
    choices: tuple[tuple[str, ...], ...]
    cost: float
    source: Source = "features"
    share: float = 0.0


@dataclass(frozen=True)
class Advice:
    """An answer, and the step that gave it.

    Attributes
    ----------
    answer : {"yes", "no", "open"}
        Whether the gain over the best classifier without finetuning exceeds the threshold; "open" if no step decides.
    step : str
        Name of the step that gave the expected gain; "headroom" if the rule for the headroom decided, and
        "recorded runs" if no step has a skill.
    columns : tuple of str
        Predictors that gave the expected gain.
    cost : float
        Cost of all steps that were made, as a share of a LoRA run.
    gain, low, high : float
        Expected gain over the best classifier without finetuning, and its interval, by the last step with a skill.
        Without such a step, they are the median and the range that holds most of the recorded gains, minus the lead.
        Expected gain and lower end are at most the share of texts that this classifier gets wrong, the upper end is
        at most the 95% limit of this share.
    errors : float
        Share of texts that the best classifier without finetuning gets wrong.
    outside : tuple of str
        Predictors outside the range of the recorded runs; their steps were left out.
    """

    answer: Answer
    step: str
    columns: tuple[str, ...]
    cost: float
    gain: float
    low: float
    high: float
    errors: float
    outside: tuple[str, ...] = ()

    @property
    def has_skill(self) -> bool:
        """Whether a step with a skill gave the expected gain."""
        return bool(self.columns)


@dataclass(frozen=True)
class Recommendation:
    """What to do about LoRA.

    Attributes
    ----------
    action : {"run", "stop", "trial", "label"}
        Run LoRA, do not, make a trial run, or label more texts.
    share : float
        Length of the recommended trial run, as a share of the steps; 0 without one.
    regrets : mapping of str to float
        Result of :meth:`Advisor.regrets`.
    reason : {"answer", "texts", "errors", "gain", "rule"}
        What decided: the answer; in an open case that there are too few texts; that the best classifier gets fewer
        of them wrong than the threshold; the expected gain; or the rule for all cases that has the smallest regret.
    """

    action: Action
    share: float
    regrets: Mapping[str, float]
    reason: Literal["answer", "texts", "errors", "gain", "rule"]


@dataclass(frozen=True, eq=False)
class FittedStep:
    """A step, fitted to recorded runs.

    Attributes
    ----------
    step : Step
    columns : tuple of str
        The chosen predictors.
    skill : Estimate
        Share by which they lower the error of gains on left-out groups, against the median. The choice of
        predictors is not repeated within it.
    """

    step: Step
    columns: tuple[str, ...]
    skill: Estimate
    _regressor: GainRegressor
    _low: Array
    _high: Array

    @property
    def has_skill(self) -> bool:
        """Whether the interval of the skill lies above zero."""
        return self.skill.low > 0.0

    @classmethod
    def fit(cls, step: Step, cells: pd.DataFrame, seed: int) -> FittedStep:
        """Choose the predictors of a step, and fit their regression."""
        gains, groups = _over_last_layer(cells).to_numpy(float), cells["group"].tolist()
        fits = [GainRegressor().fit(cells[list(choice)].to_numpy(float), gains, groups) for choice in step.choices]
        best = int(np.argmin([fit.residuals_.sum() for fit in fits]))
        baseline = np.abs(gains - left_out_medians(gains, groups))
        skill = cluster_skill(fits[best].residuals_, baseline, groups, seed=seed)
        values = cells[list(step.choices[best])].to_numpy(float)
        low, high = values.min(0), values.max(0)
        margin = MARGIN * (high - low)
        return cls(step, step.choices[best], skill, fits[best], low - margin, high + margin)

    @property
    def left_out(self) -> Array:
        """Predicted gain of each recorded run over the last layer, without the runs of its group, (n,)."""
        return self._regressor.left_out_

    def outside(self, values: Array) -> tuple[str, ...]:
        """Names of the predictors that lie outside the range of the recorded runs."""
        out = (values < self._low) | (values > self._high)
        return tuple(name for name, is_out in zip(self.columns, out, strict=True) if is_out)

    def predict(self, values: Array, level: float) -> tuple[float, float, float]:
        """Expected gain and its interval."""
        low, high = self._regressor.predict_interval(values[None], level)
        return float(self._regressor.predict(values[None])[0]), float(low[0]), float(high[0])


def _over_last_layer(cells: pd.DataFrame) -> pd.Series:
    """Gain of each recorded run over the probe of the last layer, from its gain over the best classifier."""
    return cells["advantage"] + cells["lead"]


def headroom_limit(headroom: float, n_texts: float) -> float:
    """Upper 95% limit of the headroom, from the number of texts that it was measured on.

    The exact limit of a binomial share (Clopper and Pearson 1934): even without any error it is above zero.

    Parameters
    ----------
    headroom : float
        Share of texts that the probe gets wrong.
    n_texts : float
        Number of texts.

    Returns
    -------
    float

    Examples
    --------
    >>> round(headroom_limit(0.01, 1000), 4), round(headroom_limit(0.0, 60), 4)
    (0.0169, 0.0487)
    """
    n_errors = headroom * n_texts
    return 1.0 if n_errors >= n_texts else float(stats.beta.ppf(HEADROOM_LEVEL, n_errors + 1.0, n_texts - n_errors))


class Advisor:
    """Decisions from recorded runs.

    Parameters
    ----------
    cells : DataFrame
        One row for each recorded run: ``headroom`` of the probe of the last layer; ``lead``, what the best
        classifier without finetuning has over this probe, by cross-validation; ``advantage``, the accuracy of LoRA
        minus that of this classifier, on test texts; ``n_texts``; the columns of all steps; and ``group``, the
        datasets that are left out together.
    steps : sequence of Step
        In the order in which they are made.
    level : float
        Nominal coverage of the intervals, in (0, 1).
    seed : int
        Random seed of the intervals of the skills.

    Attributes
    ----------
    steps : list of FittedStep
    mean, median, low, high : float
        Mean and median of the recorded gains over the last layer (``advantage`` plus ``lead``), and the range of those
        between the quantiles that ``level`` leaves out.

    Raises
    ------
    ValueError
        If a column is missing, a value is not finite, or there are fewer than four groups.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> headroom = rng.uniform(0, 0.5, 40)
    >>> cells = pd.DataFrame({"headroom": headroom, "advantage": 0.6 * headroom, "group": np.arange(40) // 2})
    >>> cells = cells.assign(n_texts=999, lead=0.0)
    >>> advisor = Advisor(cells, [Step("frozen model", (("headroom",),), 0.1)])
    >>> values = [{"headroom": h, "lead": 0.0, "n_texts": 999} for h in (0.01, 0.05, 0.4)]
    >>> [advisor.advise(one.__getitem__, threshold=0.1).answer for one in values]
    ['no', 'no', 'yes']
    >>> better_layer = {"headroom": 0.4, "lead": 0.2, "n_texts": 999}  # LoRA would have to gain 0.3
    >>> advisor.advise(better_layer.__getitem__, threshold=0.1).answer
    'no'
    """

    def __init__(self, cells: pd.DataFrame, steps: Sequence[Step], *, level: float = LEVEL, seed: int = 0) -> None:
        needed = {"headroom", "lead", "advantage", "group", "n_texts"}
        needed |= {column for step in steps for choice in step.choices for column in choice}
        needed |= {trial_column("end", step.share) for step in steps if step.share}
        if missing := sorted(needed - set(cells)):
            raise ValueError(f"The recorded runs lack the columns {', '.join(missing)}.")
        self._gains = _over_last_layer(cells).to_numpy(float)
        self._set_level(level)
        self.mean, self.median = float(self._gains.mean()), float(np.median(self._gains))
        self._features_cost = next((step.cost for step in steps if step.source == "features"), 0.0)
        self.steps = [FittedStep.fit(step, cells, seed) for step in steps]
        self._advantages, self._leads = (cells[name].to_numpy(float) for name in ("advantage", "lead"))
        self._errors = (cells["headroom"] - cells["lead"]).clip(lower=0.0).to_numpy(float)
        pairs = zip(self._errors, cells["n_texts"], strict=True)
        self._limits = np.array([headroom_limit(errors, n_texts) for errors, n_texts in pairs])

    def _set_level(self, level: float) -> None:
        check_number("level", level, 0.0, 1.0, open_low=True, open_high=True)
        self.level = level
        share = (1.0 - level) / 2
        self.low, self.high = (float(q) for q in np.quantile(self._gains, [share, 1.0 - share]))

    def at_level(self, level: float) -> Advisor:
        """Return the same advisor with intervals of another level; its steps are not fitted again.

        Parameters
        ----------
        level : float
            Nominal coverage of the intervals, in (0, 1).

        Returns
        -------
        Advisor
        """
        other = copy.copy(self)
        other._set_level(level)
        return other

    def advise(self, value: Callable[[str], float], *, threshold: float, trial: float = 0.0) -> Advice:
        """Decide for one case.

        Parameters
        ----------
        value : callable
            Returns a predictor by its name, NaN if it cannot be had, and ``lead`` and ``n_texts``. It is asked for
            the predictors of a step only if the steps before it did not decide.
        threshold : float
            Smallest gain over the best classifier without finetuning that makes LoRA worthwhile.
        trial : float
            Length of the longest trial run that may be made, as a share of the steps.

        Returns
        -------
        Advice

        Notes
        -----
        Without a step with a skill, "no" is still possible: if there is a lead, and most recorded gains would not make
        up for it and the threshold. A trial run whose validation loss is not lower at its end than at its start never
        gives "yes".
        """
        check_number("threshold", threshold, 0.0, 1.0)
        check_number("trial", trial, 0.0, 1.0)
        spent: dict[str, float] = {"features": self._features_cost}
        lead = value("lead")
        errors = max(0.0, value("headroom") - lead)
        limit = headroom_limit(errors, value("n_texts"))
        bounds = (errors, errors, limit)

        def over_the_best(*gains: float) -> tuple[float, ...]:
            return tuple(min(gain - lead, bound) for gain, bound in zip(gains, bounds, strict=True))

        gain, low, high = over_the_best(self.median, self.low, self.high)
        advice = Advice("open", "recorded runs", (), spent["features"], gain, low, high, errors)
        if limit < threshold:
            return replace(advice, answer="no", step="headroom")
        for fitted in self.steps:
            if not fitted.has_skill or fitted.step.share > trial:
                continue
            values = np.array([value(column) for column in fitted.columns])
            if not np.isfinite(values).all():
                continue
            spent[fitted.step.source] = fitted.step.cost
            advice = replace(advice, cost=sum(spent.values()))
            if outside := fitted.outside(values):
                advice = replace(advice, outside=tuple(dict.fromkeys(advice.outside + outside)))
                continue
            gain, low, high = over_the_best(*fitted.predict(values, self.level))
            answer: Answer = "yes" if low >= threshold else "no" if high < threshold else "open"
            if answer == "yes" and fitted.step.share and value(trial_column("end", fitted.step.share)) <= 0.0:
                answer = "open"
            advice = replace(
                advice, answer=answer, step=fitted.step.name, columns=fitted.columns, gain=gain, low=low, high=high
            )
            if answer != "open":
                break
        if not advice.has_skill and advice.high < min(threshold, self.high):
            return replace(advice, answer="no")  # because of the lead
        return advice

    def regrets(self, threshold: float) -> dict[str, float]:
        """Compute what simple rules would have lost on the recorded runs, against knowing their gains.

        Parameters
        ----------
        threshold : float
            Smallest gain that makes LoRA worthwhile: what a LoRA run costs, in units of gain.

        Returns
        -------
        dict of str to float
            Mean :func:`regret` by rule. "stop" makes no run and takes the best classifier without finetuning. "run"
            makes every run for which this classifier gets enough texts wrong. Of the steps with a skill, by their
            names, each makes those of these runs whose expected gain is worthwhile; it predicts from the runs of
            other groups, and its cost is included.
        """
        possible, enough = self._limits >= threshold, self._errors >= threshold

        def loss(run: NDArray[np.bool_], cost: float) -> float:
            return float(regret(self._advantages, run, self._features_cost + cost * possible, threshold).mean())

        found = {"stop": loss(np.zeros_like(possible), 0.0), "run": loss(enough, 0.0)}
        for fitted in self.steps:
            if fitted.has_skill:
                more = 0.0 if fitted.step.source == "features" else fitted.step.cost
                found[fitted.step.name] = loss(enough & (fitted.left_out - self._leads >= threshold), more)
        return found

    def recommend(self, advice: Advice, *, threshold: float, made: float = 0.0) -> Recommendation:
        """Say what to do: an open case follows the rule that loses least on the recorded runs.

        LoRA is not run where the best classifier gets fewer texts wrong than the threshold.

        Parameters
        ----------
        advice : Advice
            Result of :meth:`advise` with the same threshold.
        threshold : float
            Smallest gain that makes LoRA worthwhile.
        made : float
            Length of the trial run that was made, as a share of the steps.

        Returns
        -------
        Recommendation
        """
        lost = self.regrets(threshold)
        if advice.answer != "open":
            return Recommendation("run" if advice.answer == "yes" else "stop", 0.0, lost, "answer")
        if advice.errors < threshold:
            return Recommendation("stop", 0.0, lost, "errors")
        best = min(lost, key=lambda name: lost[name])
        share = {fitted.step.name: fitted.step.share for fitted in self.steps}.get(best, 0.0)
        if share > made:
            return Recommendation("trial", share, lost, "rule")
        if advice.has_skill and best not in ("run", "stop"):
            return Recommendation("run" if advice.gain >= threshold else "stop", 0.0, lost, "gain")
        return Recommendation("run" if lost["run"] < lost["stop"] else "stop", 0.0, lost, "rule")


def left_out_advisors(cells: pd.DataFrame, steps: Sequence[Step], *, level: float = LEVEL) -> dict[str, Advisor]:
    """Fit one advisor without each group of the recorded runs.

    Parameters
    ----------
    cells, steps, level
        See :class:`Advisor`.

    Returns
    -------
    dict of str to Advisor
        By group.
    """
    return {
        group: Advisor(cells[cells["group"] != group], steps, level=level) for group in dict.fromkeys(cells["group"])
    }


def advise_left_out(
    cells: pd.DataFrame, advisors: Mapping[str, Advisor], *, threshold: float, trial: float = 0.0
) -> pd.DataFrame:
    """Decide for every recorded run, from the runs of other groups.

    Parameters
    ----------
    cells : DataFrame
        See :class:`Advisor`.
    advisors : mapping of str to Advisor
        Result of :func:`left_out_advisors`.
    threshold, trial
        See :meth:`Advisor.advise`.

    Returns
    -------
    DataFrame
        Fields of :class:`Advice`, ``has_skill``, ``true_gain``, which is the recorded advantage over the best
        classifier without finetuning, ``right``: whether a "yes" or "no" is right, and ``run``: whether to run LoRA.
        Open cases are run if their expected gain, or without a step with a skill the mean recorded gain minus the
        lead, reaches the threshold. ``recommended`` is whether LoRA is run by
        :meth:`Advisor.recommend`, at the cost ``recommended_cost``: a trial run is made if it is recommended and
        not longer than ``trial``.
    """
    rows = []
    for index, cell in cells.iterrows():
        advisor = advisors[cell["group"]]
        advice = advisor.advise(cell.to_dict().__getitem__, threshold=threshold, trial=trial)
        is_worth = cell["advantage"] >= threshold
        expected = advice.gain if advice.has_skill else advisor.mean - cell["lead"]
        value = cell.to_dict().__getitem__
        followed = advisor.advise(value, threshold=threshold)
        todo = advisor.recommend(followed, threshold=threshold)
        if todo.action == "trial" and todo.share <= trial:
            followed = advisor.advise(value, threshold=threshold, trial=todo.share)
            todo = advisor.recommend(followed, threshold=threshold, made=todo.share)
        rows.append(
            {
                "cell": index,
                **vars(advice),
                "has_skill": advice.has_skill,
                "true_gain": cell["advantage"],
                "right": None if advice.answer == "open" else (advice.answer == "yes") == is_worth,
                "run": expected >= threshold if advice.answer == "open" else advice.answer == "yes",
                "recommended": todo.action != "stop",
                "recommended_cost": followed.cost,
            }
        )
    return pd.DataFrame(rows).set_index("cell")


def regret(gain: ArrayLike, run: ArrayLike, cost: ArrayLike, threshold: float) -> Array:
    """Compute what decisions lose against knowing the gains.

    Parameters
    ----------
    gain : (n,) float64
        True gains over what is taken without LoRA. Whoever has run LoRA keeps the better one of both, so that a
        negative gain counts as 0, and a run loses at most the threshold.
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
    worth = np.maximum(np.asarray(gain, float), 0.0) - threshold
    reached = np.where(run, worth, 0.0) - np.asarray(cost, float) * threshold
    return np.asarray(np.maximum(worth, 0.0) - reached)
