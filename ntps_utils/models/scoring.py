"""The whole way in one call: a model and a dataset in, a report of scores out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ntps_utils._utils.diagnostics import diagnostic_in
from ntps_utils._utils.provenance import provenance
from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.extraction import extract, parse_layers, random_groups
from ntps_utils.models.loading import CausalModel, load_model
from ntps_utils.theory.linear import Order
from ntps_utils.theory.score import (
    NumericalWarning,
    ScoreGrid,
    ScoreReport,
    ScoreRow,
    Shrinkage,
    Width,
    resolve_width,
    score_layer,
)


def score_model(
    model: str | Path | CausalModel,
    dataset: str | Path | TextDataset,
    *,
    split: str = "train",
    max_texts: int | None = None,
    max_length: int | None = None,
    bos: bool | None = None,
    layers: str = "all",
    k_v: Sequence[Width] = (0.5,),
    center: bool = False,
    ridge: float = 0.0,
    shrinkage: Shrinkage = 0.0,
    order: Order = "descending",
    jackknife: int = 0,
    batch_size: int = 16,
    stream: bool = False,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    text_column: str = "text",
    label_column: str = "label",
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> ScoreReport:
    """Score a causal language model on a labeled text dataset.

    Parameters
    ----------
    model, device, dtype, trust_remote_code
        See :func:`ntps_utils.models.loading.load_model`.
    dataset, split, text_column, label_column
        See :func:`ntps_utils.models.datasets.load_texts`.
    max_texts : int, optional
        Use the first rows only.
    max_length, bos, batch_size, stream, checkpoint
        See :func:`ntps_utils.models.extraction.extract`.
    layers : str
        "all", "last" or indices, see :func:`ntps_utils.models.extraction.parse_layers`.
    k_v : sequence of int or float
        Autoregressive directions to keep: integers, or fractions of their number.
    center, ridge, shrinkage, order
        See :func:`ntps_utils.theory.score.subspaces`.
    jackknife : int
        Number of random groups of texts for standard errors; 0 for none.
    seed : int
        Of those groups.
    progress : callable, optional
        Called with what is being done, how much is done, and of how much.

    Returns
    -------
    ScoreReport
        One row for each (layer, k_v).

    Raises
    ------
    ValueError
        If any setting, the model or the data cannot be used; the message says why.
    """
    started = time.perf_counter()
    if jackknife != 0 and jackknife < 3:
        raise ValueError(f"A jackknife needs at least 3 groups, or 0 for none; got {jackknife}.")
    if order not in ("descending", "ascending"):
        raise ValueError(f"order must be 'descending' or 'ascending', got {order!r}.")
    data = (
        dataset
        if isinstance(dataset, TextDataset)
        else load_texts(dataset, split, text_column=text_column, label_column=label_column)
    )
    if max_texts is not None:
        data = data.head(max_texts)
    present = np.unique(data.labels)
    if len(present) < 2:
        raise ValueError(
            f"All {len(data)} texts of {data.name}/{data.split} have the label {data.label_names[present[0]]!r}; "
            "a score needs at least two classes. Raise the number of texts, or shuffle the rows."
        )
    lm = (
        model
        if isinstance(model, CausalModel)
        else load_model(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    )
    chosen = parse_layers(layers, lm.n_layers)
    for k in k_v:
        resolve_width(k, lm.dimension, lm.dimension)  # refuse a bad width before the long work

    done = 0

    def extracted(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress("reading texts", done, len(data))

    extraction = extract(
        lm,
        data,
        layers=chosen,
        groups=random_groups(len(data), jackknife, seed) if jackknife else None,
        max_length=max_length,
        bos=bos,
        batch_size=batch_size,
        stream=stream,
        checkpoint=checkpoint,
        progress=extracted,
    )
    rows: list[ScoreRow] = []
    grids: list[ScoreGrid] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", NumericalWarning)
        for i, layer in enumerate(chosen):
            if progress is not None:
                progress("scoring layers", i, len(chosen))
            new_rows, grid = score_layer(
                extraction.parts, layer, k_v, center=center, ridge=ridge, shrinkage=shrinkage, order=order
            )
            rows += new_rows
            grids.append(grid)
    _warn_once(warned)
    if progress is not None:
        progress("scoring layers", len(chosen), len(chosen))

    moments = extraction.moments
    return ScoreReport(
        tuple(rows),
        provenance(
            model=lm.name,
            model_fingerprint=lm.fingerprint,
            dataset=data.name,
            dataset_fingerprint=data.fingerprint,
            split=data.split,
            n_texts=moments.n_texts,
            n_tokens=moments.n_tokens,
            n_classes=data.n_classes,
            n_features=lm.dimension,
            n_truncated=extraction.n_truncated,
            n_single_token=extraction.n_single,
            n_empty=extraction.n_empty,
            max_length=extraction.max_length,
            bos=bos,
            layers=list(chosen),
            k_v=list(k_v),
            center=center,
            ridge=ridge,
            shrinkage=shrinkage,
            order=order,
            jackknife=jackknife,
            seed=seed,
            batch_size=batch_size,
            device=str(lm.model.device),
            dtype=str(lm.model.dtype).removeprefix("torch."),
            precision=moments.precision,
            seconds=round(time.perf_counter() - started, 3),
        ),
        tuple(grids),
    )


def _warn_once(warned: Sequence[warnings.WarningMessage]) -> None:
    """Say each trap of several layers once."""
    kinds: dict[str, list[warnings.WarningMessage]] = {}
    for one in warned:
        kinds.setdefault(diagnostic_in(str(one.message)) or str(one.message), []).append(one)
    for first, *others in kinds.values():
        also = f" (The same in {len(others)} other layers.)" if others else ""
        warnings.warn(f"{first.message}{also}", first.category, stacklevel=3)
