"""Predictors of the gain from LoRA that are computed before it, from cheap to expensive.

All of them are functions of a :class:`Case`, a labeled dataset under a frozen model. The case computes
what several of them need once: one pass over the texts gives scores, probe and transferability, a second
one the features of every token, and passes with gradients the first-order expansion of LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from ntps_utils.evidence.classifiers import probed_layers, texts_read
from ntps_utils.evidence.cost import LINEARIZED_GRADIENTS, LINEARIZED_TEXTS
from ntps_utils.evidence.experiment import EXTRACTION_BATCH, ExperimentConfig, ScoreSetting, score_extraction
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import Extraction, Tokens, extract, tokenize
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.richer_probes import (
    AttentionComparison,
    TokenFeatures,
    bag_of_words_accuracy,
    compare_attention,
    multi_layer_accuracy,
    token_features,
)
from ntps_utils.models.transferability import (
    FrozenFeatures,
    Linearization,
    h_score,
    headroom,
    knn_accuracy,
    linearize,
    logme,
)

Source = Literal["features", "tokens", "gradients"]
"""What a predictor needs: text features, every token, or gradients."""


class Case:
    """A labeled dataset under a frozen model; parts are computed when they are first used.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
        Training texts.
    max_length : int, optional
        Tokens after which a text is truncated.
    batch_size : int
        Texts in a forward pass.
    seed : int
        Random seed for folds and random projections.
    target_modules : tuple of str, optional
        Modules that LoRA adapts; by default the query, key and value projections.
    checkpoint : Path, optional
        File for the state of the first pass, see :func:`ntps_utils.models.extraction.extract`.
    accuracies : dict of str to float, optional
        Accuracies of classifiers that were measured before, by the names of ``classifiers``; what is
        measured is added.
    progress : callable, optional
        Called with the name of a step, the number of finished parts and their total.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.loading import load_model
    >>> case = Case(load_model("lab/XS"), load_texts("lab/topic").head(60))
    >>> 0 <= PREDICTORS["headroom"].function(case) <= 1
    True
    """

    def __init__(
        self,
        model: CausalModel,
        data: TextDataset,
        *,
        max_length: int | None = None,
        batch_size: int = EXTRACTION_BATCH,
        seed: int = 0,
        target_modules: tuple[str, ...] | None = None,
        checkpoint: Path | None = None,
        accuracies: dict[str, float] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.model, self.data, self.seed, self.target_modules = model, data, seed, target_modules
        self.max_length, self.batch_size = max_length, batch_size
        self._accuracies = {} if accuracies is None else accuracies
        self._checkpoint, self._progress = checkpoint, progress

    @cached_property
    def tokens(self) -> Tokens:
        """Tokens of all texts."""
        return tokenize(self.model, self.data, self.max_length)

    @property
    def layers(self) -> tuple[int, ...]:
        """Four layers at equal distances, the last of which is the last layer; fewer for a small model."""
        return probed_layers(self.model.n_layers)

    @cached_property
    def extraction(self) -> Extraction:
        """Moments and mean tokens of four layers."""
        return extract(
            self.model,
            self.data,
            layers=self.layers,
            features=self.layers,
            batch_size=self.batch_size,
            tokens=self.tokens,
            checkpoint=self._checkpoint,
            progress=self._counter("reading texts"),
        )

    @cached_property
    def scores(self) -> dict[tuple[str, bool], ScoreSetting]:
        """Scores at half of the features, by subspace and centering."""
        settings = score_extraction(self.extraction, ExperimentConfig().spectrum, controls=True, seed=self.seed)
        last = self.layers[-1]
        return {(s.subspace, s.centered): s for s in settings if s.rule == "half" and s.layer == last}

    @cached_property
    def features(self) -> FrozenFeatures:
        """Mean tokens of the texts that have a token."""
        rows = self.extraction.row_indices
        features = self.extraction.features[self.model.n_layers - 1]
        ids = [self.tokens.ids[i] for i in rows]
        labels = self.data.labels[rows]
        return FrozenFeatures(np.asarray(features, float), labels, self.model, ids, self.seed, self.target_modules)

    @cached_property
    def common(self) -> FrozenFeatures:
        """The same without texts that are alone in their class, for cross-validation."""
        data = self.features
        rows = np.flatnonzero(np.bincount(data.labels)[data.labels] > 1).tolist()
        assert data.ids is not None
        return replace(data, features=data.features[rows], labels=data.labels[rows], ids=[data.ids[i] for i in rows])

    @property
    def classifiers(self) -> tuple[str, ...]:
        """Classifiers without finetuning; for names see :func:`~ntps_utils.evidence.classifiers.best_alternative`."""
        return (*(f"layer {layer}" for layer in self.layers), "layers", "words")

    def accuracy(self, classifier: str) -> float:
        """Cross-validated accuracy of one of the ``classifiers``.

        Parameters
        ----------
        classifier : str
            "layer 3" and the like for a logistic probe of one layer, "layers" for one of all four at once, "words"
            for a bag of words, which reads as much of the texts as the model.

        Returns
        -------
        float
        """
        if classifier not in self._accuracies:
            self._accuracies[classifier] = float(self._measure(classifier))
        return self._accuracies[classifier]

    @property
    def last_accuracy(self) -> float:
        """Cross-validated accuracy of the logistic probe of the last layer."""
        return self.accuracy(f"layer {self.layers[-1]}")

    @property
    def layer_accuracy(self) -> dict[int, float]:
        """Cross-validated accuracy of a logistic probe of each of the four layers."""
        return {layer: self.accuracy(f"layer {layer}") for layer in self.layers}

    @property
    def alternatives(self) -> dict[str, float]:
        """Cross-validated accuracies of all ``classifiers``."""
        return {name: self.accuracy(name) for name in self.classifiers}

    def _measure(self, classifier: str) -> float:
        labels = self.features.labels
        if classifier.startswith("layer "):
            features = np.asarray(self.extraction.features[int(classifier.removeprefix("layer "))], float)
            return 1.0 - headroom(replace(self.features, features=features))
        rows = np.flatnonzero(np.bincount(labels)[labels] > 1)  # cross-validation needs two texts of a class
        if classifier == "layers":
            layers = [self.extraction.features[layer][rows] for layer in self.layers]
            return multi_layer_accuracy(layers, labels[rows], seed=self.seed)
        texts, used = texts_read(self.model, self.data, self.tokens), self.extraction.row_indices[rows]
        return bag_of_words_accuracy([texts[i] for i in used], self.data.labels[used], seed=self.seed)

    @cached_property
    def token_features(self) -> TokenFeatures:
        """Features of every token; takes a pass."""
        data = self.common
        assert data.ids is not None
        return token_features(self.model, data.ids, data.labels, progress=self._counter("reading tokens"))

    @cached_property
    def attention(self) -> AttentionComparison:
        """Attention over tokens against their mean."""
        return compare_attention(self.token_features, seed=self.seed)

    @cached_property
    def linearization(self) -> Linearization:
        """First-order expansion of LoRA; takes passes with gradients."""
        return linearize(self.features)

    def _counter(self, step: str) -> Callable[[int], None]:
        n_done = 0

        def count(n: int) -> None:
            nonlocal n_done
            n_done += n
            if self._progress is not None:
                self._progress(step, n_done, len(self.data))

        return count


@dataclass(frozen=True)
class Predictor:
    """A quantity that may predict the gain from LoRA.

    Attributes
    ----------
    label : str
        Name for tables and figures.
    source : {"features", "tokens", "gradients"}
        What it needs; determines its cost.
    function : callable
        Computes it from a :class:`Case`.
    """

    label: str
    source: Source
    function: Callable[[Case], float]

    def passes(self, n_texts: int) -> float:
        """Cost in forward passes over the texts, without what another predictor has computed.

        Parameters
        ----------
        n_texts : int

        Returns
        -------
        float
            A backward pass counts as a forward pass. The pass for the features is included.

        Examples
        --------
        >>> [PREDICTORS[name].passes(2000) for name in ("headroom", "attention", "alignment")]
        [1.0, 2.0, 2.2]
        """
        more = {"features": 0.0, "tokens": 1.0, "gradients": 0.0}[self.source]
        if self.source == "gradients":
            more = min(n_texts, LINEARIZED_TEXTS) * (1 + LINEARIZED_GRADIENTS) / n_texts
        return 1.0 + more


def _net(case: Case) -> float:
    return case.scores["next_token", False].ntps - case.scores["random", False].ntps


PREDICTORS: Mapping[str, Predictor] = MappingProxyType(
    {
        "ntps": Predictor("NTPS (Euclidean)", "features", lambda case: case.scores["next_token", False].ntps),
        "net_ntps": Predictor("net NTPS", "features", _net),
        "pca": Predictor("NTPS of principal components", "features", lambda case: case.scores["pca_s", False].ntps),
        "ntps_metric": Predictor(
            "NTPS, metric-matched", "features", lambda case: case.scores["next_token", True].ntps_metric
        ),
        "ntps_task": Predictor(
            "NTPS, task-weighted", "features", lambda case: case.scores["next_token", True].ntps_task
        ),
        "explained": Predictor(
            "tr B / tr Y, centered", "features", lambda case: case.scores["next_token", True].explained
        ),
        "headroom": Predictor("headroom of the probe", "features", lambda case: 1.0 - case.last_accuracy),
        "h_score": Predictor("H-score, shrunk", "features", lambda case: h_score(case.features)),
        "logme": Predictor("LogME", "features", lambda case: logme(case.features)),
        "knn": Predictor("k-NN accuracy", "features", lambda case: knn_accuracy(case.features)),
        "words": Predictor(
            "bag of words minus the probe", "features", lambda case: case.accuracy("words") - case.last_accuracy
        ),
        "layers": Predictor(
            "four layers minus the last", "features", lambda case: case.accuracy("layers") - case.last_accuracy
        ),
        "attention": Predictor(
            "attention minus mean pooling",
            "tokens",
            lambda case: case.attention.accuracy - case.attention.mean_accuracy,
        ),
        "attention_loss": Predictor(
            "loss of mean pooling minus that of attention",
            "tokens",
            lambda case: case.attention.mean_cross_entropy - case.attention.cross_entropy,
        ),
        "linearized": Predictor("linearized gain in accuracy", "gradients", lambda case: case.linearization.accuracy),
        "linearized_loss": Predictor(
            "linearized gain in cross-entropy", "gradients", lambda case: case.linearization.cross_entropy
        ),
        "alignment": Predictor(
            "log alignment of the residuals with the tangent kernel",
            "gradients",
            lambda case: math.log(max(case.linearization.alignment, 1e-6)),
        ),
    }
)
"""The predictors by name."""
