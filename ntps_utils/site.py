"""Sphinx extension of the book's site: mathematics without a network, and a quiet console."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset

MATHJAX = ("tex-chtml.js", "core.js", "loader.js", "startup.js", "input/tex", "output/chtml", "ui", "a11y", "sre")


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put the part of MathJax that the pages use beside them."""
    if error is not None or app.builder.format != "html":
        return
    spec = find_spec("sphinx-mathjax-offline")  # the package's import name has hyphens
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("MathJax is missing: install the package sphinx-mathjax-offline.")
    source, target = Path(spec.origin).parent / "static" / "mathjax", Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX:
        copy_asset(str(source / part), str((target / part) if (source / part).is_dir() else (target / part).parent))


def _drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Leave out sphinx-thebe: no page offers live cells, and it declares its constants twice."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in str(getattr(script, "filename", script)).lower()
        and "THEBE" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("build-finished", _copy_mathjax)
    app.connect("html-page-context", _drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
