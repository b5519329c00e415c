"""Score a language model on a dataset in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ntps_utils._utils.layers import Layers, resolve_layers
from ntps_utils._utils.provenance import provenance
from ntps_utils._utils.validation import check_integer
from ntps_utils.models._tables import describe_text_column
from ntps_utils.models.datasets import (
    TextDataset,
    as_dataset,
    first_texts,
    warn_of_empty_texts,
    warn_of_repeated_texts,
)
from ntps_utils.models.extraction import extract, random_groups, tokenize
from ntps_utils.models.loading import CausalModel, as_model
from ntps_utils.theory.estimator import as_widths, check_score_settings, score_layers
from ntps_utils.theory.linear import Order
from ntps_utils.theory.report import ScoreReport
from ntps_utils.theory.score import Shrinkage, Width, resolve_width


def score_model(
    model: str | Path | CausalModel | tuple[Any, Any],
    dataset: str | Path | TextDataset | Any,
    *,
    split: str = "train",
    max_texts: int | None = None,
    max_length: int | None = None,
    bos: bool | None = None,
    layers: Layers = "all",
    k_v: Width | Sequence[Width] = 0.5,
    center: bool = False,
    ridge: float = 0.0,
    shrinkage: Shrinkage = 0.0,
    order: Order = "descending",
    jackknife: int = 0,
    controls: bool = True,
    batch_size: int = 64,
    stream: bool = True,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    base_model: str | Path | None = None,
    seed: int = 0,
    text_column: str = "text",
    label_column: str = "label",
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> ScoreReport:
    """Score a causal language model on a labeled text dataset.

    Parameters
    ----------
    model : str, Path, pair (model, tokenizer), or CausalModel
        A registered name, a Hub id, a local folder, or objects in memory, see
        :func:`ntps_utils.models.loading.as_model`.
    dataset : str, Path, pair (texts, labels), DataFrame, datasets.Dataset, or TextDataset
        A registered name, a Hub id, a file or folder, or objects in memory, see
        :func:`ntps_utils.models.datasets.as_dataset`.
    split, text_column, label_column
        See :func:`ntps_utils.models.datasets.as_dataset`.
    max_texts : int, optional
        Number of rows to use, the first ones; by default all.
    max_length, bos, batch_size, stream, checkpoint
        See :func:`ntps_utils.models.extraction.extract`.
    layers : {"all", "last"}, str, int or sequence of int
        Layers to score: 0 is the embeddings, -1 the last layer.
    k_v : int, float, or sequence of them
        Autoregressive directions to keep: an integer counts directions, a float is a
        fraction of their number.
    center, ridge, shrinkage, order
        See :func:`ntps_utils.theory.score.subspaces`.
    jackknife : int
        Number of random groups of texts for standard errors, at least 3; 0 for none.
    controls : bool
        Score control subspaces too, see :mod:`ntps_utils.theory.controls`.
    device, dtype, base_model, trust_remote_code
        See :func:`ntps_utils.models.loading.load_model`.
    seed : int
        Random seed for the jackknife groups.
    progress : callable, optional
        Called with a description, the amount of work done, and its total.

    Returns
    -------
    ScoreReport
        One row for each (layer, k_v).

    Raises
    ------
    ValueError
        If a setting, the model or the data cannot be used; the message says why.
    TypeError
        If the model or the dataset is an object of another kind.

    Examples
    --------
    >>> report = score_model("lab/XS", "lab/topic", layers=[0, -1], k_v=0.5, max_texts=200)
    >>> [(row.layer, row.k_v) for row in report]
    [(0, 16), (3, 16)]
    """
    started = time.perf_counter()
    check_score_settings(center, ridge, shrinkage, order, jackknife, controls, seed)
    check_integer("max_texts", max_texts, 1, optional=True)
    widths = as_widths(k_v)
    data = as_dataset(dataset, split, text_column=text_column, label_column=label_column)
    data = first_texts(data, max_texts)
    warn_of_empty_texts(data)
    warn_of_repeated_texts(data)
    groups = random_groups(len(data), jackknife, seed) if jackknife else None
    _check_classes(data, range(len(data)), "")
    lm = as_model(model, device=device, dtype=dtype, base_model=base_model, trust_remote_code=trust_remote_code)
    chosen = resolve_layers(layers, lm.n_layers)
    for width in widths:
        resolve_width(width, lm.dimension, lm.dimension)  # refuse an invalid width before the extraction

    tokens = tokenize(lm, data, max_length, bos)
    with_tokens = [row for row, ids in enumerate(tokens.ids) if ids]
    _check_classes(data, with_tokens, " that have a token")
    n_extracted = 0

    def count(n: int) -> None:
        nonlocal n_extracted
        n_extracted += n
        if progress is not None:
            progress("reading texts", n_extracted, len(data))

    extraction = extract(
        lm,
        data,
        layers=chosen,
        groups=groups,
        tokens=tokens,
        max_length=max_length,
        bos=bos,
        batch_size=batch_size,
        stream=stream,
        checkpoint=checkpoint,
        progress=count,
    )
    rows, grids = score_layers(
        extraction.parts,
        widths,
        center=center,
        ridge=ridge,
        shrinkage=shrinkage,
        order=order,
        controls=controls,
        progress=progress,
    )
    moments = extraction.parts[0]
    return ScoreReport(
        tuple(rows),
        provenance(
            model=lm.name,
            model_fingerprint=lm.fingerprint,
            model_origin=lm.origin,
            dataset=data.name,
            dataset_fingerprint=data.fingerprint,
            split=data.split,
            text_column=describe_text_column(text_column),
            label_column=label_column,
            n_texts=sum(part.n_texts for part in extraction.parts),
            n_tokens=sum(part.n_tokens for part in extraction.parts),
            n_classes=len(np.unique(data.labels[with_tokens])),
            n_features=lm.dimension,
            n_truncated=extraction.n_truncated,
            n_single_token=extraction.n_single,
            n_empty=extraction.n_empty,
            max_length=extraction.max_length,
            bos=bos,
            layers=list(chosen),
            k_v=list(widths),
            center=center,
            ridge=ridge,
            shrinkage=shrinkage,
            order=order,
            jackknife=jackknife,
            controls=controls,
            seed=seed,
            batch_size=batch_size,
            device=str(lm.model.device),
            dtype=str(lm.model.dtype).removeprefix("torch."),
            precision=moments.precision,
            seconds=round(time.perf_counter() - started, 3),
        ),
        tuple(grids),
    )


def _check_classes(data: TextDataset, rows: Sequence[int], which: str) -> None:
    """Raise if the rows have one class."""
    present = np.unique(data.labels[rows])
    if len(present) == 1:
        raise ValueError(
            f"All {len(rows)} texts of {data.name}/{data.split}{which} have the label "
            f"{data.label_names[present[0]]!r}; a score needs at least two classes. Raise the number of texts, or "
            "shuffle the rows."
        )
