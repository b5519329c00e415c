"""The sweep that the paper describes: NTPS at every layer and 19 fractions of the rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import extract
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.probes import chance_adjusted, logistic_probe
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array
from ntps_utils.theory.score import NumericalWarning, subspaces

FRACTIONS = tuple(np.round(np.arange(1, 20) / 20, 2).tolist())


@dataclass(frozen=True, eq=False)
class Sweep:
    """Scores of one model on several datasets, at every layer and fraction.

    Attributes
    ----------
    datasets : tuple of str
    scores : dict of str to (layers, fractions, datasets) float64
        By score: "ntps", "ntps_metric", "ntps_task".
    accuracy : (layers, datasets) float64
        Chance-adjusted accuracy of a logistic probe at each layer, on the test texts.
    moments : dict of str to LayerMoments
        Of the last layer, by dataset.
    """

    datasets: tuple[str, ...]
    scores: dict[str, Array]
    accuracy: Array
    moments: dict[str, LayerMoments]

    def flat(self, score: str) -> Array:
        """(layers * fractions, datasets), as :func:`ntps_utils.evidence.statistics.max_statistic_null` takes it."""
        table = self.scores[score]
        return table.reshape(-1, table.shape[-1])


def sweep(
    model: CausalModel,
    data: Sequence[tuple[TextDataset, TextDataset]],
    *,
    fractions: Sequence[float] = FRACTIONS,
    center: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Measure every layer and fraction on several datasets.

    Parameters
    ----------
    model : CausalModel
    data : sequence of (train, test)
    fractions : sequence of float
        Of the number of autoregressive directions.
    center : bool
    progress : callable, optional
        Called with the number of datasets done and in all.
    """
    layers = tuple(range(model.n_layers))
    names = ("ntps", "ntps_metric", "ntps_task")
    scores = {name: np.empty((len(layers), len(fractions), len(data))) for name in names}
    accuracy, kept = np.empty((len(layers), len(data))), {}
    for j, (train, test) in enumerate(data):
        a, b = (extract(model, part, layers=layers, features=layers, batch_size=64) for part in (train, test))
        y, y_test = train.labels[a.row_indices], test.labels[b.row_indices]
        for i, layer in enumerate(layers):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NumericalWarning)
                solved = subspaces(a.moments.layer(layer), layer=layer, center=center)
            for f, fraction in enumerate(fractions):
                row = solved.row(solved.width(fraction))
                for name in names:
                    scores[name][i, f, j] = getattr(row, name)
            probe = logistic_probe(a.features[layer], y, b.features[layer], y_test)
            accuracy[i, j] = chance_adjusted(probe.test_accuracy, y_test)
        kept[train.name] = a.moments.layer(layers[-1])
        if progress is not None:
            progress(j + 1, len(data))
    return Sweep(tuple(train.name for train, _ in data), scores, accuracy, kept)
