"""Projections of words and texts on perception and autoregressive directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import check_model, hidden_states, tokenize
from ntps_utils.models.loading import CausalModel, evaluation_mode
from ntps_utils.theory.layer_moments import one_hot
from ntps_utils.theory.linear import Array
from ntps_utils.theory.score import Subspaces


@dataclass(frozen=True, eq=False)
class WordFeatures:
    """Mean hidden state of each token of the vocabulary over its occurrences.

    Attributes
    ----------
    words : tuple of str
        Tokens that occur, in the order of the vocabulary.
    counts : (n,) int64
        Occurrences of each token.
    features : (n, d) float64
        Mean hidden states.
    """

    words: tuple[str, ...]
    counts: NDArray[np.int64]
    features: Array


def word_features(model: CausalModel, data: TextDataset, layer: int, batch_size: int = 32) -> WordFeatures:
    """Average the hidden states of one layer by token.

    Parameters
    ----------
    model : CausalModel
        The model is in evaluation mode (no dropout) meanwhile.
    data : TextDataset
    layer : int
        Index into the hidden states: 0 is the embeddings, -1 the last layer.
    batch_size : int
        Texts in a forward pass.

    Returns
    -------
    WordFeatures

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.loading import load_model
    >>> words = word_features(load_model("lab/XS"), load_texts("lab/topic").head(20), layer=-1)
    >>> len(words.words) == len(words.counts), words.features.shape[1]
    (True, 32)
    """
    check_model(model)
    n_words = model.model.get_input_embeddings().num_embeddings
    sums = torch.zeros(n_words, model.dimension, dtype=torch.float64)
    counts = torch.zeros(n_words, dtype=torch.int64)
    texts = sorted((ids for ids in tokenize(model, data).ids if ids), key=len)
    with evaluation_mode(model.model):
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            hidden = hidden_states(model, batch)[layer].cpu().double()
            for ids, states in zip(batch, hidden, strict=True):
                tokens = torch.tensor(ids)
                sums.index_add_(0, tokens, states[: len(ids)])
                counts.index_add_(0, tokens, torch.ones_like(tokens))
    present = counts.nonzero()[:, 0]
    words = tuple(model.tokenizer.convert_ids_to_tokens(present.tolist()))
    return WordFeatures(words, counts[present].numpy(), (sums[present] / counts[present, None]).numpy())


def perception_coordinates(subspaces: Subspaces, features: ArrayLike, n: int = 2) -> Array:
    """Project features on the first perception directions.

    Parameters
    ----------
    subspaces : Subspaces
        Directions of one layer, see :func:`ntps_utils.theory.score.subspaces`.
    features : (rows, d) array_like
        Features of the same layer.
    n : int
        Number of directions.

    Returns
    -------
    (rows, n) float64
        For the features of the texts behind ``subspaces``, the squared coordinates are 1 on
        average, and products of different coordinates 0.

    Examples
    --------
    >>> import numpy as np
    >>> from ntps_utils.theory.moments import Moments
    >>> from ntps_utils.theory.score import subspaces
    >>> texts = list(np.random.default_rng(0).normal(size=(50, 6, 3)))
    >>> moments = Moments.from_texts(texts, np.eye(2)[np.arange(50) % 2]).layer(0)
    >>> means = np.array([text.mean(0) for text in texts])
    >>> x = perception_coordinates(subspaces(moments), means)
    >>> bool(np.allclose(x.T @ x / 50, np.eye(2)))
    True
    """
    return np.asarray(features) @ subspaces.U[:, :n]


def autoregressive_coordinates(subspaces: Subspaces, features: ArrayLike, n: int = 2) -> Array:
    """Project features on the first autoregressive directions.

    Parameters
    ----------
    subspaces : Subspaces
        Directions of one layer, see :func:`ntps_utils.theory.score.subspaces`.
    features : (rows, d) array_like
        Features of the same layer.
    n : int
        Number of directions.

    Returns
    -------
    (rows, n) float64
        For prefix sums of token features, the sums over a text of the squared coordinates are
        1 on average, and products of different coordinates 0; for means over tokens they are not.

    See Also
    --------
    perception_coordinates : Directions of the task.

    Examples
    --------
    >>> import numpy as np
    >>> from ntps_utils.theory.moments import Moments
    >>> from ntps_utils.theory.score import subspaces
    >>> texts = list(np.random.default_rng(0).normal(size=(50, 6, 3)))
    >>> moments = Moments.from_texts(texts, np.eye(2)[np.arange(50) % 2]).layer(0)
    >>> means = np.array([text.mean(0) for text in texts])
    >>> autoregressive_coordinates(subspaces(moments), means).shape
    (50, 2)
    """
    return np.asarray(features) @ subspaces.V[:, :n]


def explained_variance(
    coordinates: ArrayLike,
    labels: ArrayLike,
    test_coordinates: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
) -> float:
    """Compute the share of the labels' variance that a linear function of coordinates explains.

    Parameters
    ----------
    coordinates : (n, k) array_like
    labels : (n,) array_like of int
        Class numbers; at least two classes occur.
    test_coordinates, test_labels : array_like, optional
        Texts that were used for neither the directions nor this regression, for an honest share; by
        default the share is that of the given texts, which grows with the number of directions.

    Returns
    -------
    float
        Coefficient of determination of the one-hot targets: at most 1, and below 0 on test texts
        if the mean of the labels would predict them better.

    Examples
    --------
    >>> round(explained_variance([[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1]), 3)
    0.998
    >>> round(explained_variance([[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1], [[0.3], [1.9]], [0, 1]), 2)
    0.96
    """
    classes = np.asarray(labels)
    test_classes = classes if test_labels is None else np.asarray(test_labels)
    n_classes = int(max(classes.max(), test_classes.max())) + 1
    x = np.asarray(coordinates, dtype=np.float64)
    x_test = x if test_coordinates is None else np.asarray(test_coordinates, dtype=np.float64)
    targets, mean = one_hot(classes, n_classes), x.mean(0)
    weights = np.linalg.lstsq(x - mean, targets - targets.mean(0), rcond=None)[0]
    deviations = one_hot(test_classes, n_classes) - targets.mean(0)
    residuals = deviations - (x_test - mean) @ weights
    return float(1.0 - (residuals**2).sum() / (deviations**2).sum())
