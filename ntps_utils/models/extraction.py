"""Extract the moments of token features: one pass of a causal language model over a labeled dataset."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ntps_utils._utils.diagnostics import with_reference
from ntps_utils._utils.files import atomic_path
from ntps_utils._utils.layers import Layers, resolve_layers
from ntps_utils._utils.validation import check_choice, check_classes, check_integer
from ntps_utils.models._hub import first_line
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.loading import AUTO_FLOAT64_PARAMETERS, CausalModel, check_kind, evaluation_mode
from ntps_utils.theory.moments import TENSORS, Accumulator, Moments, device_of_sums

Pooling = Literal["mean", "last"]

BATCH_TOKENS = 8192  # default limit of the padded tokens of a forward pass
FULL_SPEED_FLOAT64 = ((8, 0), (9, 0), (10, 0))  # compute capabilities of A100, H100 and H200, B200


class ExtractionWarning(UserWarning):
    """Texts were truncated or excluded, or a batch did not fit into memory."""


@dataclass(frozen=True, eq=False)
class Extraction:
    """Moments of a dataset under a model, and facts about the extraction.

    Attributes
    ----------
    parts : tuple of Moments
        Moments of each group of texts.
    n_truncated : int
        Number of texts truncated to ``max_length`` tokens.
    n_single : int
        Number of texts of one token. They have no next token to predict, and enter the
        moments of perception only.
    n_empty : int
        Number of texts without a token; they are excluded.
    max_length : int or None
        Tokens after which texts were truncated; None for no limit.
    seconds : float
        Duration of the extraction.
    features : mapping of int to (n - n_empty, d) array
        Features of the texts by layer, for the layers chosen by ``features``.
    row_indices : (n - n_empty,) int
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
        """Moments of all texts: the groups merged."""
        return reduce(Moments.merge, self.parts)


def random_groups(n: int, n_groups: int, seed: int) -> NDArray[np.intp]:
    """Assign texts at random to groups of nearly equal size, for a jackknife.

    Parameters
    ----------
    n : int
        Number of texts.
    n_groups : int
        Number of groups, 3 ... n.
    seed : int
        Random seed for the assignment.

    Returns
    -------
    (n,) int
        Group of each text, 0 ... n_groups - 1.

    Raises
    ------
    ValueError
        If there are fewer than three groups, or fewer texts than groups.

    Examples
    --------
    >>> random_groups(6, 3, seed=0).tolist()
    [0, 2, 2, 1, 0, 1]
    """
    if not 3 <= n_groups <= n:
        choice = f"choose between 3 and {n}" if n >= 3 else "at least 3 texts are needed"
        raise ValueError(f"{n} texts cannot form {n_groups} groups; {choice}.")
    return np.random.default_rng(seed).permutation(np.arange(n) % n_groups)


def _checked_groups(groups: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """Group of each of n texts; by default all texts form group 0."""
    if groups is None:
        return np.zeros(n, dtype=np.intp)
    array = np.asarray(groups)
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"groups must have one integer for each of the {n} texts, got shape {array.shape} and type {array.dtype}."
        )
    present = np.unique(array)
    if present[0] != 0 or present[-1] != len(present) - 1:
        raise ValueError(
            f"groups must be numbered 0, 1, ... without gaps, got the numbers {present[:8].tolist()}"
            f"{' ...' if len(present) > 8 else ''}."
        )
    return array.astype(np.intp)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of a dataset's texts.

    Attributes
    ----------
    ids : list of list of int
        Token ids of each text.
    n_truncated : int
        Number of texts truncated to ``max_length`` tokens.
    max_length : int or None
        Tokens after which texts were truncated; None for no limit.
    texts_fingerprint : str
        Hash of the texts, 16 hex digits.
    """

    ids: list[list[int]]
    n_truncated: int
    max_length: int | None
    texts_fingerprint: str


def tokenize(model: CausalModel, data: TextDataset, max_length: int | None = None, bos: bool | None = None) -> Tokens:
    """Tokenize the texts of a dataset, truncated to ``max_length`` or to the limit of the model.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    max_length : int, optional
        Tokens after which a text is truncated; by default the limit of the model.
    bos : bool, optional
        True puts the beginning-of-sequence token before every text, False adds no special
        token at all; by default the tokenizer decides.

    Returns
    -------
    Tokens

    Raises
    ------
    ValueError
        If ``max_length`` is out of range, the tokenizer makes tokens that the model does
        not know, more than half of the tokens are unknown to the tokenizer, or ``bos=True`` and the
        tokenizer has no such token.

    Warns
    -----
    ExtractionWarning
        If more than 5% of the tokens are unknown to the tokenizer, or a text contains the name of a
        control token.

    Examples
    --------
    >>> from ntps_utils.models.datasets import as_dataset
    >>> from ntps_utils.models.loading import load_model
    >>> data = as_dataset((["the cat sleeps .", "the dogs sleep ."], [0, 1]))
    >>> [len(ids) for ids in tokenize(load_model("lab/XS"), data, max_length=3).ids]
    [3, 3]
    """
    limit = model.max_length
    check_integer("max_length", max_length, 2, optional=True)
    if max_length is not None and limit is not None and max_length > limit:
        raise ValueError(
            f"max_length must be between 2 and {limit} tokens, the limit of {model.name}, got {max_length}."
        )
    max_length = limit if max_length is None else max_length
    bos_id = model.tokenizer.bos_token_id
    if bos and bos_id is None:
        raise ValueError(
            f"The tokenizer of {model.name} has no beginning-of-sequence token; use bos=False or leave bos unset."
        )
    options = {"add_special_tokens": bos is None or bos}
    ids: list[list[int]] = model.tokenizer(list(data.texts), verbose=False, **options)["input_ids"]
    if bos and any(row[:1] != [bos_id] for row in ids):  # a tokenizer adds BOS to all texts or to none
        prefix = [bos_id]
        ids = [[*prefix, *row] for row in ids]
    else:
        prefix = []
    _check_tokens(model, data, ids)
    vocabulary = model.model.get_input_embeddings().num_embeddings
    largest = max((max(row) for row in ids if row), default=0)
    if largest >= vocabulary:
        raise ValueError(
            f"The tokenizer makes the token {largest}, but the model has embeddings for {vocabulary} tokens; "
            "load the tokenizer of this model."
        )
    too_long = [i for i, row in enumerate(ids) if max_length is not None and len(row) > max_length]
    if max_length is not None and too_long:  # the tokenizer truncates, because it may have to append a closing token
        texts = [data.texts[i] for i in too_long]
        n = max_length - len(prefix)
        truncated = model.tokenizer(texts, truncation=True, max_length=n, **options)["input_ids"]
        for i, row in zip(too_long, truncated, strict=True):
            ids[i] = [*prefix, *row]
    return Tokens(ids, len(too_long), max_length, _texts_fingerprint(data))


UNKNOWN_NOTED, UNKNOWN_REFUSED = 0.05, 0.5
"""Shares of unknown tokens above which :func:`tokenize` warns, and refuses."""


def _check_tokens(model: CausalModel, data: TextDataset, ids: Sequence[Sequence[int]]) -> None:
    """Warn of texts that the tokenizer cannot represent, or reads as control tokens."""
    tokenizer = model.tokenizer
    unknown, n_tokens = getattr(tokenizer, "unk_token_id", None), sum(map(len, ids))
    if unknown is not None and unknown not in (tokenizer.bos_token_id, tokenizer.eos_token_id) and n_tokens:
        share = sum(list(row).count(unknown) for row in ids) / n_tokens
        message = f"{share:.0%} of the tokens of {data.name} are unknown to the tokenizer of {model.name}"
        if share > UNKNOWN_REFUSED:
            reason = "it was made for another language or alphabet. Use another model."
            if model.name.startswith("lab/"):
                reason = (
                    "models of the lab read its artificial language only. Use a real model: `ntps models fetch "
                    "smollm2-135m-instruct`."
                )
            raise ValueError(f"{message}: {reason}")
        if share > UNKNOWN_NOTED:
            warnings.warn(
                f"{message}; the model sees them all as the same token {tokenizer.unk_token}.",
                ExtractionWarning,
                stacklevel=3,
            )
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    control = {*getattr(tokenizer, "all_special_tokens", ()), *(str(token) for token in added if token.special)}
    for token in sorted(control):
        n_texts = sum(token in text for text in data.texts)
        if n_texts and len(token) > 2:
            warnings.warn(
                f"{n_texts} texts of {data.name} contain {token}, which the tokenizer of {model.name} reads as a "
                "control token. Remove it if it is not meant so.",
                ExtractionWarning,
                stacklevel=3,
            )


def _texts_fingerprint(data: TextDataset) -> str:
    return hashlib.sha256(json.dumps(data.texts).encode()).hexdigest()[:16]


def tokens_of(
    model: CausalModel,
    data: TextDataset,
    tokens: Tokens | None = None,
    max_length: int | None = None,
    bos: bool | None = None,
) -> Tokens:
    """Return the tokens of a dataset, and tokenize its texts only if they are not given.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    tokens : Tokens, optional
        What :func:`tokenize` returned for these texts.
    max_length, bos
        See :func:`tokenize`; ignored if ``tokens`` is given.

    Returns
    -------
    Tokens

    Raises
    ------
    ValueError
        If ``tokens`` are those of other texts.
    """
    if tokens is None:
        return tokenize(model, data, max_length, bos)
    if len(tokens.ids) != len(data) or tokens.texts_fingerprint != _texts_fingerprint(data):
        raise ValueError(
            f"The tokens are those of {len(tokens.ids)} other texts than the {len(data)} texts of "
            f"{data.name}/{data.split}; give tokenize(model, data) of this dataset."
        )
    return tokens


def extract(
    model: CausalModel,
    data: TextDataset,
    *,
    layers: Layers = "all",
    groups: ArrayLike | None = None,
    tokens: Tokens | None = None,
    max_length: int | None = None,
    bos: bool | None = None,
    batch_size: int = 64,
    batch_tokens: int = BATCH_TOKENS,
    precision: str | None = None,
    features: Layers | Sequence[int] = (),
    pooling: Pooling = "mean",
    stream: bool = True,
    checkpoint: str | Path | None = None,
    save_every: int = 50,
    progress: Callable[[int], None] | None = None,
) -> Extraction:
    """Run a model over a dataset and accumulate the moments of its token features.

    Texts are processed in order of length, so that little time is spent on padding. A
    batch that does not fit into memory is halved, and so are those after it. Under
    ``accelerate launch`` or ``torchrun`` the processes share the batches, and each returns
    the moments of all texts. The model is in evaluation mode (no dropout) meanwhile.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    layers : {"all", "last"}, str, int or sequence of int
        Layers to extract: 0 is the embeddings, negative numbers count from the last layer.
    groups : (n,) array_like of int, optional
        Group of each text, 0 ... G - 1; each group gets its own moments. By default all
        texts form one group.
    tokens : Tokens, optional
        What :func:`tokenize` returned for ``data``, to avoid tokenizing again;
        ``max_length`` and ``bos`` are then ignored.
    max_length : int, optional
        Tokens after which a text is truncated; by default the limit of the model.
    bos : bool, optional
        See :func:`tokenize`. Every token counts, a leading BOS token included.
    batch_size : int
        Largest number of texts in a forward pass.
    batch_tokens : int
        Largest number of tokens in a forward pass, padding included; a longer text has a
        forward pass of its own.
    precision : {"float64", "float32"}, optional
        Type of the products of features, see :class:`ntps_utils.theory.moments.Accumulator`; by
        default :func:`default_precision`.
    features : as ``layers``
        Layers whose text features are returned too; a subset of ``layers``.
    pooling : {"mean", "last"}
        Text feature: the mean over the tokens of a text, as in the moments, or its last token.
    stream : bool
        Add the features of each layer as soon as the model has computed them, instead of those of
        all layers at the end of the forward pass. One layer is in memory at a time. A model whose
        blocks are not in one ``ModuleList`` is read at the end of the forward pass in any case.
    checkpoint : path, optional
        File for the state of the run. An interrupted run resumes from its last save and ends with the
        same moments as one that saves as often and is not interrupted; the result of a finished run is
        loaded.
    save_every : int
        Batches between saves.
    progress : callable, optional
        Called with the number of texts processed, after each batch.

    Returns
    -------
    Extraction

    Warns
    -----
    ExtractionWarning
        If more than 5% of the texts were truncated, a text has no token, or a batch did
        not fit into memory.

    Raises
    ------
    ValueError
        If a setting is out of range, a feature is not finite (see
        :meth:`ntps_utils.theory.moments.Moments.update`), or the checkpoint is of another run.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.loading import load_model
    >>> extraction = extract(load_model("lab/XS"), load_texts("lab/topic").head(20), layers="last")
    >>> extraction.moments.layers, extraction.moments.n_texts
    ((3,), 20)
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("batch_tokens", batch_tokens, 1)
    check_integer("save_every", save_every, 1)
    check_choice("pooling", pooling, ("mean", "last"))
    check_choice("precision", precision, (None, "float64", "float32"))
    layers = resolve_layers(layers, model.n_layers)
    feature_layers = () if _is_empty(features) else resolve_layers(features, model.n_layers)
    if missing := sorted(set(feature_layers) - set(layers)):
        raise ValueError(f"features must be a subset of layers; layers {missing} are not extracted.")

    started = time.perf_counter()
    tokens = tokens_of(model, data, tokens, max_length, bos)
    ids, max_length = tokens.ids, tokens.max_length
    group_of = _checked_groups(groups, len(ids))
    n_groups = int(group_of.max()) + 1
    nonempty = [i for i, row in enumerate(ids) if row]
    n_empty = len(ids) - len(nonempty)
    if not nonempty:
        raise ValueError(f"None of the {len(ids)} texts of {data.name} has a token; check the column of the texts.")
    precision = precision or default_precision(model)

    overhead = batch_overhead(model)
    batches: list[tuple[int, list[int]]] = []
    for group in range(n_groups):
        rows = [i for i in nonempty if group_of[i] == group]
        batches += [(group, batch) for batch in length_batches(ids, rows, batch_size, batch_tokens, overhead)]
    rank, world = _process()
    settings = {
        "model": model.fingerprint,
        "texts": data.fingerprint,
        "layers": layers,
        "groups": hashlib.sha256(group_of.astype(np.int64).tobytes()).hexdigest()[:16],
        "max_length": max_length,
        "bos": bos,
        "batch_size": batch_size,
        "batch_tokens": batch_tokens,
        "overhead": overhead,
        "precision": precision,
        "features": feature_layers,
        "pooling": pooling,
        "process": f"{rank} of {world}",
    }
    check_model(model)
    run = _Run.start(model, data, settings, n_groups, stream and _BLOCKS[model] is not None)
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None and world > 1:
        file = file.with_name(f"{file.stem}.{rank}of{world}{file.suffix}")
    if file is not None and file.is_file():
        run.load(file)
    own_batches = batches[rank::world]
    with evaluation_mode(model.model):
        for position, (group, rows) in enumerate(own_batches):
            if position >= run.n_done:
                run.add(group, rows, ids)
                run.n_done = position + 1
                if file is not None and (run.n_done % save_every == 0 or run.n_done == len(own_batches)):
                    run.save(file)
            if progress is not None:
                progress(len(rows) if world == 1 else len(rows) * world)
    run.flush()
    if world > 1:
        run.reduce()

    if tokens.n_truncated > 0.05 * len(ids):
        warnings.warn(
            with_reference(
                "cut-texts",
                f"{tokens.n_truncated} of {len(ids)} texts were truncated to {max_length} tokens; "
                "the scores describe their beginnings. "
                + (
                    "This is the limit of the model."
                    if model.tokenizer is not None and max_length == model.max_length
                    else "Raise max_length to read more of them."
                ),
            ),
            ExtractionWarning,
            stacklevel=2,
        )
    if n_empty:
        warnings.warn(
            f"{n_empty} of {len(ids)} texts have no token and were excluded; remove them, or use bos=True.",
            ExtractionWarning,
            stacklevel=2,
        )
    return Extraction(
        parts=tuple(run.parts),
        n_truncated=tokens.n_truncated,
        n_single=sum(len(row) == 1 for row in ids),
        n_empty=n_empty,
        max_length=max_length,
        seconds=time.perf_counter() - started,
        features={layer: rows[nonempty].numpy() for layer, rows in run.features.items()},
        row_indices=np.array(nonempty, dtype=np.intp),
    )


def _is_empty(layers: Layers | Sequence[int]) -> bool:
    return not isinstance(layers, (str, int)) and len(tuple(layers)) == 0


def _process() -> tuple[int, int]:
    """Rank of this process and number of processes under a launcher; else 0 and 1."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return state.process_index, state.num_processes


def default_precision(model: CausalModel) -> str:
    """Choose the type of the products of features: float64 where it costs little.

    Parameters
    ----------
    model : CausalModel

    Returns
    -------
    {"float64", "float32"}
        float64 for a model of at most 50 million parameters on the CPU, and on a GPU that computes
        float64 products as fast as float32 products (A100, H100, H200, B200); otherwise float32.

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> default_precision(load_model("lab/XS", device="cpu"))
    'float64'
    """
    device = model.model.device
    if device.type == "cuda":
        return "float64" if torch.cuda.get_device_capability(device) in FULL_SPEED_FLOAT64 else "float32"
    small = model.model.num_parameters() <= AUTO_FLOAT64_PARAMETERS
    return "float64" if device.type == "cpu" and small else "float32"


@dataclass(eq=False)
class _Run:
    """State of an extraction: the moments of each group of texts, and the features of chosen layers."""

    model: CausalModel
    data: TextDataset
    settings: dict[str, Any]
    targets: torch.Tensor
    parts: list[Moments]
    features: dict[int, torch.Tensor]
    stream: bool
    accumulators: list[Accumulator] = field(default_factory=list)
    n_done: int = 0
    limit: int = 2**31

    @classmethod
    def start(
        cls, model: CausalModel, data: TextDataset, settings: dict[str, Any], n_groups: int, stream: bool
    ) -> _Run:
        source = f"model {model.fingerprint}, texts {data.name}/{data.split}, max_length {settings['max_length']}"
        check_classes(data.n_classes, n_groups, data.n_classes, data.n_classes)
        device = device_of_sums(model.model.device)
        options: dict[str, Any] = {"precision": settings["precision"], "source": source, "device": device}
        parts = [Moments.zeros(settings["layers"], model.dimension, data.n_classes, **options) for _ in range(n_groups)]
        features = {
            layer: torch.zeros(len(data), model.dimension, dtype=torch.float64) for layer in settings["features"]
        }
        run = cls(model, data, settings, torch.as_tensor(data.one_hot), parts, features, stream)
        run.flush()
        return run

    def flush(self) -> None:
        """Complete the moments, and begin new sums, so that a resumed run has the same sums as this one."""
        for accumulator in self.accumulators:
            accumulator.flush()
        self.accumulators = [Accumulator(part) for part in self.parts]

    def add(
        self, group: int, rows: list[int], ids: Sequence[Sequence[int]], finished: frozenset[int] = frozenset()
    ) -> None:
        """Add texts; ``finished`` layers contain them already, from an attempt that ran out of memory."""
        if len(rows) > self.limit:
            size = self.limit  # self.limit may shrink in the loop
            for start in range(0, len(rows), size):
                self.add(group, rows[start : start + size], ids, finished)
            return
        added = set(finished)
        try:
            self._add(group, rows, [ids[i] for i in rows], added)
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not _is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise MemoryError(
                    f"Row {rows[0] + 1} of {self.data.name} ({len(ids[rows[0]])} tokens) does not fit into memory even "
                    "as a batch of one text; lower max_length, or use stream=True."
                ) from None
        else:
            return
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.limit = len(rows) // 2
        warnings.warn(
            f"A batch of {len(rows)} texts did not fit into memory; continuing with {self.limit} texts.",
            ExtractionWarning,
            3,
        )
        self.add(group, rows, ids, frozenset(added))

    def _add(self, group: int, rows: list[int], ids: list[Sequence[int]], added: set[int]) -> None:
        """Add texts to the layers that are not in ``added``, and insert each layer there when it is complete."""
        lengths = torch.tensor([len(row) for row in ids])
        names = [f"row {i + 1} of {self.data.name}" for i in rows]
        accumulator, layers = self.accumulators[group], self.settings["layers"]
        accumulator.start(lengths, self.targets[rows], names)

        def consumer(layer: int) -> Callable[[torch.Tensor], None]:
            def consume(hidden: torch.Tensor) -> None:
                means = accumulator.add_layer(layers.index(layer), hidden)
                added.add(layer)
                if layer in self.features:
                    last = self.settings["pooling"] == "last"
                    self.features[layer][rows] = (last_token(hidden, lengths) if last else means).cpu().double()

            return consume

        consumers = {layer: consumer(layer) for layer in layers if layer not in added}
        blocks = _BLOCKS[self.model] if self.stream else None
        if blocks is not None:
            _stream_hidden_states(self.model, blocks, ids, consumers)
        else:
            hidden = hidden_states(self.model, ids)
            for layer, consume in consumers.items():
                consume(hidden[layer])
        accumulator.finish()

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"features/{layer}": rows for layer, rows in self.features.items()}
        for group, part in enumerate(self.parts):
            tensors |= {f"{group}/{name}": getattr(part, name) for name in TENSORS}
        return tensors

    def save(self, file: Path) -> None:
        self.flush()
        metadata = {"settings": json.dumps(self.settings), "n_done": str(self.n_done), "stream": str(self.stream)}
        with atomic_path(file) as temporary:
            save_file({name: x.cpu().contiguous() for name, x in self._tensors().items()}, temporary, metadata)

    def load(self, file: Path) -> None:
        try:
            with safe_open(str(file), framework="pt") as state:
                metadata = state.metadata() or {}
                same = json.loads(metadata.get("settings", "{}")) == json.loads(json.dumps(self.settings))
                if not same or metadata.get("stream") != str(self.stream):
                    raise ValueError(
                        f"{file} is the checkpoint of another extraction (different model, texts or settings); "
                        "choose another file."
                    )
                for name, tensor in self._tensors().items():
                    tensor.copy_(state.get_tensor(name))
                self.n_done = int(metadata["n_done"])
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged or not a checkpoint ({error}); remove it.") from None

    def reduce(self) -> None:
        """Sum over the processes."""
        from accelerate.utils import reduce as all_reduce

        for tensor in self._tensors().values():
            tensor.copy_(all_reduce(tensor.to(self.model.model.device), reduction="sum"))


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or should_reduce_batch_size(error)


# -- batches: padding, pooling and hidden states -------------------------------------


def pad_batch(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the token ids of a batch on the right, and make its attention mask.

    Under a causal mask no token attends to the padding after it, so that the padding token
    does not matter.

    Parameters
    ----------
    ids : sequence of sequences of int
        Token ids of each text; each text has at least one.
    device : torch.device

    Returns
    -------
    tokens, mask : (texts, T) int64 tensors

    Examples
    --------
    >>> tokens, mask = pad_batch([[5, 6, 7], [8]], torch.device("cpu"))
    >>> tokens.tolist(), mask.tolist()
    ([[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    """
    rows = [torch.tensor(row) for row in ids]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return tokens.to(device), mask.to(device)


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Average the hidden states over the tokens of each text.

    Parameters
    ----------
    hidden : (texts, T, d) tensor
    mask : (texts, T) tensor
        1 for a token, 0 for padding.

    Returns
    -------
    (texts, d) tensor
        In the type of ``hidden``; differentiable.

    Examples
    --------
    >>> hidden = torch.tensor([[[1.0], [3.0]], [[5.0], [0.0]]])
    >>> mean_pool(hidden, torch.tensor([[1, 1], [1, 0]])).tolist()
    [[2.0], [5.0]]
    """
    weights = mask.to(hidden.dtype)
    return torch.einsum("btd,bt->bd", hidden, weights) / weights.sum(1, keepdim=True)


def last_token(hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Select the hidden state of the last token of each text.

    Parameters
    ----------
    hidden : (texts, T, d) tensor
    lengths : (texts,) int tensor

    Returns
    -------
    (texts, d) tensor

    Examples
    --------
    >>> last_token(torch.tensor([[[1.0], [3.0]], [[5.0], [0.0]]]), torch.tensor([2, 1])).tolist()
    [[3.0], [5.0]]
    """
    return hidden[torch.arange(len(lengths), device=hidden.device), lengths.to(hidden.device) - 1]


def length_batches(
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
    batch_size: int,
    batch_tokens: int = BATCH_TOKENS,
    overhead: int = 512,
) -> list[list[int]]:
    """Divide texts into batches of similar length, with the least padding that pays for another batch.

    Among all divisions of the sorted texts, this one has the least sum of padded tokens and of
    ``overhead`` for each batch.

    Parameters
    ----------
    ids : sequence of sequences of int
        Token ids of each text.
    rows : sequence of int
        Texts to divide, as indices into ``ids``.
    batch_size : int
        Largest number of texts of a batch.
    batch_tokens : int
        Largest number of tokens of a batch, padding included; a longer text is a batch of its own.
    overhead : int
        Fixed cost of a batch, in tokens, see :func:`batch_overhead`.

    Returns
    -------
    list of list of int
        Rows of each batch, from the shortest texts to the longest.

    Examples
    --------
    >>> length_batches([[1] * 5, [1], [1] * 2, [1] * 9], range(4), batch_size=2, batch_tokens=6)
    [[1, 2], [0], [3]]
    """
    order = sorted(rows, key=lambda row: len(ids[row]))
    lengths = np.array([len(ids[row]) for row in order])
    cost, first = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=int)
    # cost[end] is that of the best division of the first `end` texts, whose last batch begins at first[end].
    for end in range(1, len(order) + 1):
        longest = lengths[end - 1]
        size = max(1, min(batch_size, end, batch_tokens // max(1, longest)))
        starts = np.arange(end - size, end)
        costs = cost[starts] + (end - starts) * longest + overhead
        first[end] = starts[costs.argmin()]
        cost[end] = costs.min()
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[first[end] : end])
        end = first[end]
    return batches[::-1]


def batch_overhead(model: CausalModel) -> int:
    """Estimate the fixed cost of a forward pass, in tokens of the same model.

    Parameters
    ----------
    model : CausalModel

    Returns
    -------
    int
        On a GPU 2,048: calls take as long as this many tokens. On a CPU 512 for a small model,
        and 32 for one of more than 50 million parameters, where each token takes long.

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> batch_overhead(load_model("lab/XS", device="cpu"))
    512
    """
    if model.model.device.type != "cpu":
        return 2048
    return 32 if model.model.num_parameters() > AUTO_FLOAT64_PARAMETERS else 512


def _inputs(model: CausalModel, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    tokens, mask = pad_batch(ids, model.model.device)
    return {"input_ids": tokens, "attention_mask": mask, "use_cache": False}


@torch.inference_mode()
def hidden_states(model: CausalModel, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """Compute the hidden states of a batch of texts, without the language-model head.

    Parameters
    ----------
    model : CausalModel
    ids : sequence of sequences of int
        Token ids of each text.

    Returns
    -------
    tuple of (texts, T, d) tensors
        Embeddings and the output of every block, padded on the right.

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> [tuple(states.shape) for states in hidden_states(load_model("lab/XS"), [[5, 6, 7], [8]])]
    [(2, 3, 32), (2, 3, 32), (2, 3, 32), (2, 3, 32)]
    """
    output = model.backbone(**_inputs(model, ids), output_hidden_states=True)
    return tuple(output.hidden_states)


@torch.inference_mode()
def _stream_hidden_states(
    model: CausalModel,
    blocks: torch.nn.ModuleList,
    ids: Sequence[Sequence[int]],
    consumers: Mapping[int, Callable[[torch.Tensor], object]],
) -> None:
    """Pass the hidden states of each layer to its consumer as soon as the model has computed them.

    The input of block i is layer i; the output of the model, after its last norm, is the last layer.
    """

    def hook(consumer: Callable[[torch.Tensor], object]) -> Callable[..., None]:
        def consume(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            consumer(arguments[0] if arguments else named["hidden_states"])

        return consume

    handles = [
        blocks[layer].register_forward_pre_hook(hook(consumer), with_kwargs=True)
        for layer, consumer in consumers.items()
        if layer < len(blocks)
    ]
    try:
        output = model.backbone(**_inputs(model, ids))
        if len(blocks) in consumers:
            consumers[len(blocks)](output.last_hidden_state)
    finally:
        for handle in handles:
            handle.remove()


_BLOCKS: WeakKeyDictionary[CausalModel, torch.nn.ModuleList | None] = WeakKeyDictionary()
"""The blocks of each model that was checked, if the layers can be read at their inputs."""

N_CHECKED = 12  # tokens of the text that checks a model
TOLERANCE, LOW_TOLERANCE = 1e-3, 0.05  # relative changes of a feature: 32 or 64 bits, and 16 bits


def check_model(model: CausalModel) -> None:
    """Raise unless the features of a token depend on it and the tokens before it alone.

    Three short forward passes, once for each model: a text twice, by both ways of taking its hidden states, and its
    first half. In 16 bits the second half is replaced by other tokens and not left out, because products of another
    shape round differently, and activations of a size like those of smollm2 change by a tenth then.

    Parameters
    ----------
    model : CausalModel

    Raises
    ------
    ValueError
        If the model reads in both directions, its hidden states differ in width, they are not the inputs
        of its blocks, or it cannot run in its type of numbers.

    Examples
    --------
    >>> from ntps_utils.models.loading import load_model
    >>> check_model(load_model("lab/XS"))
    """
    if model in _BLOCKS:
        return
    check_kind(model.model, model.name)
    kind, dtype = type(model.model).__name__, str(model.model.dtype).removeprefix("torch.")
    special = set(getattr(model.tokenizer, "all_special_ids", ()))  # tokens may be given without a tokenizer
    n_embeddings = model.model.get_input_embeddings().num_embeddings
    ids = list(islice((i for i in range(n_embeddings) if i not in special), N_CHECKED))
    half = len(ids) // 2
    is_wide = model.model.dtype in (torch.float32, torch.float64)
    changed = ids[:half] if is_wide else [*ids[:half], *ids[: len(ids) - half]]
    with evaluation_mode(model.model):
        try:
            whole, part = hidden_states(model, [ids]), hidden_states(model, [changed])
        except Exception as error:  # code of any architecture
            if _is_out_of_memory(error):
                raise
            import transformers  # loaded with the model

            hint = "Try the dtype float32." if dtype != "float32" else ""
            hint = hint or f"Its configuration may not fit transformers {transformers.__version__}."
            raise ValueError(
                f"{model.name} ({kind}) does not run in {dtype} on {model.model.device}: {first_line(error)}. {hint}"
            ) from None
        if shapes := sorted({tuple(states.shape) for states in whole if states.ndim != 3}):
            raise ValueError(
                f"The hidden states of {model.name} ({kind}) have the shape {shapes[0]}, where (texts, tokens, "
                "features) is expected. Such models are not supported."
            )
        widths = sorted({states.shape[-1] for states in whole})
        if len(whole) != model.n_layers or widths != [model.dimension]:
            raise ValueError(
                f"{model.name} ({kind}) has {len(whole)} hidden states of the widths {widths}, where "
                f"{model.n_layers} of the width {model.dimension} are expected. Such models are not supported."
            )
        tolerance = TOLERANCE if is_wide else LOW_TOLERANCE
        change = max(_change(one[:, :half], two[:, :half]) for one, two in zip(whole, part, strict=True))
        if change > tolerance:
            raise ValueError(
                f"{model.name} ({kind}) is not a causal model: features change by up to {change:.1%} with the tokens "
                "after them. Next-token scores need a model that reads from left to right."
            )
        _BLOCKS[model] = _blocks(model, ids, whole, tolerance)


def _blocks(
    model: CausalModel, ids: list[int], states: Sequence[torch.Tensor], tolerance: float
) -> torch.nn.ModuleList | None:
    """The list of modules whose inputs are the layers of a model, if the model runs such a list.

    ``states`` are the hidden states of one text. Another list may have the same length: that of the experts, or
    that of the part of a model that reads images.
    """
    ran = False
    for blocks in model.backbone.modules():
        if not isinstance(blocks, torch.nn.ModuleList) or len(blocks) != model.n_layers - 1:
            continue
        streamed: dict[int, torch.Tensor] = {}
        consumers = {layer: partial(streamed.setdefault, layer) for layer in range(model.n_layers)}
        _stream_hidden_states(model, blocks, [ids], consumers)
        if len(streamed) < model.n_layers:
            continue
        ran = True
        pairs = [(states[layer], own) for layer, own in streamed.items()]
        if not any(one.shape != two.shape or _change(one, two) > tolerance for one, two in pairs):  # may be NaN
            return blocks
    if ran:
        raise ValueError(
            f"The hidden states that {model.name} ({type(model.model).__name__}) returns are not the inputs of its "
            "blocks, as in Mamba and RWKV, so that layers have no clear meaning. Such models are not supported."
        )
    return None


def _change(one: torch.Tensor, two: torch.Tensor) -> float:
    """Largest relative change of the features of a token."""
    return float(((one - two).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-30)).max())
