"""What is pretrained, and how: the ladder's recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

CONTEXT = 128


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a pretraining run ends with, given its texts.

    Attributes
    ----------
    hidden_size, n_layers, n_heads, intermediate_size : int
        Of the Llama architecture; input and output embeddings are tied.
    n_steps, batch_size : int
    learning_rate, weight_decay : float
        Of AdamW; the learning rate rises for ``n_warmup`` steps, then falls to zero as a cosine.
    n_warmup : int
    checkpoints : tuple of int
        Steps after which the model is kept.
    seed : int
        Of weights and batches.
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
        if self.hidden_size % self.n_heads:
            raise ValueError(f"{self.n_heads} heads do not divide {self.hidden_size} features.")
        if not self.checkpoints or max(self.checkpoints) != self.n_steps or min(self.checkpoints) < 1:
            raise ValueError(f"The last checkpoint must be step {self.n_steps}, got {self.checkpoints}.")

    def shortened(self, n_steps: int) -> Recipe:
        """The same model, trained for fewer or more steps, kept at the end."""
        if n_steps < 1:
            raise ValueError(f"A model is trained for at least 1 step, got {n_steps}.")
        return replace(self, n_steps=n_steps, n_warmup=min(self.n_warmup, n_steps // 2), checkpoints=(n_steps,))

    def rate(self, step: int) -> float:
        """Learning rate at a step, 0 ... n_steps - 1."""
        if step < self.n_warmup:
            return self.learning_rate * (step + 1) / self.n_warmup
        done = (step - self.n_warmup) / max(1, self.n_steps - self.n_warmup)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


LADDER = {
    "XS": Recipe(hidden_size=32, n_layers=3, n_heads=2, intermediate_size=96),
    "S": Recipe(hidden_size=64, n_layers=3, n_heads=4, intermediate_size=160),
    "M": Recipe(hidden_size=96, n_layers=4, n_heads=4, intermediate_size=256, learning_rate=1.5e-3),
    "L": Recipe(hidden_size=128, n_layers=6, n_heads=4, intermediate_size=384, learning_rate=1e-3),
}


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int
    n_steps: int
    loss: float
