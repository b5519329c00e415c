"""Assignments for otter-grader: each exercise has a public test, which passes for its solution only."""

from __future__ import annotations

import doctest

import nbformat
import pytest

from book.tools import otter
from book.tools import refresh as book
from tests.test_exercises import ANSWERS

SOURCES = book.chapters()
FOUND = book.references()


def run(code: str, answer: object) -> doctest.TestResults:
    """Run a public test as otter does: as a doctest in the names of the notebook."""
    files: dict = {}
    exec(code, files)
    (suite,) = files["test"]["suites"]
    name = suite["cases"][0]["code"].split(", ")[1].split(")")[0]
    parsed = doctest.DocTestParser().get_doctest(suite["cases"][0]["code"], {name: answer}, "q", None, None)
    return doctest.DocTestRunner(verbose=False).run(parsed, out=lambda _: None)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_exercise_has_a_question_and_a_cell_that_grades_it(source):
    notebook, tests = otter.assignment(source, FOUND)
    nbformat.validate(notebook)
    text = "".join(cell.source for cell in notebook.cells)
    chapter = str(int(source.stem[:2]))
    numbers = [number for number in ANSWERS if number.split(".")[0] == chapter]
    assert sorted(tests) == sorted(f"{otter.question(number)}.py" for number in numbers)
    for number in numbers:
        assert f'grader.check("{otter.question(number)}")' in text
        assert f'check("{number}", ' in text
    assert "{solution}" not in text
    assert "Solution" not in text
    assert "otter.Notebook" in notebook.cells[0].source


@pytest.mark.parametrize("number", ANSWERS)
def test_public_tests_pass_for_the_solution_only(number):
    solution, mistakes = ANSWERS[number]
    code = otter.public_test(number, "answer")
    assert run(code, solution).failed == 0
    for wrong in mistakes.values():
        assert run(code, wrong).failed == 1


def test_assignments_are_written_to_a_folder(tmp_path, capsys):
    otter.main([str(tmp_path), "09"])
    folder = tmp_path / "09_predicting_the_gain"
    assert (folder / "09_predicting_the_gain.ipynb").is_file()
    assert len(list((folder / "tests").glob("q9_*.py"))) == 3
    assert "3 questions" in capsys.readouterr().out
