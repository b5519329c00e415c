"""Plain copies of the chapters: nothing that only MyST understands, and every number, in every viewer."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from book.tools import browser, plain
from book.tools import refresh as book
from tests.conftest import ROOT

CHAPTERS = book.chapters()
MYST = (
    re.compile(r"\{[a-z:]+\}`"),
    re.compile(r"^(:{3,}|`{3,}\{)", re.M),
    re.compile(r"^\([\w-]+\)=", re.M),
    re.compile(r"\$\$ \([\w-]+\)$", re.M),
    re.compile(r"\\(R|E|tr|spn|rank|xbar)(?![A-Za-z])"),
)


@pytest.fixture(scope="module")
def found() -> plain.References:
    return book.references()


@pytest.fixture(scope="module")
def copies(found) -> dict[str, NotebookNode]:
    """The copy of each chapter, and (with the suffix "-student") that for students."""
    result = {}
    for source in CHAPTERS:
        path = source.with_suffix(".ipynb")
        values = book.glued(path)
        result[source.stem] = plain.plain(nbformat.read(path, as_version=4), values, found)
        result[f"{source.stem}-student"] = plain.plain(book.student(source), values, found)
    return result


def prose(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_committed_copies_are_those_of_the_committed_notebooks(source, copies):
    path = ROOT / plain.FOLDER / f"{source.stem}.ipynb"
    assert path.read_text("utf-8") == nbformat.writes(copies[source.stem]) + "\n"


@pytest.mark.parametrize("name", [f"{s.stem}{kind}" for s in CHAPTERS for kind in ("", "-student")])
def test_copies_are_plain_markdown_with_all_numbers(name, copies):
    notebook = copies[name]
    nbformat.validate(notebook)
    text = prose(notebook)
    for pattern in MYST:
        assert pattern.search(text) is None, pattern.search(text)
    assert plain.NOTE in text
    assert "nan" not in re.findall(r"\w+", text)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link.startswith("https://") or (ROOT / "notebooks" / link).is_file(), link
    assert text.count("$$") % 2 == 0
    assert re.search(r"^>.*\$", text, re.M) is None
    assert text.count("<div") == text.count("</div>")
    n_exercises = len(re.findall(r"^\*\*Exercise ", text, re.M))
    assert n_exercises >= 3
    assert text.count("<summary>Solution of exercise ") == (0 if "student" in name else n_exercises)
    assert text.count("<details>") == text.count("</details>")


@pytest.mark.parametrize("name", [f"{s.stem}{kind}" for s in CHAPTERS for kind in ("", "-student")])
def test_code_of_copies_needs_no_glue_and_defines_what_it_uses(name, copies, tmp_path):
    text = code(copies[name])
    assert "glue(" not in text
    assert "myst_nb" not in text
    (tmp_path / "chapter.py").write_text(text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "json", "."]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert [problem["message"] for problem in json.loads(outcome.stdout)] == []


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_copies_have_the_results_and_captions_of_the_chapter(source, copies):
    chapter = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    results = [
        o for cell in chapter.cells for o in cell.get("outputs", []) if not o.get("metadata", {}).get("scrapbook")
    ]
    assert [o for cell in copies[source.stem].cells for o in cell.get("outputs", [])] == results
    figures = [cell for cell in chapter.cells if "figure" in cell.metadata.get("mystnb", {})]
    number = int(source.stem[:2])
    captions = re.findall(rf"^\*\*Fig\. {number}\.(\d+)\.\*\*", prose(copies[source.stem]), re.M)
    assert captions == [str(i + 1) for i in range(len(figures))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["01_linear_autoregression", "08_after_lora"])
def test_student_copies_run(name, copies, tmp_path):
    """Their code is that of the chapter without the lines that feed the site; here with the smallest settings."""
    source = code(copies[f"{name}-student"])
    for setting, value in book.profile("smoke", name).items():
        source, n_found = re.subn(rf"^{setting} = .*$", f"{setting} = {value!r}", source, count=1, flags=re.M)
        assert n_found == 1
    (tmp_path / "chapter.py").write_text("import matplotlib\nmatplotlib.use('Agg')\n" + source)
    subprocess.run([sys.executable, "chapter.py"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_nbconvert_renders_copies(source, copies):
    from nbconvert import HTMLExporter

    html = HTMLExporter(template_name="basic").from_notebook_node(copies[source.stem])[0]
    text = re.sub(r"<(script|style|pre).*?</\1>", "", html, flags=re.S)
    assert "<blockquote>" in text
    assert "<details>" in text
    assert "::" not in re.sub(r"<code>.*?</code>", "", text, flags=re.S)
    assert re.search(r"\{[a-z:]+\}`", text) is None


SMALL = {
    "a value": ("{glue:text}`x:.2f` of {glue:text}`n`", "0.50 of 7"),
    "a word": ("It is {glue:text}`word`.", "It is yes."),
    "a citation": ("said {cite}`rao1948`.", "said (Rao 1948)."),
    "two citations": ("said {cite}`rao1948,cheng2025ntps`.", "said (Rao 1948; Cheng et al. 2025)."),
    "a chapter": ("see {doc}`/notebooks/02_two`", "see [Two](02_two.ipynb)"),
    "a chapter, relative": ("see {doc}`the second <02_two>`", "see [the second](02_two.ipynb)"),
    "a page": ("see {doc}`/book/glossary`", "see *Glossary*"),
    "a page, relative": ("see {doc}`../book/glossary`", "see *Glossary*"),
    "a function": ("{func}`ntps_utils.a.b` and {class}`~ntps_utils.a.C`", "`ntps_utils.a.b` and `C`"),
    "a section": ("as in {ref}`sec-settings`", "as in *Settings*"),
    "a target": ("(sec-settings)=\n## Settings\nText.", "## Settings\nText."),
    "an equation": ("$$\nx = y\n$$ (eq-a)\n\nBy {eq}`eq-a`", "$$\nx = y \\tag{1.1}\n$$\n\nBy (1.1)"),
    "a macro": (r"$\E\,x \in \R^d$, $\Re$", r"$\mathbb{E}\,x \in \mathbb{R}^d$, $\Re$"),
    "a math block": ("```{math}\nx\n```", "$$\nx\n$$"),
    "an admonition": (":::{admonition} Title\n:class: tip\nText.\n:::", "> **Title**\n> Text."),
    "an admonition with a formula": (
        ":::{admonition} Title\n:class: tip\n$$\n\\R\n$$\n:::",
        f"{plain.BOX}\n\n**Title**\n\n$$\n\\mathbb{{R}}\n$$\n\n</div>",
    ),
    "an entry of the index": ("```{index} ! will it pay\n```\n\nText.", "Text."),
    "a note": (":::{note}\nText.\n:::", "> **Note**\n> Text."),
    "a hint": (
        ":::{admonition} Hint\n:class: dropdown\nThink.\n:::",
        "<details>\n<summary>Hint</summary>\n\nThink.\n\n</details>",
    ),
    "an exercise with code": (
        "````{exercise}\n:label: ex-1-1\n\nDo it.\n\n```python\nx = ...\n```\n````",
        "**Exercise 1.1.**\n\nDo it.\n\n```python\nx = ...\n```",
    ),
    "a theorem": (":::{prf:theorem} Name\n:label: thm-a\n\nIt holds.\n:::", "> **Theorem 1.1 (Name)**\n> It holds."),
    "a proof": (":::{prf:proof}\nClear.\n:::", "*Proof.*\n\nClear."),
    "code": ("```python\nx = {glue:text}`x`\n```", "```python\nx = {glue:text}`x`\n```"),
    "an exercise": (
        "```{exercise} Name\n:label: ex-1-2\nDo it.\n```\n\n```{solution} ex-1-2\n:class: dropdown\nDone.\n```",
        "**Exercise 1.2.** *Name*\n\nDo it.\n\n"
        "<details>\n<summary>Solution of exercise 1.2</summary>\n\nDone.\n\n</details>",
    ),
}


def notebook_of(text: str) -> NotebookNode:
    return new_notebook(cells=[new_markdown_cell("# One"), new_markdown_cell(text)])


@pytest.mark.parametrize("name", SMALL)
def test_myst_becomes_plain_markdown(name):
    text, expected = SMALL[name]
    others = new_notebook(cells=[new_markdown_cell("# Two"), new_markdown_cell("(sec-settings)=\n## Settings")])
    found = plain.references({"01_one": notebook_of(text), "02_two": others})
    result = plain.plain(notebook_of(text), {"x": 0.5, "n": 7, "word": "yes"}, found)
    assert re.sub(r"\n>\n", "\n", result.cells[1].source) == expected
    assert ("## References" in prose(result)) == ("citation" in name)


def test_an_included_function_is_that_function_alone(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/code.py").write_text(
        "import os\n\n\ndef one():\n    return 1\n\n\ndef two():\n    return 2\n"
    )
    text = "```{literalinclude} code.py\n:language: python\n:pyobject: two\n```"
    found = plain.references({"01_one": notebook_of(text)}, tmp_path)
    result = plain.plain(notebook_of(text), {}, found, tmp_path)
    assert result.cells[1].source == "```python\ndef two():\n    return 2\n```"


@pytest.mark.parametrize("text", ["{glue:text}`absent`", "{eq}`absent`", "{cite}`absent`", "{doc}`/book/absent`"])
def test_what_does_not_exist_is_an_error(text):
    with pytest.raises(KeyError, match="absent"):
        plain.plain(notebook_of(text), {}, plain.references({"01_one": notebook_of(text)}))


def test_cells_that_only_feed_the_site_are_dropped():
    cells = [
        new_code_cell("from myst_nb import glue\nimport math\nx = 1\nglue('x', x)"),
        new_code_cell("y = 2\nfor i in range(3):\n    glue(f'{i}', y)", metadata={"tags": ["remove-cell"]}),
        new_code_cell("z = 3\nglue('z', z)", metadata={"tags": ["remove-cell"]}),
        new_code_cell("print(z)", metadata={"tags": ["hide-input"]}),
    ]
    notebook = new_notebook(cells=cells)
    result = plain.plain(notebook, {}, plain.References({}, plain.BibliographyData()))
    assert [cell.source for cell in result.cells] == ["import math\nx = 1", "z = 3", "print(z)"]
    assert result.cells[2].metadata["jupyter"] == {"source_hidden": True}
    assert "glue" in notebook.cells[0].source  # the original is unchanged


def test_refresh_writes_copies_and_check_finds_old_ones(tmp_path: Path, capsys, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_small.py").write_text("# %% [markdown]\n# # Small\n\n# %%\n1\n")
    monkeypatch.setattr(book, "problem_with", lambda source, root: None)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Small")]), tmp_path / "notebooks/01_small.ipynb")
    assert book.check(root=tmp_path) == 1
    assert "plain/01_small.ipynb is not the copy of the executed notebook." in capsys.readouterr().out
    book.refresh(root=tmp_path)
    assert book.check(root=tmp_path) == 0


@pytest.mark.browser
@pytest.mark.slow
def test_jupyterlab_shows_copies():
    """Formulas are typeset, solutions fold, and no mark of Markdown or MyST is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += [
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={ROOT / plain.FOLDER}",
        "--ServerApp.port_retries=0",
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with browser.chromium() as program:
            page = program.new_page(viewport={"width": 1280, "height": 30_000})  # cells out of sight are not rendered
            for name in ("03_score_and_bounds", "10_the_papers_numbers"):
                address = f"http://127.0.0.1:{port}/doc/tree/{name}.ipynb?reset"
                for _ in range(200):
                    try:
                        page.goto(address)
                        break
                    except Exception:  # the server is not ready
                        time.sleep(0.2)
                notebook = nbformat.read(ROOT / plain.FOLDER / f"{name}.ipynb", as_version=4)
                n_cells = sum(cell.cell_type == "markdown" for cell in notebook.cells)
                n_solutions = prose(notebook).count("<details>")
                page.wait_for_function(
                    f"document.querySelectorAll('.jp-RenderedMarkdown details').length == {n_solutions}", timeout=60_000
                )
                page.wait_for_function(
                    f"document.querySelectorAll('.jp-RenderedMarkdown').length >= {n_cells}", timeout=60_000
                )
                assert page.locator("mjx-container").count() > 3
                page.wait_for_function("!document.body.innerText.match(/[$][$]/)", timeout=60_000)
                text = "\n".join(page.locator(".jp-RenderedMarkdown").all_inner_texts())
                assert page.locator("mjx-merror").count() == 0
                assert not re.search(r"\{[a-z:]+\}`|:::|\*\*", text)
                for formula in page.locator("mjx-container").all_inner_texts():
                    assert ">" not in formula[:1]
    except browser.BrowserError as error:
        pytest.skip(str(error))
    finally:
        server.terminate()
        server.wait()
