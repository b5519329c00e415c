"""From texts to moments: one pass of a causal language model over a labelled dataset."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ntps_utils.hub import CausalModel, TextDataset
from ntps_utils.moments import Moments

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
    kept : (n_kept,) int
        Rows of the dataset that have a token.
    """

    parts: tuple[Moments, ...]
    n_truncated: int
    n_single: int
    n_empty: int
    max_length: int | None
    seconds: float
    features: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    kept: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

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


def tokenise(model: CausalModel, data: TextDataset, max_length: int | None = None) -> Tokens:
    """Token ids of texts, cut to ``max_length`` or to what the model can take.

    Raises
    ------
    ValueError
        If ``max_length`` is out of range, or tokenizer and model do not belong together.
    """
    longest = model.max_length
    max_length = longest if max_length is None else max_length
    if max_length is not None and (max_length < 2 or (longest is not None and max_length > longest)):
        raise ValueError(f"max_length must lie between 2 and {longest or 'any length'} tokens, got {max_length}.")
    ids: list[list[int]] = model.tokenizer(list(data.texts), verbose=False)["input_ids"]
    vocabulary = model.model.get_input_embeddings().num_embeddings
    largest = max((max(row) for row in ids if row), default=0)
    if largest >= vocabulary:
        raise ValueError(
            f"The tokenizer makes the token {largest}, but the model knows {vocabulary} tokens: they do not belong "
            "together."
        )
    too_long = [i for i, row in enumerate(ids) if max_length is not None and len(row) > max_length]
    if too_long:  # the tokenizer cuts, because it may owe the text a closing token
        cut = model.tokenizer([data.texts[i] for i in too_long], truncation=True, max_length=max_length)["input_ids"]
        for i, row in zip(too_long, cut, strict=True):
            ids[i] = row
    return Tokens(ids, len(too_long), max_length)


def extract(
    model: CausalModel,
    data: TextDataset,
    *,
    layers: Sequence[int] | None = None,
    groups: NDArray[np.intp] | None = None,
    max_length: int | None = None,
    batch_size: int = 16,
    precision: str | None = None,
    features: Sequence[int] = (),
    pooling: Pooling = "mean",
    progress: Callable[[int], None] | None = None,
) -> Extraction:
    """Run a model over a dataset and accumulate the moments of its token features.

    Every token that the tokenizer makes counts, a leading BOS included. Texts go through
    in order of length, so that little is spent on padding.

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
    batch_size : int
        Texts in a forward pass.
    precision : {"float64", "float32"}, optional
        Of the products of a batch; by default float64 on the CPU and float32 elsewhere.
    features : sequence of int
        Layers, among those extracted, whose text features are kept too.
    pooling : {"mean", "last"}
        What these are: the mean over a text's tokens, as in the moments, or its last token.
    progress : callable, optional
        Called with the number of texts done after each batch.

    Warns
    -----
    ExtractionWarning
        If more than 5% of the texts were cut, or any had no token.

    Raises
    ------
    ValueError
        On settings out of range, or features that are not finite (see
        :meth:`ntps_utils.moments.Moments.add_batch`).
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    layers = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    if not set(features) <= set(layers):
        raise ValueError(
            f"Features of the layers {sorted(set(features) - set(layers))} are asked for, but not extracted."
        )
    if pooling not in ("mean", "last"):
        raise ValueError(f"pooling must be 'mean' or 'last', got {pooling!r}.")

    started = time.perf_counter()
    tokens = tokenise(model, data, max_length)
    ids, max_length = tokens.ids, tokens.max_length
    groups = np.zeros(len(ids), dtype=np.intp) if groups is None else groups
    kept = [i for i, row in enumerate(ids) if row]
    n_empty = len(ids) - len(kept)

    device = model.model.device
    if precision is None:
        precision = "float64" if device.type == "cpu" else "float32"
    targets = torch.as_tensor(data.one_hot)
    pooled = {layer: np.empty((len(ids), model.dimension)) for layer in features}
    parts = []
    for group in range(int(groups.max()) + 1):
        order = sorted((i for i in kept if groups[i] == group), key=lambda i: len(ids[i]))
        moments = Moments.zeros(
            layers,
            model.dimension,
            data.n_classes,
            precision=precision,
            source=f"model {model.fingerprint}, texts {data.name}/{data.split}, max_length {max_length}",
            device=device,
        )
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            hidden = _hidden_states(model, [ids[i] for i in batch])
            lengths = torch.tensor([len(ids[i]) for i in batch])
            for layer, rows in pooled.items():
                rows[batch] = _pool(hidden[layer], lengths, pooling).cpu().numpy()
            moments.add_batch(
                [hidden[layer] for layer in layers],
                lengths,
                targets[batch],
                names=[f"row {i + 1} of {data.name}" for i in batch],
            )
            if progress is not None:
                progress(len(batch))
        parts.append(moments)

    if tokens.n_truncated > 0.05 * len(ids):
        warnings.warn(
            f"{tokens.n_truncated} of {len(ids)} texts were cut to {max_length} tokens; "
            "the scores describe their beginnings.",
            ExtractionWarning,
            stacklevel=2,
        )
    if n_empty:
        warnings.warn(f"{n_empty} texts have no token and were left out.", ExtractionWarning, stacklevel=2)
    return Extraction(
        parts=tuple(parts),
        n_truncated=tokens.n_truncated,
        n_single=sum(len(row) == 1 for row in ids),
        n_empty=n_empty,
        max_length=max_length,
        seconds=time.perf_counter() - started,
        features={layer: rows[kept] for layer, rows in pooled.items()},
        kept=np.array(kept, dtype=np.intp),
    )


def _pool(hidden: torch.Tensor, lengths: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One feature vector a text, (texts, d) float64, from right-padded hidden states."""
    lengths = lengths.to(hidden.device)
    if pooling == "last":
        return hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1].double()
    mask = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
    return (hidden.double() * mask[:, :, None]).sum(1) / lengths[:, None]


@torch.inference_mode()
def _hidden_states(model: CausalModel, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """Hidden states of a right-padded batch, without the language-model head."""
    rows = [torch.tensor(row) for row in ids]
    # Right padding under a causal mask: what stands after a token cannot reach it.
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.model.device)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    output = model.model.base_model(
        input_ids=tokens, attention_mask=mask.to(tokens.device), output_hidden_states=True, use_cache=False
    )
    return output.hidden_states
