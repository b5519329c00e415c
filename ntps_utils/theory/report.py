"""Score reports: rows of scores for layers and widths, with standard errors, controls and provenance."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ntps_utils.theory.controls import SCORES, control_scores
from ntps_utils.theory.linear import Array
from ntps_utils.theory.score import ControlScores, NumericalWarning, ScoreRow, Width, subspaces

if TYPE_CHECKING:  # torch is needed for moments of several layers, not for the scores of one
    from ntps_utils.theory.moments import Moments


@dataclass(frozen=True, eq=False)
class ScoreGrid:
    """Scores of one layer for every width.

    Attributes
    ----------
    layer : int
        Index into ``hidden_states``.
    ntps, ntps_metric : (columns of U, m) float64
        Entry [k_u - 1, k_v - 1] is the score at widths k_u and k_v.
    ntps_task, excess_loss : (m,) float64
        Entry [k_v - 1] is the value at width k_v.
    beta : (columns of U,) float64
        Eigenvalues of U.
    gamma : (m,) float64
        Eigenvalues of V.
    """

    layer: int
    ntps: Array
    ntps_metric: Array
    ntps_task: Array
    excess_loss: Array
    beta: Array
    gamma: Array


@dataclass(frozen=True, repr=False)
class ScoreReport:
    """Scores of a model on a dataset, with their provenance.

    Attributes
    ----------
    rows : tuple of ScoreRow
        One row per layer and k_v. Iterating over the report yields the rows.
    provenance : dict
        Settings, versions, fingerprints of weights and texts, and date.
    grids : tuple of ScoreGrid
        Scores at every width, one grid per layer. They are not written to JSON.

    Examples
    --------
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> problem = planted_problem(0, d=10, n_texts=400)
    >>> row = subspaces(problem.moments(), center=True).row(2)
    >>> ScoreReport((row,), {"dataset": "planted classes"})
    ScoreReport: planted classes, 1 row
     layer  k_v   ntps  ntps_metric  ntps_task  trace_b  excess_loss
         0    2 0.9056       0.9858     0.9854   0.3666       0.0053
    """

    rows: tuple[ScoreRow, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    grids: tuple[ScoreGrid, ...] = field(default=(), compare=False)

    def grid(self, layer: int) -> ScoreGrid:
        """Return the scores of one layer at every width.

        Parameters
        ----------
        layer : int
            Index into ``hidden_states``.

        Returns
        -------
        ScoreGrid
            Scores at every (k_u, k_v).

        Raises
        ------
        ValueError
            If the report has no grid for that layer.
        """
        for grid in self.grids:
            if grid.layer == layer:
                return grid
        layers = [grid.layer for grid in self.grids]
        raise ValueError(f"There is no grid for layer {layer}; this report has grids for layers {layers}.")

    def __iter__(self) -> Iterator[ScoreRow]:
        return iter(self.rows)

    def __str__(self) -> str:
        columns = ["layer", "k_v", "ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss"]
        return self.to_frame()[columns].to_string(index=False, float_format=lambda x: f"{x:.4f}")

    def __repr__(self) -> str:
        subject = " on ".join(str(self.provenance[key]) for key in ("model", "dataset") if key in self.provenance)
        count = f"{len(self.rows)} row{'' if len(self.rows) == 1 else 's'}"
        return f"ScoreReport: {f'{subject}, ' if subject else ''}{count}\n{self}"

    def to_frame(self) -> pd.DataFrame:
        """Convert to a table.

        Returns
        -------
        pandas.DataFrame
            One row per layer and k_v, one column per field of :class:`ScoreRow`. In place of
            ``controls``, each score has the columns ``ntps_pca_s`` and so on for the controls,
            ``ntps_random_low`` and ``ntps_random_high`` for the range of random subspaces, and
            ``ntps_net`` for the net score.
        """
        names = [f.name for f in fields(ScoreRow) if f.name != "controls"]
        table = [{name: getattr(row, name) for name in names} | _control_columns(row) for row in self.rows]
        return pd.DataFrame(table, columns=names if not table else None)

    def to_json(self) -> str:
        """Convert to JSON, with numbers at full precision and null for missing values.

        Returns
        -------
        str
            ``{"rows": [...], "provenance": {...}}``, without the grids.
        """
        return json.dumps({"rows": [asdict(row) for row in self.rows], "provenance": self.provenance}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> ScoreReport:
        """Create a report from the output of :meth:`to_json`.

        Parameters
        ----------
        text : str
            JSON text.

        Returns
        -------
        ScoreReport
            Report without grids.
        """
        data = json.loads(text)
        rows = tuple(
            ScoreRow(**row | {"controls": tuple(ControlScores(**one) for one in row.get("controls", ()))})
            for row in data["rows"]
        )
        return cls(rows, data["provenance"])


def score_layer(
    parts: Sequence[Moments], layer: int, k_v: Sequence[Width] = (0.5,), *, controls: bool = False, **options: Any
) -> tuple[list[ScoreRow], ScoreGrid]:
    """Score one layer at several widths, with standard errors if texts come in groups.

    Parameters
    ----------
    parts : sequence of Moments
        Moments of disjoint, exchangeable groups of texts. With at least three groups, each
        score gets a delete-one-group jackknife standard error.
    layer : int
        Index into ``hidden_states``.
    k_v : sequence of int or float
        Widths, see :func:`resolve_width`. Equal widths give one row.
    controls : bool
        Score the control subspaces too, see :mod:`ntps_utils.theory.controls`.
    **options
        Options of :func:`ntps_utils.theory.score.subspaces`.

    Returns
    -------
    rows : list of ScoreRow
        One row per width.
    grid : ScoreGrid
        Scores at every width.

    Raises
    ------
    ValueError
        If a part does not contain the layer, or a setting is not valid.

    Notes
    -----
    With n groups and estimates t_1 ... t_n, each without one group, the standard error is
    ``sqrt((n - 1) / n * sum_i (t_i - mean t)^2)``.

    References
    ----------
    B. Efron and C. Stein (1981), The jackknife estimate of variance, The Annals of
    Statistics 9(3).

    Examples
    --------
    >>> from ntps_utils.theory.moments import Moments
    >>> from ntps_utils.theory.synthetic import planted_problem
    >>> problem = planted_problem(0, d=10, n_texts=400)
    >>> groups = [Moments.from_texts(problem.texts[i::5], problem.targets[i::5]) for i in range(5)]
    >>> (row,), grid = score_layer(groups, 0, [2], center=True)
    >>> round(row.ntps, 3), round(row.ntps_se, 3)
    (0.906, 0.047)
    """
    parts = [part.select_layer(layer) for part in parts]  # so that only this layer is merged
    total = _merge(parts)
    solved = subspaces(total.layer(layer), layer=layer, **options)
    rows = [solved.row(k) for k in dict.fromkeys(solved.width(k) for k in k_v)]
    if controls:
        moments = total.layer(layer)
        rows = [replace(row, controls=control_scores(moments, solved, row.k_v)) for row in rows]
    grid = ScoreGrid(**{f.name: getattr(solved, f.name) for f in fields(ScoreGrid)})
    if len(parts) < 3:
        return rows, grid
    names = ("ntps", "ntps_metric", "ntps_task", "excess_loss")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)  # the solution of all texts has warned already
        without_one = [
            subspaces(_merge([*parts[:i], *parts[i + 1 :]]).layer(layer), layer=layer, **options)
            for i in range(len(parts))
        ]
        replicates = [[replicate.row(row.k_v) for replicate in without_one] for row in rows]
    errors = [
        {f"{name}_se": _jackknife_se([getattr(r, name) for r in group]) for name in names} for group in replicates
    ]
    return [replace(row, **error) for row, error in zip(rows, errors, strict=True)], grid  # type: ignore[arg-type]


def _control_columns(row: ScoreRow) -> dict[str, float]:
    columns: dict[str, float] = {}
    for score in SCORES if row.controls else ():
        columns[f"{score}_net"] = row.net(score)
        columns |= {f"{score}_{one.control}": getattr(one, score) for one in row.controls}
        columns[f"{score}_random_low"], columns[f"{score}_random_high"] = row.control("random").range(score)
    return columns


def _merge(parts: Sequence[Moments]) -> Moments:
    return reduce(lambda total, part: total.merge(part), parts)


def _jackknife_se(replicates: Sequence[float]) -> float:
    """Standard error from delete-one-group estimates (Efron and Stein 1981)."""
    n = len(replicates)
    return float(np.sqrt((n - 1) * np.var(replicates)))
