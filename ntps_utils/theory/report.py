"""Score reports: rows of scores for layers and widths, with standard errors, controls and provenance."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import pandas as pd

from ntps_utils.theory.controls import control_directions, control_scores
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array
from ntps_utils.theory.score import SCORES, ControlScores, NumericalWarning, ScoreRow, Subspaces, Width, subspaces
from ntps_utils.theory.uncertainty import MIN_TEXTS_PER_FEATURE, excess_loss_test, jackknife_interval

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
        Moments of disjoint, exchangeable groups of texts. With at least three groups, each score
        gets a standard error and an interval, see
        :func:`ntps_utils.theory.uncertainty.jackknife_interval`.
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
    moments = total.layer(layer)
    rows = [solved.row(k) for k in dict.fromkeys(solved.width(k) for k in k_v)]
    rows = [replace(row, **_noise_of_excess_loss(moments, solved, row.k_v)) for row in rows]
    if controls:
        directions = control_directions(moments, solved)
        rows = [replace(row, controls=control_scores(solved, directions, row.k_v)) for row in rows]
    grid = ScoreGrid(**{f.name: getattr(solved, f.name) for f in fields(ScoreGrid)})
    if len(parts) < 3:
        return rows, grid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)  # the solution of all texts has warned already
        without_one = [
            subspaces(_merge([*parts[:i], *parts[i + 1 :]]).layer(layer), layer=layer, **options)
            for i in range(len(parts))
        ]
    return [replace(row, **_jackknife(row, without_one, total.n_texts, solved.d)) for row in rows], grid


def _noise_of_excess_loss(moments: LayerMoments, solved: Subspaces, k_v: int) -> dict[str, Any]:
    """Fields of a row about the noise of the excess loss; none if the test does not apply."""
    try:
        test = excess_loss_test(moments, solved, k_v)
    except ValueError:
        return {}
    return {
        "excess_loss_debiased": test.debiased,
        "excess_loss_low": test.low,
        "excess_loss_high": test.high,
        "excess_loss_p": test.p_value,
    }


def _jackknife(row: ScoreRow, without_one: Sequence[Subspaces], n_texts: int, d: int) -> dict[str, Any]:
    """Standard errors and intervals of a row, from the solutions without each group of texts."""
    values: dict[str, list[float]] = {name: [] for name in (*SCORES, "excess_loss")}
    for solved in without_one:
        i = min(row.k_v, solved.rank_v) - 1
        values["ntps"].append(float(solved.ntps[-1, i]))
        values["ntps_metric"].append(float(solved.ntps_metric[-1, i]))
        values["ntps_task"].append(float(solved.ntps_task[i]))
        values["excess_loss"].append(float(solved.excess_loss[i]))
    found: dict[str, float] = {}
    has_intervals = n_texts >= MIN_TEXTS_PER_FEATURE * d
    for name, replicates in values.items():
        interval = jackknife_interval(getattr(row, name), replicates, low=0.0, high=1.0)
        found[f"{name}_se"] = interval.se
        if name in SCORES and has_intervals:
            found |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return found


def _control_columns(row: ScoreRow) -> dict[str, float]:
    columns: dict[str, float] = {}
    for score in SCORES if row.controls else ():
        columns[f"{score}_net"] = row.net(score)
        columns |= {f"{score}_{one.control}": getattr(one, score) for one in row.controls}
        columns[f"{score}_random_low"], columns[f"{score}_random_high"] = row.control("random").range(score)
    return columns


def _merge(parts: Sequence[Moments]) -> Moments:
    return reduce(lambda total, part: total.merge(part), parts)
