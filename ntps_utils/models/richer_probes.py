"""Probes that see more than the mean token of the last layer: predictors of the gain from LoRA.

Where one of them is more accurate than the probe of the mean token, the labels can be read off the
frozen model, or off the words, although the mean token does not show them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from torch.nn.functional import cross_entropy

from ntps_utils.models.extraction import batch_overhead, hidden_states, length_batches, mean_pool
from ntps_utils.models.loading import CausalModel, evaluation_mode
from ntps_utils.models.probes import logistic_probe
from ntps_utils.theory.linear import Array

Labels = NDArray[np.int64]

BATCH = 64
MAX_ITERATIONS = 60
QUERY_PENALTIES = (1e-3, 1e-2, 1e-1)
"""Ridge penalties of attention queries to choose from."""


@dataclass(frozen=True, eq=False)
class TokenFeatures:
    """Features of every token of labeled texts under a frozen model.

    Attributes
    ----------
    tokens : (n, t, d) float32 tensor
        Last layer, with texts padded to the longest one.
    mask : (n, t) bool tensor
        Which tokens exist.
    labels : (n,) int64
        Class numbers.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    labels: Labels


def token_features(
    model: CausalModel,
    ids: Sequence[Sequence[int]],
    labels: NDArray[np.integer[Any]],
    *,
    progress: Callable[[int], None] | None = None,
) -> TokenFeatures:
    """Compute the features of every token in the last layer, in one pass over the texts.

    Memory is n times t times d numbers of 4 bytes, with the t tokens of the longest text.

    Parameters
    ----------
    model : CausalModel
    ids : sequence of n sequences of int
        Token ids of each text, at least one.
    labels : (n,) array of int
    progress : callable, optional
        Called with the number of texts of each batch.

    Returns
    -------
    TokenFeatures

    Raises
    ------
    ValueError
        If a text has no token, or numbers of texts differ.

    Examples
    --------
    >>> import numpy as np
    >>> from ntps_utils.models.loading import load_model
    >>> token_features(load_model("lab/XS"), [[5, 6, 7], [8]], np.array([0, 1])).tokens.shape
    torch.Size([2, 3, 32])
    """
    if len(ids) != len(labels):
        raise ValueError(f"ids must have one list of tokens for each of {len(labels)} texts, got {len(ids)}.")
    if not len(ids) or any(len(row) == 0 for row in ids):
        raise ValueError(
            "A text has no token, or there are no texts; select the texts that Extraction.row_indices lists."
        )
    longest = max(map(len, ids))
    tokens = torch.zeros(len(ids), longest, model.dimension)
    mask = torch.zeros(len(ids), longest, dtype=torch.bool)
    with evaluation_mode(model.model), torch.inference_mode():
        for batch in length_batches(ids, range(len(ids)), BATCH, overhead=batch_overhead(model)):
            last = hidden_states(model, [ids[i] for i in batch])[-1].float().cpu()
            length = last.shape[1]
            tokens[batch, :length] = last
            mask[batch, :length] = torch.arange(length) < torch.tensor([[len(ids[i])] for i in batch])
            if progress is not None:
                progress(len(batch))
    return TokenFeatures(tokens, mask, np.asarray(labels, np.int64))


class _Words(TfidfVectorizer):  # type: ignore[misc]  # scikit-learn has no types
    """TF-IDF weights of words, or of characters where no text has a word of two letters."""

    def fit_transform(self, raw_documents: Sequence[str], y: Any = None) -> Any:
        try:
            return super().fit_transform(raw_documents, y)
        except ValueError as error:
            if "empty vocabulary" not in str(error) or self.analyzer == "char":
                raise
            return self.set_params(analyzer="char").fit_transform(raw_documents, y)


def bag_of_words() -> Pipeline:
    """Return an untrained classifier of texts without a language model.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Logistic regression (C = 10) on TF-IDF weights of words and pairs of words; of characters where no text has
        a word of two letters.

    Examples
    --------
    >>> bag_of_words().fit(["good film", "bad film"], [1, 0]).predict(["a good one"])
    array([1])
    """
    return make_pipeline(_Words(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1000))


def bag_of_words_accuracy(texts: Sequence[str], labels: Labels, *, seed: int = 0) -> float:
    """Compute the cross-validated accuracy of :func:`bag_of_words`.

    Parameters
    ----------
    texts : sequence of n str
    labels : (n,) int
        Each class has at least two texts.
    seed : int
        Random seed for the three folds, or two where a class has two texts.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a class has one text, there is one class, or all texts are empty.

    Examples
    --------
    >>> import numpy as np
    >>> texts = ["good film", "bad film", "good play", "bad play"] * 3
    >>> bag_of_words_accuracy(texts, np.array([1, 0] * 6))
    1.0
    """
    folds = _folds(labels, seed)
    return float(cross_val_score(bag_of_words(), list(texts), labels, cv=folds, error_score="raise").mean())


def multi_layer_accuracy(layers: Sequence[NDArray[np.floating]], labels: Labels, *, seed: int = 0) -> float:
    """Compute the cross-validated accuracy of a logistic probe of the mean tokens of several layers at once.

    Parameters
    ----------
    layers : sequence of (n, d) arrays
        Text features of each layer.
    labels : (n,) int64
        Class numbers; each class has at least two texts.
    seed : int
        Random seed for folds.

    Returns
    -------
    float
        Compare it with :attr:`ntps_utils.models.probes.LogisticProbe.cv_accuracy` of the last layer.

    Examples
    --------
    >>> import numpy as np
    >>> last, middle = np.zeros((8, 1)), np.array([[0.0], [3.0]] * 4)
    >>> multi_layer_accuracy([last, middle], np.array([0, 1] * 4))
    1.0
    """
    x = np.concatenate([np.asarray(layer, float) for layer in layers], axis=1)
    return logistic_probe(x, labels, x, labels, seed=seed).cv_accuracy


@dataclass(frozen=True)
class AttentionComparison:
    """Cross-validated accuracies and losses of one classifier with two kinds of pooling.

    Attributes
    ----------
    accuracy, cross_entropy : float
        With attention: one learned query for each class.
    mean_accuracy, mean_cross_entropy : float
        With the mean over tokens, in the same folds.
    penalty : float
        Ridge penalty of the queries that cross-validation chose, by cross-entropy; infinite if the mean
        over tokens is best.
    """

    accuracy: float
    cross_entropy: float
    mean_accuracy: float
    mean_cross_entropy: float
    penalty: float


def compare_attention(
    features: TokenFeatures, *, penalties: Sequence[float] = QUERY_PENALTIES, seed: int = 0
) -> AttentionComparison:
    r"""Compare attention over tokens with their mean, as the pooling of a classifier of frozen features.

    Parameters
    ----------
    features : TokenFeatures
        Each class has at least two texts.
    penalties : sequence of float
        Ridge penalties of the queries to choose from, besides the mean over tokens.
    seed : int
        Random seed for folds.

    Returns
    -------
    AttentionComparison
        With the penalty of the lowest cross-validated cross-entropy, so that the difference of the accuracies is
        not chosen for its size.

    Raises
    ------
    ValueError
        If a class has one text, or there is one class.

    Notes
    -----
    The score of class c is :math:`w_c^\top \sum_t \alpha_{ct} v_t + b_c`, and :math:`\alpha_c` the softmax of
    :math:`q_c^\top k_t / \sqrt d` over the tokens t. Keys :math:`k_t` are tokens standardized by their own deviation,
    and values :math:`v_t` by that of the mean tokens. Queries of zero give the mean.
    Training starts there, with weights, biases and penalty of :func:`ntps_utils.models.probes.logistic_probe`.

    References
    ----------
    Mullenbach et al. (2018), "Explainable prediction of medical codes from clinical text": attention by label.

    Examples
    --------
    >>> import numpy as np
    >>> from ntps_utils.models.loading import load_model
    >>> data = token_features(load_model("lab/XS"), [[5, 6], [5, 7], [8, 9], [8, 3]] * 3, np.array([0, 0, 1, 1] * 3))
    >>> compare_attention(data).accuracy
    1.0
    """
    classes, y = np.unique(features.labels, return_inverse=True)
    pooled = mean_pool(features.tokens, features.mask).double().numpy()
    found: dict[float, list[tuple[int, float]]] = {penalty: [] for penalty in (np.inf, *penalties)}
    for training, test in _folds(y, seed).split(y, y):
        problem, start = _AttentionProblem.of(features, pooled, y, training, seed)
        for penalty, results in found.items():
            fitted = start if penalty == np.inf else problem.fit(start, penalty)
            results.append(problem.evaluate(fitted, test))
    sums = {penalty: np.sum(results, 0) / len(y) for penalty, results in found.items()}
    best = min(sums, key=lambda penalty: (sums[penalty][1], -penalty))
    return AttentionComparison(*map(float, (*sums[best], *sums[np.inf], best)))


@dataclass(frozen=True)
class _Weights:
    """Weights (classes, d), biases (classes,) and queries (classes, d)."""

    values: torch.Tensor
    biases: torch.Tensor
    queries: torch.Tensor


@dataclass(frozen=True, eq=False)
class _AttentionProblem:
    """Tokens, labels, the rows to fit, and the ridge penalty of the class weights.

    Keys are standardized over tokens, and values over the means of texts.
    """

    x: torch.Tensor
    mask: torch.Tensor
    y: torch.Tensor
    rows: NDArray[np.intp]
    penalty: float
    center: torch.Tensor
    key_scale: torch.Tensor
    value_scale: torch.Tensor

    @classmethod
    def of(
        cls, features: TokenFeatures, pooled: Array, y: NDArray[np.intp], rows: NDArray[np.intp], seed: int
    ) -> tuple[_AttentionProblem, _Weights]:
        """The problem, and the weights of the mean over tokens."""
        x, labels = pooled[rows], y[rows]
        probe = logistic_probe(x, labels, x, labels, seed=seed)
        seen = features.tokens[rows][features.mask[rows]]
        key_scale = seen.std(0, correction=0).clamp_min(1e-12)
        value_scale = torch.as_tensor(x.std(0), dtype=torch.float32)
        # A feature whose mean is nearly the same in all texts would have enormous values.
        constant = value_scale < 1e-3 * key_scale
        problem = cls(
            x=features.tokens,
            mask=features.mask,
            y=torch.as_tensor(y),
            rows=rows,
            penalty=1.0 / (probe.strength * len(rows)),
            center=torch.as_tensor(x.mean(0), dtype=torch.float32),
            key_scale=key_scale,
            value_scale=torch.where(constant, key_scale, value_scale),
        )
        values = torch.as_tensor(probe.weights, dtype=torch.float32).contiguous()
        values[:, constant] = 0.0
        return problem, _Weights(values, torch.as_tensor(probe.biases, dtype=torch.float32), torch.zeros_like(values))

    def scores(self, rows: NDArray[np.intp], weights: _Weights) -> torch.Tensor:
        x, absent = self.x[rows] - self.center, ~self.mask[rows][..., None]
        keys = x @ (weights.queries / self.key_scale).T / x.shape[2] ** 0.5
        attention = keys.masked_fill(absent, -torch.inf).softmax(1)
        return (attention * (x @ (weights.values / self.value_scale).T)).sum(1) + weights.biases

    def fit(self, start: _Weights, query_penalty: float) -> _Weights:
        """Minimize cross-entropy and penalties, starting from the mean over tokens."""
        weights = _Weights(*(w.clone().requires_grad_() for w in (start.values, start.biases, start.queries)))
        solver = torch.optim.LBFGS(
            [weights.values, weights.biases, weights.queries], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            solver.zero_grad()
            value = cross_entropy(self.scores(self.rows, weights), self.y[self.rows])
            value = value + 0.5 * self.penalty * weights.values.square().sum()
            value = value + 0.5 * query_penalty * weights.queries.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            solver.step(loss)  # type: ignore[no-untyped-call]
        return _Weights(*(w.detach() for w in (weights.values, weights.biases, weights.queries)))

    def evaluate(self, weights: _Weights, rows: NDArray[np.intp]) -> tuple[int, float]:
        """Number of correct texts, and sum of their losses."""
        scores, y = self.scores(rows, weights), self.y[rows]
        return int((scores.argmax(1) == y).sum()), float(cross_entropy(scores, y, reduction="sum"))


def _folds(labels: Labels, seed: int) -> StratifiedKFold:
    """Three folds, or two where the smallest class has two texts."""
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        raise ValueError("Cross-validation needs at least two classes, and two texts of each; leave the others out.")
    return StratifiedKFold(min(3, int(counts.min())), shuffle=True, random_state=seed)
