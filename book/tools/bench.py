"""Measure the cost of extraction and scores, as ratios of times in the same run (``make bench``).

    python -m book.tools.bench [--shape Qwen2-0.5B] [--model NAME --data DATASET] [--device cpu] [--out FILE]

Extraction is compared with the bare forward pass of the same batches in the same precision,
with a loop over texts and positions, and with a loop over texts with dense triangular
matrices, as in the released script. The scores at all widths are compared with those of the released
script at 19 widths. With ``--model``, a real model reads short and long texts.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.models.datasets import TextDataset, as_dataset
from ntps_utils.models.extraction import batch_overhead, extract, hidden_states, length_batches, pad_batch, tokenize
from ntps_utils.models.loading import CausalModel, load_model
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.released import released_directions
from ntps_utils.theory.score import NumericalWarning, subspaces


@dataclass(frozen=True)
class Shape:
    """Sizes of a model with grouped-query attention and gated feed-forward layers.

    Attributes
    ----------
    d : int
        Number of features.
    n_layers, n_heads, n_kv_heads : int
        Numbers of blocks, of attention heads, and of their keys and values.
    d_ff : int
        Width of the feed-forward layers.
    """

    d: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int


RELEASED_BATCH = 16
"""Texts in a batch of the released script."""

PAUSE = 0.2  # seconds before a measurement; idle threads of NumPy wait in a loop before they sleep

SHAPES = {
    "tiny": Shape(64, 4, 4, 2, 128),
    "Qwen2-0.5B": Shape(896, 24, 14, 2, 4864),
    "Qwen2-1.5B": Shape(1536, 28, 12, 2, 8960),
    "Qwen2-7B": Shape(3584, 28, 28, 4, 18944),
}


class _Words:
    """A tokenizer for texts that consist of token ids."""

    bos_token_id = None
    model_max_length = 10**9

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def random_model(shape: Shape, device: str, dtype: torch.dtype) -> CausalModel:
    """Create a model with random weights and a small vocabulary.

    Parameters
    ----------
    shape : Shape
    device : str
        Device of PyTorch, such as "cpu" or "cuda".
    dtype : torch.dtype

    Returns
    -------
    CausalModel
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=shape.d,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        intermediate_size=shape.d_ff,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        model: Any = Qwen2ForCausalLM(config).to(dtype)  # type: ignore[arg-type]
    return CausalModel("random", model.eval().requires_grad_(False), _Words(), "random weights")


def random_texts(n: int, shortest: int, longest: int, seed: int = 0) -> TextDataset:
    """Generate texts of random tokens, with two classes.

    Parameters
    ----------
    n : int
        Number of texts.
    shortest, longest : int
        Numbers of tokens of the shortest and the longest text.
    seed : int
        Random seed for lengths and tokens.

    Returns
    -------
    TextDataset
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, n)
    texts = tuple(" ".join(map(str, rng.integers(0, 1000, length))) for length in lengths)
    return TextDataset("random", "train", texts, np.arange(n) % 2, ("a", "b"))


def seconds(work: Callable[[], Any], device: str) -> float:
    """Measure the wall time of a function call.

    Parameters
    ----------
    work : callable
    device : str
        The measurement waits for the computations on this device.

    Returns
    -------
    float
        Seconds.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternated(
    ways: Mapping[str, Callable[[], Any]], before: Callable[[], Any], device: str, repeats: int
) -> list[dict[str, float]]:
    """Measure functions in turn, so that each repetition compares them under the same load.

    Parameters
    ----------
    ways : mapping of str to callable
    before : callable
        Called before each measurement.
    device : str
        See :func:`seconds`.
    repeats : int

    Returns
    -------
    list of dict of str to float
        Seconds by name, for each repetition.
    """

    def once(work: Callable[[], Any]) -> float:
        before()
        return seconds(work, device)

    return [{name: once(work) for name, work in ways.items()} for _ in range(repeats)]


def bench_extraction(
    shape: Shape, device: str, n_texts: int, longest: int, batch_size: int, repeats: int
) -> dict[str, Any]:
    """Compare extraction with the bare forward pass, and on a CPU also with :func:`textbook`.

    Parameters
    ----------
    shape : Shape
    device : str
        Device of PyTorch, such as "cpu" or "cuda".
    n_texts, longest : int
        Number of texts, and number of tokens of the longest one.
    batch_size : int
        Texts in a forward pass.
    repeats : int
        Number of measurements, of which the median counts.

    Returns
    -------
    dict
        Sizes, times in seconds, and ratios of times.
    """
    on_gpu = device.startswith("cuda")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model, data = random_model(shape, device, dtype), random_texts(n_texts, longest // 4, longest)
    ids = sorted(tokenize(model, data).ids, key=len)
    batches = [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]
    n_tokens = sum(map(len, ids))

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            tokens, mask = pad_batch(batch, model.model.device)
            model.backbone(input_ids=tokens, attention_mask=mask, use_cache=False)

    def extraction_pass() -> None:
        extract(model, data, batch_size=batch_size, precision="float32")

    bare()  # the first calls allocate memory
    extraction_pass()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = [(seconds(bare, device), seconds(extraction_pass, device)) for _ in range(repeats)]
    forward, extraction = (statistics.median(column) for column in zip(*times, strict=True))
    result = {
        "d": shape.d,
        "n_layers": shape.n_layers,
        "dtype": str(dtype).removeprefix("torch."),
        "n_texts": n_texts,
        "n_tokens": n_tokens,
        "batch_size": batch_size,
        "forward_seconds": forward,
        "extraction_seconds": extraction,
        "ratio_to_forward": statistics.median(b / a for a, b in times),
        "tokens_per_second": n_tokens / extraction,
    }
    if on_gpu:
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    else:
        two_texts = ids[len(ids) // 2 : len(ids) // 2 + 2]
        loop = seconds(lambda: textbook(model, two_texts), device) / sum(map(len, two_texts))
        result["textbook_ratio"] = loop / (extraction / n_tokens)
    return result


def textbook(model: CausalModel, ids: list[list[int]]) -> list[NDArray[np.float64]]:
    """Compute the moments as in their definitions: text by text, position by position.

    Parameters
    ----------
    model : CausalModel
    ids : list of list of int
        Token ids of each text.

    Returns
    -------
    list of (layers, d, d) ndarray
        A0, A1 and S.
    """
    d = model.dimension
    sums = [np.zeros((model.n_layers, d, d)) for _ in range(3)]
    A0, A1, S = sums
    for row in ids:
        for layer, hidden in enumerate(hidden_states(model, [row])):
            X = hidden[0].double().cpu().numpy()
            past = np.zeros(d)
            for t in range(len(X) - 1):
                past = past + X[t]
                A0[layer] += np.outer(past, past)
                A1[layer] += np.outer(past, X[t + 1])
            S[layer] += np.outer(X.mean(0), X.mean(0))
    return sums


def dense_loop(model: CausalModel, batches: list[list[list[int]]]) -> list[torch.Tensor]:
    """Compute A0 and A1 text by text with dense triangular matrices in float32.

    These are the operations of the released script, which reads batches of 16 texts in the order
    of the dataset.

    Parameters
    ----------
    model : CausalModel
    batches : list of list of list of int
        Token ids of the texts of each batch.

    Returns
    -------
    list of (layers, d, d) tensor
        A0 and A1.
    """
    d, device = model.dimension, model.model.device
    A0, A1 = (torch.zeros(model.n_layers, d, d, device=device) for _ in range(2))
    for batch in batches:
        for layer, hidden in enumerate(hidden_states(model, batch)):
            for row, states in zip(batch, hidden.float(), strict=True):
                x = states[: len(row)]
                lower = torch.tril(torch.ones(len(x), len(x), device=device))
                past = (lower @ x)[:-1]
                A0[layer] += past.mT @ past
                A1[layer] += past.mT @ x[1:]
    return [A0, A1]


def bench_model(
    model: CausalModel, data: TextDataset, max_length: int, batch_size: int, repeats: int
) -> dict[str, Any]:
    """Compare the extraction of a real model with its forward pass and with :func:`dense_loop`.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    max_length : int
        Tokens after which a text is truncated.
    batch_size : int
        Texts in a forward pass.
    repeats : int
        Number of measurements, of which the median counts.

    Returns
    -------
    dict
        Sizes, times in seconds, and ratios of times.
    """
    tokens = tokenize(model, data, max_length)
    device = str(model.model.device)
    rows = length_batches(tokens.ids, range(len(data)), batch_size, overhead=batch_overhead(model))
    batches = [[tokens.ids[i] for i in batch] for batch in rows]
    in_order = [tokens.ids[i : i + RELEASED_BATCH] for i in range(0, len(data), RELEASED_BATCH)]

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            ids, mask = pad_batch(batch, model.model.device)
            model.backbone(input_ids=ids, attention_mask=mask, use_cache=False)

    def extraction_pass(layers: str, precision: str = "float32") -> Any:
        return extract(model, data, layers=layers, tokens=tokens, batch_size=batch_size, precision=precision)

    ways: dict[str, Callable[[], Any]] = {
        "forward": bare,
        "all_layers": lambda: extraction_pass("all"),
        "all_layers_float64": lambda: extraction_pass("all", "float64"),
        "last_layer": lambda: extraction_pass("last"),
        "dense_loop": lambda: dense_loop(model, in_order),
    }
    # Before each measurement, memory is allocated for a forward pass, whatever was measured before.
    times = alternated(ways, bare, device, repeats)
    return {
        "model": model.name,
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "n_texts": len(data),
        "n_tokens": sum(map(len, tokens.ids)),
        "longest": max(map(len, tokens.ids)),
        "batch_size": batch_size,
        "repeats": repeats,
        "forward_seconds": statistics.median(one["forward"] for one in times),
        "tokens_per_second": sum(map(len, tokens.ids)) / statistics.median(one["forward"] for one in times),
    } | {f"{name}_ratio": statistics.median(one[name] / one["forward"] for one in times) for name in list(ways)[1:]}


def bench_bfloat16(name: str, data: TextDataset, max_length: int, device: str) -> dict[str, Any]:
    """Compare scores and duration of forward passes in bfloat16 with those in float32.

    Parameters
    ----------
    name : str
        Name of the model.
    data : TextDataset
        With more texts than the model has features.
    max_length : int
        Tokens after which a text is truncated.
    device : str
        Device of PyTorch, such as "cpu" or "cuda".

    Returns
    -------
    dict
        Largest difference over layers of each score at half of all directions, and in the last layer; and the
        duration of the extraction of all layers, as a share of that in float32.
    """
    rows, seconds = [], []
    for dtype in ("float32", "bfloat16"):
        model = load_model(name, device=device, dtype=dtype)
        extract(model, data.head(64), max_length=max_length, precision="float32")
        started = time.perf_counter()
        moments = extract(model, data, max_length=max_length, precision="float32").moments
        seconds.append(time.perf_counter() - started)
        solved = [subspaces(moments.layer(layer)) for layer in moments.layers]
        rows.append([one.row(one.d // 2) for one in solved])
    differences = {
        score: [abs(getattr(a, score) - getattr(b, score)) for a, b in zip(*rows, strict=True)]
        for score in ("ntps", "ntps_metric", "ntps_task")
    }
    return {
        "n_texts": len(data),
        "largest": {score: max(values) for score, values in differences.items()},
        "last_layer": {score: values[-1] for score, values in differences.items()},
        "ratio_to_float32": seconds[1] / seconds[0],
    }


def joined_texts(data: TextDataset, n: int, n_joined: int) -> TextDataset:
    """Make longer texts by joining consecutive ones.

    Parameters
    ----------
    data : TextDataset
        With at least ``n * n_joined`` texts.
    n : int
        Number of texts to make.
    n_joined : int
        Number of texts to join to one, which has the label of the first.

    Returns
    -------
    TextDataset
    """
    texts = tuple(" ".join(data.texts[i * n_joined : (i + 1) * n_joined]) for i in range(n))
    return TextDataset(data.name, data.split, texts, data.labels[: n * n_joined : n_joined], data.label_names)


def random_moments(d: int, n_texts: int) -> LayerMoments:
    """Compute the moments of random features and ten classes.

    Parameters
    ----------
    d, n_texts : int
        Numbers of features and of texts.

    Returns
    -------
    LayerMoments
    """
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    texts = [rng.normal(size=(4, d)) @ mix for _ in range(n_texts)]
    return Moments.from_texts(texts, np.eye(10)[np.arange(n_texts) % 10]).layer(0)


def released_scores(moments: LayerMoments, single: bool) -> list[float]:
    """Compute the Euclidean score at 19 widths with the operations of the released script.

    Parameters
    ----------
    moments : LayerMoments
    single : bool
        Compute in float32, as the script does. Otherwise in float64.

    Returns
    -------
    list of float

    See Also
    --------
    ntps_utils.theory.released.released_ntps : One of these scores, with a switch for each choice of the script.
    """
    V, U, _ = released_directions(moments, single=single)
    scores = []
    for share in np.arange(1, 20) / 20:
        v, u = V[:, : int(share * V.shape[1])], U[:, : int(share * U.shape[1])]
        scores.append(float(np.linalg.norm(v @ (np.linalg.pinv(v) @ u)) ** 2 / np.linalg.norm(u) ** 2))
    return scores


def bench_scores(layers: Sequence[LayerMoments], repeats: int) -> dict[str, Any]:
    """Compare all scores at all widths of layers with :func:`released_scores`.

    Parameters
    ----------
    layers : sequence of LayerMoments
    repeats : int
        Number of measurements, of which the median counts.

    Returns
    -------
    dict
        Sizes, the time for all layers in seconds, and ratios of times.
    """

    def all_scores() -> int:
        n = 0
        for moments in layers:
            solved = subspaces(moments)
            n += solved.ntps.size
            _ = solved.ntps_metric, solved.ntps_task, solved.excess_loss
        return n

    def released(single: bool) -> None:
        for moments in layers:
            released_scores(moments, single)

    ways: dict[str, Callable[[], Any]] = {
        "seconds": all_scores,
        "released": lambda: released(True),
        "released_float64": lambda: released(False),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        widths = all_scores() // len(layers)  # the first calls take longer
        times = alternated(ways, lambda: time.sleep(PAUSE), "cpu", repeats)
    return {
        "d": len(layers[0].S),
        "layers": len(layers),
        "widths": widths,
        "seconds": statistics.median(one["seconds"] for one in times),
    } | {f"ratio_to_{name}": statistics.median(one[name] / one["seconds"] for one in times) for name in list(ways)[1:]}


def bench_models(
    names: list[str], data: str | None, device: str, n_texts: int, repeats: int, bfloat16: bool, out: Path
) -> None:
    """Measure real models on short and on long texts, and write the results."""
    if data is None:
        raise typer.BadParameter("A real model reads texts: give a dataset with --data.")
    dataset = as_dataset(data)
    rows = {}
    for name in names:
        model = load_model(name, device=device, dtype="float32")
        for kind, texts, max_length in (
            ("short", dataset.head(n_texts), 64),
            ("long", joined_texts(dataset, max(1, n_texts // 64), 32), 512),
        ):
            typer.echo(f"{name}, {kind} texts, on {device} ...", err=True)
            rows[f"{name} {kind}"] = bench_model(model, texts, max_length, 64, repeats)
            typer.echo(json.dumps(rows[f"{name} {kind}"], indent=1))
        moments = extract(model, dataset.head(model.dimension + 124), max_length=64).moments
        rows[f"{name} scores"] = bench_scores([moments.layer(layer) for layer in moments.layers], 1)
        typer.echo(json.dumps(rows[f"{name} scores"], indent=1))
        if bfloat16:
            typer.echo(f"{name}, bfloat16 ...", err=True)
            rows[f"{name} bfloat16"] = bench_bfloat16(name, dataset.head(model.dimension + 124), 64, device)
            typer.echo(json.dumps(rows[f"{name} bfloat16"], indent=1))
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    write_json(out, {"models": rows, "provenance": provenance(device=where, repeats=repeats, data=dataset.name)})


def main(
    shape: Annotated[list[str] | None, typer.Option(help=f"{', '.join(SHAPES)}. Repeat for several shapes.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A real model, with --data. Repeat for several.")] = None,
    data: Annotated[str | None, typer.Option(help="Dataset of short texts that the real models read.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    n_texts: Annotated[int, typer.Option(help="Number of texts.")] = 64,
    longest: Annotated[int, typer.Option(help="Number of tokens of the longest text.")] = 128,
    batch_size: Annotated[int, typer.Option(help="Number of texts in a forward pass.")] = 32,
    repeats: Annotated[int, typer.Option(help="Number of measurements, of which the median counts.")] = 3,
    bfloat16: Annotated[bool, typer.Option(help="Also compare scores from bfloat16 and float32 passes.")] = False,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("runs/bench.json"),
) -> None:
    """Measure the cost of extraction and scores."""
    if model:
        bench_models(model, data, device, n_texts, repeats, bfloat16, out)
        return
    shapes = shape or ["Qwen2-0.5B"]
    unknown = [name for name in shapes if name not in SHAPES]
    if unknown:
        raise typer.BadParameter(f"There is no shape {unknown[0]!r}; shapes: {', '.join(SHAPES)}.")
    rows = {}
    for name in shapes:
        typer.echo(f"extraction, {name} on {device} ...", err=True)
        rows[name] = bench_extraction(SHAPES[name], device, n_texts, longest, batch_size, repeats)
    typer.echo("scores ...", err=True)
    scores = bench_scores([random_moments(max(SHAPES[name].d for name in shapes), 4000)], repeats)
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    report = {"extraction": rows, "scores": scores, "provenance": provenance(device=where, repeats=repeats)}
    write_json(out, report)
    typer.echo(json.dumps({"extraction": rows, "scores": scores}, indent=1))


if __name__ == "__main__":
    typer.run(main)
