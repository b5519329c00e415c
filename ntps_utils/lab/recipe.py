"""Recipes of pretraining runs, among them those of the shipped models."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ntps_utils._utils.schedules import warmup_cosine
from ntps_utils._utils.validation import check_integer, check_number

CONTEXT = 128
"""Tokens in a training sequence."""


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the result of a pretraining run, apart from its texts.

    Attributes
    ----------
    hidden_size, n_layers, n_heads, intermediate_size : int
        Sizes of the Llama architecture. ``hidden_size`` is a multiple of ``2 * n_heads``,
        since rotary embeddings need heads of even size. Input and output embeddings are tied.
    n_steps : int
        Training steps.
    batch_size : int
        Texts in a step.
    learning_rate : float
        Peak learning rate of AdamW, see :meth:`rate`.
    weight_decay : float
        Weight decay of AdamW.
    n_warmup : int
        Steps in which the learning rate rises, at most ``n_steps``.
    checkpoints : tuple of int
        Steps after which the model is saved, increasing; the last is ``n_steps``.
    seed : int
        Random seed for weights and batches.

    Raises
    ------
    ValueError
        If a field is out of range. The message names the field, its value and the valid values.

    Examples
    --------
    >>> Recipe(hidden_size=32, n_layers=3, n_heads=2, intermediate_size=96, batch_size=0)
    Traceback (most recent call last):
    ...
    ValueError: batch_size must be an integer of at least 1, got 0.
    """

    hidden_size: int
    n_layers: int
    n_heads: int
    intermediate_size: int
    n_steps: int = 4000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    n_warmup: int = 200
    checkpoints: tuple[int, ...] = (400, 4000)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden_size", "n_layers", "n_heads", "intermediate_size", "n_steps", "batch_size"):
            check_integer(name, getattr(self, name), 1)
        for name in ("n_warmup", "seed"):
            check_integer(name, getattr(self, name), 0)
        check_number("learning_rate", self.learning_rate, 0.0, open_low=True)
        check_number("weight_decay", self.weight_decay, 0.0)
        if self.hidden_size % (2 * self.n_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2 * n_heads = {2 * self.n_heads}, got {self.hidden_size!r}."
            )
        if self.n_warmup > self.n_steps:
            raise ValueError(f"n_warmup must be at most n_steps = {self.n_steps}, got {self.n_warmup!r}.")
        steps = self.checkpoints
        if not isinstance(steps, tuple) or not steps:
            raise ValueError(f"checkpoints must be a tuple of steps such as ({self.n_steps},), got {steps!r}.")
        for step in steps:
            check_integer("each of checkpoints", step, 1)
        if list(steps) != sorted(set(steps)) or steps[-1] != self.n_steps:
            raise ValueError(f"checkpoints must increase and end with n_steps = {self.n_steps}, got {steps!r}.")

    def shortened(self, n_steps: int) -> Recipe:
        """Return the same recipe with another number of steps and one checkpoint at the end.

        Parameters
        ----------
        n_steps : int
            Training steps, fewer or more than here. The warm-up takes at most half of them.

        Returns
        -------
        Recipe

        Raises
        ------
        ValueError
            If ``n_steps`` is not an integer of at least 1.

        Examples
        --------
        >>> LADDER["XS"].shortened(100).checkpoints
        (100,)
        """
        check_integer("n_steps", n_steps, 1)
        return replace(self, n_steps=n_steps, n_warmup=min(self.n_warmup, n_steps // 2), checkpoints=(n_steps,))

    def rate(self, step: int) -> float:
        """Return the learning rate at a step: linear warm-up, then cosine decay to zero.

        Parameters
        ----------
        step : int
            Index of the step, 0 ... n_steps - 1.

        Returns
        -------
        float

        Examples
        --------
        >>> LADDER["XS"].rate(199)
        0.002
        """
        return warmup_cosine(step, self.n_steps, self.n_warmup, self.learning_rate)


LADDER = {
    "XS": Recipe(hidden_size=32, n_layers=3, n_heads=2, intermediate_size=96),
    "S": Recipe(hidden_size=64, n_layers=3, n_heads=4, intermediate_size=160),
    "M": Recipe(hidden_size=96, n_layers=4, n_heads=4, intermediate_size=256, learning_rate=1.5e-3),
    "L": Recipe(hidden_size=128, n_layers=6, n_heads=4, intermediate_size=384, learning_rate=1e-3),
}
"""Recipes of the shipped models, from the smallest to the largest."""


@dataclass(frozen=True)
class Progress:
    """State of a training run after a step.

    Attributes
    ----------
    step : int
        Completed steps.
    n_steps : int
        Steps of the whole run.
    loss : float
        Training loss of the last batch, in nats per token.
    """

    step: int
    n_steps: int
    loss: float
