"""From texts to moments: one pass of a causal language model over a labeled dataset."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ntps_utils._utils.diagnostics import with_reference
from ntps_utils._utils.files import atomic_path
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.loading import CausalModel
from ntps_utils.theory.moments import TENSORS, Moments

Pooling = Literal["mean", "last"]


class ExtractionWarning(UserWarning):
    """Texts were cut or left out."""


@dataclass(frozen=True, eq=False)
class Extraction:
    """Moments of a dataset under a model, and what happened on the way.

    Attributes
    ----------
    parts : tuple of Moments
        One for each group of texts.
    n_truncated : int
        Texts cut to ``max_length`` tokens.
    n_single : int
        Texts of one token: they count for perception, and have no next token to predict.
    n_empty : int
        Texts without a token, left out.
    max_length : int or None
    seconds : float
    features : mapping of int to (n_kept, d) array
        Feature of each text by layer, where asked for.
    row_indices : (n_kept,) int
        Rows of the dataset that have at least one token.
    """

    parts: tuple[Moments, ...]
    n_truncated: int
    n_single: int
    n_empty: int
    max_length: int | None
    seconds: float
    features: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    row_indices: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    @property
    def moments(self) -> Moments:
        """Moments of all texts together."""
        return reduce(Moments.merge, self.parts)


def random_groups(n: int, n_groups: int, seed: int) -> NDArray[np.intp]:
    """Assign n texts at random to groups of nearly equal size, for a jackknife."""
    if not 1 <= n_groups <= n:
        raise ValueError(f"{n} texts cannot form {n_groups} groups; choose between 1 and {n}.")
    return np.random.default_rng(seed).permutation(np.arange(n) % n_groups)


def parse_layers(layers: str, n_layers: int) -> tuple[int, ...]:
    """Layers named by "all", "last" or "i,j,...": indices into hidden_states, 0 = embeddings.

    Negative numbers count from the end, as in Python.
    """
    if layers == "all":
        return tuple(range(n_layers))
    if layers == "last":
        return (n_layers - 1,)
    try:
        wanted = [int(part) for part in layers.split(",")]
    except ValueError:
        raise ValueError(f"Layers must be 'all', 'last' or numbers such as '0,2,-1'; got {layers!r}.") from None
    for i in wanted:
        if not -n_layers <= i < n_layers:
            raise ValueError(
                f"There is no layer {i}: this model has layers 0 (embeddings) to {n_layers - 1}, or -{n_layers} to -1."
            )
    return tuple(dict.fromkeys(i % n_layers for i in wanted))


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of a dataset's texts.

    Attributes
    ----------
    ids : list of list of int
    n_truncated : int
        Texts cut to ``max_length`` tokens.
    max_length : int or None
    """

    ids: list[list[int]]
    n_truncated: int
    max_length: int | None


def tokenize(model: CausalModel, data: TextDataset, max_length: int | None = None, bos: bool | None = None) -> Tokens:
    """Token ids of texts, cut to ``max_length`` or to what the model can take.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    max_length : int, optional
    bos : bool, optional
        True puts the beginning-of-sequence token before every text, False adds no special
        token at all; by default the tokenizer's own habit.

    Raises
    ------
    ValueError
        If ``max_length`` is out of range, tokenizer and model do not belong together, or
        a BOS is asked of a tokenizer that has none.
    """
    longest = model.max_length
    max_length = longest if max_length is None else max_length
    if max_length is not None and (max_length < 2 or (longest is not None and max_length > longest)):
        raise ValueError(f"max_length must lie between 2 and {longest or 'any length'} tokens, got {max_length}.")
    begin = model.tokenizer.bos_token_id
    if bos and begin is None:
        raise ValueError(f"The tokenizer of {model.name} has no beginning-of-sequence token; leave bos out.")
    options = {"add_special_tokens": bos is None or bos}
    ids: list[list[int]] = model.tokenizer(list(data.texts), verbose=False, **options)["input_ids"]
    if bos and any(row[:1] != [begin] for row in ids):  # a habit of all texts or of none
        ids = [[begin, *row] for row in ids]
        max_cut = None if max_length is None else max_length - 1
        prefix = [begin]
    else:
        max_cut, prefix = max_length, []
    vocabulary = model.model.get_input_embeddings().num_embeddings
    largest = max((max(row) for row in ids if row), default=0)
    if largest >= vocabulary:
        raise ValueError(
            f"The tokenizer makes the token {largest}, but the model knows {vocabulary} tokens: they do not belong "
            "together."
        )
    too_long = [i for i, row in enumerate(ids) if max_length is not None and len(row) > max_length]
    if too_long:  # the tokenizer cuts, because it may owe the text a closing token
        texts = [data.texts[i] for i in too_long]
        cut = model.tokenizer(texts, truncation=True, max_length=max_cut, **options)["input_ids"]
        for i, row in zip(too_long, cut, strict=True):
            ids[i] = [*prefix, *row]
    return Tokens(ids, len(too_long), max_length)


def extract(
    model: CausalModel,
    data: TextDataset,
    *,
    layers: Sequence[int] | None = None,
    groups: NDArray[np.intp] | None = None,
    max_length: int | None = None,
    bos: bool | None = None,
    batch_size: int = 16,
    precision: str | None = None,
    features: Sequence[int] = (),
    pooling: Pooling = "mean",
    stream: bool = False,
    checkpoint: str | Path | None = None,
    save_every: int = 50,
    progress: Callable[[int], None] | None = None,
) -> Extraction:
    """Run a model over a dataset and accumulate the moments of its token features.

    Texts go through in order of length, so that little is spent on padding. A batch that
    does not fit into memory is halved, and so are those after it. Under ``accelerate
    launch`` or ``torchrun`` the processes share the batches, and each returns the whole.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    layers : sequence of int, optional
        Indices into ``hidden_states``; by default all.
    groups : (n,) int, optional
        Group of each text, 0 ... G - 1; each group gets moments of its own. By default
        one group.
    max_length : int, optional
        Tokens after which a text is cut; by default what the model can take.
    bos : bool, optional
        See :func:`tokenize`. Every token counts, a leading BOS included.
    batch_size : int
        Texts in a forward pass.
    precision : {"float64", "float32"}, optional
        Of the products of a batch; by default float64 on the CPU and float32 elsewhere.
        Batches add up in float64.
    features : sequence of int
        Layers, among those extracted, whose text features are kept too.
    pooling : {"mean", "last"}
        What these are: the mean over a text's tokens, as in the moments, or its last token.
    stream : bool
        Take each layer's features as the model makes them instead of all at the end: one
        layer in memory at a time, for long texts and deep models.
    checkpoint : path, optional
        File for the state of the run. A run that was interrupted goes on from its last
        save and ends with the same moments; a finished one is read back.
    save_every : int
        Batches between saves.
    progress : callable, optional
        Called with the number of texts done after each batch.

    Warns
    -----
    ExtractionWarning
        If more than 5% of the texts were cut, any had no token, or memory ran out.

    Raises
    ------
    ValueError
        On settings out of range, features that are not finite (see
        :meth:`ntps_utils.theory.moments.Moments.update`), or a checkpoint of another run.
    """
    for name, value in (("batch_size", batch_size), ("save_every", save_every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    layers = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    if not set(features) <= set(layers):
        missing = sorted(set(features) - set(layers))
        raise ValueError(f"Features of the layers {missing} are asked for, but not extracted.")
    if pooling not in ("mean", "last"):
        raise ValueError(f"pooling must be 'mean' or 'last', got {pooling!r}.")

    started = time.perf_counter()
    tokens = tokenize(model, data, max_length, bos)
    ids, max_length = tokens.ids, tokens.max_length
    groups = np.zeros(len(ids), dtype=np.intp) if groups is None else groups
    kept = [i for i, row in enumerate(ids) if row]
    n_empty = len(ids) - len(kept)
    if precision is None:
        precision = "float64" if model.model.device.type == "cpu" else "float32"

    batches: list[tuple[int, list[int]]] = []
    for group in range(int(groups.max()) + 1):
        order = sorted((i for i in kept if groups[i] == group), key=lambda i: len(ids[i]))
        batches += [(group, order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    rank, world = _process()
    settings = {
        "model": model.fingerprint,
        "texts": data.fingerprint,
        "layers": layers,
        "groups": hashlib.sha256(np.asarray(groups, dtype=np.int64).tobytes()).hexdigest()[:16],
        "max_length": max_length,
        "bos": bos,
        "batch_size": batch_size,
        "precision": precision,
        "features": tuple(features),
        "pooling": pooling,
        "process": f"{rank} of {world}",
    }
    run = _Accumulator.start(model, data, settings, int(groups.max()) + 1, stream)
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None and world > 1:
        file = file.with_name(f"{file.stem}.{rank}of{world}{file.suffix}")
    if file is not None and file.is_file():
        run.load(file)
    mine = batches[rank::world]
    for position, (group, rows) in enumerate(mine):
        if position >= run.n_done:
            run.add(group, rows, ids)
            run.n_done = position + 1
            if file is not None and (run.n_done % save_every == 0 or run.n_done == len(mine)):
                run.save(file)
        if progress is not None:
            progress(len(rows) if world == 1 else len(rows) * world)
    if world > 1:
        run.reduce()

    if tokens.n_truncated > 0.05 * len(ids):
        warnings.warn(
            with_reference(
                "cut-texts",
                f"{tokens.n_truncated} of {len(ids)} texts were cut to {max_length} tokens; "
                "the scores describe their beginnings.",
            ),
            ExtractionWarning,
            stacklevel=2,
        )
    if n_empty:
        warnings.warn(f"{n_empty} texts have no token and were left out.", ExtractionWarning, stacklevel=2)
    return Extraction(
        parts=tuple(run.moments(group) for group in range(len(run.parts))),
        n_truncated=tokens.n_truncated,
        n_single=sum(len(row) == 1 for row in ids),
        n_empty=n_empty,
        max_length=max_length,
        seconds=time.perf_counter() - started,
        features={layer: rows[kept].numpy() for layer, rows in run.features.items()},
        row_indices=np.array(kept, dtype=np.intp),
    )


def _process() -> tuple[int, int]:
    """Rank of this process and number of processes under a launcher; else 0 and 1."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return state.process_index, state.num_processes


@dataclass(eq=False)
class _Accumulator:
    """What an extraction has gathered so far. Streaming keeps each layer's moments apart."""

    model: CausalModel
    data: TextDataset
    settings: dict[str, Any]
    targets: torch.Tensor
    parts: list[list[Moments]]
    features: dict[int, torch.Tensor]
    stream: bool
    n_done: int = 0
    limit: int = 2**31

    @classmethod
    def start(
        cls, model: CausalModel, data: TextDataset, settings: dict[str, Any], n_groups: int, stream: bool
    ) -> _Accumulator:
        layers = settings["layers"]
        source = f"model {model.fingerprint}, texts {data.name}/{data.split}, max_length {settings['max_length']}"
        together: list[tuple[int, ...]] = [(layer,) for layer in layers] if stream else [layers]
        parts = [
            [
                Moments.zeros(
                    part,
                    model.dimension,
                    data.n_classes,
                    precision=settings["precision"],
                    source=source,
                    device=model.model.device,
                )
                for part in together
            ]
            for _ in range(n_groups)
        ]
        features = {
            layer: torch.zeros(len(data), model.dimension, dtype=torch.float64) for layer in settings["features"]
        }
        return cls(model, data, settings, torch.as_tensor(data.one_hot), parts, features, stream)

    def moments(self, group: int) -> Moments:
        return reduce(Moments.concat_layers, self.parts[group])

    def add(
        self, group: int, rows: list[int], ids: Sequence[Sequence[int]], done: frozenset[int] = frozenset()
    ) -> None:
        """Add texts; ``done`` are layers that hold them already, from an attempt that ran out of memory."""
        if len(rows) > self.limit:
            size = self.limit  # it may shrink on the way
            for start in range(0, len(rows), size):
                self.add(group, rows[start : start + size], ids, done)
            return
        finished = set(done)
        try:
            self._add(group, rows, [ids[i] for i in rows], finished)
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not _is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise MemoryError(
                    f"Row {rows[0] + 1} of {self.data.name} ({len(ids[rows[0]])} tokens) does not fit into memory by "
                    "itself; lower max_length, or use stream=True."
                ) from None
        else:
            return
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.limit = len(rows) // 2
        warnings.warn(
            f"Out of memory with {len(rows)} texts in a batch; going on with {self.limit}.", ExtractionWarning, 3
        )
        self.add(group, rows, ids, frozenset(finished))

    def _add(self, group: int, rows: list[int], ids: list[Sequence[int]], finished: set[int]) -> None:
        lengths = torch.tensor([len(row) for row in ids])
        names = [f"row {i + 1} of {self.data.name}" for i in rows]

        def take(part: Moments, hidden: list[torch.Tensor]) -> None:
            for layer, features in zip(part.layers, hidden, strict=True):
                if layer in self.features:
                    pooled = _pool(features, lengths, self.settings["pooling"])
                    self.features[layer][rows] = pooled.cpu()
            part.update(hidden, lengths, self.targets[rows], names=names)
            finished.update(part.layers)

        parts = [part for part in self.parts[group] if not finished & set(part.layers)]
        if self.stream:
            by_layer = {part.layers[0]: part for part in parts}
            _streamed(self.model, ids, {layer: partial(_one, take, part) for layer, part in by_layer.items()})
        else:
            hidden = _hidden_states(self.model, ids)
            for part in parts:
                take(part, [hidden[layer] for layer in part.layers])

    def _tensors(self) -> dict[str, torch.Tensor]:
        found = {f"features/{layer}": rows for layer, rows in self.features.items()}
        for group, parts in enumerate(self.parts):
            for place, part in enumerate(parts):
                found |= {f"{group}/{place}/{name}": getattr(part, name) for name in TENSORS}
        return found

    def save(self, file: Path) -> None:
        metadata = {"settings": json.dumps(self.settings), "n_done": str(self.n_done), "stream": str(self.stream)}
        with atomic_path(file) as temporary:
            save_file({name: x.cpu().contiguous() for name, x in self._tensors().items()}, temporary, metadata)

    def load(self, file: Path) -> None:
        try:
            with safe_open(str(file), framework="pt") as opened:
                metadata = opened.metadata() or {}
                same = json.loads(metadata.get("settings", "{}")) == json.loads(json.dumps(self.settings))
                if not same or metadata.get("stream") != str(self.stream):
                    raise ValueError(
                        f"{file} is the checkpoint of another extraction (other model, texts or settings); "
                        "choose another file."
                    )
                for name, tensor in self._tensors().items():
                    tensor.copy_(opened.get_tensor(name))
                self.n_done = int(metadata["n_done"])
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged or not a checkpoint ({error}); remove it.") from None

    def reduce(self) -> None:
        """Sum over the processes."""
        from accelerate.utils import reduce as all_reduce

        for tensor in self._tensors().values():
            where = tensor if tensor.device == self.model.model.device else tensor.to(self.model.model.device)
            tensor.copy_(all_reduce(where, reduction="sum"))


def _one(take: Callable[[Moments, list[torch.Tensor]], None], part: Moments, hidden: torch.Tensor) -> None:
    take(part, [hidden])


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _pool(hidden: torch.Tensor, lengths: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One feature vector a text, (texts, d) float64, from right-padded hidden states."""
    lengths = lengths.to(hidden.device)
    if pooling == "last":
        return hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1].double()
    mask = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
    return (hidden.double() * mask[:, :, None]).sum(1) / lengths[:, None]


def _inputs(model: CausalModel, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A right-padded batch for the model without its head."""
    rows = [torch.tensor(row) for row in ids]
    # Right padding under a causal mask: what stands after a token cannot reach it.
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    device = model.model.device
    return {"input_ids": tokens.to(device), "attention_mask": mask.to(device), "use_cache": False}


@torch.inference_mode()
def _hidden_states(model: CausalModel, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """Hidden states of a right-padded batch, without the language-model head."""
    output = model.model.base_model(**_inputs(model, ids), output_hidden_states=True)
    return tuple(output.hidden_states)


@torch.inference_mode()
def _streamed(
    model: CausalModel, ids: Sequence[Sequence[int]], takers: Mapping[int, Callable[[torch.Tensor], None]]
) -> None:
    """Hand over each layer's hidden states as soon as the model has made them.

    The input of block i is layer i; the model's output, after its last norm, is the last.
    """
    blocks = _blocks(model)

    def hook(taker: Callable[[torch.Tensor], None]) -> Callable[..., None]:
        def seen(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            taker(arguments[0] if arguments else named["hidden_states"])

        return seen

    handles = [
        blocks[layer].register_forward_pre_hook(hook(taker), with_kwargs=True)
        for layer, taker in takers.items()
        if layer < len(blocks)
    ]
    try:
        output = model.model.base_model(**_inputs(model, ids))
        if len(blocks) in takers:
            takers[len(blocks)](output.last_hidden_state)
    finally:
        for handle in handles:
            handle.remove()


def _blocks(model: CausalModel) -> torch.nn.ModuleList:
    """The list of a model's blocks."""
    n = model.n_layers - 1
    for module in model.model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n:
            return module
    raise ValueError(f"{model.name} keeps its {n} blocks in no list that could be found; use stream=False.")
