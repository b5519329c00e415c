"""Pairs, staleness, profiles, and the site that was built from them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest

from book.tools import refresh as book

CHAPTERS = book.chapters()


@pytest.mark.slow
@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_pairs_agree_and_are_up_to_date(source):
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
def test_chapters_have_what_every_chapter_has(source):
    text = source.read_text()
    assert re.search("After this (chapter|page) you can", text)
    assert "## Summary" in text
    assert 'tags=["parameters"]' in text
    exercises = re.findall(r"^# :label: (ex-\S+)", text, re.M)
    solutions = re.findall(r"```\{solution\} (ex-\S+)\n# :class: dropdown", text)
    assert exercises == solutions
    assert 3 <= len(exercises) <= 5
    assert "provenance_note" in text
    # A number in prose is glued in; a value written by hand would have decimals.
    prose = "\n".join(
        cell.source for cell in nbformat.read(source.with_suffix(".ipynb"), 4).cells if cell.cell_type == "markdown"
    )
    used = set(re.findall(r"\{glue:text\}`([a-z0-9_]+)", prose))
    assert used <= set(book.glued(source.with_suffix(".ipynb")))


@pytest.mark.slow
@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_every_cell_runs_with_other_parameters(source, tmp_path):
    book.execute(source, tmp_path / "out.ipynb", "smoke")
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert notebook.metadata[book.KEY]["profile"] == "smoke"
    # The parameters arrived: the provenance line at the foot says so.
    foot = notebook.cells[-1].outputs[0].data["text/markdown"]
    assert "profile smoke · seed 1" in foot
    assert re.search(r"problems 40|permutations 300|resamples 300|texts (60|80|200)", foot)


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    """A project with one quick chapter."""
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


@pytest.mark.slow
def test_staleness(small_root):
    (source,) = book.chapters(small_root)
    assert "no executed notebook" in book.problem_with(source, small_root)
    book.refresh(small_root)
    assert book.problem_with(source, small_root) is None
    assert book.glued(source.with_suffix(".ipynb")) == {"sum": 7, "word": "a"}
    (small_root / "ntps_utils/unused.py").write_text("x = 1\n")
    assert book.problem_with(source, small_root) is None
    for path in ("ntps_utils/deeper.py", "ntps_utils/used.py", "requirements.lock", "book/profiles/default.yml"):
        old = (small_root / path).read_text()
        (small_root / path).write_text(old + "\n# changed\n")
        assert "stale" in book.problem_with(source, small_root), path
        (small_root / path).write_text(old)
    source.write_text(source.read_text() + "\n# %%\n1\n")
    assert "differs" in book.problem_with(source, small_root)
    assert book.check(small_root) == 1


@pytest.mark.slow
def test_what_changes_while_a_chapter_runs_makes_it_stale(small_root):
    (source,) = book.chapters(small_root)
    used = small_root / "ntps_utils/used.py"
    source.write_text(source.read_text() + f"\n# %%\nopen({str(used)!r}, 'a').write('# changed')\n")
    book.refresh(small_root)
    assert "stale" in book.problem_with(source, small_root)


@pytest.mark.slow
@pytest.mark.parametrize("when", [0.0, 4e9])
def test_the_clock_does_not_decide_what_is_stale(small_root, when):
    """Files of 1970 or of 2096, older or newer than what was made from them: contents count."""
    (source,) = book.chapters(small_root)
    book.refresh(small_root)
    made = source.with_suffix(".ipynb").read_bytes()
    for path in (p for p in small_root.rglob("*") if p.is_file()):
        os.utime(path, (when, when))
    assert book.problem_with(source, small_root) is None
    book.refresh(small_root)
    assert source.with_suffix(".ipynb").read_bytes() == made
    (small_root / "ntps_utils/used.py").write_text("x = 1\n")
    os.utime(small_root / "ntps_utils/used.py", (when, when))
    assert "stale" in book.problem_with(source, small_root)


@pytest.mark.slow
def test_executing_twice_gives_the_same_file(small_root):
    (source,) = book.chapters(small_root)
    book.execute(source, source.with_suffix(".ipynb"), root=small_root)
    first = re.sub(r'"seconds": [\d.]+', "", source.with_suffix(".ipynb").read_text())
    book.execute(source, source.with_suffix(".ipynb"), root=small_root)
    assert re.sub(r'"seconds": [\d.]+', "", source.with_suffix(".ipynb").read_text()) == first


@pytest.mark.slow
def test_a_failing_cell_leaves_the_old_notebook(small_root):
    (source,) = book.chapters(small_root)
    book.refresh(small_root)
    old = source.with_suffix(".ipynb").read_bytes()
    source.write_text(source.read_text() + "\n# %%\n1 / 0\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        book.refresh(small_root)
    assert source.with_suffix(".ipynb").read_bytes() == old


@pytest.mark.slow
def test_reproduce_compares_numbers(small_root, capsys):
    book.refresh(small_root)
    assert book.reproduce(small_root) == 0
    path = small_root / "notebooks/01_small.ipynb"
    path.write_text(
        path.read_text().replace(
            '"application/papermill.record/text/plain": "7"', '"application/papermill.record/text/plain": "8"'
        )
    )
    assert book.reproduce(small_root) == 1
    assert "sum: 8 committed, 7 now" in capsys.readouterr().out


def test_differences():
    assert book.differences({"a": 1.0, "b": "x"}, {"a": 1.00001, "b": "x"}) == []
    assert book.differences({"a": 1e-9}, {"a": 3e-9}) == []
    assert len(book.differences({"a": 1.0, "b": "x"}, {"a": 1.1, "b": "y"})) == 2
    assert book.differences({"a": 1.0}, {}) == ["a: 1.0 committed, None now"]


def test_unknown_profile():
    with pytest.raises(ValueError, match="no profile 'none'; profiles: default, smoke"):
        book.profile("none", "01")


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_student_notebooks_have_exercises_and_no_solutions(source):
    notebook = book.student(source)
    nbformat.validate(notebook)
    text = "\n".join(c.source for c in notebook.cells)
    full = source.read_text()
    assert text.count("```{exercise}") == full.count("```{exercise}") >= 3
    assert "{solution}" not in text
    assert "# Your answer." in text
    assert not any("solution" in c.metadata.get("tags", []) for c in notebook.cells)
    assert all(not c.get("outputs") for c in notebook.cells)
