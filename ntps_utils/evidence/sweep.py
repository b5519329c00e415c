"""The sweep that the paper describes: scores at every layer and 19 widths of V."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ntps_utils.evidence.experiment import EXTRACTION_BATCH
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import extract
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.probes import chance_adjusted, logistic_probe
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array
from ntps_utils.theory.score import SCORES, NumericalWarning, subspaces

FRACTIONS = tuple(np.round(np.arange(1, 20) / 20, 2).tolist())
"""Widths of V as fractions of the number of autoregressive directions."""

CENTERED = {"ntps": False, "ntps_metric": True, "ntps_task": True}
"""Whether a score is computed from covariances, or, like the paper's, from second moments."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """Scores of one model on several datasets, at every layer and fraction.

    Attributes
    ----------
    datasets : tuple of str
        Names.
    scores : dict of str to (layers, fractions, datasets) float64
        By score: "ntps" from second moments, "ntps_metric" and "ntps_task" from covariances.
    accuracy : (layers, datasets) float64
        Chance-adjusted accuracy of a logistic probe at each layer, on the test texts.
    moments : dict of str to LayerMoments
        Moments of the last layer by dataset.
    """

    datasets: tuple[str, ...]
    scores: dict[str, Array]
    accuracy: Array
    moments: dict[str, LayerMoments]

    def flat(self, score: str) -> Array:
        """Reshape a score for :func:`ntps_utils.evidence.statistics.max_statistic_null`.

        Parameters
        ----------
        score : {"ntps", "ntps_metric", "ntps_task"}

        Returns
        -------
        (layers * fractions, datasets) float64
        """
        table = self.scores[score]
        return table.reshape(-1, table.shape[-1])


def sweep(
    model: CausalModel,
    data: Sequence[tuple[TextDataset, TextDataset]],
    *,
    fractions: Sequence[float] = FRACTIONS,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Score and probe every layer of a model, at every fraction, on several datasets.

    Parameters
    ----------
    model : CausalModel
    data : sequence of (train, test)
        Training and test texts of each dataset.
    fractions : sequence of float
        Widths of V as fractions of the number of autoregressive directions, in (0, 1].
    progress : callable, optional
        Called with the number of finished datasets and their total.

    Returns
    -------
    Sweep

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.loading import load_model
    >>> train, test = (load_texts("lab/tense", split).head(40) for split in ("train", "test"))
    >>> sweep(load_model("lab/XS"), [(train, test)], fractions=[0.5]).scores["ntps"].shape
    (4, 1, 1)
    """
    layers = tuple(range(model.n_layers))
    scores = {name: np.empty((len(layers), len(fractions), len(data))) for name in SCORES}
    accuracy, moments = np.empty((len(layers), len(data))), {}
    for j, (train, test) in enumerate(data):
        extraction, test_extraction = (
            extract(model, part, layers=layers, features=layers, batch_size=EXTRACTION_BATCH) for part in (train, test)
        )
        y, y_test = train.labels[extraction.row_indices], test.labels[test_extraction.row_indices]
        for i, layer in enumerate(layers):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NumericalWarning)
                solved = {
                    center: subspaces(extraction.moments.layer(layer), layer=layer, center=center)
                    for center in (False, True)
                }
            for name in SCORES:
                one = solved[CENTERED[name]]
                for f, fraction in enumerate(fractions):
                    scores[name][i, f, j] = getattr(one.row(one.width(fraction)), name)
            probe = logistic_probe(extraction.features[layer], y, test_extraction.features[layer], y_test)
            accuracy[i, j] = chance_adjusted(probe.test_accuracy, y_test)
        moments[train.name] = extraction.moments.layer(layers[-1])
        if progress is not None:
            progress(j + 1, len(data))
    return Sweep(tuple(train.name for train, _ in data), scores, accuracy, moments)
