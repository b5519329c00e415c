"""Chapters: pairs of source and notebook, staleness, profiles, and the commands of book.tools.refresh."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest

import ntps_utils
from book.tools import bench
from book.tools import refresh as book
from ntps_utils.theory.released import released_ntps
from tests.conftest import ROOT

CHAPTERS = book.chapters()


@pytest.mark.slow
@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_notebooks_are_up_to_date(source):
    assert book.problem_with(source) is None


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_committed_notebooks_are_clean(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert set(notebook.metadata) == {"kernelspec", "language_info", book.KEY}
    for cell in notebook.cells:
        assert "injected-parameters" not in cell.metadata.get("tags", [])
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr"
            assert output.output_type != "error"
            if output.output_type == "display_data" and "image/png" in output.data:
                options = cell.metadata["mystnb"]
                assert len(options["image"]["alt"]) > 40
                assert options["figure"]["caption"].endswith(".")
                assert options["figure"]["name"].startswith("fig-")


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_chapters_have_objectives_summary_parameters_and_solved_exercises(source):
    text = source.read_text()
    assert re.search("After this (chapter|page) you can", text)
    assert "## Summary" in text
    assert 'tags=["parameters"]' in text
    exercises = re.findall(r"^# :label: (ex-\S+)", text, re.M)
    solutions = re.findall(r"```\{solution\} (ex-\S+)\n# :class: dropdown", text)
    assert exercises == solutions
    assert 3 <= len(exercises) <= 8
    assert "provenance_note" in text
    # Values in the prose are inserted by glue.
    prose = "\n".join(
        cell.source for cell in nbformat.read(source.with_suffix(".ipynb"), 4).cells if cell.cell_type == "markdown"
    )
    used = set(re.findall(r"\{glue:text\}`([a-z0-9_]+)", prose))
    assert used <= set(book.glued(source.with_suffix(".ipynb")))


def quiz_questions(text: str) -> list[str]:
    """Return the questions of the quiz in the source of a chapter, with their options and answers."""
    quiz = text[text.index("# ## Quiz") : text.index("# ## Exercises")]
    return re.split(r"^# \*\*\d\.\*\* ", quiz, flags=re.M)[1:]


def options_without_a_word(question: str) -> set[str]:
    """Return the options of a question of which its answer says nothing."""
    answer = question[question.index("{admonition} Answer") :]
    return {"a", "b", "c"} - set(re.findall(r"\(([a-c])\)", answer))


def figures_without_text(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the names of the figures that no paragraph follows before the next figure."""
    missing, last = [], None
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure:
            missing.append(last)
            last = figure["name"]
        elif cell.cell_type == "markdown" and re.search(r"^[^#\s].*\S", cell.source, re.M):
            last = None
    return [name for name in [*missing, last] if name]


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_chapters_have_three_quiz_questions_with_answers(source):
    questions = quiz_questions(source.read_text("utf-8"))
    assert len(questions) == 3
    for question in questions:
        options = re.findall(r"^# - \(([a-c])\) \S", question, re.M)
        assert options == ["a", "b", "c"]
        (right,) = re.findall(r"^# \(([a-c])\)\. \S", question, re.M)
        assert right in options
        assert not options_without_a_word(question), question


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_text_follows_every_figure(source):
    assert figures_without_text(jupytext.read(source)) == []


def figure(name: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell("1", metadata={"mystnb": {"figure": {"caption": "One.", "name": name}}})


def markdown(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source)


@pytest.mark.parametrize(
    ("cells", "missing"),
    [
        ([figure("fig-a"), markdown("It rises."), figure("fig-b"), markdown("## Next\n\nIt falls.")], []),
        ([figure("fig-a"), figure("fig-b"), markdown("It rises.")], ["fig-a"]),
        ([markdown("It rises."), figure("fig-a"), nbformat.v4.new_code_cell("2"), markdown("## Next\n\n")], ["fig-a"]),
    ],
)
def test_figures_without_text_are_found(cells, missing):
    assert figures_without_text(nbformat.v4.new_notebook(cells=cells)) == missing


def test_answers_without_a_word_about_an_option_are_found():
    question = (
        "Which?\n# - (a) One\n# - (b) Two\n# - (c) Three\n# :::{admonition} Answer\n# (b). Two is right. (a) is less."
    )
    assert options_without_a_word(question) == {"c"}


def test_sessions_of_the_teaching_plan_take_ninety_minutes():
    text = (ROOT / "book" / "teaching.md").read_text("utf-8")
    sessions = re.split(r"^### Session ", text, flags=re.M)[1:]
    assert len(sessions) == 4
    for session in sessions:
        assert sum(map(int, re.findall(r"^\| (\d+) \|", session.split("\n## ")[0], re.M))) == 90


WITHOUT_TORCH = """
import ast, pathlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "datasets", "peft"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
tree = ast.parse(pathlib.Path(sys.argv[1]).read_text())
imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
exec(compile(ast.Module(imports, []), "imports", "exec"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", CHAPTERS[:3], ids=lambda p: p.stem)
def test_theory_chapters_import_without_torch(source):
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, source], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_chapters_run_with_the_smoke_profile(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_never_to_be_shown_anywhere")
    book.execute(source, tmp_path / "out.ipynb", "smoke")
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert notebook.metadata[book.KEY]["profile"] == "smoke"
    written = (tmp_path / "out.ipynb").read_text()
    assert "hf_never_to_be_shown" not in written
    assert str(Path.home()) not in written
    # The provenance note in the last cell contains the parameters.
    note = notebook.cells[-1].outputs[0].data["text/markdown"]
    assert "profile smoke · seed 1" in note
    assert re.search(r"problems 40|permutations 300|resamples 300|texts (60|80|200)", note)


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    """A repository with one quick chapter."""
    for folder in ("notebooks", "book/profiles", "ntps_utils"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "requirements.lock").write_text("# none\n")
    (tmp_path / "book/profiles/default.yml").write_text("all: {seed: 5}\n01_small: {n: 2}\n")
    (tmp_path / "ntps_utils/used.py").write_text("import ntps_utils.deeper\n")
    (tmp_path / "ntps_utils/deeper.py").write_text("")
    (tmp_path / "ntps_utils/unused.py").write_text("")
    (tmp_path / "notebooks/01_small.py").write_text(
        '# %% tags=["parameters"]\nseed, n = 0, 0\n\n# %%\nif False:\n    from ntps_utils import used\n\n'
        '# %%\nfrom myst_nb import glue\nglue("sum", seed + n, display=False)\nglue("word", "a", display=False)\n'
    )
    return tmp_path


# -- what a chapter depends on -----------------------------------------------------


@pytest.fixture
def package_root(tmp_path: Path) -> Path:
    """A repository with package files and a table of public names."""
    files = {
        "assets/one.html": "",
        "assets/two.html": "",
        "data/models.toml": "",
        "data/lab/XS/model": "",
        "data/recorded/lab_cells.csv": "",
        "data/recorded/lab_cells.json": "",
        "__init__.py": '_EXPORTS = {"score": "ntps_utils.reader"}\n',
        "reader.py": "from ntps_utils._utils.files import data_file\ndata_file('models.toml')\n",
        "_utils/files.py": "def data_file(name): ...\ndef asset_text(name): ...\n",
    }
    for name, text in files.items():
        path = tmp_path / "ntps_utils" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


MODELS, LAB = {"data/models.toml"}, {"data/lab/XS/model"}
CSV, CELLS = {"data/recorded/lab_cells.csv"}, {"data/recorded/lab_cells.csv", "data/recorded/lab_cells.json"}
IMPORT = "from ntps_utils._utils.files import asset_text, data_file\n"
RECORDS = "from ntps_utils.evidence.records import load_record\n"


@pytest.mark.parametrize(
    ("code", "files"),
    [
        (IMPORT, set()),
        (f"{IMPORT}data_file('models.toml')", MODELS),
        (f"{IMPORT}data_file('lab')", LAB),
        (f"{IMPORT}data_file('lab') / 'XS'", LAB),
        (f"{IMPORT}data_file(f'{{kind}}.toml')", MODELS),
        (f"{IMPORT}data_file(f'recorded/{{name}}_{{what}}.csv')", CSV),
        (f"{IMPORT}data_file('recorded/' + name)", MODELS | LAB | CELLS),
        (f"{IMPORT}list(map(data_file, names))", MODELS | LAB | CELLS),
        (f"{IMPORT}asset_text('one.html')", {"assets/one.html"}),
        ("from ntps_utils._utils.files import data_file as d\nd('models.toml')", MODELS),
        ("from ntps_utils._utils import files\nfiles.data_file('models.toml')", MODELS),
        (f"{RECORDS}load_record('lab_cells')", {"data/recorded/lab_cells.json"}),
        (f"{RECORDS}load_record(name)", {"data/recorded/lab_cells.json"}),
        ("def data_file(name): ...\ndata_file('models.toml')", set()),
        (f"{IMPORT}def load_record(name): return data_file(f'recorded/{{name}}.json')", set()),
    ],
)
def test_package_files_are_found_from_the_calls_that_read_them(package_root, code, files):
    module = package_root / "module.py"
    module.write_text(code + "\n")
    paths = book.files_read(module, package_root)
    assert {path.relative_to(package_root / "ntps_utils").as_posix() for path in paths} == files


@pytest.mark.parametrize("code", ["import ntps_utils as ntps\nntps.score", "from ntps_utils import score"])
def test_modules_behind_public_names_are_dependencies(package_root, code):
    source = package_root / "01_chapter.py"
    source.write_text(code + "\n")
    paths = {path.relative_to(package_root).as_posix() for path in book.dependencies(source, package_root)}
    assert paths == {
        "01_chapter.py",
        "ntps_utils/__init__.py",
        "ntps_utils/reader.py",
        "ntps_utils/_utils/files.py",
        "ntps_utils/data/models.toml",
        "requirements.lock",
        "book/profiles/default.yml",
    }


@pytest.mark.slow
def test_library_reads_package_files_only_through_its_two_functions():
    """Otherwise a change of a package file would not make the chapters that show it stale."""
    for path in (ROOT / "ntps_utils").rglob("*.py"):
        if path.name not in ("files.py", "provenance.py") or path.parent.name != "_utils":
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
                assert not {"resources", "importlib.resources"} & set(names), path
                assert not (isinstance(node, ast.Name) and node.id == "__file__"), path


def test_every_call_that_reads_package_files_matches_a_file():
    modules = [path for path in (ROOT / "ntps_utils").rglob("*.py") if path.name != "files.py"]
    readers = [
        path
        for path in modules
        if any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in book.READERS
            for node in ast.walk(ast.parse(path.read_text()))
        )
    ]
    readers.remove(ROOT / "ntps_utils/evidence/records.py")  # it reads what its callers name
    assert len(readers) > 3
    assert all(book.files_read(path) for path in readers)


@pytest.mark.slow
def test_notebooks_are_stale_after_a_change_of_what_they_depend_on(small_root):
    (source,) = book.chapters(small_root)
    assert "no executed notebook" in book.problem_with(source, small_root)
    book.refresh(root=small_root)
    assert book.problem_with(source, small_root) is None
    assert book.glued(source.with_suffix(".ipynb")) == {"sum": 7, "word": "a"}
    (small_root / "ntps_utils/unused.py").write_text("x = 1\n")
    assert book.problem_with(source, small_root) is None
    for path in ("ntps_utils/deeper.py", "ntps_utils/used.py", "requirements.lock", "book/profiles/default.yml"):
        old = (small_root / path).read_text()
        (small_root / path).write_text(old + ("\nchanged = 1\n" if path.endswith(".py") else "\n# changed\n"))
        assert "stale" in book.problem_with(source, small_root), path
        if path.endswith(".py"):
            (small_root / path).write_text(f'"""Docstring."""\n# comment\n{old}')
            assert book.problem_with(source, small_root) is None, path
        (small_root / path).write_text(old)
    source.write_text(source.read_text() + "\n# %%\n1\n")
    assert "differs" in book.problem_with(source, small_root)
    assert book.check(root=small_root) == 1


@pytest.mark.slow
def test_a_chapter_of_which_only_the_text_changed_keeps_its_results(small_root, monkeypatch):
    (source,) = book.chapters(small_root)
    book.refresh(root=small_root)
    old = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    code = source.read_text()
    source.write_text(code + "\n# %% [markdown]\n# A new paragraph.\n")
    assert "text" in book.problem_with(source, small_root)
    monkeypatch.setattr(book, "execute", None)  # it must not be called
    book.refresh(root=small_root)
    new = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert book.problem_with(source, small_root) is None
    assert new.cells[-1].source == "A new paragraph."
    outputs = [[c.outputs for c in nb.cells if c.cell_type == "code"] for nb in (old, new)]
    assert outputs[0] == outputs[1]
    assert any(outputs[0])
    assert new.metadata == old.metadata


@pytest.mark.slow
def test_notebooks_are_stale_after_a_change_during_their_execution(small_root):
    (source,) = book.chapters(small_root)
    used = small_root / "ntps_utils/used.py"
    source.write_text(source.read_text() + f"\n# %%\nopen({str(used)!r}, 'a').write('changed = 1')\n")
    book.refresh(root=small_root)
    assert "stale" in book.problem_with(source, small_root)


@pytest.mark.slow
@pytest.mark.parametrize("mtime", [0.0, 4e9])
def test_staleness_does_not_depend_on_dates(small_root, mtime):
    """The files are dated 1970 or 2096."""
    (source,) = book.chapters(small_root)
    book.refresh(root=small_root)
    before = source.with_suffix(".ipynb").read_bytes()
    for path in (p for p in small_root.rglob("*") if p.is_file()):
        os.utime(path, (mtime, mtime))
    assert book.problem_with(source, small_root) is None
    book.refresh(root=small_root)
    assert source.with_suffix(".ipynb").read_bytes() == before
    (small_root / "ntps_utils/used.py").write_text("x = 1\n")
    os.utime(small_root / "ntps_utils/used.py", (mtime, mtime))
    assert "stale" in book.problem_with(source, small_root)


@pytest.mark.slow
def test_executing_twice_gives_the_same_file(small_root):
    (source,) = book.chapters(small_root)
    book.execute(source, source.with_suffix(".ipynb"), root=small_root)
    first = re.sub(r'"seconds": [\d.]+', "", source.with_suffix(".ipynb").read_text())
    book.execute(source, source.with_suffix(".ipynb"), root=small_root)
    assert re.sub(r'"seconds": [\d.]+', "", source.with_suffix(".ipynb").read_text()) == first


@pytest.mark.slow
def test_failing_cells_leave_the_old_notebook(small_root):
    (source,) = book.chapters(small_root)
    book.refresh(root=small_root)
    old = source.with_suffix(".ipynb").read_bytes()
    source.write_text(source.read_text() + "\n# %%\n1 / 0\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        book.refresh(root=small_root)
    assert source.with_suffix(".ipynb").read_bytes() == old


@pytest.mark.slow
def test_reproduce_compares_glued_values(small_root, capsys):
    book.refresh(root=small_root)
    assert book.reproduce(root=small_root) == 0
    path = small_root / "notebooks/01_small.ipynb"
    path.write_text(
        path.read_text().replace(
            '"application/papermill.record/text/plain": "7"', '"application/papermill.record/text/plain": "8"'
        )
    )
    assert book.reproduce(root=small_root) == 1
    assert "sum: 8 committed, 7 now" in capsys.readouterr().out


def test_differences_are_relative_and_ignore_rounding_errors():
    assert book.differences({"a": 1.0, "b": "x"}, {"a": 1.00001, "b": "x"}) == []
    assert book.differences({"a": 1e-9}, {"a": 3e-9}) == []
    assert len(book.differences({"a": 1.0, "b": "x"}, {"a": 1.1, "b": "y"})) == 2
    assert book.differences({"a": 1.0}, {}) == ["a: 1.0 committed, None now"]


# -- commands ----------------------------------------------------------------------


def test_unknown_profiles_are_errors_with_the_valid_names():
    with pytest.raises(book.BookError, match="no profile 'none'; profiles: default, smoke"):
        book.profile("none", "01")


@pytest.mark.parametrize("command", [["refresh"], ["check"], ["reproduce"], ["prepare"], ["run", "smoke"]])
def test_no_chapters_is_an_error_that_names_the_search(tmp_path, capsys, command):
    assert book.main(command, tmp_path) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"There are no chapters: no file matches {tmp_path}/notebooks/[0-9]*.py.\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["build"], ["check", "--all"], ["prepare", "04"], ["run"]],
    ids=lambda arguments: " ".join(arguments) or "none",
)
def test_invalid_arguments_print_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        book.main(arguments)
    assert raised.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("usage: python -m book.tools.refresh")


@pytest.fixture
def three_chapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A repository with three chapters, and the list of those that are executed."""
    (tmp_path / "notebooks").mkdir()
    for name in ("01_one", "02_two", "03_three"):
        (tmp_path / f"notebooks/{name}.py").write_text("# %%\n1\n")
    executed: list[str] = []

    def execute(source: Path, *_: object, **__: object) -> float:
        executed.append(source.stem)
        return 0.0

    monkeypatch.setattr(book, "execute", execute)
    return tmp_path, executed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["refresh"], ["01_one", "02_two", "03_three"]),
        (["refresh", "02"], ["02_two"]),
        (["refresh", "03_three", "01"], ["01_one", "03_three"]),
        (["refresh", "0"], ["01_one", "02_two", "03_three"]),
        (["run", "smoke", "02"], ["02_two"]),
    ],
)
def test_chapters_are_selected_by_the_beginning_of_their_names(three_chapters, arguments, expected):
    root, executed = three_chapters
    assert book.main(arguments, root) == 0
    assert executed == expected


@pytest.mark.parametrize("name", ["04", "two", ""])
@pytest.mark.parametrize("command", [["refresh"], ["check"], ["reproduce"], ["run", "smoke"]])
def test_unknown_chapters_are_errors_with_the_valid_names(three_chapters, capsys, command, name):
    root, executed = three_chapters
    assert book.main([*command, "01", name], root) == 2
    assert capsys.readouterr().err == f"No chapter begins with {name!r}; chapters: 01_one, 02_two, 03_three.\n"
    assert executed == []


def test_check_reports_each_chapter_without_a_notebook(three_chapters, capsys):
    root, _ = three_chapters
    assert book.main(["check"], root) == 1
    assert capsys.readouterr().out.splitlines()[0] == "01_one.py has no executed notebook."
    assert book.main(["prepare"], root) == 2
    assert capsys.readouterr().err == "01_one.py has no executed notebook; run `make notebooks`.\n"


# -- pages -------------------------------------------------------------------------


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_student_notebooks_have_exercises_without_solutions(source):
    notebook = book.student(source)
    nbformat.validate(notebook)
    text = "\n".join(c.source for c in notebook.cells)
    full = source.read_text()
    assert text.count("```{exercise}") == full.count("```{exercise}") >= 3
    assert "{solution}" not in text
    assert text.count("# Your answer.") == full.count("```{exercise}")
    for starter in re.findall(r"check\(\"[\d.]+\", \w+\)", full):
        assert starter in "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    assert not any("solution" in c.metadata.get("tags", []) for c in notebook.cells)
    assert all(not c.get("outputs") for c in notebook.cells)


PACKAGES = {"ntps_utils", "ntps_utils.cli", "ntps_utils.evidence", "ntps_utils.models", "ntps_utils.theory"}
"""Packages that contain only modules, or, as the first one, names of other modules."""


def test_api_pages_list_the_public_modules_and_names():
    page = (ROOT / "book" / "api.md").read_text("utf-8")
    others = "\n".join(path.read_text("utf-8") for path in (ROOT / "book" / "api").glob("*.md"))
    modules = set()
    for path in (ROOT / "ntps_utils").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            modules.add(".".join(parts))
    assert sorted(re.findall(r"automodule:: (\S+)", others)) == sorted(modules - PACKAGES)
    names = {f"{module}.{name}" for name, module in ntps_utils._EXPORTS.items()}
    assert set(re.findall(r"^\| \{py:obj\}`~(\S+)` \|", page, re.M)) == names


def test_bench_measures_ratios():
    facts = bench.bench_extraction(bench.SHAPES["tiny"], "cpu", n_texts=4, longest=12, batch_size=2, repeats=1)
    assert facts["n_texts"] == 4
    assert min(facts["ratio_to_forward"], facts["textbook_ratio"], facts["tokens_per_second"]) > 0
    moments = bench.random_moments(16, 400)
    scores = bench.bench_scores([moments], repeats=1)
    assert scores["widths"] == 16 * 10
    assert min(scores["ratio_to_released"], scores["ratio_to_released_float64"], scores["seconds"]) > 0
    released = [released_ntps(moments, share, single=False) for share in np.arange(1, 20) / 20]
    np.testing.assert_allclose(bench.released_scores(moments, single=False)[1:], released[1:], rtol=1e-9)
