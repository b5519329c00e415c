"""Slides: they agree with the plan of their session, and show what the chapters show."""

from __future__ import annotations

import base64
import copy
import re
import shutil
from html import unescape
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pybtex.database import BibliographyData

from book.tools import BookError, plain, slides
from book.tools import refresh as book
from tests.conftest import ROOT

SESSIONS = range(1, 5)
CHAPTERS = book.chapters()
NOTEBOOKS = {source.stem: nbformat.read(source.with_suffix(".ipynb"), as_version=4) for source in CHAPTERS}
VALUES = book.glued_values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("decks") / "slides"
    found = book.references()
    slides.write(folder, NOTEBOOKS, VALUES, found)
    return folder


def source_of(session: int) -> str:
    return (ROOT / slides.SOURCES / f"session_{session}.md").read_text("utf-8")


def sections(html: str) -> list[str]:
    return re.findall(r"<section.*?</section>", html, re.S)


def text_of(html: str) -> str:
    """What a reader sees, formulas and interactive figures aside."""
    html = re.sub(r"<(script|style)\b.*?</\1>|\\\[.*?\\\]|\\\(.*?\\\)", "", html, flags=re.S)
    return unescape(re.sub(r"<[^>]+>", " ", html))


@pytest.mark.parametrize("session", SESSIONS)
def test_slides_follow_the_minutes_of_the_plan(folder, session):
    deck = sections((folder / f"session_{session}.html").read_text("utf-8"))
    rows, _ = slides.plan(session)
    assert 12 <= len(deck) <= 18
    headings = [
        f"Minutes {row.start} to {row.start + row.minutes}: {row.what}"
        for row in rows
        for slide in deck
        if f"Minutes {row.start} to {row.start + row.minutes}: {row.what}<" in unescape(slide)
    ]
    assert len(headings) == len(deck)
    assert len(set(headings)) == len(rows)
    for row, minutes in zip(rows, re.findall(r"^\| (\d+) \|", plan_of(session), re.M), strict=True):
        assert row.minutes == int(minutes)
    seconds = [int(s) for slide in deck for s in re.findall(r'data-timing="(\d+)"', slide)]
    assert len(seconds) == len(deck)
    assert 90 * 60 - len(deck) < sum(seconds) <= 90 * 60


def plan_of(session: int) -> str:
    text = (ROOT / "book" / "teaching.md").read_text("utf-8")
    return text.partition(f"### Session {session}:")[2].partition("\n##")[0]


@pytest.mark.parametrize("session", SESSIONS)
def test_last_slides_show_all_homework_and_reading(folder, session):
    """What the next session needs, students have seen on a slide."""
    last = text_of(sections((folder / f"session_{session}.html").read_text("utf-8"))[-1])
    _, cells = slides.plan(session)
    assert cells["after"] in last
    assert cells.get("next", "") in last
    assert ("next" in cells) == (session < len(SESSIONS))
    first = text_of(sections((folder / f"session_{session}.html").read_text("utf-8"))[0])
    assert all(cells[name] in first for name in ("before", "class"))
    assert cells.get("homework", "") in first


@pytest.mark.parametrize("session", SESSIONS)
def test_exercises_in_class_get_the_minutes_of_their_label(folder, session):
    """Homework is only compared with the solution."""
    texts = "\n".join(source.read_text("utf-8") for source in CHAPTERS)
    labels = dict(re.findall(r"^# :label: ex-(\d+-\d+)\n#\n# \*Difficulty.*?about (\d+) minutes", texts, re.M))
    for slide in sections((folder / f"session_{session}.html").read_text("utf-8")):
        named = re.search(r'class="name">Exercise (\d+)\.(\d+)<', slide)
        if named and "homework, and" not in slide:
            (seconds,) = re.findall(r'data-timing="(\d+)"', slide)
            assert int(seconds) >= 60 * int(labels["-".join(named.groups())]), named[0]


def test_sections_to_read_exist():
    """The table of sessions names the sections to read as their chapters do."""
    text = (ROOT / "book" / "teaching.md").read_text("utf-8")
    headings = "\n".join(page.read_text("utf-8") for page in [*CHAPTERS, *(ROOT / "book").glob("*.md")])
    named = re.findall(r'"([^"]+)"', re.findall(r"## Four sessions\n.*?(?=^Each session has)", text, re.M | re.S)[0])
    assert len(named) >= 5
    for name in named:
        assert re.search(rf"^#? ?## {re.escape(name)}$", headings, re.M), name


@pytest.mark.parametrize("session", SESSIONS)
def test_slides_are_short_and_every_note_asks_or_tells(folder, session):
    deck = sections((folder / f"session_{session}.html").read_text("utf-8"))
    for slide in deck:
        body, notes = slide.split('<aside class="notes">')
        assert len(re.findall(r"<h[12]>", body)) == 1, text_of(body)
        assert len(text_of(body).split()) <= 140, text_of(body)
        assert len(text_of(notes.partition("</p>")[2]).split()) >= 5, text_of(body)


@pytest.mark.parametrize("session", SESSIONS)
def test_no_markup_is_left(folder, session):
    text = text_of((folder / f"session_{session}.html").read_text("utf-8"))
    for pattern in (
        r"\{[\w:]+\}",
        r"\\[A-Za-z]+",
        r"\$",
        r"\*\*",
        r"^#",
        r"\]\(",
        r"^Note:",
        r"^\|",
        r"\bnan\b",
        r"```",
    ):
        assert re.search(pattern, text, re.M) is None, re.search(f".*{pattern}.*", text, re.M)
    formulas = re.findall(r"\\\[.*?\\\]|\\\(.*?\\\)", (folder / f"session_{session}.html").read_text("utf-8"), re.S)
    assert all(re.search(r"\\(R|E|tr|spn|rank|xbar)(?![A-Za-z])", formula) is None for formula in formulas)


def test_figures_are_those_of_the_committed_notebooks(folder):
    committed = {}
    for notebook in NOTEBOOKS.values():
        for cell in notebook.cells:
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            if name:
                (png,) = (o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {}))
                committed[name] = (base64.b64decode(png), cell.metadata["mystnb"]["image"]["alt"])
    shown = set()
    for session in SESSIONS:
        html = (folder / f"session_{session}.html").read_text("utf-8")
        for name, alt in re.findall(r'<img src="figures/([\w-]+)\.png" alt="([^"]+)">', html):
            assert (folder / "figures" / f"{name}.png").read_bytes() == committed[name][0]
            assert unescape(alt) == committed[name][1]
            shown.add(name)
        assert html.count("<img") == len(re.findall(r"^\{figure\}", source_of(session), re.M))
    assert {path.stem for path in (folder / "figures").iterdir()} == shown


@pytest.mark.parametrize("session", SESSIONS)
def test_no_number_is_typed_that_a_chapter_computes(session):
    not_text = r"\{\w+(:\w+)?\}`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|<!--.*?-->|exercise \d\.\d"
    text = re.sub(not_text, "", source_of(session), flags=re.S)
    assert re.findall(r"\d\.\d+|\d ?%", text) == []
    computed = {value for values in VALUES.values() for value in values.values() if isinstance(value, int)}
    typed = {int(number.replace(",", "")) for number in re.findall(r"(?<!\w)\d[\d,]*\b", text)}
    assert {number for number in typed & computed if number > 20} == set()  # smaller ones count things on the slide
    assert len(re.findall(r"\{glue:text\}", source_of(session))) >= 3


def test_decks_need_only_files_of_their_folder(folder):
    for session in SESSIONS:
        html = (folder / f"session_{session}.html").read_text("utf-8")
        files = re.findall(r'\b(?:src|href)="([^"]+)"', html)
        assert "reveal/reveal.js" in files
        for file in files:
            assert (folder / file).is_file(), file
    style = (folder / "slides.css").read_text("utf-8") + (folder / "reveal" / "reveal.css").read_text("utf-8")
    assert "@import" not in style
    assert re.search(r"url\((?!['\"]?data:)", style) is None
    assert "MIT" in (folder / "reveal" / "LICENSE").read_text("utf-8") + (folder / "reveal" / "reveal.js").read_text(
        "utf-8"
    )


def test_the_teaching_page_links_every_deck(folder):
    text = (ROOT / "book" / "teaching.md").read_text("utf-8")
    linked = re.findall(r'href="\.\./slides/(session_\d\.html)"', text)
    assert linked == sorted(path.name for path in folder.glob("*.html")) == [f"session_{n}.html" for n in SESSIONS]


# -- a small book ------------------------------------------------------------------

TEACHING = """# For teachers

| session | read before | used in class | after |
| --- | --- | --- | --- |
| 1. One | {doc}`chapter 1 </notebooks/01_one>`, all of it | the lab | exercise 1.1 |
| 2. Two | chapter 2 | nothing | exercise 1.2 |

### Session 1: one

| minutes | what | how |
| --- | --- | --- |
| 60 | the start | on the board; {doc}`lab` |
| 30 | {doc}`the end </notebooks/01_one>` | in pairs |

## The report

How it is read.

| points | question |
| --- | --- |
| 4 | Why? |
"""
CHAPTER = r"""# One

$$
y = 1
$$ (eq-zero)

$$
x \in \R
$$ (eq-one)

## Quiz

**1.** What?

- (a) This
- (b) That

:::{admonition} Answer
:class: dropdown
(a). It is {glue:text}`x:.1f`.
:::

````{exercise} Name
:label: ex-1-1

*Difficulty 1 of 5, importance 1 of 5.*

Do it, {glue:text}`x:.2f` times.

```python
x = ...
```
````

```{solution} ex-1-1
:class: dropdown
Done.
```
"""
START, END = "<!-- plan: the start -->\n# Title\n", "\n---\n<!-- plan: the end -->\n## Last\n"


@pytest.fixture
def small(tmp_path):
    """Write a deck with one chapter, and return its slides as (body, notes)."""
    (tmp_path / "book" / "slides").mkdir(parents=True)
    (tmp_path / "book" / "teaching.md").write_text(TEACHING)
    (tmp_path / "book" / "_static").mkdir()
    for name in ("slides/deck.html", "slides/slides.css", "_static/favicon.svg"):
        shutil.copy(ROOT / "book" / name, tmp_path / "book" / name)
    figure = {
        "image": {"alt": 'A "line" < 1.'},
        "figure": {"name": "fig-one", "caption": "Of $\\R$, {glue:text}`x:.1f`."},
    }
    outputs = [
        new_output("display_data", {"image/png": base64.b64encode(b"png").decode()}),
        new_output("display_data", {"text/html": '<div class="ntps-explorer">turn</div>'}),
    ]
    notebook: NotebookNode = new_notebook(
        cells=[new_markdown_cell(CHAPTER), new_code_cell("draw()", outputs=outputs, metadata={"mystnb": figure})]
    )
    numbers = {"eq-zero": "1.1", "eq-one": "1.2", "fig-one": "1.1", "ex-1-1": "1.1"}
    found = plain.References({"R": r"\mathbb{R}"}, BibliographyData(), numbers)

    def make(text: str) -> list[tuple[str, str]]:
        (tmp_path / slides.SOURCES / "session_1.md").write_text(text)
        slides.write(
            tmp_path / "out",
            {"01_one": copy.deepcopy(notebook)},
            {"01_one": {"x": 0.25, "tiny": 2e-11}},
            found,
            tmp_path,
        )
        html = (tmp_path / "out" / "session_1.html").read_text("utf-8")
        return [tuple(section.split('<aside class="notes">')) for section in sections(html)]

    return make


BLOCKS = {
    "figure": (
        "{figure}`fig-one`",
        '<figure><img src="figures/fig-one.png" alt="A &quot;line&quot; &lt; 1.">'
        "<figcaption>Fig. 1.1</figcaption></figure>",
        r'<p>Fig. 1.1. Of <span class="math inline">\(\mathbb{R}\)</span>, 0.2.</p>',
    ),
    "equation": ("{equation}`eq-one`", r"\[x \in \mathbb{R} \tag{1.2}\]", ""),
    "quiz": (
        "{quiz}`01 1`",
        '<div class="quiz"><p>What?</p>\n<ul>\n<li>(a) This</li>\n<li>(b) That</li>\n</ul>\n</div>'
        '<div class="fragment answer"><p>(a). It is 0.2.</p>\n</div>',
        "",
    ),
    "exercise": (
        "{exercise}`1.1`",
        '<div class="exercise"><p class="name">Exercise 1.1</p><p>Do it, 0.25 times.</p>\n</div>',
        "<p><strong>Solution.</strong> Done.</p>",
    ),
    "explorer": ("{explorer}`01`", '<div class="explorer"><div class="ntps-explorer">turn</div></div>', ""),
    "table": ("{table}`The report`", "<td>4</td>\n<td>Why?</td>", ""),
    "columns": ("{table}`The report: question`", "<tr>\n<td>Why?</td>", ""),
    "number": ("It is {glue:text}`01/x:.0%`.", "<p>It is 25%.</p>", ""),
    "power of ten": ("{glue:text}`01/tiny:.0e`", "<p>2\u00a0×\u00a010⁻¹¹</p>", ""),
    "plan": (
        "; ".join(f"{{glue:text}}`plan/{name}`" for name in ("before", "class", "after", "next")),
        "<p>chapter 1, all of it; the lab; exercise 1.1; chapter 2</p>",
        "",
    ),
    "formula": ("$a < \\R$", r"\(a &lt; \mathbb{R}\)", ""),
    "fragment": ('<div class="fragment">\n\n**later**\n\n</div>', "<strong>later</strong>", ""),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_show_what_they_name(small, name):
    source, body, notes = BLOCKS[name]
    (first, for_speaker), _ = small(f"{START}\n{source}\n\nNote:\nAsk {{glue:text}}`01/x:.1f`.\n{END}")
    assert body in first
    assert notes in for_speaker
    assert "<p>Ask 0.2.</p>" in for_speaker
    assert "Ask" not in first


def test_slides_have_their_row_layout_and_share_of_the_minutes(small):
    deck = small(f"{START}\n---\n<!-- layout: side -->\n## Second{END}")
    assert [re.findall(r'data-timing="(\d+)"', body) for body, _ in deck] == [["1800"], ["1800"], ["1800"]]
    assert [re.findall(r'class="frame (\w+)"', body) for body, _ in deck] == [["text"], ["side"], ["text"]]
    assert "<strong>Minutes 0 to 60: the start</strong> (on the board; lab)" in deck[1][1]
    assert "<strong>Minutes 60 to 90: the end</strong> (in pairs)" in deck[2][1]


def test_a_slide_can_take_a_part_of_its_row(small):
    deck = small(f"{START}\n---\n<!-- minutes: 10 -->\n## Second\n---\n## Third{END}")
    assert [re.findall(r'data-timing="(\d+)"', body) for body, _ in deck] == [["1500"], ["600"], ["1500"], ["1800"]]


ERRORS = {
    "figure": (f"{START}\n{{figure}}`fig-two`\n{END}", "there is no figure fig-two"),
    "equation": (f"{START}\n{{equation}}`eq-two`\n{END}", "there is no equation eq-two"),
    "question": (f"{START}\n{{quiz}}`01 2`\n{END}", "there is no question 2 in the quiz of chapter 01"),
    "chapter": (f"{START}\n{{quiz}}`02 1`\n{END}", "there is no question 1 in the quiz of chapter 02"),
    "exercise": (f"{START}\n{{exercise}}`1.2`\n{END}", "there is no exercise 1.2"),
    "explorer": (f"{START}\n{{explorer}}`02`\n{END}", "chapter 02 has no interactive figure"),
    "table": (f"{START}\n{{table}}`Nothing`\n{END}", "no table below 'Nothing'"),
    "column": (
        f"{START}\n{{table}}`The report: answer`\n{END}",
        "the table below 'The report': 'answer' is not in list",
    ),
    "homework": (f"{START}\n{{glue:text}}`plan/homework`\n{END}", "there is no plan/homework"),
    "too many minutes": (f"<!-- minutes: 61 -->\n{START}{END}", "do not add up to the 60 of 'the start'"),
    "too few minutes": (f"<!-- minutes: 59 -->\n{START}{END}", "do not add up to the 60 of 'the start'"),
    "no minutes left": (
        f"<!-- minutes: 60 -->\n{START}\n---\n## Second{END}",
        "do not add up to the 60 of 'the start'",
    ),
    "number": (f"{START}\n{{glue:text}}`01/y`\n{END}", "there is no 01/y"),
    "row": (
        f"{START}{END}\n---\n<!-- plan: more -->\n",
        "'more' is no row of the plan of session 1: the start, the end",
    ),
    "no row": ("# Title\n", "None is no row"),
    "missing row": (START, "there is no slide for the row 'the end'"),
    "title": (f"{START.replace('# Title', '## Title')}{END}", "there is no title"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_names_that_do_not_exist_are_errors(small, name):
    source, message = ERRORS[name]
    with pytest.raises(BookError, match=rf"^book/slides/session_1.md: .*{re.escape(message)}"):
        small(source)


def test_a_deck_without_a_session_is_an_error(small, tmp_path):
    shutil.copy(ROOT / slides.SOURCES / "session_3.md", tmp_path / slides.SOURCES)
    with pytest.raises(BookError, match="no session 3"):
        small(f"{START}{END}")


def test_former_decks_are_removed(small, tmp_path):
    (tmp_path / "out" / "figures").mkdir(parents=True)
    (tmp_path / "out" / "figures" / "old.png").write_bytes(b"")
    small(f"{START}{END}")
    assert list((tmp_path / "out" / "figures").iterdir()) == []
