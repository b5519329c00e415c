"""Sphinx extension of the book's site: mathematics without a network, launch buttons, and where it comes from."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.fileutil import copy_asset

import ntps_utils

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


def _mend_roles(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """docutils calls a bibliography a list, and its entries something that no list may hold."""
    if "body" in context:
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )


def repository() -> str | None:
    """Address of the public repository: ``NTPS_REPOSITORY``, or what GitHub Actions says."""
    named = os.environ.get("NTPS_REPOSITORY")
    if named is None and "GITHUB_REPOSITORY" in os.environ:
        named = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{os.environ['GITHUB_REPOSITORY']}"
    return named.rstrip("/") if named else None


def _launch_buttons(app: Sphinx, config: Config) -> None:
    """Binder and Colab open the notebooks of the repository; without one there is nothing to open, and no button."""
    address = repository()
    if address is not None:
        config.html_theme_options = {
            **config.html_theme_options,
            "repository_url": address,
            "repository_branch": os.environ.get("NTPS_BRANCH", "main"),
            "launch_buttons": {
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
                "notebook_interface": "jupyterlab",
            },
        }


def edition() -> str:
    """Version, day and commit of this build, for the foot of every page."""
    git = ["git", "-C", str(Path(__file__).parent)]
    asked = [subprocess.run([*git, *rest], capture_output=True, text=True, check=False) for rest in _GIT]
    commit, changes = (done.stdout.strip() if done.returncode == 0 else "" for done in asked)
    source = f" from commit {commit}{' with changes' if changes else ''}" if commit else ""
    return (
        f"Edition {ntps_utils.__version__}, built {datetime.now(UTC):%Y-%m-%d}{source} with Python "
        f"{platform.python_version()} and Jupyter Book {metadata.version('jupyter-book')}."
    )


_GIT = (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))


def _edition(app: Sphinx, config: Config) -> None:
    options = config.html_theme_options
    options["extra_footer"] = f"<p>{edition()} {options.get('extra_footer', '')}</p>"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", _launch_buttons)
    app.connect("config-inited", _edition)
    app.connect("build-finished", _copy_mathjax)
    app.connect("html-page-context", _drop_thebe, priority=900)
    app.connect("html-page-context", _mend_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
