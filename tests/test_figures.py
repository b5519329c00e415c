"""House style, and the interactive figure without a browser."""

from __future__ import annotations

import json
import re

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("agg")

from ntps_utils.checks import check_perception
from ntps_utils.figures import (
    COLOURS,
    closed_form_figure,
    descent_figure,
    house_style,
    identity_scatter,
    panels,
    subspace_explorer,
)
from ntps_utils.problems import random_problem


def test_panels_and_scatter():
    house_style()
    figure, axes = panels(3)
    assert len(axes) == 3
    identity_scatter(axes[0], [0.0, 0.1, 1.0], [0.0, 0.1, 1.0], COLOURS["metric"])
    assert axes[0].get_xscale() == "log"
    figure.canvas.draw()


def test_explorer_needs_nothing_from_outside():
    html = subspace_explorer(condition=9.0)
    settings = json.loads(re.search(r"const settings = (\{.*?\});", html).group(1))
    assert settings["condition"] == 9.0
    assert settings["colours"] == COLOURS
    assert not re.search(r"(src|href)=|https?:|@import|fetch\(", html)
    assert "<noscript>" in html
    assert html.count("aria-label") >= 4


def test_recurring_figures_show_their_data():
    checks = pd.DataFrame([check_perception(random_problem(s, d=5, n_texts=60, rank=5), s) for s in range(12)])
    left, right = closed_form_figure(checks, COLOURS["perception"]).axes
    shown = left.collections[0].get_offsets()
    np.testing.assert_allclose(np.asarray(shown), checks[["measured", "closed"]])
    assert sum(patch.get_height() for patch in right.patches) == 24
    (axes,) = descent_figure({1: [1.0, 0.1], 3: [1.0, -0.2]}, COLOURS["perception"]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["k = 1", "k = 3"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [1.0, 0.2])
