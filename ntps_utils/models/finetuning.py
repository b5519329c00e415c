"""Finetune a causal language model with a classification head: LoRA, all weights, or the head alone.

All three use the same training loop, so that the LoRA gain (accuracy after LoRA minus that
of a head on frozen features) is due to the adapters alone.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy

from ntps_utils._utils.schedules import warmup_cosine
from ntps_utils._utils.validation import check_choice, check_flag, check_integer, check_number, check_seed
from ntps_utils.models._hub import first_line
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import (
    BATCH_TOKENS,
    Tokens,
    batch_overhead,
    length_batches,
    mean_pool,
    pad_batch,
    tokens_of,
)
from ntps_utils.models.loading import AUTO_FLOAT64_PARAMETERS, CausalModel, backbone, evaluation_mode, text_modules
from ntps_utils.models.probes import logistic_probe

Method = Literal["lora", "full", "frozen"]

# Up to this length of the longest text, attention in bfloat16 on a CPU is computed with matrix products:
# the gradient of torch's own kernel takes a quarter of a step there. Memory grows with the square.
EAGER_TOKENS = 128

# Names of the query, key and value projections by architecture; a fused projection has one name.
ATTENTION = (
    ("q_proj", "k_proj", "v_proj"),
    ("query_key_value",),
    ("c_attn",),
    ("qkv_proj",),
    ("Wqkv",),
    ("W_pack",),
    ("wqkv",),
    ("Wq", "Wk", "Wv"),
    ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
    ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
)


class ProjectionError(ValueError):
    """A model has no query, key and value projections of a known name."""


class FinetuneWarning(UserWarning):
    """The loss diverged for a learning rate, or a model lacks the modules that a score needs."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a finetuning run, under the names of peft and transformers.

    Attributes
    ----------
    method : {"lora", "full", "frozen"}
        Train adapters and head, all weights and head, or the head alone.
    r : int
        Rank of the adapters.
    lora_alpha : float
        Scale of the adapters: each adds ``lora_alpha / r`` times a product of rank ``r``.
    lora_dropout : float
        Dropout on the input of the adapters, in [0, 1).
    target_modules : tuple of str, optional
        Modules to adapt, by the last part of their names; by default the query, key and
        value projections, see :func:`attention_projections`.
    optimizer : {"adamw", "adafactor"}
        Optimizer, without weight decay.
    learning_rates : tuple of float
        Peak learning rates to try; the validation split chooses one. The rate rises
        linearly over the first ``warmup_ratio`` of the steps, then falls to zero as a cosine.
    max_steps : int
        Training steps for each learning rate.
    batch_size : int
        Texts in a step. A step with more than 8,192 tokens, padding included, is computed in parts,
        whose gradients are added.
    warmup_ratio : float
        Share of the steps in which the learning rate rises, in [0, 1].
    eval_steps : int or tuple of int
        Steps between evaluations on the validation split, or the steps of all evaluations; the best
        checkpoint is kept. The last step is always evaluated, and with ``warm_head`` step 0 too.
    early_stopping_patience : int or None
        Evaluations without improvement before early stopping; None trains for ``max_steps``.
    metric_for_best_model : {"accuracy", "loss"}
        What makes a checkpoint the best: validation accuracy, then cross-entropy, or the reverse.
    validation : float
        Share of the training texts held out to choose the checkpoint and the learning rate,
        in [0, 1). With 0 the last step is used, and of several learning rates the one whose
        training loss was lowest at that step.
    base_dtype : {"auto", "float32", "bfloat16"}
        Type of the frozen weights; adapters, head, loss and optimizer are always float32. "auto" is
        bfloat16 for a model of more than 50 million parameters on a device that multiplies in
        bfloat16 (see :func:`has_bfloat16`), and otherwise float32. With ``method="full"`` all
        weights are trained in float32.
    warm_head : bool
        Initialize the head with the logistic probe of the frozen features, which are
        standardized by the mean and deviation of the training texts (Kumar et al. 2022); the
        initial model counts as an evaluation. Otherwise the head starts at random on raw
        features. Their large common mean makes its training slow, and a gain then includes
        the training of the head.
    seed : int
        Random seed for the split, the batches, the head, the adapters and dropout.

    Raises
    ------
    ValueError
        If a field is out of range; the message names the field, its value and the valid ones.

    References
    ----------
    Hu et al. (2022), "LoRA: low-rank adaptation of large language models". Kumar et al. (2022),
    "Fine-tuning can distort pretrained features and underperform out-of-distribution".

    Examples
    --------
    >>> FinetuneConfig(method="LoRA")
    Traceback (most recent call last):
    ...
    ValueError: method must be 'lora', 'full' or 'frozen', got 'LoRA'.
    """

    method: Method = "lora"
    r: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    learning_rates: tuple[float, ...] = (3e-3,)
    max_steps: int = 200
    batch_size: int = 32
    warmup_ratio: float = 0.05
    eval_steps: int | tuple[int, ...] = 25
    early_stopping_patience: int | None = 4
    metric_for_best_model: Literal["accuracy", "loss"] = "accuracy"
    validation: float = 0.2
    warm_head: bool = True
    base_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("lora", "full", "frozen"))
        check_choice("optimizer", self.optimizer, ("adamw", "adafactor"))
        check_choice("metric_for_best_model", self.metric_for_best_model, ("accuracy", "loss"))
        for name in ("r", "max_steps", "batch_size"):
            check_integer(name, getattr(self, name), 1)
        check_integer("early_stopping_patience", self.early_stopping_patience, 1, optional=True)
        if isinstance(self.eval_steps, tuple) and self.eval_steps:
            for step in self.eval_steps:
                check_integer("each of eval_steps", step, 1)
        else:
            check_integer("eval_steps", self.eval_steps, 1)
        check_choice("base_dtype", self.base_dtype, ("auto", "float32", "bfloat16"))
        check_seed("seed", self.seed)
        check_number("lora_alpha", self.lora_alpha, 0.0, open_low=True)
        check_number("lora_dropout", self.lora_dropout, 0.0, 1.0, open_high=True)
        check_number("warmup_ratio", self.warmup_ratio, 0.0, 1.0)
        check_number("validation", self.validation, 0.0, 1.0, open_high=True)
        check_flag("warm_head", self.warm_head)
        names = self.target_modules
        if names is not None and (isinstance(names, str) or not names or not all(isinstance(n, str) for n in names)):
            raise ValueError(f"target_modules must be a tuple of module names such as ('q_proj',), got {names!r}.")
        rates = self.learning_rates
        if isinstance(rates, (str, int, float)) or not rates:
            raise ValueError(f"learning_rates must be a tuple of positive numbers such as (1e-3,), got {rates!r}.")
        for rate in rates:
            check_number("each of learning_rates", rate, 0.0, open_low=True)

    def rate(self, peak: float, step: int) -> float:
        """Return the learning rate at a step.

        Parameters
        ----------
        peak : float
            Learning rate at the end of the warm-up.
        step : int
            Index of the step, 0 ... max_steps - 1.

        Returns
        -------
        float

        Examples
        --------
        >>> config = FinetuneConfig(max_steps=4, warmup_ratio=0.5)
        >>> [config.rate(0.01, step) for step in range(4)]
        [0.005, 0.01, 0.01, 0.005]
        """
        n_warmup = max(1, round(self.warmup_ratio * self.max_steps))
        return warmup_cosine(step, self.max_steps, n_warmup, peak)

    def evaluations(self) -> tuple[int, ...]:
        """List the training steps after which the validation split is evaluated.

        Returns
        -------
        tuple of int
            Ascending; step 0, the evaluation before training, is not among them.

        Examples
        --------
        >>> FinetuneConfig(max_steps=100, eval_steps=40).evaluations()
        (40, 80, 100)
        >>> FinetuneConfig(max_steps=100, eval_steps=(5, 25)).evaluations()
        (5, 25, 100)
        """
        steps = self.eval_steps
        if not isinstance(steps, tuple):
            steps = tuple(range(steps, self.max_steps, steps))
        return tuple(sorted({step for step in steps if step < self.max_steps} | {self.max_steps}))


PAPER_FINETUNING = FinetuneConfig(
    r=32,
    lora_alpha=32.0,
    lora_dropout=0.05,
    optimizer="adafactor",
    learning_rates=(1e-4,),
    max_steps=5000,
    batch_size=1,
    validation=0.0,
    warm_head=False,
)
"""Settings of the released script (Cheng et al. 2025), which uses the last step instead of a validation split."""


@dataclass(frozen=True)
class CurvePoint:
    """Evaluation of a finetuning run on its validation split.

    Attributes
    ----------
    step : int
        Number of training steps before it.
    accuracy, cross_entropy : float or None
        On the validation split; None without one.
    training_loss, gradient_norm : float or None
        Mean loss of the training batches since the previous evaluation, and mean norm of their
        gradients before clipping; None before training.
    seconds : float
        Time since the start of training, evaluations included.
    """

    step: int
    accuracy: float | None
    cross_entropy: float | None
    training_loss: float | None
    gradient_norm: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Classification:
    """Classes predicted for the test texts.

    Attributes
    ----------
    accuracy : float
        Share of the texts that are classified correctly.
    cross_entropy : float
        Mean of minus the log probability of the true class, in nats.
    predictions : (n_test,) int64
        Predicted class of each text.
    """

    accuracy: float
    cross_entropy: float
    predictions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """Result of a finetuning run.

    Attributes
    ----------
    model : CausalModel
        The finetuned model, with adapters merged.
    test : Classification
        Classes of the test texts at the chosen checkpoint.
    last_step : Classification or None
        Classes of the test texts after the last training step, if ``test_last_step`` was set.
    last_model : CausalModel or None
        The model after the last training step, with adapters merged, if ``test_last_step`` was set.
    curve : tuple of CurvePoint
        Evaluations under the chosen learning rate.
    validation_accuracy : float or None
        Accuracy of the chosen checkpoint on the validation split; None without one.
    learning_rate : float
        Learning rate of the chosen checkpoint.
    n_steps : int
        Training steps of the chosen checkpoint.
    n_trainable : int
        Number of trained parameters, those of the head included.
    base_dtype : str
        Type of the frozen weights in training; the returned model has that of the original one.
    seconds : float
        Duration of the run.
    head : torch.nn.Linear
        The trained head, in float64 on the CPU: it maps the mean token of the last layer of ``model`` to logits, in
        the order of the class numbers.
    adapter : peft.PeftModel or None
        The adapter before merging, if ``keep_adapter`` was set; save it with its
        ``save_pretrained``.
    """

    model: CausalModel
    test: Classification
    last_step: Classification | None
    last_model: CausalModel | None
    curve: tuple[CurvePoint, ...]
    validation_accuracy: float | None
    learning_rate: float
    n_steps: int
    n_trainable: int
    base_dtype: str
    seconds: float
    head: torch.nn.Linear
    adapter: Any = None

    @property
    def accuracy(self) -> float:
        """Accuracy on the test texts at the chosen checkpoint."""
        return self.test.accuracy

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Predicted class of each test text at the chosen checkpoint, (n_test,)."""
        return self.test.predictions


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bfloat16 in hardware.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    bool
        For a CPU, whether it has AVX-512 BF16 or AMX. Without them bfloat16 is slower than float32.

    Examples
    --------
    >>> isinstance(has_bfloat16(torch.device("cpu")), bool)
    True
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def training_dtype(model: CausalModel, config: FinetuneConfig) -> torch.dtype:
    """Determine the type of the weights that are not trained, see :class:`FinetuneConfig`.

    Parameters
    ----------
    model : CausalModel
    config : FinetuneConfig

    Returns
    -------
    torch.dtype

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> training_dtype(load_model("lab/XS"), FinetuneConfig())
    torch.float32
    """
    if config.method == "full" or config.base_dtype == "float32":
        return torch.float32
    large = model.model.num_parameters() > AUTO_FLOAT64_PARAMETERS
    if config.base_dtype == "bfloat16" or (large and has_bfloat16(model.model.device)):
        return torch.bfloat16
    return torch.float32


def attention_projections(model: torch.nn.Module) -> tuple[str, ...]:
    """Find the names of the query, key and value projections of a model.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    tuple of str
        Last parts of the module names.

    Raises
    ------
    ProjectionError
        If the architecture uses none of the known names.

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> attention_projections(load_model("lab/XS").model)
    ('q_proj', 'k_proj', 'v_proj')
    """
    ends = {name.rpartition(".")[2] for name in text_modules(model)}
    for names in ATTENTION:
        if ends.issuperset(names):
            return names
    raise ProjectionError(
        f"{type(model).__name__} has no query, key and value projections of a known name; name the modules to "
        "adapt: --target-modules NAME,..., or FinetuneConfig(target_modules=(...))."
    )


def projection_modules(model: Any, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Find the modules that LoRA adapts, in the language model only.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A model for text, or for text and images.
    names : sequence of str, optional
        Last parts of the names of the modules; by default :func:`attention_projections`.

    Returns
    -------
    tuple of str
        Full names.

    Raises
    ------
    ValueError
        If a name belongs to no module.

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> projection_modules(load_model("lab/XS").model)[0]
    'model.layers.0.self_attn.q_proj'
    """
    ends = tuple(names) if names is not None else attention_projections(model)
    modules = text_modules(model)
    found = tuple(name for name in modules if name.rpartition(".")[2] in ends)
    known = {name.rpartition(".")[2] for name in modules}
    unknown = [end for end in ends if end not in known]
    if unknown:
        raise ValueError(
            f"{type(model).__name__} has no modules named {', '.join(unknown)}; it has {', '.join(sorted(known))}."
        )
    return found


def finetune(
    model: CausalModel,
    train: TextDataset,
    test: TextDataset,
    config: FinetuneConfig | None = None,
    *,
    train_tokens: Tokens | None = None,
    test_tokens: Tokens | None = None,
    max_length: int | None = None,
    features: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
    test_last_step: bool = False,
    keep_adapter: bool = False,
    progress: Callable[[int], None] | None = None,
) -> FinetuneResult:
    """Finetune a copy of a model to classify texts, and compute its test accuracy.

    The classifier is linear in the mean of the last hidden states over the tokens of a text.

    Parameters
    ----------
    model : CausalModel
        The model to start from; it is not changed.
    train, test : TextDataset
        Training and test texts of the same classes.
    config : FinetuneConfig, optional
        Settings; by default those of ``FinetuneConfig()``.
    train_tokens, test_tokens : Tokens, optional
        What :func:`ntps_utils.models.extraction.tokenize` returned for ``train`` and ``test``,
        to avoid tokenizing again; ``max_length`` is then ignored.
    max_length : int, optional
        Tokens after which a text is truncated; by default the limit of the model.
    features : tuple of two arrays, optional
        Text features of the frozen model for ``train`` and ``test``, (n_train, d) and (n_test, d):
        the last layer of ``extract(..., features="last")``, to avoid computing them again. They are
        ignored where the frozen weights are converted to bfloat16.
    test_last_step : bool
        Also return the model after the last training step, and its classes of the test texts.
    keep_adapter : bool
        Return the unmerged LoRA adapter too.
    progress : callable, optional
        Called with 1 after every training step.

    Returns
    -------
    FinetuneResult

    Raises
    ------
    ValueError
        If the classes differ, a text has no token, tokens are those of other texts, there
        are too few texts to split, the weights are quantized, or the loss diverged for every
        learning rate.

    Warns
    -----
    FinetuneWarning
        If the loss diverged for some of the learning rates.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.loading import load_model
    >>> train, test = (load_texts("lab/topic", split).head(100) for split in ("train", "test"))
    >>> config = FinetuneConfig(method="frozen", max_steps=5, eval_steps=5)
    >>> bool(finetune(load_model("lab/XS", dtype="float32"), train, test, config).accuracy > 0.5)
    True
    """
    config = config or FinetuneConfig()
    if train.label_names != test.label_names:
        raise ValueError(
            f"train and test must have the same classes; {train.name}/{train.split} has {train.label_names}, "
            f"{test.name}/{test.split} has {test.label_names}."
        )
    if getattr(model.model, "is_quantized", False):
        raise ValueError(
            f"{model.name} has quantized weights, which cannot be finetuned here; load the original model."
        )
    started = time.perf_counter()
    ids, test_ids = (
        tokens_of(model, data, tokens, max_length).ids for data, tokens in ((train, train_tokens), (test, test_tokens))
    )
    for data, texts in ((train, ids), (test, test_ids)):
        _check_tokens(data, texts)
    training_rows, validation_rows = _split(train.labels, config)
    run = _FinetuneRun(model, train.n_classes, config)
    run.prepare(ids, train.labels, training_rows, _checked_features(features, model, train, test))
    attempts = [_Attempt(rate) for rate in config.learning_rates]
    for attempt in attempts:
        for _ in run.train(attempt, ids, train.labels, training_rows, validation_rows, progress, test_last_step):
            pass
    finite = [attempt for attempt in attempts if not attempt.diverged]
    if not finite:
        raise ValueError(f"The loss diverged for every learning rate of {config.learning_rates}; try lower ones.")
    if len(finite) < len(attempts):
        diverged = [attempt.rate for attempt in attempts if attempt.diverged]
        warnings.warn(
            f"The loss diverged for the learning rates {diverged}, which were excluded; use lower ones.",
            FinetuneWarning,
            stacklevel=2,
        )
    best = max(finite, key=lambda attempt: attempt.score)
    is_last = best.n_steps == best.curve[-1].step
    last_step, last_model = None, None
    if test_last_step and not is_last:
        run.restore(best.last_weights)
        last_step, last_model = run.classify(test_ids, test.labels), run.merged(keep=True)
    run.restore(best.weights)
    classified = run.classify(test_ids, test.labels)
    adapter = copy.deepcopy(run.body) if keep_adapter and config.method == "lora" else None
    merged = run.merged()
    if test_last_step and is_last:
        last_step, last_model = classified, merged
    return FinetuneResult(
        model=merged,
        test=classified,
        last_step=last_step,
        last_model=last_model,
        curve=tuple(best.curve),
        validation_accuracy=next((p.accuracy for p in best.curve if p.step == best.n_steps), None),
        learning_rate=best.rate,
        n_steps=best.n_steps,
        n_trainable=sum(p.numel() for p in run.trainable),
        base_dtype=str(run.dtype).removeprefix("torch."),
        seconds=time.perf_counter() - started,
        head=run.exported_head(),
        adapter=adapter,
    )


def trial_run(
    model: CausalModel,
    train: TextDataset,
    config: FinetuneConfig,
    *,
    train_tokens: Tokens | None = None,
    max_length: int | None = None,
    features: NDArray[np.floating] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[CurvePoint]:
    """Make a finetuning run step by step, and yield its evaluations while it goes on.

    The run stops where the caller stops to ask for evaluations.

    Parameters
    ----------
    model : CausalModel
        It is not changed.
    train : TextDataset
        Training texts; a share of them is the validation split.
    config : FinetuneConfig
        Settings of the whole run, with one learning rate, a validation split, and adapters or all weights.
    train_tokens, max_length
        See :func:`finetune`.
    features : (n_train, d) array, optional
        Text features of the frozen model for ``train``, see :func:`finetune`.
    progress : callable, optional
        Called with 1 after every training step.

    Yields
    ------
    CurvePoint
        The curve of the whole run.

    Raises
    ------
    ValueError
        If the settings have no trial run, the loss diverged, or the texts cannot be used, see :func:`finetune`.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.loading import load_model
    >>> model, train = load_model("lab/XS", dtype="float32"), load_texts("lab/topic").head(100)
    >>> config = FinetuneConfig(max_steps=100, eval_steps=(2, 10), learning_rates=(1e-3,))
    >>> run = trial_run(model, train, config)
    >>> [next(run).step, next(run).step]  # two of the 100 steps are made
    [0, 2]
    """
    if len(config.learning_rates) != 1 or config.validation == 0.0 or config.method == "frozen":
        raise ValueError(
            "A trial run needs one learning rate, a validation split, and the method 'lora' or 'full'; got "
            f"{len(config.learning_rates)} learning rates, validation={config.validation} and the method "
            f"{config.method!r}."
        )
    ids = tokens_of(model, train, train_tokens, max_length).ids
    _check_tokens(train, ids)
    given = None if features is None else (features, features)
    checked = _checked_features(given, model, train, train)
    rows = _split(train.labels, config)

    def points() -> Iterator[CurvePoint]:
        run, attempt = _FinetuneRun(model, train.n_classes, config), _Attempt(config.learning_rates[0])
        run.prepare(ids, train.labels, rows[0], checked)
        yield from run.train(attempt, ids, train.labels, *rows, progress)
        if attempt.diverged:
            raise ValueError(f"The loss diverged at the learning rate {attempt.rate}; try a lower one.")

    return points()


@dataclass(frozen=True)
class FirstOrderDrop:
    """Fall of the training loss in one small step of gradient descent from the start of a run.

    Attributes
    ----------
    loss : float
        Cross-entropy of the training texts at the start, in nats.
    head, adapters : float
        Squared norm of its gradient with respect to the head and to the other trained weights. A step
        of size e lowers the loss by ``e * (head + adapters)`` up to terms of order e squared.
    steps : tuple of float
        Step sizes that were taken.
    drops : tuple of float
        Fall of the loss in each of them.
    """

    loss: float
    head: float
    adapters: float
    steps: tuple[float, ...]
    drops: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Fall of the loss divided by its prediction; tends to 1 as the step tends to 0."""
        return tuple(
            drop / (step * (self.head + self.adapters)) for step, drop in zip(self.steps, self.drops, strict=True)
        )


def first_order_drop(
    model: CausalModel,
    train: TextDataset,
    config: FinetuneConfig | None = None,
    *,
    steps: Sequence[float] = (),
    max_length: int | None = None,
) -> FirstOrderDrop:
    r"""Predict the fall of the loss in a small step, and split it into head and adapters.

    Parameters
    ----------
    model : CausalModel
        The model to start from; it is not changed.
    train : TextDataset
    config : FinetuneConfig, optional
        Settings of the run whose start is examined; all texts are used for training.
    steps : sequence of float
        Sizes of steps to take, each from the start, for comparison.
    max_length : int, optional
        Tokens after which a text is truncated; by default the limit of the model.

    Returns
    -------
    FirstOrderDrop

    Notes
    -----
    With J the gradients of the class scores with respect to all trained weights, r the residuals
    (probabilities minus labels) and n texts, the gradient of the mean loss is
    :math:`g = J^\top r / n`, and a step :math:`-e g` lowers it by :math:`e |g|^2 + O(e^2)`, where
    :math:`|g|^2 = r^\top K r / n^2` with the tangent kernel :math:`K = J J^\top`. K is the sum of the
    kernels of head and adapters. Where B is zero, A has no gradient.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.loading import load_model
    >>> data = load_texts("lab/tense").head(100)
    >>> found = first_order_drop(load_model("lab/XS", dtype="float32"), data, steps=(1e-3,))
    >>> bool(abs(found.ratios[0] - 1) < 0.05)
    True
    """
    config = replace(config or FinetuneConfig(), validation=0.0, lora_dropout=0.0)
    ids = tokens_of(model, train, None, max_length).ids
    rows, targets = np.arange(len(train)), torch.as_tensor(train.labels, device=model.model.device)
    run = _FinetuneRun(model, train.n_classes, config)
    run.prepare(ids, train.labels, rows, None)

    def loss() -> float:
        with torch.no_grad():
            return run._evaluate(ids, rows, targets)[1]

    run.body.eval()
    for parameter in run.trainable:
        parameter.grad = None
    for start in range(0, len(rows), max(64, config.batch_size)):
        run._backward(rows[start : start + max(64, config.batch_size)], ids, targets, len(rows))
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in run.trainable]
    n_head = len(list(run.head.parameters()))
    squares = [float(g.cpu().double().square().sum()) for g in gradients]
    before, drops = loss(), []
    for step in steps:
        run.restore([value - step * gradient for value, gradient in zip(run.start, gradients, strict=True)])
        drops.append(before - loss())
    return FirstOrderDrop(before, sum(squares[-n_head:]), sum(squares[:-n_head]), tuple(steps), tuple(drops))


def randomly_initialized(model: CausalModel, *, seed: int = 0) -> CausalModel:
    """Create a model of the same architecture with random weights, for a baseline trained from scratch.

    Parameters
    ----------
    model : CausalModel
        The model to copy the architecture of; it is not changed.
    seed : int
        Random seed for the weights.

    Returns
    -------
    CausalModel
        Finetune it with ``method="full"``.

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> randomly_initialized(load_model("lab/XS")).name
    'lab/XS (untrained)'
    """
    device = model.model.device
    with _RandomState(seed, device).used():
        fresh = type(model.model)(copy.deepcopy(model.model.config)).to(device, model.model.dtype)
    return replace(
        model,
        name=f"{model.name} (untrained)",
        model=fresh.eval().requires_grad_(False),
        fingerprint=f"{model.fingerprint}+untrained{seed}",
    )


class _RandomState:
    """Random numbers of torch from a seed, apart from the global ones.

    A generator must not hold the global state while it waits: it may be abandoned, and end in the middle of other work.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=self.devices):
            torch.manual_seed(seed)
            self._keep()

    def _keep(self) -> None:
        self.states = [torch.random.get_rng_state(), *map(torch.cuda.get_rng_state, self.devices)]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Go on with these numbers within a block; the global state is restored after it."""
        with torch.random.fork_rng(devices=self.devices):
            torch.random.set_rng_state(self.states[0])
            for state, device in zip(self.states[1:], self.devices, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self._keep()


def _split(labels: NDArray[np.int64], config: FinetuneConfig) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Training rows and validation rows, stratified by class if every class has at least two texts."""
    rows = np.arange(len(labels))
    if config.validation == 0.0:
        return rows, rows[:0]
    rare = np.bincount(labels)[labels] < 2
    n_validation = round(config.validation * len(labels))
    if n_validation < 2 or len(labels) - n_validation < 2:
        raise ValueError(
            f"{len(labels)} texts are too few to hold out {config.validation:.0%} of them for validation; give more "
            "texts, or use validation=0."
        )
    groups = None if rare.any() or n_validation < len(np.unique(labels)) else labels
    training, validation = train_test_split(rows, test_size=n_validation, random_state=config.seed, stratify=groups)
    return np.sort(training), np.sort(validation)


def _check_tokens(data: TextDataset, ids: Sequence[Sequence[int]]) -> None:
    empty_row = next((row for row, text in enumerate(ids, 1) if not text), None)
    if empty_row is not None:
        raise ValueError(f"Row {empty_row} of {data.name}/{data.split} has no token; remove it.")


def _checked_features(
    features: tuple[NDArray[np.floating], NDArray[np.floating]] | None,
    model: CausalModel,
    train: TextDataset,
    test: TextDataset,
) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
    for name, given, data in zip(("train", "test"), features or (), (train, test), strict=False):
        if np.shape(given) != (len(data), model.dimension):
            raise ValueError(
                f"The features of {name} must have the shape {(len(data), model.dimension)}, one row for each text; "
                f"got {np.shape(given)}."
            )
    return features


@dataclass(eq=False)
class _Attempt:
    """Training under one learning rate: its evaluations, the best of them, and weights there and at the end."""

    rate: float
    curve: list[CurvePoint] = field(default_factory=list)
    score: tuple[float, float] = (-math.inf, -math.inf)
    n_steps: int = 0
    weights: list[torch.Tensor] = field(default_factory=list)
    last_weights: list[torch.Tensor] = field(default_factory=list)
    diverged: bool = False


class _FinetuneRun:
    """A copy of the model with a head, trained from the same start under each learning rate."""

    def __init__(self, model: CausalModel, n_classes: int, config: FinetuneConfig) -> None:
        self.config, self.source = config, model
        self.device = model.model.device
        self.dtype = training_dtype(model, config)
        self.whole = copy.deepcopy(model.model).to(self.dtype)
        with _RandomState(config.seed, self.device).used():
            if config.method == "lora":
                self.body: Any = _with_adapters(self.whole, config)
            else:
                self.body = self.whole.requires_grad_(config.method == "full")
            self.head = torch.nn.Linear(model.dimension, n_classes).to(self.device)
        self.shift, self.scale = torch.zeros(1, device=self.device), torch.ones(1, device=self.device)
        self.trainable = [p for p in self.body.parameters() if p.requires_grad] + list(self.head.parameters())
        self.overhead = batch_overhead(model)
        self.cached: torch.Tensor | None = None  # features of the training texts, if they never change
        self.cached_test: torch.Tensor | None = None
        self.start: list[torch.Tensor] = []

    def train(
        self,
        attempt: _Attempt,
        ids: Sequence[Sequence[int]],
        labels: NDArray[np.int64],
        training_rows: NDArray[np.intp],
        validation_rows: NDArray[np.intp],
        progress: Callable[[int], None] | None = None,
        keep_last: bool = False,
    ) -> Iterator[CurvePoint]:
        """Train under the learning rate of ``attempt``, fill it, and yield the points of its curve."""
        config = self.config
        self.restore(self.start)
        targets = torch.as_tensor(labels, device=self.device)
        optimizer = _optimizer(config, self.trainable)
        validation_ids = [ids[i] for i in validation_rows]
        started, evaluations = time.perf_counter(), set(config.evaluations())
        losses: list[float] = []
        norms: list[torch.Tensor] = []

        def evaluate(step: int) -> bool:
            """Add a point to the curve, and return whether it is the best one."""
            accuracy, loss = None, None
            score = (0.0, -losses[-1] if losses else -math.inf)
            if len(validation_rows):
                accuracy, loss = self._evaluate(validation_ids, validation_rows, targets)
                score = (accuracy, -loss) if config.metric_for_best_model == "accuracy" else (-loss, accuracy)
            mean_loss = float(np.mean(losses)) if losses else None
            norm = float(torch.stack(norms).mean()) if norms else None
            seconds = time.perf_counter() - started
            attempt.curve.append(CurvePoint(step, accuracy, loss, mean_loss, norm, seconds))
            losses.clear()
            norms.clear()
            better = score > attempt.score
            if better:
                attempt.score, attempt.n_steps, attempt.weights = score, step, self._weights()
            return better

        dropout = _RandomState(config.seed, self.device)
        if config.warm_head and len(validation_rows):
            evaluate(0)
            yield attempt.curve[-1]
        n_without_improvement, patience = 0, config.early_stopping_patience or math.inf
        for step, rows in enumerate(_batches(training_rows, [len(row) for row in ids], config)):
            for group in optimizer.param_groups:
                group["lr"] = config.rate(attempt.rate, step)
            self.body.train()
            optimizer.zero_grad()
            with dropout.used():
                losses.append(self._backward(rows, ids, targets))
            if not math.isfinite(losses[-1]):
                attempt.diverged = True
                return
            norms.append(torch.nn.utils.clip_grad_norm_(self.trainable, 1.0))
            optimizer.step()
            n_steps = step + 1
            if progress is not None:
                progress(1)
            if n_steps in evaluations and (len(validation_rows) or n_steps == config.max_steps):
                n_without_improvement = 0 if evaluate(n_steps) else n_without_improvement + 1
                yield attempt.curve[-1]
                if n_without_improvement >= patience:
                    break
        attempt.last_weights = self._weights() if keep_last else []

    def _backward(
        self, rows: NDArray[np.intp], ids: Sequence[Sequence[int]], targets: torch.Tensor, n: int | None = None
    ) -> float:
        """Add the gradients of the mean loss of some rows (or their share of the mean over n), and return the loss."""
        total = 0.0
        parts: list[Any] = [rows]
        if self.cached is None:
            parts = length_batches(ids, list(rows), len(rows), BATCH_TOKENS, self.overhead)
        for part in parts:
            index = torch.as_tensor(np.asarray(part))
            pooled = self.cached[index] if self.cached is not None else self._pool([ids[i] for i in part])
            loss = cross_entropy(self._classify(pooled), targets[index], reduction="sum") / (n or len(rows))
            loss.backward()
            total += loss.item()
        return total

    def prepare(
        self,
        ids: Sequence[Sequence[int]],
        labels: NDArray[np.int64],
        training_rows: NDArray[np.intp],
        features: tuple[NDArray[np.floating], NDArray[np.floating]] | None,
    ) -> None:
        """Extract the features of the frozen model where they are needed, and initialize the head."""
        if self.dtype == torch.bfloat16 and self.device.type == "cpu" and max(map(len, ids)) <= EAGER_TOKENS:
            self.whole.set_attn_implementation("eager")
        given = None
        if features is not None and self.dtype == self.source.model.dtype:
            given = [torch.as_tensor(part, dtype=torch.float32, device=self.device) for part in features]
        if self.config.method == "frozen" or self.config.warm_head:
            # Adapters start at zero, so these are the features of the frozen model.
            frozen = given[0] if given is not None else self._features(ids)
            if self.config.method == "frozen":  # its features never change, so one pass is enough
                self.cached, self.cached_test = frozen, None if given is None else given[1]
            if self.config.warm_head:
                self._initialize_head(frozen[torch.as_tensor(training_rows)].float(), labels[training_rows])
        self.start = self._weights()

    def _initialize_head(self, features: torch.Tensor, labels: NDArray[np.int64]) -> None:
        probe = logistic_probe(features.cpu(), labels, features.cpu(), labels, seed=self.config.seed)
        self.shift, self.scale = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
        with torch.no_grad():
            self.head.weight[torch.as_tensor(probe.classes)] = torch.as_tensor(probe.weights).to(self.head.weight)
            self.head.bias[torch.as_tensor(probe.classes)] = torch.as_tensor(probe.biases).to(self.head.bias)

    def _evaluate(
        self, validation_ids: Sequence[Sequence[int]], validation_rows: NDArray[np.intp], targets: torch.Tensor
    ) -> tuple[float, float]:
        """Accuracy and cross-entropy on the validation split."""
        index = torch.as_tensor(validation_rows)
        features = None if self.cached is None else self.cached[index]
        logits, labels = self.logits(validation_ids, features), targets[index]
        return float((logits.argmax(1) == labels).float().mean()), float(cross_entropy(logits, labels))

    def _weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.trainable]

    def restore(self, weights: Sequence[torch.Tensor]) -> None:
        """Load saved values of the trainable parameters."""
        with torch.no_grad():
            for parameter, value in zip(self.trainable, weights, strict=True):
                parameter.copy_(value)

    def merged(self, *, keep: bool = False) -> CausalModel:
        """The finetuned model, in the type of the original one. Unless the run is kept, it cannot go on."""
        body = copy.deepcopy(self.body) if keep else self.body
        if self.config.method == "lora":
            if self.dtype == torch.bfloat16:  # merge into the weights of the source, which have all digits
                import peft

                body = _with_adapters(copy.deepcopy(self.source.model).float(), self.config)
                peft.set_peft_model_state_dict(body, peft.get_peft_model_state_dict(self.body))
            body = body.merge_and_unload()
        elif self.config.method == "frozen":
            body = copy.deepcopy(self.source.model)
        body = body.to(self.source.model.dtype).eval().requires_grad_(False)
        return replace(self.source, model=body, fingerprint=f"{self.source.fingerprint}+{self.config.method}")

    def _pool(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Mean of the last hidden states over the tokens of each text, (texts, d)."""
        tokens, mask = pad_batch(rows, self.device)
        hidden = backbone(self.whole)(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        return mean_pool(hidden.float(), mask)

    @torch.no_grad()
    def _features(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        features = torch.empty(len(rows), self.source.dimension, device=self.device)
        with evaluation_mode(self.body):
            size = max(64, self.config.batch_size)
            for batch in length_batches(rows, range(len(rows)), size, overhead=self.overhead):
                features[torch.tensor(batch)] = self._pool([rows[i] for i in batch])
        return features

    @torch.no_grad()
    def logits(self, rows: Sequence[Sequence[int]], features: torch.Tensor | None = None) -> torch.Tensor:
        """Class scores of texts, (texts, classes), from their features if these are known."""
        return self._classify(self._features(rows) if features is None else features).detach()

    def classify(self, rows: Sequence[Sequence[int]], labels: NDArray[np.int64]) -> Classification:
        """Classify the test texts."""
        logits = self.logits(rows, self.cached_test)
        predictions = logits.argmax(1).cpu().numpy().astype(np.int64)
        loss = float(cross_entropy(logits, torch.as_tensor(labels, device=self.device)))
        return Classification(float(np.mean(predictions == labels)), loss, predictions)

    @torch.no_grad()
    def exported_head(self) -> torch.nn.Linear:
        """The head for features that are not standardized."""
        head = copy.deepcopy(self.head).cpu().double().requires_grad_(False)
        shift, scale = self.shift.cpu().double(), self.scale.cpu().double()
        head.weight.div_(scale)
        head.bias.sub_((head.weight * shift).sum(1))
        return head

    def _classify(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.head((pooled.float() - self.shift) / self.scale)


def _with_adapters(model: Any, config: FinetuneConfig) -> Any:
    """Insert the adapters; peft keeps them in float32."""
    import peft  # here, because it takes seconds to load

    ends = list(config.target_modules or attention_projections(model))
    inside = list(projection_modules(model, ends))
    is_text_only = len(inside) == sum(name.rpartition(".")[2] in ends for name, _ in model.named_modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns about fan_in_fan_out and corrects it
        lora = peft.LoraConfig(
            r=config.r,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft only divides by it
            lora_dropout=config.lora_dropout,
            target_modules=ends if is_text_only else inside,
        )
        try:
            return peft.get_peft_model(model, lora)
        except ValueError as error:
            raise ProjectionError(
                f"LoRA cannot adapt the modules {', '.join(ends)} of {type(model).__name__}: {first_line(error)}."
            ) from None


def _optimizer(config: FinetuneConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.learning_rates[0], weight_decay=0.0)
    from transformers.optimization import Adafactor

    return Adafactor(parameters, lr=config.learning_rates[0], relative_step=False, scale_parameter=False)


def _batches(
    training_rows: NDArray[np.intp], lengths: Sequence[int], config: FinetuneConfig
) -> Iterator[NDArray[np.intp]]:
    """Rows of each step: epochs in random order, with texts of similar length in a batch to save padding."""
    rng = np.random.default_rng(config.seed)
    size, step = min(config.batch_size, len(training_rows)), 0
    while True:
        order = rng.permutation(training_rows)
        # Buckets of eight batches, each sorted by length; their batches in random order.
        pool = size * 8
        batches = []
        for start in range(0, len(order), pool):
            bucket = sorted(order[start : start + pool], key=lambda i: lengths[i])
            batches += [np.array(bucket[s : s + size]) for s in range(0, len(bucket), size)]
        for i in rng.permutation(len(batches)):
            if step == config.max_steps:
                return
            step += 1
            yield batches[i]
