"""Copies of the chapters for Jupyter, Colab and code hosts, which know no MyST.

Numbers stand in place of roles, formulas need no macros, and admonitions, theorems, exercises, citations
and references are plain Markdown. Code cells and their results are those of the chapter.
"""

from __future__ import annotations

import ast
import copy
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from pybtex.database import BibliographyData, Entry, parse_file
from pybtex.plugin import find_plugin

from book.tools import ROOT

FOLDER = Path("notebooks", "plain")
"""Where the copies lie, relative to the root of the repository."""

FENCE = re.compile(r"^(?P<fence>:{3,}|`{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<title>.*)$")
CODE = re.compile(r"^(`{3,})[\w+-]*\s*$")
OPTION = re.compile(r"^:([\w-]+):\s*(.*)$")
EQUATION = re.compile(r"^\$\$\s*\((?P<label>[\w-]+)\)\s*$")
ROLE = re.compile(r"\{([a-z:]+)\}`([^`]+)`")
TARGET = re.compile(r"^\(([\w-]+)\)=\s*$")


@dataclass
class References:
    """What the chapters refer to.

    Attributes
    ----------
    macros : dict of str to str
        Formulas by the name of their macro.
    numbers : dict of str to str
        Numbers of equations, figures, theorems and exercises by label, such as "3.1".
    titles : dict of str to str
        Titles of documents and of labeled sections.
    bibliography : BibliographyData
    """

    macros: dict[str, str]
    bibliography: BibliographyData
    numbers: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)


def references(chapters: Mapping[str, NotebookNode], root: Path = ROOT) -> References:
    """Collect what the chapters refer to.

    Parameters
    ----------
    chapters : mapping of str to NotebookNode
        Notebooks by name of the chapter, such as "03_score_and_bounds".
    root : Path
        Root folder of the repository.

    Returns
    -------
    References
    """
    file = root / "_config.yml"
    config = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}
    macros = config.get("sphinx", {}).get("config", {}).get("mathjax3_config", {}).get("tex", {}).get("macros", {})
    bibliography = root / "book" / "references.bib"
    found = References(macros, parse_file(str(bibliography)) if bibliography.is_file() else BibliographyData())
    for page in sorted((root / "book").glob("*.md")):
        heading = re.search(r"^# (.+)$", page.read_text("utf-8"), re.M)
        found.titles[f"/book/{page.stem}"] = heading[1] if heading else page.stem
    for name, notebook in chapters.items():
        chapter = int(name.split("_")[0])
        counts = dict.fromkeys(("equation", "figure", "theorem"), 0)
        for cell in notebook.cells:
            figure = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            if figure:
                counts["figure"] += 1
                found.numbers[figure] = f"{chapter}.{counts['figure']}"
            if cell.cell_type == "markdown":
                _collect(cell.source.splitlines(), chapter, counts, found)
        found.titles[f"/notebooks/{name}"] = _title(notebook)
    return found


def _title(notebook: NotebookNode) -> str:
    first = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    return str(first.partition("\n")[0].lstrip("# "))


def _collect(lines: list[str], chapter: int, counts: dict[str, int], found: References) -> None:
    """Number the equations, theorems and exercises of a cell, and note the titles of labeled sections."""
    inside = ""
    for i, line in enumerate(lines):
        if equation := EQUATION.match(line):
            counts["equation"] += 1
            found.numbers[equation["label"]] = f"{chapter}.{counts['equation']}"
        elif target := TARGET.match(line):
            heading = next((text for text in lines[i + 1 :] if text.startswith("#")), "")
            found.titles[target[1]] = heading.lstrip("# ")
        elif fence := FENCE.match(line):
            inside = fence["name"]
            if inside == "prf:theorem":
                counts["theorem"] += 1
        elif (option := OPTION.match(line)) and option[1] == "label":
            if inside == "prf:theorem":
                found.numbers[option[2]] = f"{chapter}.{counts['theorem']}"
            elif inside == "exercise":
                found.numbers[option[2]] = option[2].removeprefix("ex-").replace("-", ".")
            else:
                counts["equation"] += 1
                found.numbers[option[2]] = f"{chapter}.{counts['equation']}"


BOX = '<div style="border-left: 4px solid #999; padding-left: 1em">'
"""Start of a block that is set apart."""

NOTE = (
    "> A copy for Jupyter, Colab and code hosts of a chapter of the NTPS companion. Numbers in the text are those of "
    "the recorded run; if you run the cells with other parameters, tables and figures change, and the text does not. "
    "The code needs the library `ntps_utils`: install the file that you were given (`pip install 'FILE[book]'`), or "
    "run `pip install '.[book]'` in a clone of the repository."
)


def plain(notebook: NotebookNode, values: Mapping[str, Any], found: References, root: Path = ROOT) -> NotebookNode:
    """Convert a chapter.

    Parameters
    ----------
    notebook : NotebookNode
        Executed or not; it is not changed.
    values : mapping
        Values that the prose inserts, by name.
    found : References
    root : Path
        Root folder of the repository.

    Returns
    -------
    NotebookNode

    Raises
    ------
    KeyError
        If the prose refers to a value, label or citation that does not exist.
    """
    result = copy.deepcopy(notebook)
    cited: dict[str, None] = {}
    writer = _Writer(values, found, root, cited)
    later = _names_used(result)
    cells = []
    for i, cell in enumerate(result.cells):
        if cell.cell_type == "markdown":
            cell.source = writer.markdown(cell.source)
            if cell.source:
                cells.append(cell)
            continue
        cell.source = _without_glue(cell.source)
        tags = cell.metadata.get("tags", [])
        if not cell.source or ("remove-cell" in tags and not _assigned(cell.source) & later[i]):
            continue
        cell.outputs = [o for o in cell.get("outputs", []) if not o.get("metadata", {}).get("scrapbook")]
        figure = cell.metadata.pop("mystnb", {}).get("figure")
        if tags and not {"parameters", "skip-execution"} & set(tags):
            cell.metadata["jupyter"] = {"source_hidden": True}
        cells.append(cell)
        if figure:
            number = f"Fig. {found.numbers[figure['name']]}." if "name" in figure else "Figure."
            caption = nbformat.v4.new_markdown_cell(f"**{number}** {writer.markdown(figure['caption'])}")  # type: ignore[no-untyped-call]
            caption["id"] = f"{cell['id']}-caption"
            cells.append(caption)
    if cells and cells[0].cell_type == "markdown":  # below the title
        title, *rest = cells[0].source.split("\n\n", 1)
        cells[0].source = "\n\n".join([title, NOTE, *rest])
    if cited:
        entries = "\n".join(f"- {writer.entry(key)}" for key in sorted(cited))
        listing = nbformat.v4.new_markdown_cell(f"## References\n\n{entries}")  # type: ignore[no-untyped-call]
        listing["id"] = "references"
        cells.append(listing)
    result.cells = cells
    result.metadata.pop("ntps", None)
    return result


def markdown(source: str, values: Mapping[str, Any], found: References, root: Path = ROOT) -> str:
    """Convert a text that is no chapter, such as a slide.

    Parameters
    ----------
    source : str
        MyST Markdown.
    values : mapping
        Values that the text inserts, by name.
    found : References
    root : Path
        Root folder of the repository.

    Returns
    -------
    str
        Markdown with the numbers in place, and formulas without macros.

    Raises
    ------
    KeyError
        If the text refers to a value, label or citation that does not exist.

    Examples
    --------
    >>> found = References({"R": r"\\mathbb{R}"}, BibliographyData(), {"eq-loss": "1.1"})
    >>> markdown(r"{eq}`eq-loss` on $\\R$: {glue:text}`loss:.2f`", {"loss": 0.125}, found)
    '(1.1) on $\\\\mathbb{R}$: 0.12'
    """
    return _Writer(values, found, root, {}).markdown(source)


def _names_used(notebook: NotebookNode) -> list[set[str]]:
    """For each cell, the names that later code cells read."""
    used: list[set[str]] = [set()]
    for cell in reversed(notebook.cells[1:]):
        names = set(used[-1])
        if cell.cell_type == "code":
            tree = ast.parse(_without_glue(cell.source))
            names |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        used.append(names)
    return used[::-1]


def _assigned(source: str) -> set[str]:
    """Names that a cell binds."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return names


def _without_glue(source: str) -> str:
    """Code without the statements that insert values into prose, and without loops of nothing else."""
    lines = source.splitlines()
    removed: set[int] = set()

    def only_glue(node: ast.stmt) -> bool:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return isinstance(node.value.func, ast.Name) and node.value.func.id == "glue"
        if isinstance(node, ast.ImportFrom):
            return node.module == "myst_nb"
        if isinstance(node, (ast.For, ast.If)):
            return not node.orelse and all(map(only_glue, node.body))
        return False

    def visit(statements: list[ast.stmt]) -> None:
        for node in statements:
            if only_glue(node):
                removed.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            else:
                for name in ("body", "orelse", "finalbody"):
                    visit(getattr(node, name, []))

    visit(ast.parse(source).body)
    kept = [line for i, line in enumerate(lines, 1) if i not in removed]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


@dataclass(frozen=True)
class _Writer:
    """Writes MyST as Markdown that every notebook viewer understands."""

    values: Mapping[str, Any]
    found: References
    root: Path
    cited: dict[str, None]

    def markdown(self, source: str) -> str:
        return "\n".join(self._blocks(source.splitlines())).strip()

    def _blocks(self, lines: list[str]) -> list[str]:
        result: list[str] = []
        i = 0
        while i < len(lines):
            line = lines[i]
            if fence := FENCE.match(line):
                end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == fence["fence"])
                result += self._directive(fence["name"], fence["title"], lines[i + 1 : end])
                i = end + 1
                continue
            if code := CODE.match(line):
                end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == code[1])
                result += lines[i : end + 1]
                i = end + 1
                continue
            if equation := EQUATION.match(line):
                # The number belongs into the formula, whose last line is the one before.
                result[-1] += rf" \tag{{{self.found.numbers[equation['label']]}}}"
                result.append("$$")
            elif not TARGET.match(line):
                result.append(self._inline(line))
            i += 1
        return result

    def _directive(self, name: str, title: str, body: list[str]) -> list[str]:
        options = {}
        while body and (option := OPTION.match(body[0])):
            options[option[1]] = option[2]
            body = body[1:]
        if name == "index":
            return []
        if name == "literalinclude":
            text = (self.root / "notebooks" / title.strip()).read_text("utf-8").strip()
            if "pyobject" in options:
                named = {getattr(node, "name", ""): node for node in ast.parse(text).body}
                text = ast.get_source_segment(text, named[options["pyobject"]]) or ""
            return [f"```{options.get('language', '')}", *text.splitlines(), "```"]
        content = "\n".join(self._blocks(body)).strip().splitlines()
        if name == "math":
            number = self.found.numbers.get(options.get("label", ""))
            return ["$$", *content[:-1], content[-1] + (rf" \tag{{{number}}}" if number else ""), "$$"]
        title = self._inline(title)
        if name == "solution":
            heading = f"Solution of exercise {self.found.numbers[title]}"
            return ["<details>", f"<summary>{heading}</summary>", "", *content, "", "</details>"]
        if name == "exercise":
            number = self.found.numbers[options["label"]]
            return [f"**Exercise {number}.**" + (f" *{title}*" if title else ""), "", *content]
        if "dropdown" in options.get("class", ""):
            return ["<details>", f"<summary>{title}</summary>", "", *content, "", "</details>"]
        if name == "prf:proof":
            return ["*Proof.*", "", *content]
        if name == "prf:theorem":
            number = self.found.numbers.get(options.get("label", ""), "")
            heading = f"Theorem {number}".strip() + (f" ({title})" if title else "")
        else:
            heading = title or name.rpartition(":")[2].capitalize()
        if any("$" in line for line in content):  # in a quotation JupyterLab shows the marks of its lines in formulas
            return [BOX, "", f"**{heading}**", "", *content, "", "</div>"]
        return [f"> **{heading}**", ">", *(f"> {line}".rstrip() for line in content)]

    def _inline(self, text: str) -> str:
        text = ROLE.sub(lambda match: self._role(match[1], match[2]), text)
        for macro, formula in self.found.macros.items():
            text = re.sub(rf"\\{macro}(?![A-Za-z])", lambda _: formula, text)  # noqa: B023
        return text

    def _role(self, name: str, content: str) -> str:
        roles: dict[str, Callable[[str], str]] = {
            "glue:text": self._value,
            "cite": self._citation,
            "eq": lambda label: f"({self.found.numbers[label]})",
            "numref": lambda label: f"Fig. {self.found.numbers[label]}",
            "ref": lambda label: f"*{self.found.titles[label]}*",
            "doc": self._document,
            "download": lambda target: re.sub(r"^(.*?)\s*<(?:\.\./)*(.*)>$", r"\1 (`\2`)", target),
            "math": lambda formula: f"${formula}$",
        }
        if name in roles:
            return roles[name](content)
        short = content.startswith("~")
        return f"`{content.rpartition('.')[2] if short else content}`"

    def _value(self, content: str) -> str:
        name, _, spec = content.partition(":")
        value = self.values[name]
        return format(float(value) if spec and not isinstance(value, (int, float)) else value, spec)

    def _document(self, content: str) -> str:
        match = re.fullmatch(r"(.*?)\s*<(.+)>", content, re.S)
        target = match[2] if match else content
        target = posixpath.normpath(posixpath.join("/notebooks", target))
        text = match[1] if match else self.found.titles[target]
        if target.startswith("/notebooks/"):
            return f"[{text}]({target.removeprefix('/notebooks/')}.ipynb)"
        return f"*{text}*"

    def _citation(self, content: str) -> str:
        keys = [key.strip() for key in content.split(",")]
        self.cited.update(dict.fromkeys(keys))
        return f"({'; '.join(self._short(self.found.bibliography.entries[key]) for key in keys)})"

    @staticmethod
    def _short(entry: Entry) -> str:
        names = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
        authors = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        return f"{authors} {entry.fields['year']}"

    def entry(self, key: str) -> str:
        """Describe a work for the list of references."""
        style = find_plugin("pybtex.style.formatting", "unsrt")()
        formatted = next(iter(style.format_entries([self.found.bibliography.entries[key]])))
        text = str(formatted.text.render(find_plugin("pybtex.backends", "markdown")()))
        return re.sub(r"\\([^\w\s])", r"\1", text.replace("\n", " "))  # without needless escapes
