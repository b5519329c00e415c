"""Execute the chapters of the book, and check that their notebooks are up to date.

A chapter is a pair of files: ``notebooks/NN_name.py`` (py:percent, the source, which is edited)
and ``notebooks/NN_name.ipynb`` (made from the source, executed and committed). Each notebook
contains a hash of everything that its contents depend on; with a different hash it is stale.

CHAPTER is the beginning of a chapter's name, such as 04; by default all chapters are meant.
"""

from __future__ import annotations

import argparse
import ast
import glob
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import yaml
from nbformat import NotebookNode

from book.tools import ROOT, BookError, declared, lab_page, plain, slides, verdicts
from ntps_utils._utils.files import write_json, write_text
from ntps_utils._utils.provenance import code_of, sources

KEY = "ntps"
"""Entry of a notebook's metadata that records how it was made."""

READERS = {"asset_text": "assets/{}", "data_file": "data/{}", "load_record": "data/recorded/{}.json"}
"""Functions of the library that read package files, and what they read for an argument."""


def chapters(root: Path = ROOT, names: Sequence[str] = ()) -> list[Path]:
    """Return the sources of chapters.

    Parameters
    ----------
    root : Path
        Root folder of the repository.
    names : sequence of str
        Beginnings of the names of the chapters to select, such as "04"; by default all.

    Returns
    -------
    list of Path
        In the order of the book.

    Raises
    ------
    BookError
        If there is no chapter, or none begins with one of ``names``.
    """
    pattern = root / "notebooks" / "[0-9]*.py"
    paths = sorted(pattern.parent.glob(pattern.name))
    if not paths:
        raise BookError(f"There are no chapters: no file matches {pattern}.")
    for name in names:
        if not name or not any(path.stem.startswith(name) for path in paths):
            listing = ", ".join(path.stem for path in paths)
            raise BookError(f"No chapter begins with {name!r}; chapters: {listing}.")
    return [path for path in paths if not names or path.stem.startswith(tuple(names))]


def dependencies(source: Path, root: Path = ROOT) -> list[Path]:
    """Return the files that determine the contents of an executed chapter.

    Parameters
    ----------
    source : Path
        Source of the chapter.
    root : Path
        Root folder of the repository.

    Returns
    -------
    list of Path
        The source, the modules of the library that it imports directly or indirectly, the
        package files that these read, the default profile, and the lock file; sorted.
    """
    modules = sources(source, root)
    package_files = {file for path in modules for file in files_read(path, root)}
    return sorted(modules | package_files | {root / "requirements.lock", root / "book" / "profiles" / "default.yml"})


def files_read(path: Path, root: Path = ROOT) -> set[Path]:
    """Return the package files that a module reads through the functions in ``READERS``.

    Parameters
    ----------
    path : Path
        A Python file.
    root : Path
        Root folder of the repository.

    Returns
    -------
    set of Path
        Files that match the arguments of the calls: a replacement field of an f-string matches
        any text, a folder all files in it, and any other expression all files. None for a module
        that defines one of the functions: what it reads depends on the calls in other modules.
    """
    tree = ast.parse(path.read_text("utf-8"))
    if any(isinstance(node, ast.FunctionDef) and node.name in READERS for node in tree.body):
        return set()
    readers = {
        alias.asname or alias.name: READERS[alias.name]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in READERS
    }
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    files = set[Path]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            template = readers.get(node.id)
        elif isinstance(node, ast.Attribute):
            template = READERS.get(node.attr)
        else:
            continue
        if template is not None:
            call = calls.get(node)  # without one, the function is passed on, and its argument is not known
            pattern = template.format(_file_pattern(call.args[0]) if call is not None and call.args else "*")
            base = root / "ntps_utils"
            files |= {
                file
                for file in base.rglob("*")
                if file.is_file()
                and any(fnmatchcase(file.relative_to(base).as_posix(), p) for p in (pattern, f"{pattern}/*"))
            }
    return files


def _file_pattern(argument: ast.expr) -> str:
    """Return the pattern of the strings that an expression can have as its value."""
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    return "".join(
        glob.escape(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else "*"
        for part in parts
    )


def _executed_notebook(source: Path) -> Path:
    """Return the notebook of a chapter, or raise if there is none."""
    path = source.with_suffix(".ipynb")
    if not path.is_file():
        raise BookError(f"{source.name} has no executed notebook; run `make notebooks`.")
    return path


def fingerprint(source: Path, root: Path = ROOT) -> str:
    """Return a hash of everything that the results of an executed chapter depend on.

    Of the library, the code counts, without docstrings and comments; of the chapter, its code cells.

    Parameters
    ----------
    source : Path
        Source of the chapter.
    root : Path
        Root folder of the repository.

    Returns
    -------
    str
        64 hex digits.
    """
    digest = hashlib.sha256()
    for path in dependencies(source, root):
        if path == source:
            contents = json.dumps(_code(source_notebook(source))).encode()
        else:
            contents = code_of(path) if path.suffix == ".py" else path.read_bytes()
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + contents + b"\0")
    return digest.hexdigest()


def profile(name: str, chapter: str, root: Path = ROOT) -> dict[str, Any]:
    """Return the parameters that a profile sets for a chapter.

    Parameters
    ----------
    name : str
        Name of a file in ``book/profiles``, without its suffix.
    chapter : str
        Name of the chapter, such as "04_extraction".
    root : Path
        Root folder of the repository.

    Returns
    -------
    dict
        Values by parameter: ``profile``, the section ``all`` of the profile, and the section
        of the chapter, which takes precedence.

    Raises
    ------
    BookError
        If there is no such profile.
    """
    path = root / "book" / "profiles" / f"{name}.yml"
    if not path.is_file():
        listing = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml")))
        raise BookError(f"There is no profile {name!r}; profiles: {listing}.")
    settings = yaml.safe_load(path.read_text("utf-8")) or {}
    return {"profile": name} | settings.get("all", {}) | settings.get(chapter, {})


def source_notebook(source: Path) -> NotebookNode:
    """Return a chapter as a notebook without results.

    Parameters
    ----------
    source : Path
        Source of the chapter.

    Returns
    -------
    NotebookNode
        Its cells have fixed ids.
    """
    notebook = jupytext.read(source)
    # Fixed ids: random ones would change the notebook at every execution.
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:03d}"
    return notebook


def _code(notebook: NotebookNode) -> list[tuple[str, bool]]:
    """The code cells of a notebook, and whether they hold its parameters."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [(cell.source, "parameters" in cell.metadata.get("tags", [])) for cell in cells]


def update_text(source: Path) -> None:
    """Copy the text cells and the metadata of a chapter into its executed notebook, whose results stay.

    Parameters
    ----------
    source : Path
        Source of the chapter; its code cells must be those of the notebook.
    """
    path = source.with_suffix(".ipynb")
    notebook, new = nbformat.read(path, as_version=4), source_notebook(source)
    executed = (cell for cell in notebook.cells if cell.cell_type == "code")
    for cell in new.cells:
        if cell.cell_type == "code":
            result = next(executed)
            cell.outputs, cell.execution_count = result.outputs, result.execution_count
    notebook.cells = new.cells
    nbformat.validate(notebook)
    write_text(path, nbformat.writes(notebook) + "\n")


def execute(source: Path, target: Path, profile_name: str = "default", root: Path = ROOT) -> float:
    """Execute a chapter and write the cleaned notebook.

    Parameters
    ----------
    source : Path
        Source of the chapter.
    target : Path
        Notebook to write; replaced only if all cells ran without an error.
    profile_name : str
        Profile that sets the parameters.
    root : Path
        Root folder of the repository.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    BookError
        If there is no such profile.
    papermill.PapermillExecutionError
        If a cell raises an error.
    """
    parameters = profile(profile_name, source.stem, root)
    start = time.perf_counter()
    before_execution = fingerprint(source, root)  # a change during the execution makes the chapter stale
    # Threads do not speed up small matrices, are slow on a busy machine, and change the rounding.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    with tempfile.TemporaryDirectory() as scratch:
        input_path, output_path = Path(scratch, "in.ipynb"), Path(scratch, "out.ipynb")
        notebook_source = source_notebook(source)
        nbformat.write(notebook_source, input_path)
        papermill.execute_notebook(
            input_path,
            output_path,
            parameters=parameters,
            kernel_name="python3",
            language="python",
            cwd=root / "notebooks",
            progress_bar=False,
            log_output=False,
        )
        notebook = nbformat.read(output_path, as_version=4)
    seconds = time.perf_counter() - start
    _clean(notebook, notebook_source)
    notebook.metadata[KEY] = {
        "fingerprint": before_execution,
        "profile": profile_name,
        "seconds": round(seconds, 1),
    }
    nbformat.validate(notebook)
    write_text(target, nbformat.writes(notebook) + "\n")
    return seconds


def _clean(notebook: NotebookNode, source: NotebookNode) -> None:
    """Remove injected parameters, timings, paths and messages on the error stream from a notebook."""
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell, original in zip(notebook.cells, source.cells, strict=True):
        cell.metadata = original.metadata
        cell.id = original.id
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("metadata", {}).pop("papermill", None)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )


def problem_with(source: Path, root: Path = ROOT) -> str | None:
    """Return what is wrong with the notebook of a chapter.

    Parameters
    ----------
    source : Path
        Source of the chapter.
    root : Path
        Root folder of the repository.

    Returns
    -------
    str or None
        A sentence, or None if the notebook is up to date.
    """
    path = source.with_suffix(".ipynb")
    if not path.is_file():
        return f"{source.name} has no executed notebook."
    notebook = nbformat.read(path, as_version=4)
    new = source_notebook(source)
    if _code(new) != _code(notebook):
        return f"The code of {path.name} differs from that of {source.name}."
    record = notebook.metadata.get(KEY, {})
    if record.get("fingerprint") != fingerprint(source, root) or record.get("profile") != "default":
        return f"{path.name} is stale: the library, its data, the default profile or requirements.lock has changed."
    if _cells(new) != _cells(notebook):
        return TEXT_DIFFERS.format(path.name, source.name)
    return None


TEXT_DIFFERS = "The text of {} differs from that of {}."


def _cells(notebook: NotebookNode) -> list[tuple[str, str, Any]]:
    return [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]


def glued(path: Path) -> dict[str, Any]:
    """Return the values that an executed notebook inserts into its prose.

    Parameters
    ----------
    path : Path
        An executed notebook.

    Returns
    -------
    dict
        Numbers and strings by the name that was passed to ``glue``.
    """
    values = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            text = output.get("data", {}).get("application/papermill.record/text/plain")
            if name is None or text is None:
                continue
            try:
                values[name] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                values[name] = text
    return values


def references(root: Path = ROOT) -> plain.References:
    """Return the numbers of all figures, equations and exercises of the chapters, and the macros of formulas.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Returns
    -------
    References
    """
    return plain.references({source.stem: source_notebook(source) for source in chapters(root)}, root)


def glued_values(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Return the values of all executed chapters.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Returns
    -------
    dict of str to dict
        See :func:`glued`, by the name of the chapter.
    """
    return {source.stem: glued(_executed_notebook(source)) for source in chapters(root)}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], rtol: float = 1e-4) -> list[str]:
    """Compare two sets of glued values.

    Parameters
    ----------
    old, new : mapping
        Values by name, see :func:`glued`.
    rtol : float
        Relative difference up to which two numbers are equal.

    Returns
    -------
    list of str
        One line per name whose values differ.

    Examples
    --------
    >>> differences({"n": 8, "rho": 0.5}, {"n": 7, "rho": 0.500001})
    ['n: 8 committed, 7 now']
    """
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
        # Some values are rounding errors; below 1e-6 only their order of magnitude is reproducible.
        same = math.isclose(a, b, rel_tol=rtol, abs_tol=1e-6) if numbers else a == b  # type: ignore[arg-type]
        if not same:
            lines.append(f"{name}: {a!r} committed, {b!r} now")
    return lines


def plain_copies(root: Path = ROOT) -> dict[Path, str]:
    """Convert the executed notebooks for viewers that know no MyST, see :mod:`book.tools.plain`.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Returns
    -------
    dict of Path to str
        Contents by file.

    Raises
    ------
    BookError
        If there are no chapters, or one has no executed notebook.
    """
    sources = chapters(root)
    found = references(root)
    copies = {}
    for source in sources:
        path = _executed_notebook(source)
        notebook = plain.plain(nbformat.read(path, as_version=4), glued(path), found, root)
        copies[root / plain.FOLDER / path.name] = nbformat.writes(notebook) + "\n"
    return copies


def readme_with_verdicts(root: Path = ROOT) -> dict[Path, str]:
    """Write the verdicts of the executed chapters into the README, if it has a place for them.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Returns
    -------
    dict of Path to str
        Contents by file; empty without such a place.
    """
    path = root / "README.md"
    text = path.read_text("utf-8") if path.is_file() else ""
    if verdicts.marks(verdicts.PARTS[0])[0] not in text:
        return {}
    return {path: verdicts.readme(text, glued_values(root))}


def refresh(names: Sequence[str] = (), root: Path = ROOT) -> None:
    """Execute the chapters that are stale, write their copies, and print what is done.

    A chapter of which only the text changed is not executed.

    Parameters
    ----------
    names : sequence of str
        Beginnings of the chapters' names; by default all chapters.
    root : Path
        Root folder of the repository.

    Raises
    ------
    BookError
        If there is no such chapter.
    """
    for source in chapters(root, names):
        problem = problem_with(source, root)
        if problem is None:
            print(f"{source.stem}: up to date")
            continue
        if problem == TEXT_DIFFERS.format(source.with_suffix(".ipynb").name, source.name):
            update_text(source)
            print(f"{source.stem}: text updated")
            continue
        print(f"{source.stem}: executing ({problem})", flush=True)
        print(f"{source.stem}: {execute(source, source.with_suffix('.ipynb'), root=root):.0f} s", flush=True)
    if all(problem_with(source, root) is None for source in chapters(root)):  # else a value may be missing
        for path, text in {**plain_copies(root), **readme_with_verdicts(root)}.items():
            if not path.is_file() or path.read_text("utf-8") != text:
                write_text(path, text)


def check(names: Sequence[str] = (), root: Path = ROOT) -> int:
    """Print one line per chapter whose notebook is not up to date.

    Parameters
    ----------
    names : sequence of str
        Beginnings of the chapters' names; by default all chapters.
    root : Path
        Root folder of the repository.

    Returns
    -------
    int
        Number of these chapters.

    Raises
    ------
    BookError
        If there is no such chapter.
    """
    sources = chapters(root, names)
    problems = [p for p in (problem_with(source, root) for source in sources) if p]
    if not problems:
        copies = plain_copies(root)
        for path in (root / plain.FOLDER / f"{source.stem}.ipynb" for source in sources):
            if not path.is_file() or path.read_text("utf-8") != copies[path]:
                problems.append(f"{path.relative_to(root)} is not the copy of the executed notebook.")
        for path, text in readme_with_verdicts(root).items():
            if path.read_text("utf-8") != text:
                problems.append(f"The verdicts in {path.name} are not those of the executed notebooks.")
    print("\n".join(problems) or "All notebooks are up to date.")
    return len(problems)


def reproduce(names: Sequence[str] = (), root: Path = ROOT) -> int:
    """Execute chapters again and compare their glued values with those of the committed notebooks.

    The new notebooks are in ``runs/reproduce``, and a summary of all chapters in
    ``runs/reproduce.json``.

    Parameters
    ----------
    names : sequence of str
        Beginnings of the chapters' names; by default all chapters, and only then the summary
        is written.
    root : Path
        Root folder of the repository.

    Returns
    -------
    int
        Number of values that differ.

    Raises
    ------
    BookError
        If there is no such chapter, or it has no committed notebook.
    """
    summary = dict[str, dict[str, int]]()
    for source in chapters(root, names):
        committed = glued(_executed_notebook(source))
        target = root / "runs" / "reproduce" / f"{source.stem}.ipynb"
        seconds = execute(source, target, root=root)
        lines = differences(committed, glued(target))
        summary[source.stem] = {"values": len(committed), "different": len(lines)}
        print(f"{source.stem}: {len(committed)} values, {len(lines)} differ ({seconds:.0f} s)")
        for line in lines:
            print(f"  {line}")
    if not names:
        write_json(root / "runs" / "reproduce.json", summary)
    return sum(counts["different"] for counts in summary.values())


SOLUTION = re.compile(r"^(`{3,}){solution}.*?^\1$\n?", re.M | re.S)
EXERCISE = re.compile(r"^(`{3,}){exercise}.*?^\1$\n?", re.M | re.S)
STARTER = re.compile(r"^```python\n(.*?)^```$\n?", re.M | re.S)


def student(source: Path) -> NotebookNode:
    """Return a chapter for students: without solutions, and with a cell for the answer after each exercise.

    The cell begins with the code that the exercise gives.

    Parameters
    ----------
    source : Path
        Source of the chapter.

    Returns
    -------
    NotebookNode
        A notebook that has not been executed.
    """
    notebook = source_notebook(source)
    cells = []
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "markdown":
            cells += _with_answers(SOLUTION.sub("", cell.source).strip(), cell["id"])
        else:
            cells.append(cell)
    notebook.cells = cells
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    return notebook


def _with_answers(text: str, name: str) -> list[NotebookNode]:
    """Divide a text after each exercise, and insert a cell for the answer."""
    cells: list[NotebookNode] = []

    def add(kind: str, source: str) -> None:
        if source:
            make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
            cell = make(source)
            cell["id"] = f"{name}-{len(cells)}" if cells else name
            cells.append(cell)

    start = 0
    for match in EXERCISE.finditer(text):
        starter = STARTER.search(match[0])
        add("markdown", (text[start : match.start()] + STARTER.sub("", match[0])).strip())
        add("code", "# Your answer.\n" + (starter[1].strip() if starter else ""))
        start = match.end()
    add("markdown", text[start:].strip())
    return cells


def timings(root: Path = ROOT) -> str:
    """Return a Markdown table of the seconds that the execution of each committed notebook took.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Returns
    -------
    str
    """
    lines, total = ["| chapter | seconds |", "| --- | ---: |"], 0.0
    for source in chapters(root):
        notebook = nbformat.read(_executed_notebook(source), as_version=4)
        title = next(c.source for c in notebook.cells if c.cell_type == "markdown").splitlines()[0].lstrip("# ")
        seconds = notebook.metadata[KEY]["seconds"]
        total += seconds
        lines.append(f"| {{doc}}`{title} </notebooks/{source.stem}>` | {seconds:.0f} |")
    return "\n".join([*lines, f"| all | {total:.0f} |", ""])


def attacks(root: Path = ROOT) -> str:
    """Return a Markdown table of the results that ``python -m tests.attacks`` wrote to ``book/attacks.json``.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Returns
    -------
    str
    """
    rows = json.loads((root / "book" / "attacks.json").read_text("utf-8"))
    lines = ["| attack | result | command | date |", "| --- | --- | --- | --- |"]
    lines += [f"| {row['attack']} | {row['result']} | `{row['command']}` | {row['date']} |" for row in rows]
    return "\n".join([*lines, ""])


def prepare(root: Path = ROOT) -> None:
    """Write the files that the site needs besides the sources: student notebooks, generated tables and slides.

    Parameters
    ----------
    root : Path
        Root folder of the repository.

    Raises
    ------
    BookError
        If there are no chapters, one has no executed notebook, or a slide names something that does not exist.
    """
    sources = chapters(root)
    found = references(root)
    values = glued_values(root)
    for source in sources:
        notebook = plain.plain(student(source), values[source.stem], found, root)
        write_text(root / "book" / "students" / f"{source.stem}.ipynb", nbformat.writes(notebook) + "\n")
    for name, text in {
        "timings": timings(root),
        "attacks": attacks(root),
        **declared.tables(),
        **lab_page.tables(),
        **verdicts.tables(values),
    }.items():
        write_text(root / "book" / "generated" / f"{name}.md", text)
    executed = {source.stem: nbformat.read(_executed_notebook(source), as_version=4) for source in sources}
    slides.write(root / "book" / "generated" / "site" / "slides", executed, values, found, root)


def run(profile_name: str, names: Sequence[str] = (), root: Path = ROOT) -> None:
    """Execute chapters with a profile, and write the notebooks to ``runs/PROFILE``.

    Parameters
    ----------
    profile_name : str
        Name of a file in ``book/profiles``, without its suffix.
    names : sequence of str
        Beginnings of the chapters' names; by default all chapters.
    root : Path
        Root folder of the repository.

    Raises
    ------
    BookError
        If there is no such profile or chapter.
    """
    for source in chapters(root, names):
        seconds = execute(source, root / "runs" / profile_name / f"{source.stem}.ipynb", profile_name, root)
        print(f"{source.stem}: {seconds:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run ``python -m book.tools.refresh``.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command-line arguments, by default those of the process.
    root : Path
        Root folder of the repository.

    Returns
    -------
    int
        Exit status: 1 if notebooks are stale or values differ, 2 for invalid arguments or if
        there are no chapters.
    """
    parser = argparse.ArgumentParser(
        prog="python -m book.tools.refresh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in {
        "refresh": "execute the stale chapters",
        "check": "fail if a notebook is stale or differs from its source",
        "reproduce": "execute chapters again and compare their numbers with the committed ones",
        "prepare": "write the student notebooks, generated tables and slides for the site",
        "run": "execute chapters with a profile, into runs/PROFILE",
    }.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "run":
            command.add_argument("profile", metavar="PROFILE", help="name of a file in book/profiles, without .yml")
        if name != "prepare":
            command.add_argument("chapters", nargs="*", metavar="CHAPTER", help="beginning of a chapter's name")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "refresh":
                refresh(options.chapters, root)
            case "check":
                return min(check(options.chapters, root), 1)
            case "reproduce":
                return min(reproduce(options.chapters, root), 1)
            case "prepare":
                prepare(root)
            case "run":
                run(options.profile, options.chapters, root)
    except BookError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
