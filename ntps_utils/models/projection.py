"""Words and texts as points in a plane of perception or autoregressive coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import _hidden_states, tokenize
from ntps_utils.models.loading import CausalModel
from ntps_utils.theory.linear import Array
from ntps_utils.theory.score import Subspaces


@dataclass(frozen=True, eq=False)
class WordFeatures:
    """Mean hidden state of each token of the vocabulary over its occurrences.

    Attributes
    ----------
    words : tuple of str
    counts : (n,) int64
    features : (n, d) float64
    """

    words: tuple[str, ...]
    counts: NDArray[np.int64]
    features: Array


def word_features(model: CausalModel, data: TextDataset, layer: int, batch_size: int = 32) -> WordFeatures:
    """Average the hidden states of one layer by token.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    layer : int
        Index into ``hidden_states``.
    batch_size : int
    """
    n_words = model.model.get_input_embeddings().num_embeddings
    sums = torch.zeros(n_words, model.dimension, dtype=torch.float64)
    counts = torch.zeros(n_words, dtype=torch.int64)
    rows = sorted((row for row in tokenize(model, data).ids if row), key=len)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        hidden = _hidden_states(model, batch)[layer].double().cpu()
        for row, states in zip(batch, hidden, strict=True):
            tokens = torch.tensor(row)
            sums.index_add_(0, tokens, states[: len(row)])
            counts.index_add_(0, tokens, torch.ones_like(tokens))
    seen = counts.nonzero()[:, 0]
    words = tuple(model.tokenizer.convert_ids_to_tokens(seen.tolist()))
    return WordFeatures(words, counts[seen].numpy(), (sums[seen] / counts[seen, None]).numpy())


def perception_coordinates(solved: Subspaces, features: Array, n: int = 2) -> Array:
    """Features in the first n perception directions, (rows, n); unit second moment on the texts."""
    return np.asarray(features @ solved.U[:, :n])


def autoregressive_coordinates(solved: Subspaces, features: Array, n: int = 2) -> Array:
    """Features in the first n autoregressive directions, (rows, n); unit second moment on prefix sums."""
    return np.asarray(features @ solved.V[:, :n])


def explained_variance(coordinates: Array, labels: NDArray[np.int64]) -> float:
    """Share of the labels' variance that a linear function of coordinates explains, in [0, 1]."""
    targets = np.eye(int(labels.max()) + 1)[labels]
    targets = targets - targets.mean(0)
    x = coordinates - coordinates.mean(0)
    left = targets - x @ np.linalg.lstsq(x, targets, rcond=None)[0]
    return float(1.0 - (left**2).sum() / (targets**2).sum())
