"""Open the built site in a headless Chromium: for its tests, and to print the book and its slides.

    python -m book.tools.browser FILE.pdf [SITE]

prints the pages in the folder SITE, by default _build/html, in the order of the book, and each slide deck into a
file beside it, such as FILE_session_1.pdf.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from book.tools import ROOT
from ntps_utils._utils.files import atomic_path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # containers do not support the sandbox; only pages of the book are opened
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
READY = "() => !window.MathJax || (window.MathJax.startup.promise || Promise.resolve()).then(() => true)"
PRINT = """
pre, code { white-space: pre-wrap !important; overflow-wrap: anywhere; }
#jb-print-toc, details.hide, .toggle-button, .ntps-explorer { display: none !important; }
.toggle-hidden > :not(.admonition-title) { display: block !important; visibility: visible !important; }
figure, table, .admonition-title, mjx-container[display], div.highlight, div.cell_input { break-inside: avoid; }
h1, h2, h3, h4 { break-inside: avoid; break-after: avoid; }
"""
UNFOLD = "() => document.querySelectorAll('.toggle-hidden').forEach(e => e.classList.remove('toggle-hidden'))"


class BrowserError(RuntimeError):
    """Chromium or the site is missing. The message is one line that says what to do."""


def find_chromium() -> str:
    """Find the Chromium program.

    Returns
    -------
    str
        Path of the program that the environment variable ``CHROMIUM`` names, or of the first
        installed one of :data:`NAMES`.

    Raises
    ------
    BrowserError
        If there is none.
    """
    for name in (os.environ.get("CHROMIUM"), *NAMES):
        if name and (path := shutil.which(name)):
            return path
    raise BrowserError("Chromium was not found. Install it (apt-get install chromium) or set CHROMIUM to its path.")


def pages(root: Path = ROOT) -> list[str]:
    """Return the names of the book's pages in the order of the table of contents.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Returns
    -------
    list of str

    Examples
    --------
    >>> pages()[:2]
    ['book/intro', 'notebooks/01_linear_autoregression']
    """
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(page["file"] for chapter in chapters for page in (chapter, *chapter.get("sections", ())))]


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder on this machine within a ``with`` block.

    Parameters
    ----------
    site : Path

    Yields
    ------
    str
        The address, without a slash at the end.
    """

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a page that is closed aborts its requests

    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless Chromium within a ``with`` block.

    Yields
    ------
    playwright.sync_api.Browser

    Raises
    ------
    BrowserError
        If Chromium is not installed.
    """
    from playwright.sync_api import sync_playwright

    program = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def export(site: Path, file: Path) -> int:
    """Print all pages of the book into one PDF with an outline of their titles.

    Parameters
    ----------
    site : Path
        Folder of the built site.
    file : Path
        PDF to write.

    Returns
    -------
    int
        Number of sheets.

    Raises
    ------
    BrowserError
        If Chromium is not installed, or the site or one of its pages is missing.
    """
    from pypdf import PdfReader, PdfWriter

    if not (site / "index.html").is_file():
        raise BrowserError(f"There is no site in {site}. Build it with `make book`.")
    document = PdfWriter()
    with served(site) as address, chromium() as browser:
        page = browser.new_page()
        page.emulate_media(media="print", color_scheme="light")
        for name in pages():
            answer = page.goto(f"{address}/{name}.html")
            if answer is None or not answer.ok:
                raise BrowserError(f"The site in {site} has no page {name}. Build it again with `make book`.")
            page.evaluate(READY)
            page.add_style_tag(content=PRINT)
            page.evaluate(UNFOLD)
            printed = page.pdf(
                format="A4",
                scale=0.8,
                print_background=True,
                margin={"top": "16mm", "bottom": "16mm", "left": "16mm", "right": "16mm"},
            )
            first = len(document.pages)
            document.append(PdfReader(io.BytesIO(printed)), import_outline=False)
            title = page.locator("article h1").first.inner_text().rstrip("#").strip()
            document.add_outline_item(title=title, page_number=first)
    with atomic_path(file) as temporary:
        document.write(temporary)
    return len(document.pages)


def export_slides(site: Path, file: Path) -> dict[Path, int]:
    """Print each slide deck into a PDF of its own, with the answers of its quiz.

    Parameters
    ----------
    site : Path
        Folder of the built site.
    file : Path
        PDF of the book; "_session_1" and so on are added to its name.

    Returns
    -------
    dict of Path to int
        Number of sheets by file.

    Raises
    ------
    BrowserError
        If Chromium is not installed.
    """
    from pypdf import PdfReader

    sheets = {}
    with served(site) as address, chromium() as browser:
        for deck in sorted((site / "slides").glob("session_*.html")):
            page = browser.new_page()
            page.goto(f"{address}/slides/{deck.name}?print-pdf")
            page.wait_for_selector(".pdf-page", state="attached")
            printed = page.pdf(prefer_css_page_size=True, print_background=True)
            target = file.with_stem(f"{file.stem}_{deck.stem}")
            with atomic_path(target) as temporary:
                temporary.write_bytes(printed)
            sheets[target] = len(PdfReader(io.BytesIO(printed)).pages)
    return sheets


def main(arguments: list[str]) -> int:
    """Run ``python -m book.tools.browser``.

    Parameters
    ----------
    arguments : list of str
        PDF file, and optionally the folder of the site.

    Returns
    -------
    int
        Exit status: 2 for invalid arguments, or if Chromium or the site is missing.
    """
    if len(arguments) not in (1, 2) or not arguments[0].endswith(".pdf"):
        print(__doc__, file=sys.stderr)
        return 2
    file, site = Path(arguments[0]), Path(arguments[1]) if arguments[1:] else ROOT / "_build" / "html"
    try:
        sheets = {file: export(site, file)} | export_slides(site, file)
    except BrowserError as error:
        print(error, file=sys.stderr)
        return 2
    for path, n_sheets in sheets.items():
        print(f"{n_sheets} pages were written to {path.resolve()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
