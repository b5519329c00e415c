"""Trial runs: the beginning of a LoRA run as a predictor of its gain."""

from __future__ import annotations

from collections.abc import Sequence

from ntps_utils.evidence.cost import STEP_PASSES
from ntps_utils.models.finetuning import CurvePoint, FinetuneConfig

TRIALS = (0.025, 0.05, 0.1, 0.25)
"""Lengths of trial runs, as shares of the steps of a LoRA run."""


def trial_column(kind: str, share: float) -> str:
    """Name of a predictor from a trial run.

    Parameters
    ----------
    kind : {"loss", "accuracy", "end"}
    share : float
        Length of the trial run, as a share of the steps of a LoRA run.

    Returns
    -------
    str

    Examples
    --------
    >>> trial_column("loss", 0.025)
    'trial_loss_2.5'
    """
    return f"trial_{kind}_{100 * share:g}"


def trial_step(share: float, max_steps: int) -> int:
    """Return the last training step of a trial run.

    Parameters
    ----------
    share : float
        Length of the trial run, as a share of the steps.
    max_steps : int
        Steps of the whole run.

    Returns
    -------
    int

    Examples
    --------
    >>> [trial_step(share, 300) for share in TRIALS]
    [8, 15, 30, 75]
    """
    return max(1, round(share * max_steps))


def trial_share(step: int, max_steps: int) -> float:
    """Return the longest trial run that ends at or before a training step.

    Parameters
    ----------
    step : int
        Number of steps that were made.
    max_steps : int
        Steps of the whole run.

    Returns
    -------
    float
        As a share of the steps; 0 without one.

    Examples
    --------
    >>> [trial_share(step, 300) for step in (0, 8, 30, 74, 75)]
    [0.0, 0.025, 0.1, 0.1, 0.25]
    """
    return max((share for share in TRIALS if trial_step(share, max_steps) <= step), default=0.0)


def trial_name(share: float) -> str:
    """Return the name of a trial run in reports.

    Parameters
    ----------
    share : float
        Its length, as a share of the steps.

    Returns
    -------
    str

    Examples
    --------
    >>> trial_name(0.025)
    'trial run of 2.5%'
    """
    return f"trial run of {100 * share:g}%"


def trial_cost(lora: FinetuneConfig, share: float, n_texts: int) -> float:
    """Compute what a trial run costs besides the features of the frozen model.

    Parameters
    ----------
    lora : FinetuneConfig
        Settings of the whole run.
    share : float
        Length of the trial run, as a share of the steps.
    n_texts : int
        Number of training texts, those of the validation split included.

    Returns
    -------
    float
        In forward passes of one text: training steps at ``STEP_PASSES``, and evaluations.

    Examples
    --------
    >>> lora = FinetuneConfig(max_steps=100, batch_size=16, eval_steps=25, validation=0.2)
    >>> trial_cost(lora, 0.25, 1000)  # 2 * 25 * 16 + 2 * 200
    1200.0
    """
    last = trial_step(share, lora.max_steps)
    n_evaluations = sum(step <= last for step in lora.evaluations()) + lora.warm_head
    n_validation = round(lora.validation * n_texts)
    training = last * min(lora.batch_size, n_texts - n_validation) * STEP_PASSES[lora.method]
    return training + n_evaluations * n_validation


def trial_values(curve: Sequence[CurvePoint], max_steps: int) -> dict[str, float]:
    """Compute the predictors of trial runs from the evaluations of a run.

    Parameters
    ----------
    curve : sequence of CurvePoint
        From step 0 on; the whole run or its beginning.
    max_steps : int
        Steps of the whole run.

    Returns
    -------
    dict of str to float
        For each length of ``TRIALS`` whose last step was evaluated: the largest rise of the validation accuracy up
        to there, the largest fall of the validation loss in nats, and its fall at the end.

    Examples
    --------
    >>> points = [CurvePoint(step, 0.5 + step / 100, 1.0 - step / 100, None, None, 0.0) for step in (0, 8)]
    >>> {name: round(value, 2) for name, value in trial_values(points, 300).items()}
    {'trial_accuracy_2.5': 0.08, 'trial_loss_2.5': 0.08, 'trial_end_2.5': 0.08}
    """
    values: dict[str, float] = {}
    if not curve or curve[0].step != 0 or curve[0].accuracy is None or curve[0].cross_entropy is None:
        return values
    for share in TRIALS:
        last = trial_step(share, max_steps)
        points = [point for point in curve if point.step <= last]
        if points[-1].step == last:
            values[trial_column("accuracy", share)] = max(p.accuracy or 0.0 for p in points) - curve[0].accuracy
            losses = [p.cross_entropy for p in points if p.cross_entropy is not None]
            values[trial_column("loss", share)] = curve[0].cross_entropy - min(losses)
            values[trial_column("end", share)] = curve[0].cross_entropy - losses[-1]
    return values
