"""House style, and the interactive figure without a browser."""

from __future__ import annotations

import json
import re

import matplotlib as mpl

mpl.use("agg")

from ntps_utils.figures import COLOURS, house_style, identity_scatter, panels, subspace_explorer


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
