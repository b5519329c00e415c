"""What a grid will cost: operations and memory from sizes, hours from a short measurement.

A forward pass takes two operations for each parameter of the blocks and token, and
attention adds ``4 d T`` for each layer and token of a text of T tokens (Kaplan et al.
2020). A training step that moves adapters alone takes twice that: gradients pass
through the frozen weights, but none is taken of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ntps_utils.cells import CellSettings
from ntps_utils.hub import TextDataset, model_config, registered_models
from ntps_utils.lora import FinetuneConfig
from ntps_utils.moments import Moments
from ntps_utils.probe import logistic_probe
from ntps_utils.score import subspaces

EXTRACTION_BATCH = 64  # of cells.measure_cell
LINEARISED_TEXTS = 600  # of rivals.linearised_gain, with three gradients each
LINEARISED_GRADIENTS = 3
N_PROBES = 6  # two layers, headroom, the linearised rival, and the heads of both finetuning runs
N_SOLVES = 8  # two layers, centred and not, before and after LoRA
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
    """What a device does in its passes, and one thread of the CPU beside it.

    Attributes
    ----------
    flops : float
        Sustained operations a second in the forward pass of a block.
    layer_seconds : float
        Least time of a block's forward pass, however few its tokens.
    probe_seconds : float
        Of a logistic probe, for each text, feature and class.
    dense_seconds : float
        Of solving for the subspaces, over d^3.
    """

    flops: float
    layer_seconds: float
    probe_seconds: float
    dense_seconds: float


@dataclass(frozen=True)
class Cost:
    """Of a cell: operations on the device, seconds in all, and bytes of the device's memory at the peak."""

    flops: float
    seconds: float
    memory: float


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


def passes(texts: TextSize, settings: CellSettings) -> tuple[float, float]:
    """Tokens that a cell passes forward (a backward pass counts as one more), and in how many calls."""
    n_all, length = texts.n_train + texts.n_test, texts.mean_tokens
    n_gradients = min(texts.n_train, LINEARISED_TEXTS)
    forward = float(n_all)  # extraction
    calls = n_all / EXTRACTION_BATCH
    forward += n_gradients * (1 + LINEARISED_GRADIENTS)
    calls += n_gradients / 32 * (1 + LINEARISED_GRADIENTS)
    if settings.lora is not None:
        forward += n_all  # features of the frozen head
        calls += n_all / max(EXTRACTION_BATCH, settings.frozen.batch_size)
        forward_lora, calls_lora = _finetune(texts, settings.lora)
        forward += forward_lora + texts.n_train  # and extraction once more
        calls += calls_lora + texts.n_train / EXTRACTION_BATCH
    return forward * length, calls


def _finetune(texts: TextSize, config: FinetuneConfig) -> tuple[float, float]:
    """Texts passed forward by a LoRA run, if it is not stopped early, and calls."""
    rates = len(config.learning_rates)
    held = config.validation * texts.n_train
    looks = np.ceil(config.n_steps / config.eval_every) + config.warm_head if held else 0
    steps = rates * config.n_steps
    size = max(EXTRACTION_BATCH, config.batch_size)
    texts_seen = texts.n_train * config.warm_head + 2.0 * steps * config.batch_size + rates * looks * held
    return texts_seen + texts.n_test, 2.0 * steps + (texts.n_train + texts.n_test + rates * looks * held) / size


def cell_cost(size: ModelSize, texts: TextSize, settings: CellSettings, speed: Speed) -> Cost:
    """Operations, seconds and device memory of one cell; LoRA is reckoned without an early stop."""
    tokens, calls = passes(texts, settings)
    flops = forward_flops(size, tokens, texts.mean_tokens)
    probes, solves = (N_PROBES, N_SOLVES) if settings.lora is not None else (N_PROBES - 2, N_SOLVES / 2)
    n, d = texts.n_train, size.dimension
    seconds = flops / speed.flops + calls * size.n_layers * speed.layer_seconds
    seconds += probes * n * d * texts.n_classes * speed.probe_seconds
    seconds += (solves * d**3 + 2 * n * d * min(n, d)) * speed.dense_seconds  # and two linear probes
    return Cost(flops, seconds, memory(size, texts, settings))


def memory(size: ModelSize, texts: TextSize, settings: CellSettings) -> float:
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
    settings: CellSettings,
    *,
    flops: float | None = None,
    device: str = "auto",
    least_seconds: float = 0.3,
) -> Speed:
    """Time a block of this width with random weights, and a small probe, on this machine with one thread.

    Parameters
    ----------
    size : ModelSize
    settings : CellSettings
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
    dtype = getattr(torch, settings.dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if flops is not None:
            layer_seconds = _time(_block(64, 64 * 64 * 12).to(where, dtype), (1, 4), least_seconds)
        else:
            block = _block(size.dimension, size.n_body / size.n_layers).to(where, dtype)
            layer_seconds = _time(block, (1, 4), least_seconds)
            n_texts, length = (16, 64) if where.type == "cpu" else (64, 512)
            seconds = _time(block, (n_texts, length), least_seconds)
            one = ModelSize(sum(p.numel() for p in block.layers.parameters()), 0, size.dimension, 1)
            operations = forward_flops(one, n_texts * length, length)
            flops = operations / max(seconds - layer_seconds, 0.1 * seconds)
    finally:
        torch.set_num_threads(threads)
    return Speed(flops, layer_seconds, *_cpu_seconds())


def _block(dimension: int, n_parameters: float) -> Any:
    """One block of about so many parameters, with random weights."""
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
    with torch.random.fork_rng(devices=[]):
        return LlamaModel(config).eval().requires_grad_(False)


@torch.inference_mode()
def _time(block: torch.nn.Module, shape: tuple[int, int], least_seconds: float) -> float:
    """Least seconds of a pass, over repetitions."""
    ids = torch.zeros(shape, dtype=torch.long, device=next(block.parameters()).device)
    times: list[float] = []
    while sum(times) < least_seconds or len(times) < 3:
        started = time.perf_counter()
        block(input_ids=ids, use_cache=False)
        if ids.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)


@cache
def _cpu_seconds() -> tuple[float, float]:
    """Of a probe, for each text, feature and class; and of solving for the subspaces, over d^3."""
    with threadpool_limits(1):
        return _probe_seconds(), _dense_seconds()


def _probe_seconds(n: int = 600, d: int = 128, c: int = 4) -> float:
    rng = np.random.default_rng(0)
    y = np.arange(n) % c
    x = rng.normal(size=(n, d)) + 0.3 * rng.normal(size=(c, d))[y]
    started = time.perf_counter()
    logistic_probe(x, y, x[:50], y[:50])
    return (time.perf_counter() - started) / (n * d * c)


def _dense_seconds(d: int = 256, n: int = 320, length: int = 8) -> float:
    rng = torch.Generator().manual_seed(0)
    moments = Moments.zeros((0,), d, 2)
    features, lengths = torch.randn(n, length, d, generator=rng).double(), torch.full((n,), length)
    moments.add_batch([features], lengths, torch.eye(2, dtype=torch.float64)[torch.arange(n) % 2])
    started = time.perf_counter()
    subspaces(moments.layer(0))
    return (time.perf_counter() - started) / d**3


def total(costs: Iterable[Cost], n_workers: int = 1) -> Cost:
    """Of many cells on so many workers: the sum of operations, the sum of seconds over workers, the largest memory."""
    costs = list(costs)
    return Cost(
        sum(c.flops for c in costs),
        sum(c.seconds for c in costs) / max(1, n_workers),
        max((c.memory for c in costs), default=0.0),
    )
