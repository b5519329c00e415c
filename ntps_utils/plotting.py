"""Style of the book's figures, and figures that several chapters use.

The palette is safe for color-blind readers, and a quantity has the same color in all chapters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats
from numpy.typing import ArrayLike

from ntps_utils._utils.files import asset_text

_HUES = sns.color_palette("colorblind").as_hex()
COLORS = {
    "euclidean": _HUES[3],
    "metric": _HUES[0],
    "task": _HUES[2],
    "exact": "#222222",
    "autoregressive": _HUES[1],
    "perception": _HUES[4],
    "other": _HUES[7],
}
"""Colors by meaning: the three scores, exact values, the two encoders, everything else."""


def house_style() -> None:
    """Set the style of all following figures; a chapter calls it once, in its first cell."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "savefig.facecolor": "white",
        },
    )
    if "inline" in mpl.get_backend():
        set_matplotlib_formats("retina")  # PNG with twice the resolution, sharp on any screen


def panels(n: int, height: float = 3.4, width: float = 7.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """Create a figure with a row of panels.

    Parameters
    ----------
    n : int
        Number of panels.
    height, width : float
        Size of the figure in inches; the default width is that of the page.
    **options : object
        Passed to :func:`matplotlib.pyplot.subplots`.

    Returns
    -------
    figure : Figure
    axes : list of Axes

    Examples
    --------
    >>> figure, axes = panels(2)
    >>> len(axes)
    2
    """
    figure, axes = plt.subplots(1, n, figsize=(width, height), squeeze=False, **options)
    return figure, list(axes[0])


def identity_scatter(axes: Axes, x: ArrayLike, y: ArrayLike, color: str, label: str | None = None) -> None:
    """Plot two quantities that should be equal, with the diagonal, on logarithmic axes.

    Parameters
    ----------
    axes : Axes
    x, y : (n,) array_like
        Points with a value that is not positive are not visible.
    color : str
    label : str, optional
        Label in the legend.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    axes.scatter(x, y, s=7, alpha=0.35, color=color, linewidths=0, label=label, rasterized=True)
    positive = np.concatenate([x[x > 0], y[y > 0]])
    ends = [positive.min(), positive.max()]
    axes.plot(ends, ends, color=COLORS["exact"], lw=1, zorder=0)
    axes.set(xscale="log", yscale="log")


def interval_dots(
    axes: Axes, names: Sequence[str], results: Sequence[tuple[float, float, float]], colors: Sequence[str] | str
) -> None:
    """Plot values with intervals, one row per name from top to bottom, and a line at zero.

    Parameters
    ----------
    axes : Axes
    names : sequence of str
    results : sequence of (value, low, high)
    colors : str or sequence of str
        One color for all rows, or one per row.
    """
    shades = [colors] * len(names) if isinstance(colors, str) else colors
    for i, ((value, low, high), shade) in enumerate(zip(results, shades, strict=True)):
        axes.plot([low, high], [i, i], color=shade, lw=2, solid_capstyle="butt")
        axes.plot(value, i, "o", color=shade, ms=5)
    axes.axvline(0, color=COLORS["other"], lw=0.8, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def closed_form_figure(checks: pd.DataFrame, color: str) -> Figure:
    """Plot a closed form against least squares, and against other encoders of the same width.

    Parameters
    ----------
    checks : DataFrame
        One row per :class:`ntps_utils.theory.verification.ClosedFormCheck`.
    color : str
        Color of the closed form's points.

    Returns
    -------
    Figure
    """
    figure, (left, right) = panels(2)
    inexact = checks[checks["measured"] > 1e-6]  # logarithmic axes cannot show a loss of zero
    identity_scatter(left, inexact["measured"], inexact["closed"], color)
    left.set(xlabel="loss by least squares", ylabel="loss by the closed form", title="Same loss")
    bins = np.logspace(-12, 0, 49).tolist()
    for name, shade in (("random", COLORS["other"]), ("nearby", color)):
        slack = (checks[name] - checks["measured"]).clip(lower=1e-12)
        right.hist(slack, bins=bins, color=shade, alpha=0.7, label=f"{name} encoders")
    right.set(xscale="log", xlabel="excess over the closed form", ylabel="problems", title="Nothing does better")
    right.legend()
    return figure


def descent_figure(gaps: Mapping[int, ArrayLike], color: str) -> Figure:
    """Plot the gap between gradient descent and the closed form, one line per width.

    Parameters
    ----------
    gaps : mapping of int to (steps,) array_like
        Gap in the loss after each step, by width k.
    color : str
        Color of the lines; a larger width is darker.

    Returns
    -------
    Figure
    """
    figure, (axes,) = panels(1, height=3.0)
    for (k, gap), shade in zip(gaps.items(), np.linspace(0.4, 1.0, len(gaps)), strict=True):
        axes.plot(np.maximum(np.abs(gap), 1e-16), color=color, alpha=shade, lw=1 + shade, label=f"k = {k}")
    axes.set(yscale="log", xscale="symlog", xlabel="gradient steps", ylabel="gap to the closed form")
    axes.set_xlim(left=0)
    axes.legend()
    return figure


def subspace_explorer(condition: float = 25.0) -> str:
    """Return the interactive figure of chapter 3, a subspace in two dimensions and its scores.

    Parameters
    ----------
    condition : float
        Initial condition number of the features' second moment S.

    Returns
    -------
    str
        HTML that needs neither a kernel nor a network.

    Examples
    --------
    >>> "<noscript>" in subspace_explorer()
    True
    """
    return _interactive("subspace_explorer", {"condition": condition, "colors": COLORS})


def sweep_explorer(
    scores: Mapping[str, ArrayLike],
    target: ArrayLike,
    tasks: Sequence[str],
    fractions: Sequence[float],
    nulls: Mapping[str, ArrayLike],
) -> str:
    """Return the interactive figure of chapter 6: the rank correlation at each setting, and its tasks.

    Parameters
    ----------
    scores : mapping of str to (layers, fractions, tasks) array_like
        Scores by display name: "Euclidean", "metric-matched", "task-weighted".
    target : (tasks,) array_like
        Quantity that the scores are correlated with.
    tasks : sequence of str
    fractions : sequence of float
        Widths k_v as fractions of the rank.
    nulls : mapping of str to (permutations,) array_like
        Largest coefficient of each score's sweep under permuted tasks.

    Returns
    -------
    str
        HTML that needs neither a kernel nor a network.
    """
    shades = {"Euclidean": "euclidean", "metric-matched": "metric", "task-weighted": "task"}
    settings = {
        "scores": {name: np.round(np.asarray(table, dtype=float), 5).tolist() for name, table in scores.items()},
        "target": np.round(np.asarray(target, dtype=float), 5).tolist(),
        "tasks": list(tasks),
        "fractions": [round(f, 2) for f in fractions],
        "median": {name: float(np.median(np.asarray(null, dtype=float))) for name, null in nulls.items()},
        "edge": {name: float(np.quantile(np.asarray(null, dtype=float), 0.95)) for name, null in nulls.items()},
        "colors": {name: COLORS[shades[name]] for name in scores},
    }
    return _interactive("sweep_explorer", settings)


def skip_explorer(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the interactive figure of chapter 9: gain and time when runs with low predictions are skipped.

    Parameters
    ----------
    sets : mapping of str to mapping
        For each set of n finetuning runs: ``predicted``, a mapping of prediction rule to (n,)
        gains in points; ``gain``, (n,) observed gains in points; ``seconds``, (n,) durations;
        ``names``, (n,) descriptions of the runs.

    Returns
    -------
    str
        HTML that needs neither a kernel nor a network.
    """
    plain_sets = {
        name: {
            "predicted": {rule: np.round(x, 3).tolist() for rule, x in part["predicted"].items()},
            "gain": np.round(part["gain"], 3).tolist(),
            "seconds": np.round(part["seconds"], 2).tolist(),
            "names": list(part["names"]),
        }
        for name, part in sets.items()
    }
    return _interactive("skip_explorer", {"sets": plain_sets, "color": COLORS["metric"]})


def _interactive(name: str, settings: Mapping[str, Any]) -> str:
    """Return an HTML template with its settings filled in."""
    html = asset_text(f"{name}.html")
    # "</script>" in a string would end the script that contains the settings.
    return html.replace("/*SETTINGS*/null", json.dumps(settings).replace("</", "<\\/"))
