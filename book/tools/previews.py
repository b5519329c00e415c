"""Sphinx extension for the book: links to the glossary and to theorems, and the texts of their previews.

The sources mention terms, symbols and theorems without a mark. This extension links the first mention of each
term on a page, links theorems that a page names by their letters, and marks formulas that are one symbol.
``_static/previews.js`` shows what this extension collects from the built pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

GLOSSARY, NOTATION, REFERENCE = "book/glossary", "book/notation", "book/api"

WITHOUT_TERMS = {GLOSSARY, "book/install", "book/built", "book/broken", "book/bibliography"}
"""Pages that use the words of the glossary in other senses as well."""

OTHER_SENSES = "cells?|gains|(?<=to )gain|setting the"
"""Mentions that are not linked: most cells are those of a notebook, and the others are verbs."""

UNLINKED = (
    nodes.title,
    nodes.caption,
    nodes.emphasis,
    nodes.reference,
    nodes.FixedTextElement,
    nodes.literal,
    nodes.math,
    nodes.raw,
)
LETTER = re.compile(r"\(([a-z])\)")

Find = Callable[[str], tuple[re.Match[str], str] | None]
"""Finds the first text that needs a link, and the address for it."""


def term_pattern(name: str) -> str:
    """Return a regular expression for the mentions of a term.

    Parameters
    ----------
    name : str
        Entry of the glossary, such as "probe" or "NTPS, metric-matched".

    Returns
    -------
    str

    Examples
    --------
    >>> [bool(re.fullmatch(term_pattern("probe"), word)) for word in ("Probes", "probed")]
    [True, False]
    >>> bool(re.fullmatch(term_pattern("NTPS, metric-matched"), "metric-matched"))
    True
    """
    noun, _, addition = name.partition(", ")
    phrase = addition if "-" in addition else noun
    return rf"(?i:{re.escape(phrase.removesuffix('s'))}s?)" if phrase.islower() else re.escape(phrase)


class LinkMentions(SphinxPostTransform):
    """Link terms and theorems, and mark symbols."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Change the document."""
        page = self.env.docname
        if page.startswith(REFERENCE):
            return
        self._mark_symbols(page)
        if page not in WITHOUT_TERMS:
            self._link(self._next_term(page), "term")
        self._link(self._next_theorem(), "theorem")

    def _mark_symbols(self, page: str) -> None:
        """Give the rows of the notation ids, and formulas that are a symbol the id of its row as a class.

        Small letters without an index have other meanings in some chapters.
        """
        notation = self.document if page == NOTATION else self.env.get_doctree(NOTATION)
        symbols = dict[str, str]()
        for i, row in enumerate(row for body in notation.findall(nodes.tbody) for row in body.findall(nodes.row)):
            symbols |= {math.astext(): f"symbol-{i}" for math in row[0].findall(nodes.math)}
            if page == NOTATION:
                row["ids"].append(f"symbol-{i}")
        if page != NOTATION:
            for math in self.document.findall(nodes.math):
                if math.astext() in symbols and not re.fullmatch("[a-z]", math.astext()):
                    math["classes"].append(symbols[math.astext()])

    def _next_term(self, page: str) -> Find:
        objects = self.env.get_domain("std").get_objects()
        patterns = {
            anchor: re.compile(rf"(?<![\w-])(?!(?i:{OTHER_SENSES})\b){term_pattern(name)}(?![\w-])")
            for name, _, kind, _, anchor, _ in objects
            if kind == "term"
        }
        address = self.app.builder.get_relative_uri(page, GLOSSARY)

        def find(text: str) -> tuple[re.Match[str], str] | None:
            found = {anchor: match for anchor, pattern in patterns.items() if (match := pattern.search(text))}
            if not found:
                return None
            anchor = min(found, key=lambda a: found[a].start())
            del patterns[anchor]
            return found[anchor], f"{address}#{anchor}"

        return find

    def _next_theorem(self) -> Find:
        theorems = {}
        for node in self.document.findall(nodes.Element):
            if "theorem" in node.get("classes", ()) and (title := re.match(r"\W*([a-z])\. ", node.get("title", ""))):
                theorems[title[1]] = node["ids"][0]

        def find(text: str) -> tuple[re.Match[str], str] | None:
            for match in LETTER.finditer(text):
                if match[1] in theorems:
                    return match, f"#{theorems[match[1]]}"
            return None

        return find

    def _link(self, find: Find, kind: str) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if _is_unlinked(text):
                continue
            rest, pieces = text.astext(), list[nodes.Node]()
            while found := find(rest):
                match, address = found
                link = nodes.reference("", match[0], refuri=address, internal=True, classes=[kind])
                pieces += [nodes.Text(rest[: match.start()]), link]
                rest = rest[match.end() :]
            if pieces:
                text.parent.replace(text, [*pieces, nodes.Text(rest)])


def _is_unlinked(text: nodes.Text) -> bool:
    """Whether a text gets no links: in titles, captions, links and code, and in a quiz, whose answers have letters."""
    node = text.parent
    while node is not None:
        if isinstance(node, UNLINKED) or "quiz" in node.get("ids", ()):
            return True
        node = node.parent
    return False


def previews(html: str) -> dict[str, str]:
    """Return what the previews of links to a page show.

    Parameters
    ----------
    html : str
        A built page.

    Returns
    -------
    dict of str to str
        HTML by anchor, for terms, symbols, numbered equations and theorems.

    Examples
    --------
    >>> previews('<dl class="glossary"><dt id="term-a">a<a class="headerlink">#</a></dt><dd><p>First.</p></dd></dl>')
    {'term-a': '<b>a</b><p>First.</p>'}
    """
    page, texts = BeautifulSoup(html, "html.parser"), dict[str, str]()
    for term in page.select("dl.glossary dt[id]"):
        texts[str(term["id"])] = f"<b>{_inner(term)}</b>{_inner(term.find_next_sibling('dd'))}"
    for row in page.select('tr[id^="symbol-"]'):
        symbol, shape, meaning = (_inner(cell) for cell in row.find_all("td"))
        texts[str(row["id"])] = f"{symbol}{meaning}{shape}"
    for block in page.select("div.math[id], div.theorem[id]"):
        texts[str(block["id"])] = f'<div class="{" ".join(block["class"])}">{_inner(block)}</div>'
    return texts


def _inner(tag: Tag | None) -> str:
    """Return the contents of an element without ids and links."""
    contents = BeautifulSoup(tag.decode_contents() if tag else "", "html.parser")
    for link in contents.find_all("a"):
        if "headerlink" in link.get_attribute_list("class"):
            link.decompose()
        else:
            link.unwrap()
    for element in contents.find_all(id=True):
        del element["id"]
    return str(contents)


def _write_previews(app: Sphinx, error: Exception | None) -> None:
    """Write the previews of all pages to a script, which pages can load without a server."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    texts = {
        f"{page}.html#{anchor}": text
        for page in sorted(app.env.found_docs)
        if not page.startswith(REFERENCE)
        for anchor, text in previews((folder / f"{page}.html").read_text("utf-8")).items()
    }
    script = f"const previewTexts = {json.dumps(texts, ensure_ascii=False, indent=0)};\n"
    (folder / "_static" / "preview_texts.js").write_text(script, "utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect this extension to Sphinx.

    Parameters
    ----------
    app : Sphinx

    Returns
    -------
    dict
        Metadata of the extension.
    """
    app.add_post_transform(LinkMentions)
    app.connect("build-finished", _write_previews)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
