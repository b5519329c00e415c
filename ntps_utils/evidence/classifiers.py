"""Classifiers that need no finetuning: logistic probes of several layers, and a bag of words.

LoRA is worth its cost only if it is better than the best of them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntps_utils._utils.files import data_file
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import Tokens
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.probes import ProbeWarning, logistic_probe
from ntps_utils.models.richer_probes import bag_of_words, bag_of_words_accuracy

N_LAYERS = 4
"""Number of layers that are probed, fewer in a small model."""


@dataclass(frozen=True)
class ClassifierAccuracy:
    """Accuracy of a classifier without finetuning.

    Attributes
    ----------
    cross_validated : float
        On the training texts, each predicted without its fold.
    test : float
        On the test texts.
    """

    cross_validated: float
    test: float


def probed_layers(n_layers: int) -> tuple[int, ...]:
    """Choose layers at equal distances, the last of which is the last layer.

    Parameters
    ----------
    n_layers : int
        Number of hidden states: the embeddings and the output of every block.

    Returns
    -------
    tuple of int
        ``N_LAYERS`` indices into ``hidden_states``; fewer for a small model.

    Examples
    --------
    >>> probed_layers(31), probed_layers(3)
    ((8, 15, 22, 30), (0, 1, 2))
    """
    last = n_layers - 1
    return tuple(sorted({round(last * part / N_LAYERS) for part in range(1, N_LAYERS + 1)}))


def texts_read(model: CausalModel, data: TextDataset, tokens: Tokens) -> list[str]:
    """Return the texts as far as the model reads them.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    tokens : Tokens
        Tokens of these texts.

    Returns
    -------
    list of str
        A text that was truncated is decoded from its tokens.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.extraction import tokenize
    >>> from ntps_utils.models.loading import load_model
    >>> model, data = load_model("lab/XS"), load_texts("lab/topic").head(2)
    >>> [len(text.split()) for text in texts_read(model, data, tokenize(model, data, max_length=8))]
    [7, 7]
    """
    if not tokens.n_truncated:
        return list(data.texts)
    return [
        model.tokenizer.decode(ids, skip_special_tokens=True) if len(ids) == tokens.max_length else text
        for ids, text in zip(tokens.ids, data.texts, strict=True)
    ]


def best_alternative(accuracy: Mapping[str, float]) -> tuple[str, float]:
    """Choose the best classifier without finetuning, by cross-validated accuracy.

    Parameters
    ----------
    accuracy : mapping of str to float
        By classifier: "layer 3" and the like for logistic probes of single layers, the last layer last among them;
        "layers" for a probe of several layers at once; "words" for a bag of words.

    Returns
    -------
    name : str
        At equal accuracies the probe of the last layer comes first.
    lead : float
        What it has over the probe of the last layer, at least 0.

    Examples
    --------
    >>> best_alternative({"layer 4": 0.75, "layer 8": 0.5, "layers": 0.625, "words": 0.25})
    ('layer 4', 0.25)
    """
    last = last_probe(accuracy)
    best = max(accuracy, key=lambda name: (accuracy[name], name == last))
    return best, accuracy[best] - accuracy[last]


def best_columns(classifiers: Mapping[str, ClassifierAccuracy], lora: float | None = None) -> dict[str, Any]:
    """Compare LoRA with the best classifier without finetuning, as columns of a table of runs.

    Parameters
    ----------
    classifiers : mapping of str to ClassifierAccuracy
        By classifier, see :func:`best_alternative`.
    lora : float, optional
        Test accuracy of LoRA.

    Returns
    -------
    dict
        ``alternative`` and ``lead``, see :func:`best_alternative`; ``words`` and ``layers``, where they are among the
        classifiers: what these have over the probe of the last layer; with ``lora`` also ``advantage``, what LoRA has
        over the best classifier on the test texts.

    Examples
    --------
    >>> found = {"layer 4": ClassifierAccuracy(0.75, 0.5), "layer 8": ClassifierAccuracy(0.5, 0.5)}
    >>> best_columns(found, lora=0.625)
    {'alternative': 'layer 4', 'lead': 0.25, 'advantage': 0.125}
    """
    accuracy = {name: one.cross_validated for name, one in classifiers.items()}
    best, lead = best_alternative(accuracy)
    columns: dict[str, Any] = {"alternative": best, "lead": lead}
    last = accuracy[last_probe(accuracy)]
    columns |= {name: accuracy[name] - last for name in ("words", "layers") if name in accuracy}
    return columns if lora is None else columns | {"advantage": lora - classifiers[best].test}


def recorded_classifiers() -> dict[tuple[str, str], dict[str, ClassifierAccuracy]]:
    """Load the classifiers of the recorded runs, which were measured apart.

    Returns
    -------
    dict
        Accuracies by model and dataset, see :func:`compare_classifiers`.

    Examples
    --------
    >>> list(recorded_classifiers()["lab/XS", "lab/topic"])
    ['layer 1', 'layer 2', 'layer 3', 'layers', 'words']
    """
    rows = map(json.loads, data_file("recorded/alternatives.jsonl").read_text("utf-8").splitlines())
    return {
        (row["model"], row["dataset"]): {
            name: ClassifierAccuracy(one["cv"], one["test"]) for name, one in row["accuracy"].items()
        }
        for row in rows
    }


def last_probe(names: Mapping[str, object]) -> str:
    """Return the name of the probe of the last layer.

    Parameters
    ----------
    names : mapping of str to object
        By classifier, see :func:`best_alternative`.

    Returns
    -------
    str

    Examples
    --------
    >>> last_probe({"layer 4": 0.75, "layer 8": 0.5, "words": 0.25})
    'layer 8'
    """
    return [name for name in names if name.startswith("layer ")][-1]


def compare_classifiers(
    features: Mapping[int, NDArray[np.floating]],
    test_features: Mapping[int, NDArray[np.floating]],
    texts: tuple[Sequence[str], Sequence[str]],
    labels: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    seed: int = 0,
) -> dict[str, ClassifierAccuracy]:
    """Measure the accuracy of all classifiers without finetuning.

    Parameters
    ----------
    features, test_features : mapping of int to (n, d) array
        Mean tokens of the training and of the test texts by layer, in the order of the layers.
    texts : tuple of two sequences of str
        Training and test texts, as far as the model reads them (:func:`texts_read`).
    labels : tuple of two (n,) int64 arrays
        Their class numbers. Training texts that are alone in their class are left out: cross-validation
        needs two.
    seed : int
        Random seed for the folds.

    Returns
    -------
    dict of str to ClassifierAccuracy
        By classifier, see :func:`best_alternative`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> x = {1: rng.normal(size=(40, 3)), 2: y[:, None] + 0.1 * rng.normal(size=(40, 3))}
    >>> words = ["bad" if label else "good" for label in y]
    >>> found = compare_classifiers(x, x, (words, words), (y, y))
    >>> {name: one.test for name, one in found.items() if name != "layer 1"}
    {'layer 2': 1.0, 'layers': 1.0, 'words': 1.0}
    """
    y, y_test = labels
    rows = np.flatnonzero(np.bincount(y)[y] > 1)
    y = y[rows]
    found = {}
    for name, layers in {**{f"layer {layer}": [layer] for layer in features}, "layers": list(features)}.items():
        x, x_test = (
            np.hstack([np.asarray(part[layer], float) for layer in layers]) for part in (features, test_features)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ProbeWarning)  # an experiment warns once, of its own probes
            probe = logistic_probe(x[rows], y, x_test, y_test, seed=seed)
        found[name] = ClassifierAccuracy(probe.cv_accuracy, probe.test_accuracy)
    train = [texts[0][row] for row in rows.tolist()]
    words = bag_of_words().fit(train, y)
    found["words"] = ClassifierAccuracy(
        bag_of_words_accuracy(train, y, seed=seed), float(np.mean(words.predict(list(texts[1])) == y_test))
    )
    return found
