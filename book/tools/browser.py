"""A headless Chromium on the built site: for its tests, and for the book as one PDF.

python -m book.tools.browser FILE.pdf    print the site in _build/html, page after page
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

from ntps_utils._utils.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # it opens our own pages only, and containers have no other way
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
    """There is no Chromium or no site. One line says what to do."""


def find_chromium() -> str:
    """The program: ``CHROMIUM`` if set, or the first of the usual names.

    Raises
    ------
    BrowserError
        If there is none.
    """
    found = next((path for name in (os.environ.get("CHROMIUM"), *NAMES) if name and (path := shutil.which(name))), None)
    if found is None:
        raise BrowserError("There is no Chromium: apt-get install chromium, or set CHROMIUM to one.")
    return found


def pages(root: Path = ROOT) -> list[str]:
    """Pages of the book in order, as the table of contents names them."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address at which a folder is served on this machine, for the length of a ``with`` block."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a page that is closed drops what it still asks for

    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser of playwright's."""
    from playwright.sync_api import sync_playwright

    program = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def export(site: Path, file: Path) -> int:
    """Print every page and join them, each under its title in the PDF's outline; the number of sheets.

    Raises
    ------
    BrowserError
        If there is no Chromium, or the site was not built.
    """
    from pypdf import PdfReader, PdfWriter

    if not (site / "index.html").is_file():
        raise BrowserError(f"There is no site in {site}: make book.")
    whole = PdfWriter()
    with served(site) as address, chromium() as browser:
        page = browser.new_page()
        page.emulate_media(media="print", color_scheme="light")
        for name in pages():
            answer = page.goto(f"{address}/{name}.html")
            if answer is None or not answer.ok:
                raise BrowserError(f"The site in {site} lacks the page {name}: make book.")
            page.evaluate(READY)
            page.add_style_tag(content=PRINT)
            page.evaluate(UNFOLD)
            printed = page.pdf(
                format="A4",
                scale=0.8,
                print_background=True,
                margin={"top": "16mm", "bottom": "16mm", "left": "16mm", "right": "16mm"},
            )
            first = len(whole.pages)
            whole.append(PdfReader(io.BytesIO(printed)), import_outline=False)
            title = page.locator("article h1").first.inner_text().rstrip("#").strip()
            whole.add_outline_item(title=title, page_number=first)
    with atomic_path(file) as temporary:
        whole.write(temporary)
    return len(whole.pages)


def main(arguments: list[str]) -> int:
    """Entry point of ``python -m book.tools.browser``."""
    if len(arguments) not in (1, 2) or not arguments[0].endswith(".pdf"):
        print(__doc__, file=sys.stderr)
        return 2
    file, site = Path(arguments[0]), Path(arguments[1]) if arguments[1:] else ROOT / "_build" / "html"
    try:
        n_sheets = export(site, file)
    except BrowserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{n_sheets} pages are in {file.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
