"""House style of the book's figures, and the figures that recur.

One palette, safe for the color-blind; the same color for the same thing in every chapter.
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


def house_style() -> None:
    """Set the style of every figure that follows; call it once, at the top of a chapter."""
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
        set_matplotlib_formats("png")
        mpl.rcParams["savefig.dpi"] = 200


def panels(n: int, height: float = 3.4, width: float = 7.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """A row of n panels at the width of the page."""
    figure, axes = plt.subplots(1, n, figsize=(width, height), squeeze=False, **options)
    return figure, list(axes[0])


def identity_scatter(axes: Axes, x: ArrayLike, y: ArrayLike, color: str, label: str | None = None) -> None:
    """Points that a statement puts on the diagonal, and the diagonal, on logarithmic axes."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    axes.scatter(x, y, s=7, alpha=0.35, color=color, linewidths=0, label=label, rasterized=True)
    shown = np.concatenate([x[x > 0], y[y > 0]])
    ends = [shown.min(), shown.max()]
    axes.plot(ends, ends, color=COLORS["exact"], lw=1, zorder=0)
    axes.set(xscale="log", yscale="log")


def interval_dots(
    axes: Axes, names: Sequence[str], results: Sequence[tuple[float, float, float]], colors: Sequence[str] | str
) -> None:
    """A row for each name, top to bottom: a value (first of the three) and its interval; a line at zero."""
    shades = [colors] * len(names) if isinstance(colors, str) else colors
    for i, ((value, low, high), shade) in enumerate(zip(results, shades, strict=True)):
        axes.plot([low, high], [i, i], color=shade, lw=2, solid_capstyle="butt")
        axes.plot(value, i, "o", color=shade, ms=5)
    axes.axvline(0, color=COLORS["other"], lw=0.8, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def closed_form_figure(checks: pd.DataFrame, color: str) -> Figure:
    """A closed form against least squares, and against other encoders of the same width.

    Parameters
    ----------
    checks : DataFrame
        Of :class:`ntps_utils.theory.verification.ClosedFormCheck` records.
    color : str
        Of the problem's own points.
    """
    figure, (left, right) = panels(2)
    fitted = checks[checks["measured"] > 1e-6]  # an exact fit has no place on logarithmic axes
    identity_scatter(left, fitted["measured"], fitted["closed"], color)
    left.set(xlabel="loss by least squares", ylabel="loss by the closed form", title="Same loss")
    bins = np.logspace(-12, 0, 49).tolist()
    for name, shade in (("random", COLORS["other"]), ("nearby", color)):
        slack = (checks[name] - checks["measured"]).clip(lower=1e-12)
        right.hist(slack, bins=bins, color=shade, alpha=0.7, label=f"{name} encoders")
    right.set(xscale="log", xlabel="excess over the closed form", ylabel="problems", title="Nothing does better")
    right.legend()
    return figure


def descent_figure(gaps: Mapping[int, ArrayLike], color: str) -> Figure:
    """Gap between gradient descent and the closed form against steps, a line for each width."""
    figure, (axes,) = panels(1, height=3.0)
    for (k, gap), shade in zip(gaps.items(), np.linspace(0.4, 1.0, len(gaps)), strict=True):
        axes.plot(np.maximum(np.abs(gap), 1e-16), color=color, alpha=shade, lw=1 + shade, label=f"k = {k}")
    axes.set(yscale="log", xscale="symlog", xlabel="gradient steps", ylabel="gap to the closed form")
    axes.set_xlim(left=0)
    axes.legend()
    return figure


def subspace_explorer(condition: float = 25.0) -> str:
    """The interactive figure of chapter 3, as HTML that needs no kernel and no network.

    Parameters
    ----------
    condition : float
        kappa(S) that it opens with.
    """
    return _interactive("subspace_explorer", {"condition": condition, "colors": COLORS})


def sweep_explorer(
    scores: Mapping[str, ArrayLike],
    target: ArrayLike,
    tasks: Sequence[str],
    fractions: Sequence[float],
    nulls: Mapping[str, ArrayLike],
) -> str:
    """The interactive figure of chapter 6: the coefficient at each setting, and the tasks behind it.

    Parameters
    ----------
    scores : mapping of str to (layers, fractions, tasks) array_like
        By the name to show: "Euclidean", "metric-matched", "task-weighted".
    target : (tasks,) array_like
    tasks, fractions : sequence
    nulls : mapping of str to (permutations,) array_like
        Largest coefficient of each score's sweep under permuted tasks.
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
    """The interactive figure of chapter 9: what skipping the runs of lowest prediction loses and saves.

    Parameters
    ----------
    sets : mapping of str to mapping
        For each set of cells: ``predicted``, a mapping of rule to (n,) points; ``gain``, (n,)
        points; ``seconds``, (n,); ``names``, (n,).
    """
    listed = {
        name: {
            "predicted": {rule: np.round(x, 3).tolist() for rule, x in part["predicted"].items()},
            "gain": np.round(part["gain"], 3).tolist(),
            "seconds": np.round(part["seconds"], 2).tolist(),
            "names": list(part["names"]),
        }
        for name, part in sets.items()
    }
    return _interactive("skip_explorer", {"sets": listed, "color": COLORS["metric"]})


def _interactive(name: str, settings: Mapping[str, Any]) -> str:
    html = asset_text(f"{name}.html")
    # "</" would end the script that holds the settings.
    return html.replace("/*SETTINGS*/null", json.dumps(settings).replace("</", "<\\/"))
