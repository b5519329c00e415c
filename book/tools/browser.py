"""Open the built site in a headless Chromium: for its tests, and to print the book and its slides.

    python -m book.tools.browser [SITE]

prints the pages in the folder SITE, by default _build/html, in the order of the book and without the
API reference, to SITE/ntps.pdf, and puts a link to it on the front page. Each slide deck is printed beside its page in
SITE/slides.
"""

from __future__ import annotations

import io
import os
import re
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
from ntps_utils._utils.files import atomic_path, write_text

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # containers do not support the sandbox; only pages of the book are opened
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
READY = "() => !window.MathJax || (window.MathJax.startup.promise || Promise.resolve()).then(() => true)"
PDF = "ntps.pdf"
"""Name of the printed book in the folder of the site."""

LINK = re.compile(r'<p id="book-as-pdf">.*?</p>', re.S)
"""Paragraph of the front page that holds the link to the printed book; empty until there is one."""

PRINT = """
@page { size: A4; margin: 16mm; @bottom-center { content: counter(page); font: 9pt sans-serif; color: #555; } }
@page :first { @bottom-center { content: none; } }
body { background: #fff; }
pre, code { white-space: pre-wrap !important; overflow-wrap: anywhere; }
details.hide, .ntps-explorer, .cell_output script { display: none !important; }
figure, table, .admonition-title, mjx-container[display], div.highlight, div.cell_input { break-inside: avoid; }
h1, h2, h3, h4 { break-inside: avoid; break-after: avoid; }
article, #contents { break-before: page; }
#title { padding-top: 60mm; text-align: center; }
#title .name { font-size: 2.4rem; line-height: 1.2; text-wrap: balance; margin-bottom: 3rem; }
#contents ol { list-style: none; padding: 0; }
#contents li { display: flex; justify-content: space-between; }
"""

ASSEMBLE = """
async ({pages, parts, name, author}) => {
  const book = document.createElement("main"), root = new URL(document.documentElement.dataset.content_root, location);
  const files = new Map(pages.map((page) => [new URL(`${page}.html`, root).pathname, page]));
  const anchor = (page, id) => id ? `${page}--${id}` : page;
  const footer = document.querySelector(".extra_footer").innerText;
  const entries = [];
  for (const page of pages) {
    const address = new URL(`${page}.html`, root);
    const source = new DOMParser().parseFromString(await (await fetch(address)).text(), "text/html");
    const article = document.importNode(source.querySelector("article"), true);
    for (const e of article.querySelectorAll("script, .headerlink")) e.remove();
    for (const e of article.querySelectorAll("[id]")) if (!e.id.startsWith("T_")) e.id = anchor(page, e.id);
    for (const e of article.querySelectorAll("img")) {
      e.loading = "eager";
      e.src = new URL(e.getAttribute("src"), address);
    }
    for (const e of article.querySelectorAll("a[href]")) {
      const url = new URL(e.getAttribute("href"), address), to = files.get(url.pathname);
      if (url.origin !== location.origin) continue;
      if (to) e.href = "#" + anchor(to, decodeURIComponent(url.hash.slice(1)));
      else e.replaceWith(...e.childNodes);
    }
    article.id = page;
    book.append(article);
    if (parts[page]) entries.push(`<li><b>${parts[page]}</b></li>`);
    const title = article.querySelector("h1").textContent;
    entries.push(`<li><a href="#${page}">${title}</a><span class="sheet"></span></li>`);
  }
  const paper = "A companion to the paper <i>Next Token Perception Score</i>, arXiv:2505.17169";
  book.insertAdjacentHTML("afterbegin", `
    <section id="title"><p class="name">${name}</p><p>${paper}</p><p>${author}</p><p>${footer}</p></section>
    <section id="contents"><h1>Contents</h1><ol>${entries.join("")}</ol></section>`);
  document.title = name;
  document.body.replaceChildren(book);
  await Promise.all([...document.images].map((image) => image.decode()));
  await MathJax.typesetPromise([book]);
}
"""
"""Put the articles of all pages into one document. T_ begins the names that the styles of tables refer to."""

NUMBER = "(sheets) => document.querySelectorAll('.sheet').forEach((e, i) => { e.textContent = sheets[i]; })"


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


def parts(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the names of the book's pages by part, in the order of the table of contents.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Returns
    -------
    dict of str to list of str
        The front page belongs to a part without a name.

    Examples
    --------
    >>> parts()["Start"]
    ['book/install', 'book/lab']
    """
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    listed = {
        part["caption"]: [
            page["file"] for chapter in part["chapters"] for page in (chapter, *chapter.get("sections", ()))
        ]
        for part in toc["parts"]
    }
    return {"": [toc["root"]], **listed}


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
    ['book/intro', 'book/install']
    """
    return [page for part in parts(root).values() for page in part]


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
    """Print the book, without the API reference, into one PDF with a title page, contents and page numbers.

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
    printed = {part: names for part, names in parts().items() if part != "API reference"}
    names = [name for part in printed.values() for name in part]
    for name in names:
        if not (site / f"{name}.html").is_file():
            raise BrowserError(f"The site in {site} has no page {name}. Build it again with `make book`.")
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    settings = {
        "pages": names,
        "parts": {part[0]: caption for caption, part in printed.items() if caption},
        "name": config["title"],
        "author": config["author"],
    }
    with served(site) as address, chromium() as browser:
        page = browser.new_page()
        page.emulate_media(media="print", color_scheme="light")
        page.goto(f"{address}/{names[0]}.html")
        page.evaluate(READY)
        page.add_style_tag(content=PRINT)
        page.evaluate(ASSEMBLE, settings)

        def printed_book() -> PdfReader:
            return PdfReader(
                io.BytesIO(page.pdf(scale=0.8, print_background=True, prefer_css_page_size=True, tagged=True))
            )

        def first_sheets(pdf: PdfReader) -> list[int]:
            targets = pdf.named_destinations
            return [pdf.get_destination_page_number(targets[f"/{name}"]) or 0 for name in names]

        sheets = first_sheets(printed_book())
        page.evaluate(NUMBER, [sheet + 1 for sheet in sheets])
        document = PdfWriter(clone_from=printed_book())
        titles = page.eval_on_selector_all("article h1", "headings => headings.map(h => h.innerText)")
    for title, sheet in zip(titles, sheets, strict=True):
        document.add_outline_item(title=title, page_number=sheet)
    document.add_metadata({"/Author": settings["author"]})
    with atomic_path(file) as temporary:
        document.write(temporary)
    return len(document.pages)


def export_slides(site: Path) -> dict[Path, int]:
    """Print each slide deck into a PDF beside it, with the answers of its quiz.

    Parameters
    ----------
    site : Path
        Folder of the built site.

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
            with atomic_path(deck.with_suffix(".pdf")) as temporary:
                temporary.write_bytes(printed)
            sheets[deck.with_suffix(".pdf")] = len(PdfReader(io.BytesIO(printed)).pages)
    return sheets


def link(site: Path, n_sheets: int) -> None:
    """Put a link to the printed book on the front page.

    Parameters
    ----------
    site : Path
        Folder of the built site, with the printed book in it.
    n_sheets : int
        Number of sheets of the printed book.
    """
    front = site / f"{pages()[0]}.html"
    size = (site / PDF).stat().st_size / 1e6
    html = f'<p id="book-as-pdf"><a href="../{PDF}">The book as one PDF</a>: {n_sheets} pages, {size:.0f} MB.</p>'
    write_text(front, LINK.sub(html, front.read_text("utf-8")))


def main(arguments: list[str]) -> int:
    """Run ``python -m book.tools.browser``.

    Parameters
    ----------
    arguments : list of str
        Optionally the folder of the site.

    Returns
    -------
    int
        Exit status: 2 for invalid arguments, or if Chromium or the site is missing.
    """
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    site = Path(arguments[0]) if arguments else ROOT / "_build" / "html"
    try:
        n_sheets = export(site, site / PDF)
        decks = export_slides(site)
    except BrowserError as error:
        print(error, file=sys.stderr)
        return 2
    link(site, n_sheets)
    for path, n in {site / PDF: n_sheets, **decks}.items():
        print(f"{n} pages were written to {path.resolve()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
