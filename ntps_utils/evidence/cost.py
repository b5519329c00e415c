"""Estimate the cost of a benchmark: operations and memory from sizes, durations from a short measurement.

A forward pass takes two operations per token for each parameter of the blocks, and attention
adds ``4 d T`` per layer and token of a text of T tokens. Gradients with respect to adapters pass
through the frozen weights, which costs as much as a forward pass; gradients of the weights
themselves cost that much again.

References
----------
J. Kaplan et al. (2020). Scaling laws for neural language models. arXiv:2001.08361.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ntps_utils._utils.validation import check_integer, check_number
from ntps_utils.evidence.classifiers import N_LAYERS
from ntps_utils.evidence.experiment import CENTERINGS, EXTRACTION_BATCH, PLACES, ExperimentConfig, n_threads
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.finetuning import FinetuneConfig, attention_projections
from ntps_utils.models.loading import model_config, registered_models
from ntps_utils.models.probes import logistic_probe
from ntps_utils.models.transferability import headroom, linearize
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.score import subspaces

_LINEARIZED: dict[str, Any] = linearize.__kwdefaults__ or {}
LINEARIZED_TEXTS: int = _LINEARIZED["max_texts"]
LINEARIZED_BATCH: int = _LINEARIZED["batch_size"]
LINEARIZED_GRADIENTS: int = _LINEARIZED["n_directions"]
"""Backward passes over each of these texts; one costs as much as a forward pass."""

FROZEN_PROBES = len(PLACES) + len((headroom, linearize))
"""Logistic probes of an experiment without finetuning: at both layers, and in two transferability scores."""

N_SOLVES = len(PLACES) * len(CENTERINGS)
"""Subspaces that are computed before finetuning, and again after it."""

STEP_PASSES = {"frozen": 0.0, "lora": 2.0, "full": 3.0}
"""Forward passes that a training step costs. The frozen head trains on stored features."""

ACTIVATIONS = 1.5
"""Values that a LoRA step stores per layer and token, relative to block parameters / d (tests: 0.8 to 1.9)."""


@dataclass(frozen=True)
class ModelSize:
    """Size of a causal language model.

    Attributes
    ----------
    n_parameters : int
        Number of parameters.
    n_embedding : int
        Number of parameters of the token embeddings and the output head, which take no part in
        the operations up to the last hidden state.
    dimension, n_layers : int
        Number of features d, and of blocks.

    Raises
    ------
    ValueError
        If a field is out of range, or there are as many embedding parameters as parameters.

    Examples
    --------
    >>> ModelSize(n_parameters=124_000_000, n_embedding=39_000_000, dimension=768, n_layers=12).n_body
    85000000
    """

    n_parameters: int
    n_embedding: int
    dimension: int
    n_layers: int

    def __post_init__(self) -> None:
        for name, minimum in (("n_parameters", 1), ("n_embedding", 0), ("dimension", 1), ("n_layers", 1)):
            check_integer(name, getattr(self, name), minimum)
        if self.n_embedding >= self.n_parameters:
            raise ValueError(
                f"n_embedding must be smaller than n_parameters, got {self.n_embedding} and {self.n_parameters}."
            )

    @property
    def n_body(self) -> int:
        """Number of parameters of the blocks, which every token passes."""
        return self.n_parameters - self.n_embedding


@dataclass(frozen=True)
class TextSize:
    """Size of a dataset.

    Attributes
    ----------
    n_train, n_test : int
        Number of training and test texts.
    n_classes : int
        Number of classes.
    mean_tokens : float
        Mean number of tokens of a text.
    longest : int
        Number of tokens of the longest text.

    Raises
    ------
    ValueError
        If a field is out of range.
    """

    n_train: int
    n_test: int
    n_classes: int
    mean_tokens: float
    longest: int

    def __post_init__(self) -> None:
        for name in ("n_train", "n_test", "n_classes", "longest"):
            check_integer(name, getattr(self, name), 1)
        check_number("mean_tokens", self.mean_tokens, 0.0, self.longest, open_low=True)


@dataclass(frozen=True)
class Speed:
    """Speed of a device, and of the CPU of the same machine.

    Attributes
    ----------
    flops, step_flops : float
        Sustained operations per second in the forward pass of a block, and in a training step
        of its adapters.
    layer_seconds, layer_step_seconds : float
        Duration of these for a block and very few tokens.
    probe_seconds, class_seconds : float
        Duration of a logistic probe per text and feature, and its increase per class.
    dense_seconds : float
        Duration of computing the subspaces, divided by d^3.

    Raises
    ------
    ValueError
        If a field is negative or not finite, or there are no operations per second.
    """

    flops: float
    step_flops: float
    layer_seconds: float
    layer_step_seconds: float
    probe_seconds: float
    class_seconds: float
    dense_seconds: float

    def __post_init__(self) -> None:
        for field in fields(self):
            check_number(field.name, getattr(self, field.name), 0.0, open_low=field.name in ("flops", "step_flops"))


@dataclass(frozen=True)
class Cost:
    """Cost of one or several experiments.

    Attributes
    ----------
    flops : float
        Operations on the device.
    seconds : float
        Duration.
    host_seconds : float
        The part of it that is spent on the CPU on any device: probes and subspaces.
    memory : float
        Peak memory of the device in bytes.
    """

    flops: float
    seconds: float
    host_seconds: float
    memory: float

    @property
    def duration(self) -> str:
        """The duration in words, see :func:`duration`."""
        return duration(self.seconds)


def duration(seconds: float) -> str:
    """Format a duration to two significant figures.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str

    Examples
    --------
    >>> [duration(seconds) for seconds in (3.21, 95, 5500, 1e7)]
    ['3.2 s', '1.6 min', '1.5 h', '2,780 h']
    """
    for unit, length, limit in (("s", 1, 90), ("min", 60, 5400)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}"
    hours = seconds / 3600
    return f"{hours:.2g} h" if hours < 100 else f"{round(hours, -1):,.0f} h"


def model_size(name: str | Path, *, trust_remote_code: bool = False) -> ModelSize:
    """Determine the size of a model from ``data/models.toml`` or its configuration; no weights are read.

    Parameters
    ----------
    name, trust_remote_code
        See :func:`ntps_utils.models.loading.load_model`.

    Returns
    -------
    ModelSize

    Examples
    --------
    >>> model_size("Llama-3-8B").dimension
    4096
    """
    entry = registered_models().get(str(name))
    if entry is not None:
        return ModelSize(**entry["size"])
    import transformers

    config = model_config(name, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        return _size(transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code))


def _size(model: Any) -> ModelSize:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    embedding = {id(p): p.numel() for end in ends if end is not None for p in end.parameters()}  # tied ones once
    config = model.config.get_text_config()
    return ModelSize(
        model.num_parameters(), sum(embedding.values()), int(config.hidden_size), int(config.num_hidden_layers)
    )


def text_size(
    train: TextDataset, test: TextDataset, max_length: int | None, characters_per_token: float = 4.0
) -> TextSize:
    """Estimate the size of a dataset from its characters; no tokenizer is needed.

    Parameters
    ----------
    train, test : TextDataset
    max_length : int or None
        Tokens after which a text is truncated.
    characters_per_token : float
        Mean number of characters of a token.

    Returns
    -------
    TextSize

    Examples
    --------
    >>> data = TextDataset("reviews", "train", ("a good film", "bad"), np.array([1, 0]), ("bad", "good"))
    >>> text_size(data, data, max_length=None)
    TextSize(n_train=2, n_test=2, n_classes=2, mean_tokens=2.75, longest=4)
    """
    lengths = np.array([len(text) for text in (*train.texts, *test.texts)]) / characters_per_token + 1
    lengths = np.minimum(lengths, max_length or np.inf)
    return TextSize(len(train), len(test), train.n_classes, float(lengths.mean()), math.ceil(lengths.max()))


def forward_flops(size: ModelSize, tokens: float, length: float) -> float:
    """Compute the operations of a forward pass up to the last hidden state.

    Parameters
    ----------
    size : ModelSize
    tokens : float
        Number of tokens of all texts.
    length : float
        Number of tokens of each text.

    Returns
    -------
    float

    Examples
    --------
    >>> f"{forward_flops(model_size('Llama-3-8B'), tokens=1000, length=100):.1e}"
    '1.4e+13'
    """
    return tokens * (2.0 * size.n_body + 4.0 * size.n_layers * size.dimension * length)


@dataclass(frozen=True)
class Passes:
    """Forward passes and training steps.

    Attributes
    ----------
    texts, calls : float
        Texts in forward passes without a training step, and number of their batches.
    step_texts, steps : float
        Texts in training steps, and number of steps.
    """

    texts: float
    calls: float
    step_texts: float
    steps: float

    def __add__(self, other: Passes) -> Passes:
        return Passes(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Passes)))


def finetuning_passes(config: FinetuneConfig, n_train: int, n_test: int, *, features_given: bool = False) -> Passes:
    """Count the passes of a finetuning run without early stopping.

    Parameters
    ----------
    config : FinetuneConfig
    n_train, n_test : int
        Number of training and test texts.
    features_given : bool
        Whether the features of the frozen model are known.

    Returns
    -------
    Passes
        Features of the frozen model, evaluations on the validation split, the test, and the
        training steps. The frozen head is trained and evaluated on stored features.
    """
    frozen = config.method == "frozen"
    n_validation = round(config.validation * n_train)
    n_rates = len(config.learning_rates)
    texts = 0.0 if frozen and features_given else float(n_test)
    if (frozen or config.warm_head) and not features_given:
        texts += n_train
    if n_validation and not frozen:
        texts += n_rates * (len(config.evaluations()) + config.warm_head) * n_validation
    steps = 0 if frozen else n_rates * config.max_steps
    batch_size = min(config.batch_size, n_train - n_validation)
    return Passes(texts, texts / EXTRACTION_BATCH, float(steps * batch_size), float(steps))


def finetuning_cost(config: FinetuneConfig, n_train: int, n_test: int) -> float:
    """Compute the cost of a finetuning run without early stopping, in forward passes of one text.

    Parameters
    ----------
    config : FinetuneConfig
    n_train, n_test : int
        Number of training and test texts.

    Returns
    -------
    float
        Number of forward passes of one text that take as many operations: feature passes,
        evaluations, and training steps at ``STEP_PASSES`` each.

    Examples
    --------
    >>> config = FinetuneConfig(max_steps=100, batch_size=16, eval_steps=50, validation=0.2)
    >>> finetuning_cost(config, n_train=1000, n_test=500)  # 1000 + 3 * 200 + 500 + 2 * 1600
    5300.0
    """
    passes = finetuning_passes(config, n_train, n_test)
    return passes.texts + STEP_PASSES[config.method] * passes.step_texts


def experiment_passes(texts: TextSize, settings: ExperimentConfig) -> Passes:
    """Count the passes of an experiment without early stopping.

    Parameters
    ----------
    texts : TextSize
    settings : ExperimentConfig

    Returns
    -------
    Passes
        A backward pass of the linearization counts as a forward pass. With ``test_last_step`` the
        test texts count twice; where the last step is the chosen checkpoint, one pass is enough.
    """
    n_all, n_linearized = texts.n_train + texts.n_test, min(texts.n_train, LINEARIZED_TEXTS)
    linearized = float(n_linearized * (1 + LINEARIZED_GRADIENTS))
    passes = Passes(n_all + linearized, n_all / EXTRACTION_BATCH + linearized / LINEARIZED_BATCH, 0.0, 0.0)
    if settings.lora is None:
        return passes
    for config in (settings.frozen, settings.lora):
        given = settings.dtype == "float32"  # else the frozen weights of LoRA may have another type
        passes += finetuning_passes(config, texts.n_train, texts.n_test, features_given=given)
    n_after = settings.score_after * (texts.n_train + settings.controls * texts.n_test)
    n_after += settings.test_last_step * texts.n_test
    return passes + Passes(n_after, n_after / EXTRACTION_BATCH, 0.0, 0.0)


def cell_cost(size: ModelSize, texts: TextSize, settings: ExperimentConfig, speed: Speed) -> Cost:
    """Estimate operations, duration and device memory of one experiment without early stopping.

    Parameters
    ----------
    size : ModelSize
    texts : TextSize
    settings : ExperimentConfig
    speed : Speed
        See :func:`measure_speed`.

    Returns
    -------
    Cost

    Examples
    --------
    >>> speed = Speed(1e14, 1e14, 1e-4, 1e-4, 1e-7, 1e-8, 1e-9)
    >>> texts = TextSize(n_train=3000, n_test=1500, n_classes=2, mean_tokens=30, longest=60)
    >>> cell_cost(model_size("Llama-3-8B"), texts, ExperimentConfig(), speed).duration
    '13 min'
    """
    passes, length = experiment_passes(texts, settings), texts.mean_tokens
    forward = forward_flops(size, passes.texts * length, length)
    steps = forward_flops(size, passes.step_texts * length, length) * STEP_PASSES["lora"]
    seconds = forward / speed.flops + passes.calls * size.n_layers * speed.layer_seconds
    seconds += steps / speed.step_flops + passes.steps * size.n_layers * speed.layer_step_seconds
    n_probes, n_solves = FROZEN_PROBES, N_SOLVES
    if settings.classifiers:  # of single layers, and of all at once, which has as many features as they together
        n_probes += 2 * N_LAYERS
    if settings.lora is not None:
        n_probes += settings.frozen.warm_head + settings.lora.warm_head
        n_solves += settings.score_after * N_SOLVES
    n, d = texts.n_train, size.dimension
    host = n_probes * n * d * (speed.probe_seconds + texts.n_classes * speed.class_seconds)
    linear_probes = len(PLACES) * n * d * min(n, d)
    host += (n_solves * d**3 + linear_probes) * speed.dense_seconds
    return Cost(forward + steps, seconds + host, host, memory(size, texts, settings))


def memory(size: ModelSize, texts: TextSize, settings: ExperimentConfig) -> float:
    """Estimate the peak memory of the device in an experiment.

    Parameters
    ----------
    size : ModelSize
    texts : TextSize
    settings : ExperimentConfig

    Returns
    -------
    float
        Bytes: the weights, and the larger of extraction and training.
    """
    width = {"float64": 8, "float32": 4}.get(settings.dtype, 2)
    weights = float(size.n_parameters * width)
    batch = min(EXTRACTION_BATCH, texts.n_train) * texts.longest
    block = size.n_body / size.n_layers / size.dimension
    # All hidden states, a copy of two of them, and the intermediate values of a block; moments are float64.
    extraction = batch * width * (size.dimension * (size.n_layers + 3) + 2 * block)
    extraction += 2 * 8 * 6 * size.dimension**2
    if settings.lora is None:
        return weights + extraction
    step = settings.lora.batch_size * texts.longest * size.n_layers * width
    training = weights + step * ACTIVATIONS * block  # finetuning trains a copy of the model
    return weights + max(extraction, training)


def measure_speed(
    size: ModelSize,
    settings: ExperimentConfig,
    *,
    flops: float | None = None,
    device: str = "auto",
    least_seconds: float = 0.3,
) -> Speed:
    """Time a block of a given width, and a small probe, with the threads of a worker.

    Parameters
    ----------
    size : ModelSize
        Size of the model that the block is a part of.
    settings : ExperimentConfig
        ``dtype`` and ``lora`` determine the weights and adapters of the block.
    flops : float, optional
        Operations per second of a device of another machine. Of the block, only the overhead of
        a call is measured then.
    device : str
        "auto" uses a GPU if there is one.
    least_seconds : float
        Minimum duration of each measurement, by repetition.

    Returns
    -------
    Speed

    Raises
    ------
    ValueError
        If ``flops`` is not a positive finite number.
    """
    if flops is not None:
        check_number("flops (operations per second)", flops, 0.0, open_low=True)
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    on_cpu = where.type == "cpu"
    few, many = (1, 4), (4, 64) if on_cpu else (64, 512)
    dimension, n_block = (size.dimension, size.n_body / size.n_layers) if flops is None else (64, 12 * 64 * 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(n_threads(size.n_parameters))
    measured: list[float] = []
    try:
        block = _block(dimension, n_block).to(where, getattr(torch, settings.dtype))
        operations = forward_flops(ModelSize(_count(block.layers), 0, dimension, 1), many[0] * many[1], many[1])
        for train in (False, True):
            if train:
                block = _with_adapters(block.float() if on_cpu else block, settings.lora or FinetuneConfig())
            least = _time(block, few, train, least_seconds)
            if flops is not None:
                measured += [flops, least]
            else:
                seconds = _time(block, many, train, least_seconds)
                passes = STEP_PASSES["lora"] if train else 1.0
                measured += [passes * operations / max(seconds - least, 0.1 * seconds), least]
    finally:
        torch.set_num_threads(threads)
    forward, layer, step, layer_step = measured
    return Speed(forward, step, layer, layer_step, *_cpu_seconds())


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _block(dimension: int, n_parameters: float) -> Any:
    """A model of one block with about this number of parameters."""
    from transformers import LlamaConfig, LlamaModel

    heads = max(1, dimension // 64)
    heads = heads if dimension % heads == 0 else 1
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=dimension,
        intermediate_size=max(8, round((n_parameters - 4 * dimension**2) / (3 * dimension))),
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=heads,
    )
    with torch.device("meta"):  # drawing random weights takes longer than timing the block
        block = LlamaModel(config)
    block = block.to_empty(device="cpu").eval().requires_grad_(False)
    for tensor in (*block.parameters(), *block.buffers()):
        tensor.fill_(0.01)
    return block


def _with_adapters(block: Any, config: FinetuneConfig) -> Any:
    import peft

    targets = list(config.target_modules or attention_projections(block))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(block, peft.LoraConfig(r=config.r, target_modules=targets))


def _time(block: Any, shape: tuple[int, int], train: bool, least_seconds: float) -> float:
    """Shortest duration of a forward pass or a training step, over repetitions."""
    ids = torch.zeros(shape, dtype=torch.long, device=next(block.parameters()).device)
    trainable = [p for p in block.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable) if train else None
    times: list[float] = []
    while sum(times) < least_seconds or len(times) < 2:
        started = time.perf_counter()
        with torch.set_grad_enabled(train):
            out = block(input_ids=ids, use_cache=False).last_hidden_state
        if optimizer is not None:
            optimizer.zero_grad()
            out.float().square().mean().backward()
            optimizer.step()
        if ids.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)


@cache
def _cpu_seconds() -> tuple[float, float, float]:
    """The last three fields of :class:`Speed`."""
    with threadpool_limits(n_threads()):
        two, many = _probe_seconds(2), _probe_seconds(32)
        per_class = max(0.0, many - two) / 30
        return max(0.0, two - 2 * per_class), per_class, _dense_seconds()


def _probe_seconds(c: int, n: int = 1000, d: int = 512) -> float:
    """Duration of a probe with c classes, per text and feature."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % c
    x = rng.normal(size=(n, d)) + 0.3 * rng.normal(size=(c, d))[y]
    started = time.perf_counter()
    logistic_probe(x, y, x[:50], y[:50])
    return (time.perf_counter() - started) / (n * d)


def _dense_seconds(d: int = 256, n: int = 320, length: int = 8) -> float:
    """Duration of computing the subspaces, divided by d^3."""
    rng = torch.Generator().manual_seed(0)
    moments = Moments.zeros((0,), d, 2)
    features, lengths = torch.randn(n, length, d, generator=rng).double(), torch.full((n,), length)
    moments.update([features], lengths, torch.eye(2, dtype=torch.float64)[torch.arange(n) % 2])
    started = time.perf_counter()
    subspaces(moments.layer(0))
    return (time.perf_counter() - started) / d**3


def total(costs: Iterable[Cost], n_workers: int = 1) -> Cost:
    """Add up the costs of several experiments.

    Parameters
    ----------
    costs : iterable of Cost
    n_workers : int
        Number of workers that share the experiments.

    Returns
    -------
    Cost
        The sum of the operations, the sum of the durations divided by the number of workers,
        and the largest memory.

    Examples
    --------
    >>> total([Cost(1e9, 60.0, 10.0, 1e6), Cost(2e9, 120.0, 20.0, 2e6)], n_workers=2)
    Cost(flops=3000000000.0, seconds=90.0, host_seconds=15.0, memory=2000000.0)
    """
    check_integer("n_workers", n_workers, 1)
    costs = list(costs)
    return Cost(
        sum(c.flops for c in costs),
        sum(c.seconds for c in costs) / n_workers,
        sum(c.host_seconds for c in costs) / n_workers,
        max((c.memory for c in costs), default=0.0),
    )
