"""Record facts about real language models for the chapters.

    python -m book.tools.real_models --data DATASET MODEL ...

The book shows what this records, and so needs no weights. Of the texts, only words of a fixed
list are kept, with their coordinates.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.models.datasets import TextDataset, as_dataset
from ntps_utils.models.extraction import extract, hidden_states, random_groups, tokenize
from ntps_utils.models.features import layer_facts
from ntps_utils.models.loading import CausalModel, load_model, paragraph_loss
from ntps_utils.models.projection import (
    autoregressive_coordinates,
    explained_variance,
    perception_coordinates,
    word_features,
)
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.report import score_layer
from ntps_utils.theory.score import NumericalWarning, subspaces
from ntps_utils.theory.uncertainty import held_out_loss

MAX_LENGTH, N_GROUPS, N_SHUFFLED = 64, 5, 200
RIDGES = (0.0, 0.001, 0.01, 0.1)
WORDS = {
    "determiner": "the a an this that these some every his her its their",
    "pronoun": "he she it they we you who which",
    "preposition": "of in on at with from to for by about",
    "conjunction": "and or but because if as than",
    "to be": "is are was were be been",
    "praise": "good great best funny beautiful charming fun",
    "blame": "bad worst boring dull silly awful flat",
    "noun": "film movie story plot characters actors director time way people",
    "punctuation": ". , - ' : ? !",
}
"""Words whose coordinates are recorded, by group."""


def record(model: CausalModel, train: TextDataset, test: TextDataset) -> dict[str, Any]:
    """Compute the facts about one model.

    Parameters
    ----------
    model : CausalModel
    train, test : TextDataset
        Directions and regressions are computed from the first; shares of the label are those of the second.

    Returns
    -------
    dict
        Sizes, origin and loss of the model; ``layers``, the columns of
        :func:`ntps_utils.models.features.layer_facts`; ``words``, with their coordinates on the
        first two autoregressive directions of the last layer; and ``shares`` of the label that the
        perception direction and two autoregressive directions explain on the test texts.
    """
    tokens = tokenize(model, train, MAX_LENGTH)
    last = model.n_layers - 1
    facts = layer_facts(
        model, train, tokens=tokens, progress=lambda step, done, total: _show(f"{step}: {done} of {total}", done, total)
    )
    found = extract(model, train, layers=last, features=last, tokens=tokens)
    held_out = extract(model, test, layers=last, features=last, max_length=MAX_LENGTH)
    both = subspaces(found.moments.layer(last), layer=last, center=True)
    mean = found.features[last].mean(0)
    x, x_test = found.features[last] - mean, held_out.features[last] - mean
    labels, test_labels = train.labels[found.row_indices], test.labels[held_out.row_indices]
    shares = {}
    for name, view in (("perception", perception_coordinates), ("autoregressive", autoregressive_coordinates)):
        own, other = view(both, x), view(both, x_test)
        shares[name] = {
            "these texts": explained_variance(own, labels),
            "held out": explained_variance(own, labels, other, test_labels),
        }
    words = word_features(model, train, last)
    points = autoregressive_coordinates(both, words.features - mean)
    place = {word.lstrip("Ġ▁").lower(): i for i, word in enumerate(words.words) if word[:1] in "Ġ▁.,-':?!"}
    rows = [
        {"word": word, "group": group, "count": int(words.counts[place[word]]), "point": points[place[word]].tolist()}
        for group, members in WORDS.items()
        for word in members.split()
        if word in place
    ]
    return {
        "model": model.name,
        "origin": model.origin,
        "fingerprint": model.fingerprint,
        "n_parameters": int(model.model.num_parameters()),
        "dimension": model.dimension,
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "paragraph_loss": paragraph_loss(model),
        "n_texts": len(train),
        "n_test": len(test),
        "n_tokens": sum(map(len, tokens.ids)),
        "layers": facts.to_dict("list"),
        "words": rows,
        "shares": shares,
    }


def record_scores(model: CausalModel, train: TextDataset) -> dict[str, Any]:
    """Compute scores, bounds, intervals and controls of the last layer, and what the order of words changes.

    Parameters
    ----------
    model : CausalModel
    train : TextDataset

    Returns
    -------
    dict
        ``scores``, the fields of :class:`ntps_utils.theory.score.ScoreRow` at half of all directions,
        uncentered and centered; ``held_out``, losses by cross-fitting over five groups of texts, for
        several ridges; and ``word_order``, see :func:`word_order`.
    """
    last = model.n_layers - 1
    groups = random_groups(len(train), N_GROUPS, 0)
    parts = extract(model, train, layers=last, groups=groups, max_length=MAX_LENGTH).parts
    k = model.dimension // 2
    rows = {
        name: asdict(score_layer(parts, last, [k], controls=True, center=center)[0][0])
        for name, center in (("uncentered", False), ("centered", True))
    }
    held_out = {str(ridge): asdict(held_out_loss(parts, last, k, ridge=ridge)) for ridge in RIDGES}
    return {"scores": rows, "held_out": held_out, "word_order": word_order(model, train.head(N_SHUFFLED))}


def word_order(model: CausalModel, data: TextDataset, seed: int = 0) -> dict[str, dict[str, float]]:
    """Measure how far shuffling changes the two halves of A1 in the last layer.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
    seed : int
        Random seed of the permutations.

    Returns
    -------
    dict of str to dict of str to float
        For "features" (the feature vectors of a text are shuffled) and "tokens" (its tokens are
        shuffled, and the model reads the result): Frobenius norm of the change of the symmetric and
        of the antisymmetric half, divided by the norm of that half.
    """
    rng = np.random.default_rng(seed)
    ids = [row for row in tokenize(model, data, MAX_LENGTH).ids if len(row) > 1]
    first = 1 if all(row[0] == ids[0][0] for row in ids) else 0  # a BOS stays in front
    orders = [[*range(first), *(first + rng.permutation(len(row) - first))] for row in ids]

    def features(rows: list[list[int]]) -> list[Any]:
        return [hidden_states(model, [row])[-1][0].double().numpy() for row in rows]

    plain = features(ids)
    changed = {
        "features": [x[order] for x, order in zip(plain, orders, strict=True)],
        "tokens": features([[row[i] for i in order] for row, order in zip(ids, orders, strict=True)]),
    }

    def halves(texts: list[Any]) -> list[Any]:
        A1 = LayerMoments.from_texts(texts, np.ones((len(texts), 1))).A1
        return [(A1 + A1.T) / 2, (A1 - A1.T) / 2]

    before = halves(plain)
    return {
        name: {
            half: float(np.linalg.norm(after - own) / np.linalg.norm(own))
            for half, own, after in zip(("symmetric", "antisymmetric"), before, halves(texts), strict=True)
        }
        for name, texts in changed.items()
    }


def _show(message: str, done: int, total: int) -> None:
    if done % max(1, total // 10) == 0:
        typer.echo(message, err=True)


def main(
    models: Annotated[list[str], typer.Argument(help="Names or folders of models.")],
    data: Annotated[str, typer.Option(help="Dataset that the models read.")],
    n_texts: Annotated[int, typer.Option(help="Number of texts for moments and directions.")] = 764,
    n_test: Annotated[int, typer.Option(help="Number of the texts after them, for held-out shares.")] = 300,
    only_scores: Annotated[
        bool, typer.Option(help="Renew scores, held-out losses and the effect of word order, and keep the rest.")
    ] = False,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("ntps_utils/data/recorded/real_models.json"),
) -> None:
    """Record facts about real language models."""
    warnings.simplefilter("ignore", NumericalWarning)
    dataset = as_dataset(data)
    test_rows = np.arange(n_texts, n_texts + n_test)
    test = TextDataset(
        dataset.name,
        dataset.split,
        tuple(dataset.texts[row] for row in test_rows),
        dataset.labels[test_rows],
        dataset.label_names,
    )
    train = dataset.head(n_texts)
    facts: dict[str, Any] = json.loads(out.read_text())["models"] if only_scores else {}
    for name in models:
        typer.echo(name, err=True)
        model, short = load_model(name, dtype="float32"), Path(name).name
        if not only_scores:
            facts[short] = record(model, train, test) | {"model": short}
        facts[short] |= record_scores(model, train)
        write_json(out, {"models": facts, "provenance": provenance(data=dataset.name, max_length=MAX_LENGTH)})


if __name__ == "__main__":
    typer.run(main)
