"""Finetuning a causal language model with a mean-token head: LoRA, all weights, or the head alone.

One loop serves all three, so that the LoRA gain (accuracy after LoRA minus that of a head
on frozen features) is LoRA minus frozen features and nothing else.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import peft
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy

from ntps_utils._utils.validation import check_choice, check_flag, check_integer, check_number
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import tokenize
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.probes import logistic_probe

Method = Literal["lora", "full", "frozen"]

# Names of the query, key and value projections by architecture; fused ones count as all three.
ATTENTION = (("q_proj", "k_proj", "v_proj"), ("query_key_value",), ("c_attn",), ("qkv_proj",))


class FinetuneWarning(UserWarning):
    """A finetuning run ended in a way that its accuracy does not tell."""


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
        Scale of the adapters: each adds ``lora_alpha / r`` times a product of two thin matrices.
    lora_dropout : float
        Dropout on the input of the adapters, in [0, 1).
    target_modules : tuple of str, optional
        Modules to adapt, by the last part of their names; by default the query, key and
        value projections, see :func:`attention_projections`.
    optimizer : {"adamw", "adafactor"}
        Weight decay is zero.
    learning_rates : tuple of float
        Peak learning rates to try; the validation split chooses one. The rate rises
        linearly over the first ``warmup_ratio`` of the steps, then falls to zero as a cosine.
    max_steps : int
        Training steps for each learning rate.
    batch_size : int
        Texts in a step.
    warmup_ratio : float
        Share of the steps in which the learning rate rises, in [0, 1].
    eval_steps : int
        Steps between evaluations on the validation split; the best checkpoint is kept.
    early_stopping_patience : int
        Evaluations without improvement before early stopping.
    validation : float
        Share of the training texts held out for these choices, in [0, 1); 0 takes the last
        step of the first learning rate.
    warm_head : bool
        Start from the logistic probe of the frozen features (standardized by the mean and
        deviation of the training texts), as Kumar et al. (2022) advise; the start counts
        as an evaluation. Otherwise the head starts at random, on raw features: their large
        common mean and small informative directions then make it slow, and a gain measures
        the training of the head too.
    seed : int
        Random seed for the split, the batches, the head and the adapters.

    Raises
    ------
    ValueError
        If a field is out of range, naming the field, its value and what is valid.

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
    eval_steps: int = 25
    early_stopping_patience: int = 4
    validation: float = 0.2
    warm_head: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("lora", "full", "frozen"))
        check_choice("optimizer", self.optimizer, ("adamw", "adafactor"))
        for name in ("r", "max_steps", "batch_size", "eval_steps", "early_stopping_patience"):
            check_integer(name, getattr(self, name), 1)
        check_integer("seed", self.seed, 0)
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
        """Learning rate at a step, 0 ... n_steps - 1."""
        n_warmup = max(1, round(self.warmup_ratio * self.max_steps))
        if step < n_warmup:
            return peak * (step + 1) / n_warmup
        done = (step - n_warmup) / max(1, self.max_steps - n_warmup)
        return peak * 0.5 * (1.0 + math.cos(math.pi * done))


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
"""The released script's settings (Cheng et al. 2025): no validation split, the last step counts."""


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What a finetuning run ended with.

    Attributes
    ----------
    model : CausalModel
        With adapters merged.
    accuracy : float
        On the test texts.
    predictions : (n_test,) int64
    validation_accuracy : float or None
        Of the step that was kept.
    learning_rate : float
        That was kept.
    n_steps : int
        Steps after which it was kept.
    n_trainable : int
        Parameters trained, the head's included.
    seconds : float
    adapter : peft.PeftModel or None
        Before merging, where ``keep_adapter`` was asked for; save it with its
        ``save_pretrained``.
    """

    model: CausalModel
    accuracy: float
    predictions: NDArray[np.int64]
    validation_accuracy: float | None
    learning_rate: float
    n_steps: int
    n_trainable: int
    seconds: float
    adapter: Any = None


def attention_projections(model: torch.nn.Module) -> tuple[str, ...]:
    """Names of the modules that hold a model's query, key and value projections.

    Raises
    ------
    ValueError
        If the architecture uses none of the names known here.
    """
    ends = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for names in ATTENTION:
        if ends.issuperset(names):
            return names
    raise ValueError(
        f"{type(model).__name__} has no query, key and value projections of a known name; say which modules to "
        "adapt with targets=(...)."
    )


def finetune(
    model: CausalModel,
    train: TextDataset,
    test: TextDataset,
    config: FinetuneConfig | None = None,
    *,
    max_length: int | None = None,
    keep_adapter: bool = False,
    progress: Callable[[int], None] | None = None,
) -> FinetuneResult:
    """Finetune a copy of a model to classify texts, and test it.

    The classifier is linear in the mean of the last hidden states over a text's tokens.

    Parameters
    ----------
    model : CausalModel
        Is not changed.
    train, test : TextDataset
        With the same classes.
    config : FinetuneConfig, optional
    max_length : int, optional
        Tokens after which a text is cut; by default what the model can take.
    keep_adapter : bool
        Return the unmerged LoRA adapter too.
    progress : callable, optional
        Called with the number of steps done, after every step.

    Raises
    ------
    ValueError
        If the classes differ, a text has no token, or there are too few texts to split.

    Warns
    -----
    FinetuneWarning
        If the loss was not finite under some learning rate.
    """
    config = config or FinetuneConfig()
    if train.label_names != test.label_names:
        raise ValueError(
            f"{train.name} and {test.name} have different classes: {train.label_names} and {test.label_names}."
        )
    started = time.perf_counter()
    ids, test_ids = tokenize(model, train, max_length).ids, tokenize(model, test, max_length).ids
    for data, rows in ((train, ids), (test, test_ids)):
        if any(not row for row in rows):
            raise ValueError(f"Row {[bool(r) for r in rows].index(False) + 1} of {data.name} has no token.")
    fit, held = _split(train.labels, config)
    run = _FinetuneRun(model, train.n_classes, config)
    run.prepare(ids, train.labels, fit)
    tried = [run.train(rate, ids, train.labels, fit, held, progress) for rate in config.learning_rates]
    finite = [one for one in tried if math.isfinite(one.score[1])]
    if not finite:
        raise ValueError(f"The loss was not finite with any learning rate of {config.learning_rates}; try lower ones.")
    if len(finite) < len(tried):
        warnings.warn("The loss was not finite under some learning rate; it was left out.", FinetuneWarning, 2)
    chosen = max(finite, key=lambda one: one.score)
    run.restore(chosen.weights)
    run.cached = None  # test texts have no rows there
    predictions = run.logits(test_ids).argmax(1).cpu().numpy().astype(np.int64)
    adapter = copy.deepcopy(run.body) if keep_adapter and config.method == "lora" else None
    merged = run.merged()
    return FinetuneResult(
        model=merged,
        accuracy=float(np.mean(predictions == test.labels)),
        predictions=predictions,
        validation_accuracy=chosen.score[0] if len(held) else None,
        learning_rate=chosen.rate,
        n_steps=chosen.n_steps,
        n_trainable=sum(p.numel() for p in run.trainable),
        seconds=time.perf_counter() - started,
        adapter=adapter,
    )


def randomly_initialized(model: CausalModel, *, seed: int = 0) -> CausalModel:
    """The same architecture with random weights: finetune it ("full") for the baseline from scratch.

    Parameters
    ----------
    model : CausalModel
        Is not changed.
    seed : int
    """
    device = model.model.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        fresh = type(model.model)(copy.deepcopy(model.model.config)).to(device, model.model.dtype)
    return replace(
        model,
        name=f"{model.name} (untrained)",
        model=fresh.eval().requires_grad_(False),
        fingerprint=f"{model.fingerprint}+untrained{seed}",
    )


def _split(labels: NDArray[np.int64], config: FinetuneConfig) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to fit on and rows to choose by; each class in both, as far as it can be."""
    rows = np.arange(len(labels))
    if config.validation == 0.0:
        return rows, rows[:0]
    rare = np.bincount(labels)[labels] < 2
    n_held = round(config.validation * len(labels))
    if n_held < 2 or len(labels) - n_held < 2:
        raise ValueError(f"{len(labels)} texts are too few to hold out {config.validation:.0%} of them.")
    groups = None if rare.any() or n_held < len(np.unique(labels)) else labels
    fit, held = train_test_split(rows, test_size=n_held, random_state=config.seed, stratify=groups)
    return np.sort(fit), np.sort(held)


@dataclass(eq=False)
class _Evaluation:
    """The best look at the validation split under one learning rate, and the weights then."""

    rate: float
    score: tuple[float, float] = (-1.0, -math.inf)
    n_steps: int = 0
    weights: list[torch.Tensor] = field(default_factory=list)


class _FinetuneRun:
    """A copy of the model with a head, trained from one start under each learning rate."""

    def __init__(self, model: CausalModel, n_classes: int, config: FinetuneConfig) -> None:
        self.config, self.source = config, model
        # Half-precision weights train badly without a GPU; a GPU keeps what the checkpoint has.
        on_cpu = model.model.device.type == "cpu"
        self.whole = copy.deepcopy(model.model)
        if on_cpu:
            self.whole = self.whole.float()
        self.device = self.whole.device
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(config.seed)
            if config.method == "lora":
                targets = config.target_modules or attention_projections(self.whole)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # peft remarks on fan_in_fan_out and sets it right
                    self.body: Any = peft.get_peft_model(
                        self.whole,
                        peft.LoraConfig(
                            r=config.r,
                            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # it divides; any number does
                            lora_dropout=config.lora_dropout,
                            target_modules=list(targets),
                        ),
                    )
            else:
                self.body = self.whole.requires_grad_(config.method == "full")
            self.head = torch.nn.Linear(model.dimension, n_classes).to(self.device)
        self.shift, self.scale = torch.zeros(1, device=self.device), torch.ones(1, device=self.device)
        self.trainable = [p for p in self.body.parameters() if p.requires_grad] + list(self.head.parameters())
        self.cached: torch.Tensor | None = None
        self.start: list[torch.Tensor] = []

    def train(
        self,
        rate: float,
        ids: Sequence[Sequence[int]],
        labels: NDArray[np.int64],
        fit: NDArray[np.intp],
        held: NDArray[np.intp],
        progress: Callable[[int], None] | None,
    ) -> _Evaluation:
        config, best = self.config, _Evaluation(rate)
        self.restore(self.start)
        targets = torch.as_tensor(labels, device=self.device)
        optimizer = _optimizer(config, self.trainable)
        held_ids = [ids[i] for i in held]
        looks_without = 0
        if config.warm_head and len(held):
            best = _Evaluation(rate, self._evaluate(held_ids, held, targets), 0, self._weights())
        for step, rows in enumerate(_batches(fit, [len(row) for row in ids], config)):
            for group in optimizer.param_groups:
                group["lr"] = config.rate(rate, step)
            self.body.train()
            pooled = (
                self.cached[torch.as_tensor(rows)] if self.cached is not None else self._pool([ids[i] for i in rows])
            )
            loss = cross_entropy(self._classify(pooled), targets[torch.as_tensor(rows)])
            if not torch.isfinite(loss):
                return _Evaluation(rate)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
            optimizer.step()
            done = step + 1
            if progress is not None:
                progress(1)
            if len(held) == 0:
                if done == config.max_steps:
                    best = _Evaluation(rate, (0.0, -loss.item()), done, self._weights())
                continue
            if done % config.eval_steps == 0 or done == config.max_steps:
                score = self._evaluate(held_ids, held, targets)
                if score > best.score:
                    best = _Evaluation(rate, score, done, self._weights())
                    looks_without = 0
                else:
                    looks_without += 1
                    if looks_without >= config.early_stopping_patience:
                        break
        return best

    def prepare(self, ids: Sequence[Sequence[int]], labels: NDArray[np.int64], fit: NDArray[np.intp]) -> None:
        """Take the features of the frozen model where they are needed, and start the head."""
        if self.config.method == "frozen" or self.config.warm_head:
            features = self._features(ids)  # adapters start as zero: these are the frozen model's
            if self.config.method == "frozen":  # its features never change: one pass is enough
                self.cached = features
            if self.config.warm_head:
                self._start_head(features[torch.as_tensor(fit)].float(), labels[fit])
        self.start = self._weights()

    def _start_head(self, features: torch.Tensor, labels: NDArray[np.int64]) -> None:
        probe = logistic_probe(features.cpu(), labels, features.cpu(), labels, seed=self.config.seed)
        self.shift, self.scale = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
        with torch.no_grad():
            self.head.weight[torch.as_tensor(probe.classes)] = torch.as_tensor(probe.weights).to(self.head.weight)
            self.head.bias[torch.as_tensor(probe.classes)] = torch.as_tensor(probe.biases).to(self.head.bias)

    def _evaluate(
        self, held_ids: Sequence[Sequence[int]], held: NDArray[np.intp], targets: torch.Tensor
    ) -> tuple[float, float]:
        """Accuracy and minus the loss on the validation split."""
        logits, right = self.logits(held_ids, held), targets[torch.as_tensor(held)]
        return float((logits.argmax(1) == right).float().mean()), -float(cross_entropy(logits, right))

    def _weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.trainable]

    def restore(self, weights: Sequence[torch.Tensor]) -> None:
        """Go back to weights that were kept."""
        with torch.no_grad():
            for parameter, kept in zip(self.trainable, weights, strict=True):
                parameter.copy_(kept)

    def merged(self) -> CausalModel:
        """The finetuned model as any causal model, in the precision of the one given."""
        body = self.body.merge_and_unload() if self.config.method == "lora" else self.body
        body = body.to(self.source.model.dtype).eval().requires_grad_(False)
        return replace(self.source, model=body, fingerprint=f"{self.source.fingerprint}+{self.config.method}")

    def _pool(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Mean of the last hidden states over each text's tokens, (texts, d)."""
        tokens = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in rows], batch_first=True, padding_value=-1
        ).to(self.device)
        mask = (tokens >= 0).long()
        hidden = self.whole.base_model(
            input_ids=tokens.clamp_min(0), attention_mask=mask, use_cache=False
        ).last_hidden_state
        weights = mask.to(hidden.dtype)
        return torch.einsum("btd,bt->bd", hidden, weights) / weights.sum(1, keepdim=True)

    @torch.no_grad()
    def _features(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        self.body.eval()
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        size = max(64, self.config.batch_size)
        pooled = torch.cat([self._pool([rows[i] for i in order[s : s + size]]) for s in range(0, len(order), size)])
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return pooled[back.to(pooled.device)]

    @torch.no_grad()
    def logits(self, rows: Sequence[Sequence[int]], cached_rows: NDArray[np.intp] | None = None) -> torch.Tensor:
        """Class scores of texts, (texts, classes)."""
        features = (
            self.cached[torch.as_tensor(cached_rows)]
            if self.cached is not None and cached_rows is not None
            else self._features(rows)
        )
        return self._classify(features).detach()

    def _classify(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.head((pooled.float() - self.shift) / self.scale)


def _optimizer(config: FinetuneConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.learning_rates[0], weight_decay=0.0)
    from transformers.optimization import Adafactor

    return Adafactor(parameters, lr=config.learning_rates[0], relative_step=False, scale_parameter=False)


def _batches(fit: NDArray[np.intp], lengths: Sequence[int], config: FinetuneConfig) -> Iterator[NDArray[np.intp]]:
    """Rows of each step: epochs in random order, texts of like length together to save padding."""
    rng = np.random.default_rng(config.seed)
    size, step = min(config.batch_size, len(fit)), 0
    while True:
        order = rng.permutation(fit)
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
