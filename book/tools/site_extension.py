"""Sphinx extension for the book.

Offline MathJax, launch buttons, numbers as in print, descriptions of the pages for search engines and
previews, a link to report an error, and the edition at the foot of each page.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from html import escape, unescape
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.fileutil import copy_asset

import ntps_utils

PLAIN = Path("notebooks", "plain")
"""The copies that book.tools.plain makes. Sphinx does not find the package ``book``, so that it cannot be imported."""

MATHJAX = ("tex-chtml.js", "core.js", "loader.js", "startup.js", "input/tex", "output/chtml", "ui", "a11y", "sre")


def mathjax() -> Path:
    """Return the folder of MathJax in the package that carries it.

    Returns
    -------
    Path

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    """
    spec = find_spec("sphinx-mathjax-offline")  # the package's import name has hyphens
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("MathJax was not found. Install the package sphinx-mathjax-offline.")
    return Path(spec.origin).parent / "static" / "mathjax"


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy the parts of MathJax that the pages use into the site."""
    if error is not None or app.builder.format != "html":
        return
    source, target = mathjax(), Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX:
        copy_asset(str(source / part), str((target / part) if (source / part).is_dir() else (target / part).parent))


def _drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Remove the scripts of sphinx-thebe: no page has live cells, and the scripts declare constants twice."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in str(getattr(script, "filename", script)).lower()
        and "THEBE" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]


def _remove_list_role(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Remove the role "list" from bibliographies: docutils gives their entries roles that a list may not contain."""
    if "body" in context:
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )


NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]\d+)?(?![\w.])")
CELL = re.compile(r'(<td[^>]*>(?:<p>)?|<span class="pasted-text">)([^<]*)')
"""A cell of a table, or a value in the text."""


def readable(text: str) -> str:
    r"""Write the numbers in a text as in print.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        Without signs before zero, without exponents, and with three significant digits where
        there were at least six decimals.

    Examples
    --------
    >>> readable("-0.00 to 3e+07")
    '0.00 to 3\xa0×\xa010⁷'
    >>> readable("0.018000, 5.8e+05, 1e-16")
    '0.018, 580,000, 10⁻¹⁶'
    """
    return NUMBER.sub(lambda match: _readable_number(match[0]), text)


def _readable_number(text: str) -> str:
    value = float(text)
    if value == 0:
        text = text.removeprefix("-")
    if len(text.partition(".")[2]) >= 6 and "e" not in text:
        text = f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    if 1e-3 <= abs(value) < 1e6:
        return f"{Decimal(text):,f}"
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1" else f"{mantissa}\u00a0×\u00a0{power}"


def _readable_numbers(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Write the numbers in tables, and the values in the text, as in print."""
    if "body" in context:
        context["body"] = CELL.sub(lambda match: match[1] + readable(match[2]), context["body"])


def description(doctree: nodes.document) -> str:
    """Describe a page by the beginning of its first paragraph outside of boxes.

    Parameters
    ----------
    doctree : docutils.nodes.document

    Returns
    -------
    str
        At most 200 characters.
    """
    for paragraph in doctree.findall(nodes.paragraph):
        text = re.sub(r"\s*\[[A-Z][\w+]*\d\d\]|[{}\\]", "", " ".join(paragraph.astext().split()))
        if isinstance(paragraph.parent, nodes.section) and len(text) > 40:
            return text if len(text) <= 200 else text[:199].rsplit(" ", 1)[0].rstrip(",;:") + "…"
    return ""


def _describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Add the description of a page, for search engines and for previews of links to it."""
    if doctree is None:
        return
    title, site = unescape(re.sub("<[^>]+>", "", context["title"])), app.config.html_title or app.config.project
    text = description(doctree) or f"{title}. {site}"
    properties = {"title": title, "description": text, "type": "article", "site_name": site}
    if app.config.html_baseurl:
        base = f"{app.config.html_baseurl.rstrip('/')}/"
        properties["url"] = f"{base}{page}.html"
        if image := re.search(r'<img[^>]*src="(?:\.\./)*(_images/[^"]+\.png)"', context["body"]):
            properties["image"] = base + image[1]
    tags = [f'<meta name="description" content="{escape(text)}">', '<meta name="twitter:card" content="summary">']
    tags += [f'<meta property="og:{name}" content="{escape(value)}">' for name, value in properties.items()]
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def _report_link(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Add a link to report an error in a page, if the repository's address is known."""
    address = repository()
    if address is not None and doctree is not None:
        report = f"{address}/issues/new?title={quote(f'Error on the page {page}')}"
        context["theme_extra_footer"] += f'<p><a href="{report}">Report an error on this page</a></p>'


def repository() -> str | None:
    """Return the address of the public repository.

    Returns
    -------
    str or None
        The environment variable ``NTPS_REPOSITORY``, or the repository in which GitHub Actions
        runs; None if neither is known.
    """
    address = os.environ.get("NTPS_REPOSITORY")
    if address is None and "GITHUB_REPOSITORY" in os.environ:
        address = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{os.environ['GITHUB_REPOSITORY']}"
    return address.rstrip("/") if address else None


def _name_source(app: Sphinx, page: str, source: list[str]) -> None:
    """Say where the source can be had, on the page on installation."""
    if page == "book/install":
        address = repository()
        how = (
            f"```bash\ngit clone {address} && cd {address.rpartition('/')[2]}\n```"
            if address
            else "Its public address was not known when these pages were built: ask for the source where you got them."
        )
        source[0] = source[0].replace("<!-- how to get the source -->", how)


def _launch_buttons(app: Sphinx, config: Config) -> None:
    """Add the site's address, and the buttons of Binder and Colab, if the repository's address is known."""
    address = repository()
    if address is not None:
        if match := re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", address):  # where the workflow publishes
            config.html_baseurl = f"https://{match[1].lower()}.github.io/{match[2]}/"
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


def _open_plain_copies(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Let the launch buttons open the copies of chapters without MyST, which those programs do not know."""
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if page.startswith("notebooks/") and "url" in button and "_sources" not in button["url"]:
                for separator in ("/", "%2F"):  # Binder gets the path as a parameter
                    plain = separator.join((*PLAIN.parts, ""))
                    button["url"] = button["url"].replace(f"notebooks{separator}", plain)


def _download_plain_copies(app: Sphinx, error: Exception | None) -> None:
    """Replace the notebooks that can be downloaded by the copies without MyST."""
    for path in (Path(app.srcdir) / PLAIN).glob("*.ipynb"):
        downloaded = Path(app.outdir) / "_sources" / "notebooks" / path.name
        if error is None and downloaded.is_file():
            downloaded.write_bytes(path.read_bytes())


def edition() -> str:
    """Describe this build in one sentence, for the foot of each page.

    Returns
    -------
    str
        Version of the library, date, commit if git knows it, and versions of the tools.
    """
    commit, changes = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    source = f" from commit {commit}{' with changes' if changes else ''}" if commit else ""
    return (
        f"Edition {ntps_utils.__version__}, built {datetime.now(UTC):%Y-%m-%d}{source} with Python "
        f"{platform.python_version()} and Jupyter Book {metadata.version('jupyter-book')}."
    )


def _git(*arguments: str) -> str:
    """Return the output of a git command in this checkout, or an empty string if it fails."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return ""
    return process.stdout.strip() if process.returncode == 0 else ""


def _edition(app: Sphinx, config: Config) -> None:
    options = config.html_theme_options
    options["extra_footer"] = f"<p>{edition()} {options.get('extra_footer', '')}</p>"


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the functions above to the events of Sphinx.

    Parameters
    ----------
    app : Sphinx

    Returns
    -------
    dict
        Metadata of the extension.
    """
    app.connect("source-read", _name_source)
    app.connect("config-inited", _launch_buttons)
    app.connect("config-inited", _edition)
    app.connect("build-finished", _copy_mathjax)
    app.connect("build-finished", _download_plain_copies)
    app.connect("html-page-context", _open_plain_copies, priority=900)
    app.connect("html-page-context", _drop_thebe, priority=900)
    app.connect("html-page-context", _remove_list_role)
    app.connect("html-page-context", _readable_numbers)
    app.connect("html-page-context", _describe)
    app.connect("html-page-context", _report_link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
