"""Learning-rate schedules."""

from __future__ import annotations

import math


def warmup_cosine(step: int, n_steps: int, n_warmup: int, peak: float = 1.0) -> float:
    """Return the learning rate at a step: linear warm-up, then cosine decay to zero.

    Parameters
    ----------
    step : int
        Index of the step, 0 ... n_steps - 1.
    n_steps : int
        Number of training steps, at least 1.
    n_warmup : int
        Number of warm-up steps, 0 ... n_steps.
    peak : float
        Rate at the end of the warm-up. With the default, the result is a factor in [0, 1].

    Returns
    -------
    float
        ``peak * (step + 1) / n_warmup`` during the warm-up, then
        ``peak * (1 + cos(pi * progress)) / 2``, where progress is the elapsed share of the
        remaining steps.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts" (2017).

    Examples
    --------
    >>> [round(warmup_cosine(step, 6, 2), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    # The order of the operations decides the last bit of the rate, and with it the recorded weights.
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
