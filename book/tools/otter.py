"""Write assignments for classes under otter-grader: student notebooks, and public tests from the book's checks.

    python -m book.tools.otter FOLDER [CHAPTER ...]

writes FOLDER/NN_name/NN_name.ipynb and FOLDER/NN_name/tests. In that folder, ``otter generate -t tests`` makes the
autograder, and ``otter run -a autograder.zip NN_name.ipynb`` grades a notebook.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from book.tools import ROOT, plain
from book.tools.refresh import chapters, glued, references, student
from ntps_utils._utils.files import write_text

CALL = re.compile(r"^check\(\"(?P<number>[\d.]+)\", (?P<name>\w+)\)\s*$", re.M)
"""The line of a starter that checks the answer: number of the exercise, and name of the answer."""


def public_test(number: str, name: str) -> str:
    """Return the file of a public test.

    Parameters
    ----------
    number : str
        Number of an exercise, such as "1.2".
    name : str
        Name of the answer in the notebook.

    Returns
    -------
    str
        Python code in otter's format: a doctest that prints what is wrong with the answer.

    Examples
    --------
    >>> "check('1.2', directions)" in public_test("1.2", "directions")
    True
    """
    code = (
        ">>> from ntps_utils.exercises import check\n"
        f">>> outcome = check({number!r}, {name})\n"
        '>>> print("" if outcome else outcome, end="")\n'
    )
    case = {"code": code, "hidden": False, "locked": False}
    suite = {"cases": [case], "scored": True, "setup": "", "teardown": "", "type": "doctest"}
    return f"OK_FORMAT = True\n\ntest = { ({'name': question(number), 'points': 1, 'suites': [suite]})!r}\n"


def question(number: str) -> str:
    """Return the name of the question of an exercise.

    Parameters
    ----------
    number : str

    Returns
    -------
    str

    Examples
    --------
    >>> question("1.2")
    'q1_2'
    """
    return f"q{number.replace('.', '_')}"


def assignment(source: Path, found: plain.References, root: Path = ROOT) -> tuple[NotebookNode, dict[str, str]]:
    """Return the student notebook of a chapter with cells for otter, and its public tests.

    Parameters
    ----------
    source : Path
        Source of the chapter.
    found : References
        See :func:`book.tools.refresh.references`.
    root : Path
        Root folder of the repository.

    Returns
    -------
    notebook : NotebookNode
    tests : dict of str to str
        Contents by name of the file.
    """
    notebook = plain.plain(student(source), glued(source.with_suffix(".ipynb")), found, root)
    start = nbformat.v4.new_code_cell(f'import otter\n\ngrader = otter.Notebook("{source.stem}.ipynb")')
    start["id"] = "otter"
    cells: list[NotebookNode] = [start]
    tests: dict[str, str] = {}
    for cell in notebook.cells:
        cells.append(cell)
        call = CALL.search(cell.source) if cell.cell_type == "code" else None
        if call is not None:
            name = question(call["number"])
            tests[f"{name}.py"] = public_test(call["number"], call["name"])
            graded = nbformat.v4.new_code_cell(f'grader.check("{name}")')
            graded["id"] = f"otter-{name}"
            cells.append(graded)
    notebook.cells = cells
    nbformat.validate(notebook)
    return notebook, tests


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m book.tools.otter``.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command-line arguments, by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m book.tools.otter", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="beginning of a chapter's name; by default all")
    options = parser.parse_args(arguments)
    found = references()
    for source in chapters(names=options.chapters):
        notebook, tests = assignment(source, found)
        folder = options.folder / source.stem
        write_text(folder / f"{source.stem}.ipynb", nbformat.writes(notebook) + "\n")
        for name, text in tests.items():
            write_text(folder / "tests" / name, text)
        print(f"{folder}: {len(tests)} questions")


if __name__ == "__main__":
    main()
