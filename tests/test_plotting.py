"""Figures that several chapters use, and the HTML of the interactive figures."""

from __future__ import annotations

import json
import re

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("agg")

from ntps_utils.plotting import (
    COLORS,
    closed_form_figure,
    descent_figure,
    house_style,
    identity_scatter,
    interval_dots,
    panels,
    skip_explorer,
    subspace_explorer,
    sweep_explorer,
)
from ntps_utils.theory.synthetic import random_problem
from ntps_utils.theory.verification import check_perception


def test_panels_and_identity_scatter():
    house_style()
    figure, axes = panels(3)
    assert len(axes) == 3
    identity_scatter(axes[0], [0.0, 0.1, 1.0], [0.0, 0.1, 1.0], COLORS["metric"])
    assert axes[0].get_xscale() == "log"
    figure.canvas.draw()


def test_subspace_explorer_contains_its_settings_and_loads_nothing():
    html = subspace_explorer(condition=9.0)
    settings = json.loads(re.search(r"const settings = (\{.*?\});", html).group(1))
    assert settings["condition"] == 9.0
    assert settings["colors"] == COLORS
    assert not re.search(r"(src|href)=|https?:|@import|fetch\(", html)
    assert "<noscript>" in html
    assert html.count("aria-label") >= 4


def test_explorers_contain_their_data_and_no_tag_that_ends_the_script():
    scores = {"Euclidean": np.arange(24.0).reshape(2, 3, 4)}
    page = sweep_explorer(
        scores, [0.1, 0.2, 0.3, 0.4], ["a", "b", "c", "</script>"], (0.25, 0.5, 0.75), {"Euclidean": [0.1, 0.5]}
    )
    data = json.loads(re.search(r"const data = (\{.*?\});\n", page).group(1))
    assert data["scores"]["Euclidean"] == scores["Euclidean"].tolist()
    assert data["tasks"][3] == "</script>"
    runs = {
        "predicted": {"rule": [1.0, 2.0]},
        "gain": [3.0, 4.0],
        "seconds": [1.0, 1.0],
        "names": ["m on a", "m on b"],
    }
    skip = skip_explorer({"lab": runs})
    assert json.loads(re.search(r"const data = (\{.*?\});\n", skip).group(1))["sets"]["lab"]["gain"] == [3.0, 4.0]
    for html in (page, skip):
        assert html.count("</script>") == 1
        assert not re.search(r"(src|href)=|https?:|@import|fetch\(", html)
        assert "<noscript>" in html


def test_interval_dots_show_the_first_name_at_the_top():
    _, (axes,) = panels(1)
    interval_dots(axes, ["one", "two"], [(0.1, 0.0, 0.2), (0.5, 0.4, 0.9)], COLORS["metric"])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["one", "two"]
    assert axes.yaxis_inverted()
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.0, 0.2])


def test_closed_form_and_descent_figures_show_their_data():
    checks = pd.DataFrame([check_perception(random_problem(s, d=5, n_texts=60, rank=5), s) for s in range(12)])
    left, right = closed_form_figure(checks, COLORS["perception"]).axes
    points = left.collections[0].get_offsets()
    np.testing.assert_allclose(np.asarray(points), checks[["measured", "closed"]])
    assert sum(patch.get_height() for patch in right.patches) == 24
    (axes,) = descent_figure({1: [1.0, 0.1], 3: [1.0, -0.2]}, COLORS["perception"]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["k = 1", "k = 3"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [1.0, 0.2])
