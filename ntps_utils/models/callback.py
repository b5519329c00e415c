"""A callback that follows the score along training with ``transformers.Trainer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ntps_utils._utils.layers import Layers
from ntps_utils._utils.validation import check_integer
from ntps_utils.models.datasets import as_dataset
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.scoring import score_model
from ntps_utils.theory.estimator import as_widths
from ntps_utils.theory.report import ScoreReport
from ntps_utils.theory.score import Width

LOGGED = ("ntps", "ntps_metric", "ntps_task", "trace_b")


class NTPSCallback(TrainerCallback):
    """Score the model before, during and after training.

    Each score is added to ``trainer.state.log_history``, with keys such as
    ``"ntps/layer_4/ntps"``, and kept in :attr:`reports`. Dropout is disabled while a score
    is computed; training continues in its own mode.

    Parameters
    ----------
    dataset : str, Path, pair (texts, labels), DataFrame, datasets.Dataset, or TextDataset
        Labeled texts to score on, see :func:`ntps_utils.models.datasets.as_dataset`.
    every : int
        Training steps between scores; the first and the last step are scored too.
    tokenizer : optional
        Tokenizer of the model; by default the ``processing_class`` of the trainer.
    layers : {"all", "last"}, str, int or sequence of int
        Layers to score.
    k_v : int, float, or sequence of them
        Autoregressive directions to keep.
    split : str
        Split of a dataset that is given by name.
    max_texts : int, optional
        Number of texts to use, the first ones.
    max_length : int, optional
        Tokens after which a text is truncated.
    batch_size : int
        Texts in a forward pass.
    controls : bool
        Score control subspaces too, see :mod:`ntps_utils.theory.controls`.
    **options
        Further options of :func:`ntps_utils.models.scoring.score_model`, such as ``center``.

    Attributes
    ----------
    reports : dict of int to ScoreReport
        Report by training step.

    Raises
    ------
    ValueError
        If a setting is out of range, or there is no tokenizer.

    Examples
    --------
    ::

        callback = NTPSCallback((texts, labels), every=500)
        trainer = Trainer(model, args, train_dataset=train, processing_class=tokenizer, callbacks=[callback])
        trainer.train()
        callback.to_frame()
    """

    def __init__(
        self,
        dataset: Any,
        *,
        every: int = 500,
        tokenizer: Any = None,
        layers: Layers = "last",
        k_v: Width | Sequence[Width] = 0.5,
        split: str = "train",
        max_texts: int | None = 1000,
        max_length: int | None = None,
        batch_size: int = 16,
        controls: bool = False,
        **options: Any,
    ) -> None:
        check_integer("every", every, 1)
        check_integer("max_texts", max_texts, 1, optional=True)
        self.data = as_dataset(dataset, split)
        self.every = every
        self.tokenizer = tokenizer
        self.options = {
            "layers": layers,
            "k_v": as_widths(k_v),
            "max_texts": max_texts,
            "max_length": max_length,
            "batch_size": batch_size,
            "controls": controls,
            **options,
        }
        self.reports: dict[int, ScoreReport] = {}

    def to_frame(self) -> pd.DataFrame:
        """Scores along training.

        Returns
        -------
        DataFrame
            ``step`` and the fields of :class:`ntps_utils.theory.score.ScoreRow`.
        """
        frames = [report.to_frame().assign(step=step) for step, report in self.reports.items()]
        if not frames:
            return pd.DataFrame(columns=["step"])
        table = pd.concat(frames, ignore_index=True)
        return table[["step", *(column for column in table if column != "step")]]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score the model before the first step."""
        self._score(state, kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Score the model after every ``every`` steps."""
        if state.global_step % self.every == 0:
            self._score(state, kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score the trained model."""
        self._score(state, kwargs)

    def _score(self, state: TrainerState, kwargs: dict[str, Any]) -> None:
        step = int(state.global_step)
        if step in self.reports or not state.is_world_process_zero:
            return
        tokenizer = self.tokenizer or kwargs.get("processing_class")
        if tokenizer is None:
            raise ValueError("NTPSCallback needs a tokenizer; give tokenizer=..., or processing_class to the Trainer.")
        lm = CausalModel(f"step {step}", kwargs["model"], tokenizer, f"training step {step}")
        report = score_model(lm, self.data, **self.options)
        self.reports[step] = report
        logs = {f"ntps/layer_{row.layer}/k_{row.k_v}/{name}": getattr(row, name) for row in report for name in LOGGED}
        state.log_history.append({**logs, "step": step})
