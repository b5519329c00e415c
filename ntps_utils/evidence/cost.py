"""What a grid will cost: operations and memory from sizes, hours from a short measurement.

A forward pass takes two operations for each parameter of the blocks and token, and
attention adds ``4 d T`` for each layer and token of a text of T tokens (Kaplan et al.
2020). A training step that moves adapters alone takes twice that: gradients pass
through the frozen weights, but none is taken of them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ntps_utils.evidence.experiment import ExperimentConfig, n_threads
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.finetuning import FinetuneConfig, attention_projections
from ntps_utils.models.loading import model_config, registered_models
from ntps_utils.models.probes import logistic_probe
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.score import subspaces

EXTRACTION_BATCH = 64  # of cells.run_experiment
LINEARIZED_TEXTS = 600  # of rivals.linearized_gain, with three gradients each
LINEARIZED_GRADIENTS = 3
N_PROBES = 6  # two layers, headroom, the linearized rival, and the heads of both finetuning runs
N_SOLVES = 8  # two layers, centered and not, before and after LoRA
SAVED = 1.5
"""Numbers that a LoRA step keeps for each token and layer, over block parameters / d (tests: 0.8 to 1.9)."""


@dataclass(frozen=True)
class ModelSize:
    """Of a causal language model.

    Attributes
    ----------
    n_parameters : int
        All of them.
    n_embedding : int
        Those of the token embeddings and the output head, which features do not pass.
    dimension, n_layers : int
        Features d, and blocks.
    """

    n_parameters: int
    n_embedding: int
    dimension: int
    n_layers: int

    @property
    def n_body(self) -> int:
        """Parameters that every token passes."""
        return self.n_parameters - self.n_embedding


@dataclass(frozen=True)
class TextSize:
    """Of a dataset: texts and classes, tokens of a text on average and at most."""

    n_train: int
    n_test: int
    n_classes: int
    mean_tokens: float
    longest: int


@dataclass(frozen=True)
class Speed:
    """What a device does in its passes, and the CPU beside it.

    Attributes
    ----------
    flops, step_flops : float
        Sustained operations a second in a block's forward pass, and in a training step of
        its adapters.
    layer_seconds, layer_step_seconds : float
        What a block takes for these however few its tokens.
    probe_seconds, class_seconds : float
        Of a logistic probe, for each text and feature, and for each class more.
    dense_seconds : float
        Of solving for the subspaces, over d^3.
    """

    flops: float
    step_flops: float
    layer_seconds: float
    layer_step_seconds: float
    probe_seconds: float
    class_seconds: float
    dense_seconds: float


@dataclass(frozen=True)
class Cost:
    """Of a cell, or of many.

    Attributes
    ----------
    flops : float
        Operations on the device.
    seconds : float
        In all.
    host_seconds : float
        Of these, on the CPU whatever the device: probes and subspaces.
    memory : float
        Bytes of the device's memory at the peak.
    """

    flops: float
    seconds: float
    host_seconds: float
    memory: float

    @property
    def duration(self) -> str:
        """The seconds in words, to two figures: "45 s", "12 min", "3.4 h", "160 h"."""
        for unit, length, limit in (("s", 1, 90), ("min", 60, 5400)):
            if self.seconds < limit:
                return f"{self.seconds / length:.2g} {unit}"
        hours = self.seconds / 3600
        return f"{hours:.2g} h" if hours < 100 else f"{round(hours, -1):,.0f} h"


def model_size(name: str | Path, *, trust_remote_code: bool = False) -> ModelSize:
    """Size of a model, from ``data/models.toml`` or from its configuration; no weights are read."""
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
    """Size of a dataset. Tokens are reckoned from characters: no tokenizer need be at hand."""
    lengths = np.array([len(text) for text in (*train.texts, *test.texts)]) / characters_per_token + 1
    lengths = np.minimum(lengths, max_length or np.inf)
    return TextSize(len(train), len(test), train.n_classes, float(lengths.mean()), int(np.ceil(lengths.max())))


def forward_flops(size: ModelSize, tokens: float, length: float) -> float:
    """Operations of a forward pass up to the last hidden state, for tokens in texts of this length."""
    return tokens * (2.0 * size.n_body + 4.0 * size.n_layers * size.dimension * length)


class Passes(NamedTuple):
    """Texts of a cell in forward passes and in training steps, and how many of these there are."""

    texts: float
    calls: float
    step_texts: float
    steps: float


def passes(texts: TextSize, settings: ExperimentConfig) -> Passes:
    """What a cell asks of the model; a gradient that the linearized rival takes counts as one more pass."""
    n_all, n_gradients = texts.n_train + texts.n_test, min(texts.n_train, LINEARIZED_TEXTS)
    forward = float(n_all + n_gradients * (1 + LINEARIZED_GRADIENTS))
    calls = n_all / EXTRACTION_BATCH + n_gradients / 32 * (1 + LINEARIZED_GRADIENTS)
    config = settings.lora
    if config is None:
        return Passes(forward, calls, 0.0, 0.0)
    rates, held = len(config.learning_rates), config.validation * texts.n_train
    looks = rates * (np.ceil(config.max_steps / config.eval_steps) + config.warm_head) if held else 0
    # Features of the frozen head; those that the adapters' head starts from; validation; the test; scores after it.
    more = n_all + texts.n_train * config.warm_head + looks * held + texts.n_test + texts.n_train
    steps = rates * config.max_steps
    return Passes(forward + more, calls + more / EXTRACTION_BATCH, float(steps * config.batch_size), float(steps))


def cell_cost(size: ModelSize, texts: TextSize, settings: ExperimentConfig, speed: Speed) -> Cost:
    """Operations, seconds and device memory of one cell; LoRA is reckoned without an early stop."""
    asked, length = passes(texts, settings), texts.mean_tokens
    forward = forward_flops(size, asked.texts * length, length)
    steps = 2 * forward_flops(size, asked.step_texts * length, length)
    seconds = forward / speed.flops + asked.calls * size.n_layers * speed.layer_seconds
    seconds += steps / speed.step_flops + asked.steps * size.n_layers * speed.layer_step_seconds
    n_probes, n_solves = (N_PROBES, N_SOLVES) if settings.lora is not None else (N_PROBES - 2, N_SOLVES / 2)
    n, d = texts.n_train, size.dimension
    host = n_probes * n * d * (speed.probe_seconds + texts.n_classes * speed.class_seconds)
    host += (n_solves * d**3 + 2 * n * d * min(n, d)) * speed.dense_seconds  # and two linear probes
    return Cost(forward + steps, seconds + host, host, memory(size, texts, settings))


def memory(size: ModelSize, texts: TextSize, settings: ExperimentConfig) -> float:
    """Bytes of the device's memory at the peak of a cell: weights, and the larger of extraction and training."""
    width = {"float64": 8, "float32": 4}.get(settings.dtype, 2)
    weights = float(size.n_parameters * width)
    batch = min(EXTRACTION_BATCH, texts.n_train) * texts.longest
    # Every hidden state, a copy of two of them, and a block's own work; moments are float64.
    extraction = (
        batch * width * (size.dimension * (size.n_layers + 3) + 2 * size.n_body / size.n_layers / size.dimension)
    )
    extraction += 2 * 8 * 6 * size.dimension**2
    if settings.lora is None:
        return weights + extraction
    step = settings.lora.batch_size * texts.longest * size.n_layers * width
    training = weights + step * SAVED * size.n_body / size.n_layers / size.dimension  # the copy that is trained
    return weights + max(extraction, training)


def measure_speed(
    size: ModelSize,
    settings: ExperimentConfig,
    *,
    flops: float | None = None,
    device: str = "auto",
    least_seconds: float = 0.3,
) -> Speed:
    """Time a block of this width, and a small probe, on this machine with as many threads as a worker has.

    Parameters
    ----------
    size : ModelSize
    settings : ExperimentConfig
        Its dtype.
    flops : float, optional
        Operations a second of a device that is not at hand. Of the block only what a call
        costs at any width is measured then.
    device : str
        "auto" takes a GPU if there is one.
    least_seconds : float
        Each timing is repeated for as long.
    """
    if flops is not None and not 0 < flops < np.inf:
        raise ValueError(f"flops is the number of operations a second, such as 2e14, not {flops}.")
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    on_cpu = where.type == "cpu"
    few, many = (1, 4), (4, 64) if on_cpu else (64, 512)
    dimension, n_block = (size.dimension, size.n_body / size.n_layers) if flops is None else (64, 12 * 64 * 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(n_threads())
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
                measured += [(1 + train) * operations / max(seconds - least, 0.1 * seconds), least]
    finally:
        torch.set_num_threads(threads)
    forward, layer, step, layer_step = measured
    return Speed(forward, step, layer, layer_step, *_cpu_seconds())


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _block(dimension: int, n_parameters: float) -> Any:
    """One block of about so many parameters."""
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
    with torch.device("meta"):  # random numbers take longer to draw than the block to time
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
    """Least seconds of a forward pass or a training step, over repetitions."""
    ids = torch.zeros(shape, dtype=torch.long, device=next(block.parameters()).device)
    moving = [p for p in block.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moving) if train else None
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
    """Of a probe, for each text and feature, and for each class more; of solving for the subspaces, over d^3."""
    with threadpool_limits(n_threads()):
        two, many = _probe_seconds(2), _probe_seconds(32)
        more = max(0.0, many - two) / 30
        return max(0.0, two - 2 * more), more, _dense_seconds()


def _probe_seconds(c: int, n: int = 1000, d: int = 512) -> float:
    rng = np.random.default_rng(0)
    y = np.arange(n) % c
    x = rng.normal(size=(n, d)) + 0.3 * rng.normal(size=(c, d))[y]
    started = time.perf_counter()
    logistic_probe(x, y, x[:50], y[:50])
    return (time.perf_counter() - started) / (n * d)


def _dense_seconds(d: int = 256, n: int = 320, length: int = 8) -> float:
    rng = torch.Generator().manual_seed(0)
    moments = Moments.zeros((0,), d, 2)
    features, lengths = torch.randn(n, length, d, generator=rng).double(), torch.full((n,), length)
    moments.update([features], lengths, torch.eye(2, dtype=torch.float64)[torch.arange(n) % 2])
    started = time.perf_counter()
    subspaces(moments.layer(0))
    return (time.perf_counter() - started) / d**3


def total(costs: Iterable[Cost], n_workers: int = 1) -> Cost:
    """Of many cells on so many workers: operations add up, seconds are shared, memory is that of the largest."""
    costs = list(costs)
    return Cost(
        sum(c.flops for c in costs),
        sum(c.seconds for c in costs) / max(1, n_workers),
        sum(c.host_seconds for c in costs) / max(1, n_workers),
        max((c.memory for c in costs), default=0.0),
    )
