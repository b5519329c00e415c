"""Facts about the token features of each layer: massive activations, spectra, and what single precision does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import Tokens, batch_overhead, check_model, hidden_states, length_batches, tokens_of
from ntps_utils.models.loading import CausalModel, evaluation_mode
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array, default_rcond, whiten
from ntps_utils.theory.moments import Accumulator, Moments, device_of_sums
from ntps_utils.theory.score import NumericalWarning, subspaces


def layer_facts(
    model: CausalModel,
    data: TextDataset,
    *,
    tokens: Tokens | None = None,
    max_length: int | None = None,
    batch_size: int = 16,
    progress: Callable[[str, int, int], None] | None = None,
) -> pd.DataFrame:
    """Describe the token features of every layer, and compare scores from products in three precisions.

    Parameters
    ----------
    model : CausalModel
    data : TextDataset
        More texts than the model has features are needed for meaningful scores.
    tokens, max_length
        See :func:`ntps_utils.models.extraction.extract`.
    batch_size : int
        Texts in a forward pass.
    progress : callable, optional
        Called with a description, the amount of work done, and its total.

    Returns
    -------
    DataFrame
        One row for each layer, with the columns

        - ``first_token``: root mean square norm of first tokens, divided by that of all others;
        - ``largest``: share of the sum of squared features of all tokens that is in the largest feature;
        - ``mean_share``: share of ``tr S`` that is due to the mean of the texts;
        - ``effective_rank``: participation ratio of the eigenvalues of the centered S;
        - ``condition``: condition number of A0 in coordinates with unit diagonal;
        - ``ntps``, ``ntps_metric``, ``ntps_task``: scores at half of all directions, uncentered;
        - ``shifted``: largest change of a score if products are formed in float32 of shifted features
          (:class:`ntps_utils.theory.moments.Accumulator`);
        - ``plain``: the same for running sums of float32 products of the features themselves;
        - ``cut``: the same if, in addition, eigenvalues below d times the rounding unit of float32
          are cut off, and ``cut_rank`` directions of A0 remain.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.loading import load_model
    >>> facts = layer_facts(load_model("lab/XS"), load_texts("lab/topic").head(60))
    >>> len(facts), bool((facts["shifted"] < 1e-4).all())
    (4, True)
    """
    check_model(model)
    ids = tokens_of(model, data, tokens, max_length).ids
    layers = tuple(range(model.n_layers))
    d, device = model.dimension, device_of_sums(model.model.device)
    exact, shifted = (
        Moments.zeros(layers, d, data.n_classes, precision=precision, device=device)
        for precision in ("float64", "float32")
    )
    accumulators = [Accumulator(exact), Accumulator(shifted)]
    plain = torch.zeros(len(layers), 2, d, d, device=device)
    energy = torch.zeros(len(layers), 2, dtype=torch.float64, device=device)  # of first tokens and of the others
    squares = torch.zeros(len(layers), d, dtype=torch.float64, device=device)
    n_done = 0
    targets = torch.as_tensor(data.one_hot)
    rows = [row for row in range(len(ids)) if ids[row]]
    with evaluation_mode(model.model), torch.inference_mode():
        for batch in length_batches(ids, rows, batch_size, overhead=batch_overhead(model)):
            lengths = torch.tensor([len(ids[row]) for row in batch])
            hidden = [states.to(device) for states in hidden_states(model, [ids[row] for row in batch])]
            for accumulator in accumulators:
                accumulator.add(hidden, lengths, targets[batch])
            _add_plain(hidden, lengths, plain, energy, squares)
            n_done += len(batch)
            if progress is not None:
                progress("reading texts", n_done, len(rows))
    for accumulator in accumulators:
        accumulator.flush()
    table = []
    for place, layer in enumerate(layers):
        if progress is not None:
            progress("scoring layers", place, len(layers))
        one, other = exact.layer(layer), shifted.layer(layer)
        A0, A1 = (one_sum.double().cpu().numpy() / one.n_texts for one_sum in plain[place])
        coarse = replace(one, A0=(A0 + A0.T) / 2, A1=A1)
        cut = default_rcond(d, "float32")
        scores = _scores(one)
        eigenvalues = np.linalg.eigvalsh(one.center().S)
        n_first, n_other = one.n_texts, one.n_tokens - one.n_texts
        table.append(
            {
                "layer": layer,
                "first_token": float((energy[place, 0] / n_first / (energy[place, 1] / max(1, n_other))).sqrt()),
                "largest": float(squares[place].max() / squares[place].sum()),
                "mean_share": float(one.s @ one.s / np.trace(one.S)),
                "effective_rank": float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()),
                "condition": float(np.linalg.cond(_unit_diagonal(one.A0))),
                "ntps": scores[0],
                "ntps_metric": scores[1],
                "ntps_task": scores[2],
                "shifted": float(np.abs(_scores(other) - scores).max()),
                "plain": float(np.abs(_scores(coarse) - scores).max()),
                "cut": float(np.abs(_scores(coarse, cut) - scores).max()),
                "cut_rank": whiten(coarse.A0, cut).rank,
            }
        )
    return pd.DataFrame(table)


def _add_plain(
    hidden: Sequence[torch.Tensor],
    lengths: torch.Tensor,
    plain: torch.Tensor,
    energy: torch.Tensor,
    squares: torch.Tensor,
) -> None:
    """Add a batch to float32 sums of A0 and A1, as the released script forms them, and to sums of squares."""
    lengths = lengths.to(plain.device)
    for place, states in enumerate(hidden):
        x = states.float()
        inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        x = x * inside[..., None]
        for text, length in zip(x, lengths.tolist(), strict=True):
            past = text[: length - 1].cumsum(0)
            plain[place, 0] += past.mT @ past
            plain[place, 1] += past.mT @ text[1:length]
        square = x.double().square()
        energy[place, 0] += square[:, 0].sum()
        energy[place, 1] += square[:, 1:].sum()
        squares[place] += square.sum((0, 1))


def _scores(moments: LayerMoments, rcond: float | None = None) -> Array:
    """The three scores at half of all directions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        row = subspaces(moments, rcond=rcond).row(len(moments.S) // 2)
    return np.array([row.ntps, row.ntps_metric, row.ntps_task])


def _unit_diagonal(M: Array) -> Array:
    scale = np.sqrt(np.diag(M).clip(min=np.finfo(np.float64).tiny))
    return np.asarray(M / np.outer(scale, scale))
