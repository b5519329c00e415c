"""Keeping the book's notebooks in step with what made them.

A chapter is a pair: ``notebooks/NN_name.py`` (py:percent, the source that people
review) and ``NN_name.ipynb`` (made from it, executed, committed). Traffic goes one way,
from .py to .ipynb. Each executed notebook carries a hash of everything that it depends
on; a different hash means stale.

    python -m book.tools.refresh refresh     execute stale chapters
    python -m book.tools.refresh check       fail on a stale or differing pair
    python -m book.tools.refresh reproduce   execute all, compare numbers with the committed ones
    python -m book.tools.refresh prepare     student notebooks and generated tables, for the site
    python -m book.tools.refresh run NAME    execute all with book/profiles/NAME.yml into runs/NAME
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import yaml
from nbformat import NotebookNode

from ntps_utils._utils.files import atomic_path
from ntps_utils._utils.provenance import sources

ROOT = Path(__file__).resolve().parents[2]
KEY = "ntps"


def chapters(root: Path = ROOT) -> list[Path]:
    """Sources of all chapters, in order."""
    return sorted((root / "notebooks").glob("[0-9]*.py"))


def dependencies(source: Path, root: Path = ROOT) -> list[Path]:
    """Files that decide what a chapter shows: itself, the rooms it uses, assets, profile and lock."""
    found = sources(source, root)
    for reader, folder in (("asset_text(", "assets"), ("data_file(", "data")):
        if any(reader in path.read_text("utf-8") for path in found if path.name != "files.py"):
            found |= {p for p in (root / "ntps_utils" / folder).rglob("*") if p.is_file()}
    found |= {root / "requirements.lock", root / "book" / "profiles" / "default.yml"}
    return sorted(found)


def fingerprint(source: Path, root: Path = ROOT) -> str:
    """Hash of everything that a chapter depends on."""
    digest = hashlib.sha256()
    for path in dependencies(source, root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def profile(name: str, chapter: str, root: Path = ROOT) -> dict[str, Any]:
    """Papermill parameters of a profile for a chapter: its ``all`` section, then its own.

    Raises
    ------
    ValueError
        If there is no such profile.
    """
    path = root / "book" / "profiles" / f"{name}.yml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml")))
        raise ValueError(f"There is no profile {name!r}; profiles: {there}.")
    settings = yaml.safe_load(path.read_text("utf-8")) or {}
    return {"profile": name} | settings.get("all", {}) | settings.get(chapter, {})


def _source_notebook(source: Path) -> NotebookNode:
    notebook = jupytext.read(source)
    # Cell ids must not change from run to run, or every refresh would be a diff.
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:03d}"
    return notebook


def execute(source: Path, target: Path, profile_name: str = "default", root: Path = ROOT) -> float:
    """Execute a chapter and write the cleaned notebook; returns seconds.

    The target is replaced only if every cell ran.
    """
    started = time.perf_counter()
    made_of = fingerprint(source, root)  # before: what changes while the chapter runs makes it stale
    # Small matrices gain nothing from threads, lose much on a busy machine, and round alike with one.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch, "in.ipynb"), Path(scratch, "out.ipynb")
        notebook_source = _source_notebook(source)
        nbformat.write(notebook_source, before)
        papermill.execute_notebook(
            before,
            after,
            parameters=profile(profile_name, source.stem, root),
            kernel_name="python3",
            language="python",
            cwd=root / "notebooks",
            progress_bar=False,
            log_output=False,
        )
        notebook = nbformat.read(after, as_version=4)
    seconds = time.perf_counter() - started
    _clean(notebook, notebook_source)
    notebook.metadata[KEY] = {
        "fingerprint": made_of,
        "profile": profile_name,
        "seconds": round(seconds, 1),
    }
    nbformat.validate(notebook)
    with atomic_path(target) as temporary:
        temporary.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return seconds


def _clean(notebook: NotebookNode, source: NotebookNode) -> None:
    """Drop what papermill and this machine added: injected parameters, timings, paths."""
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
    """What is wrong with a pair, in a sentence; None if nothing is."""
    path = source.with_suffix(".ipynb")
    if not path.is_file():
        return f"{source.name} has no executed notebook beside it."
    notebook = nbformat.read(path, as_version=4)
    mine = [(c.cell_type, c.source) for c in _source_notebook(source).cells]
    theirs = [(c.cell_type, c.source) for c in notebook.cells]
    if mine != theirs:
        return f"{path.name} differs from {source.name}."
    record = notebook.metadata.get(KEY, {})
    if record.get("fingerprint") != fingerprint(source, root) or record.get("profile") != "default":
        return f"{path.name} is stale: its source, the library, the data or the lock changed after it ran."
    return None


def glued(path: Path) -> dict[str, Any]:
    """Numbers and words that a notebook glued into its prose, by name."""
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


def differences(old: Mapping[str, Any], new: Mapping[str, Any], rtol: float = 1e-4) -> list[str]:
    """Names whose values differ: numbers by more than ``rtol``, anything else at all."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
        # Rounding errors are glued too; below 1e-6 only their size is a statement.
        same = math.isclose(a, b, rel_tol=rtol, abs_tol=1e-6) if numbers else a == b  # type: ignore[arg-type]
        if not same:
            found.append(f"{name}: {a!r} committed, {b!r} now")
    return found


def refresh(root: Path = ROOT) -> None:
    """Execute the chapters that are stale."""
    for source in chapters(root):
        problem = problem_with(source, root)
        if problem is None:
            print(f"{source.stem}: up to date")
            continue
        print(f"{source.stem}: executing ({problem})", flush=True)
        print(f"{source.stem}: {execute(source, source.with_suffix('.ipynb'), root=root):.0f} s", flush=True)


def check(root: Path = ROOT) -> int:
    """Number of pairs with a problem, each told in a line."""
    problems = [p for p in (problem_with(source, root) for source in chapters(root)) if p]
    print("\n".join(problems) or "All notebooks are up to date.")
    return len(problems)


def reproduce(root: Path = ROOT) -> int:
    """Execute every chapter afresh; number of glued values that differ from the committed ones."""
    n_different, kept = 0, dict[str, dict[str, int]]()
    for source in chapters(root):
        target = root / "runs" / "reproduce" / f"{source.stem}.ipynb"
        seconds = execute(source, target, root=root)
        committed = glued(source.with_suffix(".ipynb"))
        found = differences(committed, glued(target))
        n_different += len(found)
        kept[source.stem] = {"values": len(committed), "different": len(found)}
        print(f"{source.stem}: {len(committed)} values, {len(found)} differ ({seconds:.0f} s)")
        for line in found:
            print(f"  {line}")
    with atomic_path(root / "runs" / "reproduce.json") as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return n_different


SOLUTION = re.compile(r"^```{solution}.*?^```\n?", re.M | re.S)


def student(source: Path) -> NotebookNode:
    """A chapter without its solutions, and with an empty cell after each set of exercises; nothing is executed."""
    notebook = _source_notebook(source)
    cells = []
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub("", cell.source).strip()
            if not cell.source:
                continue
        cells.append(cell)
        if cell.cell_type == "markdown" and "```{exercise}" in cell.source:
            answer = nbformat.v4.new_code_cell("# Your answer.")
            answer["id"] = f"{cell['id']}-answer"
            cells.append(answer)
    notebook.cells = cells
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    return notebook


def timings(root: Path = ROOT) -> str:
    """A table of how long each committed notebook took to execute, as Markdown."""
    lines, total = ["| chapter | seconds |", "| --- | ---: |"], 0.0
    for source in chapters(root):
        notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
        title = next(c.source for c in notebook.cells if c.cell_type == "markdown").splitlines()[0].lstrip("# ")
        seconds = notebook.metadata[KEY]["seconds"]
        total += seconds
        lines.append(f"| {{doc}}`{title} </notebooks/{source.stem}>` | {seconds:.0f} |")
    return "\n".join([*lines, f"| all | {total:.0f} |", ""])


def attacks(root: Path = ROOT) -> str:
    """What ``python -m tests.attacks`` gathered in ``book/attacks.json``, as a Markdown table."""
    found = json.loads((root / "book" / "attacks.json").read_text("utf-8"))
    lines = ["| attack | what came of it | repeat with | on |", "| --- | --- | --- | --- |"]
    lines += [f"| {row['attack']} | {row['result']} | `{row['command']}` | {row['date']} |" for row in found]
    return "\n".join([*lines, ""])


def prepare(root: Path = ROOT) -> None:
    """Write what the site is built from beside the sources: student notebooks, tables of timings and attacks."""
    for source in chapters(root):
        with atomic_path(root / "book" / "students" / f"{source.stem}.ipynb") as temporary:
            temporary.write_text(nbformat.writes(student(source)) + "\n", encoding="utf-8")
    for name, text in (("timings", timings(root)), ("attacks", attacks(root))):
        with atomic_path(root / "book" / "generated" / f"{name}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")


def run(name: str, root: Path = ROOT) -> None:
    """Execute every chapter with another profile into ``runs/NAME``."""
    for source in chapters(root):
        seconds = execute(source, root / "runs" / name / f"{source.stem}.ipynb", name, root)
        print(f"{source.stem}: {seconds:.0f} s", flush=True)


def main(arguments: list[str]) -> int:
    """Entry point of ``python -m book.tools.refresh``."""
    match arguments:
        case ["refresh"]:
            refresh()
        case ["check"]:
            return min(check(), 1)
        case ["reproduce"]:
            return min(reproduce(), 1)
        case ["prepare"]:
            prepare()
        case ["run", name]:
            try:
                run(name)
            except ValueError as error:
                print(error, file=sys.stderr)
                return 2
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
