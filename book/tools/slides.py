"""The slide decks of the teaching plan: reveal.js presentations that need no network.

A deck is made from ``book/slides/session_N.md``, the executed chapters, and the plan in ``book/teaching.md``. The
source is MyST Markdown. A line of three dashes ends a slide, and what follows a line ``Note:`` is for the speaker.
``<div class="fragment">`` appears on the next key. ``{glue:text}`01/worst:.0e``` inserts a number of chapter 1, and
``{glue:text}`plan/after``` a cell of the table of sessions, see :func:`plan`. On lines of their own stand:

================================== ==========================================================
``<!-- plan: summary -->``         the slides from here on belong to this row of the plan
``<!-- minutes: 10 -->``           the slide takes this part of its row; the others share the rest
``<!-- layout: side -->``          the text stands beside the figure; ``title``: a first slide
``{figure}`fig-ar-check```         a figure of a chapter; its caption goes to the notes
``{equation}`eq-ar-loss```         an equation of a chapter, with its number
``{quiz}`01 3```                   a question of a chapter's quiz; the answer is a fragment
``{exercise}`1.4```                an exercise; its solution goes to the notes
``{explorer}`03```                 the interactive figure of a chapter
``{table}`The report: points```    columns of the first table below a heading of ``book/teaching.md``, separated
                                   by commas, or all
================================== ==========================================================
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

from book.tools import ROOT, BookError, plain, site_extension
from ntps_utils._utils.files import write_text

SOURCES = Path("book", "slides")
"""Where the sources, the template and the style lie, relative to the root of the repository."""

REVEAL = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE")
"""The files of reveal.js that a deck needs."""

BLOCK = re.compile(r"^\{(figure|equation|quiz|exercise|explorer|table)\}`([^`\n]+)`$", re.M)
COMMENT = re.compile(r"^<!-- (plan|minutes|layout): (.+) -->$", re.M)
ROLE_WITH_TARGET = re.compile(r"\{\w+\}`([^`<]+?)(?: <[^`]*>)?`")


@dataclass(frozen=True)
class Row:
    """A row of the plan of a session.

    Attributes
    ----------
    start, minutes : int
        When it begins, and how long it takes, in minutes.
    what, how : str
        Text of the row, without roles.
    """

    start: int
    minutes: int
    what: str
    how: str


@dataclass
class Slide:
    """A slide as HTML.

    Attributes
    ----------
    row : Row
        Row of the plan that it belongs to.
    layout : str
        "text", "side" or "title".
    body, notes : str
        What the audience and the speaker see.
    minutes : int or None
        Minutes that its source gives it; None if it shares what the others of its row leave.
    seconds : int
        Its share of the minutes of its row.
    """

    row: Row
    layout: str
    body: str
    notes: str
    minutes: int | None = None
    seconds: int = 0


def plan(session: int, root: Path = ROOT) -> tuple[list[Row], dict[str, str]]:
    """Read the plan of a session from ``book/teaching.md``.

    Parameters
    ----------
    session : int
        Number of the session, from 1.
    root : Path
        Root folder of the repository.

    Returns
    -------
    rows : list of Row
    cells : dict of str to str
        What students read "before" the session, use in "class" and do "after" it. If there is a session before it,
        "homework" is what they do after that one; if there is one after it, "next" is what they read before that one.

    Raises
    ------
    BookError
        If there is no such session.

    Examples
    --------
    >>> rows, cells = plan(1)
    >>> sum(row.minutes for row in rows)
    90
    >>> cells["after"]
    'exercises 1.1 and 1.3'
    """
    text = (root / "book" / "teaching.md").read_text("utf-8")
    section = re.search(rf"^### Session {session}:.*?(?=^##|\Z)", text, re.M | re.S)
    lines = re.findall(r"^\| (\d+)\. [^|]+ \| (.+) \| (.+) \| (.+) \|$", ROLE_WITH_TARGET.sub(r"\1", text), re.M)
    sessions = {int(number): dict(zip(("before", "class", "after"), cells, strict=True)) for number, *cells in lines}
    if section is None or session not in sessions:
        raise BookError(f"book/teaching.md has no session {session}.")
    rows, start = list[Row](), 0
    for minutes, what, how in re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", section[0], re.M):
        rows.append(Row(start, int(minutes), ROLE_WITH_TARGET.sub(r"\1", what), ROLE_WITH_TARGET.sub(r"\1", how)))
        start += int(minutes)
    cells = sessions[session]
    if session - 1 in sessions:
        cells["homework"] = sessions[session - 1]["after"]
    if session + 1 in sessions:
        cells["next"] = sessions[session + 1]["before"]
    return rows, cells


def write(
    folder: Path,
    notebooks: Mapping[str, NotebookNode],
    values: Mapping[str, Mapping[str, Any]],
    found: plain.References,
    root: Path = ROOT,
) -> None:
    """Write all decks, with everything that they need, into a folder of their own.

    Parameters
    ----------
    folder : Path
        Folder to write; its former contents are removed.
    notebooks : mapping of str to NotebookNode
        The executed chapters by name, such as "03_score_and_bounds".
    values : mapping of str to mapping
        The values that each chapter glues.
    found : References
        Numbers of the chapters' figures and equations, and the macros of formulas.
    root : Path
        Root folder of the repository.

    Raises
    ------
    BookError
        If a source names something that does not exist, or has no slide for a row of the plan.
    """
    sources = root / SOURCES
    template = Environment(loader=FileSystemLoader(sources), autoescape=True).get_template("deck.html")
    shutil.rmtree(folder, ignore_errors=True)
    printed = {
        chapter: {name: _Printed(value) if isinstance(value, float) else value for name, value in own.items()}
        for chapter, own in values.items()
    }
    maker = _Maker(notebooks, printed, found, root)
    for source in sorted(sources.glob("session_*.md")):
        session = int(source.stem.removeprefix("session_"))
        text = source.read_text("utf-8")
        try:
            html = template.render(session=session, title=_title(text), slides=maker.slides(text, session))
        except KeyError as error:
            raise BookError(f"{source.relative_to(root)}: there is no {error.args[0]}.") from error
        except BookError as error:
            raise BookError(f"{source.relative_to(root)}: {error}") from error
        write_text(folder / f"{source.stem}.html", html)
    (folder / "figures").mkdir(exist_ok=True)
    for name, image in maker.images.items():
        (folder / "figures" / f"{name}.png").write_bytes(image)
    (folder / "reveal").mkdir()
    for name in REVEAL:
        shutil.copy(_reveal() / name, folder / "reveal")
    shutil.copy(site_extension.mathjax() / "tex-svg.js", folder)
    shutil.copy(sources / "slides.css", folder)
    shutil.copy(root / "book" / "_static" / "favicon.svg", folder)


class _Printed(float):
    """A number that is written as on the pages of the site."""

    def __format__(self, spec: str) -> str:
        return site_extension.readable(super().__format__(spec))


def _reveal() -> Path:
    """Return the folder of reveal.js in the package that carries it."""
    spec = find_spec("sphinx_revealjs")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("reveal.js was not found. Install the package sphinx-revealjs.")
    return Path(spec.origin).parent / "_static" / "revealjs"


def _title(text: str) -> str:
    heading = re.search(r"^# (.+)$", text, re.M)
    if heading is None:
        raise BookError("there is no title.")
    return heading[1]


def _formula(formula: str, options: Mapping[str, Any]) -> str:
    """Mark a formula for MathJax."""
    return rf"\[{escape(formula)}\]" if options["display_mode"] else rf"\({escape(formula)}\)"


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, renderer=_formula)


@dataclass(frozen=True)
class _Maker:
    """Makes slides from sources, and collects the images that they show."""

    notebooks: Mapping[str, NotebookNode]
    values: Mapping[str, Mapping[str, Any]]
    found: plain.References
    root: Path
    images: dict[str, bytes] = field(default_factory=dict)

    def slides(self, text: str, session: int) -> list[Slide]:
        """Convert a source."""
        rows, cells = plan(session, self.root)
        values = {f"plan/{name}": cell for name, cell in cells.items()}
        for chapter, own in self.values.items():
            values |= {f"{chapter[:2]}/{name}": value for name, value in own.items()}
        slides, row = list[Slide](), None
        for part in re.split(r"^---$", text, flags=re.M):
            options = dict(COMMENT.findall(part))
            if "plan" in options:
                row = next((r for r in rows if r.what == options["plan"]), None)
            if row is None:
                listing = ", ".join(r.what for r in rows)
                raise BookError(f"{options.get('plan')!r} is no row of the plan of session {session}: {listing}.")
            body, _, note = COMMENT.sub("", part).partition("\nNote:\n")
            html, more = self._blocks(body, values)
            minutes = int(options["minutes"]) if "minutes" in options else None
            slides.append(Slide(row, options.get("layout", "text"), html, self._html(note, values) + more, minutes))
        for row in rows:
            own_slides = [slide for slide in slides if slide.row is row]
            if not own_slides:
                raise BookError(f"there is no slide for the row {row.what!r} of the plan.")
            sharing = [slide for slide in own_slides if slide.minutes is None]
            left = row.minutes - sum(slide.minutes or 0 for slide in own_slides)
            if left < 0 or (left > 0) != bool(sharing):
                raise BookError(f"the minutes of the slides do not add up to the {row.minutes} of {row.what!r}.")
            for slide in own_slides:
                slide.seconds = 60 * left // len(sharing) if slide.minutes is None else 60 * slide.minutes
        return slides

    def _html(self, source: str, values: Mapping[str, Any]) -> str:
        return str(MARKDOWN.render(plain.markdown(source, values, self.found, self.root)))

    def _blocks(self, source: str, values: Mapping[str, Any]) -> tuple[str, str]:
        """Convert the text of a slide with its blocks; return what they add to the notes, too."""
        html, notes, end = "", "", 0
        for match in BLOCK.finditer(source):
            html += self._html(source[end : match.start()], values)
            block, note = getattr(self, f"_{match[1]}")(match[2])
            html, notes, end = html + block, notes + note, match.end()
        return html + self._html(source[end:], values), notes

    def _figure(self, name: str) -> tuple[str, str]:
        for chapter, notebook in self.notebooks.items():
            for cell in notebook.cells:
                settings = cell.metadata.get("mystnb", {})
                if settings.get("figure", {}).get("name") != name:
                    continue
                png = next(o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {}))
                self.images[name] = base64.b64decode(png)
                number = f"Fig. {self.found.numbers[name]}"
                caption = self._html(f"{number}. {settings['figure']['caption']}", self.values[chapter])
                image = f'<img src="figures/{name}.png" alt="{escape(settings["image"]["alt"])}">'
                return f"<figure>{image}<figcaption>{number}</figcaption></figure>", caption
        raise BookError(f"there is no figure {name}.")

    def _equation(self, label: str) -> tuple[str, str]:
        _, match = self._search(rf"^\$\$\n((?:(?!\$\$).)+?)\n\$\$ \({label}\)$", f"equation {label}")
        return self._html(f"$$\n{match[1]} \\tag{{{self.found.numbers[label]}}}\n$$", {}), ""

    def _quiz(self, name: str) -> tuple[str, str]:
        chapter, _, number = name.partition(" ")
        chapter, match = self._search(
            rf"^\*\*{number}\.\*\* (?P<question>[^\n]+)\n\n(?P<options>(?:- [^\n]+\n)+)\n"
            r":::\{admonition\} Answer\n:class: dropdown\n(?P<answer>.+?)\n:::$",
            f"question {number} in the quiz of chapter {chapter}",
            [chapter],
        )
        parts = {key: self._html(text, self.values[chapter]) for key, text in match.groupdict().items()}
        answer = f'<div class="fragment answer">{parts["answer"]}</div>'
        return f'<div class="quiz">{parts["question"]}{parts["options"]}</div>{answer}', ""

    def _exercise(self, number: str) -> tuple[str, str]:
        label = "ex-" + number.replace(".", "-")
        chapter, match = self._search(
            rf"^(`{{3,}})\{{exercise\}} [^\n]+\n:label: {label}\n\n\*Difficulty[^\n]+\n\n(?P<text>.+?)^\1$",
            f"exercise {number}",
        )
        # The starter code is in the notebook, where students work.
        text = self._html(re.sub(r"^```python\n.*?^```$", "", match["text"], flags=re.M | re.S), self.values[chapter])
        _, match = self._search(
            rf"^(`{{3,}})\{{solution\}} {label}\n:class: dropdown\n(?P<text>.+?)^\1$",
            f"solution of exercise {number}",
            [chapter],
        )
        solution = self._html(f"**Solution.** {match['text']}", self.values[chapter])
        return f'<div class="exercise"><p class="name">Exercise {number}</p>{text}</div>', solution

    def _explorer(self, chapter: str) -> tuple[str, str]:
        for name, notebook in self.notebooks.items():
            for output in (o for cell in notebook.cells for o in cell.get("outputs", [])):
                html = str(output.get("data", {}).get("text/html", ""))
                if name.startswith(chapter) and 'class="ntps-explorer' in html:
                    return f'<div class="explorer">{html}</div>', ""
        raise BookError(f"chapter {chapter} has no interactive figure.")

    def _table(self, name: str) -> tuple[str, str]:
        heading, _, columns = name.partition(": ")
        text = (self.root / "book" / "teaching.md").read_text("utf-8")
        match = re.search(rf"^#+ {re.escape(heading)}$[^|]*?((?:^\|.*\n)+)", text, re.M)
        if match is None:
            raise BookError(f"book/teaching.md has no table below {heading!r}.")
        rows = [line.strip("| ").split(" | ") for line in match[1].splitlines()]
        try:
            kept = [rows[0].index(column) for column in columns.split(", ")] if columns else range(len(rows[0]))
        except ValueError as error:
            raise BookError(f"the table below {heading!r}: {error}.") from error
        return self._html("\n".join(f"| {' | '.join(row[i] for i in kept)} |" for row in rows), {}), ""

    def _search(self, pattern: str, name: str, chapters: Sequence[str] = ("",)) -> tuple[str, re.Match[str]]:
        """Find something in the texts of the chapters whose names begin with one of ``chapters``."""
        for chapter, notebook in self.notebooks.items():
            for cell in notebook.cells:
                if cell.cell_type == "markdown" and chapter.startswith(tuple(chapters)):
                    match = re.search(pattern, cell.source, re.M | re.S)
                    if match:
                        return chapter, match
        raise BookError(f"there is no {name}.")
